"""Negative samples: their distribution, and the store that hands them out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model.negatives import SampleStore, checked, expected_distinct
from gru4rec_toolkit.ops import library
from gru4rec_toolkit.ops.sampling.op import (
    NegativeSampler,
    alias_table,
    draw_in_c,
    draw_in_numpy,
    merge_in_c,
    merge_in_numpy,
)
from gru4rec_toolkit.theano_setup import theano

SUPPORT = np.array([1, 1, 2, 3, 5, 8, 13, 40, 100, 1000])


def sampler(alpha, n_sample=64, seed=0, support=SUPPORT):
    return NegativeSampler(support, alpha, n_sample, seed)


@pytest.mark.parametrize("alpha", [0, 0.5, 0.75, 1])
def test_distribution_is_support_to_the_alpha(alpha):
    drawn = sampler(alpha)(4000)
    p = SUPPORT**alpha / (SUPPORT**alpha).sum()
    counts = np.bincount(drawn.ravel(), minlength=len(SUPPORT))
    assert stats.chisquare(counts, p * drawn.size).pvalue > 1e-4


def test_draws_are_independent_within_and_across_mini_batches():
    """The number of a pair of items in neighbouring places is that of independent draws."""
    drawn = sampler(0.5)(6000)
    p = SUPPORT**0.5 / (SUPPORT**0.5).sum()
    expected = np.outer(p, p).ravel()
    for first, second in [
        (drawn[:, :-1], drawn[:, 1:]),  # neighbours in a mini-batch
        (drawn[:-1], drawn[1:]),  # the same place in neighbouring mini-batches
        (drawn[:, 0], drawn[:, -1]),
    ]:
        pairs = np.bincount((first * len(SUPPORT) + second).ravel(), minlength=len(expected))
        assert stats.chisquare(pairs, expected * first.size).pvalue > 1e-4


def test_every_mini_batch_varies_as_independent_draws_do():
    """Counts of one item per mini-batch are binomial: not spread more evenly, nor clustered."""
    drawn = sampler(1, n_sample=100)(5000)
    p = SUPPORT[-2] / SUPPORT.sum()
    per_batch = (drawn == 8).sum(axis=1)
    assert per_batch.var() == pytest.approx(100 * p * (1 - p), rel=0.1)


def test_items_without_support_are_never_drawn():
    drawn = sampler(0.75, support=np.array([0, 5, 0, 5]))(100)
    assert set(np.unique(drawn)) == {1, 3}


def test_seed():
    assert np.array_equal(sampler(0.5, seed=1)(9), sampler(0.5, seed=1)(9))
    assert not np.array_equal(sampler(0.5, seed=1)(9), sampler(0.5, seed=2)(9))


def test_the_stream_does_not_depend_on_how_much_is_drawn_at_a_time():
    whole, parts = sampler(0.5)(9), sampler(0.5)
    assert np.array_equal(whole, np.vstack([parts(n).copy() for n in (4, 2, 3)]))


@given(
    support=st.lists(st.integers(0, 10**6), min_size=1, max_size=200).filter(any),
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**40),
    n=st.sampled_from([0, 1, 63, 1000]),
)
@settings(max_examples=50, deadline=None)
def test_c_draws_what_numpy_draws(support, seed, first, n):
    if not library.usable():
        pytest.skip("the kernels need float32")
    table = alias_table(np.array(support) / sum(support))
    drawn = [np.full(n, -1, dtype=np.int32) for _ in range(2)]
    draw_in_c(seed, first, *table, drawn[0])
    draw_in_numpy(seed, first, *table, drawn[1])
    assert np.array_equal(*drawn)


def test_expected_number_of_distinct_items():
    assert expected_distinct(np.array([7]), 0.5, 10) == 1
    drawn = sampler(0.5, n_sample=20)(5000)
    found = np.mean([len(set(row)) for row in drawn.tolist()])
    assert expected_distinct(SUPPORT, 0.5, 20) == pytest.approx(found, rel=0.02)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=300).filter(any))
@settings(max_examples=50, deadline=None)
def test_an_alias_table_holds_the_probabilities(support):
    p = np.array(support) / sum(support)
    threshold, alias = alias_table(p)
    share = threshold / 2.0**64 / len(p)
    found = share + np.bincount(alias, 1 / len(p) - share, minlength=len(p))
    assert np.allclose(found, p, atol=1e-12)


@pytest.mark.parametrize("top", [0, 50, 5000, 2**22, 2**31 - 1])  # counted where few, else sorted
@given(
    rows=st.sampled_from([0, 1, 2, 9]),
    n=st.sampled_from([0, 1, 2, 90, 700]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25, deadline=None)
def test_c_merges_as_numpy_does(top, rows, n, seed):
    if not library.usable():
        pytest.skip("the kernels need float32")
    rng = np.random.default_rng(seed)
    # few different values, so that most come up several times
    values = rng.integers(0, top, 1 + n // 3, dtype=np.int32, endpoint=True)
    drawn = rng.choice(values, (rows, n)).astype(np.int32)
    merged = []
    for merge in (merge_in_c, merge_in_numpy):
        ids, copies = drawn.copy(), np.zeros((rows, n), dtype=np.float32)
        n_distinct = np.zeros(rows, dtype=np.int64)
        merge(ids, copies, n_distinct)
        merged.append([(i[:k], c[:k]) for i, c, k in zip(ids, copies, n_distinct.tolist())])
    for (ids, copies), (expected_ids, expected_copies) in zip(*merged):
        assert np.array_equal(ids, expected_ids)
        assert np.array_equal(copies, expected_copies)


def test_negatives_that_are_no_item_indices():
    if not library.usable():
        pytest.skip("the kernels need float32")
    ids = np.array([[3, -1]], dtype=np.int32)
    with pytest.raises(ValueError, match="negative number"):
        merge_in_c(ids, np.zeros((1, 2), dtype=np.float32), np.zeros(1, dtype=np.int64))


class Counter:
    """Hands out the numbers of the mini-batches that it draws."""

    def __init__(self, n_sample):
        self.n_drawn, self.n_sample = 0, n_sample

    def __call__(self, n_batches):
        numbers = np.arange(self.n_drawn, self.n_drawn + n_batches)
        self.n_drawn += n_batches
        return np.repeat(numbers[:, None], self.n_sample, axis=1)


@settings(max_examples=200, deadline=None)
@given(
    blocks=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    n_batches=st.integers(0, 20),
    on_device=st.booleans(),
)
def test_every_mini_batch_is_used_once_in_order(blocks, n_batches, on_device):
    draw = Counter(n_sample=3)
    store = SampleStore(draw, 3, 3 * n_batches + 2, on_device)
    used, left = [], sum(blocks)
    for n_steps in blocks:
        while n_steps:
            served = store.serve(n_steps, left)
            assert 1 <= served <= n_steps
            row = int(store.row.get_value())
            rows = store.samples.get_value()[row : row + served]
            assert rows.shape == (served, 3)
            used += rows[:, 0].tolist()
            store.row.set_value(np.int64(row + served))  # as the compiled step does
            n_steps -= served
            left -= served
    assert used == list(range(sum(blocks)))
    # a short training draws no more than it needs
    assert draw.n_drawn <= max(sum(blocks), max(blocks))


@pytest.mark.parametrize("on_device", [True, False])
@pytest.mark.parametrize("n_batches", [0, 2, 9])
def test_a_store_that_merges_gives_each_mini_batchs_ids_with_their_number(on_device, n_batches):
    drawn = np.array([[4, 4, 1], [7, 7, 7], [0, 2, 5], [3, 1, 3], [0, 0, 9]], dtype=np.int32)
    kept, given = drawn.copy(), iter(range(len(drawn)))
    store = SampleStore(
        lambda n: drawn[[next(given) for _ in range(n)]], 3, 3 * n_batches, on_device, merge=True
    )
    current = theano.function([], store.negatives())
    found, left = [], len(drawn)
    while left:
        served = store.serve(min(left, 2), left)
        for _ in range(served):
            ids, copies = current()
            found.append(np.repeat(ids, copies.astype(int)).tolist())
            store.row.set_value(store.row.get_value() + 1)
        left -= served
    assert found == np.sort(drawn, axis=1).tolist()
    assert np.array_equal(drawn, kept)  # the user's


class DrawsOnDevice(Counter):
    """A sampler that can fill a store on the device, and remembers which way it was asked."""

    def __init__(self, n_sample):
        super().__init__(n_sample)
        self.asked = []

    def __call__(self, n_batches):
        self.asked.append(("host", n_batches))
        return super().__call__(n_batches)

    def draw_on_device(self, n_batches, merge):
        self.asked.append(("device", n_batches, merge))
        ids = super().__call__(n_batches).astype(np.int32)
        return ids, np.ones(ids.shape, np.float32), np.full(n_batches, self.n_sample)


@pytest.mark.parametrize("merge", [False, True])
def test_a_store_is_drawn_where_it_lies(merge):
    draw = DrawsOnDevice(3)
    store = SampleStore(draw, 3, 30, merge=merge)  # on the device, unless told otherwise
    assert store.serve(4, 100) == 4
    assert draw.asked == [("device", 10, merge)]
    in_memory = DrawsOnDevice(3)
    SampleStore(in_memory, 3, 30, on_device=False, merge=merge).serve(4, 100)
    without_store = DrawsOnDevice(3)
    store = SampleStore(without_store, 3, 2, merge=merge)
    assert not store.on_device and store.serve(4, 100) == 4
    assert in_memory.asked == [("host", 10)] and without_store.asked == [("host", 4)]


def test_a_store_that_merges_keeps_its_memory():
    """New memory for every filling would cost as much time as the merging."""
    store = SampleStore(sampler(1, n_sample=16), 16, 160, merge=True)
    found = []
    for n in (10, 4, 10):
        assert store.serve(n, n) == n
        found.append([v.get_value(borrow=True) for v in (store.samples, store.copies)])
        of_rows = [c[:k].sum() for c, k in zip(found[-1][1], store.n_distinct.get_value())]
        assert of_rows == [16] * n
    for before, after in zip(found[0], found[2]):
        assert len(after) == 10 and np.shares_memory(before, after)


def test_nothing_is_ready_before_it_is_drawn():
    store = SampleStore(Counter(3), 3, 30, merge=True)
    assert store.samples.get_value().shape == store.copies.get_value().shape == (0, 3)
    assert store.n_distinct.get_value().shape == (0,)
    assert store.n_distinct.tag.target == "cpu"  # Theano would move it to a GPU


@pytest.mark.parametrize(
    "drawn, words",
    [
        (np.zeros((5, 2), dtype=int), r"got array.*\(shape \(5, 2\), int64\)"),
        (np.full((5, 3), 1 << 40), "got the index 1099511627776"),  # int32 would make 0 of it
        (np.full((5, 3), 10), "got the index 10"),
        (np.array([[0, 1, 2]] * 4 + [[0, -1, 2]]), "got the index -1"),
        (np.full((5, 3), 0.5), "got the index 0.5"),
        (np.full((5, 3), np.nan), "got the index nan"),
        (np.full((5, 3), np.inf), "got the index inf"),
        (np.full((5, 3), "1"), "got array.*<U1"),
        (np.ones((5, 3), dtype=bool), "got array.*bool"),
        (np.full((5, 3), None), "got array.*object"),
        ([[1, 2, 3], [4, 5]], "got .*4, 5"),
        (None, "got nothing"),
        ("", "got ''"),
        (7, r"got 7 \(shape \(\), int64\)"),
    ],
)
def test_a_users_sampler_that_draws_no_items(drawn, words):
    """Whatever it returns, one sentence says what is expected and what came."""
    with pytest.raises(InputError, match=f"^negative_sampler: expected .* {words}") as failure:
        checked(lambda n: drawn, 3, 10)(5)
    assert "shape (5, 3)" in str(failure.value)
    assert "from 0 to 9" in str(failure.value)
    assert len(str(failure.value).splitlines()) == 1


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int32", "float64"])
def test_a_users_sampler_draws_items(dtype):
    drawn = np.array([[0, 9, 3]] * 5, dtype=dtype)
    found = checked(lambda n: drawn.tolist() if dtype == "int64" else drawn, 3, 10)(5)
    assert found.dtype == np.int32
    assert np.array_equal(found, drawn)
