"""Train a GRU4Rec model or load one, evaluate it, save it: the command line.

Arguments are parsed and parameters checked before anything heavy is imported, so that ``-h`` and a
typing error answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.util
import inspect
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gru4rec_toolkit import arguments, parameters
from gru4rec_toolkit.errors import InputError, one_line, run_cli

if TYPE_CHECKING:
    import pandas as pd

    from gru4rec import GRU4Rec
    from gru4rec_toolkit.baselines import Baseline
    from gru4rec_toolkit.data.ids import Ids
    from gru4rec_toolkit.data.sessions import SessionLog

# options that mean nothing to a baseline, with their names in the parsed arguments
GRU4REC_OPTIONS = {
    "-pf": "parameter_file",
    "-l": "load_model",
    "--check": "check",
    "--retrain": "retrain",
    "--seed": "seed",
    "-s": "save_model",
    "-ss": "sample_store_size",
    "--sample_store_on_cpu": "sample_store_on_cpu",
    "-g": "gru4rec_model",
    "-d": "device",
    "-ee": "evaluate_each_epoch",
    "--recommend": "recommend",
    "--export": "export",
    "--checkpoint": "checkpoint",
    "--checkpoint_minutes": "checkpoint_minutes",
    "--resume": "resume",
}
LARGEST_STORE = 10**12  # more bytes than memory can have; numpy cannot even name larger sizes


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Train or load a GRU4Rec model, evaluate it on test sets, save it. Or evaluate "
        "a baseline.",
    )
    add = parser.add_argument
    add(
        "path",
        metavar="PATH",
        help="training data: tab separated .tsv or .txt, comma separated .csv, each also as .gz, "
        "a pickled pandas.DataFrame as .pickle, .parquet or .feather; with -l a saved model",
    )
    add(
        "--baseline",
        metavar="NAME",
        choices=parameters.BASELINES,
        help="evaluate another method in GRU4Rec's place, with -ps for its parameters: "
        + ", ".join(parameters.BASELINES),
    )
    # parse_arguments asks for one of them, unless there is a baseline
    source = parser.add_mutually_exclusive_group()
    arguments.add_parameter_string(
        source,
        help="training parameters as name=value,name=value; booleans as True/False or 1/0, lists "
        "with / (layers=200/200)",
    )
    source.add_argument(
        "-pf",
        "--parameter_file",
        metavar="FILE",
        help="training parameters in a Python file that holds one OrderedDict named gru4rec_params "
        "(parsed, not executed)",
    )
    source.add_argument(
        "-l", "--load_model", action="store_true", help="PATH is a saved model; no training"
    )
    source.add_argument(
        "--check",
        action="store_true",
        help="train nothing, say what the data at PATH and -t looks like and what ruins results",
    )
    add(
        "--retrain",
        metavar="MODEL",
        help="go on training this saved model, with its parameters; -ps and -pf may change those "
        "that leave the weights' shapes as they are. Items that it does not know get new rows",
    )
    arguments.add_seed(parser, help="the parameter seed, of all that is random")
    arguments.add_save_model(parser)
    arguments.add_force(
        parser,
        help="let -s, --ranks, --recommend and --export replace an existing file of another kind",
    )
    arguments.add_test_sets(parser, help="one or more test sets")
    arguments.add_list_lengths(parser, "-m", "--measure", help="list lengths of Recall and MRR")
    arguments.add_tie_mode(parser, parameters.TIE_MODES)
    add(
        "-x",
        "--extra_metrics",
        choices=parameters.EXTRA_METRICS,
        metavar="METRIC",
        nargs="+",
        default=[],
        help=f"further metrics: {', '.join(parameters.EXTRA_METRICS)}",
    )
    add(
        "--ranks",
        metavar="RANKS_PATH",
        help="write the rank of every target to this .parquet or .tsv file (one test set)",
    )
    add(
        "--recommend",
        metavar="OUT_PATH",
        help="write the best next items of the test set's sessions to this .parquet or .tsv file, "
        "in place of an evaluation (one test set)",
    )
    add(
        "-k",
        metavar="K",
        type=int,
        default=20,
        help="how many items --recommend writes for each session (default: 20)",
    )
    add(
        "--exclude_seen",
        action="store_true",
        help="let --recommend leave out the items of the session itself",
    )
    add(
        "--export",
        metavar="OUT_PATH",
        help="write the model for other programs too: one step as an .onnx graph, or the weights "
        "as .safetensors",
    )
    add(
        "-ss",
        "--sample_store_size",
        metavar="SS",
        type=int,
        default=10_000_000,
        help="how many negative ids the sample store holds (default: 10000000)",
    )
    add(
        "--sample_store_on_cpu",
        action="store_true",
        help="keep the sample store in host memory (legacy)",
    )
    add(
        "--checkpoint",
        metavar="DIR",
        help="keep the state of the training in this directory: after every epoch, and when "
        "Ctrl-C, SIGTERM or a closed terminal ends it",
    )
    add(
        "--checkpoint_minutes",
        metavar="MINUTES",
        type=float,
        help="keep it after so many minutes, too",
    )
    add(
        "--resume",
        action="store_true",
        help="go on from the state in the directory of --checkpoint; without one there, begin",
    )
    arguments.add_model_class(parser)
    arguments.add_device(parser)
    arguments.add_columns(parser)
    arguments.add_primary_metric(parser, "-lpm prints")
    add(
        "-lpm",
        "--log_primary_metric",
        action="store_true",
        help="print `PRIMARY METRIC: x` as the last line (one test set, one list length)",
    )
    add(
        "-ee",
        "--evaluate_each_epoch",
        action="store_true",
        help="evaluate on the test set after every epoch too, one line an epoch (one test set)",
    )
    return parser


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line; ``settings`` of the result are the model's parameters.

    Raises
    ------
    InputError
        If options contradict each other, a parameter is wrong or a path cannot be used.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.baseline is not None:
        _check_baseline_options(parser, args)
    elif args.parameter_string is args.parameter_file is args.retrain is None and not (
        args.load_model or args.check
    ):
        parser.error("one of the arguments -ps -pf -l --check --retrain --baseline is required")
    most = arguments.LONGEST_LIST
    for length in args.measure:
        if not 1 <= length <= most:
            raise InputError(f"-m: list lengths have to be 1 or more, at most {most}, got {length}")
    if not 0 <= args.sample_store_size <= LARGEST_STORE:
        raise InputError(
            f"-ss: expected 0 or more ids, at most {LARGEST_STORE}, got {args.sample_store_size}"
        )
    if args.log_primary_metric and (len(args.test) != 1 or len(args.measure) != 1):
        raise InputError(
            "-lpm prints one number: it needs exactly one test set (-t) and one list length (-m)"
        )
    if args.evaluate_each_epoch and (args.load_model or len(args.test) != 1):
        raise InputError(
            "-ee evaluates after every epoch: it needs a training (no -l) and exactly one test set "
            "(-t)"
        )
    if (args.load_model or args.check) and args.save_model is not None:
        option = "-l" if args.load_model else "--check"
        raise InputError(f"-s saves a model after training; leave it out with {option}")
    if args.ranks is not None and (args.check or len(args.test) != 1):
        raise InputError(
            "--ranks writes the ranks of one evaluation: it needs exactly one test set (-t) and no "
            "--check"
        )
    for option, value in (("--retrain", args.retrain), ("--seed", args.seed)):
        if value is not None and (args.load_model or args.check):
            raise InputError(f"{option} is about a training; leave it out with -l and --check")
    _check_checkpoint_options(args)
    _check_recommend_options(args)
    # the sessions of --recommend need nothing to predict
    args.evaluated = args.test if args.recommend is None else []
    if args.export is not None and args.check:
        raise InputError("--export writes a trained model; leave it out with --check")
    if args.force and args.save_model is args.ranks is args.recommend is args.export is None:
        raise InputError(
            "--force lets -s, --ranks, --recommend and --export replace a file; give one of them, "
            "too"
        )
    args.settings = {}
    if args.parameter_string is not None:
        table = parameters.BASELINES.get(args.baseline, parameters.PARAMETERS)
        args.settings = parameters.convert(parameters.parse_string(args.parameter_string), table)
    elif args.parameter_file is not None:
        args.settings = parameters.convert(parameters.read_file(args.parameter_file))
    args.settings.update(arguments.given_columns(args))
    if args.seed is not None:
        if args.settings.get("seed", args.seed) != args.seed:
            raise InputError(
                f"--seed {args.seed}: the parameters say seed={args.settings['seed']}; give one of "
                "the two"
            )
        args.settings.update(parameters.convert({"seed": args.seed}))
    has_base = args.load_model or args.retrain is not None
    if args.baseline is None and not has_base and args.gru4rec_model == "gru4rec":
        # a variant has defaults of its own: set_params checks beside them, once it is imported
        parameters.check_combination({**parameters.defaults(), **args.settings})
    for path in [args.path, *args.test, *([args.retrain] if args.retrain is not None else [])]:
        if not os.path.exists(path):
            raise InputError(f"{path}: no such file; check the path")
    return args


def _check_checkpoint_options(args: argparse.Namespace) -> None:
    if args.checkpoint is None:
        if args.resume or args.checkpoint_minutes is not None:
            raise InputError(
                "--resume and --checkpoint_minutes are about --checkpoint; give --checkpoint DIR"
            )
        return
    if args.load_model or args.check:
        raise InputError("--checkpoint is about a training; leave it out with -l and --check")
    parameters.check_arguments(
        checkpoint=args.checkpoint, checkpoint_minutes=args.checkpoint_minutes
    )


def _check_recommend_options(args: argparse.Namespace) -> None:
    if args.recommend is None:
        if args.exclude_seen or args.k != 20:
            raise InputError(
                "-k and --exclude_seen are about --recommend; give --recommend OUT_PATH"
            )
        return
    if args.check or len(args.test) != 1:
        raise InputError("--recommend needs exactly one table of sessions (-t) and no --check")
    if args.ranks is not None or args.extra_metrics or args.evaluate_each_epoch:
        raise InputError("--recommend evaluates nothing; leave out --ranks, -x and -ee")
    if args.log_primary_metric:
        raise InputError("--recommend evaluates nothing; leave out -lpm")
    if args.k < 1:
        raise InputError(f"-k: expected 1 item or more, got {args.k}")


def _check_baseline_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raise an InputError at an option that is about GRU4Rec, beside ``--baseline``."""
    for option, name in GRU4REC_OPTIONS.items():
        if getattr(args, name) != parser.get_default(name):
            raise InputError(f"{option} is about GRU4Rec; leave it out with --baseline")


