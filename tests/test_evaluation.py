"""Recall and MRR against brute force in numpy; the tie modes; what bounds memory."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evaluation
from gru4rec import GRU4Rec
from gru4rec_toolkit import parameters
from gru4rec_toolkit.data import sessions
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model import ranking
from gru4rec_toolkit.ranks import ranks_in_order

CUT_OFF = [1, 3, 5, 20]
BOTH = [evaluation.evaluate_gpu, evaluation.evaluate_sessions_batch]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def brute_force_scores(gru, data):
    """Yield (target index, scores of all items), event by event, from the model's equations."""
    w = {name: value.astype(np.float64) for name, value in gru.weights().items()}
    index = {item: i for i, item in enumerate(gru.item_ids.tolist())}
    act = {"linear": lambda x: x, "relu": lambda x: np.maximum(x, 0), "softmax": lambda x: x}
    n_layers = len(gru.layers)
    for _, session in data.groupby("SessionId"):
        session = session.sort_values("Time", kind="stable")
        items = [index[i] for i in session.ItemId if i in index]
        states = [np.zeros(n) for n in gru.layers]
        for item, target in zip(items[:-1], items[1:]):
            x = w["Wy"][item]
            for i in range(n_layers):
                n, h = gru.layers[i], states[i]
                v = x @ w[f"Wx{i}"] + w[f"Bh{i}"]
                rz = sigmoid(v[n:] + h @ w[f"Wrz{i}"])
                candidate = np.tanh(v[:n] + (h * rz[:n]) @ w[f"Wh{i}"])
                states[i] = x = (1 - rz[n:]) * h + rz[n:] * candidate
            yield target, act[gru.final_act](w["Wy"] @ x + w["By"][:, 0])


def brute_force_metrics(gru, data, mode, candidates=None):
    ranks = []
    for target, scores in brute_force_scores(gru, data):
        others = np.setdiff1d(range(len(scores)) if candidates is None else candidates, [target])
        better = (scores[others] > scores[target]).sum()
        equal = (scores[others] == scores[target]).sum()
        ranks.append(
            {
                "standard": 1 + better,
                "conservative": 1 + better + equal,
                "median": 1 + better + 0.5 * equal,
            }[mode]
        )
    ranks = np.array(ranks)
    return [(ranks <= n).mean() for n in CUT_OFF], [
        np.where(ranks <= n, 1 / ranks, 0).mean() for n in CUT_OFF
    ]


@pytest.mark.parametrize("mode", ["standard", "conservative", "median"])
def test_brute_force(model, test_data, mode):
    result = evaluation.evaluate_gpu(model, test_data, cut_off=CUT_OFF, mode=mode)
    np.testing.assert_allclose(result, brute_force_metrics(model, test_data, mode), rtol=1e-9)


@pytest.mark.parametrize("mode", ["standard", "conservative", "median"])
def test_brute_force_with_ties(model_with_ties, test_data, mode):
    result = evaluation.evaluate_gpu(model_with_ties, test_data, cut_off=CUT_OFF, mode=mode)
    expected = brute_force_metrics(model_with_ties, test_data, mode)
    np.testing.assert_allclose(result, expected, rtol=1e-9)


@pytest.mark.parametrize("mode", ["standard", "conservative", "median"])
def test_given_items(model_with_ties, test_data, mode):
    """The target is ranked against the given items only, whether it is one of them or not."""
    some = model_with_ties.item_ids[5:40:3]
    arguments = dict(items=some, cut_off=CUT_OFF, mode=mode)
    result = evaluation.evaluate_gpu(model_with_ties, test_data, **arguments)
    expected = brute_force_metrics(model_with_ties, test_data, mode, range(5, 40, 3))
    np.testing.assert_allclose(result, expected, rtol=1e-9)


def test_tiebreaking_is_random_among_equal_scores(model_with_ties, test_data):
    """Its expectation lies between the optimist and the pessimist, near the mean of all orders."""
    recall, _ = evaluation.evaluate_gpu(
        model_with_ties, test_data, cut_off=CUT_OFF, mode="tiebreaking"
    )
    expected = np.zeros(len(CUT_OFF))
    variance = np.zeros(len(CUT_OFF))
    n_events = 0
    for target, scores in brute_force_scores(model_with_ties, test_data):
        better = (scores > scores[target]).sum()
        equal = (scores == scores[target]).sum()  # the target included
        hit = np.clip((np.array(CUT_OFF) - better) / equal, 0, 1)
        expected += hit
        variance += hit * (1 - hit)
        n_events += 1
    assert variance[-1] > 0, "the model has no ties to break"
    assert (np.abs(np.array(recall) * n_events - expected) <= 4 * np.sqrt(variance) + 1e-9).all()


