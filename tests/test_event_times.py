"""Times of events: numbers and dates of any kind, as Python reads them."""

from __future__ import annotations

import datetime
import decimal
import re

import numpy as np
import pandas as pd
import pytest
from helpers.event_files import HEADER, read, write
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec_toolkit.data import text as text_
from gru4rec_toolkit.data.checks import as_times
from gru4rec_toolkit.errors import InputError

UTC = datetime.timezone.utc
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)


def seconds_of(text):
    """Read a date as Python does (3.8 knows no Z)."""
    date = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - EPOCH).total_seconds()


# --- numbers in text ------------------------------------------------------------------------------

DIGITS = st.text("0123456789", min_size=1, max_size=24)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(1e8, 1e11).map("{:.3f}".format),
    st.builds("{}.{}".format, DIGITS, DIGITS),
    st.builds("{}.{}e{}".format, DIGITS, DIGITS, st.integers(-330, 280)),
    st.sampled_from(["1e5", "0." + "0" * 330 + "1", "1E-4294967295", "0" * 400 + "7", ".5", "5."]),
)


@settings(max_examples=80, deadline=None)
@given(words=st.lists(NUMBERS, min_size=1), n_first=st.integers(0, 3), n_bytes=st.integers(16, 99))
@pytest.mark.parametrize("first", ["7", "1.5"])
def test_numbers_are_those_that_python_reads(tmp_path_factory, words, n_first, n_bytes, first):
    """Of every length, behind rows that look like integers or floats, wherever blocks cut them."""
    words = [first] * (400 * n_first) + words
    path = tmp_path_factory.mktemp("numbers") / "a.tsv"
    write(path, HEADER + "".join(f"1\t2\t{word}\n" for word in words))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_, "SCAN_BYTES", n_bytes * (40 if n_first else 1))
        times = read(path)["Time"]
    if times.dtype == np.int64:
        assert times.tolist() == [int(word) for word in words]
    else:
        assert times.tolist() == [float(word) for word in words]


@pytest.mark.parametrize(
    "values, expected",
    [
        (["5", " 7 ", "-3"], [5, 7, -3]),
        (["5", "1.5"], [5.0, 1.5]),
        (["5", "9223372036854775808"], [5.0, 2.0**63]),
        ([5, 1.5, "7"], [5.0, 1.5, 7.0]),
        ([decimal.Decimal("5"), decimal.Decimal("7")], [5, 7]),
        ([decimal.Decimal("1.5"), decimal.Decimal("1E+2")], [1.5, 100.0]),
        ([np.int64(3), np.float32(0.5)], [3.0, 0.5]),
    ],
)
def test_objects_that_are_numbers(values, expected):
    times = as_times(pd.Series(values, dtype=object))
    assert times.tolist() == expected
    assert times.dtype == (np.int64 if isinstance(expected[0], int) else np.float64)


@pytest.mark.parametrize(
    "word", ["1_000", "٣", "0x1F", "1e4001400000002", "1" * 400, "now", "1e", "--1"]
)
@pytest.mark.parametrize("kind", ["object", "category"])
def test_text_that_is_no_finite_number(word, kind):
    times = as_times(pd.Series(["5", word], dtype=object).astype(kind))
    assert times[0] == 5 and not np.isfinite(times[1])
    assert not np.isfinite(as_times(pd.Series([word, "5"], dtype=object).astype(kind))[0])


def test_categories_that_do_not_occur_do_not_matter():
    column = pd.Series(pd.Categorical(["7", "5"], categories=["x", "1.5", "5", "7"]))
    assert as_times(column).tolist() == [7, 5] and as_times(column).dtype == np.int64


# --- dates in text --------------------------------------------------------------------------------

ZONES = ["", "Z", "+02", "-02", "+05:30", "-0530", "+00:00", "+14:00", "-00:45"]
DATES = st.builds(
    "{}{}".format,
    st.one_of(
        st.datetimes().map(lambda date: date.isoformat(timespec="microseconds")),
        st.datetimes().map(lambda date: date.isoformat(" ", timespec="seconds")),
        st.datetimes().map(lambda date: date.isoformat(timespec="minutes")),
        st.datetimes().map(lambda date: date.isoformat(timespec="hours")),
    ),
    st.sampled_from(ZONES),
) | st.dates().map(str)


@settings(max_examples=150, deadline=None)
@given(words=st.lists(DATES, min_size=1, max_size=8))
@pytest.mark.parametrize("kind", ["object", "category"])
def test_dates_are_those_that_python_reads(words, kind):
    """Of any year, with and without zones, in any order."""
    expected = [date_of(word) for word in words]
    times = as_times(pd.Series(words, dtype=object).astype(kind))
    assert times.tolist() == expected
    whole = not any(re.search(r"\.\d*[1-9]", word) for word in words)
    assert times.dtype == (np.int64 if whole else np.float64)


def date_of(word):
    """Read a date by Python's parser, in the spelling that version 3.8 knows."""
    date, zone = word, ""
    for end in sorted(ZONES, key=len, reverse=True):
        if end and len(word) > 10 and word.endswith(end) and "-" not in word[10 : -len(end)]:
            date, zone = word[: -len(end)], end
            break
    if zone not in ("", "Z"):
        digits = zone[1:].replace(":", "") + "00"
        zone = f"{zone[0]}{digits[:2]}:{digits[2:4]}"
    return seconds_of(date + zone)


