"""Theano's faults that cost a long training its memory or its compiled modules, or its Adam."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np

from gru4rec_toolkit.theano_setup import theano

ROOT = Path(__file__).resolve().parents[1]


def test_rows_are_set_once_however_often_they_come_up():
    table = theano.shared(np.zeros(3, dtype=np.float32))
    index = theano.tensor.ivector()
    counted = theano.tensor.set_subtensor(table[index], table[index] + 1)
    count = theano.function([index], updates=[(table, counted)])
    count(np.array([2, 0, 2, 2], dtype=np.int32))
    count(np.array([2], dtype=np.int32))
    assert table.get_value().tolist() == [1, 0, 2]


def test_looking_up_rows_frees_its_buffers_when_their_size_changes():
    table = theano.shared(np.ones((60, 500), dtype=np.float32))
    index = theano.shared(np.zeros(1, dtype=np.int32))
    total = theano.shared(np.float32(0))
    function = theano.function([], [], updates=[(total, (table[index] * 2).sum())])

    def run():
        for n in range(1, 40):
            index.set_value(np.zeros(n, dtype=np.int32))
            function.fn(n_calls=3)

    run()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(5):
        run()
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < 100_000  # one run's buffers are 1.6 MB


def test_the_keys_of_a_compiled_module_are_whole_at_any_time(tmp_path, monkeypatch):
    """A process that starts while another one writes them deletes the module if it finds half."""
    path = tmp_path / "key.pkl"
    data = theano.gof.cmodule.KeyData(set(), "hash", str(path), "module.so")
    data.add_key(((1,), "first"))
    seen = []

    def dump(*args, **options):
        seen.append(pickle.loads(path.read_bytes()).keys)  # what another process would find now
        return original(*args, **options)

    original = pickle.dump
    monkeypatch.setattr(pickle, "dump", dump)
    data.add_key(((1,), "second"))
    assert seen == [{((1,), "first")}]
    assert len(pickle.loads(path.read_bytes()).keys) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["key.pkl"]


PROGRAM = """
import numpy as np
from gru4rec_toolkit.theano_setup import theano
from gru4rec_toolkit.theano_setup import tensor as tt

compile_module = theano.gof.cc.CLinker.compile_cmodule
n_compiled = []
def count(*args):
    n_compiled.append(1)
    return compile_module(*args)
theano.gof.cc.CLinker.compile_cmodule = count
x, i, step = tt.fmatrix(), tt.ivector(), theano.shared(np.int64(1))
# transposes have their code in files; looking up rows and numbers are Ops without properties
function = theano.function([x, i], [x.T[i], x[step]])
function(np.ones((2, 3), dtype=np.float32), np.array([0, 2], dtype=np.int32))
print(len(n_compiled))
"""


def test_a_compilation_leaves_standard_output_alone(monkeypatch):
    """Where Ctrl-C comes at the end of a redirection, it would stay redirected."""
    seen = []
    cache = theano.gof.cmodule.ModuleCache
    get_from_key = cache._get_from_key
    monkeypatch.setattr(
        cache, "_get_from_key", lambda *args: (seen.append(sys.stdout), get_from_key(*args))[1]
    )
    x = theano.tensor.fvector()
    theano.function([x], x * np.float32(3))
    assert seen and all(stream is sys.stdout for stream in seen)


def test_a_second_process_compiles_nothing():
    def run():
        command = [sys.executable, "-c", PROGRAM]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return int(result.stdout)

    run()
    assert run() == 0
