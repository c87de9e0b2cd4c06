"""The GRU4Rec class beyond the trajectories: stores, dropout, prediction, retraining, saving."""

from __future__ import annotations

import concurrent.futures
import copy
import inspect
import itertools
import pickle
import time
import types

import numpy as np
import pandas as pd
import pytest
from helpers.systems import MODELS

import evaluation
from gru4rec import GRU4Rec, TrainingDiverged
from gru4rec_toolkit import parameters
from gru4rec_toolkit.data import schedule, sessions
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model import training, weights
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

SHARED = dict(
    layers=[16],
    batch_size=8,
    n_epochs=1,
    n_sample=0,
    constrained_embedding=True,
    loss="cross-entropy",
    final_act="softmax",
)


def trained(data, **settings):
    gru = GRU4Rec(**{**SHARED, **settings})
    gru.fit(data)
    return gru


def epoch_losses(capsys):
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Epoch")]
    return [float(line.split("loss: ")[1].split()[0]) for line in lines]


def weights_equal(a, b):
    a, b = a.weights(), b.weights()
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


# --- training -------------------------------------------------------------------------------------


def test_a_function_is_called_after_every_epoch(train_data):
    seen = []
    gru = GRU4Rec(**{**SHARED, "n_epochs": 3})
    gru.fit(train_data, after_epoch=lambda epoch: seen.append((epoch, gru.weights())))
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert np.array_equal(seen[2][1]["Wy"], gru.weights()["Wy"])
    assert not np.array_equal(seen[1][1]["Wy"], seen[2][1]["Wy"])
    assert weights_equal(gru, trained(train_data, n_epochs=3))

    def enough(epoch):
        raise StopIteration(epoch)

    with pytest.raises(StopIteration, match="1"):
        gru.fit(train_data, after_epoch=enough)


@pytest.mark.parametrize("sample_store, store_type", [(10**7, "gpu"), (10**7, "cpu"), (0, "gpu")])
@pytest.mark.parametrize("block_steps", [7, 512])
def test_the_kind_of_store_and_blocks_do_not_matter(
    train_data, monkeypatch, sample_store, store_type, block_steps
):
    """The same negatives in the same order give the same model, however they get there."""
    monkeypatch.setattr(training, "BLOCK_STEPS", block_steps)

    def run(store, kind):
        rng = np.random.default_rng(5)
        gru = GRU4Rec(**{**SHARED, "n_sample": 16})
        # one stream of ids, whatever the sizes in which it is asked for
        gru.negative_sampler = lambda n: rng.integers(0, 60, size=(n, 16))
        gru.fit(train_data, sample_store=store, store_type=kind)
        return gru

    assert weights_equal(run(sample_store, store_type), run(16 * 40, "gpu"))


def test_same_seed_same_model(train_data):
    settings = dict(n_sample=16, dropout_p_embed=0.2, dropout_p_hidden=0.2)
    first = trained(train_data, **settings, seed=3)
    assert weights_equal(first, trained(train_data, **settings, seed=3))
    other = trained(train_data, **settings, seed=4)
    assert not weights_equal(first, other)


@pytest.mark.parametrize("sample_store", [0, 16 * 40])
def test_the_speed_of_the_machine_does_not_matter(train_data, monkeypatch, sample_store):
    """How many steps run between two looks of Python depends on time; what is drawn must not."""

    def run():
        gru = GRU4Rec(**{**SHARED, "n_sample": 16})
        gru.fit(train_data, sample_store=sample_store)
        return gru

    seconds = itertools.count()
    fast = run()
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(seconds))  # a step a second
    assert weights_equal(fast, run())


def test_the_data_is_left_alone(train_data):
    copy = train_data.copy(deep=True)
    trained(train_data)
    pd.testing.assert_frame_equal(train_data, copy)


def test_random_order_changes_every_epoch(train_data, monkeypatch):
    orders = []
    original = schedule.schedule_blocks

    def spy(log, order, *args):
        orders.append(order.tolist())
        return original(log, order, *args)

    monkeypatch.setattr(schedule, "schedule_blocks", spy)
    trained(train_data, train_random_order=True, n_epochs=2)
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


@pytest.mark.parametrize(("random_order", "times"), [(False, 1), (True, 3)])
def test_steps_are_planned_once_where_their_order_is_fixed(
    train_data, monkeypatch, random_order, times
):
    planned = []
    count = schedule.count_steps
    monkeypatch.setattr(schedule, "count_steps", lambda *args: planned.append(1) or count(*args))
    trained(train_data, train_random_order=random_order, n_epochs=3)
    assert len(planned) == times


def test_integer_and_string_ids_give_the_same_model(train_data):
    as_integers = train_data.assign(ItemId=train_data.ItemId.astype(np.int64))
    numbers, strings = trained(as_integers), trained(train_data)
    assert weights_equal(numbers, strings)
    assert numbers.item_ids.tolist() == [int(i) for i in strings.item_ids]


def test_nan_is_found_with_its_step(train_data):
    with pytest.raises(TrainingDiverged, match=r"epoch 1, step \d+.*learning_rate"):
        trained(
            train_data, loss="bpr-max", final_act="linear", adapt=None, learning_rate=1e25, bpreg=1
        )


def test_the_step_that_is_named_is_the_first_bad_one(train_data, monkeypatch):
    monkeypatch.setattr(training, "BLOCK_STEPS", 20)
    original = training.Training.run_block
    calls = []

    def poisoned(self, block, *args):
        costs = original(self, block, *args)
        calls.append(costs)
        if len(calls) == 3:
            costs[4:] = np.nan
        return costs

    monkeypatch.setattr(training.Training, "run_block", poisoned)
    with pytest.raises(TrainingDiverged, match="step 45;"):
        trained(train_data)


