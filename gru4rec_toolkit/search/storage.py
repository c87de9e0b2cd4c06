"""Where studies are kept: storages with heartbeats, and what happens to trials of dead workers.

A worker is one process of `paropt.py`. A trial that runs belongs to the worker that is named in its
attribute ``worker``. Workers that died are recognised at once on the machine where they ran, by
their process id and its start time, and from elsewhere by their heartbeat, which has stopped. Their
trials are failed and queued again, as Optuna does it for its relational storages.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import socket
import sqlite3
import stat
import sys
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from gru4rec_toolkit.errors import InputError, one_line

# a trial whose workers die again and again may be what kills them
MOST_RETRIES = 3
# heartbeats that may be missed before a worker counts as dead
MISSED_HEARTBEATS = 3
# workers that make an empty database's tables at the same time get in each other's way
OPENING_TRIES = 8
_SQLITE = b"SQLite format 3\x00"
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
# what Optuna raises when it replays a record whose contents it cannot use
_UNUSABLE = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError,
    RecursionError,
)  # fmt: skip
# optional fields of a new trial, and their types
_TRIAL = {
    "user_attrs": dict,
    "system_attrs": dict,
    "params": dict,
    "distributions": dict,
    "intermediate_values": dict,
    "value": (int, float, type(None)),
    "values": (list, type(None)),
}


# ---------------------------------------------------------------------------- workers


def this_worker() -> dict[str, Any]:
    """Return what identifies this process among all that ever worked on a study."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "start": _start_time(os.getpid()),
    }


def _machine() -> str:
    """The boot of the machine and the process ids' namespace: where a pid means one process."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_time(pid: int) -> int | None:
    """Clock ticks from the boot to the start of a process; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, *fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    # a zombie is dead, its parent has not looked yet
    return None if state in "ZX" else int(fields[18])


def is_dead(worker: dict[str, Any]) -> bool:
    """Tell whether a worker is known to be dead: it ran on this machine, and runs no more."""
    here = worker.get("machine") == _machine() != ""
    return here and _start_time(worker["pid"]) != worker["start"]


def worker_name(worker: dict[str, Any] | None) -> str:
    return f"{worker['host']}, process {worker['pid']}" if worker else "unknown"


# ---------------------------------------------------------------------------- storages


def _queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Optuna's retry of a trial without what the dead worker noted about it."""
    # renamed in Optuna 4.9; Python 3.8 has Optuna 4.5
    retry = getattr(optuna.storages, "RetryHeartbeatStaleTrialCallback", None)
    retry = retry or optuna.storages.RetryFailedTrialCallback
    if "log" not in trial.user_attrs:  # killed before all was suggested
        trial.params, trial.distributions = {}, {}
    trial.user_attrs = {"retry_of": trial.number}
    retry(max_retry=MOST_RETRIES)(study, trial)


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
    _check_kind(path)
    _check_lock(os.path.realpath(path), path)
    with open(path, "rb") as file:
        begin = file.read(len(_SQLITE))
        if begin == _SQLITE:
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


def _check_kind(path: str) -> None:
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise InputError(f"--storage {path}: this is {kind}; give the path of a file")


class HeartbeatJournal(optuna.storages.JournalStorage, BaseHeartbeat):
    """A journal file with heartbeats, which Optuna has for relational storages only.

    A heartbeat is a changing attribute of the trial. A trial is stale if this process has seen the
    same heartbeat for the whole grace period, so the machines' clocks do not matter.

    Parameters
    ----------
    path : str
        The journal; made if it is missing.
    interval : int
        Seconds between heartbeats.
    """

    def __init__(self, path: str, interval: int) -> None:
        self.path = path
        super().__init__(JournalFile(path))
        self.interval = interval
        self._seen: dict[int, tuple[Any, float]] = {}

    def _sync_with_backend(self) -> None:
        try:
            super()._sync_with_backend()
        except (OSError, InputError, optuna.exceptions.OptunaError):
            raise
        except _UNUSABLE as err:
            raise DamagedJournal(
                f"--storage {self.path}, line {self._replay_result.log_number_read}: a record that "
                f"Optuna cannot use ({one_line(err)}); restore the file or give another path"
            ) from None

    def record_heartbeat(self, trial_id: int) -> None:
        try:
            self.set_trial_system_attr(trial_id, "heartbeat", time.time())
        except optuna.exceptions.UpdateFinishedTrialError:
            pass  # another worker gave the trial up
        except (OSError, InputError) as err:  # the trial itself will say so too, when it ends
            print(f"no heartbeat: {err}", file=sys.stderr)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        now, stale = time.monotonic(), []
        for trial in self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,)):
            beat = trial.system_attrs.get("heartbeat")
            seen, since = self._seen.get(trial._trial_id, (None, None))
            if since is None or seen != beat:
                self._seen[trial._trial_id] = (beat, now)
            elif now - since > MISSED_HEARTBEATS * self.interval:
                stale.append(trial._trial_id)
        return stale

    def get_heartbeat_interval(self) -> int:
        return self.interval

    def get_heartbeat_stale_trial_callback(self) -> Callable:
        return _queue_again

    def get_failed_trial_callback(self) -> Callable:
        return _queue_again  # the name until Optuna 4.9


