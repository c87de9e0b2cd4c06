"""Ranks of targets: how many items score higher than each, and how many the same."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit import parameters
from gru4rec_toolkit.data import schedule, sessions
from gru4rec_toolkit.model import losses
from gru4rec_toolkit.model.block import UploadedBlock
from gru4rec_toolkit.ops.ranking.op import counted_ranks
from gru4rec_toolkit.progress import progress_bar
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# scores of one block of items, batch_size x ITEM_BLOCK floats, stay in the processor's caches
ITEM_BLOCK = 8192
# steps of the schedule that are uploaded together
STEP_BLOCK = 256


def count_ranks(
    network,
    log: sessions.SessionLog,
    candidates: np.ndarray | None,
    batch_size: int,
    counter: RankCounter | None = None,
    initial: list[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Count, for every predicted event, the other items of higher and of equal score.

    Parameters
    ----------
    network : gru4rec.Network
    log : SessionLog
        Of items that the network knows.
    candidates : (k,) int or None
        Indices of the items that targets are ranked among; None: all.
    batch_size : int
        Sessions that are evaluated in parallel.
    counter : RankCounter, optional
        What `rank_counter` made of the same arguments, where a network is evaluated several times.
    initial : list of arrays (n_sequences, units), optional
        The layers' states that the log's sequences begin with. Default: zeros.

    Returns
    -------
    better, equal : two int64 arrays (n_predicted,)
    """
    order = schedule.training_order(log, time_sort=False)
    counter = counter or rank_counter(network, log, candidates, batch_size, initial is not None)
    counter.reset_states(initial)
    counts = []
    n_steps = schedule.count_steps(log, order, batch_size)
    with progress_bar(n_steps, "Evaluation") as progress:
        for block in schedule.schedule_blocks(log, order, batch_size, STEP_BLOCK):
            counts += counter.run_block(block)
            progress.update(len(block.inputs))
    better, equal = zip(*counts)
    return np.concatenate(better), np.concatenate(equal)


def rank_counter(
    network,
    log: sessions.SessionLog,
    candidates: np.ndarray | None,
    batch_size: int,
    goes_on: bool = False,
) -> RankCounter:
    """Compile what `count_ranks` runs, ``goes_on`` with states that sequences begin with."""
    n_used = len(schedule.training_order(log, time_sort=False))
    return RankCounter(network, candidates, min(batch_size, n_used), goes_on)


class RankCounter:
    """Two compiled functions: one step of the sessions, one block of items for that step.

    The scores of a step are computed block by block, so memory does not grow with the number of
    items. The target itself is left out of the counts by its index: its score here and in a block
    come from different matrix products and may differ in the last bit.
    """

    def __init__(
        self, network, candidates: np.ndarray | None, n_rows: int, goes_on: bool = False
    ) -> None:
        zeros = np.zeros((1, 1), dtype=theano.config.floatX)
        self.network, self.n_rows = network, n_rows
        self.block = UploadedBlock()
        self.states = network.zero_states(n_rows)
        self.initial = network.zero_states(1) if goes_on else None
        self.hidden, self.target_scores = theano.shared(zeros), theano.shared(zeros[0])
        # one row a step of the block, so that a GPU is waited for only once a block
        self.better, self.equal = (
            theano.shared(np.zeros((1, 1), dtype=np.int64)) for _ in range(2)
        )
        self.item_block = theano.shared(np.int64(0))
        rows, biases = network.Wy, network.By
        if candidates is None:
            candidates = np.arange(len(rows.get_value(borrow=True)))
        else:
            rows, biases = (theano.shared(w.get_value()[candidates]) for w in (rows, biases))
        ids, n_items = theano.shared(candidates.astype(np.int32)), len(candidates)
        self.n_item_blocks = -(-n_items // ITEM_BLOCK)
        self.activation = parameters.ranking_activation(network.settings.final_act)
        self.advance = self._compile_advance()
        self.count = self._compile_count(rows, biases, ids)

    def _compile_advance(self):
        """Compile one event of each session: new states, scores of the targets with biases."""
        network, targets = self.network, self.block.targets
        states = self.block.entered(self.states, self.initial)
        new_states = network.hidden(network.input_table[self.block.inputs], states)
        hidden = new_states[-1]
        # a product with all targets, of which the diagonal counts: the same kind of product as for
        # the blocks of items, so equal rows get equal scores
        scores = network.scores(hidden, network.Wy[targets], network.By[targets])
        goes_on = self.block.goes_on.dimshuffle(0, "x")
        updates = [(h, new * goes_on) for h, new in zip(self.states, new_states)]
        updates += [
            (self.hidden, hidden),
            (self.target_scores, tt.diag(scores)),
            (self.item_block, np.int64(0)),
        ]
        return theano.function([], [], updates=updates).fn

    def _compile_count(self, rows, biases, ids):
        """Compile the counts over all items at once, or over the next block of them."""
        step, totals = self.block.step, (self.better, self.equal)
        targets, of_targets = self.block.targets, self.target_scores
        counts = counted_ranks(
            self.hidden, rows, biases, ids, targets, of_targets, self.activation
        )
        if counts is not None:
            self.n_item_blocks = 1
            updates = [(all_, tt.set_subtensor(all_[step], n)) for all_, n in zip(totals, counts)]
            return theano.function([], [], updates=updates).fn
        start = self.item_block * ITEM_BLOCK
        block = slice(start, start + ITEM_BLOCK)
        scores = self.network.scores(self.hidden, rows[block], biases[block])
        # one matrix, so that one computation activates both: two would differ in the last bit, and
        # ties would be lost
        both = tt.concatenate([of_targets.dimshuffle(0, "x"), scores], axis=1)
        both = losses.activation(self.activation)(both)
        target, scores = both[:, 0].dimshuffle(0, "x"), both[:, 1:]
        other = tt.neq(ids[block].dimshuffle("x", 0), targets.dimshuffle(0, "x"))
        counts = [(compare(scores, target) & other).sum(axis=1) for compare in (tt.gt, tt.eq)]
        updates = [(all_, tt.inc_subtensor(all_[step], n)) for all_, n in zip(totals, counts)]
        updates.append((self.item_block, self.item_block + 1))
        return theano.function([], [], updates=updates).fn

    def reset_states(self, initial: list[np.ndarray] | None = None) -> None:
        """Set all states to zero, as before the first block, and take those of sequences."""
        for h, n in zip(self.states, self.network.settings.layers):
            h.set_value(np.zeros((self.n_rows, n), dtype=theano.config.floatX), borrow=True)
        set_initial(self.initial, initial)

    def run_block(self, block: schedule.Block) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (better, equal), each (M,), for every step of the block."""
        self.block.upload(block, self.states, begins=self.initial is not None)
        for counts in (self.better, self.equal):
            counts.set_value(np.zeros(block.inputs.shape, dtype=np.int64), borrow=True)
        for step in range(len(block.inputs)):
            self.block.step.set_value(np.int64(step))
            self.advance()
            self.count(n_calls=self.n_item_blocks)
        return list(zip(self.better.get_value(), self.equal.get_value()))


def set_initial(shared: list | None, initial: list[np.ndarray] | None) -> None:
    """Give `UploadedBlock.entered` the states (n_sequences, units) that sequences begin with."""
    for variable, states in zip(shared or [], initial or []):
        variable.set_value(np.concatenate([np.zeros_like(states[:1]), states]), borrow=True)