@pytest.mark.parametrize(
    "words, expected",
    [
        (["2014-04-07T10+02", "2014-04-07T10"], [1396857600, 1396864800]),
        (["2014-04-07T10-02", "2014-04-07T10", "2014-04-07"], [1396872000, 1396864800, 1396828800]),
        (["2014-04-07T10", "2014-04-07T10+02", "2014-04-07T10Z"], [1396864800, 1396857600] * 2),
        (["3000-01-01", "0001-01-01", "9999-12-31T23:59:59"], [32503680000, -62135596800]),
        (["20140407T105109", "2014-04-07t10:51:09z", "2014-04-07T10:51:09,5"], [1396867869] * 2),
        (["2014-04-07T10:51:09.123456789123"], [1396867869.123456789]),
    ],
)
def test_spellings_of_dates(words, expected):
    times = as_times(pd.Series(words))
    assert times[: len(expected)].tolist() == expected[: len(words)]
    assert np.isfinite(times).all()


@pytest.mark.parametrize(
    "word",
    ["now", "today", "2014.5", "2014", "20140407", "2014-04-31", "2014-W15-1", "2014-04-07T24:00"]
    + ["2014-04-07T10+24", "2014-04-07-02:00", "2014-04-07T10:51:60", "", "x", "2014-04-07\n"]
    + [
        "2014-04-07 ",
        "10000-01-01",
        "0000-01-01",
        "2014-04-07T10:51+5",
        "\u0662\u0660\u0661\u0664-04-07",
    ],
)
@pytest.mark.parametrize("other", ["2014-04-07", "2014-04-07T10+02"])
def test_text_that_is_no_date(word, other):
    times = as_times(pd.Series([other, word, other]))
    assert np.isnan(times).tolist() == [False, True, False]


@pytest.mark.parametrize("extension", ["tsv", "parquet", "feather"])
@pytest.mark.parametrize("first, late", [("2014-04-07", "5"), ("5", "2014-04-07")])
def test_dates_and_numbers_in_parts_are_not_mixed(tmp_path, monkeypatch, extension, first, late):
    """A part that holds the other kind alone is refused like a single row of it."""
    frame = pd.DataFrame({"SessionId": 1, "ItemId": 2, "Time": [first] * 1100 + [late] * 1100})
    path = tmp_path / f"a.{extension}"
    if extension == "tsv":
        monkeypatch.setattr(text_, "ROWS_AT_ONCE", 1100)
        frame.to_csv(path, sep="\t", index=False)
    elif extension == "parquet":
        frame.to_parquet(path, row_group_size=1100)
    else:
        frame.to_feather(path, chunksize=1100)
    with pytest.raises(InputError, match=f"'{late}' in (row 1100|line 1102)"):
        read(path)


# --- columns of dates -----------------------------------------------------------------------------

STAMPS = ["2014-04-07T10:51:09.277", "1969-12-31T23:59:59.5", "2014-04-08T00:00:00"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "+05:30"])
@pytest.mark.parametrize("extension", ["memory", "pickle", "parquet", "feather"])
def test_columns_of_dates(tmp_path, unit, zone, extension):
    """Of every unit and zone, years that nanoseconds do not reach included."""
    far = [] if unit == "ns" else ["3000-01-01T00:00:00", "1066-10-14T09:00:00"]
    dates = pd.Series(np.array(STAMPS + far, dtype=f"datetime64[{unit}]"))
    expected = [float(stamp) / 1000 for stamp in dates.to_numpy().astype("M8[ms]").astype(int)]
    if zone is not None:
        dates = dates.dt.tz_localize("UTC").dt.tz_convert(zone)
    frame = pd.DataFrame({"SessionId": 1, "ItemId": 2, "Time": dates})
    if extension == "memory":
        times = as_times(frame["Time"])
    else:
        getattr(frame, f"to_{extension}")(tmp_path / f"a.{extension}")
        times = read(tmp_path / f"a.{extension}")["Time"].to_numpy()
    assert times.tolist() == expected
    assert times.dtype == (np.int64 if unit == "s" else np.float64)


@pytest.mark.parametrize("extension", ["parquet", "feather"])
def test_other_columns_of_dates_in_arrow_files(tmp_path, extension):
    import pyarrow as pa

    day = datetime.date(3000, 1, 1)
    columns = {
        "date32": pa.array([day], pa.date32()),
        "date64": pa.array([day], pa.date64()),
        "decimal": pa.array([decimal.Decimal(32503680000)], pa.decimal128(20, 0)),
        "zone": pa.array([32503680000], pa.int64()).cast(pa.timestamp("s", "No/Where")),
        "words": pa.array(["3000-01-01"]).dictionary_encode(),
    }
    table = pa.table({"SessionId": [1], "ItemId": [2], **columns})
    path = tmp_path / f"a.{extension}"
    if extension == "parquet":
        pa.parquet.write_table(table, path)
    else:
        pa.feather.write_feather(table, path)
    for name in columns:
        times = read(path, time_key=name)[name]
        assert times.tolist() == [32503680000] and times.dtype == np.int64


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(pd.to_timedelta([1, 2], unit="s")),
        pd.Series(pd.period_range("2014", periods=2, freq="D")),
        pd.Series([True, False]),
        pd.Series([True, 2], dtype=object),
        pd.Series([1j, 2j]),
    ],
)
def test_columns_that_are_no_times(column):
    assert np.isnan(as_times(column)).any()


def test_objects_that_are_dates():
    zone = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    values = [
        datetime.datetime(2014, 4, 7, 10, tzinfo=zone),
        datetime.datetime(3000, 1, 1),
        datetime.date(2014, 4, 7),
        pd.Timestamp("2014-04-07 10:00", tz="Europe/Berlin"),
        np.datetime64("2014-04-07"),
        "2014-04-07",
    ]
    expected = [1396845000, 32503680000, 1396828800, 1396857600, 1396828800, 1396828800]
    assert as_times(pd.Series(values, dtype=object)).tolist() == expected
