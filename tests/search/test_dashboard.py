"""Optuna's dashboard on the journal of a search, opened in a browser."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from helpers import browser as browsers
from helpers.cli import own_signals, succeeds
from helpers.searches import Folder, states, wait_until

PROGRAM = Path(sys.executable).with_name("optuna-dashboard")

if not PROGRAM.exists():
    pytest.skip("no dashboard (pip install optuna-dashboard)", allow_module_level=True)
browsers.needed()

JOURNAL = "searches/xe/study.journal"
SPACE = """{"name": "layers", "dtype": "int", "values": [8, 40], "step": 8}
{"name": "learning_rate", "dtype": "float", "values": [0.01, 0.25], "log": true}
{"name": "final_act", "dtype": "categorical", "values": ["elu-0.5", "linear"]}
"""
# the first trial has not enough memory
EPOCH = """
if not os.path.exists("begun"):
    open("begun", "w").close()
    raise InputError("the device has 3 bytes left")
"""
# header and rows
TABLE = """Array.from(document.querySelectorAll("table tr"), (row) =>
    Array.from(row.cells, (cell) => cell.innerText.split("\\n")[0].trim()))"""
NOTE = """{method: "PUT", body: JSON.stringify({body: "Wider layers next time.", version: 1}),
           headers: {"Content-Type": "application/json"}}"""
OPTIONS = ("--study", "xe", "--results", "searches/xe", "-pm", "mrr", "--pruner", "median")


class Dashboard:
    """A running `optuna-dashboard` with what docs/search.md gives it."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.log = log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [PROGRAM, JOURNAL, "--host", "127.0.0.1", "--port", str(self.port)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=file, stderr=file, preexec_fn=own_signals
            )
        wait_until(self._answers, browsers.PATIENCE)
        self.url = f"http://127.0.0.1:{self.port}/"

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(browsers.PATIENCE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A search of three trials, the first of which failed."""
    folder = Folder(tmp_path_factory.mktemp("dashboard") / "folder", epoch=EPOCH, space=SPACE)
    succeeds(folder.search(*OPTIONS, n_trials=2, fixed="loss=bpr-max,n_epochs=2"))
    assert states(folder.results("searches/xe")) == {"FAIL": 1, "COMPLETE": 2}
    return folder


@pytest.fixture(scope="module")
def dashboard(folder):
    started = Dashboard(folder.path, folder.path / "dashboard.txt")
    try:
        yield started
    finally:
        started.stop()
    assert "Traceback" not in started.log.read_text()


@pytest.fixture(scope="module")
def tab(dashboard):
    """One tab for all pages: to load the dashboard's six megabytes of scripts takes seconds."""
    with browsers.browser() as browser:
        yield browser.open(dashboard.url)


@pytest.fixture
def page(tab, dashboard):
    """The tab, of which nothing may have gone wrong at the end."""
    yield tab
    tab.settle()
    assert tab.errors == []
    assert all(request.url.startswith(dashboard.url) for request in tab.requests)
    assert [request for request in tab.requests if request.failed] == []


def study_of(folder: Folder) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(folder.path / JOURNAL))
    return optuna.load_study(study_name="xe", storage=optuna.storages.JournalStorage(backend))


def visit(page: browsers.Page, path: str) -> None:
    """Go to a page of the dashboard as its own links do, which load no scripts again."""
    page.evaluate(f"history.pushState({{}}, '', '/dashboard{path}')")
    page.evaluate("dispatchEvent(new PopStateEvent('popstate'))")


def see(page: browsers.Page, *texts: object) -> None:
    for text in texts:
        page.wait_for_text(str(text))


def test_the_list_of_studies(page):
    visit(page, "")
    see(page, "0. xe", "Direction: MAXIMIZE")


def test_the_page_of_the_study(page, folder):
    """Its charts are of the metric, and it says what the search was begun with."""
    best = study_of(folder).best_trial
    visit(page, "/studies/0")
    see(page, "xe (id=0)", "History", "mrr@20", "layers", "learning_rate", "final_act")
    see(page, f"Best Trial (number={best.number})", best.value)
    see(page, '"-fp": {"loss": "bpr-max", "n_epochs": "2"}, "-m, -pm": "mrr@20"')
    assert "Objective 0" not in page.text()
    # what is cut off after 1024 characters
    assert list(study_of(folder).user_attrs["gru4rec"])[-1] == "-opf"


def test_the_trials(page, folder):
    trials = study_of(folder).trials
    for trial, row in zip(trials, folder.results("searches/xe")):
        visit(page, f"/studies/0/trials?numbers={trial.number}")
        see(page, f"{len(trials)} Trials", f"Trial {trial.number} (trial_id={trial.number})")
        see(page, trial.state.name.capitalize(), f"log {row['log']}", '"pid": ')
        see(page, *(f"{name} {value}" for name, value in trial.params.items()))
        if trial.number == 0:
            see(page, "reason the device has 3 bytes left")
        else:
            see(page, trial.value, f"1 {trial.intermediate_values[1]}")


def test_the_table_of_the_trials(page, folder):
    visit(page, "/studies/0/smartSelection")
    page.wait_for("document.querySelectorAll('table tbody tr').length > 2")
    columns, *rows = page.evaluate(TABLE)
    shown = [dict(zip(columns, row)) for row in rows]
    expected = folder.results("searches/xe")
    assert len(shown) == len(expected)
    for cells, row in zip(shown, expected):
        assert (cells["Number"], cells["State"].upper()) == (row["trial"], row["state"])
        assert cells["Value"] == row["mrr@20"]
        for name in ("layers", "learning_rate", "final_act"):
            assert cells[f"Param {name}"] == row[name]
        for name in ("log", "reason"):
            assert cells[f"UserAttribute {name}"] == row[name]


def test_the_search_goes_on_with_what_the_dashboard_has_written(page, dashboard, folder):
    """A note that is written there is a record of the same journal."""
    # Its editor of notes reports an error of its own once it has saved one (0.21).
    saved = page.evaluate(f"fetch('/api/studies/0/note', {NOTE}).then((answer) => answer.status)")
    assert saved == 204
    succeeds(folder.search(*OPTIONS, n_trials=3, fixed="loss=bpr-max,n_epochs=2"))
    assert states(folder.results("searches/xe")) == {"FAIL": 1, "COMPLETE": 3}
    page.go(f"{dashboard.url}dashboard/studies/0/trials")
    see(page, "4 Trials", "Trial 3")
    visit(page, "/studies/0/note")
    see(page, "Wider layers next time.")