@pytest.mark.parametrize("adapt", [None, "rmsprop", "adadelta", "adam"])
def test_every_optimizer_learns(train_data, capsys, adapt):
    rate = {None: 0.5, "rmsprop": 0.01, "adadelta": 1.0, "adam": 0.01}[adapt]
    trained(train_data, adapt=adapt, learning_rate=rate, n_epochs=3, momentum=0.1)
    losses = epoch_losses(capsys)
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(batch_size=1000), "set batch_size to"),
        (dict(item_key="Product"), 'no column "Product"'),
    ],
)
def test_data_that_does_not_fit(train_data, settings, words):
    with pytest.raises(InputError, match=words):
        trained(train_data, **settings)


def test_unknown_store_type(train_data):
    with pytest.raises(InputError, match="store_type"):
        GRU4Rec(**SHARED).fit(train_data, store_type="disk")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(sample_store=None), "sample_store: expected"),
        (dict(sample_store="x"), "sample_store: expected"),
        (dict(sample_store=-1), "sample_store: expected"),
        (dict(sample_store=0.5), "sample_store: expected"),
        (dict(store_type=["gpu"]), "store_type: expected"),
        (dict(retrain=None), "retrain: expected True or False"),
        (dict(retrain="again"), "retrain: expected True or False"),
        (dict(after_epoch="print"), "after_epoch: expected a function"),
        (dict(after_epoch=object), "after_epoch: expected a function"),
        (dict(after_epoch=lambda: None), "after_epoch: expected a function of an epoch's number"),
        (dict(data="train.tsv"), "training data: expected a pandas DataFrame, got str"),
        (dict(data=[1, 2]), "training data: expected a pandas DataFrame, got list"),
        (dict(data=None), "training data: expected a pandas DataFrame, got NoneType"),
    ],
)
def test_arguments_of_fit(train_data, arguments, words):
    with pytest.raises(InputError, match=words):
        GRU4Rec(**SHARED).fit(**{"data": train_data, **arguments})


def test_a_negative_sampler_is_a_function(train_data):
    gru = GRU4Rec(**SHARED)
    for sampler in ([1, 2, 3], lambda n, m: None):
        gru.negative_sampler = sampler
        with pytest.raises(InputError, match="negative_sampler: expected a function"):
            gru.fit(train_data)


def test_what_a_negative_sampler_draws_is_checked(train_data):
    gru = GRU4Rec(**{**SHARED, "n_sample": 16})
    gru.negative_sampler = lambda n_batches: np.full((n_batches, 16), 1 << 40)
    with pytest.raises(InputError, match="negative_sampler: expected.*from 0 to 59, got the index"):
        gru.fit(train_data)


WITHOUT_EFFECT = [
    ({"dropout_p_embed": 0.5}, {"embedding": 4}, "dropout_p_embed"),
    ({"dropout_mask": "sequence"}, {"dropout_p_hidden": 0.1}, "dropout_mask"),
    ({"session_border": "reset"}, {"user_key": "UserId"}, "session_border"),
    ({"long_sequences": "last"}, {"max_sequence": 9}, "long_sequences"),
]


@pytest.mark.parametrize(("values", "needed", "name"), WITHOUT_EFFECT)
def test_what_has_no_effect_is_called_out(train_data, values, needed, name, caplog):
    values = {"constrained_embedding": False, "n_epochs": 1, **values}
    data = train_data.assign(UserId=train_data["SessionId"])
    for more in ({}, needed):
        caplog.clear()
        trained(data, **values, **more)
        said = [text for text in caplog.messages if "has no effect" in text]
        assert [text.partition(" ")[0] for text in said] == ([] if more else [name])


# --- dropout --------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_keeps_the_mean_and_drops_the_share(model, train_data, p):
    log = sessions.index_sessions(train_data)
    run = training.Training(model.network, log, 0, True)
    x = tt.fmatrix()
    counter = run.dropout.steps_done
    of_step = run.dropout.of_step(0, [])
    dropped = theano.function([x], of_step(x, p), updates=[(counter, counter + 1)])
    ones = np.ones((400, 500), dtype=np.float32)
    first, second = dropped(ones), dropped(ones)
    kept = (first != 0).mean()
    assert kept == pytest.approx(1 - p, abs=5 * np.sqrt(p * (1 - p) / ones.size))
    np.testing.assert_allclose(first[first != 0], 1 / (1 - p), rtol=1e-6)
    # a new mask every step, independent of the one before
    both = ((first != 0) & (second != 0)).mean()
    assert both == pytest.approx((1 - p) ** 2, abs=0.01)
    # rows and columns are independent too
    mask = first != 0
    assert (mask[1:] & mask[:-1]).mean() == pytest.approx((1 - p) ** 2, abs=0.01)
    assert (mask[:, 1:] & mask[:, :-1]).mean() == pytest.approx((1 - p) ** 2, abs=0.01)


def test_dropped_hidden_units_are_zero_in_the_carried_state(train_data):
    """Hidden dropout applies to the state that goes on to the next step."""
    gru = GRU4Rec(**{**SHARED, "dropout_p_hidden": 0.5})
    states = []
    original = training.Training.run_block

    def spy(self, block, *args):
        costs = original(self, block, *args)
        states.append(self.states[0].get_value()[block.ends[-1] == 0])
        return costs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Training, "run_block", spy)
        patch.setattr(training, "BLOCK_STEPS", 5)
        gru.fit(train_data)
    values = np.concatenate(states)
    assert (values == 0).mean() == pytest.approx(0.5, abs=0.05)


def test_finished_sessions_start_from_zero(train_data, monkeypatch):
    ended = []
    original = training.Training.run_block

    def spy(self, block, *args):
        costs = original(self, block, *args)
        state = self.states[0].get_value()
        ended.append((state[block.ends[-1] == 1], state[block.ends[-1] == 0]))
        return costs

    monkeypatch.setattr(training.Training, "run_block", spy)
    monkeypatch.setattr(training, "BLOCK_STEPS", 5)
    trained(train_data)
    zeros, others = (np.concatenate(part) for part in zip(*ended))
    assert len(zeros) and not zeros.any()
    assert len(others) and others.any(axis=1).all()


# --- prediction -----------------------------------------------------------------------------------


