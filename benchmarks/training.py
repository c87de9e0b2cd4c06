"""Training speed beside the limit that the step's matrix products set.

    python -m benchmarks.training [--data FILE] [--rounds N] [--other COMMAND] [NAME ...]

Each round times whole epochs of training, drawing included, with and without merging equal
negatives, and any other implementation. The limits, the matrix products alone by BLAS, are timed
within the same epochs: every tenth of a second of training is followed by as much of a limit, so
that a neighbour's work on a shared machine meets both alike. Only ratios within a run mean
anything. There are two: of all columns of the scores, and of those that are left when equal
negatives are merged, which is what the training has to compute.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import itertools
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import options, tables
from benchmarks.results import Results
from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import InputError, run_cli

ROOT = Path(__file__).resolve().parents[1]
NAMES = {
    "rsc15": "rsc15_xe_shared_100_best.py",
    "retailrocket": "retailrocket_bprmax_shared_best.py",
    "yoochoose": "yoochoose_xe_shared_best.py",
    "diginetica": "diginetica_bprmax_shared_best.py",
    "coveo": "coveo_bprmax_shared_best.py",
    "rees46": "rees46_xe_shared_best.py",
}
EPOCHS_SECONDS = 0.5
# seconds of training, then of the limit
SLICE_SECONDS = 0.1
# keeps a core busy until the process that has started it is gone, even if that was killed
BUSY = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(100000):
        pass
"""
# what another implementation can be given, by its names in a command
FILES = ("data", "parameters", "port_parameters")
# a way to compute the limit's products that takes so many times as long is not tried again
CLEARLY = 3
# BLAS's threads spin for a while and would slow what runs next
BLAS_SPINS_SECONDS = 0.3


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    options.add_names(parser, NAMES)
    options.add_log(parser)
    options.add_rounds(parser, 9)
    parser.add_argument(
        "--other",
        metavar="COMMAND",
        type=other_command,
        action="append",
        default=[],
        help="another implementation, such as 'python DIRECTORY/run.py {data} -pf {parameters}': "
        "it trains for an epoch and prints '... mb/s'; {port_parameters} is a file as the official "
        "PyTorch port reads it",
    )
    parser.add_argument(
        "--beside",
        metavar="NICE",
        type=int,
        choices=range(20),
        help="measure beside another process of this niceness, 0 to 19, which keeps a core busy",
    )
    options.add_json(parser)
    args = parser.parse_args()
    options.check_names(parser, args, NAMES)
    results = Results(args)

    from gru4rec_toolkit import theano_setup

    print(theano_setup.configure())
    products = Products()
    log = read_log(args)
    print(
        "parameters    M x L       limit   merged  mb/s of training, of the limit, of the merged "
        "limit; without merging, of the limit; of others, of the limit (mini-batches/s; medians of "
        "interleaved rounds; worst and best round)"
    )
    failures = []
    with tempfile.TemporaryDirectory() as directory, busy_process(args.beside):
        for name in args.names or NAMES:
            others = [Other(command, name, log, Path(directory)) for command in args.other]
            print(measure(name, log, products, others, args.rounds, results), flush=True)
            failures += [other.failed for other in others if other.failed]
    if failures:
        raise SystemExit("\n".join(failures))


def other_command(text: str) -> list[str]:
    """Return the words of an option's command, whose names in braces `Other` knows."""
    try:
        words = shlex.split(text)
        for word in words:
            word.format(**dict.fromkeys(FILES, ""))
    except (ValueError, LookupError, AttributeError) as err:
        names = ", ".join(f"{{{name}}}" for name in FILES)
        raise argparse.ArgumentTypeError(
            f"expected a command as a shell takes it, with {names} in it or other braces doubled, "
            f"got {text!r} ({err})"
        ) from None
    if not words:
        raise argparse.ArgumentTypeError("expected a command, got nothing")
    return words


@contextlib.contextmanager
def busy_process(nice: int | None) -> Iterator[None]:
    """Let a process of this niceness compute meanwhile; None: there is none."""
    if nice is None:
        yield
        return
    endless = [sys.executable, "-c", BUSY, str(os.getpid())]
    busy = subprocess.Popen(["nice", "-n", str(nice), *endless])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


