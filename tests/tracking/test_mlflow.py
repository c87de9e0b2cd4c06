"""Trainings as runs of MLflow, read back with its own client."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import re
import sqlite3
import sys
import threading
import time

import numpy as np
import pytest
from helpers.epochs import made_epochs, tell

from gru4rec_toolkit.errors import InputError, Interrupted
from gru4rec_toolkit.tracking import mlflow as tracking
from gru4rec_toolkit.tracking.mlflow import MLflow

mlflow = pytest.importorskip("mlflow", reason="MLflow is installed for Python 3.10 and later")
pytest.importorskip("sqlalchemy")

COUNTER = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def database(tmp_path_factory, quiet):
    """The path of a database, which takes seconds to make; each test has an experiment in it."""
    path = tmp_path_factory.mktemp("mlflow") / "runs.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(database):
    return f"sqlite:///{database}"


@pytest.fixture
def experiment():
    return f"experiment {next(COUNTER)}"


@pytest.fixture
def runs(uri, experiment):
    """A function that returns the runs of the experiment, the first one first."""
    client = mlflow.MlflowClient(tracking_uri=uri)

    def read():
        found = client.get_experiment_by_name(experiment)
        return client.search_runs([found.experiment_id], order_by=["attributes.start_time"])

    return read


def series(uri, run, name):
    history = mlflow.MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, name)
    return [(metric.step, metric.value) for metric in history]


def test_the_run_of_a_training(uri, experiment, runs):
    epochs = made_epochs(3, lengths=(5, 20))
    settings = {"layers": [100, 50], "loss": "bpr-max", "seed": 1, "long": "x" * 9000}
    with MLflow(experiment, "my run", settings, uri) as tracker:
        tell(tracker, epochs)
        assert [run.info.status for run in runs()] == ["RUNNING"]
    (run,) = runs()
    assert (run.info.status, run.info.run_name) == ("FINISHED", "my run")
    long = run.data.params.pop("long")
    assert re.fullmatch(r"x{400,}\.\.\.", long) and len(long) <= 500
    assert run.data.params == {"layers": "[100, 50]", "loss": "bpr-max", "seed": "42"}
    assert {name: series(uri, run, name) for name in run.data.metrics} == {
        "train/loss": [(e.number, e.loss) for e in epochs],
        "train/seconds": [(e.number, e.seconds) for e in epochs],
        **{
            f"validation/{name}_at_{n}": [(e.number, e.metrics[f"{name}@{n}"]) for e in epochs]
            for n in (5, 20)
            for name in ("Recall", "MRR")
        },
    }
    assert run.info.end_time >= run.info.start_time


def test_each_training_is_a_run(uri, experiment, runs):
    tracker = MLflow(experiment, tracking_uri=uri)
    tell(tracker, made_epochs(2, seed=1))
    tell(tracker, made_epochs(3, seed=2))
    tell(tracker, made_epochs(1, seed=2))
    tracker.close()
    tell(tracker, made_epochs(2, seed=2)[1:])
    tracker.close()
    tracker.close()
    found = sorted((int(r.data.params["seed"]), len(series(uri, r, "train/loss"))) for r in runs())
    assert found == [(1, 2), (2, 1), (2, 1), (2, 3)]
    assert {run.info.status for run in runs()} == {"FINISHED"}


def test_another_seed_is_another_run_whatever_its_first_epoch(uri, experiment, runs):
    with MLflow(experiment, tracking_uri=uri) as tracker:
        tell(tracker, made_epochs(1, seed=1))
        tell(tracker, made_epochs(3, seed=2)[1:])
    assert sorted(run.data.params["seed"] for run in runs()) == ["1", "2"]


def test_a_training_that_goes_on_has_all_of_its_epochs(uri, experiment, runs):
    tracker = MLflow(experiment, tracking_uri=uri)
    tell(tracker, made_epochs(4, n_replayed=2))
    tracker.close()
    (run,) = runs()
    assert [step for step, _ in series(uri, run, "train/loss")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (InputError("the loss is NaN"), "FAILED"),
        (MemoryError(), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (Interrupted("interrupted", 130), "KILLED"),
        (SystemExit(1), "KILLED"),
    ],
)
def test_how_the_training_ended(uri, experiment, runs, error, status):
    tracker = MLflow(experiment, tracking_uri=uri)
    tell(tracker, made_epochs(1))
    tracker.close(error)
    assert [run.info.status for run in runs()] == [status]


def test_an_error_in_a_with_block_ends_the_run(uri, experiment, runs):
    with pytest.raises(ZeroDivisionError), MLflow(experiment, tracking_uri=uri) as tracker:
        tell(tracker, made_epochs(1))
        raise ZeroDivisionError
    assert [run.info.status for run in runs()] == ["FAILED"]


def test_more_parameters_than_one_request_takes(uri, experiment, runs):
    settings = {f"p{i}": i for i in range(250)}
    with MLflow(experiment, parameters=settings, tracking_uri=uri) as tracker:
        tell(tracker, made_epochs(1))
    (run,) = runs()
    assert run.data.params == {"seed": "42", **{name: str(i) for name, i in settings.items()}}


def test_odd_names_and_numbers(uri, experiment, runs):
    (epoch,) = made_epochs(1, lengths=())
    with MLflow(experiment, parameters={"a,b=c": None}, tracking_uri=uri) as tracker:
        tracker(epoch._replace(loss=np.float32(0.5), metrics={"HR (top)@5": np.float64(1)}))
    (run,) = runs()
    assert run.data.params == {"a_b_c": "None", "seed": "42"}
    assert run.data.metrics["validation/HR _top__at_5"] == 1
    assert run.data.metrics["train/loss"] == 0.5


def test_the_environment_names_the_experiment(uri, experiment, runs, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
    with MLflow() as tracker:
        tell(tracker, made_epochs(1))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", runs()[0].info.experiment_id)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    with MLflow() as tracker:
        tell(tracker, made_epochs(1))
    assert len(runs()) == 2


def test_nothing_global_is_changed(uri, experiment, capsys):
    before = dict(os.environ), mlflow.get_tracking_uri()
    with MLflow(experiment, tracking_uri=uri) as tracker:
        tell(tracker, made_epochs(1))
        assert mlflow.active_run() is None
    assert (dict(os.environ), mlflow.get_tracking_uri()) == before
    assert capsys.readouterr().out == ""


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_missing_mlflow_is_told_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match="needs the package mlflow-skinny.*`pip install mlflow-s"):
        MLflow()


def test_a_deleted_experiment_is_refused(uri, experiment):
    client = mlflow.MlflowClient(tracking_uri=uri)
    client.delete_experiment(client.create_experiment(experiment))
    with pytest.raises(InputError, match=f"{experiment} was deleted, restore it first"):
        MLflow(experiment, tracking_uri=uri)


@pytest.mark.parametrize("bad", ["nothing://there", "sqlite:////proc/none/runs.db"])
def test_an_address_that_is_none_is_refused(bad):
    with pytest.raises(InputError, match=f"^cannot track with MLflow at {bad}: .*give the address"):
        MLflow(tracking_uri=bad)


def test_a_server_that_is_not_there_is_refused_at_once():
    with http.server.HTTPServer(("127.0.0.1", 0), Service) as server:
        port = server.server_port
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        MLflow(tracking_uri=f"http://me:secret@127.0.0.1:{port}")
    assert time.monotonic() - start < 30  # MLflow itself tries for minutes
    assert f"at http://127.0.0.1:{port}: OSError: the server does not answer" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_refused(monkeypatch):
    monkeypatch.setattr(tracking, "PATIENCE", 0.2)
    start = time.monotonic()
    listening = http.server.HTTPServer(("127.0.0.1", 0), Service)  # and never accepting
    with listening as server, pytest.raises(InputError, match="timed out"):
        MLflow(tracking_uri=f"http://127.0.0.1:{server.server_port}")
    assert time.monotonic() - start < 8  # PATIENCE alone would be longer


def test_a_broken_database_is_a_warning_and_tried_again(uri, experiment, runs, database, caplog):
    def rename(old, new):
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute(f"ALTER TABLE {old} RENAME TO {new}")

    epochs = made_epochs(4)
    with MLflow(experiment, tracking_uri=uri) as tracker:
        tracker(epochs[0])
        rename("metrics", "elsewhere")
        tell(tracker, epochs[1:3])
        rename("elsewhere", "metrics")
        warned = [r.getMessage() for r in caplog.records if r.name == "gru4rec"]
        assert len(warned) == 1
        assert re.match(f"cannot track the training with MLflow at {uri}: .*metrics", warned[0])
        assert warned[0].endswith("; the training goes on, and the next epoch tries again")
        assert "\n" not in warned[0]
        tracker(epochs[3])
    (run,) = runs()
    assert [step for step, _ in series(uri, run, "train/loss")] == [1, 2, 3, 4]
    assert run.info.status == "FINISHED"


# a server that knows what a tracker asks for; a real one needs many more packages
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"experiment": {"experiment_id": "1", "lifecycle_stage": "active"}})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path.rpartition("/mlflow/")[2], asked))
        info = {"run_id": "r1", "run_uuid": "r1", "experiment_id": "1", "status": "RUNNING"}
        self.answer({"run": {"info": info, "data": {}}, "run_info": info})

    def answer(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def service(port=0):
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Service) as server:
        server.seen, server.daemon_threads = [], True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def steps(server):
    return [
        metric["step"]
        for path, asked in server.seen
        if path == "runs/log-batch"
        for metric in asked.get("metrics", [])
        if metric["key"] == "train/loss"
    ]


def test_a_server_that_goes_away_is_a_warning_and_gets_all_when_it_is_back(caplog, capsys):
    epochs = made_epochs(4)
    with service() as server:
        tracker = MLflow("any", tracking_uri=f"http://127.0.0.1:{server.server_port}")
        tracker(epochs[0])
        assert steps(server) == [1]
    start = time.monotonic()
    tell(tracker, epochs[1:3])
    assert time.monotonic() - start < 30  # MLflow itself tries for minutes
    (warned,) = [r.getMessage() for r in caplog.records if r.name == "gru4rec"]
    assert "the server does not answer" in warned
    with service(server.server_port) as server:
        tracker(epochs[3])
        assert steps(server) == [2, 3, 4]
        tracker.close()
        assert server.seen[-1][0] == "runs/update"
        assert server.seen[-1][1]["status"] == "FINISHED"
    assert capsys.readouterr().out == ""  # where results go


def test_a_server_that_stays_away_is_told_at_the_end(caplog):
    with service() as server:
        tracker = MLflow("any", tracking_uri=f"http://127.0.0.1:{server.server_port}")
    tell(tracker, made_epochs(2))
    tracker.close()
    warned = [r.getMessage() for r in caplog.records if r.name == "gru4rec"]
    assert [message.rpartition("; ")[2] for message in warned] == [
        "the training goes on, and the next epoch tries again",
        "its run is not complete there",
    ]
