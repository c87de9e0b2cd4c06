"""Event tables in text, tab or comma separated, with ids as compact integers or categories.

pandas parses; `Scan` hands it the bytes and looks through them for what pandas does not tell.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import io
import itertools
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from gru4rec_toolkit.data.checks import as_times, check_columns, holds_dates
from gru4rec_toolkit.errors import InputError, one_line, shortened

MOST_DIGITS = 15  # decimal point included: a float64 holds fewer characters exactly
SCAN_BYTES = 120 << 10  # from 128 kB on, malloc maps fresh pages for every array made of a block
ROWS_AT_ONCE = 1 << 20
LONGEST_LINE = 1 << 24  # bytes; pandas keeps a line in memory, and a damaged file may have no ends
# Compressed logs unpack to 3 to 30 times their size. What unpacks to more than both of these, bytes
# and times, was made to fill the memory.
MOST_UNPACKED, MOST_TIMES = 1 << 30, 200
# from 3.0 on pandas makes one category of "7" and "007", since it looks for numbers among them
TEXT_IN_CATEGORIES = int(pd.__version__.split(".")[0]) < 3


@dataclass(frozen=True)
class TextFile:
    """A text file and how it is written.

    Attributes
    ----------
    path : str
        Compressed if it ends in ``.gz``.
    separator : str
        A tab, or a comma; with a comma fields may stand in double quotes.
    """

    path: str
    separator: str

    @property
    def quoting(self) -> int:
        return csv.QUOTE_NONE if self.separator == "\t" else csv.QUOTE_MINIMAL

    @property
    def is_compressed(self) -> bool:
        return self.path.lower().endswith(".gz")

    def open_bytes(self) -> gzip.GzipFile | io.BufferedReader:
        return gzip.open(self.path) if self.is_compressed else open(self.path, "rb")

    def open(self, encoding: str = "utf-8", errors: str = "strict") -> io.TextIOWrapper:
        return io.TextIOWrapper(self.open_bytes(), encoding, errors)

    @contextlib.contextmanager
    def scan(self, numbers: bool = True, floats: bool = False) -> Iterator[Scan]:
        with self.open_bytes() as stream:
            yield Scan(self, stream, numbers, floats)

    def fields(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        """Number the lines (from 1) that are not empty and split them; slow."""
        if self.separator == "\t":
            for number, line in enumerate(lines, start=1):
                if line.strip(" \r\n"):
                    yield number, line.rstrip("\r\n").split("\t")
        else:
            reader = csv.reader(lines)
            try:
                for row in reader:
                    # pandas passes over lines of blanks and tabs, too
                    if any(field.strip(" \t") for field in row) or len(row) > 1:
                        yield reader.line_num, row
            except csv.Error as err:  # a field is longer than it takes
                raise _not_separated(self, f"line {reader.line_num}: {err}") from None

    def line_of_row(self, row: int) -> str:
        """Name the line of an event, given its position."""
        with self.open(errors="replace") as lines:
            return f"line {next(itertools.islice(self.fields(lines), row + 1, None))[0]}"


class Scan:
    """The bytes of a text file, looked through as they are read.

    pandas can read from it. It is not a class of the io module, so that pandas takes its bytes as
    they are: it would decode what an io class reads, and encode it again.

    Parameters
    ----------
    file : TextFile
        For messages, and how it is written.
    stream : io.BufferedIOBase
        The bytes of the file, from the first on.
    numbers : bool
        Look at the numbers, too (`plain`).
    floats : bool
        Raise `NeedsExactParser` before giving bytes with a number that pandas' fast parser may get
        wrong: that is right up to 15 digits without an exponent, and crashes on some exponents.

    Attributes
    ----------
    separators : int
        Number of separators outside of quotes among the bytes that were read: pandas ignores
        surplus fields silently if only some columns are read.
    plain : bool
        No number among these bytes has a leading zero, a sign other than "-" or blanks around it,
        so that reading ids as integers cannot make one id out of two.
    """

    def __init__(
        self,
        file: TextFile,
        stream: io.BufferedIOBase,
        numbers: bool = True,
        floats: bool = False,
    ) -> None:
        self.separators = 0
        self.plain = True
        self._file = file
        self._stream = stream
        self._numbers = numbers
        self._floats = floats
        self._digits = b""
        self._in_quotes = False
        self._tail = b""
        # bytes so far: of the line that the last block ends in, and of all
        self._line, self._unpacked = 0, 0
        self._most = math.inf
        if file.is_compressed:
            self._most = max(MOST_UNPACKED, MOST_TIMES * os.path.getsize(file.path))

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end; raise an InputError at a zero byte."""
        block = self._stream.read(min(size, SCAN_BYTES))
        if b"\0" in block:
            raise _not_text(self._file, "it holds zero bytes")
        self._unpacked += len(block)
        if self._unpacked > self._most:
            raise InputError(
                f"{self._file.path}: it unpacks to more than {MOST_TIMES} times its size, as no "
                "log does; if it is sound all the same, unpack it yourself and give what is in it"
            )
        self.separators += self._count_separators(block)
        if self._numbers and self.plain:
            self.plain = self._is_plain(block or b"\n")  # at the end: the last number ends, too
        if self._floats:
            self._check_floats(block)
        if self._line > LONGEST_LINE:
            raise _not_text(self._file, f"a line has more than {LONGEST_LINE >> 20} MB")
        return block

    def __iter__(self) -> Iterator[bytes]:
        """Yield the blocks. (pandas only reads from objects with this method.)"""
        return iter(functools.partial(self.read, SCAN_BYTES), b"")

    def _count_separators(self, block: bytes) -> int:
        codes = np.frombuffer(block, dtype=np.uint8)
        is_separator = codes == ord(self._file.separator)
        if self._file.quoting == csv.QUOTE_NONE or not (self._in_quotes or b'"' in block):
            self._follow_line(len(block), _last(block, b"\n", b"\r"))
            return int(np.count_nonzero(is_separator))
        is_mark = (codes == ord('"')) | is_separator | (codes == ord("\n")) | (codes == ord("\r"))
        marks = codes[is_mark]
        quotes = np.cumsum(marks == ord('"'), dtype=np.uint8) + np.uint8(self._in_quotes)
        outside = quotes % 2 == 0  # only odd or even matters: the sum may overflow
        if len(marks):
            self._in_quotes = not outside[-1]
        ends = np.flatnonzero(outside & ((marks == ord("\n")) | (marks == ord("\r"))))
        end = _place(is_mark, len(marks) - 1 - int(ends[-1])) if len(ends) else -1
        self._follow_line(len(block), end)
        return int(np.count_nonzero(outside & (marks == ord(self._file.separator))))

    def _follow_line(self, n_bytes: int, end: int) -> None:
        """Count the bytes of the line that a block ends in; -1: no line ends in the block."""
        self._line = self._line + n_bytes if end < 0 else n_bytes - end - 1

    def _is_plain(self, block: bytes) -> bool:
        if any(odd in block for odd in (b"+", b" ", b"\v", b"\f")):
            return False
        joined = self._tail + block  # two bytes of the previous block: no number is cut
        self._tail = joined[-2:]
        codes = np.frombuffer(joined, dtype=np.uint8)
        zeros = np.flatnonzero((codes[1:-1] == ord("0")) & (codes[:-2] <= ord("-"))) + 1  # few
        before, after = codes[zeros - 1], codes[zeros + 1]
        is_digit = (after >= ord("0")) & (after <= ord("9"))
        first = (before <= ord("\r")) | (before == ord('"')) | (before == ord(","))
        return not (first & is_digit | (before == ord("-"))).any()

    def _check_floats(self, block: bytes) -> None:
        joined = self._digits + block  # the end of the previous block: no number is cut
        self._digits = joined[-MOST_DIGITS:]
        codes = np.frombuffer(joined, dtype=np.uint8)
        in_number = (codes - np.uint8(ord("."))) <= ord("9") - ord(".")  # "/" is no matter
        runs = in_number
        for n in (1, 2, 4, 8):  # True where a run of 2, 4, 8, 16 begins
            runs = runs[n:] & runs[:-n]
        if runs.any():
            raise NeedsExactParser
        if b"e" in joined or b"E" in joined:
            exponents = np.flatnonzero((codes[1:] | 32) == ord("e"))
            if in_number[exponents].any():
                raise NeedsExactParser


