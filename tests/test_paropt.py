"""Searches from the command line: real processes, killed, resumed, parallel, on several storages.

Most of them train a stub (see searches.py); one search trains real models.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import pytest
from helpers.cli import (
    ROOT,
    TEST,
    TRAIN,
    UNCOVERED,
    complaint,
    environment,
    files_in,
    python,
    run_py,
    succeeds,
)
from helpers.searches import Folder, is_running, kill, states, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import TrialState

import paropt
from gru4rec_toolkit import parameters
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.search import methods, report
from gru4rec_toolkit.search.space import SearchParameter
from gru4rec_toolkit.search.storage import check_storage, open_storage
from gru4rec_toolkit.search.trial import read_epoch, read_metric
from gru4rec_toolkit.search.undertaker import (
    MOST_RETRIES,
    Undertaker,
    is_dead,
    queue_again,
    this_worker,
)

SLOW = "time.sleep(0.3)"
# Optuna says so of Study.ask, which tests use where a search uses Study.optimize
ASKING = "ignore:Heartbeat of storage is supposed to be used with Study.optimize"


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "folder")


def suggestions(rows):
    return [(row["layers"], row["learning_rate"]) for row in rows]


def children(process):
    """The trials' processes of a search that runs."""
    folder = f"/proc/{process.pid}/task"
    pids = []
    for task in os.listdir(folder):
        with open(f"{folder}/{task}/children", encoding="ascii") as file:
            pids += map(int, file.read().split())
    return pids


def in_trial(folder, process, done):
    """Wait until the trial after `done` finished ones trains; returns its process id."""

    def trains():
        rows = folder.results()
        logs = sorted((folder.path / "results" / "logs").glob("*.log"))
        return (
            sum(row["state"] == "COMPLETE" for row in rows) == done
            and len(logs) > len([row for row in rows if row["state"] != "RUNNING"])
            and "Started training" in logs[-1].read_text()
            and children(process)
        )

    wait_until(trains)
    (pid,) = children(process)
    return pid


# --- the main job ---------------------------------------------------------------------------------

