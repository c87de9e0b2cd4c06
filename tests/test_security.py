"""Files that were made to do harm: each trick is refused with one sentence, or read harmlessly.

A trick would leave a file, the canary, if anything of it were executed, or written elsewhere. Where
Python can show that, it is shown that the trick works on somebody who trusts it.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import gzip
import io
import json
import os
import pickle
import sqlite3
import stat
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.cli import ROOT, TRAIN, complaint, files_in, python, run_py, succeeds
from helpers.event_files import HEADER, read, write

from gru4rec_toolkit import container, files, modelfile, parameters
from gru4rec_toolkit.data import arrow, report, text
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.search import space

PLAIN = pd.DataFrame({"SessionId": [3, 3, 1], "ItemId": [1, 2, 1], "Time": [1, 2, 3]})
CHECKPOINT = container.Kind("gru4rec-checkpoint", 1, "checkpoint", "a checkpoint", "delete it")


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """The path of a file that no trick may make; nothing else may be made beside it either."""
    folder = tmp_path / "canaries"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder / "canary"
    assert list(folder.iterdir()) == []


def refusal(function, *args) -> str:
    """The one sentence of a refusal."""
    with pytest.raises(InputError) as caught:
        function(*map(str, args))
    message = str(caught.value)
    assert message.isprintable() and len(message) < 3000
    return message


# --- pickles --------------------------------------------------------------------------------------


class Call:
    """Pickles into a call, and a state where one is given."""

    def __init__(self, function, *args, state=None):
        self.parts = (function, args, state) if state is not None else (function, args)

    def __reduce__(self):
        return self.parts


def touch(path) -> Call:
    return Call(os.system, f"touch {path}")


def by_hand(opcodes: str, path) -> bytes:
    return opcodes.replace("COMMAND", f"touch {path}").encode()


def frame_with(value, **kinds) -> bytes:
    """A pickled DataFrame with something in a column of objects."""
    column = np.empty(3, dtype=object)
    column[:] = [1, value, 3]
    return pickle.dumps(PLAIN.assign(ItemId=column), **kinds)


def second_file(path) -> bytes:
    other = path.parent.parent / "second.pickle"
    other.write_bytes(pickle.dumps(touch(path)))
    return pickle.dumps(Call(pd.read_pickle, str(other)))


SYSTEM, CODECS, FRAME = "cposix\nsystem\n", "c_codecs\nencode\n", "cpandas.core.frame\nDataFrame\n"
OS = "cbuiltins\n__import__\n(Vos\ntR"
RECONSTRUCT, SCALAR = np.zeros(1).__reduce__()[0], np.float64(1).__reduce__()[0]
# those that work on whoever trusts a pickle
WORKING_BY_HAND = {
    "GLOBAL and REDUCE": f"{SYSTEM}(VCOMMAND\ntR.",
    "INST": "(VCOMMAND\niposix\nsystem\n.",
    "OBJ": f"({SYSTEM}VCOMMAND\no.",
    "the name of Python 2": "c__builtin__\neval\n(V__import__('os').system('COMMAND')\ntR.",
    "functools.partial": f"cfunctools\npartial\n({SYSTEM}VCOMMAND\ntR(tR.",
    "getattr": f"cbuiltins\ngetattr\n({OS}Vsystem\ntR(VCOMMAND\ntR.",
    "attrgetter": f"coperator\nattrgetter\n(Vsystem\ntR({OS}tR(VCOMMAND\ntR.",
}
WORKING = {
    **{name: functools.partial(by_hand, code) for name, code in WORKING_BY_HAND.items()},
    "STACK_GLOBAL": lambda p: pickle.dumps(touch(p), 4),
    "exec": lambda p: pickle.dumps(Call(exec, f"open({str(p)!r}, 'w')")),
    "a method": lambda p: pickle.dumps(Call(Path.touch, Path(p))),
    "subprocess": lambda p: pickle.dumps(Call(subprocess.call, ["touch", str(p)])),
    "before a sound frame": lambda p: (
        b"\x80\x04" + by_hand(f"{SYSTEM}(VCOMMAND\ntR0", p) + pickle.dumps(PLAIN, 4)[2:]
    ),
    "in a column": lambda p: frame_with(touch(p), protocol=4),
    "in a column, protocol 0": lambda p: frame_with(touch(p), protocol=0),
    "in a state": lambda p: pickle.dumps(Call(pd.DataFrame, state={"_mgr": touch(p)})),
    "as a key": lambda p: pickle.dumps({touch(p): 1}),
    "as a dtype's metadata": lambda p: pickle.dumps(np.dtype("i4", metadata={"x": touch(p)})),
    "as an array's class": lambda p: pickle.dumps(Call(RECONSTRUCT, np.ndarray, (0,), touch(p))),
    "another file": second_file,
}
# those that are of no use outside, but aim at what is allowed here; and why they are refused
AIMED = {
    "pandas.eval": ("cpandas\neval\n(V@__import__('os').system('COMMAND')\ntR.", "pandas.eval"),
    "a method by getattr": (f"cbuiltins\ngetattr\n({FRAME}Veval\ntR.", "asks for builtins.getattr"),
    "a dotted name": (
        b"\x80\x04\x8c\x11pandas.core.frame\x8c\x0eDataFrame.eval\x93.",
        "asks for pandas.core.frame.DataFrame.eval",
    ),
    "a module's module": (
        b"\x80\x04\x8c\x06pandas\x8c\x13io.common.os.system\x93.",
        "asks for pandas.io.common.os.system",
    ),
    "persistent id": ("P/etc/passwd\n.", "persistent"),
    "persistent object": (b"\x80\x02X\x0b\x00\x00\x00/etc/passwdQ.", "persistent"),
    "a number without a name": (b"\x80\x02\x82\xf0)R.", "unregistered extension code"),
    "state of a class": (f"{FRAME}}}Veval\nNsb.", "sets the state of a class"),
    "state of a stand-in": (f"{CODECS}}}Vname\nNsb.", "sets the state of a class"),
    "bytes by a codec": (f"{CODECS}(Vx\nVrot13\ntR.", "bytes in rot13"),
    "an object of a class": (f"ccopyreg\n_reconstructor\n({CODECS}NNtR.", "a class is missing"),
    "a scalar of objects": (
        pickle.dumps(Call(SCALAR, np.dtype(object), b"cposix\nsystem\n.")),
        "found scalar",
    ),
    "code": ("cmarshal\nloads\n(VCOMMAND\ntR.", "asks for marshal.loads"),
    "a buffer from outside": (b"\x80\x05\x97.", "buffer"),
}


@pytest.mark.parametrize("trick", WORKING)
def test_pickles_that_work_elsewhere(tmp_path, canary, trick):
    data = WORKING[trick](canary)
    with contextlib.suppress(Exception):
        pickle.loads(data)
    assert canary.exists()
    canary.unlink()
    assert str(tmp_path) in refusal(read, write(tmp_path / "a.pickle", data))


@pytest.mark.parametrize("trick", AIMED)
def test_pickles_that_aim_at_this_reader(tmp_path, canary, trick):
    data, reason = AIMED[trick]
    data = data if isinstance(data, bytes) else by_hand(data, canary)
    assert reason in refusal(read, write(tmp_path / "a.pickle", data))


def make_canary(path):
    Path(path).touch()


def test_a_name_by_a_number_that_the_process_knows(tmp_path, canary, monkeypatch):
    """Python keeps what a number stood for, and no longer asks the unpickler about it."""
    monkeypatch.setattr(make_canary, "__module__", "made_up")
    monkeypatch.setitem(sys.modules, "made_up", sys.modules[__name__])
    copyreg.add_extension("made_up", "make_canary", 240)
    try:
        name = str(canary).encode()
        data = b"\x80\x02\x82\xf0(X" + struct.pack("<I", len(name)) + name + b"tR."
        pickle.loads(data)
        assert canary.exists()
        canary.unlink()
        message = refusal(read, write(tmp_path / "a.pickle", data))
        assert "number in copyreg" in message
        assert read(write(tmp_path / "b.pickle", pickle.dumps(PLAIN)))["Time"].tolist() == [1, 2, 3]
    finally:
        copyreg.remove_extension("made_up", "make_canary", 240)


READ = """
import resource, sys
from gru4rec_toolkit.data.events import read_events
from gru4rec_toolkit.errors import InputError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_events(sys.argv[1], announce=False)
except InputError as err:
    print(err)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10)
