"""Model files: exact, written whole or not at all, and read without running anything in them."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import re
import stat
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import cli
from helpers.cli import ROOT, UNCOVERED, files_in, python
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from gru4rec_toolkit import modelfile
from gru4rec_toolkit.errors import InputError

ALONE = {"PYTHONUNBUFFERED": None, **UNCOVERED}
PARAMETERS = {"layers": [3], "loss": "bpr-max", "learning_rate": 0.1, "time_sort": True}
HEADER = {"format": "gru4rec-model", "version": 1, "parameters": PARAMETERS}


def small_arrays():
    return {
        "item_ids": np.array(["a", "", "b" * 50, "\U0001f4c8"], dtype=object),
        "Wy": np.arange(12, dtype=np.float32).reshape(4, 3),
        "By": np.zeros((4, 1), dtype=np.float32),
    }


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.npz"
    modelfile.write(str(path), PARAMETERS, small_arrays())
    return path


def same_arrays(left, right):
    """Equal to the last bit, which tells 0.0 and -0.0 apart and takes NaN for NaN."""

    def content(array):
        values = array.tolist() if array.dtype == object else array.tobytes()
        return array.dtype, array.shape, values

    return {name: content(a) for name, a in left.items()} == {
        name: content(a) for name, a in right.items()
    }


def complaint(function, path, *arguments):
    """The one sentence about a path that cannot be read or written."""
    with pytest.raises(InputError) as caught:
        function(str(path), *arguments)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# --- round trip -----------------------------------------------------------------------------------

number_types = st.sampled_from(["float32", "float64", "float16", "int8", "int32", "int64", "bool"])
numbers = st_np.arrays(number_types, st_np.array_shapes(min_dims=0, max_dims=3, min_side=0))
texts = st.lists(st.text(), max_size=20).map(lambda ids: np.array([*ids, None], dtype=object)[:-1])
array_names = st.text("ABCWxyz_0123456789", min_size=1)


@settings(deadline=None)
@given(arrays=st.dictionaries(array_names, numbers | texts, max_size=5))
def test_arrays_come_back_exactly(tmp_path_factory, arrays):
    path = str(tmp_path_factory.getbasetemp() / "arrays.npz")
    modelfile.write(path, PARAMETERS, arrays)
    parameters, found = modelfile.read(path)
    assert parameters == PARAMETERS
    assert same_arrays(found, arrays)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(parameters=st.dictionaries(st.text(), json_values, max_size=5))
def test_parameters_come_back_exactly(tmp_path_factory, parameters):
    path = str(tmp_path_factory.getbasetemp() / "parameters.npz")
    modelfile.write(path, parameters, {})
    found, _ = modelfile.read(path)
    # repr tells 1, 1.0 and True apart
    assert repr(found) == repr(parameters)


def test_integer_ids_come_back_exactly(tmp_path):
    path = str(tmp_path / "model.npz")
    ids = np.array([0, -1, 2**63 - 1, -(2**63)], dtype=np.int64)
    modelfile.write(path, {}, {"item_ids": ids})
    found = modelfile.read(path)[1]["item_ids"]
    assert found.dtype == np.int64 and found.tolist() == ids.tolist()


def test_string_ids_come_back_exactly(tmp_path):
    path = str(tmp_path / "model.npz")
    ids = ["", "a", "é", "e\u0301", "\U0001f680\U0001f680", "", " ", "\n", "a\0", "\0", "7", "007"]
    modelfile.write(path, {}, {"item_ids": np.array(ids, dtype=object)})
    found = modelfile.read(path)[1]["item_ids"]
    assert found.dtype == object and found.tolist() == ids


@settings(deadline=None)
@given(text=st.text(st.characters(categories=["Cs"]), min_size=1, max_size=3))
def test_ids_that_are_no_valid_unicode(tmp_path_factory, text):
    # a pickled DataFrame can hold them: at the end of a training is no time to find that out
    path = str(tmp_path_factory.getbasetemp() / "surrogates.npz")
    ids = np.array(["a", text], dtype=object)
    modelfile.write(path, {}, {"item_ids": ids})
    assert modelfile.read(path)[1]["item_ids"].tolist() == ids.tolist()


def test_the_file_holds_no_pickles(model):
    with np.load(model, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_the_header_is_json(model):
    with np.load(model, allow_pickle=False) as file:
        header = json.loads(file["header"].tobytes())
    assert header["format"] == "gru4rec-model"
    assert header["version"] == 2
    assert header["parameters"] == PARAMETERS


def test_any_file_name(tmp_path):
    # numpy adds .npz to names without it when it is given a name
    for name in ("model", "model.pickle", "a b.npz", "модель", "-s"):
        modelfile.write(str(tmp_path / name), PARAMETERS, {})
        assert modelfile.read(str(tmp_path / name))[0] == PARAMETERS
    assert len(list(tmp_path.iterdir())) == 5


def test_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    modelfile.check_writable("model.npz")
    modelfile.write("model.npz", PARAMETERS, {})
    assert os.listdir() == ["model.npz"]
    assert modelfile.read("model.npz")[0] == PARAMETERS


# --- whole or not at all --------------------------------------------------------------------------


def break_writing(monkeypatch, error):
    """Let numpy fail after it has written a part of the file."""

    def write_array(file, array, **options):
        file.write(b"PK" * 1000)
        raise error

    monkeypatch.setattr(np.lib.format, "write_array", write_array)


def test_a_full_disk_leaves_the_old_model(model, monkeypatch):
    before = model.read_bytes()
    break_writing(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert "No space left" in complaint(modelfile.write, model, {}, {})
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]


def test_a_full_disk_leaves_no_new_file(tmp_path, monkeypatch):
    break_writing(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    complaint(modelfile.write, tmp_path / "model.npz", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_an_error_without_a_number_has_a_reason_too(model, monkeypatch):
    break_writing(monkeypatch, OSError("the share is gone"))
    assert "the share is gone" in complaint(modelfile.write, model, {}, {})


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), SystemExit(1)])
def test_an_interrupt_leaves_the_old_model(model, monkeypatch, error):
    before = model.read_bytes()
    break_writing(monkeypatch, error)
    with pytest.raises(type(error)):
        modelfile.write(str(model), {}, {})
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]


def test_a_failing_last_step_leaves_the_old_model(model, monkeypatch):
    before = model.read_bytes()

    def replace(source, target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", replace)
    complaint(modelfile.write, model, {}, {})
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]


def test_the_model_is_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("replace"), replace(*paths)))
    modelfile.write(str(tmp_path / "model.npz"), {}, {})
    assert steps == ["fsync", "replace"]


def test_a_model_replaces_another(model):
    modelfile.write(str(model), {"layers": [7]}, {})
    assert modelfile.read(str(model)) == ({"layers": [7]}, {})
    assert list(model.parent.iterdir()) == [model]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o000])
def test_permissions_follow_the_umask(tmp_path, umask):
    path = tmp_path / "model.npz"
    before = os.umask(umask)
    try:
        modelfile.write(str(path), {}, {})
        during = os.umask(umask)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert during == umask  # it is the whole process's


SAVE = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from gru4rec_toolkit import modelfile
from gru4rec_toolkit.errors import run_cli

if len(sys.argv) > 3:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
arrays = {f"W{i}": np.zeros(1500, np.float32) for i in range(9)}
run_cli(lambda: modelfile.write(sys.argv[2], {"layers": [1]}, arrays))
"""


