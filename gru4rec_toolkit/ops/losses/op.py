"""The losses with their gradients, in one pass over the scores."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops.base import (
    KernelOp,
    activate,
    cpp_activation,
    cpp_enum,
    has_activation,
    sigmoid,
)
from gru4rec_toolkit.parameters import SOFTMAXES
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

EPSILON = 1e-24
LOSSES = ("cross-entropy", "xe_logit", "bpr", "bpr-max", "top1", "top1-max")


class Loss(KernelOp):
    """A loss of scores + offsets and its gradient, in one pass over the score matrix.

    Inputs: scores (m, n) without their offsets (n,), weights (n,): column j stands for weights[j]
    equal ones, that of a target for 1. Outputs: scale * loss, a scalar; its gradient by the scores
    (m, n) and by the offsets (n,). The target of row i is column i. The definitions of the losses
    are in `losses`.

    Parameters
    ----------
    loss, activation : str
    scale : float
    parameter : float
        Smoothing of the cross-entropies, bpreg of bpr-max.
    inplace : bool
        Overwrite the scores with their gradient; a rewrite sets it.
    """

    __props__ = ("loss", "activation", "scale", "parameter", "inplace")
    FOLDER, FUNCTION = "losses", "apply_loss"

    def __init__(self, loss, activation, scale, parameter=0.0, inplace=False):
        self.loss, self.activation, self.scale = loss, activation, scale
        self.parameter, self.inplace = parameter, inplace
        if inplace:
            self.destroy_map = {1: [0]}

    def in_place(self):
        """Return the same Op, working in place."""
        return type(self)(*(getattr(self, prop) for prop in self.__props__[:-1]), inplace=True)

    def make_node(self, scores, offsets, weights):
        return theano.Apply(
            self, [scores, offsets, weights], [tt.fscalar(), tt.fmatrix(), tt.fvector()]
        )

    def infer_shape(self, node, shapes):
        return [(), shapes[0], shapes[1]]

    def grad(self, inputs, gradients):
        _, d_scores, d_offsets = self(*inputs)
        undefined = theano.gradient.grad_undefined(self, 2, inputs[2], "counts of copies")
        return [gradients[0] * d_scores, gradients[0] * d_offsets, undefined]

    def perform(self, node, inputs, outputs):
        scores, offsets, w = (x.astype(np.float64) for x in inputs)
        x = scores + offsets
        if self.loss in ("cross-entropy", "xe_logit"):
            loss, gradient = self._cross_entropy(x, w)
        else:
            y, slope = activate(self.activation, x)
            loss, gradient = self._ranking_loss(y, w)
            gradient = gradient * slope
        outputs[0][0] = np.asarray(self.scale * loss, dtype=np.float32)
        outputs[1][0] = (self.scale * gradient).astype(np.float32)
        outputs[2][0] = (self.scale * gradient.sum(axis=0)).astype(np.float32)

    def _cross_entropy(self, x, w):
        logit = self.loss == "xe_logit"
        shifted = x - x.max(axis=1, keepdims=True)
        z = (w * np.exp(shifted)).sum(axis=1, keepdims=True)
        p = np.exp(shifted) / z
        surprise = np.log(z) - shifted if logit else -np.log(p + EPSILON)
        q = np.ones_like(p) if logit else p / (p + EPSILON)
        label = np.full(x.shape, self.parameter / max(w.sum() - 1, 1)) * w
        np.fill_diagonal(label, 1 - self.parameter)
        gradient = w * p * (label * q).sum(axis=1, keepdims=True) - label * q
        return (label * surprise).sum(), gradient

    def _ranking_loss(self, y, w):
        """Return the loss and its gradient by the activated scores y."""
        m, i = len(y), np.arange(len(y))
        t = y[i, i][:, None]
        lost, large = sigmoid(y - t), sigmoid(y**2)
        d_lost, d_large = lost * (1 - lost), 2 * y * large * (1 - large)
        if self.loss == "bpr":
            gradient = w * lost
            gradient[i, i] -= gradient.sum(axis=1)
            return (w * np.logaddexp(0, y - t)).sum(), gradient
        if self.loss == "top1":
            c = np.broadcast_to(m * w / w.sum(), y.shape)
            gradient = c * (d_lost + d_large)
            gradient[i, i] -= (c * d_lost).sum(axis=1) + m / w.sum() * d_large[i, i]
            return (c * (lost + large)).sum() - m / w.sum() * large[i, i].sum(), gradient
        negative = np.ones_like(y)
        negative[i, i] = 0
        top = np.maximum((y * negative).max(axis=1, keepdims=True), 0)
        e = w * np.exp(np.minimum(y - top, 0)) * negative
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN where there are no negatives
            s = e / e.sum(axis=1, keepdims=True)
        if self.loss == "top1-max":
            terms = lost + large
            mean = (s * terms).sum(axis=1, keepdims=True)
            gradient = s * (d_lost + d_large + terms - mean)
            gradient[i, i] -= (s * d_lost).sum(axis=1)
            return mean.sum(), gradient
        won = 1 - lost
        mean = (s * won).sum(axis=1, keepdims=True)
        penalty = (s * y**2).sum(axis=1, keepdims=True)
        loss = -np.log(mean + EPSILON) + self.parameter * penalty
        gradient = s * (d_lost - won + mean) / (mean + EPSILON)
        gradient += self.parameter * s * (2 * y + y**2 - penalty)
        gradient[i, i] -= (s * d_lost).sum(axis=1) / (mean[:, 0] + EPSILON)
        return loss.sum(), gradient

    def c_constants(self):
        activation = cpp_activation(self._kernel_activation())
        return activation, float(self.scale), float(self.parameter), self.inplace

    def _kernel_activation(self):
        return "linear" if self.activation in SOFTMAXES else self.activation

    def c_definitions(self):
        activation, *_ = cpp_activation(self._kernel_activation())
        return {"LOSS": cpp_enum(self.loss), "ACTIVATION": activation}


# ---------------------------------------------------------------------------- for expressions


def has_loss(loss: str, final_act: str) -> bool:
    """Tell whether the kernels know a loss with a final activation."""
    if final_act in SOFTMAXES:
        return loss in ("cross-entropy", "xe_logit")
    return loss in LOSSES and has_activation(final_act)


def loss_of_scores(
    scores, offsets, weights, loss: str, final_act: str, batch_size: int, smoothing=0.0, bpreg=0.0
):
    """Return the cost by the Op; None for a loss that has no kernel. Arguments: `losses.cost`."""
    if not has_loss(loss, final_act):
        return None
    weights = tt.ones_like(offsets) if weights is None else weights
    parameter = bpreg if loss == "bpr-max" else smoothing
    return Loss(loss, final_act, 1 / batch_size, parameter)(scores, offsets, weights)[0]