"""


def memory_of(path, cwd) -> tuple[str, int]:
    """The sentence about a file, and the MB of memory that it took."""
    done = succeeds(python("-c", READ, path, cwd=cwd, PYTHONPATH=str(ROOT)))
    assert done.err == "" and len(done.lines) == 2
    return done.lines[0], int(done.lines[1])


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.",
        b"\x80\x04\x8f()" + b"\x85" * 1_000_000 + b"\x90.",
        b"\x80\x02cpyarrow.lib\ntype_for_alias\n)" + b"\x85" * 1_000_000 + b"\x85R.",
    ],
    ids=["key", "member of a set", "argument"],
)
def test_tuples_in_one_another(tmp_path, data):
    """Hashing them recurses without a limit, and ended the process."""
    message, _ = memory_of(write(tmp_path / "a.pickle", data), tmp_path)
    assert "a.pickle: " in message


def frame_of(manager) -> bytes:
    state = pickle.dumps({"_mgr": manager}, 2)[2:-1]
    return b"\x80\x02cpandas.core.frame\nDataFrame\n)\x81" + state + b"b."


def many_columns(n: int) -> bytes:
    """A frame that claims columns without end."""
    from pandas._libs.internals import _unpickle_block
    from pandas.core.indexes.base import _new_Index
    from pandas.core.internals.managers import BlockManager

    names = Call(_new_Index, pd.RangeIndex, {"name": None, "start": 0, "stop": n, "step": 1})
    block = Call(_unpickle_block, np.zeros((1, 1), dtype=np.int64), slice(0, n, 1), 2)
    return frame_of(Call(BlockManager, (block,), [names, names]))


def test_columns_without_end(tmp_path):
    message, megabytes = memory_of(write(tmp_path / "a.pickle", many_columns(10**9)), tmp_path)
    assert "MemoryError" in message and megabytes < 1500


# --- a pickle in the place of anything ------------------------------------------------------------


def check_storage(path):
    storage = pytest.importorskip("gru4rec_toolkit.search.storage")
    storage.check_storage(path)


READERS = {
    "model": (modelfile.read, "a.model"),
    "checkpoint": (lambda path: container.read(CHECKPOINT, path, "training"), "a.gru4rec"),
    "parameter file": (parameters.read_file, "a.py"),
    "space": (space.read_space, "a.json"),
    "journal": (check_storage, "a.journal"),
    "text": (read, "a.tsv"),
    "compressed text": (read, "a.csv.gz"),
    "Parquet": (read, "a.parquet"),
    "Feather": (read, "a.feather"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("trick", ["GLOBAL and REDUCE", "STACK_GLOBAL", "in a column"])
def test_a_pickle_in_the_place_of_anything(tmp_path, canary, reader, trick):
    function, name = READERS[reader]
    assert name in refusal(function, write(tmp_path / name, WORKING[trick](canary)))


# --- models and checkpoints -----------------------------------------------------------------------


HEAD = {"version": 1, "parameters": {"layers": [3]}, "training": {}}


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def described(description: str, data: bytes = b"") -> bytes:
    text = description.encode()
    if len(text) < 1 << 16:
        return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + data
    return b"\x93NUMPY\x02\0" + struct.pack("<I", len(text)) + text + data


def link_to(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target.encode()


NUMBERS = npy(np.zeros(3, np.float32))
NPY = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n"
LINK = "a link and what is behind it"


def one(description: str) -> list:
    """A container's array by its description."""
    return [("Wy.npy", described(description, bytes(12)))]


