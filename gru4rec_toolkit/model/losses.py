"""Final activations and losses as pure symbolic functions.

Every loss takes the activated scores of a mini-batch, ``y`` (M, N): row i scores the N = M +
n_sample output items for the i-th active session. The target of row i is column i; the other
targets of the mini-batch and the additional samples are its negatives. It returns a scalar, the sum
of the loss over the rows.

Papers: Hidasi et al., ICLR 2016 (BPR, TOP1); Hidasi and Karatzoglou, CIKM 2018 (cross-entropy over
samples, BPR-max, TOP1-max, the use of additional samples); Hidasi and Czapp, RecSys 2023 (logQ).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gru4rec_toolkit import parameters
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.ops import base
from gru4rec_toolkit.ops.base import in_one_kernel
from gru4rec_toolkit.ops.losses.op import has_loss, loss_of_scores
from gru4rec_toolkit.ops.ranking.op import activated_scores
from gru4rec_toolkit.ops.rows.op import Outputs, corrected_biases
from gru4rec_toolkit.parameters import split_activation
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# keeps log and its gradient finite where a probability underflows in float32
EPSILON = 1e-24


# ---------------------------------------------------------------------------- activations


def softmax(x: tt.TensorVariable) -> tt.TensorVariable:
    """exp(x_ij) / sum_k exp(x_ik) for x (M, N), shifted by the row's maximum."""
    e = tt.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def log_softmax(x: tt.TensorVariable) -> tt.TensorVariable:
    """log softmax(x) for x (M, N), without computing the softmax."""
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - tt.log(tt.exp(shifted).sum(axis=1, keepdims=True))


def _selu(x: tt.TensorVariable, scale: float, alpha: float) -> tt.TensorVariable:
    scale, alpha = (tt.constant(c, dtype=x.dtype) for c in (scale, alpha))
    # exp of the positive part would overflow, and its zero gradient become 0 * inf = NaN
    negative = tt.switch(tt.ge(x, 0), 0, x)
    return scale * tt.switch(tt.ge(x, 0), x, alpha * (tt.exp(negative) - 1))


def _leaky(x: tt.TensorVariable, slope: float) -> tt.TensorVariable:
    return tt.switch(tt.ge(x, 0), x, tt.constant(slope, dtype=x.dtype) * x)


# The functions of the activations in `parameters.ACTIVATIONS`, and of the softmaxes; the numbers
# in an activation's name follow the scores.
ACTIVATIONS: dict[str, Callable] = {
    "linear": lambda x: x,
    # not maximum and minimum, whose code does not compile as OpenCL; NaN stays NaN
    "relu": lambda x: tt.switch(tt.le(x, 0), 0, x),
    "tanh": tt.tanh,
    "leaky": _leaky,
    "elu": lambda x, alpha: _selu(x, 1.0, alpha),
    "selu": _selu,
    "softmax": softmax,
    "softmax_logit": log_softmax,
}


def activation(name: str) -> Callable[[tt.TensorVariable], tt.TensorVariable]:
    """Return an activation function of the hidden state or of the scores.

    Parameters
    ----------
    name : str
        ``linear``, ``relu`` max(x, 0), ``tanh``, ``leaky-X`` (x, or X x where x < 0), ``elu-X``
        (x, or X (exp(x) - 1)), ``selu-X-Y`` (X times elu-Y), ``softmax``, ``softmax_logit`` (its
        logarithm).
    """
    kind, constants = split_activation(name)
    return lambda x: ACTIVATIONS[kind](x, *constants)


@in_one_kernel(activated_scores)
def predicted(scores: tt.TensorVariable, final_act: str) -> tt.TensorVariable:
    """Return what is predicted, of scores (M, N); ``softmax_logit`` predicts with softmax."""
    return activation("softmax" if final_act == "softmax_logit" else final_act)(scores)


# ---------------------------------------------------------------------------- parts of the losses


def diagonal(y: tt.TensorVariable) -> tt.TensorVariable:
    """The targets' scores y_ii, (M,), of y (M, N), N >= M: a view with the stride of N + 1."""
    return y.flatten()[:: y.shape[1] + 1][: y.shape[0]]


def _off_diagonal(y: tt.TensorVariable) -> tt.TensorVariable:
    """Ones where y (M, N) holds a negative, zeros where it holds the row's target."""
    rows, columns = tt.arange(y.shape[0]), tt.arange(y.shape[1])
    return tt.cast(tt.neq(rows.dimshuffle(0, "x"), columns.dimshuffle("x", 0)), y.dtype)


