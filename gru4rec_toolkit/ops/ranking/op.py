"""Final activations of scores, and the ranks of targets among all items."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops.base import (
    KernelOp,
    activate,
    cpp_activation,
    has_activation,
    kernel_activation,
    usable,
)
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# Kinds of activations that round: computed in two ways they differ in the last bit.
ROUNDED = ("tanh", "selu")


class Activate(KernelOp):
    """Activated scores (m, n), equal to the bit to those that `CountRanks` compares.

    So the scores that a model predicts have the ties that its evaluation counts.
    """

    __props__ = ("activation",)
    FOLDER, FUNCTION = "ranking", "apply_activate"

    def __init__(self, activation: str):
        self.activation = activation

    def make_node(self, scores):
        return theano.Apply(self, [scores], [tt.fmatrix()])

    def infer_shape(self, node, shapes):
        return shapes

    def perform(self, node, inputs, outputs):
        activated, _ = activate(self.activation, inputs[0])
        outputs[0][0] = activated.astype(np.float32)

    def grad(self, inputs, gradients):
        value = self(*inputs)
        kind, a, b = kernel_activation(self.activation)
        slopes = {"tanh": 1 - value**2, "selu": tt.switch(inputs[0] >= 0, a, value + a * b)}
        return [gradients[0] * slopes[kind]]

    def c_constants(self):
        return (cpp_activation(self.activation),)


def activated_scores(scores, final_act: str):
    """Return activated scores by the Op; None where every way gives the same bits, or no kernel."""
    if not has_activation(final_act) or kernel_activation(final_act)[0] not in ROUNDED:
        return None
    return Activate(final_act)(scores)


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
    FOLDER, FUNCTION = "ranking", "apply_count_ranks"

    def __init__(self, activation: str):
        self.activation = activation

    def make_node(self, *inputs):
        return theano.Apply(self, list(inputs), [tt.lvector(), tt.lvector()])

    def infer_shape(self, node, shapes):
        return [shapes[4], shapes[4]]

    def perform(self, node, inputs, outputs):
        hidden, rows, biases, ids, targets, target_scores = inputs
        scores = hidden @ rows.T + biases[:, 0]
        both, _ = activate(self.activation, np.column_stack([target_scores, scores]))
        other = ids != targets[:, None]
        for storage, compare in zip(outputs, (np.greater, np.equal)):
            counts = (compare(both[:, 1:], both[:, :1]) & other).sum(axis=1)
            storage[0] = counts.astype(np.int64)

    def c_constants(self):
        return (cpp_activation(self.activation),)

    def c_definitions(self):
        return {}


def counted_ranks(hidden, rows, biases, ids, targets, target_scores, activation: str):
    """Return better and equal by the Op, over all items at once; None where no kernel runs."""
    if not usable() or not has_activation(activation):
        return None
    return CountRanks(activation)(hidden, rows, biases, ids, targets, target_scores)
