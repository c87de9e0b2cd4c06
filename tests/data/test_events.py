"""Reading event tables from files, and what is said about those that cannot be used."""

from __future__ import annotations

import builtins
import copyreg
import csv
import datetime
import gzip
import io
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.event_files import HEADER, read, write
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec_toolkit.data import pickles
from gru4rec_toolkit.data import text as text_
from gru4rec_toolkit.data.events import read_events
from gru4rec_toolkit.data.text import SCAN_BYTES
from gru4rec_toolkit.errors import InputError

# --- text files -----------------------------------------------------------------------------------


def test_read_text(tmp_path, capsys):
    path = write(tmp_path / "a.tsv", "x\tItemId\tTime\tSessionId\n9\tb\t5\t1\n8\ta\t4\t-2\n")
    frame = read_events(str(path))
    assert capsys.readouterr().out == f"Loading data from TAB separated file: {path}\n"
    assert frame.columns.tolist() == ["SessionId", "ItemId", "Time"]
    assert frame["SessionId"].tolist() == [1, -2] and frame["SessionId"].dtype == np.int64
    assert frame["ItemId"].tolist() == ["b", "a"] and frame["ItemId"].dtype == "category"
    assert frame["Time"].tolist() == [5, 4] and frame["Time"].dtype == np.int64
    read(path)
    assert capsys.readouterr().out == ""


def test_read_text_with_other_names_and_extension(tmp_path):
    path = write(tmp_path / "a.TXT", "s\ti\tt\n1\t2\t3.5\n")
    frame = read(path, session_key="s", item_key="i", time_key="t")
    assert frame.to_dict("list") == {"s": [1], "i": [2], "t": [3.5]}


def test_other_columns_do_not_matter(tmp_path):
    path = write(
        tmp_path / "a.tsv", "x\tx\tItemId\tTime\tSessionId\ty\n\t\t1\t2\t3\n\t\t1\t3\t3\tz\n"
    )
    assert read(path)["Time"].tolist() == [2, 3]


SPELLINGS = ["7", "-7", "0", "10", "007", "+7", "7.0", " 7", "7 ", "-0", "1_0", "7e1", "٣"]
SPELLINGS += ["9223372036854775807", "9223372036854775808", "-9223372036854775808", "NA", "null"]
SPELLINGS += ["nan", "None", "True", '"a', 'b"', "é", "#", "a b", "inf", "0x1F", "1,000"]


def is_canonical(word):
    return re.fullmatch("0|-?[1-9][0-9]*", word) is not None and -(2**63) <= int(word) < 2**63


@settings(max_examples=150, deadline=None)
@given(
    ids=st.lists(st.tuples(st.sampled_from(SPELLINGS), st.sampled_from(SPELLINGS)), min_size=1),
    integers=st.booleans(),
)
def test_ids_in_text_keep_their_spelling(tmp_path_factory, ids, integers):
    """Integers if all of a column are, whatever the way they were parsed; else the very strings."""
    if integers:
        ids = [(s, i) for s, i in ids if is_canonical(s)] or [("1", "2")]
    path = tmp_path_factory.mktemp("ids") / "a.tsv"
    write(path, HEADER + "".join(f"{s}\t{i}\t1\n" for s, i in ids))
    frame = read(path)
    for name, words in zip(["SessionId", "ItemId"], zip(*ids)):
        if all(is_canonical(word) for word in words):
            assert frame[name].dtype == np.int64
            assert frame[name].tolist() == [int(word) for word in words]
        else:
            assert frame[name].dtype == "category"
            assert frame[name].tolist() == list(words)


@pytest.mark.parametrize(
    "late", ["x", "007", "9223372036854775808", "1.0", "1.5", "True", "+5", ""]
)
def test_a_late_row_decides_about_a_column(tmp_path, late):
    words = ["5"] * 3000 + [late] + ["7"] * 10
    path = write(tmp_path / "a.tsv", HEADER + "".join(f"{w}\t{w}\t1\n" for w in words))
    if late == "":
        with pytest.raises(InputError, match="1 missing value, the first in line 3002"):
            read(path)
        return
    frame = read(path)
    assert frame["SessionId"].tolist() == words and frame["ItemId"].tolist() == words


