"""Update rules against plain numpy: dense, row by row, with duplicates."""

from __future__ import annotations

import numpy as np
import pytest

from gru4rec_toolkit.model import optimizers
from gru4rec_toolkit.ops import base
from gru4rec_toolkit.ops.base import KernelOp
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

PYTHON = theano.Mode(linker="py", optimizer="fast_run")
RATES = {None: [], "adagrad": [], "rmsprop": [0.9], "adadelta": [0.8], "adam": [0.9, 0.99]}
METHODS = list(RATES)
EPS = 1e-6


class Rule:
    """One method on one parameter, as its paper has it, in float64; rows may repeat in a step."""

    def __init__(self, method, value, lr, momentum, lmbd):
        self.method, self.rates = method, RATES[method]
        self.lr, self.momentum, self.lmbd = lr, momentum, lmbd
        self.p = value.astype(np.float64)
        self.a, self.b, self.v = (np.zeros_like(self.p) for _ in range(3))
        self.t = np.zeros(len(self.p))

    def step(self, rows, gradients):
        """gradients[k] belongs to p[rows[k]]; a dense step has every row once."""
        before = [x.copy() for x in (self.p, self.a, self.b, self.v, self.t)]
        p, a, b, v, t = before
        unique = np.unique(rows)
        if self.method in ("rmsprop", "adadelta", "adam"):
            self.a[unique] *= self.rates[0]
        if self.method == "adadelta":
            self.b[unique] *= self.rates[0]
        if self.method == "adam":
            self.b[unique] *= self.rates[1]
            self.t[unique] += 1
        if self.method == "adagrad":
            for r, g in zip(rows, gradients):
                self.a[r] += g**2
        elif self.method in ("rmsprop", "adadelta"):
            for r, g in zip(rows, gradients):
                self.a[r] += (1 - self.rates[0]) * g**2
        elif self.method == "adam":
            for r, g in zip(rows, gradients):
                self.a[r] += (1 - self.rates[0]) * g
                self.b[r] += (1 - self.rates[1]) * g**2
        for r, g in zip(rows, gradients):
            scaled = self.scaled(r, g, a, b, t)
            if self.method == "adadelta":
                self.b[r] += (1 - self.rates[0]) * scaled**2
            step = -self.lr * (scaled + self.lmbd * p[r])
            if self.momentum:
                step = self.momentum * v[r] + step
                self.v[r] = step
            self.p[r] += step

    def scaled(self, r, g, a, b, t):
        if self.method == "adagrad":
            return g / np.sqrt(a[r] + g**2 + EPS)
        if self.method == "rmsprop":
            return g / np.sqrt(self.a[r] + EPS)
        if self.method == "adadelta":
            return g * np.sqrt(b[r] + EPS) / np.sqrt(self.a[r] + EPS)
        if self.method == "adam":
            d1, d2 = self.rates
            mean = (d1 * a[r] + (1 - d1) * g) / (1 - d1 ** (t[r] + 1))
            variance = (d2 * b[r] + (1 - d2) * g**2) / (1 - d2 ** (t[r] + 1))
            return mean / (np.sqrt(variance) + 1e-8)
        return g


@pytest.fixture(params=[False, True], ids=["symbolic", "fused"])
def fused(request):
    """Whether the rules are one Op; else they are Theano expressions."""
    if not request.param:
        request.getfixturevalue("symbolic")
    elif not base.usable():
        pytest.skip("the kernels need float32")
    return request.param


def compiled(inputs, updates, fused):
    """Compile, and check which of the two ways it is."""
    mode = PYTHON if fused else PYTHON.excluding("gru4rec")
    f = theano.function(inputs, [], updates=updates, mode=mode)
    n_kernels = sum(isinstance(node.op, KernelOp) for node in f.maker.fgraph.toposort())
    assert (n_kernels > 0) == fused
    return f


