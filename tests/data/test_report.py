"""The checker of click logs says what it should, and nothing about a log without faults."""

from __future__ import annotations

import random
import re

import pandas as pd
import pytest
from helpers.cli import ROOT, TEST, TRAIN, complaint, files_in, python, run_py, succeeds

from gru4rec_toolkit.data import report

DAY = 86_400
FIRST = 1_400_000_000

REPORT = "gru4rec_toolkit.data.report"


def good_log(n_sessions=200, start=FIRST, first_id=1, seed=1):
    """Sessions without any fault: sorted, short, no ties, no repeats, no rare items."""
    rng = random.Random(seed)
    rows = []
    for session in range(first_id, first_id + n_sessions):
        time, item = start + 60 * (session - first_id), 0
        for _ in range(rng.randint(2, 6)):
            item = rng.choice([i for i in range(20) if i != item])
            rows.append((session, item, time))
            time += rng.randint(1, 600)
    return pd.DataFrame(rows, columns=["SessionId", "ItemId", "Time"])


def checked(tmp_path, capsys, train, *tests, ticks=1):
    """The findings on logs, written to files first."""
    paths = []
    for i, log in enumerate((train, *tests)):
        paths.append(str(tmp_path / f"{i}.tsv"))
        log.assign(Time=log["Time"] * ticks).to_csv(paths[-1], sep="\t", index=False)
    report.report(paths[0], paths[1:])
    *lines, last = capsys.readouterr().out.splitlines()
    found = [line for line in lines if line.startswith(("warning: ", "note: "))]
    counts = [sum(line.startswith(kind) for line in found) for kind in ("warning", "note")]
    assert last == "{} warning{}, {} note{}".format(
        counts[0], "s" * (counts[0] != 1), counts[1], "s" * (counts[1] != 1)
    )
    return found


def test_a_log_without_faults(tmp_path, capsys):
    later = good_log(100, start=FIRST + 2 * DAY, first_id=1000, seed=2)
    assert checked(tmp_path, capsys, good_log(), later) == []


