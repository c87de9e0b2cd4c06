"""Speed of ranking all items beside the score product's: ``python -m benchmarks.ranking``.

Events per second of counting ranks (scores, activation, comparisons) and of the matrix product of
hidden states and item rows alone, in blocks of items whose scores stay in the caches; medians of
interleaved rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time

from benchmarks import options
from benchmarks.results import Results
from benchmarks.training import spread
from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import run_cli
from gru4rec_toolkit.parameters import ACTIVATIONS, split_activation

SIZES = ((2_900, 100), (37_000, 224), (30_000, 480), (500_000, 100))
BATCH_SIZE = 100
BLOCK = 8192
SECONDS = 0.5


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    options.add_rounds(parser, 5)
    parser.add_argument(
        "--seconds", type=options.positive_float, default=SECONDS, help="of one measurement"
    )
    parser.add_argument(
        "--activation", type=activation, default="linear", help="of the scores (default: linear)"
    )
    options.add_json(parser)
    args = parser.parse_args()
    results = Results(args)

    from gru4rec_toolkit import theano_setup

    print(theano_setup.configure())
    print("    items x units   product, events/s   ranking, events/s   of it")
    for n_items, width in SIZES:
        product, ranking = programs(n_items, width, args.activation)
        rounds = [
            (rate(product, args.seconds), rate(ranking, args.seconds)) for _ in range(args.rounds)
        ]
        print(
            f"{n_items:>9} x {width:<5} {statistics.median(p for p, _ in rounds):19.0f} "
            f"{statistics.median(r for _, r in rounds):19.0f}  "
            f"{spread([r / p for p, r in rounds])}",
            flush=True,
        )
        of_product, of_ranking = zip(*rounds)
        results.add(items=n_items, units=width, product=of_product, ranking=of_ranking)


def activation(text: str) -> str:
    """Return the name of an activation that the kernels know; for argparse."""
    try:
        known = split_activation(text)[0] in ACTIVATIONS
    except ValueError:
        known = False
    if not known:
        raise argparse.ArgumentTypeError(
            f"expected one of {', '.join(ACTIVATIONS)}, with numbers as in elu-0.5, got {text!r}"
        )
    return text


def programs(n_items: int, width: int, activation: str):
    """Return two functions: the score product, and a compiled function that counts ranks."""
    import numpy as np

    from gru4rec_toolkit.ops.library import load
    from gru4rec_toolkit.ops.ranking.op import CountRanks
    from gru4rec_toolkit.theano_setup import theano

    rng = np.random.default_rng(0)

    def shared(*shape):
        return theano.shared(rng.standard_normal(shape, dtype=np.float32), borrow=True)

    hidden, rows, biases = shared(BATCH_SIZE, width), shared(n_items, width), shared(n_items, 1)
    ids = theano.shared(np.arange(n_items, dtype=np.int32))
    targets = theano.shared(rng.integers(0, n_items, BATCH_SIZE).astype(np.int32))
    counts = [theano.shared(np.zeros(BATCH_SIZE, dtype=np.int64)) for _ in range(2)]
    ranks = CountRanks(activation)(hidden, rows, biases, ids, targets, shared(BATCH_SIZE))
    ranking = theano.function([], [], updates=list(zip(counts, ranks))).fn
    scores = np.empty((BATCH_SIZE, BLOCK), dtype=np.float32)
    library = load()
    h, r = (v.get_value(borrow=True).ctypes.data for v in (hidden, rows))

    def product():
        for start in range(0, n_items, BLOCK):
            n = min(BLOCK, n_items - start)
            b = ctypes.c_void_p(r + 4 * start * width)
            c = ctypes.c_void_p(scores.ctypes.data)
            a = ctypes.c_void_p(h)
            library.gk_product(0, 1, BATCH_SIZE, n, width, a, width, b, width, c, n)

    return product, ranking


def rate(program, seconds: float) -> float:
    """Return events per second."""
    program()
    start, n = time.perf_counter(), 0
    while n == 0 or time.perf_counter() - start < seconds:
        program()
        n += 1
    return BATCH_SIZE * n / (time.perf_counter() - start)


if __name__ == "__main__":
    run_cli(main)
