"""Baselines of neighbour sessions, S-kNN and V-SkNN, with the index of VMIS-kNN.

For a running session, the candidates are the `sample_size` most recent training sessions that share
an item with it, the neighbours the k of them that are most similar. An item's score is the sum of
the weights of the neighbours that have it, added up from the largest on, so that items of the same
weights tie.

The index (Kersbergen, Sprangers & Schelter, SIGMOD 2022, "Serenade") has for each item
its `sample_size` most recent sessions. That is enough: a session that is among the most recent of
all candidates is among the most recent of each of its items. So a prediction looks at `sample_size`
sessions an item of the running session, whatever the size of the log, and finds the same
neighbours as a search through all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import sparse

from gru4rec_toolkit.baselines import arrays
from gru4rec_toolkit.baselines.base import Baseline, Histories
from gru4rec_toolkit.data.sessions import SessionLog

# sessions found by way of items that are put together at a time: bounds memory, and stays in caches
SESSIONS_AT_ONCE = 1 << 19


class Index:
    """Training sessions from the most recent on, and the most recent sessions of each item.

    The most recent session is that with the latest last event; of equal times the later one in the
    log, whose sessions are in the order of their ids.

    Parameters
    ----------
    log : SessionLog
    sample_size : int
        How many sessions of an item are kept.

    Attributes
    ----------
    items : float64 csr_matrix (n_sessions, n_items)
        1 where a session has an item; row 0 is the most recent session.
    n_items : int64 array (n_sessions,)
        Different items of each session.
    n_sessions : int64 array (n_items,)
        Sessions of each item, in the whole log.
    sessions : int32 or int64 array
        Rows of `items`, the most recent first: those of item i from ``begin[i]`` on.
    begin, length : int64 arrays (n_items,)
    """

    def __init__(self, log: SessionLog, sample_size: int) -> None:
        recency = np.empty(log.n_sessions, dtype=np.int64)
        recency[np.argsort(log.end_times, kind="stable")[::-1]] = np.arange(log.n_sessions)
        rows = np.repeat(recency, np.diff(log.offsets))
        self.items = arrays.binary(rows, log.items, (log.n_sessions, log.n_items))
        self.n_items = np.diff(self.items.indptr).astype(np.int64)
        by_item = self.items.T.tocsr()
        by_item.sort_indices()
        self.n_sessions = np.diff(by_item.indptr).astype(np.int64)
        self.length = np.minimum(self.n_sessions, sample_size)
        kept = arrays.ranges(by_item.indptr[:-1].astype(np.int64), self.length)
        self.sessions = by_item.indices[kept]
        self.begin = np.cumsum(self.length) - self.length


class Found(NamedTuple):
    """Candidates of n histories, an entry each: by history, the most recent session first.

    Attributes
    ----------
    rows : int64 array (n_found,)
        Number of the history.
    sessions : int64 array (n_found,)
        Row of the index.
    shared : int64 array (n_found,)
        How many different items it shares with the history.
    sums, latest : int64 arrays (n_found,)
        Sum and largest of the positions of the shared items in the history, which count from 1 on;
        an item that comes several times has the last of its positions.
    """

    rows: np.ndarray
    sessions: np.ndarray
    shared: np.ndarray
    sums: np.ndarray
    latest: np.ndarray


class _Neighbours(Baseline):
    """What S-kNN and V-SkNN share: all but the similarity and the weights."""

    k: int
    sample_size: int
    index: Index

    def learn(self, log: SessionLog) -> None:
        self.index = Index(log, self.sample_size)

    def similarities(self, found: Found, lengths: np.ndarray, n_items: np.ndarray) -> np.ndarray:
        """Return how similar candidates are to their histories, positive: array (n_found,).

        Parameters
        ----------
        found : Found
        lengths, n_items : int64 arrays (n_found,)
            Events, and different items, of the candidate's history.
        """
        raise NotImplementedError

    def weights(self, found: Found, similarities: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return the weights of neighbours, positive: float64 array (n_found,)."""
        raise NotImplementedError

    def scores(self, histories: Histories) -> sparse.csr_matrix:
        blocks = [self._score(*part) for part in self._parts(histories)]
        return sparse.vstack(blocks, format="csr")

    def _parts(self, histories: Histories) -> Iterator[tuple]:
        """Yield lengths and items of histories, as many at a time as memory may hold."""
        n, lengths = len(histories), histories.lengths
        rows, items, positions = last_positions(histories, self.index.items.shape[1])
        offsets = arrays.offsets_of(rows, n)
        work = np.concatenate([[0], np.cumsum(self.index.length[items])])[offsets]
        begin = 0
        while begin < n:
            end = int(np.searchsorted(work, work[begin] + SESSIONS_AT_ONCE, side="right")) - 1
            end = min(max(end, begin + 1), n)
            part = slice(offsets[begin], offsets[end])
            yield lengths[begin:end], rows[part] - begin, items[part], positions[part]
            begin = end

    def _score(
        self, lengths: np.ndarray, rows: np.ndarray, items: np.ndarray, positions: np.ndarray
    ) -> sparse.csr_matrix:
        """Score the next items of histories.

        Parameters
        ----------
        lengths : int64 array (n,)
            Events of each history.
        rows, items, positions : int64 arrays
            As `last_positions` gives them.
        """
        n = len(lengths)
        n_items = np.bincount(rows, minlength=n)
        found = self._candidates(rows, items, positions, n)
        similarities = self.similarities(found, lengths[found.rows], n_items[found.rows])
        best = arrays.largest(found.rows, similarities, self.k, n)
        found = Found(*(values[best] for values in found))
        weights = self.weights(found, similarities[best], lengths[found.rows])
        order = np.lexsort((-weights, found.rows))
        # SciPy adds up a row's products in the order of its entries
        neighbours = sparse.csr_matrix(
            (weights[order], found.sessions[order], arrays.offsets_of(found.rows, n)),
            shape=(n, len(self.index.n_items)),
        )
        return neighbours @ self.index.items

    def _candidates(
        self, rows: np.ndarray, items: np.ndarray, positions: np.ndarray, n: int
    ) -> Found:
        """Return the most recent sessions that share an item with each history."""
        index = self.index
        length = index.length[items]
        sessions = index.sessions[arrays.ranges(index.begin[items], length)]
        # one integer sorts by history, session, and position from the last on; 9 bits of the 63 are
        # the history's
        position_bits = int(positions.max()).bit_length()
        session_bits = len(index.n_items).bit_length()
        keys = np.repeat(rows << session_bits, length) + sessions
        largest_position = (1 << position_bits) - 1
        keys = (keys << position_bits) + np.repeat(largest_position - positions, length)
        keys.sort()
        positions = largest_position - (keys & largest_position)
        keys >>= position_bits
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
        found = Found(
            rows=keys[starts] >> session_bits,
            sessions=keys[starts] & ((1 << session_bits) - 1),
            shared=np.diff(np.append(starts, len(keys))),
            sums=np.add.reduceat(positions, starts),
            latest=positions[starts],
        )
        place = arrays.places(found.rows, arrays.offsets_of(found.rows, n))
        is_recent = place < self.sample_size
        return Found(*(values[is_recent] for values in found))


