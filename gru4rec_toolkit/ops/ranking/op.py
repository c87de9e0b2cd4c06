"""Ranks of targets among all items."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops.base import KernelOp, activate, c_activation, fail_if
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

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
        both, _ = activate(self.activation, np.column_stack([target_scores, scores]))
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
        {fail_if(wrong, "ValueError", "ranks: the shapes do not fit", fail)}
        if (!gk::allocate({better}, {{m}}, NPY_INT64) ||
            !gk::allocate({equal}, {{m}}, NPY_INT64)) {{ {fail} }}
        const int problem = gk_count_ranks(m, hidden.dim(1), hidden.data(), k, rows.data(),
            biases.data(), ids.ids(), targets.ids(), scores.data(),
            {c_activation(self.activation)}, (int64_t*)PyArray_DATA({better}),
            (int64_t*)PyArray_DATA({equal}));
        {fail_if("problem", "MemoryError", "ranks", fail)}
        }}
        """
