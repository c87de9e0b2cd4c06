"""A step of a GRU layer, its gradient, and dropout on a GPU."""

from __future__ import annotations

from gru4rec_toolkit.ops.gpu_base import GpuKernelOp, activation_constants, arrays_and_scalars
from gru4rec_toolkit.ops.gru.op import Dropout, GRUGradient
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# ---------------------------------------------------------------------------- hidden layers


class GpuGRU(GpuKernelOp):
    """One step of a GRU layer: two products, two kernels.

    Inputs: those of `GRU`; or, with what follows in a training step, these and p, seed,
    counter of `Dropout` (p 0: none) and goes_on (m,). The first output is the new state
    after dropout then, and there is a fifth one: the same times goes_on.
    """

    __props__ = ("activation",)
    FOLDER, FUNCTION = "gru", "apply_gru"
    N_INPUTS = 9
    KERNELS = ("gates", "new_state")

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return activation_constants(self.activation)

    def infer_shape(self, node, shapes):
        m, n = shapes[2]
        return [(m, n), (m, 2 * n), (m, n), (m, n), (m, n)][: len(node.outputs)]

    def make_node(self, *inputs):
        n_outputs = 5 if len(inputs) > 5 else 4
        inputs = arrays_and_scalars(self, inputs)
        outputs = [self.like(inputs[0], "float32", 2) for _ in range(n_outputs)]
        return theano.Apply(self, inputs, outputs)

    def c_arguments(self, node, inputs, outputs):
        kept = f"&{outputs[4]}" if len(outputs) > 4 else None
        return [*super().c_arguments(node, inputs, outputs[:4]), kept]


class GpuGRUGradient(GpuKernelOp):
    """Gradient of `GpuGRU` by x (m, 3n) and bias (3n,): one product, two kernels.

    Inputs: those of `GRUGradient`; or these and p, seed, counter of `Dropout`: the
    gradient is that by the state after dropout then.
    """

    __props__ = ("activation",)
    FOLDER, FUNCTION = "gru", "apply_gru_gradient"
    N_INPUTS = 8
    KERNELS = ("candidate_gradient", "gates_gradient")

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return activation_constants(self.activation)

    infer_shape = GRUGradient.infer_shape

    def make_node(self, *inputs):
        inputs = arrays_and_scalars(self, inputs)
        outputs = [self.like(inputs[0], "float32", ndim) for ndim in (2, 1)]
        return theano.Apply(self, inputs, outputs)


class GpuDropout(GpuKernelOp):
    """Dropout with the masks of `Dropout`."""

    __props__ = ()
    FOLDER, FUNCTION = "gru", "apply_dropout"
    KERNELS = ("dropout",)

    infer_shape = Dropout.infer_shape

    def make_node(self, x, p, seed, counter):
        (x,) = self.arrays(x)
        scalars = [tt.as_tensor_variable(s) for s in (p, seed, counter)]
        return theano.Apply(self, [x, *scalars], [self.like(x, "float32", 2)])
