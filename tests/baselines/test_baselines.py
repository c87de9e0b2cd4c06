"""Each baseline against a slow, obvious implementation, ties included; and their interface."""

from __future__ import annotations

import logging
import math
from collections import Counter
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import evaluation
from gru4rec_toolkit import parameters
from gru4rec_toolkit.baselines import (
    BASELINES,
    SKNN,
    Baseline,
    Markov,
    Popularity,
    Random,
    arrays,
    base,
    neighbours,
    pairs,
)
from gru4rec_toolkit.data import sessions
from gru4rec_toolkit.errors import InputError

COLUMNS = parameters.BASELINES["popularity"]
SCORED = [name for name in BASELINES if name != "random"]

# --- the slow ones --------------------------------------------------------------------------------


class Log:
    """A training log as lists: sessions of items in order, and when each of them ended."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.items = list(dict.fromkeys(frame.ItemId))  # in order of first appearance
        self.sessions, self.ends = [], []
        for _, session in frame.groupby("SessionId"):
            self.sessions.append(session.sort_values("Time", kind="stable").ItemId.tolist())
            self.ends.append(session.Time.max())


def popularity(log, history):
    counts = Counter(item for session in log.sessions for item in session)
    return [counts[item] for item in log.items]


def sessionpop(log, history):
    counts = Counter(item for session in log.sessions for item in session)
    return [(history.count(item), counts[item]) for item in log.items]


def markov(log, history):
    followers = Counter(
        session[i + 1]
        for session in log.sessions
        for i in range(len(session) - 1)
        if session[i] == history[-1]
    )
    total = sum(followers.values())
    return [followers[item] / total if total else 0 for item in log.items]


def itemknn(log, history, n_sims, lmbd):
    having = {item: {i for i, s in enumerate(log.sessions) if item in s} for item in log.items}
    last, similarities = having[history[-1]], []
    for item in log.items:
        together = len(last & having[item]) if item != history[-1] else 0
        norm = (len(last) + lmbd) * (len(having[item]) + lmbd)
        similarities.append(math.sqrt(together**2 / norm))
    best = sorted(range(len(log.items)), key=lambda i: -similarities[i])[:n_sims]
    return [value if i in best else 0 for i, value in enumerate(similarities)]


def by_neighbours(log, history, k, sample_size, similarity, weight):
    """Look through all sessions for the recent ones, among these for the similar ones."""
    sharing = [i for i, session in enumerate(log.sessions) if set(session) & set(history)]
    recent = sorted(sharing, key=lambda i: (log.ends[i], i), reverse=True)[:sample_size]
    nearest = sorted(recent, key=lambda i: -similarity(log.sessions[i]))[:k]
    scores = []
    for item in log.items:
        weights = [weight(log.sessions[i]) for i in nearest if item in log.sessions[i]]
        scores.append(sum(sorted(weights, reverse=True)))
    return scores


def sknn(log, history, k, sample_size):
    def cosine(session):
        shared = len(set(session) & set(history))
        return math.sqrt(Fraction(shared**2, len(set(session)) * len(set(history))))

    return by_neighbours(log, history, k, sample_size, cosine, cosine)


def vsknn(log, history, k, sample_size, idf_weighting):
    n = len(history)
    weights = {item: Fraction(i + 1, n) for i, item in enumerate(history)}  # the last one counts

    def similarity(session):
        return sum(weights[item] for item in set(session) & set(history))

    def weight(session):
        steps = next(i for i in range(1, n + 1) if history[-i] in session)
        return float(similarity(session) / steps)

    scores = by_neighbours(log, history, k, sample_size, similarity, weight)
    for i, item in enumerate(log.items):
        with_item = sum(item in session for session in log.sessions)
        scores[i] *= 1 + idf_weighting * math.log(len(log.sessions) / with_item)
    return scores


SLOW = {
    "popularity": popularity,
    "sessionpop": sessionpop,
    "markov": markov,
    "itemknn": itemknn,
    "sknn": sknn,
    "vsknn": vsknn,
}


def slow_scores(name, settings, train, test):
    """Yield a target's index and the scores of all items, event by event."""
    log = Log(train)
    for _, session in test.groupby("SessionId"):
        session = session.sort_values("Time", kind="stable").ItemId
        known = [item for item in session if item in log.items]
        for i in range(1, len(known)):
            yield log.items.index(known[i]), SLOW[name](log, known[:i], **settings)


