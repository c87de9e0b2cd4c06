"""GPUs that cannot be used: `auto` goes on with the CPU, a named one ends the program.

The package pygpu of these tests stands in for the real one: it fails where and as it is told to.
"""

from __future__ import annotations

import ctypes.util
import re

import pytest
from helpers.cli import ROOT, complaint, python, succeeds

from gru4rec_toolkit import gpu_probe

PYGPU = {
    "__init__.py": """
        import os, sys
        def fails_at(step):
            if os.environ["FAILS_AT"] == step:
                raise {"imported": ImportError, "numpy": ValueError}.get(step, GpuArrayException)(
                    os.environ["SAYS"].encode() if step == "opened" else os.environ["SAYS"])
        class GpuArrayException(Exception):
            pass
        fails_at("imported")
        fails_at("numpy")
        if os.environ["FAILS_AT"] == "mako":
            import no_mako_here
        from pygpu import gpuarray
        def init(device):
            print("opened", device)
            fails_at("opened")
            return device
        """,
    "gpuarray.py": """
        import os
        import numpy as np
        import pygpu
        SIZE = 0
        class GpuArray(np.ndarray):
            offset = 0
        def array(values, context):
            pygpu.fails_at("memory")
            return values.view(GpuArray)
        class GpuKernel:
            def __init__(self, source, name, types, context):
                pygpu.fails_at("compiled")
                assert f"KERNEL void {name}(" in source and len(types) == 2
            def __call__(self, array, offset, gs, ls):
                array *= 1 if os.environ["FAILS_AT"] == "wrong kernel" else 2
        """,
    "blas.py": """
        import os
        import pygpu
        def gemm(alpha, a, b, beta, c):
            pygpu.fails_at("multiplied")
            return a if os.environ["FAILS_AT"] == "wrong product" else 2 * a
        """,
}
CONFIGURE = """
import logging, sys
from gru4rec_toolkit.errors import run_cli
logging.basicConfig(stream=sys.stderr, level=sys.argv[2], format="%(message)s")
from gru4rec_toolkit import theano_setup
run_cli(lambda: print(theano_setup.configure(sys.argv[1]).device))
"""
# where, what is said there, and what the user reads
FAILURES = [
    (
        "imported",
        "libgpuarray.so.3: cannot open",
        "be opened: pygpu cannot be imported .ImportError: libgpu",
    ),
    (
        "numpy",
        "numpy.ndarray size changed",
        "be opened: pygpu cannot be imported .ValueError: numpy.ndarray",
    ),
    (
        "mako",
        "",
        "be opened: pygpu cannot be imported .ModuleNotFoundError: No module named 'no_mako_here'",
    ),
    ("opened", "cuInit: CUDA_ERROR_NO_DEVICE: no CUDA-capable", "be opened: .* nvidia-smi"),
    ("opened", "cuDeviceGet: CUDA_ERROR_INVALID_DEVICE: x", "be opened: .* no card of this number"),
    ("opened", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "be opened: .* restart it"),
    ("opened", 'Could not load "libcuda.so": x', "be opened: .* missing; run `make gpu` again"),
    ("memory", "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out", "compile: .* else runs on the card"),
    (
        "compiled",
        "cuLinkAddData: CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the provided PTX was compiled with\na",
        "compile: .* newer than the driver; run `make gpu` again",
    ),
    (
        "compiled",
        "nvrtcCompileProgram: NVRTC_ERROR_INVALID_OPTION",
        "compile: .* do not know this card; run `make gpu` again",
    ),
    ("wrong kernel", "", r"compile: ArithmeticError: got \[1.0, 1.0\] in the place of 2.0"),
    ("multiplied", "cublasCreate: (cublas) Operation not", "multiply: .* do not fit this card"),
    ("wrong product", "", "multiply: ArithmeticError"),
]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A directory with the package."""
    directory = tmp_path_factory.mktemp("stand-in")
    (directory / "pygpu").mkdir()
    for name, text in PYGPU.items():
        lines = text.strip("\n").splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        (directory / "pygpu" / name).write_text("\n".join(line[indent:] for line in lines) + "\n")
    return directory


def configure(stand_in, device, fails_at, says, level="INFO"):
    return python(
        *("-c", CONFIGURE, device, level),
        cwd=stand_in,
        PYTHONPATH=f"{stand_in}:{ROOT}",
        THEANO_FLAGS=None,
        FAILS_AT=fails_at,
        SAYS=says,
    )


@pytest.mark.parametrize(("fails_at", "says", "read"), FAILURES)
def test_a_named_gpu_that_fails_ends_with_one_sentence(stand_in, fails_at, says, read):
    message = complaint(configure(stand_in, "cuda1", fails_at, says))
    assert message.startswith("device cuda1 (asked for) cannot ")
    assert message.endswith("; use -d cpu or -d auto to run on the CPU")
    assert re.search(read, message) and "b'" not in message, message


@pytest.mark.parametrize(("fails_at", "says", "read"), [FAILURES[0], FAILURES[3], FAILURES[7]])
def test_auto_goes_on_with_the_cpu_and_says_why(stand_in, fails_at, says, read):
    done = succeeds(configure(stand_in, "auto", fails_at, says))
    assert done.lines[-1] == "cpu"
    first = done.err.splitlines()[0]
    assert first.startswith("device: cpu (no CUDA GPU: ") and "Traceback" not in done.err
    assert re.search(read.replace("be opened: ", ""), first), first


NO_LIBRARY = 'Could not load "libcuda.so": libcuda.so: cannot open shared object file'


@pytest.mark.parametrize(
    ("reason", "driver", "expected"),
    [
        (NO_LIBRARY, None, True),
        (NO_LIBRARY, "library", False),
        (NO_LIBRARY, "/proc/driver/nvidia", False),
        (NO_LIBRARY, "/dev/dxg", False),
        ('Could not load "libcublas.so": x', None, False),
        ("CUDA_ERROR_NO_DEVICE", None, False),
    ],
)
def test_a_machine_without_a_driver(monkeypatch, reason, driver, expected):
    library = "libcuda.so.1" if driver == "library" else None
    monkeypatch.setattr(gpu_probe.ctypes.util, "find_library", lambda name: library)
    monkeypatch.setattr(gpu_probe.os.path, "exists", lambda path: path == driver)
    assert gpu_probe.has_no_driver(gpu_probe.Problem("be opened", reason)) == expected


@pytest.mark.skipif(bool(ctypes.util.find_library("cuda")), reason="this machine has a driver")
def test_auto_is_brief_without_a_driver(stand_in):
    """Nobody asked for a GPU; the whole reason is there with --verbose."""
    done = succeeds(configure(stand_in, "auto", "opened", NO_LIBRARY))
    start = "device: cpu (no CUDA GPU: there is no driver, libcuda.so); BLAS: "
    assert done.err.splitlines()[0].startswith(start)
    assert "make gpu" not in done.err
    done = succeeds(configure(stand_in, "auto", "opened", NO_LIBRARY, level="DEBUG"))
    assert "no CUDA GPU: GpuArrayException: Could not load" in done.err and "make gpu" in done.err


def test_the_device_that_is_probed_is_the_one_that_is_used(stand_in):
    opened = {"auto": ["opened cuda0"], "cuda1": ["opened cuda1"], "cpu": []}
    for device, lines in opened.items():
        done = configure(stand_in, device, "opened", "CUDA_ERROR_UNKNOWN")
        assert [line for line in done.lines if line.startswith("opened")] == lines


# ---------------------------------------------------------------------------- a real pygpu


DEVICE = "opencl0:0"


def problem(device, tmp_path):
    code = f"from gru4rec_toolkit import gpu_probe; print(gpu_probe.find_problem({device!r}))"
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT), THEANO_FLAGS=None)
    return succeeds(done).lines[-1]


@pytest.fixture
def opencl(tmp_path):
    """Skip a test where OpenCL has no device."""
    found = problem(DEVICE, tmp_path)
    if "pygpu is not installed" in found or "be opened" in found:
        pytest.skip(f"no simulated GPU, `make gpu-sim` installs one: {found}")
    return found


def test_a_device_that_computes(opencl, tmp_path):
    assert opencl == "None"
    assert problem("opencl99:0", tmp_path).startswith(
        "Problem(action='be opened', reason='ValueError"
    )


@pytest.mark.usefixtures("opencl")
def test_what_only_theano_refuses_is_one_sentence(tmp_path):
    flags = f"device={DEVICE},gpuarray.preallocate=1e9"
    command = ("-c", CONFIGURE, DEVICE, "INFO")
    done = python(*command, cwd=tmp_path, PYTHONPATH=str(ROOT), THEANO_FLAGS=flags)
    message = complaint(done)
    assert "preallocate" in message and message.endswith("use -d cpu to run on the CPU")
