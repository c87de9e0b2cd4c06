"""The service of examples/serving as a process, and a client for it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers.cli import ROOT, UNCOVERED, environment, own_signals

SERVING = ROOT / "examples" / "serving"
# what the service must do without; a try to import one is written to standard error
BLOCKED = ("theano", "pandas", "scipy", "gru4rec", "gru4rec_toolkit")
_RUN = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            print(f"imported {name}", file=sys.stderr, flush=True)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = sys.argv[1].split(",")
sys.meta_path.insert(0, Blocker())
sys.argv[:] = sys.argv[2:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def needed() -> None:
    """Skip a test module where the service's packages are not installed."""
    for name in ("fastapi", "uvicorn", "onnxruntime", "onnx"):
        pytest.importorskip(name)


def command(*arguments: object, blocked: Sequence[str] = BLOCKED) -> list[str]:
    """Return the command that starts the service where some packages cannot be imported."""
    service = str(SERVING / "service.py")
    return [sys.executable, "-c", _RUN, ",".join(blocked), service, *map(str, arguments)]


def run(command: list[str]) -> subprocess.CompletedProcess:
    """Run a command that is to end by itself."""
    # make coverage would look for the blocked packages
    env = environment(**UNCOVERED)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


class Service:
    """A running service, and requests to it.

    Parameters
    ----------
    folder : Path
        For its working directory and its standard error.
    arguments
        Of its command line.
    """

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.errors = folder / "errors.txt"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command(*arguments, "--port", "0"),
                cwd=folder,
                env=environment(**UNCOVERED),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=own_signals,
            )
        line = self.process.stdout.readline().strip()
        assert "http://127.0.0.1:" in line, (line, self.errors.read_text())
        self.port = int(line.rpartition(":")[2])
        self.connections = threading.local()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        code, errors = self.stop(signal.SIGTERM)
        assert (code, errors) == (0, "")

    def stop(self, number: int) -> tuple[int, str]:
        """End it with a signal; return its exit code and what it said on standard error."""
        self.process.send_signal(number)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.stdout.close()
        return self.process.returncode, self.errors.read_text()

    def request(self, method: str, path: str, body: object = None) -> tuple[int, dict]:
        """Return status and answer; a body that is no bytes is sent as JSON."""
        if not hasattr(self.connections, "one"):  # one a thread
            self.connections.one = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        self.connections.one.request(method, path, data)
        answer = self.connections.one.getresponse()
        return answer.status, json.loads(answer.read())

    def answer(self, method: str, path: str, body: object = None) -> dict:
        """Return the answer of a request that is answered."""
        status, answer = self.request(method, path, body)
        assert status == 200, answer
        return answer

    def click(self, session: str, item: object, **more: object) -> dict:
        """Return the answer to a click, or to several."""
        body = {"items" if isinstance(item, list) else "item": item, **more}
        return self.answer("POST", f"/sessions/{session}/click", body)

    def top(self, session: str, k: int = 20, exclude_seen: bool = False) -> dict:
        seen = str(exclude_seen).lower()
        return self.answer("GET", f"/sessions/{session}/top?k={k}&exclude_seen={seen}")


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that comes with time; give up where it never does."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def in_threads(work: Callable[[int], None], n: int) -> None:
    """Call a function with 0 to n - 1 at the same time; raise what one of the calls raises."""
    problems: list[BaseException] = []
    together = threading.Barrier(n)

    def run(number: int) -> None:
        try:
            together.wait(60)
            work(number)
        except BaseException as err:
            problems.append(err)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
