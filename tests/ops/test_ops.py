"""Every Op against its definition in numpy, `perform`: its C code, and its kernels on a GPU.

Which of the two depends on the device of the process; `test_gpu` runs this file on the other one.
"""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest
from helpers.team import team_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

import custom_opt
from gru4rec_toolkit import theano_setup
from gru4rec_toolkit.model import losses
from gru4rec_toolkit.ops import base
from gru4rec_toolkit.ops.gru.op import GRU, Dropout, GRUGradient
from gru4rec_toolkit.ops.losses.op import Loss, has_loss, loss_of_scores
from gru4rec_toolkit.ops.products.op import Product
from gru4rec_toolkit.ops.ranking.op import Activate, CountRanks
from gru4rec_toolkit.ops.rows.op import Gather, LogQ, Outputs
from gru4rec_toolkit.ops.topk.op import TopK
from gru4rec_toolkit.ops.updates.op import METHODS, Update
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

ON_GPU = theano_setup.configure().device != "cpu"
pytestmark = pytest.mark.skipif(not base.usable(), reason="the kernels need float32")
only_on_gpu = pytest.mark.skipif(not ON_GPU, reason="of the GPU's Op alone")
only_on_cpu = pytest.mark.skipif(ON_GPU, reason="of the CPU's Op alone")

# sizes below and above what one thread does alone, and no multiples of a vector
ROWS = st.sampled_from([0, 1, 2, 3, 17, 40])
WIDTHS = st.sampled_from([1, 2, 7, 33, 300])
SEEDS = st.integers(0, 2**31)
# a simulated GPU takes its time, and one that is watched (tools/kernels.py) much more
EXAMPLES = int(os.environ.get("EXAMPLES", 6 if ON_GPU else 25))
common = settings(max_examples=EXAMPLES, deadline=None)
LOSSES = [
    ("cross-entropy", "softmax", 0.0),
    ("cross-entropy", "softmax", 0.1),
    ("xe_logit", "softmax_logit", 0.0),
    ("xe_logit", "softmax_logit", 0.1),
    ("bpr-max", "elu-0.5", 1.95),
    ("bpr-max", "linear", 0.0),
    ("bpr-max", "relu", 0.5),
    ("bpr-max", "tanh", 0.5),
    ("bpr", "linear", 0.0),
    ("bpr", "leaky-0.1", 0.0),
    ("top1", "tanh", 0.0),
    ("top1-max", "selu-1.05-1.67", 0.0),
]
ACTIVATIONS = ["linear", "relu", "tanh", "leaky-0.1", "elu-0.5", "selu-1.05-1.67"]


@functools.lru_cache(maxsize=None)
def compiled(op, types, strided=False):
    inputs = [theano.tensor.TensorType(dtype, (False,) * ndim)() for dtype, ndim in types]
    inputs = [theano.In(i, borrow=True) for i in inputs]
    arguments = [i.variable for i in inputs]
    if ON_GPU:
        import gpu_ops  # needs pygpu

        op = gpu_ops.twin(op) if isinstance(op, base.KernelOp) else op
        arguments = [a.transfer(None) if a.ndim else a for a in arguments]
        if strided:
            arguments = [a[..., ::2] if a.ndim else a for a in arguments]
    outputs = [output.transfer("cpu") for output in op(*arguments, return_list=True)]
    mode = theano.Mode(linker="cvm", optimizer=None)
    settings = {"accept_inplace": True, "on_unused_input": "ignore"}
    return theano.function(inputs, outputs, mode=mode, **settings)


def run_compiled(op, values):
    return compiled(op, tuple((str(v.dtype), v.ndim) for v in values))(*values)


def run_on_strided_arrays(op, values):
    """The same on a GPU, where only every other element of each array in its memory is meant."""
    spread = [np.repeat(v, 2, axis=-1) if v.ndim else v for v in values]
    return compiled(op, tuple((str(v.dtype), v.ndim) for v in values), strided=True)(*spread)


def in_numpy(op, values):
    inputs = [tt.as_tensor_variable(v).type() for v in values]
    node = op.make_node(*inputs)
    storage = [[None] for _ in node.outputs]
    op.perform(node, list(values), storage)
    return [s[0] for s in storage]


def agree(op, values, rtol=2e-6, scale=1e-3, expected=None):
    """scale: of the terms that the results are sums of, which rounding is relative to."""
    if expected is None:
        expected = in_numpy(op, [v.copy() for v in values])
    found = run_compiled(op, [v.copy(order="K") for v in values])
    results = list(zip(expected, found))
    if ON_GPU and not getattr(op, "inplace", False):
        results += zip(expected, run_on_strided_arrays(op, values))
    for e, f in results:
        assert f.dtype == e.dtype
        assert f.shape == e.shape
        atol = rtol * max(np.abs(e).max(initial=0), scale)
        np.testing.assert_allclose(f, e, rtol=rtol, atol=atol)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


