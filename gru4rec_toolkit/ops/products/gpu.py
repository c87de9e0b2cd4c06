"""Products with columns of a matrix on a GPU."""

from __future__ import annotations

from gru4rec_toolkit.ops.gpu_base import GpuKernelOp
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano


class GpuProductOfColumns(GpuKernelOp):
    """Product x^T y[:, start:stop] (n, stop - start) of x (m, n) and of columns of y (m, w)."""

    __props__ = ()
    FOLDER, FUNCTION = "products", "apply_product_of_columns"

    def make_node(self, x, y, start, stop):
        inputs = [*self.arrays(x, y), *map(tt.as_tensor_variable, (start, stop))]
        return theano.Apply(self, inputs, [self.like(inputs[0], "float32", 2)])

    def infer_shape(self, node, shapes):
        return [(shapes[0][1], node.inputs[3] - node.inputs[2])]
