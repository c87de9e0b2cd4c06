"""GRU4Rec: session-based recommendation with recurrent neural networks.

Hidasi, Karatzoglou, Baltrunas, Tikk: Session-based Recommendations with Recurrent Neural Networks,
ICLR 2016; Hidasi, Karatzoglou: Recurrent Neural Networks with Top-k Gains for Session-based
Recommendations, CIKM 2018; Hidasi, Czapp: The Effect of Third Party Implementations on
Reproducibility, RecSys 2023.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

import cpu_ops
import custom_opt
import kernel_library
import losses
import memory
import modelfile
import parameters
import sessions
from theano_setup import tensor as tt
from theano_setup import theano
from training import Training, TrainingDiverged
from user_errors import InputError

custom_opt.register()
__all__ = ["GRU4Rec", "TrainingDiverged"]

# initial weights that are drawn together
WEIGHTS_AT_ONCE = 1 << 20


class GRU4Rec(parameters.HasParameters):
    """The GRU4Rec model: parameters, training, prediction, saving and loading.

    Parameters are set by the constructor, by `set_params` and as attributes, and `fit` trains with
    them. A trained model keeps those that it was trained with: it predicts and is evaluated and
    saved with them, and parameters that are set after the training count for the next `fit`.

    Parameters
    ----------
    **settings
        Any of these, as values or as strings.

        loss : cross-entropy, xe_logit, bpr-max, bpr, top1, top1-max (default bpr-max)
            Only cross-entropy and bpr-max are recommended.
        final_act : softmax, softmax_logit, linear, relu, tanh, leaky-X, elu-X, selu-X-Y (linear)
            cross-entropy needs softmax, xe_logit needs softmax_logit.
        hidden_act : linear, relu, tanh, leaky-X, elu-X, selu-X-Y (tanh)
        layers : list of int ([100])
            GRU units of each layer.
        n_epochs, batch_size : int (10, 32)
        dropout_p_embed, dropout_p_hidden : float (0, 0)
            Probability of dropping a unit of the input embedding, of the hidden states.
        learning_rate, momentum, lmbd : float (0.1, 0, 0)
            ``lmbd`` is the strength of the L2 penalty.
        embedding : int or "layersize" (0)
            Size of a separate input embedding; 0: one-hot input (or the shared embedding).
        constrained_embedding : bool (False)
            The matrix of output items is the input embedding too (shared embedding).
        n_sample, sample_alpha : int, float (2048, 0.75)
            Additional negative samples, drawn with probability support^sample_alpha.
        bpreg, logq, smoothing : float (1, 0, 0)
            Score regularisation of bpr-max, logQ correction, label smoothing of cross-entropy.
        adapt, adapt_params : adagrad, rmsprop, adadelta, adam or None; list of float (adagrad, [])
            Optimizer and its decay rates.
        grad_cap, sigma, init_as_normal : float, float, bool (0, 0, False)
            Cap of the gradients' common norm; scale (0: by fan-in and fan-out) and kind of the
            initial weights.
        train_random_order, time_sort : bool (False, True)
            Order of the sessions: shuffled every epoch; by the time of the first event, else by id.
        session_key, item_key, time_key : str (SessionId, ItemId, Time)
            Columns of the data.
        seed : int (42)
            Initial weights, dropout, negatives and random orders follow from it.

    Attributes
    ----------
    negative_sampler : callable or None
        Replaces the drawing of negatives: ``negative_sampler(n_batches)`` returns item indices of
        shape (n_batches, n_sample), row by row as the training steps use them.
    item_ids : (n_items,) array
        The ids behind the item indices, in order of first appearance in the training data.
    Wx, Wh, Wrz, Bh : list of shared float32
        Per layer: (in, 3 units) candidate, reset, update; (units, units); (units, 2 units) reset,
        update; (3 units,).
    Wy, By : shared float32
        (n_items, units of the last layer), (n_items, 1).
    E : shared float32 or None
        (n_items, embedding); only with a separate embedding.
    """

    negative_sampler = None
    item_ids = None
    # the parameters that the weights were built with
    _trained: parameters.Values | None = None
    _predictor = None

    # ------------------------------------------------------------------------ model

    def _gru(self, i: int, x: tt.TensorVariable, h: tt.TensorVariable) -> tt.TensorVariable:
        """One step of GRU layer i: x (M, 3 units) already multiplied by Wx, h (M, units)."""
        p = self._trained
        if cpu_ops.usable():
            return cpu_ops.GRU(p.hidden_act)(x, self.Bh[i], h, self.Wrz[i], self.Wh[i])[0]
        n = p.layers[i]
        x = x + self.Bh[i]
        rz = tt.nnet.sigmoid(x[:, n:] + tt.dot(h, self.Wrz[i]))
        reset, update = rz[:, :n], rz[:, n:]
        candidate = losses.activation(p.hidden_act)(x[:, :n] + tt.dot(h * reset, self.Wh[i]))
        return (1 - update) * h + update * candidate

    def _hidden(self, rows: tt.TensorVariable, states: list, dropout=lambda x, p: x) -> list:
        """Rows of the input table (M, in) and the layers' states -> the layers' new states."""
        p = self._trained
        new_states = []
        x = rows
        for i, h in enumerate(states):
            if i == 0 and self._input_table is self.Wx[0]:
                x = rows  # one-hot input: a row of Wx is the product already
            else:
                x = tt.dot(dropout(x, p.dropout_p_embed) if i == 0 else x, self.Wx[i])
            x = dropout(self._gru(i, x, h), p.dropout_p_hidden)
            new_states.append(x)
        return new_states

    @property
    def _input_table(self) -> theano.compile.SharedVariable:
        """The parameter whose rows represent the input items."""
        p = self._trained
        if p.constrained_embedding:
            return self.Wy
        return self.E if p.embedding else self.Wx[0]

    @staticmethod
    def _scores(h: tt.TensorVariable, rows, biases) -> tt.TensorVariable:
        """Scores (M, N) before the final activation, of h (M, units), rows (N, units)."""
        return tt.dot(h, rows.T) + biases.flatten().dimshuffle("x", 0)

    def _training_cost(self, inputs, targets, negatives, states, dropout) -> tuple:
        """Return the cost of a step, the new states, and what was looked up for it.

        inputs, targets (M,) are item indices; so are negatives: (K,), with how many copies of each
        are meant, (K,), or None for one each; None without additional negatives.
        """
        p = self._trained
        outputs, weights = targets, None
        if negatives is not None and losses.has_kernel(p.final_act, p.loss):
            outputs, weights = cpu_ops.Outputs()(targets, *negatives)
        elif negatives is not None:
            outputs = tt.concatenate([targets, negatives[0]])
        input_rows = self._input_table[inputs]
        output_rows, biases = self.Wy[outputs], self.By[outputs]
        looked_up = [(self.By, [(biases, outputs, weights)])]
        if p.constrained_embedding:
            # an item that is input and output is updated as one set of duplicates
            lookups = [(input_rows, inputs, None), (output_rows, outputs, weights)]
            looked_up.append((self.Wy, lookups))
        else:
            looked_up.append((self._input_table, [(input_rows, inputs, None)]))
            looked_up.append((self.Wy, [(output_rows, outputs, weights)]))
        new_states = self._hidden(input_rows, states, dropout)
        offsets = biases.flatten()
        if p.logq > 0:
            offsets = losses.log_q(
                biases, self._log_support, outputs, inputs.shape[0], p.logq, p.sample_alpha
            )
        cost = losses.cost(
            tt.dot(new_states[-1], output_rows.T),
            offsets,
            weights,
            p.loss,
            p.final_act,
            p.batch_size,
            p.smoothing,
            p.bpreg,
        )
        return cost, new_states, looked_up

    # ------------------------------------------------------------------------ weights

    def _init_weights(self, n_items: int) -> dict[str, np.ndarray]:
        """Draw the initial weights in the order that makes them those of the reference."""
        rng = np.random.RandomState(self.seed)
        sizes = self.layers
        weights = {}
        if self.constrained_embedding:
            n_in = sizes[-1]
        elif self.embedding:
            n_in = self._settings.embedding_size
            weights["E"] = self._random(rng, n_items, n_in)
        else:
            n_in = n_items
        for i, n in enumerate(sizes):
            weights[f"Wx{i}"] = np.hstack([self._random(rng, n_in, n) for _ in range(3)])
            weights[f"Wh{i}"] = self._random(rng, n, n)
            weights[f"Wrz{i}"] = np.hstack([self._random(rng, n, n) for _ in range(2)])
            weights[f"Bh{i}"] = np.zeros(3 * n)
            n_in = n
        weights["Wy"] = self._random(rng, n_items, sizes[-1])
        weights["By"] = np.zeros((n_items, 1))
        return {name: w.astype(theano.config.floatX, copy=False) for name, w in weights.items()}

    def _shapes(self, n_items: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight, by name."""
        expected = {"Wy": (n_items, self.layers[-1]), "By": (n_items, 1)}
        n_in = self.layers[-1] if self.constrained_embedding else n_items
        if self.embedding and not self.constrained_embedding:
            n_in = self._settings.embedding_size
            expected["E"] = (n_items, n_in)
        for i, n in enumerate(self.layers):
            expected.update(
                {f"Wx{i}": (n_in, 3 * n), f"Wh{i}": (n, n), f"Wrz{i}": (n, 2 * n)}
            )
            expected[f"Bh{i}"] = (3 * n,)
            n_in = n
        return expected

    def _check_shapes(
        self, weights: dict[str, np.ndarray], ids: np.ndarray | None, path: str
    ) -> None:
        """Raise an InputError unless ids and weights that were read fit the parameters."""
        problem = None
        if ids is None or ids.ndim != 1 or ids.dtype.kind not in "iO":
            problem = "its item ids are no list of integers or strings"
        elif not (index := pd.Index(ids)).is_unique:
            twice = ids[np.argmax(index.duplicated())]
            problem = f"item {twice!r} is in it twice"
        elif {name: w.shape for name, w in weights.items()} != self._shapes(len(ids)):
            problem = "its weights do not fit its parameters"
        elif any(w.dtype.kind != "f" for w in weights.values()):
            problem = "its weights are no floating point numbers"
        if problem is not None:
            raise InputError(
                f"model file {path}: not a GRU4Rec model, {problem}; "
                "give a file that was saved with -s or savemodel"
            )

    def _random(self, rng: np.random.RandomState, rows: int, cols: int) -> np.ndarray:
        sigma = self.sigma or np.sqrt(6.0 / (rows + cols))
        weights = kernel_library.empty((rows, cols), theano.config.floatX)
        # part by part: the same numbers without the whole matrix in float64 beside the weights
        at_once = max(1, WEIGHTS_AT_ONCE // cols)
        for start in range(0, rows, at_once):
            part = weights[start : start + at_once]
            if self.init_as_normal:
                part[:] = rng.randn(*part.shape) * sigma
            else:
                part[:] = rng.rand(*part.shape) * 2 * sigma - sigma
        return weights

    def _set_weights(self, weights: dict[str, np.ndarray], item_ids: np.ndarray) -> None:
        """Take weights over with the parameters as they are now, which these were built with."""
        shared = {name: theano.shared(w, name=name, borrow=True) for name, w in weights.items()}
        layers = range(len(self.layers))
        stacks = {
            name: [shared[f"{name}{i}"] for i in layers] for name in ("Wx", "Wh", "Wrz", "Bh")
        }
        # in one step: whatever interrupts, the model is the old one or the new one
        vars(self).update(
            stacks,
            Wy=shared["Wy"],
            By=shared["By"],
            E=shared.get("E"),
            item_ids=item_ids,
            _trained=self._settings,
            _predictor=None,
        )

    def weights(self) -> dict[str, np.ndarray]:
        """Return a copy of every weight, by name (``Wx0``, ..., ``Wy``, ``By``, ``E``)."""
        self._check_trained()
        variables = [*self.Wx, *self.Wh, *self.Wrz, *self.Bh, self.Wy, self.By]
        variables += [] if self.E is None else [self.E]
        return {v.name: v.get_value() for v in variables}

    def _dense_parameters(self) -> list:
        """Parameters that every step uses whole; the tables are looked up row by row."""
        start = 1 if self._input_table is self.Wx[0] else 0
        return [*self.Wx[start:], *self.Wh, *self.Wrz, *self.Bh]

    # ------------------------------------------------------------------------ training

    def fit(
        self,
        data: pd.DataFrame,
        sample_store: int = 10_000_000,
        store_type: str = "gpu",
        retrain: bool = False,
        after_epoch: Callable[[int], None] | None = None,
    ) -> None:
        """Train the model.

        Parameters
        ----------
        data : DataFrame
            One event a row, with the columns ``session_key``, ``item_key``, ``time_key``; it is not
            changed.
        sample_store : int
            How many negative ids are drawn at a time; fewer than ``n_sample``: as many as a block
            of steps needs.
        store_type : "gpu" or "cpu"
            ``gpu``: the store lies where Theano computes. ``cpu``: in host memory (legacy).
        retrain : bool
            Go on from the present weights instead of new ones. Items that the model does not know
            are added to it; known ones need not be in the data. Parameters that do not change the
            weights' shapes may have been set to other values.
        after_epoch : callable, optional
            Called after every epoch with its number, from 1 on. It may evaluate the model or save
            it; what it raises ends the training.

        Raises
        ------
        user_errors.InputError
            If the data cannot be used, or memory is lacking.
        TrainingDiverged
            If the loss becomes NaN or infinite.

        Notes
        -----
        A fit that fails before its training begins, for its data or while it compiles, leaves the
        model as it was. A training that ends early leaves the weights as they are then, with its
        parameters.
        """
        sample_store, store_type, retrain, after_epoch, _ = parameters.check_arguments(
            sample_store=sample_store,
            store_type=store_type,
            retrain=retrain,
            after_epoch=after_epoch,
            negative_sampler=self.negative_sampler,
        )
        # attributes are set one by one, so that contradictions show only now
        parameters.check_combination(self.get_params())
        if self.dropout_p_embed > 0 and not self.constrained_embedding and not self.embedding:
            warnings.warn("dropout_p_embed has no effect with one-hot input", stacklevel=2)
        item_ids = None
        if retrain:
            self._check_trained()
            if self._settings.architecture != self._trained.architecture:
                raise InputError(
                    "retrain: the trained weights do not fit the parameters as they are now; set "
                    "layers, embedding and constrained_embedding as they were"
                )
            item_ids = sessions.extend_item_ids(self.item_ids, data, self.item_key, "training data")
        log = sessions.index_sessions(
            data,
            self.session_key,
            self.item_key,
            self.time_key,
            item_ids=item_ids,
            source="training data",
            announce=True,
        )
        sessions.check_training_log(log, self.batch_size, "training data")
        with memory.explained(self, log.n_items, sample_store):
            weights = self._init_weights(log.n_items)
            if retrain:
                self._keep_trained(weights)
            self._start_training(weights, log, sample_store, store_type).run(after_epoch)

    def _start_training(self, weights, log: sessions.SessionLog, sample_store, store_type):
        """Take new weights over and compile their training; if that fails, all is as before."""
        before = dict(vars(self))
        try:
            self._set_weights(weights, log.item_ids)
            return Training(self, log, sample_store, store_type == "gpu")
        except BaseException:  # Ctrl-C too
            self.__dict__ = before
            raise

    def _keep_trained(self, weights: dict[str, np.ndarray]) -> None:
        """Copy the trained weights into new ones; new items keep their initial rows."""
        for name, old in self.weights().items():
            weights[name][: len(old)] = old

    def _check_trained(self) -> None:
        if self._trained is None:
            raise InputError("the model is not trained; call fit or loadmodel first")

    def __repr__(self) -> str:
        if self._trained is None:
            return f"{super().__repr__()}, not trained"
        changes = self._trained.difference(self._settings)
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
            Number of active rows: states beyond are left alone.
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
        self._check_trained()
        (batch_size,) = parameters.check_arguments(batch_size=batch_size)
        states = self._zero_states(batch_size)
        new_states = self._hidden(self._input_table[X], [h[:M] for h in states])
        rows, biases = self.Wy, self.By
        if items is not None:
            outputs = tt.concatenate([Y, items])
            rows, biases = self.Wy[outputs], self.By[outputs]
        scores = self._scores(new_states[-1], rows, biases)
        yhat = losses.prediction_activation(self._trained.final_act)(scores)
        updates = [(h, tt.set_subtensor(h[:M], new)) for h, new in zip(states, new_states)]
        return yhat, states, updates

    def _zero_states(self, n_rows: int) -> list:
        return [
            theano.shared(np.zeros((n_rows, n), dtype=theano.config.floatX), name=f"H{i}")
            for i, n in enumerate(self._trained.layers)
        ]

    def predict_next_batch(
        self,
        session_ids: Sequence,
        input_item_ids: Sequence,
        predict_for_item_ids: Sequence | None = None,
        batch: int = 100,
    ) -> pd.DataFrame:
        """Score items as the next event of ``batch`` sessions, given one more event of each.

        The model remembers the sessions' states between calls: a slot whose session id differs from
        the call before starts from a zero state.

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
        user_errors.InputError
            If an item is unknown to the model or the lengths do not fit.
        """
        self._check_trained()
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
        if self._predictor is None or self._predictor.batch != batch:
            self._predictor = _Predictor(self, batch)
        scores = self._predictor(slots, inputs, outputs)
        index = self.item_ids if outputs is None else self.item_ids[outputs]
        return pd.DataFrame(scores.T, index=index, columns=np.arange(batch))

    # ------------------------------------------------------------------------ saving

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
        user_errors.InputError
            If the file cannot be written, or is another file and ``force`` is not set.
        """
        self._check_trained()
        arrays = {"item_ids": self.item_ids, **self.weights()}
        modelfile.write(path, self._trained.as_dict(), arrays, force)

    @classmethod
    def loadmodel(cls, path: str) -> GRU4Rec:
        """Read a model that `savemodel` wrote, on this or another device.

        Raises
        ------
        user_errors.InputError
            If the file is missing, truncated, not a model or of a newer format.
        """
        settings, arrays = modelfile.read(path)
        model = cls()
        try:
            model._apply(settings)
        except InputError as err:
            raise InputError(f"model file {path}: {err}") from None
        item_ids = arrays.pop("item_ids", None)
        model._check_shapes(arrays, item_ids, path)
        kind = np.int64 if item_ids.dtype.kind == "i" else object
        floats = {
            name: w.astype(theano.config.floatX, order="C", copy=False)
            for name, w in arrays.items()
        }
        model._set_weights(floats, item_ids.astype(kind, copy=False))
        return model


class _Predictor:
    """The compiled function of `GRU4Rec.predict_next_batch` and the sessions in its slots."""

    def __init__(self, model: GRU4Rec, batch: int) -> None:
        self.batch = batch
        self.session_ids = None
        inputs, outputs = tt.ivector("inputs"), tt.ivector("outputs")
        no_targets = inputs[:0]
        self.functions = {}
        self.states = model._zero_states(batch)
        for subset in (False, True):
            yhat, states, updates = model.symbolic_predict(
                inputs, no_targets, batch, outputs if subset else None, batch
            )
            # both functions step the same states
            updates = [(h, new) for h, (_, new) in zip(self.states, updates)]
            self.functions[subset] = theano.function(
                [inputs, outputs] if subset else [inputs],
                yhat,
                updates=updates,
                givens=list(zip(states, self.states)),
            )

    def __call__(self, session_ids, inputs, outputs) -> np.ndarray:
        if self.session_ids is not None:
            changed = np.array([a != b for a, b in zip(self.session_ids, session_ids)])
            for h in self.states:
                values = h.get_value()
                values[changed] = 0
                h.set_value(values, borrow=True)
        self.session_ids = session_ids
        if outputs is None:
            return self.functions[False](inputs)
        return self.functions[True](inputs, outputs)
