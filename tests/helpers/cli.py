"""Helpers for tests of the command line: running it, and reading what it says."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
TRAIN, TEST = GOLDEN / "train.tsv", GOLDEN / "test.tsv"
# the environment of processes in which make coverage would disturb what is tested
UNCOVERED = {"COVERAGE_PROCESS_CONFIG": None}


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


def on_terminal(
    *args: object, cwd: Path, columns: int = 80, whole: bool = False, **env: str | None
) -> Done:
    """Run Python with standard error on a terminal, and with standard output if it is whole.

    ``err`` of the result is all that the terminal was sent.
    """
    ours, theirs = pty.openpty()
    # 0 columns: one that does not know its size
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24 if columns else 0, columns, 0, 0))
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(
            [sys.executable, *map(str, args)],
            cwd=cwd,
            env=environment(**{"TERM": "xterm", "NO_COLOR": None, "COLUMNS": None, **env}),
            stdin=subprocess.DEVNULL,
            stdout=theirs if whole else file,
            stderr=theirs,
            preexec_fn=own_signals,
        )
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux's way to say that the other end was closed
            while part := os.read(ours, 1 << 16):
                shown += part
        os.close(ours)
        code = process.wait(timeout=600)
        file.seek(0)
        return Done(code, file.read().decode(), shown.decode().replace("\r\n", "\n"))


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
