"""The best items of each session, on a GPU."""

from __future__ import annotations

from gru4rec_toolkit.ops.gpu_base import GpuKernelOp, activation_constants
from gru4rec_toolkit.ops.topk.op import TopK
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano


class GpuTopK(GpuKernelOp):
    """The k items of the highest scores of each session, best first."""

    __props__ = ("activation",)
    FOLDER, FUNCTION = "topk", "apply_top_k"
    KERNELS = ("finish_scores", "leave_out", "top_k")

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return activation_constants(self.activation)

    infer_shape = TopK.infer_shape

    def make_node(self, *inputs):
        *arrays, k = inputs
        inputs = [*self.arrays(*arrays), tt.as_tensor_variable(k)]
        outputs = [self.like(inputs[0], dtype, 2) for dtype in ("int32", "float32")]
        return theano.Apply(self, inputs, outputs)
