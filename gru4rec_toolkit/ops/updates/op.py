"""One optimizer step, on a whole parameter or on the rows that a mini-batch looked up."""

from __future__ import annotations

import math

import numpy as np

from gru4rec_toolkit.ops import library
from gru4rec_toolkit.ops.base import KernelOp, cpp_enum
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# in the order of the enums in kernels.h
METHODS = (None, "adagrad", "rmsprop", "adadelta", "adam")
# look-ups of one parameter that a GPU's kernel takes
MOST_ON_GPU = 2


def has_method(method: str | None) -> bool:
    """Tell whether the kernels know an optimizer."""
    return method in METHODS


def most_look_ups() -> float:
    """Return how many look-ups of a parameter the kernels of the device take."""
    return math.inf if library.usable() else MOST_ON_GPU


# ---------------------------------------------------------------------------- optimizers


class Update(KernelOp):
    """One optimizer step on a whole parameter, or on the rows of it that a mini-batch looked up.

    Inputs: constants (6,) [learning_rate, momentum, l2, epsilon, decays of the method, else 0];
    the tables: the parameter, the states of the method (adam: mean, variance, time), the velocity
    if ``momentum``; then the gradient, or for every look-up: index (n,), gradient (n, width), how
    many copies of the row each stands for (n,) if it is weighted, the rows (n, width) as they were
    if ``l2``. A gradient is that of all copies together. Outputs: the tables after the step.

    The rules, with their duplicates, are in `optimizers`; this computes them in one pass.

    Parameters
    ----------
    method : str or None
    momentum, l2 : bool
    weighted : tuple of bool
        For every look-up, whether it is weighted; (): a whole parameter.
    inplace : bool
        Write into the tables; a rewrite sets it.
    """

    __props__ = ("method", "momentum", "l2", "weighted", "inplace")
    FOLDER = "updates"

    def __init__(self, method, momentum, l2, weighted=(), inplace=False):
        self.method, self.momentum, self.l2 = method, momentum, l2
        self.weighted, self.inplace = weighted, inplace
        self.n_states = METHODS.index(method) and {"adam": 3, "adadelta": 2}.get(method, 1)
        self.n_tables = 1 + self.n_states + momentum
        self.FUNCTION = "apply_update_of_rows" if weighted else "apply_update"
        if inplace:
            self.destroy_map = {i: [1 + i] for i in range(self.n_tables)}

    def in_place(self):
        """Return the same Op, working in place."""
        return type(self)(*(getattr(self, prop) for prop in self.__props__[:-1]), inplace=True)

    def make_node(self, *inputs):
        inputs = [tt.as_tensor_variable(i) for i in inputs]
        return theano.Apply(self, inputs, [i.type() for i in inputs[1 : 1 + self.n_tables]])

    def infer_shape(self, node, shapes):
        return shapes[1 : 1 + self.n_tables]

    def _lookups(self, inputs):
        """Return per look-up: index, gradient, weights or None, rows or None."""
        rest = list(inputs[1 + self.n_tables :])
        if not self.weighted:
            return [(None, rest[0], None, None)]
        lookups = []
        for weighted in self.weighted:
            index, gradient = rest.pop(0), rest.pop(0)
            weights = rest.pop(0) if weighted else None
            lookups.append((index, gradient, weights, rest.pop(0) if self.l2 else None))
        return lookups

    def perform(self, node, inputs, outputs):
        rate, momentum, l2, epsilon, d0, d1 = inputs[0].astype(np.float64)
        tables = [t if self.inplace else t.copy() for t in inputs[1 : 1 + self.n_tables]]
        before = [t.astype(np.float64) for t in tables]
        after = [t.copy() for t in before]
        occurrences = []
        for index, gradient, weights, rows in self._lookups(inputs):
            if index is None:  # all of it, once
                occurrences.append((slice(None), gradient.astype(np.float64), 1.0, before[0]))
                continue
            for e, row in enumerate(index):
                w = 1.0 if weights is None else float(weights[e])
                occurrences.append(
                    (row, gradient[e] / w, w, before[0][row] if rows is None else rows[e])
                )
        touched = list({str(row): row for row, *_ in occurrences}.values())
        if self.method in ("rmsprop", "adadelta", "adam"):
            for row in touched:
                after[1][row] *= d0
                if self.method != "rmsprop":
                    after[2][row] *= d1 if self.method == "adam" else d0
                if self.method == "adam":
                    after[3][row] += 1
        for row, g, w, _ in occurrences:
            if self.method == "adagrad":
                after[1][row] += w * g**2
            elif self.method in ("rmsprop", "adadelta"):
                after[1][row] += w * (1 - d0) * g**2
            elif self.method == "adam":
                after[1][row] += w * (1 - d0) * g
                after[2][row] += w * (1 - d1) * g**2
        for row, g, w, value in occurrences:
            scaled = g
            if self.method == "adagrad":
                scaled = g / np.sqrt(before[1][row] + g**2 + epsilon)
            elif self.method == "rmsprop":
                scaled = g / np.sqrt(after[1][row] + epsilon)
            elif self.method == "adadelta":
                scaled = g * np.sqrt((before[2][row] + epsilon) / (after[1][row] + epsilon))
                after[2][row] += w * (1 - d0) * scaled**2
            elif self.method == "adam":
                t = np.max(after[3][row], initial=1)
                mean = (d0 * before[1][row] + (1 - d0) * g) / (1 - d0**t)
                variance = (d1 * before[2][row] + (1 - d1) * g**2) / (1 - d1**t)
                scaled = mean / (np.sqrt(variance) + 1e-8)
            step = -rate * (scaled + l2 * value)
            if self.momentum:
                step = momentum * before[-1][row] + step
                after[-1][row] = step
            after[0][row] += w * step
        for storage, table, new in zip(outputs, tables, after):
            table[...] = new
            storage[0] = table

    def c_arguments(self, node, inputs, outputs):
        tables = self.c_tables(inputs[1 : 1 + self.n_tables], outputs)
        gradient = self._lookups(inputs) if self.weighted else inputs[-1]
        return [inputs[0], tables, gradient, self.inplace]

    def c_definitions(self):
        method = cpp_enum(self.method or "sgd")
        return {"METHOD": method, "WITH_MOMENTUM": int(self.momentum)}

    def c_tables(self, tables: list[str], outputs: list[str]) -> list[tuple]:
        """Return input and output of values, two states, time and velocity, for `cpp`."""
        pairs = [(table, f"&{out}") for table, out in zip(tables, outputs)]
        states = [*pairs[1 : 1 + self.n_states], (), (), ()][:3]
        return [pairs[0], *states, pairs[-1] if self.momentum else ()]
