"""Ranks of targets by sparse scores: how many items score higher than each, and how many the same.

A row of scores names few items. All others have a score of their own that is the same in every row,
the base, so that they are counted in its sorted values, whatever their number.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse


class Counter:
    """Counts better and equal items, over blocks of events.

    Parameters
    ----------
    base : float64 array (n_items,)
        Scores of the items that a row does not name.
    candidates : int array (k,), optional
        The items that targets are ranked among; by default all.
    """

    def __init__(self, base: np.ndarray, candidates: np.ndarray | None) -> None:
        self.base = base
        self.counts = np.ones(len(base), dtype=bool)
        if candidates is not None:
            self.counts[:] = False
            self.counts[candidates] = True
        self.sorted = np.sort(base[self.counts])

    def count(
        self, scores: sparse.csr_matrix, targets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Count the other items of higher and of equal score than each target.

        Parameters
        ----------
        scores : float64 csr_matrix (n_events, n_items)
            No place twice. A score that is stored counts, zeros too; the others are the base's.
        targets : int array (n_events,)

        Returns
        -------
        better, equal : two int64 arrays (n_events,)
        """
        items, values = scores.indices, scores.data
        rows = np.repeat(np.arange(len(targets)), np.diff(scores.indptr))
        own = self.base[targets]
        named = items == targets[rows]
        own[rows[named]] = values[named]
        below_or_equal = np.searchsorted(self.sorted, own, side="right")
        better = len(self.sorted) - below_or_equal
        equal = below_or_equal - np.searchsorted(self.sorted, own, side="left")
        # the items that a row names: their scores count, not those of the base
        kept = self.counts[items]
        rows, values, base = rows[kept], values[kept], self.base[items[kept]]
        own_of_row = own[rows]
        n = len(targets)
        better += _sums(rows, values > own_of_row, n) - _sums(rows, base > own_of_row, n)
        equal += _sums(rows, values == own_of_row, n) - _sums(rows, base == own_of_row, n)
        return better, equal - self.counts[targets]  # the target ties with itself


def _sums(rows: np.ndarray, is_counted: np.ndarray, n_rows: int) -> np.ndarray:
    return np.bincount(rows[is_counted], minlength=n_rows)


def best_columns(scores: np.ndarray, n: int) -> np.ndarray:
    """Return the columns (M, n) of each row's n highest scores, of (M, k), k >= n.

    The highest comes first, and equal ones in the order of their columns.
    """
    least = np.partition(scores, -n, axis=1)[:, [-n]]
    above, equal = scores > least, scores == least
    # of the items that tie for the last places, the first ones
    room = n - above.sum(axis=1, keepdims=True)
    chosen = above | (equal & (equal.cumsum(axis=1) <= room))
    columns = np.nonzero(chosen)[1].reshape(len(scores), n)
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)
