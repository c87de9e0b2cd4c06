"""Where studies are kept: in a journal or in a database, both with heartbeats."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
import urllib.parse
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Union

import optuna
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import TrialState

from gru4rec_toolkit import messages
from gru4rec_toolkit.errors import InputError, one_line, pip_install
from gru4rec_toolkit.search.journal import (
    SQLITE,
    DamagedJournal,
    JournalFile,
    check_journal,
    check_kind,
)
from gru4rec_toolkit.search.undertaker import MISSED_HEARTBEATS, queue_again

logger = logging.getLogger("gru4rec")
# workers that make an empty database's tables at the same time get in each other's way
OPENING_TRIES = 8
KINDS = (
    "write sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DATABASE or mysql+pymysql://..., or the "
    "path of a journal file"
)
# what Optuna raises when it replays a record whose contents it cannot use
_UNUSABLE = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError,
    RecursionError,
)  # fmt: skip


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
            logger.warning("no heartbeat: %s", err)

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
        return queue_again

    def get_failed_trial_callback(self) -> Callable:
        return queue_again  # the name until Optuna 4.9


def open_storage(where: str, heartbeat: int) -> HeartbeatStorage:
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
            f"--storage: not a database URL; {KINDS}"
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

    check_kind(path)
    with open(path, "rb") as file:
        begin = file.read(len(SQLITE))
    if not begin:
        return
    if begin != SQLITE:
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
            logger.warning("no heartbeat: %s", one_line(err.__cause__ or err))


HeartbeatStorage = Union[HeartbeatJournal, HeartbeatDatabase]


def _open_database(url: str, heartbeat: int) -> HeartbeatDatabase:
    import sqlalchemy

    shown, _ = _parsed(url)
    url = _with_installed_driver(url)
    engine: dict[str, Any] = {"pool_pre_ping": True}  # connections outlive restarts of the server
    if url.startswith("sqlite"):
        engine = {"connect_args": {"timeout": 60}}  # other workers' writing is waited for
    # renamed in Optuna 4.9, see undertaker.queue_again
    new = hasattr(optuna.storages, "RetryHeartbeatStaleTrialCallback")
    callback = "heartbeat_stale_trial_callback" if new else "failed_trial_callback"
    options: dict[str, Any] = {callback: queue_again}
    for attempt in range(OPENING_TRIES):
        try:
            return HeartbeatDatabase(
                url,
                engine_kwargs=engine,
                heartbeat_interval=heartbeat,
                grace_period=MISSED_HEARTBEATS * heartbeat,
                **options,
            )
        except sqlalchemy.exc.NoSuchModuleError:
            raise InputError(
                f"--storage {shown}: there is no such kind of database; {KINDS}"
            ) from None
        except ImportError as err:
            reason = str(err.__cause__ or err)
            raise InputError(
                f"--storage {shown}: {reason}; install the database's driver, for PostgreSQL with "
                f"`{pip_install('psycopg2-binary')}`"
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
    """Silence warnings about what is used here on purpose, and tracebacks of failed trials.

    Its messages go where ours go.
    """
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    if messages.is_quiet():
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    logging.getLogger("optuna.study._optimize").addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = None
    return True
