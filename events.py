"""Event tables: reading them from files and checking what they hold.

`read_events` reads a tab separated file or a pickled DataFrame into a DataFrame of three columns;
`check_events` says in one sentence what is wrong with a table, wherever it comes from.
"""

from __future__ import annotations

import csv
import functools
import itertools
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from user_errors import InputError

TEXT_FILES = (".tsv", ".txt")
PICKLE_FILES = (".pickle", ".pkl")
SCAN_BYTES = 1 << 22
OPTIONS = {"session": "-sk", "item": "-ik", "time": "-tk"}

# --- reading --------------------------------------------------------------------------------------


def read_events(
    path: str,
    session_key: str = "SessionId",
    item_key: str = "ItemId",
    time_key: str = "Time",
    announce: bool = True,
) -> pd.DataFrame:
    """Read the events of a tab separated file or of a pickled DataFrame, and check them.

    Parameters
    ----------
    path : str or path-like
        ``.tsv`` or ``.txt``: UTF-8, tab separated, the first line names the columns, nothing is
        quoted. ``.pickle`` or ``.pkl``: a pickled DataFrame; the file cannot run code.
    session_key, item_key, time_key : str
        Names of the three columns that are read.
    announce : bool
        Say on standard output what is being loaded.

    Returns
    -------
    pandas.DataFrame
        One row an event, in the order of the file, with the three columns only. Time is int64 where
        it was integer, else float64. Ids in text are int64 if every one of the column is a plain
        decimal integer, else a category of strings; ids in a pickle keep their type.

    Raises
    ------
    InputError
        The file or its content cannot be used; the message names the column and the line.
    """
    path = os.fspath(path)
    keys = column_keys(session_key, item_key, time_key)
    extension = os.path.splitext(path)[1].lower()
    if extension not in TEXT_FILES + PICKLE_FILES:
        raise InputError(
            f'{path}: files that end in "{extension}" cannot be read; use tab separated text '
            f"({', '.join(TEXT_FILES)}) or a pickled pandas DataFrame ({', '.join(PICKLE_FILES)})"
        )
    is_text = extension in TEXT_FILES
    if announce:
        kind = "TAB separated file" if is_text else "pickled DataFrame"
        print(f"Loading data from {kind}: {path}")
    try:
        if is_text:
            data, place = _read_text(path, keys), functools.partial(_line_of_row, path)
        else:
            data, place = _read_pickle(path), row_place
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a directory; give the path of a file in it") from None
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror or err}); check the permissions of the file"
        ) from None
    session, item, times = check_events(data, keys, path, place)
    columns = {session_key: session.array, item_key: item.array, time_key: times}
    return pd.DataFrame(columns, copy=False)


def _read_text(path: str, keys: dict[str, str]) -> pd.DataFrame:
    """Read three columns of a tab separated file; ids are int64 or categories (see read_events)."""
    names = _read_header(path)
    _check_columns(names, keys, path)
    tabs, plain = _scan_text(path)
    positions = [names.index(key) for key in keys.values()]
    parse = functools.partial(
        pd.read_csv,
        path,
        sep="\t",
        header=None,
        skiprows=1,
        names=range(len(names)),  # the header may repeat a name that is of no interest here
        usecols=positions,
        index_col=False,
        quoting=csv.QUOTE_NONE,
        keep_default_na=False,  # an item may be called "NA" or "null"
        na_values=[""],
        encoding="utf-8",
    )
    try:
        with warnings.catch_warnings():
            # numbers and words in one time column: reported by check_events, with its line
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            frame = _parse_ids(parse, positions[:2], plain)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except pd.errors.ParserError as err:
        # pandas stops only where all rows are short, and does not say where that is
        for line, n_fields in _field_counts(path):
            if n_fields < len(names):
                raise _wrong_width(path, line, n_fields, len(names)) from None
        raise InputError(
            f"{path}: cannot be read as tab separated text ({_one_line(err)})"
        ) from None
    if tabs > (len(frame) + 1) * (len(names) - 1):
        for line, n_fields in _field_counts(path):
            if n_fields > len(names):
                raise _wrong_width(path, line, n_fields, len(names))
    frame = frame[positions]
    frame.columns = list(keys.values())
    return frame


def _parse_ids(parse: Callable, id_columns: Sequence[int], plain: bool) -> pd.DataFrame:
    """Parse a text file with compact ids: never a Python string an event.

    Categories suit any id, but integers parse faster and smaller without them. That is tried where
    the first rows look like it, provided that no two spellings can mean one integer (`plain`).
    """
    head = _compact_ids(parse(dtype=dict.fromkeys(id_columns, "category"), nrows=1000))
    words = [column for column in id_columns if not plain or head[column].dtype != np.int64]
    # pandas must find the integers by itself: told to, it makes integers of "1.5" and of 2**63 too
    frame = parse(dtype=dict.fromkeys(words, "category"))
    if any(frame[column].dtype != np.int64 for column in id_columns if column not in words):
        frame = parse(dtype=dict.fromkeys(id_columns, "category"))
    return _compact_ids(frame)


