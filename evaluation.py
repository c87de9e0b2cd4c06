"""Recall@N and MRR@N of next-item prediction, ranked among all items or among given ones.

Every event of a test session but the first is predicted from those before it. The rank of the
target decides: Recall@N is the share of events with rank <= N, MRR@N the mean of 1 / rank where
rank <= N and 0 elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

import cpu_ops
import losses
import parameters
import sessions
from gru4rec import GRU4Rec
from theano_setup import tensor as tt
from theano_setup import theano
from training import progress_bar
from user_errors import InputError

# scores of one block of items, batch_size x ITEM_BLOCK floats, stay in the processor's caches
ITEM_BLOCK = 8192
# steps of the schedule that are uploaded together
STEP_BLOCK = 256


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
    user_errors.InputError
        If the data cannot be used or shares no item with the training, or a parameter is wrong.
    """
    if not hasattr(gru, "_check_trained"):
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
    better, equal = _count_ranks(gru, log, candidates, batch_size)
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
    if hasattr(pr, "_check_trained"):
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
    order = sessions.training_order(log, time_sort=False)
    batch_size = min(batch_size, len(order))
    better, equal = [], []
    # predict_next_batch wants full batches: slots without a session repeat the first one's item
    session_ids = np.zeros(batch_size, dtype=np.int64)
    slots = np.arange(batch_size)
    for block in sessions.schedule_blocks(log, order, batch_size, STEP_BLOCK):
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
    seed = getattr(getattr(gru, "_trained", gru), "seed", 0)
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


# ---------------------------------------------------------------------------- counting in Theano


def _count_ranks(
    gru: GRU4Rec, log: sessions.SessionLog, candidates: np.ndarray | None, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count, for every predicted event, the other items of higher and of equal score."""
    order = sessions.training_order(log, time_sort=False)
    counter = _RankCounter(gru, candidates, min(batch_size, len(order)))
    counts = []
    n_steps = sessions.count_steps(log, order, batch_size)
    with progress_bar(n_steps, "Evaluation") as progress:
        for block in sessions.schedule_blocks(log, order, batch_size, STEP_BLOCK):
            counts += counter.run_block(block)
            progress.update(len(block.inputs))
    better, equal = zip(*counts)
    return np.concatenate(better), np.concatenate(equal)


class _RankCounter:
    """Two compiled functions: one step of the sessions, one block of items for that step.

    The scores of a step are computed block by block, so memory does not grow with the number of
    items. The target itself is left out of the counts by its index: its score here and in a block
    come from different matrix products and may differ in the last bit.
    """

    def __init__(self, gru: GRU4Rec, candidates: np.ndarray | None, n_rows: int) -> None:
        float_zeros = np.zeros((1, 1), dtype=theano.config.floatX)
        int_zeros = np.zeros((1, 1), dtype=np.int32)
        self.inputs, self.targets = theano.shared(int_zeros), theano.shared(int_zeros)
        self.goes_on = theano.shared(float_zeros)  # 0 where a session ends, else 1
        self.step, self.item_block = theano.shared(np.int64(0)), theano.shared(np.int64(0))
        self.states = gru._zero_states(n_rows)
        self.hidden, self.target_scores = theano.shared(float_zeros), theano.shared(float_zeros[0])
        # a row a step of the block: a GPU is waited for once a block
        self.better, self.equal = (
            theano.shared(np.zeros((1, 1), dtype=np.int64)) for _ in range(2)
        )
        rows, biases, index = gru.Wy, gru.By, None
        if candidates is not None:
            rows, biases = (theano.shared(w.get_value()[candidates]) for w in (gru.Wy, gru.By))
            index = theano.shared(candidates.astype(np.int32))
        n_items = len(rows.get_value(borrow=True))
        self.n_item_blocks = -(-n_items // ITEM_BLOCK)
        self.activation = losses.ranking_activation(gru._trained.final_act)
        self.advance = self._compile_advance(gru)
        self.count = self._compile_count(gru, rows, biases, index)

    def _compile_advance(self, gru: GRU4Rec):
        """One event of each session: new states, scores of the targets before the activation."""
        inputs, targets = self.inputs[self.step], self.targets[self.step]
        new_states = gru._hidden(gru._input_table[inputs], self.states)
        hidden = new_states[-1]
        # a product with all targets, of which the diagonal counts: the same kind of product as for
        # the blocks of items, so equal rows get equal scores
        scores = gru._scores(hidden, gru.Wy[targets], gru.By[targets])
        goes_on = self.goes_on[self.step].dimshuffle(0, "x")
        updates = [(h, new * goes_on) for h, new in zip(self.states, new_states)]
        updates += [
            (self.hidden, hidden),
            (self.target_scores, losses.diagonal(scores)),
            (self.item_block, np.int64(0)),
        ]
        return theano.function([], [], updates=updates).fn

    def _compile_count(self, gru: GRU4Rec, rows, biases, index):
        """Score one block of items and add to the counts."""
        if cpu_ops.usable():
            return self._compile_count_of_all(rows, biases, index)
        start = self.item_block * ITEM_BLOCK
        block = slice(start, start + ITEM_BLOCK)
        scores = gru._scores(self.hidden, rows[block], biases[block])
        # one matrix, so that one computation activates both: two would differ in the last bit, and
        # ties would be lost
        target = self.target_scores.dimshuffle(0, "x")
        both = losses.activation(self.activation)(tt.concatenate([target, scores], axis=1))
        target, scores = both[:, 0].dimshuffle(0, "x"), both[:, 1:]
        if index is None:
            ids = start + tt.arange(scores.shape[1])
        else:
            ids = index[block]
        other = tt.neq(ids.dimshuffle("x", 0), self.targets[self.step].dimshuffle(0, "x"))
        better = (tt.gt(scores, target) & other).sum(axis=1)
        equal = (tt.eq(scores, target) & other).sum(axis=1)
        updates = [
            (self.better, tt.inc_subtensor(self.better[self.step], better)),
            (self.equal, tt.inc_subtensor(self.equal[self.step], equal)),
            (self.item_block, self.item_block + 1),
        ]
        return theano.function([], [], updates=updates).fn

    def _compile_count_of_all(self, rows, biases, index):
        """The same for all items at once."""
        self.n_item_blocks = 1
        if index is None:
            n_items = len(rows.get_value(borrow=True))
            index = theano.shared(np.arange(n_items, dtype=np.int32))
        better, equal = cpu_ops.CountRanks(self.activation)(
            self.hidden, rows, biases, index, self.targets[self.step], self.target_scores
        )
        updates = [
            (self.better, tt.set_subtensor(self.better[self.step], better)),
            (self.equal, tt.set_subtensor(self.equal[self.step], equal)),
        ]
        return theano.function([], [], updates=updates).fn

    def run_block(self, block: sessions.Block) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (better, equal), each (M,), for every step of the block."""
        for h in self.states:
            h.set_value(h.get_value(borrow=True)[block.kept], borrow=True)
        self.inputs.set_value(block.inputs, borrow=True)
        self.targets.set_value(block.targets, borrow=True)
        self.goes_on.set_value((1 - block.ends).astype(theano.config.floatX), borrow=True)
        for counts in (self.better, self.equal):
            counts.set_value(np.zeros(block.inputs.shape, dtype=np.int64), borrow=True)
        for step in range(len(block.inputs)):
            self.step.set_value(np.int64(step))
            self.advance()
            self.count(n_calls=self.n_item_blocks)
        return list(zip(self.better.get_value(), self.equal.get_value()))
