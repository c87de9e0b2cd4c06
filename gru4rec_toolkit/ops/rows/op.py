"""Look-ups of rows, and the items that a mini-batch scores."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops.base import KernelOp
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano


class Gather(KernelOp):
    """Rows ``table[index]`` (n, width) of a float32 table (n_rows, width), int32 index (n,)."""

    __props__ = ()
    FOLDER, FUNCTION = "rows", "apply_gather"

    def make_node(self, table, index):
        return theano.Apply(self, [table, index], [tt.fmatrix()])

    def perform(self, node, inputs, outputs):
        table, index = inputs
        if (index < 0).any():
            raise IndexError("negative index")
        outputs[0][0] = table[index]

    def infer_shape(self, node, shapes):
        return [(shapes[1][0], shapes[0][1])]


class Outputs(KernelOp):
    """The items that a mini-batch scores: its targets (m,), then negatives (k,), all int32.

    Outputs: items (m + k,) int32, and how many equal columns of the score matrix each stands for,
    (m + k,) float32: a target for one, a negative for its ``copies`` (k,), without these for one.
    """

    __props__ = ()
    FOLDER, FUNCTION = "rows", "apply_outputs"
    COMPUTES = True
    N_INPUTS = 3

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
    FOLDER, FUNCTION = "rows", "apply_log_q"
    COMPUTES = True

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

    def c_constants(self):
        return float(self.of_targets), float(self.of_samples)


def corrected_biases(biases, log_support, items, n_targets, logq: float, sample_alpha: float):
    """Return biases less the logQ correction by the Op. Arguments: `losses.log_q`."""
    return LogQ(logq, logq * sample_alpha)(biases, log_support, items, n_targets)
