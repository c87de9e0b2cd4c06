"""Options of the command line that track a training."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gru4rec_toolkit.errors import InputError

if TYPE_CHECKING:
    from gru4rec_toolkit.tracking.plot import Plot

# those that mean nothing without a training, with their names in the parsed arguments
OPTIONS = {
    "--validate": "validate",
    "--patience": "patience",
    "--log-file": "log_file",
    "--tensorboard": "tensorboard",
    "--mlflow": "mlflow",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--validate",
        metavar="VALID_PATH",
        help="evaluate the model on these sessions after every epoch, and keep the weights of the "
        "best one: by -pm at the first length of -m, ties by -e",
    )
    parser.add_argument(
        "--patience",
        metavar="EPOCHS",
        type=int,
        help="end the training when so many epochs in a row were not better than the best one",
    )
    parser.add_argument(
        "--log_file",
        "--log-file",
        metavar="LOG_PATH",
        help="write loss and metrics of every epoch to this tab separated table",
    )
    parser.add_argument(
        "--plot",
        metavar="PLOT_PATH",
        help="draw loss and metrics over the epochs, and those of -t over the list lengths, into "
        "this .png, .svg or .pdf file",
    )
    parser.add_argument(
        "--tensorboard", metavar="DIR", help="write loss and metrics of every epoch for TensorBoard"
    )
    parser.add_argument(
        "--mlflow",
        metavar="EXPERIMENT",
        help="send parameters, loss and metrics to this experiment of MLflow, where its "
        "environment variables lead",
    )


def check(args: argparse.Namespace) -> None:
    """Raise an InputError if options contradict each other."""
    if args.plot is not None and (args.check or (args.load_model and not args.evaluated)):
        raise InputError(
            "--plot draws a training or an evaluation: it needs a training or a test set (-t), and "
            "no --check"
        )
    if args.patience is not None:
        if args.validate is None:
            raise InputError("--patience is about --validate; give --validate VALID_PATH, too")
        if args.patience < 1:
            raise InputError(f"--patience: expected 1 epoch or more, got {args.patience}")


class Trackers:
    """The trackers that a command line asks for.

    Parameters
    ----------
    args : Namespace
    inputs : mapping of str to path
        Files that must not be replaced, by what they are.

    Raises
    ------
    InputError
        If one of them cannot work.
    """

    def __init__(self, args: argparse.Namespace, inputs: Mapping[str, str]) -> None:
        self._experiment = args.mlflow
        self._callbacks: list[Any] = []
        self.plot: Plot | None = None
        # imported where they are asked for: matplotlib and MLflow take seconds
        if args.log_file is not None:
            from gru4rec_toolkit.tracking.logfile import LogFile

            self._callbacks.append(LogFile(args.log_file, args.force, inputs))
            inputs = {**inputs, "the file of --log-file": args.log_file}
        if args.plot is not None:
            from gru4rec_toolkit.tracking.plot import Plot

            self.plot = Plot(args.plot, args.force, inputs)
            self._callbacks.append(self.plot)
        if args.tensorboard is not None:
            from gru4rec_toolkit.tracking.tensorboard import TensorBoard

            self._callbacks.append(TensorBoard(args.tensorboard))

    def of_training(self, model: Any) -> list[Any]:
        """Return the callbacks of a training of this model."""
        if self._experiment is None:
            return self._callbacks
        from gru4rec_toolkit.tracking.mlflow import MLflow

        # a variant that is derived from nothing of ours may have none
        values = model.get_params() if hasattr(model, "get_params") else {}
        return [*self._callbacks, MLflow(self._experiment, parameters=values)]

    def failures(self) -> list[InputError]:
        """Return what could not be written to the end, for sentences at the end of a program."""
        found = [callback.failure() for callback in self._callbacks]
        return [failure for failure in found if failure is not None]
