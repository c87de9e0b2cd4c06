"""Backpropagation through time: gradients through windows of steps, and the windows themselves."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from helpers.cli import TRAIN
from helpers.on_gpu import CPU
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec import GRU4Rec, Network
from gru4rec_toolkit.data import schedule, sessions
from gru4rec_toolkit.model import training, weights
from gru4rec_toolkit.model.negatives import SampleStore
from gru4rec_toolkit.theano_setup import theano

XE = {"loss": "cross-entropy", "final_act": "softmax", "logq": 1.0}
MODELS = {
    "one_hot": {"adapt": "adagrad"},
    "shared": {**XE, "constrained_embedding": True, "adapt": "adam"},
    "embedding": {"embedding": 3, "adapt": "rmsprop", "momentum": 0.2, "lmbd": 1e-3},
    "two_layers": {"layers": [4, 3], "adapt": "adadelta", "final_act": "elu-0.5", "grad_cap": 0.5},
    "in_batch": {**XE, "logq": 0.0, "n_sample": 0, "adapt": None, "constrained_embedding": True},
    "top1_max": {"loss": "top1-max", "final_act": "tanh", "hidden_act": "relu"},
}


def log_of(lengths, n_items: int = 6, seed: int = 0) -> sessions.SessionLog:
    """Sessions of given lengths on random items."""
    rng = np.random.default_rng(seed)
    n = int(np.sum(lengths))
    frame = pd.DataFrame(
        {
            "SessionId": np.repeat(np.arange(len(lengths)), lengths),
            "ItemId": np.r_[np.arange(n_items), rng.integers(0, n_items, n)][:n],
            "Time": np.arange(n),
        }
    )
    return sessions.index_sessions(frame)


def training_of(log, **values) -> training.Training:
    """A training of a small model whose weights are far from zero."""
    given = {"layers": [4], "batch_size": 3, "n_sample": 4, "n_epochs": 1, **values}
    gru = GRU4Rec(**given)
    arrays = weights.initial(gru.settings, log.n_items)
    rng = np.random.default_rng(1)
    for name, array in arrays.items():
        arrays[name] = rng.normal(0, 0.6, array.shape).astype(array.dtype)
    return training.Training(Network(gru.settings, arrays), log, 400, True)


def first_block(run: training.Training, n_steps: int | None = None) -> schedule.Block:
    order = schedule.training_order(run.log, True)
    size = run.parameters.batch_size
    return next(schedule.schedule_blocks(run.log, order, size, n_steps or run.block_steps))


# ---------------------------------------------------------------------------- gradients


@pytest.fixture
def in_float64(symbolic, monkeypatch):
    """Plain expressions, hardly rewritten: small windows take no time, compiling does."""
    mode = theano.compile.mode.Mode("cvm", "fast_compile").excluding("gru4rec")
    monkeypatch.setattr(theano.compile.mode, "instantiated_default_mode", mode)
    monkeypatch.setattr(theano.config, "floatX", "float64")


@pytest.mark.parametrize(
    ("model", "bptt", "mask"),
    [
        *(("two_layers", bptt, "step") for bptt in (1, 2, 5)),
        *((model, 5, "step") for model in ("one_hot", "shared", "embedding")),
        *(("two_layers", bptt, "sequence") for bptt in (1, 5)),
    ],
)
def test_gradients_are_numerical_ones(in_float64, model, bptt, mask):
    """All cells of all weights, with sessions that end and begin inside the window."""
    values = {**MODELS[model], "adapt": None, "momentum": 0, "lmbd": 0, "grad_cap": 0}
    if mask == "sequence":  # its masks follow from the step's number, so that costs can be repeated
        values.update(dropout_p_hidden=0.3, dropout_mask=mask)
    log = log_of([4, 3, 8, 5, 6, 7, 9])
    run = training_of(log, bptt=bptt, learning_rate=1.0, **values)
    block = first_block(run, 5)
    assert len(block.inputs) == 5 and block.ends[:-1].any()
    variables = {v.name: v for v in run.network.variables()}
    before = {name: v.get_value() for name, v in variables.items()}
    run.store.serve(5, 5)
    states = [np.random.default_rng(2).normal(size=(3, n)) for n in run.parameters.layers]

    def window() -> float:
        """Run the first window; return its cost, the mean of the steps' costs."""
        run.dropout.steps_done.set_value(0)  # which the masks follow from
        run.reset_states()
        run.store.row.set_value(0)
        for h, value in zip(run.states, states):
            h.set_value(value)
        run.block.upload(block, run.states)
        run.run_steps(bptt)
        return float(run.costs.get_value()[:bptt].mean())

    window()
    gradient = {name: before[name] - v.get_value() for name, v in variables.items()}
    largest = 0.0
    for name, variable in variables.items():
        numerical = np.zeros_like(before[name])
        for cell in np.ndindex(*before[name].shape):
            costs = []
            for step in (1e-5, -1e-5):
                for other, v in variables.items():
                    v.set_value(before[other])
                changed = before[name].copy()
                changed[cell] += step
                variable.set_value(changed)
                costs.append(window())
            numerical[cell] = (costs[0] - costs[1]) / 2e-5
        np.testing.assert_allclose(gradient[name], numerical, rtol=1e-5, atol=1e-8, err_msg=name)
        largest = max(largest, np.abs(numerical).max())
    assert largest > 0.01


