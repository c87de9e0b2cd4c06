"""Files that are damaged, made to do harm, or no files at all: one sentence, and nothing else."""

from __future__ import annotations

import io
import os
import pickle
import resource
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.cli import ROOT, TRAIN, complaint, python, run_py, succeeds
from helpers.event_files import HEADER, read, write

from gru4rec_toolkit import modelfile, parameters
from gru4rec_toolkit.data import pickles
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.search import space

DAMAGED = Path(__file__).parent / "damaged"
PLAIN = pd.DataFrame({"SessionId": [3, 3, 1], "ItemId": [1, 2, 1], "Time": [1, 2, 3]})


def check_log(path, cwd):
    return python("-m", "gru4rec_toolkit.data.report", path, cwd=cwd, PYTHONPATH=str(ROOT))


# --- what ended the process -----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(os.listdir(DAMAGED)))
def test_files_that_crashed_a_library(tmp_path, name):
    message = complaint(check_log(DAMAGED / name, tmp_path))
    assert message.startswith(str(DAMAGED / name))


@pytest.mark.parametrize("number", ["1e4001400000002", "1e4294967295", "0." + "0" * 700 + "1"])
@pytest.mark.parametrize("column", ["id", "time"])
def test_numbers_that_crashed_the_parser(tmp_path, number, column):
    """In a late row, and behind integers: none is taken for another number."""
    rows = "1\t1\t1\n" * 1100
    row = f"1\t{number}\t1\n" if column == "id" else f"1\t1\t{number}\n"
    path = write(tmp_path / "a.tsv", HEADER + rows + row + rows)
    done = check_log(path, tmp_path)
    if column == "id":
        succeeds(done)
        assert read(path)["ItemId"].iloc[1100] == number
    elif number.startswith("0."):
        succeeds(done)
        assert read(path)["Time"].iloc[1100] == 0
    else:
        # pandas 3 has made a number of it already
        told = number if pd.__version__ < "3" else "'inf'"
        assert told in complaint(done) and "line 1102" in complaint(done)


# --- pickles that do harm -------------------------------------------------------------------------

READ = """
import pickle, sys
import numpy as np, pandas as pd
from gru4rec_toolkit.data.events import read_events
from gru4rec_toolkit.errors import InputError
def methods():
    return [(c, n, id(v)) for c in (pd.Index, pd.DataFrame, pd.Categorical, np.dtype, object)
            for n, v in sorted(vars(c).items())]
before = methods()
try:
    read_events(sys.argv[1], announce=False)
except InputError as err:
    print(err)
assert methods() == before
"""


def test_a_pickle_cannot_patch_pandas(tmp_path):
    done = python("-c", READ, DAMAGED / "poison.pickle", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert "cannot be read as a pickled DataFrame" in succeeds(done).out


def sets_state(module, name, state):
    """A pickle that sets the state of something that it names, before a plain DataFrame."""
    named = b"c" + module.encode() + b"\n" + name.encode() + b"\n"
    return named + pickle.dumps(state, 2)[2:-1] + b"b0" + pickle.dumps(PLAIN, 2)[2:]


@pytest.mark.parametrize(
    "module, name",
    [*sorted(pickles._ALLOWED), ("_codecs", "encode"), ("copyreg", "_reconstructor")],
)
def test_no_name_takes_a_state(tmp_path, module, name):
    for state in ({"x": 1}, (None, {"x": 1}), ({"x": 1}, {"y": 2}), None):
        path = write(tmp_path / "a.pickle", b"\x80\x02" + sets_state(module, name, state))
        with pytest.raises(InputError, match="sets the state of a class"):
            read(path)


class Call:
    """Pickles into a call, and a state where one is given."""

    def __init__(self, function, *args, state=None):
        self.parts = function, args, state

    def __reduce__(self):
        return self.parts


RECONSTRUCT = np.zeros(1).__reduce__()[0]
RAW = bytes(range(24))


def array(dtype, raw, shape=(3,), flags=None):
    state = (1, shape, dtype, False, raw)
    return Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=state)


def dtype(code, *state):
    return Call(np.dtype, code, False, True, state=state or None)


