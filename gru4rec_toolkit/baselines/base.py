"""What all baselines have in common: parameters, fitting, ranks of the targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from gru4rec_toolkit import parameters
from gru4rec_toolkit.baselines.counting import Counter, best_columns
from gru4rec_toolkit.data import sessions
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.progress import progress_bar

if TYPE_CHECKING:
    from scipy import sparse

# events that are scored together: enough to hide NumPy's overhead, in little memory
EVENTS_AT_ONCE = 512
# scores of all items that are in memory together, where lists are made
MOST_SCORES = 1 << 22


@dataclass(frozen=True, eq=False)
class Histories:
    """What is known before each of n predictions: the running session so far, never empty.

    Attributes
    ----------
    items : int32 array (n_events,)
        Item indices, session after session, as a `SessionLog` has them.
    begin, end : int64 arrays (n,)
        History i has the events ``items[begin[i]:end[i]]``, oldest first.
    """

    items: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.end)

    @property
    def lengths(self) -> np.ndarray:
        return self.end - self.begin

    @property
    def last(self) -> np.ndarray:
        """Return the item of the last event: int32 array (n,)."""
        return self.items[self.end - 1]

    def part(self, start: int, stop: int) -> Histories:
        return Histories(self.items, self.begin[start:stop], self.end[start:stop])


class Baseline:
    """A recommender without a network, with the interface of `GRU4Rec` as far as it goes.

    A method is a subclass. It has a ``name``, ``learn``, ``scores``, and a ``table`` of its
    parameters, by default the one that `parameters.BASELINES` has under its name. Its ``learn``
    sets ``base`` if the items that ``scores`` does not name differ.

    Parameters
    ----------
    **settings
        Parameters by name, as strings or values; those of `table` are attributes.

    Attributes
    ----------
    item_ids : int64 array or object array of str (n_items,)
        The items of the training data in order of first appearance.
    support : int64 array (n_items,)
        Their numbers of events in the training data.
    base : float64 array (n_items,)
        Scores of the items that a row of ``scores`` does not name: zeros, if ``learn`` sets none.

    Raises
    ------
    gru4rec_toolkit.errors.InputError
        On an unknown parameter or a value that it does not take.
    """

    name: ClassVar[str]
    table: ClassVar[Mapping[str, parameters.Parameter]]

    session_key: str
    item_key: str
    time_key: str
    item_ids: np.ndarray
    support: np.ndarray
    base: np.ndarray

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if vars(cls).get("name") in parameters.BASELINES:
            cls.table = parameters.BASELINES[cls.name]

    def __init__(self, **settings: Any) -> None:
        vars(self).update(parameters.defaults(self.table))
        self._apply(settings)

    def set_params(self, **settings: Any) -> Baseline:
        """Set parameters from strings or values, all or none, and print them as `GRU4Rec` does."""
        parameters.announce(self._apply(settings))
        return self

    def get_params(self) -> dict[str, Any]:
        """Return all parameters as they are set now, in a fresh dictionary."""
        return {name: getattr(self, name) for name in self.table}

    def _apply(self, settings: dict[str, Any]) -> dict[str, Any]:
        changed = parameters.convert(settings, self.table)
        vars(self).update(changed)
        return changed

    def __repr__(self) -> str:
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value != self.table[name].default
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def fit(self, data: pd.DataFrame) -> Baseline:
        """Learn from training sessions.

        Parameters
        ----------
        data : DataFrame
            One event a row, with the columns ``session_key``, ``item_key``, ``time_key``; it is not
            changed.

        Returns
        -------
        The baseline itself.

        Raises
        ------
        gru4rec_toolkit.errors.InputError
            If the data or a parameter cannot be used.
        """
        self._apply(self.get_params())  # an attribute may have been set to anything
        keys = (self.session_key, self.item_key, self.time_key)
        source = "training data"
        log = sessions.index_sessions(data, *keys, source=source, announce=True)
        self.base = np.zeros(log.n_items)
        self.learn(log)
        self.item_ids, self.support = log.item_ids, log.support
        return self

    def learn(self, log: sessions.SessionLog) -> None:
        """Learn from indexed training sessions."""
        raise NotImplementedError

    def scores(self, histories: Histories) -> sparse.csr_matrix:
        """Return scores of items as next items: float64 csr_matrix (n_histories, n_items)."""
        raise NotImplementedError

    def check_fitted(self) -> None:
        """Raise an InputError unless the baseline was fitted."""
        if not hasattr(self, "item_ids"):
            raise InputError(f"{type(self).__name__}: it is not trained yet; call fit first")

    def count_ranks(
        self, log: sessions.SessionLog, candidates: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Count, for every predicted event, the other items of higher and of equal score.

        Parameters
        ----------
        log : SessionLog
            Test sessions, indexed with ``item_ids``; every event but a session's first is
            predicted.
        candidates : int array (k,), optional
            Indices of the items that targets are ranked among; by default all.

        Returns
        -------
        better, equal : two int64 arrays (n_predicted,)
            In the order of the log. Memory is bounded by the scores of `EVENTS_AT_ONCE` events.
        """
        histories = predicted_events(log)
        counter = Counter(self.base, candidates)
        better = np.empty(len(histories), dtype=np.int64)
        equal = np.empty(len(histories), dtype=np.int64)
        with progress_bar(len(histories), "Evaluation", unit="events") as progress:
            for start in range(0, len(histories), EVENTS_AT_ONCE):
                part = slice(start, start + EVENTS_AT_ONCE)
                block = histories.part(part.start, part.stop)
                scores = self.scores(block)
                better[part], equal[part] = counter.count(scores, log.items[block.end])
                progress.update(len(block))
        return better, equal

    def top_lists(
        self, log: sessions.SessionLog, candidates: np.ndarray | None, length: int
    ) -> Iterator[np.ndarray]:
        """Yield the lists of items of highest score for the events that `count_ranks` ranks.

        Parameters
        ----------
        log, candidates
            As for `count_ranks`; candidates in ascending order.
        length : int
            At most the number of candidates.

        Yields
        ------
        int array (n, length)
            Item indices, the highest score first, equal scores by ascending index.
        """
        histories = predicted_events(log)
        at_once = max(1, MOST_SCORES // len(self.base))
        with progress_bar(len(histories), "Lists", unit="events") as progress:
            for start in range(0, len(histories), at_once):
                block = histories.part(start, start + at_once)
                named = self.scores(block)
                scores = np.tile(self.base, (len(block), 1))
                scores[np.repeat(np.arange(len(block)), np.diff(named.indptr)), named.indices] = (
                    named.data
                )
                if candidates is None:
                    yield best_columns(scores, length)
                else:
                    yield candidates[best_columns(scores[:, candidates], length)]
                progress.update(len(block))


def predicted_events(log: sessions.SessionLog) -> Histories:
    """Return the history of every event but a session's first; its target is ``items[end]``."""
    lengths = np.diff(log.offsets)
    first = np.repeat(log.offsets[:-1], lengths)
    events = np.arange(log.n_events)
    is_predicted = events > first
    return Histories(log.items, first[is_predicted], events[is_predicted])
