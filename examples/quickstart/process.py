"""A shop's click log from a known item-to-item process, and the best that any model can get on it.

The next item of a session comes

- with probability `from_current` from the successor list of the current item,
- with probability `from_previous` from the successor list of the item before the current one
  (of the current one, if the session has no other item yet),
- otherwise from the overall popularity.

So a model that remembers more than the last item gains, and the exact distribution of the next item
given the session so far is known: ranking by it is optimal for every Recall@N and for MRR@N in
expectation.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np
import pandas as pd

DAY = 86_400  # seconds
FIRST_DAY = 1_704_067_200  # Monday, 2024-01-01, 00:00 UTC
# relative number of session starts in each hour of the day, and on each day of the week
HOURS = np.array([2, 1, 1, 1, 1, 2, 4, 6, 8, 9, 9, 9, 9, 8, 8, 8, 8, 9, 10, 11, 11, 9, 6, 3])
WEEKDAYS = np.array([1.0, 1.0, 1.0, 1.0, 0.95, 1.05, 1.1])


class ClickProcess:
    """The generating process of the click log.

    Parameters
    ----------
    n_items : int
        Size of the catalogue.
    from_current, from_previous : float
        Probability that the next item comes from the current item's list, and from the list of the
        one before it.
    n_successors : tuple of int
        Shortest and longest successor list.
    days : int
        Days over which sessions start.
    seed : int
        Seed of the catalogue: popularities, ids and successor lists.

    Attributes
    ----------
    item_ids : numpy.ndarray, int64, (n_items,)
        Ids as in the log. Methods whose name ends in ``_at`` take positions in this array instead.
    popularity : numpy.ndarray, float64, (n_items,)
        Probability of each item as the first one of a session.
    points : numpy.ndarray, float32, (n_items, 6)
        Where the items lie on a sphere. Similar items are close, and follow each other more often.
    successors : numpy.ndarray, int64, (n_items, longest list)
        Positions of each item's successors, all different.
    weights : numpy.ndarray, float64, (n_items, longest list)
        Their probabilities; 0 past the end of a shorter list.
    """

    def __init__(
        self,
        n_items: int = 5000,
        from_current: float = 0.5,
        from_previous: float = 0.3,
        n_successors: tuple[int, int] = (20, 30),
        days: int = 28,
        seed: int = 7,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.n_items = n_items
        self.from_current = from_current
        self.from_previous = from_previous
        self.days = days
        # ids say nothing about popularity and have gaps, as in public data sets
        self.item_ids = 214_500_000 + rng.choice(80 * n_items, size=n_items, replace=False)
        popularity = 1.0 / (np.arange(n_items) + 10.0)  # Zipf's law with a flattened head
        self.popularity = popularity / popularity.sum()
        points = rng.standard_normal((n_items, 6)).astype(np.float32)
        self.points = points / np.linalg.norm(points, axis=1, keepdims=True)
        self.successors, self.weights = self._draw_successors(rng, n_successors)
        self._popularity_cdf = _cdf(self.popularity)
        self._weights_cdf = _cdf(self.weights)

    def _draw_successors(
        self, rng: np.random.Generator, n_successors: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the lists: without replacement, preferring popular and similar items.

        Without the items' points on the sphere there would be nothing to generalise, and counting
        pairs would be all that a model could do.
        """
        shortest, longest = n_successors
        successors = np.empty((self.n_items, longest), dtype=np.int64)
        for start in range(0, self.n_items, 500):
            rows = slice(start, start + 500)
            preference = 12 * self.points[rows] @ self.points.T
            preference += np.log(self.popularity, dtype=np.float32)
            # Gumbel noise: the top k are k draws without replacement by exp(preference / 0.3)
            preference += 0.3 * rng.gumbel(size=preference.shape).astype(np.float32)
            own = np.arange(*rows.indices(self.n_items))
            preference[own - start, own] = -np.inf  # no item follows itself
            top = np.argpartition(-preference, longest - 1, axis=1)[:, :longest]
            order = np.argsort(-np.take_along_axis(preference, top, axis=1), axis=1)
            successors[rows] = np.take_along_axis(top, order, axis=1)
        lengths = rng.integers(shortest, longest + 1, size=self.n_items)
        weights = 1.0 / np.arange(1.0, longest + 1.0)
        weights = weights * (np.arange(longest) < lengths[:, None])  # (n_items, longest)
        return successors, weights / weights.sum(axis=1, keepdims=True)

    def sample(self, n_sessions: int, seed: int = 0) -> pd.DataFrame:
        """Draw a click log.

        Parameters
        ----------
        n_sessions : int
        seed : int
            The same seed gives the same log.

        Returns
        -------
        pandas.DataFrame
            Columns SessionId, ItemId, Time (int64; seconds since 1970), sorted by session and time.
            Sessions have 2 to 50 events, 5 on average, and overlap in time; their ids ascend with
            the time of the first event.
        """
        rng = np.random.default_rng(seed)
        extra = rng.negative_binomial(0.7, 0.7 / (0.7 + 3.0), size=n_sessions)
        # longest first: the sessions that go on are then always the first ones
        lengths = np.sort(np.minimum(2 + extra, 50))[::-1]
        items = np.zeros((n_sessions, lengths[0]), dtype=np.int64)
        items[:, 0] = np.searchsorted(self._popularity_cdf, rng.random(n_sessions), side="right")
        for step in range(1, lengths[0]):
            n = int(np.count_nonzero(lengths > step))
            items[:n, step] = self._draw_next_at(
                rng, items[:n, step - 1], items[:n, max(step - 2, 0)]
            )
        in_session = np.arange(lengths[0]) < lengths[:, None]
        times = self._draw_times(rng, in_session)

        by_start = np.argsort(times[:, 0], kind="stable")
        session_ids = np.empty(n_sessions, dtype=np.int64)
        session_ids[by_start] = 11_000_000 + np.cumsum(rng.integers(1, 8, size=n_sessions))
        log = pd.DataFrame(
            {
                "SessionId": np.repeat(session_ids, lengths),
                "ItemId": self.item_ids[items[in_session]],
                "Time": times[in_session],
            }
        )
        return log.sort_values(["SessionId", "Time"], kind="stable", ignore_index=True)

    def _draw_next_at(
        self, rng: np.random.Generator, current: np.ndarray, previous: np.ndarray
    ) -> np.ndarray:
        """Draw one next item for each session, all as positions, (B,)."""
        origin = rng.random(len(current))
        source = np.where(origin < self.from_current, current, previous)
        slot = (self._weights_cdf[source] <= rng.random((len(source), 1))).sum(axis=1)
        drawn = self.successors[source, slot]
        popular = np.searchsorted(self._popularity_cdf, rng.random(len(source)), side="right")
        return np.where(origin < self.from_current + self.from_previous, drawn, popular)

    def _draw_times(self, rng: np.random.Generator, in_session: np.ndarray) -> np.ndarray:
        """Draw the events' times, (sessions, longest session), ascending in each session."""
        n_sessions = len(in_session)
        days = np.arange(self.days)
        hours = (WEEKDAYS[days % 7, None] * HOURS).ravel()
        hour = np.searchsorted(_cdf(hours), rng.random(n_sessions), side="right")
        start = FIRST_DAY + hour * 3600 + rng.integers(0, 3600, size=n_sessions)
        # seconds between two clicks: median 40, some of them minutes; never 0: the order is clear
        gaps = 1 + rng.lognormal(np.log(40.0), 1.1, size=in_session.shape).astype(np.int64)
        gaps[:, 0] = start
        return np.cumsum(gaps, axis=1)

    def positions(self, item_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return positions in `item_ids`, int64, same shape; KeyError for an unknown id."""
        ids = np.asarray(item_ids)
        order = np.argsort(self.item_ids)
        found = order[np.searchsorted(self.item_ids, ids, sorter=order) % self.n_items]
        if not np.array_equal(self.item_ids[found], ids):
            raise KeyError(f"no item of this process: {ids[self.item_ids[found] != ids][0]}")
        return found

    def next_item_distribution(self, session: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the exact distribution of the next item.

        Parameters
        ----------
        session : sequence of int
            Ids of the session's items so far, oldest first; may be empty.

        Returns
        -------
        numpy.ndarray, float64, (n_items,)
            Probability of each item of `item_ids`.
        """
        if len(session) == 0:
            return self.popularity.copy()
        last = self.positions(session[-2:])
        return self.next_item_distributions_at(last[-1:], last[:1])[0]

    def next_item_distributions_at(self, current: np.ndarray, previous: np.ndarray) -> np.ndarray:
        """Return the exact distribution of the next item for many sessions.

        Parameters
        ----------
        current, previous : numpy.ndarray, int64, (B,)
            Positions of the last item and of the one before it (of the last one again, if it is
            the session's first).

        Returns
        -------
        numpy.ndarray, float64, (B, n_items)
        """
        from_popularity = 1.0 - self.from_current - self.from_previous
        distributions = np.tile(from_popularity * self.popularity, (len(current), 1))
        rows = np.arange(len(current))[:, None]
        # the items of one list are all different, so no addition is lost
        distributions[rows, self.successors[current]] += self.from_current * self.weights[current]
        distributions[rows, self.successors[previous]] += (
            self.from_previous * self.weights[previous]
        )
        return distributions

    def best_ranks_at(
        self,
        current: np.ndarray,
        previous: np.ndarray,
        target: np.ndarray,
        candidates: np.ndarray,
        block: int = 512,
    ) -> np.ndarray:
        """Return the rank of the next item in the best possible ranking, by the exact distribution.

        Parameters
        ----------
        current, previous, target : numpy.ndarray, int64, (B,)
            Positions of the last item, the one before it, and of the item that came next.
        candidates : numpy.ndarray, int64, (C,)
            Positions of the items that are ranked.
        block : int
            Events ranked at a time: bounds the memory to ``8 * block * n_items`` bytes.

        Returns
        -------
        numpy.ndarray, int64, (B,)
            1 + how many candidates have a strictly greater probability than the target.
        """
        ranks = np.empty(len(target), dtype=np.int64)
        for start in range(0, len(target), block):
            part = slice(start, start + block)
            scores = self.next_item_distributions_at(current[part], previous[part])
            of_target = np.take_along_axis(scores, target[part, None], axis=1)  # (block, 1)
            ranks[part] = 1 + (scores[:, candidates] > of_target).sum(axis=1)
        return ranks


def _cdf(weights: np.ndarray) -> np.ndarray:
    """Return the cumulative distribution along the last axis, ending in exactly 1."""
    cumulated = np.cumsum(weights, axis=-1, dtype=np.float64)
    return cumulated / cumulated[..., -1:]
