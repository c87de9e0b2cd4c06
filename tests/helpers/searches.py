"""Helpers for tests of paropt.py: searches whose trainings are real processes, but do not train.

Every trial is a process of `run.py` with a stub in the place of the model. A `sitecustomize` module
keeps Theano and pandas out of these processes, so that one takes a fraction of a second.
"""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import optuna
from helpers.cli import ROOT, TEST, TRAIN, Done, environment, own_signals, python

# in the trials' processes only: no heavy imports, and the stub's own metrics for an evaluation
SITECUSTOMIZE = """
import pathlib, sys, types
program = pathlib.Path("/proc/self/cmdline").read_text().split("\\0")[1]
if "/run.py" in program:
    sys.path.insert(0, str(pathlib.Path(program).parent))
    def stand_in(name, *functions):
        module = sys.modules[name] = types.ModuleType(name)
        package, _, last = name.rpartition(".")
        if package:
            setattr(__import__(package, fromlist=[last]), last, module)
        for function in functions:
            setattr(module, function, lambda *_, **__: None)

    stand_in("gru4rec_toolkit.theano_setup", "configure")
    stand_in("gru4rec_toolkit.data.events", "read_events", "announce_loading")
    stand_in("gru4rec_toolkit.data.ids", "extend_item_ids")
    stand_in("gru4rec_toolkit.data.sessions", "index_sessions", "check_test_log", "fits")
    stand_in("evaluation")
    sys.modules["evaluation"].evaluate_gpu = lambda gru, data, cut_off, **_: gru.evaluate(cut_off)
"""

# the best recall is at layers=24, learning_rate=0.1; two thirds of it after the first epoch
STUB = """
import os, sys, time
from gru4rec_toolkit import parameters
from gru4rec_toolkit.errors import InputError

class GRU4Rec:
    item_ids = trained_network = None

    def __init__(self):
        self.set = {}
        vars(self).update(parameters.defaults())

    def set_params(self, **settings):
        self.set = settings
        vars(self).update(settings)

    def evaluate(self, cut_off):
        mrr = 0.8 - abs(self.learning_rate - 0.1) - abs(self.layers[0] - 24) / 100
        mrr *= self.epochs / (self.epochs + 0.5)
        return [mrr + 0.05] * len(cut_off), [mrr] * len(cut_off)

    def fit(self, data, sample_store, store_type, after_epoch=None):
        for self.epochs in range(1, self.n_epochs + 1):
BODY
            if after_epoch:
                after_epoch(self.epochs)
"""

SPACE = """{"name": "layers", "dtype": "int", "values": [8, 40], "step": 8}
{"name": "learning_rate", "dtype": "float", "values": [0.01, 0.25], "step": 0.03}
"""


class Folder:
    """A directory with a space and a stub, in which searches are run."""

    def __init__(self, path: Path, epoch: str = "pass", space: str = SPACE) -> None:
        self.path = path
        (path / "site").mkdir(parents=True)
        (path / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
        (path / "space.json").write_text(space)
        self.stub(epoch)

    def stub(self, epoch: str) -> None:
        """Set what the stub's training does in an epoch; it may look at its parameters, `self`."""
        body = textwrap.indent(textwrap.dedent(epoch), " " * 12)
        (self.path / "stub.py").write_text(STUB.replace("BODY", body))

    def command(self, *options: object, n_trials: int = 4, fixed: str = "n_epochs=1") -> list[str]:
        command = [TRAIN, TEST, "-opf", "space.json", "-g", "stub.py", "-nt", n_trials]
        command += ["-fp", fixed] if fixed else []
        command += [] if "--results" in options else ["--results", "results"]
        return [str(x) for x in (ROOT / "paropt.py", *command, *options)]

    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.path / "site")}

    def search(self, *options: object, **settings) -> Done:
        return python(*self.command(*options, **settings), cwd=self.path, **self.env())

    @contextlib.contextmanager
    def background(self, *options: object, **settings):
        """A search that runs on; it is killed at the end if it has not ended."""
        process = subprocess.Popen(
            [sys.executable, *self.command(*options, **settings)],
            cwd=self.path,
            env=environment(**self.env()),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
            preexec_fn=own_signals,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def results(self, folder: str = "results") -> list[dict[str, str]]:
        """The rows of results.tsv; none before the file is there."""
        try:
            with open(self.path / folder / "results.tsv", encoding="utf-8") as file:
                return list(csv.DictReader(file, delimiter="\t"))
        except FileNotFoundError:
            return []

    def study(self, name: str = "train_space") -> optuna.Study:
        """The study, opened as Optuna and its dashboard do it."""
        backend = optuna.storages.journal.JournalFileBackend(
            str(self.path / "results" / "study.journal")
        )
        return optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))


def states(rows: list[dict[str, str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return counts


def wait_until(condition, seconds: float = 60) -> None:
    """Wait for what another process does; fails if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
