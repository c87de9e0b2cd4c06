"""Evaluation and recommendation from the state that a history leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.cli import complaint, run_py, succeeds
from helpers.on_gpu import runs

import evaluation
from gru4rec import GRU4Rec
from gru4rec_toolkit.data import sessions
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model.validation import Validation

N_ITEMS = 30


def made_log(n_users: int = 40, seed: int = 0) -> pd.DataFrame:
    """Events of users with several sessions each; the last session may go on in the test."""
    rng = np.random.default_rng(seed)
    rows, time, session = [], 0, 0
    for user in range(n_users):
        for _ in range(rng.integers(1, 5)):
            session += 1
            for _ in range(rng.integers(1, 7)):
                time += int(rng.integers(1, 5))
                rows.append((user, session, int(rng.integers(0, N_ITEMS)), time))
    return pd.DataFrame(rows, columns=["UserId", "SessionId", "ItemId", "Time"])


def split_log(log: pd.DataFrame, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return history and test: of each user some last events, of some users all."""
    rng = np.random.default_rng(seed)
    tests = []
    for _, events in log.groupby("UserId"):
        n = int(rng.integers(0, min(len(events), 6) + 1))
        tests.append(events.index[len(events) - n :])
    is_test = log.index.isin(np.concatenate(tests))
    return log[~is_test], log[is_test]


@pytest.fixture(scope="module")
def parts():
    return split_log(made_log())


def model_of(parts, **values) -> GRU4Rec:
    gru = GRU4Rec(layers=[6, 5], batch_size=8, n_sample=8, n_epochs=1, learning_rate=0.3, **values)
    data = pd.concat([*parts, pd.DataFrame({"ItemId": range(N_ITEMS)})]).fillna(0)
    gru.fit(data)
    return gru


@pytest.fixture(scope="module")
def gru(parts):
    return model_of(parts)


@pytest.fixture(scope="module")
def of_users(parts):
    return model_of(parts, user_key="UserId")


def replayed(gru: GRU4Rec, history, test, key: str, session_target, last: int = 0) -> list:
    """Go through every sequence event by event, in numpy; return (session, item, rank) of targets.

    session_target(session, seen) says whether the next event of a session is a target, given the
    sessions of the events before.
    """
    w, sizes = gru.weights(), gru.network.settings.layers
    index = {item: i for i, item in enumerate(gru.item_ids.tolist())}
    found = []
    for owner, events in test.groupby(key):
        past = history[history[key] == owner] if history is not None else test[:0]
        past = past[-last:]  # 0: all of it
        states, seen = [np.zeros(n) for n in sizes], []
        steps = [(row, False) for row in past.itertuples()]
        steps += [(row, True) for row in events.itertuples()]
        for row, counts in steps:
            item = index[row.ItemId]
            if counts and seen and session_target(row.SessionId, seen):
                scores = w["Wy"] @ states[-1] + w["By"][:, 0]
                found.append((row.SessionId, row.ItemId, 1 + int((scores > scores[item]).sum())))
            x = w["Wx0"][item]
            for i, h in enumerate(states):
                if i:
                    x = x @ w[f"Wx{i}"]
                x, n = x + w[f"Bh{i}"], len(h)
                rz = 1 / (1 + np.exp(-(x[n:] + h @ w[f"Wrz{i}"])))
                candidate = np.tanh(x[:n] + (h * rz[:n]) @ w[f"Wh{i}"])
                x = states[i] = (1 - rz[n:]) * h + rz[n:] * candidate
            seen.append(row.SessionId)
    return sorted(found)


def same_session(session, seen) -> bool:
    return session in seen


def table_of(ranks: pd.DataFrame) -> list:
    columns = (ranks[name].tolist() for name in ("SessionId", "ItemId", "Rank"))
    return sorted(zip(*columns))


