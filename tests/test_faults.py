"""Full disks, signals, forks, threads, files that change: no work is lost, one sentence."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import textwrap
from pathlib import Path

import pandas as pd
import pytest
from helpers.cli import (
    ROOT,
    TEST,
    TRAIN,
    Done,
    complaint,
    environment,
    files_in,
    own_signals,
    python,
    run_py,
    succeeds,
)
from helpers.searches import Folder, states

import evaluation
import run
from gru4rec import GRU4Rec
from gru4rec_toolkit import errors, modelfile, tablefile
from gru4rec_toolkit.data import events, text

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


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
        preexec_fn=own_signals,
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


def test_a_terminal_that_closes(tmp_path):
    """It sends SIGHUP, and nothing can be written to it any more."""
    settings = "layers=8,batch_size=8,n_sample=16,n_epochs=1000000"
    command = [ROOT / "run.py", TRAIN, "-ps", settings, "--checkpoint", "state"]
    ours, theirs = pty.openpty()

    def be_in_the_terminal():
        own_signals()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=be_in_the_terminal,
    )
    try:
        os.close(theirs)
        said = b""
        while b"Epoch2 -->" not in said:
            said += os.read(ours, 4096)
        os.close(ours)
        assert process.wait(timeout=300) == EXIT_CODES[signal.SIGHUP]
    finally:
        process.kill()
    assert [*files_in(tmp_path / "state")] == ["checkpoint.gru4rec"]


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


def test_a_signal_while_pandas_reads(tmp_path):
    code = """
import os, signal, sys
from gru4rec_toolkit import errors
from gru4rec_toolkit.data import events, text

read = text.Scan.read

def ended_by_a_signal(self, size):
    os.kill(os.getpid(), signal.SIGTERM)
    return read(self, size)

