"""Look-ups of rows on a GPU."""

from __future__ import annotations

from gru4rec_toolkit.ops.gpu_base import GpuKernelOp, arrays_and_scalars
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# ---------------------------------------------------------------------------- rows


class GpuGather(GpuKernelOp):
    """Rows of a table; an index out of range gives a row of NaN instead of an error."""

    __props__ = ()
    FOLDER, FUNCTION = "rows", "apply_gather"
    KERNELS = ("gather",)

    def make_node(self, table, index):
        table, index = self.arrays(table, index)
        return theano.Apply(self, [table, index], [self.like(table, "float32", 2)])

    def infer_shape(self, node, shapes):
        return [(shapes[1][0], shapes[0][1])]


class GpuOutputs(GpuKernelOp):
    """Targets and negatives one after the other, and how many copies of each are meant."""

    __props__ = ()
    FOLDER, FUNCTION = "rows", "apply_outputs"
    N_INPUTS = 3
    KERNELS = ("outputs",)

    def make_node(self, *inputs):
        inputs = self.arrays(*inputs)
        outputs = [self.like(inputs[0], "int32", 1), self.like(inputs[0], "float32", 1)]
        return theano.Apply(self, inputs, outputs)


class GpuLogQ(GpuKernelOp):
    """Biases less the logQ correction."""

    __props__ = ("of_targets", "of_samples")
    FOLDER, FUNCTION = "rows", "apply_log_q"
    KERNELS = ("log_q",)

    def __init__(self, of_targets: float, of_samples: float):
        self.of_targets, self.of_samples = of_targets, of_samples

    def make_node(self, biases, log_support, items, n_targets):
        inputs = [*self.arrays(biases, log_support, items), tt.as_tensor_variable(n_targets)]
        return theano.Apply(self, inputs, [self.like(inputs[0], "float32", 1)])

    def infer_shape(self, node, shapes):
        return [shapes[2]]

    def c_constants(self):
        return float(self.of_targets), float(self.of_samples)


class GpuLookUps(GpuKernelOp):
    """All that a training step looks up: the Gather, three times, Dropout, Outputs, LogQ.

    Inputs: the input items' table (n_rows, width_in); their index (m,) int32; p, seed, counter of
    Dropout (p 0: none); the output items' table (n_items, width) and biases (n_items, 1); targets
    and negatives, as for Outputs; if there are factors, log_support and n_targets, as for LogQ; as
    for Outputs, copies or nothing. Outputs: the input items' rows after dropout; the output items'
    rows and biases (m + k,), these less the correction; both outputs of Outputs.

    Parameters
    ----------
    factors : (float, float) or None
        of_targets and of_samples of LogQ, if there is a correction.
    """

    __props__ = ("factors",)
    FOLDER, FUNCTION = "rows", "apply_look_ups"
    KERNELS = ("look_up",)

    def __init__(self, factors: tuple[float, float] | None):
        self.factors = factors

    def make_node(self, *inputs):
        inputs = arrays_and_scalars(self, inputs)
        kinds = (("float32", 2), ("float32", 2), ("float32", 1), ("int32", 1), ("float32", 1))
        return theano.Apply(self, inputs, [self.like(inputs[0], *kind) for kind in kinds])

    def infer_shape(self, node, shapes):
        n = shapes[7][0] + shapes[8][0]
        return [(shapes[1][0], shapes[0][1]), (n, shapes[5][1]), (n,), (n,), (n,)]

    def c_arguments(self, node, inputs, outputs):
        n = 11 if self.factors else 9
        correction, copies = inputs[9:n] or [None, None], inputs[n:] or [None]
        factors = map(float, self.factors or (0, 0))
        return [*inputs[:9], *correction, *copies, *outputs, *factors]
