"""The best items of each session: the top-k of its scores."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops.base import KernelOp, activate, cpp_activation, has_activation, usable
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano


class TopK(KernelOp):
    """The k items of the highest scores of each session, best first.

    Inputs: hidden states (m, width); rows (n_items, width) and biases (n_items, 1) of the items;
    positions of items that session i must not get, left_out[starts[i]:starts[i + 1]], in ascending
    order, starts (m + 1,) and left_out (n,) int32; k, int64. Outputs, both (m, k): positions of
    items, int32, and their activated scores. Of equal scores the lower position comes first. Where
    a session has fewer items the rest is -1, with scores of minus infinity. Scores are computed
    block by block, as `CountRanks` does it: memory does not grow with the number of items.
    """

    __props__ = ("activation",)
    FOLDER, FUNCTION = "topk", "apply_top_k"

    def __init__(self, activation: str):
        self.activation = activation

    def make_node(self, *inputs):
        *arrays, k = inputs
        inputs = [*arrays, tt.as_tensor_variable(k)]
        return theano.Apply(self, inputs, [tt.imatrix(), tt.fmatrix()])

    def infer_shape(self, node, shapes):
        return [(shapes[0][0], node.inputs[5])] * 2

    def perform(self, node, inputs, outputs):
        hidden, rows, biases, starts, left_out, k = inputs
        scores, _ = activate(self.activation, hidden @ rows.T + biases[:, 0])
        items, best = top_k(scores, starts, left_out, int(k))
        outputs[0][0], outputs[1][0] = items, best.astype(np.float32)

    def c_constants(self):
        return (cpp_activation(self.activation),)

    def c_definitions(self):
        return {}


def top_k(
    scores: np.ndarray, starts: np.ndarray, left_out: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `TopK` does, of scores (m, n_items)."""
    m = len(scores)
    allowed = np.ones(scores.shape, dtype=bool)
    allowed[np.repeat(np.arange(m), np.diff(starts)), left_out] = False
    items = np.full((m, k), -1, dtype=np.int32)
    best = np.full((m, k), -np.inf, dtype=scores.dtype)
    for i in range(m):
        found = np.flatnonzero(allowed[i])
        # stable: equal scores stay in the order of the positions
        order = found[np.argsort(-scores[i, found], kind="stable")][:k]
        items[i, : len(order)], best[i, : len(order)] = order, scores[i, order]
    return items, best


def best_items(hidden, rows, biases, starts, left_out, k, activation: str):
    """Return items and scores by the Op, over all items at once; None where no kernel runs."""
    if not usable() or not has_activation(activation):
        return None
    return TopK(activation)(hidden, rows, biases, starts, left_out, k)
