"""Baselines of item pairs, which know the last item of a session only: Markov, item-kNN."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from gru4rec_toolkit.baselines import arrays
from gru4rec_toolkit.baselines.base import Baseline, Histories
from gru4rec_toolkit.data.sessions import SessionLog
from gru4rec_toolkit.progress import progress_bar

# products of pairs that are added up together: bounds the memory of learning item-kNN
PAIRS_AT_ONCE = 1 << 22


class _Pairs(Baseline):
    """Scores by a matrix (n_items, n_items): the last item's row."""

    matrix: sparse.csr_matrix

    def scores(self, histories: Histories) -> sparse.csr_matrix:
        return self.matrix[histories.last]


class Markov(_Pairs):
    """First-order Markov chain: how often each item came directly after the last one.

    The score of j after i is the share of j among the training events that follow an i in its
    session. (Simple Markov chain, MC, of Ludewig & Jannach, UMUAI 28, 2018.)

    Parameters
    ----------
    session_key, item_key, time_key : str
        Columns of the data.
    """

    name = "markov"

    def learn(self, log: SessionLog) -> None:
        has_next = np.ones(log.n_events, dtype=bool)
        has_next[log.offsets[1:] - 1] = False
        event = np.flatnonzero(has_next)
        matrix = arrays.counts(log.items[event], log.items[event + 1], (log.n_items, log.n_items))
        n_next = np.bincount(log.items[event], minlength=log.n_items)
        matrix.data /= np.repeat(n_next, np.diff(matrix.indptr))
        self.matrix = matrix


class ItemKNN(_Pairs):
    """The items that are most similar to the last one, by the sessions that they share.

    Similarity of two items, of n_i and n_j sessions, n_ij of which have both: the cosine of their
    vectors of sessions, with a regularisation that discounts rare items,
    ``n_ij / sqrt((n_i + lmbd) (n_j + lmbd))``. Only the `n_sims` most similar items have a score
    (of equal ones those that appear first in the data); an item is not similar to itself. Item-KNN
    of Hidasi et al., ICLR 2016, section 4, with the defaults of the code that its authors
    published.

    Parameters
    ----------
    n_sims : int
        Default 100.
    lmbd : float
        Regularisation, default 20.
    session_key, item_key, time_key : str
        Columns of the data.
    """

    name = "itemknn"
    n_sims: int
    lmbd: float

    def learn(self, log: SessionLog) -> None:
        lengths = np.diff(log.offsets)
        sessions = np.repeat(np.arange(log.n_sessions), lengths)
        by_session = arrays.binary(sessions, log.items, (log.n_sessions, log.n_items))
        by_item = by_session.T.tocsr()
        n_sessions = np.diff(by_item.indptr) + self.lmbd
        # products that a row of co-occurrences takes
        work = by_item @ np.diff(by_session.indptr).astype(np.float64)
        blocks, begin = [], 0
        ends = np.cumsum(work)
        with progress_bar(log.n_items, "Item pairs", unit="items") as progress:
            while begin < log.n_items:
                done = ends[begin - 1] if begin else 0
                end = max(begin + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, "right")))
                together = by_item[begin:end] @ by_session
                blocks.append(self._most_similar(together, begin, n_sessions))
                progress.update(end - begin)
                begin = end
        self.matrix = sparse.vstack(blocks, format="csr")

    def _most_similar(
        self, together: sparse.csr_matrix, begin: int, n_sessions: np.ndarray
    ) -> sparse.csr_matrix:
        """Turn co-occurrences of some items, from `begin` on, into similarities of the best."""
        together.sort_indices()
        rows = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr))
        is_other = together.indices != rows + begin
        rows, items = rows[is_other], together.indices[is_other]
        # one quotient of what are integers, if lmbd is one: equal similarities are equal numbers
        squares = together.data[is_other] ** 2 / (n_sessions[rows + begin] * n_sessions[items])
        best = arrays.largest(rows, squares, self.n_sims, together.shape[0])
        similarities = np.sqrt(squares[best])
        offsets = arrays.offsets_of(rows[best], together.shape[0])
        return sparse.csr_matrix((similarities, items[best], offsets), shape=together.shape)
