"""Mends of Theano 1.0.5, its last stable release, where it loses memory or compiled modules.

`apply` is called by `theano_setup` once Theano is imported; nothing here imports Theano first.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import pickle


def apply() -> None:
    """Mend the Theano that is imported."""
    _free_buffers_of_looked_up_rows()
    _find_modules_of_other_processes()
    _write_keys_whole()


def _free_buffers_of_looked_up_rows() -> None:
    """Make the look-up of rows give back the buffer that it no longer needs.

    Where its C code fills the buffer of the call before, it takes a reference too many, so a buffer
    is never freed when the number of rows changes: with every session that ends at an epoch's end.
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
        version = (int(digest[:15], 16),)
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
