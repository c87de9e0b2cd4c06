"""The losses on a GPU."""

from __future__ import annotations

from gru4rec_toolkit.ops.gpu_base import (
    COLUMNS,
    PARTS,
    GpuKernelOp,
    activation_constants,
    arrays_and_scalars,
    fail_if,
    launch,
    plain,
)
from gru4rec_toolkit.ops.losses.op import LOSSES, Loss
from gru4rec_toolkit.theano_setup import theano

# ---------------------------------------------------------------------------- losses


class GpuLoss(GpuKernelOp):
    """A loss and its gradient, in one pass over the score matrix and one over its columns.

    Inputs: those of `Loss`; and costs (k,) and an int64 scalar, if ``collects``: the first
    output is costs then, with the loss in that place.
    """

    __props__ = ("loss", "activation", "scale", "parameter", "collects", "inplace")
    FILE, KERNELS = "losses", ("loss_rows", "loss_columns")

    def __init__(self, loss, activation, scale, parameter=0.0, collects=False, inplace=False):
        self.loss, self.activation, self.scale = loss, activation, scale
        self.parameter, self.collects, self.inplace = parameter, collects, inplace
        if inplace:
            self.destroy_map = {0: [3], 1: [0]} if collects else {1: [0]}

    in_place = Loss.in_place

    def infer_shape(self, node, shapes):
        return [shapes[3] if self.collects else (), shapes[0], shapes[1]]

    def constants(self):
        activation = "linear" if self.activation.startswith("softmax") else self.activation
        return {
            "LOSS": LOSSES.index(self.loss),
            "PARAMETER": f"{float(self.parameter)!r}f",
            "GROUP_REDUCTIONS": 1,
            **activation_constants(activation),
        }

    def make_node(self, *inputs):
        inputs = arrays_and_scalars(self, inputs)
        outputs = [self.like(inputs[0], "float32", n) for n in (int(self.collects), 2, 1)]
        return theano.Apply(self, inputs, outputs)

    def c_code(self, node, name, inputs, outputs, sub):
        scores, offsets, weights, *collected = inputs
        cost, d_scores, d_offsets = outputs
        fail, context = sub["fail"], sub["params"]
        wrong = "m > n || offsets.dim(0) != n || weights.dim(0) != n"
        message = "loss: expected scores (m, n), n >= m, offsets and weights (n,)"
        scale = f"{float(self.scale)!r}f"
        rows = ["n", f"&{d_scores}", "&offsets.get()", "&weights.get()", scale, "m", "&costs.get()"]
        columns = ["m", "n", f"&{d_scores}", "&costs.get()", scale]
        columns += [f"&{d_offsets}", f"&{cost}", "at"]
        at, into = "0", f"gk::allocate({cost}, {{}}, {context})"
        if self.collects:
            at = f"gk::scalar<npy_int64>({collected[1]})"
            into = f"gk::take({cost}, {collected[0]}, {str(self.inplace).lower()})"
        return f"""
        {{
        {plain(fail, offsets=offsets, weights=weights)}
        const size_t m = {scores}->ga.dimensions[0], n = {scores}->ga.dimensions[1];
        const npy_int64 at = {at};
        {fail_if(wrong, message, fail)}
        gk::Scratch costs(m, GA_FLOAT, {context});
        if (!costs.ok() || !gk::take({d_scores}, {scores}, {str(self.inplace).lower()}) ||
            !gk::allocate({d_offsets}, {{n}}, {context}) ||
            !({into})) {{ {fail} }}
        {fail_if(f"at < 0 || ({cost}->ga.nd && at >= npy_int64({cost}->ga.dimensions[0]))",
                 "loss: no such place in costs", fail)}
        {launch("loss_rows", "m", "gk::THREADS", rows, fail)}
        {launch("loss_columns", f"(n + {COLUMNS - 1}) / {COLUMNS} + 1", f"{COLUMNS * PARTS}",
                 columns, fail)}
        }}
        """