class Products:
    """The products of ``products.cpp``, compiled and linked with the kernels' team."""

    def __init__(self) -> None:
        from gru4rec_toolkit import theano_setup
        from gru4rec_toolkit.ops import library
        from gru4rec_toolkit.theano_setup import theano

        self.kernels = library.load()
        self.threads = theano_setup.configure().threads
        config = theano.config
        with tempfile.TemporaryDirectory() as directory:
            target = str(Path(directory) / "products.so")
            kernels = library.path()
            subprocess.run(
                [
                    config.cxx,
                    "-O3",
                    "-shared",
                    "-fPIC",
                    f"-DBLAS_SGEMM={theano_setup.configure().sgemm}",
                    str(ROOT / "benchmarks" / "products.cpp"),
                    "-o",
                    target,
                    str(kernels),
                    f"-Wl,-rpath,{kernels.parent}",
                    *shlex.split(config.blas.ldflags),
                ],
                check=True,
            )
            self.library = ctypes.CDLL(target)
        self.library.time_products.restype = ctypes.c_double

    def seconds(self, team: bool, n_steps: int, sizes: tuple[int, int, int]) -> float:
        """Time steps of M sessions, L units, N output items; by the team or by BLAS's threads."""
        self._set_blas_threads(1 if team else self.threads)
        self.kernels.gk_use_tiles(0)
        seconds = self.library.time_products(int(team), ctypes.c_long(n_steps), *sizes)
        self.kernels.gk_use_tiles(1)
        if not team:
            self._set_blas_threads(1)
            time.sleep(BLAS_SPINS_SECONDS)
        return seconds

    def _set_blas_threads(self, n: int) -> None:
        for prefix in ("scipy_", ""):
            set_threads = getattr(self.kernels, f"{prefix}openblas_set_num_threads", None)
            if set_threads is not None:
                set_threads(n)


class Limit:
    """The speed of the products of steps of some size, in slices of a training's time.

    BLAS works on the kernels' team or on its own threads, whichever is faster.

    Parameters
    ----------
    products : Products
    sizes : (int, int, int)
        Sessions of a mini-batch, units, columns of the scores.
    """

    def __init__(self, products: Products, sizes: tuple[int, int, int]) -> None:
        self.products, self.sizes = products, sizes
        on_team, by_itself = self._try(n_steps=5, n_times=3, of_times=min)  # the first wake threads
        self.n_steps = max(1, round(5 * SLICE_SECONDS / min(on_team, by_itself)))
        # with more threads than cores one of them can take a hundred times as long
        if max(on_team, by_itself) < CLEARLY * min(on_team, by_itself):
            on_team, by_itself = self._try(self.n_steps, 9, statistics.median)
        self.team = on_team <= by_itself
        self.start()

    def _try(self, n_steps: int, n_times: int, of_times: Callable) -> list[float]:
        """Time steps on the team and on BLAS's threads, in turns; return the seconds of both."""
        tries = [
            [self.products.seconds(team, n_steps, self.sizes) for team in (True, False)]
            for _ in range(n_times)
        ]
        return [of_times(column) for column in zip(*tries)]

    def start(self) -> None:
        """Count from zero."""
        self.n_done, self.spent = 0, 0.0

    def run(self) -> None:
        """Run as many steps as a slice holds."""
        self.spent += self.products.seconds(self.team, self.n_steps, self.sizes)
        self.n_done += self.n_steps

    def rate(self) -> float:
        """Steps per second since `start`."""
        return self.n_done / self.spent


def read_log(args: argparse.Namespace):
    """Return the click log that the arguments name."""
    from gru4rec_toolkit.data import events

    if args.data is not None:
        return events.read_events(args.data, announce=False)
    return synthetic_log(args.events, args.items)


