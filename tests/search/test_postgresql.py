"""A study in a PostgreSQL server that the test starts: four workers, one of them killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import optuna
import pytest
from helpers.searches import Folder, kill, states, wait_until

from gru4rec_toolkit.search import storage, undertaker

# Debian keeps the server's programs out of the PATH
PROGRAMS = [Path(p).parent for p in (shutil.which("initdb"), shutil.which("pg_ctl")) if p]
PROGRAMS += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
SERVER = next((p for p in PROGRAMS if (p / "initdb").exists() and (p / "pg_ctl").exists()), None)

pytestmark = pytest.mark.skipif(
    SERVER is None or not storage.find_spec("psycopg2"),
    reason="PostgreSQL is not installed (apt-get install postgresql; pip install psycopg2-binary)",
)


@pytest.fixture(scope="module")
def server():
    """URL of an empty database in a server of its own, which listens on a socket only."""
    # not pytest's directory, which is closed to the server's user; and a socket's path is short
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    as_user = []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]

    def program(name, *arguments):
        subprocess.run(
            [*as_user, SERVER / name, "-D", folder / "data", *arguments],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=120,
        )

    settings = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    try:
        program("initdb", "-A", "trust", "-U", "postgres")
        program("pg_ctl", "-w", "-l", folder / "log", "-o", settings, "start")
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            program("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def test_four_workers_of_which_one_is_killed(server, tmp_path):
    n_trials = 12
    folder = Folder(tmp_path / "folder", epoch="time.sleep(0.4)")
    options = ("--storage", server, "--study", "shared", "--heartbeat", 2)

    def worker(name):
        # as on a machine of its own
        return folder.background(*options, "--results", name, n_trials=n_trials)

    def trials_of(name, state):
        return [row for row in folder.results(name) if row["state"] == state]

    with contextlib.ExitStack() as stack:
        names = ["first", "second", "third", "fourth"]
        workers = [stack.enter_context(worker(name)) for name in names]
        victim, *others = workers

        def trains():
            if not trials_of("first", "COMPLETE"):
                return False
            # after the results: a trial that is in them has a log
            log = max((folder.path / "first" / "logs").glob("*.log")).read_text()
            return "Started training" in log and "PRIMARY METRIC" not in log

        wait_until(trains)
        kill(victim.pid)
        outputs = []
        for process in others:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            assert "Traceback" not in err
            outputs.append(out)

    # no trial is lost or was run twice, in spite of all
    study = optuna.load_study(
        study_name="shared", storage=storage.open_storage(server, heartbeat=2)
    )
    rows = max((folder.results(name) for name in names[1:]), key=len)
    assert states(rows) == {"COMPLETE": n_trials, "FAIL": 1}
    (lost,) = (row for row in rows if row["state"] == "FAIL")
    (again,) = (row for row in rows if row["retry_of"] == lost["trial"])
    assert (again["layers"], again["learning_rate"]) == (lost["layers"], lost["learning_rate"])
    assert again["state"] == "COMPLETE" and lost["worker"].endswith(f":{victim.pid}")
    assert again["worker"] != lost["worker"] and "was killed" in lost["reason"]
    run = [int(n) for out in outputs for n in re.findall(r"^TRIAL (\d+):", out, re.M)]
    assert len(run) == len(set(run))
    ran_by_victim = [int(row["trial"]) for row in rows if row["worker"] == lost["worker"]]
    needed = [int(row["trial"]) for row in rows]
    assert sorted([*run, *ran_by_victim]) == needed
    assert len({row["worker"] for row in rows}) == 4
    assert sum("FINAL TRAINING" in out for out in outputs) == 1
    assert study.best_trial.number == int(
        max(trials_of("second", "COMPLETE"), key=lambda row: float(row["recall@20"]))["trial"]
    )


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used")
def test_a_worker_of_another_machine_is_known_by_its_heartbeat(server):
    """Optuna's own heartbeat and retry, as the storage is opened here."""
    theirs = storage.open_storage(server, heartbeat=1)
    study = optuna.create_study(storage=theirs, study_name="elsewhere")
    trial = study.ask()
    trial.set_user_attr("worker", {"host": "x", "machine": "another", "pid": 1, "start": 1})
    trial.set_user_attr("log", "trial_0000.log")
    value = trial.suggest_int("layers", 1, 10**6)
    theirs.record_heartbeat(trial._trial_id)
    ours = storage.open_storage(server, heartbeat=1)
    ours_study = optuna.load_study(storage=ours, study_name="elsewhere")
    looking = undertaker.Undertaker(ours_study, ours)
    looking.look()
    assert [t.state.name for t in ours_study.trials] == ["RUNNING"]

    def given_up():
        looking.look()
        return ours_study.trials[0].state.name == "FAIL"

    wait_until(given_up)
    queued = ours_study.trials[1]
    assert queued.state.name == "WAITING" and queued.params == {"layers": value}