def test_predictions_agree_with_symbolic_predict(model):
    X, Y, items = tt.ivector(), tt.ivector(), tt.ivector()
    yhat, states, updates = model.symbolic_predict(X, Y, X.shape[0], None, 5)
    step = theano.function([X], yhat, updates=updates)
    item_ids = model.item_ids[[3, 1, 4, 1, 5]]
    for _ in range(3):
        scores = model.predict_next_batch(np.arange(5), item_ids, batch=5)
        assert scores.shape == (60, 5)
        assert scores.index.tolist() == model.item_ids.tolist()
        np.testing.assert_allclose(scores.to_numpy().sum(axis=0), 1, rtol=1e-5)  # a softmax
        expected = step(np.array([3, 1, 4, 1, 5], dtype=np.int32))
        np.testing.assert_allclose(scores.to_numpy().T, expected, rtol=1e-5, atol=1e-8)

    # of given items only: the targets come first, then the items
    yhat, states, updates = model.symbolic_predict(X, Y, X.shape[0], items, 2)
    f = theano.function([X, Y, items], yhat, updates=updates)
    given = f(*(np.array(a, dtype=np.int32) for a in ([3, 1], [7, 8], [9, 10, 11])))
    assert given.shape == (2, 5)
    model.predict_next_batch([100, 101], model.item_ids[[0, 0]], batch=2)
    full = model.predict_next_batch([102, 103], model.item_ids[[3, 1]], batch=2).to_numpy()
    part = full[[7, 8, 9, 10, 11]] / full[[7, 8, 9, 10, 11]].sum(axis=0)
    np.testing.assert_allclose(given.T, part, rtol=1e-4)


def test_a_new_session_in_a_slot_starts_from_zero(model):
    fresh = model.predict_next_batch([1, 2], model.item_ids[[5, 5]], batch=2)
    model.predict_next_batch([1, 2], model.item_ids[[6, 7]], batch=2)
    mixed = model.predict_next_batch([1, 3], model.item_ids[[5, 5]], batch=2)
    np.testing.assert_allclose(mixed[1], fresh[1], rtol=1e-6)
    assert np.abs(mixed[0] / fresh[0] - 1).max() > 0.01


def test_given_items_only(model):
    some = model.item_ids[[7, 2, 30]]
    model.predict_next_batch([1], model.item_ids[[5]], batch=1)
    scores = model.predict_next_batch([2], model.item_ids[[5]], some, batch=1)
    assert scores.index.tolist() == some.tolist()
    full = model.predict_next_batch([3], model.item_ids[[5]], batch=1)
    np.testing.assert_allclose(scores[0], full.loc[some, 0] / full.loc[some, 0].sum(), rtol=1e-4)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(input_item_ids=["1", "2"]), "does not occur"),
        (dict(session_ids=[1, 2, 3]), "batch"),
        (dict(predict_for_item_ids=["nothing"]), "nothing"),
    ],
)
def test_predictions_of_the_impossible(model, arguments, words):
    good = dict(session_ids=[1, 2], input_item_ids=model.item_ids[:2], batch=2)
    with pytest.raises(InputError, match=words):
        model.predict_next_batch(**{**good, **arguments})


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(session_ids=[[1], [2]]), r"session_ids: slot 0 holds \[1\]"),
        (dict(session_ids=[1, float("nan")]), "session_ids: slot 1 holds nan"),
        (dict(session_ids=pd.DataFrame({"a": [1, 2]})), "session_ids.*got DataFrame"),
        (dict(session_ids="ab"), "session_ids.*got str"),
        (dict(session_ids=None), "session_ids.*got NoneType"),
        (dict(session_ids=7), "session_ids.*got int"),
        (dict(session_ids=[]), "session_ids: it is empty"),
        (dict(input_item_ids=pd.DataFrame({"a": [1, 2]})), "input_item_ids.*got DataFrame"),
        (dict(input_item_ids="ab"), "input_item_ids.*got str"),
        (dict(input_item_ids=None), "input_item_ids.*got NoneType"),
        (dict(input_item_ids=[None, None]), "input_item_ids: item None"),
        (dict(input_item_ids=[(1, 2), (3, 4)]), r"input_item_ids: item \(1, 2\)"),
        (dict(predict_for_item_ids=[]), "predict_for_item_ids: it is empty"),
        (dict(predict_for_item_ids=[None]), "predict_for_item_ids: item None"),
        (dict(predict_for_item_ids="914"), "predict_for_item_ids.*got str"),
        (dict(predict_for_item_ids=np.ones((1, 1))), "predict_for_item_ids.*got ndarray"),
        (dict(batch="x"), "batch: expected an integer"),
        (dict(batch=None), "batch: expected an integer"),
        (dict(batch=0), "batch: expected an integer"),
    ],
)
def test_arguments_of_predictions(model, arguments, words):
    good = dict(session_ids=[1, 2], input_item_ids=model.item_ids[:2], batch=2)
    with pytest.raises(InputError, match=words):
        model.predict_next_batch(**{**good, **arguments})


def test_a_rejected_call_forgets_no_states(model):
    some = model.item_ids[[5, 6]]
    model.predict_next_batch([1, 2], some, batch=2)
    expected = model.predict_next_batch([1, 2], some, batch=2)
    model.predict_next_batch([3, 4], some, batch=2)
    model.predict_next_batch([1, 2], some, batch=2)
    with pytest.raises(InputError):
        model.predict_next_batch([1, 2, 3], ["unknown"] * 3, batch=3)
    pd.testing.assert_frame_equal(model.predict_next_batch([1, 2], some, batch=2), expected)


def test_tuples_are_session_ids(model):
    """A new tuple is a new session, an equal one is the same."""
    some = model.item_ids[[5, 5]]
    runs = []
    for first, second in [((1, 2), (1, 3)), (("a", (1, 2)), ("a", 3)), ("x", "y"), (7, 8)]:
        fresh = model.predict_next_batch([(0,), (0, 0)], some, batch=2)
        fresh = model.predict_next_batch([first, second], some, batch=2)
        mixed = model.predict_next_batch([first, (9, 9)], some, batch=2)
        runs.append(np.stack([fresh, mixed]))
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])
    np.testing.assert_array_equal(mixed[1], fresh[1])
    assert np.abs(mixed[0] / fresh[0] - 1).max() > 0.01


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, pd.Index, pd.Categorical, iter])
def test_kinds_of_sequences(model, kind):
    ids = model.item_ids[[5, 6]].tolist()
    model.predict_next_batch([3, 4], ids, batch=2)  # so that 1 and 2 are new sessions
    expected = model.predict_next_batch([1, 2], ids, ids, batch=2)
    model.predict_next_batch([3, 4], ids, batch=2)
    again = model.predict_next_batch(kind([1, 2]), kind(ids), kind(ids), batch=2)
    pd.testing.assert_frame_equal(again, expected)