def main(argv: list[str] | None = None) -> None:
    """Run the command line program.

    Raises
    ------
    InputError
        For every mistake that the user can correct.
    """
    args = parse_arguments(argv)
    if args.check:
        from gru4rec_toolkit.data import report

        report.report(args.path, args.test, **arguments.given_columns(args))
        return
    if args.save_model is not None:
        _check_save_path(args)
    if args.ranks is not None:
        _check_table_path(args, "RANKS", args.ranks)
    if args.recommend is not None:
        _check_table_path(args, "RECOMMENDATIONS", args.recommend)
    if args.export is not None:
        _check_export_path(args)
    # ours at INFO only: Theano's logger would report every wait for another process's compilation
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("gru4rec").setLevel(logging.INFO)

    gru: GRU4Rec | Baseline
    if args.baseline is not None:
        gru, logs = _fit_baseline(args)
    else:
        from gru4rec_toolkit import theano_setup

        theano_setup.configure(args.device)
        model_class = _model_class(args.gru4rec_model)
        _check_methods(model_class, args)
        gru, logs = _load(model_class, args) if args.load_model else _train(model_class, args)
    _use(gru, logs, args)


def _use(
    gru: GRU4Rec | Baseline, logs: dict[str, SessionLog], args: argparse.Namespace
) -> None:
    """Save, export and evaluate a model.

    A file that cannot be written does not keep the rest from being done, for which a training may
    have taken days; it is told at the end.
    """
    # of a model only: see GRU4REC_OPTIONS
    jobs: list[tuple[Callable[..., None], str | None]] = [
        (_save, args.save_model),
        (_export, args.export),
        (_recommend, args.recommend),
    ]
    steps: list[Callable[[], None]] = [
        functools.partial(job, gru, args) for job, path in jobs if path is not None
    ]
    steps += [functools.partial(_evaluate, gru, path, logs, args) for path in args.evaluated]
    failures = []
    for step in steps:
        try:
            step()
        except InputError as err:
            failures.append(err)
    if failures:
        raise failures[0] if len(failures) == 1 else InputError("; ".join(map(str, failures)))


