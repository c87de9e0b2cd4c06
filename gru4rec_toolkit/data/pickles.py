"""Pickled DataFrames, read as data: nothing that the file names is imported, called or changed.

A pickle is a program that builds its objects out of classes and functions that it names. Here each
name stands for a class of inert records (`_Record`), so the program only builds a tree of calls,
their arguments and the states. The three columns are made from that tree after every part of it is
checked: types, shapes and sizes, as pandas 1, 2 and 3 write them.
"""

from __future__ import annotations

import contextlib
import copyreg
import datetime
import functools
import math
import os
import pickle
import pickletools
import re
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np
import pandas as pd

from gru4rec_toolkit.data.checks import check_columns
from gru4rec_toolkit.errors import InputError, one_line

# every name in DataFrames' pickles of pandas 1 to 3, by its module in pandas 2
_NAMES = {
    "builtins": "bytearray object slice",
    "datetime": "date datetime timedelta timezone",
    "dateutil.tz.tz": "tzfile tzlocal tzoffset tzutc",
    "dateutil.zoneinfo": "gettz",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "pandas": "Interval NaT",
    "pandas._libs.arrays": "__pyx_unpickle_NDArrayBacked",
    "pandas._libs.internals": "_unpickle_block",
    "pandas._libs.interval": "__pyx_unpickle_IntervalMixin Interval",
    "pandas._libs.missing": "NA",
    "pandas._libs.sparse": "BlockIndex IntIndex",
    "pandas._libs.tslibs.nattype": "__nat_unpickle _nat_unpickle",
    "pandas._libs.tslibs.offsets": "Day Hour Minute Second Milli Micro Nano",
    "pandas._libs.tslibs.period": "Period",
    "pandas._libs.tslibs.timedeltas": "Timedelta _timedelta_unpickle",
    "pandas._libs.tslibs.timestamps": "Timestamp _unpickle_timestamp",
    "pandas.core.arrays.boolean": "BooleanArray BooleanDtype",
    "pandas.core.arrays.categorical": "Categorical",
    "pandas.core.arrays.datetimes": "DatetimeArray",
    "pandas.core.arrays.floating": "FloatingArray Float32Dtype Float64Dtype",
    "pandas.core.arrays.integer": "IntegerArray Int8Dtype Int16Dtype Int32Dtype Int64Dtype "
    "UInt8Dtype UInt16Dtype UInt32Dtype UInt64Dtype",
    "pandas.core.arrays.interval": "IntervalArray",
    "pandas.core.arrays.period": "PeriodArray",
    "pandas.core.arrays.sparse.array": "SparseArray",
    "pandas.core.arrays.sparse.dtype": "SparseDtype",
    "pandas.core.arrays.string_": "StringArray StringDtype",
    "pandas.core.arrays.string_arrow": "ArrowStringArray ArrowStringArrayNumpySemantics",
    "pandas.core.arrays.timedeltas": "TimedeltaArray",
    "pandas.core.dtypes.dtypes": "CategoricalDtype DatetimeTZDtype IntervalDtype PeriodDtype "
    "SparseDtype",
    "pandas.core.frame": "DataFrame",
    "pandas.core.indexes.base": "Index _new_Index",
    "pandas.core.indexes.category": "CategoricalIndex",
    "pandas.core.indexes.datetimes": "DatetimeIndex _new_DatetimeIndex",
    "pandas.core.indexes.interval": "IntervalIndex",
    "pandas.core.indexes.multi": "MultiIndex",
    "pandas.core.indexes.numeric": "Float64Index Int64Index UInt64Index",
    "pandas.core.indexes.period": "PeriodIndex _new_PeriodIndex",
    "pandas.core.indexes.range": "RangeIndex",
    "pandas.core.indexes.timedeltas": "TimedeltaIndex",
    "pandas.core.internals.managers": "BlockManager",
    "pyarrow.lib": "_restore_array chunked_array py_buffer type_for_alias",
    "pytz": "_UTC _p",
    "pytz.tzinfo": "FixedOffset",
    "zoneinfo": "ZoneInfo",
}
_ALLOWED = {(module, name) for module, names in _NAMES.items() for name in names.split()}
# pandas 3 names the public module of a class
_ALLOWED |= {
    (public, name)
    for module, name in _ALLOWED
    if module.startswith("pandas.") and not name.startswith("_")
    for public in ("pandas", "pandas.arrays")
}
_PYTHON2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # pickle protocols 0 to 2

