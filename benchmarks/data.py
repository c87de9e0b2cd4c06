"""Time and memory of what comes before the first step: ``python -m benchmarks.data [EVENTS ...]``.

For each number of synthetic events (default: 1, 5, 10, 50 million) a process of its own reads them
from a tab separated file, indexes them, schedules an epoch, and trains a block of steps. Each line
gives a stage's seconds, the memory that it left behind, and its peak above what was in use when it
began. The last two lines are the speed of the training and the peak of the whole process.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import options
from benchmarks.parts import output_of
from benchmarks.results import Results
from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import run_cli

SETTINGS = {
    "loss": "cross-entropy",
    "final_act": "softmax",
    "constrained_embedding": True,
    "layers": [100],
    "batch_size": 32,
    "n_sample": 2048,
    "n_epochs": 1,
}
PAGE = 4096
SPEED_BLOCKS = 8


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    options.add_sizes(parser)
    options.add_json(parser)
    parser.add_argument("--child", metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run_stages(args.child)
        return
    results = Results(args)
    print(
        "events      stage       seconds  ns an event   kept, MB  bytes an event   "
        "peak, MB  bytes an event"
    )
    for n_events in args.events:
        with tempfile.TemporaryDirectory() as directory:
            path = str(Path(directory) / "events.tsv")
            write_log(path, n_events, args.items)
            command = [sys.executable, "-m", "benchmarks.data", "--child", path]
            stages, whole = {}, {}
            for line in output_of(command).splitlines():
                kind, *_ = line.split()
                if kind in ("speed", "whole"):
                    whole[kind] = float(line.split()[1])
                if kind == "speed":
                    print(f"{n_events:<11d} {float(line.split()[1]):.0f} mini-batches/s")
                if kind == "whole":
                    print(f"{n_events:<11d} whole process, peak: {float(line.split()[1]):.0f} MB")
                if kind != "stage":
                    continue
                _, stage, *numbers = line.split()
                seconds, kept, peak = map(float, numbers)
                stages[stage] = {"seconds": seconds, "kept": kept, "peak": peak}
                print(
                    f"{n_events:<11d} {stage:<10} {seconds:8.2f} {1e9 * seconds / n_events:12.0f} "
                    f"{kept / 1e6:10.0f} {kept / n_events:15.0f} {peak / 1e6:10.0f} "
                    f"{peak / n_events:15.0f}",
                    flush=True,
                )
            results.add(
                events=n_events, stages=stages, speed=whole["speed"], peak=1e6 * whole["whole"]
            )


def write_log(path: str, n_events: int, n_items: int) -> None:
    """Write a click log, part by part: sessions of geometric length, items of Zipf popularity."""
    from benchmarks.training import synthetic_log

    first_session, written = 0, 0
    while written < n_events:
        part = synthetic_log(min(5 * options.MILLION, n_events - written), n_items, seed=written)
        part["SessionId"] += first_session
        part["Time"] += written
        first_session = int(part["SessionId"].iloc[-1]) + 1
        part.to_csv(path, sep="\t", index=False, mode="a" if written else "w", header=not written)
        written += len(part)


class Stage:
    """Prints a stage's time, kept memory and peak memory, in bytes, when it is left."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.before = self.peak = resident()
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        self.start = time.perf_counter()

    def _watch(self) -> None:
        while not self.over.wait(0.005):
            self.peak = max(self.peak, resident())

    def __exit__(self, *_) -> None:
        seconds = time.perf_counter() - self.start
        self.over.set()
        self.watcher.join()
        kept = resident() - self.before
        print("stage", self.name, seconds, kept, max(kept, self.peak - self.before))


def resident() -> int:
    """Return the bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def run_stages(path: str) -> None:
    from tqdm import tqdm

    import gru4rec
    from gru4rec_toolkit.data import events, schedule, sessions
    from gru4rec_toolkit.model import training, weights

    gru4rec.GRU4Rec(**SETTINGS).fit(synthetic_start())  # compiles, starts the threads
    with Stage("read"):
        data = events.read_events(path, announce=False)
    with Stage("index"):
        log = sessions.index_sessions(data)
    with Stage("schedule"):
        order = schedule.training_order(log, time_sort=True)
        schedule.count_steps(log, order, SETTINGS["batch_size"])
        blocks = schedule.schedule_blocks(log, order, SETTINGS["batch_size"], training.BLOCK_STEPS)
        for _ in blocks:
            pass
    del data, order
    with Stage("weights"):
        model = gru4rec.GRU4Rec(**SETTINGS)
        network = gru4rec.Network(model.settings, weights.initial(model.settings, log.n_items))
    with Stage("training"):
        run = training.Training(network, log, 10_000_000, True)
        order = schedule.training_order(log, time_sort=True)
        blocks = schedule.schedule_blocks(log, order, model.batch_size, training.BLOCK_STEPS)
        run.reset_states()
        with tqdm(disable=True) as progress:
            run.run_block(next(blocks), training.BLOCK_STEPS, progress)
    n_steps, start = 0, time.perf_counter()
    with tqdm(disable=True) as progress:
        for block in itertools.islice(blocks, SPEED_BLOCKS):
            run.run_block(block, training.BLOCK_STEPS, progress)
            n_steps += len(block.inputs)
    print("speed", n_steps / (time.perf_counter() - start))
    print("whole", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def synthetic_start():
    from benchmarks.training import synthetic_log

    return synthetic_log(2000, 50)


if __name__ == "__main__":
    run_cli(main)
