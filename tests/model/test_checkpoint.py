"""Trainings that are interrupted and go on: the weights of one that nothing interrupts."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from helpers.cli import (
    ROOT,
    TEST,
    TRAIN,
    complaint,
    environment,
    own_signals,
    run_py,
    succeeds,
)
from helpers.on_gpu import runs
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec import GRU4Rec
from gru4rec_toolkit import container, parameters
from gru4rec_toolkit.errors import InputError, Interrupted
from gru4rec_toolkit.model import checkpoint, training

BASE = {"layers": [8], "batch_size": 8, "n_sample": 16, "n_epochs": 3}
XE = {"loss": "cross-entropy", "final_act": "softmax", "logq": 1.0}
MODELS = {
    "plain": {},
    "adam, momentum, random order": {
        **{"layers": [6, 5], "adapt": "adam", "momentum": 0.1, "lmbd": 1e-4},
        **{"train_random_order": True, "dropout_p_hidden": 0.2},
    },
    "merged, shared": {**XE, "constrained_embedding": True, "dropout_p_embed": 0.3},
    "no samples": {**XE, "logq": 0.0, "n_sample": 0, "embedding": 5, "adapt": "rmsprop"},
    "adadelta": {"adapt": "adadelta", "grad_cap": 0.5, "final_act": "elu-0.5"},
    "sgd": {"adapt": None, "learning_rate": 0.05},
    "windows": {"bptt": 3, "dropout_mask": "sequence", "dropout_p_hidden": 0.3, "adapt": "adam"},
}


class Stop(Exception):
    """What a test ends a training with."""


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return pd.read_csv(TRAIN, sep="\t")


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    monkeypatch.setattr(training, "BLOCK_STEPS", 16)


@pytest.fixture(autouse=True)
def interrupts_reach_python():
    """Shells let what they start in the background, perhaps these tests, ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fitted(values: dict, data, **options) -> GRU4Rec:
    gru = GRU4Rec(**{**BASE, **values})
    gru.fit(data, **{"sample_store": 500, **options})
    return gru


def equal(a: GRU4Rec, b: GRU4Rec) -> bool:
    left, right = a.weights(), b.weights()
    return all(left[name].tobytes() == right[name].tobytes() for name in left)


def stop_after(monkeypatch, n_blocks: int, stop) -> None:
    """Call something when a training has run so many blocks."""
    run_block, n_run = training.Training.run_block, [0]

    def counting(self, *args):
        found = run_block(self, *args)
        n_run[0] += 1
        if n_run[0] == n_blocks:
            stop()
        return found

    monkeypatch.setattr(training.Training, "run_block", counting)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def fail() -> None:
    raise Stop


@pytest.mark.parametrize(
    ("name", "n_blocks"), [*((name, 14) for name in MODELS), ("plain", 1), ("sgd", 30)]
)
def test_interrupted_anywhere(data, tmp_path, monkeypatch, capsys, name, n_blocks):
    whole = fitted(MODELS[name], data)
    losses = re.findall(r"Epoch\d --> loss: \S+", capsys.readouterr().out)
    with monkeypatch.context() as patch:
        stop_after(patch, n_blocks, interrupt)
        with pytest.raises(Interrupted, match=r"--resume goes on from the checkpoint"):
            fitted(MODELS[name], data, checkpoint=str(tmp_path))
    found = re.findall(r"Epoch\d --> loss: \S+", capsys.readouterr().out)
    resumed = fitted(MODELS[name], data, checkpoint=str(tmp_path), resume=True)
    assert equal(whole, resumed)
    found += re.findall(r"Epoch\d --> loss: \S+", capsys.readouterr().out)
    assert found == losses