def _place(is_mark: np.ndarray, n_behind: int) -> int:
    """Return the place of the mark that so many others stand behind."""
    for n in (4096, len(is_mark)):  # nearly always close to the end
        places = np.flatnonzero(is_mark[-n:])
        if n_behind < len(places):
            break
    return max(0, len(is_mark) - n) + int(places[-1 - n_behind])


def _last(block: bytes, *marks: bytes) -> int:
    """Return the last place of the first mark that there is, -1 if there is none."""
    return next((place for place in map(block.rfind, marks) if place >= 0), -1)


class NeedsExactParser(Exception):
    """Signal that the numbers need pandas' exact parser, which is slower than the default."""


def read_text(file: TextFile, keys: dict[str, str]) -> pd.DataFrame:
    """Read some columns; ids are int64 or categories, never a Python string an event.

    Parameters
    ----------
    file : TextFile
        The first line names the columns.
    keys : dict
        Names of the columns by role: session, item, time, perhaps user.

    Returns
    -------
    pandas.DataFrame
        Ids are int64 if every one of the column is a plain decimal integer, else categories. Times
        are as they stand in the file, or seconds (`checks.as_times`) where they are dates.

    Raises
    ------
    InputError
        The file cannot be read; the message names the line.
    """
    names = _read_header(file)
    _check_separator(file, names, [*keys.values()])
    check_columns(names, keys, file.path)
    positions = [names.index(key) for key in keys.values()]
    parse = functools.partial(
        pd.read_csv,
        sep=file.separator,
        header=None,
        skiprows=1,
        names=range(len(names)),  # the header may repeat a name that is of no interest here
        usecols=positions,
        index_col=False,
        quoting=file.quoting,
        keep_default_na=False,  # an item may be called "NA" or "null"
        na_values=[""],
        float_precision="round_trip",  # Python's parser: the default one crashes on "1e4294967294"
        encoding="utf-8",
    )
    try:
        with warnings.catch_warnings():
            # numbers and words in one time column: reported by check_events, with its line
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            frame, separators = _parse(file, parse, positions)
    except UnicodeDecodeError:
        _read_through(file)
        raise _not_utf8(file, positions) from None
    except pd.errors.ParserError as err:
        if "Calling read(nbytes) on source failed" in str(err):
            # pandas loses an exception without a value, which Python raises at Ctrl-C only
            raise KeyboardInterrupt from None
        _read_through(file)
        # pandas stops only where all rows are short, and does not say where that is
        _check_widths(file, len(names), lambda width: width < len(names))
        raise _not_separated(file, one_line(err)) from None
    if separators > (len(frame) + 1) * (len(names) - 1):
        _check_widths(file, len(names), lambda width: width > len(names))
    columns = {key: frame[position] for key, position in zip(keys.values(), positions)}
    return pd.DataFrame(columns, copy=False)