def test_untrained_models_say_so(tmp_path):
    gru = GRU4Rec()
    X = tt.ivector()
    for action in (
        gru.weights,
        lambda: gru.symbolic_predict(X, X, 1, None, 1),
        lambda: gru.predict_next_batch([1], [1], batch=1),
        lambda: gru.savemodel(str(tmp_path / "model")),
        lambda: gru.fit(pd.DataFrame(), retrain=True),
    ):
        with pytest.raises(InputError, match="not trained"):
            action()
    for name in ("Wx", "Wh", "Wrz", "Bh", "Wy", "By", "E"):
        with pytest.raises(AttributeError, match=f"{name}: the model is not trained"):
            getattr(gru, name)
    assert gru.item_ids is None


def test_parameters_without_a_name():
    with pytest.raises(InputError, match=r"GRU4Rec takes its parameters by name.*got \[100\]"):
        GRU4Rec([100])


@pytest.mark.parametrize("settings", [None, [], "x", 3])
def test_what_apply_takes(settings):
    with pytest.raises(InputError, match="parameters: expected a mapping"):
        GRU4Rec().apply(settings)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(X="x"), "X: expected a Theano vector of integers, got 'x'"),
        (dict(X=None), "X: expected"),
        (dict(X=tt.fvector()), "X: expected"),
        (dict(X=tt.imatrix()), "X: expected"),
        (dict(X=slice(1)), "X: expected"),
        (dict(Y=None, items=tt.ivector()), "Y: expected"),
        (dict(items="x"), "items: expected"),
        (dict(items=5), "items: expected"),
        (dict(items=tt.fvector()), "items: expected"),
        (dict(M=None), "M: expected"),
        (dict(M=2.5), "M: expected"),
        (dict(M=True), "M: expected"),
        (dict(M=-1), "M: expected"),
        (dict(M=4), "M: expected.*up to batch_size"),
        (dict(M=tt.fscalar()), "M: expected"),
        (dict(M=tt.ivector()), "M: expected"),
    ],
)
def test_arguments_of_symbolic_predict(model, changes, words):
    good = dict(X=tt.ivector(), Y=tt.ivector(), M=3, items=None, batch_size=3)
    model.symbolic_predict(**{**good, "M": tt.iscalar(), "items": np.array([3, 1])})
    with pytest.raises(InputError, match=words):
        model.symbolic_predict(**{**good, **changes})


# --- what belongs to the weights ------------------------------------------------------------------


def test_the_ids_and_the_weights_belong_together(model):
    gru = copy.deepcopy(model)
    with pytest.raises(InputError, match="item_ids belong to the weights"):
        gru.item_ids = gru.item_ids[::-1]
    with pytest.raises(ValueError, match="read-only"):
        gru.item_ids[0] = "5"
    with pytest.raises(InputError, match="Wy cannot be replaced.*set_value"):
        gru.Wy = None
    again = pickle.loads(pickle.dumps(gru))
    with pytest.raises(ValueError, match="read-only"):
        again.item_ids[0] = "5"
    assert again.item_ids.tolist() == model.item_ids.tolist()


def test_taking_other_weights(model):
    gru, ids = GRU4Rec(), np.arange(len(model.item_ids))
    gru.take(model.network, ids)
    assert gru.support is None
    support = ids + 1
    gru.take(model.network, ids, support)
    ids[0] = support[0] = 99  # the caller's arrays stay writable, and are not the model's
    assert gru.support[0] == 1
    assert gru.item_ids.tolist() == list(range(len(ids)))
    assert gru.predict_next_batch([1], [0], batch=1).shape == (len(ids), 1)
    for arguments, words in [
        ((None, None), "take: expected a Network, got None"),
        ((model.network, None), f"take: expected an array of {len(ids)} item ids"),
        ((model.network, ids[1:]), "take: expected an array"),
    ]:
        with pytest.raises(InputError, match=words):
            gru.take(*arguments)
    assert gru.item_ids[0] == 0


def counts(gru):
    return dict(zip(gru.item_ids.tolist(), gru.support.tolist()))


def test_the_support_counts_the_events_of_all_trainings(train_data, tmp_path):
    gru = trained(train_data)
    assert gru.support.dtype == np.int64
    assert counts(gru) == train_data.ItemId.value_counts().to_dict()
    new = train_data.head(80).copy()
    new.loc[new.index[:40], "ItemId"] = "brand new"
    gru.fit(new, retrain=True)
    both = pd.concat([train_data, new])
    assert counts(gru) == both.ItemId.value_counts().to_dict()
    gru.savemodel(tmp_path / "model")
    again = GRU4Rec.loadmodel(tmp_path / "model")
    assert again.support.dtype == np.int64 and counts(again) == counts(gru)
    gru.fit(train_data)
    assert counts(gru) == train_data.ItemId.value_counts().to_dict()


def test_the_support_cannot_be_changed(model):
    gru = copy.deepcopy(model)
    with pytest.raises(InputError, match=r"support belongs to the items.*take\("):
        gru.support = model.support
    with pytest.raises(ValueError, match="read-only"):
        gru.support[0] = 0


def test_models_of_older_files_have_no_support(train_data, tmp_path):
    (older,) = MODELS.glob("x86_64-python3.11-*-numbers.gru4rec")
    gru = GRU4Rec.loadmodel(older)
    assert gru.support is None
    gru.n_epochs = 1
    gru.fit(train_data, retrain=True)
    assert gru.support is None, "one of two trainings is no support"
    gru.savemodel(tmp_path / "model")
    assert GRU4Rec.loadmodel(tmp_path / "model").support is None