@settings(max_examples=300, deadline=None)
@given(better=st.integers(0, 30), equal=st.integers(0, 30), seed=st.integers(0, 99))
def test_ranks(better, equal, seed):
    b, e = np.array([better]), np.array([equal])
    rank = {
        mode: ranks_in_order(b, e, mode, seed)[0]
        for mode in ("standard", "conservative", "median", "tiebreaking")
    }
    assert rank["standard"] == 1 + better
    assert rank["conservative"] == 1 + better + equal
    assert rank["median"] == (rank["standard"] + rank["conservative"]) / 2
    assert rank["standard"] <= rank["tiebreaking"] <= rank["conservative"]


def test_tiebreaking_ranks_are_uniform():
    equal = np.full(40000, 3)
    ranks = ranks_in_order(equal * 0, equal, "tiebreaking", seed=0)
    counts = np.bincount(ranks.astype(int))
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:], 10000, rtol=0.05)


@pytest.mark.parametrize("batch_size", [1, 7, 80, 1000])
def test_batch_size_does_not_matter(model, test_data, batch_size):
    """Also with fewer sessions than the mini-batch has room for."""
    expected = evaluation.evaluate_gpu(model, test_data, cut_off=CUT_OFF)
    result = evaluation.evaluate_gpu(model, test_data, cut_off=CUT_OFF, batch_size=batch_size)
    np.testing.assert_allclose(result, expected)


@pytest.mark.parametrize("item_block", [1, 7, 59, 60, 61])
def test_item_blocks_do_not_matter(model_with_ties, test_data, monkeypatch, item_block):
    expected = evaluation.evaluate_gpu(model_with_ties, test_data, mode="median")
    monkeypatch.setattr(ranking, "ITEM_BLOCK", item_block)
    assert evaluation.evaluate_gpu(model_with_ties, test_data, mode="median") == expected


def test_one_test_session(model, test_data):
    one = test_data[test_data.SessionId == test_data.SessionId.iloc[0]]
    result = evaluation.evaluate_gpu(model, one, cut_off=CUT_OFF)
    np.testing.assert_allclose(result, brute_force_metrics(model, one, "standard"), rtol=1e-9)


def test_several_layers(train_data, test_data):
    gru = GRU4Rec(
        layers=[8, 6],
        batch_size=8,
        n_epochs=1,
        n_sample=0,
        constrained_embedding=True,
        loss="cross-entropy",
        final_act="softmax",
    )
    gru.fit(train_data)
    result = evaluation.evaluate_gpu(gru, test_data, cut_off=CUT_OFF)
    np.testing.assert_allclose(result, brute_force_metrics(gru, test_data, "standard"), rtol=1e-9)


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("mode", parameters.TIE_MODES)
@pytest.mark.parametrize("given_items", [False, True])
def test_the_slow_twin_agrees(model_with_ties, test_data, mode, given_items):
    items = model_with_ties.item_ids[10:30] if given_items else None
    arguments = dict(items=items, cut_off=CUT_OFF, batch_size=13, mode=mode)
    slow = evaluation.evaluate_sessions_batch(model_with_ties, test_data, **arguments)
    fast = evaluation.evaluate_gpu(model_with_ties, test_data, **arguments)
    np.testing.assert_allclose(slow, fast)


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("mode", parameters.TIE_MODES)
def test_the_slow_twin_ranks_scores_that_a_softmax_would_round(model, test_data, mode, tmp_path):
    """Probabilities of different scores are equal zeros here, those of few are equal."""
    model.savemodel(str(tmp_path / "model"))
    gru = GRU4Rec.loadmodel(str(tmp_path / "model"))
    assert gru.final_act == "softmax"
    gru.Wy.set_value(np.zeros_like(gru.Wy.get_value()))
    gru.By.set_value(-200 * (np.arange(60).reshape(60, 1).astype(gru.By.dtype) % 20))
    arguments = dict(cut_off=CUT_OFF, mode=mode)
    slow = evaluation.evaluate_sessions_batch(gru, test_data, **arguments)
    assert slow == evaluation.evaluate_gpu(gru, test_data, **arguments)


