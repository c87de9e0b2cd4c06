"""Event tables in Parquet and Feather files, read by pyarrow, which is needed for these only."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from gru4rec_toolkit.data.checks import as_times, check_columns, holds_dates
from gru4rec_toolkit.errors import InputError, missing_package, one_line, pip_install

OLDEST = (14, 0, 1)  # pyarrow, as in pyproject.toml


def read_arrow(path: str, keys: dict[str, str], kind: str) -> pd.DataFrame:
    """Read some columns of a Parquet or Feather file; the others stay on the disk.

    Parameters
    ----------
    path : str
    keys : dict
        Names of the columns by role: session, item, time, perhaps user.
    kind : str
        ``Parquet`` or ``Feather`` (version 2, that is, an Arrow file).

    Returns
    -------
    pandas.DataFrame
        Numbers and dates keep their type; strings become categories, but times in text are seconds
        (`checks.as_times`).

    Raises
    ------
    InputError
        pyarrow is missing, or the file cannot be read.
    """
    pa = import_pyarrow(f"{path}: reading {kind} files")
    try:
        with pa.OSFile(path) as source:
            table = _read_columns(source, path, keys, kind)
    except InputError:
        raise
    except Exception as err:  # pyarrow can raise anything about a damaged file
        raise InputError(
            f"{path}: cannot be read as a {kind} file ({one_line(err)}); the file may be cut "
            "short or be of another kind, save it again"
        ) from None
    try:
        table.validate(full=True)  # damaged data would crash the process below
        table = table.replace_schema_metadata()  # pyarrow would parse what pandas wrote
        times = _as_numbers(table.column(keys["time"]))
        if times is not None:
            position = table.column_names.index(keys["time"])
            table = table.set_column(position, keys["time"], times)
        return table.to_pandas(
            strings_to_categorical=True, ignore_metadata=True, split_blocks=True, self_destruct=True
        )
    except Exception as err:  # pyarrow, pandas and the look-up of a time zone raise anything
        raise InputError(
            f"{path}: a column cannot be used ({one_line(err)}); the file may be damaged, save it "
            "again with ids as integers or strings and times as numbers or dates"
        ) from None


def import_pyarrow(purpose: str):
    """Import pyarrow.

    Raises
    ------
    InputError
        It is not installed, cannot be imported, or is so old that it runs code that a file holds
        (CVE-2023-47248); the message says what it is needed for and how to get it.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except Exception as err:
        raise missing_package(purpose, "pyarrow", err) from None
    if tuple(int(part) for part in re.findall("[0-9]+", pyarrow.__version__)[:3]) < OLDEST:
        raise InputError(
            f"{purpose} needs pyarrow {'.'.join(map(str, OLDEST))} or later, since pyarrow "
            f"{pyarrow.__version__} runs code that a file can hold; install it with "
            f"`{pip_install('-U pyarrow')}`"
        )
    return pyarrow


def _read_columns(source, path: str, keys: dict[str, str], kind: str):
    """Read the columns of an open file as a pyarrow.Table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = list(keys.values())
    if kind == "Parquet":
        schema = pq.read_schema(source)
        check_columns(schema.names, keys, path)
        source.seek(0)
        # a string that occurs often is stored once in the file, and should be so in memory
        words = [key for key in wanted if _is_text(schema.field(key).type)]
        return pq.ParquetFile(source, read_dictionary=words).read(columns=wanted)
    names = pa.ipc.open_file(source).schema.names
    check_columns(names, keys, path)
    fields = pa.ipc.IpcReadOptions(included_fields=sorted(names.index(key) for key in wanted))
    return pa.ipc.open_file(source, options=fields).read_all()


def _is_text(kind) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _as_numbers(column):
    """Return times in text as numbers, and dates in UTC with a time.

    Return None if they are something else, or if one of them is missing or not a time.
    """
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        # the values are in UTC, whatever the zone
        return column.cast(pa.timestamp(column.type.unit))
    if pa.types.is_date(column.type):
        return column.cast(pa.timestamp("ms" if pa.types.is_date64(column.type) else "s"))
    if not _is_text(column.type) or column.null_count or not len(column):
        return None
    chunks = [chunk.to_pandas() for chunk in column.chunks if len(chunk)]
    are_dates = holds_dates(chunks[0])
    times = np.concatenate([as_times(chunk, are_dates) for chunk in chunks])
    return pa.array(times) if np.isfinite(times).all() else None