def opened(path) -> str:
    return f"open({str(path)!r}, 'w')"


MEMBERS = {
    "objects": lambda p: [("Wy.npy", npy(np.array([touch(p)], dtype=object)))],
    "objects in fields": lambda p: [("Wy.npy", npy(np.array([(touch(p),)], dtype=[("a", "O")])))],
    "a pickle": lambda p: [("Wy.npy", pickle.dumps(touch(p)))],
    LINK: lambda p: [link_to("x", str(p.parent)), ("x/canary", NUMBERS)],
    "a link": lambda p: [link_to("Wy.npy", "/etc/passwd")],
    "code as the type": lambda p: one(NPY.replace("'<f4'", opened(p))),
    "code as the shape": lambda p: one(NPY.replace("3", opened(p))),
    "code as all": lambda p: one(opened(p)),
    "terabytes": lambda p: one(NPY.replace("3,", "1000000000000,")),
    "a type of a megabyte": lambda p: one(NPY.replace("<f4", "<f4," * (1 << 18))),
    "a type of many bytes": lambda p: one(NPY.replace("<f4", "|V2147483647")),
    "deep brackets": lambda p: one("(" * 60_000),
    "version 9": lambda p: [("Wy.npy", b"\x93NUMPY\x09" + NUMBERS[7:])],
}


def write_zip(path, kind, members, compression=zipfile.ZIP_STORED, **header):
    with zipfile.ZipFile(path, "w", compression) as file:
        text = json.dumps({"format": kind.format, **HEAD, **header}).encode()
        file.writestr("header.npy", npy(np.frombuffer(text, np.uint8)))
        for name, data in members:
            file.writestr(name, data)
    return path


KINDS = [(modelfile._KIND, "parameters"), (CHECKPOINT, "training")]


@pytest.fixture(params=KINDS, ids=["model", "checkpoint"])
def kind(request):
    return request.param


