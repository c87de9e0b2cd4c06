"""The base of Ops with kernels in CLUDA (``ops/*/gpu.cl``), which is CUDA and OpenCL alike.

The host code of the Ops only launches: it neither waits for the GPU nor moves anything between it
and the host.
"""

from __future__ import annotations

import re

import numpy as np

from gru4rec_toolkit.ops import base, library
from gru4rec_toolkit.theano_setup import pygpu, theano
from gru4rec_toolkit.theano_setup import tensor as tt

# Theano's GPU modules can only be imported after Theano itself is configured
from theano.gpuarray.basic_ops import (  # isort: skip
    GpuKernelBase,
    Kernel,
    as_gpuarray_variable,
    infer_context_name,
)
from theano.gpuarray.type import GpuArrayType  # isort: skip


THREADS = 256  # of a group; the same in gpu_arrays.h
COLUMNS, PARTS = 32, 8  # of a group that adds up columns, or compares occurrences

_KERNEL = re.compile(r"^KERNEL void (\w+)\((.*?)\) \{.*?^\}\n", re.MULTILINE | re.DOTALL)
_SCALARS = {
    "ga_size": pygpu.gpuarray.SIZE,
    "ga_int": np.int32,
    "ga_uint": np.uint32,
    "ga_ulong": np.uint64,
    "ga_float": np.float32,
}


def kernel_source(folder: str, name: str, **constants) -> tuple[str, list]:
    """Return the text of one kernel of a file, ready for the compiler, and its arguments' types.

    Parameters
    ----------
    folder, name : str
        ``name`` in ``ops/folder/gpu.cl``.
    **constants
        Macros that the text needs.
    """
    constants = {"THREADS": THREADS, "COLUMNS": COLUMNS, "PARTS": PARTS, **constants}
    defines = "".join(f"#define {key} {value}\n" for key, value in constants.items())
    files = (library.SHARED / "common.cl", library.SOURCES / folder / "gpu.cl")
    text = "".join(path.read_text() for path in files)
    found = {match.group(1): match for match in _KERNEL.finditer(text)}
    for other, match in found.items():
        if other != name:
            text = text.replace(match.group(0), "")
    types = []
    # "ARRAY(ga_float, x)" is a buffer and the offset in it
    for array, scalar in re.findall(
        r"ARRAY\((\w+), [\w#]+\)|(ga_\w+) [\w#]+", _expanded(found[name].group(2), text, constants)
    ):
        types += [pygpu.gpuarray.GpuArray, pygpu.gpuarray.SIZE] if array else [_SCALARS[scalar]]
    return f'#include "cluda.h"\n{defines}{text}', types


def _expanded(arguments: str, text: str, constants: dict) -> str:
    """Put what macros stand for in their place, for as many parts p as EACH_...(X) has."""
    macros = dict(re.findall(r"^#define (\w+(?:\(p\))?) \\\n((?:.*\\\n)*.*\n)", text, re.MULTILINE))
    for each, macro in re.findall(r"(EACH_\w+)\((\w+)\)", arguments):
        calls = f"{macro}(p)" * constants[f"{each}(X)"].count("X(")
        arguments = arguments.replace(f"{each}({macro})", calls)
    called = re.compile("|".join(rf"\b{re.escape(macro)}" for macro in macros))
    while called.search(arguments):
        arguments = called.sub(lambda match: macros[match.group()], arguments)
    return arguments


class GpuKernelOp(base.HostCode, GpuKernelBase, theano.Op):
    """An Op whose C++ function launches kernels of one file, the ``gpu.cl`` of its folder.

    Subclasses say in `KERNELS` which kernels these are, in `constants` what macros they need;
    `arrays` turns inputs into variables on the GPU.
    """

    FILE = "gpu_apply.h"
    KERNELS: tuple[str, ...] = ()

    def constants(self) -> dict:
        """Return the macros that the kernels need."""
        return {}

    def get_params(self, node):
        return next(
            v.type.context for v in node.inputs if isinstance(v.type, GpuArrayType)
        )

    @staticmethod
    def arrays(*variables) -> list:
        """Return the variables as variables on the GPU."""
        name = infer_context_name(*variables)
        return [as_gpuarray_variable(v, name) for v in variables]

    @staticmethod
    def like(variable, dtype: str, ndim: int):
        """Return a new output on the GPU of ``variable``."""
        name = variable.type.context_name
        return GpuArrayType(dtype, (False,) * ndim, context_name=name)()

    def gpu_kernels(self, node, name):
        kernels = []
        for kernel in self.KERNELS:
            code, types = kernel_source(self.FOLDER, kernel, **self.constants())
            code = code.replace("\\", "\\\\")  # Theano puts it into a C string as it is
            kernels.append(Kernel(code, types, kernel, flags={}, objvar=f"k_{kernel}"))
        return kernels

    def c_surroundings(self, sub):
        return "*this", sub["params"]  # the node, whose members the kernels are, and the context

    def c_header_dirs(self):
        return [np.get_include(), *super().c_header_dirs()]

    def c_compile_args(self):
        return ["-std=c++17"]

    def c_code_cache_version_apply(self, node):
        sources = [kernel.code for kernel in self.gpu_kernels(node, "node")]
        of_theano = super().c_code_cache_version_apply(node)
        return (*of_theano, self.code_digest(node, *sources))


def activation_constants(name: str) -> dict:
    kind, a, b = base.kernel_activation(name)
    return {
        "ACT": base.ACTIVATIONS.index(kind),
        "ACT_A": f"{float(a)!r}f",
        "ACT_B": f"{float(b)!r}f",
    }


def arrays_and_scalars(op: GpuKernelOp, inputs: tuple) -> list:
    """Return inputs as variables, arrays on the GPU and scalars on the host."""
    inputs = [tt.as_tensor_variable(i) if getattr(i, "ndim", 0) == 0 else i for i in inputs]
    arrays = iter(op.arrays(*[i for i in inputs if i.ndim]))
    return [next(arrays) if i.ndim else i for i in inputs]