@pytest.mark.parametrize(
    "support",
    [[3] * 60, np.ones(59, int), np.ones((60, 1), int), np.ones(60), np.full(60, -1)],
    ids=["list", "short", "column", "floats", "negative"],
)
def test_taking_what_is_no_support(model, support):
    with pytest.raises(InputError, match="take: expected an array of 60 numbers of events"):
        GRU4Rec().take(model.network, model.item_ids, support)


SET_BY_HAND = {
    "fewer rows": ("Wy", lambda w: w[:1], r"Wy have the shape \(1, 16\) instead of \(60, 16\)"),
    "more rows": ("Wy", lambda w: np.tile(w, (2, 1)), "Wy have the shape"),
    "fewer biases": ("By", lambda w: w[:1], "By have the shape"),
    "narrow": ("Wh0", lambda w: w[:, :1], "Wh0 have the shape"),
    "short": ("Bh0", lambda w: w[:1], "Bh0 have the shape"),
    "NaN": ("Wy", lambda w: w * np.nan, "Wy hold NaN or infinity"),
    "infinity": ("Wrz0", lambda w: w + np.inf, "Wrz0 hold NaN or infinity"),
}


@pytest.mark.parametrize("case", SET_BY_HAND)
def test_weights_set_by_hand_are_checked(train_data, test_data, model, tmp_path, case):
    """No good file is replaced by one that cannot be loaded, and no message is Theano's."""
    path = tmp_path / "model"
    model.savemodel(path)
    good = path.read_bytes()
    gru = GRU4Rec.loadmodel(path)
    gru.predict_next_batch([1], gru.item_ids[:1], batch=1)
    name, change, words = SET_BY_HAND[case]
    table = next(v for v in gru.network.variables() if v.name == name)
    table.set_value(change(table.get_value()).astype("float32"))
    actions = {
        "save": lambda: gru.savemodel(path),
        "evaluate": lambda: evaluation.evaluate_gpu(gru, test_data),
        "retrain": lambda: gru.fit(train_data, retrain=True),
    }
    if "shape" in words:
        actions["predict"] = lambda: gru.predict_next_batch([1], gru.item_ids[:1], batch=1)
        actions["predict anew"] = lambda: gru.predict_next_batch([1, 2], gru.item_ids[:2], batch=2)
    for action in actions.values():
        with pytest.raises(InputError, match=f"the model's weights {words}"):
            action()
    assert path.read_bytes() == good


def test_force_is_true_or_false(model, tmp_path):
    for force in (pd.NA, None, "yes", np.array([1, 2])):
        with pytest.raises(InputError, match="force: expected True or False"):
            model.savemodel(tmp_path / "model", force=force)
    assert not (tmp_path / "model").exists()


def test_threads_share_a_model(model, tmp_path, monkeypatch):
    """Theano fails where two threads compile at a time, and their calls would mix states."""
    model.savemodel(tmp_path / "model")
    gru = GRU4Rec.loadmodel(tmp_path / "model")
    expected = model.predict_next_batch(["new"], model.item_ids[:1], batch=1)
    compile_function, inside, most = theano.function, [], []

    def compile_slowly(*args, **options):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return compile_function(*args, **options)

    monkeypatch.setattr(theano, "function", compile_slowly)

    def predict(thread):
        return [
            gru.predict_next_batch([(thread, call)], gru.item_ids[:1], batch=1)
            for call in range(20)
        ]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for scores in itertools.chain(*pool.map(predict, range(4))):
            pd.testing.assert_frame_equal(scores, expected)
    assert most == [1, 1]  # all items, and given ones


# --- retraining and saving ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, dict(constrained_embedding=False, embedding=6), dict(constrained_embedding=False)],
)
def test_retraining_keeps_what_was_learnt_and_adds_items(train_data, test_data, capsys, settings):
    gru = trained(train_data, n_epochs=3, **settings)
    before = epoch_losses(capsys)
    new = train_data.copy()
    new.loc[new.index[:40], "ItemId"] = "brand new"
    old_ids = gru.item_ids.tolist()
    gru.n_epochs = 1
    gru.fit(new, retrain=True)
    after = epoch_losses(capsys)
    assert gru.item_ids.tolist() == [*old_ids, "brand new"]
    assert len(gru.weights()["Wy"]) == 61
    assert after[0] < before[0], "it went on from trained weights"
    recall, _ = evaluation.evaluate_gpu(gru, test_data)
    assert recall[0] > 0.8


@pytest.mark.parametrize(
    "change",
    [
        dict(layers=[8]),
        dict(layers=[16, 16]),
        dict(constrained_embedding=False),
        dict(constrained_embedding=False, embedding=6),
    ],
)
def test_retraining_with_another_shape_says_so(train_data, change):
    gru = trained(train_data)
    before = gru.weights()
    gru.set_params(**change)
    with pytest.raises(InputError, match="retrain: .*layers"):
        gru.fit(train_data, retrain=True)
    assert all(np.array_equal(before[name], value) for name, value in gru.weights().items())


def test_fit_starts_anew(train_data):
    gru = trained(train_data)
    first = gru.weights()
    gru.fit(train_data)
    assert all(np.array_equal(first[name], value) for name, value in gru.weights().items())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(layers=[8, 6], constrained_embedding=False, embedding="layersize", adapt=None),
        dict(constrained_embedding=False, loss="bpr-max", final_act="elu-0.5", n_sample=8),
    ],
)
def test_save_and_load_round_trip(train_data, test_data, tmp_path, settings):
    gru = trained(train_data, **settings)
    path = str(tmp_path / "model.gru4rec")
    gru.savemodel(path)
    loaded = GRU4Rec.loadmodel(path)
    assert weights_equal(gru, loaded)
    assert loaded.item_ids.tolist() == gru.item_ids.tolist()
    assert loaded.get_params() == gru.get_params()
    assert evaluation.evaluate_gpu(gru, test_data) == evaluation.evaluate_gpu(loaded, test_data)