@settings(max_examples=6, deadline=None)
@given(
    ends=st.lists(st.integers(1, 25), min_size=1, max_size=3),
    name=st.sampled_from(["plain", "adam, momentum, random order", "windows"]),
    store=st.sampled_from([0, 100, 1000, 10**6]),
)
def test_failures_between_checkpoints(data, tmp_path_factory, ends, name, store):
    """What was done after the last checkpoint is done again, with other parts of the store."""
    directory = str(tmp_path_factory.mktemp("checkpoints"))
    whole = fitted(MODELS[name], data)
    for n_blocks in ends:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "BLOCK_STEPS", 16)
            stop_after(patch, n_blocks, fail)
            try:
                fitted(MODELS[name], data, sample_store=store, checkpoint=directory, resume=True)
            except Stop:
                continue
    assert equal(whole, fitted(MODELS[name], data, checkpoint=directory, resume=True))


def test_after_minutes(data, tmp_path, monkeypatch):
    written = []
    write = checkpoint.Checkpoints.write
    monkeypatch.setattr(
        checkpoint.Checkpoints,
        "write",
        lambda self, t: (written.append((t.epoch, t.block_number)), write(self, t)),
    )
    fitted({}, data, checkpoint=str(tmp_path / "epochs"))
    assert written == [(1, 0), (2, 0), (3, 0)]
    written.clear()
    fitted({}, data, checkpoint=str(tmp_path / "minutes"), checkpoint_minutes=60)
    assert written == [(1, 0), (2, 0), (3, 0)]
    written.clear()
    fitted({}, data, checkpoint=str(tmp_path / "blocks"), checkpoint_minutes=0)
    per_epoch = len(written) // 3
    assert written[:per_epoch] == [(0, n) for n in range(1, per_epoch)] + [(1, 0)]


def test_what_is_called_after_an_epoch(data, tmp_path):
    """An epoch whose evaluation failed is not trained again; it is evaluated again."""
    seen = []

    def after_epoch(epoch: int) -> None:
        seen.append(epoch)
        if seen == [1, 2]:
            raise Stop

    options = {"after_epoch": after_epoch, "checkpoint": str(tmp_path)}
    with pytest.raises(Stop):
        fitted({}, data, **options)
    resumed = fitted({}, data, **options, resume=True)
    assert seen == [1, 2, 2, 3] and equal(resumed, fitted({}, data))


@pytest.mark.parametrize("epoch", [2, 3])
def test_an_interrupt_of_what_is_called_after_an_epoch(data, tmp_path, epoch):
    """It ends the training after that, also where no further block of steps comes."""

    def after_epoch(number: int) -> None:
        if number == epoch:
            interrupt()

    with pytest.raises(Interrupted):
        fitted({}, data, after_epoch=after_epoch, checkpoint=str(tmp_path))
    assert equal(fitted({}, data, checkpoint=str(tmp_path), resume=True), fitted({}, data))


def test_the_data_is_looked_at_once(data, tmp_path, monkeypatch):
    n_digests, data_digest = [], checkpoint.data_digest
    monkeypatch.setattr(
        checkpoint, "data_digest", lambda log: (n_digests.append(1), data_digest(log))[1]
    )
    fitted({}, data, checkpoint=str(tmp_path), checkpoint_minutes=0)
    assert len(n_digests) == 1


def test_a_finished_training(data, tmp_path):
    whole = fitted({}, data, checkpoint=str(tmp_path))
    again = fitted({}, data, checkpoint=str(tmp_path), resume=True)
    assert equal(whole, again)


def test_retraining(data, tmp_path, monkeypatch):
    low, high = np.quantile(data.SessionId, [0.4, 0.6])
    first, second = data[data.SessionId < high], data[data.SessionId >= low]
    start = fitted({}, first)
    start.savemodel(str(tmp_path / "model"))
    start.fit(second, sample_store=500, retrain=True)
    options = {"sample_store": 500, "retrain": True, "checkpoint": str(tmp_path / "c")}
    with monkeypatch.context() as patch:
        stop_after(patch, 9, interrupt)
        with pytest.raises(Interrupted):
            GRU4Rec.loadmodel(str(tmp_path / "model")).fit(second, **options)
    again = GRU4Rec.loadmodel(str(tmp_path / "model"))
    again.fit(second, **options, resume=True)
    assert equal(start, again) and (start.support == again.support).all()


