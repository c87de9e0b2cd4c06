"""Checkpoints: all of a training's state between two blocks of steps, in a file replaced whole.

A training that goes on from one ends with the weights of a training that nothing interrupted, bit
for bit on the same device and number of threads. What is random follows from the seed and from
counters (negatives, dropout, order of the sessions), so that counters are stored, and no draws.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from gru4rec_toolkit import container, files, theano_setup
from gru4rec_toolkit.data.sessions import SessionLog
from gru4rec_toolkit.errors import (
    ENDING_SIGNALS,
    InputError,
    Interrupted,
    end_at_signal,
    shown,
)
from gru4rec_toolkit.parameters import defaults

if TYPE_CHECKING:
    from gru4rec_toolkit.model.training import Training

logger = logging.getLogger("gru4rec")

FILE_NAME = "checkpoint.gru4rec"
# held by the training that writes there; removed at its end, of no matter where a kill left it
LOCK_NAME = "checkpoint.lock"
_KIND = container.Kind(
    *("gru4rec-checkpoint", 2, "checkpoint", "a checkpoint of a training"),
    "delete it, or give another directory",
    oldest=2,  # the first that knows the epochs before
)
# arrays of a checkpoint beside the variables that a step changes
_COSTS, _ROWS = "epoch.costs", "epoch.rows"
# steps, mini-batches and seconds of a training; more is made up, and no array could count them
_MOST = 1 << 40


class Checkpoints:
    """The checkpoint of one training, in a directory of its own.

    Parameters
    ----------
    directory : str or path-like
        It is made for the training, if it is not there.
    minutes : float or None
        Write one after so many minutes too, at the end of a block; None: after epochs only.
    resume : bool
        Go on from the checkpoint that is there; begin if there is none.
    start : str or None
        The `digest` of the weights that a retraining goes on from.

    Raises
    ------
    InputError
        If the directory cannot be used, or holds a checkpoint and `resume` is not set.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        minutes: float | None = None,
        resume: bool = False,
        start: str | None = None,
    ) -> None:
        self.directory, self.minutes, self.resume = os.fspath(directory), minutes, resume
        self.start = start
        # whoever is called after an epoch may change the working directory
        self.path = os.path.abspath(os.path.join(self.directory, FILE_NAME))
        self._written = time.monotonic()
        self._signal: int | None = None
        self._identity: dict[str, Any] = {}
        self._problem: str | None = None  # why the last one could not be written
        with self.held():  # all that can be wrong is told before the data is looked at
            pass

    # ------------------------------------------------------------------------ the directory

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the directory and hold it; at the end it goes again, if nothing was written to it.

        Raises
        ------
        InputError
            If the directory cannot be used, or another training holds it.
        """
        directory = os.path.dirname(self.path)
        made = files.missing(directory)
        try:
            try:
                os.makedirs(directory, exist_ok=True)
            except (OSError, ValueError) as err:
                raise InputError(
                    f"checkpoint: cannot make the directory {self.directory}: "
                    f"{files.reason_of(err)}; give another one"
                ) from None
            self._check_file()
            with self._locked(directory):
                self._check_beginning()  # the training that held it may have ended by now
                yield
        finally:
            files.remove_empty(made)

    @contextlib.contextmanager
    def _locked(self, directory: str) -> Iterator[None]:
        try:
            with files.locked(os.path.join(directory, LOCK_NAME)):
                yield
        except files.Locked:
            raise InputError(
                f"checkpoint: another training that runs keeps its state in {self.directory}; wait "
                "for its end, or give another directory"
            ) from None

    def _check_file(self) -> None:
        if os.path.isfile(self.path) and not container.is_one(_KIND, self.path):
            raise InputError(
                f"checkpoint {self.path}: this is no checkpoint of a training, or a damaged one; "
                "delete it, or give another directory"
            )
        # whatever is there is a checkpoint
        files.check_target("write a checkpoint", self.path, _KIND.name, lambda _: True)

    def _check_beginning(self) -> None:
        if os.path.exists(self.path) and not self.resume:
            raise InputError(
                f"checkpoint: {self.path} holds the state of an earlier training; go on with it "
                "(--resume, in Python resume=True), delete it, or give another directory"
            )

    # ------------------------------------------------------------------------ going on

    def restore(self, training: Training) -> None:
        """Put a training where its checkpoint is, if there is one and it is asked for.

        Raises
        ------
        InputError
            If the checkpoint is damaged, or of another training: other data, other parameters.
        """
        if not self.resume:
            return
        if not os.path.exists(self.path):
            logger.info("%s: no checkpoint yet; the training begins", self.directory)
            return
        state, arrays = container.read(_KIND, self.path, "training")
        mine = self._identity_of(training)
        problem = _difference(state, mine)
        if problem is not None:
            raise InputError(
                f"checkpoint {self.path}: it belongs to a training {problem}; go on with what it "
                "was begun with, or give another directory"
            )
        try:
            training.restore(
                epoch=_count(state, "epoch", training.parameters.n_epochs),
                block_number=_count(state, "block"),
                n_served=_count(state, "served"),
                seconds=_seconds(state),
                costs=arrays.pop(_COSTS),
                rows=arrays.pop(_ROWS),
                values=arrays,
            )
        except (KeyError, TypeError, ValueError) as err:
            raise InputError(
                f"checkpoint {self.path}: its state does not fit this training ({err}); delete it, "
                "or give another directory"
            ) from None
        for name, before, now in ((n, state.get(n), mine[n]) for n in ("device", "threads")):
            if before != now:
                logger.warning(
                    "the checkpoint was written with %s=%s, this training runs with %s: its "
                    "weights will differ in their last digits",
                    name,
                    before,
                    now,
                )
        logger.info(
            "going on after %d epochs and %d blocks of steps", training.epoch, training.block_number
        )

    # ------------------------------------------------------------------------ writing

    def block_done(self, training: Training) -> None:
        """Write a checkpoint if it is time to, and end the training if a signal asks for that."""
        seconds = time.monotonic() - self._written
        due = self.minutes is not None and seconds >= 60 * self.minutes
        if due or self._signal is not None:
            self.write(training)
        self._end_if_asked()

    def epoch_done(self, training: Training) -> None:
        """Write a checkpoint, and end the training if a signal asks for that."""
        self.write(training)
        self._end_if_asked()

    def write(self, training: Training) -> None:
        """Write a checkpoint; a full disk is no reason to end a training that can still be saved.

        Where it cannot be written, the one before it is still there; the next one is tried again.
        """
        try:
            self._write(training)
            self._problem = None
            logger.debug("checkpoint written to %s", self.path)
        except (OSError, MemoryError) as err:
            no_memory = isinstance(err, MemoryError)
            problem = "not enough memory" if no_memory else files.reason_of(err)
            if problem != self._problem:  # it would come with every block
                logger.warning(
                    "cannot write the checkpoint %s: %s; the training goes on and tries again "
                    "later, %s",
                    *(self.path, problem, self._kept()),
                )
            self._problem = problem
        self._written = time.monotonic()

    def _kept(self) -> str:
        return "the one before is still there" if os.path.exists(self.path) else "there is none yet"

    def _write(self, training: Training) -> None:
        state = {
            **self._identity_of(training),
            "epoch": training.epoch,
            "block": training.block_number,
            "served": training.store.n_served if training.store else 0,
            "seconds": training.seconds,
        }
        arrays = {
            _COSTS: np.concatenate([np.empty(0), *training.costs_of_epoch]),
            _ROWS: np.concatenate([np.empty(0, np.int64), *training.rows_of_epoch]),
            **training.course.arrays(),
            **{name: v.get_value() for name, v in training.variables().items()},
        }
        with files.replacing(self.path) as file:
            container.write(_KIND, file, {"training": state}, arrays)

    def _identity_of(self, training: Training) -> dict[str, Any]:
        """Return what a checkpoint and the training that goes on from it have in common."""
        if not self._identity:  # once: a checksum of all data is in it
            setup = theano_setup.configure()
            self._identity = {
                "start": self.start,
                "network": type(training.network).__qualname__,
                "keep_optimizer": training.keep_optimizer,
                "floatX": str(training.states[0].dtype),
                "data": data_digest(training.log),
                "validation": training.course.identity(),
                "parameters": training.parameters.as_dict(),
                "device": setup.device,
                "threads": setup.threads,
            }
        return self._identity

    # ------------------------------------------------------------------------ signals

    @contextlib.contextmanager
    def signals_wait(self) -> Iterator[None]:
        """Let Ctrl-C, SIGTERM and SIGHUP wait for the end of a block; a second Ctrl-C does not."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals reach the main thread only
            return
        before = {}
        try:
            ends = (signal.default_int_handler, signal.SIG_DFL, end_at_signal)
            for number in (signal.SIGINT, *ENDING_SIGNALS):
                # a shell lets what it starts in the background ignore Ctrl-C
                if signal.getsignal(number) in ends:
                    before[number] = signal.signal(number, self._remember)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number

    def _end_if_asked(self) -> None:
        if self._signal is None:
            return
        message = f"interrupted; --resume goes on from the checkpoint {self.path}"
        if self._problem is not None:
            message = (
                f"interrupted, but the checkpoint {self.path} could not be written: "
                f"{self._problem}; {self._kept()}"
            )
        raise Interrupted(message, 128 + self._signal)