def synthetic_log(n_events: int, n_items: int, seed: int = 1):
    """Draw a log: sessions of geometric lengths on items of Zipf popularity."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, n_items + 1) ** 0.8
    lengths = 1 + rng.geometric(0.3, size=n_events)
    sessions = np.repeat(np.arange(n_events), lengths)[:n_events]
    items = rng.permutation(n_items)[rng.choice(n_items, n_events, p=weights / weights.sum())]
    return pd.DataFrame({"SessionId": sessions, "ItemId": items, "Time": np.arange(n_events)})


def read_settings(name: str) -> dict:
    from gru4rec_toolkit import parameters

    return parameters.read_file(str(ROOT / "paramfiles" / NAMES[name]))


class Trainer:
    """A model whose training epochs can be timed one by one."""

    def __init__(self, settings: dict, data, merge: bool) -> None:
        import gru4rec
        from gru4rec_toolkit.data import schedule
        from gru4rec_toolkit.data.sessions import index_sessions
        from gru4rec_toolkit.model import training, weights

        training.MERGE_BELOW = 1.01 if merge else 0
        model = gru4rec.GRU4Rec(**settings)
        self.log = index_sessions(data, "SessionId", "ItemId", "Time", source="data")
        network = gru4rec.Network(model.settings, weights.initial(model.settings, self.log.n_items))
        self.model, self.merge = model, merge
        self.training = training.Training(network, self.log, 10_000_000, True)
        # mini-batches per second, a guess before the first epoch
        self.rate = 100.0
        self.order = schedule.training_order(self.log, model.time_sort)
        self.n_steps = schedule.count_steps(self.log, self.order, model.batch_size)
        if not self.n_steps:
            raise InputError(
                "a training needs a session with two events, and the log has none; give a larger "
                "one (--data, --events)"
            )
        self.events_a_step = (len(self.log.items) - len(self.order)) / self.n_steps

    def n_columns(self) -> int:
        """Return how many columns the scores of a mini-batch have in the mean."""
        from gru4rec_toolkit.model.negatives import expected_distinct

        size, n = self.model.batch_size, self.model.n_sample
        if not self.merge or n == 0:
            return size + n
        return size + round(expected_distinct(self.log.support, self.model.sample_alpha, n))

    def epochs(self, limits: Sequence[Limit] = ()) -> float:
        """Train for whole epochs, at least one; returns mini-batches per second.

        The clock stands while slices of the limits run, one after each slice of the training.
        """
        turns = itertools.cycle(limits)
        run_steps, paused = self.training.run_steps, 0.0
        slice_ends = time.perf_counter() + SLICE_SECONDS

        def run_slices(n: int) -> None:
            nonlocal paused, slice_ends
            n_a_slice = max(1, int(SLICE_SECONDS * self.rate / 4))
            for first in range(0, n, n_a_slice):
                run_steps(min(n_a_slice, n - first))
                start = time.perf_counter()
                if start > slice_ends:
                    next(turns).run()
                    paused += time.perf_counter() - start
                    slice_ends = time.perf_counter() + SLICE_SECONDS

        if limits:
            self.training.run_steps = run_slices
        start, n_steps = time.perf_counter(), 0
        while n_steps == 0 or time.perf_counter() - start - paused < EPOCHS_SECONDS:
            with contextlib.redirect_stdout(io.StringIO()):
                self.training.run_epoch()
                self.training.next_epoch()
                self.training.epoch = 0  # an epoch like all others
            n_steps += self.n_steps
        self.training.run_steps = run_steps
        self.rate = n_steps / (time.perf_counter() - start - paused)
        return self.rate

    def prepare_block(self, n_steps: int):
        """Upload a block of steps.

        Returns a function that goes back to its beginning, one that runs n of its steps, and how
        many it has.
        """
        import numpy as np

        from gru4rec_toolkit.data import schedule

        t, size = self.training, self.model.batch_size
        block = next(schedule.schedule_blocks(self.log, self.order, size, n_steps))
        t.reset_states()
        t.costs.set_value(np.zeros(n_steps, dtype=np.float32))
        t.block.upload(block, t.states)
        n_steps = len(block.inputs)
        t.store.serve(n_steps, n_steps)

        def rewind() -> None:
            t.block.step.set_value(np.int64(0))
            t.store.row.set_value(np.int64(0))

        return rewind, t.run_steps, n_steps


class Other:
    """Another implementation: a command that trains for an epoch and prints its speed.

    In the command, ``{data}`` stands for a tab separated file, ``{parameters}`` for a parameter
    file of the reference, and ``{port_parameters}`` for one of the official PyTorch port, which
    knows no ``final_act``: its bpr-max takes elu's constant as ``elu_param``.
    """

    def __init__(self, command: Sequence[str], name: str, data, directory: Path) -> None:
        settings = {**read_settings(name), "n_epochs": 1}
        files = {
            "parameters": write_parameters(directory / NAMES[name], settings),
            "port_parameters": write_parameters(
                directory / f"port_{NAMES[name]}", port_settings(settings)
            ),
            "data": directory / "data.tsv",
        }
        if not files["data"].exists():
            data.to_csv(files["data"], sep="\t", index=False)
        self.command = [word.format(**files) for word in command]
        self.failed = ""

    def __call__(self) -> float | None:
        """Return mini-batches per second of the last epoch; None once the command has failed.

        The table of the others goes on without it, and what it wrote follows the table.
        """
        if self.failed:
            return None
        try:
            done = subprocess.run(self.command, capture_output=True, text=True)
        except OSError as err:
            self.failed = f"{shlex.join(self.command)}: {err.strerror}"
            return None
        speed = self.speed(done.stdout + done.stderr)
        if done.returncode or speed is None:
            end = (done.stderr.strip() or done.stdout.strip())[-2000:]
            self.failed = (
                f"{shlex.join(self.command)} printed no speed, exit code {done.returncode}:\n{end}"
            )
            return None
        return speed

    @staticmethod
    def speed(output: str) -> float | None:
        """Return mini-batches per second of the last epoch that an output names."""
        speeds = re.findall(r"([\d.]+) mb/s", output)
        return float(speeds[-1]) if speeds else None


def port_settings(settings: dict) -> dict:
    """Return the parameters as the official PyTorch port names them."""
    renamed = {name: value for name, value in settings.items() if name != "final_act"}
    if settings["loss"] == "bpr-max":
        kind, _, constant = settings["final_act"].partition("-")
        if kind not in ("elu", "linear"):
            raise SystemExit(f"final_act={settings['final_act']}: the port knows elu and linear")
        renamed["elu_param"] = float(constant) if kind == "elu" else 0.0
    return renamed


def write_parameters(path: Path, settings: dict) -> Path:
    """Write a parameter file in the reference's format; return its path."""
    lines = "".join(f"    {pair!r},\n" for pair in settings.items())
    path.write_text(
        f"from collections import OrderedDict\ngru4rec_params = OrderedDict([\n{lines}])\n"
    )
    return path


