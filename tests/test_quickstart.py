"""The quickstart's click log is what it claims, and "best possible" is the best possible."""

from __future__ import annotations

import itertools
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

QUICKSTART = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
sys.path.insert(0, str(QUICKSTART))

import quickstart  # noqa: E402
from process import DAY, FIRST_DAY, ClickProcess  # noqa: E402

from gru4rec_toolkit.errors import InputError  # noqa: E402


@pytest.fixture(scope="module")
def tiny() -> ClickProcess:
    """So few items that every pair of items is frequent."""
    return ClickProcess(n_items=12, n_successors=(3, 5), seed=3)


@pytest.fixture(scope="module")
def shop() -> ClickProcess:
    """The quickstart's own process."""
    return ClickProcess()


@pytest.fixture(scope="module")
def log(shop: ClickProcess) -> pd.DataFrame:
    return shop.sample(20_000, seed=1)


def sessions_of(log: pd.DataFrame) -> list[list[int]]:
    """Item ids of each session, in order."""
    log = log.sort_values(["SessionId", "Time"])
    ends = np.flatnonzero(np.diff(log["SessionId"])) + 1
    return [part.tolist() for part in np.split(log["ItemId"].to_numpy(), ends)]


# --- the process ---------------------------------------------------------------------------------


def test_successors_are_close_on_the_sphere(shop):
    np.testing.assert_allclose(np.linalg.norm(shop.points, axis=1), 1, rtol=1e-6)
    cosines = np.einsum("id,ijd->ij", shop.points, shop.points[shop.successors])
    assert cosines.mean() > 0.6  # of all pairs it is 0


@given(st.lists(st.integers(0, 11), max_size=6))
def test_the_distribution_is_one_and_depends_on_the_last_two_items(positions):
    process = ClickProcess(n_items=12, n_successors=(3, 5), seed=3)
    session = process.item_ids[positions].tolist()
    distribution = process.next_item_distribution(session)
    assert distribution.shape == (12,)
    assert distribution.min() > 0
    assert distribution.sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_array_equal(distribution, process.next_item_distribution(session[-2:]))

    # written out: one list entry at a time
    expected = np.zeros(12)
    if positions:
        current, previous = positions[-1], positions[-2:][0]
        expected += (1 - process.from_current - process.from_previous) * process.popularity
        for share, item in [(process.from_current, current), (process.from_previous, previous)]:
            for successor, weight in zip(process.successors[item], process.weights[item]):
                expected[successor] += share * weight
    else:
        expected += process.popularity
    np.testing.assert_allclose(distribution, expected, rtol=1e-12)


def test_successor_lists(shop: ClickProcess):
    assert all(len(set(row)) == len(row) for row in shop.successors.tolist())
    assert not np.any(shop.successors == np.arange(shop.n_items)[:, None])
    lengths = np.count_nonzero(shop.weights, axis=1)
    assert (lengths.min(), lengths.max()) == (20, 30)
    np.testing.assert_allclose(shop.weights.sum(axis=1), 1.0)


def test_the_log_follows_the_distribution(tiny: ClickProcess):
    """Chi-square of the next item's frequencies for every context that occurs often enough."""
    sessions = sessions_of(tiny.sample(40_000, seed=5))
    counts = {}
    for session in sessions:
        for i in range(len(session)):
            context = tuple(session[max(i - 2, 0) : i])
            row = counts.setdefault(context, np.zeros(tiny.n_items))
            row[tiny.positions(session[i : i + 1])[0]] += 1
    p_values = []
    for context, row in counts.items():
        expected = row.sum() * tiny.next_item_distribution(context)
        if expected.min() >= 5:
            p_values.append(stats.chisquare(row, expected).pvalue)
    assert () in counts
    assert len(p_values) > 50
    # p-values of true hypotheses are uniform; the seeds are fixed, so this is no lottery
    assert min(p_values) > 1e-3 / len(p_values)
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_the_test_above_would_notice(tiny: ClickProcess):
    """The frequencies are far from those of a process that forgets all but the current item."""
    sessions = sessions_of(tiny.sample(40_000, seed=5))
    pairs = pd.Series([tuple(s[i : i + 2]) for s in sessions for i in range(len(s) - 2)])
    previous, current = pairs.mode()[0]
    row = np.zeros(tiny.n_items)
    for session in sessions:
        for i in range(len(session) - 2):
            if session[i] == previous and session[i + 1] == current:
                row[tiny.positions(session[i + 2 : i + 3])[0]] += 1
    forgetful = row.sum() * tiny.next_item_distribution([current])
    assert stats.chisquare(row, forgetful).pvalue < 1e-6