def refused_in_little_memory(kind, path) -> str:
    before = files_in(path.parent)
    tracemalloc.start()
    try:
        message = refusal(lambda name: container.read(kind[0], name, kind[1]), path)
        assert not container.is_one(kind[0], str(path)) or "not a" in message
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert files_in(path.parent) == before
    return message


@pytest.mark.parametrize("trick", MEMBERS)
def test_members_of_models_and_checkpoints(tmp_path, canary, kind, trick):
    path = write_zip(tmp_path / "a.model", kind[0], MEMBERS[trick](canary))
    if trick == "objects":
        with np.load(path, allow_pickle=True) as trusted:
            trusted["Wy"]
        assert canary.exists()
        canary.unlink()
    refused_in_little_memory(kind, path)


def test_what_unpacks_to_gigabytes(tmp_path, canary, kind):
    zeros = described(NPY.replace("3,", f"{1 << 24},"), bytes(1 << 26))
    path = write_zip(tmp_path / "a", kind[0], [("Wy.npy", zeros)], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    refused_in_little_memory(kind, path)


def patched(path, offset: int, value: int, layout: str = "<I"):
    """Change a field of the last member, in the directory of a container."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into(layout, data, at + offset, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("trick", "fields"),
    [
        ("sizes of 4 GB", [(20, 0xFFFFFFFE), (24, 0xFFFFFFFE)]),
        ("a size of 4 GB", [(24, 0xFFFFFFFE)]),
        ("place in another member", [(42, 0)]),
        ("compressed", [(10, 8)]),
        ("encrypted", [(8, 1)]),
    ],
)
def test_directories_that_lie(tmp_path, canary, kind, trick, fields):
    path = write_zip(tmp_path / "a", kind[0], [("Wy.npy", NUMBERS)])
    for offset, value in fields:
        patched(path, offset, value, "<H" if offset < 12 else "<I")
    refused_in_little_memory(kind, path)


@pytest.mark.parametrize("name", ["../canaries/canary.npy", "ABSOLUTE.npy", "a\\..\\b.npy"])
def test_names_that_lead_elsewhere(tmp_path, canary, name):
    """They are names of arrays, which are looked up; nothing is unpacked to a file."""
    from gru4rec import GRU4Rec

    name = name.replace("ABSOLUTE", str(canary))
    path = write_zip(tmp_path / "a.model", modelfile._KIND, [(name, NUMBERS)])
    before = files_in(tmp_path)
    assert name[:-4] in modelfile.read(str(path))[1] or "\\" in name
    assert "not a GRU4Rec model" in refusal(GRU4Rec.loadmodel, path)
    assert files_in(tmp_path) == before


def test_models_that_do_harm_from_the_shell(tmp_path, canary):
    for trick in ("objects", "code as the type"):
        path = write_zip(tmp_path / "a.model", modelfile._KIND, MEMBERS[trick](canary))
        message = complaint(run_py(path, "-l", "-t", TRAIN, cwd=tmp_path))
        assert "not a GRU4Rec model" in message


# --- parameter files, strings and spaces ----------------------------------------------------------

OPEN = "open(CANARY, 'w')"
IMPORT = "from collections import OrderedDict"
CODE = {
    "a call": f"{OPEN}\ngru4rec_params = {{}}",
    "an import": "import made_up_module\ngru4rec_params = {}",
    "two imports in one": "from collections import OrderedDict, abc\ngru4rec_params = {}",
    "another line behind": f"gru4rec_params = {{}}; {OPEN}",
    "a value": f"gru4rec_params = {{'loss': {OPEN}}}",
    "a key": f"gru4rec_params = {{{OPEN}: 1}}",
    "__import__": "gru4rec_params = {'loss': __import__('pathlib').Path(CANARY).touch()}",
    "an argument": f"gru4rec_params = dict({OPEN})",
    "a named argument": f"gru4rec_params = dict(loss={OPEN})",
    "a pair": f"from collections import *\ngru4rec_params = OrderedDict([('loss', {OPEN})])",
    "a pair of two": f"{IMPORT}\ngru4rec_params = OrderedDict([('loss', {OPEN})])",
    "f-string": f"gru4rec_params = {{'loss': f\"{{{OPEN}}}\"}}",
    "walrus": f"gru4rec_params = {{'loss': (x := {OPEN})}}",
    "comprehension": f"gru4rec_params = {{'loss': [{OPEN} for _ in (1,)]}}",
    "a generator": f"gru4rec_params = dict(('loss', {OPEN}) for _ in (1,))",
    "lambda": f"gru4rec_params = (lambda: {{'loss': {OPEN}}})()",
    "conditional": f"gru4rec_params = {{'loss': 1 if {OPEN} else 2}}",
    "or": f"gru4rec_params = {{'loss': 0 or {OPEN}}}",
    "comparison": f"gru4rec_params = {{'loss': 1 < {OPEN}.fileno()}}",
    "unpacking": f"gru4rec_params = {{**dict(x={OPEN})}}",
    "starred": f"gru4rec_params = {{'layers': [*{OPEN}.name]}}",
    "subscript": f"gru4rec_params = {{'loss': [1][{OPEN}.fileno() * 0]}}",
    "annotation": f"gru4rec_params: {OPEN} = {{}}",
    "two targets": f"x = gru4rec_params = {{'loss': {OPEN}}}",
    "a decorator": f"@(lambda f: {OPEN})\ndef f(): pass\ngru4rec_params = {{}}",
    "a class": f"class A:\n    {OPEN}\ngru4rec_params = {{}}",
    "a default": f"def f(x={OPEN}): pass\ngru4rec_params = {{}}",
    "with": f"with {OPEN}: gru4rec_params = {{}}",
    "if": f"if {OPEN}: gru4rec_params = {{}}",
    "assert": f"assert {OPEN}\ngru4rec_params = {{}}",
    "another OrderedDict": f"OrderedDict = lambda x: {OPEN}\ngru4rec_params = OrderedDict([])",
    "an attribute": "gru4rec_params = ''.__class__.__mro__[1].__subclasses__()",
    "rot13": "# -*- coding: rot13 -*-\n" + "bcra(PNANEL, 'j')",
}  # fmt: skip


@pytest.mark.parametrize("trick", CODE)
def test_parameter_files(tmp_path, canary, trick):
    source = CODE[trick]
    if "open(" in source or "__import__" in source:
        with contextlib.suppress(Exception):
            exec(compile(source, "a.py", "exec", dont_inherit=True), {"CANARY": str(canary)})
        # Python 3.14 looks at annotations when somebody asks for them
        assert canary.exists() or trick == "annotation"
        canary.unlink(missing_ok=True)
    path = write(tmp_path / "a.py", source.replace("CANARY", repr(str(canary))))
    message = refusal(parameters.read_file, path)
    assert "nothing was executed" in message or trick == "rot13"


def test_parameter_files_from_the_shell(tmp_path, canary):
    for trick in ("a call", "a value"):
        source = CODE[trick].replace("CANARY", repr(str(canary)))
        path = write(tmp_path / "a.py", source)
        assert "nothing was executed" in complaint(run_py(TRAIN, "-pf", path, cwd=tmp_path))


@pytest.mark.parametrize(
    "literal",
    ["-" * 50_000 + "1", "(" * 60_000, "1" + "+1" * 30_000, "a" + ".b" * 30_000, "9" * 65_000],
    ids=lambda literal: literal[:3],
)
def test_parameter_files_that_are_deep(tmp_path, literal):
    path = write(tmp_path / "a.py", f"gru4rec_params = {{'n_epochs': {literal}}}")
    with pytest.raises(InputError):
        parameters.convert(parameters.read_file(str(path)))


def test_parameter_files_without_end(tmp_path):
    path = write(tmp_path / "a.py", b"#" * (1 << 16) + b"\ngru4rec_params = {}")
    assert "larger than 64 kB" in refusal(parameters.read_file, path)


@pytest.mark.filterwarnings("error")
def test_python_says_nothing_of_parameter_files(tmp_path, capfd):
    path = write(tmp_path / "a.py", 'gru4rec_params = {"session_key": "\\d"}')
    assert parameters.read_file(str(path)) == {"session_key": "\\d"}
    assert capfd.readouterr() == ("", "")


VALUES = [
    OPEN,
    "__import__('os').system('touch CANARY')",
    "{CANARY}",
    "%n%n",
    "$(touch CANARY)",
    "`x`",
]


@pytest.mark.parametrize("value", VALUES)
def test_parameter_strings(canary, value):
    value = value.replace("CANARY", str(canary)).replace(",", ";")
    for name in parameters.PARAMETERS:
        settings = parameters.parse_string(f"{name}={value}")
        if name.endswith("_key"):
            assert parameters.convert(settings) == {name: value}  # a column may be called so
        else:
            with pytest.raises(InputError, match=f"^parameter {name}: expected "):
                parameters.convert(settings)


@pytest.mark.parametrize("value", VALUES)
def test_spaces(tmp_path, canary, value):
    for line in (
        {"name": value, "dtype": "int", "values": [1, 2]},
        {"name": "layers", "dtype": value, "values": [1, 2]},
        {"name": "layers", "dtype": "int", "values": [value, value]},
        {"name": "layers", "dtype": "int", "values": [1, 2], value: 1},
        {"py/object": "os.system", "name": "layers"},
    ):
        refusal(space.read_space, write(tmp_path / "a.json", json.dumps(line)))


def test_spaces_with_many_fields(tmp_path):
    """A million bytes of them took hours."""
    fields = ",".join(f'"{i}":1' for i in range(90_000))
    assert "unknown field '0'" in refusal(space.read_space, write(tmp_path / "a", f"{{{fields}}}"))
    message = refusal(space.read_space, write(tmp_path / "a", f'{{{fields},"7":1}}'))
    assert "field '7' is given twice" in message


# --- studies --------------------------------------------------------------------------------------


def trials_of(where: str):
    """Open a study's storage as paropt.py does, and return its trials or a refusal's sentence."""
    pytest.importorskip("optuna")
    from gru4rec_toolkit.search import storage, worker

    try:
        storage.check_storage(where)
        opened = storage.open_storage(where, 60)
        (study,) = opened.get_all_studies()
        return opened.get_all_trials(study._study_id)
    except Exception as err:
        told = worker.in_one_sentence(err, where)
        assert isinstance(told, (InputError, worker.SearchFailed)), told
        return str(told)


def journal(*records: dict) -> str:
    begin = {"op_code": 0, "worker_id": "w", "study_name": "s", "directions": [2]}
    lines = [begin, *({"worker_id": "w", **record} for record in records)]
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


NEW = {"op_code": 4, "study_id": 0, "datetime_start": "2024-01-01T00:00:00.000000"}


def distribution(name: str, **attributes) -> dict:
    text = json.dumps({"name": name, "attributes": attributes})
    parameter = {"param_name": "x", "param_value_internal": 0, "distribution": text}
    return {"op_code": 5, "trial_id": 0, **parameter}


@pytest.mark.parametrize(
    "record",
    [
        distribution("os.system", command="touch CANARY"),
        distribution("__import__('os').system('touch CANARY')"),
        distribution("CategoricalDistribution", choices=[{"py/reduce": ["os.system"]}]),
        {"op_code": 8, "trial_id": 0, "user_attr": {"worker": {"py/object": "os.system"}}},
        {"op_code": 9, "trial_id": 0, "system_attr": {"x": "gASVCgAAAA=="}},
        {"op_code": 99},
    ],
    ids=lambda record: record.get("distribution", str(record))[:40],
)
def test_journals(tmp_path, canary, record):
    record = json.loads(json.dumps(record).replace("CANARY", str(canary)))
    path = write(tmp_path / "journal", journal(NEW, record))
    before = path.read_bytes()
    found = trials_of(str(path))
    assert isinstance(found, list) or "journal" in found
    assert path.read_bytes() == before


def test_a_database_with_pickles_and_code(tmp_path, canary):
    optuna = pytest.importorskip("optuna")
    path = tmp_path / "study.db"
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    study.set_user_attr("a", 1)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        pickled = pickle.dumps(touch(canary))
        database.execute("UPDATE study_user_attributes SET value_json = ?", (pickled,))
        text = json.dumps({"name": "os.system", "attributes": {"command": f"touch {canary}"}})
        database.execute("UPDATE trial_params SET distribution_json = ?", (text,))
    assert "cannot be used" in trials_of(f"sqlite:///{path}")


def test_a_database_cannot_load_libraries(tmp_path, canary):
    optuna = pytest.importorskip("optuna")
    path = tmp_path / "study.db"
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("ALTER TABLE trials RENAME TO t")
        database.execute("CREATE VIEW trials AS SELECT *, load_extension('/tmp/x.so') FROM t")
    assert "load_extension" in trials_of(f"sqlite:///{path}")


# --- ONNX -----------------------------------------------------------------------------------------


def onnx_model(location: str | None = None, place: str = "initializer", domain: str = "") -> bytes:
    """A model that takes numbers from another file, or has an operator of somebody."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make = onnx.helper
    tensor = make.make_tensor("W", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    if location is not None:
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("length", "8")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    value = make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    nodes = [make.make_node("Identity" if not domain else "Run", ["W"], ["y"], domain=domain)]
    if place == "constant":
        nodes.insert(0, make.make_node("Constant", [], ["W"], value=tensor))
    inner = make.make_graph(nodes, "inner", [], [value], [tensor] if place != "constant" else [])
    graph = inner
    if place == "branch":
        condition = make.make_tensor("c", onnx.TensorProto.BOOL, [], [True])
        node = make.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
        graph = make.make_graph([node], "outer", [], [value], [condition])
    opsets = [make.make_opsetid("", 17)] + ([make.make_opsetid(domain, 1)] if domain else [])
    return make.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


@pytest.fixture
def exported(monkeypatch):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "serving"))
    import exported

    return exported


