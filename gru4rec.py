"""GRU4Rec: session-based recommendation with recurrent neural networks.

Hidasi, Karatzoglou, Baltrunas, Tikk: Session-based Recommendations with Recurrent Neural Networks,
ICLR 2016; Hidasi, Karatzoglou: Recurrent Neural Networks with Top-k Gains for Session-based
Recommendations, CIKM 2018; Hidasi, Czapp: The Effect of Third Party Implementations on
Reproducibility, RecSys 2023.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pandas as pd

import custom_opt
from gru4rec_toolkit import modelfile, parameters, tablefile
from gru4rec_toolkit.data import sequences, sessions
from gru4rec_toolkit.data.ids import Ids, extend_item_ids
from gru4rec_toolkit.errors import InputError, TrainingDiverged, shown
from gru4rec_toolkit.model import losses, memory, weights
from gru4rec_toolkit.model.checkpoint import Checkpoints, digest
from gru4rec_toolkit.model.prediction import Predictor, index_vector, row_count, shape_of
from gru4rec_toolkit.model.training import Training, one_at_a_time_of_a_model
from gru4rec_toolkit.model.validation import Course, Validation, Validator, as_validation
from gru4rec_toolkit.ops import library
from gru4rec_toolkit.ops.base import in_one_kernel
from gru4rec_toolkit.ops.gru.op import gru_step
from gru4rec_toolkit.serving import batch as batches
from gru4rec_toolkit.serving import exports
from gru4rec_toolkit.serving.session import Session
from gru4rec_toolkit.serving.topk import Recommendations, Scorer, one_at_a_time
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano
from gru4rec_toolkit.tracking.epochs import Callback

custom_opt.register()
__all__ = ["GRU4Rec", "Network", "TrainingDiverged", "Validation", "gru_cell"]

# ---------------------------------------------------------------------------- the model
# M sessions in a mini-batch, N scored items, n units of a layer


@in_one_kernel(gru_step)
def gru_cell(x, h, Wrz, Wh, Bh, hidden_act: str):
    """Return a GRU layer's new state (M, n), from x (M, 3n), the input times Wx, and h (M, n)."""
    n = Wh.shape[0]
    x = x + Bh
    rz = tt.nnet.sigmoid(x[:, n:] + tt.dot(h, Wrz))  # (M, 2n)
    reset, update = rz[:, :n], rz[:, n:]
    candidate = losses.activation(hidden_act)(x[:, :n] + tt.dot(h * reset, Wh))  # (M, n)
    return (1 - update) * h + update * candidate


