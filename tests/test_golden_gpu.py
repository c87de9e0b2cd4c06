"""The trajectories of the reference on two simulated GPUs: OpenCL's and the emulator's of CUDA."""

from __future__ import annotations

import pytest
from helpers.golden import CASES
from helpers.on_gpu import CUDA

# on OpenCL, which takes its time: both losses that are recommended and others, all ways of
# embedding, momentum, several layers, another optimizer; the emulator has all of them
GOLDEN = [
    *("xe_shared_negatives_logq", "xe_separate", "bprmax_elu", "bprmax_onehot", "top1max"),
    *("two_layers_shared", "l2_momentum", "grad_cap", "rmsprop"),
]


@pytest.mark.parametrize("part", range(4))
def test_golden_trajectories(gpu, part):
    cases = (sorted(CASES) if gpu.name == CUDA else GOLDEN)[part::4]
    names = [f"tests/test_golden.py::test_trajectory[{name}]" for name in cases]
    device = gpu.strictly() if part == 0 else gpu
    assert device.pytest(*names) == len(cases)


def test_trajectories_without_fused_ops_or_without_merging(cuda):
    chosen = "without_fused_ops and (onehot and symbolic or logq and separate)"
    assert cuda.pytest("tests/test_golden.py", "-k", chosen) == 2
