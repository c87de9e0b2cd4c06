"""Test sequences that go on from a history: which events are targets, and what came before."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from gru4rec_toolkit.data.ids import find_ids
from gru4rec_toolkit.data.sessions import SessionLog
from gru4rec_toolkit.errors import InputError, shown

logger = logging.getLogger("gru4rec")


@dataclass(frozen=True, eq=False)
class Continued:
    """A test log whose sequences begin with the last event of their histories.

    Attributes
    ----------
    log : SessionLog
        The events of the test; before them, in each sequence that has one, the last event of its
        history, which is the input that predicts the first event of the test.
    is_target : bool array (n_events,)
        Whether an event of it is predicted and counts: all but those that begin a session, and
        those of the history.
    positions : int64 array (n_sessions,)
        Position in its session of the first event that the log has of it, from 1 on; 0 where that
        is one of the session before.
    past : int32 array
        The items of the histories.
    firsts, stops : int64 arrays (n_sequences,)
        Sequence s goes on after ``past[firsts[s]:stops[s]]``, perhaps nothing.
    """

    log: SessionLog
    is_target: np.ndarray
    positions: np.ndarray
    past: np.ndarray
    firsts: np.ndarray
    stops: np.ndarray


def continue_log(
    test: SessionLog,
    history: SessionLog | None,
    max_sequence: int = 0,
    session_border: str = "carry",
    source: str = "history",
    announce: bool = True,
) -> Continued:
    """Let the sequences of a test log go on from those of a history with the same ids.

    Parameters
    ----------
    test, history : SessionLog
        Of the same items, with the ids of their sessions. Sequences are the users, where both logs
        have users whose states are carried over the borders of sessions, else the sessions. Without
        a history every sequence begins with the test.
    max_sequence : int
        Most events of a history that count, its last ones; 0: all.
    session_border : "carry" or "reset"
        As in the training. Where users are reset, no session needs to have a history.
    source : str
        What to call the history in messages.
    announce : bool
        Warn of events that are too late, and say how many are no targets.

    Raises
    ------
    InputError
        If no sequence has a history, most of them have events after the beginning of their test, or
        there is nothing to predict.
    """
    is_reset = test.user_offsets is not None and session_border == "reset"
    if is_reset:  # sessions are on their own, as in the training
        test = replace(test, user_offsets=None)
        history = history and replace(history, user_offsets=None)
    of = np.full(len(test.sequences.firsts), -1)
    if history is not None:
        of = find_histories(
            *(_owner_ids(test), test.sequences.start_times, history, source),
            *(not is_reset, announce),
        )
    has = of >= 0
    sequences, n = test.sequences, len(of)
    past, firsts, stops = np.zeros(0, dtype=np.int32), np.zeros(n, np.int64), np.zeros(n, np.int64)
    if history is not None:
        past, known = history.items, history.sequences
        firsts[has], stops[has] = known.firsts[of[has]], known.stops[of[has]]
    # the last event of a history becomes the first of the sequence
    shift = np.cumsum(has)
    lengths = sequences.lengths
    of_event = np.repeat(np.arange(n), lengths)
    places = np.arange(test.n_events) + shift[of_event]
    items = np.empty(test.n_events + int(has.sum()), dtype=np.int32)
    items[places] = test.items
    begins: np.ndarray = sequences.firsts + shift - has
    items[begins[has]] = past[stops[has] - 1]
    offsets = np.append(places[test.offsets[:-1]], len(items)).astype(np.int64)
    first_sessions = (
        np.arange(n) if test.user_offsets is None else test.user_offsets[:-1].astype(np.int64)
    )
    offsets[first_sessions] = begins
    before = _lengths_before(test, history, of)
    is_target = np.zeros(len(items), dtype=bool)
    is_target[places] = True
    # an event that begins a session is no target
    is_target[places[test.offsets[:-1]]] = before > 0
    positions = before + 1
    positions[first_sessions[has]] -= 1
    if not is_target.any():
        raise InputError(
            "test data: no session has two or more events on items of the training data, nor one "
            "and a history that it goes on from, so there is nothing to predict"
        )
    n_first = int((before == 0).sum())
    if announce and history is not None and test.user_offsets is not None and n_first:
        logger.info(
            "%d of the test's %d events begin a session and are no targets (with the users as the "
            "sessions, -sk, they are)",
            *(n_first, test.n_events),
        )
    if max_sequence:
        firsts = np.maximum(firsts, stops - max_sequence)
    return Continued(
        log=replace(test, items=items, offsets=offsets),
        is_target=is_target,
        positions=positions,
        past=past,
        firsts=firsts,
        stops=np.maximum(stops - 1, firsts),
    )


def _owner_ids(log: SessionLog) -> np.ndarray:
    found = log.session_ids if log.user_offsets is None else log.user_ids
    assert found is not None
    return found


def find_histories(
    ids: np.ndarray,
    begins: np.ndarray,
    history: SessionLog,
    source: str,
    is_needed: bool = True,
    announce: bool = True,
) -> np.ndarray:
    """Return the places of sequences among those of a history, -1 where one is not there.

    Where sessions of one user overlap, as in two tabs, some histories go beyond the beginning of
    what they are the history of: then a warning says how many.

    Parameters
    ----------
    ids, begins : arrays (n,)
        Of the sequences, and the times of their first events.
    history : SessionLog
        With its ids.
    source : str
        What to call the history in messages.
    is_needed : bool
        Whether it is an error that none is there, or only worth a warning.
    announce : bool
        Whether to warn.

    Raises
    ------
    InputError
        If none is there, or most of them have events there after their beginning.
    """
    kind = "sessions" if history.user_offsets is None else "users"
    theirs, ends = _owner_ids(history), history.end_times
    if history.user_offsets is not None:
        ends = np.maximum.reduceat(ends, history.user_offsets[:-1])
    of = find_ids(ids, theirs)
    n = int((of >= 0).sum())
    if not n and not is_needed:
        if announce:
            logger.warning(
                "%s: no session of the test has begun in it, so all of them start from zero "
                "(session_border=reset: the state is carried to no other session of the user)",
                source,
            )
        return of
    if not n:
        raise InputError(
            f"{source}: none of the test's {kind} is in it: {shown(ids[0])} is one of the test's, "
            f"{shown(theirs[0])} one of its own; ids have to be the same in both"
        )
    late = np.flatnonzero((of >= 0) & (ends[of] > begins))
    if len(late):
        said = (
            f"{source}: {len(late)} of {n} {kind} that have a history have events in it after the "
            f"beginning of their test, such as {shown(ids[late[0]])}"
        )
        if 2 * len(late) > n:
            raise InputError(f"{said}; give what came before the test only")
        if announce:
            logger.warning("%s; these events count as if they came before", said)
    return of


def _lengths_before(test: SessionLog, history: SessionLog | None, of: np.ndarray) -> np.ndarray:
    """Return how many events each session of the test has in its history: int64 (n_sessions,)."""
    if history is None:
        return np.zeros(test.n_sessions, dtype=np.int64)
    assert test.session_ids is not None and history.session_ids is not None
    place = find_ids(test.session_ids, history.session_ids)
    # another user may have a session with that id
    is_own = (place >= 0) & (_sequence_of(history)[place] == of[_sequence_of(test)])
    return np.where(is_own, np.diff(history.offsets)[place], 0)


def _sequence_of(log: SessionLog) -> np.ndarray:
    """Return the sequence of each session."""
    if log.user_offsets is None:
        return np.arange(log.n_sessions)
    return np.repeat(np.arange(len(log.user_offsets) - 1), np.diff(log.user_offsets))
