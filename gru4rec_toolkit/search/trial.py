"""Training in a process of its own: `run.py`, its log file, its metrics, its end.

The process gets a process group of its own and dies with the process that started it, however that
one ends. Standard output is read line by line while it runs and goes to the log; standard error
goes to the log only.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RUN = Path(__file__).resolve().parents[2] / "run.py"
# Runs before the training in its process, which it then becomes: the kernel kills it when the
# starting thread ends. (In subprocess's preexec_fn it could deadlock in a program with threads.)
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
_SET_UP = """
import sys
sys.path.insert(0, sys.argv[1])
from gru4rec_toolkit import errors, theano_setup
errors.run_cli(theano_setup.configure)
"""
_METRIC = re.compile(r"PRIMARY METRIC: (\S+)$")
_EPOCH_METRICS = re.compile(r"Epoch(\d+) --> Recall@\d+: (\S+) MRR@\d+: (\S+)$")


class TrainingFailed(Exception):
    """A training that gave no metric; the message is the reason, in one line."""


@dataclass(eq=False)
class Training:
    """One training process.

    Parameters
    ----------
    arguments : sequence of str
        Command line of `run.py`.
    log : path
        Its output goes there, after what the file holds already.
    environment : mapping
        Variables to set beside the present ones.
    """

    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._stopped: str | None = None
        # last lines of standard output, which are in the log too
        self._said: deque[str] = deque(maxlen=100)

    def run(self, on_line: Callable[[str], None]) -> None:
        """Run to the end.

        Parameters
        ----------
        on_line : callable
            Gets every line of standard output while the process runs. What it raises ends the
            process and leaves this method.

        Raises
        ------
        TrainingFailed
            With the reason, unless the process ended with exit code 0.
        """
        command = [sys.executable, str(RUN), *map(str, self.arguments)]
        with self._writing():
            log = open(self.log, "ab", buffering=0)  # noqa: SIM115
        with log:
            with self._writing():
                log.write(f"$ {shlex.join(command)}\n".encode())
            start = log.tell()
            self._start(command, log)
            process = self._process
            if process is not None and process.stdout is not None:
                try:
                    for line in process.stdout:
                        with self._writing():
                            log.write(line)
                        self._said.append(line.decode(errors="replace").rstrip("\n"))
                        on_line(self._said[-1])
                except BaseException:
                    with self._lock:
                        self._kill_group()
                    raise
                finally:
                    process.wait()
                    process.stdout.close()
        if self._stopped is not None:
            raise TrainingFailed(self._stopped)
        if process is not None and process.returncode != 0:
            lines = [x for x in last_lines(self.log, start) if x not in self._said]
            raise TrainingFailed(_reason(process.returncode, lines))

    def _start(self, command: Sequence[str], log) -> None:
        launcher = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
        with self._lock:
            if self._stopped is not None:
                return
            try:
                self._process = subprocess.Popen(
                    [*launcher, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
                    start_new_session=True,
                )
            except OSError as err:
                raise TrainingFailed(f"the process cannot be started: {err.strerror}") from None

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except OSError as err:
            raise TrainingFailed(
                f"its log {self.log} cannot be written: {err.strerror or err}"
            ) from None

    def stop(self, reason: str) -> None:
        """End the process, from any thread; `run` raises TrainingFailed with the reason."""
        with self._lock:
            self._stopped = reason
            if self._process is not None:
                self._kill_group()

    def _kill_group(self) -> None:
        """Kill the process with all that it started, compilers included."""
        with contextlib.suppress(ProcessLookupError):
            if self._process is not None and self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)


def check_set_up(environment: Mapping[str, str]) -> None:
    """Set Theano up as a training does, in a process of its own.

    Parameters
    ----------
    environment : mapping
        Variables to set beside the present ones.

    Raises
    ------
    TrainingFailed
        With the reason for which every training would fail.
    """
    done = subprocess.run(
        [sys.executable, "-c", _SET_UP, str(RUN.parent)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        raise TrainingFailed(_reason(done.returncode, lines))


def read_metric(line: str) -> float | None:
    """Return the number of the line ``PRIMARY METRIC: x``; None if it is another line."""
    found = _METRIC.match(line)
    return _number(found[1]) if found else None


def read_epoch(line: str, metric: str) -> tuple[int, float] | None:
    """Return epoch and metric of a line that ``run.py --evaluate_each_epoch`` prints.

    Parameters
    ----------
    line : str
        ``Epoch3 --> Recall@20: 0.518184 MRR@20: 0.217481``; others give None.
    metric : recall or mrr
    """
    found = _EPOCH_METRICS.match(line)
    if not found:
        return None
    value = _number(found[2 if metric == "recall" else 3])
    return None if value is None else (int(found[1]), value)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _reason(code: int, lines: Sequence[str]) -> str:
    """Say in one line why a process failed, by its exit code and standard error's last lines."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = ", by somebody or, where memory ran out, by the system" if -code == 9 else ""
        return f"killed by {name}{hint}"
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line[len("error: ") :] for line in lines if line.startswith("error: ")]
    if code == 2 and errors:
        return errors[-1]
    return f"exit code {code}" + (f": {lines[-1]}" if lines else "")


def last_lines(log: Path, start: int = 0, most: int = 20) -> list[str]:
    """Return the last lines of a log from byte `start` on."""
    try:
        with open(log, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - 16384))
            return file.read().decode(errors="replace").splitlines()[-most:]
    except OSError:  # the log was deleted
        return []