def nearly(found: list, expected: list) -> None:
    """Ranks may differ by one where two scores differ by less than float32 knows."""
    assert [row[:2] for row in found] == [row[:2] for row in expected] and found
    wrong = [(a, b) for a, b in zip(found, expected) if a[2] != b[2]]
    assert len(wrong) <= 1 and all(abs(a[2] - b[2]) <= 1 for a, b in wrong), wrong


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_sessions_go_on_anywhere(gru, parts, batch_size):
    history, test = parts
    found = evaluation.ranks(gru, test, batch_size=batch_size, history=history)
    expected = replayed(gru, history, test, "SessionId", same_session)
    nearly(table_of(found), expected)
    # more targets than without: the first of a session's test
    alone = evaluation.ranks(gru, test, batch_size=batch_size)
    nearly(table_of(alone), replayed(gru, None, test, "SessionId", same_session))
    assert len(found) > len(alone)


@pytest.mark.parametrize("with_history", [True, False])
def test_users_go_on_anywhere(of_users, parts, with_history):
    history = parts[0] if with_history else None
    found = evaluation.ranks(of_users, parts[1], user_key="UserId", history=history, batch_size=5)
    nearly(table_of(found), replayed(of_users, history, parts[1], "UserId", same_session))


def test_elsewhere(gpu):
    gpu.runs(__file__, "anywhere")


def test_elsewhere_on_the_cpu():
    runs(__file__, "device=cpu,blas.ldflags=", "anywhere")


def test_positions(gru, of_users, parts):
    """Counted from the session's beginning, in the history or not."""
    history, test = parts
    log = pd.concat(parts).sort_values("Time", kind="stable")
    for model, key in ((gru, None), (of_users, "UserId")):
        found = evaluation.ranks(model, test, user_key=key, history=history)
        places = log.groupby("SessionId").cumcount() + 1
        expected = {(s, p): i for s, p, i in zip(log["SessionId"], places, log["ItemId"])}
        for row in found.itertuples():
            assert expected[row.SessionId, row.Position] == row.ItemId
        assert found["Position"].min() == 2 and (found["Position"] > 3).any()


def test_a_session_goes_on_whatever_came_between(of_users):
    """Two sessions of one user, both begun before: as many targets as without users."""
    columns = ["UserId", "SessionId", "ItemId", "Time"]
    history = pd.DataFrame([(1, 10, 3, 100), (1, 11, 4, 110), (1, 11, 5, 130)], columns=columns)
    test = pd.DataFrame([(1, 10, 6, 200), (1, 11, 8, 210), (1, 12, 9, 220)], columns=columns)
    found = evaluation.ranks(of_users, test, user_key="UserId", history=history)
    assert found[["SessionId", "Position"]].to_numpy().tolist() == [[10, 2], [11, 3]]
    alone = evaluation.ranks(of_users, test, history=history)
    assert found["ItemId"].tolist() == alone["ItemId"].tolist() == [6, 8]


def test_a_session_with_the_id_of_another_users(of_users):
    """Ids are unique within a user here: the history's session 10 is not the test's."""
    columns = ["UserId", "SessionId", "ItemId", "Time"]
    history = pd.DataFrame([(1, 10, 3, 100), (2, 11, 4, 110)], columns=columns)
    rows = [(2, 10, 6, 200), (2, 10, 7, 210), (3, 11, 8, 220), (3, 11, 9, 230)]
    test = pd.DataFrame(rows, columns=columns)
    found = evaluation.ranks(of_users, test, user_key="UserId", history=history)
    assert found[["SessionId", "Position", "ItemId"]].to_numpy().tolist() == [
        [10, 2, 7],
        [11, 2, 9],
    ]


def test_the_same_targets_whatever_carries_the_state(of_users, parts):
    history, test = parts
    # sessions of a user that overlap in time
    times = {"Time": lambda log: log["Time"] + (log["SessionId"] % 2) * 9}
    history, test = history.assign(**times), test.assign(**times)
    with_users = evaluation.ranks(of_users, test, user_key="UserId", history=history)
    alone = evaluation.ranks(of_users, test, history=history)
    keys = ["SessionId", "Position", "ItemId"]
    pd.testing.assert_frame_equal(
        with_users[keys].sort_values(keys, ignore_index=True),
        alone[keys].sort_values(keys, ignore_index=True),
    )


def test_lengths_count_the_history(gru):
    log = made_log(seed=5)
    last = log.groupby("SessionId").tail(1)
    ranks = evaluation.ranks(gru, last, history=log.drop(last.index))
    lengths = log.groupby("SessionId").size()
    groups = evaluation.breakdown(ranks, by="length")
    assert groups["low"].tolist() == sorted(set(lengths[lengths > 1]))


