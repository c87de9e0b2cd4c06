"""Drawing and merging negative samples: the definition in numpy and the kernel on the CPU."""

from __future__ import annotations

import ctypes

import numpy as np

from gru4rec_toolkit.ops import library

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

    def skip(self, n_batches: int) -> None:
        """Go on after the first ``n_batches`` mini-batches, whatever was drawn so far."""
        self._n_drawn = n_batches * self.n_sample

    def __call__(self, n_batches: int) -> np.ndarray:
        """Draw the negatives of ``n_batches`` mini-batches: int32, (n_batches, n_sample).

        The array is the caller's until the next call, which uses its memory again: new memory
        costs as much time as the drawing.
        """
        if len(self._memory) < n_batches:
            self._memory = np.empty((n_batches, self.n_sample), dtype=np.int32)
        drawn = self._memory[:n_batches]
        draw = draw_in_c if library.usable() else draw_in_numpy
        draw(self._seed, self._n_drawn, *self._table, drawn.reshape(-1))
        self._n_drawn += drawn.size
        return drawn


def draw_in_c(
    seed: int, first: int, threshold: np.ndarray, alias: np.ndarray, out: np.ndarray
) -> None:
    """Fill ``out`` (n,) int32 with draws number ``first`` and on, on all threads."""
    pointer = ctypes.c_void_p
    library.load().gk_draw(
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


def merge_in_c(ids: np.ndarray, copies: np.ndarray, n_distinct: np.ndarray) -> None:
    """Merge equal ids of each row of ``ids`` (rows, n) int32, in place, on all threads.

    A row then begins with its different ids in ascending order, and the places in ``copies`` (rows,
    n) float32 say how often each came up; ``n_distinct`` (rows,) int64 says how many they are. The
    rest of a row has no meaning.
    """
    pointer = ctypes.c_void_p
    problem = library.load().gk_merge(
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