def _compact_ids(frame: pd.DataFrame) -> pd.DataFrame:
    """Replace the categories that are plain decimal integers by int64."""
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype) and not column.hasnans:
            integers = _as_integers(column.cat)
            if integers is not None:
                frame[name] = integers[column.cat.codes.to_numpy()]
    return frame


def _as_integers(accessor) -> np.ndarray | None:
    """Give the categories as int64 if all are written as Python writes integers, else None."""
    words = accessor.categories.tolist()
    try:
        integers = np.array([int(word) for word in words], dtype=np.int64)
    except (ValueError, OverflowError):
        return None
    # "007", "+7", " 7" and "7" are four different ids
    return integers if all(map(str.__eq__, map(str, integers.tolist()), words)) else None


def _read_header(path: str) -> list[str]:
    """Give the column names in the first line of a text file."""
    with open(path, encoding="utf-8-sig") as lines:
        try:
            header = lines.readline(1 << 20)
        except UnicodeDecodeError:
            raise _not_utf8(path) from None
    if not header:
        raise InputError(
            f"{path}: the file is empty; expected a line of column names, then one line an event"
        )
    return header.rstrip("\n").split("\t")


def _scan_text(path: str) -> tuple[int, bool]:
    """Look at the bytes of a text file before pandas does, for what pandas does not tell.

    Returns
    -------
    tabs : int
        Number of tabs: pandas ignores surplus fields silently if only some columns are read.
    plain : bool
        No number has a leading zero, a sign other than "-" or blanks around it, so that reading
        ids as integers cannot make one id out of two.
    """
    tabs, plain, tail = 0, True, b""
    with open(path, "rb") as file:
        for block in iter(functools.partial(file.read, SCAN_BYTES), b""):
            if b"\0" in block:
                raise _not_text(path, "it holds zero bytes")
            tabs += block.count(b"\t")
            plain = plain and not any(odd in block for odd in (b"+", b" ", b"\v", b"\f"))
            joined = tail + block  # two bytes of the previous block: no number is cut
            if plain:
                codes = np.frombuffer(joined, dtype=np.uint8)
                zeros = np.flatnonzero(codes[1:-1] == ord("0")) + 1
                before, after = codes[zeros - 1], codes[zeros + 1]
                is_digit = (after >= ord("0")) & (after <= ord("9"))
                padded = (before <= ord("\r")) & is_digit | (before == ord("-"))
                plain = not padded.any()
            tail = joined[-2:]
    return tabs, plain


def _filled_lines(path: str) -> Iterator[tuple[int, str]]:
    """Number the lines that hold events (from 1, the header's); pandas skips blank ones."""
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if number > 1 and line.strip(" \n"):
                yield number, line


def _field_counts(path: str) -> Iterator[tuple[int, int]]:
    return ((number, line.count("\t") + 1) for number, line in _filled_lines(path))


def _line_of_row(path: str, row: int) -> str:
    return f"line {next(itertools.islice(_filled_lines(path), row, None))[0]}"


def _not_utf8(path: str) -> InputError:
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        broken = (n for n, line in enumerate(lines, start=1) if re.search("[\udc80-\udcff]", line))
        return _not_text(path, f"line {next(broken, 1)} is not UTF-8")


def _not_text(path: str, reason: str) -> InputError:
    return InputError(f"{path}: this is no text file ({reason}); save it as UTF-8, tab separated")


def _one_line(err: Exception) -> str:
    return " ".join(f"{type(err).__name__}: {err}".split())


def _wrong_width(path: str, line: int, n_fields: int, width: int) -> InputError:
    return InputError(
        f"{path}: line {line} has {n_fields} tab separated fields, but the header names {width} "
        "columns; correct that line"
    )


# --- pickled DataFrames ---------------------------------------------------------------------------

_DTYPES = "{0}8Dtype {0}16Dtype {0}32Dtype {0}64Dtype"

