"""A small computation that tells whether a GPU can be used, before Theano is bound to it.

Opening a device compiles nothing, so a card that opens may still be of no use: its driver may be
older than the compiler, a library may not know the card, its memory may be full. Theano would end
with a traceback there.
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gru4rec_toolkit import theano_compat
from gru4rec_toolkit.errors import printable, shortened
from gru4rec_toolkit.machine import load_cuda_libraries, load_gpuarray

AGAIN = "run `make gpu` again, which chooses them by driver and card"
# what the driver and the libraries say, and what to do
ADVICE = {
    r"UNSUPPORTED_PTX_VERSION|Unsupported \.version": (
        f"the libraries in use are newer than the driver; {AGAIN}"
    ),
    "NVRTC_ERROR|gpu-architecture|INVALID_PTX|NO_BINARY": (
        f"the libraries in use do not know this card; {AGAIN}"
    ),
    "ARCH_MISMATCH|cublasCreate": f"the libraries in use do not fit this card; {AGAIN}",
    r"Could not load .lib(cuda|nvrtc|cublas)": f"NVIDIA's driver or libraries are missing; {AGAIN}",
    "SYSTEM_DRIVER_MISMATCH": "the driver was updated since the machine started; restart it",
    "NO_DEVICE": "the driver sees no card; look at nvidia-smi and at CUDA_VISIBLE_DEVICES",
    "INVALID_DEVICE": "there is no card of this number; nvidia-smi lists them",
    "OUT_OF_MEMORY|out of memory|ALLOC_FAILED": "nvidia-smi lists what else runs on the card; "
    "end that, or take another card",
}
# where a kernel cannot be compiled, libgpuarray says its source and logs, most of them empty
_LISTING = re.compile(
    r"(kernel compile failure) ::.*Compile log:\n(NVRTC compile log::\n)?\n*"
    r"(Link info log::\n)?\n*(Link error log::\n)?",
    re.DOTALL,
)


class Problem(NamedTuple):
    """Reason why a GPU is of no use.

    Attributes
    ----------
    action : str
        What it cannot do: "be opened", "compile" or "multiply".
    reason : str
        One line.
    """

    action: str
    reason: str


def find_problem(device: str) -> Problem | None:
    """Return why a GPU cannot be used; None if it computes."""
    if device.startswith("cuda"):
        load_cuda_libraries()
    load_gpuarray()
    action = "be opened"
    try:
        pygpu = theano_compat.import_pygpu()
        blas = importlib.import_module("pygpu.blas")
    except ModuleNotFoundError as err:
        if err.name == "pygpu":
            return Problem(action, "pygpu is not installed")
        return Problem(action, f"pygpu cannot be imported ({_said(err)})")
    except Exception as err:  # built for another NumPy, for example
        return Problem(action, f"pygpu cannot be imported ({_said(err)})")
    try:
        context = pygpu.init(device)
        action = "compile"
        _compile(pygpu.gpuarray, context)
        action = "multiply"
        _multiply(pygpu.gpuarray, blas, context)
    except Exception as err:  # pygpu raises its own and plain exceptions alike
        return Problem(action, _said(err))
    return None


def has_no_driver(problem: Problem) -> bool:
    """Tell whether a GPU is of no use because this machine has no driver of NVIDIA at all."""
    if not re.search(r"Could not load .libcuda\b", problem.reason):
        return False
    traces = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/nvhost-ctrl", "/dev/dxg")
    return ctypes.util.find_library("cuda") is None and not any(map(os.path.exists, traces))


def _compile(gpuarray, context) -> None:
    source = Path(__file__).with_name("gpu_probe.cl").read_text()
    types = [gpuarray.GpuArray, gpuarray.SIZE]
    kernel = gpuarray.GpuKernel(source, "twice", types, context=context)
    array = gpuarray.array(np.ones(2, np.float32), context=context)
    kernel(array, array.offset, gs=2, ls=1)
    _check(array, 2)


def _multiply(gpuarray, blas, context) -> None:
    ones = gpuarray.array(np.ones((2, 2), np.float32), context=context)
    _check(blas.gemm(1, ones, ones, 0, ones), 2)


def _check(array, expected: float) -> None:
    values = np.asarray(array)
    if not (values == expected).all():
        raise ArithmeticError(f"got {values.ravel().tolist()} in the place of {expected:.1f}")


def _said(err: Exception) -> str:
    """Return an exception in one line, and what to do where that is known."""
    text = err.args[0] if err.args else ""
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(err)
    text = _LISTING.sub(r"\1: ", text).replace("::", ":")
    text = shortened(printable(" ".join(text.split())) or "no reason given", 300)
    advice = next((ADVICE[said] for said in ADVICE if re.search(said, text)), "")
    return f"{type(err).__name__}: {text}" + (f" ({advice})" if advice else "")