text.Scan.read = ended_by_a_signal
errors.run_cli(lambda: events.read_events(sys.argv[1]))
"""
    done = python("-c", code, TRAIN, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert (done.code, done.err) == (143, "ended by SIGTERM\n")


# --- full disks -----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A disk of 1 MB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1M,mode=755", "tmpfs", str(directory)]
    if not shutil.which("mount") or subprocess.run(["mount", *options], check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def fill(directory: Path, left: int = 0) -> None:
    """Fill a disk but for some bytes."""
    with contextlib.suppress(OSError), open(directory / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with open(directory / "filler", "rb+") as file:
        file.truncate(os.path.getsize(directory / "filler") // 4096 * 4096 - left)


SETTINGS = "layers=8,batch_size=8,n_sample=16,n_epochs=2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A trained model in a file."""
    path = tmp_path_factory.mktemp("trained") / "model.gru4rec"
    gru = GRU4Rec(layers=[8], batch_size=8, n_sample=16, n_epochs=2)
    gru.fit(pd.read_csv(TRAIN, sep="\t"), sample_store=500)
    gru.savemodel(str(path))
    return path


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """Run run.py's main in this process and an empty directory, as the program runs it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*args: object) -> Done:
        capsys.readouterr()
        code = 0
        try:
            errors.run_cli(lambda: run.main(list(map(str, args))))
        except SystemExit as end:
            code = end.code
        return Done(code, *capsys.readouterr())

    return call


FULL = "No space left on device"


@pytest.mark.parametrize("name", ["ranks.tsv", "ranks.parquet"])
def test_metrics_are_printed_though_their_ranks_cannot_be_written(here, trained, disk, name):
    pytest.importorskip("pyarrow")
    whole = here(trained, "-l", "-t", TEST, "-lpm")
    fill(disk)
    done = here(trained, "-l", "-t", TEST, "--ranks", disk / name, "-lpm")
    assert f"cannot write ranks to {disk / name}: {FULL}" in complaint(done)
    assert done.metrics == whole.metrics and done.lines[-1] == whole.lines[-1]
    assert "Ranks written" not in done.out and os.listdir(disk) == ["filler"]


def test_metrics_of_ranks_that_cannot_be_written_in_python(trained, disk):
    gru, data = GRU4Rec.loadmodel(str(trained)), pd.read_csv(TEST, sep="\t")
    found = evaluation.evaluate_gpu(gru, data)
    fill(disk)
    with pytest.raises(errors.InputError) as caught:
        evaluation.evaluate_gpu(gru, data, ranks_path=disk / "ranks.tsv")
    assert caught.value.metrics == found


def test_an_interrupt_while_ranks_are_written(here, trained, monkeypatch, interrupts_reach_python):
    whole = here(trained, "-l", "-t", TEST)

    def interrupted(*_):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(tablefile, "write", interrupted)
    done = here(trained, "-l", "-t", TEST, "--ranks", "ranks.tsv")
    assert (done.code, done.metrics) == (130, whole.metrics)


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors", "lists.tsv", "lists.parquet"])
def test_what_cannot_be_written_to_a_full_disk(here, trained, disk, name):
    pytest.importorskip("pyarrow")
    if name.startswith("model."):
        pytest.importorskip(name.split(".")[1])
    option = "--export" if name.startswith("model") else "--recommend"
    fill(disk, left=4096)
    done = here(trained, "-l", "-t", TEST, option, disk / name)
    message = complaint(done)
    assert f"{disk / name}: {FULL}" in message and os.listdir(disk) == ["filler"]
    assert len(done.metrics) == (option == "--export")  # the rest is done all the same


def test_a_model_without_space_is_saved_elsewhere(here, disk, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    whole = here(TRAIN, "-ps", SETTINGS, "-t", TEST, "-s", "model")
    assert whole.code == 0 and os.listdir(tmp_path / "temporary") == []
    fill(disk)
    done = here(TRAIN, "-ps", SETTINGS, "-t", TEST, "-s", disk / "model")
    found = re.fullmatch(
        rf"cannot save the model to {disk}/model: {FULL}; it is in (\S+) instead, move it from "
        "there",
        complaint(done),
    )
    assert done.metrics == whole.metrics
    assert Path(found[1]).read_bytes() == Path("model").read_bytes()
    assert os.stat(os.path.dirname(found[1])).st_mode & 0o777 == 0o700
    assert os.listdir(disk) == ["filler"]


def test_a_model_without_any_space(here, disk, monkeypatch):
    fill(disk)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    monkeypatch.setenv("HOME", str(disk))
    monkeypatch.chdir(disk)
    done = here(TRAIN, "-ps", SETTINGS, "-t", TEST, "-s", disk / "model")
    monkeypatch.chdir("..")  # else the disk could not be taken away
    assert complaint(done) == f"cannot save the model to {disk}/model: {FULL}"
    assert len(done.metrics) == 1 and os.listdir(disk) == ["filler"]


def test_two_files_that_cannot_be_written(here, disk, tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    fill(disk)
    paths = ["-s", disk / "model", "--export", disk / "model.safetensors"]
    message = complaint(here(TRAIN, "-ps", SETTINGS, *paths))
    assert message.index("cannot save the model") < message.index("; cannot export the model")


def test_an_epoch_that_cannot_be_evaluated(here, monkeypatch, caplog):
    """Its training goes on, and is saved."""
    whole = here(TRAIN, "-ps", SETTINGS, "-t", TEST, "-ee", "-s", "whole")
    evaluate_gpu, n_calls = evaluation.evaluate_gpu, []

    def without_memory(*args, **options):
        n_calls.append(1)
        if len(n_calls) == 1:
            raise MemoryError("Unable to allocate 9 GB")
        return evaluate_gpu(*args, **options)

    monkeypatch.setattr(evaluation, "evaluate_gpu", without_memory)
    done = here(TRAIN, "-ps", SETTINGS, "-t", TEST, "-ee", "-s", "model")
    assert done.code == 0 and done.metrics == whole.metrics
    assert done.out.count("Recall@") == whole.out.count("Recall@") - 1
    assert Path("model").read_bytes() == Path("whole").read_bytes()
    assert "epoch 1 could not be evaluated (MemoryError: Unable to allocate 9 GB)" in caplog.text


def test_a_full_disk_under_standard_output_ends_no_training(disk, tmp_path):
    """It is saved, and what is not printed there is said on standard error."""
    fill(disk)
    settings = "layers=8,batch_size=8,n_sample=16,n_epochs=3"
    command = [ROOT / "run.py", TRAIN, "-ps", settings, "-t", TEST, "-s", "model"]
    with open(disk / "log", "w") as log:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    told = done.stderr[done.stderr.index("standard output cannot be written") :].splitlines()
    assert told[0] == f"standard output cannot be written: {FULL}; it goes on here:"
    assert told[1] == "Creating GRU4Rec model" and told[-2].startswith("Recall@20: ")
    assert [line[:7] for line in told if line.startswith("Epoch")] == [
        "Epoch1 ",
        "Epoch2 ",
        "Epoch3 ",
    ]
    assert told[-1] == f"error: standard output cannot be written: {FULL}"
    assert modelfile.is_model(str(tmp_path / "model"))


def test_a_disk_that_becomes_full_under_standard_output(disk, tmp_path):
    """What was written stays there; nothing is lost between the two streams."""
    code = """
