"""Tables of trainings, one row an epoch."""

from __future__ import annotations

import logging
import os

import numpy as np
import pandas as pd
import pytest
from helpers.cli import files_in
from helpers.epochs import made_epochs, tell

from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.tracking.logfile import LogFile


def read(path):
    return pd.read_csv(path, sep="\t", float_precision="round_trip")


def test_the_rows_are_exact(tmp_path):
    epochs = made_epochs(4, lengths=(5, 20), best=3)
    tell(LogFile(tmp_path / "log.tsv"), epochs)
    metrics = ["Recall@5", "MRR@5", "Recall@20", "MRR@20"]
    table = read(tmp_path / "log.tsv")
    before = ["Seed", "Epoch", "Loss", "Seconds", "MiniBatches", "Events"]
    assert [*table.columns] == [*before, *metrics, "Best"]
    assert table.to_numpy().tolist() == [
        [
            *(42, e.number, e.loss, e.seconds, e.n_steps, e.n_events),
            *(e.metrics[name] for name in metrics),
            int(e.number <= 3),
        ]
        for e in epochs
    ]


def test_without_validation_there_are_no_metrics(tmp_path):
    tell(LogFile(tmp_path / "log.tsv"), made_epochs(1, lengths=()))
    header = (tmp_path / "log.tsv").read_text().splitlines()[0]
    assert header == "Seed\tEpoch\tLoss\tSeconds\tMiniBatches\tEvents"


def test_numbers_of_numpy_are_written_as_numbers(tmp_path):
    (epoch,) = made_epochs(1)
    odd = epoch._replace(
        loss=np.float32(0.1), seed=np.int64(7), is_best=np.True_, metrics={"MRR@20": np.float64(2)}
    )
    LogFile(tmp_path / "log.tsv")(odd)
    row = (tmp_path / "log.tsv").read_text().splitlines()[1].split("\t")
    assert (row[0], row[2], row[6:]) == ("7", repr(float(np.float32(0.1))), ["2.0", "1"])


def test_the_file_is_whole_after_every_epoch(tmp_path):
    log = LogFile(tmp_path / "log.tsv")
    for n, epoch in enumerate(made_epochs(3), start=1):
        log(epoch)
        assert read(tmp_path / "log.tsv")["Epoch"].tolist() == [*range(1, n + 1)]
        assert [*files_in(tmp_path)] == ["log.tsv"]


def test_trainings_of_several_seeds_stay(tmp_path):
    log = LogFile(tmp_path / "log.tsv")
    for seed in (3, 1, 2):
        tell(log, made_epochs(2, seed))
    table = read(tmp_path / "log.tsv")
    assert table[["Seed", "Epoch"]].to_numpy().tolist() == [
        [seed, epoch] for seed in (3, 1, 2) for epoch in (1, 2)
    ]


def test_a_training_that_goes_on_replaces_its_rows(tmp_path):
    log = LogFile(tmp_path / "log.tsv")
    tell(log, made_epochs(2, seed=1))
    tell(log, made_epochs(4, seed=2, loss=5.0))
    tell(log, made_epochs(5, seed=2, loss=6.0, n_replayed=2)[:3])
    table = read(tmp_path / "log.tsv")
    assert table["Seed"].tolist() == [1, 1, 2, 2, 2]
    assert table["Epoch"].tolist() == [1, 2, 1, 2, 3]
    assert (table["Loss"] > 6).tolist() == [False, False, True, True, True]


def test_an_interrupted_trainings_file_is_written_again_by_its_replay(tmp_path):
    tell(LogFile(tmp_path / "log.tsv"), made_epochs(3))
    resumed = LogFile(tmp_path / "log.tsv")
    assert len(read(tmp_path / "log.tsv")) == 3  # until there is something better
    tell(resumed, made_epochs(4, n_replayed=2))
    assert read(tmp_path / "log.tsv")["Epoch"].tolist() == [1, 2, 3, 4]


def test_trainings_with_other_metrics_share_a_table(tmp_path):
    log = LogFile(tmp_path / "log.tsv")
    tell(log, made_epochs(1, seed=1, lengths=()))
    tell(log, made_epochs(1, seed=2, lengths=(5,)))
    table = read(tmp_path / "log.tsv")
    assert [*table.columns[6:]] == ["Recall@5", "MRR@5", "Best"]
    assert table.iloc[0, 6:].isna().all() and table.iloc[1, 6:].notna().all()


# --- what may be written --------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "SessionId\tItemId\n", "Seed\tEpoch\tLoss\n", "Seed"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "log.tsv"
    path.write_text(content)
    with pytest.raises(InputError, match="exists and is not a log of a training.*--force.*force=T"):
        LogFile(path)
    assert path.read_text() == content
    tell(LogFile(path, force=True), made_epochs(1))
    assert len(read(path)) == 1


def test_a_file_that_is_needed_is_refused_even_by_force(tmp_path):
    (tmp_path / "train.tsv").write_text("SessionId\n")
    needed = {"the training data": tmp_path / "train.tsv"}
    with pytest.raises(InputError, match="train.tsv: it is the training data"):
        LogFile(tmp_path / "train.tsv", force=True, inputs=needed)


@pytest.mark.parametrize("name", ["", ".", "none/log.tsv", "file/log.tsv", "a\0b"])
def test_a_path_that_cannot_be_written_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="^cannot write the log of the training to .*give"):
        LogFile(name)


@pytest.mark.parametrize("path", [None, 3, b"log.tsv"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(InputError, match="expected a path"):
        LogFile(path)


def test_the_path_stays_when_the_directory_changes(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    log = LogFile("log.tsv")
    monkeypatch.chdir(tmp_path / "other")
    tell(log, made_epochs(1))
    assert [*files_in(tmp_path)] == ["log.tsv", "other"]


# --- failures while a training runs ---------------------------------------------------------------


def test_a_full_disk_is_a_warning_and_tried_again(tmp_path, caplog, full_disk):
    path = tmp_path / "log.tsv"
    log = LogFile(path)
    first, second, third, fourth = made_epochs(4)
    log(first)
    before = path.read_bytes()
    full_disk(100)
    log(second)
    log(third)
    full_disk()
    assert path.read_bytes() == before
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("gru4rec", logging.WARNING)
    assert record.getMessage() == (
        f"cannot write the log of the training to {path}: File too large; the training goes on, "
        "and the next epoch tries again"
    )
    log(fourth)
    assert read(path)["Epoch"].tolist() == [1, 2, 3, 4]
    assert [*files_in(tmp_path)] == ["log.tsv"]


def test_a_file_that_somebody_has_put_there_since_stays(tmp_path, caplog):
    log = LogFile(tmp_path / "log.tsv")
    (tmp_path / "log.tsv").write_text("mine")
    tell(log, made_epochs(2))
    assert (tmp_path / "log.tsv").read_text() == "mine"
    (record,) = caplog.records
    assert "it exists and is not a log of a training" in record.getMessage()
    os.remove(tmp_path / "log.tsv")
    tell(log, made_epochs(3)[2:])
    assert len(read(tmp_path / "log.tsv")) == 3