FREE_MEMORY = 1 << 30  # memory that any pickle may take while it is loaded,
MEMORY_A_BYTE = 200  # and what each of its bytes may: an empty list of one byte takes 100
# tuples in one another that any stack has room for, and the stack that more of them need, a tuple
MOST_NESTED, STACK_A_TUPLE = 10_000, 256
_MEMORY_LOCK = threading.Lock()
MOST_UNUSED = 1 << 24  # categories, of fewer events
_PLAIN_DTYPE = re.compile("b1|[iu][1248]|f[248]|O8?|[US][0-9]{1,9}")
_TIME_UNITS = ("D", "h", "m", "s", "ms", "us", "ns")
_PLAIN_TYPES = {bool, bytes, float, int, str, type(None)}
_MASKED = {
    "IntegerArray": ("iu", pd.arrays.IntegerArray),
    "FloatingArray": ("f", pd.arrays.FloatingArray),
    "BooleanArray": ("b", pd.arrays.BooleanArray),
}


def read_pickle(path: str, keys: dict[str, str]) -> pd.DataFrame:
    """Read some columns of a pickled DataFrame without trusting the file.

    Parameters
    ----------
    path : str
    keys : dict
        Names of the columns by role: session, item, time, perhaps user.

    Returns
    -------
    pandas.DataFrame
        The columns keep their types, but strings that pyarrow keeps become Python's, and dates of
        any time zone are given in UTC.

    Raises
    ------
    InputError
        The file is not a pickled DataFrame, names anything else, or is damaged.
    """
    with open(path, "rb") as file:
        try:
            n_bytes = os.fstat(file.fileno()).st_size
            # pyarrow, which pandas 3 keeps strings with, reserves a gigabyte of addresses at first
            pd.DataFrame({"text": ["text"]})
            with _quiet_python(), _bounded_memory(FREE_MEMORY + MEMORY_A_BYTE * n_bytes):
                _refuse_extensions(file)
                columns = _with_stack(_most_nested(file), lambda: _columns(file, path, keys))
            return pd.DataFrame(columns, copy=False)
        except InputError:
            raise
        except _Refused as err:
            raise InputError(
                f"{path}: the pickle asks for {err}, which is no part of a plain "
                "DataFrame, so it was not loaded; save it again with plain columns only, or as .tsv"
            ) from None
        except Exception as err:  # a damaged pickle can raise anything
            raise InputError(
                f"{path}: cannot be read as a pickled DataFrame ({one_line(err)}); the file may "
                "be cut short or be of another kind, save the DataFrame again"
            ) from None


def _columns(file: IO[bytes], path: str, keys: dict[str, str]) -> dict[str, Any]:
    root = _InertUnpickler(file).load()
    if not _is_call(root, "DataFrame"):
        raise InputError(
            f"{path}: expected a pickled pandas DataFrame, found {_name_of(root)}; "
            "save the DataFrame itself with to_pickle"
        )
    names, blocks = _names_and_blocks(root)
    check_columns(names, keys, path)
    columns = {key: _find_column(blocks, names.index(key)) for key in keys.values()}
    for role in ("session", "item"):
        if isinstance(getattr(columns[keys[role]], "dtype", None), pd.DatetimeTZDtype):
            raise InputError(
                f'{path}: column "{keys[role]}" holds dates with a time zone, which cannot '
                "be ids; use integers or strings"
            )
    return columns


# --- the limits of a process ----------------------------------------------------------------------