@pytest.mark.parametrize("limit", [100, 20_000, 54_000])
def test_a_full_disk_ends_with_one_sentence_and_nothing_else(model, limit):
    # Python says "Exception ignored" of containers that are left open
    before = model.read_bytes()
    message = cli.complaint(python("-c", SAVE, ROOT, model, limit, cwd=model.parent, **ALONE))
    assert str(model) in message and "File too large" in message
    assert files_in(model.parent) == {model.name: before}


def test_a_full_file_system(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(folder)]
    if subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here; the test before has limited the file's size")
    try:
        done = python("-c", SAVE, ROOT, folder / "model", cwd=tmp_path, **ALONE)
        assert "No space left" in cli.complaint(done)
        assert done.err.count("\n") == 1
        assert files_in(folder) == {}
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# --- files that must not be replaced --------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"SessionId\tItemId\tTime\n1\t2\t3\n", b"PK\x03\x04"])
def test_a_file_that_is_no_model_is_replaced_if_forced_only(tmp_path, writer, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    message = complaint(writer, path)
    assert "not a GRU4Rec model" in message and "--force" in message
    assert files_in(tmp_path) == {"file": data}
    modelfile.check_writable(str(path), force=True)
    assert files_in(tmp_path) == {"file": data}
    modelfile.write(str(path), PARAMETERS, small_arrays(), force=True)
    assert modelfile.read(str(path))[0] == PARAMETERS


def test_a_write_protected_model_is_not_replaced(model, writer, monkeypatch):
    # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "write-protected" in complaint(writer, model)


def test_models_of_other_versions_may_be_replaced(tmp_path):
    path = tmp_path / "model.npz"
    write_container(path, {**HEADER, "version": modelfile.VERSION + 1})
    modelfile.write(str(path), PARAMETERS, {})
    assert modelfile.read(str(path)) == (PARAMETERS, {})


def test_a_link_to_a_model_stays(model):
    link = model.parent / "link"
    link.symlink_to(model.name)
    modelfile.write(str(link), {"layers": [7]}, {})
    assert link.is_symlink() and modelfile.read(str(model))[0] == {"layers": [7]}


# --- paths that cannot be written -----------------------------------------------------------------


@pytest.fixture(params=["check_writable", "write"])
def writer(request):
    if request.param == "write":
        return lambda path: modelfile.write(path, {}, {})
    return modelfile.check_writable


def test_directory_that_does_not_exist(tmp_path, writer):
    complaint(writer, tmp_path / "missing" / "model.npz")
    assert list(tmp_path.iterdir()) == []


def test_path_with_a_null_byte(tmp_path, writer):
    with pytest.raises(InputError, match="null (byte|character)"):
        writer(str(tmp_path / "a\0b"))
    assert list(tmp_path.iterdir()) == []


def test_path_of_a_directory(tmp_path, writer):
    assert "directory" in complaint(writer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_file_in_place_of_a_directory(model, writer):
    complaint(writer, model / "model.npz")
    assert list(model.parent.iterdir()) == [model]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_without_permission(tmp_path, writer):
    tmp_path.chmod(0o500)
    complaint(writer, tmp_path / "model.npz")
    tmp_path.chmod(0o700)


def test_name_that_is_too_long(tmp_path, writer):
    complaint(writer, tmp_path / ("m" * 300))
    assert list(tmp_path.iterdir()) == []


def test_no_name(tmp_path, monkeypatch, writer):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        writer("")
    assert os.listdir() == []


def test_what_is_no_regular_file_is_not_replaced(tmp_path, writer):
    # root could replace /dev/null
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    complaint(writer, pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_check_writable_leaves_nothing(tmp_path):
    modelfile.check_writable(str(tmp_path / "model.npz"))
    assert list(tmp_path.iterdir()) == []


def test_check_writable_leaves_the_old_model(model):
    before = model.read_bytes()
    modelfile.check_writable(str(model))
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]


# --- files that cannot be read --------------------------------------------------------------------


def test_missing_file(tmp_path):
    assert "not found" in complaint(modelfile.read, tmp_path / "missing.npz")


def test_directory(tmp_path):
    complaint(modelfile.read, tmp_path)


@pytest.mark.parametrize("twentieths", range(20))
def test_truncated_file(model, twentieths):
    data = model.read_bytes()
    model.write_bytes(data[: len(data) * twentieths // 20])
    complaint(modelfile.read, model)


def test_one_missing_byte(model):
    model.write_bytes(model.read_bytes()[:-1])
    complaint(modelfile.read, model)


@settings(deadline=None)
@given(position=st.integers(0), byte=st.integers(0, 255))
def test_a_changed_byte_is_noticed_or_harmless(tmp_path_factory, position, byte):
    path = tmp_path_factory.getbasetemp() / "changed.npz"
    modelfile.write(str(path), PARAMETERS, small_arrays(), force=True)
    data = bytearray(path.read_bytes())
    position %= len(data)
    assume(data[position] != byte)
    data[position] = byte
    path.write_bytes(data)
    try:
        parameters, arrays = modelfile.read(str(path))
    except InputError:
        return
    # the container has bytes that do not matter, such as time stamps
    assert parameters == PARAMETERS and same_arrays(arrays, small_arrays())


def test_every_changed_byte_of_the_directory(model):
    # the end of the container, its table of contents, has no check sum
    data = model.read_bytes()
    start = data.index(b"PK\x01\x02")
    for position in range(start, len(data)):
        changed = bytearray(data)
        changed[position] ^= 0xFF
        model.write_bytes(changed)
        try:
            parameters, arrays = modelfile.read(str(model))
        except InputError:
            continue
        assert parameters == PARAMETERS and same_arrays(arrays, small_arrays()), position


@settings(deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.npz"
    path.write_bytes(data)
    complaint(modelfile.read, path)


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def zip_bytes(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


FOREIGN = {
    "text": b"SessionId\tItemId\tTime\n1\t2\t3\n",
    "JSON": json.dumps(HEADER).encode(),
    "npy": npy_bytes(np.zeros(3)),
    "zip": zip_bytes(a=b"text"),
    "empty zip": zip_bytes(),
    "zip with a text called header": zip_bytes(header=json.dumps(HEADER)),
    "zip with a broken header": zip_bytes(**{"header.npy": b"\x93NUMPY\x01\x00\x10\x00{'descr':"}),
    "pickled list": pickle.dumps([1, 2]),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files(tmp_path, data):
    path = tmp_path / "model.npz"
    path.write_bytes(data)
    assert "not a GRU4Rec model" in complaint(modelfile.read, path)


def write_container(path, header, **arrays):
    """Write a container by hand; the header is an object for JSON, or text."""
    text = header if isinstance(header, str) else json.dumps(header)
    np.savez(path, header=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)


def test_plain_npz(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, Wy=np.zeros(3))
    assert "not a GRU4Rec model" in complaint(modelfile.read, path)


@pytest.mark.parametrize(
    "header",
    [
        {},
        [],
        None,
        "",
        "{",
        "gru4rec-model",
        {**HEADER, "format": "other"},
        {**HEADER, "version": "1"},
        {**HEADER, "version": None},
        {"format": "gru4rec-model", "version": 1},
        {"format": "gru4rec-model", "parameters": {}},
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
    ids=lambda header: json.dumps(header)[:60],
)
def test_wrong_headers(tmp_path, header):
    path = tmp_path / "model.npz"
    write_container(path, header)
    complaint(modelfile.read, path)


@pytest.mark.parametrize("parameters", [None, [], "layers", 3])
def test_parameters_that_are_no_dictionary(tmp_path, parameters):
    path = tmp_path / "model.npz"
    write_container(path, {**HEADER, "parameters": parameters})
    complaint(modelfile.read, path)


def test_newer_format(tmp_path):
    path = tmp_path / "model.npz"
    newer = modelfile.VERSION + 1
    write_container(path, {**HEADER, "version": newer})
    message = complaint(modelfile.read, path)
    assert re.search(rf"\b{newer}\b", message) and re.search(rf"\b{modelfile.VERSION}\b", message)
    assert "update" in message


def test_newer_format_is_told_from_the_header_alone(tmp_path):
    # what else a later format holds is unknown, even whether this version can read it
    path = tmp_path / "model.npz"
    newer = {"format": "gru4rec-model", "version": modelfile.VERSION + 1, "settings": {}}
    write_container(path, newer, things=np.array([{}], dtype=object))
    assert "update" in complaint(modelfile.read, path)


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_not_executed(tmp_path):
    trace, path = tmp_path / "executed", tmp_path / "model.npz"
    data = pickle.dumps(Touch(trace))
    pickle.loads(data)
    assert trace.exists()  # so it would be seen
    trace.unlink()
    path.write_bytes(data)
    complaint(modelfile.read, path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["header", "Wy", "item_ids"])
def test_an_object_array_is_not_unpickled(tmp_path, name):
    trace, path = tmp_path / "executed", tmp_path / "model.npz"
    arrays = {"header": np.frombuffer(json.dumps(HEADER).encode(), dtype=np.uint8)}
    arrays[name] = np.array([Touch(trace)], dtype=object)
    np.savez(path, **arrays)
    complaint(modelfile.read, path)
    assert not trace.exists()


def test_an_array_that_claims_to_be_huge(tmp_path):
    path = tmp_path / "model.npz"
    write_container(path, HEADER)
    claim = io.BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": (10**15,)}
    np.lib.format.write_array_header_1_0(claim, description)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("Wy.npy", claim.getvalue())
    complaint(modelfile.read, path)


def write_texts(path, lengths):
    write_container(
        path,
        HEADER,
        **{"item_ids.utf8": np.frombuffer(b"abc", dtype=np.uint8)},
        **{"item_ids.lengths": np.array(lengths)},
    )


def test_string_lengths(model):
    write_texts(model, [1, 0, 2])
    assert modelfile.read(str(model))[1]["item_ids"].tolist() == ["a", "", "bc"]


@pytest.mark.parametrize("lengths", [[1, 1], [2, 2], [4, -1], []])
def test_string_lengths_that_do_not_add_up(model, lengths):
    write_texts(model, lengths)
    complaint(modelfile.read, model)


def test_string_lengths_that_are_missing(model):
    write_container(model, HEADER, **{"item_ids.utf8": np.zeros(3, dtype=np.uint8)})
    complaint(modelfile.read, model)


def members(path):
    with zipfile.ZipFile(path) as file:
        return [(info.filename, file.read(info)) for info in file.infolist()]


def rewrite(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in content:
            file.writestr(name, data)


def test_rewriting_alone_does_no_harm(model):
    rewrite(model, members(model))
    assert same_arrays(modelfile.read(str(model))[1], small_arrays())


def description(text):
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text.encode()


NPY = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), }"
DESCRIPTIONS = {
    "huge": NPY.replace("4, 3", "1000000000000000000,"),
    "huge and empty": NPY.replace("4, 3", "0, 1000000000000000000"),
    "product beyond 64 bits": NPY.replace("4, 3", "4294967296, 4294967296, 4"),
    "negative": NPY.replace("4, 3", "-4, -3"),
    "dimensions": NPY.replace("4, 3", "1, " * 70 + "12"),
    "digits": NPY.replace("4, 3", "9" * 5000 + ","),
    "cut": NPY[:-8],
    "open": NPY.replace("}", "("),
    "null byte": NPY.replace("False", "Fal\0e"),
    "words": NPY.replace("<f4", "<U1"),
    "bytes": NPY.replace("<f4", "|S4"),
    "times": NPY.replace("<f4", "<M8[s]"),
    "fields": NPY.replace("'<f4'", "[('a', '<f4')]"),
    "objects": NPY.replace("<f4", "|O"),
    "no type": NPY.replace("<f4", "<f7"),
    "brackets": "(" * 3000,
    "signs": NPY.replace("False", "-" * 3000 + "1"),
    "code": NPY.replace("False", "print()"),
    "nothing": "",
}


@pytest.mark.parametrize("name", ["Wy.npy", "header.npy", "item_ids.lengths.npy"])
@pytest.mark.parametrize("text", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_descriptions_of_arrays(model, name, text):
    # the check sums are right; crafted, not damaged
    content = [(n, description(text) + bytes(48) if n == name else d) for n, d in members(model)]
    rewrite(model, content)
    assert "not a GRU4Rec model" in complaint(modelfile.read, model)


def test_fortran_order_and_other_byte_orders(tmp_path):
    path = str(tmp_path / "model.npz")
    array = np.arange(12, dtype=">f4").reshape(4, 3)
    modelfile.write(path, {}, {"Wy": np.asfortranarray(array), "By": array.astype("<f8")})
    found = modelfile.read(path)[1]
    assert found["Wy"].tolist() == array.tolist() == found["By"].tolist()
    assert all(a.flags.writeable for a in found.values())


MEMBERS = {
    "twice": lambda content: [*content, content[0]],
    "raw bytes": lambda content: [*content, ("raw", b"text")],
    "no array": lambda content: [*content, ("raw.npy", b"text")],
    "renamed": lambda content: [(name[:-4], data) for name, data in content],
    "a pickle": lambda content: [(name, pickle.dumps([1])) for name, _ in content],
    "longer": lambda content: [(name, data + b"x") for name, data in content],
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("change", MEMBERS.values(), ids=MEMBERS)
def test_members_of_the_container(model, change):
    rewrite(model, change(members(model)))
    assert "not a GRU4Rec model" in complaint(modelfile.read, model)


def test_what_unpacks_to_more_than_the_file_is_not_unpacked(model):
    size = 1 << 30
    text = description(NPY.replace("4, 3", f"{size // 4},"))
    with zipfile.ZipFile(model, "a", zipfile.ZIP_DEFLATED) as file, file.open("E.npy", "w") as part:
        part.write(text)
        for _ in range(64):
            part.write(bytes(size // 64))
    assert model.stat().st_size < 1 << 21
    tracemalloc.start()
    try:
        complaint(modelfile.read, model)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_encrypted_members(model):
    data = bytearray(model.read_bytes())
    for found in list(re.finditer(b"PK\x01\x02", data)):
        data[found.start() + 8] |= 1
    model.write_bytes(data)
    complaint(modelfile.read, model)


def test_a_pipe_is_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match=rf"^model file {pipe}: this is no regular file, "):
        modelfile.read(pipe)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damage_gives_a_sentence_or_the_model(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    modelfile.write(str(path), PARAMETERS, small_arrays(), force=True)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(damaged)))
        n = data.draw(st.integers(0, 4))
        damaged[start : start + n] = data.draw(st.binary(max_size=4))
    path.write_bytes(damaged)
    try:
        parameters, arrays = modelfile.read(str(path))
    except InputError as err:
        assert str(path) in str(err) and "\n" not in str(err)
        return
    assert parameters == PARAMETERS and same_arrays(arrays, small_arrays())


@settings(deadline=None)
@given(text=st.text("{}()[]'\"<|f4U8O,: -0123456789descrfortan_oshpTuFl\n#", max_size=200))
def test_any_description(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "described.npz"
    modelfile.write(str(path), PARAMETERS, small_arrays(), force=True)
    content = [(n, description(text) if n == "Wy.npy" else d) for n, d in members(path)]
    rewrite(path, content)
    complaint(modelfile.read, path)


def test_a_name_of_a_directory_is_no_file_name(tmp_path):
    path = f"{tmp_path / 'new'}/"
    assert "names a directory" in complaint(modelfile.write, path, {}, {})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("path", [None, 3, ["model"]])
def test_things_that_are_no_paths(path):
    with pytest.raises(InputError, match="expected a path, got"):
        modelfile.read(path)
    with pytest.raises(InputError, match="expected a path, got"):
        modelfile.write(path, {}, {})
