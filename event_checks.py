"""What is wrong with an event table, in one sentence; and its times as numbers."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from user_errors import InputError

OPTIONS = {"session": "-sk", "item": "-ik", "time": "-tk"}
NANOSECONDS = 1_000_000_000


def column_keys(session_key: str, item_key: str, time_key: str) -> dict[str, str]:
    return {"session": session_key, "item": item_key, "time": time_key}


def row_place(row: int) -> str:
    return f"row {row}"


def check_columns(names: Sequence, keys: dict[str, str], source: str) -> None:
    """Raise an InputError unless every key names exactly one column, each another one."""
    for role, key in keys.items():
        option = f"{OPTIONS[role]} ({role}_key)"
        if key not in names:
            shown = ", ".join(str(name)[:80] for name in names[:20]) + (
                ", ..." if len(names) > 20 else ""
            )
            raise InputError(
                f'{source}: there is no column "{key}", the columns are: {shown}; '
                f"name the {role} column with {option}"
            )
        if list(names).count(key) > 1:
            raise InputError(f'{source}: column "{key}" appears more than once; rename the others')
        if list(keys.values()).count(key) > 1:
            raise InputError(
                f'{source}: session, item and time have to be three columns, but "{key}" is to be '
                f"more than one of them; name the {role} column with {option}"
            )


def check_ids(
    data: pd.DataFrame, keys: dict[str, str], source: str, place: Callable[[int], str]
) -> None:
    """Raise an InputError unless the columns exist and hold events without missing values."""
    if not isinstance(data, pd.DataFrame):
        raise InputError(f"{source}: expected a pandas DataFrame, got {type(data).__name__}")
    check_columns(list(data.columns), keys, source)
    if len(data) == 0:
        raise InputError(f"{source}: there are no events in it; expected one row an event")
    for key in keys.values():
        missing = data[key].isna().to_numpy()
        if missing.any():
            count = int(np.count_nonzero(missing))
            raise InputError(
                f'{source}: column "{key}" has {count} missing value{"s" * (count > 1)}, the '
                f"first in {place(int(missing.argmax()))}; fill in or leave out these events"
            )


def check_events(
    data: pd.DataFrame, keys: dict[str, str], source: str, place: Callable[[int], str]
) -> tuple[pd.Series, pd.Series, np.ndarray]:
    """Check the content of a session log, wherever it comes from.

    Parameters
    ----------
    data : pandas.DataFrame
    keys : dict
        Names of the columns by role: session, item, time.
    source, place : str, callable
        For messages: the name of the whole, and where to find a row given its position.

    Returns
    -------
    session, item : pandas.Series
    times : int64 or float64 array (n_events,)
        As `as_times` gives them. It can be the frame's own memory: do not write.
    """
    check_ids(data, keys, source, place)
    key = keys["time"]
    column = data[key]
    times = as_times(column)
    if times.dtype == np.float64 and not np.isfinite(times).all():
        row = int(np.isfinite(times).argmin())
        value = column.iloc[row]
        raise InputError(
            f'{source}: column "{key}" holds {str(value)[:80]!r} in {place(row)}, expected a '
            "finite number, such as seconds since 1970, or an ISO date, such as "
            "2014-04-07T10:51:09Z; convert or leave out such times"
        )
    return data[keys["session"]], data[keys["item"]], times


def as_times(column: pd.Series) -> np.ndarray:
    """Give a time column without missing values as numbers.

    Parameters
    ----------
    column : pandas.Series
        Numbers; dates; or text that is one or the other, as the first value is. A date without a
        time zone is taken as UTC.

    Returns
    -------
    int64 or float64 array (n_events,)
        Numbers as they are. Dates become seconds since 1970 in UTC: int64 if all are whole, else
        float64. NaN where the value is neither. It can be the column's own memory: do not write.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        return as_times(pd.Series(column.cat.categories))[column.cat.codes.to_numpy()]
    kind = column.dtype.kind
    if kind == "i":
        return column.to_numpy(dtype=np.int64)
    if kind == "u":
        times = column.to_numpy(dtype=np.uint64)
        return times.astype(np.int64 if times.max() < 1 << 63 else np.float64)
    if kind == "f":
        return column.to_numpy(dtype=np.float64)
    if kind == "M":
        return _as_seconds(column)
    if kind != "O":
        return np.full(len(column), np.nan)
    column = column.astype(object).reset_index(drop=True)
    times = pd.to_numeric(column, errors="coerce")
    if np.isnan(times.iloc[0]):
        dates = _parse_dates(column)
        if not pd.isna(dates.iloc[0]):
            return _as_seconds(dates)
    return as_times(times)


def _parse_dates(column: pd.Series) -> pd.Series:
    """Give ISO 8601 dates as datetime64 in UTC, NaT where it is none."""
    parse = functools.partial(pd.to_datetime, format="ISO8601", utc=True, errors="coerce")
    if not re.search(r"\+|:.*-", "\n".join(map(str, column))):
        return parse(column)
    # an offset such as +02:00: pandas applies it to the dates without a zone that follow, too
    has_zone = column.astype(str).str.contains(r":.*[-+Z]", regex=True)
    return pd.concat([parse(column[has_zone]), parse(column[~has_zone])]).reindex(column.index)


def _as_seconds(dates: pd.Series) -> np.ndarray:
    """Give dates as seconds since 1970 in UTC, NaN for none (see as_times)."""
    stamps = dates.to_numpy(dtype="datetime64[ns]")
    seconds, rest = np.divmod(stamps.view(np.int64), NANOSECONDS)
    if not rest.any():
        return seconds
    # the whole seconds first: nanoseconds since 1970 have more digits than a float64
    return np.where(np.isnat(stamps), np.nan, seconds + rest / NANOSECONDS)
