"""Recall@N, MRR@N and more of next-item prediction, ranked among all items or among given ones.

Every event of a test session but the first is predicted from those before it. The rank of the
target decides: Recall@N is the share of events with rank <= N, MRR@N the mean of 1 / rank where
rank <= N and 0 elsewhere. `ranks` gives the rank of every target; `compare` and `breakdown` work on
such ranks.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gru4rec_toolkit import parameters, significance, tablefile
from gru4rec_toolkit.baselines import Baseline
from gru4rec_toolkit.baselines.counting import best_columns
from gru4rec_toolkit.data import schedule, sessions
from gru4rec_toolkit.data.ids import Ids
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.ranks import ranks_in_order, recall_and_mrr
from gru4rec_toolkit.significance import breakdown, compare

# what imports Theano is imported where it is used: baselines do without
if TYPE_CHECKING:
    from gru4rec import GRU4Rec
    from gru4rec_toolkit.model.replay import Continuation

__all__ = ["breakdown", "compare", "evaluate_gpu", "evaluate_sessions_batch", "ranks"]

# steps of the schedule that are prepared together
STEP_BLOCK = 256
# rows of ranks that are written together
RANKS_AT_ONCE = 1 << 16
# ids of sessions that no model has seen, whatever was evaluated or predicted before: a model keeps
# the state of a slot whose id stays the same from call to call
_new_session = itertools.count(-(2**62))


def evaluate_gpu(
    gru: GRU4Rec | Baseline,
    test_data: pd.DataFrame | sessions.SessionLog,
    items: Ids | None = None,
    session_key: str | None = None,
    item_key: str | None = None,
    time_key: str | None = None,
    cut_off: Sequence[int] = (20,),
    batch_size: int = 100,
    mode: str = "standard",
    extra: Sequence[str] = (),
    ranks_path: str | os.PathLike | None = None,
    force: bool = False,
    user_key: str | None = None,
    history: pd.DataFrame | sessions.SessionLog | None = None,
) -> tuple[list[float], ...]:
    """Evaluate a model on test sessions (on whatever device Theano runs).

    Test events on items that the training did not see are dropped first. The state starts from zero
    for every session, unless there are users or a history. Memory is bounded by batch_size,
    whatever the number of items; with a history it also takes the states of all sequences.

    Parameters
    ----------
    gru : GRU4Rec or Baseline
        A trained model.
    test_data : DataFrame or SessionLog
        One event a row; not changed. Or what `gru4rec_toolkit.data.sessions.index_sessions` made of
        it, given ``item_ids=gru.item_ids``. This saves the indexing where a test set is evaluated
        several times, and memory: a log takes 4 bytes an event and 24 bytes a session.
    items : sequence of item ids, optional
        Rank the target among these only (and itself). Default: among all items of the training.
    session_key, item_key, time_key : str, optional
        Columns of test_data; a SessionLog needs none. Default: the model's, or SessionId, ItemId,
        Time where the data has no column of that name.
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
    extra : sequence of str
        Further metrics. The lists of the last two hold the N items of highest score, of equal
        scores those that the training has seen first; the mode does not change them.

        - ndcg: mean of 1 / log2(1 + rank) where rank <= N and 0 elsewhere, which is the NDCG where
          one item is relevant
        - hitrate: with one relevant item another name of the recall, and equal to it
        - coverage: share of all items (of ``items``, if given) that are in at least one list
        - popularity: mean over the lists of the mean share that their items have of all events of
          the training
    ranks_path : path, optional
        Write the rank of every target to this file, as `ranks` returns them: Parquet
        (``.parquet``, needs pyarrow) or tab separated text (``.tsv``). The file is written part by
        part, whole or not at all.
    force : bool
        Replace an existing file there that is no file of ranks, too.
    user_key : str, optional
        Column of the users: the state is carried from one session of a user to the next, as in a
        training with this parameter. The first event of a session is no target nevertheless.
        Default: the model's, as in a validation; ``""``: every session starts from zero.
    history : DataFrame or SessionLog, optional
        Events before the test, such as the training data, with the same columns: every session of
        the test, or with users every user, starts from the state that its own events there
        leave. They are replayed once, the last ``max_sequence`` of each. The first event of the
        test is a target where its session has begun in the history. Needs a `GRU4Rec`; a SessionLog
        has to be indexed with ``keep_session_ids=True``, and so has the test's then.

    Returns
    -------
    (recall, mrr, *extra) : lists of float
        One value a list length in each of them.

    Raises
    ------
    gru4rec_toolkit.errors.InputError
        If the data cannot be used, shares no item with the training or was indexed with other items
        than the model's, the ranks cannot be written, the model's support is not known
        (popularity), or a parameter is wrong. Where the ranks are not written after all, on a full
        disk, the exception's attribute ``metrics`` has what would have been returned.
    """
    if isinstance(gru, Baseline):
        gru.check_fitted()
    elif hasattr(gru, "trained_network"):
        _check_model(gru)
    else:
        raise InputError(f"gru: expected a trained GRU4Rec model, got {type(gru).__name__}")
    cut_off, batch_size, mode, extra, force = parameters.check_arguments(
        cut_off=cut_off, batch_size=batch_size, mode=mode, extra=extra, force=force
    )
    if ranks_path is not None:
        tablefile.check_writable(tablefile.RANKS, ranks_path, force)
    keys = (session_key, item_key, time_key, user_key)
    keep_ids = ranks_path is not None
    task = _Task(gru, _own_scorer(gru), test_data, items, keys, batch_size, keep_ids, history)
    found = task.metrics(cut_off, mode, extra)
    if isinstance(gru, Baseline) and mode == "standard":
        _warn_of_ties(*task.counts(), cut_off)
    if ranks_path is not None:
        try:
            tablefile.write(tablefile.RANKS, ranks_path, task.tables(mode, RANKS_AT_ONCE), force)
        except BaseException as err:  # Ctrl-C, too: the metrics may have taken hours
            vars(err)["metrics"] = found
            raise
    return found


def evaluate_sessions_batch(
    pr: GRU4Rec,
    test_data: pd.DataFrame | sessions.SessionLog,
    items: Ids | None = None,
    session_key: str | None = None,
    item_key: str | None = None,
    time_key: str | None = None,
    cut_off: Sequence[int] = (20,),
    batch_size: int = 100,
    mode: str = "standard",
    extra: Sequence[str] = (),
) -> tuple[list[float], ...]:
    """Evaluate any model through its ``predict_next_batch``, event by event in Python.

    .. deprecated:: 1.0.0
        For a `GRU4Rec`: `evaluate_gpu` gives the same results much faster.

    A model has ``item_ids``, an array, ``predict_next_batch`` as `GRU4Rec` has it, and may have
    ``seed`` for tiebreaking and ``support`` for the metric popularity. The scores that it predicts
    are numbers, one row for each item that it was asked for, in that order, and one column a slot.

    Parameters and results are those of `evaluate_gpu`. The sessions that the model predicts for
    meanwhile keep their states. A model of another class ranks by what it predicts, and its slots
    forget their sessions. Users are not looked at: every session starts from zero.
    """
    _check_predicts(pr, "pr")
    scorer = pr
    if hasattr(pr, "trained_network"):
        message = "use evaluate_gpu: same results, much faster"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        _check_model(pr)
        scorer = _scorer(pr) if getattr(pr, "predicts_by_network", True) else pr
    cut_off, batch_size, mode, extra = parameters.check_arguments(
        cut_off=cut_off, batch_size=batch_size, mode=mode, extra=extra
    )
    keys = (session_key, item_key, time_key, "")
    task = _Task(pr, scorer, test_data, items, keys, batch_size)
    return task.metrics(cut_off, mode, extra)


def ranks(
    model: Any,
    test_data: pd.DataFrame | sessions.SessionLog,
    items: Ids | None = None,
    session_key: str | None = None,
    item_key: str | None = None,
    time_key: str | None = None,
    batch_size: int = 100,
    mode: str = "standard",
    user_key: str | None = None,
    history: pd.DataFrame | sessions.SessionLog | None = None,
) -> pd.DataFrame:
    """Return the rank of every target: what `compare` and `breakdown` work on.

    Parameters
    ----------
    model : GRU4Rec, Baseline, or any model that `evaluate_sessions_batch` takes
    test_data : DataFrame or SessionLog
        As for `evaluate_gpu`; a log has to be indexed with ``keep_session_ids=True``.
    items, session_key, item_key, time_key, batch_size, mode, user_key, history
        As for `evaluate_gpu`.

    Returns
    -------
    DataFrame
        One row for each event that is predicted, by session id, then by time (with users by user,
        then by session and time), with the columns:

        - SessionId, ItemId: of the target; integers, or strings
        - Position: of the target among the events of its session that are on items of the training,
          those of the history included, int64; the first that is predicted has 2
        - Better, Equal: how many other items have a higher and the same score, int64
        - Rank: by the mode; int64, float64 in the median mode

    Raises
    ------
    gru4rec_toolkit.errors.InputError
        As `evaluate_gpu`.
    """
    batch_size, mode = parameters.check_arguments(batch_size=batch_size, mode=mode)
    scorer: Any = None
    if isinstance(model, Baseline):
        model.check_fitted()
    elif hasattr(model, "trained_network"):
        _check_model(model)
        scorer = _own_scorer(model)
    else:
        _check_predicts(model, "model")
        scorer = model
    keys = (session_key, item_key, time_key, user_key)
    task = _Task(model, scorer, test_data, items, keys, batch_size, True, history)
    (table,) = task.tables(mode, task.log.n_events)
    return table


# ---------------------------------------------------------------------------- one evaluation


class _Task:
    """A model and a test log: the targets' counts, their ranks, and the lists of the model.

    Parameters
    ----------
    model : object with item_ids
    scorer : object with predict_next_batch, or None
        What the items are ranked by; None: the kernels, by the scores of the model's network.
    """

    def __init__(
        self,
        model: Any,
        scorer: Any,
        test_data: pd.DataFrame | sessions.SessionLog,
        items: Ids | None,
        named: tuple[str | None, ...],
        batch_size: int,
        keep_session_ids: bool = False,
        history: pd.DataFrame | sessions.SessionLog | None = None,
    ) -> None:
        self.model, self.scorer, self.batch_size = model, scorer, batch_size
        keys = _columns(model, named, test_data)
        self.log = _indexed(test_data, keys, model.item_ids, keep_session_ids, history is not None)
        if named[3] == "":
            self.log = dataclasses.replace(self.log, user_offsets=None)
        self.continued: Continuation | None = None
        if self.log.user_offsets is not None or history is not None:
            self._go_on(history, keys)
        self.candidates: np.ndarray | None = None
        if items is not None:
            self.candidates = np.unique(sessions.known_items(model.item_ids, items, "items"))
        self._counts: tuple[np.ndarray, np.ndarray] | None = None

    def _go_on(
        self,
        history: pd.DataFrame | sessions.SessionLog | None,
        keys: tuple[str, str, str, str | None],
    ) -> None:
        """Let the test's sequences go on from their histories."""
        if isinstance(self.model, Baseline) or self.scorer is not None:
            raise InputError(
                f"history, user_key: {type(self.model).__name__} predicts in a way of its own, and "
                'states are those of a GRU4Rec\'s network; leave them out (user_key="", in the '
                "shell -uk None)"
            )
        from gru4rec_toolkit.model.replay import Continuation

        past = None
        if history is not None:
            past = sessions.as_log(
                *(history, keys[:3], self.model.item_ids, "history"),
                keep_session_ids=True,
                user_key=keys[3],
            )
        self.continued = Continuation(self.model.network, self.log, past)
        self.log = self.continued.test.log

    @functools.cached_property
    def _initial(self) -> list[np.ndarray] | None:
        """Return the states that the log's sequences begin with, None for zeros."""
        return None if self.continued is None else self.continued.states()

    @functools.cached_property
    def _counting(self) -> np.ndarray | slice:
        """Return which steps of the schedule predict a target, as an index of all."""
        return slice(None) if self.continued is None else self.continued.counting(self.batch_size)

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Count the items of higher and of equal score for each target.

        They are in the schedule's order; those of a baseline are in the order of the log.
        """
        if self._counts is None:
            arguments = (self.log, self.candidates, self.batch_size)
            if isinstance(self.model, Baseline):
                self._counts = self.model.count_ranks(self.log, self.candidates)
            elif self.scorer is None:
                from gru4rec_toolkit.model import ranking

                found = ranking.count_ranks(
                    self.model.network, *arguments, initial=self._initial
                )
                self._counts = found[0][self._counting], found[1][self._counting]
            else:
                self._counts = _count_by_prediction(self.scorer, self.model.item_ids, *arguments)
        return self._counts

    def metrics(
        self, cut_off: Sequence[int], mode: str, extra: Sequence[str]
    ) -> tuple[list[float], ...]:
        """Return recall, mrr and the extra metrics, each a list with one value a list length."""
        share = _share_of_events(self.model) if "popularity" in extra else None
        print(_announcement(cut_off))
        rank = _ranks_in_order(self.model, *self.counts(), mode)
        recall, mrr = recall_and_mrr(rank, cut_off)
        found = {"hitrate": recall}
        found["ndcg"] = [float(significance.gains(rank, n)[2].mean()) for n in cut_off]
        if "coverage" in extra or share is not None:
            found.update(self._metrics_of_lists(cut_off, share))
        return recall, mrr, *(found[name] for name in extra)

    def _metrics_of_lists(
        self, cut_off: Sequence[int], share: np.ndarray | None
    ) -> dict[str, list[float]]:
        """Return coverage and, given the items' shares of events, popularity of the top-N lists."""
        n_items = len(self.model.item_ids)
        n_listed = n_items if self.candidates is None else len(self.candidates)
        seen = np.zeros((len(cut_off), n_items), dtype=bool)
        shares, n_lists = np.zeros(len(cut_off)), 0
        for lists in self.lists(min(max(cut_off), n_listed)):
            n_lists += len(lists)
            for i, n in enumerate(cut_off):
                seen[i, lists[:, :n]] = True
                if share is not None:
                    shares[i] += share[lists[:, :n]].mean(axis=1).sum()
        return {
            "coverage": (seen.sum(axis=1) / n_listed).tolist(),
            "popularity": (shares / n_lists).tolist(),
        }

    def lists(self, length: int) -> Iterator[np.ndarray]:
        """Yield top-N lists, (M, length) item indices, in the order of `counts`."""
        arguments = (self.log, self.candidates, self.batch_size)
        if isinstance(self.model, Baseline):
            return self.model.top_lists(self.log, self.candidates, length)
        if self.scorer is None:
            from gru4rec_toolkit.model.toplists import top_lists

            lists = top_lists(self.model.network, *arguments, length, self._initial)
            return lists if self.continued is None else _flagged(lists, self._counting)
        return _lists_by_prediction(self.scorer, self.model.item_ids, *arguments, length)

    def tables(self, mode: str, n_rows: int) -> Iterator[pd.DataFrame]:
        """Yield tables of ranks, n_rows at a time, in the order of the log."""
        log = self.log
        better, equal = self.counts()
        if not isinstance(self.model, Baseline):
            order = schedule.training_order(log, time_sort=False)
            positions = schedule.target_positions(log, order, self.batch_size)
            by_log = np.argsort(positions[self._counting])
            better, equal = better[by_log].astype(np.int64), equal[by_log].astype(np.int64)
        # in the order of the log: which of the equal ones gets which random rank depends on it
        rank = np.empty(len(better), dtype=np.float64 if mode == "median" else np.int64)
        rank[np.lexsort((equal, better))] = _ranks_in_order(self.model, better, equal, mode)
        if self.continued is None:
            is_target = np.ones(log.n_events, dtype=bool)
            is_target[log.offsets[:-1]] = False
            first_positions = np.ones(log.n_sessions, dtype=np.int64)
        else:
            test = self.continued.test
            is_target, first_positions = test.is_target, test.positions
        targets = np.flatnonzero(is_target)
        for start in range(0, len(targets), n_rows):
            part = slice(start, start + n_rows)
            events = targets[part]
            of = np.searchsorted(log.offsets, events, side="right") - 1
            columns = (
                log.session_ids[of],  # type: ignore[index]  # `_indexed` asked for them
                events - log.offsets[of] + first_positions[of],
                log.item_ids[log.items[events]],
                better[part],
                equal[part],
                rank[part],
            )
            # with their types: pandas 3 would try to make its own strings of objects
            series = (pd.Series(values, dtype=values.dtype) for values in columns)
            yield pd.DataFrame(dict(zip(tablefile.RANKS.columns, series)))


