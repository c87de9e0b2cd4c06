"""Matrix products of the CPU's team of threads."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops.base import KernelOp
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# ---------------------------------------------------------------------------- products, rows


class Product(KernelOp):
    """Matrix product x y of float32 matrices (m, k) and (k, n), on the team's threads."""

    __props__ = ()
    FOLDER, FUNCTION = "products", "apply_product"

    def make_node(self, x, y):
        return theano.Apply(self, [x, y], [tt.fmatrix()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.dot(*inputs)

    def infer_shape(self, node, shapes):
        return [(shapes[0][0], shapes[1][1])]

    def grad(self, inputs, gradients):
        x, y = inputs
        return [tt.dot(gradients[0], y.T), tt.dot(x.T, gradients[0])]
