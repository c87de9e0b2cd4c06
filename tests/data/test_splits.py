"""Leave-one-out and splits by time, in Python and on the command line."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from helpers.cli import complaint, files_in, python, succeeds
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec_toolkit.data import events, splits
from gru4rec_toolkit.errors import InputError


@st.composite
def logs(draw):
    n = draw(st.integers(1, 30))
    column = st.lists(st.integers(0, 5), min_size=n, max_size=n)
    return pd.DataFrame({"SessionId": draw(column), "ItemId": np.arange(n), "Time": draw(column)})


def parts_of(function, *arguments):
    try:
        return function(*arguments)
    except InputError as err:
        assert re.search("would be empty|^data: no (event is|session begins) ", str(err))
        return None


@settings(max_examples=150, deadline=None)
@given(log=logs(), n=st.integers(1, 4))
def test_last_events(log, n):
    expected = set()
    for _, session in log.sort_values("Time", kind="stable").groupby("SessionId"):
        if len(session) > n:
            expected |= set(session["ItemId"][-n:])
    found = parts_of(splits.last_events, log, n)
    if found is None:
        assert not expected
        return
    assert set(found[1]["ItemId"]) == expected
    pd.testing.assert_frame_equal(pd.concat(found).sort_index(), log)


@settings(max_examples=150, deadline=None)
@given(log=logs(), time=st.integers(0, 5))
def test_splits_at_a_time(log, time):
    starts = log.groupby("SessionId")["Time"].transform("min")
    for function, is_after in (
        (splits.events_from, log["Time"] >= time),
        (splits.sessions_from, starts >= time),
    ):
        found = parts_of(function, log, time)
        if found is None:
            assert is_after.all() or not is_after.any()
            continue
        assert found[1].index.tolist() == log.index[is_after].tolist()
        assert found[0].index.tolist() == log.index[~is_after].tolist()


def test_dates():
    log = pd.DataFrame(
        {"SessionId": [1, 1, 2, 2], "ItemId": list("abcd"),
         "Time": ["2024-01-01", "2024-01-02T10:00:00Z", "2024-01-02T12:00:00Z", "2024-01-05"]}
    )  # fmt: skip
    before, after = splits.events_from(log, "2024-01-02T11:00:00Z")
    assert (before["ItemId"].tolist(), after["ItemId"].tolist()) == (["a", "b"], ["c", "d"])
    for time in ("soon", None, True, float("nan")):
        with pytest.raises(InputError, match="time: expected a number or an ISO date"):
            splits.events_from(log, time)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_numbers_of_events(n):
    log = pd.DataFrame({"SessionId": [1, 1], "ItemId": [1, 2], "Time": [1, 2]})
    with pytest.raises(InputError, match="n: expected a number of events, 1 or more"):
        splits.last_events(log, n)


# ---------------------------------------------------------------------------- command line


LOG = pd.DataFrame(
    {
        "SessionId": [1, 1, 1, 2, 2, 3],
        "ItemId": ['a "quoted" one', "b", "c", "d", "e", "f"],
        "Time": [1, 2, 9, 4, 8, 9],
        "UserId": [7, 7, 7, 7, 7, 8],
    }
)


def split(*arguments, cwd):
    return python("-m", "gru4rec_toolkit.split", *arguments, cwd=cwd)


@pytest.fixture
def log(tmp_path, monkeypatch):
    from helpers.cli import ROOT

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    LOG.to_csv(tmp_path / "log.tsv", sep="\t", index=False, quoting=3, quotechar="'")
    LOG.assign(UserId=[7, 8, 7, 7, 7, 8]).to_csv(tmp_path / "two.tsv", sep="\t", index=False)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "expected", "n_sessions"),
    [
        (["--last", "1"], ["c", "e"], "2 sessions"),
        (["--last", "2", "-uk", "UserId"], ["c", "e"], "2 sessions"),
        (["--last", "1", "-uk", "UserId"], ["c"], "1 session"),
        (["--from", "8"], ["c", "e", "f"], "3 sessions"),
        (["--from", "1970-01-01T00:00:09Z"], ["c", "f"], "2 sessions"),
        (["--sessions-from", "4"], ["d", "e", "f"], "2 sessions"),
    ],
)
def test_files(log, options, expected, n_sessions):
    done = succeeds(split("log.tsv", "-o", "parts", *options, cwd=log))
    user_key = "UserId" if "-uk" in options else None
    before, after = (
        events.read_events(log / "parts" / f"{name}.tsv", announce=False, user_key=user_key)
        for name in ("before", "after")
    )
    assert sorted(after["ItemId"]) == expected
    assert sorted([*before["ItemId"], *after["ItemId"]]) == sorted(LOG["ItemId"])
    assert done.lines[-1] == f"parts/after.tsv: {len(expected)} events of {n_sessions}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["log.tsv", "-o", "parts"], "--last, --from or --sessions-from is needed; see python -m"),
        (["log.tsv", "-o", "parts", "--last", "9"], 'log.tsv: no value of column "SessionId" has '),
        (["log.tsv", "-o", "parts", "--from", "10"], "event is at 10 or later; the last is at 9"),
        (["log.tsv", "-o", "parts", "--from", "1"], " no event is before 1; the first is at 1"),
        (["log.tsv", "-o", "parts", "--sessions-from", "1"], "log.tsv: no session begins before 1"),
        (["log.tsv", "-o", "parts", "--last", "0"], "--last: expected a number of events, 1 or"),
        (["log.tsv", "-o", "parts", "--from", "soon"], "--from: expected a number or an ISO date"),
        (["log.tsv", "-o", "parts", "--last", "1", "-uk", "Time"], "have to be four columns"),
        (["two.tsv", "-o", "parts", "--last", "1", "-uk", "UserId"], "belongs to two users, 7 and"),
        (["none.tsv", "-o", "parts", "--last", "1"], "none.tsv: there is no such file"),
        (["log.tsv", "-o", "log.tsv", "--last", "1"], "-o log.tsv: "),
        (["log.tsv", "-o", "/dev/null/x", "--last", "1"], "-o /dev/null/x: "),
        (["log.tsv", "--last", "1"], "-o/--output is missing"),
    ],
)
def test_refusals(log, options, said):
    before = files_in(log)
    assert said in complaint(split(*options, cwd=log))
    assert files_in(log) == before


def test_files_are_replaced_if_asked_only(log):
    """A part of a split looks like anybody's log."""
    command = ["log.tsv", "-o", "parts", "--last"]
    succeeds(split(*command, "1", cwd=log))
    before = files_in(log)
    for name in ("before.tsv", "after.tsv"):
        said = complaint(split(*command, "2", cwd=log))
        assert f"parts/{name}: it exists; give another path, or --force " in said
        assert files_in(log) == before
        (log / "parts" / name).unlink()
        del before[f"parts/{name}"]
    succeeds(split(*command, "1", cwd=log))
    before = files_in(log)
    succeeds(split(*command, "2", "--force", cwd=log))
    assert files_in(log).keys() == before.keys() and files_in(log) != before


def test_ids_that_a_table_of_text_cannot_hold(log):
    pytest.importorskip("pyarrow")
    LOG.assign(ItemId=["a\tb", *LOG["ItemId"][1:]]).to_parquet(log / "log.parquet")
    before = files_in(log)
    said = complaint(split("log.parquet", "-o", "parts", "--last", "1", cwd=log))
    assert "log.parquet: an id holds a tab or the end of a line" in said
    assert {k: v for k, v in files_in(log).items() if k != "parts"} == before