# ---------------------------------------------------------------------------- products, rows


@only_on_cpu
@common
@given(m=ROWS, k=ROWS, n=WIDTHS, layout=st.sampled_from("rcs"), seed=SEEDS)
def test_product(m, k, n, layout, seed):
    rng = np.random.default_rng(seed)
    x, y = normal(rng, m, k), normal(rng, k, n)
    if layout == "c":
        x, y = np.asfortranarray(x), np.asfortranarray(y)
    elif layout == "s":
        x, y = normal(rng, 2 * m, 3 * k)[::2, ::3], normal(rng, k, 2 * n)[:, :n]
    found = run_compiled(Product(), [x, y])[0]
    np.testing.assert_allclose(found, x @ y, rtol=1e-4, atol=1e-5 * max(k, 1) ** 0.5)


@only_on_cpu
def test_product_of_large_matrices_is_shared_out_without_gaps():
    rng = np.random.default_rng(0)
    for m, n in ((32, 2080), (2080, 100), (33, 2077)):
        x, y = normal(rng, m, 64), normal(rng, 64, n)
        found = run_compiled(Product(), [x, y])[0]
        np.testing.assert_allclose(found, x @ y, rtol=1e-3, atol=1e-4)


@only_on_cpu
@pytest.mark.parametrize("transposed", ["", "x", "y", "xy"])
@pytest.mark.parametrize("threads", [2, 3])
def test_product_with_a_long_sum_is_shared_out_by_its_terms(transposed, threads):
    rng = np.random.default_rng(0)
    x, y = normal(rng, 33, 1301), normal(rng, 1301, 100)
    values = [np.asfortranarray(x) if "x" in transposed else x]
    values.append(np.asfortranarray(y) if "y" in transposed else y)
    with team_of(threads):
        found = run_compiled(Product(), values)[0]
        again = run_compiled(Product(), values)[0]
    np.testing.assert_allclose(found, x @ y, rtol=1e-3, atol=1e-3)
    assert np.array_equal(found, again)


@only_on_cpu
def test_product_of_sizes_that_do_not_fit():
    values = [np.zeros((2, 3), np.float32), np.zeros((4, 2), np.float32)]
    with pytest.raises(ValueError, match="inner sizes"):
        run_compiled(Product(), values)


@common
@given(n_rows=st.sampled_from([1, 5, 60]), n=ROWS, width=WIDTHS, seed=SEEDS)
def test_gather(n_rows, n, width, seed):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, n_rows, n).astype(np.int32)
    agree(Gather(), [normal(rng, n_rows, width), index], rtol=0)
    agree(Gather(), [normal(rng, n_rows, 2 * width)[:, ::2], index[::-1]], rtol=0)


@pytest.mark.parametrize("wrong", [-1, 5])
def test_gather_out_of_range(wrong):
    index = np.array([0, wrong, 1], dtype=np.int32)
    values = [np.zeros((5, 3), np.float32), index]
    if ON_GPU:  # without a flag to read back after every look-up
        found = run_compiled(Gather(), values)[0]
        assert np.isnan(found[1]).all() and not np.isnan(found[[0, 2]]).any()
        return
    with pytest.raises(IndexError):
        run_compiled(Gather(), values)


@pytest.mark.parametrize("merged", [False, True])
@common
@given(m=ROWS, k=st.sampled_from([0, 1, 2, 90, 700]), seed=SEEDS)
def test_outputs(merged, m, k, seed):
    rng = np.random.default_rng(seed)
    values = [rng.integers(0, 50, n).astype(np.int32) for n in (m, k)]
    if merged:
        values.append(rng.integers(1, 9, k).astype(np.float32))
    agree(Outputs(), values, rtol=0)


@common
@example(n_items=40, m=3, k=2, seed=0)  # not every choice of few examples has rows at all
@given(n_items=st.sampled_from([1, 40]), m=ROWS, k=ROWS, seed=SEEDS)
def test_log_q(n_items, m, k, seed):
    rng = np.random.default_rng(seed)
    items = rng.integers(0, n_items, m + k).astype(np.int32)
    values = [normal(rng, m + k, 1), normal(rng, n_items, 1), items, np.asarray(m)]
    agree(LogQ(0.7, 0.3), values)


@only_on_cpu
@pytest.mark.parametrize("wrong", [-1, 3])
def test_log_q_of_an_item_out_of_range(wrong):
    values = [np.zeros((1, 1), np.float32), np.zeros((3, 1), np.float32)]
    with pytest.raises(IndexError, match="not an item index"):
        run_compiled(LogQ(1, 1), [*values, np.array([wrong], np.int32), np.asarray(1)])


