"""Workers of a study, and what happens to the trials of dead ones.

A worker is one process of `paropt.py`. A trial that runs belongs to the worker that is named in its
attribute ``worker``. Workers that died are recognised at once on the machine where they ran, by
their process id and its start time, and from elsewhere by their heartbeat, which has stopped. Their
trials are failed and queued again, as Optuna does it for its relational storages.
"""

from __future__ import annotations

import copy
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from gru4rec_toolkit import processes

if TYPE_CHECKING:
    from gru4rec_toolkit.search.storage import HeartbeatStorage

# a trial whose workers die again and again may be what kills them
MOST_RETRIES = 3
# heartbeats that may be missed before a worker counts as dead
MISSED_HEARTBEATS = 3


def this_worker() -> dict[str, Any]:
    """Return what identifies this process among all that ever worked on a study."""
    return {
        "host": socket.gethostname(),
        "machine": processes.this_machine(),
        "pid": os.getpid(),
        "start": processes.start_time(os.getpid()) or 0,
    }


def is_dead(worker: dict[str, Any]) -> bool:
    """Return whether a worker is known to be dead: it ran on this machine, and runs no more."""
    here = worker.get("machine") == processes.this_machine() != processes.UNKNOWN_MACHINE
    return here and processes.is_dead(worker["pid"], worker["start"])


def worker_name(worker: dict[str, Any] | None) -> str:
    """Return a worker as people read it."""
    return f"{worker['host']}, process {worker['pid']}" if worker else "unknown"


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial again, as Optuna does it, without what the dead worker noted about it."""
    # renamed in Optuna 4.9; Python 3.8 has Optuna 4.5
    retry = getattr(optuna.storages, "RetryHeartbeatStaleTrialCallback", None)
    retry = retry or optuna.storages.RetryFailedTrialCallback
    if "log" not in trial.user_attrs:  # killed before all was suggested
        trial.params, trial.distributions = {}, {}
    trial.user_attrs = {"retry_of": trial.number}
    retry(max_retry=MOST_RETRIES)(study, trial)


class Undertaker:
    """Fails the running trials of dead workers and queues them again.

    Parameters
    ----------
    study : optuna.Study
    storage : HeartbeatStorage
        What `open_storage` returned.
    """

    def __init__(self, study: optuna.Study, storage: HeartbeatStorage) -> None:
        self.study, self.storage = study, storage
        self.study_id = storage.get_study_id_from_name(study.study_name)
        self._unclaimed_since: dict[int, float] = {}

    def look(self) -> None:
        """Look once, here and by the heartbeats."""
        now = time.monotonic()
        # the interval is always set here; in general a database may have no heartbeats
        grace = MISSED_HEARTBEATS * (self.storage.get_heartbeat_interval() or 0)
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
                queue_again(self.study, copy.deepcopy(self.storage.get_trial(trial_id)))
        except optuna.exceptions.UpdateFinishedTrialError:
            pass  # another worker was first
