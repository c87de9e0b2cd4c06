"""Baselines that rank all items in one list: random, by popularity, by the session's popularity."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from gru4rec_toolkit.baselines import arrays
from gru4rec_toolkit.baselines.base import Baseline, Histories, predicted_events
from gru4rec_toolkit.data.sessions import SessionLog


class Random(Baseline):
    """A new random order of the items for every event: what no model may fall below.

    The expected Recall@N is N / n_items.

    Parameters
    ----------
    seed : int
        Default 42.
    session_key, item_key, time_key : str
        Columns of the data.
    """

    name = "random"
    seed: int

    def learn(self, log: SessionLog) -> None:
        pass

    def count_ranks(
        self, log: SessionLog, candidates: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw how many items come before each target; see `Baseline.count_ranks`.

        Of n other items, 0 to n come before the target with the same probability, so no order has
        to be drawn. The same seed gives the same ranks.
        """
        targets = log.items[predicted_events(log).end]
        n_others = np.full(len(targets), log.n_items - 1)
        if candidates is not None:
            n_others = len(candidates) - np.isin(targets, candidates)
        rng = np.random.default_rng(self.seed)
        better = rng.integers(0, n_others, endpoint=True)
        return better, np.zeros_like(better)

    def scores(self, histories: Histories) -> sparse.csr_matrix:
        """Return scores of all items, in another order for each history: what lists are made of."""
        n_items = len(self.base)
        # of the history's place in the log, so that the blocks do not matter
        rows = [np.random.default_rng((self.seed, end)).random(n_items) for end in histories.end]
        return sparse.csr_matrix(np.array(rows).reshape(len(histories), n_items))


class Popularity(Baseline):
    """The items by their number of training events, the same list for every event.

    POP of Hidasi et al., ICLR 2016, section 4.

    Parameters
    ----------
    session_key, item_key, time_key : str
        Columns of the data.
    """

    name = "popularity"

    def learn(self, log: SessionLog) -> None:
        self.base = log.support.astype(np.float64)

    def scores(self, histories: Histories) -> sparse.csr_matrix:
        return sparse.csr_matrix((len(histories), len(self.base)))


class SessionPopularity(Popularity):
    """The items of the running session by their number of events in it, then all others.

    Ties are broken by the number of training events, and the items that the session does not have
    follow in the order of that number. S-POP of Hidasi et al., ICLR 2016, section 4.

    Parameters
    ----------
    session_key, item_key, time_key : str
        Columns of the data.
    """

    name = "sessionpop"

    def scores(self, histories: Histories) -> sparse.csr_matrix:
        lengths = histories.lengths
        rows = np.repeat(np.arange(len(histories)), lengths)
        items = histories.items[arrays.ranges(histories.begin, lengths)]
        scores = arrays.counts(rows, items, (len(histories), len(self.base)))
        # one event in the session outweighs all popularity, which is 1 at least; integers, so that
        # ties are exact
        scores.data = scores.data * self.base.max() + self.base[scores.indices]
        return scores
