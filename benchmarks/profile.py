"""Time of one training step by Op: ``python -m benchmarks.profile [--data FILE] NAME``."""

from __future__ import annotations

import collections
import time

from benchmarks import options
from benchmarks.training import NAMES, Trainer, read_log, read_settings
from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import run_cli


def main() -> None:
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("name", metavar="NAME", choices=NAMES, help=", ".join(NAMES))
    options.add_log(parser)
    parser.add_argument("--steps", type=options.positive, default=200)
    args = parser.parse_args()
    trainer = Trainer(read_settings(args.name), read_log(args), merge=True)
    print_profile(trainer, args.steps)


def print_profile(trainer: Trainer, most_steps: int) -> None:
    """Print how long the Ops of a step take: on a GPU, how long the host takes to launch them."""
    rewind, run_steps, n_steps = trainer.prepare_block(most_steps)
    vm = trainer.training.step_function.fn
    run_steps(n_steps)
    rewind()
    start = time.perf_counter()
    run_steps(n_steps)
    seconds = (time.perf_counter() - start) / n_steps
    before = list(vm.call_times)
    rewind()
    vm(time_thunks=1, n_calls=n_steps)
    by_op, counts = collections.Counter(), collections.Counter()
    for node, after, earlier in zip(vm.nodes, vm.call_times, before):
        op = str(node.op)[:80]
        by_op[op] += (after - earlier) / n_steps
        counts[op] += 1
    print(f"{1e6 * seconds:.1f} us a step, {len(vm.nodes)} nodes")
    for op, spent in by_op.most_common():
        print(f"{1e6 * spent:9.1f} us {spent / seconds:6.1%}  {counts[op]:2d}  {op}")
    rest = seconds - sum(by_op.values())
    print(f"{1e6 * rest:9.1f} us {rest / seconds:6.1%}      between the nodes")


if __name__ == "__main__":
    run_cli(main)
