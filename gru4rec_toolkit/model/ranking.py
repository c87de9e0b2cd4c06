"""Ranks of targets: how many items score higher than each, and how many the same."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.data import schedule, sessions
from gru4rec_toolkit.model import losses
from gru4rec_toolkit.model.block import UploadedBlock
from gru4rec_toolkit.ops import base
from gru4rec_toolkit.ops.ranking.op import CountRanks
from gru4rec_toolkit.progress import progress_bar
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# scores of one block of items, batch_size x ITEM_BLOCK floats, stay in the processor's caches
ITEM_BLOCK = 8192
# steps of the schedule that are uploaded together
STEP_BLOCK = 256


def count_ranks(
    network, log: sessions.SessionLog, candidates: np.ndarray | None, batch_size: int
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

    Returns
    -------
    better, equal : two int64 arrays (n_predicted,)
    """
    order = schedule.training_order(log, time_sort=False)
    counter = RankCounter(network, candidates, min(batch_size, len(order)))
    counts = []
    n_steps = schedule.count_steps(log, order, batch_size)
    with progress_bar(n_steps, "Evaluation") as progress:
        for block in schedule.schedule_blocks(log, order, batch_size, STEP_BLOCK):
            counts += counter.run_block(block)
            progress.update(len(block.inputs))
    better, equal = zip(*counts)
    return np.concatenate(better), np.concatenate(equal)


class RankCounter:
    """Two compiled functions: one step of the sessions, one block of items for that step.

    The scores of a step are computed block by block, so memory does not grow with the number of
    items. The target itself is left out of the counts by its index: its score here and in a block
    come from different matrix products and may differ in the last bit.
    """

    def __init__(self, network, candidates: np.ndarray | None, n_rows: int) -> None:
        zeros = np.zeros((1, 1), dtype=theano.config.floatX)
        self.network = network
        self.block = UploadedBlock()
        self.states = network.zero_states(n_rows)
        self.hidden, self.target_scores = theano.shared(zeros), theano.shared(zeros[0])
        # one row a step of the block, so that a GPU is waited for only once a block
        self.better, self.equal = (
            theano.shared(np.zeros((1, 1), dtype=np.int64)) for _ in range(2)
        )
        self.item_block = theano.shared(np.int64(0))
        rows, biases, index = network.Wy, network.By, None
        if candidates is not None:
            rows, biases = (theano.shared(w.get_value()[candidates]) for w in (rows, biases))
            index = theano.shared(candidates.astype(np.int32))
        n_items = len(rows.get_value(borrow=True))
        self.n_item_blocks = -(-n_items // ITEM_BLOCK)
        self.activation = losses.ranking_activation(network.settings.final_act)
        self.advance = self._compile_advance()
        self.count = self._compile_count(rows, biases, index)

    def _compile_advance(self):
        """Compile one event of each session: new states, scores of the targets with biases."""
        network, targets = self.network, self.block.targets
        new_states = network.hidden(network.input_table[self.block.inputs], self.states)
        hidden = new_states[-1]
        # a product with all targets, of which the diagonal counts: the same kind of product as for
        # the blocks of items, so equal rows get equal scores
        scores = network.scores(hidden, network.Wy[targets], network.By[targets])
        goes_on = self.block.goes_on.dimshuffle(0, "x")
        updates = [(h, new * goes_on) for h, new in zip(self.states, new_states)]
        updates += [
            (self.hidden, hidden),
            (self.target_scores, losses.diagonal(scores)),
            (self.item_block, np.int64(0)),
        ]
        return theano.function([], [], updates=updates).fn

    def _compile_count(self, rows, biases, index):
        """Compile the counts over one block of items, added to those of the blocks before."""
        if base.usable() and base.has_activation(self.activation):
            return self._compile_count_of_all(rows, biases, index)
        step = self.block.step
        start = self.item_block * ITEM_BLOCK
        block = slice(start, start + ITEM_BLOCK)
        scores = self.network.scores(self.hidden, rows[block], biases[block])
        # one matrix, so that one computation activates both: two would differ in the last bit, and
        # ties would be lost
        target = self.target_scores.dimshuffle(0, "x")
        both = losses.activation(self.activation)(tt.concatenate([target, scores], axis=1))
        target, scores = both[:, 0].dimshuffle(0, "x"), both[:, 1:]
        if index is None:
            ids = start + tt.arange(scores.shape[1])
        else:
            ids = index[block]
        other = tt.neq(ids.dimshuffle("x", 0), self.block.targets.dimshuffle(0, "x"))
        better = (tt.gt(scores, target) & other).sum(axis=1)
        equal = (tt.eq(scores, target) & other).sum(axis=1)
        updates = [
            (self.better, tt.inc_subtensor(self.better[step], better)),
            (self.equal, tt.inc_subtensor(self.equal[step], equal)),
            (self.item_block, self.item_block + 1),
        ]
        return theano.function([], [], updates=updates).fn

    def _compile_count_of_all(self, rows, biases, index):
        """Compile the counts over all items at once, by one kernel."""
        step, self.n_item_blocks = self.block.step, 1
        if index is None:
            n_items = len(rows.get_value(borrow=True))
            index = theano.shared(np.arange(n_items, dtype=np.int32))
        better, equal = CountRanks(self.activation)(
            self.hidden, rows, biases, index, self.block.targets, self.target_scores
        )
        updates = [
            (self.better, tt.set_subtensor(self.better[step], better)),
            (self.equal, tt.set_subtensor(self.equal[step], equal)),
        ]
        return theano.function([], [], updates=updates).fn

    def run_block(self, block: schedule.Block) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (better, equal), each (M,), for every step of the block."""
        self.block.upload(block, self.states)
        for counts in (self.better, self.equal):
            counts.set_value(np.zeros(block.inputs.shape, dtype=np.int64), borrow=True)
        for step in range(len(block.inputs)):
            self.block.step.set_value(np.int64(step))
            self.advance()
            self.count(n_calls=self.n_item_blocks)
        return list(zip(self.better.get_value(), self.equal.get_value()))
