"""`run.py --retrain` and `--seed`: trainings that go on from a model, and that can be repeated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers.cli import TEST, TRAIN, complaint, files_in, run_py, succeeds

from gru4rec import GRU4Rec

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
    assert done.code == 2 and "-ps -pf -l --check --retrain --baseline is required" in done.err
