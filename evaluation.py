"""Recall@N and MRR@N of next-item prediction, ranked among all items or among given ones.

Every event of a test session but the first is predicted from those before it. The rank of the
target decides: Recall@N is the share of events with rank <= N, MRR@N the mean of 1 / rank where
rank <= N and 0 elsewhere.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from gru4rec import GRU4Rec
from gru4rec_toolkit import parameters
from gru4rec_toolkit.data import schedule, sessions
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model.ranking import count_ranks

# steps of the schedule that are prepared together
STEP_BLOCK = 256
# numbers of the evaluations by `evaluate_sessions_batch`
_EVALUATIONS = itertools.count(1)


def evaluate_gpu(
    gru: GRU4Rec,
    test_data: pd.DataFrame,
    items: Sequence | None = None,
    session_key: str = "SessionId",
    item_key: str = "ItemId",
    time_key: str = "Time",
    cut_off: Sequence[int] = (20,),
    batch_size: int = 100,
    mode: str = "standard",
) -> tuple[list[float], list[float]]:
    """Evaluate a model on test sessions (on whatever device Theano runs).

    Test events on items that the training did not see are dropped first. The state starts from zero
    for every session. Memory is bounded by batch_size, whatever the number of items.

    Parameters
    ----------
    gru : GRU4Rec
        A trained model.
    test_data : DataFrame
        One event a row; not changed.
    items : sequence of item ids, optional
        Rank the target among these only (and itself). Default: among all items of the training.
    session_key, item_key, time_key : str
        Columns of test_data.
    cut_off : sequence of int
        List lengths N.
    batch_size : int
        Sessions that are evaluated in parallel; does not change the result.
    mode : str
        Rank of a target with ``better`` items of higher and ``equal`` ones of the same score:

        - standard: 1 + better
        - conservative: 1 + better + equal
        - median: 1 + better + equal / 2
        - tiebreaking: 1 + better + a random integer of 0 to equal, which follows from the seed of
          the training

    Returns
    -------
    (recall, mrr) : two lists of float
        One value a list length.

    Raises
    ------
    gru4rec_toolkit.errors.InputError
        If the data cannot be used or shares no item with the training, or a parameter is wrong.
    """
    if not hasattr(gru, "trained_network"):
        raise InputError(f"gru: expected a trained GRU4Rec model, got {type(gru).__name__}")
    _check_model(gru)
    cut_off, batch_size, mode = parameters.check_arguments(
        cut_off=cut_off, batch_size=batch_size, mode=mode
    )
    log = sessions.index_sessions(
        test_data, session_key, item_key, time_key, item_ids=gru.item_ids, source="test data"
    )
    sessions.check_test_log(log, "test data")
    candidates = None
    if items is not None:
        candidates = np.unique(sessions.known_items(gru.item_ids, items, "items"))
    print(_announcement(cut_off))
    better, equal = count_ranks(gru.network, log, candidates, batch_size)
    return _metrics(_ranks_in_order(gru, better, equal, mode), cut_off)


def evaluate_sessions_batch(
    pr: GRU4Rec,
    test_data: pd.DataFrame,
    items: Sequence | None = None,
    session_key: str = "SessionId",
    item_key: str = "ItemId",
    time_key: str = "Time",
    cut_off: Sequence[int] = (20,),
    batch_size: int = 100,
    mode: str = "standard",
) -> tuple[list[float], list[float]]:
    """Evaluate through `GRU4Rec.predict_next_batch`, event by event in Python.

    .. deprecated:: 0.1.0
        `evaluate_gpu` gives the same results much faster. This works with any model that has
        ``predict_next_batch`` and ``item_ids``, and ``seed`` for tiebreaking.

    Parameters and results are those of `evaluate_gpu`.
    """
    warnings.warn("use evaluate_gpu: same results, much faster", DeprecationWarning, stacklevel=2)
    if not hasattr(pr, "predict_next_batch") or not hasattr(pr, "item_ids"):
        raise InputError(
            "pr: expected a trained model, with predict_next_batch and item_ids, got "
            f"{type(pr).__name__}"
        )
    if hasattr(pr, "trained_network"):
        _check_model(pr)
    cut_off, batch_size, mode = parameters.check_arguments(
        cut_off=cut_off, batch_size=batch_size, mode=mode
    )
    log = sessions.index_sessions(
        test_data, session_key, item_key, time_key, item_ids=pr.item_ids, source="test data"
    )
    sessions.check_test_log(log, "test data")
    candidates = pr.item_ids
    if items is not None:
        candidates = candidates[np.unique(sessions.known_items(pr.item_ids, items, "items"))]
    print(_announcement(cut_off))
    order = schedule.training_order(log, time_sort=False)
    batch_size = min(batch_size, len(order))
    better, equal = [], []
    # predict_next_batch wants full batches: slots without a session repeat the first one's item;
    # ids that no call before had, since the model remembers the sessions of its last call
    session_ids = np.full(batch_size, -(next(_EVALUATIONS) << 32), dtype=np.int64)
    slots = np.arange(batch_size)
    for block in schedule.schedule_blocks(log, order, batch_size, STEP_BLOCK):
        slots = slots[block.kept]
        for inputs, targets, ends in zip(block.inputs, block.targets, block.ends):
            shown = np.full(batch_size, pr.item_ids[inputs[0]], dtype=pr.item_ids.dtype)
            shown[slots] = pr.item_ids[inputs]
            scored = pd.unique(np.concatenate([candidates, pr.item_ids[targets]]))
            scores = pr.predict_next_batch(session_ids, shown, scored, batch_size)
            scores = scores[slots].to_numpy()
            target_ids = pr.item_ids[targets]
            target = scores[pd.Index(scored).get_indexer(target_ids), np.arange(len(slots))]
            others = (scored[:, None] != target_ids) & np.isin(scored, candidates)[:, None]
            better.append(((scores > target) & others).sum(axis=0))
            equal.append(((scores == target) & others).sum(axis=0))
            session_ids[slots[ends == 1]] += 1
    better, equal = np.concatenate(better), np.concatenate(equal)
    return _metrics(_ranks_in_order(pr, better, equal, mode), cut_off)


# ---------------------------------------------------------------------------- arguments, output


def _check_model(gru: GRU4Rec) -> None:
    """Raise an InputError if the model is not trained or its weights are no numbers."""
    for name, weights in gru.weights().items():
        if not np.isfinite(weights).all():
            # every comparison with NaN is false: all targets would come first
            raise InputError(f"the model's weights {name} hold NaN or infinity; train it again")


def _announcement(cut_off: list[int]) -> str:
    lengths = ",".join(map(str, cut_off))
    return f"Measuring Recall@{lengths} and MRR@{lengths}"


# ---------------------------------------------------------------------------- ranks and metrics


def _ranks_in_order(gru, better: np.ndarray, equal: np.ndarray, mode: str) -> np.ndarray:
    """Rank all targets, in an order that does not depend on the mini-batches' schedule."""
    # a model of another class may have a seed of its own
    seed = getattr(gru.network.settings if hasattr(gru, "network") else gru, "seed", 0)
    order = np.lexsort((equal, better))
    return _ranks(better[order], equal[order], mode, np.random.default_rng(seed))


def _ranks(
    better: np.ndarray, equal: np.ndarray, mode: str, rng: np.random.Generator
) -> np.ndarray:
    """Rank of each target, given the other items of higher and of equal score."""
    ties = {
        "standard": lambda: 0,
        "conservative": lambda: equal,
        "median": lambda: equal / 2,
        "tiebreaking": lambda: rng.integers(0, equal, endpoint=True),
    }[mode]()
    return 1 + better + ties


def _metrics(ranks: np.ndarray, cut_off: list[int]) -> tuple[list[float], list[float]]:
    hits = [ranks <= n for n in cut_off]
    recall = [float(hit.mean()) for hit in hits]
    mrr = [float((hit / ranks).mean()) for hit in hits]
    return recall, mrr
