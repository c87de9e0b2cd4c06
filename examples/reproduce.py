"""Reproduce the published results of a data set: preprocess, train, evaluate, compare."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples import options
from examples.published import CUT_OFFS, RESULTS, comparison, paramfile
from gru4rec_toolkit import arguments, messages, parameters
from gru4rec_toolkit.errors import run_cli


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument(
        "data_set", metavar="DATASET", choices=list(RESULTS), help=", ".join(RESULTS)
    )
    options.add_directories(parser, "the preprocessed data ")
    arguments.add_parameter_string(
        parser, help="changes to the parameter file, as name=value,name=value"
    )
    arguments.add_save_model(parser)
    arguments.add_force(
        parser,
        help="replace preprocessed data that differs, and with -s a file that is no GRU4Rec model",
    )
    arguments.add_device(parser)
    parser.add_argument(
        "--valid",
        action="store_true",
        help="train on train_tr, evaluate on train_valid: for tuning, not comparable",
    )
    return parser


def main() -> None:
    """Run the command line program."""
    args = build_parser().parse_args()
    settings = parameters.read_file(paramfile(args.data_set))
    if args.parameter_string is not None:
        settings = {**settings, **parameters.parse_string(args.parameter_string)}
    settings = parameters.convert(settings)
    parameters.check_combination({**parameters.defaults(), **settings})

    from examples.cli import output_paths, preprocess
    from gru4rec_toolkit import modelfile

    data_set = importlib.import_module(f"examples.{args.data_set}.preprocess").DATA_SET
    outputs = output_paths(data_set, args.raw_directory, args.output)
    data = {
        **{f"the raw file {f.name}": Path(args.raw_directory, f.name) for f in data_set.files},
        **{f"the output {p}": output for p, output in outputs.items()},
    }
    if args.save_model is not None:
        modelfile.check_writable(args.save_model, args.force, data)
    paths = preprocess(data_set, args.raw_directory, args.output, args.force)

    messages.set_up()
    from gru4rec_toolkit import theano_setup

    theano_setup.configure(args.device)
    import evaluation
    from gru4rec import GRU4Rec
    from gru4rec_toolkit.data import ids, sessions
    from gru4rec_toolkit.data.events import read_events

    train_part, test_part = ("train_tr", "train_valid") if args.valid else ("train_full", "test")
    gru = GRU4Rec()
    gru.set_params(**settings)
    train, test = read_events(paths[train_part]), read_events(paths[test_part])
    # find out now, not after hours of training, whether there is something to evaluate; the log
    # takes much less memory than the table
    known = ids.extend_item_ids([], train)
    test_log = sessions.index_sessions(test, item_ids=known, source=paths[test_part])
    sessions.check_test_log(test_log, paths[test_part])
    del test
    began = time.perf_counter()
    gru.fit(train)
    print(f"Total training time: {time.perf_counter() - began:.2f}s")
    if args.save_model is not None:
        modelfile.check_writable(args.save_model, args.force, data)  # hours may have passed
        gru.savemodel(args.save_model, args.force)
    recall, mrr = evaluation.evaluate_gpu(gru, test_log, cut_off=list(CUT_OFFS))
    print(comparison(args.data_set, recall, mrr))
    if args.valid or args.parameter_string is not None:
        print("not comparable: the published results are on the test set, with the parameter file")


if __name__ == "__main__":
    run_cli(main)
