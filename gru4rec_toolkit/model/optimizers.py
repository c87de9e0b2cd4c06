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

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gru4rec_toolkit import parameters
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.ops import base, library
from gru4rec_toolkit.ops.updates.op import Update, has_method, most_look_ups
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

EPSILON = 1e-6


class _Dense:
    """Access to a whole parameter and its states."""

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
    """Access to the rows of a parameter that one mini-batch looked up, in one or more look-ups."""

    def __init__(self, parameter: theano.compile.SharedVariable, lookups: list):
        super().__init__(parameter)
        self.index = tt.concatenate([index for _, index, _ in lookups])
        self.value = parameter[self.index]

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


# states of each method, arrays of the parameter's shape
STATES = {
    "adagrad": ("adagrad",),
    "rmsprop": ("rmsprop",),
    "adadelta": ("adadelta_gradient", "adadelta_step"),
    "adam": ("adam_mean", "adam_variance"),
}


# states that several graphs of one training share, by parameter and name; see `shared_states`
_shared: contextvars.ContextVar[dict | None] = contextvars.ContextVar("states", default=None)


@contextlib.contextmanager
def shared_states(made: dict) -> Iterator[None]:
    """Let `training_updates` go on with the states of parameters that an earlier call has made.

    Parameters
    ----------
    made : dict
        Empty for the first graph, and what it has become then for the others.
    """
    token = _shared.set(made)
    try:
        yield
    finally:
        _shared.reset(token)


def _made_once(parameter: theano.compile.SharedVariable, name: str, shape: tuple[int, ...]):
    """Return a state of a parameter, zero at first."""
    made = _shared.get()
    if made is not None and (parameter, name) in made:
        return made[parameter, name]
    zeros = library.empty(shape, parameter.dtype)
    zeros[...] = 0
    state = theano.shared(zeros, name=f"{parameter.name}_{name}", borrow=True)
    if made is not None:
        made[parameter, name] = state
    return state


def _zeros_like(parameter: theano.compile.SharedVariable, name: str):
    return _made_once(parameter, name, parameter.get_value(borrow=True).shape)


def states_of(parameter: theano.compile.SharedVariable, method: str | None) -> list:
    """Return the states of a method, all zero; adam's last one counts steps, row by row."""
    states = [_zeros_like(parameter, name) for name in STATES.get(method or "", ())]
    if method == "adam":
        n_rows = parameter.get_value(borrow=True).shape[0]
        states.append(_made_once(parameter, "adam_time", (n_rows,)))
    return states


# ---------------------------------------------------------------------------- adaptive methods
# Each takes the access, the gradient (shape of access.value) and the decay rates; returns the
# scaled gradient and the updates of its own state.


def sgd(access: _Dense, gradient: tt.TensorVariable) -> tuple:
    """Return the gradient as it is."""
    return gradient, []


def adagrad(access: _Dense, gradient: tt.TensorVariable) -> tuple:
    """a <- a + g^2; g / sqrt(a + 1e-6) (Duchi et al., JMLR 2011)."""
    (acc,) = states_of(access.parameter, "adagrad")
    squared = gradient**2
    scaled = gradient / tt.sqrt(access.read(acc) + squared + _c(EPSILON))
    return scaled, [(acc, access.accumulate(acc, 1, squared))]


def rmsprop(
    access: _Dense, gradient: tt.TensorVariable, decay: float
) -> tuple:
    """a <- d a + (1 - d) g^2; g / sqrt(a + 1e-6) (Tieleman and Hinton, 2012)."""
    (acc,) = states_of(access.parameter, "rmsprop")
    acc_new = access.accumulate(acc, decay, _c(1 - decay) * gradient**2)
    return gradient / tt.sqrt(access.read(acc_new) + _c(EPSILON)), [(acc, acc_new)]


def adadelta(
    access: _Dense, gradient: tt.TensorVariable, decay: float
) -> tuple:
    """s = g sqrt(u + 1e-6) / sqrt(a + 1e-6), a and u running means of g^2, s^2 (Zeiler, 2012)."""
    acc, upd = states_of(access.parameter, "adadelta")
    acc_new = access.accumulate(acc, decay, _c(1 - decay) * gradient**2)
    scale = tt.sqrt((access.read(upd) + _c(EPSILON)) / (access.read(acc_new) + _c(EPSILON)))
    upd_new = access.accumulate(upd, decay, _c(1 - decay) * (scale * gradient) ** 2)
    return scale * gradient, [(acc, acc_new), (upd, upd_new)]


def adam(
    access: _Dense,
    gradient: tt.TensorVariable,
    decay1: float,
    decay2: float,
) -> tuple:
    """m / (sqrt(v) + 1e-8), m and v running means of g and g^2 (Kingma and Ba, ICLR 2015).

    Both are corrected for their zero start by 1 - decay^t. Row-wise, t counts the mini-batches that
    used the row, so that a rare item's first step has the size of a frequent one's.
    """
    mean, var, time = states_of(access.parameter, "adam")
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


_BUILT_IN = frozenset(name for name in METHODS if name)