def test_the_log_looks_like_one(shop: ClickProcess, log: pd.DataFrame):
    assert list(log.columns) == ["SessionId", "ItemId", "Time"]
    assert all(dtype == np.int64 for dtype in log.dtypes)
    assert log["SessionId"].nunique() == 20_000
    lengths = log.groupby("SessionId").size()
    assert (lengths.min(), lengths.mean()) == (2, pytest.approx(5, abs=0.1))
    assert 25 < lengths.max() <= 50
    assert lengths.median() < lengths.mean()

    step = log.groupby("SessionId")["Time"].diff()
    assert step.min() >= 1
    start = log.groupby("SessionId")["Time"].min()
    assert start.is_monotonic_increasing
    assert start.min() >= FIRST_DAY
    assert start.max() < FIRST_DAY + shop.days * DAY
    # sessions overlap: in time order, the session changes at nearly every event
    by_time = log.sort_values("Time")["SessionId"].to_numpy()
    assert np.mean(by_time[1:] == by_time[:-1]) < 0.5

    ids = np.sort(shop.item_ids)
    assert len(set(ids)) == shop.n_items
    assert np.all(ids > 10**8)
    assert np.median(np.diff(ids)) > 10


def test_a_seed_names_a_log(tiny: ClickProcess):
    again = ClickProcess(n_items=12, n_successors=(3, 5), seed=3)
    pd.testing.assert_frame_equal(tiny.sample(50, seed=1), again.sample(50, seed=1))
    assert not tiny.sample(50, seed=1).equals(tiny.sample(50, seed=2))


def test_unknown_item(tiny: ClickProcess):
    with pytest.raises(KeyError, match="17"):
        tiny.next_item_distribution([17])


# --- the best possible ---------------------------------------------------------------------------


def test_best_possible_by_brute_force(tiny: ClickProcess):
    """Metrics of "best possible" and of popularity against a loop over sessions and events."""
    log = tiny.sample(400, seed=9)
    train, test = quickstart.split(log, FIRST_DAY + 20 * DAY)
    # two items that are unknown to training: events on them are dropped before the evaluation
    unknown = set(tiny.item_ids[[2, 7]].tolist())
    train = train[~train["ItemId"].isin(unknown)]
    support = {item: 0 for item in tiny.item_ids.tolist()}
    for item in train["ItemId"]:
        support[item] += 1
    candidates = [item for item in support if item not in unknown]

    best, popularity = [], []
    for session in sessions_of(test):
        kept = [i for i, item in enumerate(session) if item not in unknown]
        for i in kept[1:]:
            probability = dict(zip(tiny.item_ids, tiny.next_item_distribution(session[:i])))
            better = [c for c in candidates if probability[c] > probability[session[i]]]
            best.append(1 + len(better))
            popularity.append(1 + sum(support[c] > support[session[i]] for c in candidates))
    assert len(best) > 100

    shuffled = test.sample(frac=1.0, random_state=0)  # the order of the rows must not matter
    known = ~np.isin(tiny.item_ids, list(unknown))
    events = quickstart.scored_events(tiny, shuffled, known)
    ranks = tiny.best_ranks_at(*events, np.flatnonzero(known))
    assert sorted(ranks.tolist()) == sorted(best)
    ranks_in_blocks = tiny.best_ranks_at(*events, np.flatnonzero(known), block=7)
    np.testing.assert_array_equal(ranks_in_blocks, ranks)
    counted = np.array([support[item] for item in tiny.item_ids.tolist()])
    by_popularity = quickstart.popularity_ranks(counted, events.target)
    assert sorted(by_popularity.tolist()) == sorted(popularity)

    for n in (1, 3, 20):
        recall, mrr = quickstart.metrics(ranks, n)
        assert recall == pytest.approx(sum(r <= n for r in best) / len(best))
        assert mrr == pytest.approx(sum(1 / r for r in best if r <= n) / len(best))


def test_no_other_ranking_is_better(shop: ClickProcess, log: pd.DataFrame):
    train, test = quickstart.split(log, FIRST_DAY + 24 * DAY)
    item = shop.positions(train["ItemId"].to_numpy())
    support = np.bincount(item, minlength=shop.n_items)
    events = quickstart.scored_events(shop, test, support > 0)
    known = np.flatnonzero(support)
    best = shop.best_ranks_at(*events, known)

    session = train["SessionId"].to_numpy()
    follows = session[1:] == session[:-1]
    pairs = np.zeros((shop.n_items, shop.n_items), dtype=np.float32)
    np.add.at(pairs, (item[:-1][follows], item[1:][follows]), 1.0)
    scores = pairs[events.current] + 1e-6 * support
    of_target = np.take_along_axis(scores, events.target[:, None], axis=1)
    rivals = {
        "popularity": quickstart.popularity_ranks(support, events.target),
        "pair counts": 1 + (scores > of_target).sum(axis=1),
        # the true distribution for someone who knows the last item only, or takes it for the first
        "last item": shop.best_ranks_at(events.current, events.current, events.target, known),
        "wrong order": shop.best_ranks_at(events.previous, events.current, events.target, known),
    }
    for n, (name, ranks) in itertools.product((1, 5, 20), rivals.items()):
        ours, theirs = quickstart.metrics(best, n), quickstart.metrics(ranks, n)
        assert ours.recall > theirs.recall, (name, n)
        assert ours.mrr > theirs.mrr, (name, n)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_popularity_ranks(support):
    ranks = quickstart.popularity_ranks(np.array(support), np.arange(len(support)))
    assert ranks.tolist() == [1 + sum(other > own for other in support) for own in support]


