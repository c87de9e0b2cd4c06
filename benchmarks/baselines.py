"""Accuracy and speed of the baselines: ``python -m benchmarks.baselines --data TRAIN TEST``.

One table a data set, one row a baseline, in Markdown: Recall@20 and MRR@20, where ties count
against the target (conservative), the Recall@20 that the standard mode would report, and the
seconds of fitting and of evaluating, medians of interleaved rounds. Reading is not timed. Times are
those of the processor, which other processes disturb less than the clock's.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import time
from statistics import median

from benchmarks import options
from gru4rec_toolkit import arguments, parameters

CUT_OFF = 20
# the baselines with the parameters of their papers, and the option that is worth a try
ROWS = [(name, "") for name in parameters.BASELINES] + [("vsknn", "idf_weighting=1")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_names(parser, list(parameters.BASELINES))
    parser.add_argument(
        "--data",
        nargs=2,
        metavar=("TRAIN", "TEST"),
        action="append",
        required=True,
        help="training and test data; may come several times",
    )
    arguments.add_columns(parser)
    options.add_rounds(parser, 3)
    args = parser.parse_args()
    options.check_names(parser, args, list(parameters.BASELINES))
    rows = [row for row in ROWS if not args.names or row[0] in args.names]
    for train, test in args.data:
        compare(train, test, rows, args.rounds, arguments.given_columns(args))


def compare(
    train_path: str, test_path: str, rows: list[tuple[str, str]], rounds: int, keys: dict[str, str]
) -> None:
    """Print a table of some baselines on one data set."""
    from gru4rec_toolkit.baselines import BASELINES
    from gru4rec_toolkit.data import events

    train, test = (events.read_events(p, announce=False, **keys) for p in (train_path, test_path))
    models = []
    for name, text in rows:
        settings = parameters.parse_string(text) if text else {}
        models.append(BASELINES[name](**settings, **keys))
    seconds: list[list[tuple[float, float]]] = [[] for _ in rows]
    for _ in range(rounds):
        for model, found in zip(models, seconds):
            found.append(measure(model, train, test, keys))
    print(f"\n{train_path}, {test_path}: {len(train)} and {len(test)} events\n")
    print("| baseline | Recall@20 | MRR@20 | Recall@20, standard | fit, s | evaluation, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (name, text), model, found in zip(rows, models, seconds):
        recall, mrr = metrics(model, test, keys, "conservative")
        optimist, _ = metrics(model, test, keys, "standard")
        fit, evaluation = (median(times) for times in zip(*found))
        print(
            f"| {' '.join(filter(None, [name, text]))} | {recall:.4f} | {mrr:.4f} | "
            f"{optimist:.4f} | {fit:.2f} | {evaluation:.2f} |",
            flush=True,
        )


def measure(model, train, test, keys: dict[str, str]) -> tuple[float, float]:
    """Return the seconds of fitting and of evaluating, both from DataFrames on."""
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        model.fit(train)
    fitted = time.process_time()
    metrics(model, test, keys, "conservative")
    return fitted - began, time.process_time() - fitted


def metrics(model, test, keys: dict[str, str], mode: str) -> tuple[float, float]:
    """Return Recall and MRR of lists of `CUT_OFF` items."""
    import evaluation

    logging.getLogger("gru4rec").setLevel(logging.ERROR)  # the table says what ties do
    with contextlib.redirect_stdout(io.StringIO()):
        recall, mrr = evaluation.evaluate_gpu(model, test, cut_off=[CUT_OFF], mode=mode, **keys)
    return recall[0], mrr[0]


if __name__ == "__main__":
    main()