def register(name: str, rule: Callable, states: tuple[str, ...], rates: tuple[float, ...]) -> None:
    """Add an optimizer from outside: ``adapt=name`` trains with it, on its symbolic expression.

    Parameters
    ----------
    name : str
    rule : callable
        Like `adagrad`: takes access, gradient and the decay rates; returns the scaled gradient and
        the updates of its states.
    states : tuple of str
        What it keeps beside a parameter, in its shape; `states_of` makes them.
    rates : tuple of float
        Its decay rates, unless adapt_params says otherwise.
    """
    if name in _BUILT_IN:
        # its kernel would go on computing the one that is built in
        raise InputError(
            f"optimizers.register: {name!r} is an optimizer of the toolkit; give another name"
        )
    parameters.OPTIMIZERS[name] = rates
    STATES[name], METHODS[name] = states, rule


# ---------------------------------------------------------------------------- updates


def _updates(
    access: _Dense, gradient, method, rates, learning_rate: float, momentum: float, lmbd: float
) -> list:
    """v <- momentum v - lr (scaled g + lmbd p); p <- p + v (without momentum v is not kept)."""
    rates = rates or parameters.OPTIMIZERS.get(method, ())
    scaled, updates = METHODS[method](access, gradient, *rates)
    if lmbd > 0:
        scaled = scaled + _c(lmbd) * access.value
    step = -_c(learning_rate) * scaled
    if momentum > 0:
        velocity = _zeros_like(access.parameter, "velocity")
        step = _c(momentum) * access.read(velocity) + step
        updates.append((velocity, access.overwrite(velocity, step)))
    return [*updates, (access.parameter, access.add(step))]


def clip_by_common_norm(gradients: list, cap: float, weights: list | None = None) -> list:
    """Rescale all gradients so that their common L2 norm is at most ``cap`` (0: leave them).

    With weights (N,), row i of a gradient (N, width) is the sum of weights[i] equal rows.
    """
    if cap <= 0:
        return gradients

    def square_sum(g, w):
        return (g**2).sum() if w is None else ((g**2).sum(axis=1) / w).sum()

    weights = weights or [None] * len(gradients)
    norm = tt.sqrt(sum(square_sum(g, w) for g, w in zip(gradients, weights)))
    return [tt.switch(tt.ge(norm, _c(cap)), g * (_c(cap) / norm), g) for g in gradients]


def training_updates(
    cost: tt.TensorVariable,
    dense: list,
    looked_up: list,
    method: str | None,
    rates: Sequence[float],
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
    looked_up : list of (shared variable, list of (rows, index, weights))
        Parameters used row by row: each ``rows = parameter[index]`` entered the cost. The order of
        the look-ups is that of duplicates. Weights (N,): how many equal rows each row stands for;
        None: one.
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
    all_rows = [rows for _, lookups in looked_up for rows, _, _ in lookups]
    weights = [None] * len(dense) + [w for _, lookups in looked_up for _, _, w in lookups]
    gradients = theano.grad(cost, [*dense, *all_rows])
    gradients = clip_by_common_norm(gradients, grad_cap, weights)
    settings = (method, rates, learning_rate, momentum, lmbd)
    fused = base.usable() and has_method(method)
    updates = []
    for parameter, gradient in zip(dense, gradients):
        if fused:
            updates += _fused_updates(parameter, [], [gradient], *settings)
        else:
            updates += _updates(_Dense(parameter), gradient, *settings)
    left = gradients[len(dense) :]
    for parameter, lookups in looked_up:
        of_rows, left = left[: len(lookups)], left[len(lookups) :]
        if fused:
            updates += _fused_updates(parameter, lookups, of_rows, *settings)
        else:
            access = _Rows(parameter, lookups)
            updates += _updates(access, tt.concatenate(of_rows), *settings)
    return updates


def _joined(lookups: list, gradients: list) -> tuple[list, list]:
    """Return look-ups as one, with the gradients of its rows, in the same order."""
    rows, indices, weights = zip(*lookups)
    weighted = None
    if any(w is not None for w in weights):
        ones = [tt.ones_like(i, dtype=theano.config.floatX) for i in indices]
        weighted = tt.concatenate([one if w is None else w for w, one in zip(weights, ones)])
    look_up = (tt.concatenate(rows), tt.concatenate(indices), weighted)
    return [look_up], [tt.concatenate(gradients)]


def _fused_updates(
    parameter, lookups, gradients, method, rates, learning_rate, momentum, lmbd
) -> list:
    """The same as `_updates`, in one pass."""
    if len(lookups) > most_look_ups():
        lookups, gradients = _joined(lookups, gradients)
    tables = [parameter, *states_of(parameter, method)]
    if momentum > 0:
        tables.append(_zeros_like(parameter, "velocity"))
    weighted = tuple(weights is not None for _, _, weights in lookups)
    op = Update(method, momentum > 0, lmbd > 0, weighted)
    decays = [*(rates or parameters.OPTIMIZERS.get(method, ())), 0, 0][:2]
    constants = np.array([learning_rate, momentum, lmbd, EPSILON, *decays], dtype=np.float32)
    inputs = [constants, *tables]
    for (rows, index, weights), gradient in zip(lookups, gradients):
        inputs += [index, gradient]
        inputs += [weights] if weights is not None else []
        inputs += [rows] if lmbd > 0 else []
    if not lookups:
        inputs += gradients
    return list(zip(tables, op(*inputs, return_list=True)))