def test_a_few_overlaps_are_a_warning(of_users, parts, caplog):
    history, test = parts
    assert "after the beginning" not in caplog.text
    shared = sorted({*history["UserId"]} & {*test["UserId"]})
    late = history[history["UserId"] == shared[0]].tail(1).assign(Time=10**6)
    evaluation.ranks(of_users, test, user_key="UserId", history=pd.concat([history, late]))
    assert f"1 of {len(shared)} users that have a history" in caplog.text


def test_metrics_are_those_of_the_ranks(of_users, parts, tmp_path):
    history, test = parts
    options = {"user_key": "UserId", "history": history}
    ranks = evaluation.ranks(of_users, test, **options)
    recall, mrr, coverage, popularity = evaluation.evaluate_gpu(
        of_users,
        *(test,),
        cut_off=[3, N_ITEMS],
        extra=["coverage", "popularity"],
        batch_size=3,
        ranks_path=tmp_path / "ranks.tsv",
        **options,
    )
    assert recall == [float((ranks["Rank"] <= n).mean()) for n in (3, N_ITEMS)]
    np.testing.assert_allclose(mrr[1], (1 / ranks["Rank"]).mean())
    assert coverage[1] == 1 and 0 < popularity[0] < 1
    written = pd.read_csv(tmp_path / "ranks.tsv", sep="\t")
    pd.testing.assert_frame_equal(written, ranks)


def test_leave_one_out(gru):
    """A single event of each session is a test."""
    log = made_log(seed=5)
    last = log.groupby("SessionId").tail(1)
    history = log.drop(last.index)
    found = evaluation.ranks(gru, last, history=history)
    assert len(found) == history["SessionId"].nunique()
    nearly(table_of(found), replayed(gru, history, last, "SessionId", same_session))
    with pytest.raises(InputError, match="no session has two or more events"):
        evaluation.ranks(gru, last)


@pytest.mark.parametrize("border", ["carry", "reset"])
def test_as_the_training_treats_borders(parts, border):
    history, test = parts
    gru = model_of(parts, user_key="UserId", session_border=border, max_sequence=4)
    found = evaluation.ranks(gru, test, user_key="UserId", history=history)
    # where borders reset the state, a session goes on from its own events only
    key = "UserId" if border == "carry" else "SessionId"
    nearly(table_of(found), replayed(gru, history, test, key, same_session, last=4))


def test_an_indexed_history(gru, parts):
    history, test = parts
    logs = [
        sessions.index_sessions(data, item_ids=gru.item_ids, keep_session_ids=True)
        for data in (history, test)
    ]
    expected = evaluation.evaluate_gpu(gru, test, history=history)
    assert evaluation.evaluate_gpu(gru, logs[1], history=logs[0]) == expected
    assert evaluation.evaluate_gpu(gru, test) != expected


def test_validation_goes_on(parts):
    """The metrics that an epoch's record has are those of an evaluation after it."""
    history, test = parts
    records = []
    gru = GRU4Rec(layers=[6], batch_size=8, n_sample=8, n_epochs=2, user_key="UserId")
    gru.fit(
        pd.concat(parts),
        validation=Validation(test, cut_off=[5], history=history),
        callbacks=[records.append],
    )
    best = max(record.metrics["Recall@5"] for record in records)
    options = {"cut_off": [5], "user_key": "UserId"}
    recall, _ = evaluation.evaluate_gpu(gru, test, history=history, **options)
    assert recall == [best]
    without, _ = evaluation.evaluate_gpu(gru, test, **options)
    assert without != recall


# ---------------------------------------------------------------------------- recommendations


def test_recommendations_go_on(gru, parts):
    history, test = parts
    found = gru.recommend(test, k=4, history=history)
    ids = np.sort(test["SessionId"].unique())
    for i, session in enumerate(ids):
        whole = [
            *history[history["SessionId"] == session]["ItemId"],
            *test[test["SessionId"] == session]["ItemId"],
        ]
        expected = gru.recommend([whole], k=4)
        assert found.items[i].tolist() == expected.items[0].tolist()
        np.testing.assert_allclose(found.scores[i], expected.scores[0], rtol=1e-4)
    assert (found.items != gru.recommend(test, k=4).items).any()