@pytest.mark.parametrize(
    "ticks, unit",
    [(1, "seconds"), (1000, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")],
)
def test_what_the_data_looks_like(tmp_path, capsys, ticks, unit):
    log = good_log()
    log["Time"] *= ticks
    path = tmp_path / "a.tsv"
    log.to_csv(path, sep="\t", index=False)
    report.report(str(path))
    out = capsys.readouterr().out
    lengths, support = log.groupby("SessionId").size(), log.groupby("ItemId").size()
    assert f"{path}: {len(log)} events, 200 sessions, 20 items\n" in out
    assert f"times: 2014-05-13 16:53 to 2014-05-13 {20}" in out and f"in {unit}\n" in out
    assert f"sessions: {lengths.mean():.2f} events on average, median " in out
    assert f"longest {lengths.max()}\n" in out and f"most {support.max()}\n" in out


def unsorted(log):
    return log[::-1]


def tied(log):
    log.loc[log["SessionId"] == 7, "Time"] = FIRST
    return log


def duplicated(log):
    return pd.concat([log[:3], log]).sort_values(["SessionId", "Time"])


def repeated(log):
    log.loc[log["SessionId"] == 7, "ItemId"] = 3
    return log


def spanning(log):
    log.loc[log.index[-1], "Time"] += 3 * DAY
    return log


def with_rare_item(log):
    log.loc[50, "ItemId"] = 999
    return log


def with_short_session(log):
    return pd.concat([log, pd.DataFrame({"SessionId": [900], "ItemId": 1, "Time": FIRST})])


def of_ratings(log):
    rows = [(user, item, FIRST + 60 * item) for user in range(50) for item in range(30)]
    return pd.DataFrame(rows, columns=log.columns)


def of_single_events(log):
    return log.assign(SessionId=range(len(log)))


@pytest.mark.parametrize(
    "fault, expected",
    [
        (unsorted, "note: the rows are not sorted by session and time, .*; sort"),
        (
            tied,
            r"warning: \d events? \(.*%\) at the time of another event of their session, .*: use",
        ),
        (duplicated, r"warning: 3 events \(0\.4%\) with the session, item and time .*: drop"),
        (repeated, r"note: \d events? \(.*%\) on the item of the event before: .* drops"),
        (
            spanning,
            r"warning: 1 session \(0\.5%\) of more than a day, the longest \(200\) of 3\.0 days",
        ),
        (with_rare_item, r"warning: 1 item \(4\.8%\) with one event: .*; drop"),
        (with_short_session, r"note: 1 session \(0\.5%\) of one event: .*; drop them"),
        (
            of_ratings,
            r"warning: most events .* 20 or more, of which 50 sessions \(100\.0%\) have no",
        ),
        (of_single_events, "warning: all sessions have one event only, .*-sk"),
    ],
)
@pytest.mark.parametrize("ticks", [1, 1000])
def test_each_fault_is_the_only_finding(tmp_path, capsys, fault, expected, ticks):
    (found,) = checked(tmp_path, capsys, fault(good_log()), ticks=ticks)
    assert re.match(expected, found), found


def test_times_that_are_no_dates(tmp_path, capsys):
    log = good_log()
    log["Time"] -= FIRST
    log.to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    report.report(str(tmp_path / "a.tsv"))
    assert "no dates but an order" in capsys.readouterr().out


def test_long_sessions_that_come_back_to_items_are_no_ratings(tmp_path, capsys):
    rows = [(user, i % 29, FIRST + 60 * i) for user in range(50) for i in range(30)]
    log = pd.DataFrame(rows, columns=["SessionId", "ItemId", "Time"])
    assert checked(tmp_path, capsys, log) == []


LATE = {"start": FIRST + 2 * DAY, "first_id": 1000, "seed": 2}


@pytest.mark.parametrize(
    "test, expected",
    [
        ({**LATE, "start": FIRST}, [r"warning: \d+ test sessions .* starting before .*: .* split"]),
        (
            {**LATE, "first_id": 101},
            [r"warning: 100 test sessions \(100\.0%\) with the id of .*leave"],
        ),
        (
            {"first_id": 1000, "start": FIRST, "seed": 1},
            [
                "warning: .* starting before",
                r"warning: 100 test sessions .* items and times of .*leave",
            ],
        ),
    ],
)
def test_train_and_test_that_do_not_go_together(tmp_path, capsys, test, expected):
    found = checked(tmp_path, capsys, good_log(), good_log(100, **test))
    assert len(found) == len(expected), found
    for line, pattern in zip(found, expected):
        assert re.match(pattern, line), line


def test_times_in_another_unit(tmp_path, capsys):
    test = good_log(100, **LATE)
    (found,) = checked(tmp_path, capsys, good_log(), test.assign(Time=test["Time"] * 1000))
    assert re.match("warning: times seem to be in milliseconds, .* in seconds: use one unit", found)


def test_test_items(tmp_path, capsys):
    test = good_log(100, **LATE)
    (found,) = checked(tmp_path, capsys, good_log(), test.assign(ItemId=test["ItemId"] + 500))
    assert found.startswith("warning: no test event is on an item of the training data")
    test.loc[:4, "ItemId"] = [500, 501, 500, 501, 502]
    (found,) = checked(tmp_path, capsys, good_log(), test)
    assert re.match(r"note: 5 test events \(.*%\) on items that the training data lacks", found)
    strings = test.assign(ItemId="i" + test["ItemId"].astype(str))
    train = good_log()
    train["ItemId"] = "i" + train["ItemId"].astype(str)
    assert checked(tmp_path, capsys, train, strings) == [found]


# --- from the shell -------------------------------------------------------------------------------


def test_the_module_and_run_py_say_the_same(tmp_path):
    before = files_in(tmp_path)
    one = succeeds(run_py(TRAIN, "--check", "-t", TEST, cwd=tmp_path))
    two = succeeds(
        python("-m", REPORT, TRAIN, "-t", TEST, cwd=tmp_path, PYTHONPATH=str(TRAIN.parents[2]))
    )
    assert one.out == two.out and f"{TRAIN}: " in one.out and f"{TEST}: " in one.out
    assert "Traceback" not in one.err + two.err
    assert files_in(tmp_path) == before


def test_columns_can_be_named(tmp_path):
    log = good_log().rename(columns={"SessionId": "s", "ItemId": "i", "Time": "t"})
    log.to_csv(tmp_path / "a.csv", index=False)
    done = succeeds(run_py("a.csv", "--check", "-sk", "s", "-ik", "i", "-tk", "t", cwd=tmp_path))
    assert done.lines[-1] == "0 warnings, 0 notes"


def test_check_goes_without_parameters_and_without_training(tmp_path):
    done = run_py(TRAIN, "--check", "-ps", "layers=1", cwd=tmp_path)
    assert "exclude each other" in complaint(done)
    assert "--check" in complaint(run_py(TRAIN, "--check", "-s", "model", cwd=tmp_path))
    assert "--check" in run_py(TRAIN, cwd=tmp_path).err


def test_files_that_cannot_be_used(tmp_path):
    root = str(TRAIN.parents[2])
    message = complaint(python("-m", REPORT, "none.tsv", cwd=tmp_path, PYTHONPATH=root))
    assert message.startswith("none.tsv: there is no such file")
    assert '"x"' in complaint(run_py(TRAIN, "--check", "-sk", "x", cwd=tmp_path))


def test_users(tmp_path):
    log = pd.DataFrame(
        {"u": [7, 7, 7, 8], "SessionId": [1, 1, 2, 3], "ItemId": [1, 2, 1, 1], "Time": [1, 2, 3, 4]}
    )
    log.to_csv(tmp_path / "log.csv", index=False)
    said = "  users: 2; 1.50 sessions on average, most 2; 2.00 events on average, most 3"
    options = ("log.csv", "-uk", "u")
    done = succeeds(run_py(*options, "--check", cwd=tmp_path))
    assert done.lines[4] == said
    other = succeeds(python("-m", REPORT, *options, cwd=tmp_path, PYTHONPATH=str(ROOT)))
    assert other.out == done.out
    log.assign(SessionId=1).to_csv(tmp_path / "log.csv", index=False)
    message = complaint(run_py(*options, "--check", cwd=tmp_path))
    assert message.startswith("log.csv: session 1 belongs to two users, 7 and 8; ")
