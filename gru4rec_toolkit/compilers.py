"""Compilers that run side by side, one for each core, while this process does other work."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gru4rec_toolkit.machine import available_cores
from gru4rec_toolkit.progress import progress_bar

# of two jobs that wait for a core the one with the smaller number is begun first
HEADERS, LIBRARY, MODULE = range(3)


class Job:
    """A compiler that waits for a core, runs or has ended."""

    def __init__(self, command: Callable[[], Sequence[str]], what: str) -> None:
        self._command, self.what = command, what
        self._ended = threading.Event()
        self._process = os.getpid()
        self._error: Exception | None = None
        self._output: tuple[bytes, bytes, int] = (b"", b"", -1)

    def wait(self) -> tuple[bytes, bytes, int]:
        """Return standard output, standard error and exit code once the compiler has ended.

        The threads that run compilers are not in a process that was forked: there it has failed.

        Raises
        ------
        OSError
            If it cannot be run.
        """
        if self._process != os.getpid():
            return b"", b"begun by another process", -1
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._output

    def run(self) -> None:
        """Run the compiler to its end."""
        try:
            with _started(self._command()) as process:
                out, err = process.communicate()
                self._output = out, err, process.returncode
        except Exception as err:  # of whoever waits, in another thread
            self._error = err
        finally:
            self._ended.set()


_waiting: queue.PriorityQueue[tuple[int, int, Job]] = queue.PriorityQueue()
_numbers = itertools.count()
_lock = threading.Lock()
_threads: list[threading.Thread] = []
_running: set[subprocess.Popen] = set()
_directories: set[str] = set()
_at_end = _ends_with_multiprocessing = False
# those that have not ended, in the order in which they were started, and who wants to see them
_jobs: list[Job] = []
_bars: list[Any] = []


def start(command: Callable[[], Sequence[str]], urgency: int, what: str) -> Job:
    """Run a compiler as soon as a core is free.

    Parameters
    ----------
    command : callable
        Returns the words of the command line; called when it is about to be run, in another thread.
    urgency : int
        ``HEADERS``, ``LIBRARY`` or ``MODULE``.
    what : str
        Name of what is compiled, for `shown`.

    Returns
    -------
    Job
    """
    job = Job(command, what)
    _end_with_multiprocessing()
    with _lock:
        _jobs.append(job)
    _waiting.put((urgency, next(_numbers), job))
    with _lock:
        missing = len(_threads) < available_cores()
    if missing:
        # a daemon: a process that has nothing else to do does not wait for compilers
        thread = threading.Thread(target=_work, daemon=True)
        try:
            thread.start()
            _threads.append(thread)
        except RuntimeError:  # there may be no more threads
            if not _threads:
                _run_next()
    return job


def make_directory(prefix: str) -> str:
    """Make a temporary directory, which `remove_directory` or the end of this process removes."""
    directory = tempfile.mkdtemp(prefix=prefix)
    with _lock:
        _directories.add(directory)
    return directory


def remove_directory(directory: str) -> None:
    """Remove a directory that `make_directory` has made."""
    with _lock:
        _directories.discard(directory)
    shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Show in the block, on a terminal, what is being compiled and how much of all is done."""
    with _lock:
        bar = progress_bar(len(_jobs), "Compiling", unit="file", leave=False)
        _bars.append(bar)
    try:
        yield
    finally:
        with _lock:
            if bar in _bars:  # else it is that of the process from which this one was forked
                _bars.remove(bar)
        bar.close()


def _work() -> None:
    while True:
        _run_next()


def _run_next() -> None:
    job = _waiting.get()[2]
    job.run()
    with _lock:
        _jobs.remove(job)
        for bar in _bars:
            bar.set_postfix_str(_jobs[0].what if _jobs else "", refresh=False)
            bar.update()


@contextlib.contextmanager
def _started(command: Sequence[str]):
    """Yield a process that ends with this one at the latest, as does all that it starts."""
    with _lock:
        if _at_end:
            raise OSError("this process is at its end")
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        _running.add(process)
    try:
        yield process
    finally:
        with _lock:
            _running.discard(process)


@atexit.register
def _end() -> None:
    global _at_end
    with _lock:
        _at_end = True
        for process in _running:
            # not SIGKILL: g++ has temporary files to remove
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        for directory in _directories:
            shutil.rmtree(directory, ignore_errors=True)


def _end_with_multiprocessing() -> None:
    """Let a process that multiprocessing has forked end its compilers; it does not run atexit."""
    global _ends_with_multiprocessing
    if "multiprocessing" in sys.modules and not _ends_with_multiprocessing:
        from multiprocessing import util

        util.Finalize(None, _end, exitpriority=0)
        _ends_with_multiprocessing = True


def _forget() -> None:
    """Begin anew in a forked process: threads, compilers and directories are its parent's."""
    global _waiting, _lock, _ends_with_multiprocessing
    _ends_with_multiprocessing = False
    _waiting, _lock = queue.PriorityQueue(), threading.Lock()
    for known in (_threads, _running, _directories, _jobs, _bars):
        known.clear()


os.register_at_fork(after_in_child=_forget)
