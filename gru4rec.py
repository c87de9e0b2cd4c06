"""GRU4Rec: session-based recommendation with recurrent neural networks.

Hidasi, Karatzoglou, Baltrunas, Tikk: Session-based Recommendations with Recurrent Neural Networks,
ICLR 2016; Hidasi, Karatzoglou: Recurrent Neural Networks with Top-k Gains for Session-based
Recommendations, CIKM 2018; Hidasi, Czapp: The Effect of Third Party Implementations on
Reproducibility, RecSys 2023.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

import cpu_ops
import custom_opt
import kernel_library
import losses
import modelfile
import optimizers
import parameters
import sampling
import sessions
from theano_setup import tensor as tt
from theano_setup import theano
from user_errors import InputError

custom_opt.register()
logger = logging.getLogger("gru4rec")

# steps whose schedule is uploaded together, some 100 kB; their losses are read at the end
BLOCK_STEPS = 512
# a mini-batch's equal negatives are merged where fewer than this fraction of them are distinct
MERGE_BELOW = 0.98
WEIGHTS_AT_ONCE = 1 << 20


class TrainingDiverged(InputError):
    """The loss became NaN or infinite."""


class GRU4Rec:
    """The GRU4Rec model: parameters, training, prediction, saving and loading.

    Parameters
    ----------
    **settings
        Any of these, as values or as strings; `set_params` sets them later.

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
    E : shared float32
        (n_items, embedding); only with a separate embedding.
    """

    def __init__(self, **settings: Any) -> None:
        self.negative_sampler = None
        self.item_ids = None
        self._settings = parameters.defaults()
        self._apply(settings)

    def set_params(self, **settings: Any) -> None:
        """Set parameters from strings or values and print them, one ``SET`` line each.

        Raises
        ------
        user_errors.InputError
            On an unknown name, a wrong type, a value out of range or a contradiction; nothing is
            set then.
        """
        changed = self._apply(settings)
        name_width = max(map(len, changed), default=0)
        value_width = max((len(str(value)) for value in changed.values()), default=0)
        for name, value in changed.items():
            print(
                f"SET   {name:<{name_width}}   TO   {value!s:<{value_width}}   "
                f"(type: {type(value)})"
            )

    def _apply(self, settings: dict[str, Any]) -> dict[str, Any]:
        changed = parameters.convert(settings)
        merged = {**self._settings, **changed}
        parameters.check_combination(merged)
        self._settings = merged
        for name, value in merged.items():
            setattr(self, name, value)
        return changed

    # ------------------------------------------------------------------------ model

    def _gru(self, i: int, x: tt.TensorVariable, h: tt.TensorVariable) -> tt.TensorVariable:
        """One step of GRU layer i: x (M, 3 units) already multiplied by Wx, h (M, units)."""
        if kernel_library.usable():
            return cpu_ops.GRU(self.hidden_act)(x, self.Bh[i], h, self.Wrz[i], self.Wh[i])[0]
        n = self.layers[i]
        x = x + self.Bh[i]
        rz = tt.nnet.sigmoid(x[:, n:] + tt.dot(h, self.Wrz[i]))
        reset, update = rz[:, :n], rz[:, n:]
        candidate = losses.activation(self.hidden_act)(
            x[:, :n] + tt.dot(h * reset, self.Wh[i])
        )
        return (1 - update) * h + update * candidate

    def _hidden(self, rows: tt.TensorVariable, states: list, dropout=lambda x, p: x) -> list:
        """Rows of the input table (M, in) and the layers' states -> the layers' new states."""
        new_states = []
        x = rows
        for i, h in enumerate(states):
            if i == 0 and self._input_table is self.Wx[0]:
                x = rows  # one-hot input: a row of Wx is the product already
            else:
                x = tt.dot(dropout(x, self.dropout_p_embed) if i == 0 else x, self.Wx[i])
            x = dropout(self._gru(i, x, h), self.dropout_p_hidden)
            new_states.append(x)
        return new_states

    @property
    def _input_table(self) -> theano.compile.SharedVariable:
        """The parameter whose rows represent the input items."""
        if self.constrained_embedding:
            return self.Wy
        return self.E if self.embedding else self.Wx[0]

    @staticmethod
    def _scores(h: tt.TensorVariable, rows, biases) -> tt.TensorVariable:
        """Scores (M, N) before the final activation, of h (M, units), rows (N, units)."""
        return tt.dot(h, rows.T) + biases.flatten().dimshuffle("x", 0)

    def _training_cost(self, inputs, targets, negatives, states, dropout) -> tuple:
        """Return the cost of a step, the new states, and what was looked up for it.

        inputs, targets (M,) and negatives (n_sample,) are item indices.
        """
        outputs, weights = targets, None
        if negatives is not None and losses.has_kernel(self.final_act, self.loss):
            outputs, weights = cpu_ops.Outputs(merge=self._merge_negatives)(targets, negatives)
        elif negatives is not None:
            outputs = tt.concatenate([targets, negatives])
        input_rows = self._input_table[inputs]
        output_rows, biases = self.Wy[outputs], self.By[outputs]
        looked_up = [(self.By, [(biases, outputs, weights)])]
        if self.constrained_embedding:
            # an item that is input and output is updated as one set of duplicates
            lookups = [(input_rows, inputs, None), (output_rows, outputs, weights)]
            looked_up.append((self.Wy, lookups))
        else:
            looked_up.append((self._input_table, [(input_rows, inputs, None)]))
            looked_up.append((self.Wy, [(output_rows, outputs, weights)]))
        new_states = self._hidden(input_rows, states, dropout)
        offsets = biases.flatten()
        if self.logq > 0:
            offsets -= losses.log_q(
                self._log_support[outputs].flatten(),
                inputs.shape[0],
                self.logq,
                self.sample_alpha,
            )
        cost = losses.cost(
            tt.dot(new_states[-1], output_rows.T),
            offsets,
            weights,
            self.loss,
            self.final_act,
            self.batch_size,
            self.smoothing,
            self.bpreg,
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
            n_in = self._embedding_size()
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

    def _check_shapes(self, weights: dict[str, np.ndarray], path: str) -> None:
        """Raise an InputError unless weights that were read fit the parameters."""
        n_items = 0 if self.item_ids is None else len(self.item_ids)
        expected = {"Wy": (n_items, self.layers[-1]), "By": (n_items, 1)}
        n_in = self.layers[-1] if self.constrained_embedding else n_items
        if self.embedding and not self.constrained_embedding:
            n_in = self._embedding_size()
            expected["E"] = (n_items, n_in)
        for i, n in enumerate(self.layers):
            expected.update(
                {f"Wx{i}": (n_in, 3 * n), f"Wh{i}": (n, n), f"Wrz{i}": (n, 2 * n)}
            )
            expected[f"Bh{i}"] = (3 * n,)
            n_in = n
        if {name: w.shape for name, w in weights.items()} != expected:
            raise InputError(
                f"model file {path}: not a GRU4Rec model, its weights do not fit its parameters; "
                "give a file that was saved with -s or savemodel"
            )

    def _random(self, rng: np.random.RandomState, rows: int, cols: int) -> np.ndarray:
        sigma = self.sigma or np.sqrt(6.0 / (rows + cols))
        weights = np.empty((rows, cols), dtype=theano.config.floatX)
        # part by part: the same numbers without the whole matrix in float64 beside the weights
        at_once = max(1, WEIGHTS_AT_ONCE // cols)
        for start in range(0, rows, at_once):
            part = weights[start : start + at_once]
            if self.init_as_normal:
                part[:] = rng.randn(*part.shape) * sigma
            else:
                part[:] = rng.rand(*part.shape) * 2 * sigma - sigma
        return weights

    def _embedding_size(self) -> int:
        return self.layers[0] if self.embedding == "layersize" else self.embedding

    def _set_weights(self, weights: dict[str, np.ndarray]) -> None:
        def shared(name: str) -> theano.compile.SharedVariable:
            return theano.shared(weights[name], name=name, borrow=True)

        layers = range(len(self.layers))
        self.Wx, self.Wh, self.Wrz, self.Bh = (
            [shared(f"{name}{i}") for i in layers] for name in ("Wx", "Wh", "Wrz", "Bh")
        )
        self.Wy, self.By = shared("Wy"), shared("By")
        if "E" in weights:
            self.E = shared("E")
        self._variables = [*self.Wx, *self.Wh, *self.Wrz, *self.Bh, self.Wy, self.By]
        self._variables += [self.E] if "E" in weights else []
        self._predictor = None

    def weights(self) -> dict[str, np.ndarray]:
        """Return a copy of every weight, by name (``Wx0``, ..., ``Wy``, ``By``, ``E``)."""
        return {v.name: v.get_value() for v in self._variables}

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
            are added to it; known ones need not be in the data.

        Raises
        ------
        user_errors.InputError
            If the data cannot be used.
        TrainingDiverged
            If the loss becomes NaN or infinite.
        """
        if store_type not in ("gpu", "cpu"):
            raise InputError(f"store_type: expected 'gpu' or 'cpu', got {store_type!r}")
        if self.dropout_p_embed > 0 and not self.constrained_embedding and not self.embedding:
            warnings.warn("dropout_p_embed has no effect with one-hot input", stacklevel=2)
        item_ids = None
        if retrain:
            self._check_trained()
            item_ids = sessions.extend_item_ids(self.item_ids, data, self.item_key)
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
        weights = self._init_weights(log.n_items)
        if retrain:
            self._keep_trained(weights)
        self._set_weights(weights)
        self.item_ids = log.item_ids
        _Training(self, log, sample_store, store_type == "gpu").run()

    def _keep_trained(self, weights: dict[str, np.ndarray]) -> None:
        """Put the present weights over new ones; rows of new items stay new."""
        known, n_items = len(self.item_ids), len(weights["Wy"])
        trained = self.weights()

        def fits(old: np.ndarray, new: np.ndarray) -> bool:
            grown = (len(old), len(new)) == (known, n_items)
            return old.shape[1:] == new.shape[1:] and (grown or len(old) == len(new))

        if trained.keys() != weights.keys() or not all(
            fits(trained[name], weights[name]) for name in weights
        ):
            raise InputError(
                "retrain: the trained weights do not fit the parameters as they are now; set "
                "layers, embedding and constrained_embedding as they were"
            )
        for name, old in trained.items():
            weights[name][: len(old)] = old

    def _check_trained(self) -> None:
        if self.item_ids is None:
            raise InputError("the model is not trained; call fit or loadmodel first")

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
        states = self._zero_states(batch_size)
        new_states = self._hidden(self._input_table[X], [h[:M] for h in states])
        rows, biases = self.Wy, self.By
        if items is not None:
            outputs = tt.concatenate([Y, items])
            rows, biases = self.Wy[outputs], self.By[outputs]
        scores = self._scores(new_states[-1], rows, biases)
        yhat = losses.prediction_activation(self.final_act)(scores)
        updates = [(h, tt.set_subtensor(h[:M], new)) for h, new in zip(states, new_states)]
        return yhat, states, updates

    def _zero_states(self, n_rows: int) -> list:
        return [
            theano.shared(np.zeros((n_rows, n), dtype=theano.config.floatX), name=f"H{i}")
            for i, n in enumerate(self.layers)
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
        session_ids = np.asarray(session_ids)
        if len(session_ids) != batch or len(input_item_ids) != batch:
            raise InputError(
                f"predict_next_batch: expected {batch} session ids and {batch} item ids (batch), "
                f"got {len(session_ids)} and {len(input_item_ids)}"
            )
        if self._predictor is None or self._predictor.batch != batch:
            self._predictor = _Predictor(self, batch)
        inputs = self._item_indices(input_item_ids, "input_item_ids")
        outputs = None
        if predict_for_item_ids is not None:
            outputs = self._item_indices(predict_for_item_ids, "predict_for_item_ids")
        scores = self._predictor(session_ids, inputs, outputs)
        index = self.item_ids if outputs is None else self.item_ids[outputs]
        return pd.DataFrame(scores.T, index=index, columns=np.arange(batch))

    def _item_indices(self, item_ids: Sequence, what: str) -> np.ndarray:
        index = sessions.item_indices(self.item_ids, item_ids)
        if (index < 0).any():
            unknown = np.asarray(item_ids)[np.argmax(index < 0)]
            raise InputError(f"{what}: item {unknown!r} does not occur in the training data")
        return index.astype(np.int32)

    # ------------------------------------------------------------------------ saving

    def savemodel(self, path: str) -> None:
        """Write the model to one file, whole or not at all (see `modelfile`)."""
        self._check_trained()
        modelfile.write(path, self._settings, {"item_ids": self.item_ids, **self.weights()})

    @classmethod
    def loadmodel(cls, path: str) -> GRU4Rec:
        """Read a model that `savemodel` wrote, on this or another device.

        Raises
        ------
        user_errors.InputError
            If the file is missing, truncated, not a model or of a newer format.
        """
        settings, arrays = modelfile.read(path)
        model = cls(**settings)
        model.item_ids = arrays.pop("item_ids", None)
        model._check_shapes(arrays, path)
        floats = {name: w.astype(theano.config.floatX, copy=False) for name, w in arrays.items()}
        model._set_weights(floats)
        return model


class _Training:
    """One run of `GRU4Rec.fit`: the compiled step, its shared variables, the loop over blocks."""

    def __init__(
        self, model: GRU4Rec, log: sessions.SessionLog, n_store_ids: int, on_device: bool
    ) -> None:
        # not at the top: sorted imports would put it before Theano is configured
        from theano.sandbox.rng_mrg import MRG_RandomStreams

        self.model, self.log = model, log
        order_seed, sample_seed, dropout_seed = np.random.SeedSequence(model.seed).spawn(3)
        self.order_rng = np.random.default_rng(order_seed) if model.train_random_order else None
        self.dropout_seed = int(dropout_seed.generate_state(1)[0] >> 1)
        self.dropout_rng = MRG_RandomStreams(self.dropout_seed)
        self.n_dropouts = 0
        self.steps_done = theano.shared(np.int64(0), name="steps_done")
        self.store = None
        if model.n_sample:
            draw = model.negative_sampler or sampling.NegativeSampler(
                log.support,
                model.sample_alpha,
                model.n_sample,
                int(sample_seed.generate_state(1, dtype=np.uint64)[0]),
            )
            self.store = sampling.SampleStore(draw, model.n_sample, n_store_ids, on_device)
        nothing = np.zeros((1, 1), dtype=np.int32)
        self.inputs = theano.shared(nothing, name="inputs")
        self.targets = theano.shared(nothing, name="targets")
        self.ends = theano.shared(nothing.astype(np.int8), name="ends")
        self.step = theano.shared(np.int64(0), name="step")
        self.costs = theano.shared(np.zeros(BLOCK_STEPS, dtype=theano.config.floatX), name="costs")
        self.states = model._zero_states(0)
        self.steps_per_second = 1
        model._merge_negatives = self.store is not None and sampling.expected_distinct(
            log.support, model.sample_alpha, model.n_sample
        ) < MERGE_BELOW * model.n_sample
        log_support = np.log(np.maximum(log.support, 1)).astype(theano.config.floatX)
        model._log_support = theano.shared(log_support[:, None], name="log_support")
        self.step_function = self._compile()

    def _compile(self):
        """Compile one training step."""
        model = self.model
        negatives = self.store.samples[self.store.row] if self.store else None
        cost, new_states, looked_up = model._training_cost(
            self.inputs[self.step], self.targets[self.step], negatives, self.states, self._dropout
        )
        updates = optimizers.training_updates(
            cost,
            model._dense_parameters(),
            looked_up,
            model.adapt,
            model.adapt_params,
            model.learning_rate,
            model.momentum,
            model.lmbd,
            model.grad_cap,
        )
        goes_on = (1 - self.ends[self.step]).astype(theano.config.floatX).dimshuffle(0, "x")
        updates += [(h, new * goes_on) for h, new in zip(self.states, new_states)]
        updates += [(self.costs, tt.set_subtensor(self.costs[self.step], cost))]
        updates += [(self.step, self.step + 1), (self.steps_done, self.steps_done + 1)]
        if self.store:
            updates += [(self.store.row, self.store.row + 1)]
        logger.info("compiling the training step: seconds, on the first run half a minute")
        return theano.function([], [], updates=updates)

    def reset_states(self) -> None:
        """Set all states to zero, as at the beginning of an epoch."""
        for h, n in zip(self.states, self.model.layers):
            zeros = np.zeros((self.model.batch_size, n), dtype=theano.config.floatX)
            h.set_value(zeros, borrow=True)

    def run_steps(self, n: int) -> None:
        """Run n steps of the block without leaving Theano."""
        self.step_function.fn(n_calls=n)

    def _dropout(self, x: tt.TensorVariable, p: float) -> tt.TensorVariable:
        """Zero each element with probability p, scale the others by 1 / (1 - p)."""
        if p <= 0:
            return x
        if kernel_library.usable():
            self.n_dropouts += 1
            seed = self.dropout_seed + (self.n_dropouts << 32)
            return cpu_ops.Dropout()(x, float(p), seed, self.steps_done)
        keep = 1 - p
        mask = self.dropout_rng.binomial(x.shape, p=keep, ndim=x.ndim, dtype=x.dtype)
        return x * mask * np.float32(1 / keep)

    def run(self) -> None:
        model = self.model
        if self.store and self.store.n_batches:
            kind = "GPU" if self.store.on_device else "CPU"
            print(
                f"Created sample store with {self.store.n_batches} batches of samples (type={kind})"
            )
        elif self.store:
            print("No sample store was used")
        for epoch in range(model.n_epochs):
            self._run_epoch(epoch)

    def _run_epoch(self, epoch: int) -> None:
        model, log = self.model, self.log
        order = sessions.training_order(log, model.time_sort, self.order_rng)
        # without additional samples a single session has no negatives
        min_rows = 1 if self.store else 2
        n_steps = sessions.count_steps(log, order, model.batch_size, min_rows)
        blocks = sessions.schedule_blocks(log, order, model.batch_size, BLOCK_STEPS, min_rows)
        self.reset_states()
        costs, rows, done = [], [], 0
        start = time.perf_counter()
        with tqdm(total=n_steps, desc=f"Epoch {epoch + 1}", unit="mb", disable=None) as progress:
            for block in blocks:
                steps_left = (model.n_epochs - epoch) * n_steps - done
                costs.append(self._run_block(block, steps_left, progress))
                self._check_costs(costs[-1], epoch, done)
                rows.append(np.full(len(costs[-1]), block.inputs.shape[1]))
                done += len(costs[-1])
        costs, rows = np.concatenate(costs), np.concatenate(rows)
        seconds = time.perf_counter() - start
        loss = np.average(costs, weights=rows)
        print(
            f"Epoch{epoch + 1} --> loss: {loss:.6f} \t({seconds:.2f}s) "
            f"\t[{len(costs) / seconds:.2f} mb/s | {rows.sum() / seconds:.0f} e/s]",
            flush=True,
        )

    def _run_block(self, block: sessions.Block, steps_left: int, progress: tqdm) -> np.ndarray:
        """Run the steps of a block; returns their costs, (K,) float64."""
        for h in self.states:
            h.set_value(h.get_value(borrow=True)[block.kept], borrow=True)
        self.inputs.set_value(block.inputs, borrow=True)
        self.targets.set_value(block.targets, borrow=True)
        self.ends.set_value(block.ends, borrow=True)
        self.step.set_value(np.int64(0))
        n_steps, done = len(block.inputs), 0
        while done < n_steps:
            served = n_steps - done
            if self.store:
                # for the whole rest of the block: what is drawn must not depend on timing
                served = self.store.serve(served, steps_left - done)
            self._run_about_a_second_at_a_time(served, progress)
            done += served
        return self.costs.get_value()[:n_steps].astype(np.float64)

    def _run_about_a_second_at_a_time(self, n_steps: int, progress: tqdm) -> None:
        """Run steps; Ctrl-C and the progress bar wait for Python in between."""
        while n_steps:
            n = min(n_steps, self.steps_per_second)
            start = time.perf_counter()
            self.run_steps(n)
            seconds = max(time.perf_counter() - start, 1e-6)
            self.steps_per_second = max(1, int(min(n / seconds, BLOCK_STEPS)))
            progress.update(n)
            n_steps -= n

    def _check_costs(self, costs: np.ndarray, epoch: int, n_before: int) -> None:
        finite = np.isfinite(costs)
        if finite.all():
            return
        model = self.model
        step = n_before + int(np.argmin(finite))
        raise TrainingDiverged(
            f"the loss became NaN or infinite in epoch {epoch + 1}, step {step + 1}; usual causes "
            f"are learning_rate ({model.learning_rate}) or momentum ({model.momentum}) too high "
            f"for batch_size {model.batch_size}, or bpreg ({model.bpreg}) with an unbounded "
            f"final_act ({model.final_act}): lower them, or set grad_cap"
        )


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
            changed = self.session_ids != session_ids
            for h in self.states:
                values = h.get_value()
                values[changed] = 0
                h.set_value(values, borrow=True)
        self.session_ids = session_ids.copy()
        if outputs is None:
            return self.functions[False](inputs)
        return self.functions[True](inputs, outputs)
