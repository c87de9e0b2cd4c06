"""The raw files of the public data sets: checked first, then read as a stream of columns."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from gru4rec_toolkit.errors import InputError, one_line

BLOCK_BYTES = 1 << 24
TAIL_BYTES = 1 << 16

# patterns of values; empty values are handled where they are read
PATTERNS = {
    "integer": r"-?\d+",
    "text": r".*",
    "ISO time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "UTC time": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC",
    "date": r"\d{4}-\d\d-\d\d",
}


@dataclass(frozen=True)
class RawFile:
    """A raw file as its publishers distribute it.

    Attributes
    ----------
    name : str
        File name in the directory of raw files.
    columns : dict of str to str
        The columns that are read, and what they hold: a key of `PATTERNS`.
    names : tuple of str
        All columns of a file that has no header line; empty if it has one.
    separator : str
    """

    name: str
    columns: dict[str, str]
    names: tuple[str, ...] = field(default=())
    separator: str = ","


def check_raw_files(directory: str, files: tuple[RawFile, ...], home: str) -> None:
    """Find out before hours of work whether the raw files can be used.

    Looks at the header, the first row and the last row of each.

    Parameters
    ----------
    directory : str
    files : tuple of RawFile
    home : str
        Where to download them.

    Raises
    ------
    InputError
        A file is missing, has other columns, or is cut short.
    """
    from gru4rec_toolkit.data.arrow import import_pyarrow

    import_pyarrow("reading raw data")
    if not os.path.isdir(directory):
        raise InputError(
            f"{directory}: there is no such directory; expected the one that holds "
            f"{' and '.join(file.name for file in files)}, which you can download from {home}"
        )
    for file in files:
        path = os.path.join(directory, file.name)
        try:
            _check_ends(path, file)
        except FileNotFoundError:
            raise InputError(
                f"{path}: there is no such file; download it from {home} and unpack it there"
            ) from None
        except OSError as err:
            raise InputError(
                f"{path}: cannot be read ({err.strerror or err}); check the file and its "
                "permissions"
            ) from None
        except _BadRow as bad:
            raise InputError(
                f"{path}: {bad}; download the file again from {home} and unpack it"
            ) from None


class _BadRow(Exception):
    """Description of a bad line of a raw file, without the file's name."""


def _check_ends(path: str, file: RawFile) -> None:
    with open(path, "rb") as stream:
        head = stream.read(TAIL_BYTES)
        stream.seek(max(0, os.path.getsize(path) - TAIL_BYTES))
        tail = stream.read()
    if not head.strip():
        raise _BadRow("the file is empty")
    if b"\0" in head:
        raise _BadRow("this is no text file, it may still be packed")
    lines = head.decode("utf-8-sig", errors="replace").splitlines()
    names = list(file.names) or _split(lines[0], file)
    missing = [name for name in file.columns if name not in names]
    if missing:
        raise _BadRow(
            f'there is no column "{missing[0]}" in the first line, expected '
            f"{file.separator.join(file.columns)} among the columns, found "
            f'"{lines[0][:200]}"'
        )
    rows = lines if file.names else lines[1:]
    if not rows:
        raise _BadRow("there are no rows in it")
    _check_row(rows[0], names, file, "the first row")
    last = tail.decode("utf-8", errors="replace").rstrip("\r\n").splitlines()[-1]
    try:
        _check_row(last, names, file, "the last row")
    except _BadRow as bad:
        raise _BadRow(f"the file is cut short: {bad}") from None


def _split(line: str, file: RawFile) -> list[str]:
    return next(csv.reader([line.rstrip("\r\n")], delimiter=file.separator), [])


def _check_row(line: str, names: list[str], file: RawFile, place: str) -> None:
    fields = _split(line, file)
    if len(fields) != len(names):
        raise _BadRow(f"{place} has {len(fields)} fields, expected {len(names)}")
    for name, kind in file.columns.items():
        value = fields[names.index(name)]
        if value and not re.fullmatch(PATTERNS[kind], value):
            raise _BadRow(f'{place} has {value[:80]!r} in column "{name}", expected one {kind}')


def read_batches(directory: str, file: RawFile) -> Iterator:
    """Read a raw file part by part, with a progress bar on standard error.

    Parameters
    ----------
    directory : str
    file : RawFile
        Checked before by `check_raw_files`.

    Yields
    ------
    pyarrow.RecordBatch
        The file's ``columns``: integers int64, text as dictionaries, times as timestamps (ISO
        times and dates in ms, else s). An empty value is null.

    Raises
    ------
    InputError
        Names the first line that cannot be read.
    """
    import pyarrow as pa
    import pyarrow.csv
    from tqdm import tqdm

    types = {
        "integer": pa.int64(),
        "text": pa.dictionary(pa.int32(), pa.string()),
        "ISO time": pa.timestamp("ms", "UTC"),
        "UTC time": pa.timestamp("s"),
        "date": pa.timestamp("ms"),
    }
    parsers = ["%Y-%m-%d %H:%M:%S UTC"] if "UTC time" in file.columns.values() else None
    path = os.path.join(directory, file.name)
    read = pa.csv.ReadOptions(block_size=BLOCK_BYTES, column_names=list(file.names) or None)
    convert = pa.csv.ConvertOptions(
        include_columns=list(file.columns),
        column_types={name: types[kind] for name, kind in file.columns.items()},
        timestamp_parsers=parsers,
        null_values=[""],
        strings_can_be_null=True,
    )
    parse = pa.csv.ParseOptions(delimiter=file.separator)
    bar = tqdm(
        total=os.path.getsize(path),
        desc=f"reading {file.name}",
        unit="B",
        unit_scale=True,
        disable=None,
    )
    with bar, pa.OSFile(path) as source:
        try:
            for batch in pa.csv.open_csv(source, read, parse, convert):
                bar.update(source.tell() - bar.n)
                yield batch
        except pa.ArrowInvalid as err:
            raise InputError(
                f"{path}: {_first_bad_line(path, file) or one_line(err)}; download the file again"
            ) from None


def _first_bad_line(path: str, file: RawFile) -> str | None:
    """Look for what stopped the reader, line by line."""
    with open(path, encoding="utf-8-sig", errors="replace") as lines:
        names = list(file.names) or _split(next(lines), file)
        for number, line in enumerate(lines, start=1 if file.names else 2):
            if not line.strip():
                continue
            try:
                _check_row(line, names, file, f"line {number}")
            except _BadRow as bad:
                return str(bad)
    return None
