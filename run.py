"""Train a GRU4Rec model or load one, evaluate it, save it: the command line.

Arguments are parsed and parameters checked before anything heavy is imported, so that ``-h`` and a
typing error answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from gru4rec_toolkit import arguments, messages, parameters, seeds, variants
from gru4rec_toolkit.errors import InputError, TrainingDiverged, one_line, run_cli
from gru4rec_toolkit.run_options import build_parser, parse_arguments
from gru4rec_toolkit.tracking.options import Trackers

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from gru4rec import GRU4Rec
    from gru4rec_toolkit.baselines import Baseline
    from gru4rec_toolkit.data.ids import Ids
    from gru4rec_toolkit.data.sessions import SessionLog

__all__ = ["build_parser", "cli", "main", "parse_arguments"]


def main(argv: list[str] | None = None) -> None:
    """Run the command line program.

    Raises
    ------
    InputError
        For every mistake that the user can correct.
    """
    args = parse_arguments(argv)
    messages.set_up(args.quiet, args.verbose)
    if args.check:
        from gru4rec_toolkit.data import report

        report.report(args.path, args.test, **arguments.given_columns(args))
        return
    trainings = seeds.each(args)
    for training in trainings:
        if training.save_model is not None:
            _check_save_path(training)
    if args.ranks is not None:
        _check_table_path(args, "RANKS", args.ranks)
    if args.recommend is not None:
        _check_table_path(args, "RECOMMENDATIONS", args.recommend)
    if args.export is not None:
        _check_export_path(args)
    trackers = Trackers(args, _inputs_and_outputs(args))

    models: Iterable[tuple[GRU4Rec | Baseline, dict[str, SessionLog], argparse.Namespace]]
    failures: list[InputError] = []
    if args.baseline is not None:
        models = [(*_fit_baseline(args), args)]
    else:
        from gru4rec_toolkit import theano_setup

        theano_setup.configure(args.device)
        model_class = variants.load_class(args.gru4rec_model)
        variants.check_methods(model_class, args)
        if args.load_model:
            models = [(*_load(model_class, args), args)]
        else:
            models = _train_all(model_class, trainings, trackers, failures)
    found = []
    for gru, logs, training in models:
        metrics, errors = _use(gru, logs, training, trackers)
        found.append(metrics)
        failures += errors
    found = [results for results in found if results.keys() == {*args.evaluated}]
    if args.n_seeds is not None and found:
        _print_summary(found, args)
    failures += trackers.failures()
    if failures:
        raise failures[0] if len(failures) == 1 else InputError("; ".join(map(str, failures)))


def _use(
    gru: GRU4Rec | Baseline,
    logs: dict[str, SessionLog],
    args: argparse.Namespace,
    trackers: Trackers,
) -> tuple[dict[str, seeds.Metrics], list[InputError]]:
    """Save, export and evaluate a model; return the metrics of each test set, and what failed.

    A file that cannot be written does not keep the rest from being done, for which a training may
    have taken days; it is told at the end.
    """
    found: dict[str, seeds.Metrics] = {}
    # a baseline has none of these: see run_options.GRU4REC_OPTIONS
    jobs: list[tuple[Callable[..., None], str | None]] = [
        (_save, args.save_model),
        (_export, args.export),
        (_recommend, args.recommend),
    ]
    steps: list[Callable[[], None]] = [
        functools.partial(job, gru, args) for job, path in jobs if path is not None
    ]
    steps += [
        functools.partial(_evaluate, gru, path, logs, args, trackers, found)
        for path in args.evaluated
    ]
    failures = []
    for step in steps:
        try:
            step()
        except InputError as err:
            failures.append(err)
    return found, failures


def _print_summary(found: list[dict[str, seeds.Metrics]], args: argparse.Namespace) -> None:
    for line in seeds.summary(found):
        print(line)
    if args.log_primary_metric:
        wanted = 0 if args.primary_metric == "recall" else 1
        values = [results[args.test[0]][wanted][1] for results in found]
        print(f"PRIMARY METRIC: {seeds.mean_and_deviation(values)[0]}")


def _keys(gru: GRU4Rec | Baseline) -> tuple[str, str, str]:
    return gru.session_key, gru.item_key, gru.time_key


def _user_key(gru: GRU4Rec | Baseline) -> str | None:
    # a baseline has no users, and a variant need not
    return getattr(gru, "user_key", None)


def _read_events(gru: GRU4Rec | Baseline, path: str, announce: bool = False) -> pd.DataFrame:
    from gru4rec_toolkit.data import events

    return events.read_events(path, *_keys(gru), announce=announce, user_key=_user_key(gru))


def _load(
    model_class: type[GRU4Rec], args: argparse.Namespace
) -> tuple[GRU4Rec, dict[str, SessionLog]]:
    """Return the model and its test sets, indexed."""
    print(f"Loading trained model from file: {args.path}")
    variants.check_parts(model_class, ["loadmodel", "apply"], args.gru4rec_model)
    gru = model_class.loadmodel(args.path)
    gru.apply(args.settings)
    return gru, _index_test_sets(gru, args, gru.item_ids)


def _fit_baseline(args: argparse.Namespace) -> tuple[Baseline, dict[str, SessionLog]]:
    """Fit a baseline; return it and its test sets, indexed."""
    from gru4rec_toolkit import baselines

    print(f"Creating baseline {args.baseline}")
    model = baselines.BASELINES[args.baseline]()
    model.set_params(**args.settings)
    data, logs, *_ = _read_data(model, args)
    print("Started training", flush=True)
    start = time.perf_counter()
    model.fit(data)
    print(f"Total training time: {time.perf_counter() - start:.2f}s")
    return model, logs


def _train_all(
    model_class: type[GRU4Rec],
    trainings: list[argparse.Namespace],
    trackers: Trackers,
    failures: list[InputError],
) -> Iterator[tuple[GRU4Rec, dict[str, SessionLog], argparse.Namespace]]:
    """Train a model for each seed; yield it, its test sets, indexed, and its arguments.

    One of several seeds whose training diverges is added to the failures.
    """
    read = None
    for number, args in enumerate(trainings, 1):
        if len(trainings) > 1:
            print(f"Seed {args.settings['seed']} ({number} of {len(trainings)})")
        gru = _untrained(model_class, args)
        # before the data is read: it may be found out that this cannot work
        options = _fit_options(gru, args, trackers.of_training(gru))
        read = read or _read_data(gru, args)
        try:
            _train(gru, read, options, args)
        except InputError as err:
            if len(trainings) == 1 or not isinstance(err, TrainingDiverged):
                raise
            failures.append(InputError(f"seed {args.settings['seed']}: {err}"))
            logging.getLogger("gru4rec").warning("%s; the other seeds go on", failures[-1])
            continue
        yield gru, read.logs, args


def _untrained(model_class: type[GRU4Rec], args: argparse.Namespace) -> GRU4Rec:
    """Return a model that is to be trained, with its parameters."""
    if args.retrain is not None:
        print(f"Loading trained model from file: {args.retrain}")
        variants.check_parts(model_class, ["loadmodel", "set_params", "fit"], args.gru4rec_model)
        gru = model_class.loadmodel(args.retrain)
    else:
        print("Creating GRU4Rec model")
        gru = variants.new_model(model_class, args)
    gru.set_params(**args.settings)
    return gru


def _fit_options(gru: GRU4Rec, args: argparse.Namespace, callbacks: list) -> dict[str, Any]:
    """Return the arguments of fit that options ask for; a variant's fit need not know others."""
    options: dict[str, Any] = {} if args.retrain is None else {"retrain": True}
    if args.keep_optimizer:
        options["keep_optimizer"] = True
    if callbacks:
        options["callbacks"] = callbacks
    if args.validate is not None:
        options["validation"], options["patience"] = None, args.patience
    if args.evaluate_each_epoch:
        options["after_epoch"] = None
    if args.checkpoint is not None:
        options["checkpoint"], options["resume"] = args.checkpoint, args.resume
        options["checkpoint_minutes"] = args.checkpoint_minutes
    variants.check_arguments(gru.fit, options, args.gru4rec_model)
    return options


