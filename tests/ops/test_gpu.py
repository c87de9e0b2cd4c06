"""The GPU's kernels: on two simulated ones, with golden trajectories, and CUDA's compiler."""

from __future__ import annotations

import ctypes
import importlib
import json
import re
import shutil
from pathlib import Path

import pytest
from helpers.golden import CASES
from helpers.on_gpu import CUDA, ROOT

# on OpenCL, which takes its time: both losses that are recommended and the others, all ways of
# embedding, momentum, several layers, equal negatives merged and not, other optimizers
GOLDEN = [
    *("xe_shared_negatives_logq", "xe_separate", "xe_onehot", "xe_smoothing", "xe_logit"),
    *("bprmax_elu", "bprmax_onehot", "bprmax_relu", "top1max"),
    *("two_layers_shared", "two_layers_separate", "momentum", "l2_momentum", "grad_cap"),
    *("rmsprop", "adadelta", "wide_batch"),
]


def test_every_kernel_agrees_with_numpy(gpu):
    assert gpu.strictly().pytest("tests/ops/test_ops.py") > 50


@pytest.mark.parametrize("part", range(4))
def test_golden_trajectories(gpu, part):
    cases = (sorted(CASES) if gpu.name == CUDA else GOLDEN)[part::4]
    names = [f"tests/test_golden.py::test_trajectory[{name}]" for name in cases]
    device = gpu.strictly() if part == 0 else gpu
    assert device.pytest(*names) == len(cases)


def test_golden_trajectories_without_fused_ops_or_without_merging(cuda):
    assert cuda.pytest("tests/test_golden.py", "-k", "without_fused_ops") == 6


def test_host_code_and_kernels_agree_on_the_sizes_of_groups(opencl):
    header = (ROOT / "gru4rec_toolkit/ops/shared/gpu_arrays.h").read_text()
    listing = opencl.program(
        """
        from gru4rec_toolkit.ops import gpu_base
        print("SIZES", gpu_base.THREADS, gpu_base.COLUMNS, gpu_base.PARTS)
        """
    )
    sizes = re.findall(r"\b(?:THREADS|COLUMNS|PARTS) = (\d+)", header)
    assert listing.split("SIZES")[1].split() == sizes


# the sizes of the product do not fit, so that the message shows which code ran
PRODUCT = """
    import sys
    sys.path.insert(0, sys.argv[1])
    from gru4rec_toolkit.theano_setup import theano, tensor as tt
    import numpy as np
    from gru4rec_toolkit.ops import library
    from gru4rec_toolkit.ops.products.gpu import GpuProductOfColumns
    assert str(library.SOURCES).startswith(sys.argv[1])
    a, b = tt.fmatrices("ab")
    product = theano.function([a, b], GpuProductOfColumns()(a, b, 0, 1))
    try:
        product(np.ones((2, 3), "f"), np.ones((3, 3), "f"))
    except ValueError as err:
        print(str(err).splitlines()[0])
"""


def test_a_module_of_other_code_does_not_run(tmp_path, opencl):
    shutil.copytree(ROOT / "gru4rec_toolkit", tmp_path / "gru4rec_toolkit")
    flags = f"device={opencl.name},base_compiledir={tmp_path}"
    changes = (
        ("products/gpu_apply.h", "the shapes do", "the sizes do", "the sizes do not fit"),
        ("shared/gpu_arrays.h", "ValueError, message", 'ValueError, "the header"', "the header"),
    )
    assert "the shapes do not fit" in opencl.program(PRODUCT, tmp_path, THEANO_FLAGS=flags)
    for file, old, new, message in changes:
        path = tmp_path / "gru4rec_toolkit/ops" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        assert message in opencl.program(PRODUCT, tmp_path, THEANO_FLAGS=flags)


# ---------------------------------------------------------------------------- CUDA's compiler


def nvrtc() -> ctypes.CDLL:
    wheel = next(iter(importlib.import_module("nvidia.cuda_nvrtc").__path__))
    return ctypes.CDLL(str(next(Path(wheel, "lib").glob("libnvrtc.so.*"))))


