"""Modules that are compiled side by side, ahead of Theano, and the parts of the library.

Every case is a process with a cache of its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.cli import ROOT, TRAIN, environment, on_terminal, python, succeeds

from gru4rec_toolkit import compile_ahead
from gru4rec_toolkit.ops import library

pytestmark = pytest.mark.skipif(not library.usable(), reason="the kernels need float32")

# trains and predicts; says how Theano's modules came to be and what the weights are
PROGRAM = """
import hashlib, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from gru4rec_toolkit import compilers, theano_setup
theano_setup.configure("cpu")

jobs, begin = [], compilers.start
def start(command, urgency, what):
    jobs.append((urgency, what))
    return begin(command, urgency, what)
compilers.start = start
compiledir = Path(theano_setup.theano.config.compiledir)
modules = {{path for path in compiledir.glob("tmp*/*.so")}}

{before}
{compute}
print("result", hashlib.sha256(result).hexdigest())
new = {{path for path in compiledir.glob("tmp*/*.so")}} - modules
print("modules", len(new), sum(urgency == compilers.MODULE for urgency, _ in jobs))
print("locked", (compiledir / "lock_dir").exists())
print("headers", sum(urgency == compilers.HEADERS for urgency, _ in jobs))
"""
TRAINING = f"""
import pandas as pd
from gru4rec import GRU4Rec
gru = GRU4Rec(layers=[16], batch_size=32, n_epochs=1, n_sample=64, {{parameters}})
gru.fit(pd.read_csv({str(TRAIN)!r}, sep="\\t"))
result = b"".join(array.tobytes() for array in gru.weights().values())
"""
PARAMETERS = """
    loss='top1', final_act='tanh', adapt='adam', momentum=0.3, logq=0.5, lmbd=0.01, grad_cap=1.0,
    embedding=8, dropout_p_hidden=0.2, dropout_p_embed=0.3, hidden_act='relu'
"""
# modules of Theano's own Ops, which need no library
MODULES = """
import numpy as np
from gru4rec_toolkit.theano_setup import theano, tensor as tt
x = tt.fmatrix()
outputs = [x * 2, x[1:], x[:, 1:] - x[:, :-1], tt.exp(x).sum(axis=0), x.max(axis=1)]
outputs.append(tt.concatenate([x, x]))
values = theano.function([x], outputs)(np.eye(3, dtype="f"))
result = b"".join(np.asarray(value).tobytes() for value in values)
"""


def program(compute: str, before: str) -> str:
    return PROGRAM.format(root=str(ROOT), compute=compute, before=before)


def environment_of(directory: Path) -> dict[str, str | None]:
    """Return what gives a process a cache and a temporary directory of its own."""
    temporary = directory / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    cache = str(directory / "cache")
    return {
        "XDG_CACHE_HOME": cache,
        "TMPDIR": str(temporary),
        "THEANO_FLAGS": None,
        "THEANORC": None,
    }


def run(directory: Path, compute: str, before="") -> dict[str, list[str]]:
    """Compute something with a directory's own cache; return what the program says."""
    env = environment_of(directory)
    done = succeeds(python("-c", program(compute, before), cwd=directory, **env))
    assert "error" not in done.err.lower() and "Compiling" not in done.err
    left = Path(env["TMPDIR"]).iterdir()
    assert [path.name for path in left if path.name.startswith("gru4rec")] == []
    return {line.split()[0]: line.split()[1:] for line in done.lines if line[0].islower()}


def train(directory: Path, parameters: str, before="") -> dict[str, list[str]]:
    return run(directory, TRAINING.format(parameters=parameters), before)


def libraries(directory: Path) -> set[str]:
    """Return the parts of the library in a cache, without the digests."""
    paths = directory.glob("cache/**/libgru4rec_*.so")
    return {"_".join(path.stem.split("_")[2:]) for path in paths}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A directory with the cache of a training, and what that said."""
    directory = tmp_path_factory.mktemp("trained")
    return directory, train(directory, PARAMETERS)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What the program of the modules says."""
    said = run(tmp_path_factory.mktemp("compiled"), MODULES)
    assert int(said["modules"][0]) >= compile_ahead._WORTH_HEADERS
    return said


def test_modules_are_compiled_ahead(trained, compiled):
    """The modules of a graph come from compilers that run beside each other."""
    for said in (trained[1], compiled):
        needed, ahead = map(int, said["modules"])
        # what Theano computes while it simplifies a graph is compiled then
        assert ahead > 5 and needed - ahead in (0, 1)
        assert said["headers"] == ["1"] and said["locked"] == ["False"]


def test_nothing_is_compiled_again(trained):
    directory, said = trained
    again = train(directory, PARAMETERS)
    assert again == {**said, "modules": ["0", "0"], "headers": ["0"]}


def test_the_parts_are_those_that_are_needed(trained):
    directory, _ = trained
    expected = {"gru_relu", "losses_top1_tanh", "updates_adam_1", ""}
    assert libraries(directory) == expected


