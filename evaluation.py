"""Recall@N and MRR@N of next-item prediction, ranked among all items or among given ones.

Every event of a test session but the first is predicted from those before it. The rank of the
target decides: Recall@N is the share of events with rank <= N, MRR@N the mean of 1 / rank where
rank <= N and 0 elsewhere.
"""

from __future__ import annotations

import copy
import itertools
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gru4rec_toolkit import parameters
from gru4rec_toolkit.baselines import Baseline
from gru4rec_toolkit.data import schedule, sessions
from gru4rec_toolkit.data.ids import Ids
from gru4rec_toolkit.errors import InputError

# what imports Theano is imported where it is used: baselines do without
if TYPE_CHECKING:
    from gru4rec import GRU4Rec

# steps of the schedule that are prepared together
STEP_BLOCK = 256
# ids of sessions that no model has seen, whatever was evaluated or predicted before: a model keeps
# the state of a slot whose id stays the same from call to call
_new_session = itertools.count(-(2**62))


def evaluate_gpu(
    gru: GRU4Rec | Baseline,
    test_data: pd.DataFrame | sessions.SessionLog,
    items: Ids | None = None,
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
    gru : GRU4Rec or Baseline
        A trained model.
    test_data : DataFrame or SessionLog
        One event a row; not changed. Or what `gru4rec_toolkit.data.sessions.index_sessions` made of
        it, given ``item_ids=gru.item_ids``. This saves the indexing where a test set is evaluated
        several times, and memory: a log takes 4 bytes an event and 16 bytes a session.
    items : sequence of item ids, optional
        Rank the target among these only (and itself). Default: among all items of the training.
    session_key, item_key, time_key : str
        Columns of test_data; a SessionLog needs none.
    cut_off : sequence of int
        List lengths N.
    batch_size : int
        Sessions that are evaluated in parallel; does not change the result, and is not used for a
        baseline.
    mode : str
        Rank of a target with ``better`` items of higher and ``equal`` ones of the same score:

        - standard: 1 + better
        - conservative: 1 + better + equal
        - median: 1 + better + equal / 2
        - tiebreaking: 1 + better + a random integer of 0 to equal, which follows from the seed of
          the training

        The items that a baseline has no score for all tie. Where the standard mode owes them hits,
        a warning says so.

    Returns
    -------
    (recall, mrr) : two lists of float
        One value a list length.

    Raises
    ------
    gru4rec_toolkit.errors.InputError
        If the data cannot be used, shares no item with the training or was indexed with other items
        than the model's, or a parameter is wrong.
    """
    if isinstance(gru, Baseline):
        gru.check_fitted()
    elif hasattr(gru, "trained_network"):
        _check_model(gru)
    else:
        raise InputError(f"gru: expected a trained GRU4Rec model, got {type(gru).__name__}")
    cut_off, batch_size, mode = parameters.check_arguments(
        cut_off=cut_off, batch_size=batch_size, mode=mode
    )
    log = _indexed(test_data, (session_key, item_key, time_key), gru.item_ids)
    candidates = None
    if items is not None:
        candidates = np.unique(sessions.known_items(gru.item_ids, items, "items"))
    print(_announcement(cut_off))
    if isinstance(gru, Baseline):
        better, equal = gru.count_ranks(log, candidates)
        if mode == "standard":
            _warn_of_ties(better, equal, cut_off)
    elif getattr(gru, "predicts_by_network", True):
        from gru4rec_toolkit.model import ranking

        better, equal = ranking.count_ranks(gru.network, log, candidates, batch_size)
    else:  # a variant with a prediction of its own
        better, equal = _count_by_prediction(gru, gru.item_ids, log, candidates, batch_size)
    return _metrics(_ranks_in_order(gru, better, equal, mode), cut_off)


def evaluate_sessions_batch(
    pr: GRU4Rec,
    test_data: pd.DataFrame | sessions.SessionLog,
    items: Ids | None = None,
    session_key: str = "SessionId",
    item_key: str = "ItemId",
    time_key: str = "Time",
    cut_off: Sequence[int] = (20,),
    batch_size: int = 100,
    mode: str = "standard",
) -> tuple[list[float], list[float]]:
    """Evaluate any model through its ``predict_next_batch``, event by event in Python.

    .. deprecated:: 0.1.0
        For a `GRU4Rec`: `evaluate_gpu` gives the same results much faster.

    A model has ``item_ids``, an array, ``predict_next_batch`` as `GRU4Rec` has it, and may have
    ``seed`` for tiebreaking. The scores that it predicts are numbers, one row for each item that it
    was asked for, in that order, and one column a slot.

    Parameters and results are those of `evaluate_gpu`. The sessions that the model predicts for
    meanwhile keep their states. A model of another class ranks by what it predicts, and its slots
    forget their sessions.
    """
    if not hasattr(pr, "predict_next_batch") or not hasattr(pr, "item_ids"):
        raise InputError(
            "pr: expected a trained model, with predict_next_batch and item_ids, got "
            f"{type(pr).__name__}"
        )
    scorer = pr
    if hasattr(pr, "trained_network"):
        message = "use evaluate_gpu: same results, much faster"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        _check_model(pr)
        scorer = _scorer(pr) if getattr(pr, "predicts_by_network", True) else pr
    cut_off, batch_size, mode = parameters.check_arguments(
        cut_off=cut_off, batch_size=batch_size, mode=mode
    )
    log = _indexed(test_data, (session_key, item_key, time_key), pr.item_ids)
    candidates = None
    if items is not None:
        candidates = np.unique(sessions.known_items(pr.item_ids, items, "items"))
    print(_announcement(cut_off))
    better, equal = _count_by_prediction(scorer, pr.item_ids, log, candidates, batch_size)
    return _metrics(_ranks_in_order(pr, better, equal, mode), cut_off)


def _count_by_prediction(
    model, item_ids: np.ndarray, log: sessions.SessionLog, candidates, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count what `count_ranks` counts, by the scores that a model predicts."""
    among = item_ids if candidates is None else item_ids[candidates]
    order = schedule.training_order(log, time_sort=False)
    batch_size = min(batch_size, len(order))
    better, equal = [], []
    # predict_next_batch wants full batches: slots without a session repeat the first one's item
    session_ids = np.fromiter(_new_session, dtype=np.int64, count=batch_size)
    slots = np.arange(batch_size)
    for block in schedule.schedule_blocks(log, order, batch_size, STEP_BLOCK):
        slots = slots[block.kept]
        for inputs, targets, ends in zip(block.inputs, block.targets, block.ends):
            shown = np.full(batch_size, item_ids[inputs[0]], dtype=item_ids.dtype)
            shown[slots] = item_ids[inputs]
            scored = pd.unique(np.concatenate([among, item_ids[targets]]))
            scores = _as_scores(
                model.predict_next_batch(session_ids, shown, scored, batch_size), scored, batch_size
            )[:, slots]
            target_ids = item_ids[targets]
            target = scores[pd.Index(scored).get_indexer(target_ids), np.arange(len(slots))]
            others = (scored[:, None] != target_ids) & np.isin(scored, among)[:, None]
            better.append(((scores > target) & others).sum(axis=0))
            equal.append(((scores == target) & others).sum(axis=0))
            ended = slots[ends == 1]
            session_ids[ended] = np.fromiter(_new_session, dtype=np.int64, count=len(ended))
    return np.concatenate(better), np.concatenate(equal)


def _as_scores(predicted, scored: np.ndarray, batch_size: int) -> np.ndarray:
    """Return predicted scores (n_scored, batch_size); raise an InputError if they are not that."""
    scores = np.asarray(predicted)
    labels = getattr(predicted, "index", None)
    expected = f"expected {len(scored)} rows, one an item in the order asked for, and {batch_size}"
    if scores.shape != (len(scored), batch_size) or scores.dtype.kind not in "fiub":
        raise InputError(
            f"predict_next_batch: {expected} columns of numbers, got {scores.dtype} {scores.shape}"
        )
    if isinstance(labels, pd.Index) and not np.array_equal(labels.to_numpy(), scored):
        raise InputError(f"predict_next_batch: {expected} columns, got rows in another order")
    # every comparison with NaN is false: all targets would come first
    if np.isnan(scores).any():
        raise InputError("predict_next_batch: expected numbers, got NaN among the scores")
    return scores


# ---------------------------------------------------------------------------- arguments, output


def _check_model(gru: GRU4Rec) -> None:
    """Raise an InputError if the model is not trained or its weights cannot be used."""
    from gru4rec_toolkit.model import weights

    # every comparison with NaN is false: all targets would come first
    weights.check_values(gru.weights(), gru.trained_network().settings, len(gru.item_ids))


def _indexed(
    test_data: pd.DataFrame | sessions.SessionLog, keys: tuple[str, str, str], item_ids: Ids
) -> sessions.SessionLog:
    """Return test data as a log of the model's items that has something to predict."""
    if isinstance(test_data, sessions.SessionLog):
        log = test_data
        sessions.check_fit(log, item_ids, "test data")
    else:
        log = sessions.index_sessions(test_data, *keys, item_ids=item_ids, source="test data")
    sessions.check_test_log(log, "test data")
    return log


def _scorer(gru: GRU4Rec) -> GRU4Rec:
    """Return a model with the same weights whose predictions rank as its scores do.

    A softmax rounds different scores to one probability. The model's own slots are left alone.
    """
    from gru4rec_toolkit.model.losses import ranking_activation

    network = copy.copy(gru.trained_network())  # the shared variables stay the same
    final_act = ranking_activation(network.settings.final_act)
    network.settings = network.settings.changed({"final_act": final_act})
    scorer = copy.copy(gru)
    scorer.take(network, gru.item_ids)
    return scorer


def _announcement(cut_off: Sequence[int]) -> str:
    lengths = ",".join(map(str, cut_off))
    return f"Measuring Recall@{lengths} and MRR@{lengths}"


def _warn_of_ties(better: np.ndarray, equal: np.ndarray, cut_off: Sequence[int]) -> None:
    """Log how many targets are hits of the standard mode alone, if they are many."""
    shares = [float(((better < n) & (better + equal >= n)).mean()) for n in cut_off]
    share, n = max(zip(shares, cut_off))
    if share > 0.01:
        logging.getLogger("gru4rec").warning(
            f"{share:.1%} of the targets are among the first {n} only because a target comes first "
            "among the items that tie with it; look at -e conservative (mode='conservative'), too"
        )


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
    """Return the rank of each target, given how many other items score higher and equal."""
    ties: dict[str, Callable[[], Any]] = {
        "standard": lambda: 0,
        "conservative": lambda: equal,
        "median": lambda: equal / 2,
        "tiebreaking": lambda: rng.integers(0, equal, endpoint=True),
    }
    return 1 + better + ties[mode]()


def _metrics(ranks: np.ndarray, cut_off: Sequence[int]) -> tuple[list[float], list[float]]:
    hits = [ranks <= n for n in cut_off]
    recall = [float(hit.mean()) for hit in hits]
    mrr = [float((hit / ranks).mean()) for hit in hits]
    return recall, mrr
