"""States after events that are only read: histories of sequences, running sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gru4rec_toolkit.data.histories import continue_log
from gru4rec_toolkit.data.schedule import target_positions, training_order
from gru4rec_toolkit.data.sessions import SessionLog
from gru4rec_toolkit.progress import progress_bar
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# sequences whose histories are replayed together
AT_ONCE = 1024


def zero_states(sizes: Sequence[int], n: int) -> list[np.ndarray]:
    """Return the states (n, units) of n sequences without events, one array a layer."""
    return [np.zeros((n, size), dtype=theano.config.floatX) for size in sizes]


def step_function(network) -> Callable[..., list[np.ndarray]]:
    """Compile one more event of sequences.

    Returns
    -------
    callable
        Takes positions of items, int32 (m,), and the states (m, units) of every layer; returns the
        new states.
    """
    items = tt.ivector("items")
    states = [tt.matrix(f"H{i}") for i in range(len(network.settings.layers))]
    new_states = network.hidden(network.input_table[items], states)
    return theano.function([items, *states], new_states, allow_input_downcast=False)


def run(
    step: Callable[..., list[np.ndarray]],
    sizes: Sequence[int],
    items: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
) -> list[np.ndarray]:
    """Return the layers' states (m, units) after all events of sequences, longest first.

    Parameters
    ----------
    step : callable
        A `step_function`.
    sizes : sequence of int
        Units of the layers.
    items : int32 array (n_events,)
    starts, lengths : int arrays (m,)
        Sequence s has the events ``items[starts[s]:starts[s] + lengths[s]]``; no length is greater
        than the one before.
    """
    states = zero_states(sizes, len(starts))
    for number in range(lengths[0] if len(lengths) else 0):
        m = int(np.count_nonzero(lengths > number))  # the others have ended and keep their states
        new_states = step(items[starts[:m] + number], *(h[:m] for h in states))
        for h, new in zip(states, new_states):
            h[:m] = new
    return states


def states_after(
    network, items: np.ndarray, firsts: np.ndarray, stops: np.ndarray
) -> list[np.ndarray]:
    """Return the layers' states (n, units) after sequences, some of which may have no event.

    Parameters
    ----------
    network : gru4rec.Network
    items : int32 array (n_events,)
    firsts, stops : int64 arrays (n,)
        Sequence s has the events ``items[firsts[s]:stops[s]]``.
    """
    step, sizes, lengths = step_function(network), network.settings.layers, stops - firsts
    states = zero_states(sizes, len(lengths))
    order = np.argsort(-lengths, kind="stable")
    with progress_bar(int(lengths.sum()), "History", unit="events") as progress:
        for begin in range(0, len(order), AT_ONCE):
            rows = order[begin : begin + AT_ONCE]
            after = run(step, sizes, items, firsts[rows], lengths[rows])
            for h, new in zip(states, after):
                h[rows] = new
            progress.update(int(lengths[rows].sum()))
    return states


class Continuation:
    """A test log whose sequences go on from their histories, and the states that these leave.

    Parameters
    ----------
    network : gru4rec.Network
        Its parameters say what a sequence is, and how much of a history counts.
    test, history : SessionLog
        As for `histories.continue_log`.

    Attributes
    ----------
    test : histories.Continued
    """

    def __init__(self, network, test: SessionLog, history: SessionLog | None) -> None:
        self.network = network
        p = network.settings
        self.test = continue_log(test, history, p.max_sequence, p.session_border)

    def states(self) -> list[np.ndarray]:
        """Return the layers' states (n_sequences, units) that the test's sequences begin with."""
        return states_after(self.network, self.test.past, self.test.firsts, self.test.stops)

    def counting(self, batch_size: int) -> np.ndarray:
        """Return which of the schedule's steps predict a target: bool (n_predicted,)."""
        order = training_order(self.test.log, time_sort=False)
        return self.test.is_target[target_positions(self.test.log, order, batch_size)]
