"""What backpropagation through time learns, and what it costs: ``python -m benchmarks.bptt``.

First a process whose answer lies several events back: a session begins with one of a few keys, goes
on with others that mean nothing, and asks; the item after the question is the answer of the first
key. Whoever carries that key in the state, past the others, has a Recall@1 of 1 on the answers,
whoever does not that of a guess. Then the
time of a step beside that of K = 1, in interleaved rounds, on a synthetic log or one of yours.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time

from benchmarks import options
from benchmarks.modes import PLAIN, in_turns, spread
from benchmarks.results import Results
from benchmarks.training import Trainer, read_log
from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import run_cli

LENGTHS = (1, 2, 4, 8, 16)
N_KEYS = 8


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    options.add_log(parser)
    options.add_rounds(parser, 7)
    parser.add_argument("--steps", type=options.positive, default=320, help="of one measurement")
    parser.add_argument(
        "--lengths", type=options.positive, nargs="+", default=LENGTHS, metavar="K",
        help=f"steps through which gradients flow (default: {' '.join(map(str, LENGTHS))})",
    )  # fmt: skip
    parser.add_argument(
        "--back", type=options.positive, default=12, help="events between the key and the question"
    )
    parser.add_argument(
        "--sessions", type=options.positive, default=2000, help="of the process's training log"
    )
    parser.add_argument("--epochs", type=options.positive, default=40, help="on that log")
    parser.add_argument(
        "--units", type=options.positive, default=16,
        help="of the layer; many units remember by themselves",
    )  # fmt: skip
    options.add_json(parser)
    args = parser.parse_args()
    results = Results(args)

    from gru4rec_toolkit import theano_setup

    print(theano_setup.configure())
    chance = 1 / N_KEYS
    print(
        f"\nanswers {args.back + 2} events after the key, Recall@1 (a guess {chance:.3f}, best 1)"
    )
    for length in args.lengths:
        recall = learnt(length, args)
        print(f"K = {length:<3} {recall:.3f}", flush=True)
        results.add(bptt=length, back=args.back, recall=recall, guess=chance)
    measure(args, results)


def measure(args: argparse.Namespace, results: Results) -> None:
    """Print the time of a step by the number of steps that gradients flow through."""
    log, steps, seconds = read_log(args), {}, {}
    for length in args.lengths:
        began = time.perf_counter()
        trainer = Trainer({**PLAIN, "bptt": length}, log, merge=True)
        seconds[length] = time.perf_counter() - began
        whole = max(args.steps // length, 1) * length
        rewind, run_steps, n_steps = trainer.prepare_block(whole)
        steps[length] = rewind, run_steps, n_steps // length * length
    times = in_turns(steps, args.rounds)
    print("\n          us a step   of the first K's (worst and best round)   compiled in")
    first = args.lengths[0]
    for length, of_length in times.items():
        print(
            f"K = {length:<3} {statistics.median(of_length):10.0f}   "
            f"{spread(of_length, times[first])}{seconds[length]:28.1f} s"
        )
        results.add(bptt=length, microseconds=of_length, compiled=seconds[length])


def learnt(length: int, args: argparse.Namespace) -> float:
    """Train on the process; return the Recall@1 of its answers."""
    import evaluation
    from gru4rec import GRU4Rec

    gru = GRU4Rec(
        **{**PLAIN, "layers": [args.units], "n_sample": 0, "learning_rate": 0.1},
        **{"n_epochs": args.epochs, "bptt": length},
    )
    with contextlib.redirect_stdout(io.StringIO()):
        gru.fit(process(args.back, args.sessions, seed=1))
        ranks = evaluation.ranks(gru, process(args.back, 1000, seed=2))
    answers = ranks[ranks["Position"] == args.back + 3]
    return float((answers["Rank"] == 1).mean())


def process(back: int, n_sessions: int, seed: int):
    """Return sessions of a key, ``back`` others, the question and the first key's answer."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    keys = rng.integers(0, N_KEYS, (n_sessions, 1))
    others = rng.integers(0, N_KEYS, (n_sessions, back))
    question = np.full((n_sessions, 1), 2 * N_KEYS)
    items = np.hstack([keys, others, question, N_KEYS + keys])
    n = items.shape[1]
    return pd.DataFrame(
        {
            "SessionId": np.repeat(np.arange(n_sessions), n),
            "ItemId": items.ravel(),
            "Time": np.arange(n_sessions * n),
        }
    )


if __name__ == "__main__":
    run_cli(main)