REAL = "loss=cross-entropy,final_act=softmax,constrained_embedding=True,n_epochs=2,n_sample=64"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A search that trains, with plots."""
    folder = Folder(tmp_path_factory.mktemp("real") / "folder")
    options = ("-g", "gru4rec", "-fm", 1, 5, "-m", 5, "-pm", "mrr", "--plots", "plots")
    done = python(
        *folder.command(*options, n_trials=2, fixed=REAL), "--pruner", "median", cwd=folder.path
    )
    return folder, succeeds(done)


def test_a_search_that_trains(real):
    folder, done = real
    rows = folder.results()
    assert [row["state"] for row in rows] == ["COMPLETE", "COMPLETE"]
    best = max(rows, key=lambda row: float(row["mrr@5"]))
    # the final training is that of the best trial once more
    at_1, at_5 = done.metrics[-2:]
    assert at_1.startswith("Recall@1: ")
    assert f"{float(best['mrr@5']):.6f}" == at_5.split()[-1]
    assert done.lines[-1] == at_5


def test_trials_report_every_epoch(real):
    folder, _ = real
    for trial in folder.study().get_trials():
        assert set(trial.intermediate_values) == {1, 2}
        assert trial.intermediate_values[2] == pytest.approx(trial.value, abs=1e-6)


def test_the_best_parameters_are_a_parameter_file(real):
    folder, _ = real
    best = folder.study().best_trial
    settings = parameters.convert(
        parameters.read_file(str(folder.path / "results" / "best_parameters.py"))
    )
    assert settings["layers"] == [best.params["layers"]]
    assert settings["loss"] == "cross-entropy" and settings["constrained_embedding"] is True
    done = run_py(
        *(TRAIN, "-pf", "results/best_parameters.py", "-t", TEST, "-m", 5), cwd=folder.path
    )
    assert done.metrics[0].split()[-1] == f"{best.value:.6f}"


def test_the_plots_are_images(real):
    folder, done = real
    names = {"optimization_history", "param_importances", "slice", "parallel_coordinate"}
    drawn = {path.stem: path.read_bytes() for path in (folder.path / "plots").iterdir()}
    told = set(re.findall(r"^Plot(?: not drawn)?: plots/(\w+)\.png", done.out, re.M))
    assert told == names and {"optimization_history", "slice"} <= set(drawn) <= names
    assert all(image.startswith(b"\x89PNG") and len(image) > 5000 for image in drawn.values())


def test_what_is_printed(folder):
    done = succeeds(folder.search(n_trials=2, fixed="n_epochs=2,loss=top1"))
    out = done.out
    assert re.search(r"^PARAMETER +TYPE +RANGE +STEP +SCALE$", out, re.M)
    assert re.search(r"^layers +int +8 \.\. 40 +8 +UNIFORM$", out, re.M)
    assert re.search(r"^learning_rate +float +0\.01 \.\. 0\.25 +0\.03 +UNIFORM$", out, re.M)
    assert re.search(r"^loss +top1$", out, re.M)
    assert re.search(r"^\[trial 0\] Started training$", out, re.M)
    assert re.search(r"^\[trial 1\] PRIMARY METRIC: \S+$", out, re.M)
    assert re.search(r"^TRIALS 2 of 2 done \(0 pruned\), 0 failed, 0 running$", out, re.M)
    best = max(folder.results(), key=lambda row: float(row["recall@20"]))
    table = rf"^1 +{best['trial']} +{float(best['recall@20']):.6f} +{best['layers']} +"
    assert re.findall(table, out, re.M)
    # Optuna's log
    assert "Trial 0 finished with value" in done.err and "finished with value" not in out
    logs = folder.path / "results" / "logs"
    assert [path.name for path in sorted(logs.iterdir())] == ["trial_0000.log", "trial_0001.log"]
    assert "PRIMARY METRIC" in (logs / "trial_0001.log").read_text()


def test_trainings_get_what_they_need(folder):
    folder.stub("print('FLAGS', os.environ['THEANO_FLAGS'], sys.argv[1:])")
    log = folder.path / "results" / "logs" / "trial_0000.log"
    data = TRAIN.read_text().replace("SessionId", "visit").replace("ItemId", "page")
    (folder.path / "data.tsv").write_text(data)
    command = folder.command("-sk", "visit", "-ik", "page", "-e", "median", "-tf", "floatX=float32")
    command = ["data.tsv" if arg in (str(TRAIN), str(TEST)) else arg for arg in command]
    command[command.index("-nt") + 1] = "1"
    succeeds(python(*command, cwd=folder.path, **folder.env(), THEANO_FLAGS="mode=FAST_RUN"))
    told = log.read_text()
    assert "FLAGS mode=FAST_RUN,floatX=float32 " in told
    assert "'--session_key', 'visit', '--item_key', 'page'" in told and "'-e', 'median'" in told
    settings = parameters.read_file(str(folder.path / "results" / "best_parameters.py"))
    assert settings["session_key"] == "visit" and settings["item_key"] == "page"


# --- studies go on --------------------------------------------------------------------------------


def test_the_same_seed_repeats_the_suggestions_also_after_a_break(folder, tmp_path):
    succeeds(folder.search(n_trials=6))
    whole = folder.results()
    assert len(set(suggestions(whole))) > 3
    other = Folder(tmp_path / "other")
    succeeds(other.search(n_trials=2))
    first = other.results()
    succeeds(other.search(n_trials=6))
    assert suggestions(other.results()) == suggestions(whole)
    assert other.results()[:2] == first
    third = Folder(tmp_path / "third")
    succeeds(third.search("--seed", 7, n_trials=2))
    assert suggestions(third.results()) != suggestions(first)


def test_a_finished_study_trains_the_best_again_and_nothing_else(folder):
    succeeds(folder.search(n_trials=2))
    before = folder.results()
    done = succeeds(folder.search("-fm", 1, 5, n_trials=2))
    assert folder.results() == before
    assert "[trial" not in done.out and len(done.metrics) == 2


def test_a_killed_search_goes_on(folder):
    folder.stub(SLOW)
    with folder.background(n_trials=4) as process:
        trial = in_trial(folder, process, done=2)
        kill(process.pid)
        process.wait()
        wait_until(lambda: not is_running(trial), 10)
    succeeds(folder.search(n_trials=4))
    rows = folder.results()
    assert states(rows) == {"COMPLETE": 4, "FAIL": 1}
    killed, again = rows[2], rows[3]
    assert killed["state"] == "FAIL" and "was killed" in killed["reason"]
    assert (folder.path / "results" / killed["log"]).exists()
    assert again["retry_of"] == "2" and suggestions([killed]) == suggestions([again])
    # what would have been tried without the break
    other = Folder(folder.path.parent / "other")
    succeeds(other.search(n_trials=4))
    good = [row for row in rows if row["state"] == "COMPLETE"]
    assert suggestions(good) == suggestions(other.results())


def test_a_killed_trial_is_replaced(folder):
    folder.stub(SLOW)
    with folder.background(n_trials=3) as process:
        kill(in_trial(folder, process, done=1))
        assert process.wait(60) == 0
    rows = folder.results()
    assert states(rows) == {"COMPLETE": 3, "FAIL": 1}
    assert rows[1]["state"] == "FAIL" and "SIGKILL" in rows[1]["reason"]


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGHUP, 129, "ended by SIGHUP"),
    ],
)
def test_an_interrupted_search_says_so_and_goes_on(folder, number, code, said):
    folder.stub(SLOW)
    with folder.background(n_trials=2) as process:
        trial = in_trial(folder, process, done=1)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.splitlines()[-1] == said and "Traceback" not in err
    assert not is_running(trial)
    assert states(folder.results()) == {"COMPLETE": 1, "FAIL": 1}
    assert folder.results()[1]["reason"] == "interrupted"
    succeeds(folder.search(n_trials=2))
    assert states(folder.results()) == {"COMPLETE": 2, "FAIL": 1}


def test_nohup(folder):
    folder.stub(SLOW)
    process = subprocess.Popen(
        ["nohup", sys.executable, *folder.command(n_trials=2)],
        cwd=folder.path,
        env=environment(**folder.env()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        in_trial(folder, process, done=1)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert states(folder.results()) == {"COMPLETE": 2}


def test_a_half_line_of_a_killed_writer_does_no_harm(folder):
    succeeds(folder.search(n_trials=1))
    with open(folder.path / "results" / "study.journal", "ab") as file:
        file.write(b'{"op_code":4,"worker_id":"abc')
    succeeds(folder.search(n_trials=2))
    assert states(folder.results()) == {"COMPLETE": 2}
    assert len(folder.study().trials) == 2


# --- storages of somebody else --------------------------------------------------------------------

RECORD = b'{"op_code":0,"worker_id":"w","study_name":"s","directions":[2]}\n'


def sqlite_file(path, *tables):
    with contextlib.closing(sqlite3.connect(path)) as database:
        for table in tables:
            database.execute(f"create table {table} (x)")
        database.commit()


FOREIGN = {
    "text": (b'{"layers": 100}', "not a journal of Optuna, and nothing was written"),
    "lines": (b'{"layers": 100}\n{"layers": 2', "not a journal of Optuna"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0\0\0abc", "not a journal of Optuna"),
    "a record of another program": (b'{"op_code":1}', "line 1: not a record"),
    "begun record": (b'{"op_', "not a journal of Optuna"),
    "half of something": (RECORD + b'{"layers":1', "line 2: not a record"),
    "garbled line": (RECORD + b"garbled\n" + RECORD, "line 2: not a record"),
    "garbled last line": (RECORD + b"garbled\n", "line 2: not a record"),
    "zeros after a power failure": (RECORD + b"\0" * 4096, "line 2: not a record"),
    "brackets": (RECORD + b'{"op_code":' + b"[" * 100_000 + b"\n", "line 2: not a record"),
    "digits": (RECORD + b'{"op_code":' + b"1" * 5000 + b"}\n", "line 2: not a record"),
    "newer Optuna": (RECORD + b'{"op_code":77,"worker_id":"w"}\n', "line 2: .*newer Optuna"),
    "no trial": (
        RECORD + b'{"op_code":4,"worker_id":"w","study_id":0,"datetime_start":"x"}\n',
        "line 2: a record that Optuna cannot use .*ValueError",
    ),
    "metric a text": (
        RECORD + b'{"op_code":6,"worker_id":"w","trial_id":0,"state":1,"values":["x"]}\n',
        "line 2: not a record",
    ),
}


@pytest.mark.parametrize("content, words", FOREIGN.values(), ids=FOREIGN)
def test_no_file_of_somebody_else_is_written_to(tmp_path, content, words):
    path = tmp_path / "best.json"
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(InputError, match=words) as caught:
            storage = open_storage(str(path), 60)
            storage.create_new_study([StudyDirection.MAXIMIZE], "mine")
        assert "best.json" in str(caught.value) and "\n" not in str(caught.value)
    assert files_in(tmp_path) == {"best.json": content}


@pytest.mark.parametrize("length", range(1, len(RECORD)))
def test_only_half_records_are_removed(tmp_path, length):
    path = tmp_path / "study.journal"
    path.write_bytes(RECORD + RECORD[:length])
    storage = open_storage(str(path), 60)
    storage.create_new_study([StudyDirection.MAXIMIZE], "mine")
    first, second = path.read_bytes().splitlines(keepends=True)
    assert first == RECORD and json.loads(second)["study_name"] == "mine"


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_journals(data):
    """Each opens and takes records, or is refused and left alone."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "study.journal"
        storage = open_storage(str(path), 60)
        study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
        study.add_trial(optuna.create_trial(value=0.5, user_attrs={"log": "x"}))
        study.enqueue_trial({"layers": 8})
        lines = path.read_bytes().splitlines(keepends=True)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(lines) - 1))
            kind = data.draw(st.sampled_from(["value", "byte", "gone", "twice", "cut", "other"]))
            if kind == "value":
                with contextlib.suppress(ValueError, RecursionError):
                    record = json.loads(lines[at])
                    if not isinstance(record, dict) or not record:
                        continue
                    key = data.draw(st.sampled_from(sorted(record)))
                    record[key] = data.draw(
                        st.sampled_from([None, -1, 7, 1e308, "", "x", [], [[]], {}, {"a": 1}])
                    )
                    text = json.dumps(record, separators=(",", ":"))
                    lines[at] = text.encode() + b"\n"
            elif kind == "byte":
                byte = data.draw(st.integers(0, len(lines[at]) - 1))
                changed = bytearray(lines[at])
                changed[byte] = data.draw(st.integers(0, 255))
                lines[at] = bytes(changed)
            elif kind == "gone":
                lines[at] = b"\n"
            elif kind == "twice":
                lines.insert(at, lines[at])
            elif kind == "cut":
                lines[at] = lines[at][: -data.draw(st.integers(1, 5))] or b"x"
            else:
                lines[at] = data.draw(st.sampled_from([b"[]\n", b"[" * 9999, b"\0\n", b"{}\n"]))
        content = b"".join(lines)
        path.write_bytes(content)
        try:
            storage = open_storage(str(path), 60)
            storage.create_new_study([StudyDirection.MAXIMIZE], "another")
        except InputError as err:
            assert "study.journal" in str(err) and "\n" not in str(err)
            assert path.read_bytes() == content
        else:
            whole = content[: content.rfind(b"\n") + 1]
            assert path.read_bytes().startswith(whole) and b'"another"' in path.read_bytes()