def spread(ratios: list[float]) -> str:
    """Return the median, and in brackets the worst and the best."""
    return f"{statistics.median(ratios):5.0%} ({min(ratios):.0%} to {max(ratios):.0%})"


def measure(
    name: str, data, products: Products, others: list[Other], n_rounds: int, results: Results
) -> str:
    settings = read_settings(name)
    trainers = [Trainer(settings, data, merge) for merge in (True, False)]
    m, n = trainers[0].model.batch_size, trainers[0].model.layers[0]
    limits = [Limit(products, (m, n, trainer.n_columns())) for trainer in trainers]
    rates: list[list[float | None]] = []  # of a round: both trainings, the others
    speeds: list[list[float]] = []  # of a round: both limits
    for _ in range(n_rounds):
        for limit in limits:
            limit.start()
        rates.append([trainer.epochs(limits) for trainer in trainers])
        speeds.append([limit.rate() for limit in limits])
        rates[-1] += [other() for other in others]
    merged_limit, limit_of_all = zip(*speeds)
    training, without_merging, *of_others = zip(*rates)
    results.add(
        parameters=name,
        batch_size=m,
        units=n,
        limit=limit_of_all,
        merged_limit=merged_limit,
        training=training,
        without_merging=without_merging,
        others=of_others,
    )
    columns = [median_of(limit_of_all), median_of(merged_limit)]
    columns += [median_of(training), spread(tables.ratios(training, limit_of_all))]
    columns += [spread(tables.ratios(training, merged_limit))]
    for found in (without_merging, *of_others):
        if None in found:
            columns.append("  failed")
        else:
            columns += [median_of(found), spread(tables.ratios(found, limit_of_all))]
    return f"{name:<13} {m:>3} x {n:<4} {' '.join(columns)}"


def median_of(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):8.1f}"


if __name__ == "__main__":
    run_cli(main)
