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
from gru4rec_toolkit.data.sequences import Sequences, of_log
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
    user_offsets : int64 array (n_users + 1,) or None
        User u has the sessions ``user_offsets[u]`` to before ``user_offsets[u + 1]``, in the order
        of their first events; None where the users are not known.
    user_ids : int64 array or object array of str (n_users,), or None
        The id of each user, if the sessions' were kept.
    sequences : Sequences
        What a state runs through: the sessions, or the users' histories, if nothing else was asked
        for.
    """

    items: np.ndarray
    offsets: np.ndarray
    start_times: np.ndarray
    end_times: np.ndarray
    item_ids: np.ndarray
    session_ids: np.ndarray | None = None
    user_offsets: np.ndarray | None = None
    user_ids: np.ndarray | None = None
    cut: Sequences | None = None

    @functools.cached_property
    def sequences(self) -> Sequences:
        return of_log(self) if self.cut is None else self.cut

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
    user_key: str | None = None,
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
        Keep the ids of sessions and users, which only tables of ranks and histories need.
    user_key : str, optional
        Name of the column of users' ids: a user's sessions follow each other in the log.

    Returns
    -------
    SessionLog

    Raises
    ------
    InputError
        There is no event or no known item, a column is missing, a value is missing, a time is not a
        number, or a session belongs to two users.
    """
    keys = column_keys(session_key, item_key, time_key, user_key)
    session_column, item_column, times = check_events(data, keys, source, row_place)
    sessions = sortable_ids(session_column, source)
    users = None
    if user_key is not None:
        users = check_users(data, keys, source)
    rows: np.ndarray | None = None  # of the frame, of the events as they are kept and ordered
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
            rows = np.flatnonzero(known)
            items, sessions, times = items[known], sessions[known], times[known]
            users = None if users is None else users[known]

    columns = f"{session_key}, {time_key}" if user_key is None else f"{user_key}, {time_key}"
    if users is None and is_sorted(sessions, times):
        if announce:
            print(f"The dataframe is already sorted by {columns}")
    else:
        if announce:
            print(f"The dataframe is not sorted by {columns}, sorting now")
        began = time.perf_counter()
        order = np.lexsort((times, sessions))  # stable: ties keep the order of the frame
        if users is not None:
            order = _by_user(order, sessions, users, times)
            users = users[order]
        items, sessions, times = items[order], sessions[order], times[order]
        rows = order if rows is None else rows[order]
        if announce:
            print(f"Data is sorted in {time.perf_counter() - began:.2f}s")
    starts = np.flatnonzero(np.r_[True, sessions[1:] != sessions[:-1]])
    user_offsets = None
    if users is not None:
        of_sessions = users[starts]
        user_offsets = np.flatnonzero(np.r_[True, of_sessions[1:] != of_sessions[:-1], True])

    def ids_at(key: str, events: np.ndarray) -> np.ndarray:
        return canonical_ids(data[key].iloc[events if rows is None else rows[events]].to_numpy())

    return SessionLog(
        items=items.astype(np.int32),
        offsets=np.append(starts, len(items)).astype(np.int64, copy=False),
        start_times=times[starts],
        end_times=times[np.append(starts[1:], len(times)) - 1],
        item_ids=item_ids,
        session_ids=ids_at(session_key, starts) if keep_session_ids else None,
        user_offsets=user_offsets,
        user_ids=(
            ids_at(user_key, starts[user_offsets[:-1]])
            if keep_session_ids and user_key is not None and user_offsets is not None
            else None
        ),
    )


def check_users(data: pd.DataFrame, keys: dict[str, str], source: str) -> np.ndarray:
    """Return numbers in the order of the users; raise an InputError at a session of two users.

    Parameters
    ----------
    data : DataFrame
    keys : dict
        Columns by role, "session" and "user" among them.
    source : str
    """
    sessions, users = (sortable_ids(data[keys[role]], source) for role in ("session", "user"))
    order = np.argsort(sessions, kind="stable")
    same_session = sessions[order][1:] == sessions[order][:-1]
    strange = same_session & (users[order][1:] != users[order][:-1])
    if not strange.any():
        return users
    session, user = keys["session"], keys["user"]
    pair = data.iloc[order[int(strange.argmax()) :][:2]]
    raise InputError(
        f"{source}: session {shown(pair[session].iloc[0])} belongs to two users, "
        f"{shown(pair[user].iloc[0])} and {shown(pair[user].iloc[1])}; give each session to one in "
        f'column "{user}" (-uk), or make session ids that are unique'
    )


def _by_user(
    order: np.ndarray, sessions: np.ndarray, users: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Return the order of events by user, a user's sessions in the order of their first events.

    Parameters
    ----------
    order : int array (n_events,)
        That by session, then by time.
    sessions, users, times : arrays (n_events,)
        As they are before they are ordered.
    """
    sessions, users, times = sessions[order], users[order], times[order]
    is_start = np.r_[True, sessions[1:] != sessions[:-1]]
    starts, of = np.flatnonzero(is_start), np.cumsum(is_start) - 1
    place = np.empty(len(starts), dtype=np.int64)
    place[np.lexsort((times[starts], users[starts]))] = np.arange(len(starts))
    return order[np.argsort(place[of], kind="stable")]


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
    n_usable = int(np.count_nonzero(log.sequences.lengths > 1))
    if n_usable == 0:
        raise InputError(
            f"{source}: all sessions have one event only, so there is no next item to learn from; "
            "check that the session column is the right one (-sk)"
        )
    if n_usable < batch_size:
        kind = "sessions" if log.user_offsets is None else "users"
        raise InputError(
            f"{source}: batch_size is {batch_size}, but only {n_usable} {kind} have two or more "
            f"events; set batch_size to {n_usable} or less"
        )


def check_test_log(log: SessionLog, source: str) -> None:
    """Raise an InputError if the log, of items known to a model, holds nothing to predict."""
    if not (np.diff(log.offsets) > 1).any():
        raise InputError(
            f"{source}: no session has two or more events on items of the training data, so there "
            "is nothing to predict; check that training and test data belong together, or give the "
            "events before the test (--history, history=)"
        )


def as_log(
    data: pd.DataFrame | SessionLog,
    keys: tuple[str, str, str],
    item_ids: Ids,
    source: str,
    keep_session_ids: bool = False,
    user_key: str | None = None,
) -> SessionLog:
    """Return data as a log of a model's items, or check that it is one.

    Parameters
    ----------
    data : DataFrame or SessionLog
    keys : tuple of str
        Columns of sessions, items and times.
    item_ids, source, keep_session_ids, user_key
        As for `index_sessions`; a log has to be indexed with them.

    Raises
    ------
    InputError
        As `index_sessions`; or the log was indexed in another way.
    """
    if not isinstance(data, SessionLog):
        return index_sessions(
            data,
            *keys,
            item_ids=item_ids,
            source=source,
            keep_session_ids=keep_session_ids,
            user_key=user_key,
        )
    check_fit(data, item_ids, source)
    if keep_session_ids and data.session_ids is None:
        raise InputError(
            f"{source}: the log was indexed without the sessions' ids, which ranks and histories "
            "need; index it with index_sessions(..., keep_session_ids=True)"
        )
    if user_key is not None and data.user_offsets is None:
        raise InputError(
            f"{source}: the log was indexed without users; index it with "
            "index_sessions(..., user_key=...)"
        )
    return data


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