def test_the_gradient_goes_through_the_states(in_float64):
    """Without a session's end in between, the window's gradient is not the steps' sum."""
    log = log_of([9, 9, 9])
    found = {}
    for bptt in (1, 2):
        run = training_of(log, bptt=bptt, adapt=None, learning_rate=1e-6, n_epochs=1)
        run.reset_states()
        run.block.upload(first_block(run, 4), run.states)
        run.store.serve(4, 4)
        before = run.network.Wh[0].get_value()
        run.run_steps(4)
        found[bptt] = (before - run.network.Wh[0].get_value()) * bptt
    assert np.abs(found[1] - found[2]).max() > 0.05 * np.abs(found[1]).max()


@pytest.mark.parametrize("mask", ["step", "sequence"])
def test_a_window_takes_the_same_steps(mask):
    """Inputs, negatives, masks and states: where weights hardly change, so do the costs."""
    log = log_of([9, 4, 6, 9, 3, 8, 9, 5], n_items=40)
    found = {}
    for bptt in (1, 4):
        run = training_of(
            *(log,),
            **{**XE, "bptt": bptt, "adapt": None, "learning_rate": 1e-9},
            **{"dropout_p_hidden": 0.4, "dropout_mask": mask},
        )
        run.reset_states()
        block = first_block(run)
        run.block.upload(block, run.states)
        run.store.serve(len(block.inputs), len(block.inputs), bptt)
        run.run_steps(len(block.inputs))
        found[bptt] = run.costs.get_value()[: len(block.inputs)]
    assert len(found[1]) > 8 and block.ends[:-1].any() and len(set(found[1])) == len(found[1])
    np.testing.assert_allclose(found[4], found[1], rtol=1e-5)


# ---------------------------------------------------------------------------- the kernels


def trained(data, **values) -> dict[str, np.ndarray]:
    gru = GRU4Rec(**{"layers": [4], "batch_size": 6, "n_sample": 8, "n_epochs": 1, **values})
    gru.fit(data)
    return gru.weights()


@pytest.mark.parametrize("bptt", [1, 3])
@pytest.mark.parametrize("model", MODELS)
def test_kernels_compute_what_the_expressions_say(train_data, request, model, bptt):
    data = train_data[train_data["SessionId"].isin(train_data["SessionId"].unique()[:40])]
    values = {**MODELS[model], "bptt": bptt, "dropout_mask": "sequence", "dropout_p_hidden": 0.2}
    by_kernels = trained(data, **values)
    request.getfixturevalue("symbolic")
    for name, by_expressions in trained(data, **values).items():
        np.testing.assert_allclose(
            by_kernels[name], by_expressions, rtol=2e-3, atol=2e-4, err_msg=name
        )


