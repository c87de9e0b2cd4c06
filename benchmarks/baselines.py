"""Accuracy and speed of the baselines: ``python -m benchmarks.baselines --data TRAIN TEST``.

One table a data set, one row a baseline, in Markdown: Recall@20 and MRR@20, where ties count
against the target (conservative), with their 95% confidence intervals over sessions; the Recall@20
that the standard mode would report; and the seconds of fitting and of evaluating, medians of
interleaved rounds. Reading is not timed. Times are those of the processor, all cores together,
which other processes disturb less than the clock's.

``--gru4rec PARAMETERS``, once for each ``--data``, adds a GRU4Rec that is trained with them, a
parameter file or ``name=value,name=value``, and to every baseline the difference to it, with its
interval (`evaluation.compare`).
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
from statistics import median

from benchmarks import options
from gru4rec_toolkit import arguments, parameters
from gru4rec_toolkit.errors import run_cli

CUT_OFF = 20
RESAMPLES = 2000
# the baselines with the parameters of their papers, and the option that is worth a try
ROWS = [(name, "") for name in parameters.BASELINES] + [("vsknn", "idf_weighting=1")]


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    options.add_names(parser, list(parameters.BASELINES))
    parser.add_argument(
        "--data",
        nargs=2,
        metavar=("TRAIN", "TEST"),
        action="append",
        required=True,
        help="training and test data; may come several times",
    )
    parser.add_argument(
        "--gru4rec",
        metavar="PARAMETERS",
        action="append",
        help="a parameter file, or name=value,name=value, of a GRU4Rec to train",
    )
    arguments.add_columns(parser)
    options.add_rounds(parser, 3)
    args = parser.parse_args()
    options.check_names(parser, args, list(parameters.BASELINES))
    if args.gru4rec and len(args.gru4rec) != len(args.data):
        parser.error("--gru4rec: give it as often as --data")
    rows = [row for row in ROWS if not args.names or row[0] in args.names]
    for (train, test), given in zip(args.data, args.gru4rec or [None] * len(args.data)):
        compare(train, test, rows, given, args.rounds, arguments.given_columns(args))


def compare(
    train_path: str,
    test_path: str,
    rows: list[tuple[str, str]],
    gru4rec_parameters: str | None,
    rounds: int,
    keys: dict[str, str],
) -> None:
    """Print a table of some baselines on one data set, and of GRU4Rec."""
    import evaluation
    from gru4rec_toolkit.baselines import BASELINES
    from gru4rec_toolkit.data import events

    train, test = (events.read_events(p, announce=False, **keys) for p in (train_path, test_path))
    names, models = [], []
    for name, text in rows:
        settings = parameters.parse_string(text) if text else {}
        names.append(" ".join(filter(None, [name, text])))
        models.append(BASELINES[name](**settings, **keys))
    if gru4rec_parameters is not None:
        names.append("GRU4Rec")
        models.append(gru4rec_model(gru4rec_parameters, keys))
    seconds: list[list[tuple[float, float]]] = [[] for _ in models]
    for _ in range(rounds):
        for model, found in zip(models, seconds):
            found.append(measure(model, train, test, keys))
    print(f"\n{train_path}, {test_path}: {len(train)} and {len(test)} events\n")
    columns = ["method", "Recall@20", "MRR@20", "Recall@20, standard"]
    columns += ["Recall@20 of GRU4Rec less this"] if gru4rec_parameters is not None else []
    columns += ["fit, s", "evaluation, s"]
    print(f"| {' | '.join(columns)} |\n| {' | '.join(['---'] * len(columns))} |")
    with contextlib.redirect_stdout(io.StringIO()):
        ranks = [evaluation.ranks(m, test, mode="conservative", **keys) for m in models]
    for name, model, of_model, found in zip(names, models, ranks, seconds):
        # a model that finds nothing: the difference to it is the metric itself
        alone = evaluation.compare(of_model, of_model.assign(Rank=len(train)), n=RESAMPLES)
        cells = [name, *(interval(alone.loc[f"{m}@{CUT_OFF}"]) for m in ("Recall", "MRR"))]
        cells.append(f"{metrics(model, test, keys, 'standard')[0]:.4f}")
        if gru4rec_parameters is not None:
            difference = evaluation.compare(ranks[-1], of_model, n=RESAMPLES)
            cells.append("" if of_model is ranks[-1] else interval(difference.iloc[0]))
        cells += [f"{median(times):.2f}" for times in zip(*found)]
        print(f"| {' | '.join(cells)} |", flush=True)


def gru4rec_model(given: str, keys: dict[str, str]):
    """Return a model with the parameters in a file or a string."""
    from gru4rec import GRU4Rec

    read = parameters.read_file if os.path.exists(given) else parameters.parse_string
    return GRU4Rec(**{**parameters.convert(read(given)), **keys})


def interval(row) -> str:
    """Return a difference and the ends of its interval."""
    return f"{row.difference:.4f} ({row.low:.4f} to {row.high:.4f})"


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
    run_cli(main)