# ---------------------------------------------------------------------------- updates


def _update_inputs(rng, op, n_rows, width, lookups, decays=(0.9, 0.99)):
    values = [np.array([0.1, 0.3 * op.momentum, 0.01 * op.l2, 1e-6, *decays], dtype=np.float32)]
    table = normal(rng, n_rows, width)
    tables = [table]
    for _ in range(op.n_tables - 1):
        tables.append(np.abs(normal(rng, n_rows, width)))
    if op.method == "adam":
        tables[3] = rng.integers(0, 5, n_rows).astype(np.float32)
        if not lookups:
            tables[3][:] = 2
    values += tables
    if not op.weighted:
        return [*values, normal(rng, n_rows, width)]
    for n, weighted in zip(lookups, op.weighted):
        index = rng.integers(0, n_rows, n).astype(np.int32)
        values += [index, normal(rng, n, width)]
        values += [rng.integers(1, 4, n).astype(np.float32)] if weighted else []
        values += [table[index]] if op.l2 else []
    return values


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=min(EXAMPLES, 15), deadline=None)
@given(n_rows=st.sampled_from([1, 7, 300]), n=ROWS, width=WIDTHS, seed=SEEDS)
def test_update_of_rows(method, momentum, n_rows, n, width, seed):
    op = Update(method, momentum, True, (False, True))
    values = _update_inputs(np.random.default_rng(seed), op, n_rows, width, (n, 3 * n))
    agree(op, values, rtol=2e-5)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=min(EXAMPLES, 15), deadline=None)
@given(n_rows=st.sampled_from([0, 1, 7, 300]), width=WIDTHS, seed=SEEDS)
def test_update_of_a_whole_parameter(method, n_rows, width, seed):
    op = Update(method, True, True)
    agree(op, _update_inputs(np.random.default_rng(seed), op, n_rows, width, ()), rtol=2e-5)


@only_on_cpu  # what comes from the host is a copy on the GPU
def test_update_in_place_writes_into_the_tables():
    op = Update("adagrad", True, False, (True,), inplace=True)
    values = _update_inputs(np.random.default_rng(0), op, 50, 40, (60,))
    expected = in_numpy(op, [v.copy() for v in values])
    run_compiled(op, values)
    for table, e in zip(values[1:4], expected):
        np.testing.assert_allclose(table, e, rtol=1e-5, atol=1e-6)


def test_equal_copies_can_be_given_as_one_weighted_row():
    rng = np.random.default_rng(0)
    for method in METHODS:
        single = Update(method, True, False, (False,))
        values = _update_inputs(rng, single, 9, 20, (0,))[:-2]
        gradient, index = normal(rng, 3, 20), np.array([4, 8, 1], dtype=np.int32)
        weights = np.array([3, 1, 2], dtype=np.float32)
        copies = np.repeat(np.arange(3), [3, 1, 2])
        merged = run_compiled(
            Update(method, True, False, (True,)),
            [*values, index, gradient * weights[:, None], weights],
        )
        separate = run_compiled(single, [*values, index[copies], gradient[copies]])
        for m, s in zip(merged, separate):
            np.testing.assert_allclose(m, s, rtol=1e-5, atol=1e-6)


@only_on_cpu
def test_update_out_of_range_changes_nothing():
    op = Update(None, False, False, (False,), inplace=True)
    values = _update_inputs(np.random.default_rng(0), op, 5, 3, (4,))
    values[2][2] = 5
    before = values[1].copy()
    with pytest.raises(IndexError):
        run_compiled(op, values)
    assert (values[1] == before).all()


@pytest.mark.skipif(not ON_GPU, reason="on the CPU it is an error")
@pytest.mark.parametrize("method", ["adagrad", "adam"])
def test_a_gpu_leaves_out_rows_that_the_table_does_not_have(method):
    op = Update(method, False, False, (False,))
    values = _update_inputs(np.random.default_rng(0), op, 5, 3, (4,))
    right = run_compiled(op, [*values[:-2], values[-2][[0, 1, 3]], values[-1][[0, 1, 3]]])
    for wrong in (5, -1):
        values[-2][2] = wrong
        for found, e in zip(run_compiled(op, values), right):
            np.testing.assert_array_equal(found, e)


# ---------------------------------------------------------------------------- losses