def open_storage(where: str, heartbeat: int) -> optuna.storages.BaseStorage:
    """Open a storage, making it if it is missing.

    Parameters
    ----------
    where : str
        A URL as SQLAlchemy has them (``sqlite:///study.db``, ``postgresql://user@host/database``),
        else the path of a journal file.
    heartbeat : int
        Seconds between heartbeats.

    Raises
    ------
    InputError
        If the storage cannot be opened; passwords are not shown.
    """
    _quiet_optuna()
    if "://" in where:
        return _open_database(where, heartbeat)
    try:
        return HeartbeatJournal(where, heartbeat)
    except OSError as err:
        raise InputError(
            f"--storage {where}: {err.strerror or err}; give a path in a writable directory"
        ) from None


def check_storage(where: str) -> None:
    """Find out, without writing anything, whether a storage that exists is one of Optuna.

    Parameters
    ----------
    where : str
        As for `open_storage`.

    Raises
    ------
    InputError
        If a file is there that is neither a journal nor a database of Optuna.
    """
    try:
        if "://" not in where:
            check_journal(where)
            return
        url, path = _parsed(where)
        if path is not None and os.path.exists(path):
            _check_sqlite(path, url)
    except OSError as err:
        raise InputError(
            f"--storage {shown(where)}: {err.strerror or err}; give a path in a writable directory"
        ) from None


def shown(where: str) -> str:
    """Return a storage as it may be shown, without a password."""
    return _parsed(where)[0] if "://" in where else where


def file_of(where: str) -> str | None:
    """Return the file of a storage; None if it is in a server."""
    return _parsed(where)[1] if "://" in where else where


def _parsed(url: str) -> tuple[str, str | None]:
    """Return a database's URL without its password, and the file of an SQLite database."""
    import sqlalchemy

    try:
        parsed = sqlalchemy.engine.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise InputError(
            "--storage: not a database URL; write sqlite:///FILE, "
            "postgresql://USER:PASSWORD@HOST/DATABASE or mysql+pymysql://..., or the path of a "
            "journal file"
        ) from None
    shown = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() != "sqlite":
        return shown, None
    if parsed.database in (None, "", ":memory:"):
        raise InputError(
            f"--storage {shown}: a database in memory ends with this process; write sqlite:///FILE"
        )
    return shown, None if parsed.database.startswith("file:") else parsed.database


def _check_sqlite(path: str, shown: str) -> None:
    from optuna.storages._rdb.models import BaseModel

    _check_kind(path)
    with open(path, "rb") as file:
        begin = file.read(len(_SQLITE))
    if not begin:
        return
    if begin != _SQLITE:
        raise InputError(
            f"--storage {shown}: {path} is not an SQLite database, and nothing was written to it; "
            "give the path of one or of a new file"
        )
    try:
        quoted = urllib.parse.quote(os.path.abspath(path))
        database = sqlite3.connect(f"file:{quoted}?mode=rw", uri=True, timeout=60)
        with contextlib.closing(database):
            found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in found if not name.startswith("sqlite_")}
    except (sqlite3.Error, UnicodeError) as err:
        raise InputError(
            f"--storage {shown}: the SQLite database cannot be read ({err}); restore it or give "
            "another path"
        ) from None
    # workers that begin at the same time see each other's first tables
    optunas = {*BaseModel.metadata.tables, "alembic_version"}
    if "version_info" not in tables and not tables <= optunas:
        others = ", ".join(sorted(tables - optunas)[:3])
        raise InputError(
            f"--storage {shown}: this database holds other tables ({others}) and no study of "
            "Optuna, and nothing was written to it; give a file of its own"
        )


