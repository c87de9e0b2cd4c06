"""Options of ``run.py``: the parser, and what contradicts each other.

The standard library alone, so that ``-h`` and a typing error answer at once.
"""

from __future__ import annotations

import argparse
import os

from gru4rec_toolkit import arguments, parameters
from gru4rec_toolkit.errors import InputError, check_no_directory, check_regular
from gru4rec_toolkit.tracking import options as tracking

# options that mean nothing to a baseline, with their names in the parsed arguments
GRU4REC_OPTIONS = {
    "-pf": "parameter_file",
    "-l": "load_model",
    "--check": "check",
    "--retrain": "retrain",
    "--seed": "seed",
    "-ns": "n_seeds",
    "--keep_optimizer": "keep_optimizer",
    "-s": "save_model",
    "-uk": "user_key",
    "--history": "history",
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
    **tracking.OPTIONS,
    "--plot": "plot",
}
LARGEST_STORE = 10**12  # more bytes than memory can have; numpy cannot even name larger sizes


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = arguments.Parser(
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
    add(
        "-ns",
        "--n_seeds",
        metavar="N",
        type=int,
        help="train and evaluate N models with seeds from --seed on, and print the metrics' mean "
        "and spread",
    )
    add(
        "--keep_optimizer",
        action="store_true",
        help="let -s keep the optimizer's state, too; with --retrain go on from the one that the "
        "model keeps. Without, every training begins with a new one",
    )
    arguments.add_save_model(parser)
    arguments.add_force(
        parser,
        help="let -s, --ranks, --recommend, --export, --log-file and --plot replace an existing "
        "file of another kind",
    )
    arguments.add_test_sets(parser, help="one or more test sets")
    add(
        "--history",
        metavar="HISTORY_PATH",
        help="events before the test sets, such as the training data: each of their sessions, or "
        "with -uk users, starts from the state that its own events there leave",
    )
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
    arguments.add_user_column(parser)
    tracking.add(parser)
    arguments.add_primary_metric(parser, "-lpm prints and --validate decides by")
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
    arguments.add_verbosity(parser)
    arguments.add_version(parser)
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
        _check_no_model(args)
        parser.error(
            "one of -ps, -pf, -l, --check, --retrain and --baseline is needed; see run.py -h"
        )
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
    of_training = {
        "--retrain": args.retrain,
        "--seed": args.seed,
        "-ns": args.n_seeds,
        "--keep_optimizer": args.keep_optimizer or None,
        **{option: getattr(args, name) for option, name in tracking.OPTIONS.items()},
    }
    for option, value in of_training.items():
        if value is not None and (args.load_model or args.check):
            raise InputError(f"{option} is about a training; leave it out with -l and --check")
    _check_checkpoint_options(args)
    _check_recommend_options(args)
    _check_seeds_options(args)
    # the sessions of --recommend need nothing to predict
    args.evaluated = args.test if args.recommend is None else []
    tracking.check(args)
    if args.check and args.history is not None:
        raise InputError("--history is about a model; leave it out with --check")
    if args.history is not None and not args.test and args.validate is None:
        raise InputError(
            "--history is where test sets go on from: give one with -t, or sessions with --validate"
        )
    if args.export is not None and args.check:
        raise InputError("--export writes a trained model; leave it out with --check")
    written = (args.save_model, args.ranks, args.recommend, args.export, args.log_file, args.plot)
    if args.force and not any(path is not None for path in written):
        raise InputError(
            "--force lets -s, --ranks, --recommend, --export, --log-file and --plot replace a "
            "file; give one of them, too"
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
    for path in [args.path, *args.test, args.retrain, args.validate, args.history]:
        if path is not None and not os.path.exists(path):
            raise InputError(f"{path}: no such file; check the path")
        if path is not None:
            check_no_directory(path)
    _check_no_model(args)
    return args


def _check_no_model(args: argparse.Namespace) -> None:
    """Raise an InputError if PATH, which has to be training data, is a saved model."""
    if args.load_model or not _may_be_model(args.path):
        return
    from gru4rec_toolkit import modelfile

    if modelfile.is_model(args.path):
        raise InputError(
            f"{args.path}: this is a saved model; add -l to load it, or give training data as PATH "
            "and the model to --retrain"
        )


def _may_be_model(path: str) -> bool:
    """Tell by the first bytes whether a file may be a model, for which NumPy is worth its time."""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except (OSError, ValueError):
        return False


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


def _check_seeds_options(args: argparse.Namespace) -> None:
    if args.n_seeds is None:
        return
    if args.n_seeds < 1:
        raise InputError(f"-ns: expected 1 seed or more, got {args.n_seeds}")
    one_model = {"--ranks": args.ranks, "--recommend": args.recommend, "--export": args.export}
    for option, path in one_model.items():
        if path is not None:
            raise InputError(
                f"{option} is about one model; leave out -ns, or save the models with -s and load "
                "each with -l"
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