@pytest.mark.parametrize(("loss", "activation", "parameter"), LOSSES)
@settings(max_examples=min(EXAMPLES, 15), deadline=None)
@given(m=ROWS, k=st.sampled_from([1, 5, 300]), size=st.sampled_from([0.1, 3.0]), seed=SEEDS)
def test_loss(loss, activation, parameter, m, k, size, seed):
    rng = np.random.default_rng(seed)
    op = Loss(loss, activation, 1 / 32, parameter)
    weights = np.concatenate([np.ones(m), rng.integers(1, 4, k)]).astype(np.float32)
    scores = normal(rng, m, m + k) * np.float32(size)
    # the gradients are differences of terms of size 1 / 32, and can be much smaller
    agree(op, [scores, normal(rng, m + k), weights], rtol=1e-5, scale=1e-2)


@pytest.mark.parametrize(("loss", "activation", "parameter"), LOSSES)
def test_loss_with_copies_is_that_of_repeated_columns(loss, activation, parameter):
    rng = np.random.default_rng(0)
    op = Loss(loss, activation, 1.0, parameter)
    weights = np.array([1, 1, 1, 3, 1, 2], dtype=np.float32)
    scores, offsets = normal(rng, 3, 6), normal(rng, 6)
    copies = np.repeat(np.arange(6), weights.astype(int))
    cost, d_scores, d_offsets = run_compiled(op, [scores, offsets, weights])
    ones = np.ones(len(copies), dtype=np.float32)
    expected = run_compiled(op, [scores[:, copies], offsets[copies], ones])
    np.testing.assert_allclose(cost, expected[0], rtol=1e-5)
    for found, e in ((d_scores, expected[1]), (d_offsets[None], expected[2][None])):
        summed = np.stack([e[:, copies == j].sum(axis=1) for j in range(6)], axis=1)
        np.testing.assert_allclose(found, summed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("loss", "activation", "parameter"), LOSSES)
def test_nan_is_not_hidden(loss, activation, parameter):
    scores = np.zeros((2, 9), dtype=np.float32)
    scores[1, 5] = np.nan
    values = [scores, np.zeros(9, np.float32), np.ones(9, np.float32)]
    assert np.isnan(run_compiled(Loss(loss, activation, 1.0, parameter), values)[0])


@pytest.mark.parametrize(("loss", "activation", "parameter"), LOSSES)
def test_gradients_of_the_loss_are_those_of_differences(loss, activation, parameter):
    rng = np.random.RandomState(0)
    values = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 6), (6,))]
    weights = tt.as_tensor_variable(np.array([1, 1, 1, 3, 1, 2], dtype=np.float32))

    def cost(scores, offsets):
        return Loss(loss, activation, 0.5, parameter)(scores, offsets, weights)[0]

    theano.gradient.verify_grad(cost, values, rng=rng, abs_tol=0.05, rel_tol=0.05)
    values = [tt.as_tensor_variable(value) for value in values]
    # how many columns a column stands for is no number to be trained
    counts = tt.fvector()
    with pytest.raises(theano.gradient.NullTypeGradError, match="counts of copies"):
        theano.grad(Loss(loss, activation, 0.5, parameter)(*values, counts)[0], counts)


@only_on_cpu
def test_the_loss_overwrites_scores_that_nobody_else_reads():
    custom_opt.register()
    scores, offsets, weights = tt.fmatrix(), tt.fvector(), tt.fvector()
    op = Loss("bpr-max", "tanh", 0.5, 1.0)
    rng = np.random.default_rng(0)
    given = [normal(rng, 3, 6), normal(rng, 6), np.ones(6, np.float32)]
    doubled = scores * 2
    cost, d_scores, d_offsets = op(doubled, offsets, weights)
    expected = in_numpy(op, [2 * given[0], *given[1:]])
    for others, in_place in (([], True), ([doubled], False)):
        outputs = [cost, d_scores, d_offsets, *others]
        f = theano.function([scores, offsets, weights], outputs)
        (found,) = (n.op for n in f.maker.fgraph.toposort() if isinstance(n.op, Loss))
        assert found.inplace == in_place
        results = f(*given)
        for result, e in zip(results, [*expected, 2 * given[0]]):
            np.testing.assert_allclose(result, e, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "final_act", "has"),
    [
        *((loss, final_act, True) for loss, final_act, _ in LOSSES),
        ("bpr-max", "softmax", False),
        ("hinge", "linear", False),
        ("hinge", "softmax", False),
        ("bpr-max", "softsign", False),
    ],
)
def test_which_losses_have_a_kernel(loss, final_act, has):
    scores, offsets = tt.fmatrix(), tt.fvector()
    assert has_loss(loss, final_act) == has
    found = loss_of_scores(scores, offsets, None, loss, final_act, 32, smoothing=0.1, bpreg=0.7)
    if not has:
        assert found is None
        return
    op = found.owner.op
    assert (op.loss, op.activation, op.scale, op.inplace) == (loss, final_act, 1 / 32, False)
    assert op.parameter == (0.7 if loss == "bpr-max" else 0.1)
    assert found.owner.inputs[:2] == [scores, offsets]
    weights = theano.function([offsets], found.owner.inputs[2])
    assert weights(np.zeros(3, np.float32)).tolist() == [1, 1, 1]
    counts = tt.fvector()
    assert loss_of_scores(scores, offsets, counts, loss, final_act, 32).owner.inputs[2] is counts