class HeartbeatDatabase(optuna.storages.RDBStorage):
    """A database whose heartbeats may be missed: the trial itself will say why, when it ends."""

    def record_heartbeat(self, trial_id: int) -> None:
        import sqlalchemy

        try:
            super().record_heartbeat(trial_id)
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as err:
            print(f"no heartbeat: {one_line(err.__cause__ or err)}", file=sys.stderr)


def _open_database(url: str, heartbeat: int) -> optuna.storages.BaseStorage:
    import sqlalchemy

    shown, _ = _parsed(url)
    url = _with_installed_driver(url)
    engine: dict[str, Any] = {"pool_pre_ping": True}  # connections outlive restarts of the server
    if url.startswith("sqlite"):
        engine = {"connect_args": {"timeout": 60}}  # other workers' writing is waited for
    # renamed in Optuna 4.9, see _queue_again
    new = hasattr(optuna.storages, "RetryHeartbeatStaleTrialCallback")
    callback = "heartbeat_stale_trial_callback" if new else "failed_trial_callback"
    for attempt in range(OPENING_TRIES):
        try:
            return HeartbeatDatabase(
                url,
                engine_kwargs=engine,
                heartbeat_interval=heartbeat,
                grace_period=MISSED_HEARTBEATS * heartbeat,
                **{callback: _queue_again},
            )
        except (ImportError, sqlalchemy.exc.NoSuchModuleError) as err:
            reason = str(err.__cause__ or err)
            raise InputError(
                f"--storage {shown}: {reason}; install the database's driver, for PostgreSQL with "
                "`pip install psycopg2-binary`"
            ) from None
        except (sqlalchemy.exc.SQLAlchemyError, RuntimeError, AssertionError) as err:
            cause = getattr(err, "orig", None) or err
            racing = isinstance(
                err, (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError)
            ) or "already exists" in str(cause)
            if racing and attempt < OPENING_TRIES - 1:
                time.sleep(0.2 * (attempt + 1))
                continue
            reason = " ".join(str(cause).split())
            raise InputError(
                f"--storage {shown}: {reason}; check the URL, and that the server runs"
            ) from None
    raise AssertionError("not reached")


def _with_installed_driver(url: str) -> str:
    """Name psycopg2 where it is the driver at hand: which one is SQLAlchemy's default changed."""
    import sqlalchemy

    parsed = sqlalchemy.engine.make_url(url)
    if parsed.drivername != "postgresql" or find_spec("psycopg") or not find_spec("psycopg2"):
        return url
    named = parsed.set(drivername="postgresql+psycopg2")
    return named.render_as_string(hide_password=False)


def _quiet_optuna() -> None:
    """Silence warnings about what is used here on purpose, and tracebacks of failed trials."""
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    logging.getLogger("optuna.study._optimize").addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = None
    return True


# ---------------------------------------------------------------------------- dead workers


class Undertaker:
    """Fails the running trials of dead workers and queues them again.

    Parameters
    ----------
    study : optuna.Study
    storage : optuna.storages.BaseStorage
        What `open_storage` returned.
    """

    def __init__(self, study: optuna.Study, storage: optuna.storages.BaseStorage) -> None:
        self.study, self.storage = study, storage
        self.study_id = storage.get_study_id_from_name(study.study_name)
        self._unclaimed_since: dict[int, float] = {}

    def look(self) -> None:
        """Look once, here and by the heartbeats."""
        now = time.monotonic()
        grace = MISSED_HEARTBEATS * self.storage.get_heartbeat_interval()
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get("worker")
            if worker and is_dead(worker):
                self._give_up(trial, f"its worker ({worker_name(worker)}) was killed")
            elif worker is None:
                # a worker notes its name just after the trial's creation, unless it dies in between
                since = self._unclaimed_since.setdefault(trial.number, now)
                if now - since > grace:
                    self._give_up(trial, "its worker was killed before the training began")
        optuna.storages.fail_stale_trials(self.study)

    def _give_up(self, trial: FrozenTrial, reason: str) -> None:
        try:
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(
                self.study_id, trial.number
            )
            self.storage.set_trial_user_attr(trial_id, "reason", reason)
            if self.storage.set_trial_state_values(trial_id, TrialState.FAIL):
                _queue_again(self.study, copy.deepcopy(self.storage.get_trial(trial_id)))
        except optuna.exceptions.UpdateFinishedTrialError:
            pass  # another worker was first