class Reversed(GRU4Rec):
    """A variant that recommends what the model it derives from recommends last."""

    def symbolic_predict(self, *args, **kwargs):
        yhat, states, updates = super().symbolic_predict(*args, **kwargs)
        return -yhat, states, updates


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("evaluate", BOTH)
def test_a_variant_is_evaluated_by_its_own_prediction(model, test_data, evaluate):
    variant = Reversed(**model.get_params())
    variant.take(model.network, model.item_ids)
    n_items = len(model.item_ids)
    found = evaluate(variant, test_data, cut_off=[1, n_items // 2])
    of_model = evaluation.evaluate_gpu(model, test_data, cut_off=[n_items // 2])
    # whatever is ranked in the upper half by one is in the lower half of the other
    np.testing.assert_allclose(found[0][1], 1 - of_model[0][0], atol=0.02)
    assert found[0][0] < 0.05


class Predicts:
    """A model of another class."""

    def __init__(self, item_ids, scores):
        self.item_ids, self.scores = item_ids, scores

    def predict_next_batch(self, session_ids, items, among, batch):
        return self.scores(among, batch)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (lambda among, n: np.full((len(among), n), np.nan), "got NaN among the scores"),
        (lambda among, n: np.zeros((len(among), n + 1)), "columns of numbers, got float64"),
        (lambda among, n: np.full((len(among), n), "a"), "columns of numbers, got <U1"),
        (
            lambda among, n: pd.DataFrame(np.zeros((len(among), n)), index=among[::-1]),
            "got rows in another order",
        ),
    ],
)
def test_scores_that_cannot_be_ranked(model, test_data, scores, words):
    with pytest.raises(InputError, match=f"^predict_next_batch: expected .*{words}"):
        evaluation.evaluate_sessions_batch(Predicts(model.item_ids, scores), test_data)


def test_a_model_of_another_class_is_not_warned(model, test_data, recwarn):
    other = Predicts(model.item_ids, lambda among, n: np.zeros((len(among), n)))
    recall, _ = evaluation.evaluate_sessions_batch(other, test_data, cut_off=[1])
    assert recall == [1] and not [w for w in recwarn if w.category is DeprecationWarning]


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("other_class", [False, True])
def test_the_slow_twin_begins_with_fresh_sessions(model, test_data, other_class):
    """One session a slot: the first ids of a call must not be those of the one before."""

    class Other:
        item_ids, predict_next_batch = model.item_ids, model.predict_next_batch

    gru = Other() if other_class else model
    expected = evaluation.evaluate_gpu(model, test_data, cut_off=CUT_OFF)
    n_sessions = test_data.SessionId.nunique()
    model.predict_next_batch([0] * n_sessions, [model.item_ids[3]] * n_sessions, batch=n_sessions)
    for _ in range(2):
        slow = evaluation.evaluate_sessions_batch(
            gru, test_data, cut_off=CUT_OFF, batch_size=n_sessions
        )
        np.testing.assert_allclose(slow, expected)


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
def test_the_slow_twin_leaves_sessions_alone(model, test_data):
    def predict(item):
        return model.predict_next_batch(["a"] * 20, [model.item_ids[item]] * 20, batch=20)

    predict(3)
    expected = predict(5)
    model.predict_next_batch(["b"] * 20, [model.item_ids[0]] * 20, batch=20)
    predict(3)
    evaluation.evaluate_sessions_batch(model, test_data, batch_size=20)
    pd.testing.assert_frame_equal(predict(5), expected)


# --- indexed data ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("evaluate", BOTH)
@pytest.mark.parametrize("mode", parameters.TIE_MODES)
@pytest.mark.parametrize("given_items", [False, True])
def test_an_indexed_log(exact_ties, test_data, evaluate, mode, given_items):
    gru = exact_ties
    log = sessions.index_sessions(test_data, item_ids=gru.item_ids)
    items = gru.item_ids[10:30] if given_items else None
    arguments = dict(items=items, cut_off=CUT_OFF, mode=mode)
    expected = evaluation.evaluate_gpu(gru, test_data, **arguments)
    # the log needs no columns
    assert evaluate(gru, log, session_key="no", item_key="such", time_key="x", **arguments) == (
        expected
    )


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("evaluate", BOTH)
@pytest.mark.parametrize(
    "other_ids",
    [lambda i: i[:-1], lambda i: i[::-1], lambda i: np.append(i, "new"), lambda i: None],
    ids=["fewer", "another order", "more", "its own"],
)
def test_a_log_of_other_items(model, test_data, evaluate, other_ids):
    log = sessions.index_sessions(test_data, item_ids=other_ids(model.item_ids))
    with pytest.raises(InputError, match=r"test data: .* other items than the model's; index it"):
        evaluate(model, log)


def test_a_log_of_the_same_items_in_another_array(model, test_data):
    log = sessions.index_sessions(test_data, item_ids=model.item_ids.astype("U"))
    assert log.item_ids is not model.item_ids
    assert evaluation.evaluate_gpu(model, log) == evaluation.evaluate_gpu(model, test_data)


def test_a_log_without_anything_to_predict(model, test_data):
    first = test_data.drop_duplicates("SessionId")
    log = sessions.index_sessions(first, item_ids=model.item_ids)
    with pytest.raises(InputError, match="nothing to predict"):
        evaluation.evaluate_gpu(model, log)


def test_the_slow_twin_begins_every_evaluation_without_sessions(model, test_data):
    """The states of the session that was the last one in a slot must not reach the next one."""
    lengths = test_data.groupby("SessionId").size()
    for session in lengths.index[lengths >= 3][:8]:
        one = test_data[test_data.SessionId == session]
        expected = evaluation.evaluate_gpu(model, one, cut_off=[60])
        for _ in range(2):
            found = evaluation.evaluate_sessions_batch(model, one, cut_off=[60])
            np.testing.assert_allclose(found, expected)


def test_the_slow_twin_is_deprecated(model, test_data):
    with pytest.warns(DeprecationWarning, match="evaluate_gpu"):
        evaluation.evaluate_sessions_batch(model, test_data.head(30))


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("evaluate", BOTH)
def test_what_is_measured_is_said(model, test_data, evaluate, capsys):
    evaluate(model, test_data, cut_off=[1, 5, 20])
    assert capsys.readouterr().out == "Measuring Recall@1,5,20 and MRR@1,5,20\n"


def test_unseen_items_are_dropped_first(model, test_data):
    """An event on an unknown item vanishes: its neighbours become input and target."""
    known = test_data[test_data.ItemId.isin(model.item_ids)]
    assert len(known) < len(test_data)
    assert evaluation.evaluate_gpu(model, known) == evaluation.evaluate_gpu(model, test_data)


def test_the_data_is_left_alone(model, test_data):
    copy = test_data.copy(deep=True)
    evaluation.evaluate_gpu(model, test_data)
    pd.testing.assert_frame_equal(test_data, copy)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"mode": "best"}, "mode: expected one of standard"),
        ({"mode": None}, "mode: expected one of standard"),
        ({"mode": np.array(["median", "standard"])}, "mode: expected one of standard"),
        ({"cut_off": []}, "cut_off"),
        ({"cut_off": [5, 0]}, "cut_off"),
        ({"cut_off": None}, "cut_off: expected one or more list lengths"),
        ({"cut_off": "x"}, "cut_off: expected one or more list lengths"),
        ({"cut_off": [1.5]}, "cut_off: expected one or more list lengths"),
        ({"cut_off": [None]}, "cut_off: expected one or more list lengths"),
        ({"cut_off": [True]}, "cut_off: expected one or more list lengths"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "x"}, "batch_size: expected an integer"),
        ({"batch_size": None}, "batch_size: expected an integer"),
        ({"batch_size": True}, "batch_size: expected an integer"),
        ({"items": ["no such item"]}, "no such item"),
        ({"items": []}, "items: it is empty"),
        ({"items": np.array([])}, "items: it is empty"),
        ({"items": [None]}, "items: item None does not occur"),
        ({"items": [float("nan")]}, "items: item nan does not occur"),
        ({"session_key": pd.Series(["a", "b"])}, "session_key: expected the name of a column"),
        ({"item_key": np.array(["a", "b"])}, "item_key: expected the name of a column"),
        ({"time_key": pd.DataFrame()}, "time_key: expected the name of a column"),
        ({"time_key": pd.NA}, "time_key: expected the name of a column, got <NA>"),
        ({"time_key": ["Time"]}, r"time_key: expected the name of a column, got \['Time'\]"),
        ({"items": [(1, 2)]}, r"items: item \(1, 2\) does not occur"),
        ({"items": "914"}, "items: expected a sequence of ids"),
        ({"items": 914}, "items: expected a sequence of ids"),
        ({"items": pd.DataFrame({"ItemId": ["914"]})}, "items: expected a sequence of ids"),
        ({"item_key": "Item"}, "Item"),
        ({"test_data": "test.tsv"}, "test data: expected a pandas DataFrame, got str"),
        ({"test_data": [1]}, "test data: expected a pandas DataFrame, got list"),
    ],
)
@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("evaluate", BOTH)
def test_wrong_arguments(model, test_data, evaluate, arguments, words):
    with pytest.raises(InputError, match=words):
        evaluate(model, **{"test_data": test_data, **arguments})


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("evaluate", BOTH)
@pytest.mark.parametrize("model", ["model.gru4rec", None, [1]])
def test_something_else_than_a_model(test_data, evaluate, model):
    with pytest.raises(InputError, match=r"(gru|pr): expected a trained"):
        evaluate(model, test_data)


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("evaluate", BOTH)
@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, pd.Index, iter])
def test_kinds_of_items_and_list_lengths(model_with_ties, train_data, test_data, evaluate, kind):
    """Ids are compared by value: integers name items that the data has as strings."""
    ids = model_with_ties.item_ids[10:30].tolist()
    expected = evaluate(model_with_ties, test_data, items=ids, cut_off=CUT_OFF)
    arguments = dict(items=kind([*map(int, ids), int(ids[0])]), cut_off=kind(CUT_OFF))
    assert evaluate(model_with_ties, test_data, **arguments) == expected


