"""Event tables: reading them from files.

`read_events` reads the three columns that matter from text, pickled DataFrames, Parquet and Feather
files, and checks what they hold (`checks`).
"""

from __future__ import annotations

import gzip
import os
import zlib

import pandas as pd

from gru4rec_toolkit.data.arrow import read_arrow
from gru4rec_toolkit.data.checks import check_events, column_keys, row_place
from gru4rec_toolkit.data.pickles import read_pickle
from gru4rec_toolkit.data.text import TextFile, read_text
from gru4rec_toolkit.errors import InputError, check_regular, one_line

SEPARATORS = {".tsv": "\t", ".txt": "\t", ".csv": ","}
KINDS = {
    ".tsv": "TAB separated file",
    ".txt": "TAB separated file",
    ".csv": "comma separated file",
    ".pickle": "pickled DataFrame",
    ".pkl": "pickled DataFrame",
    ".parquet": "Parquet file",
    ".feather": "Feather file",
}


def read_events(
    path: str,
    session_key: str = "SessionId",
    item_key: str = "ItemId",
    time_key: str = "Time",
    announce: bool = True,
) -> pd.DataFrame:
    """Read the events of a file, and check them.

    Parameters
    ----------
    path : str or path-like
        ``.tsv`` or ``.txt``: UTF-8, tab separated, the first line names the columns, nothing is
        quoted; in columns that are not read any bytes but zero may stand. ``.csv``: the same with
        commas, fields may be in double quotes. Each of them also compressed, with ``.gz`` behind.
        ``.pickle`` or ``.pkl``: a pickled DataFrame; the file cannot run code. ``.parquet``,
        ``.feather`` (version 2): need pyarrow.
    session_key, item_key, time_key : str
        Names of the three columns that are read.
    announce : bool
        Say on standard output what is being loaded.

    Returns
    -------
    pandas.DataFrame
        One row an event, in the order of the file, with the three columns only. Time is int64 where
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
    keys = column_keys(session_key, item_key, time_key)
    extension = _extension(path)
    if announce:
        announce_loading(path)
    place = row_place
    check_regular(path)
    try:
        with open(path, "rb"):  # one kind of error for all readers
            pass
        if extension in SEPARATORS:
            file = TextFile(path, SEPARATORS[extension])
            data, place = read_text(file, keys), file.line_of_row
        elif extension in (".pickle", ".pkl"):
            data = read_pickle(path, keys)
        else:
            data = read_arrow(path, keys, KINDS[extension].split()[0])
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a directory; give the path of a file in it") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InputError(
            f"{path}: the compressed file is damaged or cut short; copy or download it again"
        ) from None
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror or one_line(err)}); check the permissions of "
            "the file"
        ) from None
    session, item, times = check_events(data, keys, path, place)
    columns = {session_key: session.array, item_key: item.array, time_key: times}
    return pd.DataFrame(columns, copy=False)


def announce_loading(path: str | os.PathLike) -> None:
    """Say on standard output that a file of events is loaded, and of which kind it is."""
    path = os.fspath(path)
    print(f"Loading data from {KINDS[_extension(path)]}: {path}")


def _extension(path: str) -> str:
    """Return the extension that says how to read a file, without ``.gz``."""
    stem, extension = os.path.splitext(path.lower())
    if extension == ".gz":
        compressed, inner = extension, os.path.splitext(stem)[1]
        if inner in SEPARATORS:
            return inner
        extension = inner + compressed
    if extension not in KINDS:
        raise InputError(
            f'{path}: files that end in "{extension}" cannot be read; use tab separated text '
            "(.tsv, .txt), comma separated text (.csv), each of them also compressed (.tsv.gz), a "
            "pickled pandas DataFrame (.pickle, .pkl), or .parquet or .feather"
        )
    return extension
