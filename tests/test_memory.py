"""What a long training must not keep."""

from __future__ import annotations

import gc
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
