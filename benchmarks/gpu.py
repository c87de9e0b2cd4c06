"""Training speed on a GPU: ``python -m benchmarks.gpu [-d DEVICE] [--data FILE] [NAME ...]``.

For each of the public data sets' parameters: mini-batches and events per second over whole epochs,
drawing of negatives included, as a table ready to paste; the bytes that a step moves beside those
that it needs (`traffic`; with ``--bytes`` these alone, with ``--speed`` the first table alone);
then a step's time by Op. For the latter, every launch waits for its kernel on CUDA
(CUDA_LAUNCH_BLOCKING, in a process of its own), so that an Op's time is that of its kernels; beside
the time of a step without waiting it tells the GPU's share. On OpenCL, which cannot be told to
wait, it is the time of the launches alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from benchmarks import options, traffic
from benchmarks.profile import print_profile
from benchmarks.results import Results
from benchmarks.training import NAMES, Trainer, read_log, read_settings
from gru4rec_toolkit import arguments
from gru4rec_toolkit.arguments import add_device
from gru4rec_toolkit.errors import run_cli

COLUMNS = (
    "parameters",
    "mini-batch x units",
    "mini-batches/s",
    "events/s",
    "nodes",
    "transfers",
)


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    options.add_names(parser, NAMES)
    add_device(parser, default="cuda0")
    options.add_log(parser)
    options.add_rounds(parser, 5, help="of about half a second each")
    parser.add_argument("--steps", type=options.positive, default=200, help="that are profiled")
    parser.add_argument("--bytes", action="store_true", help="count them, and measure nothing")
    parser.add_argument("--speed", action="store_true", help="measure it, and nothing else")
    options.add_json(parser)
    parser.add_argument("--by-op", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    options.check_names(parser, args, NAMES)
    if args.device == "cpu":
        parser.error("-d cpu: this measures a GPU; benchmarks.training measures the CPU")

    from gru4rec_toolkit import theano_setup

    theano_setup.configure(args.device)
    log = read_log(args)
    if args.by_op:
        for name in args.names:
            print_profile(Trainer(read_settings(name), log, merge=True), args.steps)
        return
    results = Results(args)
    names = args.names or list(NAMES)
    if not args.bytes:
        print(f"{describe()}\n")
        print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
        for name in names:
            row = measure(name, log, args.rounds)
            print(f"| {' | '.join(row)} |", flush=True)
            results.add(**dict(zip(COLUMNS, row)))
        print()
    if args.speed:
        return
    print_bytes(names, log)
    if args.bytes:
        return
    for name in names:
        print(f"\n{name}:", flush=True)
        command = [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:]]
        command = [word for word in command if word not in names] + ["--by-op", name]
        subprocess.run(command, env={**os.environ, "CUDA_LAUNCH_BLOCKING": "1"}, check=True)


def print_bytes(names: list[str], log) -> None:
    """Print a table of the bytes that a step moves."""
    from gru4rec_toolkit.theano_setup import theano

    theano.config.allow_gc = False  # keeps a step's arrays, to look at them after it
    print(
        "| parameters | mini-batch x units | MB moved | needed | floor | of needed | of floor | "
        "most beyond needed | most beyond floor |"
    )
    print("|" + " --- |" * 9)
    for name in names:
        trainer = Trainer(read_settings(name), log, merge=True)
        print(traffic.table_row(name, trainer), flush=True)


def describe() -> str:
    """Return the device and the data that the figures belong to."""
    from theano.gpuarray.type import get_context

    from gru4rec_toolkit import theano_setup

    context = get_context(None)
    return f"{context.devname.strip()} ({theano_setup.configure().device})"


def measure(name: str, log, n_rounds: int) -> list[str]:
    """Return the cells of a row of the table."""
    settings = read_settings(name)
    trainer = Trainer(settings, log, merge=True)
    trainer.epochs()
    speeds = [trainer.epochs() for _ in range(n_rounds)]
    nodes = trainer.training.step_function.maker.fgraph.apply_nodes
    transfers = sum(type(n.op).__name__ in ("HostFromGpu", "GpuFromHost") for n in nodes)
    size, speed = trainer.model.batch_size, statistics.median(speeds)
    return [
        name,
        f"{size} x {trainer.model.layers[0]}",
        f"{speed:.1f} ({min(speeds):.1f} to {max(speeds):.1f})",
        f"{speed * trainer.events_a_step:.0f}",
        str(len(nodes)),
        str(transfers),
    ]


if __name__ == "__main__":
    run_cli(main)
