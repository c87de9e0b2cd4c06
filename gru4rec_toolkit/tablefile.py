"""Tables that are written part by part, as Parquet or tab separated text."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, NamedTuple

from gru4rec_toolkit import files
from gru4rec_toolkit.errors import InputError, one_line


class Kind(NamedTuple):
    """What a table holds: ``a file of <name>``, known by its columns."""

    name: str
    columns: tuple[str, ...]

    @property
    def header(self) -> bytes:
        return "\t".join(self.columns).encode() + b"\n"


RANKS = Kind("ranks", ("SessionId", "Position", "ItemId", "Better", "Equal", "Rank"))
RECOMMENDATIONS = Kind("recommendations", ("SessionId", "Rank", "ItemId", "Score"))


def check_writable(
    kind: Kind,
    path: str | os.PathLike,
    force: bool = False,
    inputs: Mapping[str, str] | None = None,
) -> None:
    """Find out before long work whether its table can be written.

    Parameters
    ----------
    kind : Kind
    path : str or path-like
        ``.parquet`` (needs pyarrow) or ``.tsv``. A symbolic link stays, its target is written.
    force : bool
        Whether an existing file of another kind may be replaced.
    inputs : mapping of str to path, optional
        Files that must not be replaced in any case, by what they are: ``the training data``.

    Raises
    ------
    InputError
        Names the path and what keeps it from being written.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"cannot write {kind.name}: expected a path, got {type(path).__name__}")
    path = os.fspath(path)
    extension = os.path.splitext(path)[1].lower()
    if extension not in _WRITERS:
        raise InputError(
            f"cannot write {kind.name} to {path or 'an empty path'}: give a name that ends in "
            f"{' or '.join(_WRITERS)}"
        )
    if extension == ".parquet":
        _import_pyarrow(path)
    files.check_target(
        f"write {kind.name}",
        path,
        f"a file of {kind.name}",
        lambda existing: is_one(kind, existing),
        inputs,
        force,
    )


def write(kind: Kind, path: str | os.PathLike, tables: Iterable, force: bool = False) -> None:
    """Write a table whole or not at all.

    Parameters
    ----------
    kind : Kind
    path : str or path-like
        As `check_writable` takes it.
    tables : iterable of DataFrame
        The rows, part by part, with the columns of the kind, of the same types.
    force : bool
        Whether an existing file of another kind may be replaced.

    Raises
    ------
    InputError
        If the file cannot be written, or is one that must not be replaced.
    """
    check_writable(kind, path, force)
    path = os.fspath(path)
    try:
        with files.replacing(path) as file:
            _WRITERS[os.path.splitext(path)[1].lower()](kind, path, file, tables)
    except OSError as err:
        raise InputError(f"cannot write {kind.name} to {path}: {files.reason_of(err)}") from None


def is_one(kind: Kind, path: str) -> bool:
    """Tell whether a file is of a kind, by its columns."""
    try:
        with open(path, "rb") as file:
            start = file.read(len(kind.header))
        if not start.startswith(b"PAR1"):
            return start == kind.header
        return tuple(_import_pyarrow(path).parquet.read_schema(path).names) == kind.columns
    except Exception:  # pyarrow raises anything about a damaged file
        return False


def _write_text(kind: Kind, path: str, file: IO[bytes], tables: Iterable) -> None:
    file.write(kind.header)
    for table in tables:
        # Python's csv does not quote a carriage return alone, which ends a line for readers
        texts = [values for _, values in table.items() if values.dtype.kind in "OT"]
        odd = any(isinstance(x, str) and "\r" in x for values in texts for x in values)
        text = table.to_csv(
            sep="\t",
            index=False,
            header=False,
            columns=[*kind.columns],
            quoting=csv.QUOTE_NONNUMERIC if odd else csv.QUOTE_MINIMAL,
        )
        # ids of a pickled DataFrame need not be valid Unicode
        file.write(text.encode("utf-8", errors="backslashreplace"))


def _write_parquet(kind: Kind, path: str, file: IO[bytes], tables: Iterable) -> None:
    pa = _import_pyarrow(path)
    writer: Any = None
    try:
        for table in tables:
            try:
                part = pa.table({name: pa.array(table[name].to_numpy()) for name in kind.columns})
            except (pa.ArrowException, UnicodeError) as err:
                raise InputError(
                    f"cannot write {kind.name} to {path}: Parquet cannot hold an id "
                    f"({one_line(err)}); give a name that ends in .tsv"
                ) from None
            writer = writer or pa.parquet.ParquetWriter(file, part.schema)
            writer.write_table(part)
        writer.close()
    except BaseException:
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.close()  # its destructor would complain about a closed file
        raise


_WRITERS: dict[str, Callable[[Kind, str, IO[bytes], Iterable], None]] = {
    ".parquet": _write_parquet,
    ".tsv": _write_text,
}


def _import_pyarrow(path: str) -> Any:
    from gru4rec_toolkit.data.arrow import import_pyarrow

    return import_pyarrow(f"{path}: writing Parquet files")
