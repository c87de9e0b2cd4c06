"""Dropout with masks that follow from a seed and a counter."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops.base import in_one_kernel
from gru4rec_toolkit.ops.gru.op import dropped
from gru4rec_toolkit.theano_setup import tensor as tt


@in_one_kernel(dropped)
def dropout(x: tt.TensorVariable, p: float, seed: int, counter, rng) -> tt.TensorVariable:
    """Zero each element of x (M, n) with probability p, divide the others by 1 - p.

    Parameters
    ----------
    x : (M, n)
    p : float
    seed : int
        Two graphs with the same seed have the same masks.
    counter : int64 scalar
        The number of the step. The Op's mask follows from seed and counter alone.
    rng : MRG_RandomStreams
        Draws the mask where no kernel runs.
    """
    keep = 1 - p
    mask = rng.binomial(x.shape, p=keep, ndim=x.ndim, dtype=x.dtype)
    return x * mask * np.asarray(1 / keep, dtype=x.dtype)