# what sets how modules are compiled back to Theano's own way
THEANOS_WAY = """
from gru4rec_toolkit import compile_ahead
compile_ahead._start = lambda graph, libraries: None
compile_ahead._lean = list
"""


def test_results_are_those_of_theanos_way_of_compiling(trained, tmp_path):
    """To the bit, after thirty steps and more."""
    theirs = train(tmp_path, PARAMETERS, THEANOS_WAY)
    needed, ahead = map(int, theirs["modules"])
    assert needed > 15 and ahead == 0
    assert trained[1]["result"] == theirs["result"]


NO_THREAD = """
class NoThread(compilers.threading.Thread):
    def start(self):
        raise RuntimeError("can't start new thread")
compilers.threading.Thread = NoThread
"""


@pytest.mark.parametrize("before", ["compilers.available_cores = lambda: 1", NO_THREAD])
def test_one_core_and_no_thread(compiled, tmp_path, before):
    """The only one that runs compilers is not kept by a module that waits for the headers."""
    assert run(tmp_path, MODULES, before) == compiled


FAILING_HEADERS = """#!/bin/sh
case "$*" in *c++-header*) echo headers >> {log}; exit 1;; esac
exec g++ "$@"
"""


def test_headers_that_cannot_be_compiled(compiled, tmp_path):
    compiler, log = tmp_path / "compiler", tmp_path / "log"
    compiler.write_text(FAILING_HEADERS.format(log=log))
    compiler.chmod(0o755)
    before = f"import theano; theano.config.cxx = {str(compiler)!r}"
    assert run(tmp_path, MODULES, before) == compiled
    assert log.read_text() == "headers\n"


FORK = """
import os
from gru4rec_toolkit.ops import library
assert library.start()
child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
library.load()
"""


def test_a_process_that_was_forked_compiles_for_itself(compiled, tmp_path):
    """The threads that run compilers stay in the parent, which leaves its files to nobody here."""
    env = environment_of(tmp_path)
    done = succeeds(python("-c", program(MODULES, FORK), cwd=tmp_path, **env))
    assert f"result {compiled['result'][0]}" in done.out
    assert libraries(tmp_path) == {""}


CHILD = """
import multiprocessing, sys
sys.path.insert(0, {root!r})
from gru4rec_toolkit.ops import library

def begin():
    assert library.start()

child = multiprocessing.get_context("fork").Process(target=begin)
child.start()
child.join()
print("ended", child.exitcode)
"""


def test_compilers_do_not_outlive_a_child_of_multiprocessing(tmp_path):
    """It leaves without what atexit would do."""
    env = environment_of(tmp_path)
    done = succeeds(python("-c", CHILD.format(root=str(ROOT)), cwd=tmp_path, **env))
    assert done.lines == ["ended 0"]
    assert compilers_of(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []


# the end takes a while after the compilers were ended: none may begin another job then
BEGIN = """
import atexit, sys, time
atexit.register(time.sleep, 1)
sys.path.insert(0, {root!r})
from gru4rec_toolkit.ops import library
assert library.start()
print("begun", flush=True)
{then}
"""


def compilers_of(directory: Path) -> list[str]:
    """Return the command lines of the compilers that work below a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if words[0].endswith("cc1plus") and str(directory) in " ".join(words):
            found.append(" ".join(words))
    return found


@pytest.mark.parametrize("then", ["", "raise KeyboardInterrupt"])
def test_compilers_do_not_outlive_the_process(tmp_path, then):
    """Nor does what they wrote."""
    env = environment_of(tmp_path)
    done = python("-c", BEGIN.format(root=str(ROOT), then=then), cwd=tmp_path, **env)
    assert done.lines == ["begun"], done.err
    assert compilers_of(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_two_processes_with_one_empty_cache(compiled, tmp_path):
    """Both get their results, and what they leave is complete."""
    command = [sys.executable, "-c", program(MODULES, "")]
    options = {"cwd": tmp_path, "env": environment(**environment_of(tmp_path)), "text": True}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, **options) for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(f"result {compiled['result'][0]}" in output for output in outputs)
    assert run(tmp_path, MODULES)["modules"] == ["0", "0"]


def test_a_terminal_shows_what_is_being_compiled(tmp_path):
    """What it is, and how many files of how many are done."""
    options = ["-ps", "loss=bpr-max,layers=16,batch_size=32,n_epochs=1,n_sample=64"]
    done = on_terminal(
        *(ROOT / "run.py", TRAIN, *options),
        cwd=tmp_path,
        columns=100,
        **environment_of(tmp_path),
        TERM="dumb",
    )
    shown = succeeds(done).err
    lines = [line for line in shown.split("\r") if line.startswith("Compiling")]
    assert any("kernels: " in line for line in lines), shown
    assert any("Subtensor" in line for line in lines)
    done, total = zip(*(map(int, re.search(r"(\d+)/(\d+) \[", line).groups()) for line in lines))
    assert len(set(total)) == 1 and total[0] > 20
    assert list(done) == sorted(done) and done[0] == 0 and done[-1] > total[0] / 2
