"""Trainings in TensorBoard, read back with TensorBoard's own reader."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers.cli import ROOT, files_in
from helpers.epochs import made_epochs, tell

from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.tracking.tensorboard import TensorBoard, scalars

pytest.importorskip("tensorboardX")
event_accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="tensorboard is installed for Python 3.10 and later",
)


def shown(folder):
    """The scalars of a run by tag: (step, value), as TensorBoard shows them."""
    reader = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def expected(epochs):
    def series(value_of):
        return [(epoch.number, pytest.approx(value_of(epoch))) for epoch in epochs]

    values = {
        "train/loss": series(lambda e: e.loss),
        "train/mini-batches per second": series(lambda e: e.n_steps / e.seconds),
        "train/events per second": series(lambda e: e.n_events / e.seconds),
    }
    for name in epochs[0].metrics:
        values[f"validation/{name}"] = series(lambda e, name=name: e.metrics[name])
    return values


def test_the_scalars_of_a_training(tmp_path):
    epochs = made_epochs(3, lengths=(5, 20))
    board = TensorBoard(tmp_path / "new" / "runs")
    assert files_in(tmp_path) == {}
    tell(board, epochs)
    board.close()
    assert shown(tmp_path / "new" / "runs" / "seed-42") == expected(epochs)


def test_an_epoch_is_shown_at_once(tmp_path):
    board = TensorBoard(tmp_path)
    epochs = made_epochs(2)
    for n, epoch in enumerate(epochs, start=1):
        board(epoch)
        assert shown(tmp_path / "seed-42") == expected(epochs[:n])


def test_each_seed_is_a_run(tmp_path):
    board = TensorBoard(tmp_path)
    for seed in (1, 2):
        tell(board, made_epochs(2, seed))
    board.close()
    for seed in (1, 2):
        assert shown(tmp_path / f"seed-{seed}") == expected(made_epochs(2, seed))


def test_another_seed_is_another_run_whatever_its_first_epoch(tmp_path):
    board = TensorBoard(tmp_path)
    tell(board, made_epochs(1, seed=1))
    later = made_epochs(3, seed=2)[1:]
    tell(board, later)
    assert shown(tmp_path / "seed-1") == expected(made_epochs(1, seed=1))
    assert shown(tmp_path / "seed-2") == expected(later)


def test_a_training_that_goes_on_shows_each_epoch_once(tmp_path):
    tell(TensorBoard(tmp_path), made_epochs(4, loss=5.0))  # killed in its fifth epoch
    again = made_epochs(6, loss=6.0, n_replayed=3)
    tell(TensorBoard(tmp_path), again)
    assert shown(tmp_path / "seed-42") == expected(again)


def test_a_training_that_is_repeated_takes_the_place_of_the_other(tmp_path):
    board = TensorBoard(tmp_path)
    tell(board, made_epochs(4, loss=5.0))
    again = made_epochs(2, loss=6.0)
    tell(board, again)
    assert shown(tmp_path / "seed-42") == expected(again)


def test_many_starts_in_one_second_stay_in_order(tmp_path):
    for loss in range(20):
        board = TensorBoard(tmp_path)
        tell(board, made_epochs(1, loss=float(loss)))
        board.close()
    assert len([*(tmp_path / "seed-42").iterdir()]) == 20
    assert shown(tmp_path / "seed-42") == expected(made_epochs(1, loss=19.0))


def test_numbers_of_numpy_are_taken(tmp_path):
    (epoch,) = made_epochs(1, lengths=())
    odd = epoch._replace(loss=np.float32(2), metrics={"MRR@20": np.float64(0.5)})
    assert {type(value) for value in scalars(odd).values()} == {float}
    TensorBoard(tmp_path)(odd)
    found = shown(tmp_path / "seed-42")
    assert (found["train/loss"], found["validation/MRR@20"]) == ([(1, 2.0)], [(1, 0.5)])


def test_an_epoch_that_took_no_time_has_no_speed(tmp_path):
    (epoch,) = made_epochs(1, lengths=())
    TensorBoard(tmp_path)(epoch._replace(seconds=0.0))
    assert [*shown(tmp_path / "seed-42")] == ["train/loss"]


def test_a_killed_training_loses_nothing(tmp_path):
    code = """
import os, signal, sys
sys.path[:0] = sys.argv[1:]
from helpers.epochs import made_epochs, tell
from gru4rec_toolkit.tracking.tensorboard import TensorBoard
tell(TensorBoard("runs"), made_epochs(2))
os.kill(os.getpid(), signal.SIGKILL)
"""
    paths = [str(ROOT), str(ROOT / "tests")]
    done = subprocess.run([sys.executable, "-c", code, *paths], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert shown(tmp_path / "runs" / "seed-42") == expected(made_epochs(2))


@pytest.mark.parametrize("name", ["", "file", "file/runs", "link", "a\0b", "x" * 300])
def test_what_cannot_be_a_directory_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("none")
    before = files_in(tmp_path)
    with pytest.raises(InputError, match="^cannot write files for TensorBoard to .*; give a dir"):
        TensorBoard(name)
    assert files_in(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_refused(tmp_path):
    (tmp_path / "mine").mkdir(mode=0o500)
    with pytest.raises(InputError, match="Permission denied"):
        TensorBoard(tmp_path / "mine" / "runs")


def test_a_missing_library_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match="needs the package tensorboardX.*`pip install tensorb"):
        TensorBoard(tmp_path)


def test_a_full_disk_is_a_warning_and_tried_again(tmp_path, caplog, full_disk):
    board = TensorBoard(tmp_path)
    epochs = made_epochs(6)
    tell(board, epochs[:2])
    (before,) = (tmp_path / "seed-42").iterdir()
    full_disk(before.stat().st_size + 50)  # ends within a record
    tell(board, epochs[2:3])
    full_disk(60)
    tell(board, epochs[3:5])
    full_disk()
    (record,) = caplog.records
    assert re.fullmatch(
        "cannot write files for TensorBoard to .*: File too large; the training goes on, and the "
        "next epoch tries again",
        record.getMessage(),
    )
    board(epochs[5])
    assert shown(tmp_path / "seed-42") == expected(epochs)


def test_what_could_not_be_written_is_tried_at_the_end(tmp_path, full_disk):
    board = TensorBoard(tmp_path)
    full_disk(10)
    tell(board, made_epochs(2))
    full_disk()
    board.close(KeyboardInterrupt())
    assert shown(tmp_path / "seed-42") == expected(made_epochs(2))
