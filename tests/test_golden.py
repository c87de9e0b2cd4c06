"""The reference's trajectories, step by step (see golden/README.md)."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.golden import CASES

import evaluation
from gru4rec import GRU4Rec
from gru4rec_toolkit import theano_setup
from gru4rec_toolkit.model import training
from gru4rec_toolkit.model import weights as model_weights
from gru4rec_toolkit.ops import library
from gru4rec_toolkit.ops.base import HostCode

N_SCORED = 269  # test events that are predicted
# Every step's cost, relative; the weights, relative to their norm. In the exception the gradients
# of the biases cancel in the first steps: see golden/README.md.
BOUND = 1e-4
LAST_PLACE_BOUND, LAST_PLACE_STEPS = 1e-3, 100
SENSITIVE_TO_THE_LAST_PLACE = {"sigma"}


def replay(negatives):
    """Hand out the recorded negatives mini-batch by mini-batch instead of drawing."""
    position = 0

    def sampler(n_batches):
        nonlocal position
        position += n_batches
        assert position <= len(negatives), "more negatives drawn than steps need"
        return np.array(negatives[position - n_batches : position])

    return sampler


@pytest.fixture
def blocks(monkeypatch):
    """Record (costs, rows) of every block of training steps."""
    recorded = []
    original = training.Training.run_block

    def record(self, block, *args):
        costs = original(self, block, *args)
        recorded.append((costs, np.full(len(costs), block.inputs.shape[1])))
        return costs

    monkeypatch.setattr(training.Training, "run_block", record)
    return recorded


def sum_and_norm(weights):
    w = weights.astype(np.float64)
    return np.array([w.sum(), np.sqrt((w**2).sum())])


def check_weights(weights, expected, relative):
    assert set(weights) == set(expected)
    for name, values in expected.items():
        error = np.abs(sum_and_norm(weights[name]) - values).max()
        # sums of thousands of float32 numbers: the norm is the scale of their error
        assert error <= relative * values[1] + 1e-12, name


@pytest.mark.parametrize("name", CASES)
def test_trajectory(name, train_data, test_data, blocks, monkeypatch, capsys):
    case = CASES[name]
    gru = GRU4Rec(**case["params"])
    if "negatives" in case:
        gru.negative_sampler = replay(case["negatives"])
    initial = {}
    take = GRU4Rec.take
    monkeypatch.setattr(
        GRU4Rec,
        "take",
        lambda self, network, *ids: (
            initial.update(network.arrays()),
            take(self, network, *ids),
        ),
    )
    gru.fit(train_data)

    assert all(w.dtype == np.float32 for w in initial.values())
    check_weights(initial, case["init"], 6e-9)  # the figures have nine digits
    costs, rows = (np.concatenate(part) for part in zip(*blocks))
    assert rows.tolist() == case["step_rows"]
    error = np.abs(costs / np.array(case["step_cost"]) - 1)
    bound = LAST_PLACE_BOUND if name in SENSITIVE_TO_THE_LAST_PLACE else BOUND
    assert error[:LAST_PLACE_STEPS].max() <= BOUND
    assert error.max() <= bound
    check_weights(gru.weights(), case["final"], bound)
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Epoch")]
    losses = [float(line.split("loss: ")[1].split()[0]) for line in printed]
    assert losses == pytest.approx(case["epoch_loss"], rel=BOUND)

    for mode, expected in case["metrics"].items():
        recall, mrr = evaluation.evaluate_gpu(
            gru, test_data, cut_off=[1, 5, 10, 20], batch_size=16, mode=mode
        )
        assert np.abs(np.array(recall) - expected["recall"]).max() * N_SCORED < 1.01
        assert np.abs(np.array(mrr) - expected["mrr"]).max() * N_SCORED < 1.01


@pytest.mark.parametrize("way", ["symbolic", "separate negatives"])
@pytest.mark.parametrize("name", ["xe_shared_negatives_logq", "bprmax_onehot", "momentum"])
def test_trajectory_without_fused_ops_or_without_merging(
    name, way, train_data, blocks, monkeypatch, request
):
    """The plain Theano expressions, and equal negatives as columns of their own."""
    steps = []
    compile_step = training.Training.compile
    monkeypatch.setattr(
        *(training.Training, "compile"),
        lambda *of: steps.append(compile_step(*of)) or steps[-1],
    )
    if way == "symbolic":
        request.getfixturevalue("symbolic")
    else:
        monkeypatch.setattr(training, "MERGE_BELOW", 0)
    case = CASES[name]
    gru = GRU4Rec(**case["params"])
    gru.negative_sampler = replay(case["negatives"])
    gru.fit(train_data)
    (step,) = steps
    n_kernels = sum(isinstance(n.op, HostCode) for n in step.maker.fgraph.toposort())
    assert (n_kernels == 0) == (way == "symbolic")
    costs = np.concatenate([costs for costs, _ in blocks])
    np.testing.assert_allclose(costs, case["step_cost"], rtol=BOUND)
    check_weights(gru.weights(), case["final"], BOUND)


@pytest.mark.skipif(not library.usable(), reason="the kernels need float32")
@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_threads_do_not_change_the_trajectory(n_threads, train_data, blocks):
    case = CASES["wide_batch"]
    runs = []
    try:
        library.load().gk_set_threads(n_threads)
        for _ in range(2):
            blocks.clear()
            GRU4Rec(**case["params"]).fit(train_data)
            runs.append(np.concatenate([costs for costs, _ in blocks]))
    finally:
        library.load().gk_set_threads(theano_setup.configure().threads)
    np.testing.assert_array_equal(*runs)
    np.testing.assert_allclose(runs[0], case["step_cost"], rtol=BOUND)


@pytest.mark.skipif(not library.usable(), reason="the kernels need float32")
@pytest.mark.parametrize("n_threads", [2, 4])
def test_a_seed_and_a_number_of_threads_give_one_model(n_threads, train_data):
    """With products, losses and updates large enough to be shared out."""
    models = []
    try:
        library.load().gk_set_threads(n_threads)
        for _ in range(2):
            gru = GRU4Rec(
                loss="bpr-max",
                layers=[256],
                batch_size=100,
                n_epochs=2,
                momentum=0.1,
                constrained_embedding=True,
                dropout_p_embed=0.2,
            )
            gru.fit(train_data)
            models.append(gru.weights())
    finally:
        library.load().gk_set_threads(theano_setup.configure().threads)
    for name, weights in models[0].items():
        np.testing.assert_array_equal(weights, models[1][name], err_msg=name)


@pytest.mark.parametrize("at_once", [1, 9, 1 << 20])
def test_initial_weights_are_the_references_to_the_last_place(monkeypatch, at_once):
    """numpy's legacy generator with seed 42, in the documented order, cast to float32."""
    monkeypatch.setattr(model_weights, "WEIGHTS_AT_ONCE", at_once)
    gru = GRU4Rec(layers=[5, 3], embedding=4, constrained_embedding=False)
    weights = model_weights.initial(gru.settings, 7)
    rng = np.random.RandomState(42)

    def uniform(rows, cols):
        sigma = np.sqrt(6 / (rows + cols))
        return rng.rand(rows, cols) * 2 * sigma - sigma

    expected = {"E": uniform(7, 4)}
    for i, (n_in, n) in enumerate([(4, 5), (5, 3)]):
        expected[f"Wx{i}"] = np.hstack([uniform(n_in, n) for _ in range(3)])
        expected[f"Wh{i}"] = uniform(n, n)
        expected[f"Wrz{i}"] = np.hstack([uniform(n, n) for _ in range(2)])
    expected["Wy"] = uniform(7, 3)
    for name, values in expected.items():
        np.testing.assert_array_equal(weights[name], values.astype(np.float32), err_msg=name)
    assert not any(weights[name].any() for name in ("Bh0", "Bh1", "By"))
