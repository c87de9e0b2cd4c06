"""Custom Ops of the training step on the CPU, in C.

Each Op is one idea with two faces that tests compare: `perform`, its definition in plain numpy, and
a C function of ``kernels/``. The Ops are thin: the work is done in one library (`kernel_library`)
on one team of threads. `custom_opt` puts `Product` and `Gather` in the place of Theano's own nodes
and makes Ops work in place, so that the model stays plain Theano.
"""

from __future__ import annotations

import functools

import numpy as np

import kernel_library
import theano_setup
from parameters import split_activation
from theano_setup import tensor as tt
from theano_setup import theano

EPSILON = 1e-24
# in the order of the enums in kernels.h
METHODS = (None, "adagrad", "rmsprop", "adadelta", "adam")
ACTIVATIONS = ("linear", "relu", "tanh", "leaky", "selu")
LOSSES = ("cross-entropy", "xe_logit", "bpr", "bpr-max", "top1", "top1-max")


def usable() -> bool:
    """Whether graphs can be built of these Ops: float32, on the CPU with a BLAS or on a GPU."""
    return theano_setup.configure().own_ops


class KernelOp(theano.Op):
    """An Op whose C code calls the library.

    The C code of each stands in braces of its own: Theano's ``fail`` is a jump, and C++ forbids
    jumps past the start of a variable's life.
    """

    def c_headers(self):
        return ["arrays.h"]

    def c_header_dirs(self):
        return [str(kernel_library.SOURCES)]

    def c_libraries(self):
        kernel_library.load()  # with its threads, before the code of the Op can run
        return [kernel_library.path().name[len("lib") : -len(".so")]]

    def c_lib_dirs(self):
        return [str(kernel_library.path().parent)]

    def c_compile_args(self):
        return ["-std=c++17", f"-Wl,-rpath,{kernel_library.path().parent}"]

    def c_code_cache_version(self):
        # code that was compiled of, or against, another version must not run
        return (_digest(),)


@functools.lru_cache(maxsize=None)
def _digest() -> int:
    return int(kernel_library.digest_of(kernel_library.SOURCES, __file__)[:15], 16)


def _fail(condition: str, error: str, message: str, fail: str) -> str:
    return f'if ({condition}) {{ PyErr_SetString(PyExc_{error}, "{message}"); {fail} }}'


# ---------------------------------------------------------------------------- products, rows


