"""Search hyperparameters of GRU4Rec with Optuna: the command line.

Everything is checked before the first trial, and arguments are parsed before anything heavy is
imported.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gru4rec_toolkit import arguments, machine, messages, parameters, theano_setup
from gru4rec_toolkit.errors import (
    InputError,
    check_no_directory,
    check_regular,
    missing_package,
    run_cli,
    shown,
)
from gru4rec_toolkit.search.settings import Settings
from gru4rec_toolkit.search.space import (
    SearchParameter,
    aligned,
    check_space,
    read_space,
    space_table,
)
from gru4rec_toolkit.tracking.plot import FORMATS

if TYPE_CHECKING:
    from gru4rec_toolkit.search.worker import (
        Search,
    )

logger = logging.getLogger("gru4rec")
SAMPLERS = ("tpe", "random", "gp", "grid")
PRUNERS = ("none", "median", "hyperband")
# a job is a thread here and a process that trains
MOST_JOBS = 1000
MOST_TRIALS = 2**31 - 1
# what may follow device=auto in the flags of a training that needs no trial of its own
_SAFE_DEVICES = (",device=auto", ",device=cpu")
# seconds; the clocks of Python and of databases overflow with some more digits
LONGEST_HEARTBEAT = 86400
# Databases keep the name of a study in a column of this width.
LONGEST_NAME = 512


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = arguments.Parser(
        prog="paropt.py",
        description="Search the parameters of a GRU4Rec model with Optuna. Running the same "
        "command again goes on with the same study; running it on several machines with the same "
        "--storage shares the work.",
    )
    add = parser.add_argument
    add("path", metavar="PATH", help="training data, as run.py takes it")
    add("test", metavar="TEST_PATH", help="data that the trials are measured on")
    arguments.add_model_class(parser)
    add(
        "-tf",
        "--theano_flags",
        metavar="FLAGS",
        help="THEANO_FLAGS of the training processes (default: device=auto)",
    )
    add(
        "-fp",
        "--fixed_parameters",
        metavar="STRING",
        help="parameters that are not searched, as name=value,name=value",
    )
    add(
        "-opf",
        "--optuna_parameter_file",
        metavar="FILE",
        required=True,
        help="the space: one JSON object a line, as "
        '{"name": "layers", "dtype": "int", "values": [64, 512], "step": 32} (paramspaces/)',
    )
    arguments.add_list_lengths(
        parser,
        "-m",
        "--measure",
        several=False,
        help="list length of the metric that is maximised",
    )
    add(
        "-nt",
        "--ntrials",
        metavar="NT",
        type=int,
        default=50,
        help="trials of the study in total, those of earlier runs and other workers included; "
        "failed ones do not count (default: 50)",
    )
    arguments.add_list_lengths(
        parser, "-fm", "--final_measure", help="list lengths of the final evaluation"
    )
    arguments.add_primary_metric(parser, "is maximised")
    arguments.add_tie_mode(parser, parameters.TIE_MODES)
    arguments.add_columns(parser)
    arguments.add_user_column(parser)
    add(
        "--study",
        metavar="NAME",
        help="the study's name in the storage (default: from the names of PATH and the space)",
    )
    add(
        "--storage",
        metavar="URL",
        help="where the study is kept: the path of a journal file, or a database, as in "
        "sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DATABASE, mysql+pymysql://... "
        "(default: study.journal in the directory of the results)",
    )
    add(
        "--results",
        metavar="DIR",
        help="directory of results.tsv, best_parameters.py and the logs (default: searches/NAME)",
    )
    add("--plots", metavar="DIR", help="draw the study into this directory at the end")
    add(
        "--plots_format",
        choices=[*FORMATS],
        default="png",
        help="of the files of --plots (default: png)",
    )
    add(
        "--jobs",
        metavar="N",
        type=int,
        help="trials that run at the same time (default: one a device, else 1)",
    )
    add(
        "--devices",
        metavar="D",
        nargs="+",
        help="devices of the jobs, as in cuda0 cuda1 (default: what -tf says)",
    )
    add(
        "--sampler",
        choices=SAMPLERS,
        default="tpe",
        help="how values are chosen (default: tpe)",
    )
    arguments.add_seed(
        parser, help="of the sampler; one job repeats its suggestions (default: 42)", default=42
    )
    add(
        "--pruner",
        choices=PRUNERS,
        default="none",
        help="stops trials that do badly, by an evaluation after every epoch (default: none)",
    )
    add(
        "--max_failures",
        metavar="N",
        type=int,
        default=5,
        help="end the search when so many trials in a row have failed (default: 5)",
    )
    add(
        "--heartbeat",
        metavar="SECONDS",
        type=int,
        default=60,
        help="a worker's sign of life; after three that are missing its trial is given to another "
        "(default: 60)",
    )
    arguments.add_verbosity(parser)
    arguments.add_version(parser)
    return parser


def parse_arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, Settings]:
    """Parse and check the command line.

    Raises
    ------
    InputError
        If an option, a parameter, the space or a path cannot be used.
    """
    args = build_parser().parse_args(argv)
    for option, value, most in (
        ("-m", args.measure, arguments.LONGEST_LIST),
        ("-fm", min(args.final_measure), arguments.LONGEST_LIST),
        ("-fm", max(args.final_measure), arguments.LONGEST_LIST),
        ("-nt", args.ntrials, MOST_TRIALS),
        ("--jobs", args.jobs, MOST_JOBS),
        ("--max_failures", args.max_failures, MOST_TRIALS),
        ("--heartbeat", args.heartbeat, LONGEST_HEARTBEAT),
    ):
        if value is not None and (value < 1 or value > (most or value)):
            expected = "1 or more" if most is None or value < 1 else f"1 to {most}"
            raise InputError(f"{option}: expected {expected}, got {value}")
    if not 0 <= args.seed < 2**32:
        raise InputError(f"--seed: expected an integer from 0 to 4294967295, got {args.seed}")
    if args.plots is None and args.plots_format != "png":
        raise InputError("--plots_format is about --plots; give --plots DIR")
    _check_texts(args)
    for path in (args.path, args.test):
        if not os.path.exists(path):
            raise InputError(f"{path}: no such file; check the path")
        check_no_directory(path)
        check_regular(path)
    fixed = parameters.parse_string(args.fixed_parameters) if args.fixed_parameters else {}
    columns = arguments.given_columns(args)
    for name in columns:
        if name in fixed:
            raise InputError(f"{name} is given twice, by -fp and by an option of its own")
    space = read_space(args.optuna_parameter_file)
    converted = parameters.convert({**fixed, **columns})
    check_space(space, converted)
    devices = _devices(args)
    try:
        importlib.import_module("optuna")
    except Exception as err:
        raise missing_package("paropt.py", "optuna", err) from None

    from gru4rec_toolkit.search import methods, report

    methods.check_sampler(args.sampler, space)
    study = args.study or f"{Path(args.path).stem}_{Path(args.optuna_parameter_file).stem}"
    if len(study) > LONGEST_NAME or not study.isprintable():
        raise InputError(
            f"--study: expected a name of {LONGEST_NAME} printable characters at most, "
            f"got {shown(study, 60)}"
        )
    # neither another directory's name nor . or ..
    folder = re.sub(r"[^\w.-]|^\.(?=\.*$)", "_", study)
    results = Path(args.results or Path("searches") / folder)
    report.check_files(results)
    settings = Settings(
        train=args.path,
        test=args.test,
        space=space,
        fixed=fixed,
        metric=args.primary_metric,
        length=args.measure,
        eval_type=args.eval_type,
        model=args.gru4rec_model,
        columns=columns,
        n_trials=args.ntrials,
        storage=args.storage or str(results / "study.journal"),
        study=study,
        results=results,
        devices=devices,
        threads=_threads(len(devices)),
        theano_flags=_theano_flags(args),
        sampler=args.sampler,
        pruner=args.pruner,
        seed=args.seed,
        heartbeat=args.heartbeat,
        max_failures=args.max_failures,
        most_epochs=_most_epochs(space, converted),
        verbose=args.verbose,
    )
    return args, settings


def _check_texts(args: argparse.Namespace) -> None:
    """Refuse texts that cannot be passed on, printed or written to the reports."""
    texts = {"-g": args.gru4rec_model, "-opf": args.optuna_parameter_file}
    texts.update({"-tf": args.theano_flags or None, "-fp": args.fixed_parameters or None})
    texts.update({f"--{n}": getattr(args, n) for n in ("study", "storage", "results", "plots")})
    for option, text in {"PATH": args.path, "TEST_PATH": args.test, **texts}.items():
        if text == "":
            raise InputError(f"{option}: expected a text, got an empty one; leave the option out")
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            raise InputError(f"{option}: expected UTF-8 text, got {shown(text)}") from None


def _devices(args: argparse.Namespace) -> list[str | None]:
    """Return one device a job, in turns."""
    devices: list[str | None] = args.devices or [None]
    for device in args.devices or []:
        if not re.fullmatch(theano_setup.DEVICE_PATTERN, device):
            raise InputError(
                f"--devices: {shown(device)} is not known; "
                "give auto, cpu, cuda0, cuda1... or opencl0:0"
            )
    if args.devices and re.search(r"(^|,)\s*device\s*=", args.theano_flags or ""):
        raise InputError("--devices and device=... in -tf exclude each other; leave one out")
    n_jobs = args.jobs or len(devices)
    return [devices[i % len(devices)] for i in range(n_jobs)]


def _threads(n_jobs: int) -> int | None:
    """Divide the cores among the jobs; one job is left what it takes by itself."""
    if n_jobs == 1:
        return None
    named = machine.first_number(os.environ.get("OPENBLAS_NUM_THREADS", "").strip())
    if named is None:
        threads, most = machine.available_cores(), machine.MOST_THREADS
    else:
        threads, most = named, machine.most_threads()
    return min(max(threads // n_jobs, 1), most)


def _theano_flags(args: argparse.Namespace) -> str:
    if args.theano_flags is not None:
        _check_flags(args.theano_flags)
        return args.theano_flags
    named = re.search(r"(^|,)\s*device\s*=", os.environ.get("THEANO_FLAGS", ""))
    return "" if named else "device=auto"


def _check_flags(flags: str) -> None:
    """Refuse flags that every training would refuse."""
    for flag in theano_setup.split_flags(flags, f"-tf: {shown(flags)}"):
        name, equals, value = flag.strip().partition("=")
        if not equals:
            raise InputError(
                f"-tf: {shown(name)} is not of the form name=value; write device=cuda0,..."
            )
        if name == "device" and not re.fullmatch(theano_setup.DEVICE_PATTERN, value):
            raise InputError(
                f"-tf: device {shown(value)} is not known; "
                "give auto, cpu, cuda0, cuda1... or opencl0:0"
            )


def _most_epochs(space: list[SearchParameter], fixed: dict) -> int:
    searched = [p for p in space if p.name == "n_epochs"]
    if searched:
        return max(int(float(text)) for text in searched[0].samples())
    return fixed.get("n_epochs", parameters.PARAMETERS["n_epochs"].default)


def _check_data(settings: Settings) -> None:
    """Find out before the first trial whether the data can be read."""
    from gru4rec_toolkit.data import events

    named = {**parameters.defaults(), **settings.fixed, **settings.columns}
    keys = (named["session_key"], named["item_key"], named["time_key"])
    for path in (settings.train, settings.test):
        events.read_events(path, *keys, announce=False, user_key=named["user_key"])


def _check_set_up(settings: Settings) -> None:
    """Find out before the first trial whether Theano takes the flags and opens the devices."""
    from gru4rec_toolkit.search import trial

    for device in dict.fromkeys(settings.devices):
        environment = settings.environment(device)
        # without flags of the user nothing can be wrong about these, and to try takes seconds
        if environment["THEANO_FLAGS"] in [f"device=auto{d}" for d in ("", *_SAFE_DEVICES)]:
            continue
        try:
            trial.check_set_up(environment)
        except trial.TrainingFailed as err:
            raise InputError(
                f"no training can start with THEANO_FLAGS={environment['THEANO_FLAGS']} "
                f"(-tf, --devices): {err}"
            ) from None


def _ties_may_win(settings: Settings) -> bool:
    """Tell whether the search may end at a model that gives all items one score."""
    loss = settings.fixed.get("loss", parameters.PARAMETERS["loss"].default)
    return settings.eval_type == "standard" and not parameters.LOSSES[loss].softmax


def main(argv: list[str] | None = None) -> None:
    """Run the command line program.

    Raises
    ------
    InputError
        For everything that the user can correct before the first trial.
    """
    args, settings = parse_arguments(argv)
    messages.set_up(args.quiet, args.verbose)
    _check_data(settings)
    _check_set_up(settings)

    from gru4rec_toolkit.search import report, storage
    from gru4rec_toolkit.search.worker import (
        Search,
        SearchFailed,
        removed_on_failure,
        storage_errors,
    )

    print("PARAMETER SPACE")
    print(space_table(settings.space))
    print("\nFIXED PARAMETERS")
    fixed = {**settings.fixed, **settings.columns} or {"none": ""}
    print(aligned(list(fixed.items())))
    print(flush=True)
    if _ties_may_win(settings):
        logger.info(
            "note: a final activation that saturates gives many items the same score, which "
            "-e standard counts as hits; -e conservative does not"
        )
    plots = [] if args.plots is None else [Path(args.plots)]
    with removed_on_failure(settings.results / "logs", *plots):
        if plots:
            report.check_plots(args.plots, args.plots_format)
        with storage_errors(storage.shown(settings.storage), InputError):
            worker = Search(settings)
    print(f"Study {settings.study} is kept in {worker.shown}")
    print(f"Results are written to {settings.results}", flush=True)
    try:
        with storage_errors(worker.shown):
            _run(worker, args)
    except SearchFailed as err:
        sys.stdout.flush()
        messages.show(f"error: {err}")
        sys.exit(1)


def _run(worker: Search, args: argparse.Namespace) -> None:
    from gru4rec_toolkit.search import report

    settings = worker.settings
    worker.run()
    trials = worker.trials()
    worker.write_results()
    if args.plots is not None:
        plots = report.write_plots(
            worker.study, settings.metric_name, args.plots, args.plots_format
        )
        for path, problem in plots.items():
            print(f"Plot not drawn: {path} ({problem})" if problem else f"Plot: {path}")
    print(report.best_table(trials, settings.space, settings.metric_name))
    print(f"Results: {settings.results / report.RESULTS}")
    print(f"Best parameters: {settings.results / report.BEST}", flush=True)
    if worker.final_is_mine():
        worker.train_best(args.final_measure)
    else:
        print("The final training runs where the study's last trial ran")


def cli() -> None:
    """Entry point of the console script ``gru4rec-paropt``."""
    run_cli(main)


if __name__ == "__main__":
    cli()