LONG = HEADER + "1\t2\t3\n" * 60000  # several blocks: what is wrong comes while pandas reads


@pytest.mark.parametrize(
    "text, words",
    [
        (LONG + "1\t2\0\t3\n", ["no text file", "zero bytes"]),
        (LONG + "1\t\udce9\t3\n" + LONG + "\0", ["no text file", "zero bytes"]),
        (LONG + "1\t\udce9\t3\n", ["line 60002 is not UTF-8"]),
        (HEADER + "1\t2\n" * 60000 + "\0", ["no text file", "zero bytes"]),
        (HEADER + "1\t2\n" * 60000, ["line 2 has 2 tab"]),
        (LONG + "1\t2\t3\t\n", ["line 60002 has 4 tab"]),
        (LONG + "007\t2\t3\t\n", ["line 60002 has 4 tab"]),
        (LONG.replace("\t3\n", "\t2014-04-07\n") + "1\t2\t2014-04-07\t\n", ["line 60002 has 4"]),
        (LONG.replace("\t3\n", "\t2014-04-07\n") + "1\t2\tx\0\n", ["zero bytes"]),
        (LONG + "1\t2\tx\n", ["line 60002", "'x'"]),
    ],
)
@pytest.mark.parametrize("kind", ["tsv", "tsv.gz"])
def test_long_text_files_that_cannot_be_used(tmp_path, text, words, kind):
    content = text.encode(errors="surrogateescape")
    path = tmp_path / f"a.{kind}"
    write(path, gzip.compress(content, 1) if kind == "tsv.gz" else content)
    with pytest.raises(InputError) as caught:
        read(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


# how a message tells of it: pandas 3 has made a number of it already
TOO_LARGE = "'1e999'" if pd.__version__ < "3" else "'inf'"


def test_lines_may_end_as_on_windows_and_begin_with_a_byte_order_mark(tmp_path):
    text = (HEADER + "1\ta\t1\n1\tb\t2").replace("\n", "\r\n")
    frame = read(write(tmp_path / "a.tsv", b"\xef\xbb\xbf" + text.encode()))
    assert frame["ItemId"].tolist() == ["a", "b"] and frame["Time"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "text, words",
    [
        ("", ["the file is empty", "column names"]),
        (HEADER, ["no events"]),
        (HEADER + "\n \n", ["no events"]),
        ("SessionId\tItem\tTime\n1\t1\t1\n", ['"ItemId"', "SessionId, Item, Time", "-ik"]),
        ("Session\tItemId\tTime\n1\t1\t1\n", ['"SessionId"', "-sk"]),
        ("SessionId\tItemId\tt\n1\t1\t1\n", ['"Time"', "-tk"]),
        ("SessionId,ItemId,Time\n1,1,1\n", ["tabs", "commas: SessionId,ItemId,Time"]),
        ("\n" + HEADER, ['"SessionId"']),
        ("Time\t" + HEADER + "1\t1\t1\t1\n", ['"Time"', "more than once"]),
        (HEADER + "1\t1\t1\n1\t1\tx\n1\t1\ty\n", ['"Time"', "'x'", "line 3"]),
        (HEADER + "\n1\t1\t1\n\n  \n1\t1\tx\n", ['"Time"', "'x'", "line 6"]),
        (HEADER + "1\t1\t2014-04-07T10:51\n1\t1\t2014-04-31\n", ["'2014-04-31'", "line 3"]),
        (HEADER + "1\t1\t2014-04-07\n1\t1\tx\n", ['"Time"', "'x'", "line 3", "ISO date"]),
        (HEADER + "1\t1\t5\n1\t1\t2014-04-07\n", ['"Time"', "'2014-04-07'", "line 3"]),
        (HEADER + "1\t1\tApril 7\n", ['"Time"', "'April 7'", "line 2"]),
        (HEADER + "1\t1\tTrue\n", ['"Time"', "'True'", "line 2"]),
        (HEADER + "1\t1\t1\n1\t1\tinf\n", ['"Time"', "'inf'", "line 3"]),
        (HEADER + "1\t1\t1.5\n1\t1\tNaN\n", ['"Time"', "'NaN'", "line 3"]),
        (HEADER + "1\t1\t1.5\n1\t1\t1e999\n", ['"Time"', TOO_LARGE, "line 3"]),
        (HEADER + "1\t1\t1\n1\t\t1\n\t\t1\n", ['"SessionId"', "1 missing value,", "line 4"]),
        (HEADER + "1\t1\t1\n1\t\t1\n1\t\t1\n", ['"ItemId"', "2 missing values", "line 3"]),
        (HEADER + "1\t1\t1\n1\t1\t\n", ['"Time"', "1 missing value,", "line 3"]),
        (HEADER + "1\t1\t1\n1\t1\n", ['"Time"', "1 missing value,", "line 3"]),
        (HEADER + "1\t1\n1\t1\n", ["line 2", "2 tab", "3 columns"]),
        (HEADER + "1\t1\t1\n\n1\t1\t1\t1\n", ["line 4", "4 tab", "3 columns"]),
        (HEADER + "1\t1\t1\t1\t\n1\t1\t1\n", ["line 2", "5 tab", "3 columns"]),
        (HEADER.encode() + b"1\t1\t1\n1\t\xe9\t1\n", ["line 3", "UTF-8"]),
        (HEADER.encode() + b"1\tx\t1\n" * 3000 + b"1\t\xe9\t1\n", ["line 3002", "UTF-8"]),
        (HEADER.encode() + b"1\ta\0b\t1\n", ["no text file", "zero bytes"]),
        (HEADER.encode("utf-16"), ["no text file", "UTF-8"]),
        (bytes(range(256)) * 40, ["no text file", "UTF-8"]),
    ],
)
def test_text_files_that_cannot_be_used(tmp_path, text, words):
    path = write(tmp_path / "a.tsv", text)
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in [str(path), *words]:
        assert word in message


@pytest.mark.parametrize(
    "name", ["a.tsv", "a.txt", "a.csv", "a.tsv.gz", "a.pickle", "a.pkl", "a.parquet", "a.feather"]
)
def test_paths_that_cannot_be_read(tmp_path, name, monkeypatch):
    path = tmp_path / name
    with pytest.raises(InputError, match="no such file") as caught:
        read(path)
    assert str(path) in str(caught.value)
    path.mkdir()
    with pytest.raises(InputError, match="is a directory"):
        read(path)
    path.rmdir()
    write(path, HEADER)
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser reads it all the same

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(InputError, match=r"cannot be read .Permission denied.*permissions"):
        read(path)


@pytest.mark.parametrize(
    "name, extension",
    [
        ("a.xlsx", ".xlsx"),
        ("a", ""),
        ("a.gz", ".gz"),
        ("a.pickle.gz", ".pickle.gz"),
        ("a.zip", ".zip"),
    ],
)
def test_other_extensions(tmp_path, name, extension):
    path = write(tmp_path / name, HEADER)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value) == (
        f'{path}: files that end in "{extension}" cannot be read; use tab separated text (.tsv, '
        ".txt), comma separated text (.csv), each of them also compressed (.tsv.gz), a pickled "
        "pandas DataFrame (.pickle, .pkl), or .parquet or .feather"
    )


