"""The team of threads beside other processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.cli import ROOT

from gru4rec_toolkit.ops import library

pytestmark = [
    pytest.mark.skipif(not library.usable(), reason="the kernels need float32"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors"),
]

# products by two threads until somebody closes its standard input
PRODUCTS = f"""
import select, sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from gru4rec_toolkit.ops import library
from gru4rec_toolkit.ops.products.op import Product
from gru4rec_toolkit.theano_setup import theano, tensor as tt
team = library.load()
team.gk_set_threads(2)
a = theano.shared(np.ones((48, 480), dtype=np.float32))
b = theano.shared(np.ones((480, 1600), dtype=np.float32))
c = theano.shared(np.ones((48, 1600), dtype=np.float32))
function = theano.function([], [], updates=[(c, Product()(a, b))])
function.fn(n_calls=1)  # starts the other thread
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    function.fn(n_calls=50)
"""


def threads_of(process: int) -> dict[int, tuple[int, int]]:
    """Return each thread's processor and the ticks that it has run for."""
    found = {}
    for thread in Path(f"/proc/{process}/task").iterdir():
        fields = (thread / "stat").read_text().rsplit(")", 1)[1].split()
        found[int(thread.name)] = int(fields[36]), int(fields[11]) + int(fields[12])
    return found


def test_two_threads_do_not_stay_on_one_core_beside_another_process():
    """Not even beside one of the lowest priority, which would have a core to itself."""
    busy = subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", "while True: pass"])
    team = subprocess.Popen(
        [sys.executable, "-c", PRODUCTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert team.stdout.readline() == b"ready\n"
        before = threads_of(team.pid)
        samples = []
        for _ in range(300):
            time.sleep(0.01)
            samples.append(threads_of(team.pid))
    finally:
        team.communicate(timeout=60)
        busy.kill()
        busy.wait()
    ran = {thread: ticks - before[thread][1] for thread, (_, ticks) in samples[-1].items()}
    ours = sorted(ran, key=ran.__getitem__)[-2:]
    assert team.pid in ours
    together = sum(len({sample[thread][0] for thread in ours}) == 1 for sample in samples)
    assert together < len(samples) / 2, (together, ran)
