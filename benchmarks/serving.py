"""Latency and throughput of recommending: ``python -m benchmarks.serving [ITEMSxUNITS ...]``.

One table in Markdown, one row a model of random weights. For one session, in milliseconds, the
median and in brackets the 90th percentile of all calls: one click, ``top(20)`` after it, the
product of all items' rows with the state by NumPy (no list, nothing else: what a list cannot do
without), and the exported step by onnxruntime, which is click and list together. For many sessions
of five clicks, in sessions a second: ``recommend`` and the exported step in batches. The kinds of
calls take turns, a few of each at a time. One thread, unless ``--threads`` says otherwise.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable

import numpy as np

from benchmarks import options
from benchmarks.results import Results
from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import run_cli

COLUMNS = (
    *("items x units", "click, ms", "top(20), ms", "product alone, ms", "onnxruntime, ms"),
    *("recommend, sessions/s", "onnxruntime, sessions/s"),
)
SIZES = ["40000x100", "40000x480", "500000x100"]
K = 20
AT_ONCE = 256  # sessions of a batch
CLICKS = 5


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    parser.add_argument("sizes", nargs="*", metavar="ITEMSxUNITS", default=SIZES)
    parser.add_argument("--threads", type=options.positive, default=1)
    options.add_rounds(parser, 20, "turns; each has 20 calls of every kind for one session")
    options.add_json(parser)
    args = parser.parse_args()
    try:
        sizes = [tuple(map(int, size.split("x"))) for size in args.sizes]
        assert all(len(size) == 2 and min(size) > 0 for size in sizes)
    except (ValueError, AssertionError):
        parser.error(f"sizes: expected ITEMSxUNITS, such as {SIZES[0]}")
    results = Results(args)
    # before anything is loaded that makes threads
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(args.threads)
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for n_items, n_units in sizes:
        row = [f"{n_items} x {n_units}", *measure(n_items, n_units, args.threads, args.rounds)]
        print(f"| {' | '.join(row)} |", flush=True)
        results.add(**dict(zip(COLUMNS, row)))


def measure(n_items: int, n_units: int, n_threads: int, rounds: int) -> list[str]:
    """Return the cells of a row, all but the first."""
    gru = random_model(n_items, n_units)
    step = exported(gru, n_threads)
    rng = np.random.default_rng(0)
    session, state = gru.session(), np.zeros((1, n_units), np.float32)
    rows = gru.Wy.get_value()
    sessions = rng.integers(0, n_items, (AT_ONCE, CLICKS))

    def onnx_step(items: np.ndarray, h: np.ndarray) -> np.ndarray:
        inputs = {"items": items, "state_0": h, "k": np.array([K])}
        return step.run(["new_state_0", "top_items", "top_scores"], inputs)[0]

    def onnx_batch() -> None:
        h = np.zeros((AT_ONCE, n_units), np.float32)
        for t in range(CLICKS):
            h = onnx_step(sessions[:, t], h)

    single: list[Callable[[], object]] = [
        lambda: session.click(int(rng.integers(n_items))),
        lambda: session.top(K),
        lambda: rows @ state[0],
        lambda: onnx_step(rng.integers(0, n_items, 1), state),
    ]
    many: list[Callable[[], object]] = [lambda: gru.recommend(sessions.tolist(), K), onnx_batch]
    seconds: list[list[float]] = [[] for _ in single + many]
    for call in single + many:  # what is compiled or allocated at first
        call()
    for _ in range(rounds):
        for call, found in zip(single, seconds):
            found += [timed(call) for _ in range(20)]
        for call, found in zip(many, seconds[len(single) :]):
            found.append(timed(call))
    cells = [
        f"{1e3 * np.median(found):.3f} ({1e3 * np.percentile(found, 90):.3f})"
        for found in seconds[: len(single)]
    ]
    return cells + [f"{AT_ONCE / np.median(found):.0f}" for found in seconds[len(single) :]]


def random_model(n_items: int, n_units: int):
    """Return a model of random weights."""
    from gru4rec import GRU4Rec, Network
    from gru4rec_toolkit.model import weights

    logging.getLogger("gru4rec").setLevel(logging.ERROR)
    gru = GRU4Rec(
        layers=[n_units], loss="cross-entropy", final_act="softmax", constrained_embedding=True
    )
    network = Network(gru.settings, weights.initial(gru.settings, n_items))
    gru.take(network, np.arange(n_items), np.ones(n_items, np.int64))
    return gru


def exported(gru, n_threads: int):
    """Return a model's step in onnxruntime."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = n_threads
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "model.onnx")
        gru.export_onnx(path)
        return onnxruntime.InferenceSession(path, settings)


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    run_cli(main)
