"""NVIDIA's run time compiler (NVRTC), called as libgpuarray calls it: no GPU is needed for it."""

from __future__ import annotations

import ctypes
import importlib
from pathlib import Path

from gru4rec_toolkit.errors import InputError

LIBGPUARRAY = "libgpuarray.so.3"


class CompilationFailed(Exception):
    """Source that the compiler refuses, with its messages."""


def nvrtc() -> ctypes.CDLL:
    """Load the compiler of NVIDIA's wheel."""
    try:
        wheel = next(iter(importlib.import_module("nvidia.cuda_nvrtc").__path__))
        return ctypes.CDLL(str(next(Path(wheel, "lib").glob("libnvrtc.so.*"))))
    except (ImportError, StopIteration, OSError):
        raise InputError(
            "compiling for CUDA needs NVIDIA's compiler NVRTC, which is not in this environment; "
            "install it with `make gpu-sim` or `pip install nvidia-cuda-nvrtc-cu12`"
        ) from None


def cuda_header() -> bytes:
    """Return the text of cluda.h for CUDA, as libgpuarray holds it."""
    library = next(Path("/usr/lib").rglob(LIBGPUARRAY), None)
    if library is None:
        raise InputError(
            f"the kernels need libgpuarray's header, and {LIBGPUARRAY} is not below /usr/lib; "
            "install it with `make gpu-sim`"
        )
    texts = library.read_bytes().split(b"\0")
    return next(t[t.index(b"#ifndef CLUDA_H") :] for t in texts if b"#define KERNEL extern" in t)


def compile_for_cuda(library: ctypes.CDLL, source: str, header: bytes, capability: int) -> str:
    """Return the assembly (PTX) of a source for a compute capability, such as 80 for 8.0."""
    handle, size = ctypes.c_void_p(), ctypes.c_size_t()
    one = ctypes.c_char_p * 1
    library.nvrtcCreateProgram(
        ctypes.byref(handle), source.encode(), b"kernel", 1, one(header), one(b"cluda.h")
    )
    options = one(f"-arch=compute_{capability}".encode())
    failed = library.nvrtcCompileProgram(handle, 1, options)

    def text(name):
        getattr(library, f"nvrtcGet{name}Size")(handle, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{name}")(handle, buffer)
        return buffer.value.decode()

    try:
        if failed:
            raise CompilationFailed(f"{text('ProgramLog')}\n{source}")
        return text("PTX")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(handle))