# --- parsing --------------------------------------------------------------------------------------


def _parse(file: TextFile, parse: Callable, positions: Sequence[int]) -> tuple[pd.DataFrame, int]:
    """Parse a text file with compact ids, and count its separators (see `Scan`).

    Categories suit any id, but integers parse faster and smaller without them. That is tried where
    the first rows look like it, and undone where two spellings can mean one integer after all: so
    the file is read once, but for its first rows, unless a late row is unlike them.
    """
    *ids, time = positions
    with file.scan() as first:
        head = _compact_ids(_with_categories(parse, first, ids, nrows=1000))
    is_text = head[time].dtype.kind == "O" and not head[time].hasnans and len(head) > 0
    if is_text and holds_dates(head[time]) and _are_times(as_times(head[time])):
        with file.scan(numbers=False) as scan:
            frame = _parse_dates(_parts(parse, scan, ids, dtype={time: str}), ids, time)
        if frame is not None:
            return frame, scan.separators
    if head[time].dtype == np.float64:  # the exact parser takes three times as long for these
        with contextlib.suppress(NeedsExactParser):
            fast = functools.partial(parse, float_precision="high")
            return _parse_numbers(file, fast, head, ids, first.plain, floats=True)
    return _parse_numbers(file, parse, head, ids, first.plain, floats=False)


