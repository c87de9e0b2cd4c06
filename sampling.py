"""Additional negative samples: their distribution and the store that feeds them to the training.

Hidasi and Karatzoglou, CIKM 2018, section 3.1: negatives beyond the mini-batch are drawn with
probability support^alpha. Drawing is expensive beside a training step, so ids are drawn in bulk
into a store from which whole blocks of steps are served without leaving Theano.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import kernel_library
from theano_setup import tensor as tt
from theano_setup import theano

_CHUNK = 1 << 20  # ids that numpy draws at a time
_LOW = np.uint64(2**32 - 1)


def alias_table(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an alias table: thresholds uint64 (n,) and aliases int32 (n,).

    A uniform slot i gives item i if a uniform 64-bit integer is below its threshold, else its
    alias (Walker, 1977; built as by Vose, 1991).
    """
    n = len(probabilities)
    height = np.asarray(probabilities, dtype=np.float64) * n
    alias = np.arange(n, dtype=np.int32)
    small, large = np.flatnonzero(height < 1).tolist(), np.flatnonzero(height >= 1).tolist()
    level = height.tolist()
    while small and large:
        low, high = small.pop(), large[-1]
        alias[low] = high
        level[high] -= 1 - level[low]
        if level[high] < 1:
            small.append(large.pop())
    # what is left over is 1 but for rounding, and is its own alias
    full = 2.0**64
    threshold = np.minimum(np.clip(level, 0, 1) * full, np.nextafter(full, 0)).astype(np.uint64)
    return threshold, alias


class NegativeSampler:
    """Draws item indices independently with probability proportional to support^alpha.

    Draw number i depends on the seed and on i alone, so the threads share one stream, and how many
    ids are drawn at a time does not matter.

    Parameters
    ----------
    support : (n_items,) int
        Number of training events of each item.
    alpha : float
        0: uniform; 1: proportional to the support.
    n_sample : int
        Negatives of one mini-batch.
    seed : int
        Of the stream, 0 to 2^64 - 1.
    """

    def __init__(self, support: np.ndarray, alpha: float, n_sample: int, seed: int) -> None:
        weights = np.asarray(support, dtype=np.float64) ** alpha
        self.probabilities = weights / weights.sum()
        self.n_sample = n_sample
        self._table = alias_table(self.probabilities)
        self._seed = seed
        self._n_drawn = 0
        self._memory = np.empty((0, n_sample), dtype=np.int32)

    def __call__(self, n_batches: int) -> np.ndarray:
        """Draw the negatives of ``n_batches`` mini-batches: int32, (n_batches, n_sample).

        The array is the caller's until the next call, which uses its memory again: new memory
        costs as much time as the drawing.
        """
        if len(self._memory) < n_batches:
            self._memory = np.empty((n_batches, self.n_sample), dtype=np.int32)
        drawn = self._memory[:n_batches]
        draw = draw_in_c if kernel_library.usable() else draw_in_numpy
        draw(self._seed, self._n_drawn, *self._table, drawn.reshape(-1))
        self._n_drawn += drawn.size
        return drawn


def draw_in_c(
    seed: int, first: int, threshold: np.ndarray, alias: np.ndarray, out: np.ndarray
) -> None:
    """Fill ``out`` (n,) int32 with draws number ``first`` and on, on all threads."""
    pointer = ctypes.c_void_p
    kernel_library.load().gk_draw(
        ctypes.c_uint64(seed),
        ctypes.c_uint64(first),
        ctypes.c_long(len(out)),
        ctypes.c_long(len(alias)),
        pointer(threshold.ctypes.data),
        pointer(alias.ctypes.data),
        pointer(out.ctypes.data),
    )


def draw_in_numpy(
    seed: int, first: int, threshold: np.ndarray, alias: np.ndarray, out: np.ndarray
) -> None:
    """The same as `draw_in_c`, and its definition."""
    n_items = np.uint64(len(alias))
    for start in range(0, len(out), _CHUNK):
        part = out[start : start + _CHUNK]
        bits = _random_bits(seed, np.arange(len(part), dtype=np.uint64) + np.uint64(first + start))
        # bits * n_items has 96 bits: from its halves, the integer part and the fraction
        low = (bits & _LOW) * n_items
        high = (bits >> np.uint64(32)) * n_items + (low >> np.uint64(32))
        slot, fraction = high >> np.uint64(32), (high << np.uint64(32)) | (low & _LOW)
        part[:] = np.where(fraction < threshold[slot], slot, alias[slot])


