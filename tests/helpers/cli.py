"""Helpers for tests of the command line: running it, and reading what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
TRAIN, TEST = GOLDEN / "train.tsv", GOLDEN / "test.tsv"


@dataclass(frozen=True)
class Done:
    """What a finished program left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def metrics(self) -> list[str]:
        return [line for line in self.lines if line.startswith("Recall@")]

    @property
    def losses(self) -> list[float]:
        return [float(x) for x in re.findall(r"^Epoch\d+ --> loss: (\S+)", self.out, re.M)]


def environment(**changes: str | None) -> dict[str, str]:
    """The environment with variables set, or removed where the value is None."""
    env = {**os.environ, **changes}
    return {name: value for name, value in env.items() if value is not None}


def python(*args: object, cwd: Path, **env: str | None) -> Done:
    """Run Python in a process of its own, in another directory than the project's."""
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        env=environment(**env),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def run_py(*args: object, cwd: Path, **env: str | None) -> Done:
    return python(ROOT / "run.py", *args, cwd=cwd, **env)


def own_signals() -> None:
    """Let a new process be ended by signals that who started the tests lets them ignore.

    For ``preexec_fn``: shells let what they start in the background ignore Ctrl-C, and nohup a
    closed terminal.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def succeeds(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def complaint(done: Done) -> str:
    """The one sentence that a program says about a mistake of its user."""
    assert done.code == 2, f"exit code {done.code}\n{done.out}\n{done.err}"
    assert "Traceback" not in done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.err
    assert done.err.splitlines()[-1] == errors[0]
    return errors[0][len("error: ") :]


def files_in(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with the contents of the files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def metric_values(line: str) -> tuple[float, float]:
    """Recall and MRR of a metric line."""
    recall, mrr = re.fullmatch(r"Recall@\d+: (\S+) MRR@\d+: (\S+)", line).groups()
    return float(recall), float(mrr)