@pytest.mark.parametrize("capability", [60, 70, 80, 90])
def test_every_kernel_compiles_for_cuda(capability, opencl):
    """With the header of the installed libgpuarray, in all ways in which the Ops use kernels."""
    library = nvrtc()
    listing = opencl.program(
        """
        import json
        import gpu_ops
        from gru4rec_toolkit.ops import gpu_base
        from gru4rec_toolkit.ops.losses.op import LOSSES
        from gru4rec_toolkit.ops.updates import gpu as gpu_updates
        from gru4rec_toolkit.ops.updates.op import METHODS
        cpu_ops = {op.__name__: op for op in gpu_ops.TWINS}
        Loss = cpu_ops["Loss"]
        ops = [cpu_ops[name]() for name in ("Gather", "Outputs", "Dropout")]
        ops.append(cpu_ops["LogQ"](1, 0.5))
        for name in ("linear", "relu", "tanh", "leaky-0.1", "elu-0.5", "selu-1.1-1.6"):
            ops += [cpu_ops[op](name) for op in ("GRU", "GRUGradient", "CountRanks", "TopK")]
            ops += [Loss(loss, name, 1, 0.1) for loss in LOSSES]
        twins = [gpu_ops.GpuLookUps(None), *map(gpu_ops.twin, ops)]
        most = ((),) * gpu_updates.MOST_DENSE + ((False, True),) * gpu_updates.MOST_ROWS
        twins.append(gpu_updates.GpuUpdate("adam", True, True, most))
        for method in METHODS:
            for weighted in (((),), ((), (), (False, True), (False,))):
                for momentum in (False, True):
                    twins.append(gpu_updates.GpuUpdate(method, momentum, True, weighted))
        sources = {gpu_base.kernel_source("sampling", name)[0] for name in ("draw", "merge")}
        for twin in twins:
            for kernel in twin.KERNELS:
                sources.add(gpu_base.kernel_source(twin.FOLDER, kernel, **twin.constants())[0])
        print("SOURCES", json.dumps(sorted(sources)))
        """
    )
    sources = json.loads(listing.split("SOURCES")[1])
    assert len(sources) > 80
    header = cuda_header()
    for source in sources:
        assert compile_for_cuda(library, source, header, capability)


@pytest.mark.parametrize("activation", ["tanh", "elu-0.5", "selu-1.1-1.6"])
def test_one_function_activates_the_scores_of_targets_and_items(activation, opencl):
    """Without copies in the places that call it, which the compiler could make different."""
    listing = opencl.program(
        """
        import sys
        import gpu_ops
        from gru4rec_toolkit.ops import gpu_base
        op = gpu_ops.GpuCountRanks(sys.argv[1])
        source, _ = gpu_base.kernel_source("ranking", "count_ranks", **op.constants())
        print("SOURCE" + source)
        """,
        activation,
    )
    source = listing.split("SOURCE", 1)[1]
    assembly = compile_for_cuda(nvrtc(), source, cuda_header(), 80)
    kernel = assembly[assembly.index(".entry count_ranks") :]
    assert len(re.findall(r"call[^;]*value_of", kernel)) == 2
    assert assembly.count("ex2.") == assembly.count("ex2.", 0, assembly.index(kernel)) > 0


def cuda_header() -> bytes:
    """The text of cluda.h for CUDA, as libgpuarray holds it."""
    library = next(path for path in Path("/usr/lib").rglob("libgpuarray.so.3"))
    texts = library.read_bytes().split(b"\0")
    return next(t[t.index(b"#ifndef CLUDA_H") :] for t in texts if b"#define KERNEL extern" in t)


def compile_for_cuda(library, source, header, capability) -> str:
    """Return the assembly; fail with the compiler's messages."""
    handle, size = ctypes.c_void_p(), ctypes.c_size_t()
    one = ctypes.c_char_p * 1
    created = library.nvrtcCreateProgram(
        ctypes.byref(handle), source.encode(), b"kernel", 1, one(header), one(b"cluda.h")
    )
    assert created == 0
    options = one(f"-arch=compute_{capability}".encode())
    failed = library.nvrtcCompileProgram(handle, 1, options)

    def text(name):
        getattr(library, f"nvrtcGet{name}Size")(handle, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{name}")(handle, buffer)
        return buffer.value.decode()

    assert not failed, f"{text('ProgramLog')}\n{source}"
    assembly = text("PTX")
    library.nvrtcDestroyProgram(ctypes.byref(handle))
    return assembly
