"""Time of a training step by loss, embedding, layers and optimizer: ``python -m benchmarks.modes``.

Every mode beside the plain one: cross-entropy, shared embedding, one layer, Adagrad. Medians of
interleaved rounds.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks import options
from benchmarks.results import Results
from benchmarks.training import Trainer, read_log
from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import run_cli

PLAIN = {
    "loss": "cross-entropy",
    "final_act": "softmax",
    "constrained_embedding": True,
    "layers": [100],
    "batch_size": 32,
    "learning_rate": 0.05,
}
MODES = {
    "cross-entropy": {},
    "smoothing": {"smoothing": 0.1},
    "logq": {"logq": 1},
    "xe_logit": {"loss": "xe_logit", "final_act": "softmax_logit"},
    "bpr-max, elu": {"loss": "bpr-max", "final_act": "elu-0.5"},
    "bpr": {"loss": "bpr", "final_act": "linear"},
    "top1": {"loss": "top1", "final_act": "tanh"},
    "top1-max": {"loss": "top1-max", "final_act": "tanh"},
    "one-hot input": {"constrained_embedding": False},
    "separate embedding": {"constrained_embedding": False, "embedding": "layersize"},
    "two layers": {"layers": [100, 100]},
    "three layers": {"layers": [100, 100, 100]},
    "dropout": {"dropout_p_embed": 0.2, "dropout_p_hidden": 0.2},
    "momentum": {"momentum": 0.3},
    "L2": {"lmbd": 1e-5},
    "grad_cap": {"grad_cap": 1},
    "rmsprop": {"adapt": "rmsprop", "learning_rate": 0.001},
    "adadelta": {"adapt": "adadelta"},
    "adam": {"adapt": "adam", "learning_rate": 0.001},
    "plain gradient": {"adapt": "None"},
}


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    options.add_log(parser)
    options.add_rounds(parser, 9)
    parser.add_argument("--steps", type=options.positive, default=300, help="of one measurement")
    options.add_json(parser)
    args = parser.parse_args()
    results = Results(args)

    from gru4rec_toolkit import theano_setup

    print(theano_setup.configure())
    log = read_log(args)
    steps = {}
    for mode, changes in MODES.items():
        trainer = Trainer({**PLAIN, **changes}, log, merge=True)
        steps[mode] = trainer.prepare_block(args.steps)
    times = in_turns(steps, args.rounds)
    print("mode                 us a step   of the plain step (worst and best round)")
    plain = next(iter(MODES))
    for mode, of_mode in times.items():
        print(f"{mode:<20} {statistics.median(of_mode):9.0f}  {spread(of_mode, times[plain])}")
        results.add(mode=mode, microseconds=of_mode)


def in_turns(steps: dict, n_rounds: int) -> dict[Any, list[float]]:
    """Return microseconds a step, one a round, by name; one name after the other in each round.

    Parameters
    ----------
    steps : dict
        What `Trainer.prepare_block` returned, by name.
    """
    times: dict[Any, list[float]] = {name: [] for name in steps}
    for _ in range(n_rounds):
        for name, (rewind, run_steps, n_steps) in steps.items():
            rewind()
            start = time.perf_counter()
            run_steps(n_steps)
            times[name].append(1e6 * (time.perf_counter() - start) / n_steps)
    return times


def spread(times: list[float], plain: list[float]) -> str:
    """Return the median ratio of rounds, with the worst and the best one."""
    ratios = sorted(t / p for t, p in zip(times, plain))
    return f"{statistics.median(ratios):5.2f} ({ratios[-1]:.2f} to {ratios[0]:.2f})"


if __name__ == "__main__":
    run_cli(main)
