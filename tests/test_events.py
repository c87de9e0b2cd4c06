"""Reading event tables from files, and what is said about those that cannot be used."""

from __future__ import annotations

import builtins
import copyreg
import io
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import events as events_module
from events import read_events
from user_errors import InputError

HEADER = "SessionId\tItemId\tTime\n"

# --- text files -----------------------------------------------------------------------------------


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path, **keys):
    return read_events(path, announce=False, **keys)


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


@pytest.mark.parametrize("word", ["07", "+7", "-0", "-07", "7"])
@pytest.mark.parametrize("n_bytes", [1, 2, 3, 5, 64])
def test_odd_numbers_are_seen_across_the_blocks_of_the_scan(tmp_path, monkeypatch, word, n_bytes):
    monkeypatch.setattr(events_module, "SCAN_BYTES", n_bytes)
    for shift in range(n_bytes if n_bytes < 64 else 1):
        rows = "10\t100\t0\n" * 1001 + "1\t1\t1" + "1" * shift + f"\n1\t{word}\t1\n"
        frame = read(write(tmp_path / "a.tsv", HEADER + rows))
        assert frame["ItemId"].iloc[-1] == (7 if word == "7" else word)
        assert frame["SessionId"].dtype == np.int64


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
        ("SessionId,ItemId,Time\n1,1,1\n", ['"SessionId"', "SessionId,ItemId,Time"]),
        ("\n" + HEADER, ['"SessionId"']),
        ("Time\t" + HEADER + "1\t1\t1\t1\n", ['"Time"', "more than once"]),
        (HEADER + "1\t1\t1\n1\t1\tx\n1\t1\ty\n", ['"Time"', "'x'", "line 3"]),
        (HEADER + "\n1\t1\t1\n\n  \n1\t1\tx\n", ['"Time"', "'x'", "line 6"]),
        (HEADER + "1\t1\t2014-04-07T10:51:09\n", ['"Time"', "'2014-04-07T10:51:09'", "line 2"]),
        (HEADER + "1\t1\tTrue\n", ['"Time"', "'True'", "line 2"]),
        (HEADER + "1\t1\t1\n1\t1\tinf\n", ['"Time"', "'inf'", "line 3"]),
        (HEADER + "1\t1\t1.5\n1\t1\tNaN\n", ['"Time"', "'NaN'", "line 3"]),
        (HEADER + "1\t1\t1.5\n1\t1\t1e999\n", ['"Time"', "'1e999'", "line 3"]),
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


@pytest.mark.parametrize("name", ["a.tsv", "a.txt", "a.pickle", "a.pkl"])
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


@pytest.mark.parametrize("name", ["a.csv", "a", "a.parquet", "a.tsv.gz"])
def test_other_extensions(tmp_path, name):
    with pytest.raises(InputError, match=r"\.tsv, \.txt.*\.pickle, \.pkl"):
        read(write(tmp_path / name, HEADER))


# --- pickles --------------------------------------------------------------------------------------

PLAIN = pd.DataFrame({"SessionId": [3, 3, 1], "ItemId": [1, 2, 1], "Time": [1, 2, 3], "x": 1.5})
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
    "integer index": PLAIN.set_index(pd.Index([5, 5, 9])),
    "float index": PLAIN.set_index(pd.Index([0.5, 1.5, 2.5])),
    "string index": PLAIN.set_index(pd.Index(["x", "y", "z"], name="n")),
    "date index": PLAIN.set_index(pd.date_range("2014", periods=3, freq="D")),
    "category index": PLAIN.set_index(pd.CategoricalIndex(["x", "y", "x"])),
    "multi index": PLAIN.set_index(["SessionId", "x"], drop=False),
    "slice": PLAIN[1:],
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", PICKLED)
def test_pickled_frames(tmp_path, kind, protocol):
    frame = PICKLED[kind]
    frame.to_pickle(tmp_path / "a.pickle", protocol=protocol)
    loaded = events_module._read_pickle(str(tmp_path / "a.pickle"))
    pd.testing.assert_frame_equal(loaded, frame)
    events = read(tmp_path / "a.pickle")
    expected = frame[["SessionId", "ItemId", "Time"]].reset_index(drop=True)
    if kind == "nullable":
        expected = expected.astype({"Time": "float64"})
    pd.testing.assert_frame_equal(events, expected)


def test_pickles_of_numpy_2_and_pandas_1(tmp_path):
    content = pickle.dumps(PLAIN, protocol=2)
    modern = content.replace(b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n")
    old = content.replace(b"indexes.base\nIndex\n", b"indexes.numeric\nInt64Index\n")
    assert modern != content or "_core" in events_module._NUMPY_CORE
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
        (pickle.dumps(PLAIN["Time"].to_numpy()), ["found ndarray"]),
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
