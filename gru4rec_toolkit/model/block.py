"""A block of the schedule on the device: uploaded once, then used step by step."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.data.schedule import Block
from gru4rec_toolkit.theano_setup import theano


class UploadedBlock:
    """The shared variables of a block of K steps with M slots, and the step that is next.

    Attributes
    ----------
    step : shared int64 scalar
        The row of the block that the next step uses; the step increments it.
    inputs, targets : int32 vector (M,)
        Item indices of that step.
    goes_on : vector (M,)
        0 where a session ends with that step, so that its state is reset, else 1.
    """

    def __init__(self) -> None:
        nothing = np.zeros((1, 1), dtype=np.int32)
        self.step = theano.shared(np.int64(0), name="step")
        self._inputs = theano.shared(nothing, name="inputs")
        self._targets = theano.shared(nothing, name="targets")
        self._goes_on = theano.shared(nothing.astype(theano.config.floatX), name="goes_on")
        self.inputs, self.targets = self._inputs[self.step], self._targets[self.step]
        self.goes_on = self._goes_on[self.step]

    def upload(self, block: Block, states: list) -> None:
        """Replace the block; its first step is next.

        Parameters
        ----------
        block : Block
        states : list of shared variables (rows, n)
            The layers' states; only the rows of sessions that go on are kept.
        """
        for h in states:
            h.set_value(h.get_value(borrow=True)[block.kept], borrow=True)
        self._inputs.set_value(block.inputs, borrow=True)
        self._targets.set_value(block.targets, borrow=True)
        self._goes_on.set_value((1 - block.ends).astype(theano.config.floatX), borrow=True)
        self.step.set_value(np.int64(0))