# ---------------------------------------------------------------------------- hidden layers


@pytest.mark.parametrize("activation", ACTIVATIONS)
@settings(max_examples=min(EXAMPLES, 15), deadline=None)
@given(m=ROWS, n=WIDTHS, seed=SEEDS)
def test_gru(activation, m, n, seed):
    rng = np.random.default_rng(seed)
    x, bias, h = normal(rng, m, 3 * n), normal(rng, 3 * n), normal(rng, m, n)
    w_rz, w_h = normal(rng, n, 2 * n) / np.float32(n), normal(rng, n, n) / np.float32(n)
    forward = GRU(activation)
    # a state is the sum of two terms near 1, which may cancel where it is the only one
    agree(forward, [x, bias, h, w_rz, w_h], rtol=1e-5, scale=0.1)
    _, rz, _, candidate = in_numpy(forward, [x, bias, h, w_rz, w_h])
    agree(GRUGradient(activation), [h[::-1], h, w_h, rz, candidate], rtol=1e-5)


def test_gradients_of_the_gru_are_those_of_differences():
    rng = np.random.RandomState(0)
    m, n = 3, 4
    shapes = [(m, 3 * n), (3 * n,), (m, n), (n, 2 * n), (n, n)]
    values = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]

    def new_state(*inputs):
        return GRU("tanh")(*inputs)[0]

    theano.gradient.verify_grad(new_state, values, rng=rng, abs_tol=0.05, rel_tol=0.05)


@common
@given(m=ROWS, n=WIDTHS, p=st.sampled_from([0.0, 0.1, 0.5, 0.9]), counter=st.integers(0, 2**40))
def test_dropout(m, n, p, counter):
    x = np.full((m, n), 3, dtype=np.float32)
    values = [x, np.float32(p)[()], np.int64(5), np.int64(counter)]
    agree(Dropout(), [np.asarray(v) for v in values], rtol=1e-6)


def test_dropout_drops_independently():
    x = np.ones((100, 1000), dtype=np.float32)
    masks = []
    for seed, counter in ((1, 0), (1, 1), (2, 0)):
        values = (x, np.float32(0.3), np.int64(seed), np.int64(counter))
        masks.append(run_compiled(Dropout(), [np.asarray(v) for v in values])[0] > 0)
    n = x.size
    for mask in masks:
        assert abs(mask.mean() - 0.7) < 5 * np.sqrt(0.21 / n)
        for lag in (1, 8, 1000):
            both = (mask.ravel()[lag:] & mask.ravel()[:-lag]).mean()
            assert abs(both - 0.49) < 5 * np.sqrt(0.25 / n)
    for other in masks[1:]:
        assert abs((masks[0] & other).mean() - 0.49) < 5 * np.sqrt(0.25 / n)


# ---------------------------------------------------------------------------- ranking


@pytest.mark.parametrize("activation", ACTIVATIONS)
@common
@given(m=ROWS, n=st.sampled_from([0, 1, 15, 16, 17, 250]), seed=SEEDS)
def test_activate(activation, m, n, seed):
    scores = 4 * normal(np.random.default_rng(seed), m, n)
    agree(Activate(activation), [scores])


@pytest.mark.parametrize("activation", ["tanh", "elu-0.5", "selu-1.5-2"])
def test_the_gradient_of_activated_scores(activation):
    """By its definition in Theano."""
    x = tt.fmatrix()
    scores = 2 * normal(np.random.default_rng(1), 3, 20)
    values = []
    for y in (Activate(activation)(x), losses.activation(activation)(x)):
        values.append(theano.function([x], theano.grad((y**2).sum(), x))(scores))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5, atol=1e-6)


def with_many_ties(rng, m, n_items, n):
    """Return hidden states, rows and biases of items.

    They are multiples of 1/64, not far from zero: products are exact, and different scores have
    clearly different activations.
    """
    hidden, rows, biases = (
        rng.integers(-2, 3, shape).astype(np.float32)
        for shape in ((m, n), (n_items, n), (n_items, 1))
    )
    return hidden / np.float32(64), rows, biases / np.float32(64)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@common