def _train(
    gru: GRU4Rec, read: _Read, options: dict[str, Any], args: argparse.Namespace
) -> None:
    """Train a model; where that fails, save what its validation has found to be the best."""
    if "after_epoch" in options:
        options["after_epoch"] = _epoch_evaluation(gru, read.logs, args)
    if "validation" in options:
        from gru4rec_toolkit.model.validation import Validation

        options["validation"] = Validation(
            *(read.validation, args.measure, args.eval_type, args.primary_metric),
            source=args.validate,
            history=read.history,
        )
    print("Started training", flush=True)
    start = time.perf_counter()
    store_type = "cpu" if args.sample_store_on_cpu else "gpu"
    try:
        gru.fit(read.data, sample_store=args.sample_store_size, store_type=store_type, **options)
    except BaseException as err:  # Ctrl-C, too: what the best epoch has taken is not lost
        if args.save_model is not None and hasattr(err, "kept_best"):
            try:
                _save(gru, args)
            except InputError as other:
                logging.getLogger("gru4rec").warning("%s", other)
        raise
    print(f"Total training time: {time.perf_counter() - start:.2f}s")


class _Read(NamedTuple):
    """What was read: the training data, the test sets' indices, a validation and its history."""

    data: pd.DataFrame
    logs: dict[str, SessionLog]
    validation: pd.DataFrame | None
    history: pd.DataFrame | None