class Product(KernelOp):
    """Matrix product x y of float32 matrices (m, k) and (k, n), on the team's threads."""

    __props__ = ()

    def make_node(self, x, y):
        return theano.Apply(self, [x, y], [tt.fmatrix()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.dot(*inputs)

    def infer_shape(self, node, shapes):
        return [(shapes[0][0], shapes[1][1])]

    def grad(self, inputs, gradients):
        x, y = inputs
        return [tt.dot(gradients[0], y.T), tt.dot(x.T, gradients[0])]

    def c_code(self, node, name, inputs, outputs, sub):
        x, y = inputs
        (out,) = outputs
        fail = sub["fail"]
        return f"""
        {{
        const npy_intp m = PyArray_DIM({x}, 0), k = PyArray_DIM({x}, 1), n = PyArray_DIM({y}, 1);
        {_fail(f"k != PyArray_DIM({y}, 0)", "ValueError", "product: inner sizes differ", fail)}
        gk::BlasMatrix a({x}), b({y});
        if (!a.ok() || !b.ok() || !gk::allocate({out}, {{m, n}})) {{ {fail} }}
        if (k == 0) {{
            PyArray_FILLWBYTE({out}, 0);
        }} else {{
            gk_product(a.transposed, b.transposed, m, n, k, a.data(), a.between, b.data(),
                       b.between, gk::data({out}), n > 0 ? n : 1);
        }}
        }}
        """


class Gather(KernelOp):
    """Rows ``table[index]`` (n, width) of a float32 table (n_rows, width), int32 index (n,)."""

    __props__ = ()

    def make_node(self, table, index):
        return theano.Apply(self, [table, index], [tt.fmatrix()])

    def perform(self, node, inputs, outputs):
        table, index = inputs
        if (index < 0).any():
            raise IndexError("negative index")
        outputs[0][0] = table[index]

    def infer_shape(self, node, shapes):
        return [(shapes[1][0], shapes[0][1])]

    def c_code(self, node, name, inputs, outputs, sub):
        table, index = inputs
        (out,) = outputs
        fail = sub["fail"]
        return f"""
        {{
        gk::Plain table({table}), index({index});
        if (!table.ok() || !index.ok() || !gk::allocate({out}, {{index.dim(0), table.dim(1)}})) {{
            {fail}
        }}
        const long bad = gk_gather(table.data(), table.dim(0), table.dim(1), index.ids(),
                                   index.dim(0), gk::data({out}));
        if (bad >= 0) {{
            PyErr_Format(PyExc_IndexError, "look-up of rows: index %ld is out of range", bad);
            {fail}
        }}
        }}
        """


class Outputs(KernelOp):
    """The items that a mini-batch scores: its targets (m,), then negatives (k,), all int32.

    Outputs: items (m + k,) int32, and how many equal columns of the score matrix each stands for,
    (m + k,) float32: a target for one, a negative for its ``copies`` (k,), without these for one.
    """

    __props__ = ()

    def make_node(self, targets, negatives, copies=None):
        inputs = [targets, negatives] + ([] if copies is None else [copies])
        return theano.Apply(self, inputs, [tt.ivector(), tt.fvector()])

    def perform(self, node, inputs, outputs):
        targets, negatives, *copies = inputs
        copies = copies[0] if copies else np.ones(len(negatives))
        outputs[0][0] = np.concatenate([targets, negatives])
        outputs[1][0] = np.concatenate([np.ones(len(targets)), copies]).astype(np.float32)

    def infer_shape(self, node, shapes):
        n = shapes[0][0] + shapes[1][0]
        return [(n,), (n,)]

    def c_code(self, node, name, inputs, outputs, sub):
        targets, negatives, *copies = inputs
        items, weights = outputs
        fail = sub["fail"]
        return f"""
        {{
        gk::Plain targets({targets}), negatives({negatives}), copies({(copies or ["NULL"])[0]});
        if (!targets.ok() || !negatives.ok() || !copies.ok()) {{ {fail} }}
        const long m = targets.dim(0), k = negatives.dim(0);
        {_fail("copies.data() && copies.dim(0) != k", "ValueError", "outputs: copies' size", fail)}
        if (!gk::allocate({items}, {{m + k}}, NPY_INT32) || !gk::allocate({weights}, {{m + k}})) {{
            {fail}
        }}
        npy_int32* all = (npy_int32*)PyArray_DATA({items});
        float* of_all = gk::data({weights});
        std::copy(targets.ids(), targets.ids() + m, all);
        std::copy(negatives.ids(), negatives.ids() + k, all + m);
        std::fill(of_all, of_all + (copies.data() ? m : m + k), 1.f);
        if (copies.data()) std::copy(copies.data(), copies.data() + k, of_all + m);
        }}
        """

    def c_headers(self):
        return ["arrays.h", "<algorithm>"]


class LogQ(KernelOp):
    """Biases (n, 1) less the logQ correction of `losses.log_q`: (n,).

    Inputs: the biases; log_support (n_items, 1); items (n,) int32; n_targets, an int64 scalar: so
    many of the items are targets, which come first.

    Parameters
    ----------
    of_targets, of_samples : float
        Factors of log_support for the targets and for the others.
    """

    __props__ = ("of_targets", "of_samples")

    def __init__(self, of_targets: float, of_samples: float):
        self.of_targets, self.of_samples = of_targets, of_samples

    def make_node(self, biases, log_support, items, n_targets):
        return theano.Apply(self, [biases, log_support, items, n_targets], [tt.fvector()])

    def infer_shape(self, node, shapes):
        return [shapes[2]]

    def grad(self, inputs, gradients):
        undefined = [
            theano.gradient.grad_undefined(self, i, inputs[i], "counts and indices")
            for i in (1, 2, 3)
        ]
        return [gradients[0].dimshuffle(0, "x"), *undefined]

    def perform(self, node, inputs, outputs):
        biases, log_support, items, n_targets = inputs
        factors = np.where(np.arange(len(items)) < n_targets, self.of_targets, self.of_samples)
        corrected = biases[:, 0] - factors * log_support[items, 0]
        outputs[0][0] = corrected.astype(np.float32)

    def c_code(self, node, name, inputs, outputs, sub):
        biases, log_support, items, n_targets = inputs
        (out,) = outputs
        fail = sub["fail"]
        return f"""
        {{
        gk::Plain biases({biases}), log_support({log_support}), items({items});
        if (!biases.ok() || !log_support.ok() || !items.ok()) {{ {fail} }}
        const npy_intp n = items.dim(0), n_items = log_support.dim(0);
        const npy_intp n_targets = gk::scalar<npy_int64>({n_targets});
        {_fail("biases.dim(0) != n", "ValueError", "logQ: the biases' size", fail)}
        if (!gk::allocate({out}, {{n}})) {{ {fail} }}
        for (npy_intp j = 0; j < n; j++) {{
            const npy_int32 item = items.ids()[j];
            {_fail("item < 0 || item >= n_items", "IndexError", "logQ: not an item index", fail)}
            const float factor = j < n_targets ? {float(self.of_targets)!r}f
                                               : {float(self.of_samples)!r}f;
            gk::data({out})[j] = biases.data()[j] - factor * log_support.data()[item];
        }}
        }}
        """


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
        {_fail("n != rule.n_rows * rule.width", "ValueError", "update: gradient's size", fail)}
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
        {_fail(f"!({' && '.join(fits)})", "ValueError", "update: gradient's shape", fail)}
        const gk_lookup lookups[] = {{{", ".join(lookups)}}};
        const int problem = gk_update_rows(&rule, lookups, {len(self.weighted)});
        {_fail("problem == 1", "MemoryError", "update of rows", fail)}
        {_fail("problem == 2", "IndexError", "update of rows: index out of range", fail)}
        """


# ---------------------------------------------------------------------------- activations, losses


def _activation(name: str) -> tuple[str, float, float]:
    """Return kind and constants for the kernels; elu-b is selu-1-b."""
    kind, constants = split_activation(name)
    if kind == "elu":
        return "selu", 1.0, constants[0]
    return (kind, *constants, *[0.0] * (2 - len(constants)))


def _c_activation(name: str) -> str:
    kind, a, b = _activation(name)
    return f"gk_act{{{ACTIVATIONS.index(kind)}, {float(a)!r}f, {float(b)!r}f}}"


def _activate(name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the activation of x and its derivative."""
    kind, a, b = _activation(name)
    if kind == "relu":
        return np.maximum(x, 0), (x > 0).astype(float)
    if kind == "tanh":
        return np.tanh(x), 1 - np.tanh(x) ** 2
    if kind == "leaky":
        return np.where(x >= 0, x, a * x), np.where(x >= 0, 1, a)
    if kind == "selu":
        e = b * np.exp(np.minimum(x, 0))
        return a * np.where(x >= 0, x, e - b), a * np.where(x >= 0, 1, e)
    return x, np.ones_like(x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


class Loss(KernelOp):
    """A loss of scores + offsets and its gradient, in one pass over the score matrix.

    Inputs: scores (m, n) without their offsets (n,), weights (n,): column j stands for weights[j]
    equal ones, that of a target for 1. Outputs: scale * loss, a scalar; its gradient by the scores
    (m, n) and by the offsets (n,). The target of row i is column i. The definitions of the losses
    are in `losses`.

    Parameters
    ----------
    loss, activation : str
    scale : float
    parameter : float
        Smoothing of the cross-entropies, bpreg of bpr-max.
    inplace : bool
        Overwrite the scores with their gradient; a rewrite sets it.
    """

    __props__ = ("loss", "activation", "scale", "parameter", "inplace")

    def __init__(self, loss, activation, scale, parameter=0.0, inplace=False):
        self.loss, self.activation, self.scale = loss, activation, scale
        self.parameter, self.inplace = parameter, inplace
        if inplace:
            self.destroy_map = {1: [0]}

    def in_place(self):
        """Return the same Op, working in place."""
        return type(self)(*(getattr(self, prop) for prop in self.__props__[:-1]), inplace=True)

    def make_node(self, scores, offsets, weights):
        return theano.Apply(
            self, [scores, offsets, weights], [tt.fscalar(), tt.fmatrix(), tt.fvector()]
        )

    def infer_shape(self, node, shapes):
        return [(), shapes[0], shapes[1]]

    def grad(self, inputs, gradients):
        _, d_scores, d_offsets = self(*inputs)
        undefined = theano.gradient.grad_undefined(self, 2, inputs[2], "counts of copies")
        return [gradients[0] * d_scores, gradients[0] * d_offsets, undefined]

    def perform(self, node, inputs, outputs):
        scores, offsets, w = (x.astype(np.float64) for x in inputs)
        x = scores + offsets
        if self.loss in ("cross-entropy", "xe_logit"):
            loss, gradient = self._cross_entropy(x, w)
        else:
            y, slope = _activate(self.activation, x)
            loss, gradient = self._ranking_loss(y, w)
            gradient = gradient * slope
        outputs[0][0] = np.asarray(self.scale * loss, dtype=np.float32)
        outputs[1][0] = (self.scale * gradient).astype(np.float32)
        outputs[2][0] = (self.scale * gradient.sum(axis=0)).astype(np.float32)

    def _cross_entropy(self, x, w):
        logit = self.loss == "xe_logit"
        shifted = x - x.max(axis=1, keepdims=True)
        z = (w * np.exp(shifted)).sum(axis=1, keepdims=True)
        p = np.exp(shifted) / z
        surprise = np.log(z) - shifted if logit else -np.log(p + EPSILON)
        q = np.ones_like(p) if logit else p / (p + EPSILON)
        label = np.full(x.shape, self.parameter / max(w.sum() - 1, 1)) * w
        np.fill_diagonal(label, 1 - self.parameter)
        gradient = w * p * (label * q).sum(axis=1, keepdims=True) - label * q
        return (label * surprise).sum(), gradient

    def _ranking_loss(self, y, w):
        """Return the loss and its gradient by the activated scores y."""
        m, i = len(y), np.arange(len(y))
        t = y[i, i][:, None]
        lost, large = _sigmoid(y - t), _sigmoid(y**2)
        d_lost, d_large = lost * (1 - lost), 2 * y * large * (1 - large)
        if self.loss == "bpr":
            gradient = w * lost
            gradient[i, i] -= gradient.sum(axis=1)
            return (w * np.logaddexp(0, y - t)).sum(), gradient
        if self.loss == "top1":
            c = np.broadcast_to(m * w / w.sum(), y.shape)
            gradient = c * (d_lost + d_large)
            gradient[i, i] -= (c * d_lost).sum(axis=1) + m / w.sum() * d_large[i, i]
            return (c * (lost + large)).sum() - m / w.sum() * large[i, i].sum(), gradient
        negative = np.ones_like(y)
        negative[i, i] = 0
        top = np.maximum((y * negative).max(axis=1, keepdims=True), 0)
        e = w * np.exp(np.minimum(y - top, 0)) * negative
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN where there are no negatives
            s = e / e.sum(axis=1, keepdims=True)
        if self.loss == "top1-max":
            terms = lost + large
            mean = (s * terms).sum(axis=1, keepdims=True)
            gradient = s * (d_lost + d_large + terms - mean)
            gradient[i, i] -= (s * d_lost).sum(axis=1)
            return mean.sum(), gradient
        won = 1 - lost
        mean = (s * won).sum(axis=1, keepdims=True)
        penalty = (s * y**2).sum(axis=1, keepdims=True)
        loss = -np.log(mean + EPSILON) + self.parameter * penalty
        gradient = s * (d_lost - won + mean) / (mean + EPSILON)
        gradient += self.parameter * s * (2 * y + y**2 - penalty)
        gradient[i, i] -= (s * d_lost).sum(axis=1) / (mean[:, 0] + EPSILON)
        return loss.sum(), gradient

    def c_code(self, node, name, inputs, outputs, sub):
        scores, offsets, weights = inputs
        cost, d_scores, d_offsets = outputs
        fail = sub["fail"]
        activation = "linear" if self.activation.startswith("softmax") else self.activation
        wrong = "m > n || offsets.dim(0) != n || weights.dim(0) != n"
        message = "loss: expected scores (m, n), n >= m, offsets and weights (n,)"
        return f"""
        {{
        gk::Plain offsets({offsets}), weights({weights});
        const npy_intp m = PyArray_DIM({scores}, 0), n = PyArray_DIM({scores}, 1);
        if (!offsets.ok() || !weights.ok()) {{ {fail} }}
        {_fail(wrong, "ValueError", message, fail)}
        if (!gk::take({d_scores}, {scores}, {str(self.inplace).lower()}) ||
            !gk::allocate({d_offsets}, {{n}}) || !gk::allocate({cost}, {{}})) {{ {fail} }}
        *gk::data({cost}) = gk_loss({LOSSES.index(self.loss)}, m, n, gk::data({d_scores}),
            offsets.data(), weights.data(), gk::data({d_offsets}), {float(self.scale)!r}f,
            {float(self.parameter)!r}f, {_c_activation(activation)});
        }}
        """


# ---------------------------------------------------------------------------- hidden layers


class GRU(KernelOp):
    """One step of a GRU layer (equations: `GRU4Rec._gru`).

    Inputs: x (m, 3n), the input's share of candidate, reset and update; bias (3n,); state h (m, n);
    weights w_rz (n, 2n), w_h (n, n). Outputs: the new state (m, n); and for the gradient: reset and
    update gates (m, 2n), h * reset (m, n), the candidate (m, n).
    """

    __props__ = ("activation",)

    def __init__(self, activation: str):
        self.activation = activation

    def make_node(self, x, bias, h, w_rz, w_h):
        outputs = [tt.fmatrix() for _ in range(4)]
        return theano.Apply(self, [x, bias, h, w_rz, w_h], outputs)

    def infer_shape(self, node, shapes):
        m, n = shapes[2]
        return [(m, n), (m, 2 * n), (m, n), (m, n)]

    def perform(self, node, inputs, outputs):
        x, bias, h, w_rz, w_h = (v.astype(np.float64) for v in inputs)
        n = h.shape[1]
        x = x + bias
        rz = _sigmoid(x[:, n:] + h @ w_rz)
        reset_h = h * rz[:, :n]
        candidate, _ = _activate(self.activation, x[:, :n] + reset_h @ w_h)
        new = (1 - rz[:, n:]) * h + rz[:, n:] * candidate
        for storage, value in zip(outputs, (new, rz, reset_h, candidate)):
            storage[0] = value.astype(np.float32)

    def connection_pattern(self, node):
        return [[True, False, False, False]] * 5

    def grad(self, inputs, gradients):
        _, _, h, w_rz, w_h = inputs
        _, rz, reset_h, candidate = self(*inputs)
        d_new, n = gradients[0], h.shape[1]
        d_x, d_bias = GRUGradient(self.activation)(d_new, h, w_h, rz, candidate)
        d_candidate, d_rz = d_x[:, :n], d_x[:, n:]
        d_h = d_new * (1 - rz[:, n:]) + tt.dot(d_rz, w_rz.T)
        d_h += tt.dot(d_candidate, w_h.T) * rz[:, :n]
        return [d_x, d_bias, d_h, tt.dot(h.T, d_rz), tt.dot(reset_h.T, d_candidate)]

    def c_code(self, node, name, inputs, outputs, sub):
        new, rz, reset_h, candidate = outputs
        fail = sub["fail"]
        plain = ", ".join(
            f"{var}({array})" for var, array in zip(("x", "bias", "h", "w_rz", "w_h"), inputs)
        )
        wrong = (
            "x.dim(0) != m || x.dim(1) != 3 * n || bias.dim(0) != 3 * n || w_rz.dim(0) != n || "
            "w_rz.dim(1) != 2 * n || w_h.dim(0) != n || w_h.dim(1) != n"
        )
        return f"""
        {{
        gk::Plain {plain};
        if (!x.ok() || !bias.ok() || !h.ok() || !w_rz.ok() || !w_h.ok()) {{ {fail} }}
        const npy_intp m = h.dim(0), n = h.dim(1);
        {_fail(wrong, "ValueError", "GRU: the shapes do not fit", fail)}
        if (!gk::allocate({new}, {{m, n}}) || !gk::allocate({rz}, {{m, 2 * n}}) ||
            !gk::allocate({reset_h}, {{m, n}}) || !gk::allocate({candidate}, {{m, n}})) {{ {fail} }}
        gk_gru(m, n, x.data(), bias.data(), h.data(), w_rz.data(), w_h.data(),
               {_c_activation(self.activation)}, gk::data({rz}), gk::data({reset_h}),
               gk::data({candidate}), gk::data({new}));
        }}
        """


class GRUGradient(KernelOp):
    """Gradient of `GRU` by x (m, 3n) and bias (3n,).

    Inputs: the gradient by the new state (m, n); h, w_h, the gates and the candidate, as there.
    """

    __props__ = ("activation",)

    def __init__(self, activation: str):
        self.activation = activation

    def make_node(self, d_new, h, w_h, rz, candidate):
        return theano.Apply(self, [d_new, h, w_h, rz, candidate], [tt.fmatrix(), tt.fvector()])

    def infer_shape(self, node, shapes):
        m, n = shapes[0]
        return [(m, 3 * n), (3 * n,)]

    def perform(self, node, inputs, outputs):
        d_new, h, w_h, rz, y = (v.astype(np.float64) for v in inputs)
        n = h.shape[1]
        r, z = rz[:, :n], rz[:, n:]
        kind, a, b = _activation(self.activation)
        slope = {
            "linear": lambda: 1.0,
            "relu": lambda: (y > 0).astype(float),
            "tanh": lambda: 1 - y**2,
            "leaky": lambda: np.where(y >= 0, 1, a),
            "selu": lambda: np.where(y >= 0, a, y + a * b),
        }[kind]()
        d_candidate = d_new * z * slope
        d_r = (d_candidate @ w_h.T) * h * r * (1 - r)
        d_x = np.hstack([d_candidate, d_r, d_new * (y - h) * z * (1 - z)])
        outputs[0][0] = d_x.astype(np.float32)
        outputs[1][0] = d_x.sum(axis=0).astype(np.float32)

    def c_headers(self):
        return ["arrays.h", "<vector>"]

    def c_code(self, node, name, inputs, outputs, sub):
        d_x, d_bias = outputs
        fail = sub["fail"]
        names = ("d_new", "h", "w_h", "rz", "candidate")
        plain = ", ".join(f"{var}({array})" for var, array in zip(names, inputs))
        wrong = (
            "h.dim(0) != m || h.dim(1) != n || w_h.dim(0) != n || w_h.dim(1) != n || "
            "rz.dim(0) != m || rz.dim(1) != 2 * n || candidate.dim(0) != m || "
            "candidate.dim(1) != n"
        )
        return f"""
        {{
        gk::Plain {plain};
        if (!d_new.ok() || !h.ok() || !w_h.ok() || !rz.ok() || !candidate.ok()) {{ {fail} }}
        const npy_intp m = d_new.dim(0), n = d_new.dim(1);
        {_fail(wrong, "ValueError", "gradient of GRU: the shapes do not fit", fail)}
        if (!gk::allocate({d_x}, {{m, 3 * n}}) || !gk::allocate({d_bias}, {{3 * n}})) {{ {fail} }}
        static std::vector<float> scratch;
        scratch.resize(m * n);
        gk_gru_gradient(m, n, d_new.data(), h.data(), w_h.data(), {_c_activation(self.activation)},
                        rz.data(), candidate.data(), scratch.data(), gk::data({d_x}),
                        gk::data({d_bias}));
        }}
        """


def _mix(x: np.ndarray) -> np.ndarray:
    for _ in range(2):
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x45D9F3B)
    return x ^ (x >> np.uint32(16))


class Dropout(KernelOp):
    """Zero each element of x (m, n) with probability p, divide the others by 1 - p.

    Inputs: x; p, a float32 scalar; seed and counter, int64 scalars. The mask is a function of seed,
    counter and the element's position alone: nothing is remembered from call to call, the gradient
    uses the same mask, and the number of threads does not matter.
    """

    __props__ = ()

    def make_node(self, x, p, seed, counter):
        p = tt.as_tensor_variable(np.float32(p)) if isinstance(p, float) else p
        seed = tt.as_tensor_variable(np.int64(seed)) if isinstance(seed, int) else seed
        return theano.Apply(self, [x, p, seed, counter], [tt.fmatrix()])

    def infer_shape(self, node, shapes):
        return [shapes[0]]

    def grad(self, inputs, gradients):
        undefined = [
            theano.gradient.grad_undefined(self, i, inputs[i], "not differentiable")
            for i in (1, 2, 3)
        ]
        return [self(gradients[0], *inputs[1:]), *undefined]

    def perform(self, node, inputs, outputs):
        x, p, seed, counter = inputs
        key = (int(seed) + int(counter) * 0x9E3779B97F4A7C15) % 2**64
        low = _mix(np.array([key % 2**32], dtype=np.uint32))
        high = _mix(low ^ np.uint32(key >> 32))
        bits = _mix(_mix(np.arange(x.size, dtype=np.uint32) ^ low) + high)
        p = float(p)
        keep = (bits >> np.uint32(8)) < np.uint32((1 - p) * 2**24)
        scale = np.float32(1) / (np.float32(1) - np.float32(p))
        outputs[0][0] = x * np.where(keep, scale, np.float32(0)).reshape(x.shape)

    def c_code(self, node, name, inputs, outputs, sub):
        x, p, seed, counter = inputs
        (out,) = outputs
        fail = sub["fail"]
        return f"""
        {{
        gk::Plain x({x});
        if (!x.ok() || !gk::allocate({out}, {{x.dim(0), x.dim(1)}})) {{ {fail} }}
        gk_dropout(x.dim(0) * x.dim(1), x.data(), gk::scalar<npy_float32>({p}),
                   gk::scalar<npy_int64>({seed}), gk::scalar<npy_int64>({counter}),
                   gk::data({out}));
        }}
        """


# ---------------------------------------------------------------------------- ranking


class CountRanks(KernelOp):
    """For each target, how many other items have a higher and an equal score.

    Inputs: hidden states (m, width); rows (n_items, width) and biases (n_items, 1) of the items;
    their ids (n_items,) int32, of which the targets (m,) int32 are left out; the targets' scores
    (m,), with biases. Outputs: better, equal (m,) int64. One computation activates the scores of
    targets and items: two would differ in the last bit, and ties would be lost. The scores are
    computed block by block: memory does not grow with the number of items.
    """

    __props__ = ("activation",)

    def __init__(self, activation: str):
        self.activation = activation

    def make_node(self, *inputs):
        return theano.Apply(self, list(inputs), [tt.lvector(), tt.lvector()])

    def infer_shape(self, node, shapes):
        return [shapes[4], shapes[4]]

    def perform(self, node, inputs, outputs):
        hidden, rows, biases, ids, targets, target_scores = inputs
        scores = hidden @ rows.T + biases[:, 0]
        both, _ = _activate(self.activation, np.column_stack([target_scores, scores]))
        other = ids != targets[:, None]
        for storage, compare in zip(outputs, (np.greater, np.equal)):
            counts = (compare(both[:, 1:], both[:, :1]) & other).sum(axis=1)
            storage[0] = counts.astype(np.int64)

    def c_code(self, node, name, inputs, outputs, sub):
        better, equal = outputs
        fail = sub["fail"]
        names = ("hidden", "rows", "biases", "ids", "targets", "scores")
        plain = ", ".join(f"{var}({array})" for var, array in zip(names, inputs))
        all_ok = " && ".join(f"{var}.ok()" for var in names)
        wrong = (
            "rows.dim(1) != hidden.dim(1) || biases.dim(0) != k || ids.dim(0) != k || "
            "targets.dim(0) != m || scores.dim(0) != m"
        )
        return f"""
        {{
        gk::Plain {plain};
        if (!({all_ok})) {{ {fail} }}
        const npy_intp m = hidden.dim(0), k = rows.dim(0);
        {_fail(wrong, "ValueError", "ranks: the shapes do not fit", fail)}
        if (!gk::allocate({better}, {{m}}, NPY_INT64) ||
            !gk::allocate({equal}, {{m}}, NPY_INT64)) {{ {fail} }}
        const int problem = gk_count_ranks(m, hidden.dim(1), hidden.data(), k, rows.data(),
            biases.data(), ids.ids(), targets.ids(), scores.data(),
            {_c_activation(self.activation)}, (int64_t*)PyArray_DATA({better}),
            (int64_t*)PyArray_DATA({equal}));
        {_fail("problem", "MemoryError", "ranks", fail)}
        }}
        """