def _model_class(name: str) -> type[GRU4Rec]:
    """Return the GRU4Rec class of a module, given by its name or file."""
    try:
        module = _module_of_file(name) if name.endswith(".py") else importlib.import_module(name)
    except SyntaxError as err:
        where = f", line {err.lineno}" if err.lineno else ""
        raise InputError(
            f"-g {name}: {err.filename or name}{where}: SyntaxError: {err.msg}; correct it"
        ) from None
    except (Exception, SystemExit) as err:  # any error of the user's code
        raise _failure_of(name, err, "give an importable module or its .py file") from None
    model_class = getattr(module, "GRU4Rec", None)
    if not isinstance(model_class, type):
        raise InputError(f"-g {name}: the module holds no class named GRU4Rec")
    return model_class


def _new_model(model_class: type[GRU4Rec], args: argparse.Namespace) -> GRU4Rec:
    """Return a new model of a class, which may be the user's, if it has what a training needs."""
    try:
        gru = model_class()
    except InputError:
        raise
    except (Exception, SystemExit) as err:
        raise _failure_of(args.gru4rec_model, err, "correct its constructor") from None
    needed = ["set_params", "session_key", "item_key", "time_key", "fit"]
    needed += ["savemodel"] if args.save_model is not None else []
    needed += ["item_ids", "trained_network"] if args.test else []
    _check_parts(gru, needed, args.gru4rec_model)
    return gru