@pytest.mark.parametrize("n_columns, end", [(20, ""), (21, ", ...")])
def test_the_columns_are_listed_up_to_twenty(tmp_path, n_columns, end):
    names = [f"c{i}" for i in range(n_columns)]
    path = write(tmp_path / "a.tsv", "\t".join(names) + "\n" + "1\t" * (n_columns - 1) + "1\n")
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value) == (
        f'{path}: there is no column "SessionId", the columns are: {", ".join(names[:20])}{end}; '
        "name the session column with -sk (session_key)"
    )


@pytest.mark.parametrize(
    ("name", "header", "sentence"),
    [
        ("a.tsv", "SessionId,ItemId,Time", "expected tabs between the columns, .* by commas: S"),
        ("a.tsv", '"SessionId","ItemId","Time"', "by commas: .*; let its name end in .csv$"),
        ("a.txt", "session,item,time", "by commas: session,item,time; let its name end in .csv$"),
        ("a.csv", "SessionId;ItemId;Time", "expected commas .* semicolons: .* by tabs .* or comm"),
        ("a.csv", '"SessionId";"ItemId";"Time"', "seems to be separated by semicolons: "),
        ("a.csv", "SessionId\tItemId\tTime", "by tabs: .*; let its name end in .tsv$"),
        ("a.tsv", "1\t2\t3", r"name the columns \(SessionId, ItemId, Time\), .* event: 1 2 3; put"),
        ("a.csv", "a7,b2,2014-04-07T10:51:09Z", "event: a7, b2, 2014-04-07T10:51:09Z; put a line"),
        ("a.tsv", "Session Id\tItem", "there is no column"),
        ("a.tsv", "Session Id", "there is no column"),
        ("a.tsv", "my session id\titem\ttime", "there is no column"),
        ("a.csv", '"SessionId,ItemId,Time"', "there is no column"),
        ("a.tsv", "1\tItemId\tTime", "there is no column"),
    ],
)
def test_first_lines_without_the_columns(tmp_path, name, header, sentence):
    """Another separator, or none of the names, is told as such."""
    path = write(tmp_path / name, f"{header}\n1\t2\t3\n")
    with pytest.raises(InputError, match=sentence) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_another_separator_in_a_compressed_file(tmp_path):
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress(b"SessionId,ItemId,Time\n1,2,3\n"))
    with pytest.raises(InputError, match=r"by commas: .*; let its name end in \.csv\.gz$"):
        read(path)