def test_a_loaded_model_can_be_trained_further(train_data, tmp_path, capsys):
    path = str(tmp_path / "model")
    trained(train_data, n_epochs=2).savemodel(path)
    before = epoch_losses(capsys)
    loaded = GRU4Rec.loadmodel(path)
    loaded.fit(train_data, retrain=True)
    assert epoch_losses(capsys)[0] < before[0]


# --- parameters -----------------------------------------------------------------------------------

# by attributes, in any order, and by set_params
WAYS = {
    "attributes": lambda gru, settings: [setattr(gru, *item) for item in settings.items()],
    "set_params": lambda gru, settings: gru.set_params(**settings),
}
CHANGES = [
    ("attributes", dict(layers=[24])),
    ("set_params", dict(layers=[8, 6], hidden_act="relu")),
    ("attributes", dict(loss="bpr-max", final_act="relu")),
    ("set_params", dict(constrained_embedding=False, embedding=6)),
    ("attributes", dict(batch_size=16, seed=7, learning_rate=0.2)),
]


@pytest.fixture(scope="module")
def load_trained(train_data, tmp_path_factory):
    """Load one more model that was trained with SHARED: no compiling as for a training."""
    path = str(tmp_path_factory.mktemp("trained") / "model")
    trained(train_data).savemodel(path)
    return lambda: GRU4Rec.loadmodel(path)


@pytest.fixture(scope="module")
def weights_of(train_data):
    """Return the weights of a training with SHARED and a change."""
    known = {}

    def train(**change):
        key = str(change)
        known[key] = known.get(key) or trained(train_data, **change).weights()
        return known[key]

    return train


def arrays_equal(a, b):
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


def behaviour(gru, test_data):
    """Everything that a user sees of a trained model."""
    X, inputs = tt.ivector(), gru.item_ids[[5, 6, 5]]
    yhat, _, updates = gru.symbolic_predict(X, X, X.shape[0], None, 3)
    seen = [theano.function([X], yhat, updates=updates)(np.arange(3, dtype=np.int32))]
    gru.predict_next_batch([-1, -2, -3], inputs, batch=3)  # the sessions are new
    seen += [gru.predict_next_batch([1, 2, 3], inputs, batch=3).to_numpy() for _ in range(2)]
    seen += [gru.weights()[name] for name in sorted(gru.weights())]
    seen.append(np.array(evaluation.evaluate_gpu(gru, test_data, mode="tiebreaking")))
    return seen


def same(a, b):
    return len(a) == len(b) and all(x.shape == y.shape and (x == y).all() for x, y in zip(a, b))


def reloaded(gru, tmp_path):
    path = str(tmp_path / "saved.gru4rec")
    gru.savemodel(path)
    return GRU4Rec.loadmodel(path)


@pytest.mark.parametrize("way, change", CHANGES)
def test_a_model_is_saved_as_it_was_trained(
    train_data, test_data, tmp_path, weights_of, way, change
):
    gru = GRU4Rec(**SHARED)
    WAYS[way](gru, change)
    gru.fit(train_data)
    assert arrays_equal(gru.weights(), weights_of(**change))
    loaded = reloaded(gru, tmp_path)
    assert loaded.get_params() == GRU4Rec(**{**SHARED, **change}).get_params()
    assert same(behaviour(loaded, test_data), behaviour(gru, test_data))


@pytest.mark.parametrize("way, change", CHANGES)
def test_parameters_set_after_training_are_for_the_next(
    train_data, test_data, tmp_path, load_trained, weights_of, way, change
):
    gru = load_trained()
    before = behaviour(gru, test_data)  # with a predictor that goes on to exist
    WAYS[way](gru, change)
    assert {name: getattr(gru, name) for name in change} == change
    assert same(behaviour(gru, test_data), before)
    loaded = reloaded(gru, tmp_path)
    assert loaded.get_params() == GRU4Rec(**SHARED).get_params()
    assert same(behaviour(loaded, test_data), before)
    gru.fit(train_data)
    assert arrays_equal(gru.weights(), weights_of(**change))


def test_parameters_set_in_training_are_for_the_next(train_data, tmp_path, weights_of):
    gru = GRU4Rec(**{**SHARED, "n_epochs": 2})
    gru.fit(train_data, after_epoch=lambda _: gru.set_params(batch_size=4, layers=[5], seed=1))
    assert arrays_equal(gru.weights(), weights_of(n_epochs=2))
    assert reloaded(gru, tmp_path).get_params() == GRU4Rec(**{**SHARED, "n_epochs": 2}).get_params()


def test_setting_one_parameter_leaves_the_others():
    gru = GRU4Rec()
    gru.layers = "24/12"
    gru.batch_size = 16
    gru.set_params(seed=1)
    assert (gru.layers, gru.batch_size, gru.seed) == ([24, 12], 16, 1)


@pytest.mark.parametrize(
    "name, value",
    [("layers", []), ("layers", "x"), ("batch_size", 0), ("loss", "x"), ("adapt_params", [2])],
)
def test_a_wrong_attribute_sets_nothing(name, value):
    gru = GRU4Rec(layers=[7])
    before = gru.get_params()
    with pytest.raises(InputError, match=f"parameter {name}: expected"):
        setattr(gru, name, value)
    assert gru.get_params() == before


def test_lists_are_copies():
    sizes = [7]
    gru = GRU4Rec(layers=sizes)
    sizes.append(8)
    gru.get_params()["layers"].append(10)
    assert gru.layers == [7]
    gru.layers += [5]
    assert gru.layers == [7, 5] and str(gru.layers) == "[7, 5]"
    assert GRU4Rec().layers == [100]