def _random_bits(seed: int, i: np.ndarray) -> np.ndarray:
    """Numbers i of the stream: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = np.uint64(seed) + (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def expected_distinct(support: np.ndarray, alpha: float, n_sample: int) -> float:
    """Return how many different items `n_sample` draws with probability support^alpha give."""
    weights = np.asarray(support, dtype=np.float64) ** alpha
    with np.errstate(divide="ignore"):  # an only item is drawn for certain
        return float(-np.expm1(n_sample * np.log1p(-weights / weights.sum())).sum())


def merge_in_c(ids: np.ndarray, copies: np.ndarray, n_distinct: np.ndarray) -> None:
    """Merge equal ids of each row of ``ids`` (rows, n) int32, in place, on all threads.

    A row then begins with its different ids in ascending order, and the places in ``copies`` (rows,
    n) float32 say how often each came up; ``n_distinct`` (rows,) int64 says how many they are. The
    rest of a row has no meaning.
    """
    pointer = ctypes.c_void_p
    problem = kernel_library.load().gk_merge(
        *map(ctypes.c_long, ids.shape), *(pointer(a.ctypes.data) for a in (ids, copies, n_distinct))
    )
    if problem == 1:
        raise ValueError("negatives: expected item indices, got a negative number")
    if problem:
        raise MemoryError("merging negatives")


def merge_in_numpy(ids: np.ndarray, copies: np.ndarray, n_distinct: np.ndarray) -> None:
    """The same as `merge_in_c`, and its definition."""
    for row, (of_row, copies_of_row) in enumerate(zip(ids, copies)):
        distinct, counts = np.unique(of_row, return_counts=True)
        n_distinct[row] = n = len(distinct)
        of_row[:n], copies_of_row[:n] = distinct, counts


class SampleStore:
    """Feeds a compiled training step with negatives, whatever holds them.

    Parameters
    ----------
    draw : callable
        ``draw(n_batches)`` returns int (n_batches, n_sample). One that has the method
        ``draw_on_device`` as well (`gpu_sampling.GpuSampler`) fills a store on the device.
    n_sample : int
    n_ids : int
        How many ids the store holds. Fewer than ``n_sample``: there is no store, and each block of
        steps draws its own.
    on_device : bool
        True: the whole store lies in a Theano shared variable (on the GPU where Theano runs on
        one). False: it lies in host memory and each block of steps gets its part.
    merge : bool
        List a mini-batch's equal negatives once, with the number of copies: the step is the same,
        with fewer columns of the score matrix.

    Attributes
    ----------
    samples : shared int32 (rows, n_sample)
        Negatives ready for use.
    copies : shared float32 (rows, n_sample), n_distinct : shared int64 (rows,) in host memory
        With ``merge``: the first n_distinct[row] of a row's negatives are meant, so often.
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
        merge: bool = False,
    ) -> None:
        self._draw, self._merge = draw, merge
        self._n_sample = n_sample
        self.n_batches = n_ids // n_sample
        self.on_device = on_device and self.n_batches > 0
        self._held: _Rows | None = None
        self._used = 0
        self.samples = theano.shared(np.empty((0, n_sample), dtype=np.int32), name="negatives")
        self.copies = theano.shared(np.empty((0, n_sample), dtype=np.float32), name="copies")
        # on the host, so that taking part of a row needs nothing from the device
        nothing = np.empty(0, dtype=np.int64)
        self.n_distinct = theano.shared(nothing, name="n_distinct", target="cpu")
        self.n_distinct.tag.target = "cpu"
        self.row = theano.shared(np.int64(0), name="negative_row")

    def negatives(self) -> tuple[tt.TensorVariable, tt.TensorVariable | None]:
        """Return the present row's ids (K,) and copies (K,), None if nothing is merged."""
        if not self._merge:
            return self.samples[self.row], None
        n = self.n_distinct[self.row]
        return self.samples[self.row, :n], self.copies[self.row, :n]

    def serve(self, n_steps: int, n_steps_left: int) -> int:
        """Make negatives ready for up to ``n_steps`` steps; return for how many.

        ``n_steps_left`` is how many the whole training may still take, so that a short training
        does not draw ids that it will never use.
        """
        if self.n_batches == 0:
            self._upload(self._fresh(n_steps))
            return n_steps
        if self._held is None or self._used == len(self._held.ids):
            self._held = self._fresh(max(n_steps, min(self.n_batches, n_steps_left)))
            self._used = 0
            if self.on_device:
                self._upload(self._held)
        n_served = min(n_steps, len(self._held.ids) - self._used)
        if not self.on_device:
            self._upload(_Rows(*(a[self._used : self._used + n_served] for a in self._held)))
        self._used += n_served
        return n_served

    def _fresh(self, n_batches: int) -> _Rows:
        if self.on_device and hasattr(self._draw, "draw_on_device"):
            return _Rows(*self._draw.draw_on_device(n_batches, self._merge))
        drawn = np.ascontiguousarray(self._draw(n_batches), dtype=np.int32)
        if drawn.shape != (n_batches, self._n_sample):
            raise ValueError(
                f"negatives: expected shape {(n_batches, self._n_sample)}, got {drawn.shape}"
            )
        copies = np.empty(drawn.shape if self._merge else (n_batches, 0), dtype=np.float32)
        n_distinct = np.empty(n_batches, dtype=np.int64)
        if self._merge:
            if not isinstance(self._draw, NegativeSampler):
                drawn = drawn.copy()  # the user's, perhaps
            merge = merge_in_c if kernel_library.usable() else merge_in_numpy
            merge(drawn, copies, n_distinct)
        return _Rows(drawn, copies, n_distinct)

    def _upload(self, rows: _Rows) -> None:
        self.samples.set_value(rows.ids, borrow=True)
        self.copies.set_value(rows.copies, borrow=True)
        self.n_distinct.set_value(rows.n_distinct, borrow=True)
        self.row.set_value(np.int64(0))


class _Rows(NamedTuple):
    """Negatives of mini-batches, as `SampleStore` holds them."""

    ids: np.ndarray
    copies: np.ndarray
    n_distinct: np.ndarray
