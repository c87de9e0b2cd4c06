"""A training as a tab separated table, one row an epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.tracking.epochs import Epoch
from gru4rec_toolkit.tracking.history import History
from gru4rec_toolkit.tracking.output import Output

COLUMNS = ("Seed", "Epoch", "Loss", "Seconds", "MiniBatches", "Events")
BEST = "Best"  # behind the metrics
_HEADER = "\t".join(COLUMNS).encode()


class LogFile:
    """A tab separated table of a training, for `GRU4Rec.fit`'s ``callbacks``.

    Its columns are Seed, Epoch, Loss, Seconds, MiniBatches, Events, with validation the metrics
    (``Recall@20``, ``MRR@20``, ...) and Best, which is 1 where no epoch before was as good.
    Numbers are written so that reading them gives the same floats. The file is whole at any moment.
    It holds all trainings that one `LogFile` was given to, with seeds of their own; a training that
    is repeated, or goes on from a checkpoint, takes the place of its earlier rows.

    Parameters
    ----------
    path : str or path-like
        An earlier log is replaced when the first epoch is done. A symbolic link stays, its target
        is written.
    force : bool
        Whether an existing file of another kind may be replaced.
    inputs : mapping of str to path, optional
        Files that must not be replaced in any case, by what they are: ``the training data``.

    Raises
    ------
    InputError
        If the file cannot be written, or is one that must not be replaced. Later, while a training
        runs, a failure is a warning, and the next epoch tries again.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        force: bool = False,
        inputs: Mapping[str, str | os.PathLike] | None = None,
    ) -> None:
        self._history = History()
        self._output = Output(
            "the log of the training", path, "a log of a training", is_log, inputs, force
        )

    def __call__(self, epoch: Epoch) -> None:
        """Add an epoch, and write the table."""
        self._history.add(epoch)
        self._output.write(table(self._history).encode())

    def failure(self) -> InputError | None:
        """Try for the last time what could not be written; return why it is lost, or None."""
        return self._output.failure()


def table(history: History) -> str:
    """Return epochs as a tab separated table with a header line."""
    names = history.metric_names()
    rows = [[*COLUMNS, *names, *([BEST] if names else [])]]
    for epoch in history:
        row = [str(int(epoch.seed)), str(int(epoch.number))]
        # numpy's floats have another repr
        row += [repr(float(epoch.loss)), repr(float(epoch.seconds))]
        row += [str(int(epoch.n_steps)), str(int(epoch.n_events))]
        row += [repr(float(epoch.metrics[n])) if n in epoch.metrics else "" for n in names]
        if names:
            row.append(str(int(epoch.is_best)) if epoch.metrics else "")
        rows.append(row)
    return "".join("\t".join(row) + "\n" for row in rows)


def is_log(path: str) -> bool:
    """Tell whether a file is a log of a training, by its columns."""
    with open(path, "rb") as file:
        start = file.read(len(_HEADER) + 1)
    return start[:-1] == _HEADER and start[-1:] in b"\t\n"
