"""Compilations that fail: caches that are cleared, damaged, full or read-only; compilers that die.

Every case is a process: it fills a small cache or starts with a copy of a filled one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.cli import ROOT, TEST, TRAIN, complaint, environment, python, succeeds

from gru4rec_toolkit import compile_directory
from gru4rec_toolkit.errors import InputError

# `between` runs between two functions, each with compiled modules of its own and one that differs
# in its key alone (Theano compiles such a module once and notes both keys)
PROGRAM = """
import logging, os, shutil, signal, subprocess, sys
from pathlib import Path
sys.path.insert(0, {root!r})
logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
from gru4rec_toolkit.errors import run_cli

def main():
    from gru4rec_toolkit import theano_setup
    directory = Path(theano_setup.configure("cpu").compile_dir)
    from gru4rec_toolkit.theano_setup import theano, tensor as tt
    import numpy as np
    compile_module, n_compiled = theano.gof.cc.CLinker.compile_cmodule, []
    def count(*args):
        n_compiled.append(1)
        return compile_module(*args)
    theano.gof.cc.CLinker.compile_cmodule = count
    x = tt.fmatrix()
    first = theano.function([x], [x * 2, x[:, 1:] + 1])
    {between}
    second = theano.function([x], [tt.exp(x) * 3, x[1:] + 1, tt.arange(3).sum() + x])
    ones = np.ones((2, 2), dtype=np.float32)
    for function in (first, second):
        print([round(float(value.sum()), 3) for value in function(ones)])
    print("compiled:", len(n_compiled))

run_cli(main)
"""
RESULTS = ["[8.0, 4.0]", "[32.619, 4.0, 16.0]"]


def run(cache, between="pass", **env):
    env = {"THEANO_FLAGS": None, "THEANORC": None, "XDG_CACHE_HOME": str(cache), **env}
    return python("-c", PROGRAM.format(root=str(ROOT), between=between), cwd=cache.parent, **env)


def works(done):
    """Check that a process got its results and said nothing, and return how much it compiled."""
    succeeds(done)
    assert done.lines[:2] == RESULTS
    assert done.err == ""
    return int(done.lines[2].split()[1])


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    cache = tmp_path_factory.mktemp("filled") / "cache"
    assert works(run(cache)) > 0
    return cache


@pytest.fixture
def cache(filled, tmp_path):
    """A cache with all that the program needs."""
    shutil.copytree(filled, tmp_path / "cache")
    return tmp_path / "cache"


def modules(cache):
    """Return the directories of the compiled modules; Theano's own two lie beside them."""
    return sorted(cache.glob("gru4rec-theano/*/compiledir_*/tmp*"))


def test_a_filled_cache(cache):
    assert works(run(cache)) == 0


# --- cleared and damaged caches -------------------------------------------------------------------


@pytest.mark.parametrize(
    "clear", ["shutil.rmtree(directory)", "shutil.rmtree(directory.parents[2])"]
)
def test_a_cache_that_is_cleared_in_between(cache, clear):
    assert works(run(cache, clear)) > 0
    for level in cache.glob("gru4rec-theano/*/compiledir_*"):
        assert level.stat().st_mode & 0o077 == 0  # it is there again, and closed to others


def test_a_cache_that_is_cleared_while_something_is_compiled(cache):
    clear = """
    clearing = [1]
    def clear(*args):
        if clearing:
            clearing.pop()
            shutil.rmtree(directory)
        return count(*args)
    theano.gof.cc.CLinker.compile_cmodule = clear
    for module in directory.glob("tmp*"):
        shutil.rmtree(module)
"""
    assert works(run(cache, clear)) > 0


def test_a_cache_that_is_cleared_before_the_end(cache):
    code = """
    import atexit
    atexit.register(shutil.rmtree, directory)  # called before Theano's, which came earlier
"""
    works(run(cache, code))


