"""Look-ups of rows, and the items that a mini-batch scores."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops.base import KernelOp, fail_if
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano


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
        {fail_if("copies.data() && copies.dim(0) != k", "ValueError", "outputs: copies", fail)}
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
        {fail_if("biases.dim(0) != n", "ValueError", "logQ: the biases' size", fail)}
        if (!gk::allocate({out}, {{n}})) {{ {fail} }}
        for (npy_intp j = 0; j < n; j++) {{
            const npy_int32 item = items.ids()[j];
            {fail_if("item < 0 || item >= n_items", "IndexError", "logQ: not an item index", fail)}
            const float factor = j < n_targets ? {float(self.of_targets)!r}f
                                               : {float(self.of_samples)!r}f;
            gk::data({out})[j] = biases.data()[j] - factor * log_support.data()[item];
        }}
        }}
        """


def corrected_biases(biases, log_support, items, n_targets, logq: float, sample_alpha: float):
    """Return biases less the logQ correction by the Op. Arguments: `losses.log_q`."""
    return LogQ(logq, logq * sample_alpha)(biases, log_support, items, n_targets)