def start_error(exported, path) -> str:
    with pytest.raises(exported.StartError) as caught:
        exported.Exported(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("place", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "secret", "*/_ORT_MEM_ADDR_/*"])
def test_onnx_with_numbers_in_other_files(tmp_path, canary, exported, place, location):
    (tmp_path / "secret").write_bytes(bytes(8))
    path = write(tmp_path / "a.onnx", onnx_model(location, place))
    assert "from other files" in start_error(exported, path)
    # a group, which is no field of ONNX, hides nothing
    path = write(tmp_path / "a.onnx", b"\xa3\x06\xa4\x06" + onnx_model(location, place))
    assert "from other files" in start_error(exported, path)


def test_onnx_with_operators_of_somebody(tmp_path, canary, exported):
    message = start_error(exported, write(tmp_path / "a.onnx", onnx_model(domain="com.evil")))
    assert "onnxruntime cannot load this file" in message
    message = start_error(exported, write(tmp_path / "a.onnx", onnx_model()))
    assert "no ONNX file of a GRU4Rec model" in message


def test_onnx_by_a_pipe(tmp_path, exported):
    os.mkfifo(tmp_path / "a.onnx")
    assert "a pipe" in start_error(exported, tmp_path / "a.onnx")


# --- Parquet and Feather --------------------------------------------------------------------------