def _refuse_extensions(file: IO[bytes]) -> None:
    """Raise an error if a pickle names something by a number (opcodes EXT1 to EXT4).

    Python keeps what such a number stood for, and takes it from there without asking
    `_InertUnpickler`. Nearly no program has registered one, and looking takes long.
    """
    if not getattr(copyreg, "_inverted_registry", True):
        return
    for opcode, _, _ in pickletools.genops(file):
        if opcode.name.startswith("EXT"):
            raise _Refused("an object by its number in copyreg")
    file.seek(0)


def _most_nested(file: IO[bytes]) -> int:
    """Return how many tuples can lie in one another in a pickle, at most: a byte makes each."""
    most = 0
    for block in iter(lambda: file.read(1 << 20), b""):
        most += len(block) - len(block.translate(None, b"\x85\x86\x87t"))
    file.seek(0)
    return most


def _with_stack(n_nested: int, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call a function where Python can hash so many tuples in one another.

    Hashing one recurses without a limit, and so ends the process where the stack ends: a million
    bytes make a million tuples in one another, and the next one makes a key of a dictionary of it.
    """
    if n_nested <= MOST_NESTED:
        return read()
    results: list[dict[str, Any]] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(read())
        except BaseException as err:
            errors.append(err)

    thread = threading.Thread(target=run, daemon=True)
    # whole pages; what no memory is left for, inside of `_bounded_memory`, is refused
    before = threading.stack_size(-(-n_nested * STACK_A_TUPLE // 4096) * 4096)
    try:
        thread.start()
    except RuntimeError:
        raise MemoryError("no stack for so many tuples in one another") from None
    finally:
        threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@contextlib.contextmanager
def _bounded_memory(n_bytes: int) -> Iterator[None]:
    """Limit the memory that the process may take while a pickle is loaded.

    A damaged byte can make the unpickler reserve and clear 64 GB; a MemoryError is better than a
    process that the system kills. Where the system does not tell how much is in use, there is no
    limit.
    """
    with _MEMORY_LOCK:
        try:
            with open("/proc/self/statm", encoding="ascii") as file:
                in_use = int(file.read().split()[0]) * resource.getpagesize()
        except OSError:
            yield
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min([in_use + n_bytes, *bounds]), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def _quiet_python() -> Iterator[None]:
    """Keep quiet what Python prints of an array of bytes that it had no memory for.

    A damaged length asks for it. Python clears away what it has not filled in yet, finds a wrong
    number in it, and reports that as an error of its own beside the MemoryError.
    """
    report = sys.excepthook

    def report_others(kind, value, trace) -> None:
        if not (kind is SystemError and "exported buffers" in str(value)):
            report(kind, value, trace)

    sys.excepthook = report_others
    try:
        yield
    finally:
        sys.excepthook = report


# --- the tree -------------------------------------------------------------------------------------


# whatever a pickle holds, a record or plain data; it is checked wherever it is used
_Node = Any


class _Refused(Exception):
    """A name that is no part of a DataFrame."""


def _refuse_state(state: object) -> None:
    raise pickle.UnpicklingError("it sets the state of a class")


class _Inert(type):
    """The type of classes that a pickle cannot change, and that are shown by their names."""

    name: str
    # the unpickler asks a class for this, too; a property comes before what the class itself has
    __setstate__ = property(lambda cls: _refuse_state)


class _Record(metaclass=_Inert):
    """A call, or an object, that a pickle asks for: the arguments, and its state if it gets one."""

    __slots__ = ("args", "state")
    name = ""
    args: tuple
    state: _Node

    def __new__(cls, *args):
        record = object.__new__(cls)
        record.args = args
        record.state = None
        return record

    def __setstate__(self, state) -> None:
        self.state = state


class _Bytes(metaclass=_Inert):
    """A stand-in for _codecs.encode, by which pickle protocols 0 to 2 write bytes."""

    name = "encode"

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]  # a stand-in
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes in {encoding}")
        return text.encode("latin1")


class _Reconstructor(metaclass=_Inert):
    """A stand-in for copyreg._reconstructor, by which protocols 0 and 1 make objects."""

    name = "_reconstructor"

    def __new__(cls, target: Any, *args) -> _Record:  # type: ignore[misc]  # a stand-in
        _expect(isinstance(target, _Inert) and issubclass(target, _Record), "a class is missing")
        return target()


class _ZoneReader(metaclass=_Inert):
    """A stand-in for getattr, by which time zones of Python 3.9 find how to be unpickled."""

    name = "getattr"

    def __new__(cls, *args) -> type:  # type: ignore[misc]  # a stand-in
        if args != (_record_class("ZoneInfo"), "_unpickle"):
            raise _Refused("builtins.getattr")
        return _record_class("ZoneInfo._unpickle")


@functools.lru_cache(maxsize=None)
def _record_class(name: str) -> type:
    return _Inert(name, (_Record,), {"__slots__": (), "name": name})


_STAND_INS = {
    ("_codecs", "encode"): _Bytes,
    ("copyreg", "_reconstructor"): _Reconstructor,
    ("builtins", "getattr"): _ZoneReader,
}


class _InertUnpickler(pickle.Unpickler):
    """Unpickles the names of pickled DataFrames into records, and refuses all others."""

    def find_class(self, module: str, name: str) -> type:
        module = _PYTHON2_MODULES.get(module, module).replace("numpy._core.", "numpy.core.")
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        if (module, name) not in _ALLOWED:
            raise _Refused(" ".join(f"{module}.{name}".split())[:200])  # damage makes any name
        return _record_class(name)


def _is_call(value: _Node, *names: str) -> bool:
    return isinstance(value, _Record) and value.name in names


def _name_of(value: _Node) -> str:
    """Name the type of a value or of what a record stands for."""
    if _is_call(value, "_frombuffer"):
        return "ndarray"
    if _is_call(value, "_reconstruct") and value.args:
        value = value.args[0]  # a call of it makes an object of that class
    elif isinstance(value, _Record):
        value = type(value)
    return value.name if isinstance(value, _Inert) else type(value).__name__


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise pickle.UnpicklingError(problem)


def _unusable(value: _Node) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"{_name_of(value)} cannot be used")


def _as_int(value: _Node) -> int:
    _expect(type(value) is int, "a number is missing")
    return value


# --- the frame ------------------------------------------------------------------------------------


def _names_and_blocks(frame: _Record) -> tuple[list, list[tuple[_Node, Sequence[int]]]]:
    """Return the columns' names, and blocks of values with their positions among the columns."""
    _expect(isinstance(frame.state, dict), "the DataFrame is empty")
    manager = frame.state.get("_mgr", frame.state.get("_data"))
    _expect(_is_call(manager, "BlockManager"), "the DataFrame has no blocks")
    if manager.state is None:
        parts, axes = manager.args
        _expect(all(_is_call(part, "_unpickle_block") for part in parts), "a block is missing")
        parts = [part.args[:2] for part in parts]
    else:  # pandas 1.0 to 1.2
        axes, parts = (manager.state[3]["0.14.1"][key] for key in ("axes", "blocks"))
        parts = [(part["values"], part["mgr_locs"]) for part in parts]
    blocks = [(values, _positions(locations)) for values, locations in parts]
    labels = _labels(axes[0])
    n_columns = sum(len(positions) for _, positions in blocks)
    _expect(len(labels) == n_columns, "there are more or fewer names than columns")
    return labels.tolist() if isinstance(labels, np.ndarray) else list(labels), blocks


def _positions(locations: _Node) -> Sequence[int]:
    if _is_call(locations, "slice"):
        return range(*map(_as_int, locations.args))
    found = _ndarray(locations)
    _expect(found.ndim == 1 and found.dtype.kind == "i", "the columns of a block are unclear")
    return found.tolist()


def _find_column(blocks: Sequence[tuple[_Node, Sequence[int]]], position: int):
    """Return the values of one column, all of them in memory of the file's bytes where possible."""
    found = [block for block in blocks if position in block[1]]
    _expect(len(found) == 1, "a column is not in one block")
    ((values, positions),) = found
    column = _column(values)
    rows = column if column.ndim == 2 else [column]
    _expect(len(rows) == len(positions), "a block is of another size than its columns")
    return rows[positions.index(position)]


def _labels(index: _Node) -> Sequence:
    """Return the labels in an Index: names of columns, or categories."""
    _expect(_is_call(index, "_new_Index", "_new_DatetimeIndex"), "an index is missing")
    name, state = _name_of_class(index.args[0]), index.args[1]
    if name == "RangeIndex":
        return range(*(_as_int(state[key]) for key in ("start", "stop", "step")))
    _expect("data" in state, f"an index of the kind {name} cannot be used")
    labels = _column(state["data"])
    _expect(labels.ndim == 1, "an index has more than one dimension")
    return labels


def _name_of_class(value: _Node) -> str:
    return value.name if isinstance(value, _Inert) else ""


# --- columns --------------------------------------------------------------------------------------


def _column(values: _Node):
    """Return the values of a block, or of an index, as an array of numpy or pandas."""
    if _is_call(values, "_new_Index", "_new_DatetimeIndex"):
        values = values.args[1]["data"]
    if _is_call(values, "_reconstruct", "_frombuffer"):
        return _ndarray(values)
    _expect(isinstance(values, _Record), "a column is missing")
    name, dtype, parts = _extension(values)
    if name in _MASKED:
        kinds, build = _MASKED[name]
        data, mask = _ndarray(parts["_data"]), _ndarray(parts["_mask"])
        _expect(data.dtype.kind in kinds and mask.dtype == bool, "a column has another type")
        _expect(data.ndim == 1 and data.shape == mask.shape, "a mask has another length")
        return build(data, mask)
    if name.startswith("ArrowStringArray"):
        return _strings(_arrow_strings(parts.get("_pa_array", parts.get("_data"))), dtype)
    array = next((parts[key] for key in ("_ndarray", "_codes", "_data") if key in parts), None)
    if name not in ("Categorical", "StringArray", "DatetimeArray"):
        raise _unusable(values if name == type(values).name else values.args[0])
    array = _ndarray(array)
    if name == "Categorical":
        return _categorical(array, dtype)
    if name == "StringArray":
        return _strings(array, dtype)
    _expect(array.dtype.kind == "M", "dates are missing")
    if _is_call(dtype, "DatetimeTZDtype"):
        flat = array.reshape(-1) if array.shape[0] == 1 else array
        _expect(flat.ndim == 1, "dates have more than one dimension")
        return pd.Series(flat).dt.tz_localize("UTC").array
    return array


def _extension(values: _Record) -> tuple[str, _Node, dict]:
    """Return the class of an extension array, its dtype, and its arrays by name."""
    if values.name == "__pyx_unpickle_NDArrayBacked":
        name = _name_of_class(values.args[0])
        state = values.state if values.state is not None else values.args[2]
        _expect(isinstance(state, tuple) and len(state) >= 2, "an array has no values")
        dtype, array = state[:2]
        if _is_call(dtype, "_reconstruct", "_frombuffer"):
            dtype, array = array, dtype
        return name, dtype, {"_ndarray": array}
    state = values.state
    if isinstance(state, tuple):
        state = next((part for part in state if isinstance(part, dict)), None)
    if not isinstance(state, dict):
        raise _unusable(values)
    return values.name, state.get("_dtype"), state


def _strings(array: np.ndarray, dtype: _Node):
    _expect(array.dtype == object and array.ndim == 1, "strings are missing")
    if _is_call(dtype, "StringDtype") and any(isinstance(part, float) for part in dtype.args):
        return array  # with NaN for what is missing: what pandas 3 makes of objects
    return pd.array(array, dtype=pd.StringDtype("python"))


def _categorical(codes: np.ndarray, dtype: _Node) -> pd.Categorical:
    _expect(_is_call(dtype, "CategoricalDtype"), "categories are missing")
    _expect(codes.dtype.kind == "i", "the codes of categories are no integers")
    codes = codes.reshape(-1) if codes.shape[0] == 1 else codes
    state = dtype.state if dtype.state is not None else dtype.args
    _expect(isinstance(state, dict), "categories are missing")
    categories = _labels(state["categories"])
    # of a range, damage can make anything
    _expect(len(categories) <= max(len(codes), MOST_UNUSED), "there are too many categories")
    # codes out of range, and categories that are no set, raise here
    return pd.Categorical.from_codes(codes, categories, ordered=state.get("ordered") is True)


# --- arrays ---------------------------------------------------------------------------------------


def _ndarray(value: _Node) -> np.ndarray:
    """Return an array whose dtype, shape and bytes agree; numbers stay where they were read to."""
    if _is_call(value, "_frombuffer"):
        raw, dtype, shape, order = value.args
    elif _is_call(value, "_reconstruct") and _name_of(value) == "ndarray":
        _expect(isinstance(value.state, tuple) and len(value.state) == 5, "an array is empty")
        _, shape, dtype, is_fortran, raw = value.state
        order = "F" if is_fortran is True else "C"
    else:
        raise pickle.UnpicklingError("an array is missing")
    dtype = _dtype(dtype)
    _expect(isinstance(shape, tuple) and len(shape) in (1, 2), "an array has an odd shape")
    _expect(all(_as_int(length) >= 0 for length in shape), "an array has an odd shape")
    _expect(order in ("C", "F"), "an array has an odd order")
    n = math.prod(shape)
    if dtype.kind == "O":
        _expect(isinstance(raw, list) and len(raw) == n, "an array has more or fewer values")
        array = _objects(raw)
    else:
        raw = _as_bytes(raw)
        _expect(len(raw) == n * dtype.itemsize, "an array has more or fewer values")
        array = np.frombuffer(raw, dtype) if n else np.empty(0, dtype)
        if dtype.kind == "b":
            array = array.view(np.uint8) != 0  # whatever else a damaged byte may be
        elif not dtype.isnative:
            array = array.astype(dtype.newbyteorder("="))
    return array.reshape(shape, order=order)


def _as_bytes(raw: _Node):
    if _is_call(raw, "py_buffer") and len(raw.args) == 1:
        raw = raw.args[0]
    if _is_call(raw, "bytearray") and len(raw.args) == 1:
        raw = raw.args[0]
    _expect(isinstance(raw, (bytes, bytearray)), "the bytes of an array are missing")
    return raw


def _dtype(value: _Node) -> np.dtype:
    """Return a dtype by its name, byte order and unit of time; its flags are numpy's own affair."""
    _expect(_is_call(value, "dtype") and isinstance(value.args[0], str), "a dtype is missing")
    code = value.args[0]
    state: _Node = value.state if value.state is not None else (3, "=")
    _expect(isinstance(state, tuple) and len(state) >= 2, "a dtype is odd")
    order = state[1]
    _expect(isinstance(order, str) and order in ("<", ">", "=", "|"), "a dtype is odd")
    _expect(all(part is None for part in state[2:5]), "a dtype has fields")
    if code in ("M8", "m8"):
        unit, count = state[8][1][:2]
        unit = unit.decode() if isinstance(unit, bytes) else unit
        _expect(unit in _TIME_UNITS and count == 1, "dates are in an odd unit")
        return np.dtype(f"{order}{code}[{unit}]")
    _expect(_PLAIN_DTYPE.fullmatch(code) is not None, "a dtype is odd")
    return np.dtype(object) if code[0] == "O" else np.dtype(order + code)


def _objects(values: list) -> np.ndarray:
    if not set(map(type, values)) <= _PLAIN_TYPES:
        values = [value if type(value) in _PLAIN_TYPES else _scalar(value) for value in values]
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _scalar(value: _Node) -> Any:
    """Return a single value of a column of objects."""
    if isinstance(value, _Inert):
        if value.name in ("NA", "NaT"):
            return getattr(pd, value.name)
    elif _is_call(value, "__nat_unpickle", "_nat_unpickle"):
        return pd.NaT
    elif _is_call(value, "scalar"):
        dtype, raw = _dtype(value.args[0]), _as_bytes(value.args[1])
        _expect(dtype.kind != "O" and len(raw) == dtype.itemsize > 0, "a number is damaged")
        return np.frombuffer(raw, dtype)[0]
    elif _is_call(value, "_unpickle_timestamp"):
        stamp, _, zone = value.args[:3]
        # the number of a resolution, as pandas counts them; older pickles have none
        unit = {7: "s", 8: "ms", 9: "us", 10: "ns"}[value.args[3] if value.args[3:] else 10]
        stamp = pd.Timestamp(np.datetime64(_as_int(stamp), unit))
        return stamp if zone is None else stamp.tz_localize("UTC").tz_convert(_zone(zone))
    elif _is_call(value, "datetime", "date"):
        build: Any = {"datetime": datetime.datetime, "date": datetime.date}[value.name]
        raw, *zone = value.args
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        _expect(isinstance(raw, bytes) and len(raw) in (4, 10), "a date is damaged")
        return build(raw, *map(_zone, zone))
    raise _unusable(value)


def _zone(value: _Node) -> datetime.timezone:
    if _is_call(value, "_UTC"):
        return datetime.timezone.utc
    if not _is_call(value, "timezone"):
        raise _unusable(value)
    (offset,) = value.args[:1]
    _expect(_is_call(offset, "timedelta"), "a time zone is damaged")
    return datetime.timezone(datetime.timedelta(*map(_as_int, offset.args)))


def _arrow_strings(value: _Node) -> np.ndarray:
    """Return strings that pyarrow keeps, without pyarrow."""
    arrays = value.args[0] if _is_call(value, "chunked_array") else [value]
    _expect(isinstance(arrays, (list, tuple)), "strings are missing")
    return _objects([text for array in arrays for text in _arrow_texts(array)])


def _arrow_texts(value: _Node) -> Iterator[str | None]:
    """Return the strings of an array: offsets into bytes, a bit for each that is not missing."""
    _expect(_is_call(value, "_restore_array"), "strings are missing")
    kind, length, _, offset, buffers = value.args[0][:5]
    sizes = {"string": "<i4", "utf8": "<i4", "large_string": "<i8", "large_utf8": "<i8"}
    _expect(_is_call(kind, "type_for_alias") and type(kind.args[0]) is str, "strings are missing")
    _expect(kind.args[0] in sizes, "strings are missing")
    length, offset = _as_int(length), _as_int(offset)
    valid, ends, text = buffers
    if length == 0:
        return
    ends, text = _as_bytes(ends), bytes(_as_bytes(text) if text is not None else b"")
    ends = np.frombuffer(ends, sizes[kind.args[0]], len(ends) // int(sizes[kind.args[0]][2]))
    _expect(0 <= offset < offset + length < len(ends), "strings are cut short")
    ends = ends[offset : offset + length + 1]
    _expect(ends[0] >= 0 and ends[-1] <= len(text), "strings are cut short")
    _expect(bool((ends[1:] >= ends[:-1]).all()), "strings are damaged")
    is_valid = np.ones(length, dtype=bool)
    if valid is not None:
        bits = np.unpackbits(np.frombuffer(_as_bytes(valid), np.uint8), bitorder="little")
        _expect(len(bits) >= offset + length, "strings are cut short")
        is_valid = bits[offset : offset + length].astype(bool)
    ends = ends.tolist()
    for begin, end, known in zip(ends, ends[1:], is_valid.tolist()):
        yield text[begin:end].decode() if known else None
