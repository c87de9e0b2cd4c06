"""Dropout with masks that follow from a seed, and from the step or from the sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gru4rec_toolkit.ops.base import in_one_kernel
from gru4rec_toolkit.ops.gru.op import dropped
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano


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


def dropout_of_rows(x: tt.TensorVariable, p: float, seed: int, keys) -> tt.TensorVariable:
    """Zero each element of x (M, n) with probability p, divide the others by 1 - p.

    Parameters
    ----------
    x : (M, n)
    p : float
    seed : int
    keys : int64 vector (M,)
        Row i has the mask that follows from seed and keys[i], whatever the other rows are. All
        numbers of it stay below 2^60, so that every device computes the same.
    """
    keep = 1 - p
    of_rows = _mixed(_mixed(_low(keys) ^ _low(np.int64(seed))) + keys // _BITS_32)
    columns = tt.arange(x.shape[1], dtype="int64") * np.int64(0x9E3779B1)
    bits = _mixed(_low(of_rows.dimshuffle(0, "x") + columns.dimshuffle("x", 0)))
    kept = tt.cast(tt.lt(bits // np.int64(1 << 8), np.int64(keep * (1 << 24))), x.dtype)
    return x * kept * np.asarray(1 / keep, dtype=x.dtype)


_BITS_32 = np.int64(1 << 32)


def _low(x):
    """Return the lower 32 bits of an int64."""
    return x & (_BITS_32 - np.int64(1))


def _mixed(x):
    """Return 32 bits, each of which depends on all of the lower 32 bits of an int64."""
    x = _low(x)
    for _ in range(2):
        x = _low((x ^ (x // np.int64(1 << 16))) * np.int64(0x45D9F3B))
    return x ^ (x // np.int64(1 << 16))


class Dropout:
    """The dropout of a training: every place in the graph has masks of its own.

    Parameters
    ----------
    seed : int
    mask : "step" or "sequence"
        What has a mask of its own: every step, or every sequence, through all of its steps (Gal and
        Ghahramani, NIPS 2016).
    batch_size : int

    Attributes
    ----------
    steps_done : shared int64 scalar
        Counts the steps; the step increments it.
    states : list of shared variables (rows, ...)
        What is kept of each sequence, as its state is.
    """

    def __init__(self, seed: int, mask: str, batch_size: int) -> None:
        # not at the top: sorted imports would put it before Theano is configured
        from theano.sandbox.rng_mrg import MRG_RandomStreams

        self.seed, self.batch_size = seed, batch_size
        self.rng = MRG_RandomStreams(seed)
        self.steps_done = theano.shared(np.int64(0), name="steps_done")
        self.states: list = []
        if mask == "sequence":
            self.states = [theano.shared(np.zeros(0, dtype=np.int64), name="mask_keys")]

    def reset(self) -> None:
        """Begin a sequence in every row."""
        for keys in self.states:
            first = self.steps_done.get_value() * self.batch_size
            keys.set_value(first + np.arange(self.batch_size, dtype=np.int64))

    def of_step(self, n: int, keys: list) -> Callable:
        """Return the dropout of the step that comes n steps after the next one.

        Parameters
        ----------
        n : int
        keys : list
            The `states` before that step.

        Returns
        -------
        callable
            Takes x (M, units) and the probability p; returns x after dropout.
        """
        counter = self.steps_done + n if n else self.steps_done
        n_places = 0

        def apply(x: tt.TensorVariable, p: float) -> tt.TensorVariable:
            nonlocal n_places
            if p <= 0:
                return x
            n_places += 1
            seed = self.seed + (n_places << 32)
            if keys:
                return dropout_of_rows(x, float(p), seed, keys[0])
            return dropout(x, float(p), seed, counter, self.rng)

        return apply

    def after_step(self, n: int, keys: list, goes_on: Any) -> list:
        """Return the `states` after the step that comes n steps after the next one.

        Parameters
        ----------
        n, keys
            As for `of_step`.
        goes_on : vector (M,)
            0 where a sequence ends with that step.
        """
        new = (self.steps_done + n + 1) * self.batch_size
        return [
            tt.switch(tt.gt(goes_on, 0), old, new + tt.arange(old.shape[0], dtype="int64"))
            for old in keys
        ]