def data_digest(log: SessionLog) -> str:
    """Return a checksum of all of a log that a training depends on."""
    arrays = {"items": log.items, "offsets": log.offsets, "start_times": log.start_times}
    if log.user_offsets is not None:
        arrays["user_offsets"] = log.user_offsets
    return digest({**arrays, **container.encode("item_ids", log.item_ids)})


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a checksum of named arrays."""
    found = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _difference(state: Mapping[str, Any], mine: Mapping[str, Any]) -> str | None:
    """Return in what another training differs, or None."""
    for name in ("network", "floatX", "keep_optimizer"):
        if state.get(name) != mine[name]:
            return f"with {name}={shown(state.get(name))}, but now it is {shown(mine[name])}"
    if state.get("start") != mine["start"]:
        if mine["start"] is None:
            return "that went on from a model (--retrain), and this one begins anew"
        if state.get("start") is None:
            return "that began anew, and this one goes on from a model (--retrain)"
        return "that went on from another model"
    if state.get("data") != mine["data"]:
        return "on other data"
    if state.get("validation") != mine["validation"]:
        return "with another validation (its sessions, list lengths, ties or metric)"
    theirs = state.get("parameters")
    # one that was written before there was a parameter was trained with its default
    theirs = {**defaults(), **theirs} if isinstance(theirs, dict) and theirs else {}
    for name, value in mine["parameters"].items():
        if theirs.get(name) != value:
            return f"with {name}={shown(theirs.get(name))}, but now it is {shown(value)}"
    return None


def _count(state: Mapping[str, Any], name: str, most: int = _MOST) -> int:
    value = state[name]
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} is {shown(value)}")
    return value


def _seconds(state: Mapping[str, Any]) -> float:
    value = state["seconds"]
    if type(value) not in (int, float) or not 0 <= value <= _MOST:
        raise ValueError(f"seconds is {shown(value)}")
    return float(value)