def _parse_numbers(
    file: TextFile,
    parse: Callable,
    head: pd.DataFrame,
    ids: Sequence[int],
    plain: bool,
    floats: bool,
) -> tuple[pd.DataFrame, int]:
    """Parse a text file whose times are numbers (see `_parse`)."""
    numbers = [column for column in ids if plain and head[column].dtype == np.int64]
    words = [column for column in ids if column not in numbers]
    with file.scan(len(numbers) > 0, floats) as scan:
        # pandas must find the integers by itself: told to, it makes some of "1.5" and of 2**63 too
        frame = _with_categories(parse, scan, words)
    if not scan.plain or any(frame[column].dtype != np.int64 for column in numbers):
        del frame
        with file.scan(False, floats) as scan:
            frame = _with_categories(parse, scan, ids)
    return _compact_ids(frame), scan.separators


def _with_categories(
    parse: Callable, source: Scan, words: Sequence[int], nrows: int | None = None
) -> pd.DataFrame:
    """Parse a table in which the columns `words` are categories of text."""
    if TEXT_IN_CATEGORIES or not words or nrows is not None:
        dtype = dict.fromkeys(words, "category" if TEXT_IN_CATEGORIES else str)
        return _as_categories(parse(source, dtype=dtype, nrows=nrows), words)
    # part by part: a string an event takes more memory than all that is kept
    parts = list(_parts(parse, source, words))
    columns = {}
    for column in parts[0].columns:
        of_parts = [part.pop(column) for part in parts]
        columns[column] = (
            union_categoricals(of_parts) if column in words else pd.concat(of_parts).to_numpy()
        )
    return pd.DataFrame(columns, copy=False)


def _parts(
    parse: Callable, source: Scan, words: Sequence[int], dtype: dict | None = None
) -> Iterator[pd.DataFrame]:
    """Parse a table part by part; the columns `words` are categories of text."""
    dtypes = dict.fromkeys(words, "category" if TEXT_IN_CATEGORIES else str)
    with parse(source, dtype={**dtypes, **(dtype or {})}, chunksize=ROWS_AT_ONCE) as parts:
        for part in parts:
            yield _as_categories(part, words)


def _as_categories(frame: pd.DataFrame, words: Sequence[int]) -> pd.DataFrame:
    return frame if TEXT_IN_CATEGORIES else frame.astype(dict.fromkeys(words, "category"))


def _parse_dates(
    frames: Iterable[pd.DataFrame], ids: Sequence[int], time: int
) -> pd.DataFrame | None:
    """Join what is parsed part by part, for no more date strings at a time than a part has.

    Return None if some time is not a date; the strings are needed to say which one.
    """
    parts: dict[int, list] = {column: [] for column in (*ids, time)}
    for part in frames:
        if part[time].hasnans:
            return None
        times = as_times(part[time], are_dates=True)
        if not _are_times(times):
            return None
        part = _compact_ids(part)
        parts[time].append(times)
        for column in ids:
            parts[column].append(part[column])
    frame = {column: _join_ids(parts.pop(column)) for column in ids}
    return pd.DataFrame({**frame, time: np.concatenate(parts[time])}, copy=False)


def _are_times(times: np.ndarray) -> bool:
    return bool(np.isfinite(times).all())


def _join_ids(parts: list[pd.Series]) -> np.ndarray | pd.Categorical:
    if all(part.dtype == np.int64 for part in parts):
        return np.concatenate([part.to_numpy() for part in parts])
    words = [part.astype(str) if part.dtype == np.int64 else part for part in parts]
    return union_categoricals([pd.Categorical(part) for part in words])


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
    """Return the categories as int64 if all are written as Python writes integers, else None."""
    words = accessor.categories.tolist()
    try:
        integers = np.array([int(word) for word in words], dtype=np.int64)
    except (ValueError, OverflowError):
        return None
    # "007", "+7", " 7" and "7" are four different ids
    return integers if all(map(str.__eq__, map(str, integers.tolist()), words)) else None


# --- what pandas does not tell --------------------------------------------------------------------


