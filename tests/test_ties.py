"""Ties of the target with items of the same score, under every final activation.

One computation has to activate both: two of them differ in the last bit for many scores. This file
runs here, and in processes of their own where scores are computed in other ways.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pandas as pd
import pytest
from helpers.on_gpu import CPU

import evaluation
from gru4rec import GRU4Rec, Network
from gru4rec_toolkit.data import schedule, sessions
from gru4rec_toolkit.model import ranking, weights
from gru4rec_toolkit.model.ranking import RankCounter
from gru4rec_toolkit.ops import base
from gru4rec_toolkit.ops.library import load, usable
from gru4rec_toolkit.ranks import recall_and_mrr

FINAL_ACTS = ["elu-0.5", "selu-1-2", "leaky-0.1", "relu", "tanh", "linear"]
MODES = ["standard", "conservative", "median", "tiebreaking"]
CUT_OFF = [1, 2, 3, 5, 20, 300]
N_ITEMS = 600  # no multiple of a block or of a vector
N_SCORES = 150  # so that several items share one
only_with_kernels = pytest.mark.skipif(not usable(), reason="of the kernels on the CPU alone")


def biases_alone(final_act: str, seed: int) -> GRU4Rec:
    """Return a model whose scores are its biases, of which there are few different ones."""
    rng = np.random.default_rng(seed)
    gru = GRU4Rec(loss="bpr-max", final_act=final_act, layers=[8])
    arrays = weights.initial(gru.settings, N_ITEMS)
    arrays["Wy"][:] = 0
    # in steps of 0.05, so that different scores have clearly different values
    scores = np.linspace(-4, 4, N_SCORES) + rng.uniform(-1e-3, 1e-3, N_SCORES)
    arrays["By"][:] = rng.choice(scores, (N_ITEMS, 1))
    gru.take(Network(gru.settings, arrays), np.arange(N_ITEMS))
    return gru


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 400
    session_ids = np.sort(np.concatenate([np.arange(50), np.arange(50), rng.integers(0, 50, n)]))
    items = rng.integers(0, N_ITEMS, len(session_ids))
    return pd.DataFrame({"SessionId": session_ids, "ItemId": items, "Time": np.arange(len(items))})


def ranks_by_bits(gru: GRU4Rec, log: pd.DataFrame, items, mode: str) -> np.ndarray:
    """Return the rank of every target, one session after the other."""
    scores = gru.By.get_value()[:, 0]
    # where a relu is cut off all are equal; the other activations are strictly increasing
    scores = np.maximum(scores, 0) if gru.final_act == "relu" else scores
    bits = scores.view(f"u{scores.itemsize}")
    candidates = np.isin(np.arange(N_ITEMS), np.arange(N_ITEMS) if items is None else items)
    targets = log[log.SessionId.duplicated()].ItemId.to_numpy()
    others = candidates & (np.arange(N_ITEMS) != targets[:, None])
    equal = ((bits == bits[targets, None]) & others).sum(axis=1)
    better = ((scores > scores[targets, None]) & others).sum(axis=1)
    assert (equal > 0).mean() > 0.5, "hardly any ties to test"
    # random ranks do not depend on the order of the events
    order = np.lexsort((equal, better))
    better, equal = better[order], equal[order]
    rng = np.random.default_rng(gru.seed)
    ties = {
        "standard": lambda: 0,
        "conservative": lambda: equal,
        "median": lambda: equal / 2,
        "tiebreaking": lambda: rng.integers(0, equal, endpoint=True),
    }
    return 1 + better + ties[mode]()


@pytest.mark.parametrize("items", [None, np.arange(3, N_ITEMS, 4)], ids=["all", "given"])
@pytest.mark.parametrize("final_act", FINAL_ACTS)
def test_equal_scores_are_counted_by_their_bits(final_act, items, log, monkeypatch):
    count, counted = ranking.count_ranks, []

    def count_once(*arguments, **options):
        counted.extend([] if counted else [count(*arguments, **options)])
        return counted[0]

    monkeypatch.setattr(ranking, "count_ranks", count_once)
    gru = biases_alone(final_act, seed=len(final_act))
    for mode in MODES:
        arguments = dict(items=items, cut_off=CUT_OFF, batch_size=20, mode=mode)
        found = evaluation.evaluate_gpu(gru, log, **arguments)
        ranks = ranks_by_bits(gru, log, items, mode)
        expected = recall_and_mrr(ranks, CUT_OFF)
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=mode)


@pytest.mark.parametrize("final_act", FINAL_ACTS)
def test_items_of_one_score_all_tie(final_act, log):
    """The optimist ranks every target first and the pessimist last, whatever the score is."""
    gru = biases_alone(final_act, seed=0)
    index = sessions.index_sessions(log, "SessionId", "ItemId", "Time", item_ids=gru.item_ids)
    order = schedule.training_order(index, time_sort=False)
    counter = RankCounter(gru.network, None, 20)
    block = next(iter(schedule.schedule_blocks(index, order, 20, 1)))
    for score in np.linspace(-9, 9, 31):
        gru.By.set_value(np.full((N_ITEMS, 1), score, gru.By.dtype))
        for h in counter.states:
            h.set_value(np.zeros((20, 8), h.dtype))
        for better, equal in counter.run_block(block):
            assert not better.any() and (equal == N_ITEMS - 1).all(), score


@pytest.mark.parametrize("final_act", FINAL_ACTS)
def test_ranks_are_those_of_the_predicted_scores(final_act, log):
    """Where an activation saturates, its values lie as close together as float32 can tell."""
    gru = biases_alone(final_act, seed=0)
    ends = {"tanh": (-9.05, -8.9), "relu": (-1, 1), "linear": (-1, 1), "leaky-0.1": (-1, 1)}
    scores = np.linspace(*ends.get(final_act, (-14, -8)), N_ITEMS).astype(gru.By.dtype)
    np.random.default_rng(2).shuffle(scores)
    gru.By.set_value(scores[:, None])
    predicted = gru.predict_next_batch(np.zeros(1), gru.item_ids[:1], batch=1)[0]
    ordered = predicted.to_numpy()
    # a session of each target, all after the same item
    sessions_of_two = pd.DataFrame(
        {
            "SessionId": np.repeat(np.arange(N_ITEMS), 2),
            "ItemId": np.column_stack([np.zeros(N_ITEMS, int), np.arange(N_ITEMS)]).ravel(),
            "Time": np.arange(2 * N_ITEMS),
        }
    )
    better = (ordered[:, None] > ordered).sum(axis=0)
    equal = (ordered[:, None] == ordered).sum(axis=0) - 1
    for mode, ranks in (("standard", 1 + better), ("conservative", 1 + better + equal)):
        arguments = dict(cut_off=CUT_OFF, batch_size=64, mode=mode)
        found = evaluation.evaluate_gpu(gru, sessions_of_two, **arguments)
        np.testing.assert_allclose(found, recall_and_mrr(ranks, CUT_OFF), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("final_act", ["tanh", "elu-0.5"])
def test_the_slow_twin_counts_the_same_ties(final_act, log):
    gru = biases_alone(final_act, seed=0)
    arguments = dict(cut_off=CUT_OFF, batch_size=20, mode="conservative")
    fast = evaluation.evaluate_gpu(gru, log, **arguments)
    slow = evaluation.evaluate_sessions_batch(gru, log, **arguments)
    np.testing.assert_allclose(slow, fast, rtol=1e-12)


# ---------------------------------------------------------------------------- in the kernels


class Act(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("a", ctypes.c_float), ("b", ctypes.c_float)]


def activate(scores: np.ndarray, final_act: str) -> np.ndarray:
    """Return the values that the kernels rank."""
    kind, *constants = base.kernel_activation(final_act)
    values = np.zeros(-(-scores.size // 16) * 16, np.float32)
    values[: scores.size] = scores.ravel()
    act = Act(base.ACTIVATIONS.index(kind), *constants)
    pointer = ctypes.c_void_p(values.ctypes.data)
    load().gk_activate(ctypes.c_long(len(values)), pointer, act)
    return values[: scores.size].reshape(scores.shape)


@only_with_kernels
@pytest.mark.parametrize("final_act", FINAL_ACTS)
def test_an_activation_is_the_same_in_every_lane(final_act):
    rng = np.random.default_rng(0)
    n = 100_003
    scores = rng.choice([-1, 1], n) * 10.0 ** rng.uniform(-40, 37, n)
    scores = np.concatenate([scores, rng.uniform(-100, 100, n), 3 * rng.standard_normal(n)])
    scores = scores.astype(np.float32)
    values = activate(scores, final_act).view(np.int32)
    for shift in range(1, 16):
        shifted = activate(np.roll(scores, shift), final_act).view(np.int32)
        assert np.array_equal(np.roll(shifted, -shift), values)


@only_with_kernels
def test_a_trained_tanh_is_counted_as_numpy_counts_its_scores(train_data, test_data):
    """Here many scores are near the ends of the tanh, where its values lie close together."""
    gru = GRU4Rec(
        loss="top1-max", final_act="tanh", layers=[16], n_epochs=10, batch_size=8, n_sample=32,
        learning_rate=2,
    )  # fmt: skip
    gru.fit(train_data)
    index = sessions.index_sessions(
        test_data, gru.session_key, gru.item_key, gru.time_key, item_ids=gru.item_ids
    )
    order = schedule.training_order(index, time_sort=False)
    counter = RankCounter(gru.network, None, 16)
    n_ties = n_events = 0
    for block in schedule.schedule_blocks(index, order, 16, 1):
        (targets,) = block.targets
        ((better, equal),) = counter.run_block(block)
        hidden, rows = counter.hidden.get_value(), gru.Wy.get_value()
        scores = np.empty((len(targets), len(rows)), np.float32)
        library = load()
        (m, n), width = scores.shape, rows.shape[1]
        a, b, c = (ctypes.c_void_p(x.ctypes.data) for x in (hidden, rows, scores))
        library.gk_product(0, 1, m, n, width, a, width, b, width, c, n)
        values = activate(scores + gru.By.get_value()[:, 0], "tanh")
        target = values[np.arange(m), targets][:, None]
        assert np.array_equal(better, (values > target).sum(axis=1))
        assert np.array_equal(equal, (values == target).sum(axis=1) - 1)
        n_ties, n_events = n_ties + (equal > 0).sum(), n_events + m
    assert n_ties > n_events / 50, "hardly any ties to test"


# ---------------------------------------------------------------------------- elsewhere


def ties_are_kept(device, theano_flags: str) -> None:
    choice = "not elsewhere and not trained and not lane"
    assert device.pytest(__file__, "-k", choice, THEANO_FLAGS=theano_flags) == 26


def test_elsewhere_in_float64():
    ties_are_kept(CPU, "device=cpu,floatX=float64")


def test_elsewhere_in_float32_without_kernels():
    ties_are_kept(CPU, "device=cpu,blas.ldflags=")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_elsewhere_on_a_gpu(gpu, dtype):
    ties_are_kept(gpu, f"device={gpu.name},floatX={dtype}")