def arrow_file(path, metadata: dict, field_metadata: dict | None = None):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    fields = [pa.field(name, pa.int64(), metadata=field_metadata) for name in PLAIN]
    schema = pa.schema(fields, metadata=metadata)
    table = pa.table([pa.array(PLAIN[name]) for name in PLAIN], schema=schema)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        feather.write_feather(table, str(path))
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.feather"])
@pytest.mark.parametrize(
    "kind", ["arrow.py_extension_type", "pandas.period", "made.up", "arrow.json"]
)
def test_extension_types(tmp_path, canary, name, kind):
    """The first of them was unpickled by pyarrow before 14.0.1 (CVE-2023-47248)."""
    serialized = pickle.dumps(touch(canary))
    fields = {"ARROW:extension:name": kind, "ARROW:extension:metadata": serialized}
    path = arrow_file(tmp_path / name, {}, fields)
    try:
        assert read(path)["Time"].tolist() == [1, 2, 3]
    except InputError as err:
        assert name in str(err) and str(err).isprintable()


@pytest.mark.parametrize("name", ["a.parquet", "a.feather"])
def test_metadata_of_pandas(tmp_path, canary, name):
    column = {"name": "ItemId", "field_name": "ItemId", "pandas_type": "object"}
    column.update(numpy_type=f"__import__('os').system('touch {canary}')", metadata=None)
    text = json.dumps({"index_columns": [], "columns": [column], "column_indexes": []})
    for value in (text.encode(), pickle.dumps(touch(canary)), b"{" * 5000):
        path = arrow_file(tmp_path / name, {"pandas": value})
        assert read(path)["Time"].tolist() == [1, 2, 3]


