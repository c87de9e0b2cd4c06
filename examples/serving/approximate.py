"""Table of the approximate index beside the exact list: recall, latency, time to build.

    python examples/serving/approximate.py --items 40000 200000 1000000

The items are made up (`random_model.py` says how): clusters of very different sizes, popular items
in the bias and the length. The states are those after sessions of 5 clicks that follow the model's
own lists for most of the time.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from exported import Exported
from problems import Parser, run

K, CLICKS = 20, 5


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", help="default: made up, of --items and --units")
    parser.add_argument("--items", type=int, nargs="+", default=[40_000, 200_000, 1_000_000])
    parser.add_argument("--units", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--states", type=int, default=200, help="queries (default: %(default)s)")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, of which one is used; load average {os.getloadavg()[0]:.1f}\n")
    print(
        f"| items | recall@{K} | worst list | exact p50, ms | p90, ms | CPU, ms | index p50, ms | "
        "p90, ms | CPU, ms | build, CPU s | file, MB |"
    )
    print("| --- " * 11 + "|")
    with tempfile.TemporaryDirectory() as directory:
        if args.model:
            compare(args.model, args.states, directory)
        for n_items in () if args.model else args.items:
            from random_model import random_model

            path = Path(directory, "model.onnx")
            path.write_bytes(random_model(n_items, args.units))
            compare(str(path), args.states, directory)


def compare(path: str, n: int, directory: str) -> None:
    """Print a line of the table."""
    from approximation import Approximate

    exact = Exported(path)
    rng = np.random.default_rng(7)
    states = [after_a_session(exact, rng) for _ in range(n)]
    stay = np.array([-1])
    lists, times = timed(exact, stay, states)
    n_items = len(exact.item_ids)
    del exact  # two models of a million items need not be in memory together
    file = os.path.join(directory, "index")
    began = time.process_time()
    index = Approximate(path, 1, file)
    built = time.process_time() - began
    found, of_index = timed(index, stay, states)
    recalls = [len({*a} & {*b}) / len(a) for a, b in zip(lists, found)]
    print(
        f"| {n_items:,} | {np.mean(recalls):.3f} | {min(recalls):.2f} | {times} | {of_index} | "
        f"{built:.0f} | {os.path.getsize(file) / 1e6:.0f} |",
        flush=True,
    )
    os.unlink(file)


def after_a_session(model: Exported, rng: np.random.Generator) -> np.ndarray:
    """Return the states (1, U) after a session that follows the model's own lists."""
    states = np.zeros((1, model.units), model.dtype)
    item = rng.integers(len(model.item_ids))
    for _ in range(CLICKS):
        best, _, states = model.run(np.array([item]), states, K)
        item = rng.choice(best[0]) if rng.random() < 0.8 else rng.integers(len(model.item_ids))
    return states


def timed(model: Exported, stay: np.ndarray, states: list) -> tuple[list[list[int]], str]:
    """Return the lists of states, one at a time, and their times: p50, p90 and CPU in ms."""
    lists, seconds = [], []
    model.run(stay, states[0], K)
    cpu = time.process_time()
    for state in states:
        began = time.perf_counter()
        lists.append(model.run(stay, state, K)[0][0].tolist())
        seconds.append(time.perf_counter() - began)
    cpu = time.process_time() - cpu
    p50, p90 = np.percentile([1000 * s for s in seconds], [50, 90])
    return lists, f"{p50:.2f} | {p90:.2f} | {1000 * cpu / len(states):.2f}"


if __name__ == "__main__":
    run(main)