def _read_header(file: TextFile) -> list[str]:
    """Return the column names in the first line of a text file."""
    # the lines behind it, which are decoded together with it, need not be UTF-8
    with file.open("utf-8-sig", errors="surrogateescape") as lines:
        header = lines.readline(1 << 20)
    if re.search("[\udc80-\udcff]", header):
        raise _not_utf8(file)
    if "\0" in header:
        raise _not_text(file, "it holds zero bytes")
    if not header:
        raise InputError(
            f"{file.path}: the file is empty; expected a line of column names, then one line an "
            "event"
        )
    header = header.rstrip("\n")
    if file.separator == "\t":
        return header.split("\t")
    try:
        return next(csv.reader([header]), [""])
    except csv.Error as err:  # a name is longer than it takes
        raise _not_separated(file, f"line 1: {err}") from None


# how files that other programs export are separated, and the ending of the names of such files
_SEPARATORS = {
    "\t": ("tabs", ".tsv"), ",": ("commas", ".csv"),
    ";": ("semicolons", None), "|": ("vertical bars", None), " ": ("blanks", None),
}  # fmt: skip
# a number or an ISO date, which no column is called, but an event holds
_VALUE = re.compile(r"\s*[-+]?[0-9][0-9.eE+]*\s*|\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].*)?")


def _check_separator(file: TextFile, names: Sequence[str], keys: Sequence) -> None:
    """Raise an InputError if the first line has another separator, or seems to be an event."""
    if any(key in names for key in keys):
        return
    line = shortened(" ".join(f"{file.separator} ".join(names).split()), 100)
    others = [s for s in _SEPARATORS if s != file.separator] if len(names) == 1 else []
    for separator in others:
        kind, ending = _SEPARATORS[separator]
        parts = [part.strip(' "') for part in names[0].split(separator)]
        # a single column may have a name of two words
        if len(parts) > 2 or all(key in parts for key in keys):
            advice = "separate the columns by tabs (.tsv) or commas (.csv)"
            if ending is not None:
                advice = f"let its name end in {ending}{'.gz' if file.is_compressed else ''}"
            raise InputError(
                f"{file.path}: expected {_SEPARATORS[file.separator][0]} between the columns, but "
                f"the first line seems to be separated by {kind}: {line}; {advice}"
            )
    if any(_VALUE.fullmatch(name) for name in names):
        wanted = ", ".join(shortened(" ".join(str(key).split()), 80) for key in keys)
        raise InputError(
            f"{file.path}: the first line has to name the columns ({wanted}), but seems to be an "
            f"event: {line}; put a line of names before it"
        )


def _read_through(file: TextFile) -> None:
    """Raise an InputError for bad bytes of a text file, in the place of pandas' own message."""
    with file.scan(numbers=False) as scan:
        for _ in scan:
            pass


def _check_widths(file: TextFile, width: int, is_wrong: Callable[[int], bool]) -> None:
    """Raise an InputError that names the first line with a wrong number of fields, if any."""
    kind = "tab" if file.separator == "\t" else "comma"
    with file.open(errors="replace") as lines:
        for number, fields in itertools.islice(file.fields(lines), 1, None):
            if is_wrong(len(fields)):
                raise InputError(
                    f"{file.path}: line {number} has {len(fields)} {kind} separated fields, but "
                    f"the header names {width} columns; correct that line"
                )


def _not_utf8(file: TextFile, positions: Sequence[int] = ()) -> InputError:
    """Return the message about the first line that is not UTF-8 in the columns that are read."""
    with file.open(errors="surrogateescape") as lines:
        for number, fields in file.fields(lines):
            looked_at = [f for i, f in enumerate(fields) if i in positions or number == 1]
            if re.search("[\udc80-\udcff]", "".join(looked_at)):
                break
        return _not_text(file, f"line {number} is not UTF-8")


def _not_separated(file: TextFile, reason: str) -> InputError:
    return InputError(f"{file.path}: cannot be read as separated text ({reason}); correct the file")


def _not_text(file: TextFile, reason: str) -> InputError:
    kind = "tab" if file.separator == "\t" else "comma"
    return InputError(
        f"{file.path}: this is no text file ({reason}); save it as UTF-8, {kind} separated"
    )