@given(m=ROWS, n_items=st.sampled_from([1, 7, 256, 1000]), n=ROWS, seed=SEEDS)
def test_count_ranks(activation, m, n_items, n, seed):
    n = max(n, 1)
    rng = np.random.default_rng(seed)
    hidden, rows, biases = with_many_ties(rng, m, n_items, n)
    ids = rng.permutation(2 * n_items)[:n_items].astype(np.int32)
    targets = rng.integers(0, 2 * n_items, m).astype(np.int32)
    scores = rng.integers(-64, 65, m).astype(np.float32) / np.float32(64)
    agree(CountRanks(activation), [hidden, rows, biases, ids, targets, scores], rtol=0)


SCORES = st.one_of(st.floats(-10, 10, width=32), st.floats(allow_nan=False, width=32))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@common
@given(
    scores=st.lists(SCORES.filter(np.isfinite), min_size=1, max_size=50),
    n_items=st.one_of(st.integers(1, 600), st.integers(1, 40)),
    seed=SEEDS,
)
def test_items_of_an_equal_score_tie_with_the_target(activation, scores, n_items, seed):
    """Whichever place they have, in a block or in what is left behind the last whole one."""
    scores = np.array(scores, np.float32)
    if np.float32(2e38) < np.abs(scores).max():  # the activation's constants must not overflow
        scores /= 2
    scores = np.concatenate([scores, 4 * normal(np.random.default_rng(seed), 300)])
    ids, none = np.arange(n_items, dtype=np.int32), np.full(len(scores), -1, np.int32)
    ones, zeros = np.ones((n_items, 1), np.float32), np.zeros((n_items, 1), np.float32)
    values = [scores[:, None], ones, zeros, ids, none, scores]
    better, equal = run_compiled(CountRanks(activation), values)
    assert not better.any() and (equal == n_items).all()


# ---------------------------------------------------------------------------- many threads


@only_on_cpu
@settings(max_examples=min(EXAMPLES, 4), deadline=None)
@example(threads=32, seed=0)
@given(threads=st.integers(1, 32), seed=SEEDS)
def test_a_team_of_many_threads_computes_the_same(threads, seed):
    """Of sizes that are worth some of them, or all, one after the other, on few cores."""
    rng = np.random.default_rng(seed)
    table = normal(rng, 3000, 300)
    with team_of(threads):
        for n in (20, 2000, 200):
            index = rng.integers(0, len(table), n).astype(np.int32)
            agree(Gather(), [table, index], rtol=0)
            # the second one has a long sum, which is shared out by its terms
            agree(Product(), [normal(rng, 130, 300), normal(rng, 300, n)], rtol=1e-5)
            agree(Product(), [normal(rng, 30, n), normal(rng, n, 40)], rtol=1e-5)
            weights = rng.integers(1, 4, n + 40).astype(np.float32)
            scores = [normal(rng, 40, n + 40), normal(rng, n + 40), weights]
            agree(Loss("bpr-max", "elu-0.5", 1 / 32, 1.0), scores, rtol=1e-4, scale=1e-2)
        op = Update("adagrad", True, True, (False, True))
        agree(op, _update_inputs(rng, op, 2000, 100, (100, 3000)), rtol=2e-5)
        op = Update("adagrad", True, True)
        agree(op, _update_inputs(rng, op, 900, 600, ()), rtol=2e-5)
        test_gru.hypothesis.inner_test("tanh", 100, 300, seed)
        test_dropout.hypothesis.inner_test(900, 600, 0.3, seed)
        test_count_ranks.hypothesis.inner_test("linear", 17, 5000, 40, seed)
        test_top_k.hypothesis.inner_test("linear", 17, 5000, 40, 20, seed)


# ---------------------------------------------------------------------------- the best items


def left_out_at_random(rng, m, n_items, most):
    """Return starts (m + 1,) and ascending positions of up to `most` items of each session."""
    chosen = [np.sort(rng.permutation(n_items)[: rng.integers(0, most + 1)]) for _ in range(m)]
    starts = np.cumsum([0, *map(len, chosen)]).astype(np.int32)
    return starts, np.concatenate([*chosen, []]).astype(np.int32)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@common
