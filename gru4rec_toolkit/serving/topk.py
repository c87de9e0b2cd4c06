"""The best items of sessions: what every way of recommending shares."""

from __future__ import annotations

import functools
import threading
import zlib
from typing import NamedTuple

import numpy as np

from gru4rec_toolkit import parameters
from gru4rec_toolkit.data.ids import Ids, Positions
from gru4rec_toolkit.data.sessions import known_items
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model import replay
from gru4rec_toolkit.model.toplists import Ranker

# Theano neither compiles nor runs a function for two threads at a time
one_at_a_time = threading.RLock()


class Recommendations(NamedTuple):
    """The best items of n sessions, best first.

    Attributes
    ----------
    items : (n, k) array
        Ids of items. Where a session has fewer than k items, for others are left out, the rest is
        None; the array is one of objects then.
    scores : (n, k) float array
        Scores by which evaluation ranks: after the final activation, but before a softmax. Of a
        session without events on known items: each item's share of the events of the training.
        Minus infinity where there is no item.
    """

    items: np.ndarray
    scores: np.ndarray


class Scorer:
    """A trained model's compiled steps: one more event of sessions, and the best items after it.

    Parameters
    ----------
    network : gru4rec.Network
    item_ids : (n_items,) array
    support : (n_items,) int array or None
        Numbers of events in the training.
    """

    def __init__(self, network, item_ids: np.ndarray, support: np.ndarray | None) -> None:
        self.network, self.item_ids, self.support = network, item_ids, support
        self.sizes = network.settings.layers
        self.activation = parameters.ranking_activation(network.settings.final_act)
        # those that rank, by whether items are chosen
        self._rankers: dict[bool, Ranker] = {}

    # ------------------------------------------------------------------------ states

    def zero_states(self, n: int) -> list[np.ndarray]:
        """Return the states (n, units) of n sessions without events, one array a layer."""
        return replay.zero_states(self.sizes, n)

    def advance(self, items: np.ndarray, states: list[np.ndarray]) -> list[np.ndarray]:
        """Return the states (m, units) after one more event on items (m,) of each session."""
        with one_at_a_time:
            return self._advance(items, *states)

    @functools.cached_property
    def _advance(self):
        return replay.step_function(self.network)

    @functools.cached_property
    def fingerprint(self) -> int:
        """Return a checksum of the weights, which states belong to."""
        found = zlib.crc32(repr(self.network.settings.architecture).encode())
        for name, weight in sorted(self.network.arrays().items()):
            found = zlib.crc32(np.ascontiguousarray(weight).view(np.uint8).data, found)
            found = zlib.crc32(name.encode(), found)
        return found

    # ------------------------------------------------------------------------ items

    @functools.cached_property
    def positions(self) -> Positions:
        """Return the items' positions by their ids, which only clicks need one by one."""
        return Positions(self.item_ids)

    def candidates(self, items: Ids | None) -> np.ndarray | None:
        """Return the positions of the items to choose from, ascending; None for all."""
        return None if items is None else np.unique(known_items(self.item_ids, items, "items"))

    def best(
        self,
        hidden: np.ndarray,
        left_out: list[np.ndarray],
        k: int,
        candidates: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best items (m, k) of sessions, best first, and their scores (m, k).

        Parameters
        ----------
        hidden : (m, units) array
            States of the last layer.
        left_out : list of m int arrays
            Positions of the items that each session must not get, ascending.
        k : int
        candidates : (n,) int32 array, optional
            Positions of the items to choose from, ascending.

        Returns
        -------
        positions : (m, k) int array
            Of equal scores the lower position comes first. -1 where there is no item.
        scores : (m, k) float array
        """
        if candidates is not None:
            left_out = [np.flatnonzero(np.isin(candidates, seen)) for seen in left_out]
        starts = np.cumsum([0, *map(len, left_out)]).astype(np.int32)
        flat = np.concatenate([*left_out, []]).astype(np.int32)
        with one_at_a_time:
            subset = candidates is not None
            if subset not in self._rankers:
                self._rankers[subset] = Ranker(self.network, self.activation, subset)
            items, scores = self._rankers[subset](hidden, starts, flat, k, candidates)
        if candidates is not None:
            items = np.where(items < 0, items, candidates[items])
        return items, scores

    def most_popular(
        self, k: int, candidates: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k items (k,) of most events in the training, and their shares (k,) of all.

        Raises
        ------
        InputError
            If the model does not know the items' support.
        """
        if self.support is None:
            raise InputError(
                "sessions: one has no event on an item that the model knows, for which the most "
                "popular items are recommended, but this model's file does not tell how often "
                "items occurred; leave such sessions out, or train the model again"
            )
        shares = self.support / self.support.sum()
        chosen = shares if candidates is None else shares[candidates]
        order = np.argsort(-chosen, kind="stable")[:k]
        return (order if candidates is None else candidates[order]), chosen[order]

    def named(self, items: np.ndarray, scores: np.ndarray) -> Recommendations:
        """Return positions of items, -1 for none, as their ids."""
        missing = items < 0
        ids = self.item_ids[np.where(missing, 0, items)]
        if missing.any():
            ids = ids.astype(object)
            ids[missing] = None
        return Recommendations(ids, scores)
