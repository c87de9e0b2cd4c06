"""What a state runs through: sessions, histories of users, windows of long ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec_toolkit.data import events, schedule, sequences, sessions
from gru4rec_toolkit.errors import InputError

# two users, whose sessions are not in the order of their ids, one of them in letters
LOG = pd.DataFrame(
    [
        ("s3", "ann", 1, 30),
        ("s1", "bob", 2, 10),
        ("s2", "ann", 3, 20),
        ("s3", "ann", 4, 31),
        ("s2", "ann", 5, 21),
        ("s1", "bob", 6, 11),
        ("s4", "bob", 7, 5),
    ],
    columns=["SessionId", "UserId", "ItemId", "Time"],
)


def test_the_sessions_of_a_user_follow_each_other():
    log = sessions.index_sessions(LOG, user_key="UserId", keep_session_ids=True)
    assert log.item_ids[log.items].tolist() == [3, 5, 1, 4, 7, 2, 6]
    assert log.offsets.tolist() == [0, 2, 4, 5, 7]
    assert log.session_ids.tolist() == ["s2", "s3", "s4", "s1"]
    assert log.user_ids.tolist() == ["ann", "bob"]
    assert log.user_offsets.tolist() == [0, 2, 4]
    assert log.start_times.tolist() == [20, 30, 5, 10]
    assert log.sequences.firsts.tolist() == [0, 4] and log.sequences.stops.tolist() == [4, 7]
    assert log.sequences.start_times.tolist() == [20, 5]


def test_with_unknown_items():
    log = sessions.index_sessions(LOG, item_ids=[1, 4, 6], user_key="UserId", keep_session_ids=True)
    assert log.item_ids[log.items].tolist() == [1, 4, 6]
    assert (log.session_ids.tolist(), log.user_ids.tolist()) == (["s3", "s1"], ["ann", "bob"])
    alone = sessions.index_sessions(LOG, item_ids=[1, 4, 6], keep_session_ids=True)
    assert alone.session_ids.tolist() == ["s1", "s3"] and alone.user_offsets is None


def test_steps_of_users():
    """Every event of a user but the first is a target; a border resets the state if asked to."""
    log = sessions.index_sessions(LOG, user_key="UserId")
    for border, expected in (("carry", [0, 0, 1]), ("reset", [0, 1, 1])):
        of_border = dataclasses.replace(log, cut=sequences.of_log(log, border))
        order = schedule.training_order(of_border, time_sort=True)
        assert order.tolist() == [1, 0]  # bob was first
        blocks = list(schedule.schedule_blocks(of_border, order, 1, 10))
        (block,) = blocks
        ids = log.item_ids
        assert ids[block.inputs[:, 0]].tolist() == [7, 2, 3, 5, 1]
        assert ids[block.targets[:, 0]].tolist() == [2, 6, 5, 1, 4]
        of_bob = [1, 1] if border == "reset" else [0, 1]
        assert block.ends[:, 0].tolist() == [*of_bob, *expected]
        assert block.begins.tolist() == [[0, 2], [0, 0], [1, 0]]


def test_a_session_of_two_users():
    strange = LOG.assign(UserId=["ann", "bob", "ann", "bob", "ann", "bob", "bob"])
    with pytest.raises(InputError) as caught:
        sessions.index_sessions(strange, user_key="UserId", source="log.tsv")
    assert str(caught.value).startswith(
        "log.tsv: session 's3' belongs to two users, 'ann' and 'bob'; give each"
    )


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"user_key": "Uzer"}, r'no column "Uzer".*name the user column with -uk \(user_key\)'),
        ({"user_key": "Time"}, "session, item, time and user have to be four columns"),
        ({"time_key": "ItemId"}, "session, item and time have to be three columns"),
        ({"user_key": ["a"]}, "user_key: expected the name of a column"),
    ],
)
def test_wrong_columns(columns, said):
    with pytest.raises(InputError, match=said):
        sessions.index_sessions(LOG, **columns)


def test_missing_users():
    with pytest.raises(InputError, match='column "UserId" has 1 missing value, the first in row 2'):
        sessions.index_sessions(LOG.assign(UserId=[1, 2, None, 1, 1, 2, 2]), user_key="UserId")


@pytest.mark.parametrize("name", ["log.tsv", "log.csv.gz", "log.pickle", "log.parquet"])
def test_users_in_files(tmp_path, name):
    path = tmp_path / name
    write = {
        "tsv": lambda: LOG.to_csv(path, sep="\t", index=False),
        "gz": lambda: LOG.to_csv(path, index=False),
        "pickle": lambda: LOG.to_pickle(path),
        "parquet": lambda: LOG.to_parquet(path),
    }
    write[name.split(".")[-1]]()
    data = events.read_events(path, announce=False, user_key="UserId")
    assert list(data.columns) == ["SessionId", "ItemId", "Time", "UserId"]
    assert data["UserId"].tolist() == LOG["UserId"].tolist()
    assert "UserId" not in events.read_events(path, announce=False)


# ---------------------------------------------------------------------------- long ones


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    longest=st.integers(2, 9),
)
def test_windows_of_long_sequences(lengths, longest):
    stops = np.cumsum(lengths)
    whole = sequences.Sequences(stops - lengths, stops, np.arange(len(lengths)))
    found = sequences.cut(whole, longest, "windows")
    assert found.lengths.max() <= longest
    # each event but the first of a sequence is a target once
    targets = [e for a, b in zip(found.firsts, found.stops) for e in range(a + 1, b)]
    expected = [e for a, b in zip(whole.firsts, whole.stops) for e in range(a + 1, b)]
    assert targets == expected
    assert sorted(set(found.start_times)) == list(range(len(lengths)))
    last = sequences.cut(whole, longest, "last")
    assert last.stops.tolist() == whole.stops.tolist()
    assert last.lengths.tolist() == [min(n, longest) for n in lengths]
    assert sequences.cut(whole, 0, "windows") is whole


def test_training_on_windows(monkeypatch):
    """The steps of a training are those of the windows."""
    from gru4rec import GRU4Rec
    from gru4rec_toolkit.model.training import Training

    rng = np.random.default_rng(0)
    log = pd.DataFrame({"SessionId": np.repeat(np.arange(6), 40), "Time": np.arange(240)})
    log["ItemId"] = rng.integers(0, 20, 240)
    seen, run_block = [], Training.run_block

    def noting(self, block, *rest):
        seen.append(block)
        return run_block(self, block, *rest)

    monkeypatch.setattr(Training, "run_block", noting)
    for how, n_targets, n_ends in (("windows", 6 * 39, 6 * 5), ("last", 6 * 8, 6)):
        seen.clear()
        gru = GRU4Rec(layers=[4], batch_size=2, n_sample=4, n_epochs=1)
        gru.set_params(max_sequence=9, long_sequences=how)
        gru.fit(log)
        assert sum(block.targets.size for block in seen) == n_targets
        assert sum(int(block.ends.sum()) for block in seen) == n_ends
        assert gru.support.sum() == 240