def test_recommendations_of_users(of_users, parts):
    """What counts are the user's events before the session, in both tables."""
    history, test = parts
    found = of_users.recommend(test, k=4, history=history, exclude_seen=True)
    starts = test.groupby("SessionId")["Time"].min()
    for i, session in enumerate(np.sort(test["SessionId"].unique())):
        own = test[test["SessionId"] == session]
        user = own["UserId"].iloc[0]
        of_user = test[test["UserId"] == user]
        before = of_user[of_user["SessionId"].map(starts) < starts[session]]
        whole = [*history[history["UserId"] == user]["ItemId"], *before["ItemId"], *own["ItemId"]]
        expected = of_users.recommend([whole], k=4, exclude_seen=True)
        assert found.items[i].tolist() == expected.items[0].tolist()
        assert not set(found.items[i]) & set(whole)


@pytest.mark.parametrize("kind", [float, str, "category"])
def test_recommendations_find_users_whatever_their_type(of_users, parts, kind):
    """Ids are compared by value: a user 7.0 or "7" of the one table is the 7 of the other."""
    history, test = parts
    other = test.assign(UserId=test["UserId"].astype(kind))
    found = of_users.recommend(other, k=4, history=history)
    expected = of_users.recommend(test, k=4, history=history)
    np.testing.assert_array_equal(found.items, expected.items)


def test_recommendations_take_the_last_events_of_a_history(parts):
    """So many as a training takes of a sequence, and all of the session's own."""
    history, test = parts
    gru = model_of(parts, max_sequence=2)
    found = gru.recommend(test, k=4, history=history).items.tolist()

    def lists(past: pd.DataFrame) -> list:
        events = pd.concat([past[past["SessionId"].isin(test["SessionId"])], test])
        whole = [items.tolist() for _, items in events.groupby("SessionId")["ItemId"]]
        return gru.recommend(whole, k=4).items.tolist()

    assert found == lists(history.groupby("SessionId").tail(2))
    assert found != lists(history)
    with pytest.raises(InputError, match="history: none of the test's sessions is in it"):
        gru.recommend(test, history=history.assign(SessionId=-1))


def test_recommendations_of_lists_have_no_history(gru, parts):
    with pytest.raises(InputError, match="history: sessions have to be a DataFrame"):
        gru.recommend([[1, 2]], history=parts[0])


# ---------------------------------------------------------------------------- the model's columns


def test_users_are_those_of_the_model(of_users, parts):
    """Unless they are named; with an empty name every session starts from zero."""
    history, test = parts
    found = evaluation.ranks(of_users, test, history=history)
    named = evaluation.ranks(of_users, test, user_key="UserId", history=history)
    pd.testing.assert_frame_equal(found, named)
    options = {"history": history, "cut_off": [5]}
    metrics = evaluation.evaluate_gpu(of_users, test, **options)
    assert metrics == evaluation.evaluate_gpu(of_users, test, user_key="UserId", **options)
    indexing = {"item_ids": of_users.item_ids, "keep_session_ids": True}
    with_users = sessions.index_sessions(test, user_key="UserId", **indexing)
    pd.testing.assert_frame_equal(evaluation.ranks(of_users, with_users, history=history), named)
    alone = table_of(evaluation.ranks(of_users, test, user_key=""))
    nearly(alone, replayed(of_users, None, test, "SessionId", same_session))
    without = sessions.index_sessions(test, **indexing)
    for log in (with_users, without):
        assert table_of(evaluation.ranks(of_users, log, user_key="")) == alone
    assert table_of(evaluation.ranks(of_users, without)) == alone
    assert alone != table_of(evaluation.ranks(of_users, test))