class Network:
    """Weights of a model, the parameters that they were built with, and the graphs of the two.

    Parameters
    ----------
    settings : parameters.Values
    arrays : dict of str to array
        The weights, in the shapes of `model.weights.shapes`.

    Attributes
    ----------
    Wx, Wh, Wrz, Bh, Wy, By, E : shared variables
        As `GRU4Rec` has them.
    """

    def __init__(self, settings: parameters.Values, arrays: dict[str, np.ndarray]) -> None:
        shared = {name: theano.shared(w, name=name, borrow=True) for name, w in arrays.items()}
        layers = range(len(settings.layers))
        self.settings = settings
        self.Wx, self.Wh, self.Wrz, self.Bh = (
            [shared[f"{name}{i}"] for i in layers] for name in ("Wx", "Wh", "Wrz", "Bh")
        )
        self.Wy, self.By, self.E = shared["Wy"], shared["By"], shared.get("E")

    @property
    def input_table(self) -> theano.compile.SharedVariable:
        """Return the table (n_items, in) whose rows represent the input items."""
        if self.settings.constrained_embedding:
            return self.Wy
        return self.E if self.settings.embedding else self.Wx[0]

    def hidden(self, rows, states: list, dropout: Callable = lambda x, p: x) -> list:
        """Return the layers' new states (M, n), from the input's rows (M, in) and their states."""
        p, x, new_states = self.settings, rows, []
        for i, h in enumerate(states):
            # with one-hot input the rows are the product already
            if i > 0 or self.input_table is not self.Wx[0]:
                x = tt.dot(x if i > 0 else dropout(x, p.dropout_p_embed), self.Wx[i])  # (M, 3n)
            x = gru_cell(x, h, self.Wrz[i], self.Wh[i], self.Bh[i], p.hidden_act)
            x = dropout(x, p.dropout_p_hidden)  # the next step gets the dropped state, too
            new_states.append(x)
        return new_states

    @staticmethod
    def scores(h, rows, biases):
        """Return scores (M, N) before the final activation, of h (M, n) and rows (N, n)."""
        return tt.dot(h, rows.T) + biases.flatten().dimshuffle("x", 0)

    def cost(self, inputs, targets, negatives, states: list, dropout: Callable, log_support):
        """Return the cost of a training step, the new states, and the rows that were looked up.

        inputs, targets (M,) are item indices. negatives are further indices (K,) and how many
        copies of each are meant (K,), or None for one each; None without additional negatives.
        log_support (n_items, 1) is the logarithm of each item's number of events.
        """
        p = self.settings
        outputs, copies = losses.scored_items(targets, negatives, p.loss, p.final_act)  # (N,)
        input_rows = self.input_table[inputs]  # (M, in)
        output_rows, biases = self.Wy[outputs], self.By[outputs]  # (N, n), (N, 1)
        new_states = self.hidden(input_rows, states, dropout)
        offsets = biases.flatten()
        if p.logq > 0:
            offsets = losses.log_q(
                biases, log_support, outputs, inputs.shape[0], p.logq, p.sample_alpha
            )
        products = tt.dot(new_states[-1], output_rows.T)  # (M, N)
        cost = losses.cost(
            products, offsets, copies, p.loss, p.final_act, p.batch_size, p.smoothing, p.bpreg
        )
        of_inputs, of_outputs = (input_rows, inputs, None), (output_rows, outputs, copies)
        looked_up = [(self.By, [(biases, outputs, copies)])]
        if p.constrained_embedding:
            # one table: an item that is input and output counts as duplicates of one row
            looked_up.append((self.Wy, [of_inputs, of_outputs]))
        else:
            looked_up += [(self.input_table, [of_inputs]), (self.Wy, [of_outputs])]
        return cost, new_states, looked_up

    def dense_parameters(self) -> list:
        """Return the weights that every step uses whole; the tables are looked up row by row."""
        start = 1 if self.input_table is self.Wx[0] else 0
        return [*self.Wx[start:], *self.Wh, *self.Wrz, *self.Bh]

    def zero_states(self, n_rows: int) -> list:
        """Return the layers' states as shared variables (n_rows, n), all zero."""
        return [
            theano.shared(np.zeros((n_rows, n), dtype=theano.config.floatX), name=f"H{i}")
            for i, n in enumerate(self.settings.layers)
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return a copy of every weight, by name."""
        return {v.name: v.get_value() for v in self.variables()}

    def variables(self) -> list:
        """Return every weight as its shared variable."""
        variables = [*self.Wx, *self.Wh, *self.Wrz, *self.Bh, self.Wy, self.By]
        return variables if self.E is None else [*variables, self.E]


# ---------------------------------------------------------------------------- its users' class

logger = logging.getLogger("gru4rec")
# attributes of a network that a trained model has too
_TABLES = ("Wx", "Wh", "Wrz", "Bh", "Wy", "By", "E")


class GRU4Rec(parameters.HasParameters):
    """The GRU4Rec model: parameters, training, prediction, saving and loading.

    Parameters are set by the constructor, by `set_params` and as attributes, and `fit` trains with
    them. A trained model keeps those that it was trained with: it predicts and is evaluated and
    saved with them, and parameters that are set after the training count for the next `fit`.

    Parameters
    ----------
    **settings
        Any of these, as values or as strings:

        - ``loss``: cross-entropy, xe_logit, bpr-max, bpr, top1, top1-max (default bpr-max).
          Only cross-entropy and bpr-max are recommended.
        - ``final_act``: softmax, softmax_logit, linear, relu, tanh, leaky-X, elu-X, selu-X-Y
          (linear).
          cross-entropy needs softmax, xe_logit needs softmax_logit.
        - ``hidden_act``: linear, relu, tanh, leaky-X, elu-X, selu-X-Y (tanh).
        - ``layers``: list of int ([100]).
          GRU units of each layer.
        - ``n_epochs, batch_size``: int (10, 32).
        - ``dropout_p_embed, dropout_p_hidden``: float (0, 0).
          Probability of dropping a unit of the input embedding, of the hidden states.
        - ``learning_rate, momentum, lmbd``: float (0.1, 0, 0).
          ``lmbd`` is the strength of the L2 penalty.
        - ``embedding``: int or "layersize" (0).
          Size of a separate input embedding; 0: one-hot input (or the shared embedding).
        - ``constrained_embedding``: bool (False).
          The matrix of output items is the input embedding too (shared embedding).
        - ``n_sample, sample_alpha``: int, float (2048, 0.75).
          Additional negative samples, drawn with probability support^sample_alpha.
        - ``bpreg, logq, smoothing``: float (1, 0, 0).
          Score regularisation of bpr-max, logQ correction, label smoothing of cross-entropy.
        - ``adapt, adapt_params``: adagrad, rmsprop, adadelta, adam or None; list of float
          (adagrad, []).
          Optimizer and its decay rates.
        - ``grad_cap, sigma, init_as_normal``: float, float, bool (0, 0, False).
          Cap of the gradients' common norm; scale (0: by fan-in and fan-out) and kind of the
          initial weights.
        - ``train_random_order, time_sort``: bool (False, True).
          Order of the sessions: shuffled every epoch; by the time of the first event, else by id.
        - ``bptt``: int (1).
          Steps through which gradients flow back, and after which the weights change.
        - ``dropout_mask``: step, sequence (step).
          Whether every step has a mask of its own, or every sequence one for all of its steps.
        - ``max_sequence, long_sequences``: int, windows or last (0, windows).
          Most events of a sequence in training (0: any number); longer ones are cut into windows,
          or to their last events.
        - ``session_key, item_key, time_key``: str (SessionId, ItemId, Time).
          Columns of the data.
        - ``user_key, session_border``: str or None, carry or reset (None, carry).
          Column of the users, whose sessions follow each other in one sequence; what happens to
          the state between two of them.
        - ``seed``: int (42).
          Initial weights, dropout, negatives and random orders follow from it.

    Attributes
    ----------
    negative_sampler : callable or None
        Draws the negatives instead: ``negative_sampler(n_batches)`` returns item indices of
        shape (n_batches, n_sample), row by row as the training steps use them.
    item_ids : (n_items,) array
        The ids behind the item indices, in order of first appearance in the training data.
    support : (n_items,) int64 array or None
        Each item's number of events in the training data, all trainings of the model together; None
        if one of its trainings did not tell (model files of format 1 do not hold it).
    Wx, Wh, Wrz, Bh : list of shared float32
        Per layer: (in, 3 units) candidate, reset, update; (units, units); (units, 2 units) reset,
        update; (3 units,).
    Wy, By : shared float32
        (n_items, units of the last layer), (n_items, 1).
    E : shared float32 or None
        (n_items, embedding); only with a separate embedding.
    """

    negative_sampler: Callable[[int], np.ndarray] | None = None
    # a variant may put a subclass here, with a cell, scores or cost of its own
    network_class = Network
    # the weights, with the parameters that they were built with
    network: Network | None = None
    _predictor: Predictor | None = None
    _scorer: Scorer | None = None
    # what `fit(keep_optimizer=True)` keeps, by the names of `Training.optimizer_state`
    _optimizer_state: dict[str, np.ndarray] | None = None

    # with its signature; mypy takes no decorated constructor
    @functools.wraps(parameters.HasParameters.__init__)  # type: ignore[misc]
    def __init__(self, *unnamed: Any, **settings: Any) -> None:
        super().__init__(*unnamed, **settings)
        library.start()  # the compilers work while the data is read

    @property
    def item_ids(self) -> np.ndarray:
        """Return the ids behind the item indices, in a read-only array; None without weights."""
        return self._read_only("item_ids")

    @property
    def support(self) -> np.ndarray | None:
        """Return the items' numbers of events in the training, in a read-only array, or None."""
        return self._read_only("support")

    def _read_only(self, name: str) -> Any:
        array = vars(self).get(name)
        if array is not None:
            array.flags.writeable = False  # a deep copy's could be written
        return array

    def weights(self) -> dict[str, np.ndarray]:
        """Return a copy of every weight, by name (``Wx0``, ..., ``Wy``, ``By``, ``E``)."""
        return self.trained_network().arrays()

    @property
    def predicts_by_network(self) -> bool:
        """Whether items rank by `Network.scores`: no variant predicts in a way of its own."""
        return self._ranks_by_kernels(type(self.trained_network()))

    @classmethod
    def _ranks_by_kernels(cls, network_class: type[Network]) -> bool:
        return not cls._predicts_by_itself() and network_class.scores is Network.scores

    @classmethod
    def _predicts_by_itself(cls) -> bool:
        names = ("symbolic_predict", "predict_next_batch")
        return any(getattr(cls, name) is not getattr(GRU4Rec, name) for name in names)

    def trained_network(self) -> Network:
        """Return the weights and graphs of the trained model.

        Raises
        ------
        gru4rec_toolkit.errors.InputError
            If the model is not trained.
        """
        if self.network is None:
            raise InputError("the model is not trained; call fit or loadmodel first")
        return self.network

    def take(
        self,
        network: Network,
        item_ids: np.ndarray,
        support: np.ndarray | None = None,
        optimizer_state: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Become the model of these weights, which belong to these items.

        Parameters
        ----------
        network : Network
        item_ids : (n_items,) array
            int64, or objects that are strings; the model keeps a copy that cannot be written.
        support : (n_items,) int array, optional
            The items' numbers of events in the training; None if they are not known.
        optimizer_state : mapping of str to array, optional
            What a training with ``keep_optimizer`` goes on from, by the names of
            `model.training.Training.optimizer_state`.

        Raises
        ------
        gru4rec_toolkit.errors.InputError
            If they are no network, or not one id and count a row of its table of output items.
        """
        if not all(hasattr(network, name) for name in (*_TABLES, "settings")):
            raise InputError(f"take: expected a Network, got {shown(network)}")
        n_items = shape_of(network.Wy)[0]
        if not isinstance(item_ids, np.ndarray) or item_ids.shape != (n_items,):
            raise InputError(
                f"take: expected an array of {n_items} item ids, one for each row of Wy, got "
                f"{shown(item_ids, 60)}"
            )
        if support is not None and not weights.is_support(support, n_items):
            raise InputError(
                f"take: expected an array of {n_items} numbers of events, one for each row of Wy, "
                f"got {shown(support, 60)}"
            )
        if item_ids.flags.writeable:  # may belong to the caller; do not modify
            item_ids = item_ids.copy()
        if support is not None:
            support = support.astype(np.int64)
        tables = {name: getattr(network, name) for name in _TABLES}
        # one assignment: an interrupt leaves the old model or the new one
        vars(self).update(
            tables,
            network=network,
            item_ids=item_ids,
            support=support,
            _predictor=None,
            _scorer=None,
            _optimizer_state=dict(optimizer_state) if optimizer_state else None,
        )

    # ------------------------------------------------------------------------ training

    @one_at_a_time_of_a_model
    def fit(
        self,
        data: pd.DataFrame,
        sample_store: int = 10_000_000,
        store_type: str = "gpu",
        retrain: bool = False,
        after_epoch: Callable[[int], None] | None = None,
        checkpoint: str | None = None,
        checkpoint_minutes: float | None = None,
        resume: bool = False,
        validation: pd.DataFrame | Validation | None = None,
        patience: int | None = None,
        callbacks: Sequence[Callback] = (),
        keep_optimizer: bool = False,
    ) -> None:
        """Train the model.

        Parameters
        ----------
        data : DataFrame
            One event a row, with the columns ``session_key``, ``item_key``, ``time_key``; it is not
            changed.
        sample_store : int
            How many negative ids to draw at once. If this is less than ``n_sample``, just enough
            for one block of steps are drawn.
        store_type : "gpu" or "cpu"
            ``gpu``: the store lies where Theano computes. ``cpu``: in host memory (legacy).
        retrain : bool
            Continue from the present weights. New items are added to the model; items that it knows
            need not be in the data. Parameters that do not change the weights' shapes may have new
            values.
        after_epoch : callable, optional
            Called after every epoch with its number, from 1 on. It may evaluate the model or save
            it; what it raises ends the training.
        checkpoint : str, optional
            Directory in which the state of the training is kept: after every epoch, and when
            Ctrl-C, SIGTERM or SIGHUP ends it, which waits for the end of a block of steps.
        checkpoint_minutes : float, optional
            Keep it after so many minutes, too.
        resume : bool
            Go on from the directory's checkpoint, if there is one. The weights at the end are those
            of a training without interruption, bit for bit on the same device and threads.
        validation : DataFrame or Validation, optional
            Sessions to evaluate the model on after every epoch. At the end the model has the
            weights of the epoch that was the best on them; with ``retrain`` those that it had
            before, if no epoch was better.
        patience : int, optional
            End the training when so many epochs in a row were not better than the best one.
        callbacks : sequence of callables, optional
            Get a `tracking.epochs.Epoch` after every epoch, see `gru4rec_toolkit.tracking`. What
            they raise ends the training.
        keep_optimizer : bool
            Keep the optimizer's state with the model, in its file too; with ``retrain`` go on from
            the one that was kept, if there is one. Without, every training begins with a new one.

        Raises
        ------
        gru4rec_toolkit.errors.InputError
            If the data cannot be used, there is not enough memory, or the directory of the
            checkpoint cannot be used, is another running training's, or holds a checkpoint of other
            data or parameters.
        TrainingDiverged
            If the loss becomes NaN or infinite.

        Notes
        -----
        A fit that fails before its training begins, because of its data or while it compiles,
        leaves the model as it was. A training that ends early leaves the weights that it has
        reached, with its parameters; with a validation those of the best epoch so far, if there was
        one, and the exception has the attribute ``kept_best``. A checkpoint that cannot be written,
        as on a full disk, ends none: a warning says so, and the next one is tried again.
        """
        sample_store, store_type, retrain, after_epoch, _ = parameters.check_arguments(
            sample_store=sample_store,
            store_type=store_type,
            retrain=retrain,
            after_epoch=after_epoch,
            negative_sampler=self.negative_sampler,
        )
        checkpoint, checkpoint_minutes, resume = parameters.check_arguments(
            checkpoint=checkpoint, checkpoint_minutes=checkpoint_minutes, resume=resume
        )
        patience, callbacks, keep_optimizer = parameters.check_arguments(
            patience=patience, callbacks=callbacks, keep_optimizer=keep_optimizer
        )
        validation = as_validation(validation)
        if patience is not None and validation is None:
            raise InputError("patience counts epochs without a better validation; give validation")
        # attributes are set one by one: only now can contradictions be seen
        parameters.check_combination(self.get_params())
        for sentence in parameters.without_effect(self.get_params()):
            logger.warning("%s", sentence)
        kept = self._kept_state() if retrain and keep_optimizer else {}
        checkpoints = self._checkpoints(checkpoint, checkpoint_minutes, resume, retrain, kept)
        item_ids = None
        settings = self.settings
        if retrain:
            if settings.architecture != self.trained_network().settings.architecture:
                raise InputError(
                    "retrain: the trained weights do not fit the parameters as they are now; set "
                    "layers, embedding and constrained_embedding as they were"
                )
            weights.check_values(self.weights(), settings, len(self.item_ids))
            item_ids = extend_item_ids(self.item_ids, data, self.item_key, "training data")
        log = sessions.index_sessions(
            data,
            *self._keys,
            item_ids=item_ids,
            source="training data",
            announce=True,
            user_key=self.user_key,
        )
        log = sequences.of_training(log, settings)
        sessions.check_training_log(log, self.batch_size, "training data")
        n_drawn = 0 if self.negative_sampler else sample_store
        with memory.explained(settings, log.n_items, n_drawn):
            arrays = weights.initial(settings, log.n_items)
            if retrain:
                # new items keep their initial rows
                for name, old in self.weights().items():
                    arrays[name][: len(old)] = old
            network = self.network_class(settings, arrays)
            validator = self._validator(validation, network, log.item_ids)
            training = Training(
                *(network, log, sample_store, store_type == "gpu", self.negative_sampler),
                *(Course(validator, patience, callbacks, from_model=retrain), keep_optimizer),
            )
            training.take_optimizer_state(kept)
            with contextlib.nullcontext() if checkpoints is None else checkpoints.held():
                if checkpoints is not None:
                    checkpoints.restore(training)
                # from here on the model is the new one
                self.take(network, log.item_ids, self._support_after(log, retrain))
                training.run(after_epoch, checkpoints)
            if keep_optimizer:
                state = training.optimizer_state().items()
                self._optimizer_state = {name: v.get_value() for name, v in state}

    @property
    def _keys(self) -> tuple[str, str, str]:
        return self.session_key, self.item_key, self.time_key

    def _validator(
        self, validation: Validation | None, network: Network, item_ids: Ids
    ) -> Validator | None:
        if validation is None:
            return None
        if not self._ranks_by_kernels(self.network_class):
            raise InputError(
                f"validation: {type(self).__name__} predicts in a way of its own; evaluate it in "
                "after_epoch"
            )
        return Validator(validation, network, item_ids, self._keys, self.user_key)

    def _kept_state(self) -> dict[str, np.ndarray]:
        self.trained_network()
        if self._optimizer_state is None:
            logger.warning(
                "the model keeps no optimizer's state to go on from (keep_optimizer): the training "
                "begins with a new one, and keeps that"
            )
        return self._optimizer_state or {}

    def _checkpoints(
        self,
        directory: str | None,
        minutes: float | None,
        resume: bool,
        retrain: bool,
        kept: dict[str, np.ndarray],
    ) -> Checkpoints | None:
        if directory is None:
            if resume or minutes is not None:
                raise InputError("resume and checkpoint_minutes need checkpoint, a directory")
            return None
        if self.negative_sampler is not None:
            raise InputError(
                "checkpoint: negative_sampler is a function of yours, whose state cannot be "
                "stored; train without one of the two"
            )
        start = digest({**self.weights(), **kept}) if retrain else None
        return Checkpoints(directory, minutes, resume, start)

    def _support_after(self, log: sessions.SessionLog, retrain: bool) -> np.ndarray | None:
        """Return the items' numbers of events with those of a log that is to be trained on."""
        if not retrain:
            return log.support
        if self.support is None:
            return None
        support = log.support.copy()
        support[: len(self.support)] += self.support
        return support

    def __repr__(self) -> str:
        if self.network is None:
            return f"{super().__repr__()}, not trained"
        changes = self.network.settings.difference(self.settings)
        changes = f" with {changes}" if changes else ""
        return f"{super().__repr__()}, trained on {len(self.item_ids)} items{changes}"

    # ------------------------------------------------------------------------ prediction

    def symbolic_predict(
        self, X: tt.TensorVariable, Y: tt.TensorVariable, M, items, batch_size: int
    ) -> tuple:
        """Build the graph of predicting, for functions of your own.

        Parameters
        ----------
        X : int vector (M,)
            Input items' indices.
        Y : int vector (M,)
            Target items' indices; only used with ``items``.
        M : int or int scalar
            Number of active rows; the states of the other rows stay as they are.
        items : int vector (K,) or None
            Score the targets and these items instead of all.
        batch_size : int
            Rows of the states.

        Returns
        -------
        yhat : (M, n_items), or (M, M + K) with ``items``
            Scores after the final activation. With ``items``, column i < M is the target of row i.
        H : list of shared float32 (batch_size, units)
            The layers' states, zero at first.
        updates : list of (shared, expression)
            The step of the states.
        """
        net = self.trained_network()
        (batch_size,) = parameters.check_arguments(batch_size=batch_size)
        X, M = index_vector("X", X), row_count(M, batch_size)
        states = net.zero_states(batch_size)
        new_states = net.hidden(net.input_table[X], [h[:M] for h in states])
        rows, biases = net.Wy, net.By
        if items is not None:
            outputs = tt.concatenate([index_vector("Y", Y), index_vector("items", items)])
            rows, biases = net.Wy[outputs], net.By[outputs]
        scores = net.scores(new_states[-1], rows, biases)
        yhat = losses.predicted(scores, net.settings.final_act)
        updates = [(h, tt.set_subtensor(h[:M], new)) for h, new in zip(states, new_states)]
        return yhat, states, updates

    def predict_next_batch(
        self,
        session_ids: Ids,
        input_item_ids: Ids,
        predict_for_item_ids: Ids | None = None,
        batch: int = 100,
    ) -> pd.DataFrame:
        """Score items as the next event of ``batch`` sessions, given one more event of each.

        The model remembers the sessions' states between calls: a slot whose session id differs from
        the call before starts from a zero state. Threads that share a model also share its slots;
        their calls are served one after the other.

        Parameters
        ----------
        session_ids, input_item_ids : sequences of length ``batch``
            The session in each slot and the item of its latest event.
        predict_for_item_ids : sequence, optional
            Score these items only. Default: all items of the training data.
        batch : int
            Number of slots; a change of it forgets all states.

        Returns
        -------
        DataFrame
            Rows: item ids; columns: slots 0 to ``batch`` - 1.

        Raises
        ------
        gru4rec_toolkit.errors.InputError
            If an item is unknown to the model or the lengths do not fit.
        """
        self.trained_network()
        (batch,) = parameters.check_arguments(batch=batch)
        slots = sessions.slot_ids(session_ids, "session_ids")
        inputs = sessions.known_items(self.item_ids, input_item_ids, "input_item_ids")
        if len(slots) != batch or len(inputs) != batch:
            raise InputError(
                f"predict_next_batch: expected {batch} session ids and {batch} item ids (batch), "
                f"got {len(slots)} and {len(inputs)}"
            )
        outputs = None
        if predict_for_item_ids is not None:
            outputs = sessions.known_items(
                self.item_ids, predict_for_item_ids, "predict_for_item_ids"
            )
        with one_at_a_time:
            if self._predictor is None or self._predictor.batch != batch:
                self._predictor = Predictor(self, batch)
            scores = self._predictor(slots, inputs, outputs)
        index = self.item_ids if outputs is None else self.item_ids[outputs]
        return pd.DataFrame(scores.T, index=index, columns=np.arange(batch))

    # ------------------------------------------------------------------------ recommendation

    def recommend(
        self,
        sessions: pd.DataFrame | Sequence[Ids],
        k: int = 20,
        exclude_seen: bool = False,
        items: Ids | None = None,
        history: pd.DataFrame | None = None,
    ) -> Recommendations:
        """Return the best next items of sessions.

        A session's list is the same alone and among others, but for rounding. Events on items that
        the model does not know are skipped and counted in the log; a session without any other gets
        the items of most events in the training.

        Parameters
        ----------
        sessions : list of lists of item ids, or DataFrame
            Each session's items in the order of time; or one event a row, with the columns that the
            model was trained with: the result has the sessions in ascending order of their ids.
        k : int
            Length of the lists; at most all items to choose from are in one.
        exclude_seen : bool
            Leave out the items of the session itself, and of its history.
        items : sequence of item ids, optional
            Choose from these only. Default: all items of the training.
        history : DataFrame, optional
            Events before the sessions, with the columns that the model was trained with: a session
            starts from the state that its own events there leave; those of its user, if the model
            was trained with ``user_key``.

        Returns
        -------
        Recommendations
            ``items`` and ``scores``, arrays (n, k), best first. Of equal scores the item comes
            first that came first in the training data.

        Raises
        ------
        gru4rec_toolkit.errors.InputError
            If the sessions cannot be used, one of ``items`` is unknown, or the model does not keep
            the items' support and a session has no known item.

        Examples
        --------
        >>> found = gru.recommend([[214536502, 214536500], [214662742]], k=3)  # doctest: +SKIP
        >>> found.items.shape, found.scores.shape  # doctest: +SKIP
        ((2, 3), (2, 3))
        """
        scorer = self._ready_scorer("recommend")
        k, exclude_seen = parameters.check_arguments(k=k, exclude_seen=exclude_seen)
        log = self._running(sessions, history)
        candidates = scorer.candidates(items)
        parts = list(batches.recommendations(scorer, log, k, exclude_seen, candidates))
        if not parts:
            n_choices = len(self.item_ids if candidates is None else candidates)
            parts = [(np.empty((0, min(k, n_choices)), np.int64), np.empty((0, min(k, n_choices))))]
        positions, scores = (np.concatenate(part) for part in zip(*parts))
        return scorer.named(positions, scores)

    def write_recommendations(
        self,
        path: str,
        sessions: pd.DataFrame,
        k: int = 20,
        exclude_seen: bool = False,
        force: bool = False,
        history: pd.DataFrame | None = None,
    ) -> None:
        """Write the best next items of sessions to a file, whole or not at all.

        One row an item: SessionId, Rank (1 is the best), ItemId, Score. The sessions are in
        ascending order of their ids. Memory does not grow with what is written.

        Parameters
        ----------
        path : str
            ``.parquet`` (needs pyarrow) or ``.tsv``. An earlier file of recommendations is
            replaced.
        sessions, k, exclude_seen, history
            As for `recommend`; sessions are a DataFrame.
        force : bool
            Replace an existing file of another kind, too.

        Raises
        ------
        gru4rec_toolkit.errors.InputError
            As `recommend`; or the file cannot be written or must not be replaced.
        """
        scorer = self._ready_scorer("write_recommendations")
        k, exclude_seen, force = parameters.check_arguments(
            k=k, exclude_seen=exclude_seen, force=force
        )
        if not isinstance(sessions, pd.DataFrame):
            raise InputError(f"sessions: expected a DataFrame, got {shown(sessions, 60)}")
        tablefile.check_writable(tablefile.RECOMMENDATIONS, path, force)
        log = self._running(sessions, history)
        tables = batches.tables(scorer, log, k, exclude_seen)
        tablefile.write(tablefile.RECOMMENDATIONS, path, tables, force)

    def _running(self, sessions: Any, history: pd.DataFrame | None) -> batches.RunningSessions:
        p = self.trained_network().settings
        if history is not None and not isinstance(history, pd.DataFrame):
            raise InputError(f"history: expected a DataFrame, got {shown(history, 60)}")
        log = batches.running_sessions(
            *(sessions, self._keys, self.item_ids, history),
            *(self.user_key, p.max_sequence, p.session_border),
        )
        log.announce()
        return log

    def session(self, state: bytes | None = None) -> Session:
        """Return a running session, to which clicks come one by one.

        Parameters
        ----------
        state : bytes, optional
            Go on with a session whose ``state`` this was. Default: a new one.

        Raises
        ------
        gru4rec_toolkit.errors.InputError
            If the state is damaged or belongs to other weights.

        Examples
        --------
        >>> running = gru.session()  # doctest: +SKIP
        >>> running.click(214536502)  # doctest: +SKIP
        True
        >>> running.top(3).items.shape  # doctest: +SKIP
        (3,)
        """
        return Session(self._ready_scorer("session"), state)

    def _ready_scorer(self, caller: str) -> Scorer:
        network = self.trained_network()
        if not self.predicts_by_network:
            raise InputError(
                f"{caller}: {type(self).__name__} predicts in a way of its own, and items are "
                "ranked by Network.scores; use predict_next_batch"
            )
        if self._scorer is None:
            # NaN would be best of all and of none
            weights.check_values(self.weights(), network.settings, len(self.item_ids))
            self._scorer = Scorer(network, self.item_ids, self.support)
        return self._scorer

    # ------------------------------------------------------------------------ saving, exporting

    def savemodel(self, path: str, force: bool = False) -> None:
        """Write the model to one file, whole or not at all (see `modelfile`).

        Parameters
        ----------
        path : str
            A model there is replaced; a symbolic link stays, its target is replaced.
        force : bool
            Replace an existing file that is no GRU4Rec model, too.

        Raises
        ------
        gru4rec_toolkit.errors.InputError
            If the file cannot be written, is another file and ``force`` is not set, or if weights
            that were set by hand have another shape, NaN or infinity.
        """
        network = self.trained_network()
        (force,) = parameters.check_arguments(force=force)
        arrays = network.arrays()
        weights.check_values(arrays, network.settings, len(self.item_ids))
        if self.support is not None:
            arrays = {"support": self.support, **arrays}
        arrays = {"item_ids": self.item_ids, **arrays}
        for name, state in (self._optimizer_state or {}).items():
            arrays[modelfile.OPTIMIZER + name] = state
        modelfile.write(path, network.settings.as_dict(), arrays, force)

    def export_onnx(self, path: str, force: bool = False) -> None:
        """Write one step of the model as an ONNX graph, whole or not at all (needs onnx).

        Inputs, outputs and metadata are described in `gru4rec_toolkit.serving.onnx`.

        Parameters
        ----------
        path : str
            An earlier export there is replaced.
        force : bool
            Replace an existing file of another kind, too.

        Raises
        ------
        gru4rec_toolkit.errors.InputError
            If the file cannot be written or must not be replaced, if the weights hold NaN or have
            more than 2 GB, or if a variant computes the step in a way of its own.
        """
        self.check_onnx(type(self.trained_network()))
        self._export("onnx", path, force)

    @classmethod
    def check_onnx(cls, network_class: type[Network] | None = None) -> None:
        """Raise an InputError if the class computes its step in a way of its own."""
        parts = ("hidden", "scores", "input_table")
        network_class = network_class or cls.network_class
        own = any(getattr(network_class, part) is not getattr(Network, part) for part in parts)
        if own or cls._predicts_by_itself():
            raise InputError(
                f"export_onnx: {cls.__name__} computes its step in a way of its own, which has no "
                "form in ONNX; export_safetensors writes its weights"
            )

    def export_safetensors(self, path: str, force: bool = False) -> None:
        """Write the weights by name, the items and the parameters (needs safetensors).

        Tensors and metadata are described in `gru4rec_toolkit.serving.safetensors`. Parameters and
        errors are those of `export_onnx`.
        """
        self._export("safetensors", path, force)

    def _export(self, name: str, path: str, force: bool) -> None:
        network = self.trained_network()
        (force,) = parameters.check_arguments(force=force)
        arrays = network.arrays()
        weights.check_values(arrays, network.settings, len(self.item_ids))
        exports.write(name, path, network.settings, arrays, self.item_ids, self.support, force)

    @classmethod
    def loadmodel(cls, path: str) -> GRU4Rec:
        """Read a model that `savemodel` wrote, on this or another device.

        Raises
        ------
        gru4rec_toolkit.errors.InputError
            If the file is missing, truncated, not a model or of a newer format.
        """
        settings, arrays = modelfile.read(path)
        model = cls()
        try:
            model.apply(settings)
        except InputError as err:
            raise InputError(f"model file {path}: {err}") from None
        item_ids, support = arrays.pop("item_ids", None), arrays.pop("support", None)
        state = modelfile.split_optimizer(arrays)
        item_ids = weights.check(arrays, item_ids, support, model.settings, path, state)
        kind = np.int64 if item_ids.dtype.kind == "i" else object
        floats = {
            name: w.astype(theano.config.floatX, order="C", copy=False)
            for name, w in arrays.items()
        }
        network = cls.network_class(model.settings, floats)
        state = {n: w.astype(theano.config.floatX, copy=False) for n, w in state.items()}
        model.take(network, item_ids.astype(kind, copy=False), support, state)
        return model


def _weight(name: str) -> property:
    """Return a weight as an attribute of `GRU4Rec`, which only `GRU4Rec.take` replaces."""

    def get(model: GRU4Rec) -> Any:
        try:
            return vars(model)[name]
        except KeyError:
            raise AttributeError(
                f"{name}: the model is not trained; call fit or loadmodel first"
            ) from None

    def refuse(model: GRU4Rec, value: Any) -> NoReturn:
        raise InputError(
            f"{name} cannot be replaced; give it another value with set_value, as in "
            "gru.Wy.set_value(array)"
        )

    return property(get, refuse, doc="See the class.")


for _name in _TABLES:
    setattr(GRU4Rec, _name, _weight(_name))


def _refusing(sentence: str) -> Callable[[GRU4Rec, Any], NoReturn]:
    """Return a setter that raises an InputError; in the class the site would call it writable."""

    def refuse(model: GRU4Rec, value: Any) -> NoReturn:
        raise InputError(sentence)

    return refuse


for _name, _sentence in {
    "item_ids": "item_ids belong to the weights and cannot be set; fit the model to data with "
    "other ids, or make it the model of other weights and ids with take(network, item_ids)",
    "support": "support belongs to the items and cannot be set; give it with them, as in "
    "take(gru.network, gru.item_ids, support)",
}.items():
    setattr(GRU4Rec, _name, vars(GRU4Rec)[_name].setter(_refusing(_sentence)))
