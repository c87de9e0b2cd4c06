"""Checks of event tables, whose errors are one sentence; and times as numbers."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import numbers
import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from gru4rec_toolkit.errors import InputError, listed, shortened, shown

_COUNT = {3: "three", 4: "four"}
OPTIONS = {"session": "-sk", "item": "-ik", "time": "-tk", "user": "-uk"}


def column_keys(
    session_key: str, item_key: str, time_key: str, user_key: str | None = None
) -> dict[str, str]:
    """Return the columns' names by role; raise an InputError at one that names no column.

    Users are a role only where they have a column.
    """
    keys = {"session": session_key, "item": item_key, "time": time_key}
    if user_key is not None:
        keys["user"] = user_key
    for role, key in keys.items():
        try:
            hash(key)
            is_name = bool(key == key)  # not of NaN
        except (TypeError, ValueError):
            is_name = False
        if not is_name:
            raise InputError(f"{role}_key: expected the name of a column, got {shown(key)}")
    return keys


def row_place(row: int) -> str:
    return f"row {row}"


def check_columns(names: Sequence, keys: dict[str, str], source: str) -> None:
    """Raise an InputError unless the keys name different columns that exist once each."""
    for role, key in keys.items():
        option = f"{OPTIONS[role]} ({role}_key)"
        if key not in names:
            found = ", ".join(shortened(" ".join(str(n).split()), 80) for n in names[:20]) + (
                ", ..." if len(names) > 20 else ""
            )
            raise InputError(
                f'{source}: there is no column "{key}", the columns are: {found}; '
                f"name the {role} column with {option}"
            )
        if list(names).count(key) > 1:
            raise InputError(f'{source}: column "{key}" appears more than once; rename the others')
        if list(keys.values()).count(key) > 1:
            raise InputError(
                f"{source}: {listed(list(keys))} have to be {_COUNT[len(keys)]} columns, but "
                f'"{key}" is to be more than one of them; name the {role} column with {option}'
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
    times = checked_times(data, keys["time"], source, place)
    return data[keys["session"]], data[keys["item"]], times


def checked_times(
    data: pd.DataFrame, key: str, source: str, place: Callable[[int], str]
) -> np.ndarray:
    """Return a column of times as numbers (`as_times`); raise an InputError at one that is none."""
    column = data[key]
    times = as_times(column)
    if times.dtype == np.float64 and not np.isfinite(times).all():
        row = int(np.isfinite(times).argmin())
        value = column.iloc[row]
        raise InputError(
            f'{source}: column "{key}" holds {shown(str(value), 80)} in {place(row)}, expected a '
            "finite number, such as seconds since 1970, or an ISO date, such as "
            "2014-04-07T10:51:09Z; convert or leave out such times"
        )
    return times


def as_times(column: pd.Series, are_dates: bool | None = None) -> np.ndarray:
    """Return a time column without missing values as numbers.

    Parameters
    ----------
    column : pandas.Series
        Numbers; dates; or text that is one or the other. A date without a time zone is taken as
        UTC.
    are_dates : bool, optional
        What text has to be; by default, what its first value is (`are_dates`).

    Returns
    -------
    int64 or float64 array (n_events,)
        Numbers as they are. Dates become seconds since 1970 in UTC: int64 if all are whole, else
        float64. NaN where the value is neither. It can be the column's own memory: do not write.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, used = pd.factorize(column.cat.codes.to_numpy())  # the first stays first
        return as_times(pd.Series(column.cat.categories[used]), are_dates)[codes]
    kind = column.dtype.kind
    if kind == "i":
        return column.to_numpy(dtype=np.int64)
    if kind == "u":
        times = column.to_numpy(dtype=np.uint64)
        return times.astype(np.int64 if times.max() < 1 << 63 else np.float64)
    if kind == "f":
        return column.to_numpy(dtype=np.float64)
    if kind == "M":
        stamps = column.to_numpy(dtype=f"datetime64[{column.dt.unit}]")
        return _join_seconds(*_as_seconds(stamps), np.isnat(stamps))
    if kind != "O":
        return np.full(len(column), np.nan)
    values = column.tolist()
    if holds_dates(column) if are_dates is None else are_dates:
        return _parse_dates(values)
    return _parse_numbers(values)


def holds_dates(column: pd.Series) -> bool:
    """Tell whether the times in a column of text or objects are dates: the first is no number."""
    return isinstance(_as_number(column.iloc[0]), float) and np.isnan(_as_number(column.iloc[0]))


# --- numbers --------------------------------------------------------------------------------------

_NUMBER = re.compile(r"\s*[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\s*", re.ASCII)
_INTEGER = re.compile(r"\s*[-+]?[0-9]{1,18}\s*", re.ASCII)


def _parse_numbers(values: list) -> np.ndarray:
    """Parse numbers as Python does; pandas' parser crashes on large exponents."""
    parsed = [_as_number(value) for value in values]
    if all(type(number) is int for number in parsed):
        with contextlib.suppress(OverflowError):
            return np.array(parsed, dtype=np.int64)
    return np.array([_as_float(number) for number in parsed], dtype=np.float64)


