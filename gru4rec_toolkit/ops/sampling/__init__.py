"""Drawing negative samples, on the device that Theano runs on."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit import theano_setup
from gru4rec_toolkit.ops.sampling.op import NegativeSampler


def sampler(support: np.ndarray, alpha: float, n_sample: int, seed: int) -> NegativeSampler:
    """Return a `NegativeSampler` that draws into the memory of Theano's device."""
    if theano_setup.configure().device == "cpu":
        return NegativeSampler(support, alpha, n_sample, seed)
    from gru4rec_toolkit.ops.sampling.gpu import GpuSampler  # needs pygpu

    return GpuSampler(support, alpha, n_sample, seed)
