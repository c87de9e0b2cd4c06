"""Matrix products of the CPU's team of threads."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops.base import KernelOp, fail_if
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# ---------------------------------------------------------------------------- products, rows


class Product(KernelOp):
    """Matrix product x y of float32 matrices (m, k) and (k, n), on the team's threads."""

    __props__ = ()

    def make_node(self, x, y):
        return theano.Apply(self, [x, y], [tt.fmatrix()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.dot(*inputs)

    def infer_shape(self, node, shapes):
        return [(shapes[0][0], shapes[1][1])]

    def grad(self, inputs, gradients):
        x, y = inputs
        return [tt.dot(gradients[0], y.T), tt.dot(x.T, gradients[0])]

    def c_code(self, node, name, inputs, outputs, sub):
        x, y = inputs
        (out,) = outputs
        fail = sub["fail"]
        return f"""
        {{
        const npy_intp m = PyArray_DIM({x}, 0), k = PyArray_DIM({x}, 1), n = PyArray_DIM({y}, 1);
        {fail_if(f"k != PyArray_DIM({y}, 0)", "ValueError", "product: inner sizes differ", fail)}
        gk::BlasMatrix a({x}), b({y});
        if (!a.ok() || !b.ok() || !gk::allocate({out}, {{m, n}})) {{ {fail} }}
        if (k == 0) {{
            PyArray_FILLWBYTE({out}, 0);
        }} else {{
            gk_product(a.transposed, b.transposed, m, n, k, a.data(), a.between, b.data(),
                       b.between, gk::data({out}), n > 0 ? n : 1);
        }}
        }}
        """