from gru4rec_toolkit.errors import run_cli

def main():
    for i in range(40_000):
        print("line", i)

run_cli(main)
"""
    fill(disk, left=4096 * 20)
    with open(disk / "log", "wb") as log:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(PYTHONPATH=str(ROOT)),
            stdout=log,
            stderr=subprocess.PIPE,
        )
    lines = [f"line {i}" for i in range(40_000)]
    there = (disk / "log").read_text().splitlines()
    first, *rest, last = done.stderr.decode().splitlines()
    assert there[:-1] == lines[: len(there) - 1] and len(there) > 5000
    assert rest[-1] == lines[-1] and lines.index(rest[1]) < len(there)
    assert rest[1:] == lines[lines.index(rest[1]) :]
    assert done.returncode == 1 and last.startswith("error: standard output")


def test_a_reader_of_standard_output_that_goes_away(tmp_path):
    """As in ``| head -1``: nothing is said, and nothing stays behind."""
    command = [ROOT / "run.py", TRAIN, "-ps", SETTINGS, "-s", "model"]
    with started(*command, cwd=tmp_path) as process:
        wait_for(process, "Creating")
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=300) == 1
    assert "Traceback" not in err and "error" not in err
    assert files_in(tmp_path) == {}


# --- packages -------------------------------------------------------------------------------------

BROKEN = "raise AttributeError(\"module 'numpy' has no attribute 'bool'\")\n"
NEEDING = {
    "onnx": ("-l", "--export", "model.onnx"),
    "safetensors": ("-l", "--export", "model.safetensors"),
    "pyarrow": ("-l", "-t", TEST, "--ranks", "ranks.parquet"),
}


@pytest.mark.parametrize("name", NEEDING)
@pytest.mark.parametrize("installed", [True, False])
def test_packages_that_cannot_be_imported(here, trained, tmp_path, monkeypatch, name, installed):
    """Packages that do not fit each other raise anything."""
    monkeypatch.delitem(sys.modules, name, raising=False)
    if installed:
        (tmp_path / f"{name}.py").write_text(BROKEN)
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setitem(sys.modules, name, None)
    message = complaint(here(trained, *NEEDING[name]))
    advice = f"pip install {'--force-reinstall ' if installed else ''}{name}"
    assert f"needs the package {name}" in message and advice in message
    assert ("no attribute 'bool'" in message) == installed


def test_packages_of_a_search_that_cannot_be_imported(tmp_path):
    for name in ("optuna", "matplotlib"):
        (tmp_path / f"{name}.py").write_text(BROKEN)
        (tmp_path / "space").write_text(
            '{"name": "layers", "dtype": "int", "values": [8, 40], "step": 8}\n'
        )
        command = [ROOT / "paropt.py", TRAIN, TEST, "-opf", "space", "--plots", "plots"]
        path = f"{tmp_path}{os.pathsep}{ROOT}"
        message = complaint(python(*command, cwd=tmp_path, PYTHONPATH=path))
        assert f"needs the package {name}, which cannot be imported (AttributeError: " in message
        (tmp_path / f"{name}.py").unlink()
        assert not (tmp_path / "plots").exists()


def test_numpys_warnings_stay_as_they_are(tmp_path):
    """Theano turns them off for the whole program, in a notebook for the user's own code."""
    code = "import numpy as np, gru4rec; print(np.geterr())"
    done = succeeds(python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT)))
    default = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
    assert done.lines[0] == str(default)
    flags = "numpy.seterr_all=raise"
    done = succeeds(python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT), THEANO_FLAGS=flags))
    assert done.lines[0] == str(dict.fromkeys(default, "raise"))


