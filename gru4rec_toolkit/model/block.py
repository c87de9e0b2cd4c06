"""A block of the schedule on the device: uploaded once, then used step by step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gru4rec_toolkit.data.schedule import Block
from gru4rec_toolkit.theano_setup import theano


class Step(NamedTuple):
    """One step of a block, symbolic: two int32 vectors (M,) and a vector (M,).

    Attributes
    ----------
    inputs, targets : int32 vector (M,)
        Item indices.
    goes_on : vector (M,)
        0 where a session ends with that step, so that its state is reset, else 1.
    """

    inputs: Any
    targets: Any
    goes_on: Any


class UploadedBlock:
    """The shared variables of a block of K steps with M slots, and the step that is next.

    Attributes
    ----------
    step : shared int64 scalar
        The row of the block that the next step uses; the step increments it.
    inputs, targets, goes_on : vectors (M,)
        That step, see `Step`.
    begins : int32 vector (M,)
        1 + the index of the sequence that begins with that step's input, else 0; of blocks that are
        uploaded with them.
    """

    def __init__(self) -> None:
        nothing = np.zeros((1, 1), dtype=np.int32)
        self.step = theano.shared(np.int64(0), name="step")
        self._inputs = theano.shared(nothing, name="inputs")
        self._targets = theano.shared(nothing, name="targets")
        self._goes_on = theano.shared(nothing.astype(theano.config.floatX), name="goes_on")
        self._begins = theano.shared(nothing, name="begins")
        self.begins = self._begins[self.step]
        self.inputs, self.targets, self.goes_on = self.after(0)

    def after(self, n: int) -> Step:
        """Return the step that comes n steps after the next one."""
        row = self.step + n if n else self.step
        return Step(self._inputs[row], self._targets[row], self._goes_on[row])

    def upload(self, block: Block, states: list, begins: bool = False) -> None:
        """Replace the block; its first step is next.

        Parameters
        ----------
        block : Block
        states : list of shared variables (rows, ...)
            What is kept of each session, the layers' states above all; only the rows of sessions
            that go on are kept.
        begins : bool
            Upload them, too.
        """
        for h in states:
            h.set_value(h.get_value(borrow=True)[block.kept], borrow=True)
        self._inputs.set_value(block.inputs, borrow=True)
        self._targets.set_value(block.targets, borrow=True)
        self._goes_on.set_value((1 - block.ends).astype(theano.config.floatX), borrow=True)
        if begins:
            dense = np.zeros(block.inputs.shape, dtype=np.int32)
            steps, rows, sequences = block.begins
            dense[steps, rows] = 1 + sequences
            self._begins.set_value(dense, borrow=True)
        self.step.set_value(np.int64(0))

    def entered(self, states: list, initial: list | None) -> list:
        """Return the states before a step, where sequences do not begin with zeros.

        Parameters
        ----------
        states : list of (M, n)
            Zero in the rows in which a sequence begins.
        initial : list of shared variables (1 + n_sequences, n), or None
            A row of zeros, then the states that sequences begin with.
        """
        if initial is None:
            return states
        return [h + start[self.begins] for h, start in zip(states, initial)]