@pytest.mark.parametrize("warm", [False, True])
def test_a_training_whose_cache_is_cleared(tmp_path, warm):
    cache = tmp_path / "cache"
    settings = "layers=8,batch_size=16,n_epochs=2"
    arguments = [TRAIN, "-ps", settings, "-t", TEST, "-ee", "-s", tmp_path / "model", "-d", "cpu"]
    changes = {"THEANO_FLAGS": None, "THEANORC": None, "PYTHONUNBUFFERED": "1"}
    if warm:
        env = environment(XDG_CACHE_HOME=str(cache), **changes)
        subprocess.run([sys.executable, ROOT / "run.py", *arguments], env=env, check=True)
    with open(tmp_path / "errors", "w") as errors:
        process = subprocess.Popen(
            [sys.executable, ROOT / "run.py", *arguments],
            cwd=tmp_path,
            env=environment(XDG_CACHE_HOME=str(cache), **changes),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    out = ""
    for line in process.stdout:
        out += line
        if line.startswith("Epoch1 --> loss"):
            # the evaluation after the epoch is about to compile, and may be writing there
            shutil.rmtree(cache / "gru4rec-theano", ignore_errors=True)
    process.wait()
    messages = (tmp_path / "errors").read_text()
    assert process.returncode == 0 and "Traceback" not in messages, messages
    assert out.count("Recall@20: ") == 3  # after each epoch and at the end
    assert (tmp_path / "model").exists()


def test_kernels_that_are_gone(cache):
    """Modules that are linked after the library's file is gone run on the same team of threads."""
    code = """
    from gru4rec_toolkit.ops import library
    library.load().gk_set_threads(3)
    shutil.rmtree(directory)
    from gru4rec_toolkit.ops.products.op import Product
    a, b = tt.fmatrices("ab")
    product = theano.function([a, b], Product()(a, b))
    assert product(np.eye(2, dtype="f"), np.eye(2, dtype="f")).sum() == 2
    loaded = {line.split()[-1].split("/")[-1] for line in open("/proc/self/maps")
              if "libgru4rec" in line and "deleted" not in line}
    assert not loaded, loaded  # the first one only, whose file is gone
"""
    works(run(cache, code))


@pytest.mark.parametrize("n_times", [1, 2])
def test_kernels_that_are_cleared_after_they_were_looked_for(cache, n_times):
    """They are compiled again for the module that is linked with them; the rest works on."""
    code = f"""
    from gru4rec_toolkit import compile_ahead
    from gru4rec_toolkit.ops import library
    from gru4rec_toolkit.ops.products.op import Product
    library.load()
    clearing = [1] * {n_times}
    def clear(*args):
        if clearing and not compile_ahead._recording:
            clearing.pop()
            shutil.rmtree(directory)
        return count(*args)
    theano.gof.cc.CLinker.compile_cmodule = clear
    a, b = tt.fmatrices("ab")
    product = theano.function([a, b], Product()(a, b))
    assert not clearing and product(np.eye(2, dtype="f"), np.eye(2, dtype="f")).sum() == 2
"""
    done = run(cache, code)
    succeeds(done)
    assert done.lines[:2] == RESULTS and "Traceback" not in done.err


def test_a_runner_of_modules_that_is_cleared_while_it_is_compiled(tmp_path):
    """The first module of a cache asks for it, and was the only one that had to be there."""
    code = f"""
import shutil, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from gru4rec_toolkit import theano_setup
directory = Path(theano_setup.configure("cpu").compile_dir)
from gru4rec_toolkit.theano_setup import theano, tensor as tt
cmodule = theano.gof.cmodule
run, cleared = cmodule.output_subprocess_Popen, []
def clear(command, **options):
    if "cutils_ext" in " ".join(command) and not cleared:
        cleared.append(shutil.rmtree(directory))
    return run(command, **options)
cmodule.output_subprocess_Popen = clear
x = tt.fscalar()
print(theano.function([x], x * 2)(4), cleared)
"""
    env = {"THEANO_FLAGS": None, "THEANORC": None, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert succeeds(python("-c", code, cwd=tmp_path, **env)).lines == ["8.0 [None]"]
    assert succeeds(python("-c", code, cwd=tmp_path, **env)).lines == ["8.0 []"]


@pytest.mark.parametrize("owner", ["", f"{{os.getpid()}}_0123456789_{socket.gethostname()}"])
def test_a_lock_that_is_half_taken(cache, owner):
    """As when a directory is cleared while the lock is taken in it: nobody waits for it."""
    code = f"""
    lock = directory / "lock_dir"
    lock.mkdir()
    (lock / "lock").write_text(f"{owner}")
    for path in (lock / "lock", lock):
        os.utime(path, (0, 0))
    for module in directory.glob("tmp*"):
        shutil.rmtree(module)
    def sleep(seconds):
        raise SystemExit("it waits")
    theano.gof.compilelock.time.sleep = sleep
"""
    assert works(run(cache, code)) > 0


def test_a_process_that_is_forked_while_a_thread_compiles(cache):
    """The thread is its parent's, and so are what it compiles and the locks that it holds."""
    code = """
    import threading
    from gru4rec_toolkit import compile_ahead
    for module in directory.glob("tmp*"):
        shutil.rmtree(module)
    compiling, forked = threading.Event(), threading.Event()
    def wait(*args):
        in_thread = threading.current_thread() is not threading.main_thread()
        if in_thread and compile_ahead._graph is not None:
            compiling.set()
            forked.wait()
        return count(*args)
    theano.gof.cc.CLinker.compile_cmodule = wait
    thread = threading.Thread(target=theano.function, args=([x], [x * 5]), daemon=True)
    thread.start()
    compiling.wait()
    child = os.fork()
    if not child:
        signal.alarm(100)
        assert theano.gof.compilelock.get_lock.n_lock == 0 and compile_ahead._graph is None
        (seven,) = theano.function([x], [x * 7])(np.ones((1, 1), dtype=np.float32))
        os._exit(int(seven.item() != 7))
    forked.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
"""
    assert works(run(cache, code)) > 0


def test_a_process_that_is_forked_before_anything_is_compiled(cache):
    """As with a cache that has what Theano loads at its import: nothing has taken the lock yet."""
    code = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from gru4rec_toolkit import theano_setup
theano_setup.configure("cpu")
from gru4rec_toolkit.theano_setup import theano, tensor as tt
child = os.fork()
if not child:
    x = tt.fscalar()
    print(theano.function([x], x * 2)(4), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    env = {"THEANO_FLAGS": None, "THEANORC": None, "XDG_CACHE_HOME": str(cache)}
    assert succeeds(python("-c", code, cwd=cache.parent, **env)).lines == ["8.0"]


def _empty_library(module):
    (library,) = module.glob("*.so")
    library.write_bytes(b"")  # as after a power failure


def _cut_library(module):
    """Leave a file that can be loaded, and kills the process at its first use."""
    (library,) = module.glob("*.so")
    library.write_bytes(library.read_bytes()[:4096])


def _halve_keys(module):
    keys = module / "key.pkl"
    keys.write_bytes(keys.read_bytes()[: keys.stat().st_size // 2])


def _empty_keys(module):
    (module / "key.pkl").write_bytes(b"")


def _keys_of_another_version(module):
    (module / "key.pkl").write_bytes(b"ctheano.gof.another\nKeyData\n.")


def _no_keys(module):
    (module / "key.pkl").unlink()


def _no_library(module):
    (library,) = module.glob("*.so")
    library.unlink()


def _empty(module):
    shutil.rmtree(module)
    module.mkdir()


DAMAGES = [_empty_library, _cut_library, _halve_keys, _empty_keys, _keys_of_another_version]
DAMAGES += [_no_keys, _no_library, _empty]


def test_a_damaged_cache(cache):
    assert len(modules(cache)) >= len(DAMAGES)
    for damage, module in zip(DAMAGES, modules(cache)):
        damage(module)
    assert works(run(cache)) >= len(DAMAGES)
    assert works(run(cache)) == 0


@pytest.mark.parametrize("share", [0, 0.4, 0.99])
def test_damaged_kernels(cache, share):
    code = """
    from gru4rec_toolkit.ops.library import load
    library = load()
    print(library.gk_threads() > 0)
"""
    succeeds(run(cache, code))
    (library,) = cache.glob("gru4rec-theano/*/compiledir_*/libgru4rec_*.so")
    whole = library.read_bytes()
    library.write_bytes(whole[: int(share * len(whole))])  # as after a power failure
    assert "True" in succeeds(run(cache, code)).lines
    assert not compile_directory.is_cut_short(library)


@pytest.mark.parametrize("share", [0.2, None])
def test_damaged_modules_that_theano_loads_at_its_import(cache, share):
    libraries = [*cache.glob("gru4rec-theano/*/compiledir_*/*_ext/*.so")]
    assert len(libraries) == 2
    for library in libraries:
        whole = library.read_bytes()
        library.unlink()
        if share is not None:
            library.write_bytes(whole[: int(share * len(whole))])
    assert works(run(cache)) == 0
    assert all(library.exists() for library in libraries)
    assert not any(map(compile_directory.is_cut_short, libraries))


def test_a_file_in_place_of_what_theano_loads_at_its_import(cache):
    (directory,) = cache.glob("gru4rec-theano/*/compiledir_*")
    shutil.rmtree(directory / "cutils_ext")
    (directory / "cutils_ext").write_text("")
    (directory / "tmpfile").write_text("")
    works(run(cache))
    assert (directory / "cutils_ext").is_dir()


# --- full and read-only disks ---------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path, filled):
    """A disk of 20 MB with a cache that has Theano's own modules only."""
    directory = tmp_path / "disk"
    directory.mkdir()
    options = ["-t", "tmpfs", "-o", "size=20M,mode=700", "tmpfs", str(directory)]
    if not shutil.which("mount") or subprocess.run(["mount", *options], check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    shutil.copytree(filled, directory, dirs_exist_ok=True)
    for module in modules(directory):
        shutil.rmtree(module)
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def fill(directory):
    with contextlib.suppress(OSError), open(directory / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


FILL = """
    with open(directory.parents[2] / "filler", "wb", buffering=0) as file:
        try:
            while True: file.write(bytes(4096))
        except OSError:
            pass
"""


def test_a_full_disk_at_the_start(disk):
    shutil.rmtree(disk / "gru4rec-theano")
    fill(disk)
    message = complaint(run(disk))
    assert "no space left" in message and str(disk) in message and "XDG_CACHE_HOME" in message


def test_a_disk_that_becomes_full(disk, filled):
    message = complaint(run(disk, FILL))
    assert "no space left" in message and str(disk) in message and "XDG_CACHE_HOME" in message
    # what has been compiled is still used
    shutil.rmtree(disk / "gru4rec-theano")
    (disk / "filler").unlink()
    shutil.copytree(filled, disk, dirs_exist_ok=True)
    fill(disk)
    assert works(run(disk)) == 0


def test_a_disk_that_becomes_full_while_something_is_compiled(disk):
    fill_later = f"""
    def fill_and_compile(*args):
        {FILL.strip().replace(chr(10), chr(10) + "    ")}
        return compile_module(*args)
    theano.gof.cc.CLinker.compile_cmodule = fill_and_compile
"""
    message = complaint(run(disk, fill_later))
    assert "no space left" in message and str(disk) in message


def test_a_full_disk_for_the_kernels(disk):
    code = f"""
    import subprocess
    original = subprocess.Popen
    def popen(*args, **options):
        {FILL.strip().replace(chr(10), chr(10) + "    ")}
        return original(*args, **options)
    subprocess.Popen = popen
    from gru4rec_toolkit.ops import library
    library.load()
"""
    message = complaint(run(disk, code))
    assert "no space left" in message and str(disk) in message
    assert not list(disk.rglob("libgru4rec*"))  # nothing half written


def test_a_disk_that_becomes_read_only(disk):
    between = f"subprocess.run(['mount', '-o', 'remount,ro', {str(disk)!r}], check=True)"
    message = complaint(run(disk, between))
    assert "Read-only file system" in message and "XDG_CACHE_HOME" in message


def test_a_disk_whose_programs_may_not_run(disk):
    subprocess.run(["mount", "-o", "remount,noexec", str(disk)], check=True)
    message = complaint(run(disk))
    assert "noexec" in message and "XDG_CACHE_HOME" in message


# --- compilers ------------------------------------------------------------------------------------


@pytest.fixture
def compiler(tmp_path):
    """A directory with a g++ that does what the file `faulty` says where there is one."""
    directory = tmp_path / "bin"
    directory.mkdir()
    faulty = directory / "faulty"
    script = f'#!/bin/sh\n[ -e {faulty} ] && . {faulty}\nexec {shutil.which("g++")} "$@"\n'
    (directory / "g++").write_text(script)
    (directory / "g++").chmod(0o755)
    return directory


FAULTS = {
    "echo 'cc1plus: out of memory' >&2; exit 1": "cc1plus: out of memory",
    "kill -9 $$": "-9",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("what", ["graph", "kernels"])
def test_a_compiler_that_fails(cache, compiler, fault, what):
    for module in modules(cache):
        shutil.rmtree(module)
    between = f"Path({str(compiler / 'faulty')!r}).write_text({fault!r})"
    if what == "kernels":
        between += "; from gru4rec_toolkit.ops import library; library.load()"
    path = f"{compiler}{os.pathsep}{os.environ['PATH']}"
    done = run(cache, between, PATH=path)
    message = complaint(done)
    assert FAULTS[fault] in message and "g++" in message
    assert done.out == ""  # Theano's own words go to standard error


@pytest.mark.parametrize("fault", FAULTS)
def test_a_compiler_that_fails_from_the_start(tmp_path, compiler, fault):
    (compiler / "faulty").write_text(fault)
    path = f"{compiler}{os.pathsep}{os.environ['PATH']}"
    assert "g++" in complaint(run(tmp_path / "cache", PATH=path))


@pytest.mark.parametrize(
    "words",
    [
        "cc1plus: out of memory allocating 65536 bytes after a total of 9216 bytes",
        "virtual memory exhausted: Cannot allocate memory",
        "g++: fatal error: Killed signal terminated program cc1plus",
    ],
)
def test_a_compiler_without_memory(tmp_path, compiler, words):
    """It is not the model that is too large."""
    # of the kernels alone: without a compiler that works nothing begins
    fault = f"case $* in *{ROOT / 'gru4rec_toolkit'}*) echo '{words}' >&2; exit 1;; esac"
    (compiler / "faulty").write_text(fault)
    options = ["-ps", "layers=8,batch_size=16,n_epochs=1"]
    env = {"THEANO_FLAGS": None, "THEANORC": None, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    path = f"{compiler}{os.pathsep}{os.environ['PATH']}"
    done = python(ROOT / "run.py", TRAIN, *options, cwd=tmp_path, PATH=path, **env)
    message = complaint(done)
    assert words in message and "the compiler (g++) has not enough memory" in message


def test_a_temporary_directory_that_is_missing(cache, tmp_path):
    for module in modules(cache):
        shutil.rmtree(module)
    assert works(run(cache, TMPDIR=str(tmp_path / "missing"))) > 0


def test_the_sentence_survives_theanos_additions():
    from gru4rec_toolkit import compile_directory

    error = compile_directory.failure(OSError(28, "No space left on device"), Path("/cache"))
    assert isinstance(error, InputError)
    before = str(error)
    error.args = ("The following error happened while compiling the node", 1, *error.args)
    assert str(error) == before


# --- threads --------------------------------------------------------------------------------------


def test_threads_that_cannot_be_started(cache):
    """A limit on memory or processes leaves the caller with more work, and the same result."""
    code = """
    import resource
    from gru4rec_toolkit.ops.library import load
    from gru4rec_toolkit.ops.sampling import op as sampling
    library = load()
    library.gk_set_threads(8)
    table = sampling.alias_table(np.full(10, 0.1))
    drawn, expected = np.zeros((2, 100000), dtype=np.int32)
    sampling.draw_in_numpy(1, 0, *table, expected)
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (2 << 20)  # a thread's stack has 8 MB
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    sampling.draw_in_c(1, 0, *table, drawn)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    assert len(os.listdir("/proc/self/task")) < 8
    assert (drawn == expected).all()
"""
    works(run(cache, code))