@pytest.mark.parametrize("name", ["a", "a.tsv", "a.parquet"])
def test_a_directory(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="this is a directory; give the path of a file in it"):
        read(tmp_path / name)


# --- other kinds of text --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tsv", "txt", "csv", "TSV"])
def test_compressed_text(tmp_path, kind):
    text = (HEADER + "3\ta\t1\n1\tb\t2\n").replace("\t", "," if kind == "csv" else "\t")
    plain = read(write(tmp_path / f"a.{kind}", text))
    compressed = read(write(tmp_path / f"a.{kind}.gz", gzip.compress(text.encode())))
    pd.testing.assert_frame_equal(plain, compressed)
    assert plain.astype(str).to_numpy().tolist() == [["3", "a", "1"], ["1", "b", "2"]]


@pytest.mark.parametrize("cut", [slice(20), slice(-30), slice(-4), slice(1, None)])
def test_damaged_compressed_text(tmp_path, cut):
    content = gzip.compress((HEADER + "".join(f"{i}\t{i * i}\t1\n" for i in range(99))).encode())
    path = write(tmp_path / "a.tsv.gz", content[cut])
    words = "the compressed file is damaged or cut short; copy or download it again"
    with pytest.raises(InputError, match=rf"^{path}: {words}$"):
        read(path)


@pytest.mark.parametrize("damage", ["cut", "changed", "cut in words"])
def test_damage_that_is_met_while_pandas_reads(tmp_path, damage):
    digits = np.random.default_rng(1).integers(1 << 40, size=200_000)
    word = "x" if damage == "cut in words" else ""
    content = bytearray(
        gzip.compress((HEADER + "".join(f"{i}\t{word}{i}\t1\n" for i in digits)).encode(), 1)
    )
    assert len(content) > 10 * SCAN_BYTES
    if damage == "changed":
        content[-1000:-900] = bytes(100)
    else:
        del content[-1000:]
    with pytest.raises(
        InputError, match=r"a\.tsv\.gz: the compressed file is damaged or cut short"
    ):
        read(write(tmp_path / "a.tsv.gz", bytes(content)))


