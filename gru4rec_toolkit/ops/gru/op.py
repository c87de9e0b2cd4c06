"""A step of a GRU layer, its gradient, and dropout."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops.base import (
    KernelOp,
    activate,
    cpp_activation,
    has_activation,
    kernel_activation,
    sigmoid,
)
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# ---------------------------------------------------------------------------- hidden layers


class GRU(KernelOp):
    """One step of a GRU layer (equations: `GRU4Rec._gru`).

    Inputs: x (m, 3n), the input's share of candidate, reset and update; bias (3n,); state h (m, n);
    weights w_rz (n, 2n), w_h (n, n). Outputs: the new state (m, n); and for the gradient: reset and
    update gates (m, 2n), h * reset (m, n), the candidate (m, n).
    """

    __props__ = ("activation",)
    FOLDER, FUNCTION = "gru", "apply_gru"

    def __init__(self, activation: str):
        self.activation = activation

    def make_node(self, x, bias, h, w_rz, w_h):
        outputs = [tt.fmatrix() for _ in range(4)]
        return theano.Apply(self, [x, bias, h, w_rz, w_h], outputs)

    def infer_shape(self, node, shapes):
        m, n = shapes[2]
        return [(m, n), (m, 2 * n), (m, n), (m, n)]

    def perform(self, node, inputs, outputs):
        x, bias, h, w_rz, w_h = (v.astype(np.float64) for v in inputs)
        n = h.shape[1]
        x = x + bias
        rz = sigmoid(x[:, n:] + h @ w_rz)
        reset_h = h * rz[:, :n]
        candidate, _ = activate(self.activation, x[:, :n] + reset_h @ w_h)
        new = (1 - rz[:, n:]) * h + rz[:, n:] * candidate
        for storage, value in zip(outputs, (new, rz, reset_h, candidate)):
            storage[0] = value.astype(np.float32)

    def connection_pattern(self, node):
        return [[True, False, False, False]] * 5

    def grad(self, inputs, gradients):
        _, _, h, w_rz, w_h = inputs
        _, rz, reset_h, candidate = self(*inputs)
        d_new, n = gradients[0], h.shape[1]
        d_x, d_bias = GRUGradient(self.activation)(d_new, h, w_h, rz, candidate)
        d_candidate, d_rz = d_x[:, :n], d_x[:, n:]
        d_h = d_new * (1 - rz[:, n:]) + tt.dot(d_rz, w_rz.T)
        d_h += tt.dot(d_candidate, w_h.T) * rz[:, :n]
        return [d_x, d_bias, d_h, tt.dot(h.T, d_rz), tt.dot(reset_h.T, d_candidate)]

    def c_constants(self):
        return (cpp_activation(self.activation),)

    def c_definitions(self):
        return {"ACTIVATION": cpp_activation(self.activation)[0]}


class GRUGradient(KernelOp):
    """Gradient of `GRU` by x (m, 3n) and bias (3n,).

    Inputs: the gradient by the new state (m, n); h, w_h, the gates and the candidate, as there.
    """

    __props__ = ("activation",)
    FOLDER, FUNCTION = "gru", "apply_gru_gradient"

    def __init__(self, activation: str):
        self.activation = activation

    def make_node(self, d_new, h, w_h, rz, candidate):
        return theano.Apply(self, [d_new, h, w_h, rz, candidate], [tt.fmatrix(), tt.fvector()])

    def infer_shape(self, node, shapes):
        m, n = shapes[0]
        return [(m, 3 * n), (3 * n,)]

    def perform(self, node, inputs, outputs):
        d_new, h, w_h, rz, y = (v.astype(np.float64) for v in inputs)
        n = h.shape[1]
        r, z = rz[:, :n], rz[:, n:]
        kind, a, b = kernel_activation(self.activation)
        slope = {
            "linear": lambda: 1.0,
            "relu": lambda: (y > 0).astype(float),
            "tanh": lambda: 1 - y**2,
            "leaky": lambda: np.where(y >= 0, 1, a),
            "selu": lambda: np.where(y >= 0, a, y + a * b),
        }[kind]()
        d_candidate = d_new * z * slope
        d_r = (d_candidate @ w_h.T) * h * r * (1 - r)
        d_x = np.hstack([d_candidate, d_r, d_new * (y - h) * z * (1 - z)])
        outputs[0][0] = d_x.astype(np.float32)
        outputs[1][0] = d_x.sum(axis=0).astype(np.float32)

    def c_constants(self):
        return (cpp_activation(self.activation),)

    def c_definitions(self):
        return {"ACTIVATION": cpp_activation(self.activation)[0]}


def _mix(x: np.ndarray) -> np.ndarray:
    for _ in range(2):
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x45D9F3B)
    return x ^ (x >> np.uint32(16))


class Dropout(KernelOp):
    """Zero each element of x (m, n) with probability p, divide the others by 1 - p.

    Inputs: x; p, a float32 scalar; seed and counter, int64 scalars. The mask is a function of seed,
    counter and the element's position alone: nothing is remembered from call to call, the gradient
    uses the same mask, and the number of threads does not matter.
    """

    __props__ = ()
    FOLDER, FUNCTION = "gru", "apply_dropout"

    def make_node(self, x, p, seed, counter):
        p = tt.as_tensor_variable(np.float32(p)) if isinstance(p, float) else p
        seed = tt.as_tensor_variable(np.int64(seed)) if isinstance(seed, int) else seed
        return theano.Apply(self, [x, p, seed, counter], [tt.fmatrix()])

    def infer_shape(self, node, shapes):
        return [shapes[0]]

    def grad(self, inputs, gradients):
        undefined = [
            theano.gradient.grad_undefined(self, i, inputs[i], "not differentiable")
            for i in (1, 2, 3)
        ]
        return [self(gradients[0], *inputs[1:]), *undefined]

    def perform(self, node, inputs, outputs):
        x, p, seed, counter = inputs
        key = (int(seed) + int(counter) * 0x9E3779B97F4A7C15) % 2**64
        low = _mix(np.array([key % 2**32], dtype=np.uint32))
        high = _mix(low ^ np.uint32(key >> 32))
        bits = _mix(_mix(np.arange(x.size, dtype=np.uint32) ^ low) + high)
        p = float(p)
        keep = (bits >> np.uint32(8)) < np.uint32((1 - p) * 2**24)
        scale = np.float32(1) / (np.float32(1) - np.float32(p))
        outputs[0][0] = x * np.where(keep, scale, np.float32(0)).reshape(x.shape)


# ---------------------------------------------------------------------------- for expressions


def gru_step(x, h, w_rz, w_h, bias, activation: str):
    """Return the new state by the Op; None for an activation that has no kernel."""
    if not has_activation(activation):
        return None
    return GRU(activation)(x, bias, h, w_rz, w_h)[0]


def dropped(x, p: float, seed: int, counter, rng):
    """Return x after dropout by the Op."""
    return Dropout()(x, p, seed, counter)