INT = dtype("i8", 3, "<", None, None, None, -1, -1, 0)
ODD_ARRAYS = [
    array(dtype("O8", 3, "|", None, None, None, -1, -1, 0), RAW),
    array(dtype("O8", 3, "|", None, None, None, -1, -1, 63), RAW),
    array(dtype("i8", 3, "<", None, None, None, -1, -1, 63), RAW),  # its flags are not believed
    array(dtype("i8", 3, "<", None, None, None, 1 << 40, 8, 0), RAW),
    array(dtype("i8", 3, "<", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 8, 63), RAW),
    array(dtype("V8", 3, "|", None, None, None, 8, 1, 0), RAW),
    array(dtype("M8", 4, "<", None, None, None, -1, -1, 0, (None, (b"generic", 1, 1, 1))), RAW),
    array(INT, RAW[:-1]),
    array(INT, RAW, (1 << 62,)),
    array(INT, RAW, (-3,)),
    array(INT, RAW, (1 << 32, 1 << 32)),
    array(INT, [1, 2, 3]),
    array(dtype("O8", 3, "|", None, None, None, -1, -1, 63), [1, 2]),
    array(dtype("O8", 3, "|", None, None, None, -1, -1, 63), [1, [], {}]),
]


class Replacing(pickle.Pickler):
    """Writes another array where there is a column of strings."""

    def __init__(self, file, other):
        super().__init__(file, 4)
        self.other = other

    def reducer_override(self, value):
        is_column = isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 2
        return self.other.parts if is_column else NotImplemented


@pytest.mark.parametrize("case", range(len(ODD_ARRAYS)))
def test_arrays_that_do_not_fit_their_bytes(tmp_path, case):
    content = io.BytesIO()
    words = np.array(["a", "b", "c"], dtype=object)
    frame = PLAIN.assign(ItemId=pd.Series(words, dtype=object))
    Replacing(content, ODD_ARRAYS[case]).dump(frame)
    path = write(tmp_path / "a.pickle", content.getvalue())
    done = check_log(path, tmp_path)
    if case in (2, 3):
        succeeds(done)
        assert read(path)["ItemId"].tolist() == np.frombuffer(RAW, np.int64).tolist()
    else:
        assert "cannot be read as a pickled DataFrame" in complaint(done)


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda column: setattr(column, "_mask", np.zeros(2, dtype=bool)), "mask"),
        (lambda column: setattr(column, "_mask", np.zeros(3)), "another type"),
        (lambda column: setattr(column, "_data", np.zeros(3)), "another type"),
        (lambda column: setattr(column, "_data", np.zeros((3, 1), dtype=int)), "another length"),
    ],
)
def test_nullable_integers_that_are_damaged(tmp_path, change, problem):
    frame = PLAIN.astype({"ItemId": "Int64"})
    change(frame["ItemId"].array)
    with pytest.raises(InputError, match=problem):
        read(write(tmp_path / "a.pickle", pickle.dumps(frame)))


@pytest.mark.parametrize("codes", [[0, 1, 2], [0, 1, -2], [0, 1, 127]])
def test_codes_without_a_category(tmp_path, codes):
    frame = PLAIN.assign(ItemId=pd.Categorical(["a", "b", "a"]))
    frame["ItemId"].array._ndarray[:] = codes
    with pytest.raises(InputError, match="codes need to be between"):
        read(write(tmp_path / "a.pickle", pickle.dumps(frame)))


MEASURE = """
import resource, sys
from gru4rec_toolkit.data.events import read_events
from gru4rec_toolkit.errors import InputError
try:
    read_events(sys.argv[1], announce=False)
except InputError as err:
    print(err)
megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
print(megabytes, resource.getrlimit(resource.RLIMIT_AS))
"""


def test_a_place_far_behind_takes_no_memory(tmp_path):
    """Place 134 million of 1: the unpickler would clear 2 GB for those before it."""
    path = write(tmp_path / "a.pickle", b"\x80\x02]r\xff\xff\xff\x07.")
    done = succeeds(python("-c", MEASURE, path, cwd=tmp_path, PYTHONPATH=str(ROOT)))
    assert "MemoryError" in done.lines[0]
    megabytes, limits = done.lines[1].split(" ", 1)
    assert int(megabytes) < 1000
    assert limits == str(resource.getrlimit(resource.RLIMIT_AS))  # as it was


def test_a_length_that_no_memory_holds_is_one_sentence(tmp_path):
    """Python prints a SystemError of its own where an array of bytes gets no memory."""
    length = (1 << 62).to_bytes(8, "little")
    path = write(tmp_path / "a.pickle", b"\x80\x05]\x96" + length + b"x.")
    done = check_log(path, tmp_path)
    assert "MemoryError" in complaint(done)
    assert len(done.err.splitlines()) == 1, done.err


# --- text that is not read ------------------------------------------------------------------------