def test_a_pyarrow_that_unpickles_is_refused(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    path = arrow_file(tmp_path / "a.parquet", {})
    monkeypatch.setattr(pa, "__version__", "14.0.0")
    assert "pyarrow 14.0.1 or later" in refusal(read, path)
    monkeypatch.setattr(pa, "__version__", "14.0.1")
    assert len(read(path)) == 3
    assert arrow.OLDEST == (14, 0, 1)


# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.tsv.gz", "a.csv.gz"])
def test_a_line_without_end(tmp_path, name):
    """A megabyte can unpack to a field of a gigabyte, which pandas would keep."""
    separator = "\t" if "tsv" in name else ","
    with gzip.open(tmp_path / name, "wb", 1) as file:
        file.write(f"{HEADER}1\t1\t1\n1\t1\t1".replace("\t", separator).encode())
        for _ in range(100):
            file.write(b"1" * (1 << 20))
    message, megabytes = memory_of(tmp_path / name, tmp_path)
    assert "a line has more than 16 MB" in message and megabytes < 90


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "quoted.csv"])
def test_long_files_have_lines(tmp_path, monkeypatch, name, end):
    monkeypatch.setattr(text, "LONGEST_LINE", 1 << 17)
    row = '"1\n","1","1"' if name == "quoted.csv" else "1,1,1"
    rows = ("SessionId,ItemId,Time" + end + (row + end) * 40_000).encode()
    path = write(tmp_path / name, rows.replace(b",", b"\t" if "tsv" in name else b","))
    assert len(read(path)) == 40_000