def _check_methods(model_class: type[GRU4Rec], args: argparse.Namespace) -> None:
    """Raise an InputError if the class, which may be the user's, lacks what options call."""
    needed = {"--recommend": "write_recommendations"} if args.recommend is not None else {}
    if args.export is not None:
        from gru4rec_toolkit.serving import exports

        needed["--export"] = f"export_{exports.format_of(args.export)}"
    for option, method in needed.items():
        if not hasattr(model_class, method):
            raise InputError(
                f"-g {args.gru4rec_model}: its class has no method {method}, which {option} "
                "calls; derive it from gru4rec.GRU4Rec"
            )
    if "export_onnx" in needed.values():
        model_class.check_onnx()


def _check_parts(model: object, needed: list[str], name: str) -> None:
    missing = [part for part in needed if not hasattr(model, part)]
    if missing:
        raise InputError(
            f"-g {name}: its class GRU4Rec has no {', '.join(missing)}; derive it from "
            "gru4rec.GRU4Rec, or give it these as well"
        )


def _failure_of(name: str, err: BaseException, advice: str) -> InputError:
    """Return the message for the user about an error that came out of the code of -g."""
    line = _line_that_failed(err)
    if isinstance(err, SystemExit):
        return InputError(
            f"-g {name}: {line or 'its code'}: it ends the program (sys.exit); take that out"
        )
    if line is None:
        return InputError(f"-g {name}: {' '.join(str(err).split())}; {advice}")
    return InputError(f"-g {name}: {line}: {one_line(err)}; correct it")


def _module_of_file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise FileNotFoundError("no such file")
    # the file may have the name of a module that it imports, gru4rec.py for example
    name = f"_variant_{os.path.basename(path)[:-3]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("this is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module while it is executed
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _line_that_failed(err: BaseException) -> str | None:
    """Return file and line of a module's own code that raised; None if none of it was run."""
    frames = traceback.extract_tb(err.__traceback__)
    ours = (__file__, importlib.__file__)
    own = [f for f in frames if f.filename not in ours and not f.filename.startswith("<frozen ")]
    last = [f for f in own if f.filename == own[0].filename][-1:]
    return f"{last[0].filename}, line {last[0].lineno}" if last else None