@pytest.fixture
def exact_ties(model_with_ties, tmp_path):
    """A model whose scores are one of four integers, which no rounding can tell apart."""
    model_with_ties.savemodel(str(tmp_path / "model"))
    gru = GRU4Rec.loadmodel(str(tmp_path / "model"))
    gru.Wy.set_value(np.zeros_like(gru.Wy.get_value()))
    gru.By.set_value(np.arange(60).reshape(60, 1).astype(gru.By.dtype) % 4)
    return gru


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("given_items", [False, True])
def test_tiebreaking_follows_from_the_seed_of_the_training(exact_ties, test_data, given_items):
    """In both functions, whatever the size of the mini-batches and what is set afterwards."""
    gru = exact_ties
    arguments = dict(cut_off=CUT_OFF, mode="tiebreaking")
    arguments["items"] = gru.item_ids[10:30] if given_items else None
    expected = evaluation.evaluate_gpu(gru, test_data, **arguments)
    gru.seed += 1
    for evaluate in BOTH:
        for batch_size in (7, 50):
            assert evaluate(gru, test_data, batch_size=batch_size, **arguments) == expected


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
def test_the_slow_twin_takes_any_model(exact_ties, test_data):
    class Other:
        item_ids, seed = exact_ties.item_ids, exact_ties.seed
        predict_next_batch = exact_ties.predict_next_batch

    for mode in ("median", "tiebreaking"):
        seen = evaluation.evaluate_sessions_batch(Other(), test_data, cut_off=CUT_OFF, mode=mode)
        expected = evaluation.evaluate_gpu(exact_ties, test_data, cut_off=CUT_OFF, mode=mode)
        assert seen == expected


