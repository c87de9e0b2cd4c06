"""Full disks, signals, forks, threads, files that change: no work is lost, one sentence."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from helpers.cli import ROOT, TRAIN, Done, environment, files_in

from gru4rec_toolkit import errors
from gru4rec_toolkit.data import events, text

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def listen_to_signals() -> None:
    """Shells let what they start in the background, perhaps these tests, ignore some signals."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextlib.contextmanager
def started(*command: object, cwd):
    """Start Python; it is killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment(PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen_to_signals,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen, start: str) -> None:
    """Read standard output up to a line that starts so."""
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(process.stderr.read())


def ended(process: subprocess.Popen) -> Done:
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err)


# --- signals --------------------------------------------------------------------------------------

WRITER = """
import time
from gru4rec_toolkit import files
from gru4rec_toolkit.errors import run_cli

def main():
    with files.replacing("table.tsv") as file:
        file.write(b"half")
        file.flush()
        print("writing", flush=True)
        time.sleep(600)

run_cli(main)
"""


@pytest.mark.parametrize("number", EXIT_CODES)
def test_a_signal_leaves_no_half_written_file(tmp_path, number):
    with started("-c", WRITER, cwd=tmp_path) as process:
        wait_for(process, "writing")
        assert len(files_in(tmp_path)) == 1
        process.send_signal(number)
        done = ended(process)
    said = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert (done.code, done.err) == (EXIT_CODES[number], f"{said}\n")
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_training_that_is_ended(tmp_path, number):
    settings = "layers=8,batch_size=8,n_sample=16,n_epochs=1000000"
    with started(ROOT / "run.py", TRAIN, "-ps", settings, "-s", "model", cwd=tmp_path) as process:
        wait_for(process, "Epoch2 ")
        process.send_signal(number)
        process.send_signal(number)  # a terminal that closes tells twice
        done = ended(process)
    assert done.code == EXIT_CODES[number] and "Traceback" not in done.err
    assert done.err.splitlines()[-1] == f"ended by {number.name}"
    assert files_in(tmp_path) == {}


def test_signals_that_are_ignored_stay_ignored():
    """Nohup lets a program go on when its terminal closes."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        seen = []
        errors.run_cli(lambda: seen.append(signal.getsignal(signal.SIGHUP)))
        assert seen == [signal.SIG_IGN]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_programs_own_handlers_stay():
    def own(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        errors.run_cli(lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def interrupts_reach_python():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("n_reads", [1, 2, 3])
def test_an_interrupt_of_reading_is_not_the_files_fault(
    monkeypatch, interrupts_reach_python, n_reads
):
    """The parser of pandas loses the exception of Ctrl-C, and raises one of its own."""
    calls, read = [], text.Scan.read

    def interrupted(self, size):
        calls.append(size)
        if len(calls) == n_reads:
            os.kill(os.getpid(), signal.SIGINT)
        return read(self, size)

    monkeypatch.setattr(text.Scan, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        events.read_events(TRAIN)


def test_a_signal_while_pandas_reads(monkeypatch):
    read = text.Scan.read

    def ended_by_a_signal(self, size):
        os.kill(os.getpid(), signal.SIGTERM)
        return read(self, size)

    monkeypatch.setattr(text.Scan, "read", ended_by_a_signal)
    with pytest.raises(SystemExit) as found:
        errors.run_cli(lambda: events.read_events(TRAIN))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert found.value.code == 143
