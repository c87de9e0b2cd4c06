"""The journal of a study: a file of JSON records, one a line, as Optuna's journals are."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock

from gru4rec_toolkit.errors import InputError

# how an SQLite database begins
SQLITE = b"SQLite format 3\x00"
# how Optuna begins every record of a journal, and so every journal
_RECORD = b'{"op_code":'
# bytes of a journal's line; a damaged file may have no line breaks at all
LONGEST_RECORD = 1 << 26
# the records by their op_code, with the types of what Optuna does not look at before it is needed
_NUMBER = (int, float)
_RECORDS: tuple[dict[str, Any], ...] = (
    {"study_name": str, "directions": list},
    {"study_id": int},
    {"study_id": int, "user_attr": dict},
    {"study_id": int, "system_attr": dict},
    {"study_id": int, "datetime_start": (str, type(None))},
    {"trial_id": int, "param_name": str, "param_value_internal": _NUMBER, "distribution": str},
    {"trial_id": int, "state": int, "values": (list, type(None))},
    {"trial_id": int, "step": int, "intermediate_value": _NUMBER},
    {"trial_id": int, "user_attr": dict},
    {"trial_id": int, "system_attr": dict},
    {},
)
# of a new trial, where it has them
_TRIAL = {
    "user_attrs": dict,
    "system_attrs": dict,
    "params": dict,
    "distributions": dict,
    "intermediate_values": dict,
    "value": (int, float, type(None)),
    "values": (list, type(None)),
}


class DamagedJournal(InputError):
    """A journal that cannot be read any further; the message names file and line."""


class JournalFile(BaseJournalBackend):
    """A journal of Optuna, the file that Optuna's JournalFileBackend reads and writes.

    Unlike that one it writes to no file that is not a journal, names the line that is damaged, and
    removes the half line of a writer that was killed: the next record would be appended to it
    otherwise, and nobody could read the journal again.

    Parameters
    ----------
    path : str
        Made if it is missing.

    Raises
    ------
    InputError
        If there is something else at the path.
    """

    def __init__(self, path: str) -> None:
        # Workers that name one journal by different links have to meet at one lock.
        self.path = os.path.realpath(path)
        self.shown = path
        # read so far: lines and bytes
        self._read = (0, 0)
        self._lock = JournalFileSymlinkLock(self.path)
        # Beside the journal a relative link is right, also after the directory was moved.
        self._lock._lock_target_file = os.path.basename(self.path)
        check_journal(path)
        if not os.path.exists(self.path):
            open(self.path, "ab").close()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Read records from a number on; a record that is being written is left for later."""
        lines, start = self._read if log_number_from >= self._read[0] else (0, 0)
        with open(self.path, "rb") as file:
            file.seek(start)
            for line in _lines(file, self.shown, lines):
                if not line.endswith(b"\n"):
                    return
                lines += 1
                record = _record(line, self.shown, lines)
                start += len(line)
                self._read = (lines, start)
                if lines > log_number_from:
                    yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records, all of them or none."""
        records = (json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        data = "".join(records).encode()
        _check_lock(self.path, self.shown)
        self._lock.acquire()
        try:
            with open(self.path, "rb+", buffering=0, opener=_appending) as file:
                end = self._whole_lines(file)
                if end < os.fstat(file.fileno()).st_size:
                    file.truncate(end)
                try:
                    while data:
                        data = data[file.write(data) :]
                    os.fsync(file.fileno())
                except OSError:  # a full disk; what was written would be a half line
                    with contextlib.suppress(OSError):
                        file.truncate(end)
                    raise
        finally:
            with contextlib.suppress(RuntimeError):  # it took so long that another worker broke it
                self._lock.release()

    def _whole_lines(self, file) -> int:
        """Return where the last whole line ends; nothing but a half record may follow it."""
        lines, end = self._read
        if end > os.fstat(file.fileno()).st_size:
            raise DamagedJournal(
                f"--storage {self.shown}: the journal is shorter than it was when it was read; "
                "another program has written to it, so give another path or restore it"
            )
        with open(self.path, "rb") as reader:
            reader.seek(end)
            for line in _lines(reader, self.shown, lines):
                if not line.endswith(b"\n"):
                    _check_half_line(line, self.shown, lines + 1)
                    break
                lines += 1
                _record(line, self.shown, lines)
                end += len(line)
        return end


def _appending(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_APPEND)


def _lines(file, shown: str, number: int) -> Iterator[bytes]:
    """Lines of a journal after the first `number` ones, with their ends."""
    while True:
        line = file.readline(LONGEST_RECORD)
        if not line:
            return
        number += 1
        if len(line) == LONGEST_RECORD:
            raise _damaged(shown, number)
        yield line


def _record(line: bytes, shown: str, number: int) -> dict[str, Any]:
    """Return the record of a line; raise DamagedJournal if it is none."""
    try:
        record = json.loads(line)
        fields = _RECORDS[record["op_code"]]
        good = isinstance(record["worker_id"], str) and type(record["op_code"]) is int
        good = good and record["op_code"] >= 0
        if good and fields is _RECORDS[4]:
            fields = {**fields, **{name: _TRIAL[name] for name in _TRIAL if name in record}}
        for name, kind in fields.items():
            good = good and isinstance(record[name], kind)
        for value in record.get("values") or []:
            good = good and isinstance(value, _NUMBER)
    except (ValueError, TypeError, LookupError, RecursionError):
        good = False
    if not good:
        raise _damaged(shown, number)
    return record


def _check_half_line(line: bytes, shown: str, number: int) -> None:
    """Raise DamagedJournal unless a last line without its end is one that a killed writer left."""
    # A half line that is the whole file has to show that it begins a study.
    known = range(len(_RECORDS) if number > 1 else 1)
    begins = [_RECORD + b'%d,"worker_id":"' % code for code in known]
    good = any(
        line.startswith(begin) or (number > 1 and begin.startswith(line)) for begin in begins
    )
    if not good or b"\0" in line:
        raise _damaged(shown, number)


def _damaged(shown: str, number: int) -> DamagedJournal:
    return DamagedJournal(
        f"--storage {shown}, line {number}: not a record that Optuna {optuna.__version__} knows; "
        "the file is damaged or of a newer Optuna, so restore it or give another path"
    )


def _check_lock(path: str, shown: str) -> None:
    """Refuse a file in the place of the journal's lock, which would be removed for a stale one."""
    with contextlib.suppress(FileNotFoundError):
        lock = os.lstat(path + ".lock")
        if not stat.S_ISLNK(lock.st_mode) and (lock.st_size or not stat.S_ISREG(lock.st_mode)):
            raise InputError(
                f"--storage {shown}: {shown}.lock, the place of the journal's lock, is something "
                "else; move that away or give another path"
            )


def check_journal(path: str) -> None:
    """Find out, without writing anything, whether a path can be used for a journal.

    Parameters
    ----------
    path : str
        May be missing, empty, or a journal that may end in a half line of a killed writer.

    Raises
    ------
    InputError
        If it is something else, or damaged.
    OSError
        If it cannot be read.
    """
    if not os.path.exists(path):
        return
    check_kind(path)
    _check_lock(os.path.realpath(path), path)
    with open(path, "rb") as file:
        begin = file.read(len(SQLITE))
        if begin == SQLITE:
            raise InputError(
                f"--storage {path}: this is an SQLite database; give it as sqlite:///{path}"
            )
        if begin and not begin.startswith(_RECORD):
            raise InputError(
                f"--storage {path}: this file is not a journal of Optuna, and nothing was written "
                "to it; give the path of a journal or of a new file"
            )
        file.seek(0)
        for number, line in enumerate(_lines(file, path, 0), start=1):
            if line.endswith(b"\n"):
                _record(line, path, number)
            else:
                _check_half_line(line, path, number)


def check_kind(path: str) -> None:
    """Raise an InputError if a path leads to a directory or to something else that is no file."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise InputError(f"--storage {path}: this is {kind}; give the path of a file")