def slow_counts(scored, candidates):
    for target, scores in scored:
        others = [scores[i] for i in candidates if i != target]
        yield sum(s > scores[target] for s in others), sum(s == scores[target] for s in others)


# --- random logs ----------------------------------------------------------------------------------


@st.composite
def logs(draw, most_items=8):
    """Events in any order, of few sessions, items and times."""
    n = draw(st.integers(1, 40))
    numbers = [
        draw(st.lists(st.integers(0, most), min_size=n, max_size=n)) for most in (9, most_items, 12)
    ]
    return pd.DataFrame(dict(zip(("SessionId", "ItemId", "Time"), numbers)))


SETTINGS = {
    "itemknn": st.fixed_dictionaries(
        {"n_sims": st.integers(1, 6), "lmbd": st.sampled_from([0, 1, 20])}
    ),
    "sknn": st.fixed_dictionaries({"k": st.integers(1, 5), "sample_size": st.integers(1, 6)}),
    "vsknn": st.fixed_dictionaries(
        {
            "k": st.integers(1, 5),
            "sample_size": st.integers(1, 6),
            "idf_weighting": st.just(0),
        }
    ),
}


def assume_something_to_predict(train, test):
    known = test[test.ItemId.isin(train.ItemId)]
    assume(known.SessionId.duplicated().any())


@pytest.mark.parametrize("name", SCORED)
@settings(max_examples=80, deadline=None)
@given(st.data())
def test_ranks_are_those_of_the_slow_one(name, data):
    train, test = data.draw(logs()), data.draw(logs(most_items=10))
    assume_something_to_predict(train, test)
    chosen = data.draw(SETTINGS.get(name, st.just({})))
    at_once = data.draw(st.sampled_from([1, 3, 1000]))
    model = BASELINES[name](**chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "EVENTS_AT_ONCE", at_once)
        patch.setattr(neighbours, "SESSIONS_AT_ONCE", at_once)
        patch.setattr(pairs, "PAIRS_AT_ONCE", at_once)
        assert model.fit(train) is model
        log = sessions.index_sessions(test, item_ids=model.item_ids)
        scored = list(slow_scores(name, chosen, train, test))
        items = range(len(model.item_ids))
        candidates = data.draw(st.lists(st.sampled_from(items), min_size=1, unique=True))
        for among in (None, np.array(candidates)):
            expected = list(slow_counts(scored, items if among is None else candidates))
            found = model.count_ranks(log, among)
            assert list(zip(*(counts.tolist() for counts in found))) == expected


@pytest.mark.parametrize("name", ["markov", "itemknn", "sknn", "vsknn"])
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_scores_are_those_of_the_slow_one(name, data):
    train, test = data.draw(logs()), data.draw(logs())
    assume_something_to_predict(train, test)
    chosen = data.draw(SETTINGS.get(name, st.just({})))
    if name == "vsknn":
        chosen["idf_weighting"] = data.draw(st.sampled_from([0, 0.5, 3]))
    model = BASELINES[name](**chosen).fit(train)
    log = sessions.index_sessions(test, item_ids=model.item_ids)
    scores = model.scores(base.predicted_events(log)).toarray()
    expected = [values for _, values in slow_scores(name, chosen, train, test)]
    np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=0)


