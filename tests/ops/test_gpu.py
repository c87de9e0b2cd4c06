"""The GPU's kernels: on two simulated ones, with golden trajectories, and CUDA's compiler."""

from __future__ import annotations

import re
import shutil
import sys

import pytest
from helpers.golden import CASES
from helpers.on_gpu import CUDA, ROOT

sys.path.insert(0, str(ROOT))

from tools import cuda_compiler, kernels_registers

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


@pytest.mark.parametrize("capability", [60, 70, 80, 90])
def test_every_kernel_compiles_for_cuda(capability, opencl):
    """With the header of the installed libgpuarray, in all ways in which the Ops use kernels."""
    library, header = cuda_compiler.nvrtc(), cuda_compiler.cuda_header()
    sources = kernels_registers.sources()
    assert len(sources) > 80
    for source in sources:
        assert cuda_compiler.compile_for_cuda(library, source, header, capability)


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
    header = cuda_compiler.cuda_header()
    assembly = cuda_compiler.compile_for_cuda(cuda_compiler.nvrtc(), source, header, 80)
    kernel = assembly[assembly.index(".entry count_ranks") :]
    assert len(re.findall(r"call[^;]*value_of", kernel)) == 2
    assert assembly.count("ex2.") == assembly.count("ex2.", 0, assembly.index(kernel)) > 0
