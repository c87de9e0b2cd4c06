"""Comparison of models and groups of events, against slow computations, scipy, and known truths."""

from __future__ import annotations

import inspect
import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec_toolkit import significance
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.significance import breakdown, compare
from gru4rec_toolkit.tablefile import RANKS

METRICS = ("Recall", "MRR", "NDCG")


def table(sessions, rng=None, items=None):
    """Return ranks: one list of ranks a session."""
    rng = rng or np.random.default_rng(0)
    rows = [
        (s, 2 + i, int(rng.integers(0, 9)) if items is None else items[s][i], rank - 1, 0, rank)
        for s, ranks in enumerate(sessions)
        for i, rank in enumerate(ranks)
    ]
    return pd.DataFrame(rows, columns=RANKS.columns)


def with_ranks(ranks, new):
    return ranks.assign(Rank=new)


def random_sessions(rng, n_sessions, longest=6, largest=40):
    return [rng.integers(1, largest, rng.integers(1, longest)).tolist() for _ in range(n_sessions)]


def gain(name, rank, n):
    if rank > n:
        return 0.0
    return {"Recall": 1.0, "MRR": 1 / rank, "NDCG": 1 / np.log2(1 + rank)}[name]


def metric(name, ranks, n):
    """Return a metric of a table, event by event."""
    return sum(gain(name, rank, n) for rank in ranks.Rank) / len(ranks)


# --- what an event adds ---------------------------------------------------------------------------


@given(rank=st.integers(2, 200).map(lambda doubled: doubled / 2), n=st.integers(1, 100))
def test_gains(rank, n):
    found = significance.gains(np.array([rank]), n)[:, 0]
    assert found.tolist() == [gain(name, rank, n) for name in METRICS]


def test_ndcg_of_known_ranks():
    """By hand: 1 / log2(2) = 1, 1 / log2(4) = 0.5, 1 / log2(8) = 1 / 3."""
    found = significance.gains(np.array([1, 3, 7, 8]), 7)[2]
    np.testing.assert_allclose(found, [1, 0.5, 1 / 3, 0])


# --- two models -----------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), n_sessions=st.integers(2, 12), cut_off=st.integers(1, 40))
def test_metrics_and_differences(seed, n_sessions, cut_off):
    rng = np.random.default_rng(seed)
    a = table(random_sessions(rng, n_sessions))
    b = with_ranks(a, rng.integers(1, 40, len(a)))
    found = compare(a, b, cut_off=cut_off, n=20)
    assert found.index.tolist() == [f"{name}@{cut_off}" for name in METRICS]
    for name in METRICS:
        row = found.loc[f"{name}@{cut_off}"]
        expected = [metric(name, ranks, cut_off) for ranks in (a, b)]
        np.testing.assert_allclose([row.a, row.b], expected)
        np.testing.assert_allclose(row.difference, expected[0] - expected[1], atol=1e-12)
        assert row.low <= row.high and 0 < row.p_value <= 1


def slow_bootstrap(a, b, name, cut_off, n, rng):
    """Draw sessions, put their events together and measure both models on them."""
    sessions = [(x, b.loc[x.index]) for _, x in a.groupby("SessionId")]
    found = []
    for _ in range(n):
        drawn = rng.integers(0, len(sessions), len(sessions))
        both = [pd.concat([sessions[i][side] for i in drawn]) for side in (0, 1)]
        found.append(metric(name, both[0], cut_off) - metric(name, both[1], cut_off))
    return np.array(found)


def test_the_bootstrap_draws_sessions_with_all_their_events():
    rng = np.random.default_rng(3)
    a = table(random_sessions(rng, 15, longest=9))
    b = with_ranks(a, rng.integers(1, 40, len(a)))
    slow = slow_bootstrap(a, b, "Recall", 20, 1000, rng)
    found = compare(a, b, n=20_000).loc["Recall@20"]
    np.testing.assert_allclose(
        [found.low, found.high], np.quantile(slow, [0.025, 0.975]), atol=0.15 * np.ptp(slow) / 4
    )