@given(
    m=ROWS,
    n_items=st.sampled_from([1, 7, 256, 1000]),
    n=ROWS,
    k=st.sampled_from([0, 1, 5, 20, 300]),
    seed=SEEDS,
)
def test_top_k(activation, m, n_items, n, k, seed):
    n = max(n, 1)
    rng = np.random.default_rng(seed)
    hidden, rows, biases = with_many_ties(rng, m, n_items, n)
    starts, left_out = left_out_at_random(rng, m, n_items, min(n_items, 12))
    values = [hidden, rows, biases, starts, left_out, np.int64(k)]
    agree(TopK(activation), values)
    # the order among equal scores, not only the scores
    for expected, found in zip(
        in_numpy(TopK(activation), values), run_compiled(TopK(activation), values)
    ):
        if expected.dtype == np.int32:
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("left_out", [[], [0], [0, 1], [0, 1, 2]])
def test_fewer_items_than_asked_for(left_out):
    """The rest is no item, of the lowest score."""
    starts, k = np.array([0, len(left_out)], np.int32), np.int64(4)
    hidden, rows = np.ones((1, 1), np.float32), np.array([[1], [3], [2]], np.float32)
    values = [hidden, rows, np.zeros((3, 1), np.float32), starts, np.array(left_out, np.int32), k]
    items, scores = run_compiled(TopK("linear"), values)
    expected = [item for item in (1, 2, 0) if item not in left_out]
    rest = 4 - len(expected)
    assert items[0].tolist() == [*expected, *[-1] * rest]
    assert scores[0].tolist() == [*(float(rows[item, 0]) for item in expected), *[-np.inf] * rest]


# ---------------------------------------------------------------------------- what does not fit


def ones(*shapes):
    """Return arrays of ones: float32 of a shape, int32 of a list's length."""
    return [np.ones(s, "float32") if isinstance(s, tuple) else np.array(s, "int32") for s in shapes]


MISFITS = {
    "ranks: the shapes do not fit": (
        CountRanks("tanh"), ones((2, 3), (4, 3), (5, 1), [0, 1, 2, 3], [0, 1], (2,)),
    ),
    "top k: the shapes do not fit": (
        TopK("tanh"), [*ones((2, 3), (4, 3), (5, 1), [0, 0, 0], []), np.int64(2)],
    ),
    "loss: expected scores": (Loss("cross-entropy", "softmax", 1.0), ones((2, 3), (2,), (3,))),
    "GRU: the shapes do not fit": (GRU("tanh"), ones((2, 9), (9,), (2, 3), (3, 6), (3, 4))),
    "gradient of GRU: the shapes do not fit": (
        GRUGradient("tanh"), ones((2, 3), (2, 3), (3, 3), (2, 5), (2, 3)),
    ),
    "update: gradient's size": (
        Update("adagrad", True, False), ones((6,), (3, 2), (3, 2), (3, 2), (4, 2)),
    ),
    "update: gradient's shape": (
        Update(None, False, False, (True,)), ones((6,), (3, 2), [0, 1], (2, 3), (2,)),
    ),
}  # fmt: skip
if not ON_GPU:  # a GPU's Ops do not look at these
    MISFITS["outputs: copies"] = Outputs(), ones([0], [1, 2], (3,))
    MISFITS["logQ: the biases' size"] = (
        LogQ(1.0, 0.5), [*ones((3, 1), (5, 1), [0, 1]), np.asarray(1)],
    )  # fmt: skip


@pytest.mark.parametrize("message", MISFITS)
def test_shapes_that_do_not_fit(message):
    with pytest.raises(ValueError, match=f"^{message}"):
        run_compiled(*MISFITS[message])


# ---------------------------------------------------------------------------- several in one kernel
# What the GPU does in one Op against the Ops that it stands for, one after the other in numpy.


def _dropout(rng, x, p):
    """Return x after dropout, and the inputs that the mask follows from."""
    mask = [np.float32(p), np.int64(rng.integers(2**40)), np.int64(rng.integers(2**40))]
    mask = [np.asarray(v) for v in mask]
    return in_numpy(Dropout(), [x, *mask])[0], mask


@only_on_gpu
@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("factors", [None, (0.7, 0.3)])
@common
@given(m=ROWS, k=ROWS, width=WIDTHS, width_in=WIDTHS, p=st.sampled_from([0, 0.4]), seed=SEEDS)
def test_look_ups(merged, factors, m, k, width, width_in, p, seed):
    from gru4rec_toolkit.ops.rows.gpu import GpuLookUps

    rng = np.random.default_rng(seed)
    n_rows, n_items = rng.integers(1, 30, 2)
    table_in, table = normal(rng, n_rows, width_in), normal(rng, n_items, width)
    biases, log_support = normal(rng, n_items, 1), normal(rng, n_items, 1)
    index = rng.integers(0, n_rows, m).astype(np.int32)
    targets, negatives = (rng.integers(0, n_items, n).astype(np.int32) for n in (m, k))
    copies = [rng.integers(1, 5, k).astype(np.float32)] if merged else []
    rows_in, mask = _dropout(rng, table_in[index], p)
    items, weights = in_numpy(Outputs(), [targets, negatives, *copies])
    offsets, correction = biases[items, 0], []
    if factors:
        correction = [log_support, np.asarray(m)]
        of_items = [biases[items], log_support, items, np.asarray(m)]
        offsets = in_numpy(LogQ(*factors), of_items)[0]
    values = [table_in, index, *mask, table, biases, targets, negatives, *correction, *copies]
    expected = [rows_in, table[items], offsets, items, weights]
    agree(GpuLookUps(factors), values, expected=expected)