def test_data_without_known_items(model, test_data):
    with pytest.raises(InputError, match="none of the model's 60 items"):
        evaluation.evaluate_gpu(model, test_data.assign(ItemId="x"))


def test_data_without_anything_to_predict(model, test_data):
    with pytest.raises(InputError, match="nothing to predict"):
        evaluation.evaluate_gpu(model, test_data.drop_duplicates("SessionId"))


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("evaluate", BOTH)
def test_a_model_of_nan_is_not_perfect(model, test_data, tmp_path, evaluate):
    """Comparisons with NaN are false: without a check every target would rank first."""
    path = str(tmp_path / "model")
    model.savemodel(path)
    broken = GRU4Rec.loadmodel(path)
    weights = broken.Wh[0].get_value()
    weights[0, 0] = np.nan
    broken.Wh[0].set_value(weights)
    with pytest.raises(InputError, match="Wh0.*NaN"):
        evaluate(broken, test_data)


def test_an_untrained_model(test_data):
    with pytest.raises(InputError, match="not trained"):
        evaluation.evaluate_gpu(GRU4Rec(), test_data)


# --- further metrics ------------------------------------------------------------------------------

EXTRA = ["ndcg", "hitrate", "coverage", "popularity"]


def brute_force_extra(gru, data, mode, candidates=None):
    """NDCG, hit rate, coverage and popularity, event by event."""
    asked = np.arange(len(gru.item_ids)) if candidates is None else np.array(candidates)
    found = {name: np.zeros(len(CUT_OFF)) for name in EXTRA}
    listed = [set() for _ in CUT_OFF]
    n_events = 0
    for target, scores in brute_force_scores(gru, data):
        n_events += 1
        others = np.setdiff1d(asked, [target])
        better = (scores[others] > scores[target]).sum()
        equal = (scores[others] == scores[target]).sum()
        ties = {"standard": 0, "conservative": equal, "median": equal / 2}
        rank = 1 + better + ties[mode]
        best_first = asked[np.argsort(-scores[asked], kind="stable")]
        for i, n in enumerate(CUT_OFF):
            if rank <= n:
                found["ndcg"][i] += 1 / np.log2(1 + rank)
                found["hitrate"][i] += 1
            listed[i].update(best_first[:n].tolist())
            counts = [gru.support[item] for item in best_first[:n]]
            found["popularity"][i] += np.mean(counts) / gru.support.sum()
    values = {name: total / n_events for name, total in found.items()}
    values["coverage"] = np.array([len(items) / len(asked) for items in listed])
    return [values[name] for name in EXTRA]