def exact_p_value(differences):
    """Return the share of all swaps of sessions whose difference is as large as the observed."""
    observed = abs(sum(differences)) - 1e-9
    swaps = itertools.product([1, -1], repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences))) for signs in swaps]
    return np.mean([x >= observed for x in sums])


def by_session(a, b, name, cut_off):
    gains = [np.array([gain(name, rank, cut_off) for rank in ranks.Rank]) for ranks in (a, b)]
    return pd.Series(gains[0] - gains[1]).groupby(a.SessionId.to_numpy()).sum().to_numpy()


@pytest.mark.parametrize("seed", range(4))
def test_p_values_are_those_of_all_swaps(seed):
    rng = np.random.default_rng(seed)
    a = table(random_sessions(rng, 9, largest=12))
    b = with_ranks(a, rng.integers(1, 20, len(a)))
    found = compare(a, b, cut_off=10, n=20_000)
    for name in METRICS:
        expected = exact_p_value(by_session(a, b, name, 10))
        error = 4 * np.sqrt(expected * (1 - expected) / 20_000) + 1e-4
        assert abs(found.p_value[f"{name}@10"] - expected) < error


def test_scipy_finds_the_same_interval_and_p_value():
    rng = np.random.default_rng(7)
    a = table(random_sessions(rng, 12, largest=30))
    b = with_ranks(a, a.Rank.to_numpy() + rng.integers(0, 9, len(a)))
    differences = by_session(a, b, "MRR", 20)
    n_events = a.groupby("SessionId").size().to_numpy()
    found = compare(a, b, n=20_000, level=0.9).loc["MRR@20"]

    def ratio(d, m, axis=-1):
        return d.sum(axis=axis) / m.sum(axis=axis)

    # newer versions have another name for it
    seed = "rng" if "rng" in inspect.signature(scipy.stats.bootstrap).parameters else "random_state"
    interval = scipy.stats.bootstrap(
        (differences, n_events), ratio, paired=True, vectorized=True, n_resamples=20_000,
        confidence_level=0.9, method="percentile", **{seed: np.random.default_rng(0)},
    ).confidence_interval  # fmt: skip
    width = interval.high - interval.low
    np.testing.assert_allclose([found.low, found.high], interval, atol=0.03 * width)
    test = scipy.stats.permutation_test(
        (differences,), lambda d, axis=-1: d.mean(axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=np.inf,
    )  # fmt: skip
    assert abs(found.p_value - test.pvalue) < 4 * np.sqrt(0.25 / 20_000)


def test_equal_models():
    a = table(random_sessions(np.random.default_rng(0), 50))
    found = compare(a, a.copy(), n=200)
    assert (found[["difference", "low", "high"]] == 0).all(axis=None)
    assert (found.p_value == 1).all()


def noisy(seed, n_sessions, shift=0.0):
    """Return ranks of two models that differ by chance, and by a shift of the second one's."""
    rng = np.random.default_rng(seed)
    a = table(random_sessions(rng, n_sessions, longest=5, largest=41), rng)
    better = rng.random(len(a)) < shift
    own = rng.integers(1, 41, len(a))
    return a, with_ranks(a, np.where(better, 1, own))


def test_models_of_one_kind_seldom_differ():
    """The p value is below 0.05 in about one of 20 comparisons, and 0 in the interval in 19."""
    found = [compare(*noisy(seed, 60), n=300, seed=seed) for seed in range(200)]
    for name in ("Recall@20", "MRR@20"):
        p = np.array([result.p_value[name] for result in found])
        covered = np.array([result.low[name] <= 0 <= result.high[name] for result in found])
        # 10 expected; four times their standard deviation is another 12, and resampled 60 sessions
        # are a little less wide than they should be
        assert 1 <= (p < 0.05).sum() <= 22
        assert 1 <= (~covered).sum() <= 26
        assert 0.4 < p.mean() < 0.6


def test_intervals_cover_a_known_difference():
    """Recall@20 of the two is 0.5 and 0.65."""
    found = [compare(*noisy(seed, 60, 0.3), n=300, seed=seed) for seed in range(200)]
    covered = [r.low["Recall@20"] <= -0.15 <= r.high["Recall@20"] for r in found]
    assert 0.88 < np.mean(covered) < 0.99


def test_a_planted_difference_is_found():
    a, b = noisy(1, 400, 0.3)
    found = compare(a, b, n=2000)
    assert (found.high < 0).all() and (found.p_value < 0.01).all()
    other = compare(b, a, n=2000)
    np.testing.assert_allclose(other.difference, -found.difference)
    assert (other.low > 0).all()


def test_sessions_and_not_events_are_the_units():
    """A session that is there ten times over in events is one observation still."""
    rng = np.random.default_rng(0)
    a, b = noisy(5, 40, 0.2)
    short = compare(a, b, n=2000).loc["Recall@20"]
    times = [x.loc[x.index.repeat(10)].reset_index(drop=True) for x in (a, b)]
    long = compare(*times, n=2000).loc["Recall@20"]
    np.testing.assert_allclose(long, short)
    shuffled = rng.permutation(len(a))
    mixed = compare(*(x.iloc[shuffled].reset_index(drop=True) for x in (a, b)), n=2000)
    np.testing.assert_allclose(mixed.difference["Recall@20"], short.difference)


def test_the_seed_decides_and_blocks_do_not(monkeypatch):
    a, b = noisy(2, 70, 0.1)
    first = compare(a, b, n=500, seed=1)
    pd.testing.assert_frame_equal(compare(a, b, n=500, seed=1), first)
    assert not compare(a, b, n=500, seed=2).equals(first)
    monkeypatch.setattr(significance, "CELLS", 200)
    pd.testing.assert_frame_equal(compare(a, b, n=500, seed=1), first)


def test_several_list_lengths():
    a, b = noisy(2, 30)
    found = compare(a, b, cut_off=[5, 20], n=100)
    assert found.index.tolist() == [f"{m}@{n}" for n in (5, 20) for m in METRICS]
    np.testing.assert_allclose(
        found.difference["NDCG@5"], compare(a, b, cut_off=5, n=1).difference["NDCG@5"]
    )


def test_tables_of_other_id_types_match():
    a, b = noisy(2, 30)
    expected = compare(a, b, n=50)
    b = b.assign(SessionId=b.SessionId.astype(str), ItemId=b.ItemId.astype("category"))
    b = b.astype({"Rank": "Int64", "Position": "Int64"})
    pd.testing.assert_frame_equal(compare(a, b, n=50), expected)


A, B = noisy(0, 5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(a="ranks.tsv"), "a: expected a table of evaluation.ranks.*got str"),
        (dict(b=B.drop(columns="Rank")), 'b: .*without the column "Rank"'),
        (dict(b=B.head(0)), "b: expected .*without rows"),
        (dict(b=B.head(3)), f"got {len(A)} and 3; evaluate both"),
        (dict(b=B.assign(Rank=0)), 'b: column "Rank" has to hold numbers of 1 or more'),
        (dict(b=B.assign(Rank=np.nan)), 'b: column "Rank" has missing values'),
        (dict(b=B.assign(Position="2")), 'b: column "Position" has to hold numbers'),
        (dict(b=B.assign(Rank="1")), 'b: column "Rank"'),
        (dict(b=B.assign(ItemId=None)), 'b: column "ItemId" has missing values'),
        (dict(b=B.assign(ItemId=7)), r"in row \d ItemId is \d in a and 7 in b; evaluate"),
        (dict(b=B.assign(SessionId="x")), "in row 0 SessionId is '0' in a and 'x' in b"),
        (dict(b=B.assign(Position=B.Position + 1)), "in row 0 Position is 2 in a and 3 in b"),
        (dict(a=A[A.SessionId == 0], b=B[B.SessionId == 0]), "two or more sessions, got one"),
        (dict(cut_off=0), "cut_off: expected"),
        (dict(n=0), "n: expected a number of resamples"),
        (dict(level=1), "level: expected a number between 0 and 1"),
        (dict(seed=-1), "seed: expected"),
    ],
)
def test_what_cannot_be_compared(arguments, words):
    with pytest.raises(InputError, match=words):
        compare(**{"a": A, "b": B, **arguments})


