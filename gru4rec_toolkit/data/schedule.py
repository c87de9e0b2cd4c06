"""The schedule of session-parallel mini-batches (Hidasi et al., ICLR 2016, section 3.1.1)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from gru4rec_toolkit.data.sessions import SessionLog

# --- scheduling -----------------------------------------------------------------------------------

# sessions that are placed at a time: enough to hide numpy's overhead, in little memory
SESSIONS_AT_ONCE = 4096
# steps of which the positions of the targets are found together
STEPS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Block:
    """K consecutive steps of session-parallel mini-batches over the same M slots.

    Attributes
    ----------
    inputs, targets : int32 arrays (K, M)
        Item index of each event and of the event after it.
    ends : int8 array (K, M)
        1 where the state is reset after this step, as where the target is the last event of its
        sequence.
    kept : int64 array (M,)
        Rows of the previous block that go on as this block's rows, so ``H = H[kept]`` carries the
        hidden states over; for the first block ``arange(M)``.
    begins : int64 array (3, n)
        Step, row and sequence, of each input that is the first event of a sequence.
    """

    inputs: np.ndarray
    targets: np.ndarray
    ends: np.ndarray
    kept: np.ndarray
    begins: np.ndarray


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
    sequences = log.sequences
    usable = np.flatnonzero(sequences.lengths > 1)
    if rng is not None:
        return rng.permutation(usable)
    if time_sort:
        return usable[np.argsort(sequences.start_times[usable], kind="stable")]
    return usable


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
    placements = _place_sequences(log, order, heap)
    active = np.zeros((5, 0), dtype=np.int64)
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
            if part is not None:
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
    for _ in _place_sequences(log, order, heap):
        pass
    # once sessions run out, slots stay empty, until too few are left
    return sorted(heap, reverse=True)[max(min_rows, 1) - 1] // n_slots


def target_positions(log: SessionLog, order: np.ndarray, batch_size: int) -> np.ndarray:
    """Return where the targets of `schedule_blocks` stand in ``log.items``.

    Returns
    -------
    int64 array (n_targets,)
        Step by step, and by row in a step, as the blocks' targets follow each other.
    """
    # the same sessions with their events' positions in the place of items
    positions = replace(log, items=np.arange(log.n_events, dtype=np.int64))
    blocks = schedule_blocks(positions, order, batch_size, STEPS_AT_ONCE)
    return np.concatenate([block.targets.ravel() for block in blocks])


def _with_steps(log: SessionLog, order: np.ndarray) -> np.ndarray:
    """Leave out the sessions of one event."""
    order = np.asarray(order, dtype=np.int64)
    return order[log.sequences.lengths[order] > 1]


def _place_sequences(log: SessionLog, order: np.ndarray, heap: list[int]) -> Iterator[np.ndarray]:
    """Assign sessions to slots, `SESSIONS_AT_ONCE` at a time.

    Parameters
    ----------
    heap : list of int, changed in place
        One key a slot: ``step * n_slots + slot`` where step is the first at which the slot is free.
        The smallest key is thus the slot that takes the next session, ties in ascending slot order,
        and replacing it by ``key + steps * n_slots`` occupies the slot for these steps.

    Yields
    ------
    int64 array (5, n)
        First step, step after the last, slot, position of the first event in ``log.items``, and
        index, a column a sequence. First steps never decrease.
    """
    n_slots, replace = len(heap), heapq.heapreplace
    firsts, lengths = log.sequences.firsts, log.sequences.lengths
    for i in range(0, len(order), SESSIONS_AT_ONCE):
        placed = order[i : i + SESSIONS_AT_ONCE]
        first_event, n_steps = firsts[placed], lengths[placed] - 1
        keys = [replace(heap, heap[0] + busy) for busy in (n_steps * n_slots).tolist()]
        start, slot = np.divmod(np.array(keys, dtype=np.int64), n_slots)
        yield np.stack((start, start + n_steps, slot, first_event, placed))


def _fill_block(
    log: SessionLog, active: np.ndarray, begin: int, end: int, previous_slots: np.ndarray
) -> tuple[Block, np.ndarray]:
    """Write out the steps from `begin` to before `end`.

    Parameters
    ----------
    active : int64 array (5, n)
        As `_place_sequences` gives them: the sessions that end after `begin`.
    previous_slots : int64 array
        Slots of the previous block's rows.

    Returns
    -------
    block : Block
    slots : int64 array (M,)
        Slots of its rows.
    """
    active = active[:, active[0] < end]
    start, stop, slot, first_event, index = active[:, np.argsort(active[2], kind="stable")]
    # a slot's sessions follow each other without gaps: concatenated they fill (M, K) exactly
    low = np.maximum(start, begin)
    n_steps = np.minimum(stop, end) - low
    after = np.cumsum(n_steps)
    events = np.repeat(first_event + (low - start) - (after - n_steps), n_steps)
    events += np.arange(len(events))
    ends = np.zeros(len(events), dtype=np.int8)
    ends[after[stop <= end] - 1] = 1
    if log.sequences.resets is not None:
        ends[log.sequences.resets[events + 1]] = 1
    is_first = start >= begin
    slots = slot[np.r_[True, slot[1:] != slot[:-1]]]

    def by_step(cells: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(cells.reshape(len(slots), end - begin).T)  # (K, M)

    block = Block(
        inputs=by_step(log.items[events]),
        targets=by_step(log.items[events + 1]),
        ends=by_step(ends),
        begins=np.stack(
            (start[is_first] - begin, np.searchsorted(slots, slot[is_first]), index[is_first])
        ),
        kept=np.searchsorted(previous_slots, slots).astype(np.int64, copy=False),
    )
    return block, slots