def test_the_second_interrupt_comes_at_once(data, tmp_path, monkeypatch):
    stop_after(monkeypatch, 3, lambda: (interrupt(), interrupt()))
    with pytest.raises(KeyboardInterrupt) as found:
        fitted({}, data, checkpoint=str(tmp_path))
    assert not isinstance(found.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_elsewhere_on_a_gpu(gpu):
    gpu.runs(__file__, "anywhere and (adam or merged)")


@pytest.mark.parametrize("flags", ["floatX=float64", "blas.ldflags="])
def test_elsewhere_on_the_cpu(flags):
    """Where the toolkit's own Ops do not run, Theano's streams of random numbers are the state."""
    runs(__file__, f"device=cpu,{flags}", "anywhere and adam")


# ---------------------------------------------------------------------------- what is refused


@pytest.fixture
def written(data, tmp_path, monkeypatch):
    """Return the directory of a training that was interrupted."""
    with monkeypatch.context() as patch:
        stop_after(patch, 3, interrupt)
        with pytest.raises(Interrupted):
            fitted({}, data, checkpoint=str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.2}, r"with learning_rate=0\.1, but now it is 0\.2"),
        ({"n_epochs": 4}, "with n_epochs=3, but now it is 4"),
        ({"layers": [9]}, "with layers="),
        ({"seed": 7}, "with seed=42, but now it is 7"),
    ],
)
def test_other_parameters(data, written, change, message):
    before = (written / checkpoint.FILE_NAME).read_bytes()
    with pytest.raises(InputError, match=message):
        fitted(change, data, checkpoint=str(written), resume=True)
    assert (written / checkpoint.FILE_NAME).read_bytes() == before


def test_other_data(data, written):
    swapped = data.copy()
    swapped.loc[swapped.index[-1], "ItemId"] = swapped.ItemId.iloc[0]
    for other in (data.iloc[:-3], swapped, data.assign(ItemId=data.ItemId + 1)):
        with pytest.raises(InputError, match="on other data"):
            fitted({}, other, checkpoint=str(written), resume=True)


def test_a_checkpoint_is_not_begun_anew_by_mistake(data, written):
    with pytest.raises(InputError, match="go on with it .--resume, in Python resume=True."):
        fitted({}, data, checkpoint=str(written))


def test_other_starts(data, tmp_path, monkeypatch):
    """A retraining is another training than one that begins anew, or from another model."""
    bases = [fitted({"n_epochs": 1, "seed": seed}, data) for seed in (1, 2)]
    for i, base in enumerate(bases):
        base.savemodel(str(tmp_path / f"base{i}"))
    options = {"sample_store": 500, "checkpoint": str(tmp_path / "c")}

    def retrained(i: int, **more) -> None:
        gru = GRU4Rec.loadmodel(str(tmp_path / f"base{i}"))
        gru.set_params(n_epochs=3, seed=42)
        gru.fit(data, **options, retrain=True, **more)

    with monkeypatch.context() as patch:
        stop_after(patch, 3, interrupt)
        with pytest.raises(Interrupted):
            retrained(0)
    with pytest.raises(InputError, match="that went on from another model"):
        retrained(1, resume=True)
    with pytest.raises(InputError, match=r"that went on from a model .--retrain., and this one"):
        fitted({}, data, **options, resume=True)
    retrained(0, resume=True)


def test_a_retraining_does_not_go_on_from_a_training(data, written):
    gru = fitted({}, data)
    with pytest.raises(InputError, match=r"that began anew, and this one goes on from a model"):
        gru.fit(data, checkpoint=str(written), resume=True, retrain=True)


@pytest.mark.parametrize("name", ["network", "floatX"])
def test_other_networks_and_types(data, written, name):
    path = written / checkpoint.FILE_NAME
    state, arrays = header_of(path)
    state[name] = "another"
    with open(path, "wb") as file:
        container.write(checkpoint._KIND, file, {"training": state}, arrays)
    with pytest.raises(InputError, match=f"with {name}='another', but now it is"):
        fitted({}, data, checkpoint=str(written), resume=True)


