"""Recommendations for many sessions at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from gru4rec_toolkit.data.checks import check_events, column_keys, row_place
from gru4rec_toolkit.data.histories import find_histories
from gru4rec_toolkit.data.ids import canonical_ids, item_indices, sortable_ids
from gru4rec_toolkit.data.sessions import SessionLog, index_sessions
from gru4rec_toolkit.errors import InputError, shown
from gru4rec_toolkit.model import replay
from gru4rec_toolkit.progress import progress_bar
from gru4rec_toolkit.serving.topk import Scorer
from gru4rec_toolkit.tablefile import RECOMMENDATIONS

logger = logging.getLogger("gru4rec")

# sessions that advance together: no more than those for which items of equal rows have equal
# scores, on every processor with tiles (MOST_ROWS_ABT in ops/products/tiles.cpp)
AT_ONCE = 128
# sessions that are ordered by their length together
CHUNK = 32 * AT_ONCE
# recommended items that are in memory together
MOST_ITEMS = 1 << 22


@dataclass(frozen=True, eq=False)
class RunningSessions:
    """The events of sessions on items that a model knows.

    Attributes
    ----------
    items : int32 array (n_events,)
        Positions of the items, session after session, in the order of time.
    offsets : int64 array (n + 1,)
        Session s has the events ``items[offsets[s]:offsets[s + 1]]``, perhaps none.
    ids : (n,) array or None
        The sessions' ids, ascending; None where they came as lists.
    n_unknown : int
        Events on other items, which were left out.
    owners : (n,) array or None
        Ids of what a state is carried through: the sessions, or their users; None as for ids.
    start_times : (n,) array or None
        Times of the sessions' first events; None as for ids.
    """

    items: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray | None
    n_unknown: int
    owners: np.ndarray | None = None
    start_times: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def announce(self) -> None:
        """Say in the log how many events were left out."""
        if self.n_unknown:
            total = len(self.items) + self.n_unknown
            logger.info(
                "%d of %d events are on items that the model does not know; they are skipped",
                self.n_unknown,
                total,
            )


def running_sessions(
    sessions: Any,
    keys: tuple[str, str, str],
    item_ids: np.ndarray,
    history: pd.DataFrame | None,
    user_key: str | None,
    max_sequence: int,
    session_border: str,
) -> RunningSessions:
    """Return sessions, given as lists of ids of items or as a DataFrame of events.

    Parameters
    ----------
    sessions : DataFrame or list of lists
    keys : tuple of str
        Columns of sessions, items and times.
    item_ids : (n_items,) array
    history : DataFrame, optional
        Events before the sessions, with the same columns: those with a session's id come before its
        own, and with ``user_key`` those of its user, and of the user's earlier sessions.
    user_key : str, optional
        Column of the users.
    max_sequence : int
        Most events of a history that count, its last ones; 0: all.
    session_border : "carry" or "reset"
        Where users are reset, what comes before a session are its own events alone, if any.
    """
    is_reset = user_key is not None and session_border == "reset"
    if is_reset:
        user_key = None
    if isinstance(sessions, pd.DataFrame):
        log = _of_events(sessions, keys, item_ids, user_key)
        if history is None and user_key is None:
            return log
        past = None
        if history is not None:
            past = index_sessions(history, *keys, item_ids, "history", False, True, user_key)
        return _after(past, log, max_sequence, not is_reset)
    if history is not None:
        raise InputError("history: sessions have to be a DataFrame, whose ids it is found by")
    return _of_lists(sessions, item_ids)


def _after(
    past: SessionLog | None, log: RunningSessions, max_sequence: int, is_needed: bool
) -> RunningSessions:
    """Return sessions with the events before them, of their owners; some have to have a past."""
    start_times = log.start_times
    assert log.owners is not None and start_times is not None
    owners = canonical_ids(log.owners)
    codes = np.unique(owners, return_inverse=True)[1].reshape(-1)
    of = np.full(len(log), -1)
    if past is not None:
        begins = np.full(codes.max() + 1, np.inf)
        np.minimum.at(begins, codes, start_times)
        of = find_histories(owners, begins[codes], past, "history", is_needed)
    found: list[np.ndarray] = [log.items[:0]] * len(log)
    before, owner = log.items[:0], -1
    for session in np.lexsort((start_times, codes)).tolist():
        if codes[session] != owner:
            owner, before = codes[session], log.items[:0]
            if past is not None and of[session] >= 0:
                sequences = past.sequences
                before = past.items[sequences.firsts[of[session]] : sequences.stops[of[session]]]
        own = log.items[log.offsets[session] : log.offsets[session + 1]]
        kept = before[-max_sequence:] if max_sequence else before
        found[session] = np.concatenate([kept, own])
        before = np.concatenate([before, own])
    offsets = np.append(0, np.cumsum([len(events) for events in found])).astype(np.int64)
    return replace(log, items=np.concatenate([*found, log.items[:0]]), offsets=offsets)


def _of_lists(sessions: Any, item_ids: np.ndarray) -> RunningSessions:
    expected = (
        "expected a DataFrame of events, or a list with one list of item ids for each session"
    )
    if isinstance(sessions, (str, bytes)) or not hasattr(sessions, "__iter__"):
        raise InputError(f"sessions: {expected}, got {shown(sessions, 60)}")
    lists = list(sessions)
    for number, events in enumerate(lists):
        one_dimension = getattr(events, "ndim", 1) == 1 and hasattr(events, "__iter__")
        if isinstance(events, (str, bytes, dict)) or not one_dimension:
            raise InputError(
                f"sessions: {expected}, got {shown(events, 60)} in place {number}; give one "
                "session as [[item, item]]"
            )
    flat = [item for events in lists for item in events]
    lengths = np.array([len(list(events)) for events in lists], dtype=np.int64)
    known = item_indices(item_ids, flat) if flat else np.zeros(0, dtype=np.int64)
    return _without_unknown(known, np.repeat(np.arange(len(lists)), lengths), len(lists), None)


def _of_events(
    data: pd.DataFrame, keys: tuple[str, str, str], item_ids: np.ndarray, user_key: str | None
) -> RunningSessions:
    columns = column_keys(*keys, user_key)
    session_column, item_column, times = check_events(data, columns, "sessions", row_place)
    ids, codes = np.unique(sortable_ids(session_column, "sessions"), return_inverse=True)
    codes = codes.reshape(-1)
    order = np.lexsort((times, codes))  # stable: ties keep the order of the frame
    first = np.r_[True, codes[order][1:] != codes[order][:-1]]
    ids = session_column.to_numpy()[order[first]]
    known = item_indices(item_ids, item_column)[order]
    log = _without_unknown(known, codes[order], len(ids), ids)
    owners = ids if user_key is None else data[user_key].to_numpy()[order[first]]
    return replace(log, owners=owners, start_times=times[order[first]])


def _without_unknown(known: np.ndarray, codes: np.ndarray, n: int, ids) -> RunningSessions:
    """Return sessions of positions (n_events,), -1 for unknown, of sessions 0 to n - 1."""
    is_known = known >= 0
    lengths = np.bincount(codes[is_known], minlength=n)
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
    n_unknown = int(len(known) - is_known.sum())
    return RunningSessions(known[is_known].astype(np.int32), offsets, ids, n_unknown)


def recommendations(
    scorer: Scorer,
    log: RunningSessions,
    k: int,
    exclude_seen: bool = False,
    candidates: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the k best items of sessions, part by part: positions and scores, both (n, k).

    Sessions without events get the most popular items.
    """
    n_choices = len(scorer.item_ids if candidates is None else candidates)
    k = min(k, n_choices)
    chunk = max(1, min(CHUNK, MOST_ITEMS // k))
    popular = None
    for begin in range(0, len(log), chunk):
        offsets = log.offsets[begin : min(begin + chunk, len(log)) + 1]
        lengths = np.diff(offsets)
        items = np.empty((len(lengths), k), dtype=np.int64)
        scores = np.empty((len(lengths), k), dtype=np.float64)
        order = np.argsort(-lengths, kind="stable")
        for start in range(0, len(order), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            rows = rows[lengths[rows] > 0]
            if len(rows) == 0:
                break
            *_, hidden = replay.run(
                lambda items, *states: scorer.advance(items, [*states]),
                *(scorer.sizes, log.items, offsets[rows], lengths[rows]),
            )
            seen: Sequence[np.ndarray] = [
                np.unique(log.items[a : a + n]) if exclude_seen else log.items[:0]
                for a, n in zip(offsets[rows], lengths[rows])
            ]
            items[rows], scores[rows] = scorer.best(hidden, list(seen), k, candidates)
        if (lengths == 0).any():
            if popular is None:
                popular = scorer.most_popular(k, candidates)
            items[lengths == 0], scores[lengths == 0] = popular
        yield items, scores


def tables(
    scorer: Scorer, log: RunningSessions, k: int, exclude_seen: bool = False
) -> Iterator[pd.DataFrame]:
    """Yield the recommendations for a log as tables, with the columns of RECOMMENDATIONS.

    One row an item that is recommended; the best of a session has rank 1. Progress is shown.
    """
    assert log.ids is not None
    begin = 0
    with progress_bar(len(log), "Recommending", unit="sessions") as progress:
        for positions, scores in recommendations(scorer, log, k, exclude_seen):
            n, width = positions.shape
            found = positions >= 0
            columns = (
                np.repeat(log.ids[begin : begin + n], width).reshape(n, width)[found],
                np.tile(np.arange(1, width + 1), (n, 1))[found],
                scorer.item_ids[positions[found]],
                scores[found],
            )
            # with their types: pandas 3 would try to make its own strings of objects
            series = (pd.Series(values, dtype=values.dtype) for values in columns)
            yield pd.DataFrame(dict(zip(RECOMMENDATIONS.columns, series)))
            begin += n
            progress.update(n)
