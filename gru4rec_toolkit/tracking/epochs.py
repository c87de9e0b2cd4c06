"""Records of a training's epochs, which callbacks get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, NamedTuple


class Epoch(NamedTuple):
    """What a training knows of an epoch when it is done.

    Attributes
    ----------
    number, n_epochs : int
        From 1 on; how many the training has at most.
    seed : int
        The training's.
    loss : float
        Mean over the epoch's mini-batches, weighted by their sizes.
    seconds : float
        What its steps took, without the validation.
    n_steps, n_events : int
        Mini-batches, and events that were predicted in them.
    metrics : mapping of str to float
        On the validation sessions: ``Recall@20``, ``MRR@20``, ... in the order of the list lengths;
        empty without validation.
    is_best : bool
        Whether no epoch before had as good a metric; False without validation.
    is_replay : bool
        Whether it was done before the training was interrupted: a training that goes on from a
        checkpoint tells its callbacks of all epochs, first of those that are in the checkpoint.
    """

    number: int
    n_epochs: int
    seed: int
    loss: float
    seconds: float
    n_steps: int
    n_events: int
    metrics: Mapping[str, float]
    is_best: bool = False
    is_replay: bool = False


# Python 3.8 has no collections.abc.Callable[...]
Callback = Callable[[Epoch], None]