def test_equal_weights_tie_in_whatever_order_they_are_found():
    """6/6 and 12/12 come from sessions of different similarity; floats depend on their order."""
    train = [[6, 10], [3, 4, 5, 20], [1, 6, 10, 20], [3, 5, 10, 20], [2]]
    events = [(i, item, 0) for i, session in enumerate(train) for item in session]
    frame = pd.DataFrame(events, columns=["SessionId", "ItemId", "Time"])
    test = pd.DataFrame({"SessionId": 1, "ItemId": [1, 2, 3, 4, 5, 6, 10], "Time": 0})
    model = BASELINES["vsknn"]().fit(frame)
    log = sessions.index_sessions(test, item_ids=model.item_ids)
    scores = model.scores(base.predicted_events(log)).toarray()[-1]
    assert scores[model.item_ids == 10] == scores[model.item_ids == 20] == 1 + 7 / 6 + 8 / 12


def test_defaults_on_a_larger_log(train_data, test_data):
    """Lists longer than what the parameters keep, with the parameters as they are."""
    train = pd.concat(
        [train_data.assign(SessionId=train_data.SessionId + i * 10_000) for i in range(8)]
    )
    for name in ("itemknn", "sknn", "vsknn"):
        model = BASELINES[name]().fit(train)
        some = test_data[test_data.SessionId <= sorted(test_data.SessionId.unique())[3]]
        log = sessions.index_sessions(some, item_ids=model.item_ids)
        chosen = {
            n: v for n, v in parameters.defaults(model.table).items() if not n.endswith("_key")
        }
        scored = list(slow_scores(name, chosen, train, some))
        expected = list(slow_counts(scored, range(len(model.item_ids))))
        assert list(zip(*(counts.tolist() for counts in model.count_ranks(log)))) == expected


@settings(max_examples=50, deadline=None)
@given(logs())
def test_times_of_sessions(frame):
    of_sessions = [session.Time for _, session in frame.groupby("SessionId")]
    log = sessions.index_sessions(frame)
    assert log.end_times.tolist() == [times.max() for times in of_sessions]
    assert log.start_times.tolist() == [times.min() for times in of_sessions]


def test_end_times_of_dates():
    frame = pd.DataFrame({"SessionId": ["b", "a", "b"], "ItemId": 1, "Time": "2020-01-01"})
    frame.loc[0, "Time"] = "2020-01-03"
    assert np.diff(sessions.index_sessions(frame).end_times).tolist() == [2 * 86_400]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=30), st.integers(1, 4))
def test_largest(entries, n):
    entries.sort(key=lambda entry: entry[0])
    rows, values = (np.array([e[i] for e in entries], dtype=np.int64) for i in (0, 1))
    expected = []
    for row in range(5):
        of_row = [i for i, entry in enumerate(entries) if entry[0] == row]
        expected += sorted(of_row, key=lambda i: -entries[i][1])[:n]
    assert arrays.largest(rows, values, n, 5).tolist() == expected


# --- random ---------------------------------------------------------------------------------------


def test_random_ranks(train_data, test_data):
    model = Random(seed=3).fit(train_data)
    log = sessions.index_sessions(test_data, item_ids=model.item_ids)
    better, equal = model.count_ranks(log)
    assert not equal.any()
    again, _ = model.count_ranks(log)
    other, _ = Random(seed=4).fit(train_data).count_ranks(log)
    assert np.array_equal(again, better) and not np.array_equal(other, better)