def test_another_working_directory(data, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    fitted({}, data, checkpoint="c", after_epoch=lambda _: os.chdir(tmp_path / "elsewhere"))
    assert (tmp_path / "c" / checkpoint.FILE_NAME).exists()


def test_models_stay_what_they_are_if_a_checkpoint_does_not_fit(data, written):
    gru = fitted({}, data)
    before = gru.weights()
    gru.learning_rate = 0.3
    with pytest.raises(InputError, match="with learning_rate"):
        gru.fit(data, checkpoint=str(written), resume=True)
    assert all((gru.weights()[name] == before[name]).all() for name in before)


def header_of(path) -> dict:
    return container.read(checkpoint._KIND, str(path), "training")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, a: s.update(epoch=-1), "epoch is -1"),
        (lambda s, a: s.update(epoch=True), "epoch is True"),
        (lambda s, a: s.update(block=1.5), "block is 1.5"),
        (lambda s, a: s.pop("served"), "'served'"),
        (lambda s, a: s.update(seconds="soon"), "does not fit"),
        (lambda s, a: s.update(seconds=10**400), "seconds is 1000"),
        (lambda s, a: s.update(seconds=float("nan")), "seconds is nan"),
        (lambda s, a: s.update(epoch=10**12), "epoch is 1000000000000"),
        (lambda s, a: s.update(block=10**30), "block is 1000"),
        (lambda s, a: s.update(served=10**30), "served is 1000"),
        (lambda s, a: a.pop("Wy"), "other variables"),
        (lambda s, a: a.update(more=np.zeros(3)), "other variables"),
        (lambda s, a: a.update(Wy=np.zeros((3, 8), np.float32)), r"Wy has the shape \(3, 8\)"),
        (lambda s, a: a.update(Wy=a["Wy"].astype(np.float64)), "type float64"),
        (lambda s, a: a.update(H0=np.zeros((8, 9), np.float32)), r"H0 has the shape"),
        (lambda s, a: a.pop("epoch.costs"), "epoch.costs"),
        (lambda s, a: a.pop("epochs.seconds"), "records of its epochs"),
        (lambda s, a: a.update({"epochs.loss": np.zeros(9)}), "records of its epochs"),
        (lambda s, a: a.update({"best.Wy": a["Wy"]}), "weights of its best epoch"),
        (lambda s, a: s.update(validation={}), "with another validation"),
        (lambda s, a: a.update({"epoch.rows": a["epoch.rows"][:-1]}), "losses of its epoch"),
        (lambda s, a: s.update(block=0), "losses of its epoch"),
        (lambda s, a: a["epoch.rows"].fill(0), "losses of its epoch"),
        (lambda s, a: a["epoch.costs"].fill(np.nan), "losses of its epoch"),
        (lambda s, a: a["epoch.rows"].fill(1), "other steps are done"),
        (lambda s, a: s.update(block=s["block"] + 1), "other steps are done"),
        (lambda s, a: s.update(block=1 << 40), "other steps are done"),
        (lambda s, a: a.update(H0=a["H0"][:-1]), "other steps are done"),
        (lambda s, a: a.update(H0=a["H0"][:0]), "other steps are done"),
    ],
)
def test_states_that_somebody_made(data, written, change, message):
    path = written / checkpoint.FILE_NAME
    state, arrays = header_of(path)
    change(state, arrays)
    with open(path, "wb") as file:
        container.write(checkpoint._KIND, file, {"training": state}, arrays)
    with pytest.raises(InputError, match=message):
        fitted({}, data, checkpoint=str(written), resume=True)


def test_damaged_files(data, written):
    path = written / checkpoint.FILE_NAME
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(30):
        damaged = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(InputError):
            fitted({}, data, checkpoint=str(written), resume=True)