@only_on_gpu
def test_look_ups_out_of_range():
    from gru4rec_toolkit.ops.rows.gpu import GpuLookUps

    table, biases, ids = np.ones((5, 3), np.float32), np.ones((5, 1), np.float32), [0, 5, -1]
    ids, mask = np.array(ids, np.int32), [np.asarray(v) for v in (np.float32(0), 1, 1)]
    values = [table, ids, *mask, table, biases, ids, ids[:0], biases, np.asarray(3)]
    for found in run_compiled(GpuLookUps((1, 1)), values)[:3]:
        assert np.isnan(found[1:]).all() and not np.isnan(found[0]).any()


@only_on_gpu
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=min(EXAMPLES, 5), deadline=None)
@given(n=ROWS, seed=SEEDS)
def test_updates_of_several_parameters(method, momentum, n, seed):
    from gru4rec_toolkit.ops.updates.gpu import GpuUpdate

    rng = np.random.default_rng(seed)
    all_weighted = ((), (True,), (), (False, True), (False,))
    values, expected = [], []
    for weighted in all_weighted:
        op = Update(method, momentum, False, weighted)
        n_rows, width = rng.choice([1, 7, 300]), rng.choice([1, 7, 33])
        own = _update_inputs(rng, op, n_rows, width, (n, 3 * n)[: len(weighted)])
        values = [own[0], *values[1:], *own[1:]]
        expected += in_numpy(op, [v.copy() for v in own])
    op = GpuUpdate(method, momentum, False, all_weighted)
    agree(op, values, rtol=2e-5, expected=expected)


@only_on_gpu
@pytest.mark.parametrize("place", [0, 4])
def test_loss_among_others(place):
    from gru4rec_toolkit.ops.losses.gpu import GpuLoss

    rng = np.random.default_rng(0)
    values = [normal(rng, 3, 9), normal(rng, 9), np.ones(9, np.float32)]
    cost, *gradients = in_numpy(Loss("bpr-max", "tanh", 0.5, 1.0), values)
    costs = normal(rng, 5)
    expected = [np.where(np.arange(5) == place, cost, costs), *gradients]
    op = GpuLoss("bpr-max", "tanh", 0.5, 1.0, collects=True)
    agree(op, [*values, costs, np.asarray(place)], rtol=1e-5, expected=expected)
    with pytest.raises(ValueError, match="no such place"):
        run_compiled(op, [*values, costs, np.asarray(5)])


@only_on_gpu
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@common
@given(m=ROWS, n=WIDTHS, p=st.sampled_from([0, 0.4]), seed=SEEDS)
def test_gru_with_dropout_and_resets(activation, m, n, p, seed):
    from gru4rec_toolkit.ops.gru.gpu import GpuGRU, GpuGRUGradient

    rng = np.random.default_rng(seed)
    x, bias, h = normal(rng, m, 3 * n), normal(rng, 3 * n), normal(rng, m, n)
    w_rz, w_h = normal(rng, n, 2 * n) / np.float32(n), normal(rng, n, n) / np.float32(n)
    goes_on = rng.integers(0, 2, m).astype(np.float32)
    new, rz, reset_h, y = in_numpy(GRU(activation), [x, bias, h, w_rz, w_h])
    new, mask = _dropout(rng, new, p)
    values = [x, bias, h, w_rz, w_h, *mask, goes_on]
    expected = [new, rz, reset_h, y, new * goes_on[:, None]]
    agree(GpuGRU(activation), values, rtol=1e-5, scale=0.1, expected=expected)
    d_new = normal(rng, m, n)
    dropped = in_numpy(Dropout(), [d_new, *mask])[0]
    expected = in_numpy(GRUGradient(activation), [dropped, h, w_h, rz, y])
    values = [d_new, h, w_h, rz, y, *mask]
    agree(GpuGRUGradient(activation), values, rtol=1e-5, expected=expected)


@only_on_gpu
@common
@given(m=ROWS, n=WIDTHS, width=WIDTHS, seed=SEEDS)
def test_product_of_columns(m, n, width, seed):
    from gru4rec_toolkit.ops.products.gpu import GpuProductOfColumns

    rng = np.random.default_rng(seed)
    x, y = normal(rng, m, n), normal(rng, m, width)
    start, stop = np.sort(rng.integers(0, width + 1, 2))
    values = [x, y, np.asarray(start), np.asarray(stop)]
    agree(GpuProductOfColumns(), values, rtol=1e-5, expected=[x.T @ y[:, start:stop]])
