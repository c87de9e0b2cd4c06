"""Final activations of scores, and the ranks of targets among all items, on a GPU."""

from __future__ import annotations

from gru4rec_toolkit.ops.gpu_base import GpuKernelOp, activation_constants
from gru4rec_toolkit.ops.ranking.op import Activate, CountRanks
from gru4rec_toolkit.theano_setup import theano


class GpuActivate(GpuKernelOp):
    """Activated scores, equal to the bit to those that `GpuCountRanks` compares."""

    __props__ = ("activation",)
    FOLDER, FUNCTION = "ranking", "apply_activate"
    KERNELS = ("activate",)

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return activation_constants(self.activation)

    infer_shape = Activate.infer_shape

    def make_node(self, scores):
        (scores,) = self.arrays(scores)
        return theano.Apply(self, [scores], [self.like(scores, "float32", 2)])


# ---------------------------------------------------------------------------- ranking


class GpuCountRanks(GpuKernelOp):
    """For each target, how many other items have a higher and an equal score."""

    __props__ = ("activation",)
    FOLDER, FUNCTION = "ranking", "apply_count_ranks"
    KERNELS = ("count_ranks",)

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return activation_constants(self.activation)

    infer_shape = CountRanks.infer_shape

    def make_node(self, *inputs):
        inputs = self.arrays(*inputs)
        return theano.Apply(self, inputs, [self.like(inputs[0], "int64", 1) for _ in range(2)])
