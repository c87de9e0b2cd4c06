"""Trainings with everything that tracks them."""

from __future__ import annotations

import pandas as pd
import pytest

from gru4rec import GRU4Rec
from gru4rec_toolkit.tracking.logfile import LogFile
from gru4rec_toolkit.tracking.plot import Plot, is_plot
from gru4rec_toolkit.tracking.tensorboard import TensorBoard

SETTINGS = {"layers": [16], "batch_size": 8, "n_epochs": 4, "n_sample": 0}


class Ending:
    """What a training tells its callbacks; it ends the training after an epoch."""

    def __init__(self, after=None, error=None):
        self.epochs, self.errors, self.after, self.error = [], [], after, error

    def __call__(self, epoch):
        self.epochs.append(epoch)
        if epoch.number == self.after:
            raise self.error

    def close(self, error):
        self.errors.append(error)


def rows(folder):
    table = pd.read_csv(folder / "log.tsv", sep="\t", float_precision="round_trip")
    return [tuple(row) for row in table.itertuples(index=False)]


def as_rows(epochs):
    return [
        (e.seed, e.number, e.loss, e.seconds, e.n_steps, e.n_events, *e.metrics.values(), e.is_best)
        for e in epochs
    ]


def shown(folder, tag):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = accumulator.EventAccumulator(str(folder))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def trackers(folder):
    pytest.importorskip("tensorboardX")
    return [
        LogFile(folder / "log.tsv"),
        Plot(folder / "curves.png"),
        TensorBoard(folder / "board"),
    ]


def test_trainings_of_two_seeds(tmp_path, train_data, test_data):
    told = Ending()
    callbacks = [*trackers(tmp_path), told]
    for seed in (1, 2):
        gru = GRU4Rec(**SETTINGS, seed=seed)
        gru.fit(train_data, validation=test_data, callbacks=callbacks)
    assert [(e.seed, e.number) for e in told.epochs] == [
        (s, n) for s in (1, 2) for n in range(1, 5)
    ]
    assert told.errors == [None, None]
    assert not any(e.is_replay for e in told.epochs)
    assert rows(tmp_path) == as_rows(told.epochs)
    assert is_plot(str(tmp_path / "curves.png"), "png")
    for seed in (1, 2):
        for tag, name in (("validation/Recall@20", "Recall@20"), ("validation/MRR@20", "MRR@20")):
            epochs = [e for e in told.epochs if e.seed == seed]
            values = [(e.number, pytest.approx(e.metrics[name])) for e in epochs]
            assert shown(tmp_path / "board" / f"seed-{seed}", tag) == values


def test_a_training_that_is_interrupted_and_goes_on(tmp_path, train_data, test_data):
    arguments = {"validation": test_data, "checkpoint": str(tmp_path / "state")}
    ending = Ending(after=2, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        GRU4Rec(**SETTINGS).fit(train_data, callbacks=[*trackers(tmp_path), ending], **arguments)
    assert ending.errors == [ending.error]
    assert [row[1] for row in rows(tmp_path)] == [1, 2]
    told = Ending()
    resumed = [*trackers(tmp_path), told]
    GRU4Rec(**SETTINGS).fit(train_data, callbacks=resumed, resume=True, **arguments)
    assert [e.number for e in told.epochs] == [1, 2, 3, 4]
    assert told.epochs[0].is_replay and not told.epochs[-1].is_replay
    assert rows(tmp_path) == as_rows(told.epochs)
    losses = [(e.number, pytest.approx(e.loss)) for e in told.epochs]
    assert shown(tmp_path / "board" / "seed-42", "train/loss") == losses


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A database of MLflow, which takes seconds to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'runs.db'}"


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (KeyboardInterrupt, "KILLED"), (OSError, "FAILED")]
)
def test_runs_of_mlflow(uri, train_data, monkeypatch, error, status):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from gru4rec_toolkit.tracking.mlflow import MLflow

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    gru = GRU4Rec(**SETTINGS)
    tracker = MLflow(status, parameters=gru.get_params(), tracking_uri=uri)
    ending = Ending(after=None if error is None else 2, error=error and error())
    if error is None:
        gru.fit(train_data, callbacks=[tracker, ending])
    else:
        with pytest.raises(error):
            gru.fit(train_data, callbacks=[tracker, ending])
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name(status).experiment_id])
    assert run.info.status == status
    assert run.data.params["layers"] == "[16]"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(e.number, e.loss) for e in ending.epochs]


def test_a_training_imports_no_library_that_nobody_asked_for(tmp_path):
    from helpers.cli import ROOT, TRAIN, python, succeeds

    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import gru4rec
from gru4rec_toolkit.data import events
from gru4rec_toolkit.tracking.logfile import LogFile
data = events.read_events({str(TRAIN)!r})
gru4rec.GRU4Rec(layers=[16], batch_size=8, n_epochs=1, n_sample=0).fit(
    data, callbacks=[LogFile("log.tsv")]
)
print(*{{"matplotlib", "tensorboardX", "mlflow", "IPython"}} & {{*sys.modules}})
"""
    assert succeeds(python("-c", code, cwd=tmp_path)).lines[-1] == ""
    assert len(rows(tmp_path)) == 1