def test_columns_are_those_of_the_model(parts):
    names = {"SessionId": "visit", "ItemId": "product", "Time": "when"}
    keys = {"session_key": "visit", "item_key": "product", "time_key": "when"}
    history, test = (part.rename(columns=names) for part in parts)
    gru = GRU4Rec(layers=[6], batch_size=8, n_sample=8, n_epochs=1, **keys)
    gru.fit(history)
    expected = evaluation.evaluate_gpu(gru, test, **keys, cut_off=[5])
    assert evaluation.evaluate_gpu(gru, test, cut_off=[5]) == expected
    with pytest.warns(DeprecationWarning):
        slow = evaluation.evaluate_sessions_batch(gru, test, cut_off=[5])
    np.testing.assert_allclose(slow, expected)
    named = {"session_key": "SessionId", "item_key": "ItemId", "time_key": "Time"}
    for options in (named, {}):  # as in the reference, these need not be named
        assert evaluation.evaluate_gpu(gru, parts[1], **options, cut_off=[5]) == expected
    both = test.assign(ItemId=0, SessionId=0, Time=0)
    assert evaluation.evaluate_gpu(gru, both, cut_off=[5]) == expected
    with pytest.raises(InputError, match='"product"'):
        evaluation.evaluate_gpu(gru, test.drop(columns="product"))


@pytest.mark.parametrize("common", [True, False])
def test_sessions_that_are_reset_need_no_history(parts, common, caplog):
    """A user's other sessions are none, so that a test may go on from nothing."""
    history, test = parts
    if not common:
        history = history.assign(SessionId=history["SessionId"] + 1000)
    gru = model_of(parts, user_key="UserId", session_border="reset")
    found = evaluation.ranks(gru, test, history=history)
    alone = evaluation.ranks(gru, test)
    assert (table_of(found) == table_of(alone)) != common
    lists = gru.recommend(test, k=4, history=history)
    assert (lists.items == gru.recommend(test, k=4).items).all() != common
    warning = "history: no session of the test has begun in it, so all of them start from zero"
    assert (caplog.text.count(warning) == 2) != common


# ---------------------------------------------------------------------------- what is refused


def test_refusals(gru, of_users, parts):
    from gru4rec_toolkit.baselines import BASELINES

    history, test = parts
    late = pd.concat([history, test])
    overlap = r"history: \d+ of \d+ (sessions|users) that have a history have events in it after"
    with pytest.raises(InputError, match=overlap):
        evaluation.evaluate_gpu(gru, test, history=late)
    for model in (gru, of_users):
        with pytest.raises(InputError, match=overlap):
            model.recommend(test, history=late)
    with pytest.raises(InputError, match="history: none of the test's sessions is in it: "):
        evaluation.evaluate_gpu(gru, test, history=history.assign(SessionId=-1))
    with pytest.raises(InputError, match="history: none of the test's users is in it"):
        evaluation.evaluate_gpu(
            of_users, test, user_key="UserId", history=history.assign(UserId=-1, SessionId=-1)
        )
    with pytest.raises(InputError, match="history: expected a pandas DataFrame"):
        evaluation.evaluate_gpu(gru, test, history=[1])
    log = sessions.index_sessions(history, item_ids=gru.item_ids)
    with pytest.raises(InputError, match="history: the log was indexed without the sessions' ids"):
        evaluation.evaluate_gpu(gru, test, history=log)
    with pytest.raises(InputError, match="test data: the log was indexed without users"):
        evaluation.evaluate_gpu(gru, log, user_key="UserId")
    baseline = BASELINES["popularity"]()
    baseline.fit(history)
    with pytest.raises(InputError, match="history, user_key: Popularity"):
        evaluation.evaluate_gpu(baseline, test, history=history)


# ---------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def files(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("histories")
    names = [folder / "history.tsv", folder / "test.tsv"]
    for part, name in zip(parts, names):
        part.to_csv(name, sep="\t", index=False)
    return [str(name) for name in names]


PARAMETERS = "layers=6,batch_size=8,n_sample=8,n_epochs=1,bptt=3,learning_rate=0.3"


