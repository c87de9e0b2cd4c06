"""Splits of a log into what comes before and the test after it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gru4rec_toolkit.data.checks import as_times, check_ids, checked_times, column_keys, row_place
from gru4rec_toolkit.data.ids import sortable_ids
from gru4rec_toolkit.errors import InputError, shown


def last_events(
    data: pd.DataFrame,
    n: int = 1,
    session_key: str = "SessionId",
    time_key: str = "Time",
    source: str = "data",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leave out the last events of every session: with n = 1, leave-one-out.

    Parameters
    ----------
    data : DataFrame
        One event a row; of events of a session at the same time the later row comes later.
    n : int
        Events of each session that are left out; sessions that have no more stay whole.
    session_key, time_key : str
        Columns. For the last events of users, the column of the users.
    source : str
        What to call the data in messages.

    Returns
    -------
    (before, after) : DataFrames
        Rows of the data in their order. Evaluate with ``history=before``: the first event of each
        session in ``after`` is predicted from what it has in ``before``.

    Raises
    ------
    gru4rec_toolkit.errors.InputError
        If the data cannot be used, or nothing is left out.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise InputError(f"n: expected a number of events, 1 or more, got {shown(n)}")
    sessions, times = _sessions_and_times(data, session_key, time_key, source)
    order = np.lexsort((times, sessions))
    starts = np.flatnonzero(np.r_[True, sessions[order][1:] != sessions[order][:-1]])
    lengths = np.diff(np.append(starts, len(order)))
    from_end = np.repeat(starts + lengths, lengths) - np.arange(len(order))
    is_after = np.empty(len(order), dtype=bool)
    is_after[order] = (from_end <= n) & np.repeat(lengths > n, lengths)
    if not is_after.any():
        raise InputError(
            f'{source}: no value of column "{session_key}" has more than {n} '
            f"event{'s' * (n > 1)}, so the test would be empty"
        )
    return data[~is_after], data[is_after]


def events_from(
    data: pd.DataFrame,
    time: object,
    session_key: str = "SessionId",
    time_key: str = "Time",
    source: str = "data",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split at a time: what goes on then is cut there, so that it has a history.

    Parameters
    ----------
    data : DataFrame
    time : number, or str
        In the unit of the data, or an ISO date; the events at it and after it are the test.
    session_key, time_key : str
        Columns.
    source : str
        What to call the data in messages.

    Returns
    -------
    (before, after) : DataFrames
        As for `last_events`.
    """
    _, times = _sessions_and_times(data, session_key, time_key, source)
    return _parts(data, times >= as_time(time), times, f"{source}: no event is", time)


def sessions_from(
    data: pd.DataFrame,
    time: object,
    session_key: str = "SessionId",
    time_key: str = "Time",
    source: str = "data",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split sessions by their beginning: none is cut. Parameters are those of `events_from`.

    Returns
    -------
    (before, after) : DataFrames
        Rows of the data in their order.
    """
    sessions, times = _sessions_and_times(data, session_key, time_key, source)
    codes = np.unique(sessions, return_inverse=True)[1].reshape(-1)
    starts = np.full(codes.max() + 1, np.inf)
    np.minimum.at(starts, codes, times)
    is_after = starts[codes] >= as_time(time)
    return _parts(data, is_after, starts, f"{source}: no session begins", time)


def as_time(time: object, name: str = "time") -> float:
    """Return a time as the data's are read: a number as it is, a date in seconds since 1970."""
    (found,) = as_times(pd.Series([time], dtype=object)).tolist()
    if not np.isfinite(found):
        raise InputError(f"{name}: expected a number or an ISO date, got {shown(time)}")
    return found


def _sessions_and_times(
    data: pd.DataFrame, session_key: str, time_key: str, source: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return what sorts the sessions, and the times, of data that has been checked."""
    keys = column_keys(session_key, session_key, time_key)
    del keys["item"]
    check_ids(data, keys, source, row_place)
    times = checked_times(data, time_key, source, row_place)
    return sortable_ids(data[session_key], source), times


def _parts(
    data: pd.DataFrame, is_after: np.ndarray, times: np.ndarray, none: str, time: object
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split data at a time; the others say what is wrong with one that splits nothing."""
    if is_after.all():
        raise InputError(f"{none} before {time}; the first is at {times.min():.15g}")
    if not is_after.any():
        raise InputError(f"{none} at {time} or later; the last is at {times.max():.15g}")
    return data[~is_after], data[is_after]
