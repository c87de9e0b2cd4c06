"""Top-N lists: the items of highest score after every event that has a next one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gru4rec_toolkit import parameters
from gru4rec_toolkit.data import schedule, sessions
from gru4rec_toolkit.model import losses
from gru4rec_toolkit.model.block import UploadedBlock
from gru4rec_toolkit.model.ranking import ITEM_BLOCK, STEP_BLOCK, set_initial
from gru4rec_toolkit.ops.topk.op import best_items, top_k
from gru4rec_toolkit.progress import progress_bar
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano


def top_lists(
    network,
    log: sessions.SessionLog,
    candidates: np.ndarray | None,
    batch_size: int,
    length: int,
    initial: list[np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """Yield the lists of each step of the sessions.

    Items are scored in blocks, so that memory is bounded by batch_size and length. They are scored
    as for `ranking.count_ranks`, with the final activation where it can make ties.

    Parameters
    ----------
    network : gru4rec.Network
    log : SessionLog
        Of items that the network knows.
    candidates : (k,) int or None
        Indices of the items that lists are made of, in ascending order; None: all.
    batch_size : int
        Sessions that are listed for in parallel.
    length : int
        N, at most the number of candidates.
    initial : list of arrays (n_sequences, units), optional
        The layers' states that the log's sequences begin with. Default: zeros.

    Yields
    ------
    int array (M, length)
        Item indices, the highest score first, equal scores by ascending index.
    """
    order = schedule.training_order(log, time_sort=False)
    block, states = UploadedBlock(), network.zero_states(min(batch_size, len(order)))
    hidden = theano.shared(np.zeros((1, 1), dtype=theano.config.floatX))
    begin_with = None if initial is None else network.zero_states(1)
    set_initial(begin_with, initial)
    before = block.entered(states, begin_with)
    new_states = network.hidden(network.input_table[block.inputs], before)
    goes_on = block.goes_on.dimshuffle(0, "x")
    updates = [(h, new * goes_on) for h, new in zip(states, new_states)]
    updates += [(hidden, new_states[-1]), (block.step, block.step + 1)]
    advance = theano.function([], [], updates=updates)
    activation = parameters.ranking_activation(network.settings.final_act)
    rank = Ranker(network, activation, candidates is not None)
    chosen = None if candidates is None else candidates.astype(np.int32)
    n_steps = schedule.count_steps(log, order, batch_size)
    with progress_bar(n_steps, "Lists") as progress:
        for steps in schedule.schedule_blocks(log, order, batch_size, STEP_BLOCK):
            block.upload(steps, states, begins=initial is not None)
            for _ in steps.inputs:
                advance()
                of_step = hidden.get_value()
                starts = np.zeros(len(of_step) + 1, dtype=np.int32)
                listed, _ = rank(of_step, starts, starts[:0], length, chosen)
                yield listed if candidates is None else candidates[listed]
            progress.update(len(steps.inputs))


class Ranker:
    """The compiled choice of the best items, among all of a network or among given ones."""

    def __init__(self, network, activation: str, subset: bool) -> None:
        hidden, starts, left_out, k = tt.matrix(), tt.ivector(), tt.ivector(), tt.lscalar()
        rows, biases = network.Wy, network.By
        chosen = [tt.ivector()] if subset else []
        self.n_items = rows.get_value(borrow=True, return_internal_type=True).shape[0]
        if subset:
            rows, biases = rows[chosen[0]], biases[chosen[0]]
        self.ranked: Any = None
        found = best_items(hidden, rows, biases, starts, left_out, k, activation)
        if found is not None:
            self.ranked = theano.function([hidden, starts, left_out, k, *chosen], list(found))
            return
        start = tt.lscalar()
        block = slice(start, start + ITEM_BLOCK)
        scores = network.scores(hidden, rows[block], biases[block])
        scores = losses.activation(activation)(scores)
        self.scores = theano.function([hidden, start, *chosen], scores)

    def __call__(
        self,
        hidden: np.ndarray,
        starts: np.ndarray,
        left_out: np.ndarray,
        k: int,
        chosen: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what the Op `TopK` does, of the rows (n,) that are chosen, or of all."""
        inputs = [] if chosen is None else [chosen]
        if self.ranked is not None:
            return tuple(self.ranked(hidden, starts, left_out, np.int64(k), *inputs))
        items, best = np.empty((len(hidden), 0), np.int32), np.empty((len(hidden), 0), hidden.dtype)
        for start in range(0, self.n_items if chosen is None else len(chosen), ITEM_BLOCK):
            scores = self.scores(hidden, np.int64(start), *inputs)
            inside = (left_out >= start) & (left_out < start + ITEM_BLOCK)
            of_block = np.append(0, np.cumsum(inside))[starts]
            found, values = top_k(scores, of_block, left_out[inside] - start, k)
            # what was the best before has lower positions, and comes first among equal scores
            items = np.concatenate([items, np.where(found < 0, -1, found + start)], axis=1)
            best = np.concatenate([best, values], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :k]
            items, best = (np.take_along_axis(array, order, axis=1) for array in (items, best))
        return items, best
