"""One optimizer step, on a whole parameter or on the rows that a mini-batch looked up."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops.base import KernelOp, fail_if
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# in the order of the enums in kernels.h
METHODS = (None, "adagrad", "rmsprop", "adadelta", "adam")


def has_method(method: str | None) -> bool:
    """Tell whether the kernels know an optimizer."""
    return method in METHODS


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

    def __init__(self, method, momentum, l2, weighted=(), inplace=False):
        self.method, self.momentum, self.l2 = method, momentum, l2
        self.weighted, self.inplace = weighted, inplace
        self.n_states = METHODS.index(method) and {"adam": 3, "adadelta": 2}.get(method, 1)
        self.n_tables = 1 + self.n_states + momentum
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

    def c_headers(self):
        return ["arrays.h", "<memory>"]

    def c_code(self, node, name, inputs, outputs, sub):
        fail = sub["fail"]
        tables = inputs[1 : 1 + self.n_tables]
        take = " || ".join(
            f"!gk::take({out}, {table}, {str(self.inplace).lower()})"
            for table, out in zip(tables, outputs)
        )
        data = [f"gk::data({out})" for out in outputs]
        states = [*data[1 : 1 + self.n_states], *["NULL"] * 3]
        time = states[2] if self.method == "adam" else "NULL"
        velocity = data[-1] if self.momentum else "NULL"
        ndim = node.outputs[0].ndim
        width = f"PyArray_DIM({outputs[0]}, 1)" if ndim > 1 else "1"
        return f"""
        {{
        gk::Plain constants({inputs[0]});
        if (!constants.ok() || {take}) {{ {fail} }}
        const float* c = constants.data();
        const gk_rule rule = {{{METHODS.index(self.method)}, PyArray_DIM({outputs[0]}, 0), {width},
            {data[0]}, {{{states[0]}, {states[1]}}}, {time}, {velocity},
            c[0], c[1], c[2], c[3], {{c[4], c[5]}}}};
        {self._c_rows(inputs, fail) if self.weighted else self._c_dense(inputs, fail)}
        }}
        """

    def _c_dense(self, inputs, fail):
        return f"""
        gk::Plain gradient({inputs[-1]});
        if (!gradient.ok()) {{ {fail} }}
        const long n = PyArray_SIZE({inputs[-1]});
        {fail_if("n != rule.n_rows * rule.width", "ValueError", "update: gradient's size", fail)}
        gk_update_dense(&rule, n, gradient.data());
        """

    def _c_rows(self, inputs, fail):
        arrays = [array or "NULL" for lookup in self._lookups(inputs) for array in lookup]
        plain = ", ".join(f"a{i}({array})" for i, array in enumerate(arrays))
        all_ok = " && ".join(f"a{i}.ok()" for i in range(len(arrays)))
        lookups, fits = [], []
        for i in range(0, len(arrays), 4):
            lookups.append(
                f"{{a{i}.dim(0), a{i}.ids(), a{i + 1}.data(), a{i + 2}.data(), a{i + 3}.data()}}"
            )
            fits.append(f"a{i + 1}.dim(0) == a{i}.dim(0) && a{i + 1}.dim(1) == rule.width")
        return f"""
        gk::Plain {plain};
        if (!({all_ok})) {{ {fail} }}
        {fail_if(f"!({' && '.join(fits)})", "ValueError", "update: gradient's shape", fail)}
        const gk_lookup lookups[] = {{{", ".join(lookups)}}};
        const int problem = gk_update_rows(&rule, lookups, {len(self.weighted)});
        {fail_if("problem == 1", "MemoryError", "update of rows", fail)}
        {fail_if("problem == 2", "IndexError", "update of rows: index out of range", fail)}
        """