# --- groups of events -----------------------------------------------------------------------------


def slow_groups(values, uppers):
    return [next((i for i, u in enumerate(uppers) if v <= u), len(uppers)) for v in values]


def slow_breakdown(ranks, values, uppers, cut_off):
    rows = []
    codes = np.array(slow_groups(values, uppers))
    for code in sorted(set(codes.tolist())):
        part, own = ranks[codes == code], np.array(values)[codes == code]
        measured = [metric(name, part, cut_off) for name in METRICS]
        rows.append([own.min(), own.max(), len(part), *measured])
    return rows


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    by=st.sampled_from(["length", "position", "popularity"]),
    groups=st.integers(1, 7),
    cut_off=st.integers(1, 40),
)
def test_groups_by_hand(seed, by, groups, cut_off):
    rng = np.random.default_rng(seed)
    ranks = table(random_sessions(rng, 12, longest=9), rng)
    support = {item: int(rng.integers(0, 8)) for item in range(12)}
    if by == "popularity":
        values = [support[item] for item in ranks.ItemId]
        ordered = sorted(support.values())
        # the items in equal parts, the earlier ones larger by one where they do not fit
        parts = [ordered[: -(-k * len(ordered) // groups)] for k in range(1, groups)]
        uppers = sorted({part[-1] for part in parts})
    elif by == "position":
        values = ranks.Position.tolist()
        uppers = sorted(set(values))[: groups - 1]
    else:
        lengths = Counter(ranks.SessionId)
        values = [lengths[s] + 1 for s in ranks.SessionId]
        uppers = sorted(set(values))[: groups - 1]
    found = breakdown(ranks, by, support=support, cut_off=cut_off, groups=groups)
    assert found.columns.tolist() == ["low", "high", "events", "recall", "mrr", "ndcg"]
    np.testing.assert_allclose(found, slow_breakdown(ranks, values, uppers, cut_off))
    assert found.events.sum() == len(ranks) and len(found) <= groups


def test_the_support_of_a_log_is_taken_as_it_is():
    """Ids are compared by value, and a category or strings name the same items."""
    ranks = table([[1, 2, 30], [1, 40]], items=[[1, 2, 1], [3, 2]])
    log = pd.Series(["1"] * 9 + ["2"] * 5 + ["3"] + ["4"] * 3, name="ItemId")
    expected = [[1, 1, 1, 1.0], [5, 5, 2, 0.5], [9, 9, 2, 0.5]]
    for column in (log, log.astype(int), log.astype("category")):
        found = breakdown(ranks, "popularity", support=column.value_counts())
        assert found[["low", "high", "events", "recall"]].to_numpy().tolist() == expected


SUPPORT = dict.fromkeys(range(9), 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(ranks=[1]), "ranks: expected a table of evaluation.ranks"),
        (dict(by="item"), "by: expected one of length, position, popularity"),
        (dict(groups=0), "groups: expected an integer of 1 or more"),
        (dict(cut_off=[5, 20]), "cut_off: expected one list length"),
        (dict(support=None), "support: popularity needs .*value_counts"),
        (dict(support=[4] * 9), "support: expected numbers of events by item id.*got list"),
        (dict(support={}), "support: expected whole numbers"),
        (dict(support={"a": 0.5}), "support: expected whole numbers"),
        (dict(support={**SUPPORT, "4": 2}), "support: an item is in it twice"),
        (dict(support={10: 2}), r"support: item \d of the ranks is not in it"),
    ],
)
def test_what_cannot_be_divided(arguments, words):
    with pytest.raises(InputError, match=words):
        breakdown(**{"ranks": A, "by": "popularity", "support": SUPPORT, **arguments})