def _negatives_softmax(y: tt.TensorVariable) -> tt.TensorVariable:
    """Softmax over each row's negatives only; the target's entry is 0 (CIKM 2018, section 3.3).

    The maximum that is subtracted includes a zero in the target's place: it is the reference's
    choice and decides what underflows where all negatives score far below zero.
    """
    mask = _off_diagonal(y)
    masked = y * mask
    e = tt.exp(masked - masked.max(axis=1, keepdims=True)) * mask
    return e / e.sum(axis=1, keepdims=True)


# ---------------------------------------------------------------------------- losses


def cross_entropy(y: tt.TensorVariable, smoothing: float = 0.0) -> tt.TensorVariable:
    """Cross-entropy of the softmax output: sum_i -log(y_ii + 1e-24) (CIKM 2018, eq. 2).

    Label smoothing s gives every output s / (N - 1) of the label and the target 1 - s:
    (1 - s N / (N - 1)) * -log y_ii + s / (N - 1) * sum_j -log y_ij.
    """
    return _smoothed(lambda p: -tt.log(p + EPSILON), y, smoothing)


def cross_entropy_logits(y: tt.TensorVariable, smoothing: float = 0.0) -> tt.TensorVariable:
    """The same as `cross_entropy`, from the log of the softmax: sum_i -y_ii."""
    return _smoothed(lambda log_p: -log_p, y, smoothing)


def _smoothed(surprise: Callable, y: tt.TensorVariable, smoothing: float) -> tt.TensorVariable:
    target = surprise(diagonal(y)).sum()
    if not smoothing:
        return target
    s = tt.constant(smoothing, dtype=y.dtype)
    n = tt.cast(y.shape[1], y.dtype)
    return (1 - s * n / (n - 1)) * target + s / (n - 1) * surprise(y).sum()


def bpr(y: tt.TensorVariable) -> tt.TensorVariable:
    """BPR: sum_ij -log sigmoid(y_ii - y_ij) (ICLR 2016, section 3.1.3)."""
    return -tt.log(tt.nnet.sigmoid(diagonal(y).dimshuffle(0, "x") - y)).sum()


def bpr_max(y: tt.TensorVariable, bpreg: float = 1.0) -> tt.TensorVariable:
    """BPR-max: sum_i -log(sum_j s_ij sigmoid(y_ii - y_ij) + 1e-24) + bpreg sum_j s_ij y_ij^2.

    s is the softmax over the row's negatives (CIKM 2018, eq. 6 and 7).
    """
    s = _negatives_softmax(y)
    won = (s * tt.nnet.sigmoid(diagonal(y).dimshuffle(0, "x") - y)).sum(axis=1)
    penalty = (s * y**2).sum(axis=1)
    return (-tt.log(won + EPSILON) + tt.constant(bpreg, dtype=y.dtype) * penalty).sum()


def _top1_terms(y: tt.TensorVariable) -> tt.TensorVariable:
    return tt.nnet.sigmoid(y - diagonal(y).dimshuffle(0, "x")) + tt.nnet.sigmoid(y**2)


def top1(y: tt.TensorVariable) -> tt.TensorVariable:
    """TOP1: M sum_i mean_j[sigmoid(y_ij - y_ii) + sigmoid(y_ij^2)] - sigmoid(y_ii^2) / N.

    ICLR 2016, section 3.1.3. The factor M, the rows of the mini-batch, is the reference's: learning
    rates of published TOP1 results include it.
    """
    own = tt.nnet.sigmoid(diagonal(y) ** 2) / tt.cast(y.shape[1], y.dtype)
    return tt.cast(y.shape[0], y.dtype) * (_top1_terms(y).mean(axis=1) - own).sum()


def top1_max(y: tt.TensorVariable) -> tt.TensorVariable:
    """TOP1-max: sum_ij s_ij [sigmoid(y_ij - y_ii) + sigmoid(y_ij^2)] (CIKM 2018, eq. 5)."""
    return (_negatives_softmax(y) * _top1_terms(y)).sum()


