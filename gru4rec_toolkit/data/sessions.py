"""Session logs: events as item indices, session after session."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gru4rec_toolkit.data.checks import check_events, column_keys, row_place
from gru4rec_toolkit.data.ids import (
    Ids,
    by_first_appearance,
    canonical_ids,
    find_ids,
    item_indices,
    sortable_ids,
    split_ids,
)
from gru4rec_toolkit.errors import InputError, shown

# --- indexing -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SessionLog:
    """Events as item indices, session after session.

    Attributes
    ----------
    items : int32 array (n_events,)
        Index of each event's item, ordered by session id, then by time.
    offsets : int64 array (n_sessions + 1,)
        Session s has the events ``items[offsets[s]:offsets[s + 1]]``.
    start_times : int64 or float64 array (n_sessions,)
        Time of each session's first event, in the unit of the data.
    end_times : int64 or float64 array (n_sessions,)
        Time of its last event.
    item_ids : int64 array or object array of str (n_items,)
        The id behind each item index.
    session_ids : int64 array or object array of str (n_sessions,), or None
        The id of each session, if they were kept.
    """

    items: np.ndarray
    offsets: np.ndarray
    start_times: np.ndarray
    end_times: np.ndarray
    item_ids: np.ndarray
    session_ids: np.ndarray | None = None

    @property
    def n_events(self) -> int:
        return len(self.items)

    @property
    def n_sessions(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @functools.cached_property
    def support(self) -> np.ndarray:
        """Return the number of events of each item: int64 array (n_items,)."""
        return np.bincount(self.items, minlength=self.n_items).astype(np.int64, copy=False)


def none_known(source: str, n_items: int, item_key: str) -> InputError:
    """Return the message about data without a single item of the model."""
    return InputError(
        f"{source}: none of the model's {n_items} items occurs in column "
        f'"{item_key}"; check that it names items as the training data did'
    )


def index_sessions(
    data: pd.DataFrame,
    session_key: str = "SessionId",
    item_key: str = "ItemId",
    time_key: str = "Time",
    item_ids: Ids | None = None,
    source: str = "data",
    announce: bool = False,
    keep_session_ids: bool = False,
) -> SessionLog:
    """Turn a DataFrame of events into integer arrays; the frame itself is left as it is.

    Parameters
    ----------
    data : pandas.DataFrame
        One row an event, in any order; events of a session at the same time keep their order.
    session_key, item_key, time_key : str
        Names of its columns.
    item_ids : array (n_items,), optional
        The items of a model. Given these, events on other items are dropped; ids are compared by
        value, whatever their type (12 is "12"). Without them the items are those of the data, in
        order of first appearance, before any sorting.
    source : str
        What to call the data in messages.
    announce : bool
        Say on standard output whether the data had to be sorted.
    keep_session_ids : bool
        Keep the id of each session, which only tables of ranks need.

    Returns
    -------
    SessionLog

    Raises
    ------
    InputError
        There is no event or no known item, a column is missing, a value is missing, or a time is
        not a number.
    """
    keys = column_keys(session_key, item_key, time_key)
    session_column, item_column, times = check_events(data, keys, source, row_place)
    sessions = sortable_ids(session_column, source)
    codes, ids = split_ids(item_column, source)
    if item_ids is None:
        items, item_ids = by_first_appearance(codes, ids)
    else:
        item_ids = canonical_ids(item_ids)
        items = find_ids(ids, item_ids)[codes]
        known = items >= 0
        if not known.any():
            raise none_known(source, len(item_ids), item_key)
        if not known.all():
            items, sessions, times = items[known], sessions[known], times[known]
            if keep_session_ids:
                session_column = session_column[known]

    columns = f"{session_key}, {time_key}"
    if is_sorted(sessions, times):
        if announce:
            print(f"The dataframe is already sorted by {columns}")
    else:
        if announce:
            print(f"The dataframe is not sorted by {columns}, sorting now")
        began = time.perf_counter()
        order = np.lexsort((times, sessions))  # stable: ties keep the order of the frame
        items, sessions, times = items[order], sessions[order], times[order]
        if keep_session_ids:
            session_column = session_column.iloc[order]
        if announce:
            print(f"Data is sorted in {time.perf_counter() - began:.2f}s")
    starts = np.flatnonzero(np.r_[True, sessions[1:] != sessions[:-1]])
    return SessionLog(
        items=items.astype(np.int32),
        offsets=np.append(starts, len(items)).astype(np.int64, copy=False),
        start_times=times[starts],
        end_times=times[np.append(starts[1:], len(times)) - 1],
        item_ids=item_ids,
        session_ids=(
            canonical_ids(session_column.iloc[starts].to_numpy()) if keep_session_ids else None
        ),
    )


def known_items(item_ids: np.ndarray, values: Ids, source: str) -> np.ndarray:
    """Return the position of each id among a model's items; it has to know all of them.

    Parameters
    ----------
    item_ids : array (n_items,)
    values : sequence of ids (n,)
    source : str
        What to call the values in messages.

    Returns
    -------
    int32 array (n,)

    Raises
    ------
    InputError
        If the values are no sequence of ids, or the model does not know one of them.
    """
    ids = pd.Series(_id_sequence(values, source), name=source)
    index = item_indices(item_ids, ids)
    if (index < 0).any():
        unknown = ids.tolist()[int(np.argmax(index < 0))]
        raise InputError(f"{source}: item {shown(unknown)} does not occur in the training data")
    return index.astype(np.int32)


def slot_ids(values: Ids, source: str) -> list:
    """Return session ids as a list of what can be compared; tuples are ids too.

    Raises
    ------
    InputError
        If the values are no sequence of ids.
    """
    ids = list(_id_sequence(values, source))
    for slot, value in enumerate(ids):
        try:
            hash(value)
            missing = bool(value != value)  # NaN
        except (TypeError, ValueError):
            missing = True
        if missing:
            raise InputError(
                f"{source}: slot {slot} holds {shown(value)}, which cannot be an id; use integers, "
                "strings or tuples of them"
            )
    return ids


def _id_sequence(values: Ids, source: str) -> Ids:
    """Return ids as a list or, untouched, as an array, a Series or an Index of one dimension."""
    one_dimension = getattr(values, "ndim", 1) == 1 and isinstance(values, Iterable)
    if not one_dimension or isinstance(values, (str, bytes)):
        raise InputError(
            f"{source}: expected a sequence of ids (a list, an array or a Series), got "
            f"{type(values).__name__}"
        )
    ids = values if hasattr(values, "ndim") else list(values)
    if len(ids) == 0:
        raise InputError(f"{source}: it is empty; give one id or more")
    return ids


def check_training_log(log: SessionLog, batch_size: int, source: str) -> None:
    """Raise an InputError if mini-batches of `batch_size` sessions cannot be made of the log."""
    if log.n_sessions == 1:
        raise InputError(f"{source}: there is only one session in it; training takes many sessions")
    n_usable = int(np.count_nonzero(np.diff(log.offsets) > 1))
    if n_usable == 0:
        raise InputError(
            f"{source}: all sessions have one event only, so there is no next item to learn from; "
            "check that the session column is the right one (-sk)"
        )
    if n_usable < batch_size:
        raise InputError(
            f"{source}: batch_size is {batch_size}, but only {n_usable} sessions have two or more "
            f"events; set batch_size to {n_usable} or less"
        )


def check_test_log(log: SessionLog, source: str) -> None:
    """Raise an InputError if the log, of items known to a model, holds nothing to predict."""
    if not (np.diff(log.offsets) > 1).any():
        raise InputError(
            f"{source}: no session has two or more events on items of the training data, so there "
            "is nothing to predict; check that training and test data belong together"
        )


def check_fit(log: SessionLog, item_ids: Ids, source: str) -> None:
    """Raise an InputError unless a log was indexed with exactly these items of a model."""
    if not fits(log, item_ids):
        raise InputError(
            f"{source}: the log was indexed with other items than the model's; index it with "
            "index_sessions(..., item_ids=gru.item_ids)"
        )


def fits(log: SessionLog, item_ids: Ids) -> bool:
    """Return whether a log's item indices mean these ids, in this order."""
    return log.item_ids is item_ids or np.array_equal(log.item_ids, canonical_ids(item_ids))


def is_sorted(sessions: np.ndarray, times: np.ndarray) -> bool:
    later = sessions[1:] > sessions[:-1]
    same = sessions[1:] == sessions[:-1]
    return bool((later | same & (times[1:] >= times[:-1])).all())