def test_random_ranks_are_uniform():
    """Every rank comes as often, and a target that is no candidate may come after all of them."""
    n = 20_000
    frame = pd.DataFrame({"SessionId": np.arange(2 * n) // 2, "ItemId": np.arange(2 * n) % 4})
    frame["Time"] = np.arange(2 * n)
    model = Random().fit(frame)
    log = sessions.index_sessions(frame, item_ids=model.item_ids)
    targets = log.items[1::2]
    for candidates in (None, np.array([0, 1])):
        better, _ = model.count_ranks(log, candidates)
        for target in np.unique(targets):
            among = range(4) if candidates is None else candidates
            n_ranks = len(set(among) - {target}) + 1
            shares = np.bincount(better[targets == target], minlength=n_ranks) / (n / 2)
            assert len(shares) == n_ranks
            assert abs(shares - 1 / n_ranks).max() < 0.02  # 4 standard deviations


# --- evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("mode", parameters.TIE_MODES)
def test_evaluation(name, mode, train_data, test_data):
    model = BASELINES[name]().fit(train_data)
    log = sessions.index_sessions(test_data, item_ids=model.item_ids)
    some = model.item_ids[3::2]
    for items in (None, some):
        candidates = None if items is None else np.arange(3, len(model.item_ids), 2)
        better, equal = model.count_ranks(log, candidates)
        order = np.lexsort((equal, better))
        rng = np.random.default_rng(getattr(model, "seed", 0))
        ties = {
            "standard": 0,
            "conservative": equal[order],
            "median": equal[order] / 2,
            "tiebreaking": rng.integers(0, equal[order], endpoint=True),
        }
        ranks = 1 + better[order] + ties[mode]
        for data in (test_data, log):
            recall, mrr = evaluation.evaluate_gpu(
                model, data, items=items, cut_off=[1, 5], mode=mode
            )
            for n, r, m in zip([1, 5], recall, mrr):
                assert r == pytest.approx((ranks <= n).mean())
                assert m == pytest.approx(np.where(ranks <= n, 1 / ranks, 0).mean())


def test_hits_by_ties_are_told(caplog):
    """After an item that has no successor, all items tie."""
    train = pd.DataFrame({"SessionId": [1, 1, 2], "ItemId": [7, 8, 9], "Time": [1, 2, 3]})
    test = pd.DataFrame({"SessionId": [1, 1, 1], "ItemId": [7, 8, 9], "Time": [1, 2, 3]})
    model = Markov().fit(train)
    recall, _ = evaluation.evaluate_gpu(model, test, cut_off=[1, 2])
    assert recall == [1, 1]
    assert "50.0% of the targets are among the first 2 only because" in caplog.text
    caplog.clear()
    recall, _ = evaluation.evaluate_gpu(model, test, cut_off=[1, 2], mode="conservative")
    assert recall == [0.5, 0.5]
    recall, _ = evaluation.evaluate_gpu(model, test, cut_off=[3])
    assert recall == [1]
    assert caplog.text == ""


def test_no_warning_without_ties(train_data, test_data, caplog):
    with caplog.at_level(logging.WARNING):
        evaluation.evaluate_gpu(Random().fit(train_data), test_data)
    assert caplog.text == ""


def test_what_is_not_fitted_is_not_evaluated(test_data):
    with pytest.raises(InputError, match="Popularity: it is not trained yet; call fit first"):
        evaluation.evaluate_gpu(Popularity(), test_data)


def test_a_log_of_other_items(train_data, test_data):
    model = Popularity().fit(train_data)
    log = sessions.index_sessions(test_data)
    with pytest.raises(InputError, match="indexed with other items"):
        evaluation.evaluate_gpu(model, log)


# --- parameters -----------------------------------------------------------------------------------


def test_the_tables_agree():
    assert BASELINES.keys() == parameters.BASELINES.keys()
    for name, method in BASELINES.items():
        assert method.name == name
        assert method().get_params() == parameters.defaults(parameters.BASELINES[name])
        for parameter in method().get_params():
            assert f"{parameter} : " in method.__doc__ or parameter.endswith("_key"), parameter
        assert "session_key, item_key, time_key : str" in method.__doc__


@pytest.mark.parametrize("name", ["itemknn", "sknn", "vsknn"])
def test_defaults_are_those_of_the_docstring(name):
    for parameter, value in parameters.defaults(parameters.BASELINES[name]).items():
        if not parameter.endswith("_key"):
            doc = BASELINES[name].__doc__.split(f"{parameter} : ")[1].split(" : ")[0]
            assert f"default {value:g}" in doc.replace("Default", "default")


def test_set_params(capsys):
    model = SKNN(k=7)
    assert model.set_params(sample_size="30", k="8") is model
    assert capsys.readouterr().out == (
        "SET   sample_size   TO   30   (type: <class 'int'>)\n"
        "SET   k             TO   8    (type: <class 'int'>)\n"
    )
    assert repr(model) == "SKNN(k=8, sample_size=30)" and model.k == 8
    with pytest.raises(InputError, match="unknown parameter 'sample_sise', did you mean sample_si"):
        model.set_params(k=3, sample_sise=4)
    assert model.k == 8


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sknn", {"k": 0}),
        ("sknn", {"k": 1.5}),
        ("vsknn", {"sample_size": "many"}),
        ("vsknn", {"idf_weighting": -1}),
        ("itemknn", {"lmbd": float("nan")}),
        ("itemknn", {"n_sims": True}),
        ("random", {"seed": -1}),
        ("markov", {"item_key": ""}),
    ],
)
def test_wrong_parameters(name, settings, train_data):
    (parameter,) = settings
    with pytest.raises(InputError, match=f"parameter {parameter}: expected"):
        BASELINES[name](**settings)
    model = BASELINES[name]()
    vars(model).update(settings)
    with pytest.raises(InputError, match=f"parameter {parameter}: expected"):
        model.fit(train_data)


