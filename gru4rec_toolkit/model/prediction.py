"""Prediction step by step: the compiled function of `GRU4Rec.predict_next_batch`, its arguments."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from gru4rec_toolkit.errors import InputError, shown
from gru4rec_toolkit.model import weights
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano


def shape_of(table: theano.compile.SharedVariable) -> tuple[int, ...]:
    """Return the shape of a shared variable's value, which stays where it is."""
    return table.get_value(borrow=True, return_internal_type=True).shape


def index_vector(name: str, value: Any) -> tt.TensorVariable:
    """Return an argument of `GRU4Rec.symbolic_predict` as the vector of indices that it must be."""
    try:
        vector = tt.as_tensor_variable(value)
    except Exception:  # Theano raises anything for what is no tensor
        vector = None
    if vector is None or vector.ndim != 1 or vector.dtype not in tt.discrete_dtypes:
        raise InputError(f"{name}: expected a Theano vector of integers, got {shown(value)}")
    return vector


def row_count(value: Any, batch_size: int) -> Any:
    """Check the argument M of `GRU4Rec.symbolic_predict`."""
    if isinstance(value, theano.Variable):
        fits = getattr(value, "ndim", None) == 0 and value.dtype in tt.discrete_dtypes
    else:
        is_number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        fits = is_number and 0 <= value <= batch_size
    if not fits:
        raise InputError(
            f"M: expected a Theano scalar of integers, or a number of rows up to batch_size "
            f"({batch_size}), got {shown(value)}"
        )
    return value


class Predictor:
    """The compiled function of `GRU4Rec.predict_next_batch` and the sessions in its slots."""

    def __init__(self, model: Any, batch: int) -> None:
        self.batch = batch
        self.session_ids: list | None = None
        inputs, outputs = tt.ivector("inputs"), tt.ivector("outputs")
        no_targets = inputs[:0]
        self.functions = {}
        self.network = model.trained_network()
        self.n_items = len(model.item_ids)
        self.states = self.network.zero_states(batch)
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
        try:
            if outputs is None:
                scores = self.functions[False](inputs)
            else:
                scores = self.functions[True](inputs, outputs)
        except Exception:
            self._check_shapes()
            raise
        if scores.shape[1] != (self.n_items if outputs is None else len(outputs)):
            self._check_shapes()
        return scores

    def _check_shapes(self) -> None:
        """Raise an InputError that names a weight to which a wrong shape was given by hand."""
        found = {table.name: shape_of(table) for table in self.network.variables()}
        weights.check_shapes(found, self.network.settings, self.n_items)