@pytest.mark.parametrize("name, separator", [("a.tsv", b"\t"), ("a.csv", b",")])
def test_only_columns_that_are_read_have_to_be_utf8(tmp_path, name, separator):
    rows = [b"SessionId,ItemId,Time,x", b"3,a,1,\xd0", b"3,b,2,\xff\xfe", b"4,b,2,"]
    content = b"\n".join(rows).replace(b",", separator)
    events = read(write(tmp_path / name, content))
    assert events["ItemId"].tolist() == ["a", "b", "b"]
    content = content.replace(b"4" + separator + b"b", b"4" + separator + b"\xd0")
    with pytest.raises(InputError, match="line 4 is not UTF-8"):  # lines 2 and 3 do no harm
        read(write(tmp_path / name, content))


@pytest.mark.parametrize("blank", [b"\t", b" ", b" \t ", b""])
def test_lines_without_content_do_not_count(tmp_path, blank):
    """pandas passes over them; the line that a message names has to be right all the same."""
    rows = [b"SessionId,ItemId,Time", b"3,a,1", blank, b"3,b,x"]
    with pytest.raises(InputError, match="'x' in line 4"):
        read(write(tmp_path / "a.csv", b"\n".join(rows)))
    assert len(read(write(tmp_path / "a.csv", b"\n".join(rows[:3])))) == 1


# --- pickles of other versions --------------------------------------------------------------------

PICKLES = Path(__file__).parent / "pickles"
CONTENT = {
    "SessionId": [3, 3, 1],
    "ItemId": ["b", "é", "b"],
    "category": ["y", "x", "y"],
    "integer": [7, 8, 9],
    "float": [1.5, 2.5, 1396860669.277],
    "boolean": [True, False, True],
}
BERLIN = [1396860669, 1396908000, 1396994400]
NAIVE = [1396867869, 1396915200, 1397001600]


@pytest.mark.parametrize("name", sorted(os.listdir(PICKLES)))
def test_pickles_of_other_versions_of_pandas(name):
    """1.0.5 to 3.1.1, written by these; strings of the last are pyarrow's."""
    for item, values in CONTENT.items():
        if item != "SessionId":
            events = read(PICKLES / name, item_key=item)
            assert events["SessionId"].tolist() == [3, 3, 1]
            assert events[item].tolist() == values
            assert events["Time"].tolist() == BERLIN
    assert read(PICKLES / name, time_key="naive")["naive"].tolist() == NAIVE
    with pytest.raises(InputError, match=r'"Time" holds dates with a time zone.*ids'):
        read(PICKLES / name, item_key="Time", time_key="naive")


# --- Parquet and Feather --------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["parquet", "feather"])
@pytest.mark.parametrize("column", ["SessionId", "ItemId", "Time"])
def test_arrow_files_with_bytes_that_are_no_text(tmp_path, extension, column):
    path = tmp_path / f"a.{extension}"
    frame = PLAIN.assign(**{column: ["mark", "2014-04-07", "mark"]})
    getattr(frame, f"to_{extension}")(
        path, compression="none" if extension == "parquet" else "uncompressed"
    )
    content = path.read_bytes()
    assert b"mark" in content
    write(path, content.replace(b"mark", b"m\xff\xfek"))
    message = complaint(check_log(path, tmp_path))
    assert message.startswith(f"{path}: ")


# --- no files -------------------------------------------------------------------------------------


def no_file(path, kind):
    """Make a pipe that ends at once for whoever opens it, or a device without content."""
    if kind == "device":
        path.symlink_to(os.devnull)
        return path
    os.mkfifo(path)

    def end_at_once():
        path.open("wb").close()

    threading.Thread(target=end_at_once, daemon=True).start()
    return path


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize(
    "reader, name",
    [
        *((read, f"a.{end}") for end in ("tsv", "csv", "tsv.gz", "pickle", "parquet", "feather")),
        (parameters.read_file, "a.py"),
        (space.read_space, "a.json"),
        (modelfile.read, "a.model"),
    ],
)
def test_pipes_and_devices_are_refused(tmp_path, kind, reader, name):
    path = no_file(tmp_path / name, kind)
    try:
        with pytest.raises(InputError, match=f"{name}: this is no regular file, but a pipe"):
            reader(str(path))
    finally:
        if kind == "pipe":  # let the thread go
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def test_pipes_are_refused_from_the_shell(tmp_path):
    for name in ("a.tsv", "a.py", "a.model"):
        no_file(tmp_path / name, "device")
    for args in (
        ["a.tsv", "-ps", "layers=5"],
        [TRAIN, "-pf", "a.py"],
        ["a.model", "-l", "-t", TRAIN],
    ):
        assert "no regular file" in complaint(run_py(*args, cwd=tmp_path))
