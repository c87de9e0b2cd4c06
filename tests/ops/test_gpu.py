"""The GPU's kernels: on two simulated ones, and for CUDA's compiler."""

from __future__ import annotations

import re
import shutil
import sys

import pytest
from helpers.on_gpu import ROOT

sys.path.insert(0, str(ROOT))

from tools import cuda_compiler, kernels_registers


def test_every_kernel_agrees_with_numpy(gpu):
    assert gpu.strictly().pytest("tests/ops/test_ops.py") > 50


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
