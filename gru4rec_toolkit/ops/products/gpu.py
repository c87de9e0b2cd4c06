"""Products with columns of a matrix on a GPU."""

from __future__ import annotations

from gru4rec_toolkit.ops.gpu_base import GpuKernelOp, fail_if, plain
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano


class GpuProductOfColumns(GpuKernelOp):
    """Product x^T y[:, start:stop] (n, stop - start) of x (m, n) and of columns of y (m, w)."""

    __props__ = ()

    def make_node(self, x, y, start, stop):
        inputs = [*self.arrays(x, y), *map(tt.as_tensor_variable, (start, stop))]
        return theano.Apply(self, inputs, [self.like(inputs[0], "float32", 2)])

    def infer_shape(self, node, shapes):
        return [(shapes[0][1], node.inputs[3] - node.inputs[2])]

    def c_code(self, node, name, inputs, outputs, sub):
        x, y, start, stop = inputs
        fail = sub["fail"]
        wrong = "x.dim(0) != y.dim(0) || first < 0 || last < first || last > npy_int64(y.dim(1))"
        return f"""
        {{
        {plain(fail, x=x, y=y)}
        const npy_int64 first = gk::scalar<npy_int64>({start});
        const npy_int64 last = gk::scalar<npy_int64>({stop});
        {fail_if(wrong, "product of columns: the shapes do not fit", fail)}
        if (!gk::allocate({outputs[0]}, {{x.dim(1), size_t(last - first)}}, {sub["params"]}) ||
            !gk::product_of_columns(x, y, first, {outputs[0]})) {{ {fail} }}
        }}
        """