# --- files that change ----------------------------------------------------------------------------


def replace(path: Path) -> None:
    """Put another file in the place of one, of the same size."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"1\tx")


@pytest.mark.parametrize("change", [replace, append, lambda path: path.write_bytes(b"")])
def test_a_file_that_is_changed_while_it_is_read(tmp_path, monkeypatch, change):
    """It is read in several goes; what they give must not be mixed, nor a line be blamed."""
    path = tmp_path / "train.tsv"
    shutil.copy(TRAIN, path)
    with_categories = text._with_categories

    def changed(*args, **options):
        frame = with_categories(*args, **options)
        monkeypatch.undo()
        change(path)
        return frame

    monkeypatch.setattr(text, "_with_categories", changed)
    with pytest.raises(errors.InputError, match="the file was changed while it was read; wait"):
        events.read_events(path)


def test_a_file_that_is_removed_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "train.tsv"
    shutil.copy(TRAIN, path)
    with_categories = text._with_categories

    def removed(*args, **options):
        frame = with_categories(*args, **options)
        path.unlink()
        return frame

    monkeypatch.setattr(text, "_with_categories", removed)
    with pytest.raises(errors.InputError, match="there is no such file"):
        events.read_events(path)


# --- forks and threads ----------------------------------------------------------------------------

FORK = """
import itertools, os, sys
import numpy as np
import pandas as pd
import evaluation
from gru4rec import GRU4Rec

data = pd.read_csv(sys.argv[1], sep="\\t")

def fitted(seed):
    gru = GRU4Rec(layers=[40], batch_size=32, n_sample=64, n_epochs=2, seed=seed)
    gru.fit(data, sample_store=5000)
    return gru

numbers = itertools.count()

def results(gru):
    sessions = [next(numbers) for _ in range(5)]  # new ones: a slot goes on with its session
    scores = gru.predict_next_batch(sessions, data.ItemId.values[:5], None, 5)
    lists = gru.recommend([[data.ItemId.values[0]]], k=5)
    return scores.values.tolist(), lists.scores.tolist(), evaluation.evaluate_gpu(gru, data)

gru = fitted(1)
mine, second = results(gru), results(fitted(2))
"""
OS_FORK = """
child = os.fork()
same = results(gru) == mine and results(fitted(2)) == second  # in both at the same time
if child == 0:
    os._exit(0 if same else 1)
assert same and os.waitpid(child, 0)[1] == 0
"""
POOL = """
import multiprocessing

def work(seed):
    return results(gru) if seed == 1 else results(fitted(seed))