CHANGES = {
    "append": lambda layers: layers.append(9),
    "extend": lambda layers: layers.extend([9]),
    "insert": lambda layers: layers.insert(0, 9),
    "item": lambda layers: layers.__setitem__(0, 9),
    "slice": lambda layers: layers.__setitem__(slice(None), [9]),
    "del": lambda layers: layers.__delitem__(0),
    "pop": lambda layers: layers.pop(),
    "remove": lambda layers: layers.remove(7),
    "clear": lambda layers: layers.clear(),
    "sort": lambda layers: layers.sort(),
    "reverse": lambda layers: layers.reverse(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_a_list_is_not_lost_silently(change):
    gru = GRU4Rec(layers=[7, 6])
    with pytest.raises(InputError, match=r"set the parameter to another list, as in gru.layers ="):
        change(gru.layers)
    assert gru.layers == [7, 6]
    own = copy.deepcopy(gru.layers)
    own.append(5)
    assert own == [7, 6, 5] and pickle.loads(pickle.dumps(gru.layers)) == [7, 6]


def test_contradicting_attributes_are_found_by_fit(train_data, test_data, load_trained, weights_of):
    gru = load_trained()
    before = behaviour(gru, test_data)
    gru.final_act = "linear"
    with pytest.raises(InputError, match="loss=cross-entropy needs final_act=softmax"):
        gru.fit(train_data)
    assert same(behaviour(gru, test_data), before)
    gru.loss = "bpr-max"
    gru.fit(train_data)
    assert arrays_equal(gru.weights(), weights_of(final_act="linear", loss="bpr-max"))


@pytest.mark.parametrize(
    "name, meant", [("n_epoch", "n_epochs"), ("layer", "layers"), ("Batch_Size", "batch_size")]
)
def test_a_misspelt_attribute_names_the_parameter(name, meant):
    gru = GRU4Rec()
    with pytest.raises(InputError, match=f"{name}; did you mean {meant}?"):
        setattr(gru, name, 5)
    assert not hasattr(gru, name)
    with pytest.raises(InputError, match=f"'{name}', did you mean {meant}?"):
        gru.set_params(**{name: 5})


class Variant(GRU4Rec):
    """What users write: defaults, attributes and methods of their own."""

    layers = (24,)
    batch_sizes = ()

    def __init__(self, depth=3, **settings):
        super().__init__(**settings)
        self.depth = depth
        self.history = []
        self.batch_sizes = [1, 2]

    def fit(self, data, **options):
        self.n_epochs = 1
        self.history.append("fit")
        return super().fit(data, **options)


@pytest.mark.filterwarnings("error")
def test_variants_have_attributes_of_their_own(train_data, test_data, tmp_path, weights_of):
    settings = {name: value for name, value in SHARED.items() if name != "layers"}
    gru = Variant(depth=4, **settings)
    gru.score = 1
    gru.weights = types.MethodType(lambda self: GRU4Rec.weights(self), gru)  # as monkeypatches do
    gru.fit(train_data)
    assert (gru.depth, gru.history, gru.batch_sizes) == (4, ["fit"], [1, 2])
    assert arrays_equal(gru.weights(), weights_of(layers=[24]))
    path = str(tmp_path / "variant")
    gru.savemodel(path)
    loaded = Variant.loadmodel(path)
    assert (type(loaded), loaded.depth, loaded.layers) == (Variant, 3, [24])
    assert same(behaviour(loaded, test_data), behaviour(gru, test_data))


def test_a_variant_hears_of_a_close_name():
    with pytest.warns(UserWarning, match="no parameter n_epoch; did you mean n_epochs?") as caught:
        gru = Variant()
        gru.n_epoch = 5
    assert caught[0].filename == __file__
    assert gru.n_epoch == 5


def test_defaults_of_variants():
    class Fast:
        n_epochs = "3"

    class Both(Fast, Variant):
        loss, final_act = "top1", "tanh"

    gru = Both()
    assert (gru.n_epochs, gru.layers, gru.loss, gru.final_act) == (3, [24], "top1", "tanh")
    gru.n_epochs = 4
    assert gru.get_params()["n_epochs"] == 4
    assert (Both(n_epochs=2).n_epochs, Variant().n_epochs, GRU4Rec().layers) == (2, 10, [100])
    with pytest.raises(InputError, match="parameter batch_size"):
        type("Broken", (GRU4Rec,), {"batch_size": 0})


def test_a_loaded_variant_has_the_parameters_of_the_file(test_data, tmp_path, load_trained):
    """Whatever its class has for defaults, and its constructor sets."""

    class Stubborn(Variant):
        def __init__(self):
            super().__init__()
            self.set_params(layers=[9], loss="bpr", final_act="linear")

    gru = load_trained()
    gru.savemodel(str(tmp_path / "model"))
    loaded = Stubborn.loadmodel(str(tmp_path / "model"))
    assert loaded.get_params() == gru.get_params()
    assert same(behaviour(loaded, test_data), behaviour(gru, test_data))


def test_column_names_of_a_loaded_model(train_data, test_data, tmp_path, load_trained):
    gru = load_trained()
    before = behaviour(gru, test_data)
    gru.item_key = "Product"
    renamed = test_data.rename(columns={"ItemId": "Product"})
    seen = evaluation.evaluate_gpu(gru, renamed, item_key=gru.item_key)
    assert seen == evaluation.evaluate_gpu(gru, test_data)
    assert same(behaviour(gru, test_data), before)
    gru.fit(train_data.rename(columns={"ItemId": "Product"}), retrain=True)
    assert reloaded(gru, tmp_path).item_key == "Product"


def failing(error):
    def fail(*_):
        raise error

    return fail


BEFORE_THE_FIRST_STEP = {
    "bad data": lambda patch: dict(data=pd.DataFrame({"a": [1]})),
    "no data": lambda patch: dict(data="train.tsv"),
    "no memory": lambda patch: patch.setattr(weights, "_draw", failing(MemoryError())),
    "compiling": lambda patch: patch.setattr(
        training.Training, "compile", failing(RuntimeError("broken"))
    ),
    "Ctrl-C": lambda patch: patch.setattr(
        training.Training, "compile", failing(KeyboardInterrupt())
    ),
    "argument": lambda patch: dict(sample_store=None),
}


@pytest.mark.parametrize("failure", BEFORE_THE_FIRST_STEP)
def test_a_fit_that_fails_before_it_begins_leaves_the_model(
    train_data, test_data, monkeypatch, load_trained, weights_of, failure
):
    gru = load_trained()
    before = behaviour(gru, test_data)
    gru.set_params(layers=[8, 6], hidden_act="relu")
    arguments = {"data": train_data, **(BEFORE_THE_FIRST_STEP[failure](monkeypatch) or {})}
    with pytest.raises((InputError, RuntimeError, KeyboardInterrupt)):
        gru.fit(**arguments)
    assert same(behaviour(gru, test_data), before)
    monkeypatch.undo()
    gru.fit(train_data)
    assert arrays_equal(gru.weights(), weights_of(layers=[8, 6], hidden_act="relu"))


@pytest.mark.parametrize("failure", BEFORE_THE_FIRST_STEP)
def test_a_first_fit_that_fails_leaves_an_untrained_model(train_data, monkeypatch, failure):
    gru = GRU4Rec(**SHARED)
    arguments = {"data": train_data, **(BEFORE_THE_FIRST_STEP[failure](monkeypatch) or {})}
    with pytest.raises((InputError, RuntimeError, KeyboardInterrupt)):
        gru.fit(**arguments)
    with pytest.raises(InputError, match="not trained"):
        gru.weights()
    assert repr(gru).endswith("not trained")


@pytest.mark.parametrize(
    "error, where",
    [
        (KeyboardInterrupt(), "a block"),
        (TrainingDiverged("NaN"), "a block"),
        (RuntimeError("mine"), "after_epoch"),
    ],
)
def test_a_fit_that_ends_early_is_consistent(
    train_data, test_data, tmp_path, monkeypatch, load_trained, error, where
):
    """The weights as they are then, with the parameters that they were built with."""
    gru = load_trained()
    gru.set_params(layers=[24], loss="bpr-max", final_act="relu", constrained_embedding=False)
    arguments = {}
    if where == "after_epoch":
        arguments["after_epoch"] = failing(error)
    else:
        monkeypatch.setattr(training.Training, "_check_costs", failing(error))
    with pytest.raises(type(error)):
        gru.fit(train_data, **arguments)
    assert gru.weights()["Wh0"].shape == (24, 24)
    gru.set_params(layers=[7])
    loaded = reloaded(gru, tmp_path)
    assert (loaded.layers, loaded.final_act) == ([24], "relu")
    assert same(behaviour(loaded, test_data), behaviour(gru, test_data))


def test_retraining_with_other_settings(train_data, tmp_path, load_trained):
    gru = load_trained()
    first = gru.weights()
    gru.learning_rate = 0.05
    gru.set_params(adapt="adam", batch_size=4)
    gru.fit(train_data, retrain=True)
    assert not np.array_equal(first["Wy"], gru.weights()["Wy"])
    loaded = reloaded(gru, tmp_path)
    assert (loaded.learning_rate, loaded.adapt, loaded.batch_size) == (0.05, "adam", 4)


def test_retraining_with_another_input_of_equal_shape_says_so(train_data):
    """With as many units as items, the shared embedding and one-hot input have equal shapes."""
    gru = trained(train_data, layers=[60])
    gru.constrained_embedding = False
    with pytest.raises(InputError, match="retrain: .*layers"):
        gru.fit(train_data, retrain=True)


def test_no_embedding_is_left_from_an_earlier_training(train_data, test_data, tmp_path):
    gru = trained(train_data, constrained_embedding=False, embedding=6)
    gru.set_params(embedding=0, constrained_embedding=True)
    gru.fit(train_data)
    assert gru.E is None
    assert same(behaviour(reloaded(gru, tmp_path), test_data), behaviour(gru, test_data))


def test_get_and_set_params_in_a_notebook():
    gru = GRU4Rec()
    assert gru.set_params(layers="8/4") is gru
    assert gru.get_params() == {**parameters.defaults(), "layers": [8, 4]}
    assert GRU4Rec(**gru.get_params()).get_params() == gru.get_params()


def test_the_signature_names_all_parameters():
    signature = inspect.signature(GRU4Rec)
    assert {p.name: p.default for p in signature.parameters.values()} == parameters.defaults()


def test_repr(train_data):
    gru = GRU4Rec(layers=[16], n_sample=0)
    assert repr(gru) == "GRU4Rec(layers=[16], n_sample=0), not trained"
    gru.fit(train_data)
    assert repr(gru) == "GRU4Rec(layers=[16], n_sample=0), trained on 60 items"
    gru.layers = [24]
    expected = "GRU4Rec(layers=[24], n_sample=0), trained on 60 items with layers=[16]"
    assert repr(gru) == expected
    assert repr(Variant()) == "Variant(), not trained"


def test_set_params_prints_aligned_lines(capsys):
    GRU4Rec().set_params(layers="224", loss="bpr-max", constrained_embedding="True")
    assert capsys.readouterr().out.splitlines() == [
        "SET   layers                  TO   [224]     (type: <class 'list'>)",
        "SET   loss                    TO   bpr-max   (type: <class 'str'>)",
        "SET   constrained_embedding   TO   True      (type: <class 'bool'>)",
    ]


def test_a_wrong_parameter_sets_nothing():
    gru = GRU4Rec()
    with pytest.raises(InputError, match="batch_size"):
        gru.set_params(layers=[7], batch_size=0)
    assert gru.layers == [100]
    with pytest.raises(InputError, match="final_act=softmax"):
        gru.set_params(loss="cross-entropy")
    assert gru.loss == "bpr-max"


def test_lack_of_memory_is_explained(train_data, monkeypatch):
    def fail(*_):
        raise MemoryError("Unable to allocate 1. TiB")

    monkeypatch.setattr(weights, "_draw", fail)
    with pytest.raises(InputError, match=r"not enough memory on cpu: the parameters of \d+ items"):
        GRU4Rec(layers=[10]).fit(train_data)


def test_other_errors_are_not_taken_for_lack_of_memory(train_data, monkeypatch):
    def fail(*_):
        raise ValueError("something else")

    monkeypatch.setattr(weights, "_draw", fail)
    with pytest.raises(ValueError, match="something else"):
        GRU4Rec(layers=[10]).fit(train_data)