def test_things_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, words in (("pipe", "not a regular file"), ("folder", "a directory")):
        for storage in (tmp_path / name, f"sqlite:///{tmp_path / name}"):
            with pytest.raises(InputError, match=words):
                check_storage(str(storage))
    with pytest.raises(InputError, match="not a regular file"):
        check_storage("/dev/zero")


def test_a_journal_behind_a_link_has_one_lock(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a" / "study.journal")
    storage = open_storage(str(tmp_path / "link"), 60)
    storage._backend._lock.acquire()
    assert [p.name for p in (tmp_path / "a").iterdir() if p.is_symlink()] == ["study.journal.lock"]
    storage._backend._lock.release()
    # the lock of a killed worker, in a directory that was moved: the link is not dangling
    storage._backend._lock.acquire()
    (tmp_path / "a").rename(tmp_path / "b")
    assert (tmp_path / "b" / "study.journal.lock").exists()


def test_a_file_in_the_place_of_the_lock_stays(tmp_path):
    (tmp_path / "x.lock").write_text("mine")
    storage = open_storage
    with pytest.raises(InputError, match="x.lock, the place of the journal's lock"):
        storage(str(tmp_path / "x"), 60).create_new_study([StudyDirection.MAXIMIZE], "s")
    assert (tmp_path / "x.lock").read_text() == "mine"


def test_databases_of_somebody_else(tmp_path):
    (tmp_path / "text.db").write_bytes(b"my notes")
    sqlite_file(tmp_path / "other.db", "customers", "studies")
    sqlite_file(tmp_path / "damaged.db", "x")
    with open(tmp_path / "damaged.db", "rb+") as file:
        file.seek(100)
        file.write(b"\xff" * 2000)
    (tmp_path / "empty.db").touch()
    before = files_in(tmp_path)
    for name, words in {
        "text.db": "is not an SQLite database, and nothing was written",
        "other.db": r"holds other tables \(customers\)",
        "damaged.db": "cannot be read",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            check_storage(f"sqlite:///{tmp_path / name}")
        assert name in str(caught.value)
    check_storage(f"sqlite:///{tmp_path / 'empty.db'}")
    check_storage(f"sqlite:///{tmp_path / 'new.db'}")
    with pytest.raises(InputError, match="in memory"):
        check_storage("sqlite://")
    assert files_in(tmp_path) == before


STORAGES = {"text": "notes.json", "SQLite": "sqlite:///notes.json", "other tables": "sqlite:///a.db"}


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_a_storage_of_somebody_else_is_refused(folder, storage):
    (folder.path / "notes.json").write_text('{"layers": 100}')
    sqlite_file(folder.path / "a.db", "mine")
    before = files_in(folder.path)
    message = complaint(folder.search("--storage", storage, "--plots", "plots"))
    assert storage in message and "nothing was written to it" in message
    # no empty directories either
    assert {k: v for k, v in files_in(folder.path).items() if "__pycache__" not in k} == before


def test_results_of_somebody_else_are_refused(folder):
    (folder.path / "mine" / "logs").mkdir(parents=True)
    (folder.path / "mine" / "results.tsv").write_text("year\tresult\n")
    message = complaint(folder.search("--results", "mine"))
    assert "mine/results.tsv: it exists and is not a search's table" in message
    assert (folder.path / "mine" / "results.tsv").read_text() == "year\tresult\n"
    (folder.path / "mine" / "results.tsv").unlink()
    (folder.path / "mine" / "best_parameters.py").write_text("x = 1\n")
    message = complaint(folder.search("--results", "mine"))
    assert "mine/best_parameters.py: it exists and is not " in message


def test_a_storage_that_is_edited_is_refused(folder):
    succeeds(folder.search(n_trials=1))
    path = folder.path / "results" / "study.journal"
    before = path.read_text()
    assert '"pid":' in before
    path.write_text(before.replace('"pid":', '"id":'))
    assert "trial 0 of study train_space has a worker that" in complaint(folder.search(n_trials=2))


def test_a_journal_that_is_deleted_under_a_search(folder):
    folder.stub(SLOW)
    with folder.background(n_trials=9) as process:
        in_trial(folder, process, done=1)
        (folder.path / "results" / "study.journal").unlink()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in err
    (error,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert "study.journal cannot be written: No such file" in error
    assert not (folder.path / "results" / "study.journal").exists()


def test_where_a_search_leaves_what(folder):
    command = folder.command(n_trials=1)
    place = command.index("--results")
    del command[place : place + 2]
    done = succeeds(python(*command, "--study", "..", cwd=folder.path, **folder.env()))
    assert "Study .. is kept in searches/_./study.journal" in done.lines
    assert "Results are written to searches/_." in done.lines
    assert (folder.path / "searches" / "_." / "results.tsv").exists()
    if not (ROOT / ".git").exists():
        return  # a copy of the files alone
    ignored = subprocess.run(
        ["git", "-C", str(ROOT), "check-ignore", "searches/x", "examples/searches/x"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ignored.stdout.split() == ["searches/x", "examples/searches/x"]


# --- failures -------------------------------------------------------------------------------------

FAILURES = {
    "NaN": ("self.learning_rate = float('nan')", "metric is nan"),
    "diverged": ("raise InputError('the loss became NaN')", "the loss became NaN"),
    "memory": ("raise MemoryError", "exit code 1: MemoryError"),
    "killed": ("os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    "crashed": ("os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
    "silent": ("os._exit(3)", "exit code 3"),
    "no metric": ("os._exit(0)", "no line `PRIMARY METRIC"),
}


def test_failures_have_a_reason_and_a_log(folder):
    actions = [action for action, _ in FAILURES.values()]
    folder.stub(f"""
        actions = {actions!r}
        log = os.readlink('/proc/self/fd/2')
        trial = int(log[-8:-4]) if 'trial' in log else 99
        if trial < len(actions): exec(actions[trial])
    """)
    options = ("--max_failures", 100)
    (folder.path / "results" / "logs").mkdir(parents=True)
    full = len(actions) + 1  # a log on a full disk
    (folder.path / "results" / "logs" / f"trial_{full:04d}.log").symlink_to("/dev/full")
    done = succeeds(folder.search(*options, n_trials=2))
    rows = folder.results()
    for row, (_, reason) in zip(rows, FAILURES.values()):
        assert row["state"] == "FAIL" and reason in row["reason"], row
        assert (folder.path / "results" / row["log"]).stat().st_size > 0
        assert row["recall@20"] == ""
    assert "No space left on device" in rows[full]["reason"]
    assert states(rows) == {"FAIL": len(FAILURES) + 1, "COMPLETE": 2}
    assert "Traceback" not in done.out + done.err
    assert "TRIAL 0 FAILED: the metric is nan" in done.out


def test_a_search_that_only_fails_ends(folder):
    folder.stub("raise InputError('no luck with this data')")
    done = folder.search("--max_failures", 3, n_trials=10)
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("error: 3 trials in a row failed")
    assert "no luck with this data" in done.err.splitlines()[-1]
    assert states(folder.results()) == {"FAIL": 3}


CHANGES = {
    "space": (("-opf", "other.json"), "-opf"),
    "fixed": (("-fp", "n_epochs=2"), "-fp"),
    "metric": (("-pm", "mrr"), "-m, -pm"),
    "length": (("-m", "5"), "-m, -pm"),
    "ties": (("-e", "median"), "-e"),
    "model": (("-g", "other.py"), "-g"),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = Folder(tmp_path_factory.mktemp("begun") / "folder")
    succeeds(folder.search("--study", "mine", n_trials=1))
    other = json.dumps({"name": "layers", "dtype": "int", "values": [8, 48], "step": 8})
    (folder.path / "other.json").write_text(other)
    return folder


@pytest.mark.parametrize("options, named", CHANGES.values(), ids=CHANGES)
def test_a_study_stays_what_it_is(begun, options, named):
    before = begun.results()
    message = complaint(begun.search("--study", "mine", *options, n_trials=2))
    assert f"study mine was begun with another {named}: " in message and "--study" in message
    assert begun.results() == before


def test_a_study_stays_with_its_data(begun):
    command = begun.command("--study", "mine", n_trials=2)
    command[1] = str(TEST)
    message = complaint(python(*command, cwd=begun.path, **begun.env()))
    assert "begun with another PATH: " in message and "SHA-256" in message


def test_a_study_of_somebody_else(folder):
    (folder.path / "results").mkdir()
    study = optuna.create_study(
        storage=f"sqlite:///{folder.path}/results/other.db", study_name="theirs"
    )
    study.add_trial(optuna.create_trial(value=1.0))
    options = ("--storage", "sqlite:///results/other.db", "--study", "theirs")
    assert "not of paropt.py" in complaint(folder.search(*options))


# --- pruning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_pruning(folder, pruner):
    done = succeeds(folder.search("--pruner", pruner, n_trials=12, fixed="n_epochs=4"))
    rows = folder.results()
    counts = states(rows)
    # pruned trials count
    assert counts["PRUNED"] >= 1 and sum(counts.values()) == 12
    assert f"12 of 12 done ({counts['PRUNED']} pruned)" in done.out
    for trial in folder.study().trials:
        last = max(trial.intermediate_values)
        if trial.state == TrialState.PRUNED:
            assert last < 4
            log = folder.path / "results" / trial.user_attrs["log"]
            assert "PRIMARY METRIC" not in log.read_text()
        else:
            assert last == 4
    best = folder.study().best_trial
    assert f"FINAL TRAINING with the parameters of trial {best.number}" in done.lines


def test_no_evaluation_in_between_without_a_pruner(folder):
    succeeds(folder.search(n_trials=1, fixed="n_epochs=3"))
    assert folder.study().trials[0].intermediate_values == {}
    assert "Epoch1 --> Recall" not in (folder.path / "results/logs/trial_0000.log").read_text()


# --- several at a time ----------------------------------------------------------------------------


def test_jobs_have_devices_and_share_the_threads(folder):
    folder.stub(
        "print('ON', os.environ['THEANO_FLAGS'], os.environ['OPENBLAS_NUM_THREADS'])\n" + SLOW
    )
    command = folder.command("--devices", "auto", "cpu", n_trials=6)
    env = {**folder.env(), "OPENBLAS_NUM_THREADS": "6", "THEANO_FLAGS": None}
    done = succeeds(python(*command, cwd=folder.path, **env))
    assert states(folder.results()) == {"COMPLETE": 6}
    trainings = done.out.split("FINAL TRAINING")[0]
    used = set(re.findall(r"\] ON (\S+) (\d+)", trainings))
    assert used == {("device=auto,device=auto", "3"), ("device=auto,device=cpu", "3")}
    trials = [t for t in folder.study().trials]
    overlaps = [
        a.datetime_start < b.datetime_complete and b.datetime_start < a.datetime_complete
        for a, b in itertools.combinations(trials, 2)
    ]
    assert sum(overlaps) >= 3


@pytest.mark.parametrize(
    "text, threads",
    [("7", 3), ("6,2", 3), ("\u00b2", 1), ("9" * 5000, 8)],
    ids=["number", "list", "no decimal digit", "long number"],
)
def test_threads_of_jobs(monkeypatch, text, threads):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", text)
    monkeypatch.setattr(paropt.machine, "available_cores", lambda: 2)
    assert paropt._threads(2) == threads


@pytest.mark.parametrize(("text", "threads"), [("", 16), ("64", 32), ("1000", 64)])
def test_threads_of_jobs_on_many_cores(monkeypatch, text, threads):
    """By itself a job takes no more than a training does; by name as many as there are."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", text)
    monkeypatch.setattr(paropt.machine, "available_cores", lambda: 64)
    monkeypatch.setattr(paropt.machine, "_quota", lambda: sys.maxsize)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert paropt._threads(2) == threads


def run_workers(folder, n, *options, n_trials):
    """Run several searches at once to their ends; returns what they printed."""
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(folder.background(*options, n_trials=n_trials)) for _ in range(n)
        ]
        outputs = []
        for worker in workers:
            out, err = worker.communicate(timeout=120)
            assert worker.returncode == 0, err
            outputs.append(out)
    return outputs


def test_workers_share_a_journal(folder):
    outputs = run_workers(folder, 3, n_trials=10)
    rows = folder.results()
    assert states(rows) == {"COMPLETE": 10}
    assert len({row["worker"] for row in rows}) > 1
    assert sum("FINAL TRAINING" in out for out in outputs) == 1
    numbers = [int(n) for out in outputs for n in re.findall(r"^TRIAL (\d+):", out, re.M)]
    assert sorted(numbers) == [int(row["trial"]) for row in rows]


SMALL_GRID = """{"name": "layers", "dtype": "int", "values": [8, 24], "step": 8}
{"name": "learning_rate", "dtype": "float", "values": [0.1, 0.3], "step": 0.2}
"""


def test_a_grid_is_searched_once(folder):
    (folder.path / "space.json").write_text(SMALL_GRID)
    done = succeeds(folder.search("--sampler", "grid", "--jobs", 2, n_trials=100))
    rows = folder.results()
    assert states(rows) == {"COMPLETE": 6}
    assert len(set(suggestions(rows))) == 6
    assert "FINAL TRAINING" in done.out


def test_a_grid_goes_on_after_a_kill(folder):
    (folder.path / "space.json").write_text(SMALL_GRID)
    folder.stub(SLOW)
    with folder.background("--sampler", "grid", n_trials=6) as process:
        in_trial(folder, process, done=2)
        kill(process.pid)
    succeeds(folder.search("--sampler", "grid", n_trials=6))
    good = [row for row in folder.results() if row["state"] == "COMPLETE"]
    assert len(good) == len(set(suggestions(good))) == 6


def test_a_failed_point_of_a_grid_does_not_keep_it_from_ending(folder):
    (folder.path / "space.json").write_text(SMALL_GRID)
    folder.stub("if self.layers == [16] and self.learning_rate > 0.2: raise MemoryError")
    succeeds(folder.search("--sampler", "grid", n_trials=100))
    assert states(folder.results()) == {"COMPLETE": 5, "FAIL": 1}


def test_sqlite(folder):
    options = ("--storage", "sqlite:///results/study.db", "--jobs", 2)
    succeeds(folder.search(*options, n_trials=3))
    succeeds(folder.search(*options, n_trials=5))
    assert states(folder.results()) == {"COMPLETE": 5}
    # as the dashboard opens it
    study = optuna.load_study(
        study_name="train_space", storage=f"sqlite:///{folder.path}/results/study.db"
    )
    assert len(study.trials) == 5
    database = sqlite3.connect(folder.path / "results" / "study.db")
    assert database.execute("select count(*) from trial_heartbeats").fetchone()[0] == 5
    database.close()


def test_a_full_disk(folder):
    """The study cannot be written any more; with space again it goes on as if nothing had been."""
    command = [sys.executable, *folder.command(n_trials=9)]
    limited = f"ulimit -f 8; exec {shlex.join(command)}"  # files of 8 KiB at most
    done = subprocess.run(
        ["bash", "-c", limited],
        cwd=folder.path,
        env=environment(**UNCOVERED, **folder.env()),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert re.search(
        r"^error: the study in results/study.journal cannot be written: File too large",
        done.stderr,
        re.M,
    )
    assert "Traceback" not in done.stderr
    assert (folder.path / "results" / "study.journal").read_bytes().endswith(b"\n")
    succeeds(folder.search(n_trials=9))
    assert states(folder.results())["COMPLETE"] == 9
    other = Folder(folder.path.parent / "other")
    succeeds(other.search(n_trials=9))
    good = [row for row in folder.results() if row["state"] == "COMPLETE"]
    assert suggestions(good) == suggestions(other.results())


# --- workers that die elsewhere -------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that the test moves."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def shared(tmp_path):
    """A study in a journal as two processes have it open."""
    path = str(tmp_path / "study.journal")

    def opened():
        storage = open_storage(path, heartbeat=10)
        study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
        return storage, study

    return opened


ELSEWHERE = {"host": "elsewhere", "machine": "another boot", "pid": 1, "start": 1}


@pytest.mark.filterwarnings(ASKING)
def test_a_stopped_heartbeat_is_noticed(shared, clock):
    theirs, their_study = shared()
    ours, our_study = shared()
    trial = their_study.ask()
    trial.set_user_attr("worker", ELSEWHERE)
    trial.set_user_attr("log", "trial_0000.log")
    value = trial.suggest_int("layers", 1, 1000)
    undertaker = Undertaker(our_study, ours)
    for _ in range(10):  # alive, whatever the clocks of the machines say
        theirs.record_heartbeat(trial._trial_id)
        undertaker.look()
        clock.now += 25
    assert [t.state.name for t in our_study.trials] == ["RUNNING"]
    undertaker.look()
    clock.now += 31
    undertaker.look()
    dead, queued = our_study.trials
    assert (dead.state.name, queued.state.name) == ("FAIL", "WAITING")
    assert queued.params == {"layers": value} and queued.user_attrs == {"retry_of": 0}
    # the worker that was only slow does not fail for it
    theirs.record_heartbeat(trial._trial_id)
    assert our_study.ask().number == 1


@pytest.mark.filterwarnings(ASKING)
def test_a_worker_that_died_before_it_noted_its_name(shared, clock):
    _, their_study = shared()
    ours, our_study = shared()
    their_study.ask()
    undertaker = Undertaker(our_study, ours)
    undertaker.look()
    assert our_study.trials[0].state == TrialState.RUNNING
    clock.now += 31
    undertaker.look()
    assert our_study.trials[0].state == TrialState.FAIL


@pytest.mark.filterwarnings(ASKING)
def test_trials_are_not_retried_for_ever(shared, clock):
    ours, study = shared()
    for _ in range(10):
        trial = study.ask()
        trial.set_user_attr("worker", {**this_worker(), "start": -1})
        Undertaker(study, ours).look()
    dead = {"FAIL"}
    assert {t.state.name for t in study.trials} <= dead | {"WAITING"}
    retries = [len(t.system_attrs.get("retry_history", [])) for t in study.trials]
    assert max(retries) == MOST_RETRIES


def test_a_worker_that_was_taken_for_dead_goes_on(folder):
    folder.stub(SLOW)
    with folder.background(n_trials=2) as process:
        in_trial(folder, process, done=0)
        storage = open_storage(str(folder.path / "results/study.journal"), 10)
        study = optuna.load_study(study_name="train_space", storage=storage)
        (trial,) = study.trials
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        queue_again(study, storage.get_trial(trial._trial_id))
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "TRIAL 0 came too late" in out and "Traceback" not in err
    rows = folder.results()
    assert states(rows) == {"FAIL": 1, "COMPLETE": 2}
    assert rows[1]["retry_of"] == "0" and suggestions(rows[:1]) == suggestions(rows[1:2])


@pytest.mark.filterwarnings(ASKING)
def test_living_workers_are_left_alone(shared):
    ours, study = shared()
    study.ask().set_user_attr("worker", this_worker())
    study.ask().set_user_attr("worker", ELSEWHERE)
    Undertaker(study, ours).look()
    assert [t.state.name for t in study.trials] == ["RUNNING", "RUNNING"]


# --- mistakes, before the first trial -------------------------------------------------------------

MISTAKES = {
    "no such data": (("nowhere.tsv",), r"nowhere\.tsv: no such file"),
    "a directory": ((".",), r"^\.: this is a directory; give the path of a file"),
    "format of no plots": (("--plots_format", "svg"), "--plots_format is about --plots; give"),
    "two lengths": (("-m", "5", "10"), "^-m: expected one value, got 5 10; see paropt.py -h"),
    "space missing": (("-opf", "nowhere.json"), r"nowhere\.json.*check the path"),
    "unknown fixed": (("-fp", "layer=5"), "unknown parameter 'layer'"),
    "fixed and searched": (("-fp", "layers=5"), "layers is fixed at .* and searched"),
    "contradiction": (("-fp", "loss=cross-entropy"), "needs final_act=softmax"),
    "key twice": (("-fp", "item_key=a", "-ik", "b"), "item_key is given twice"),
    "no trials": (("-nt", "0"), "-nt: expected 1 or more"),
    "no jobs": (("--jobs", "0"), "--jobs: expected 1 or more"),
    "length": (("-fm", "0"), "-fm: expected 1 or more"),
    "device": (("--devices", "gpu7"), "'gpu7' is not known"),
    "two devices": (("--devices", "cpu", "-tf", "device=cuda0"), "exclude each other"),
    "seed": (("--seed", "-1"), "--seed: expected"),
    "column": (("-ik", "Product"), "Product"),
    "storage": (("--storage", "postgres//x"), "--storage postgres//x"),
    "database": (("--storage", "nosuch://x/y"), "--storage nosuch://x/y: .*kind of .*sqlite"),
    "server": (("--storage", "postgresql://me:secret@127.0.0.1:1/x"), "me:\\*\\*\\*@.*check the"),
    "results": (("--results", "space.json"), "--results space.json"),
    "not a journal": (("--storage", "space.json"), "not a journal"),
    "grid": (("--sampler", "grid", "-opf", "line.json"), "momentum has none"),
    "many jobs": (("--jobs", "100000"), "--jobs: expected 1 to 1000"),
    "long heartbeat": (("--heartbeat", "9" * 20), "--heartbeat: expected 1 to 86400"),
    "long list": (("-m", "9" * 20), "-m: expected 1 to 2147483647"),
    "no name": (("--study", ""), "--study: expected a text"),
    "name of two lines": (("--study", "a\nb"), "--study: expected a name"),
    "name no text": (("--study", "a\udcff"), "--study: expected UTF-8"),
    "long name": (("--study", "x" * 513), "--study: expected a name"),
    "no results": (("--results", ""), "--results: expected a text"),
    "name too long for a file": (("--results", "x" * 300), "--results x.*File name too long"),
    "flags": (("-tf", 'floatX="float32'), "-tf: .*check its quotes"),
    "flag": (("-tf", "cuda0"), "-tf: 'cuda0' is not of the form name=value"),
    "device flag": (("-tf", "device=gpu7"), "-tf: device 'gpu7' is not known"),
    "flag that Theano refuses": (("-tf", "mode=x"), "THEANO_FLAGS=mode=x .*does not take .*'Mode'"),
    "no such GPU": (("-tf", "device=cuda7"), "device cuda7 .*cannot be opened"),
    "no such GPUs": (("--devices", "cpu", "cuda7"), "device cuda7 .*cannot be opened"),
    "storage a result": (("--storage", "results/results.tsv"), "the place of results"),
    "storage a log": (("--storage", "results/logs/x"), "the place of results"),
    "storage is data": (("--storage", str(TEST)), "not a journal"),
}


@pytest.mark.parametrize("options, words", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(folder, options, words):
    line = {"name": "momentum", "dtype": "float", "values": [0, 0.5]}
    (folder.path / "line.json").write_text(json.dumps(line))
    data = TEST.read_bytes()
    command = folder.command()
    if len(options) == 1:
        command[1] = options[0]
        options = ()
    message = complaint(python(*command, *options, cwd=folder.path, **folder.env()))
    assert re.search(words, message), message
    assert "secret" not in message
    assert not (folder.path / "results").exists() and not (folder.path / "searches").exists()
    assert TEST.read_bytes() == data


def test_options_are_needed(folder):
    done = python(ROOT / "paropt.py", TRAIN, TEST, cwd=folder.path)
    assert complaint(done) == "-opf/--optuna_parameter_file is missing; see paropt.py -h"


def test_packages_that_are_missing(monkeypatch):
    monkeypatch.setattr(methods.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="gp needs the package torch.*pip install torch"):
        methods.check_sampler("gp", [])
    for name in ("matplotlib", "optuna"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        report.check_plots("plots")
    arguments = [str(TRAIN), str(TEST), "-opf"]
    space = next(iter((ROOT / "paramspaces").iterdir()))
    with pytest.raises(InputError, match="pip install optuna"):
        paropt.parse_arguments([*arguments, str(space)])


def test_help_answers_at_once(tmp_path):
    done = succeeds(python("-X", "importtime", ROOT / "paropt.py", "-h", cwd=tmp_path))
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", done.err, re.M))
    assert "argparse" in imported
    assert not imported & {"numpy", "pandas", "theano", "optuna", "matplotlib"}
    options = "-g -tf -fp -opf -m -nt -fm -pm -e -ik -sk -tk --storage --study --jobs --sampler"
    assert set(options.split()) <= set(re.findall(r"--?\w+", done.out))
    assert files_in(tmp_path) == {}


# --- parts ----------------------------------------------------------------------------------------


def test_metric_lines():
    assert read_metric("PRIMARY METRIC: 0.25") == 0.25
    assert read_metric("the PRIMARY METRIC: 0.25") is None
    assert read_metric("PRIMARY METRIC: x") is None
    line = "Epoch12 --> Recall@20: 0.500000 MRR@20: 0.250000"
    assert read_epoch(line, "recall") == (12, 0.5)
    assert read_epoch(line, "mrr") == (12, 0.25)
    assert read_epoch("Epoch12 --> loss: 0.5", "mrr") is None


def test_reports_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results.tsv"
    old, new = (report.results_table([], [], name) for name in ("old", "new"))
    report.write_whole(path, old)

    def replace(source, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", replace)
        with pytest.raises(InputError, match=r"results.tsv: No space left"):
            report.write_whole(path, new)
    assert files_in(tmp_path) == {"results.tsv": old.encode()}
    report.write_whole(path, new)
    assert files_in(tmp_path) == {"results.tsv": new.encode()}
    with pytest.raises(InputError, match="nowhere"):
        report.write_whole(tmp_path / "nowhere" / "results.tsv", "x")


def test_parameter_files_say_what_was_set(tmp_path):
    path = tmp_path / "best.py"
    text = {"layers": "100/50", "time_sort": "False", "adapt": "None", "item_key": "it's \"x\""}
    path.write_text(report.paramfile(text, 'of "a" study \\ here'))
    settings = parameters.read_file(str(path))
    assert settings == parameters.convert(text)
    assert settings["layers"] == [100, 50] and settings["adapt"] is None


def test_workers_are_told_apart():
    worker = this_worker()
    assert not is_dead(worker)
    assert is_dead({**worker, "start": worker["start"] - 1})  # the pid came again
    assert not is_dead({**worker, "machine": "elsewhere", "start": -1})
    assert sys.platform != "linux" or worker["machine"]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_suggestions_follow_from_the_trials_number(sampler):
    space = [SearchParameter("layers", "int", (1, 10**6), 1, False, "here")]

    def tried(*runs):
        study = optuna.create_study()
        for n in runs:
            study.sampler = methods.make_sampler(sampler, 5, space)
            for _ in range(n):
                trial = study.ask()
                study.tell(trial, int(space[0].suggest(trial)) % 1000)
        return [t.params["layers"] for t in study.trials]

    assert tried(15) == tried(4, 9, 2)
    assert len(set(tried(15))) > 10


@pytest.mark.skipif(
    methods.importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
def test_gp(folder):
    succeeds(folder.search("--sampler", "gp", n_trials=12))
    assert states(folder.results()) == {"COMPLETE": 12}


def test_the_time_of_a_trial_is_recorded(folder):
    folder.stub(SLOW)
    before = time.time()
    succeeds(folder.search(n_trials=1))
    (row,) = folder.results()
    assert 0.3 < float(row["seconds"]) < time.time() - before


# --- files of the user ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["results/results.tsv", "results/best_parameters.py", "results/final.log"]
    + ["results/logs/trial_0000.log", "plots/slice.png"],
)
def test_files_of_another_kind_are_left_alone(folder, name):
    path = folder.path / name
    path.parent.mkdir(parents=True)
    path.write_text("trial\tstate\nmine\n")
    before = files_in(folder.path)
    message = complaint(folder.search("--plots", "plots", n_trials=1))
    assert name in message and "directory" in message
    now = files_in(folder.path)
    assert {path: now[path] for path in before} == before
    assert not any("journal" in path or "trial_0001" in path for path in now)


def test_a_report_does_not_replace_what_appeared_meanwhile(tmp_path):
    for name in (report.RESULTS, report.BEST):
        (tmp_path / name).write_text("mine")
        with pytest.raises(InputError, match=name):
            report.write_whole(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "mine"


def test_own_reports_are_known(tmp_path):
    report.check_files(tmp_path / "missing")
    heading = 'Best of 3 trials of study "a": trial 1, recall@20 0.5.'
    texts = {
        report.RESULTS: report.results_table([], [], "mrr@5"),
        report.BEST: report.paramfile({"layers": "16"}, heading),
    }
    for text in texts:
        report.write_whole(tmp_path / text, texts[text])
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "trial_0000.log").write_text("$ python run.py\n")
    (tmp_path / "logs" / "trial_0001.log").touch()  # another worker has just opened it
    report.check_files(tmp_path)
    for text in texts:
        report.write_whole(tmp_path / text, texts[text])


def test_the_same_plots_again(real):
    folder, _ = real
    report.check_plots(str(folder.path / "plots"))
    names = {path.stem for path in (folder.path / "plots").iterdir()}
    assert names and names <= set(report.PLOTS)


@pytest.mark.parametrize(
    "option", [("--jobs", 10**23), ("-m", 10**23), ("-fm", 5, 10**23), ("-nt", 10**23)]
)
def test_huge_numbers(folder, option):
    done = python(*folder.command(*option), cwd=folder.path)
    assert complaint(done).startswith(f"{option[0]}: expected 1 to ")


def test_closed_output(folder):
    code = "exec " + shlex.join([sys.executable, str(ROOT / "paropt.py"), "-h"]) + " >&-"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
