"""Trainings as runs of MLflow."""

from __future__ import annotations

import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from gru4rec_toolkit import messages
from gru4rec_toolkit.errors import InputError, one_line, shortened
from gru4rec_toolkit.tracking.epochs import Epoch
from gru4rec_toolkit.tracking.libraries import import_library

logger = logging.getLogger("gru4rec")

# seconds until a server counts as one that does not answer: MLflow itself tries for minutes
PATIENCE = 10
# limits of older servers: characters of a parameter's value, parameters of one request
_LONGEST_VALUE, _MOST_PARAMETERS = 500, 100


class MLflow:
    """Runs of MLflow, one for each training, for `GRU4Rec.fit`'s ``callbacks``.

    A run has the parameters, and with each epoch as the step ``train/loss``, ``train/seconds`` and,
    with validation, ``validation/Recall_at_20`` and the other metrics (MLflow allows no @ in their
    names). It is FINISHED when the training ends well, FAILED after an error and KILLED after an
    interrupt. A training that goes on from a checkpoint is a new run, with all of its epochs. No
    run is active, and nothing that is set in MLflow is changed.

    Parameters
    ----------
    experiment : str, optional
        Name of the experiment, which is made if there is none. Default: the one that MLflow's
        environment variables name, else MLflow's own.
    run_name : str, optional
        Default: MLflow invents one.
    parameters : mapping of str to value, optional
        Those of the model, as `GRU4Rec.get_params` returns them; ``seed`` is always the training's.
    tracking_uri : str, optional
        Address of a server or a database. Default: what is set in MLflow or its environment
        variables, else a database in the working directory.

    Raises
    ------
    InputError
        If MLflow is missing, or the server or database cannot be used. Later, while a training
        runs, a failure is a warning, and the next epoch tries again.

    Notes
    -----
    `close` ends a run, which `GRU4Rec.fit` calls. Elsewhere use ``with MLflow(...) as runs:``.
    """

    def __init__(
        self,
        experiment: str | None = None,
        run_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        mlflow = import_library("mlflow", "tracking with MLflow", "mlflow-skinny")
        if messages.is_quiet():  # it tells of a database that it makes
            logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._uri = str(tracking_uri or mlflow.get_tracking_uri())
        self._run_name = run_name
        self._parameters = dict(parameters or {})
        try:
            _check_server(self._uri)
            with messages.beside_the_results():  # it prints the address of a run
                self._client = mlflow.MlflowClient(tracking_uri=self._uri)
                self._experiment = _experiment_id(self._client, experiment)
        except Exception as err:  # MLflow's, its databases' and their drivers'
            raise InputError(
                f"cannot track with MLflow at {_public(self._uri)}: {self._reason(err)}; give the "
                "address of a server that runs or of a database, or train without MLflow"
            ) from None
        self._run: str | None = None
        self._has_parameters = False
        self._epochs: list[Epoch] = []  # the present training's
        self._times: list[int] = []  # when they ended, in ms
        self._n_sent = 0
        self._has_warned = False

    def __call__(self, epoch: Epoch) -> None:
        """Send an epoch, the first one of a training in a new run."""
        last = self._epochs[-1] if self._epochs else None
        if last is not None and (epoch.seed != last.seed or epoch.number <= last.number):
            self.close()
        self._epochs.append(epoch)
        self._times.append(int(time.time() * 1000))
        self._try(self._send, "the training goes on, and the next epoch tries again")

    def close(self, error: BaseException | None = None) -> None:
        """End the run of a training; others may follow.

        Parameters
        ----------
        error : exception, optional
            What ended the training; None if it ended well.
        """
        if self._epochs:
            self._has_warned = False  # this is another thing to know
            self._try(lambda: self._end(_status(error)), "its run is not complete there")
        self._run, self._has_parameters, self._n_sent = None, False, 0
        self._epochs, self._times = [], []

    def __enter__(self) -> MLflow:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.close(error)

    def _try(self, action: Any, consequence: str) -> None:
        """Do something with the server; warn of the first failure."""
        try:
            _check_server(self._uri)
            with messages.beside_the_results():
                action()
        except Exception as err:  # MLflow's, its databases' and their drivers'
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "cannot track the training with MLflow at %s: %s; %s",
                    _public(self._uri),
                    self._reason(err),
                    consequence,
                )

    def _reason(self, err: Exception) -> str:
        # errors of databases repeat the address
        return shortened(one_line(err).replace(self._uri, _public(self._uri)), 400)

    def _send(self) -> None:
        from mlflow.entities import Metric, Param

        if self._run is None:
            run = self._client.create_run(
                self._experiment, start_time=self._start(), run_name=self._run_name
            )
            self._run = run.info.run_id
        if not self._has_parameters:
            values = {**self._parameters, "seed": self._epochs[0].seed}
            params = [Param(_key(name), _text(value)) for name, value in values.items()]
            for i in range(0, len(params), _MOST_PARAMETERS):
                self._client.log_batch(self._run, params=params[i : i + _MOST_PARAMETERS])
            self._has_parameters = True
        while self._n_sent < len(self._epochs):
            epoch, now = self._epochs[self._n_sent], self._times[self._n_sent]
            metrics = [Metric(name, x, now, epoch.number) for name, x in _metrics(epoch).items()]
            self._client.log_batch(self._run, metrics=metrics)
            self._n_sent += 1

    def _start(self) -> int:
        """Return when the training began, in ms: before its first epoch that is new."""
        first = self._epochs[0]
        return self._times[0] - int(0 if first.is_replay else first.seconds * 1000)

    def _end(self, status: str) -> None:
        self._send()
        self._client.set_terminated(self._run, status, end_time=int(time.time() * 1000))


def _status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    return "FAILED" if isinstance(error, Exception) else "KILLED"


def _metrics(epoch: Epoch) -> dict[str, float]:
    values = {"train/loss": epoch.loss, "train/seconds": epoch.seconds}
    values.update((f"validation/{name}", value) for name, value in epoch.metrics.items())
    return {_key(name): float(value) for name, value in values.items()}


def _key(name: str) -> str:
    """Return a name with those characters alone that MLflow allows."""
    return re.sub(r"[^/\w.\- ]", "_", str(name).replace("@", "_at_"))


def _text(value: object) -> str:
    return shortened(str(value), _LONGEST_VALUE - 3)


def _experiment_id(client: Any, name: str | None) -> str:
    """Return the id of an experiment, which is made if there is none of this name."""
    if name is None:
        if os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return client.get_experiment(os.environ["MLFLOW_EXPERIMENT_ID"]).experiment_id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name)
    if found.lifecycle_stage != "active":
        raise InputError(f"the experiment {shortened(name)} was deleted, restore it first")
    return found.experiment_id


def _check_server(uri: str) -> None:
    """Raise an OSError if a server does not answer.

    Whatever it answers is left to MLflow, and so are certificates, which may be set for MLflow.
    """
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=PATIENCE):
            pass
    except urllib.error.HTTPError:
        pass
    except urllib.error.URLError as err:
        if "certificate" not in str(err.reason).lower():
            raise OSError(f"the server does not answer ({err.reason})") from None


def _public(uri: str) -> str:
    """Return an address without a password."""
    return re.sub(r"://[^@/]*@", "://", uri)