def _read_data(gru: GRU4Rec | Baseline, args: argparse.Namespace) -> _Read:
    from gru4rec_toolkit.data import ids

    print("Loading training data...")
    data = _read_events(gru, args.path, announce=True)
    # before a long training, to find out whether they can be used after it
    logs = {}
    history = None
    if args.history is not None:
        history = _read_events(gru, args.history)
    if args.test:
        before: Ids = gru.item_ids if args.retrain is not None else []
        known = ids.extend_item_ids(before, data, gru.item_key)
        logs = _index_test_sets(gru, args, known, history)
        _check_histories(gru, args, logs)
        if not args.evaluated:
            _check_running_sessions(gru, args, known, history)  # not kept: they may be many
    if args.validate is None:
        return _Read(data, logs, None, None)
    return _Read(data, logs, _read_events(gru, args.validate), history)


def _save(gru: GRU4Rec, args: argparse.Namespace) -> None:
    print(f"Saving trained model to: {args.save_model}", flush=True)
    try:
        _check_save_path(args)  # hours may have passed
        # a variant's savemodel need not know force
        gru.savemodel(args.save_model, **({"force": True} if args.force else {}))
    except InputError as err:
        path = _saved_elsewhere(gru)
        if path is None:
            raise
        raise InputError(f"{err}; it is in {path} instead, move it from there") from None


def _saved_elsewhere(gru: GRU4Rec) -> str | None:
    """Save a model that has no place in a directory of its own; None if there is no place at all.

    What it took to train is worth more than a directory that the user does not expect.
    """
    for parent in (None, os.path.expanduser("~"), os.getcwd()):
        folder = None
        try:
            folder = tempfile.mkdtemp(prefix="gru4rec-", dir=parent)  # closed to other users
            path = os.path.join(folder, "model.gru4rec")
            gru.savemodel(path)
            return path
        except (OSError, InputError):
            if folder is not None:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
    return None


def _check_save_path(args: argparse.Namespace) -> None:
    """Check that the model can be saved and would replace nothing that the user needs."""
    from gru4rec_toolkit import modelfile

    inputs = _inputs(args)
    inputs.pop("the model of --retrain", None)  # it may be replaced by what it becomes
    modelfile.check_writable(args.save_model, args.force, inputs)


def _check_table_path(args: argparse.Namespace, kind: str, path: str) -> None:
    """Check that a table can be written and would replace nothing that the user needs."""
    from gru4rec_toolkit import tablefile

    inputs = _inputs(args)
    if args.save_model is not None:
        inputs["the model of -s"] = args.save_model
    tablefile.check_writable(getattr(tablefile, kind), path, args.force, inputs)


def _check_export_path(args: argparse.Namespace) -> None:
    """Check that the model can be exported and would replace nothing that the user needs."""
    from gru4rec_toolkit.serving import exports

    inputs = _inputs_and_outputs(args)
    inputs.pop("the file of --export", None)  # the path may be empty
    exports.check_writable(exports.format_of(args.export), args.export, args.force, inputs)


def _inputs_and_outputs(args: argparse.Namespace) -> dict[str, str]:
    """Return the files that this run reads and writes, by what they are."""
    written = {
        "-s": args.save_model,
        "--ranks": args.ranks,
        "--recommend": args.recommend,
        "--export": args.export,
    }
    outputs = {f"the file of {option}": path for option, path in written.items() if path}
    return {**_inputs(args), **outputs}


