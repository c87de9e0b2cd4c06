"""Event tables: reading them from files.

`read_events` reads the columns that matter from a file, and checks what they hold (`checks`).
`READERS` says how, by the file's extension: text, pickled DataFrames, Parquet and Feather, and what
`register` adds.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from gru4rec_toolkit.data.arrow import read_arrow
from gru4rec_toolkit.data.checks import check_events, column_keys, row_place
from gru4rec_toolkit.data.pickles import read_pickle
from gru4rec_toolkit.data.text import TextFile, read_text
from gru4rec_toolkit.errors import InputError, check_regular, one_line, printable

logger = logging.getLogger("gru4rec")


@dataclass(frozen=True)
class Reader:
    """A way to read files of one extension.

    Attributes
    ----------
    kind : str
        What such a file is called: "Loading data from TAB separated file".
    read : callable
        Takes a path and the columns' names by role (session, item, time, perhaps user). Returns a
        DataFrame with these columns at least, one row an event, and a function that names the place
        of a row, given its position, for messages.
    """

    kind: str
    read: Callable[[str, dict[str, str]], tuple[pd.DataFrame, Callable[[int], str]]]


def _text(kind: str, separator: str) -> Reader:
    def read(path: str, keys: dict[str, str]) -> tuple:
        file = TextFile(path, separator)
        return read_text(file, keys), file.line_of_row

    return Reader(f"{kind} separated file", read)


def _table(kind: str, function: Callable[[str, dict[str, str]], pd.DataFrame]) -> Reader:
    return Reader(kind, lambda path, keys: (function(path, keys), row_place))


def _arrow(kind: str) -> Reader:
    return _table(f"{kind} file", lambda path, keys: read_arrow(path, keys, kind))


_TABS, _COMMAS = _text("TAB", "\t"), _text("comma", ",")
_PICKLE = _table("pickled DataFrame", lambda path, keys: read_pickle(path, keys))

# The readers by extension, in lower case; one in .gz has the extension before it, too.
READERS: dict[str, Reader] = {
    ".tsv": _TABS,
    ".txt": _TABS,
    ".csv": _COMMAS,
    ".tsv.gz": _TABS,
    ".txt.gz": _TABS,
    ".csv.gz": _COMMAS,
    ".pickle": _PICKLE,
    ".pkl": _PICKLE,
    ".parquet": _arrow("Parquet"),
    ".feather": _arrow("Feather"),
}
_BUILT_IN = tuple(READERS)


def register(
    extension: str, read: Callable[[str, dict[str, str]], pd.DataFrame], kind: str
) -> None:
    """Add a data format from outside: files that end in ``extension`` are read with ``read``.

    Parameters
    ----------
    extension : str
        For example ``.jsonl``, or ``.jsonl.gz``.
    read : callable
        Takes a path and the columns' names by role (session, item, time, perhaps user). Returns a
        DataFrame with these columns at least, one row an event, which is checked like any other. It
        raises an `InputError` for a file that it cannot use.
    kind : str
        What such a file is called, in "Loading data from JSON lines: log.jsonl".

    Examples
    --------
    >>> register(".jsonl", lambda path, keys: pd.read_json(path, lines=True), "JSON lines")
    """
    READERS[extension.lower()] = _table(kind, read)


def read_events(
    path: str,
    session_key: str = "SessionId",
    item_key: str = "ItemId",
    time_key: str = "Time",
    announce: bool = True,
    user_key: str | None = None,
) -> pd.DataFrame:
    """Read the events of a file, and check them.

    Parameters
    ----------
    path : str or path-like
        ``.tsv`` or ``.txt``: UTF-8, tab separated, the first line names the columns, nothing is
        quoted; in columns that are not read any bytes but zero may stand. ``.csv``: the same with
        commas, fields may be in double quotes. Each of them also compressed, with ``.gz`` behind.
        ``.pickle`` or ``.pkl``: a pickled DataFrame; the file cannot run code. ``.parquet``,
        ``.feather`` (version 2): need pyarrow. Others as `register` added them.
    session_key, item_key, time_key : str
        Names of the three columns that are read.
    announce : bool
        Say on standard output what is being loaded.
    user_key : str, optional
        Name of a fourth one, of users' ids.

    Returns
    -------
    pandas.DataFrame
        One row an event, in the order of the file, with these columns only. Time is int64 where
        it was integer, else float64; dates, also in text (ISO 8601), become seconds since 1970 in
        UTC. Ids in text are int64 if every one of the column is a plain decimal integer, else a
        category of strings; ids in other files keep their type, but for strings in Parquet and
        Feather files, which become categories.

    Raises
    ------
    InputError
        The file or its content cannot be used; the message names the column and the line.
    """
    path = os.fspath(path)
    if not path:
        raise InputError("the path of a click log is empty; give that of a file")
    keys = column_keys(session_key, item_key, time_key, user_key)
    reader = _reader(path)
    if announce:
        announce_loading(path)
    place: Callable[[int], str] = row_place
    began = time.perf_counter()
    check_regular(path)
    try:
        with open(path, "rb"):  # one kind of error for all readers
            pass
        with _unchanged(path):
            data, place = reader.read(path, keys)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; check the path") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InputError(
            f"{path}: the compressed file is damaged or cut short; copy or download it again"
        ) from None
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror or one_line(err)}); check the permissions of "
            "the file"
        ) from None
    except MemoryError:
        raise InputError(
            f"{path}: not enough memory for its {os.path.getsize(path) >> 20} MB; free memory, or "
            "give a smaller file"
        ) from None
    session, item, times = check_events(data, keys, path, place)
    columns = {session_key: session.array, item_key: item.array, time_key: times}
    if user_key is not None:
        columns[user_key] = data[user_key].array
    seconds = time.perf_counter() - began
    logger.debug("%s: %d events read and checked in %.2f s", path, len(times), seconds)
    return pd.DataFrame(columns, copy=False)


@contextlib.contextmanager
def _unchanged(path: str) -> Iterator[None]:
    """Raise an InputError if a file was changed or replaced in the block.

    Readers go through it several times, and would mix two files, or blame a line of neither.
    """

    def state() -> tuple[int, ...]:
        status = os.stat(path)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    before = state()
    try:
        yield
    except (InputError, OSError, EOFError, zlib.error):
        if state() == before:
            raise
    if state() != before:
        raise InputError(
            f"{path}: the file was changed while it was read; wait until it is complete, or give a "
            "copy of it"
        ) from None


def announce_loading(path: str | os.PathLike) -> None:
    """Say on standard output that a file of events is loaded, and of which kind it is."""
    path = os.fspath(path)
    print(printable(f"Loading data from {_reader(path).kind}: {path}"))


def _reader(path: str) -> Reader:
    """Return the reader of a file; raise an InputError if its extension has none."""
    if os.path.isdir(path):
        raise InputError(f"{path}: this is a directory; give the path of a file in it")
    stem, extension = os.path.splitext(path.lower())
    if extension == ".gz":
        extension = os.path.splitext(stem)[1] + extension
    if extension not in READERS:
        added = "".join(f", or {name}" for name in READERS if name not in _BUILT_IN)
        raise InputError(
            f'{path}: files that end in "{extension}" cannot be read; use tab separated text '
            "(.tsv, .txt), comma separated text (.csv), each of them also compressed (.tsv.gz), a "
            f"pickled pandas DataFrame (.pickle, .pkl), or .parquet or .feather{added}"
        )
    return READERS[extension]