def test_other_versions_and_files(data, written):
    path = written / checkpoint.FILE_NAME
    state, arrays = header_of(path)
    for version, message in ((3, "format 3, .* reads up to 2"), (1, "format 1, .* from 2 on")):
        with open(path, "wb") as file:
            kind = checkpoint._KIND._replace(version=version)
            container.write(kind, file, {"training": state}, arrays)
        with pytest.raises(InputError, match=message):
            fitted({}, data, checkpoint=str(written), resume=True)
    path.write_text("notes")
    for resume in (True, False):
        with pytest.raises(InputError, match="this is no checkpoint of a training, or a damaged"):
            fitted({}, data, checkpoint=str(written), resume=resume)
    assert path.read_text() == "notes"
    fitted({}, data).savemodel(str(written / "model"))
    with pytest.raises(InputError, match="not a GRU4Rec model"):
        GRU4Rec.loadmodel(str(path))


def test_directories_that_cannot_be(data, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below", "x\0y"):
        with pytest.raises(InputError, match="checkpoint"):
            fitted({}, data, checkpoint=str(tmp_path / name))
    for wrong in (7, ""):
        with pytest.raises(InputError, match="checkpoint: expected the path of a directory"):
            fitted({}, data, checkpoint=wrong)
    with pytest.raises(InputError, match="need checkpoint"):
        fitted({}, data, resume=True)
    gru = GRU4Rec(**BASE)
    gru.negative_sampler = lambda n: np.zeros((n, 16), np.int32)
    with pytest.raises(InputError, match="negative_sampler is a function of yours"):
        gru.fit(data, checkpoint=str(tmp_path))


def full(*_) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_a_full_disk_does_not_end_the_training(data, written, monkeypatch, caplog, error):
    before = (written / checkpoint.FILE_NAME).read_bytes()

    def failing(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(container, "write", failing)
        options = {"checkpoint": str(written), "checkpoint_minutes": 0}
        gru = fitted({}, data, **options, resume=True)
    assert equal(gru, fitted({}, data))
    told = [r.getMessage() for r in caplog.records if "cannot write" in r.getMessage()]
    why = "No space left on device" if isinstance(error, OSError) else "not enough memory"
    assert len(told) == 1 and f"{why}; the training goes on" in told[0]
    assert told[0].endswith("the one before is still there")
    assert (written / checkpoint.FILE_NAME).read_bytes() == before
    assert os.listdir(written) == [checkpoint.FILE_NAME]
    assert equal(fitted({}, data, checkpoint=str(written), resume=True), gru)


def test_a_disk_that_is_full_for_a_while(data, tmp_path, monkeypatch, caplog):
    write, n_tries = container.write, [0]

    def full_at_first(*args):
        n_tries[0] += 1
        if n_tries[0] in (1, 2, 4):
            full()
        write(*args)

    monkeypatch.setattr(container, "write", full_at_first)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 8, fail)
        with pytest.raises(Stop):
            fitted({}, data, checkpoint=str(tmp_path), checkpoint_minutes=0)
    told = [r.getMessage() for r in caplog.records if "cannot write" in r.getMessage()]
    assert [text.endswith("there is none yet") for text in told] == [True, False]
    assert equal(fitted({}, data, checkpoint=str(tmp_path), resume=True), fitted({}, data))


@pytest.mark.parametrize("n_blocks", [3, 14])
def test_an_interrupt_on_a_full_disk(data, tmp_path, monkeypatch, n_blocks):
    monkeypatch.setattr(container, "write", full)
    stop_after(monkeypatch, n_blocks, interrupt)
    with pytest.raises(Interrupted) as found:
        fitted({}, data, checkpoint=str(tmp_path / "c"))
    assert str(found.value).endswith(
        "could not be written: No space left on device; there is none yet"
    )
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------------------- one at a time


def test_two_trainings_in_one_directory(data, tmp_path):
    """The second is refused, here in one process, and does not disturb the first."""

    def second(_: int) -> None:
        for resume in (False, True):
            with pytest.raises(InputError) as found:
                fitted({}, data, checkpoint=str(tmp_path), resume=resume)
            assert f"another training that runs keeps its state in {tmp_path};" in str(found.value)

    gru = fitted({}, data, checkpoint=str(tmp_path), after_epoch=second)
    assert equal(gru, fitted({}, data))
    assert os.listdir(tmp_path) == [checkpoint.FILE_NAME]


def test_the_lock_of_a_killed_training(data, tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from gru4rec_toolkit import files
with files.locked("{checkpoint.LOCK_NAME}"):
    print("held", flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another training that runs"):
            fitted({}, data, checkpoint=str(tmp_path))
    finally:
        process.kill()
        process.communicate()
    assert os.listdir(tmp_path) == [checkpoint.LOCK_NAME]
    fitted({}, data, checkpoint=str(tmp_path))
    assert os.listdir(tmp_path) == [checkpoint.FILE_NAME]


def test_a_checkpoint_older_than_a_parameter(data, tmp_path, monkeypatch):
    """It was written by a training with the parameter's default."""
    whole = fitted({}, data)
    as_dict = parameters.Values.as_dict
    with monkeypatch.context() as patch:
        new = {"bptt", "dropout_mask", "user_key"}
        patch.setattr(
            *(parameters.Values, "as_dict"),
            lambda self: {n: v for n, v in as_dict(self).items() if n not in new},
        )
        patch.setattr(parameters, "without_effect", lambda values: [])  # it asks for all of them
        stop_after(patch, 3, interrupt)
        with pytest.raises(Interrupted):
            fitted({}, data, checkpoint=str(tmp_path))
    with pytest.raises(InputError, match="with bptt=1, but now it is 2"):
        fitted({"bptt": 2}, data, checkpoint=str(tmp_path), resume=True)
    assert equal(whole, fitted({}, data, checkpoint=str(tmp_path), resume=True))


def test_other_users_are_other_data(data, tmp_path, monkeypatch):
    """The same events in the same order, but other sessions follow each other in one sequence."""
    starts = data.groupby("SessionId")["Time"].transform("min")
    data = data.assign(SessionId=(starts * 1000 + data["SessionId"] % 1000).rank(method="dense"))
    pairs, alone = (data.assign(UserId=data["SessionId"] // n) for n in (2, 1))
    options = {"checkpoint": str(tmp_path), "resume": True}
    with monkeypatch.context() as patch:
        stop_after(patch, 3, interrupt)
        with pytest.raises(Interrupted):
            fitted({"user_key": "UserId"}, pairs, **options)
    with pytest.raises(InputError, match="on other data"):
        fitted({"user_key": "UserId"}, alone, **options)
    fitted({"user_key": "UserId"}, pairs, **options)


def test_a_training_that_ended_while_another_compiled(data, tmp_path, monkeypatch):
    """What it has left is not begun anew by mistake."""
    compile_step = training.Training.compile

    def other_first(self, *n_steps):
        with monkeypatch.context() as patch:
            patch.setattr(training.Training, "compile", compile_step)
            fitted({}, data, checkpoint=str(tmp_path))
        return compile_step(self, *n_steps)

    monkeypatch.setattr(training.Training, "compile", other_first)
    with pytest.raises(InputError, match="holds the state of an earlier training"):
        fitted({}, data, checkpoint=str(tmp_path))


def test_a_file_system_without_locks(data, tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unknown)
    assert equal(fitted({}, data, checkpoint=str(tmp_path)), fitted({}, data))
    assert os.listdir(tmp_path) == [checkpoint.FILE_NAME]


def test_nothing_is_left_of_a_training_that_does_not_begin(data, tmp_path):
    one_event = data.groupby("SessionId").head(1)
    for directory in (tmp_path / "c", tmp_path / "a" / "b" / "c"):
        with pytest.raises(InputError):
            fitted({}, one_event, checkpoint=str(directory))
    with pytest.raises(InputError):
        fitted({}, data.drop(columns="Time"), checkpoint=str(tmp_path / "c"))
    assert os.listdir(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError):
        fitted({}, one_event, checkpoint=str(tmp_path / "mine"))
    assert os.listdir(tmp_path) == ["mine"]


def test_another_number_of_threads_is_told(data, written, caplog):
    path = written / checkpoint.FILE_NAME
    state, arrays = header_of(path)
    state["threads"] = 77
    with open(path, "wb") as file:
        container.write(checkpoint._KIND, file, {"training": state}, arrays)
    fitted({}, data, checkpoint=str(written), resume=True)
    assert "written with threads=77, this training runs with" in caplog.text


# ---------------------------------------------------------------------------- the command line

SETTINGS = "layers=8,batch_size=8,n_sample=16,n_epochs=40,adapt=adam"
COMMAND = (TRAIN, "-ps", SETTINGS, "--checkpoint", "c", "-s", "model")


def weights_of(path) -> dict[str, bytes]:
    gru = GRU4Rec.loadmodel(str(path))
    return {name: array.tobytes() for name, array in gru.weights().items()}


def start(cwd, *options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *map(str, COMMAND), *options],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=own_signals,
        env=environment(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    succeeds(run_py(TRAIN, "-ps", SETTINGS, "-s", "model", cwd=folder))
    return weights_of(folder / "model")


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_signals_from_the_shell(tmp_path, whole, number, code):
    process = start(tmp_path)
    for line in process.stdout:
        if line.startswith("Epoch2 "):
            process.send_signal(number)
            break
    _, err = process.communicate(timeout=300)
    assert process.returncode == code and not (tmp_path / "model").exists()
    last = err.splitlines()[-1]
    assert last.startswith("interrupted; --resume goes on from") and "c/checkpoint" in last
    assert "Traceback" not in err
    done = succeeds(run_py(*COMMAND, "--resume", cwd=tmp_path))
    assert "going on after" in done.err and "Epoch1 " not in done.out
    assert weights_of(tmp_path / "model") == whole


def test_killed_at_any_moment(tmp_path, whole):
    """kill -9, again and again, until a training gets through."""
    rng, kills, done = random.Random(1), 0, False
    while not done:
        process = start(tmp_path, "--resume", "--checkpoint_minutes", "0")
        for line in process.stdout:
            if kills < 6 and line.startswith("Epoch") and rng.random() < 0.3:
                time.sleep(rng.random() / 50)
                process.kill()
                kills += 1
                break
        _, err = process.communicate(timeout=300)
        assert process.returncode in (0, -9), err
        done = process.returncode == 0
    assert kills >= 3 and weights_of(tmp_path / "model") == whole
    assert [path.name for path in (tmp_path / "c").iterdir()] == [checkpoint.FILE_NAME]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--resume",), "are about --checkpoint"),
        (("--checkpoint_minutes", "3"), "are about --checkpoint"),
        (("--checkpoint", "c", "--checkpoint_minutes", "-1"), "expected a number of minutes"),
        (("--checkpoint", ""), "checkpoint: expected the path of a directory"),
    ],
)
def test_mistakes(tmp_path, options, what):
    assert what in complaint(run_py(TRAIN, "-ps", SETTINGS, *options, cwd=tmp_path))
    assert not list(tmp_path.iterdir())


def test_mistakes_beside_other_options(tmp_path):
    done = run_py(TRAIN, "--check", "--checkpoint", "c", cwd=tmp_path)
    assert "leave it out with -l and --check" in complaint(done)
    done = run_py(TRAIN, "--baseline", "markov", "--checkpoint", "c", "-t", TEST, cwd=tmp_path)
    assert "--checkpoint is about GRU4Rec" in complaint(done)
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_is_not_replaced_by_the_model(tmp_path):
    options = ("-ps", SETTINGS, "--checkpoint", "c", "-s", "c/checkpoint.gru4rec", "--force")
    done = run_py(TRAIN, *options, cwd=tmp_path)
    assert "c/checkpoint.gru4rec: it is the file of --checkpoint" in complaint(done)
    assert "Started training" not in done.out


def test_variants_whose_fit_takes_no_checkpoint(tmp_path):
    lines = ["import gru4rec", "class GRU4Rec(gru4rec.GRU4Rec):"]
    lines.append("    def fit(self, data, sample_store=0, store_type='gpu'): pass")
    (tmp_path / "v.py").write_text("\n".join(lines))
    done = run_py(TRAIN, "-ps", SETTINGS, "-g", "v.py", "--checkpoint", "c", cwd=tmp_path)
    assert "-g v.py: its fit takes no argument checkpoint" in complaint(done)
