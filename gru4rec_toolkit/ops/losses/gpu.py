"""The losses on a GPU."""

from __future__ import annotations

from gru4rec_toolkit.ops.gpu_base import GpuKernelOp, activation_constants, arrays_and_scalars
from gru4rec_toolkit.ops.losses.op import LOSSES, Loss
from gru4rec_toolkit.parameters import SOFTMAXES
from gru4rec_toolkit.theano_setup import theano

# ---------------------------------------------------------------------------- losses


class GpuLoss(GpuKernelOp):
    """A loss and its gradient, in one pass over the score matrix and one over its columns.

    Inputs: those of `Loss`; and costs (k,) and an int64 scalar, if ``collects``: the first
    output is costs then, with the loss in that place.
    """

    __props__ = ("loss", "activation", "scale", "parameter", "collects", "inplace")
    FOLDER, FUNCTION = "losses", "apply_loss"
    N_INPUTS = 5
    KERNELS = ("loss_rows", "loss_columns")

    def __init__(self, loss, activation, scale, parameter=0.0, collects=False, inplace=False):
        self.loss, self.activation, self.scale = loss, activation, scale
        self.parameter, self.collects, self.inplace = parameter, collects, inplace
        if inplace:
            self.destroy_map = {0: [3], 1: [0]} if collects else {1: [0]}

    in_place = Loss.in_place

    def infer_shape(self, node, shapes):
        return [shapes[3] if self.collects else (), shapes[0], shapes[1]]

    def constants(self):
        activation = "linear" if self.activation in SOFTMAXES else self.activation
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

    def c_constants(self):
        return float(self.scale), self.inplace