def _inputs(args: argparse.Namespace) -> dict[str, str]:
    """Return the files that this run reads, by what they are."""
    inputs = {"the model" if args.load_model else "the training data": args.path}
    if args.retrain is not None:
        inputs["the model of --retrain"] = args.retrain
    inputs.update((f"the test set {path}", path) for path in args.test)
    if args.validate is not None:
        inputs["the sessions of --validate"] = args.validate
    if args.history is not None:
        inputs["the events of --history"] = args.history
    if args.checkpoint is not None:
        from gru4rec_toolkit.model.checkpoint import FILE_NAME

        inputs["the file of --checkpoint"] = os.path.join(args.checkpoint, FILE_NAME)
    if args.parameter_file is not None:
        inputs["the parameter file"] = args.parameter_file
    if args.gru4rec_model.endswith(".py"):
        inputs["the file of -g"] = args.gru4rec_model
    return inputs


def _index_test_sets(
    gru: GRU4Rec | Baseline,
    args: argparse.Namespace,
    item_ids: Ids,
    history: pd.DataFrame | None = None,
) -> dict[str, SessionLog]:
    """Read every test set once, and keep its index, which is small beside the table itself."""
    paths = dict.fromkeys(args.evaluated)
    logs = {path: _index_test_set(gru, path, args, item_ids) for path in paths}
    if paths and args.history is not None:
        logs[args.history] = _index_test_set(gru, args.history, args, item_ids, history)
    return logs


def _index_test_set(
    gru: GRU4Rec | Baseline,
    path: str,
    args: argparse.Namespace,
    item_ids: Ids,
    data: pd.DataFrame | None = None,
) -> SessionLog:
    """Return the index of a test set or of the history, whose events may have been read."""
    from gru4rec_toolkit.data import sessions

    log = sessions.index_sessions(
        _read_events(gru, path) if data is None else data,
        *_keys(gru),
        item_ids=item_ids,
        source=path,
        keep_session_ids=args.ranks is not None or args.history is not None,
        user_key=_user_key(gru),
    )
    if args.history is None:
        sessions.check_test_log(log, path)
    return log


def _sequence_options(gru: GRU4Rec | Baseline) -> dict[str, Any]:
    """Return the parameters of a model that say how its sequences go on; a variant's need not."""
    return {
        "max_sequence": getattr(gru, "max_sequence", 0),
        "session_border": getattr(gru, "session_border", "carry"),
    }


def _check_histories(
    gru: GRU4Rec | Baseline, args: argparse.Namespace, logs: dict[str, SessionLog]
) -> None:
    """Find out whether the test sets can go on from the history."""
    if args.history is None:
        return
    from gru4rec_toolkit.data import histories

    for path in args.evaluated:
        histories.continue_log(
            *(logs[path], logs[args.history]),
            **_sequence_options(gru),
            source=args.history,
            announce=False,  # the evaluation will
        )


def _check_running_sessions(
    gru: GRU4Rec | Baseline,
    args: argparse.Namespace,
    item_ids: np.ndarray,
    history: pd.DataFrame | None,
) -> None:
    """Find out whether the sessions of --recommend can be used."""
    from gru4rec_toolkit.serving import batch

    data = _read_sessions(gru, args, item_ids, announce=False)
    if history is not None:
        options = {"user_key": _user_key(gru), **_sequence_options(gru)}
        batch.running_sessions(data, _keys(gru), item_ids, history, **options)


def _epoch_evaluation(
    gru: GRU4Rec, logs: dict[str, SessionLog], args: argparse.Namespace
) -> Callable[[int], None]:
    """Return what evaluates the model in training, and prints one line, after an epoch."""

    def evaluate(epoch: int) -> None:
        try:
            with messages.beside_the_results():  # the evaluation's announcement
                recall, mrr = _metrics(gru, args.test[0], logs, args)
        except Exception as err:  # a variant's code may raise it; at the end it is told in full
            logging.getLogger("gru4rec").warning(
                "epoch %d could not be evaluated (%s); the training goes on", epoch, one_line(err)
            )
            return
        texts = map(_metric_text, args.measure, recall, mrr)
        print(f"Epoch{epoch} --> {' '.join(texts)}", flush=True)

    return evaluate


