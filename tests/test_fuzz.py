"""`make fuzz`: damaged and made-up inputs end as what was read, or as one sentence."""

from __future__ import annotations

import gzip
import os
import random
import re
import signal
import sys
import time

import pandas as pd
import pytest
from helpers.cli import ROOT, python, succeeds
from helpers.event_files import HEADER, write

from gru4rec_toolkit.errors import InputError
from tools import fuzz, fuzz_events

PLAIN = pd.DataFrame({"SessionId": [3, 3, 1], "ItemId": [1, 2, 1], "Time": [1, 2, 3]})
NEEDS = {"journals": "optuna", "arrow": "pyarrow"}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("target", [name for name in fuzz.TARGETS if name != "checkpoints"])
def test_some_inputs_of_each_target(tmp_path, target, seed):
    """`make fuzz` reads more of them."""
    pytest.importorskip(NEEDS.get(target, "pandas"))
    counts = fuzz.run(target, 200, seed, tmp_path)
    assert set(counts) == {"read", "refused"}, [str(path) for path in tmp_path.iterdir()]


def test_some_checkpoints(tmp_path):
    """In a process of its own: it compiles a training, and forks."""
    done = succeeds(python(ROOT / "tools" / "fuzz.py", "-n", 60, "checkpoints", cwd=tmp_path))
    assert re.fullmatch(r"\| checkpoints \| 60 \| \d+ \| \d+ \| 0 \| \d+ \|", done.lines[-1])
    assert done.err == ""


@pytest.mark.parametrize("target", ["strings", "paramfiles", "spaces", "text", "pickles"])
def test_the_same_seed_gives_the_same_inputs(target):
    first, second = (fuzz.TARGETS[target].prepare(random.Random(1))[0] for _ in range(2))
    assert [next(first) for _ in range(30)] == [next(second) for _ in range(30)]


def test_the_sound_journal(tmp_path):
    """What is changed has to have all that a search records."""
    pytest.importorskip("optuna")
    from gru4rec_toolkit.search import storage, worker

    (tmp_path / "journal").write_text("\n".join(fuzz.sound_journal()) + "\n")
    opened = storage.open_storage(str(tmp_path / "journal"), 60)
    (study,) = opened.get_all_studies()
    trials = opened.get_all_trials(study._study_id)
    assert len(trials) == 3 and study.user_attrs == {worker.DESCRIPTION: {"-fp": {}}}
    for trial in trials:
        assert trial.params.keys() == {"learning_rate", "layers", "x"}
        assert trial.value == trial.params["learning_rate"] + trial.params["layers"] + 1
        assert trial.intermediate_values == {1: 0.5} and "worker" in trial.user_attrs


def test_the_shares_of_the_targets():
    """They are those of the table of the last run."""
    assert sum(target.share for target in fuzz.TARGETS.values()) == 100
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) \| (\d+) \| \d+ \| 0 \| \d+ \|$", text, re.M))
    assert rows == {name: str(1000 * target.share) for name, target in fuzz.TARGETS.items()}


def write_beside(path):
    (path.parent / "other").write_text("x")


def change(path):
    path.write_bytes(b"changed")


def write_here(path):
    with open("x", "w"):
        pass


def fail(err):
    raise err


TAKEN = []


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (lambda path: None, "read"),
        (lambda path: fail(InputError("a sentence")), "refused"),
        (lambda path: "wrong: values", "wrong"),
        (lambda path: fail(InputError("a\x1b" * 10)), "refused"),  # it is escaped
        (lambda path: {}["x"], "KeyError"),
        (lambda path: sys.exit(1), "SystemExit"),
        (lambda path: os.kill(os.getpid(), signal.SIGSEGV), "crash: status 11"),
        (lambda path: time.sleep(60), "too slow"),
        (lambda path: print("x", file=sys.stderr), "printed: b'x"),
        (lambda path: TAKEN.append(b"x" * (1 << 28)), "memory: 2"),
        (lambda path: bytearray(1 << 40), "MemoryError"),
        (write_beside, "something was written"),
        (write_here, "something was written"),
        (change, "something was written"),
    ],
)
def test_what_is_wrong_is_seen(tmp_path, monkeypatch, check, expected):
    monkeypatch.setattr(fuzz, "SECONDS", 2)
    monkeypatch.setattr(fuzz, "RESIDENT", 1 << 27)
    paths = [write(tmp_path / "a", "x"), write(tmp_path / "b", "x")]
    assert fuzz.read_all(paths, check)[0].startswith(expected)


def test_crashes_and_wrong_values_of_readers(tmp_path, monkeypatch):
    text = write(tmp_path / "a.tsv.gz", gzip.compress((HEADER + "3\t1\t1\n" * 3).encode()))
    assert fuzz.read_all([text], fuzz_events.check) == ["read"]
    ends = {
        "crash": lambda path, announce: os.kill(os.getpid(), signal.SIGKILL),
        "KeyError": lambda path, announce: {}["x"],
        "wrong": lambda path, announce: PLAIN,
    }
    for expected, reader in ends.items():
        monkeypatch.setattr(fuzz_events, "read_events", reader)
        (result,) = fuzz.read_all([text], fuzz_events.check)
        assert result.startswith(expected)


def test_inputs_that_end_badly_are_kept(tmp_path, monkeypatch, capsys):
    def prepare(rng):
        return iter([("txt", b"a"), ("txt", b"b"), ("txt", b"c")]), check

    def check(path):
        return "wrong: b" if path.read_bytes() == b"b" else None

    monkeypatch.setitem(fuzz.TARGETS, "made", fuzz.Target(1, prepare))
    assert fuzz.run("made", 3, 7, tmp_path) == {"read": 2, "wrong": 1}
    (kept,) = tmp_path.iterdir()
    assert kept.name == "made-7-1.txt" and kept.read_bytes() == b"b"
    assert capsys.readouterr().out == f"{kept}: wrong: b\n"
    with pytest.raises(SystemExit):
        fuzz.main(["-n", "3", "made"])
    assert "1 inputs that ended badly are in" in capsys.readouterr().out


def test_targets_that_are_none():
    with pytest.raises(InputError, match="expected targets of strings, paramfiles"):
        fuzz.main(["-n", "3", "cars"])
