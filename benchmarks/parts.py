"""Parts of a longer measurement: commands that may fail or take too long, and the rest goes on."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# a report shows so many of a failed part's last lines
LINES = 25


class Result(NamedTuple):
    """What became of a part.

    Attributes
    ----------
    name : str
    problem : str
        Empty if it passed.
    seconds : float
    output : str
        Standard output and errors.
    """

    name: str
    problem: str
    seconds: float
    output: str

    def report(self) -> list[str]:
        """Return what a report says about a part that failed, with the end of its output."""
        tail = self.output.strip().splitlines()[-LINES:]
        return ["", f"{self.name}: {self.problem}", "", *(f"    {line}" for line in tail)]


class Runner:
    """Runs commands, in several threads perhaps, and ends them with all that they have started."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen] = set()

    def run(self, name: str, command: list[str], limit: float, env: dict[str, str]) -> Result:
        """Run a command in the project's directory, for `limit` seconds at most."""
        start = time.monotonic()
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            self._running.add(process)
            try:
                code = process.wait(limit)
                problem = f"failed: exit code {code}" if code else ""
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the compilers that it has started
                process.wait()
                problem = f"stopped after {limit:.0f} s"
            finally:
                if process.poll() is None:  # an interrupt: `stop` has to find it
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                self._running.discard(process)
            output.seek(0)
            text = output.read()
        return Result(name, problem, time.monotonic() - start, text)

    def stop(self) -> None:
        """End what is running, with the compilers that it has started."""
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a part, which imports this project's modules."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": paths, **changes}


def output_of(command: list[str]) -> str:
    """Return what a command prints; end the program with what it said if it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{shlex.join(command)} failed, exit code {done.returncode}:\n{done.stderr}"
        )
    return done.stdout