def _metrics(
    gru: GRU4Rec | Baseline,
    path: str,
    logs: dict[str, SessionLog],
    args: argparse.Namespace,
    **options: Any,
) -> tuple[list[float], ...]:
    import evaluation
    from gru4rec_toolkit.data import sessions

    for used in (path, *([] if args.history is None else [args.history])):
        if not sessions.fits(logs[used], gru.item_ids):  # a variant's fit may choose its items
            logs[used] = _index_test_set(gru, used, args, gru.item_ids)
    if args.history is not None:
        options["history"] = logs[args.history]
    return evaluation.evaluate_gpu(
        gru, logs[path], cut_off=args.measure, mode=args.eval_type, **options
    )


def _read_sessions(
    gru: GRU4Rec | Baseline, args: argparse.Namespace, item_ids: Ids, announce: bool = True
) -> pd.DataFrame:
    """Return the sessions of --recommend; they have to know some of the model's items."""
    from gru4rec_toolkit.data import ids, sessions

    (path,) = args.test
    data = _read_events(gru, path, announce)
    if (ids.item_indices(item_ids, data[gru.item_key]) < 0).all():
        raise sessions.none_known(path, len(item_ids), gru.item_key)
    return data


def _recommend(gru: GRU4Rec, args: argparse.Namespace) -> None:
    print("Loading sessions...")
    data = _read_sessions(gru, args, gru.item_ids)
    start = time.perf_counter()
    options = {} if args.history is None else {"history": _read_events(gru, args.history)}
    gru.write_recommendations(
        args.recommend, data, args.k, args.exclude_seen, args.force, **options
    )
    print(f"Recommending took {time.perf_counter() - start:.2f}s")
    print(f"Recommendations written to: {args.recommend}")


def _export(gru: GRU4Rec, args: argparse.Namespace) -> None:
    from gru4rec_toolkit.serving import exports

    print(f"Exporting model to: {args.export}")
    getattr(gru, f"export_{exports.format_of(args.export)}")(args.export, args.force)


def _metric_text(n: int, recall: float, mrr: float) -> str:
    return f"Recall@{n}: {recall:.6f} MRR@{n}: {mrr:.6f}"


def _evaluate(
    gru: GRU4Rec | Baseline,
    path: str,
    logs: dict[str, SessionLog],
    args: argparse.Namespace,
    trackers: Trackers,
    found: dict[str, seeds.Metrics],
) -> None:
    """Evaluate a model on a test set, print its metrics and add them to those that were found."""
    from gru4rec_toolkit.data import events

    # the lines that scripts wait for: the file was read and indexed before the training
    print("Loading test data...")
    events.announce_loading(path)
    print(
        f"Starting evaluation (cut-off={args.measure}, using {args.eval_type} mode for tiebreaking)"
    )
    start = time.perf_counter()
    extra = list(dict.fromkeys(args.extra_metrics))
    options = {"extra": extra, "ranks_path": args.ranks, "force": args.force}
    failure: BaseException | None = None
    try:
        recall, mrr, *others = _metrics(gru, path, logs, args, **options)
    except BaseException as err:  # the ranks cannot be written, or Ctrl-C ended that
        if not hasattr(err, "metrics"):
            raise
        failure, (recall, mrr, *others) = err, err.metrics
    print(f"Evaluation took {time.perf_counter() - start:.2f}s")
    metrics: list[tuple[str, float]] = []
    for n, r, m in zip(args.measure, recall, mrr):
        print(_metric_text(n, r, m))
        metrics += [(f"Recall@{n}", r), (f"MRR@{n}", m)]
    if extra:
        names = [parameters.EXTRA_METRICS[name] for name in extra]
        for n, values in zip(args.measure, zip(*others)):
            print(" ".join(f"{name}@{n}: {x:.6f}" for name, x in zip(names, values)))
            metrics += [(f"{name}@{n}", x) for name, x in zip(names, values)]
    found[path] = metrics
    if trackers.plot is not None:
        name = os.path.basename(path)
        if sum(os.path.basename(other) == name for other in {*args.test}) > 1:
            name = path
        seed = f", seed {args.settings['seed']}" if args.n_seeds is not None else ""
        trackers.plot.lengths(name + seed, args.measure, recall, mrr)
    if args.ranks is not None and failure is None:
        print(f"Ranks written to: {args.ranks}")
    if args.log_primary_metric:
        print(f"PRIMARY METRIC: {recall[0] if args.primary_metric == 'recall' else mrr[0]}")
    if failure is not None:
        raise failure


def cli() -> None:
    """Entry point of the console script ``gru4rec-run``."""
    run_cli(main)


if __name__ == "__main__":
    cli()