def _as_number(value: object) -> int | float:
    if isinstance(value, str):
        if _INTEGER.fullmatch(value):
            return int(value)
        return float(value) if _NUMBER.fullmatch(value) else np.nan
    if isinstance(value, decimal.Decimal):
        exponent = value.as_tuple().exponent  # a letter of what is not finite
        is_whole = isinstance(exponent, int) and exponent >= 0
        # 1E+999999 has a million digits
        return int(value) if is_whole and value.adjusted() < 19 else float(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) and type(value) is not bool else np.nan


def _as_float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return np.inf


# --- dates ----------------------------------------------------------------------------------------

_DAY = 86_400
_EPOCH = datetime.date(1970, 1, 1).toordinal()
_YEAR_1 = (1 - _EPOCH) * _DAY  # in seconds since 1970
# dates as nearly all files have them, all lines in one go; with days such as April 31
_COMMON_DATES = re.compile(
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?Z?)?$", re.M
)
_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}(?=[Tt ]))"  # eight digits alone are a number, not a date
    r"(?:[Tt ]([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2})(?:[.,]([0-9]+))?)?)?"
    r"([Zz]|[-+][0-9]{2}(?::?[0-9]{2}(?::?[0-9]{2})?)?)?)?"
)


def _parse_dates(values: list) -> np.ndarray:
    """Return ISO 8601 dates as seconds, NaN where a text is not a date.

    pandas parses only texts that it parses right: it applies an offset such as +02:00 to the dates
    after it, too, knows no years before 1678 or after 2262, and takes "now" and "2014.5" for dates.
    """
    texts = [
        str(value) if isinstance(value, (str, datetime.date, np.datetime64)) else ""
        for value in values
    ]
    joined = "\n".join(texts)
    are_common = joined.count("\n") == len(texts) - 1 and (
        _COMMON_DATES.subn("", joined)[1] == len(texts)
    )
    offsets: int | np.ndarray = 0
    if are_common:
        local = texts
    else:
        local, offsets = _split_zones(texts)
    dates = pd.to_datetime(pd.Series(local), format="ISO8601", utc=True, errors="coerce")
    stamps = dates.to_numpy(dtype=f"datetime64[{dates.dt.unit}]")
    seconds, rest = _as_seconds(stamps)
    # pandas 3 knows a year 0, which the calendar has not
    is_none = np.isnat(stamps) | (seconds < _YEAR_1)
    seconds -= offsets
    for i in np.flatnonzero(is_none):
        found = _parse_date(texts[i])
        if found is not None:
            seconds[i], rest[i] = found
            is_none[i] = False
    return _join_seconds(seconds, rest, is_none)


def _split_zones(texts: list[str]) -> tuple[list[str], np.ndarray]:
    """Split dates into what pandas parses ("" for no date) and their zones' offsets in seconds."""
    local, zones = [], []
    for text in texts:
        found = _DATE.fullmatch(text)
        zone = (found[6] or "") if found else ""
        local.append(text[: len(text) - len(zone)] if found else "")
        zones.append(zone)
    offsets = {zone: _offset(zone) for zone in set(zones)}
    for i, zone in enumerate(zones):
        if offsets[zone] is None:
            local[i] = ""
    return local, np.array([offsets[zone] or 0 for zone in zones], dtype=np.int64)


def _parse_date(text: str) -> tuple[int, float] | None:
    """Return a date of the years 1 to 9999 as seconds and a fraction; None: not a date."""
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    day, hour, minute, second, fraction, zone = found.groups(default="")
    day = day.replace("-", "")
    offset = _offset(zone)
    try:
        days = datetime.date(int(day[:4]), int(day[4:6]), int(day[6:])).toordinal() - _EPOCH
        time = datetime.time(int(hour or 0), int(minute or 0), int(second or 0))
    except ValueError:
        return None
    if offset is None:
        return None
    seconds = days * _DAY + time.hour * 3600 + time.minute * 60 + time.second - offset
    return seconds, int((fraction + "0" * 9)[:9]) / 10**9


def _offset(zone: str) -> int | None:
    """Return the seconds that a zone such as +02:00 is ahead of UTC, None for no such zone."""
    if zone in ("", "Z", "z"):
        return 0
    digits = zone[1:].replace(":", "") + "0000"
    hours, minutes, seconds = (int(digits[i : i + 2]) for i in (0, 2, 4))
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    return (-1 if zone[0] == "-" else 1) * (hours * 3600 + minutes * 60 + seconds)


def _as_seconds(stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return datetime64 of any unit as whole seconds since 1970 and fractions of a second."""
    unit = np.datetime_data(stamps.dtype)[0]
    ticks = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    # the whole seconds first: nanoseconds since 1970 have more digits than a float64
    seconds, rest = np.divmod(stamps.view(np.int64), ticks)
    return seconds, rest / ticks


def _join_seconds(seconds: np.ndarray, rest: np.ndarray, is_none: np.ndarray) -> np.ndarray:
    if not (is_none.any() or rest.any()):
        return seconds
    return np.where(is_none, np.nan, seconds + rest)