# --- the driver ----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=30), st.integers(0, 10))
def test_split(events, at):
    log = pd.DataFrame(events, columns=["SessionId", "Time"], dtype=np.int64).assign(ItemId=1)
    train, test = quickstart.split(log, at)
    for name, part in log.groupby("SessionId"):
        in_test, in_train = test[test["SessionId"] == name], train[train["SessionId"] == name]
        if part["Time"].min() >= at:
            assert len(in_test) == len(part)
            assert in_train.empty
        else:
            assert in_test.empty
            before = int((part["Time"] < at).sum())
            assert len(in_train) == (before if before > 1 else 0)


def test_write_table(tmp_path: Path):
    path = tmp_path / "train.tsv"
    quickstart.write_table(pd.DataFrame({"SessionId": [1], "ItemId": [2], "Time": [3]}), path)
    assert path.read_text() == "SessionId\tItemId\tTime\n1\t2\t3\n"

    class Broken:
        def to_csv(self, file, **_: object) -> None:
            file.write(b"half a fi")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        quickstart.write_table(Broken(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["train.tsv"]
    assert path.read_text().endswith("1\t2\t3\n")


def test_other_files_are_left_alone(tmp_path: Path, log: pd.DataFrame):
    path = tmp_path / "train.tsv"
    for text in ("SessionId\tItemId\tTime\n1\t2\t3\n", "", "x", "SessionId\tItemId\tTime\n"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"train.tsv: it exists .* --data"):
            quickstart.main(["--data", str(tmp_path), "--sessions", "1000"])
        assert path.read_text() == text
        assert list(tmp_path.iterdir()) == [path]
    quickstart.write_table(log, path)
    quickstart.check_replaceable(path, ClickProcess())


def test_commands_as_they_are_typed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["x" * length for length in range(1, 40)] * 3
    command = [str(tmp_path / "bin" / "python"), "/elsewhere/run.py", "a b", *words]
    shown = quickstart.as_typed(command)
    # a shell's prompt stands before the first one
    assert 75 <= max(len(line) for line in f"$ {shown}".split("\n")) <= 80
    assert shlex.split(shown.replace("\\\n", "")) == ["bin/python", *command[1:]]


STAND_IN = """
import sys
kind = "loaded" if "-l" in sys.argv else "trained"
kind = sys.argv[sys.argv.index("--baseline") + 1] if "--baseline" in sys.argv else kind
print("Creating GRU4Rec model" if kind == "trained" else "Loading trained model")
if {fail!r} == kind:
    sys.exit(2)
for n in sys.argv[sys.argv.index("-m") + 1:]:
    print(f"Recall@{{n}}: {recall} MRR@{{n}}: {mrr}{{' ' if kind == 'loaded' else ''}}")
"""


@pytest.mark.parametrize(
    ("recall", "fail", "message"),
    [
        ("0.500000", "", None),
        ("0.010000", "", "no better than the popularity list"),
        ("0.500000", "trained", "exit code 2"),
        ("0.500000", "loaded", "exit code 2"),
        ("0.500000", "vsknn", "exit code 2"),
        ("{0.5 if kind in ('trained', 'loaded') else 0.3}", "", None),
        ("{0.5 if kind == 'loaded' else 0.6}", "", "evaluates differently"),
    ],
)
def test_driver(tmp_path: Path, capfd, recall: str, fail: str, message: str | None):
    """The driver's verdicts, with a stand-in for run.py that prints what a case needs."""
    script = tmp_path / "run.py"
    script.write_text(STAND_IN.format(recall=recall, mrr="0.250000", fail=fail))
    arguments = ["--data", str(tmp_path / "data"), "--sessions", "2000"]
    if message is None:
        quickstart.main(arguments, run=script)
    else:
        with pytest.raises(SystemExit) as stop:
            quickstart.main(arguments, run=script)
        assert message in stop.value.code  # a text: printed to standard error, exit code 1

    out = capfd.readouterr().out
    assert "Creating GRU4Rec model" in out
    if not fail:
        rows = {line[:31].strip(): line.split()[-2:] for line in out.splitlines()}
        kinds = {"GRU4Rec": "trained", "Markov chain": "markov", "V-SkNN": "vsknn"}
        for title, kind in kinds.items():
            printed = float(eval(f"f{recall!r}", {"kind": kind}))
            assert rows[title] == [f"{printed:.4f}", "0.2500"]
        assert list(rows).index("V-SkNN") < list(rows).index("GRU4Rec")
    train = pd.read_csv(tmp_path / "data" / "train.tsv", sep="\t")
    test = pd.read_csv(tmp_path / "data" / "test.tsv", sep="\t")
    assert train["Time"].max() < test["Time"].min()
    assert not set(train["SessionId"]) & set(test["SessionId"])
