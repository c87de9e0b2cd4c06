"""The steps that the public data sets share: sorting, cutting, deduplication, filtering, splitting.

Events are held as arrays of numbers, some 20 bytes an event, so that 100 million of them fit in
memory several times over. The rules are those of the published experiments; where these leave
something open, it is said here what was taken:

- A gap of exactly the limit does not cut a session, a longer one does.
- T, where it is "the last event's time", is that of the log after filtering.
- An event on the same item as the one before it in its session is dropped once, before filtering:
  items that become neighbours because what was between them is filtered out stay.
- A session that goes on over the time of the split is no test session; its events before the split
  are training data, the others are dropped.
- Events without an item separate sessions like all others, and are dropped after cutting.
- Sessions that were made by cutting are numbered from 1, by the order of the original id (of a
  user, visitor or session), then by time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from examples.raw_files import RawFile
from gru4rec_toolkit.errors import InputError

MIN_SESSION = 2
MIN_SUPPORT = 5


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes
    ----------
    name, home : str
        Its name here, and where to download it.
    files : tuple of RawFile
    prepare : callable
        From the raw files' directory to the four parts, a dict of `Events`: train_full, test,
        train_tr and train_valid.
    """

    name: str
    home: str
    files: tuple[RawFile, ...]
    prepare: Callable[[str], dict[str, Events]]


@dataclass(frozen=True, eq=False)
class Events:
    """Events as numbers; sorted by session and time once they went through `sort`.

    Attributes
    ----------
    session, item : int32 arrays (n_events,)
        Positions in the arrays of ids, which are sorted: the order of numbers is that of ids.
    time : int64 array (n_events,)
        Since 1970, in UTC, in the unit of `ticks`.
    session_ids, item_ids : int64 or object arrays
    ticks : int
        How many of `time` are a second.
    in_seconds : bool
        Write times as seconds, with a fraction.
    relevant : bool array (n_events,), optional
        False for events that only matter to the cutting of sessions; None if there are none.
    """

    session: np.ndarray
    item: np.ndarray
    time: np.ndarray
    session_ids: np.ndarray
    item_ids: np.ndarray
    ticks: int
    in_seconds: bool = field(default=False)
    relevant: np.ndarray | None = field(default=None)

    def __len__(self) -> int:
        return len(self.time)

    def where(self, mask: np.ndarray) -> Events:
        """Return the events of a mask (n_events,), in the same order."""
        if mask.all():
            return self
        relevant = None if self.relevant is None else self.relevant[mask]
        return replace(
            self,
            session=self.session[mask],
            item=self.item[mask],
            time=self.time[mask],
            relevant=relevant,
        )


# --- collecting -----------------------------------------------------------------------------------


class Collector:
    """Collector of batches of raw columns that makes `Events` of them.

    Parameters
    ----------
    source : str
        What to call the data in messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._columns = {"session": [], "item": [], "time": []}
        self._relevant = []

    def add(self, session, item, time, relevant=None) -> None:
        """Add a batch of events.

        Parameters
        ----------
        session, item : pyarrow arrays (n,) of int64, or of strings as a dictionary
        time : pyarrow array (n,) of int64 or timestamps
            Since 1970, in the unit of `ticks` of `finish`.
        relevant : pyarrow array (n,) of bool, optional
            False or null for events that only matter to the cutting of sessions. An event without
            an item never is relevant.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        for name, column in (("session", session), ("time", time)):
            if column.null_count:
                raise InputError(
                    f"{self._source}: the raw data has {column.null_count} rows without a {name}; "
                    "download the files again"
                )
        mask = np.ones(len(time), dtype=bool)
        if relevant is not None:
            mask = pc.fill_null(relevant, False).to_numpy(zero_copy_only=False)
        if item.null_count:
            mask = mask & item.is_valid().to_numpy(zero_copy_only=False)
            if not pa.types.is_dictionary(item.type):
                item = item.fill_null(0)
        self._relevant.append(mask)
        self._columns["time"].append(_small(time.cast(pa.int64()).to_numpy()))
        for name, column in (("session", session), ("item", item)):
            is_text = pa.types.is_dictionary(column.type)
            self._columns[name].append(column if is_text else _small(column.to_numpy()))

    def finish(self, ticks: int, in_seconds: bool = False) -> Events:
        """Return all that was added, in the order in which it was; the collector is empty then."""
        relevant = np.concatenate(self._relevant or [np.zeros(0, dtype=bool)])
        if not relevant.any():
            raise InputError(f"{self._source}: there are no events of the wanted kind in the files")
        session, session_ids = _number(self._columns.pop("session"))
        item, item_ids = _number(self._columns.pop("item"))
        time = np.concatenate(self._columns.pop("time")).astype(np.int64, copy=False)
        relevant = None if relevant.all() else relevant
        return Events(session, item, time, session_ids, item_ids, ticks, in_seconds, relevant)