def test_merged_negatives_are_the_same(train_data, monkeypatch):
    values = {**XE, "constrained_embedding": True, "n_sample": 60, "bptt": 4}
    merged = trained(train_data, **values)
    monkeypatch.setattr(training, "MERGE_BELOW", 0.0)
    for name, alone in trained(train_data, **values).items():
        np.testing.assert_allclose(merged[name], alone, rtol=1e-3, atol=1e-4, err_msg=name)


def test_one_step_is_the_default(train_data):
    plain, one = trained(train_data), trained(train_data, bptt=1)
    assert all(plain[name].tobytes() == one[name].tobytes() for name in plain)
    more = trained(train_data, bptt=2)
    assert not np.allclose(plain["Wh0"], more["Wh0"])


@pytest.mark.parametrize("model", ["shared", "two_layers"])
def test_on_a_gpu_it_is_the_same(gpu, model):
    """With all Ops and no fallback of Theano's, which would warn and compute on the host."""
    text = """
    import json, sys
    import numpy as np, pandas as pd
    from gru4rec import GRU4Rec
    data = pd.read_csv(sys.argv[1], sep="\\t", dtype={"ItemId": str})
    data = data[data["SessionId"].isin(data["SessionId"].unique()[:40])]
    gru = GRU4Rec(**json.loads(sys.argv[2]))
    gru.fit(data)
    print(json.dumps({name: w.tolist() for name, w in gru.weights().items()}))
    """
    values = {"layers": [4], "batch_size": 6, "n_sample": 8, "n_epochs": 1, **MODELS[model]}
    values.update(bptt=2, dropout_mask="sequence", dropout_p_hidden=0.2)
    flags = "on_opt_error=raise"
    out = [
        device.program(
            *(text, TRAIN, json.dumps(values)), THEANO_FLAGS=f"device={device.name},{flags}"
        )
        for device in (CPU, gpu)
    ]
    on_cpu, on_gpu = (json.loads(text.splitlines()[-1]) for text in out)
    for name, expected in on_cpu.items():
        np.testing.assert_allclose(on_gpu[name], expected, rtol=2e-3, atol=2e-4, err_msg=name)


# ---------------------------------------------------------------------------- windows


def test_window_lengths():
    assert {n: training.window_lengths(n) for n in (1, 2, 3, 5, 8)} == {
        1: [1],
        2: [2, 1],
        3: [3, 2, 1],
        5: [5, 4, 2, 1],
        8: [8, 4, 2, 1],
    }


@pytest.mark.parametrize("model", ["shared", "embedding", "two_layers"])
def test_windows_of_all_lengths_share_the_optimizers_states(model):
    single, several = (
        training_of(log_of([9, 9, 9, 9]), **{**MODELS[model], "bptt": bptt}) for bptt in (1, 5)
    )
    assert sorted(several.functions) == [1, 2, 4, 5]
    assert sorted(several.optimizer_state()) == sorted(single.optimizer_state())
    assert sorted(several.variables()) == sorted(single.variables())


def windows_run(monkeypatch) -> list[tuple[int, int]]:
    """Note each call of a compiled window: its length and how often it runs."""
    called = []
    compile_all = training.Training._compile_all

    class Noting:
        def __init__(self, length, function):
            self.length, self.function = length, function

        def __getattr__(self, name):
            return getattr(self.function, name)

        @property
        def fn(self):
            def call(n_calls):
                called.append((self.length, n_calls))
                self.function.fn(n_calls=n_calls)

            return call

    monkeypatch.setattr(
        training.Training,
        "_compile_all",
        lambda self: {n: Noting(n, f) for n, f in compile_all(self).items()},
    )
    return called


