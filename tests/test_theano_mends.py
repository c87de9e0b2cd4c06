"""Theano's faults that would cost a long training its memory, or its compiled modules."""

from __future__ import annotations

import gc
import pickle
import tracemalloc

import numpy as np

from theano_setup import theano


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
