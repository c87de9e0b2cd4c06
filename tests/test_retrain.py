"""`run.py --retrain` and `--seed`: trainings that go on from a model, and that can be repeated."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from helpers.cli import TEST, TRAIN, complaint, files_in, run_py, succeeds

from gru4rec import GRU4Rec
from gru4rec_toolkit import modelfile
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model import validation

SETTINGS = (
    "loss=cross-entropy,final_act=softmax,layers=8,batch_size=8,n_sample=16,n_epochs=1,"
    "dropout_p_hidden=0.1"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a directory with two halves of a log, and a model of the first one."""
    folder = tmp_path_factory.mktemp("retrain")
    data = pd.read_csv(TRAIN, sep="\t")
    half = data.SessionId < data.SessionId.median()
    # the second half has new items, and lacks some of the first
    first, second = data[half], data[~half].replace({"ItemId": {data.ItemId.iloc[-1]: 10**9}})
    first.to_csv(folder / "first.tsv", sep="\t", index=False)
    second.to_csv(folder / "second.tsv", sep="\t", index=False)
    succeeds(run_py("first.tsv", "-ps", SETTINGS, "-s", "model", cwd=folder))
    return folder


def weights_of(path) -> dict[str, np.ndarray]:
    return GRU4Rec.loadmodel(str(path)).weights()


def same(left: dict, right: dict) -> bool:
    return all(left[name].tobytes() == right[name].tobytes() for name in left)


def test_as_in_python(folder):
    command = ("second.tsv", "--retrain", "model", "-s", "retrained", "-t", TEST)
    done = succeeds(run_py(*command, cwd=folder))
    assert "Loading trained model from file: model" in done.out and len(done.metrics) == 1
    gru = GRU4Rec.loadmodel(str(folder / "model"))
    before = len(gru.item_ids)
    gru.fit(pd.read_csv(folder / "second.tsv", sep="\t"), retrain=True)
    found = GRU4Rec.loadmodel(str(folder / "retrained"))
    assert same(gru.weights(), found.weights())
    assert 10**9 in found.item_ids.tolist() and len(found.item_ids) > before
    assert (found.support == gru.support).all()


def test_other_parameters_for_the_second_training(folder):
    command = ("second.tsv", "--retrain", "model", "-s", "slow")
    # smoothing does not go with the default loss, but with the model's
    succeeds(run_py(*command, "-ps", "learning_rate=0.01,smoothing=0.1", cwd=folder))
    assert GRU4Rec.loadmodel(str(folder / "slow")).learning_rate == 0.01
    done = run_py(*command, "-ps", "layers=9", cwd=folder)
    assert "the trained weights do not fit the parameters" in complaint(done)


def test_items_that_only_the_model_knows_can_be_tested(folder, tmp_path):
    data = pd.read_csv(folder / "second.tsv", sep="\t")
    data.assign(ItemId=data.ItemId + 10**10).to_csv(tmp_path / "new.tsv", sep="\t", index=False)
    options = ("--retrain", folder / "model", "-t", folder / "first.tsv")
    assert succeeds(run_py("new.tsv", *options, cwd=tmp_path)).metrics


def test_the_model_may_be_replaced_by_what_it_becomes(folder, tmp_path):
    (tmp_path / "m").write_bytes((folder / "model").read_bytes())
    succeeds(run_py(folder / "second.tsv", "--retrain", "m", "-s", "m", cwd=tmp_path))
    assert not same(weights_of(tmp_path / "m"), weights_of(folder / "model"))


def test_a_seed_gives_a_model(folder, tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        command = (folder / "first.tsv", "-ps", SETTINGS, "--seed", seed, "-s", name)
        done = succeeds(run_py(*command, cwd=tmp_path))
        assert f"seed {seed} on cpu with " in done.err
    a, b, c = (weights_of(tmp_path / name) for name in "abc")
    assert same(a, b) and not same(a, c)
    assert GRU4Rec.loadmodel(str(tmp_path / "c")).seed == 8
    # the parameter of the same name
    command = (folder / "first.tsv", "-ps", f"{SETTINGS},seed=7", "-s", "d")
    succeeds(run_py(*command, cwd=tmp_path))
    assert same(a, weights_of(tmp_path / "d"))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--retrain", "none"), "none: no such file"),
        (("--retrain", "first.tsv"), "not a GRU4Rec model"),
        (("--retrain", "model", "--check"), "--retrain is about a training"),
        (("--retrain", "model", "--baseline", "markov"), "--retrain is about GRU4Rec"),
        (("--retrain", "model", "--ranks", "model", "-t", "first.tsv"), "ends in"),
        (("-ps", "seed=1", "--seed", "2"), "the parameters say seed=1; give one of the two"),
        (("-ps", "n_epochs=1", "--seed", "-1"), "seed: expected"),
        (("--check", "--seed", "1"), "--seed is about a training"),
    ],
)
def test_mistakes(folder, options, what):
    before = files_in(folder)
    assert what in complaint(run_py("second.tsv", *options, cwd=folder))
    assert files_in(folder) == before


