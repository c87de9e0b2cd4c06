"""Findings in a click log: what it looks like, and what in it ruins results.

A *warning* names something that makes results worse or wrong and says what to do about it, a *note*
something that is worth knowing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gru4rec_toolkit.data import ids
from gru4rec_toolkit.data.sessions import is_sorted

DAY = 86_400
UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
LONG_SESSION = 20  # events; from here on visitors of a shop come back to some item


@dataclass(frozen=True, eq=False)
class Log:
    """Events sorted by session, time and item, as numbers.

    Attributes
    ----------
    sessions, items : int arrays (n_events,)
        Positions in the arrays of ids.
    times : int64 or float64 array (n_events,)
    starts : int64 array (n_sessions,)
        Positions of the sessions' first events.
    session_ids, item_ids : int64 or object arrays
    was_sorted : bool
        Whether the rows were in the order of sessions and times.
    """

    sessions: np.ndarray
    items: np.ndarray
    times: np.ndarray
    starts: np.ndarray
    session_ids: np.ndarray
    item_ids: np.ndarray
    was_sorted: bool

    @classmethod
    def of(cls, data: pd.DataFrame, keys: tuple[str, str, str]) -> Log:
        """Sort a DataFrame of events that `events.read_events` gave; it stays as it is."""
        session_key, item_key, time_key = keys
        times = data[time_key].to_numpy()
        was_sorted = is_sorted(ids.sortable_ids(data[session_key], "data"), times)
        codes, session_ids = ids.split_ids(data[session_key], "data")
        items, item_ids = ids.split_ids(data[item_key], "data")
        order = np.lexsort((items, times, codes))
        codes = codes[order]
        starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
        return cls(codes, items[order], times[order], starts, session_ids, item_ids, was_sorted)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        return np.diff(np.append(self.starts, len(self.items)))

    @functools.cached_property
    def same_session(self) -> np.ndarray:
        """Tell whether an event is of the session of the one before it: bool (n_events - 1,)."""
        return self.sessions[1:] == self.sessions[:-1]

    @functools.cached_property
    def support(self) -> np.ndarray:
        """Return the number of events of each item that occurs."""
        counts = np.bincount(self.items, minlength=len(self.item_ids))
        return counts[counts > 0]

    @functools.cached_property
    def unit(self) -> str | None:
        """Return the unit that the times seem to count since 1970; None if they are not dates."""
        typical = float(np.median(self.times))
        for unit, ticks in UNITS.items():
            if 1e8 * ticks <= typical < 1e11 * ticks:
                return unit
        return None

    def date(self, time: float) -> str:
        """Write a time as a date if it is one."""
        if self.unit is None:
            return f"time {time}"
        seconds = np.datetime64(int(time // UNITS[self.unit]), "s")
        return str(seconds.astype("datetime64[m]")).replace("T", " ")


def describe(log: Log) -> str:
    """Return a few lines on how large a log is and what time it spans."""
    lengths, support = log.lengths, log.support
    first, last = log.times.min(), log.times.max()
    if log.unit is None:
        span = f"times: {first} to {last}, no dates but an order"
    else:
        days = float(last - first) / UNITS[log.unit] / DAY
        span = f"times: {log.date(first)} to {log.date(last)} UTC, {days:.1f} days, in {log.unit}"
    return "\n".join(
        [
            f"{count(len(log.items), 'event')}, {count(len(lengths), 'session')}, "
            f"{count(len(support), 'item')}",
            f"  {span}",
            f"  sessions: {lengths.mean():.2f} events on average, median {np.median(lengths):.0f}, "
            f"longest {lengths.max()}",
            f"  items: {support.mean():.2f} events on average, median {np.median(support):.0f}, "
            f"most {support.max()}",
        ]
    )


def describe_users(users: np.ndarray, sessions: pd.Series) -> str:
    """Return a line on the users of events, which belong to sessions of one user each."""
    table = pd.DataFrame({"user": users, "session": sessions.to_numpy()})
    of_users = table.groupby("user", sort=False)["session"]
    numbers = {"sessions": of_users.nunique(), "events": of_users.size()}
    spans = (f"{n.mean():.2f} {name} on average, most {n.max()}" for name, n in numbers.items())
    return f"  users: {of_users.ngroups}; {'; '.join(spans)}"


def findings(log: Log) -> Iterator[tuple[str, str]]:
    """Find what is remarkable in a log: pairs of a kind (warning, note) and a sentence."""
    n_events, lengths = len(log.items), log.lengths
    same = log.same_session
    if not log.was_sorted:
        yield (
            "note",
            "the rows are not sorted by session and time, training sorts them at each start; sort "
            "the file once to start faster",
        )
    same_time = same & (log.times[1:] == log.times[:-1])
    same_item = same & (log.items[1:] == log.items[:-1])
    n_duplicates = int(np.count_nonzero(same_time & same_item))
    if n_duplicates:
        yield (
            "warning",
            f"{_share(n_duplicates, n_events, 'event')} with the session, item and time of "
            "another one: drop the duplicates",
        )
    n_ties = int(np.count_nonzero(same_time & ~same_item))
    if n_ties:
        yield (
            "warning",
            f"{_share(n_ties, n_events, 'event')} at the time of another event of their session, "
            "so that their order is only that of the rows: use finer times, or make sure that the "
            "rows are in the order of the clicks",
        )
    n_repeats = int(np.count_nonzero(same_item)) - n_duplicates
    if n_repeats:
        yield (
            "note",
            f"{_share(n_repeats, n_events, 'event')} on the item of the event before: a model "
            "learns to recommend what is on the screen, most preprocessing drops them",
        )
    yield from _odd_sessions(log)
    if (lengths == 1).all():
        yield (
            "warning",
            "all sessions have one event only, there is no next item to learn from; is the session "
            "column the right one (-sk)?",
        )
    elif (lengths == 1).any():
        yield (
            "note",
            f"{_share(int((lengths == 1).sum()), len(lengths), 'session')} of one event: they "
            "are skipped, but count as support of their items; drop them",
        )


def odd_items(log: Log) -> Iterator[tuple[str, str]]:
    """Find items of training data about which too little is known, as `findings` does."""
    support = log.support
    n_single = int(np.count_nonzero(support == 1))
    if n_single:
        yield (
            "warning",
            f"{_share(n_single, len(support), 'item')} with one event: nothing can be learnt about "
            "them, but they are ranked with all others; drop items with fewer than 5 events",
        )


def _odd_sessions(log: Log) -> Iterator[tuple[str, str]]:
    """Find sessions that seem to be something else: users, visitors, lists of ratings."""
    lengths = log.lengths
    if log.unit is not None:
        ends = log.starts + lengths - 1
        spans = (log.times[ends] - log.times[log.starts]) / UNITS[log.unit] / DAY
        n_long = int(np.count_nonzero(spans > 1))
        if n_long:
            longest = int(spans.argmax())
            name = log.session_ids[log.sessions[log.starts[longest]]]
            yield (
                "warning",
                f"{_share(n_long, len(lengths), 'session')} of more than a day, the longest "
                f"({name}) of {spans[longest]:.1f} days: the ids may be users' or visitors', cut "
                "sessions where nothing happens for an hour",
            )
    is_long = lengths >= LONG_SESSION
    if 2 * lengths[is_long].sum() > lengths.sum():
        pairs = np.repeat(np.arange(len(lengths)), lengths) * len(log.item_ids) + log.items
        is_first = np.zeros(len(pairs), dtype=np.int64)
        is_first[np.unique(pairs, return_index=True)[1]] = 1
        n_items = np.add.reduceat(is_first, log.starts)
        n_distinct = int(np.count_nonzero(n_items[is_long] == lengths[is_long]))
        if n_distinct > 0.9 * is_long.sum():
            yield (
                "warning",
                f"most events are in sessions of {LONG_SESSION} or more, of which "
                f"{_share(n_distinct, int(is_long.sum()), 'session')} have no item twice: these "
                "look like users' ratings, not sessions; next-item prediction says little on them, "
                "use a log of clicks",
            )


def compare(train: Log, test: Log) -> Iterator[tuple[str, str]]:
    """Find what makes a test set a bad one for training data, as `findings` does."""
    if train.unit != test.unit:
        yield (
            "warning",
            f"times seem to be in {test.unit or 'no unit of dates'}, those of the training data in "
            f"{train.unit or 'no unit of dates'}: use one unit in both",
        )
        return
    n_sessions = len(test.lengths)
    end = train.times.max()
    n_early = int(np.count_nonzero(test.times[test.starts] < end))
    if n_early:
        yield (
            "warning",
            f"{_share(n_early, n_sessions, 'test session')} starting before the training data ends "
            f"({train.date(end)}): the model knows what came after them, split by time",
        )
    in_train = ids.find_ids(test.session_ids, train.session_ids) >= 0
    n_shared = int(np.count_nonzero(in_train))
    if n_shared:
        yield (
            "warning",
            f"{_share(n_shared, n_sessions, 'test session')} with the id of a training session: if "
            "they are the same sessions, the test asks for what was learnt; leave them out of one",
        )
    positions = ids.find_ids(test.item_ids, train.item_ids)[test.items]
    n_copied = _copied_sessions(train, test, positions)
    if n_copied:
        yield (
            "warning",
            f"{_share(n_copied, n_sessions, 'test session')} with the items and times of a "
            "training session: the test asks for what was learnt; leave them out of one",
        )
    unknown = positions < 0
    if unknown.all():
        yield (
            "warning",
            "no test event is on an item of the training data; are items named alike in both?",
        )
    elif unknown.any():
        yield (
            "note",
            f"{_share(int(np.count_nonzero(unknown)), len(unknown), 'test event')} on items that "
            "the training data lacks: evaluation drops them",
        )


def _copied_sessions(train: Log, test: Log, positions: np.ndarray) -> int:
    """Count test sessions of two or more events that are in the training data, whatever their id.

    Parameters
    ----------
    positions : int array (n_test_events,)
        Position of each test event's item in the training data's ids, -1 where it has none.

    Sessions are compared by a hash (64 bits) of items and times.
    """
    sums = []
    for log, items in ((train, train.items), (test, positions)):
        hashes = pd.util.hash_array(log.times.astype(np.float64))
        hashes *= (2 * items.astype(np.int64) + 1).view(np.uint64)
        of_sessions = np.add.reduceat(hashes, log.starts)
        sums.append(of_sessions[log.lengths > 1])
    return int(np.isin(sums[1], sums[0]).sum())


def count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _share(n: int, total: int, noun: str) -> str:
    percent = 100 * n / total
    shown = f"{percent:.1f}" if 0.05 <= percent < 99.95 or n == total else f"{percent:.3g}"
    return f"{count(n, noun)} ({shown}%)"