def _small(values: np.ndarray) -> np.ndarray:
    """Return integers as int32 if they fit."""
    fits = len(values) == 0 or (values.min() >= -(2**31) and values.max() < 2**31)
    return values.astype(np.int32) if fits else values


def _number(parts: list) -> tuple[np.ndarray, np.ndarray]:
    """Number ids in their order: int32 array (n_events,), and the ids behind the numbers."""
    if isinstance(parts[0], np.ndarray):
        import pandas as pd

        values = np.concatenate(parts)
        parts.clear()
        codes, ids = pd.factorize(values)
        order = np.argsort(ids)
        return _ranks(order)[codes], ids[order].astype(np.int64, copy=False)
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pa.chunked_array(parts).unify_dictionaries().combine_chunks()
    parts.clear()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0)
    order = pc.sort_indices(column.dictionary).to_numpy()
    codes = pc.fill_null(column.indices, 0).to_numpy()
    ids = column.dictionary.take(pa.array(order)).to_numpy(zero_copy_only=False)
    return _ranks(order)[codes], ids


def _ranks(order: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(order), dtype=np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return ranks


# --- steps ----------------------------------------------------------------------------------------


def sort(events: Events, by_item: bool = True) -> Events:
    """Sort by session, time and item; without `by_item`, ties in time keep their order."""
    first, last = int(events.time.min()), int(events.time.max())
    sizes = [len(events.session_ids), last - first + 1, len(events.item_ids), 2]
    if not by_item or math.prod(sizes[: 3 + (events.relevant is not None)]) >= 2**64:
        keys = (events.item, events.time, events.session)
        if events.relevant is not None:
            keys = (events.relevant, *keys)
        order = np.lexsort(keys if by_item else (events.time, events.session))
        return replace(
            events,
            session=events.session[order],
            item=events.item[order],
            time=events.time[order],
            relevant=None if events.relevant is None else events.relevant[order],
        )
    # all of an event in one number: sorted in place, without an index of the events
    packed = events.session.astype(np.uint64)
    packed *= np.uint64(sizes[1])
    packed += (events.time - first).view(np.uint64)
    packed *= np.uint64(sizes[2])
    packed += events.item.astype(np.uint64)
    relevant = events.relevant
    if relevant is not None:
        packed = packed * np.uint64(2) + relevant.astype(np.uint64)
    packed.sort()
    if relevant is not None:
        relevant = packed % np.uint64(2) == 1
        packed //= np.uint64(2)
    item = (packed % np.uint64(sizes[2])).astype(np.int32)
    packed //= np.uint64(sizes[2])
    time = (packed % np.uint64(sizes[1])).view(np.int64)
    time += first
    packed //= np.uint64(sizes[1])
    return replace(
        events, session=packed.astype(np.int32), item=item, time=time, relevant=relevant
    )


def cut(events: Events, gap: int) -> Events:
    """Cut sessions where two neighbouring events are more than `gap` apart; drop irrelevant events.

    Parameters
    ----------
    events : Events
        Sorted.
    gap : int
        In the unit of the times.
    """
    begins = np.diff(events.time) > gap
    begins |= events.session[1:] != events.session[:-1]
    session = np.zeros(len(events), dtype=np.int32)
    np.cumsum(begins, out=session[1:])
    ids = np.arange(1, int(session[-1]) + 2)
    return drop_irrelevant(replace(events, session=session, session_ids=ids))


def drop_irrelevant(events: Events) -> Events:
    """Drop the events that mattered to the cutting of sessions only."""
    if events.relevant is None:
        return events
    return replace(events.where(events.relevant), relevant=None)


def drop_repeated(events: Events) -> Events:
    """Drop events on the same item as the one before them in their session."""
    is_new = np.ones(len(events), dtype=bool)
    is_new[1:] = events.session[1:] != events.session[:-1]
    is_new[1:] |= events.item[1:] != events.item[:-1]
    return events.where(is_new)


def drop_short_sessions(events: Events) -> Events:
    """Drop sessions of fewer than `MIN_SESSION` events."""
    lengths = np.bincount(events.session, minlength=len(events.session_ids))
    return events.where((lengths >= MIN_SESSION)[events.session])


def drop_rare_items(events: Events) -> Events:
    """Drop items with fewer than `MIN_SUPPORT` events."""
    support = np.bincount(events.item, minlength=len(events.item_ids))
    return events.where((support >= MIN_SUPPORT)[events.item])


def filter_iteratively(events: Events) -> Events:
    """Drop short sessions and rare items until none is left."""
    from tqdm import tqdm

    with tqdm(desc="filtering", unit=" rounds", disable=None) as bar:
        while True:
            before = len(events)
            events = drop_rare_items(drop_short_sessions(events))
            bar.set_postfix_str(f"{len(events)} events")
            bar.update()
            if len(events) == before:
                return events


def _session_starts(events: Events) -> np.ndarray:
    """Return the positions of the first events of sorted sessions: int64 (n_sessions,)."""
    changes = np.flatnonzero(events.session[1:] != events.session[:-1]) + 1
    return np.concatenate([np.zeros(min(len(events), 1), dtype=np.int64), changes])


def split_by_start(events: Events, at: int) -> tuple[Events, Events]:
    """Split at a time: the events before it, and the sessions that start at it or later."""
    starts = _session_starts(events)
    lengths = np.diff(np.append(starts, len(events)))
    is_test = np.repeat(events.time[starts] >= at, lengths)
    return drop_short_sessions(events.where(events.time < at)), events.where(is_test)


def split_by_end(events: Events, at: int) -> tuple[Events, Events]:
    """Split sessions by their last event: those that end before a time, and the others.

    Of the others, items that the former lack are dropped, then sessions of one event.
    """
    starts = _session_starts(events)
    ends = np.append(starts[1:], len(events)) - 1
    is_late = np.repeat(events.time[ends] >= at, ends - starts + 1)
    train, test = events.where(~is_late), events.where(is_late)
    known = np.bincount(train.item, minlength=len(events.item_ids)) > 0
    return train, drop_short_sessions(test.where(known[test.item]))


def four_parts(events: Events, days: int, end: int | None = None) -> dict[str, Events]:
    """Filter, then split off the last days for the test, and as many before them for validation.

    Parameters
    ----------
    events : Events
        Sorted by session, time and item, and cut.
    days : int
        D: how many days the test has.
    end : int, optional
        T, in the unit of the times: the time of the last event if it is not given.
    """
    events = filter_iteratively(drop_repeated(drop_irrelevant(events)))
    if not len(events):
        raise InputError(
            "no session is left after filtering (an item needs 5 events, a session 2); check that "
            "the raw files are complete"
        )
    end = int(events.time.max()) if end is None else end
    length = days * 86400 * events.ticks
    train_full, test = split_by_start(events, end - length)
    train_tr, train_valid = split_by_start(train_full, end - 2 * length)
    return {
        "train_full": train_full,
        "test": test,
        "train_tr": train_tr,
        "train_valid": train_valid,
    }