def test_mistakes_with_a_loaded_model(folder):
    done = run_py("model", "-l", "--retrain", "model", cwd=folder)
    assert "--retrain is about a training" in complaint(done)
    done = run_py("second.tsv", cwd=folder)
    assert "one of -ps, -pf, -l, --check, --retrain and --baseline is needed" in complaint(done)


# ---------------------------------------------------------------------------- the optimizer's state

# without negatives and dropout nothing in a training is random but the initial weights
STEADY = {"layers": [6, 5], "batch_size": 8, "n_sample": 0, "n_epochs": 1}
OPTIMIZERS = {
    "adagrad": {},
    "rmsprop with momentum": {"adapt": "rmsprop", "momentum": 0.3},
    "adadelta": {"adapt": "adadelta", "learning_rate": 1.0},
    "adam": {"adapt": "adam", "learning_rate": 0.01},
    "momentum alone": {"adapt": None, "momentum": 0.5, "constrained_embedding": True},
    "embedding": {"embedding": 7, "lmbd": 1e-4},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_kept_optimizer_goes_on(name, tmp_path):
    """Two trainings of an epoch are one training of two epochs, to the last bit."""
    data = pd.read_csv(TRAIN, sep="\t")
    values = {**STEADY, **OPTIMIZERS[name]}
    whole, parts = GRU4Rec(**{**values, "n_epochs": 2}), GRU4Rec(**values)
    whole.fit(data)
    parts.fit(data, keep_optimizer=True)
    parts.savemodel(tmp_path / "m")
    loaded = GRU4Rec.loadmodel(tmp_path / "m")
    without = GRU4Rec.loadmodel(tmp_path / "m")
    for gru, keep in ((parts, True), (loaded, True), (without, False)):
        gru.fit(data, retrain=True, keep_optimizer=keep)
        assert same(whole.weights(), gru.weights()) == keep


def test_new_items_begin_with_a_new_optimizer(folder):
    first, second = (pd.read_csv(folder / f"{n}.tsv", sep="\t") for n in ("first", "second"))
    gru = GRU4Rec(**STEADY)
    gru.fit(first, keep_optimizer=True)
    n_known = len(gru.item_ids)
    gru.fit(second, retrain=True, keep_optimizer=True)
    gru.savemodel(folder / "grown")
    with np.load(folder / "grown", allow_pickle=False) as file:
        states = {name: file[name] for name in file.files if name.startswith("optimizer.")}
    assert len(gru.item_ids) > n_known
    assert states["optimizer.Wy_adagrad"].shape == gru.Wy.get_value().shape
    # the sums of known items have grown on, those of new ones have begun
    assert (states["optimizer.Wy_adagrad"][n_known:] > 0).all()


def test_a_training_without_it_forgets_the_state(caplog):
    """A later one that is to keep its state begins with a new one, and says so."""
    data = pd.read_csv(TRAIN, sep="\t")
    left, right = GRU4Rec(**STEADY), GRU4Rec(**STEADY)
    for gru in (left, right):
        gru.fit(data, keep_optimizer=True)
        gru.fit(data, retrain=True)
    assert "keeps no optimizer's state" not in caplog.text
    left.fit(data, retrain=True, keep_optimizer=True)
    assert "the model keeps no optimizer's state to go on from" in caplog.text
    right.fit(data, retrain=True)
    assert same(left.weights(), right.weights())
    caplog.clear()
    left.fit(data, retrain=True, keep_optimizer=True)
    assert "keeps no optimizer's state" not in caplog.text


def test_the_state_of_another_optimizer():
    data = pd.read_csv(TRAIN, sep="\t")
    gru = GRU4Rec(**STEADY)
    gru.fit(data, keep_optimizer=True)
    before = gru.weights()
    for values in ({"adapt": "adam"}, {"momentum": 0.1}, {"adapt": None}):
        gru.set_params(**{"adapt": "adagrad", "momentum": 0, **values})
        with pytest.raises(InputError, match="the state of another optimizer; set adapt and mom"):
            gru.fit(data, retrain=True, keep_optimizer=True)
    assert same(gru.weights(), before)


def test_the_state_of_the_best_epoch_is_kept(monkeypatch):
    """It belongs to the weights that are kept, not to those of the last epoch."""
    data, held_out = pd.read_csv(TRAIN, sep="\t"), pd.read_csv(TEST, sep="\t")
    # which epoch is the best would depend on the rounding of the machine
    recalls = iter([0.1, 0.3, 0.2, 0.25])
    validate = validation.Validator.metrics

    def metrics(validator):
        return {**validate(validator), validator.validation.deciding: next(recalls)}

    monkeypatch.setattr(validation.Validator, "metrics", metrics)
    gru = GRU4Rec(**{**STEADY, "n_epochs": 4})
    gru.fit(data, validation=held_out, keep_optimizer=True)
    assert next(recalls, None) is None
    gru.n_epochs = 1
    gru.fit(data, retrain=True, keep_optimizer=True)
    whole = GRU4Rec(**{**STEADY, "n_epochs": 3})
    whole.fit(data)
    assert same(gru.weights(), whole.weights())


def test_the_state_with_checkpoints(tmp_path):
    data = pd.read_csv(TRAIN, sep="\t")
    gru = GRU4Rec(**STEADY)
    gru.fit(data, keep_optimizer=True)
    gru.savemodel(tmp_path / "m")
    options = {"retrain": True, "checkpoint": str(tmp_path / "c"), "resume": True}
    whole, broken = GRU4Rec.loadmodel(tmp_path / "m"), GRU4Rec.loadmodel(tmp_path / "m")
    for model in (whole, broken):
        model.n_epochs = 3
    whole.fit(data, retrain=True, keep_optimizer=True)

    def stop(epoch):
        if epoch.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.fit(data, **options, keep_optimizer=True, callbacks=[stop])
    again = GRU4Rec.loadmodel(tmp_path / "m")
    again.n_epochs = 3
    # another training: its optimizer is a new one
    with pytest.raises(InputError, match="with keep_optimizer=True, but now it is False"):
        again.fit(data, **options)
    again.fit(data, **options, keep_optimizer=True)
    assert same(again.weights(), whole.weights())


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.update({"optimizer.Wy_adagrad": np.zeros((3, 5), np.float32)}),
        lambda arrays: arrays.update({"optimizer.Wy_adagrad": np.full((60, 5), np.nan, "f4")}),
        lambda arrays: arrays.update({"optimizer.Wy_adagrad": np.zeros((60, 5), np.int64)}),
        lambda arrays: arrays.update({"optimizer.Zz_adagrad": np.zeros((60, 5), np.float32)}),
    ],
)
def test_states_that_somebody_made(tmp_path, change):
    gru = GRU4Rec(**STEADY)
    gru.fit(pd.read_csv(TRAIN, sep="\t"), keep_optimizer=True)
    gru.savemodel(tmp_path / "m")
    settings, arrays = modelfile.read(tmp_path / "m")
    assert arrays["optimizer.Wy_adagrad"].shape == (60, 5)
    change(arrays)
    modelfile.write(tmp_path / "m", settings, arrays)
    with pytest.raises(InputError, match="the state of its optimizer does not fit its weights"):
        GRU4Rec.loadmodel(tmp_path / "m")


def test_only_a_model_with_a_state_needs_this_version(tmp_path):
    data = pd.read_csv(TRAIN, sep="\t")
    for keep in (False, True):
        gru = GRU4Rec(**STEADY)
        gru.fit(data, keep_optimizer=keep)
        gru.savemodel(tmp_path / "m")
        with np.load(tmp_path / "m", allow_pickle=False) as file:
            assert json.loads(file["header"].tobytes())["version"] == (3 if keep else 2)
