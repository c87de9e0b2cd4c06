"""Activations and losses against plain numpy, and their gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from gru4rec_toolkit import parameters
from gru4rec_toolkit.model import losses
from gru4rec_toolkit.parameters import split_activation
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# the formulas are what is tested here: Python thunks spare compiling C for each of them
PYTHON = theano.Mode(linker="py", optimizer="fast_compile")
ACTIVATIONS = [
    "linear", "relu", "tanh", "leaky-0.1", "elu-0.5", "elu-1", "selu-1.05-1.67", "softmax",
    "softmax_logit",
]  # fmt: skip
LOSSES = ["cross-entropy", "xe_logit", "bpr", "bpr-max", "top1", "top1-max"]


def evaluate(expression, values):
    return theano.function(list(values), expression, mode=PYTHON)(*values.values())


def check_gradient(cost, values):
    theano.gradient.verify_grad(
        cost, [values], rng=np.random.RandomState(1), eps=1e-6, mode=PYTHON
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_activation(name, x):
    kind, constants = split_activation(name)
    e = np.exp(x - x.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return {
        "linear": lambda: x,
        "relu": lambda: np.maximum(x, 0),
        "tanh": lambda: np.tanh(x),
        "leaky": lambda: np.where(x >= 0, x, constants[0] * x),
        "elu": lambda: np.where(x >= 0, x, constants[0] * (np.exp(x) - 1)),
        "selu": lambda: constants[0] * np.where(x >= 0, x, constants[1] * (np.exp(x) - 1)),
        "softmax": lambda: p,
        "softmax_logit": lambda: np.log(p),
    }[kind]()


def numpy_loss(name, y, smoothing, bpreg):
    """The definitions of the papers, row by row and negative by negative."""
    n_rows, n = y.shape
    total = 0.0
    for i in range(n_rows):
        target = y[i, i]
        negatives = np.delete(y[i], i)
        # the maximum that is subtracted does not change a softmax in exact arithmetic
        s = np.exp(negatives - negatives.max())
        s /= s.sum()
        if name in ("cross-entropy", "xe_logit"):
            surprise = -y[i] if name == "xe_logit" else -np.log(y[i])
            total += (1 - smoothing) * surprise[i] + smoothing / (n - 1) * np.delete(
                surprise, i
            ).sum()
        elif name == "bpr":
            total += -np.log(sigmoid(target - y[i])).sum()
        elif name == "bpr-max":
            total += -np.log((s * sigmoid(target - negatives)).sum())
            total += bpreg * (s * negatives**2).sum()
        elif name == "top1":
            terms = sigmoid(y[i] - target) + sigmoid(y[i] ** 2)
            total += n_rows * (terms.mean() - sigmoid(target**2) / n)
        elif name == "top1-max":
            total += (s * (sigmoid(negatives - target) + sigmoid(negatives**2))).sum()
    return total


def symbolic_loss(name, smoothing=0.0, bpreg=1.0):
    return lambda y: losses.LOSSES[name](y, smoothing, bpreg)


def scores(shape, seed=0, scale=1.5):
    return np.random.default_rng(seed).normal(scale=scale, size=shape)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    x = tt.dmatrix()
    values = scores((4, 7))
    result = evaluate(losses.activation(name)(x), {x: values})
    np.testing.assert_allclose(result, numpy_activation(name, values), rtol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_gradient(name):
    check_gradient(losses.activation(name), scores((3, 5)))


@pytest.mark.parametrize("shape", [(1, 4), (3, 3), (4, 9)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, smoothing, shape):
    final = {"cross-entropy": "softmax", "xe_logit": "softmax_logit"}.get(name, "elu-0.5")
    y = numpy_activation(final, scores(shape))
    x = tt.dmatrix()
    result = evaluate(symbolic_loss(name, smoothing, 1.95)(x), {x: y})
    expected = numpy_loss(name, y, smoothing, 1.95)
    np.testing.assert_allclose(result, expected, rtol=1e-10)


@pytest.mark.parametrize("final", ["linear", "relu", "tanh", "leaky-0.1", "elu-0.5", "selu-1.1-2"])
@pytest.mark.parametrize("name", ["bpr", "bpr-max", "top1", "top1-max"])
def test_pairwise_loss_gradient(name, final):
    def cost(x):
        return symbolic_loss(name, 0.0, 0.7)(losses.activation(final)(x))

    check_gradient(cost, scores((3, 6)))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", ["cross-entropy", "xe_logit"])
def test_cross_entropy_gradient(name, smoothing):
    final = {"cross-entropy": "softmax", "xe_logit": "softmax_logit"}[name]

    def cost(x):
        return symbolic_loss(name, smoothing)(losses.activation(final)(x))

    check_gradient(cost, scores((4, 6)))


def test_both_cross_entropies_agree():
    x = tt.dmatrix()
    values = scores((5, 8))
    pair = [
        evaluate(symbolic_loss(loss, 0.1)(losses.activation(final)(x)), {x: values})
        for loss, final in [("cross-entropy", "softmax"), ("xe_logit", "softmax_logit")]
    ]
    assert pair[0] == pytest.approx(pair[1], rel=1e-10)


@pytest.mark.parametrize("name", ["elu-0.5", "elu-1", "selu-1.05-1.67"])
def test_large_scores_have_finite_gradients(name):
    """exp of a large positive score overflows float32; it must not reach the gradient."""
    x = tt.fmatrix()
    gradient = theano.grad(losses.activation(name)(x).sum(), x)
    values = np.array([[-200, -1, 0, 90, 200]], dtype=np.float32)
    assert np.isfinite(evaluate(gradient, {x: values})).all()


@pytest.mark.parametrize("name, final", [("cross-entropy", "softmax"), ("bpr-max", "linear")])
def test_underflow_of_the_target_stays_finite(name, final):
    """1e-24 inside the logarithm: a target far below the negatives costs much, but not infinity."""
    x = tt.fmatrix()
    cost = symbolic_loss(name, 0.0, 0.0)(losses.activation(final)(x))
    values = np.array([[-300, 300, 0]], dtype=np.float32)
    f = theano.function([x], [cost, theano.grad(cost, x)], mode=PYTHON)
    cost, gradient = f(values)
    assert cost == pytest.approx(-np.log(1e-24), rel=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("n_rows, n_cols", [(1, 1), (1, 3), (3, 3), (4, 11)])
def test_diagonal(n_rows, n_cols):
    x = tt.dmatrix()
    values = scores((n_rows, n_cols))
    np.testing.assert_array_equal(evaluate(losses.diagonal(x), {x: values}), np.diagonal(values))


def test_log_q():
    """Targets are corrected by their support, samples by support^alpha."""
    biases, log_support, items = tt.fmatrix(), tt.fmatrix(), tt.ivector()
    counts, index = np.array([3, 10, 1, 7, 200]), np.array([1, 0, 4, 4, 2])
    given = {
        biases: np.arange(5, dtype=np.float32)[:, None],
        log_support: np.log(counts).astype(np.float32)[:, None],
        items: index.astype(np.int32),
    }
    symbols = (biases, log_support, items, tt.as_tensor_variable(np.int64(2)))
    expected = np.arange(5) - 0.8 * np.log(counts[index]) * [1, 1, 0.5, 0.5, 0.5]
    result = evaluate(losses.log_q(*symbols, 0.8, 0.5), given)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    gradient = evaluate(theano.grad(losses.log_q(*symbols, 0.8, 0.5).sum(), biases), given)
    np.testing.assert_array_equal(gradient, np.ones((5, 1)))


@pytest.mark.parametrize("name", ["relu", "tanh", "leaky-0.1", "elu-1"])
def test_rankings_see_the_saturation_of_the_activation(name):
    assert parameters.ranking_activation(name) == name


@pytest.mark.parametrize("name", ["softmax", "softmax_logit", "linear"])
def test_rankings_take_the_scores_where_the_activation_keeps_their_order(name):
    assert parameters.ranking_activation(name) == "linear"


@pytest.mark.parametrize("name", ["relu", "softmax", "elu-0.5"])
def test_predictions_have_the_final_activation(name):
    x, values = tt.dmatrix(), scores((4, 7))
    result = evaluate(losses.predicted.__wrapped__(x, name), {x: values})
    np.testing.assert_allclose(result, numpy_activation(name, values), rtol=1e-12)


def test_predictions_are_probabilities_where_the_training_has_their_logarithm():
    x, values = tt.dmatrix(), scores((4, 7))
    result = evaluate(losses.predicted.__wrapped__(x, "softmax_logit"), {x: values})
    np.testing.assert_allclose(result, numpy_activation("softmax", values), rtol=1e-12)


def test_scored_items(symbolic):
    """The targets come first; without kernels each negative is one column."""
    targets, ids = (tt.as_tensor_variable(np.array(a, np.int32)) for a in ([3, 1], [5, 1, 5]))
    items, copies = losses.scored_items(targets, (ids, None), "bpr-max", "linear")
    assert copies is None
    assert evaluate(items, {}).tolist() == [3, 1, 5, 1, 5]
    items, copies = losses.scored_items(targets, None, "bpr-max", "linear")
    assert copies is None and items is targets
