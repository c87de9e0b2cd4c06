"""Update rules as pure symbolic functions: dense for whole parameters, row-wise for looked-up rows.

Both share one rule: an adaptive method scales the gradient, then momentum and L2 turn it into a
step. What differs is storage: row-wise updates touch only the rows that a mini-batch used, and a
row may come up several times in one mini-batch (as an input, a target, a negative sample).
Duplicates behave exactly as in the reference implementation: each occurrence scales its own
gradient by statistics that include only itself, and all resulting steps are added to the row; what
is accumulated (adagrad's squares, the running means) receives every occurrence's share; the
velocity keeps the last occurrence's value.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from theano_setup import tensor as tt
from theano_setup import theano

EPSILON = 1e-6


class _Dense:
    """Access to the state of a whole parameter."""

    def __init__(self, parameter: theano.compile.SharedVariable):
        self.parameter = parameter
        self.value = parameter

    def read(self, state: theano.compile.SharedVariable) -> tt.TensorVariable:
        return state

    def accumulate(self, state, decay: float, increment):
        """state <- decay * state + increment"""
        return (state if decay == 1 else _c(decay) * state) + increment

    def overwrite(self, state, value):
        """state <- value"""
        return value

    def add(self, step):
        """parameter <- parameter + step"""
        return self.parameter + step


class _Rows(_Dense):
    """Access to the rows of a parameter that one mini-batch looked up."""

    def __init__(self, parameter, rows: tt.TensorVariable, index: tt.TensorVariable):
        super().__init__(parameter)
        self.value = rows
        self.index = index

    def read(self, state):
        return state[self.index]

    def accumulate(self, state, decay, increment):
        if decay != 1:
            # a row decays once, however often it comes up
            state = tt.set_subtensor(state[self.index], _c(decay) * state[self.index])
        return tt.inc_subtensor(state[self.index], increment)

    def overwrite(self, state, value):
        return tt.set_subtensor(state[self.index], value)

    def add(self, step):
        return tt.inc_subtensor(self.value, step)


def _c(number: float) -> np.ndarray:
    return np.asarray(number, dtype=theano.config.floatX)


def _zeros_like(parameter: theano.compile.SharedVariable, name: str):
    zeros = np.zeros_like(parameter.get_value(borrow=True))
    return theano.shared(zeros, name=f"{parameter.name}_{name}")


# ---------------------------------------------------------------------------- adaptive methods
# Each takes the access, the gradient (shape of access.value) and the decay rates; returns the
# scaled gradient and the updates of its own state.


def sgd(access: _Dense, gradient: tt.TensorVariable) -> tuple:
    """The gradient as it is."""
    return gradient, []


def adagrad(access: _Dense, gradient: tt.TensorVariable) -> tuple:
    """a <- a + g^2; g / sqrt(a + 1e-6) (Duchi et al., JMLR 2011)."""
    acc = _zeros_like(access.parameter, "adagrad")
    squared = gradient**2
    scaled = gradient / tt.sqrt(access.read(acc) + squared + _c(EPSILON))
    return scaled, [(acc, access.accumulate(acc, 1, squared))]


def rmsprop(access: _Dense, gradient: tt.TensorVariable, decay: float = 0.9) -> tuple:
    """a <- d a + (1 - d) g^2; g / sqrt(a + 1e-6) (Tieleman and Hinton, 2012)."""
    acc = _zeros_like(access.parameter, "rmsprop")
    acc_new = access.accumulate(acc, decay, _c(1 - decay) * gradient**2)
    return gradient / tt.sqrt(access.read(acc_new) + _c(EPSILON)), [(acc, acc_new)]


def adadelta(access: _Dense, gradient: tt.TensorVariable, decay: float = 0.95) -> tuple:
    """s = g sqrt(u + 1e-6) / sqrt(a + 1e-6), a and u running means of g^2, s^2 (Zeiler, 2012)."""
    acc = _zeros_like(access.parameter, "adadelta_gradient")
    upd = _zeros_like(access.parameter, "adadelta_step")
    acc_new = access.accumulate(acc, decay, _c(1 - decay) * gradient**2)
    scale = tt.sqrt((access.read(upd) + _c(EPSILON)) / (access.read(acc_new) + _c(EPSILON)))
    upd_new = access.accumulate(upd, decay, _c(1 - decay) * (scale * gradient) ** 2)
    return scale * gradient, [(acc, acc_new), (upd, upd_new)]


def adam(
    access: _Dense, gradient: tt.TensorVariable, decay1: float = 0.9, decay2: float = 0.999
) -> tuple:
    """m / (sqrt(v) + 1e-8), m and v running means of g and g^2 (Kingma and Ba, ICLR 2015).

    Both are corrected for their zero start by 1 - decay^t. Row-wise, t counts the mini-batches that
    used the row, so that a rare item's first step has the size of a frequent one's.
    """
    mean = _zeros_like(access.parameter, "adam_mean")
    var = _zeros_like(access.parameter, "adam_variance")
    time = theano.shared(
        np.zeros((mean.get_value(borrow=True).shape[0],), dtype=theano.config.floatX),
        name=f"{access.parameter.name}_adam_time",
    )
    steps = access.read(time) + 1
    t = steps.dimshuffle(0, *["x"] * (gradient.ndim - 1))
    mean_share, var_share = _c(1 - decay1) * gradient, _c(1 - decay2) * gradient**2
    mean_new = _c(decay1) * access.read(mean) + mean_share
    var_new = _c(decay2) * access.read(var) + var_share
    scaled = (
        mean_new
        / (1 - _c(decay1) ** t)
        / (tt.sqrt(var_new / (1 - _c(decay2) ** t)) + _c(1e-8))
    )
    return scaled, [
        (mean, access.accumulate(mean, decay1, mean_share)),
        (var, access.accumulate(var, decay2, var_share)),
        (time, access.overwrite(time, steps)),
    ]


METHODS: dict[str | None, Callable] = {
    None: sgd,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adadelta": adadelta,
    "adam": adam,
}


# ---------------------------------------------------------------------------- updates


def _updates(
    access: _Dense, gradient, method, rates, learning_rate: float, momentum: float, lmbd: float
) -> list:
    """v <- momentum v - lr (scaled g + lmbd p); p <- p + v (without momentum v is not kept)."""
    scaled, updates = METHODS[method](access, gradient, *rates)
    if lmbd > 0:
        scaled = scaled + _c(lmbd) * access.value
    step = -_c(learning_rate) * scaled
    if momentum > 0:
        velocity = _zeros_like(access.parameter, "velocity")
        step = _c(momentum) * access.read(velocity) + step
        updates.append((velocity, access.overwrite(velocity, step)))
    return [*updates, (access.parameter, access.add(step))]


def clip_by_common_norm(gradients: list, cap: float) -> list:
    """Rescale all gradients so that their common L2 norm is at most ``cap`` (0: leave them)."""
    if cap <= 0:
        return gradients
    norm = tt.sqrt(sum((g**2).sum() for g in gradients))
    return [tt.switch(tt.ge(norm, _c(cap)), g * (_c(cap) / norm), g) for g in gradients]


def training_updates(
    cost: tt.TensorVariable,
    dense: list,
    looked_up: list,
    method: str | None,
    rates: list,
    learning_rate: float,
    momentum: float = 0.0,
    lmbd: float = 0.0,
    grad_cap: float = 0.0,
) -> list:
    """Return the updates of one training step.

    Parameters
    ----------
    cost : scalar
        What is minimised.
    dense : list of shared variables
        Parameters that every step uses whole.
    looked_up : list of (shared variable, rows, index)
        Parameters used row by row: ``rows = parameter[index]`` entered the cost.
    method : str or None
        A key of `METHODS`.
    rates : list of float
        Its decay rates, none for adagrad and None.
    learning_rate, momentum, lmbd, grad_cap : float
        Step size, classical momentum, L2 penalty, cap of the common gradient norm (0: off).

    Returns
    -------
    list of (shared variable, expression)
    """
    accesses = [_Dense(p) for p in dense] + [_Rows(*entry) for entry in looked_up]
    gradients = theano.grad(cost, [access.value for access in accesses])
    gradients = clip_by_common_norm(gradients, grad_cap)
    return [
        update
        for access, gradient in zip(accesses, gradients)
        for update in _updates(access, gradient, method, rates, learning_rate, momentum, lmbd)
    ]
