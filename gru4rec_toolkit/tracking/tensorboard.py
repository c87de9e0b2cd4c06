"""A training in TensorBoard: event files, written by tensorboardX."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from typing import Any

from gru4rec_toolkit import files
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.tracking.epochs import Epoch
from gru4rec_toolkit.tracking.libraries import import_library
from gru4rec_toolkit.tracking.output import checked_path

logger = logging.getLogger("gru4rec")


class TensorBoard:
    """Event files that TensorBoard shows, for `GRU4Rec.fit`'s ``callbacks``.

    ``tensorboard --logdir DIRECTORY`` shows ``train/loss``, ``train/mini-batches per second``,
    ``train/events per second`` and, with validation, ``validation/Recall@20`` and the other metrics
    over the epochs. Each seed is a run of its own, in ``seed-<seed>`` of the directory. A training
    that is repeated, or goes on from a checkpoint, takes the place of the earlier one of its seed.
    What an epoch has brought is in the file when the next one begins.

    Parameters
    ----------
    directory : str or path-like
        It is made when the first epoch is done, if it is not there.

    Raises
    ------
    InputError
        If tensorboardX is missing, or nothing can be written there. Later, while a training runs, a
        failure is a warning, and the next epoch tries again.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self._name = checked_path("files for TensorBoard", directory)
        _check_directory(self._name)
        what = f"{self._name}: writing files for TensorBoard"
        import_library("tensorboardX", what, "tensorboardX")
        self._path = os.path.abspath(self._name)
        self._epochs: list[Epoch] = []  # the present training's
        self._n_written = 0
        self._file: _EventFile | None = None
        self._has_warned = False
        self._failure: InputError | None = None

    def __call__(self, epoch: Epoch) -> None:
        """Write an epoch."""
        last = self._epochs[-1] if self._epochs else None
        if last is not None and (epoch.seed != last.seed or epoch.number <= last.number):
            self.close()
        self._epochs.append(epoch)
        self._write()

    def close(self, error: BaseException | None = None) -> None:
        """End the files of the training; others may follow."""
        if self._n_written < len(self._epochs):
            self._write()
        self._end_file()
        self._epochs = []

    def failure(self) -> InputError | None:
        """Return why the last training is not whole there, or None."""
        return self._failure

    def _write(self) -> None:
        try:
            if self._file is None:
                folder = os.path.join(self._path, f"seed-{self._epochs[0].seed}")
                os.makedirs(folder, exist_ok=True)
                self._file = _EventFile(folder, self._epochs[0].number)
            for epoch in self._epochs[self._n_written :]:
                self._file.write(epoch.number, scalars(epoch))
            self._file.flush()
            self._n_written = len(self._epochs)
            self._failure = None
        except OSError as err:
            reason = files.reason_of(err)
            self._failure = InputError(
                f"cannot write files for TensorBoard to {self._name}: {reason}"
            )
            # what follows half a record cannot be read: a new file gets all epochs
            self._end_file()
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "cannot write files for TensorBoard to %s: %s; the training goes on, and the "
                    "next epoch tries again",
                    self._name,
                    reason,
                )

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._n_written = None, 0


def scalars(epoch: Epoch) -> dict[str, float]:
    """Return an epoch's numbers by their tags."""
    values = {"train/loss": epoch.loss}
    if epoch.seconds > 0:
        values["train/mini-batches per second"] = epoch.n_steps / epoch.seconds
        values["train/events per second"] = epoch.n_events / epoch.seconds
    values.update((f"validation/{name}", value) for name, value in epoch.metrics.items())
    return {tag: float(value) for tag, value in values.items()}


class _EventFile:
    """A file of TensorBoard's records, with nothing between a record and the disk.

    tensorboardX's `SummaryWriter` has a queue and a thread: a training that is killed would lose
    its last epochs, and a full disk would end the thread with a traceback.
    """

    def __init__(self, folder: str, first: int) -> None:
        from tensorboardX import RecordWriter
        from tensorboardX.proto import event_pb2

        self._event = event_pb2.Event
        # files are read in the order of their names: later ones have to come later
        seconds, rest = divmod(time.time_ns(), 10**9)
        name = f"events.out.tfevents.{seconds}.{socket.gethostname()}.{rest:09d}"
        self._records: Any = RecordWriter(os.path.join(folder, name))
        try:
            self._add(file_version="brain.Event:2")
            # from this step on, earlier files do not count any more
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step=first, session_log=start)
        except BaseException:
            self.close()
            raise

    def write(self, step: int, values: dict[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        value = [Summary.Value(tag=tag, simple_value=x) for tag, x in values.items()]
        self._add(step=step, summary=Summary(value=value))

    def _add(self, **content: Any) -> None:
        event = self._event(wall_time=time.time(), **content)
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        self._records.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._records.close()


def _check_directory(name: str) -> None:
    """Raise an InputError if a directory cannot be made, or nothing be written into it."""
    path = os.path.abspath(name) if name else ""
    while path and not os.path.lexists(path):
        path = os.path.dirname(path)
    reason = ""
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.stat(name)  # it may be too long
        if path and not os.path.isdir(path):
            reason = f"{path} is no directory"
        else:
            files.check_writable(os.path.join(path, "events") if path else "")
    except (OSError, ValueError) as err:
        reason = files.reason_of(err)
    if reason:
        raise InputError(
            f"cannot write files for TensorBoard to {name or 'an empty path'}: {reason}; give a "
            "directory that is writable, or can be made"
        )