def _keys(gru: GRU4Rec | Baseline) -> tuple[str, str, str]:
    return gru.session_key, gru.item_key, gru.time_key


def _load(
    model_class: type[GRU4Rec], args: argparse.Namespace
) -> tuple[GRU4Rec, dict[str, SessionLog]]:
    """Return the model and its test sets, indexed."""
    print(f"Loading trained model from file: {args.path}")
    _check_parts(model_class, ["loadmodel", "apply"], args.gru4rec_model)
    gru = model_class.loadmodel(args.path)
    gru.apply(args.settings)
    return gru, _index_test_sets(gru, args, gru.item_ids)


def _fit_baseline(args: argparse.Namespace) -> tuple[Baseline, dict[str, SessionLog]]:
    """Fit a baseline; return it and its test sets, indexed."""
    from gru4rec_toolkit import baselines

    print(f"Creating baseline {args.baseline}")
    model = baselines.BASELINES[args.baseline]()
    model.set_params(**args.settings)
    data, logs = _read_data(model, args)
    print("Started training", flush=True)
    start = time.perf_counter()
    model.fit(data)
    print(f"Total training time: {time.perf_counter() - start:.2f}s")
    return model, logs


def _train(
    model_class: type[GRU4Rec], args: argparse.Namespace
) -> tuple[GRU4Rec, dict[str, SessionLog]]:
    """Train a model; return it and its test sets, indexed."""
    if args.retrain is not None:
        print(f"Loading trained model from file: {args.retrain}")
        _check_parts(model_class, ["loadmodel", "set_params", "fit"], args.gru4rec_model)
        gru = model_class.loadmodel(args.retrain)
    else:
        print("Creating GRU4Rec model")
        gru = _new_model(model_class, args)
    gru.set_params(**args.settings)
    data, logs = _read_data(gru, args)
    store_type = "cpu" if args.sample_store_on_cpu else "gpu"
    print("Started training", flush=True)
    start = time.perf_counter()
    # a variant's fit need not know these
    options: dict[str, Any] = {} if args.retrain is None else {"retrain": True}
    if args.evaluate_each_epoch:
        options["after_epoch"] = _epoch_evaluation(gru, logs, args)
    if args.checkpoint is not None:
        options["checkpoint"], options["resume"] = args.checkpoint, args.resume
        options["checkpoint_minutes"] = args.checkpoint_minutes
    _check_arguments(gru.fit, options, args.gru4rec_model)
    gru.fit(data, sample_store=args.sample_store_size, store_type=store_type, **options)
    print(f"Total training time: {time.perf_counter() - start:.2f}s")
    return gru, logs


def _check_arguments(fit: Callable, options: dict[str, Any], name: str) -> None:
    """Raise an InputError if the fit of a variant does not take what options of ours need."""
    taken = inspect.signature(fit).parameters
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    for option in options:
        if option not in taken:
            raise InputError(
                f"-g {name}: its fit takes no argument {option}, which an option of this command "
                "line needs; add it, or leave the option out"
            )


def _read_data(
    gru: GRU4Rec | Baseline, args: argparse.Namespace
) -> tuple[pd.DataFrame, dict[str, SessionLog]]:
    """Return the training data, and the test sets, indexed."""
    from gru4rec_toolkit.data import events, ids

    print("Loading training data...")
    data = events.read_events(args.path, *_keys(gru))
    # before a long training, to find out whether they can be used after it
    logs = {}
    if args.test:
        before: Ids = gru.item_ids if args.retrain is not None else []
        known = ids.extend_item_ids(before, data, gru.item_key)
        logs = _index_test_sets(gru, args, known)
        if not args.evaluated:
            _read_sessions(gru, args, known, announce=False)  # not kept: they may be many
    return data, logs


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

    inputs = _inputs(args)
    written = {"-s": args.save_model, "--ranks": args.ranks, "--recommend": args.recommend}
    inputs.update((f"the file of {option}", path) for option, path in written.items() if path)
    exports.check_writable(exports.format_of(args.export), args.export, args.force, inputs)