def _flagged(lists: Iterator[np.ndarray], flags: np.ndarray | slice) -> Iterator[np.ndarray]:
    """Yield the rows of lists (M, length) that a flag for each row of all chooses."""
    begin = 0
    for rows in lists:
        yield rows[flags[begin : begin + len(rows)]]  # type: ignore[index]  # an array here
        begin += len(rows)


def _count_by_prediction(
    model, item_ids: np.ndarray, log: sessions.SessionLog, candidates, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count what `count_ranks` counts, by the scores that a model predicts."""
    among = item_ids if candidates is None else item_ids[candidates]
    better, equal = [], []
    for scored, scores, target_ids in _predicted(model, item_ids, log, among, batch_size):
        target = scores[pd.Index(scored).get_indexer(target_ids), np.arange(len(target_ids))]
        others = (scored[:, None] != target_ids) & np.isin(scored, among)[:, None]
        better.append(((scores > target) & others).sum(axis=0))
        equal.append(((scores == target) & others).sum(axis=0))
    return np.concatenate(better), np.concatenate(equal)


def _lists_by_prediction(
    model, item_ids: np.ndarray, log: sessions.SessionLog, candidates, batch_size: int, length: int
) -> Iterator[np.ndarray]:
    """Yield what `top_lists` yields, by the scores that a model predicts."""
    among = item_ids if candidates is None else item_ids[candidates]
    for _, scores, _ in _predicted(model, item_ids, log, among, batch_size):
        listed = best_columns(scores[: len(among)].T.astype(np.float64), length)
        yield listed if candidates is None else candidates[listed]


def _predicted(
    model, item_ids: np.ndarray, log: sessions.SessionLog, among: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield, for each step, ids (n_scored,), their scores (n_scored, M), and targets' ids (M,).

    The ids begin with those of `among`; the targets follow where they are none of these.
    """
    order = schedule.training_order(log, time_sort=False)
    batch_size = min(batch_size, len(order))
    # predict_next_batch wants full batches: slots without a session repeat the first one's item
    session_ids = np.fromiter(_new_session, dtype=np.int64, count=batch_size)
    slots = np.arange(batch_size)
    for block in schedule.schedule_blocks(log, order, batch_size, STEP_BLOCK):
        slots = slots[block.kept]
        for inputs, targets, ends in zip(block.inputs, block.targets, block.ends):
            shown = np.full(batch_size, item_ids[inputs[0]], dtype=item_ids.dtype)
            shown[slots] = item_ids[inputs]
            scored = pd.unique(np.concatenate([among, item_ids[targets]]))
            predicted = model.predict_next_batch(session_ids, shown, scored, batch_size)
            scores = _as_scores(predicted, scored, batch_size)[:, slots]
            yield scored, scores, item_ids[targets]
            ended = slots[ends == 1]
            session_ids[ended] = np.fromiter(_new_session, dtype=np.int64, count=len(ended))


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


def _check_predicts(model: Any, name: str) -> None:
    """Raise an InputError if a model does not have what `evaluate_sessions_batch` needs."""
    if not hasattr(model, "predict_next_batch") or not hasattr(model, "item_ids"):
        raise InputError(
            f"{name}: expected a trained model, with predict_next_batch and item_ids, got "
            f"{type(model).__name__}"
        )


def _share_of_events(model: Any) -> np.ndarray:
    """Return the share (n_items,) that each item of a model has of the training's events."""
    support = getattr(model, "support", None)
    if support is None:
        raise InputError(
            "popularity: the model does not hold its items' support, as models of older files do "
            "not; train it again, or leave popularity out"
        )
    return support / support.sum()


def _columns(
    model: Any, named: tuple[str | None, ...], test_data: pd.DataFrame | sessions.SessionLog
) -> tuple[str, str, str, str | None]:
    """Return the columns of sessions, items, times and users: those that are named, or the model's.

    Parameters
    ----------
    model : object
        One of another class need not know its columns.
    named : tuple
        None: the model's; an empty name of the users: none.
    test_data : DataFrame or SessionLog
        A log tells by itself whether it has users.
    """
    there = getattr(test_data, "columns", ())

    def column(place: int, name: str, default: str | None) -> Any:
        if named[place] is not None:
            return named[place]
        own = getattr(model, name, default)
        # those of the test may have the usual names although the training's had others
        return default if own not in there and default in there else own

    user_key = column(3, "user_key", None) or None
    if isinstance(test_data, sessions.SessionLog) and named[3] is None:
        user_key = None if test_data.user_offsets is None else user_key
    return (
        column(0, "session_key", "SessionId"),
        column(1, "item_key", "ItemId"),
        column(2, "time_key", "Time"),
        user_key,
    )


def _indexed(
    test_data: pd.DataFrame | sessions.SessionLog,
    keys: tuple[str, str, str, str | None],
    item_ids: Ids,
    keep_session_ids: bool,
    has_history: bool = False,
) -> sessions.SessionLog:
    """Return test data as a log of the model's items that has something to predict."""
    keep_session_ids = keep_session_ids or has_history
    log = sessions.as_log(test_data, keys[:3], item_ids, "test data", keep_session_ids, keys[3])
    if log.user_offsets is None and not has_history:
        sessions.check_test_log(log, "test data")
    return log


def _own_scorer(gru: GRU4Rec | Baseline) -> Any:
    """Return the model if it is a variant with a prediction of its own, else None."""
    return None if getattr(gru, "predicts_by_network", True) else gru


def _scorer(gru: GRU4Rec) -> GRU4Rec:
    """Return a model with the same weights whose predictions rank as its scores do.

    A softmax rounds different scores to one probability. The model's own slots are left alone.
    """
    network = copy.copy(gru.trained_network())  # the shared variables stay the same
    final_act = parameters.ranking_activation(network.settings.final_act)
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


def _ranks_in_order(gru, better: np.ndarray, equal: np.ndarray, mode: str) -> np.ndarray:
    # a model of another class may have a seed of its own
    seed = getattr(gru.network.settings if hasattr(gru, "network") else gru, "seed", 0)
    return ranks_in_order(better, equal, mode, seed)