def test_quotes_that_are_not_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "LONGEST_LINE", 1 << 17)
    path = write(tmp_path / "a.csv", 'SessionId,ItemId,Time\n1,1,1\n1,1,"1\n' + "1,1,1\n" * 50_000)
    assert "a line has more than" in refusal(read, path)


def test_logs_that_unpack_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MOST_UNPACKED", 1 << 20)
    rows = HEADER.encode() + b"1\t1\t1\n" * 300_000
    path = write(tmp_path / "a.tsv.gz", gzip.compress(rows))
    assert len(rows) > 200 * path.stat().st_size
    assert "unpacks to more than 200 times its size" in refusal(read, path)
    monkeypatch.setattr(text, "MOST_UNPACKED", 2 << 20)
    assert len(read(path)) == 300_000


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ("a" * 200_000 + ",SessionId,ItemId,Time\n1,1,1,1\n", 1),
        ("SessionId,ItemId,Time,x\n1,1,1," + "a" * 200_000 + "\n1,1,1,1,1,1\n", 2),
        ("SessionId,ItemId,Time,x\n1,1,1," + "a" * 200_000 + "\n1,1,word,1\n", 2),
        ("SessionId,ItemId,Time,x\n1,1,1," + "a" * 200_000 + "\n1,\udcff,1,1\n", 2),
    ],
)
def test_long_fields(tmp_path, rows, line):
    path = write(tmp_path / "a.csv", rows.encode(errors="surrogateescape"))
    assert f"line {line}: field larger" in refusal(read, path)


def test_no_memory_is_a_sentence(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(text, "_compact_ids", fail)
    path = write(tmp_path / "a.tsv", HEADER + "1\t1\t1\n")
    assert "not enough memory for its 0 MB" in refusal(read, path)


# --- the terminal ---------------------------------------------------------------------------------

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b\u202e%s{0}"


def test_control_codes_of_ids(tmp_path, capsys):
    """The report names the longest session."""
    rows = "".join(f"{ESCAPE}\t{i % 3}\t{1400000000 + 100_000 * i}\n" for i in range(9))
    report.report(str(write(tmp_path / "a.tsv", HEADER + rows)))
    out = capsys.readouterr().out
    assert "owned" in out and all(line.isprintable() for line in out.splitlines())


def test_control_codes_of_parameters(capsys):
    parameters.announce({"session_key": ESCAPE, "item_key": "é"})
    first, second = capsys.readouterr().out.splitlines()
    assert "owned" in first and first.isprintable() and "é" in second
    assert first.index("(type") == second.index("(type")


def test_control_codes_of_messages(tmp_path):
    rows = f"SessionId\tItemId\tTime\n1\t1\t{ESCAPE}\n"
    assert "owned" in refusal(read, write(tmp_path / f"{ESCAPE}.tsv", rows))
    assert "owned" in refusal(parameters.parse_string, ESCAPE)
    path = write(tmp_path / "a.pickle", f"c{ESCAPE}\nx\n.".encode())
    refusal(read, path)


# --- files that are written -----------------------------------------------------------------------


def test_a_link_at_the_partial_name(tmp_path, canary, monkeypatch):
    """Its name is drawn at random; whoever guessed it would still be refused."""
    monkeypatch.setattr(files, "_partial_name", lambda path: str(tmp_path / "guessed.part"))
    (tmp_path / "guessed.part").symlink_to(canary)
    message = refusal(lambda path: modelfile.write(path, {}, {}), tmp_path / "model")
    assert "File exists" in message


def test_partial_names_cannot_be_guessed(tmp_path):
    names = {files._partial_name(str(tmp_path / "model")) for _ in range(100)}
    assert len(names) == 100


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_a_link_at_the_place_of_a_model(tmp_path, canary, kind):
    """To a file of the test, never of the system: without the check it would be replaced."""
    notes = tmp_path / "notes"
    if kind == "file":
        notes.write_text("mine")
    else:
        os.mkfifo(notes)
    (tmp_path / "model").symlink_to(notes)
    message = refusal(lambda path: modelfile.write(path, {}, {}), tmp_path / "model")
    if kind == "file":
        assert "it exists and is not a GRU4Rec model" in message
        assert notes.read_text() == "mine"
    else:
        assert "no regular file" in message and stat.S_ISFIFO(notes.stat().st_mode)


def test_left_overs_behind_a_link_are_left_alone(tmp_path, monkeypatch):
    name = files._partial_name(str(tmp_path / "model")).replace(f"-{os.getpid()}-", "-999999999-")
    (tmp_path / "notes").write_text("mine")
    Path(name).symlink_to(tmp_path / "notes")
    modelfile.write(str(tmp_path / "model"), {}, {})
    assert (tmp_path / "notes").read_text() == "mine" and Path(name).is_symlink()