def test_run_py(files, tmp_path):
    history, test = files
    model = str(tmp_path / "model.gru4rec")

    def run(*options):
        return succeeds(run_py(*options, "-t", test, "-m", "5", "--history", history, cwd=tmp_path))

    done = run(history, "-ps", PARAMETERS, "-uk", "UserId", "-s", model, "--ranks", "ranks.tsv")
    gru = GRU4Rec.loadmodel(model)
    assert (gru.user_key, gru.bptt) == ("UserId", 3)
    frames = [pd.read_csv(name, sep="\t") for name in files]
    recall, mrr = evaluation.evaluate_gpu(
        gru, frames[1], user_key="UserId", history=frames[0], cut_off=[5]
    )
    line = f"Recall@5: {recall[0]:.6f} MRR@5: {mrr[0]:.6f}"
    assert done.metrics == [line] == run(model, "-l").metrics
    assert [line] != run_py(model, "-l", "-t", test, "-m", "5", cwd=tmp_path).metrics
    assert len(pd.read_csv(tmp_path / "ranks.tsv", sep="\t")) > 10
    run(model, "-l", "--recommend", "lists.tsv", "-k", "3")
    written = pd.read_csv(tmp_path / "lists.tsv", sep="\t")
    expected = gru.recommend(frames[1], k=3, history=frames[0])
    assert written["ItemId"].tolist() == expected.items.ravel().tolist()


COUNTING = """
import sys

import gru4rec
from gru4rec_toolkit.data import events

read_events = events.read_events


def counted(path, *keys, **options):
    print("read", path, file=sys.stderr)
    return read_events(path, *keys, **options)


events.read_events = counted
GRU4Rec = gru4rec.GRU4Rec
"""


def test_a_history_is_read_once(files, tmp_path):
    """For the test set and for the validation."""
    history, test = files
    (tmp_path / "counting.py").write_text(COUNTING)
    train = tmp_path / "train.tsv"
    train.write_bytes(Path(history).read_bytes())
    options = ["-ps", PARAMETERS, "-g", "counting.py", "-t", test, "--validate", test]
    done = succeeds(run_py(train, *options, "--history", history, cwd=tmp_path))
    assert "--> validation Recall@20" in done.out
    read = [line for line in done.err.splitlines() if line.startswith("read ")]
    assert sorted(read) == sorted(f"read {path}" for path in (train, history, test, test))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--history", "none.tsv", "-t", "{test}"], "none.tsv: no such file"),
        (["--history", "{history}"], "--history is where test sets go on from"),
        (["-uk", "Nobody", "-t", "{test}"], 'there is no column "Nobody"'),
        (["-ps", "max_sequence=1"], "max_sequence: expected a number of events, 2 or more"),
        (["-ps", "bptt=0"], "bptt: expected a number of steps from 1 to 256"),
        (["-ps", "batch_size=99", "-uk", "UserId"], "users have two or more events"),
    ],
)
def test_run_py_refuses(files, tmp_path, options, said):
    history, test = files
    options = [option.format(test=test, history=history) for option in options]
    if "-ps" not in options:
        options += ["-ps", PARAMETERS]
    assert said in complaint(run_py(history, *options, cwd=tmp_path))


def test_histories_are_matched_before_the_training(files, tmp_path):
    """A mistake that would be told after hours is told at once; so are those of --recommend."""
    history, test = files
    other = str(tmp_path / "other.tsv")
    frame = pd.read_csv(history, sep="\t")
    frame.assign(SessionId=frame["SessionId"] + 1000).to_csv(other, sep="\t", index=False)
    command = (history, "-ps", PARAMETERS, "-t", test)
    lists = ("--recommend", "lists.tsv")
    strange = "none of the test's sessions is in it"
    late = "sessions that have a history have events in it after the beginning"
    for options, said in [
        (("--history", other), f"{other}: {strange}"),
        (("--history", test), late),
        (("--history", other, *lists), strange),
        (("--history", test, *lists), late),
    ]:
        done = run_py(*command, *options, cwd=tmp_path)
        assert said in complaint(done) and "Started training" not in done.out
    reset = (history, "-ps", f"{PARAMETERS},session_border=reset", "-uk", "UserId", "-t", test)
    done = succeeds(run_py(*reset, "-m", "5", "--history", other, cwd=tmp_path))
    without = succeeds(run_py(*reset, "-m", "5", cwd=tmp_path))
    assert done.metrics == without.metrics
    assert done.err.count("no session of the test has begun in it") == 1
    succeeds(run_py(*reset, *lists, "--history", other, cwd=tmp_path))
    assert (tmp_path / "lists.tsv").exists()
