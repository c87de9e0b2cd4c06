"""Sequences: what one state runs through. Sessions, histories of users, or windows of the two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gru4rec_toolkit.data.sessions import SessionLog
    from gru4rec_toolkit.parameters import Values


@dataclass(frozen=True, eq=False)
class Sequences:
    """Parts of a log's events, in each of which a state is carried from event to event.

    Attributes
    ----------
    firsts, stops : int64 arrays (n_sequences,)
        Sequence s has the events ``log.items[firsts[s]:stops[s]]``.
    start_times : int64 or float64 array (n_sequences,)
        Time of each one's first event; of a window, that of the whole sequence's.
    resets : bool array (n_events,) or None
        Whether the state is reset before an event inside a sequence; None: before none.
    """

    firsts: np.ndarray
    stops: np.ndarray
    start_times: np.ndarray
    resets: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        return self.stops - self.firsts


def of_log(log: SessionLog, session_border: str = "carry") -> Sequences:
    """Return the sessions of a log, or with users their histories.

    Parameters
    ----------
    log : SessionLog
    session_border : "carry" or "reset"
        What happens to the state at the end of a session that is not its user's last.
    """
    if log.user_offsets is None:
        return Sequences(log.offsets[:-1], log.offsets[1:], log.start_times)
    bounds, resets = log.offsets[log.user_offsets], None
    if session_border == "reset":
        resets = np.zeros(log.n_events, dtype=bool)
        resets[log.offsets[:-1]] = True
        resets[bounds[:-1]] = False
    return Sequences(bounds[:-1], bounds[1:], log.start_times[log.user_offsets[:-1]], resets)


def cut(sequences: Sequences, max_sequence: int, long_sequences: str) -> Sequences:
    """Return sequences of at most so many events.

    Parameters
    ----------
    sequences : Sequences
    max_sequence : int
        0: as long as they are.
    long_sequences : "windows" or "last"
        Cut a longer one into windows, each of which begins with the last event of the one before,
        so that every event but the first is predicted once; or keep its last events only.
    """
    if not max_sequence or (sequences.lengths <= max_sequence).all():
        return sequences
    if long_sequences == "last":
        firsts = np.maximum(sequences.firsts, sequences.stops - max_sequence)
        return replace(sequences, firsts=firsts)
    steps = max_sequence - 1
    n_windows = np.maximum(-(-(sequences.lengths - 1) // steps), 1)
    of = np.repeat(np.arange(len(n_windows)), n_windows)
    number = np.arange(len(of)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    firsts = sequences.firsts[of] + number * steps
    return replace(
        sequences,
        firsts=firsts,
        stops=np.minimum(firsts + max_sequence, sequences.stops[of]),
        start_times=sequences.start_times[of],
    )


def of_training(log: SessionLog, settings: Values) -> SessionLog:
    """Return a log whose sequences are what a training with these parameters runs through."""
    sequences = of_log(log, settings.session_border)
    return replace(log, cut=cut(sequences, settings.max_sequence, settings.long_sequences))
