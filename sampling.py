"""Additional negative samples: their distribution and the store that feeds them to the training.

Hidasi and Karatzoglou, CIKM 2018, section 3.1: negatives beyond the mini-batch are drawn with
probability support^alpha. Drawing is expensive beside a training step, so ids are drawn in bulk
into a store from which whole blocks of steps are served without leaving Theano.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from theano_setup import theano

# mini-batches' worth of ids that are shuffled together: more would leave the processor's cache
_CHUNK = 256


class NegativeSampler:
    """Draws item indices independently with probability proportional to support^alpha.

    Parameters
    ----------
    support : (n_items,) int
        Number of training events of each item.
    alpha : float
        0: uniform; 1: proportional to the support.
    n_sample : int
        Negatives of one mini-batch.
    rng : numpy.random.Generator
    """

    def __init__(
        self, support: np.ndarray, alpha: float, n_sample: int, rng: np.random.Generator
    ) -> None:
        weights = np.asarray(support, dtype=np.float64) ** alpha
        self.probabilities = weights / weights.sum()
        self.n_sample = n_sample
        self._items = np.arange(len(weights), dtype=np.int32)
        self._rng = rng

    def __call__(self, n_batches: int) -> np.ndarray:
        """Draw the negatives of ``n_batches`` mini-batches: int32, (n_batches, n_sample)."""
        drawn = np.empty((n_batches, self.n_sample), dtype=np.int32)
        for start in range(0, n_batches, _CHUNK):
            part = drawn[start : start + _CHUNK]
            # Independent draws are multinomial counts in random order. That is exact, and several
            # times faster than searching the cumulative distribution for each draw.
            counts = self._rng.multinomial(part.size, self.probabilities)
            ids = np.repeat(self._items, counts)
            self._rng.shuffle(ids)
            part[:] = ids.reshape(part.shape)
        return drawn


class SampleStore:
    """Feeds a compiled training step with negatives, whatever holds them.

    Parameters
    ----------
    draw : callable
        ``draw(n_batches)`` returns int (n_batches, n_sample).
    n_sample : int
    n_ids : int
        How many ids the store holds. Fewer than ``n_sample``: there is no store, and each block of
        steps draws its own.
    on_device : bool
        True: the whole store lies in a Theano shared variable (on the GPU where Theano runs on
        one). False: it lies in host memory and each block of steps gets its part.

    Attributes
    ----------
    samples : shared int32 (rows, n_sample)
        Negatives ready for use.
    row : shared int64 scalar
        The row that the next step uses; the step itself moves it on.
    n_batches : int
        Capacity in mini-batches; 0 without a store.
    """

    def __init__(
        self,
        draw: Callable[[int], np.ndarray],
        n_sample: int,
        n_ids: int,
        on_device: bool = True,
    ) -> None:
        self._draw = draw
        self._n_sample = n_sample
        self.n_batches = n_ids // n_sample
        self.on_device = on_device and self.n_batches > 0
        self._host = np.empty((0, n_sample), dtype=np.int32)
        self._used = 0
        self.samples = theano.shared(self._host, name="negative_samples")
        self.row = theano.shared(np.int64(0), name="negative_row")

    def serve(self, n_steps: int, n_steps_left: int) -> int:
        """Make negatives ready for up to ``n_steps`` steps; return for how many.

        ``n_steps_left`` is how many the whole training may still take, so that a short training
        does not draw ids that it will never use.
        """
        if self.n_batches == 0:
            self._upload(self._fresh(n_steps))
            return n_steps
        if self._used == len(self._host):
            self._host = self._fresh(max(n_steps, min(self.n_batches, n_steps_left)))
            self._used = 0
            if self.on_device:
                self._upload(self._host)
        n_served = min(n_steps, len(self._host) - self._used)
        if not self.on_device:
            self._upload(self._host[self._used : self._used + n_served])
        self._used += n_served
        return n_served

    def _fresh(self, n_batches: int) -> np.ndarray:
        drawn = np.ascontiguousarray(self._draw(n_batches), dtype=np.int32)
        if drawn.shape != (n_batches, self._n_sample):
            raise ValueError(
                f"negatives: expected shape {(n_batches, self._n_sample)}, got {drawn.shape}"
            )
        return drawn

    def _upload(self, rows: np.ndarray) -> None:
        self.samples.set_value(rows, borrow=True)
        self.row.set_value(np.int64(0))
