"""Ranks of targets, given how many items score higher and the same, and metrics of these ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def ranks_in_order(better: np.ndarray, equal: np.ndarray, mode: str, seed: int) -> np.ndarray:
    """Rank all targets, in an order that does not depend on the mini-batches' schedule.

    Parameters
    ----------
    better, equal : (n_predicted,) int arrays
        How many other items have a higher score than each target, and how many the same.
    mode : str
        One of `parameters.TIE_MODES`.
    seed : int
        Draws the ranks of the mode tiebreaking.

    Returns
    -------
    (n_predicted,) array
        By the number of better items, then of equal ones; floats in the mode median, else integers.
    """
    order = np.lexsort((equal, better))
    better, equal = better[order], equal[order]
    ties: dict[str, Callable[[], Any]] = {
        "standard": lambda: 0,
        "conservative": lambda: equal,
        "median": lambda: equal / 2,
        "tiebreaking": lambda: np.random.default_rng(seed).integers(0, equal, endpoint=True),
    }
    return 1 + better + ties[mode]()


def recall_and_mrr(rank: np.ndarray, cut_off: Sequence[int]) -> tuple[list[float], list[float]]:
    """Return Recall@N and MRR@N, one value a list length N in each list."""
    hits = [rank <= n for n in cut_off]
    recall = [float(hit.mean()) for hit in hits]
    mrr = [float((hit / rank).mean()) for hit in hits]
    return recall, mrr