# all that the pickles of DataFrames refer to, of pandas 1 and 2; nothing here runs given code
_PICKLE_NAMES = {
    "builtins": "object slice",
    "copyreg": "_reconstructor",
    "datetime": "timedelta timezone",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "pandas._libs.arrays": "__pyx_unpickle_NDArrayBacked",
    "pandas._libs.internals": "_unpickle_block",
    "pandas._libs.missing": "NA",
    "pandas._libs.tslibs.nattype": "_nat_unpickle",
    "pandas._libs.tslibs.offsets": "Day Hour Minute Second",
    "pandas._libs.tslibs.timestamps": "_unpickle_timestamp",
    "pandas.core.arrays.boolean": "BooleanArray BooleanDtype",
    "pandas.core.arrays.categorical": "Categorical",
    "pandas.core.arrays.datetimes": "DatetimeArray",
    "pandas.core.arrays.floating": "FloatingArray Float32Dtype Float64Dtype",
    "pandas.core.arrays.integer": f"IntegerArray {_DTYPES.format('Int')} {_DTYPES.format('UInt')}",
    "pandas.core.arrays.string_": "StringArray StringDtype",
    "pandas.core.arrays.timedeltas": "TimedeltaArray",
    "pandas.core.dtypes.dtypes": "CategoricalDtype DatetimeTZDtype",
    "pandas.core.frame": "DataFrame",
    "pandas.core.indexes.base": "Index _new_Index",
    "pandas.core.indexes.category": "CategoricalIndex",
    "pandas.core.indexes.datetimes": "DatetimeIndex _new_DatetimeIndex",
    "pandas.core.indexes.multi": "MultiIndex",
    "pandas.core.indexes.numeric": "Float64Index Int64Index UInt64Index",
    "pandas.core.indexes.range": "RangeIndex",
    "pandas.core.internals.managers": "BlockManager",
    "pytz": "_UTC",
}
_ALLOWED = {(module, name) for module, names in _PICKLE_NAMES.items() for name in names.split()}
_PYTHON2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # pickle protocols 0 to 2
_NUMPY_CORE = "numpy.core" if np.__version__.startswith("1.") else "numpy._core"


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stand in for _codecs.encode, by which pickle protocols 0 to 2 write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return text.encode("latin1")


class _DataFrameUnpickler(pickle.Unpickler):
    """Unpickles DataFrames and refuses everything else, before anything of it is called."""

    def __init__(self, file, path: str) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str):
        module = _PYTHON2_MODULES.get(module, module).replace("numpy._core.", "numpy.core.")
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        if (module, name) not in _ALLOWED:
            raise InputError(
                f"{self._path}: the pickle asks for {module}.{name}, which is no part of a plain "
                "DataFrame, so it was not loaded; save it again with plain columns only, or as .tsv"
            )
        try:
            return super().find_class(module.replace("numpy.core", _NUMPY_CORE), name)
        except ModuleNotFoundError:
            if module == "pandas.core.indexes.numeric":  # pandas 1's, gone in pandas 2
                return pd.Index
            raise


def _read_pickle(path: str) -> pd.DataFrame:
    """Load a pickled DataFrame without trusting the file."""
    with open(path, "rb") as file:
        try:
            frame = _DataFrameUnpickler(file, path).load()
            is_frame = isinstance(frame, pd.DataFrame) and len(list(frame)) == frame.shape[1]
        except InputError:
            raise
        except Exception as err:  # a damaged pickle can raise anything
            raise InputError(
                f"{path}: cannot be read as a pickled DataFrame ({_one_line(err)}); the file may "
                "be cut short or be of another kind, save the DataFrame again"
            ) from None
    if not is_frame:
        raise InputError(
            f"{path}: expected a pickled pandas DataFrame, found {type(frame).__name__}; "
            "save the DataFrame itself with to_pickle"
        )
    return frame


# --- checking -------------------------------------------------------------------------------------


def column_keys(session_key: str, item_key: str, time_key: str) -> dict[str, str]:
    return {"session": session_key, "item": item_key, "time": time_key}


def row_place(row: int) -> str:
    return f"row {row}"


def _check_columns(names: Sequence, keys: dict[str, str], source: str) -> None:
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
    _check_columns(list(data.columns), keys, source)
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
        Dates become integers too (nanoseconds). It can be the frame's own memory: do not write.
    """
    check_ids(data, keys, source, place)
    key = keys["time"]
    column = data[key]
    times = _as_times(column)
    bad = np.zeros(0, dtype=bool)
    if times.dtype == np.float64:
        bad = ~np.isfinite(times)
    if bad.any():
        row = int(bad.argmax())
        value = column.iloc[row]
        raise InputError(
            f'{source}: column "{key}" holds {str(value)[:80]!r} in {place(row)}, expected a '
            "finite number, such as seconds since 1970; convert or leave out such times"
        )
    return data[keys["session"]], data[keys["item"]], times


def _as_times(column: pd.Series) -> np.ndarray:
    """Give a time column without missing values as int64 or float64; NaN where it is no number."""
    kind = column.dtype.kind
    if kind == "i":
        return column.to_numpy(dtype=np.int64)
    if kind == "u":
        times = column.to_numpy(dtype=np.uint64)
        return times.astype(np.int64 if times.max() < 1 << 63 else np.float64)
    if kind == "f":
        return column.to_numpy(dtype=np.float64)
    if kind == "M":
        return column.to_numpy(dtype="datetime64[ns]").view(np.int64)
    if kind != "O":
        return np.full(len(column), np.nan)
    return _as_times(pd.to_numeric(column.astype(object), errors="coerce"))


