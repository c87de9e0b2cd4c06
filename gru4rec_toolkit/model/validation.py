"""Validation while a model is trained: metrics after each epoch, the best one, the early stop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gru4rec_toolkit import parameters
from gru4rec_toolkit.data import sessions
from gru4rec_toolkit.data.ids import Ids
from gru4rec_toolkit.errors import InputError, shown
from gru4rec_toolkit.model import ranking
from gru4rec_toolkit.model.checkpoint import data_digest
from gru4rec_toolkit.model.replay import Continuation
from gru4rec_toolkit.ranks import ranks_in_order, recall_and_mrr
from gru4rec_toolkit.tracking.epochs import Callback, Epoch

if TYPE_CHECKING:
    from gru4rec_toolkit.model.training import Training

# fields of an epoch that a checkpoint keeps as arrays, one value an epoch
_NUMBERS = ("loss", "seconds", "n_steps", "n_events")


class Validation:
    """Sessions that a model is validated on after each epoch, and the metric that counts.

    Parameters
    ----------
    data : DataFrame
        One event a row, with the columns of the training data. Events on items that the training
        does not see are dropped.
    cut_off : sequence of int
        List lengths N of Recall@N and MRR@N. The first one decides which epoch is the best.
    mode : str
        Rank of a target that ties with other items, as for `evaluation.evaluate_gpu`.
    metric : "recall" or "mrr"
        Decides which epoch is the best.
    batch_size : int
        Sessions that are evaluated in parallel; does not change the metrics.
    source : str
        What the data is called in messages.
    history : DataFrame or SessionLog, optional
        Events before the data, as for `evaluation.evaluate_gpu`.

    Raises
    ------
    gru4rec_toolkit.errors.InputError
        If an argument is wrong.

    Examples
    --------
    >>> validation = Validation(sessions, cut_off=[20, 5], metric="mrr")  # doctest: +SKIP
    >>> gru.fit(data, validation=validation, patience=3)  # doctest: +SKIP
    """

    def __init__(
        self,
        data: pd.DataFrame,
        cut_off: Sequence[int] = (20,),
        mode: str = "standard",
        metric: str = "recall",
        batch_size: int = 100,
        source: str = "validation data",
        history: pd.DataFrame | sessions.SessionLog | None = None,
    ) -> None:
        self.data, self.source, self.history = data, source, history
        self.cut_off, self.mode, self.metric, self.batch_size = parameters.check_arguments(
            cut_off=cut_off, mode=mode, metric=metric, batch_size=batch_size
        )

    @property
    def deciding(self) -> str:
        """Return the name of the metric that decides, as in ``Recall@20``."""
        return f"{'Recall' if self.metric == 'recall' else 'MRR'}@{self.cut_off[0]}"


def as_validation(value: Any) -> Validation | None:
    """Return what `GRU4Rec.fit` was given as validation, a table of sessions with the defaults."""
    if value is None or isinstance(value, Validation):
        return value
    if isinstance(value, pd.DataFrame):
        return Validation(value)
    raise InputError(f"validation: expected a DataFrame or a Validation, got {shown(value, 60)}")


class Validator:
    """A validation and the network that it is about, compiled at its first use.

    Raises
    ------
    InputError
        If the validation's data cannot be used with these items.
    """

    def __init__(
        self,
        validation: Validation,
        network,
        item_ids: Ids,
        keys: tuple[str, str, str],
        user_key: str | None = None,
    ) -> None:
        self.validation, self.network = validation, network

        def as_log(data: pd.DataFrame | sessions.SessionLog, source: str) -> sessions.SessionLog:
            keep_ids = validation.history is not None
            return sessions.as_log(data, keys, item_ids, source, keep_ids, user_key)

        self.log = as_log(validation.data, validation.source)
        self._continued: Continuation | None = None
        if validation.history is not None or user_key is not None:
            past = validation.history
            past = None if past is None else as_log(past, "history")
            self._continued = Continuation(network, self.log, past)
            self.log = self._continued.test.log
        else:
            sessions.check_test_log(self.log, validation.source)
        self._counter: ranking.RankCounter | None = None

    def metrics(self) -> dict[str, float]:
        """Return Recall@N and MRR@N by name, in the order of the list lengths."""
        asked = self.validation
        arguments = (self.network, self.log, None, asked.batch_size)
        initial = None if self._continued is None else self._continued.states()
        if self._counter is None:
            self._counter = ranking.rank_counter(*arguments, goes_on=initial is not None)
        counts = ranking.count_ranks(*arguments, self._counter, initial)
        if self._continued is not None:
            counting = self._continued.counting(asked.batch_size)
            counts = counts[0][counting], counts[1][counting]
        rank = ranks_in_order(*counts, asked.mode, self.network.settings.seed)
        found = {}
        for n, recall, mrr in zip(asked.cut_off, *recall_and_mrr(rank, asked.cut_off)):
            found.update({f"Recall@{n}": recall, f"MRR@{n}": mrr})
        return found


class Course:
    """The epochs of one training: their records, the weights of the best one, the early stop.

    Parameters
    ----------
    validator : Validator or None
    patience : int or None
        End the training when so many epochs in a row were not better than the best one.
    callbacks : sequence of callables
        Get the record of each epoch. Those with a method ``close`` have it called when the training
        ends, with the exception that ended it or None.
    from_model : bool
        Whether the training goes on from a model, which may be better than what it becomes.
    """

    def __init__(
        self,
        validator: Validator | None = None,
        patience: int | None = None,
        callbacks: Sequence[Callback] = (),
        from_model: bool = False,
    ) -> None:
        self.validator, self.patience, self.callbacks = validator, patience, callbacks
        self.from_model = from_model
        self.epochs: list[Epoch] = []
        self.best: dict[str, np.ndarray] = {}
        self.start: dict[str, float] = {}  # metrics of the model that the training goes on from

    @property
    def acts(self) -> bool:
        """Whether something is done after an epoch."""
        return self.validator is not None or len(self.callbacks) > 0

    @property
    def best_epoch(self) -> Epoch | None:
        """Return the best epoch so far, the first of equal ones; None without validation."""
        return next((epoch for epoch in reversed(self.epochs) if epoch.is_best), None)

    @property
    def is_over(self) -> bool:
        """Whether the training is to end early."""
        if self.patience is None or not self.best:
            return False
        best = self.best_epoch
        return len(self.epochs) - (best.number if best else 0) >= self.patience

    def begin(self, training: Training) -> None:
        """Tell the callbacks of the epochs before, or validate what the training goes on from."""
        for epoch in self.epochs:
            self._tell(epoch)
        if self.validator is not None and self.from_model and not self.best:
            self.start, self.best = self.validator.metrics(), training.result()
            self._print("Before the training", self.start)

    @staticmethod
    def _print(when: str, metrics: Mapping[str, float]) -> None:
        texts = " ".join(f"{name}: {value:.6f}" for name, value in metrics.items())
        print(f"{when} --> validation {texts}", flush=True)

    def epoch_done(self, training: Training, loss: float, n_steps: int, n_events: int) -> None:
        """Validate the training's weights after an epoch, and tell the callbacks."""
        number, p = training.epoch + 1, training.parameters
        metrics: Mapping[str, float] = {}
        is_best = False
        if self.validator is not None:
            metrics, best = self.validator.metrics(), self.best_epoch
            name = self.validator.validation.deciding
            before = best.metrics if best else self.start
            is_best = not before or metrics[name] > before[name]
            if is_best:
                self.best = training.result()
            self._print(f"Epoch{number}", metrics)
        seconds = training.seconds
        self.epochs.append(
            Epoch(number, p.n_epochs, p.seed, loss, seconds, n_steps, n_events, metrics, is_best)
        )
        self._tell(self.epochs[-1])

    def _tell(self, epoch: Epoch) -> None:
        for callback in self.callbacks:
            callback(epoch)

    @contextlib.contextmanager
    def told_of_the_end(self, training: Training) -> Iterator[None]:
        """Run a training; at its end keep the best epoch's weights, and close the callbacks."""
        error: BaseException | None = None
        try:
            yield
        except BaseException as err:
            error = err
            raise
        finally:
            self._keep_best(training)
            if error is not None and self.best:
                vars(error)["kept_best"] = True
            for callback in self.callbacks:
                if hasattr(callback, "close"):
                    callback.close(error)

    def _keep_best(self, training: Training) -> None:
        if self.validator is None or not self.best:
            return
        training.put_result(self.best)
        best, name = self.best_epoch, self.validator.validation.deciding
        if self.is_over and training.parameters.n_epochs > len(self.epochs):
            epochs = f"{self.patience} epoch{'s' * (self.patience != 1)}"
            print(f"No better {name} in {epochs}: the training ends early")
        if best is None:
            print(
                f"No epoch was better than the model before the training ({name}: "
                f"{self.start[name]:.6f}), whose weights are kept",
                flush=True,
            )
            return
        print(
            f"Best epoch: {best.number} of {len(self.epochs)} ({name}: {best.metrics[name]:.6f}), "
            "whose weights are kept",
            flush=True,
        )

    # ------------------------------------------------------------------------ checkpoints

    def identity(self) -> dict[str, Any] | None:
        """Return what a training that goes on has to have in common with this one."""
        if self.validator is None:
            return None
        asked, log = self.validator.validation, self.validator.log
        return {
            "data": data_digest(log),
            "cut_off": asked.cut_off,
            "mode": asked.mode,
            "metric": asked.metric,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the records and the best epoch's arrays, for a checkpoint."""
        found = {
            f"epochs.{name}": np.array([getattr(e, name) for e in self.epochs], np.float64)
            for name in _NUMBERS
        }
        found["epochs.is_best"] = np.array([e.is_best for e in self.epochs], np.int64)
        for name in self.epochs[0].metrics if self.epochs else ():
            found[f"metrics.{name}"] = np.array([e.metrics[name] for e in self.epochs], np.float64)
        for name, value in self.start.items():
            found[f"start.{name}"] = np.array(value, np.float64)
        return {**found, **{f"best.{name}": array for name, array in self.best.items()}}

    @staticmethod
    def split(
        arrays: Mapping[str, np.ndarray],
    ) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
        """Take what `arrays` gave, by its kind, out of a checkpoint's arrays; return the others."""
        records: dict[str, dict[str, np.ndarray]] = {
            kind: {} for kind in ("epochs", "metrics", "start", "best")
        }
        others = {}
        for full_name, array in arrays.items():
            kind, _, name = full_name.partition(".")
            if kind in records:
                records[kind][name] = array
            else:
                others[full_name] = array
        return records, others

    def restore(
        self, training: Training, n_epochs: int, records: Mapping[str, dict[str, np.ndarray]]
    ) -> None:
        """Go on after the epochs of a checkpoint.

        Raises
        ------
        ValueError
            If what `split` took out of it does not fit; nothing is changed then.
        """
        numbers, metrics, best = records["epochs"], records["metrics"], records["best"]
        records_fit = all(
            array.shape == (n_epochs,) and array.dtype.kind in "fi"
            for array in (*numbers.values(), *metrics.values())
        )
        if numbers.keys() != {*_NUMBERS, "is_best"} or not records_fit:
            raise ValueError("the records of its epochs are none")
        p = training.parameters
        epochs = [
            Epoch(
                *(i + 1, p.n_epochs, p.seed),
                *(float(numbers["loss"][i]), float(numbers["seconds"][i])),
                *(int(numbers["n_steps"][i]), int(numbers["n_events"][i])),
                {name: float(values[i]) for name, values in metrics.items()},
                bool(numbers["is_best"][i]),
                is_replay=True,
            )
            for i in range(n_epochs)
        ]
        start = records["start"]
        if any(array.shape != () or array.dtype.kind != "f" for array in start.values()):
            raise ValueError("the metrics of its start are none")
        asked = self.validator.validation.deciding if self.validator else None
        is_named = not start or asked in start
        if bool(best) != (bool(start) or any(epoch.is_best for epoch in epochs)) or not is_named:
            raise ValueError("the weights of its best epoch are none")
        if best:
            training.check_result(best)
        self.epochs, self.best = epochs, best
        self.start = {name: float(array) for name, array in start.items()}