@pytest.mark.parametrize("mode", ["standard", "conservative", "median"])
@pytest.mark.parametrize("candidates", [None, range(5, 40, 3)], ids=["all", "given"])
def test_extra_metrics_by_brute_force(model_with_ties, test_data, mode, candidates):
    gru = model_with_ties
    items = None if candidates is None else gru.item_ids[list(candidates)]
    arguments = dict(items=items, cut_off=CUT_OFF, mode=mode)
    recall, mrr, *found = evaluation.evaluate_gpu(gru, test_data, extra=EXTRA, **arguments)
    np.testing.assert_allclose(found, brute_force_extra(gru, test_data, mode, candidates))
    assert (recall, mrr) == evaluation.evaluate_gpu(gru, test_data, **arguments)
    assert found[1] == recall


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("mode", parameters.TIE_MODES)
@pytest.mark.parametrize("given_items", [False, True])
def test_extra_metrics_of_the_slow_twin(exact_ties, test_data, mode, given_items):
    gru = exact_ties
    items = gru.item_ids[10:30] if given_items else None
    arguments = dict(items=items, cut_off=CUT_OFF, mode=mode, extra=EXTRA)
    fast = evaluation.evaluate_gpu(gru, test_data, **arguments)
    for batch_size in (7, 100):
        slow = evaluation.evaluate_sessions_batch(
            gru, test_data, batch_size=batch_size, **arguments
        )
        np.testing.assert_allclose(slow, fast, rtol=1e-12)


def test_lists_that_are_longer_than_the_items(model, test_data):
    found = evaluation.evaluate_gpu(model, test_data, cut_off=[60, 10**9], extra=EXTRA)
    for name, values in zip(["recall", "mrr", *EXTRA], found):
        assert values[0] == values[1], name
    assert found[4] == [1, 1]
    np.testing.assert_allclose(found[5], 1 / 60)  # the mean share of all items


def test_extra_metrics_of_a_variant_with_its_own_prediction(model, test_data):
    """Its lists of 59 hold all 60 items but the one that the model lists first."""
    variant = Reversed(**model.get_params())
    variant.take(model.network, model.item_ids, model.support)
    (*_, shares) = evaluation.evaluate_gpu(variant, test_data, cut_off=[59], extra="popularity")
    (*_, of_model) = evaluation.evaluate_gpu(model, test_data, cut_off=[1], extra="popularity")
    np.testing.assert_allclose(59 * shares[0] + of_model[0], 1)