@pytest.mark.parametrize("lmbd", [0, 0.05])
@pytest.mark.parametrize("momentum", [0, 0.4])
@pytest.mark.parametrize("method", METHODS)
def test_dense(method, momentum, lmbd, fused):
    rng = np.random.default_rng(1)
    value = rng.normal(size=(4, 3)).astype(np.float32)
    p = theano.shared(value, name="p")
    target = tt.fmatrix()
    cost = (p * target).sum()  # the gradient is the target
    updates = optimizers.training_updates(
        cost, [p], [], method, RATES[method], 0.1, momentum, lmbd
    )
    f = compiled([target], updates, fused)
    rule = Rule(method, value, 0.1, momentum, lmbd)
    for _ in range(4):
        gradient = rng.normal(size=value.shape).astype(np.float32)
        f(gradient)
        rule.step(range(4), gradient.astype(np.float64))
    np.testing.assert_allclose(p.get_value(), rule.p, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("lmbd", [0, 0.05])
@pytest.mark.parametrize("momentum", [0, 0.4])
@pytest.mark.parametrize("method", METHODS)
def test_rows(method, momentum, lmbd, fused):
    """Rows that come up once, several times and never."""
    rng = np.random.default_rng(2)
    value = rng.normal(size=(6, 3)).astype(np.float32)
    p = theano.shared(value, name="p")
    index, target = tt.ivector(), tt.fmatrix()
    rows = p[index]
    looked_up = [(p, [(rows, index, None)])]
    updates = optimizers.training_updates(
        (rows * target).sum(), [], looked_up, method, RATES[method], 0.1, momentum, lmbd
    )
    f = compiled([index, target], updates, fused)
    rule = Rule(method, value, 0.1, momentum, lmbd)
    for used in ([0, 3, 1], [3, 3, 1, 3], [5], [0, 5, 0, 1, 5, 5], [3, 5, 0]):
        gradient = rng.normal(size=(len(used), 3)).astype(np.float32)
        f(np.array(used, dtype=np.int32), gradient)
        rule.step(used, gradient.astype(np.float64))
    np.testing.assert_allclose(p.get_value(), rule.p, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(p.get_value()[2], value[2])
    np.testing.assert_array_equal(p.get_value()[4], value[4])


@pytest.mark.parametrize("method", METHODS)
def test_several_parameters_at_once(method, fused):
    """Each with its own gradient, whole ones and tables; a table that is looked up twice."""
    rng = np.random.default_rng(4)
    values = {name: rng.normal(size=(4, 3)).astype(np.float32) for name in "abcd"}
    shared = {name: theano.shared(value, name=name) for name, value in values.items()}
    targets = tt.ftensor3()
    first, second, third = (tt.ivector() for _ in range(3))
    rows = [shared["c"][first], shared["c"][second], shared["d"][third]]
    used = [shared["a"], shared["b"], *rows]
    cost = sum((x * target).sum() for x, target in zip(used, [targets[i] for i in range(5)]))
    lookups = [
        (shared["c"], [(rows[0], first, None), (rows[1], second, None)]),
        (shared["d"], [(rows[2], third, None)]),
    ]
    updates = optimizers.training_updates(
        cost, [shared["a"], shared["b"]], lookups, method, RATES[method], 0.1
    )
    f = compiled([targets, first, second, third], updates, fused)
    rules = {name: Rule(method, value, 0.1, 0, 0) for name, value in values.items()}
    for indices in ([[0, 3, 1, 0], [3, 3, 2, 0], [1, 1, 1, 2]], [[1, 2, 0, 0], [0] * 4, [3] * 4]):
        gradients = rng.normal(size=(5, 4, 3)).astype(np.float32)
        f(gradients, *np.array(indices, dtype=np.int32))
        g = gradients.astype(np.float64)
        rules["a"].step(range(4), g[0])
        rules["b"].step(range(4), g[1])
        rules["c"].step([*indices[0], *indices[1]], [*g[2], *g[3]])
        rules["d"].step(indices[2], g[4])
    for name, rule in rules.items():
        np.testing.assert_allclose(shared[name].get_value(), rule.p, rtol=2e-5, atol=2e-6)


def test_m_equal_rows_are_m_times_one_step_of_adagrad(fused):
    """What makes unique negatives with multiplicities exact."""
    value = np.ones((2, 2), dtype=np.float32)
    p = theano.shared(value, name="p")
    index = tt.ivector()
    rows = p[index]
    updates = optimizers.training_updates(
        (rows * 0.5).sum(), [], [(p, [(rows, index, None)])], "adagrad", [], 0.1
    )
    compiled([index], updates, fused)(np.zeros(5, dtype=np.int32))
    accumulated = dict(updates)
    acc = next(v for v in accumulated if v.name == "p_adagrad").get_value()
    np.testing.assert_allclose(acc[0], 5 * 0.25)
    np.testing.assert_allclose(p.get_value()[0], 1 - 5 * 0.1 * 0.5 / np.sqrt(0.25 + EPS), 1e-6)


@pytest.mark.parametrize("cap, factor", [(0, 1), (100, 1), (2.5, 0.5)])
def test_grad_cap_rescales_by_the_common_norm(cap, factor):
    gradients = [tt.as_tensor_variable(np.array(g, dtype=np.float32)) for g in ([3, 0], [[4]])]
    capped = optimizers.clip_by_common_norm(gradients, cap)
    values = theano.function([], capped, mode=PYTHON)()
    np.testing.assert_allclose(values[0], [3 * factor, 0], rtol=1e-6)
    np.testing.assert_allclose(values[1], [[4 * factor]], rtol=1e-6)


def test_grad_cap_counts_the_copies_of_a_weighted_row():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(3, 4)).astype(np.float32)
    weights = np.array([1, 3, 2], dtype=np.float32)
    merged = tt.as_tensor_variable(rows * weights[:, None])
    separate = tt.as_tensor_variable(np.repeat(rows, [1, 3, 2], axis=0))
    capped = [
        *optimizers.clip_by_common_norm([merged], 0.5, [tt.as_tensor_variable(weights)]),
        *optimizers.clip_by_common_norm([separate], 0.5),
    ]
    found, expected = theano.function([], capped, mode=PYTHON)()
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1:4].sum(axis=0), rtol=1e-5)
