"""The columns of the highest scores, against sorting; ranks are tested with the baselines."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec_toolkit.baselines.counting import best_columns


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 4),
    n_items=st.integers(1, 30),
    different=st.integers(1, 10),
    data=st.data(),
)
def test_best_columns(seed, rows, n_items, different, data):
    """A stable sort: the highest first, and of equal ones the first."""
    scores = np.random.default_rng(seed).integers(-different, different, (rows, n_items)) / 3
    n = data.draw(st.integers(1, n_items))
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    assert best_columns(scores, n).tolist() == expected.tolist()
