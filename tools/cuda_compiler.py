"""NVIDIA's run time compiler (NVRTC), called as libgpuarray calls it: no GPU is needed for it."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path

from gru4rec_toolkit.errors import InputError

LIBGPUARRAY = "libgpuarray.so.3"


class CompilationFailed(Exception):
    """Source that the compiler refuses, with its messages."""


def nvrtc() -> ctypes.CDLL:
    """Load the oldest compiler that is installed, wherever in NVIDIA's packages it lies."""
    packages = importlib.util.find_spec("nvidia")
    folders = (packages and packages.submodule_search_locations) or []
    paths = [path for folder in folders for path in Path(folder).rglob("libnvrtc.so.*")]
    if not paths:
        raise InputError(
            "compiling for CUDA needs NVIDIA's compiler NVRTC, which is not in this environment; "
            "install it with `make gpu-sim` or `pip install nvidia-cuda-nvrtc-cu12`"
        )
    path = min(paths, key=lambda path: int(path.name.split(".")[2]))
    for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins))  # NVRTC 13.0 would look for it in the system alone
    return ctypes.CDLL(str(path))


def cuda_header() -> bytes:
    """Return the text of cluda.h for CUDA, as libgpuarray holds it."""
    folders = (Path(sys.prefix, "lib"), Path(sys.base_prefix, "lib"), Path("/usr/lib"))
    library = next((path for folder in folders for path in folder.rglob(LIBGPUARRAY)), None)
    if library is None:
        raise InputError(
            f"the kernels need libgpuarray's header, and {LIBGPUARRAY} is neither in this "
            "environment nor below /usr/lib; install it with `make gpu-sim`"
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