class SKNN(_Neighbours):
    """Session-based kNN: items of the most similar sessions, as sets of items.

    The similarity of sessions is the cosine of their binary vectors of items, and the weight of a
    neighbour (Jannach & Ludewig, RecSys 2017, "kNN"; neighbours among recent sessions
    as there). Of equally similar sessions the more recent one is the nearer neighbour. The defaults
    are those of the code that its authors published (session-rec).

    Parameters
    ----------
    k : int
        Neighbours, default 100.
    sample_size : int
        Most recent sessions that neighbours are chosen from, default 1000.
    session_key, item_key, time_key : str
        Columns of the data.
    """

    name = "sknn"

    def similarities(self, found: Found, lengths: np.ndarray, n_items: np.ndarray) -> np.ndarray:
        # one quotient of integers: equal similarities are equal numbers
        return np.sqrt(found.shared**2 / (n_items * self.index.n_items[found.sessions]))

    def weights(self, found: Found, similarities: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return similarities


class VSKNN(_Neighbours):
    """Vector multiplication session-based kNN: later items of the running session count more.

    An item at position p of a running session of n events has the weight p / n, and the last of its
    positions counts; the similarity is the sum of the weights of the items that a session shares
    with it (Ludewig & Jannach, UMUAI 28, 2018, V-SKNN). The weight of a neighbour is its
    similarity divided by the number of steps back to the most recent item that it shares, 1 for
    the last item. With `idf_weighting` the score of an item of n_i among n training sessions is
    multiplied by ``1 + idf_weighting * log(n / n_i)``. Both are those of the code that its authors
    published (session-rec), as are the defaults. Of equally similar sessions the more recent one is
    the nearer neighbour. VMIS-kNN (Kersbergen et al., SIGMOD 2022), whose index is used, computes
    the same with another discount by steps.

    Parameters
    ----------
    k : int
        Neighbours, default 100.
    sample_size : int
        Most recent sessions that neighbours are chosen from, default 1000.
    idf_weighting : float
        Preference of rare items, default 0: none.
    session_key, item_key, time_key : str
        Columns of the data.
    """

    name = "vsknn"
    idf_weighting: float

    def similarities(self, found: Found, lengths: np.ndarray, n_items: np.ndarray) -> np.ndarray:
        return found.sums  # of positions; weights divides them by the length

    def weights(self, found: Found, similarities: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        steps = lengths - found.latest + 1
        # one quotient of integers: equal weights are equal numbers
        return similarities / (lengths * steps)

    def scores(self, histories: Histories) -> sparse.csr_matrix:
        scores = super().scores(histories)
        if self.idf_weighting:
            idf = np.log(len(self.index.n_items) / self.index.n_sessions)
            scores.data *= (1 + self.idf_weighting * idf)[scores.indices]
        return scores


def last_positions(histories: Histories, n_items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the different items of histories, each with the last of its positions.

    Parameters
    ----------
    histories : Histories
    n_items : int

    Returns
    -------
    rows, items, positions : three int64 arrays (n,)
        Number of the history, ascending; item; position of the item in it, from 1 on.
    """
    lengths = histories.lengths
    rows = np.repeat(np.arange(len(histories)), lengths)
    positions = arrays.ranges(np.ones(len(histories), dtype=np.int64), lengths)
    items = histories.items[arrays.ranges(histories.begin, lengths)].astype(np.int64)
    keys = rows * n_items + items
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    is_last = np.r_[keys[1:] != keys[:-1], True]
    kept = order[is_last]
    return rows[kept], items[kept], positions[kept]