def test_only_asked_for_metrics_and_in_that_order(model, test_data):
    found = evaluation.evaluate_gpu(model, test_data, cut_off=[5], extra=("coverage", "ndcg"))
    other = evaluation.evaluate_gpu(model, test_data, cut_off=[5], extra=["ndcg", "coverage"])
    assert found[2:] == other[:1:-1] and len(found) == 4
    assert evaluation.evaluate_gpu(model, test_data, cut_off=[5], extra="ndcg") == other[:3]


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("evaluate", BOTH)
def test_popularity_without_a_support(model, test_data, evaluate, capsys):
    gru = GRU4Rec(**model.get_params())
    gru.take(model.network, model.item_ids)
    with pytest.raises(InputError, match="popularity: the model does not hold its items' support"):
        evaluate(gru, test_data, extra=["popularity"])
    assert capsys.readouterr().out == ""
    assert len(evaluate(gru, test_data, extra=["coverage"])) == 3


# --- ranks ----------------------------------------------------------------------------------------


def brute_force_ranks(gru, data):
    """Rows of SessionId, Position, ItemId, Better, Equal, by session and time."""
    scored = brute_force_scores(gru, data)
    rows = []
    for session_id, session in data.groupby("SessionId"):
        session = session.sort_values("Time", kind="stable")
        known = session[session.ItemId.isin(gru.item_ids)].ItemId.tolist()
        for position, item in enumerate(known[1:], start=2):
            target, scores = next(scored)
            assert gru.item_ids[target] == item
            better = (scores > scores[target]).sum()
            equal = (scores == scores[target]).sum() - 1
            rows.append((session_id, position, item, better, equal))
    return rows


@pytest.mark.parametrize("mode", parameters.TIE_MODES)
@pytest.mark.parametrize("shuffled", [False, True])
def test_ranks_by_brute_force(model_with_ties, test_data, mode, shuffled):
    gru = model_with_ties
    data = test_data.sample(frac=1, random_state=0) if shuffled else test_data
    found = evaluation.ranks(gru, data, mode=mode)
    assert found.columns.tolist() == ["SessionId", "Position", "ItemId", "Better", "Equal", "Rank"]
    rows = found[["SessionId", "Position", "ItemId", "Better", "Equal"]]
    assert [*rows.itertuples(index=False, name=None)] == brute_force_ranks(gru, data)
    assert (found.Equal > 0).any() and found.Better.dtype == found.Equal.dtype == np.int64
    assert found.Rank.dtype == ("float64" if mode == "median" else "int64")
    assert found.ItemId.dtype == object  # in pandas 3, too
    low, high = 1 + found.Better, 1 + found.Better + found.Equal
    expected = {"standard": low, "conservative": high, "median": (low + high) / 2}.get(mode)
    if expected is None:  # at random
        assert ((low <= found.Rank) & (found.Rank <= high)).all()
        assert (found.Rank > low).any() and (found.Rank < high).any()
    else:
        assert (found.Rank == expected).all()
    recall, mrr, ndcg = evaluation.evaluate_gpu(gru, data, cut_off=[5], mode=mode, extra=["ndcg"])
    hits = (found.Rank <= 5).to_numpy()
    np.testing.assert_allclose(hits.mean(), recall[0])
    np.testing.assert_allclose((hits / found.Rank).mean(), mrr[0])
    np.testing.assert_allclose((hits / np.log2(1 + found.Rank)).mean(), ndcg[0])


@pytest.mark.parametrize("mode", parameters.TIE_MODES)
def test_ranks_do_not_depend_on_the_mini_batches(exact_ties, test_data, mode):
    expected = evaluation.ranks(exact_ties, test_data, mode=mode)
    for batch_size in (1, 7, 50):
        found = evaluation.ranks(exact_ties, test_data, mode=mode, batch_size=batch_size)
        pd.testing.assert_frame_equal(found, expected)


def test_ranks_of_another_class_and_of_a_variant(exact_ties, test_data):
    class Other:
        item_ids, seed = exact_ties.item_ids, exact_ties.seed
        predict_next_batch = exact_ties.predict_next_batch

    variant = Reversed(**exact_ties.get_params())
    variant.take(exact_ties.network, exact_ties.item_ids)
    expected = evaluation.ranks(exact_ties, test_data)
    pd.testing.assert_frame_equal(evaluation.ranks(Other(), test_data), expected)
    found = evaluation.ranks(variant, test_data)
    assert (found.Better == 59 - expected.Better - expected.Equal).all()
    assert (found.Equal == expected.Equal).all()


