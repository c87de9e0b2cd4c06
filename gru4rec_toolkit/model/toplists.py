"""Top-N lists: the items of highest score after every event that has a next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from gru4rec_toolkit.data import schedule, sessions
from gru4rec_toolkit.model import losses
from gru4rec_toolkit.model.block import UploadedBlock
from gru4rec_toolkit.model.ranking import ITEM_BLOCK, STEP_BLOCK
from gru4rec_toolkit.progress import progress_bar
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano


def top_lists(
    network,
    log: sessions.SessionLog,
    candidates: np.ndarray | None,
    batch_size: int,
    length: int,
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

    Yields
    ------
    int64 array (M, length)
        Item indices, the highest score first, equal scores by ascending index.
    """
    order = schedule.training_order(log, time_sort=False)
    block, states = UploadedBlock(), network.zero_states(min(batch_size, len(order)))
    rows, biases = network.Wy, network.By
    if candidates is not None:
        rows, biases = (theano.shared(w.get_value()[candidates]) for w in (rows, biases))
    n_items = len(rows.get_value(borrow=True))
    hidden = theano.shared(np.zeros((1, 1), dtype=theano.config.floatX))
    new_states = network.hidden(network.input_table[block.inputs], states)
    goes_on = block.goes_on.dimshuffle(0, "x")
    updates = [(h, new * goes_on) for h, new in zip(states, new_states)]
    updates += [(hidden, new_states[-1]), (block.step, block.step + 1)]
    advance = theano.function([], [], updates=updates)
    start = tt.lscalar()
    part = slice(start, start + ITEM_BLOCK)
    activate = losses.activation(losses.ranking_activation(network.settings.final_act))
    score = theano.function([start], activate(network.scores(hidden, rows[part], biases[part])))
    n_steps = schedule.count_steps(log, order, batch_size)
    with progress_bar(n_steps, "Lists") as progress:
        for steps in schedule.schedule_blocks(log, order, batch_size, STEP_BLOCK):
            block.upload(steps, states)
            for _ in steps.inputs:
                advance()
                listed = _best_items(score, n_items, steps.inputs.shape[1], length)
                yield listed if candidates is None else candidates[listed]
            progress.update(len(steps.inputs))


def _best_items(
    score: Callable[[int], np.ndarray], n_items: int, n_rows: int, length: int
) -> np.ndarray:
    """Return the items (n_rows, length) of highest score; `score` gives a block from an item on."""
    items = np.zeros((n_rows, 0), dtype=np.int64)
    best = np.zeros((n_rows, 0), dtype=theano.config.floatX)
    for start in range(0, n_items, ITEM_BLOCK):
        scores = score(start)
        found = np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)
        # those found before come first: equal scores keep the order of the items
        items, best = np.hstack([items, found]), np.hstack([best, scores])
        chosen = best_columns(best, min(length, best.shape[1]))
        items, best = (np.take_along_axis(x, chosen, axis=1) for x in (items, best))
    return items


def best_columns(scores: np.ndarray, n: int) -> np.ndarray:
    """Return the columns (M, n) of each row's n highest scores, of (M, k), k >= n.

    The highest comes first, and equal ones in the order of their columns.
    """
    least = np.partition(scores, -n, axis=1)[:, [-n]]
    above, equal = scores > least, scores == least
    # of the items that tie for the last places, the first ones
    room = n - above.sum(axis=1, keepdims=True)
    chosen = above | (equal & (equal.cumsum(axis=1) <= room))
    columns = np.nonzero(chosen)[1].reshape(len(scores), n)
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)
