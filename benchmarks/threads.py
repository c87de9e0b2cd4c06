"""What more threads would give a training, modelled: ``python -m benchmarks.threads [NAME ...]``.

A machine with more cores is simulated on one of them (``ops/shared/team.h``): the shares of every
piece of a step's work run one after the other, and the piece counts as long as its longest share,
and as the time that each of its threads costs. So what cannot be shared out (Amdahl), what is
shared out unevenly and how many threads the kernels find worth a piece are measured, not assumed.
Memory is not in the model: all shares use the cache of one core, which is smaller, and its way to
the memory, which they have for themselves. The last column says what the caches and the memory
would have to bear: the bytes of the weights, gradients and optimizer's states that a step reads and
writes, by the time that it would take.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import time
from collections.abc import Iterator

from benchmarks import options, tables
from benchmarks.results import Results
from benchmarks.training import NAMES, Trainer, read_log, read_settings
from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import run_cli

THREADS = (1, 2, 4, 8, 16, 32)
SECONDS = 0.3


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    options.add_names(parser, NAMES)
    options.add_log(parser)
    options.add_rounds(parser, 9)
    parser.add_argument(
        "--seconds", type=options.positive_float, default=SECONDS, help="of one measurement"
    )
    options.add_json(parser)
    args = parser.parse_args()
    options.check_names(parser, args, NAMES)
    results = Results(args)

    from gru4rec_toolkit import theano_setup

    print(theano_setup.configure())
    log = read_log(args)
    for name in args.names or NAMES:
        trainer = Trainer(read_settings(name), log, merge=True)
        row = {"parameters": name, **measure(trainer, args.rounds, args.seconds)}
        *heading, line = tables.threads([row])
        print("\n".join([line] if results.rows else [*heading, line]), flush=True)
        results.add(**row)


def measure(trainer: Trainer, rounds: int, seconds: float) -> dict:
    """Return a row of the results: seconds of a step by number of threads, in interleaved rounds.

    ``seconds``: of each measurement.
    """
    from gru4rec_toolkit.ops import library

    kernels = library.load()
    rewind, run_steps, n_steps = trainer.prepare_block(1000)

    def time_steps(n: int) -> float:
        rewind()
        start = time.perf_counter()
        run_steps(n)
        return (time.perf_counter() - start) / n

    time_steps(1)
    n_steps = min(n_steps, max(1, round(seconds / time_steps(min(5, n_steps)))))
    real = kernels.gk_threads()
    measured: list[float] = []
    modelled: dict[int, list[float]] = {threads: [] for threads in THREADS}
    for _ in range(rounds):
        measured.append(time_steps(n_steps))
        for threads, found in modelled.items():
            with simulated(kernels, threads):
                spent = time_steps(n_steps)
                found.append(spent - 1e-9 * kernels.gk_nanoseconds_saved() / n_steps)
    return {
        "batch_size": trainer.model.batch_size,
        "units": trainer.model.layers[0],
        "threads": real,
        "measured": measured,
        "modelled": modelled,
        "bytes": bytes_of_a_step(trainer),
    }


@contextlib.contextmanager
def simulated(kernels: ctypes.CDLL, threads: int) -> Iterator[None]:
    """Let one thread compute as so many would share out the work."""
    kernels.gk_nanoseconds_saved.restype = ctypes.c_double
    before = kernels.gk_threads()
    kernels.gk_set_threads(threads)
    kernels.gk_simulate_team(1)
    kernels.gk_nanoseconds_saved()
    try:
        yield
    finally:
        kernels.gk_simulate_team(0)
        kernels.gk_set_threads(before)


def bytes_of_a_step(trainer: Trainer) -> int:
    """Return the bytes of weights, gradients and states that a step reads and writes.

    Of tables, the rows that it looks up.
    """
    training = trainer.training
    n_looked_up = trainer.model.batch_size + trainer.n_columns()

    def size(variable) -> int:
        shape = variable.get_value(borrow=True).shape
        n_rows = n_looked_up if shape[0] == trainer.log.n_items else shape[0]
        return n_rows * math.prod(shape[1:])

    # read for the step; the gradient written and read; read and written by the update
    numbers = sum(5 * size(weight) for weight in training.network.variables())
    numbers += sum(2 * size(state) for state in training.optimizer_state().values())
    return 4 * numbers


if __name__ == "__main__":
    run_cli(main)
