"""Where studies are kept: storages with heartbeats, and what happens to trials of dead workers.

A worker is one process of `paropt.py`. A trial that runs belongs to the worker that is named in its
attribute ``worker``. Workers that died are recognised at once on the machine where they ran, by
their process id and its start time, and from elsewhere by their heartbeat, which has stopped. Their
trials are failed and queued again, as Optuna does it for its relational storages.
"""

from __future__ import annotations

import copy
import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from user_errors import InputError

# a trial whose workers die again and again may be what kills them
MOST_RETRIES = 3
# heartbeats that may be missed before a worker counts as dead
MISSED_HEARTBEATS = 3
# workers that make an empty database's tables at the same time get in each other's way
OPENING_TRIES = 8
_SQLITE = b"SQLite format 3\x00"


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
    """Whether a worker is known to be dead: it ran on this machine, and runs no more."""
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


class _MendingLock(JournalFileSymlinkLock):
    """The journal's lock; whoever gets it removes the half line of a writer that was killed.

    The next line would be appended to that half otherwise, and nobody could read the journal again.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def acquire(self) -> bool:
        super().acquire()
        try:
            _cut_half_line(self.path)
        except BaseException:
            self.release()
            raise
        return True


def _cut_half_line(path: str) -> None:
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        keep = end
        while keep:
            start = max(0, keep - 4096)
            file.seek(start)
            newline = file.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep < end:
            file.truncate(keep)


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
        path = os.path.abspath(path)  # the lock is a link that must not depend on the directory
        super().__init__(JournalFileBackend(path, lock_obj=_MendingLock(path)))
        self.interval = interval
        self._seen: dict[int, tuple[Any, float]] = {}

    def record_heartbeat(self, trial_id: int) -> None:
        try:
            self.set_trial_system_attr(trial_id, "heartbeat", time.time())
        except optuna.exceptions.UpdateFinishedTrialError:
            pass  # another worker gave the trial up
        except OSError as err:  # the trial itself will say so too, when it ends
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
        if os.path.exists(where):
            with open(where, "rb") as file:
                if file.read(len(_SQLITE)) == _SQLITE:
                    raise InputError(
                        f"--storage {where}: this is an SQLite database; give it as "
                        f"sqlite:///{where}"
                    )
        return HeartbeatJournal(where, heartbeat)
    except OSError as err:
        raise InputError(
            f"--storage {where}: {err.strerror or err}; give a path in a writable directory"
        ) from None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AssertionError):
        raise InputError(
            f"--storage {where}: not a journal of Optuna, or damaged; give another path"
        ) from None


def _open_database(url: str, heartbeat: int) -> optuna.storages.BaseStorage:
    import sqlalchemy

    try:
        shown = sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        raise InputError(
            "--storage: not a database URL; write sqlite:///FILE, "
            "postgresql://USER:PASSWORD@HOST/DATABASE or mysql+pymysql://..., or the path of a "
            "journal file"
        ) from None
    url = _with_installed_driver(url)
    engine: dict[str, Any] = {"pool_pre_ping": True}  # connections outlive restarts of the server
    if url.startswith("sqlite"):
        engine = {"connect_args": {"timeout": 60}}  # other workers' writing is waited for
    # renamed in Optuna 4.9, see _queue_again
    new = hasattr(optuna.storages, "RetryHeartbeatStaleTrialCallback")
    callback = "heartbeat_stale_trial_callback" if new else "failed_trial_callback"
    for attempt in range(OPENING_TRIES):
        try:
            return optuna.storages.RDBStorage(
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