def test_ranks_of_given_items_and_of_a_log(exact_ties, test_data):
    gru = exact_ties
    some = gru.item_ids[10:30]
    found = evaluation.ranks(gru, test_data, items=some)
    assert (found.Better + found.Equal <= 20).all()
    log = sessions.index_sessions(test_data, item_ids=gru.item_ids, keep_session_ids=True)
    pd.testing.assert_frame_equal(evaluation.ranks(gru, log, items=some), found)
    log = sessions.index_sessions(test_data, item_ids=gru.item_ids)
    with pytest.raises(InputError, match="without the sessions' ids.*keep_session_ids=True"):
        evaluation.ranks(gru, log)


@pytest.mark.parametrize(
    "kind", [lambda ids: "s" + ids.astype(str), lambda ids: ids.astype("category"), lambda ids: ids]
)
def test_ids_of_sessions(exact_ties, test_data, kind):
    data = test_data.assign(SessionId=kind(test_data.SessionId))
    found = evaluation.ranks(exact_ties, data)
    known = data[data.ItemId.isin(exact_ties.item_ids)]
    lengths = known.groupby("SessionId", observed=True).size()
    expected = lengths[lengths > 1] - 1
    assert found.groupby("SessionId", sort=False).size().to_dict() == expected.to_dict()
    assert found.SessionId.is_monotonic_increasing


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": None}, "model: expected a trained model"),
        ({"model": GRU4Rec()}, "not trained"),
        ({"mode": "best"}, "mode: expected one of standard"),
        ({"batch_size": 0}, "batch_size"),
        ({"items": []}, "items: it is empty"),
        ({"item_key": "Item"}, "Item"),
    ],
)
def test_ranks_of_wrong_arguments(exact_ties, test_data, arguments, words):
    with pytest.raises(InputError, match=words):
        evaluation.ranks(**{"model": exact_ties, "test_data": test_data, **arguments})


# --- files of ranks -------------------------------------------------------------------------------


def read_ranks(path):
    if path.suffix == ".tsv":
        return pd.read_csv(path, sep="\t", dtype={"ItemId": str})
    return pd.read_parquet(path)


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tsv", "standard"), ("a.tsv", "median"), ("A.PARQUET", "median")]
)
def test_written_ranks_are_the_ranks(exact_ties, test_data, tmp_path, monkeypatch, name, mode):
    """Whatever the number of rows that are written together."""
    path = tmp_path / "files" / name
    path.parent.mkdir()
    expected = evaluation.ranks(exact_ties, test_data, mode=mode)
    metrics = evaluation.evaluate_gpu(exact_ties, test_data, mode=mode)
    for at_once in (17, 10**6):
        monkeypatch.setattr(evaluation, "RANKS_AT_ONCE", at_once)
        found = evaluation.evaluate_gpu(exact_ties, test_data, mode=mode, ranks_path=path)
        assert found == metrics
        table = read_ranks(path)
        pd.testing.assert_frame_equal(table, expected, check_dtype=False)
        assert table.Rank.dtype == expected.Rank.dtype
    assert [*path.parent.iterdir()] == [path]


def test_models_are_compared_by_their_files(model, exact_ties, test_data, tmp_path):
    paths = [tmp_path / "a.parquet", tmp_path / "b.tsv"]
    for gru, path in zip((model, exact_ties), paths):
        evaluation.evaluate_gpu(gru, test_data, ranks_path=path)
    found = evaluation.compare(*map(read_ranks, paths), n=100)
    expected = evaluation.compare(
        evaluation.ranks(model, test_data), evaluation.ranks(exact_ties, test_data), n=100
    )
    pd.testing.assert_frame_equal(found, expected)
    assert (found.low > 0).all()


def test_results_by_popularity_of_a_models_support(model, train_data, test_data):
    ranks = evaluation.ranks(model, test_data)
    found = evaluation.breakdown(ranks, "popularity", pd.Series(model.support, model.item_ids))
    expected = evaluation.breakdown(ranks, "popularity", train_data.ItemId.value_counts())
    pd.testing.assert_frame_equal(found, expected)
