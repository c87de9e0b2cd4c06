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


SHARES = """
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <sched.h>
#include <time.h>
#include "team.h"

long nanoseconds() {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

int main(int, char** arguments) {
    const int threads = atoi(arguments[1]), calls = atoi(arguments[2]);
    if (atoi(arguments[3])) team::simulate(true);
    team::resize(threads);
    static std::atomic<int> done[257];
    unsigned random = 1;
    for (int call = 0; call < calls; call++) {
        random = random * 1664525u + 1013904223u;
        const int n = 1 + (random >> 16) % threads;
        std::atomic<int> wrong{0};
        team::run(n, [&](int t, int of) {
            wrong += of != n || t < 0 || t >= n;
            // some threads lose their turn
            if ((random >> 8) % 7 == unsigned(t) % 7) sched_yield();
            done[t]++;
        });
        for (int t = 0; t <= 256; t++) wrong += done[t].exchange(0) != (t < n);
        if (wrong) return printf("call %d of %d shares: %d wrong\\n", call, n, int(wrong)), 1;
    }
    printf("%d %d %d %d\\n", team::size_for(1e3), team::size_for(4e4), team::size_for(1e9),
           team::size_for_numbers(100));
    team::nanoseconds_saved();
    const long start = nanoseconds();
    team::run(4, [&](int, int) {
        for (const long began = nanoseconds(); nanoseconds() < began + 1000000;) {}
    });
    const long spent = nanoseconds() - start;
    printf("%f %ld\\n", team::nanoseconds_saved(), spent);
}
"""


SLEEP = """
#include <cstdio>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <atomic>
#include "team.h"

long sleeps() {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return use.ru_nvcsw;
}

void nap(long milliseconds) {
    struct timespec time = {0, 1000000 * milliseconds};
    nanosleep(&time, nullptr);
}

// Whether other threads than the caller's come to help it, before long.
bool is_helped() {
    const pthread_t caller = pthread_self();
    std::atomic<int> helped{0};
    for (int call = 0; call < 1000 && !helped; call++)
        team::run(4, [&](int, int) {
            helped += !pthread_equal(pthread_self(), caller);
            nap(1);
        });
    return helped > 0;
}

int main() {
    team::resize(4);
    printf("%d ", is_helped());
    nap(50);
    const long before = sleeps();
    nap(500);
    printf("%d ", sleeps() - before < 200);
    printf("%d ", is_helped());
    fflush(stdout);
    nap(50);
    if (fork() == 0) {  // the others sleep, in the first process alone
        printf("%d\\n", is_helped());
        return 0;
    }
    wait(nullptr);
}
"""


def compiled(folder: Path, code: str) -> Path:
    """Return a program of the team and this code."""
    (folder / "main.cpp").write_text(code)
    sources = ROOT / "gru4rec_toolkit" / "ops" / "shared"
    command = ["g++", "-std=c++17", "-O2", "-pthread", f"-I{sources}", str(folder / "main.cpp")]
    command += [str(sources / "team.cpp"), "-o", str(folder / "main")]
    subprocess.run(command, check=True)
    return folder / "main"


def test_threads_without_work_sleep_until_there_is_some(tmp_path):
    """They help before and after, and in half a second without work hardly ever wake."""
    done = subprocess.run([str(compiled(tmp_path, SLEEP))], capture_output=True, timeout=60)
    assert done.stdout == b"1 1 1 1\n"


@pytest.fixture(scope="module")
def shares(tmp_path_factory) -> Path:
    """Return a program that counts how often each share of a call is done."""
    return compiled(tmp_path_factory.mktemp("team"), SHARES)


@pytest.mark.parametrize(
    ("threads", "sizes"), [(1, "1 1 1 1"), (2, "2 2 2 1"), (8, "8 8 8 1"), (32, "8 20 32 1")]
)
@pytest.mark.parametrize("simulated", [False, True])
def test_each_share_is_done_once(shares, threads, sizes, simulated):
    """Calls of all numbers of shares follow each other, with more threads than processors."""
    command = [str(shares), str(threads), str(20000 if threads < 32 else 4000), str(int(simulated))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    sizes_found, last_call = done.stdout.splitlines()
    assert sizes_found == sizes
    saved, spent = map(float, last_call.split())
    # of four shares that take a millisecond each, or more, all but the longest; 100 ns a thread
    assert 3e6 - 400 <= saved <= spent - 1e6 - 400 if simulated else saved == 0
