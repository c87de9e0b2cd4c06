"""The matrix products of the kernels against float64, on both sides of every choice they make."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from helpers.team import team_of
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec_toolkit.ops.library import load, usable

pytestmark = pytest.mark.skipif(not usable(), reason="the kernels need float32")

# (a transposed, b transposed)
LAYOUTS = {"a b": (0, 0), "a b^T": (0, 1), "a^T b": (1, 0), "a^T b^T": (1, 1)}
# (m, n, k). With AVX2, tiles have 6 x 16 elements or 8 x 8; sums are computed 128 or 256 terms at a
# time, results 48 rows at a time; what is packed, 32768 elements at a time. With AVX-512 it is
# 12 x 32 or 12 x 16 or 12 x 8 elements, 256 or 128 terms, 96 rows, and 65536 elements.
SIZES = [
    (1, 1, 1),
    (1, 100, 100),
    (100, 1, 100),
    (5, 7, 9),
    (6, 16, 8),
    (7, 17, 7),
    (8, 15, 16),
    (9, 8, 15),
    (11, 9, 17),
    (12, 33, 129),
    (13, 31, 127),
    (16, 48, 128),
    (17, 49, 257),
    (32, 100, 100),  # of rsc15
    (32, 300, 100),
    (100, 300, 32),
    (32, 1201, 100),
    (1201, 100, 32),
    (32, 100, 1201),
    (80, 97, 673),  # a^T is packed in several parts
    (97, 700, 80),  # so is b
    (12, 24, 31),
    (13, 40, 33),
    (25, 41, 300),
    (100, 600, 300),
    (150, 33, 1025),
]
# where tiles give way to BLAS
THRESHOLDS = [
    (128, 40, 50),
    (129, 40, 50),
    (20, 30, 2048),
    (20, 30, 2049),
    (30, 40, 96),
    (30, 40, 97),
    (80, 30, 40),
    (81, 30, 40),
    (9, 64, 2048),
    (9, 64, 2049),
    (9, 255, 20),
    (9, 256, 20),
    (9, 257, 20),
    (512, 20, 30),
    (513, 20, 30),
    (95, 300, 260),
    (96, 300, 260),
    (20, 30, 1024),
    (20, 30, 1025),
]


def padded(x: np.ndarray, gap: int, value: float) -> np.ndarray:
    """Return a matrix of the same elements with `gap` more columns of memory, all `value`."""
    memory = np.full((x.shape[0], x.shape[1] + gap), value, dtype=np.float32)
    memory[:, : x.shape[1]] = x
    return memory


def product(library, layout: str, a: np.ndarray, b: np.ndarray, gap: int = 3) -> np.ndarray:
    """Return a b, given to the library in this layout, with NaN between the rows of the operands.

    Nothing may be written between the rows of the result.
    """
    trans_a, trans_b = LAYOUTS[layout]
    (m, k), n = a.shape, b.shape[1]
    a, b = padded(a.T if trans_a else a, gap, np.nan), padded(b.T if trans_b else b, gap, np.nan)
    c = np.full((m, n + gap), -7, dtype=np.float32)
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, c)]
    strides = [x.shape[1] for x in (a, b, c)]
    arguments = [value for pair in zip(pointers, strides) for value in pair]
    library.gk_product(trans_a, trans_b, m, n, k, *arguments)
    assert (c[:, n:] == -7).all()
    return c[:, :n]


def operands(rng, m: int, n: int, k: int):
    return (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n)))


def check(library, layout, m, n, k, seed=0, gap=3):
    a, b = operands(np.random.default_rng(seed), m, n, k)
    found = product(library, layout, a, b, gap)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    terms = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    assert (np.abs(found - exact) <= 1e-6 * terms).all()  # NaN would not be
    assert np.array_equal(found, product(library, layout, a, b, gap))


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("m", "n", "k"), SIZES + THRESHOLDS)
def test_product(m, n, k, layout, threads):
    with team_of(threads) as library:
        check(library, layout, m, n, k)
        # rows one after the other: some are at multiples of a kilobyte
        check(library, layout, m, n, k, gap=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(1, 40),
    n=st.integers(1, 70),
    k=st.integers(1, 40) | st.sampled_from([127, 128, 129, 255, 256, 257, 300]),
    gap=st.integers(0, 17),
    seed=st.integers(0, 2**31),
)
def test_product_of_any_size(layout, m, n, k, gap, seed):
    with team_of(1) as library:
        check(library, layout, m, n, k, seed, gap)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("m", "n", "k"), [(13, 21, 11), (32, 100, 100), (129, 20, 97)])
def test_what_is_not_a_number_stays_where_it_belongs(m, n, k, layout, value):
    rng = np.random.default_rng(0)
    with team_of(2) as library:
        for i, j, p in ((0, 0, 0), (m - 1, n - 1, k - 1), (m // 2, n // 2, k // 2)):
            a, b = operands(rng, m, n, k)
            a[i, p] = b[p, j] = value
            a[0, k - 1] = 0  # zero times infinity is not a number
            with np.errstate(invalid="ignore"):
                expected = a.astype(np.float64) @ b.astype(np.float64)
            found = product(library, layout, a, b)
            for kind in (np.isnan, np.isposinf, np.isneginf):
                assert np.array_equal(kind(found), kind(expected))


# what a running session needs: its scores alone are those among others
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("k", [1, 7, 8, 100, 127, 129, 255, 257, 600])
@pytest.mark.parametrize("n", [1, 8, 33, 300])
def test_one_row_has_the_scores_of_equal_rows_among_others(n, k, threads):
    if not load().gk_has_tiles():
        pytest.skip("BLAS does not promise it")
    rng = np.random.default_rng(0)
    hidden, rows = (rng.standard_normal((size, k)).astype(np.float32) for size in (5, n))
    with team_of(threads) as library:
        together = product(library, "a b^T", hidden, rows.T)
        for i in range(5):
            alone = product(library, "a b^T", hidden[i : i + 1], rows.T)
            assert np.array_equal(alone[0], together[i])


# what ranking needs: a target's score comes from a product with the targets' rows, the others' from
# products with blocks of items
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(("m", "k"), [(1, 100), (7, 33), (32, 100), (80, 480), (100, 224)])
def test_equal_rows_have_equal_scores_in_all_products(m, k, threads):
    if not load().gk_has_tiles():
        pytest.skip("BLAS does not promise it")
    rng = np.random.default_rng(0)
    hidden, rows = rng.standard_normal((2, m, k)).astype(np.float32)
    with team_of(threads) as library:
        own = product(library, "a b^T", hidden, rows.T)
        others = product(library, "a b^T", hidden, np.concatenate([rows[3:], rows, rows]).T)
    assert np.array_equal(others[:, -m:], own)
    assert np.array_equal(others[:, -2 * m : -m], own)