def test_columns(train_data, test_data):
    names = {"SessionId": "s", "ItemId": "i", "Time": "t"}
    model = BASELINES["vsknn"](session_key="s", item_key="i", time_key="t")
    model.fit(train_data.rename(columns=names))
    plain = BASELINES["vsknn"]().fit(train_data)
    log = sessions.index_sessions(test_data, item_ids=model.item_ids)
    for found, expected in zip(model.count_ranks(log), plain.count_ranks(log)):
        np.testing.assert_array_equal(found, expected)


def test_bad_training_data(train_data):
    with pytest.raises(InputError, match='training data: there is no column "ItemId"'):
        Popularity().fit(train_data.drop(columns="ItemId"))
    before = train_data.copy()
    BASELINES["sknn"]().fit(train_data)
    pd.testing.assert_frame_equal(train_data, before)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("candidates", [None, np.arange(3, 50, 4)], ids=["all", "given"])
def test_lists(train_data, test_data, monkeypatch, name, candidates):
    """Of every event, however many are scored together, the items that rank first."""
    model = BASELINES[name]().fit(train_data)
    log = sessions.index_sessions(test_data, item_ids=model.item_ids)
    lists = np.concatenate([*model.top_lists(log, candidates, 8)])
    monkeypatch.setattr(base, "MOST_SCORES", 7 * len(model.item_ids))
    assert np.array_equal(lists, np.concatenate([*model.top_lists(log, candidates, 8)]))
    asked = np.arange(len(model.item_ids)) if candidates is None else candidates
    assert lists.shape == (len(base.predicted_events(log)), 8) and np.isin(lists, asked).all()
    assert all(len({*row}) == 8 for row in lists.tolist())
    if name == "random":  # ranks are drawn without lists
        assert len(np.unique(lists)) == len(asked)
        return
    better, equal = model.count_ranks(log, candidates)
    targets = log.items[base.predicted_events(log).end]
    listed = (lists == targets[:, None]).any(axis=1) & np.isin(targets, asked)
    can_be = np.isin(targets, asked)
    assert listed[can_be & (better + equal < 8)].all() and not listed[better >= 8].any()


def test_a_baseline_of_ones_own(train_data, test_data):
    """A subclass with a table of its own is evaluated like the others."""

    class Rare(Baseline):
        name = "rare"
        table: ClassVar = {**COLUMNS, "sign": parameters.PARAMETERS["seed"]}

        def learn(self, log):
            self.base = -self.sign * log.support

        def scores(self, histories):
            return Popularity.scores(self, histories)

    model = Rare(sign=1).fit(train_data)
    plain = Popularity().fit(train_data)
    log = sessions.index_sessions(test_data, item_ids=model.item_ids)
    (better, equal), (less, same) = model.count_ranks(log), plain.count_ranks(log)
    assert np.array_equal(equal, same)
    assert (better + less + equal == len(model.item_ids) - 1).all()
    assert len(evaluation.evaluate_gpu(model, test_data)[0]) == 1