with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, [1, 2, 1, 2]) == [mine, second, mine, second]
assert results(gru) == mine and results(fitted(2)) == second
"""


@pytest.mark.parametrize("code", [OS_FORK, POOL], ids=["os.fork", "multiprocessing"])
def test_a_fork_after_a_training(tmp_path, code):
    """A child has none of its parent's threads: the team starts its own, BLAS needs none."""
    env = {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "2"}
    succeeds(python("-c", FORK + code, TRAIN, cwd=tmp_path, **env))


THREADS = """
import threading

found = {}

def work(seed):
    gru = fitted(seed)
    found[seed] = [gru.weights(), results(gru)]

alone = {}
for seed in (3, 4, 5):
    work(seed)
    alone[seed] = found.pop(seed)
threads = [threading.Thread(target=work, args=(seed,)) for seed in alone]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for seed, (weights, rest) in alone.items():
    assert all((weights[name] == found[seed][0][name]).all() for name in weights), seed
    assert rest == found[seed][1], seed
"""


def test_trainings_in_threads(tmp_path):
    """They give what they would one after the other."""
    env = {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "2"}
    succeeds(python("-c", FORK + THREADS, TRAIN, cwd=tmp_path, **env))


# --- searches -------------------------------------------------------------------------------------

FILLING = """
with open({filler!r}, "ab", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
"""


@pytest.mark.parametrize("storage", ["beside the results", "elsewhere"])
def test_a_search_whose_disk_becomes_full(disk, tmp_path, storage):
    """No trial is lost, and no other one that runs is ended by a table that cannot be written."""
    folder = Folder(tmp_path / "search")
    filler = disk / "filler"
    options = ["--results", disk / "results"]
    options += ["--storage", "journal"] if storage == "elsewhere" else []
    folder.stub(
        f"if self.layers[0]:\n{textwrap.indent(FILLING.format(filler=str(filler)), '    ')}"
    )
    done = folder.search(*options, n_trials=2)
    assert "Traceback" not in done.err
    assert f"warning: cannot write {disk}/results/results.tsv: {FULL}" in done.err
    last = done.err.splitlines()[-1]
    if storage == "elsewhere":
        assert (done.code, "run the same command again" in last) == (1, True)  # logs lie there, too
    else:
        assert done.code == 1 and last.startswith("error: the study in") and FULL in last
    filler.unlink()
    folder.stub("pass")
    done = succeeds(folder.search(*options, n_trials=2))
    with open(disk / "results" / "results.tsv") as file:
        found = states(list(csv.DictReader(file, delimiter="\t")))
    assert found["COMPLETE"] == 2


# --- trackers -------------------------------------------------------------------------------------


def test_trackers_whose_disk_becomes_full(disk, tmp_path):
    """The training is whole; what lacks its last epochs is told at the end."""
    pytest.importorskip("tensorboardX")
    fill(disk)
    command = [TRAIN, "-ps", SETTINGS, "-s", "m", "-t", TEST, "--log-file", disk / "log.tsv"]
    command += ["--plot", disk / "curves.png", "--tensorboard", disk / "board"]
    done = run_py(*command, cwd=tmp_path)
    said = complaint(done)
    for what in ("the log of the training", "the curves of the training", "files for TensorBoard"):
        assert f"cannot write {what} to {disk}/" in said and said.count(FULL) == 3
    assert len(done.metrics) == 1 and (tmp_path / "m").exists()
    (disk / "filler").unlink()
    succeeds(run_py(*command, cwd=tmp_path))
    assert len((disk / "log.tsv").read_text().splitlines()) == 3


# --- examples -------------------------------------------------------------------------------------


def test_the_demo_on_a_full_disk(disk, tmp_path):
    fill(disk)
    command = [ROOT / "examples" / "quickstart" / "quickstart.py", "--data", disk]
    message = complaint(python(*command, cwd=tmp_path))
    assert message == f"{FULL}; free some space and try again"
    assert os.listdir(disk) == ["filler"]