FIELDS = st.sampled_from(["1", "07", "a", "a,b", 'say "hi"', "two\nlines", " x", "é", "3.0", "0"])


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(FIELDS, FIELDS, st.integers(-5, 5), FIELDS), min_size=1))
def test_comma_separated_text(tmp_path_factory, rows):
    """As Python's csv module writes it: quotes where they are needed."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["SessionId", "ItemId", "Time", 'the "rest", of it'])
        writer.writerows(rows)
    frame = read(path)
    assert frame["SessionId"].astype(str).tolist() == [row[0] for row in rows]
    assert frame["ItemId"].astype(str).tolist() == [row[1] for row in rows]
    assert frame["Time"].tolist() == [row[2] for row in rows]


@pytest.mark.parametrize(
    "rows, words",
    [
        ("1,1,1\n1,1,1,1\n", ["line 3", "4 comma separated", "3 columns"]),
        ('"a,b",1,1\n"c\nd",1,1,1\n', ["line 4", "4 comma"]),
        ('"a,b",1,1\n"c\nd",1,x\n', ["line 4", "'x'"]),
        ("1,1\n", ["line 2", "2 comma"]),
        ("1,1,\n", ['"Time"', "missing", "line 2"]),
    ],
)
def test_comma_separated_text_that_cannot_be_used(tmp_path, rows, words):
    with pytest.raises(InputError) as caught:
        read(write(tmp_path / "a.csv", HEADER.replace("\t", ",") + rows))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("word", ["007", '"007"', "+7", "-0", '"7 "', "7"])
def test_odd_numbers_are_seen_between_commas(tmp_path, word):
    rows = "10,100,0\n" * 1001 + f"1,{word},1\n"
    ids = read(write(tmp_path / "a.csv", "SessionId,ItemId,Time\n" + rows))["ItemId"]
    assert ids.iloc[-1] == (7 if word == "7" else word.strip('"'))


# --- dates ----------------------------------------------------------------------------------------

DATES = {
    "2014-04-07": 1396828800,
    "2014-04-07T10:51": 1396867860,
    "2014-04-07T10:51:09": 1396867869,
    "2014-04-07 10:51:09": 1396867869,
    "2014-04-07T10:51:09Z": 1396867869,
    "2014-04-07T10:51:09+02:00": 1396860669,
    "2014-04-07T10:51:09.277Z": 1396867869.277,
    "1969-12-31T23:59:59.5Z": -0.5,
}


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.sampled_from(list(DATES)), min_size=1, max_size=7), in_parts=st.booleans())
@pytest.mark.parametrize("item", ["7", "007"])
def test_dates_in_text_are_seconds(tmp_path_factory, words, in_parts, item):
    path = tmp_path_factory.mktemp("dates") / "a.tsv"
    write(
        path, HEADER + "".join(f"{i}\t{item if i > 2 else 5}\t{w}\n" for i, w in enumerate(words))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_, "ROWS_AT_ONCE", 2 if in_parts else 1000)
        frame = read(path)
    assert frame["Time"].tolist() == [DATES[word] for word in words]
    whole = all(isinstance(DATES[word], int) for word in words)
    assert frame["Time"].dtype == (np.int64 if whole else np.float64)
    assert frame["ItemId"].astype(str).tolist() == ["5"] * min(3, len(words)) + [item] * (
        len(words) - 3
    )
    assert frame["SessionId"].tolist() == list(range(len(words)))
    assert frame["SessionId"].dtype == np.int64


# --- Parquet and Feather --------------------------------------------------------------------------

COLUMNS = {
    "integers": [3, 3, 1],
    "small integers": [np.int8(3), np.int8(3), np.int8(1)],
    "strings": ["é", "007", "é"],
    "categories": pd.Categorical(["b", "a", "b"]),
    "string type": pd.array(["b", "a", "b"], dtype="string"),
    "integer categories": pd.Categorical([9, 8, 9]),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("extension", ["parquet", "feather"])
def test_arrow_files(tmp_path, kind, extension, capsys):
    frame = pd.DataFrame({"x": 1.5, "ItemId": COLUMNS[kind], "Time": [2, 3, 4], "SessionId": 7})
    path = tmp_path / f"a.{extension}"
    getattr(frame, f"to_{extension}")(path)
    events = read_events(path)
    assert capsys.readouterr().out == f"Loading data from {extension.title()} file: {path}\n"
    assert events.columns.tolist() == ["SessionId", "ItemId", "Time"]
    for name in events.columns:
        assert events[name].tolist() == frame[name].tolist()
    assert "integer" in kind or events["ItemId"].dtype == "category"
    assert events["Time"].dtype == np.int64


@pytest.mark.parametrize("extension", ["parquet", "feather"])
@pytest.mark.parametrize(
    "times, seconds",
    [
        ([1.5, 2.0, 3.0], [1.5, 2.0, 3.0]),
        (pd.to_datetime(["2014-04-07", "2014-04-08", "2014-04-09"]), [1396828800, 86400, 172800]),
        (pd.to_datetime(["2014-04-07T00:00+02:00"] * 3), [1396821600, 0, 0]),
        (["2014-04-07T00:00:00Z", "2014-04-08", "2014-04-09"], [1396828800, 86400, 172800]),
    ],
)
def test_times_in_arrow_files(tmp_path, extension, times, seconds):
    path = tmp_path / f"a.{extension}"
    frame = pd.DataFrame({"SessionId": 1, "ItemId": 1, "Time": times})
    getattr(frame, f"to_{extension}")(path)
    found = read(path)["Time"]
    if seconds[0] > 9:
        assert found.dtype == np.int64
        seconds = [seconds[0], *(seconds[0] + later for later in seconds[1:])]
    assert found.tolist() == seconds


@pytest.mark.parametrize("extension", ["parquet", "feather"])
@pytest.mark.parametrize(
    "change, words",
    [
        ({"SessionId": None}, ['"SessionId"', "3 missing", "row 0"]),
        ({"ItemId": pd.array([1, None, 2], dtype="Int64")}, ['"ItemId"', "1 missing", "row 1"]),
        ({"ItemId": ["a", "b", None]}, ['"ItemId"', "1 missing", "row 2"]),
        ({"Time": ["2014-04-07", "2014-04-08", "x"]}, ['"Time"', "'x'", "row 2"]),
        ({"Time": [1.0, float("inf"), 2.0]}, ['"Time"', "'inf'", "row 1"]),
        ({"Time": [[1], [2], [3]]}, ['"Time"']),
    ],
)
def test_arrow_files_that_cannot_be_used(tmp_path, extension, change, words):
    path = tmp_path / f"a.{extension}"
    frame = pd.DataFrame({"SessionId": [1, 1, 2], "ItemId": [1, 2, 3], "Time": [1, 2, 3]})
    getattr(frame.assign(**change), f"to_{extension}")(path)
    with pytest.raises(InputError) as caught:
        read(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)
    frame.drop(columns="ItemId").to_parquet(path)
    with pytest.raises(InputError, match="ItemId" if extension == "parquet" else "Feather"):
        read(path)
    for content in (b"", b"PAR1", path.read_bytes()[:-20]):
        with pytest.raises(InputError, match=f"cannot be read as a {extension.title()} file"):
            read(write(path, content))


@pytest.mark.parametrize("name", ["a.parquet", "a.feather"])
def test_without_pyarrow(tmp_path, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=rf"{name}: reading .* needs the package pyarrow.*pip"):
        read(write(tmp_path / name, b"PAR1"))
    assert read(write(tmp_path / "a.tsv", HEADER + "1\t2\t3\n"))["ItemId"].tolist() == [2]


# --- pickles --------------------------------------------------------------------------------------

PLAIN = pd.DataFrame({"SessionId": [3, 3, 1], "ItemId": [1, 2, 1], "Time": [1, 2, 3], "x": 1.5})
INDIA = datetime.timezone(datetime.timedelta(hours=5, minutes=30))


def with_objects(*values):
    """A table whose column x is of objects."""
    return PLAIN.assign(x=pd.Series(values, dtype=object))


PICKLED = {
    "integers": PLAIN,
    "small integers": PLAIN.astype({"SessionId": "int32", "ItemId": "uint16"}),
    "floats": PLAIN.astype("float64"),
    "strings": PLAIN.assign(ItemId=["a", "b", "a"]),
    "string type": PLAIN.assign(ItemId=pd.array(["a", "b", "a"], dtype="string")),
    "categories": PLAIN.assign(ItemId=pd.Categorical(["a", "b", "a"])),
    "integer categories": PLAIN.astype({"ItemId": "category"}),
    "numpy strings": PLAIN.assign(ItemId=np.array([np.str_("a")] * 3, dtype=object)),
    "nullable": PLAIN.astype({"SessionId": "Int64", "Time": "Float64"}),
    "booleans": PLAIN.assign(x=True, y=pd.array([True, None, False], dtype="boolean")),
    "dates": PLAIN.assign(x=pd.to_datetime(["2014", "2015", None])),
    "zoned dates": PLAIN.assign(x=pd.date_range("2014", periods=3, tz="UTC")),
    "dates among objects": with_objects(
        pd.Timestamp("2014-04-07 10:00"), pd.Timestamp("2014", tz="UTC"), pd.NaT
    ),
    "Python's dates": with_objects(
        datetime.datetime(2014, 4, 7, 10, tzinfo=INDIA),
        datetime.date(2014, 4, 7),
        datetime.datetime(3000, 1, 1),
    ),
    "NumPy's numbers": with_objects(np.int64(5), np.float32(1.5), pd.NA),
    "integer index": PLAIN.set_index(pd.Index([5, 5, 9])),
    "float index": PLAIN.set_index(pd.Index([0.5, 1.5, 2.5])),
    "string index": PLAIN.set_index(pd.Index(["x", "y", "z"], name="n")),
    "date index": PLAIN.set_index(pd.date_range("2014", periods=3, freq="D")),
    "category index": PLAIN.set_index(pd.CategoricalIndex(["x", "y", "x"])),
    "multi index": PLAIN.set_index(["SessionId", "x"], drop=False),
    "slice": PLAIN[1:],
    # pandas keeps the integers as one block, in places 0, 1 and 3
    "scattered columns": PLAIN[["SessionId", "ItemId", "x", "Time"]].copy(),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", PICKLED)
def test_pickled_frames(tmp_path, kind, protocol):
    frame = PICKLED[kind]
    frame.to_pickle(tmp_path / "a.pickle", protocol=protocol)
    for time in ("Time", "x"):
        keys = {"session": "SessionId", "item": "ItemId", "time": time}
        loaded = pickles.read_pickle(str(tmp_path / "a.pickle"), keys)
        expected = frame[list(keys.values())].reset_index(drop=True)
        if kind == "string type":  # of pyarrow, where that is installed
            expected["ItemId"] = expected["ItemId"].astype(pd.StringDtype("python"))
        pd.testing.assert_frame_equal(loaded, expected)
    events = read(tmp_path / "a.pickle")
    expected = frame[["SessionId", "ItemId", "Time"]].reset_index(drop=True)
    if kind == "nullable":
        expected = expected.astype({"Time": "float64"})
    if kind == "string type":
        expected["ItemId"] = expected["ItemId"].astype(pd.StringDtype("python"))
    pd.testing.assert_frame_equal(events, expected)


def test_pickles_of_numpy_2_and_pandas_1(tmp_path):
    content = pickle.dumps(PLAIN, protocol=2)
    modern = content.replace(b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n")
    # pandas 3 names the public module
    name = b"cpandas.core.indexes.base\nIndex\n" if pd.__version__ < "3" else b"cpandas\nIndex\n"
    old = content.replace(name, b"cpandas.core.indexes.numeric\nInt64Index\n")
    assert modern != content or b"numpy._core" in content
    if not pd.__version__.startswith("1."):  # where that class is Index itself
        assert old != content
    for variant in (modern, content if pd.__version__.startswith("1.") else old):
        assert read(write(tmp_path / "a.pkl", variant))["SessionId"].tolist() == [3, 3, 1]


def test_pickles_of_pandas_1_2(tmp_path):
    """pandas 1.0 to 1.2 wrote a BlockManager without arguments, and its state separately."""

    class OldPickler(pickle.Pickler):
        def reducer_override(self, value):
            if type(value) is not type(PLAIN._mgr):
                return NotImplemented
            axes = list(value.axes)
            blocks = [{"values": b.values, "mgr_locs": b.mgr_locs.indexer} for b in value.blocks]
            items = [axes[0][b["mgr_locs"]] for b in blocks]
            extra = {"0.14.1": {"axes": axes, "blocks": blocks}}
            state = (axes, [b["values"] for b in blocks], items, extra)
            return copyreg.__newobj__, (type(value),), state

    content = io.BytesIO()
    OldPickler(content, protocol=4).dump(PLAIN)
    frame = read(write(tmp_path / "a.pickle", content.getvalue()))
    assert frame.to_dict("list") == PLAIN[["SessionId", "ItemId", "Time"]].to_dict("list")


def test_announcement_of_pickles(tmp_path, capsys):
    PLAIN.to_pickle(tmp_path / "a.pkl")
    read_events(tmp_path / "a.pkl")
    assert capsys.readouterr().out == f"Loading data from pickled DataFrame: {tmp_path / 'a.pkl'}\n"


class Calls:
    """Pickles into a call of any function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def touch(path):
    Path(path).touch()


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "function, name",
    [
        (os.system, "system"),
        (eval, "builtins.eval"),
        (exec, "builtins.exec"),
        (touch, "touch"),
        (getattr, "builtins.getattr"),
        (pd.read_pickle, "read_pickle"),
        (pd.eval, "eval"),
        (np.load, "load"),
        (pickle.loads, "loads"),
    ],
)
def test_pickles_do_not_run_code(tmp_path, function, name, protocol):
    trace = tmp_path / "trace"
    argument = {
        "system": f"touch {trace}",
        "builtins.eval": f"open({str(trace)!r}, 'w')",
        "builtins.exec": f"open({str(trace)!r}, 'w')",
        "loads": pickle.dumps(Calls(touch, str(trace))),
    }.get(name, str(trace))
    path = write(tmp_path / "a.pickle", pickle.dumps(Calls(function, argument), protocol=protocol))
    with pytest.raises(InputError) as caught:
        read(path)
    assert name in str(caught.value) and str(path) in str(caught.value)
    assert not trace.exists()