def _inputs(args: argparse.Namespace) -> dict[str, str]:
    """Return the files that this run reads, by what they are."""
    inputs = {"the model" if args.load_model else "the training data": args.path}
    if args.retrain is not None:
        inputs["the model of --retrain"] = args.retrain
    inputs.update((f"the test set {path}", path) for path in args.test)
    if args.checkpoint is not None:
        from gru4rec_toolkit.model.checkpoint import FILE_NAME

        inputs["the file of --checkpoint"] = os.path.join(args.checkpoint, FILE_NAME)
    if args.parameter_file is not None:
        inputs["the parameter file"] = args.parameter_file
    if args.gru4rec_model.endswith(".py"):
        inputs["the file of -g"] = args.gru4rec_model
    return inputs


def _index_test_sets(
    gru: GRU4Rec | Baseline, args: argparse.Namespace, item_ids: Ids
) -> dict[str, SessionLog]:
    """Read every test set once, and keep its index, which is small beside the table itself."""
    paths = dict.fromkeys(args.evaluated)
    return {path: _index_test_set(gru, path, args, item_ids) for path in paths}


def _index_test_set(
    gru: GRU4Rec | Baseline, path: str, args: argparse.Namespace, item_ids: Ids
) -> SessionLog:
    from gru4rec_toolkit.data import events, sessions

    data = events.read_events(path, *_keys(gru), announce=False)
    keep_ids = args.ranks is not None
    log = sessions.index_sessions(
        data, *_keys(gru), item_ids=item_ids, source=path, keep_session_ids=keep_ids
    )
    sessions.check_test_log(log, path)
    return log


def _epoch_evaluation(
    gru: GRU4Rec, logs: dict[str, SessionLog], args: argparse.Namespace
) -> Callable[[int], None]:
    """Return what evaluates the model in training, and prints one line, after an epoch."""

    def evaluate(epoch: int) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # the evaluation's announcement
                recall, mrr = _metrics(gru, args.test[0], logs, args)
        except Exception as err:  # of a variant's code, too; at the end it is told in full
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

    if not sessions.fits(logs[path], gru.item_ids):  # a variant's fit may choose its items itself
        logs[path] = _index_test_set(gru, path, args, gru.item_ids)
    return evaluation.evaluate_gpu(
        gru, logs[path], cut_off=args.measure, mode=args.eval_type, **options
    )


def _read_sessions(
    gru: GRU4Rec | Baseline, args: argparse.Namespace, item_ids: Ids, announce: bool = True
) -> pd.DataFrame:
    """Return the sessions of --recommend; they have to know some of the model's items."""
    from gru4rec_toolkit.data import events, ids, sessions

    (path,) = args.test
    data = events.read_events(path, *_keys(gru), announce=announce)
    if (ids.item_indices(item_ids, data[gru.item_key]) < 0).all():
        raise sessions.none_known(path, len(item_ids), gru.item_key)
    return data


def _recommend(gru: GRU4Rec, args: argparse.Namespace) -> None:
    print("Loading sessions...")
    data = _read_sessions(gru, args, gru.item_ids)
    start = time.perf_counter()
    gru.write_recommendations(args.recommend, data, args.k, args.exclude_seen, args.force)
    print(f"Recommending took {time.perf_counter() - start:.2f}s")
    print(f"Recommendations written to: {args.recommend}")


def _export(gru: GRU4Rec, args: argparse.Namespace) -> None:
    from gru4rec_toolkit.serving import exports

    print(f"Exporting model to: {args.export}")
    getattr(gru, f"export_{exports.format_of(args.export)}")(args.export, args.force)


def _metric_text(n: int, recall: float, mrr: float) -> str:
    return f"Recall@{n}: {recall:.6f} MRR@{n}: {mrr:.6f}"


def _evaluate(
    gru: GRU4Rec | Baseline, path: str, logs: dict[str, SessionLog], args: argparse.Namespace
) -> None:
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
    for n, r, m in zip(args.measure, recall, mrr):
        print(_metric_text(n, r, m))
    if extra:
        names = [parameters.EXTRA_METRICS[name] for name in extra]
        for n, values in zip(args.measure, zip(*others)):
            print(" ".join(f"{name}@{n}: {x:.6f}" for name, x in zip(names, values)))
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
