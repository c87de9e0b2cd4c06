"""Ragged rows in flat arrays: what NumPy and SciPy lack for them.

A ragged array of n rows is flat, with the number of the row beside each entry (``rows``, ascending)
or with offsets (n + 1,): row i has the entries ``offsets[i]`` to ``offsets[i + 1]``.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse


def ranges(begin: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Return ``begin[i], begin[i] + 1, ...``, ``length[i]`` numbers of each i, one after the other.

    Parameters
    ----------
    begin, length : int64 arrays (n,)

    Returns
    -------
    int64 array (sum of lengths,)
    """
    after = np.cumsum(length)
    return np.repeat(begin - (after - length), length) + np.arange(after[-1] if len(after) else 0)


def offsets_of(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Return the offsets, int64 (n_rows + 1,), of entries that are in ascending order of rows."""
    return np.searchsorted(rows, np.arange(n_rows + 1))


def places(rows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the place of each entry in its row, from 0 on: int64, as long as `rows`."""
    return np.arange(len(rows)) - offsets[rows]


def largest(rows: np.ndarray, values: np.ndarray, n: int, n_rows: int) -> np.ndarray:
    """Return which entries are among the n largest of their row.

    Parameters
    ----------
    rows : int array, ascending
    values : array, as long as `rows`
        Of equal values the earlier one counts as the larger one.
    n, n_rows : int

    Returns
    -------
    int64 array
        Positions of these entries: by row, in it from the largest on.
    """
    order = np.lexsort((-values, rows))  # stable: ties keep their order
    return order[places(rows, offsets_of(rows, n_rows)) < n]


def binary(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Return a matrix of ones (float64) at given places, which may come several times."""
    matrix = counts(rows, columns, shape)
    matrix.data[:] = 1
    return matrix


def counts(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Return how often each place is given, as float64."""
    matrix = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    matrix.sum_duplicates()  # with sorted columns
    return matrix