@pytest.mark.parametrize("store", [0, 8 * 23, 10**6])
def test_windows_depend_on_the_schedule_alone(train_data, monkeypatch, store):
    """Not on the size of the store, nor on how fast the machine is."""
    monkeypatch.setattr(training, "BLOCK_STEPS", 20)
    called = windows_run(monkeypatch)
    values = {"layers": [4], "batch_size": 16, "n_sample": 8, "n_epochs": 1, "bptt": 5}
    gru = GRU4Rec(**values)
    gru.fit(train_data, sample_store=store)
    log = sessions.index_sessions(train_data)
    order = schedule.training_order(log, True)
    expected = []
    for block in schedule.schedule_blocks(log, order, 16, 20):
        left = len(block.inputs)
        for length in (5, 4, 2, 1):
            expected += [length] * (left // length)
            left %= length
    found = list(itertools.chain(*([length] * n for length, n in called)))
    assert found == expected
    assert {1, 2, 4, 5} == set(found)
    monkeypatch.undo()
    monkeypatch.setattr(training, "BLOCK_STEPS", 20)
    whole = GRU4Rec(**values)
    whole.fit(train_data)
    assert all(w.tobytes() == gru.weights()[n].tobytes() for n, w in whole.weights().items())


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(st.integers(1, 12), min_size=1, max_size=20),
    window=st.integers(1, 5),
    capacity=st.integers(1, 12),
    skips=st.booleans(),
)
def test_a_store_serves_whole_windows(asked, window, capacity, skips):
    """Every mini-batch's negatives once and in order, however the store is filled."""
    drawn = [0]

    def draw(n):
        rows = np.arange(drawn[0], drawn[0] + n)
        drawn[0] += n
        return np.repeat(rows[:, None], 2, axis=1).astype(np.int32)

    if skips:
        draw.skip = lambda n: drawn.__setitem__(0, n)
    store = SampleStore(draw, 2, 2 * capacity, on_device=False)
    seen, left = [], sum(asked)
    for n_steps in asked:
        while n_steps:
            n = store.serve(n_steps, left, window)
            assert n == n_steps or (n < n_steps and n > 0 and n % window == 0)
            seen += store.samples.get_value()[:n, 0].tolist()
            n_steps, left = n_steps - n, left - n
    assert seen == list(range(sum(asked)))


# ---------------------------------------------------------------------------- masks


def test_a_mask_for_each_sequence():
    """The same through a sequence's steps and windows, another one in the next and beside it."""
    log = log_of([9, 4, 9, 9, 9], n_items=30)
    run = training_of(
        log, layers=[40], bptt=2, dropout_mask="sequence", dropout_p_hidden=0.5, n_sample=4
    )
    run.reset_states()
    block = first_block(run, 6)
    run.block.upload(block, run.states)
    run.store.serve(6, 6)
    masks = []
    for _ in range(3):
        run.run_steps(2)
        # a unit that was dropped is zero; where a session ends with the window all are
        masks.append(run.states[0].get_value() == 0)
    ends = block.ends.reshape(3, 2, -1)
    for row in range(3):
        for window in range(2):
            if ends[window, 1, row] or ends[window + 1, 1, row]:
                continue
            same = (masks[window][row] == masks[window + 1][row]).all()
            assert same == (not ends[window + 1, 0, row])
    assert block.ends.any()
    assert not (masks[0][0] == masks[0][2]).all()
    assert 0.3 < masks[0][0].mean() < 0.7


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_masks_of_rows_are_fair(p):
    from gru4rec_toolkit.model.dropout import dropout_of_rows
    from gru4rec_toolkit.theano_setup import tensor as tt

    x, keys = tt.matrix(), tt.lvector()
    function = theano.function([x, keys], dropout_of_rows(x, p, 5 + (3 << 32), keys))
    ones = np.ones((600, 200), dtype=theano.config.floatX)
    found = function(ones, np.arange(600) + (1 << 36))
    kept = found > 0
    np.testing.assert_allclose(found[kept], 1 / (1 - p), rtol=1e-5)
    # each share's standard error is known
    for axis, n in ((0, 600), (1, 200)):
        error = np.sqrt(p * (1 - p) / n)
        assert np.abs(kept.mean(axis=axis) - (1 - p)).max() < 5 * error
    assert abs(np.corrcoef(kept[:-1].ravel(), kept[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(kept[:, :-1].ravel(), kept[:, 1:].ravel())[0, 1]) < 0.02
    again = function(ones[:3], np.array([7, 0, 7]) + (1 << 36))
    assert (again[0] == found[7]).all() and (again[1] == found[0]).all()
