"""Session logs: indexing events, and scheduling their session-parallel mini-batches.

`index_sessions` turns a table of events into the integer arrays of a `SessionLog`,
`training_order` puts its sessions in a row and `schedule_blocks` deals them to the slots of the
session-parallel mini-batches (Hidasi et al., ICLR 2016, section 3.1.1). `python -m sessions PATH`
checks a click log (`data_check`).
"""

from __future__ import annotations

if __name__ == "__main__":  # before the heavy imports: -h answers at once
    import data_check

    data_check.cli()
    raise SystemExit

import functools
import heapq
import numbers
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from event_checks import check_events, check_ids, column_keys, row_place
from user_errors import InputError

# --- indexing -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SessionLog:
    """Events as item indices, session after session.

    Attributes
    ----------
    items : int32 array (n_events,)
        Index of each event's item, ordered by session id, then by time.
    offsets : int64 array (n_sessions + 1,)
        Session s has the events ``items[offsets[s]:offsets[s + 1]]``.
    start_times : int64 or float64 array (n_sessions,)
        Time of each session's first event, in the unit of the data.
    item_ids : int64 array or object array of str (n_items,)
        The id behind each item index.
    """

    items: np.ndarray
    offsets: np.ndarray
    start_times: np.ndarray
    item_ids: np.ndarray

    @property
    def n_events(self) -> int:
        return len(self.items)

    @property
    def n_sessions(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @functools.cached_property
    def support(self) -> np.ndarray:
        """Number of events of each item: int64 array (n_items,)."""
        return np.bincount(self.items, minlength=self.n_items).astype(np.int64, copy=False)


def index_sessions(
    data: pd.DataFrame,
    session_key: str = "SessionId",
    item_key: str = "ItemId",
    time_key: str = "Time",
    item_ids: np.ndarray | None = None,
    source: str = "data",
    announce: bool = False,
) -> SessionLog:
    """Turn a DataFrame of events into integer arrays; the frame itself is left as it is.

    Parameters
    ----------
    data : pandas.DataFrame
        One row an event, in any order; events of a session at the same time keep their order.
    session_key, item_key, time_key : str
        Names of its columns.
    item_ids : array (n_items,), optional
        The items of a model. Given these, events on other items are dropped; ids are compared by
        value, whatever their type (12 is "12"). Without them the items are those of the data, in
        order of first appearance, before any sorting.
    source : str
        What to call the data in messages.
    announce : bool
        Say on standard output whether the data had to be sorted.

    Returns
    -------
    SessionLog

    Raises
    ------
    InputError
        There is no event or no known item, a column is missing, a value is missing, or a time is
        not a number.
    """
    keys = column_keys(session_key, item_key, time_key)
    session_column, item_column, times = check_events(data, keys, source, row_place)
    sessions = sortable_ids(session_column, source)
    codes, ids = split_ids(item_column, source)
    if item_ids is None:
        items, item_ids = _by_first_appearance(codes, ids)
    else:
        item_ids = _canonical_ids(item_ids)
        items = find_ids(ids, item_ids)[codes]
        known = items >= 0
        if not known.any():
            raise InputError(
                f"{source}: none of the model's {len(item_ids)} items occurs in column "
                f'"{item_key}"; check that it names items as the training data did'
            )
        if not known.all():
            items, sessions, times = items[known], sessions[known], times[known]

    columns = f"{session_key}, {time_key}"
    if is_sorted(sessions, times):
        if announce:
            print(f"The dataframe is already sorted by {columns}")
    else:
        if announce:
            print(f"The dataframe is not sorted by {columns}, sorting now")
        began = time.perf_counter()
        order = np.lexsort((times, sessions))  # stable: ties keep the order of the frame
        items, sessions, times = items[order], sessions[order], times[order]
        if announce:
            print(f"Data is sorted in {time.perf_counter() - began:.2f}s")
    starts = np.flatnonzero(np.r_[True, sessions[1:] != sessions[:-1]])
    return SessionLog(
        items=items.astype(np.int32),
        offsets=np.append(starts, len(items)).astype(np.int64, copy=False),
        start_times=times[starts],
        item_ids=item_ids,
    )


def extend_item_ids(
    item_ids: np.ndarray, data: pd.DataFrame, item_key: str = "ItemId", source: str = "data"
) -> np.ndarray:
    """Give the item ids of a model followed by those that are new in the data.

    Parameters
    ----------
    item_ids : array (n_items,)
        Ids of the model; their positions stay.
    data : pandas.DataFrame
        New events; new items follow in order of first appearance.
    item_key, source : str
        Name of the item column, and what to call the data in messages.

    Returns
    -------
    int64 array or object array of str (n_items + n_new,)
        int64 if the ids on both sides are integers, else all of them are strings.
    """
    check_ids(data, {"item": item_key}, source, row_place)
    _, ids = _by_first_appearance(*split_ids(data[item_key], source))
    item_ids = _canonical_ids(item_ids)
    new = ids[find_ids(ids, item_ids) < 0]
    return np.concatenate(_same_type(item_ids, new)) if len(new) else item_ids


def item_indices(item_ids: np.ndarray, values: Sequence) -> np.ndarray:
    """Position of each id among a model's items, compared by value whatever the type.

    Parameters
    ----------
    item_ids : array (n_items,)
    values : sequence of ids (n,)

    Returns
    -------
    int64 array (n,)
        -1 where the model does not know the item.
    """
    codes, ids = split_ids(pd.Series(values), "items")
    # code -1, for a missing value, takes the last one
    return np.append(find_ids(ids, _canonical_ids(item_ids)), -1)[codes]


def known_items(item_ids: np.ndarray, values: Sequence, source: str) -> np.ndarray:
    """Position of each id among a model's items, all of which it has to know.

    Parameters
    ----------
    item_ids : array (n_items,)
    values : sequence of ids (n,)
    source : str
        What to call the values in messages.

    Returns
    -------
    int32 array (n,)

    Raises
    ------
    InputError
        If the values are no sequence of ids, or the model does not know one of them.
    """
    ids = pd.Series(_id_sequence(values, source), name=source)
    index = item_indices(item_ids, ids)
    if (index < 0).any():
        unknown = ids.tolist()[int(np.argmax(index < 0))]
        raise InputError(f"{source}: item {unknown!r} does not occur in the training data")
    return index.astype(np.int32)


def slot_ids(values: Sequence, source: str) -> list:
    """Return session ids as a list of what can be compared; tuples are ids too.

    Raises
    ------
    InputError
        If the values are no sequence of ids.
    """
    ids = list(_id_sequence(values, source))
    for slot, value in enumerate(ids):
        try:
            hash(value)
            missing = bool(value != value)  # NaN
        except (TypeError, ValueError):
            missing = True
        if missing:
            raise InputError(
                f"{source}: slot {slot} holds {value!r}, which cannot be an id; use integers, "
                "strings or tuples of them"
            )
    return ids


def _id_sequence(values: Sequence, source: str) -> Sequence:
    """Return ids as a list or, untouched, as an array, a Series or an Index of one dimension."""
    one_dimension = getattr(values, "ndim", 1) == 1 and isinstance(values, Iterable)
    if not one_dimension or isinstance(values, (str, bytes)):
        raise InputError(
            f"{source}: expected a sequence of ids (a list, an array or a Series), got "
            f"{type(values).__name__}"
        )
    ids = values if hasattr(values, "ndim") else list(values)
    if len(ids) == 0:
        raise InputError(f"{source}: it is empty; give one id or more")
    return ids


def check_training_log(log: SessionLog, batch_size: int, source: str) -> None:
    """Raise an InputError if mini-batches of `batch_size` sessions cannot be made of the log."""
    if log.n_sessions == 1:
        raise InputError(f"{source}: there is only one session in it; training takes many sessions")
    n_usable = int(np.count_nonzero(np.diff(log.offsets) > 1))
    if n_usable == 0:
        raise InputError(
            f"{source}: all sessions have one event only, so there is no next item to learn from; "
            "check that the session column is the right one (-sk)"
        )
    if n_usable < batch_size:
        raise InputError(
            f"{source}: batch_size is {batch_size}, but only {n_usable} sessions have two or more "
            f"events; set batch_size to {n_usable} or less"
        )


def check_test_log(log: SessionLog, source: str) -> None:
    """Raise an InputError if the log, of items known to a model, holds nothing to predict."""
    if not (np.diff(log.offsets) > 1).any():
        raise InputError(
            f"{source}: no session has two or more events on items of the training data, so there "
            "is nothing to predict; check that training and test data belong together"
        )


def split_ids(column: pd.Series, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Give codes (n_events,) and the canonical id behind each code."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy(), _canonical_ids(column.cat.categories)
    try:
        codes, values = pd.factorize(column)
    except TypeError as err:
        raise InputError(
            f'{source}: column "{column.name}" holds something that cannot be an id ({err}); '
            "use integers or strings"
        ) from None
    return codes, _canonical_ids(values)


def _canonical_ids(values: Sequence) -> np.ndarray:
    """Give ids as int64 if all are integers, else as strings; 12 and 12.0 are the same id."""
    if getattr(values, "dtype", None) == np.int64:
        return np.asarray(values)
    ids = [_plain_id(value) for value in values]
    if all(isinstance(plain, int) for plain in ids):
        try:
            return np.array(ids, dtype=np.int64)
        except OverflowError:
            pass
    return np.array([str(plain) for plain in ids], dtype=object)


def _plain_id(value: object) -> int | str:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return int(value) if is_number and value % 1 == 0 else str(value)


def _same_type(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make strings of the integers where only one of two canonical arrays has integers."""
    if left.dtype != right.dtype:
        left, right = (
            ids if ids.dtype == object else np.array([str(i) for i in ids.tolist()], dtype=object)
            for ids in (left, right)
        )
    return left, right


def find_ids(ids: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
    """Position of each of `ids` in `item_ids`, -1 where it is not among them."""
    ids, item_ids = _same_type(ids, item_ids)
    return pd.Index(item_ids, dtype=item_ids.dtype).get_indexer(pd.Index(ids, dtype=ids.dtype))


def _by_first_appearance(codes: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber codes by first appearance; ids that became equal (12 and "12") share a number."""
    shared, ids = pd.factorize(ids)
    codes, used = pd.factorize(shared[codes])
    return codes, ids[used]


def sortable_ids(column: pd.Series, source: str) -> np.ndarray:
    """Give numbers (n_events,) in the order of the ids: integers by value, strings by letters."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        return column.to_numpy()
    codes, ids = split_ids(column, source)
    return np.unique(ids, return_inverse=True)[1][codes]


def is_sorted(sessions: np.ndarray, times: np.ndarray) -> bool:
    later = sessions[1:] > sessions[:-1]
    same = sessions[1:] == sessions[:-1]
    return bool((later | same & (times[1:] >= times[:-1])).all())


# --- scheduling -----------------------------------------------------------------------------------

# sessions that are placed at a time: enough to make numpy's overhead vanish, and little memory
SESSIONS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Block:
    """K consecutive steps of session-parallel mini-batches over the same M slots.

    Attributes
    ----------
    inputs, targets : int32 arrays (K, M)
        Item index of each event and of the event after it.
    ends : int8 array (K, M)
        1 where the target is the last event of its session: reset the state after this step.
    kept : int64 array (M,)
        Rows of the previous block that go on as this block's rows, so ``H = H[kept]`` carries the
        hidden states over; for the first block ``arange(M)``.
    """

    inputs: np.ndarray
    targets: np.ndarray
    ends: np.ndarray
    kept: np.ndarray


def training_order(
    log: SessionLog, time_sort: bool, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Choose the order in which sessions enter the mini-batches.

    Parameters
    ----------
    log : SessionLog
    time_sort : bool
        Ascending time of the first event (ties: by session id) instead of ascending session id.
    rng : numpy.random.Generator, optional
        Draw a random order instead.

    Returns
    -------
    int64 array
        Session indices; sessions of one event are left out, they have no next item to predict.
    """
    sessions = np.flatnonzero(np.diff(log.offsets) > 1)
    if rng is not None:
        return rng.permutation(sessions)
    if time_sort:
        return sessions[np.argsort(log.start_times[sessions], kind="stable")]
    return sessions


def schedule_blocks(
    log: SessionLog, order: np.ndarray, batch_size: int, max_steps: int, min_rows: int = 1
) -> Iterator[Block]:
    """Deal sessions to the slots of session-parallel mini-batches, block by block.

    The first `batch_size` sessions fill the slots, one each. A session of n events takes n - 1
    steps in its slot. Where sessions end, the freed slots, in ascending order, take the next
    sessions of `order`; when none is left the slot disappears and the others close ranks.
    (Hidasi et al., ICLR 2016, section 3.1.1.)

    Parameters
    ----------
    log : SessionLog
    order : int64 array
        Session indices in the order of training; sessions of one event are skipped.
    batch_size : int
        Number of slots; there are fewer if there are fewer sessions.
    max_steps : int
        Most steps in a block. A block also ends where the number of active sessions changes.
    min_rows : int
        Stop when fewer sessions than this are active.

    Yields
    ------
    Block
        Memory is bounded by the block and one integer a session.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps has to be at least 1, got {max_steps}")
    order = _with_steps(log, order)
    n_slots = min(batch_size, len(order))
    heap = list(range(n_slots))
    placements = _place_sessions(log, order, heap)
    active = np.zeros((4, 0), dtype=np.int64)
    exhausted = False
    slots = np.arange(n_slots)
    begin = 0
    while True:
        end = begin + max_steps
        parts = [active]
        # a block is known once no slot gets free in it, or nobody is left to take the slot
        while not exhausted and heap and heap[0] < end * n_slots:
            part = next(placements, None)
            exhausted = part is None
            if not exhausted:
                parts.append(part)
        active = np.concatenate(parts, axis=1)
        active = active[:, active[1] > begin]
        free_steps = np.array(heap, dtype=np.int64) // max(n_slots, 1)
        free_steps = free_steps[free_steps > begin]
        if len(free_steps) < max(min_rows, 1):
            return
        end = min(end, int(free_steps.min()))
        block, slots = _fill_block(log, active, begin, end, slots)
        yield block
        begin = end


def count_steps(log: SessionLog, order: np.ndarray, batch_size: int, min_rows: int = 1) -> int:
    """Count the steps of all blocks of `schedule_blocks`, without making them."""
    order = _with_steps(log, order)
    n_slots = min(batch_size, len(order))
    if n_slots < max(min_rows, 1):
        return 0
    heap = list(range(n_slots))
    for _ in _place_sessions(log, order, heap):
        pass
    # in the end slots get free for good, one by one, until too few are left
    return sorted(heap, reverse=True)[max(min_rows, 1) - 1] // n_slots


def _with_steps(log: SessionLog, order: np.ndarray) -> np.ndarray:
    """Leave out the sessions of one event."""
    order = np.asarray(order, dtype=np.int64)
    return order[log.offsets[order + 1] - log.offsets[order] > 1]


def _place_sessions(log: SessionLog, order: np.ndarray, heap: list[int]) -> Iterator[np.ndarray]:
    """Assign sessions to slots, `SESSIONS_AT_ONCE` at a time.

    Parameters
    ----------
    heap : list of int, changed in place
        One key a slot: ``step * n_slots + slot`` where step is the first at which the slot is free.
        The smallest key is thus the slot that takes the next session, ties in ascending slot order,
        and replacing it by ``key + steps * n_slots`` occupies the slot for these steps.

    Yields
    ------
    int64 array (4, n)
        First step, step after the last, slot, and position of the first event in ``log.items``, a
        column a session. First steps never decrease.
    """
    n_slots, replace = len(heap), heapq.heapreplace
    for i in range(0, len(order), SESSIONS_AT_ONCE):
        sessions = order[i : i + SESSIONS_AT_ONCE]
        first_event = log.offsets[sessions]
        n_steps = log.offsets[sessions + 1] - first_event - 1
        keys = [replace(heap, heap[0] + busy) for busy in (n_steps * n_slots).tolist()]
        start, slot = np.divmod(np.array(keys, dtype=np.int64), n_slots)
        yield np.stack((start, start + n_steps, slot, first_event))


def _fill_block(
    log: SessionLog, active: np.ndarray, begin: int, end: int, previous_slots: np.ndarray
) -> tuple[Block, np.ndarray]:
    """Write out the steps from `begin` to before `end`.

    Parameters
    ----------
    active : int64 array (4, n)
        As `_place_sessions` gives them: the sessions that end after `begin`.
    previous_slots : int64 array
        Slots of the previous block's rows.

    Returns
    -------
    block : Block
    slots : int64 array (M,)
        Slots of its rows.
    """
    active = active[:, active[0] < end]
    start, stop, slot, first_event = active[:, np.argsort(active[2], kind="stable")]
    # a slot's sessions follow one another without a gap: laid end to end they fill (M, K) exactly
    low = np.maximum(start, begin)
    n_steps = np.minimum(stop, end) - low
    after = np.cumsum(n_steps)
    events = np.repeat(first_event + (low - start) - (after - n_steps), n_steps)
    events += np.arange(len(events))
    ends = np.zeros(len(events), dtype=np.int8)
    ends[after[stop <= end] - 1] = 1
    slots = slot[np.r_[True, slot[1:] != slot[:-1]]]

    def by_step(cells: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(cells.reshape(len(slots), end - begin).T)  # (K, M)

    block = Block(
        inputs=by_step(log.items[events]),
        targets=by_step(log.items[events + 1]),
        ends=by_step(ends),
        kept=np.searchsorted(previous_slots, slots).astype(np.int64, copy=False),
    )
    return block, slots