# The functions of the losses in `parameters.LOSSES`, of scores, smoothing and bpreg.
LOSSES: dict[str, Callable] = {
    "cross-entropy": lambda y, smoothing, bpreg: cross_entropy(y, smoothing),
    "xe_logit": lambda y, smoothing, bpreg: cross_entropy_logits(y, smoothing),
    "bpr-max": lambda y, smoothing, bpreg: bpr_max(y, bpreg),
    "bpr": lambda y, smoothing, bpreg: bpr(y),
    "top1": lambda y, smoothing, bpreg: top1(y),
    "top1-max": lambda y, smoothing, bpreg: top1_max(y),
}


_BUILT_IN = frozenset(LOSSES)


def register(name: str, function: Callable[[tt.TensorVariable], tt.TensorVariable]) -> None:
    """Add a loss from outside: ``loss=name`` trains with it, on its symbolic expression.

    Parameters
    ----------
    name : str
    function : callable
        Takes the activated scores (M, N) of a mini-batch, the targets' on the diagonal; returns the
        sum of the loss over the rows, a scalar.

    Examples
    --------
    >>> register("hinge", lambda y: tt.nnet.relu(1 + y - diagonal(y).dimshuffle(0, "x")).sum())
    """
    if name in _BUILT_IN:
        # its kernel would go on computing the one that is built in
        raise InputError(f"losses.register: {name!r} is a loss of the toolkit; give another name")
    parameters.LOSSES[name] = parameters.Loss(softmax=None)
    LOSSES[name] = lambda y, smoothing, bpreg: function(y)


def scored_items(targets, negatives, loss: str, final_act: str) -> tuple:
    """Return the items that a mini-batch scores, and how many columns each stands for.

    Parameters
    ----------
    targets : (M,) int32
    negatives : None, or (ids (K,) int32, copies (K,) or None)
        ``copies``: how many equal negatives each of the ids is.

    Returns
    -------
    items : (M + K,) int32
        The targets, then the negatives.
    copies : (M + K,) or None
        None where each column stands for itself.
    """
    if negatives is None:
        return targets, None
    if counts_copies(loss, final_act):
        return Outputs()(targets, *negatives)
    return tt.concatenate([targets, negatives[0]]), None


@in_one_kernel(corrected_biases)
def log_q(
    biases: tt.TensorVariable,
    log_support: tt.TensorVariable,
    items: tt.TensorVariable,
    n_targets: tt.TensorVariable,
    logq: float,
    sample_alpha: float,
) -> tt.TensorVariable:
    """Correct the biases by how often their items come up as outputs (logQ, RecSys 2023).

    Parameters
    ----------
    biases : (N, 1)
        Of the output items.
    log_support : (n_items, 1)
        Logarithm of the number of training events of every item.
    items : (N,) int32
        The output items: M in-batch targets, then the samples.
    n_targets : int64 scalar
        M.
    logq : float
        Strength; 1 is the correction as derived.
    sample_alpha : float
        The additional samples are drawn with probability support^sample_alpha.

    Returns
    -------
    (N,)
        biases - logq log P0, with P0 the support of a target, support^sample_alpha of a sample.
    """
    log_support = log_support[items].flatten()
    of_targets, of_samples = log_support[:n_targets], log_support[n_targets:]
    floats = theano.config.floatX
    correction = tt.concatenate(
        [
            tt.constant(logq, dtype=floats) * of_targets,
            tt.constant(logq * sample_alpha, dtype=floats) * of_samples,
        ]
    )
    return biases.flatten() - correction


def counts_copies(loss: str, final_act: str) -> bool:
    """Tell whether equal columns of scores can be computed once, as only kernels do it."""
    return base.usable() and has_loss(loss, final_act)


@in_one_kernel(loss_of_scores)
def cost(
    scores: tt.TensorVariable,
    offsets: tt.TensorVariable,
    weights: tt.TensorVariable | None,
    loss: str,
    final_act: str,
    batch_size: int,
    smoothing: float = 0.0,
    bpreg: float = 1.0,
) -> tt.TensorVariable:
    """Return the cost of a training step: the loss of the activated scores, divided by batch_size.

    Parameters
    ----------
    scores : (M, N)
        Products of hidden states and output items.
    offsets : (N,)
        Added to every row of the scores: biases, less the logQ correction.
    weights : (N,) or None
        How many equal columns each column stands for (None: itself); see `counts_copies`.
    loss, final_act : str
    batch_size : int
        The nominal size of a mini-batch, even where fewer rows are left.
    smoothing, bpreg : float
    """
    y = activation(final_act)(scores + offsets.dimshuffle("x", 0))
    return LOSSES[loss](y, smoothing, bpreg) / np.float32(batch_size)
