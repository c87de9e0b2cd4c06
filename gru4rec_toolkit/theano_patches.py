"""Patches of Theano 1.0.5, its last stable release, where it errs, or loses memory or modules.

`apply` is called by `theano_setup` once Theano is imported; nothing here imports Theano first.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import logging
import os
import pickle
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from gru4rec_toolkit import compile_directory
from gru4rec_toolkit.errors import InputError

logger = logging.getLogger("gru4rec")

# a cache that is cleared more often while this process compiles is cleared by mistake
_TRIES = 3
# seconds between two looks at another process's lock, and after which a user is told what it is
_BETWEEN_LOOKS = 0.1, 0.3
_LONG = 5


def apply() -> None:
    """Patch the Theano that is imported."""
    _set_rows_once()
    _free_buffers_of_looked_up_rows()
    _find_modules_of_other_processes()
    _write_keys_whole()
    _survive_cleared_caches()
    _survive_a_cleared_runner()
    _log_what_failed()
    _lock_at_once_or_not_at_all()
    _pass_failures_through_optimizers()
    _compile_one_at_a_time()


def _set_rows_once() -> None:
    """Keep a rewrite away that makes table[index] += x of set(table[index], table[index] + x).

    Where a row comes up several times in the index, it is set once, but would be added to as often.
    """
    rewrite = importlib.import_module("theano.tensor.opt").local_set_to_inc_subtensor
    rewrite.transform = lambda node: None


def _free_buffers_of_looked_up_rows() -> None:
    """Make the look-up of rows give back the buffer that it no longer needs.

    Where its C code reuses the buffer of the last call, it takes one reference too many. A buffer
    is then never freed when the number of rows changes: with every session at an epoch's end.
    """
    op = importlib.import_module("theano.tensor.subtensor").AdvancedSubtensor1
    code_of, version_of = op.c_code, op.c_code_cache_version

    def c_code(self, node, name, inputs, outputs, sub):
        (out,) = outputs
        take, done = f"{out} = (PyArrayObject*)PyArray_TakeFrom(", "Py_DECREF(indices);"
        code = code_of(self, node, name, inputs, outputs, sub)
        code = code.replace(take, f"reused = {out};\n{take}")
        code = code.replace(done, f"{done}\nif (reused && reused == {out}) Py_DECREF(reused);")
        return f"PyArrayObject* reused;\n{code}"

    op.c_code = c_code
    op.c_code_cache_version = lambda self: (*version_of(self), 1)


def _find_modules_of_other_processes() -> None:
    """Make all compiled modules be found again by later processes.

    Two kinds were compiled anew by each process, seconds every time, and what they left behind made
    every later start slower. Ops with their code in files (transposes among them): their version is
    Python's hash of the code, and that of strings differs from process to process. And Ops without
    properties: an empty tuple of these is taken for a missing version.
    """
    op = importlib.import_module("theano.gof.op").COp
    linker = importlib.import_module("theano.gof.cc").CLinker
    key_of = linker.cmodule_key_

    def c_code_cache_version(self):
        digest = hashlib.sha256("\0".join(self.func_codes).encode()).hexdigest()
        version: tuple = (int(digest[:15], 16),)
        if hasattr(self, "params_type"):
            version += (self.params_type.c_code_cache_version(),)
        return version

    def cmodule_key_(self, fgraph, *args, **kwargs):
        key = key_of(self, fgraph, *args, **kwargs)
        if key is None or key[0]:
            return key
        versions = []
        for node in self.schedule(fgraph):
            versions.append(node.op.c_code_cache_version_apply(node))
            versions += [v.type.c_code_cache_version() for v in (*node.inputs, *node.outputs)]
        return (tuple(versions), key[1]) if all(versions) else key

    op.c_code_cache_version = c_code_cache_version
    linker.cmodule_key_ = cmodule_key_


def _write_keys_whole() -> None:
    """Make the list of keys of a compiled module appear whole or not at all.

    Theano rewrites it in place for every new use of a module, and a process that starts reads it
    without a lock: finding half a list, it takes the module for broken and deletes it, and the
    processes that use it can compile nothing of that kind any more.
    """
    key_data = importlib.import_module("theano.gof.cmodule").KeyData

    def save_pkl(self):
        partial = f"{self.key_pkl}.{os.getpid()}"
        try:
            with open(partial, "wb") as file:
                pickle.dump(self, file, protocol=pickle.HIGHEST_PROTOCOL)
            os.replace(partial, self.key_pkl)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(partial)

    key_data.save_pkl = save_pkl


def _survive_cleared_caches() -> None:
    """Make a compile directory that is cleared or damaged be filled again.

    Theano keeps in memory which modules there are and believes it: when another process or the user
    clears the directory, it fails at writing to it and at loading from it. Here it forgets what it
    knows, looks again and compiles what is missing. Errors of the system and of the compiler become
    one sentence for the user.
    """
    cache = importlib.import_module("theano.gof.cmodule").ModuleCache
    module_from_key, get_module = cache.module_from_key, cache._get_module
    refresh, clean_ups = cache.refresh, (cache.clear_old, cache.clear_unversioned)

    def module_from_key_again(self, key, lnk=None, keep_lock=False):
        def look_again():
            _forget_modules(self)
            self.refresh()
            for node in lnk.fgraph.apply_nodes:  # what an Op of ours is linked with
                getattr(node.op, "restore_libraries", list)()

        return _again_where_cleared(
            self.dirname, lambda: module_from_key(self, key, lnk, keep_lock), look_again
        )

    def get_module_or_remove(self, name):
        if name not in self.module_from_name:
            compile_directory.check_loaded(name)
        try:
            if name not in self.module_from_name and compile_directory.is_cut_short(name):
                raise ImportError("cut short", path=name)
            return get_module(self, name)
        except ImportError:  # it is missing, or damaged, and would be at every start
            shutil.rmtree(os.path.dirname(name), ignore_errors=True)
            raise

    def refresh_again(self, *args, **kwargs):
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self.dirname):
                keys = os.path.join(entry.path, "key.pkl")  # it unpickles all of them
                if keys not in self.loaded_key_pkl:
                    compile_directory.check_loaded(keys)
        for _ in range(_TRIES - 1):
            with contextlib.suppress(FileNotFoundError):  # cleared while it looked
                return refresh(self, *args, **kwargs)
        return refresh(self, *args, **kwargs)

    def quietly(clean_up):
        def clean(self, *args, **kwargs):
            # at exit: what was cleared before need not be; a TypeError is a file among the modules
            with contextlib.suppress(OSError, AssertionError, KeyError, TypeError, InputError):
                clean_up(self, *args, **kwargs)

        return clean

    cache.module_from_key, cache._get_module = module_from_key_again, get_module_or_remove
    cache.refresh = refresh_again
    cache.clear_old, cache.clear_unversioned = map(quietly, clean_ups)
    # it would announce every broken module that it removes
    of_theano = logging.getLogger("theano.gof.cmodule")
    if of_theano.level == logging.NOTSET:
        of_theano.setLevel(logging.CRITICAL)


def _survive_a_cleared_runner() -> None:
    """Make the code that runs compiled modules be compiled again where it was cleared meanwhile.

    Theano compiles it for the first module of a cache, and where that fails, so does all.
    """
    cc = importlib.import_module("theano.gof.cc")
    config = importlib.import_module("theano").config
    init = cc._CThunk.__init__

    def init_with_runner(self, *args, **kwargs):
        if cc.run_cthunk is None:
            _again_where_cleared(
                config.compiledir, lambda: importlib.import_module("theano.gof.cutils")
            )
        init(self, *args, **kwargs)

    cc._CThunk.__init__ = init_with_runner


def _log_what_failed() -> None:
    """Keep what Theano prints about a failed compilation for those who look for it.

    Among the results it would be in the way, and on standard error, too: the next try may work, and
    the last one ends with a sentence that has the compiler's. Not by redirecting standard output:
    that goes on for good where Ctrl-C comes while it ends.
    """

    def say(*values, file=None, **options):
        if file not in (None, sys.stderr):
            print(*values, file=file, **options)
        else:
            logger.debug("Theano: %s", " ".join(map(str, values)).strip())

    for name in ("cmodule", "op"):
        vars(importlib.import_module(f"theano.gof.{name}"))["print"] = say


def _again_where_cleared(
    directory: str, compile_it: Callable[[], Any], look_again: Callable[[], None] = lambda: None
) -> Any:
    """Return what a compilation returns, which begins anew where its directory was cleared.

    Errors of the system and of the compiler become one sentence for the user.
    """
    lock = importlib.import_module("theano.gof.compilelock")
    n_locks = getattr(lock.get_lock, "n_lock", 0)
    for last in [False] * (_TRIES - 1) + [True]:
        compile_directory.restore(directory)
        try:
            return compile_it()
        except Exception as err:
            _release_locks(lock, n_locks)
            if isinstance(err, InputError):
                raise
            if last or not _may_be_cleared(err):
                if not compile_directory.is_failure(err):
                    raise
                raise compile_directory.failure(err, directory) from err
        look_again()


def _forget_modules(cache) -> None:
    known = (cache.module_from_name, cache.entry_from_key, cache.similar_keys)
    for collection in (*known, cache.module_hash_to_key_data, cache.loaded_key_pkl):
        collection.clear()


def _release_locks(lock, n_locks: int) -> None:
    """Give back the locks that Theano keeps when a compilation fails."""
    while getattr(lock.get_lock, "n_lock", 0) > n_locks:
        lock.release_lock()


def _may_be_cleared(err: Exception) -> bool:
    """Tell whether an error can come from files that have been removed."""
    if isinstance(err, (AssertionError, ImportError, KeyError)):
        return True
    cause = compile_directory.system_error(err)
    if cause is not None:
        return isinstance(cause, FileNotFoundError)
    return any(text in str(err) for text in ("No such file or directory", "cannot find -l"))


def _lock_at_once_or_not_at_all() -> None:
    """Make the compile lock be taken as soon as it is free, and fail at once where it cannot be.

    Where no file can be written, Theano tries ten times, each time until it takes the half-written
    lock for a dead one: for 20 minutes. For one that was left half-written when a directory was
    cleared it waits two minutes, and between two looks at one of another process 5 to 10 seconds.
    """
    module: Any = importlib.import_module("theano.gof.compilelock")
    take = module.lock
    waiting_since: float | None = None
    said: set[str] = set()

    def of_interest(record):
        """Once, what is waited for, where that takes long; Theano speaks at each look."""
        late = waiting_since is not None and time.monotonic() - waiting_since > _LONG
        fits = late and record.msg not in said
        said.update([record.msg] if fits else [])
        return fits or record.levelno > logging.INFO

    def lock(tmp_dir, *args, **kwargs):
        nonlocal waiting_since
        directory = os.path.dirname(tmp_dir)
        compile_directory.restore(directory)
        compile_directory.check_writable(directory)
        compile_directory.remove_stale_lock(tmp_dir)
        least, most = _BETWEEN_LOOKS
        said.clear()
        waiting_since = time.monotonic()
        try:
            take(tmp_dir, *args, **{"min_wait": least, "max_wait": most, "verbosity": 2, **kwargs})
        finally:
            waiting_since = None

    logging.getLogger("theano.gof.compilelock").addFilter(of_interest)
    module.lock = lock


def _pass_failures_through_optimizers() -> None:
    """Let a compilation that fails during an optimization end it, without a traceback.

    Theano folds constants with compiled code. It would print the traceback and go on, to fail again
    later for the same reason.
    """
    opt = importlib.import_module("theano.gof.opt")
    warn, warn_seq = opt.NavigatorOptimizer.warn, opt.SeqOptimizer.warn

    def passing(report):
        def callback(err, *args):
            if isinstance(err, InputError):
                raise err
            report(err, *args)

        return callback

    init = opt.SeqOptimizer.__init__
    passing_seq = passing(warn_seq)

    def with_passing_callback(self, *opts, **options):
        # the function itself is the default of those who build sequences
        if options.get("failure_callback") is warn_seq:
            options["failure_callback"] = passing_seq
        init(self, *opts, **options)

    opt.NavigatorOptimizer.warn = staticmethod(passing(warn))
    opt.SeqOptimizer.__init__ = with_passing_callback


def _compile_one_at_a_time() -> None:
    """Let threads compile one after the other.

    While Theano optimizes a graph, it turns its cache of constants off for the whole process. The
    first thread that is ready would turn it on for one that is not, which fails then.
    """
    maker = importlib.import_module("theano.compile.function_module").FunctionMaker
    lock: Any = importlib.import_module("theano.gof.compilelock").get_lock
    compiling = threading.RLock()

    def locked(method):
        @functools.wraps(method)
        def call(*args, **options):
            with compiling:
                return method(*args, **options)

        return call

    def forget():
        """Begin anew in a forked process: the thread that compiles is its parent's."""
        nonlocal compiling
        compiling = threading.RLock()
        if hasattr(lock, "n_lock"):  # else none was taken before, and Theano has yet to set it up
            lock.n_lock = 0

    os.register_at_fork(after_in_child=forget)

    maker.__init__, maker.create = locked(maker.__init__), locked(maker.create)