def test_pickled_frames_do_not_run_code(tmp_path):
    trace = tmp_path / "trace"
    frame = PLAIN.assign(x=[Calls(touch, str(trace)), 1, 2])
    path = write(tmp_path / "a.pickle", pickle.dumps(frame))
    with pytest.raises(InputError, match="touch"):
        read(path)
    assert not trace.exists()


def test_dotted_names_are_refused(tmp_path):
    content = b"\x80\x04\x8c\x11pandas.core.frame\x8c\x0eDataFrame.eval\x93."
    with pytest.raises(InputError, match=r"DataFrame\.eval"):
        read(write(tmp_path / "a.pickle", content))


def test_bytes_are_decoded_by_latin1_only(tmp_path):
    content = b"c_codecs\nencode\n(Vabc\nVrot13\ntR."
    with pytest.raises(InputError, match="rot13"):
        read(write(tmp_path / "a.pickle", content))


@pytest.mark.parametrize(
    "content, words",
    [
        (pickle.dumps(PLAIN)[:-40], ["cannot be read as a pickled DataFrame"]),
        (b"", ["cannot be read as a pickled DataFrame", "EOFError"]),
        (b"SessionId\tItemId\tTime\n", ["cannot be read as a pickled DataFrame"]),
        (pickle.dumps([1, 2]), ["expected a pickled pandas DataFrame", "list"]),
        (pickle.dumps(PLAIN["Time"].to_numpy(), protocol=4), ["found ndarray"]),
        (pickle.dumps(PLAIN["Time"].to_numpy(), protocol=5), ["found ndarray"]),
        (b"\x80\x02cpandas.core.frame\nDataFrame\n)\x81.", ["cannot be read"]),
        (pickle.dumps(PLAIN.drop(columns="ItemId")), ['"ItemId"', "SessionId, Time, x", "-ik"]),
        (pickle.dumps(PLAIN[["SessionId", "ItemId", "Time", "Time"]]), ["more than once"]),
        (pickle.dumps(PLAIN[:0]), ["no events"]),
        (pickle.dumps(PLAIN.assign(Time=[1, 2, "x"])), ['"Time"', "'x'", "row 2"]),
        (pickle.dumps(PLAIN.assign(ItemId=[1, None, None])), ['"ItemId"', "2 missing", "row 1"]),
    ],
)
def test_pickles_that_cannot_be_used(tmp_path, content, words):
    path = write(tmp_path / "a.pickle", content)
    with pytest.raises(InputError) as caught:
        read(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)
