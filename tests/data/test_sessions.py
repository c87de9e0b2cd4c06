"""Session logs: files and their faults, indexing, and the session-parallel mini-batches."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec_toolkit.data import schedule
from gru4rec_toolkit.data.events import read_events
from gru4rec_toolkit.data.ids import extend_item_ids, item_indices
from gru4rec_toolkit.data.schedule import (
    Block,
    count_steps,
    schedule_blocks,
    target_positions,
    training_order,
)
from gru4rec_toolkit.data.sessions import (
    SessionLog,
    check_training_log,
    index_sessions,
    known_items,
    slot_ids,
)
from gru4rec_toolkit.errors import InputError

TRAIN = Path(__file__).resolve().parents[1] / "golden" / "train.tsv"


# --- the schedule against the classic loop --------------------------------------------------------


def classic_steps(log, order, batch_size, min_rows):
    """The loop of the papers' code: rounds of `minlen` steps, masks of finished and valid slots.

    Yields (inputs, targets, ends, kept): Python lists, one entry a row; `kept` are the rows of the
    step before that are still there.
    """
    order = [s for s in order if log.offsets[s + 1] - log.offsets[s] > 1]
    width = min(batch_size, len(order))
    if width < max(min_rows, 1):
        return
    start = [int(log.offsets[s]) for s in order[:width]]
    end = [int(log.offsets[s + 1]) for s in order[:width]]
    taken = width
    kept = list(range(width))
    while True:
        minlen = min(e - s for s, e in zip(start, end))
        for i in range(minlen - 1):
            inputs = [int(log.items[s + i]) for s in start]
            targets = [int(log.items[s + i + 1]) for s in start]
            ends = [int(s + i + 1 == e - 1) for s, e in zip(start, end)]
            yield inputs, targets, ends, kept
            kept = list(range(len(start)))
        start = [s + minlen - 1 for s in start]
        valid = []
        for slot in range(len(start)):
            finished = end[slot] - start[slot] <= 1
            if finished and taken < len(order):
                start[slot] = int(log.offsets[order[taken]])
                end[slot] = int(log.offsets[order[taken] + 1])
                taken += 1
                finished = False
            valid.append(not finished)
        kept = [slot for slot in range(len(start)) if valid[slot]]
        start = [start[slot] for slot in kept]
        end = [end[slot] for slot in kept]
        if len(kept) < max(min_rows, 1):
            return


def make_log(lengths, times=None, seed=0):
    n_events = int(sum(lengths))
    return SessionLog(
        items=np.random.default_rng(seed).integers(0, 50, n_events).astype(np.int32),
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        start_times=np.arange(len(lengths)) if times is None else np.asarray(times),
        end_times=np.arange(len(lengths)),
        item_ids=np.arange(50),
    )


def check_schedule(log, order, batch_size, max_steps, min_rows):
    expected = list(classic_steps(log, list(order), batch_size, min_rows))
    step = 0
    rows_before = None
    for block in schedule_blocks(log, order, batch_size, max_steps, min_rows):
        n_steps, n_rows = block.inputs.shape
        assert 1 <= n_steps <= max_steps
        for cells, dtype in ((block.inputs, np.int32), (block.targets, np.int32)):
            assert cells.dtype == dtype and cells.flags.c_contiguous
            assert cells.shape == (n_steps, n_rows)
        assert block.ends.dtype == np.int8 and block.kept.dtype == np.int64
        assert block.ends.shape == (n_steps, n_rows)
        if rows_before == n_rows:  # only the limit on steps may have cut here
            assert list(block.kept) == list(range(n_rows))
        for k in range(n_steps):
            inputs, targets, ends, kept = expected[step + k]
            assert block.inputs[k].tolist() == inputs
            assert block.targets[k].tolist() == targets
            assert block.ends[k].tolist() == ends
            assert (block.kept if k == 0 else np.arange(n_rows)).tolist() == kept
        step += n_steps
        rows_before = n_rows
    assert step == len(expected)
    assert count_steps(log, order, batch_size, min_rows) == len(expected)


@settings(max_examples=300, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    batch_size=st.integers(1, 12),
    max_steps=st.integers(1, 30),
    min_rows=st.integers(0, 4),
    at_once=st.sampled_from([1, 3, 4096]),
    order_seed=st.integers(0, 1000),
)
def test_schedule_is_the_classic_loop(
    lengths, batch_size, max_steps, min_rows, at_once, order_seed
):
    log = make_log(lengths)
    order = np.random.default_rng(order_seed).permutation(len(lengths))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "SESSIONS_AT_ONCE", at_once)
        check_schedule(log, order, batch_size, max_steps, min_rows)


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), max_size=40).map(lambda some: [*some, 2]),
    batch_size=st.integers(1, 12),
    steps_at_once=st.integers(1, 9),
)
def test_positions_of_the_targets(lengths, batch_size, steps_at_once):
    """They lead to the blocks' targets, and to every event but the first ones."""
    log = make_log(lengths)
    order = training_order(log, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "STEPS_AT_ONCE", steps_at_once)
        positions = target_positions(log, order, batch_size)
    blocks = schedule_blocks(log, order, batch_size, 7)
    targets = np.concatenate([block.targets.ravel() for block in blocks])
    assert log.items[positions].tolist() == targets.tolist()
    assert sorted(positions) == sorted({*range(log.n_events)} - {*log.offsets[:-1].tolist()})


@pytest.mark.parametrize("max_steps", [7, 1000])
def test_schedule_of_many_sessions(max_steps):
    lengths = np.random.default_rng(5).geometric(0.25, size=9000)  # more than SESSIONS_AT_ONCE
    log = make_log(lengths)
    check_schedule(log, training_order(log, False), 32, max_steps, 1)


def test_a_session_longer_than_many_blocks():
    check_schedule(make_log([500, 2, 3]), np.arange(3), 2, 16, 1)


def test_blocks_end_where_rows_disappear_and_tell_which_are_kept():
    # slots 0, 1, 2 take sessions of 2, 4 and 3 steps; slot 0 takes one of 1 step more
    log = make_log([3, 5, 4, 2])
    blocks = list(schedule_blocks(log, np.arange(4), 3, 100))
    assert [block.inputs.shape for block in blocks] == [(3, 3), (1, 1)]
    assert blocks[0].kept.tolist() == [0, 1, 2]
    assert blocks[0].ends.tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 1]]
    assert blocks[1].kept.tolist() == [1]
    assert blocks[1].ends.tolist() == [[1]]
    assert blocks[1].targets.tolist() == [[int(log.items[7])]]


def test_freed_slots_take_the_next_sessions_in_slot_order():
    log = make_log([3, 3, 2, 2, 2])
    (block,) = schedule_blocks(log, np.arange(5), 3, 100, min_rows=3)
    starts = log.items[log.offsets[:-1]]
    assert block.inputs[0].tolist() == starts[[0, 1, 2]].tolist()
    assert block.inputs[1, 2] == starts[3]
    assert block.inputs.shape == (2, 3)


def test_the_schedule_trains_every_event_once():
    log = make_log(np.random.default_rng(1).integers(1, 12, 500))
    blocks = list(schedule_blocks(log, training_order(log, True), 16, 50))
    assert sum(block.inputs.size for block in blocks) == log.n_events - log.n_sessions
    assert sum(int(block.ends.sum()) for block in blocks) == len(training_order(log, True))


@pytest.mark.parametrize("lengths", [[], [1], [1, 1, 1]])
def test_nothing_to_schedule(lengths):
    log = make_log(lengths)
    assert list(schedule_blocks(log, np.arange(len(lengths)), 4, 10)) == []
    assert count_steps(log, np.arange(len(lengths)), 4) == 0


def test_fewer_sessions_than_min_rows():
    log = make_log([3])
    assert list(schedule_blocks(log, np.arange(1), 4, 10, min_rows=2)) == []
    assert count_steps(log, np.arange(1), 4, min_rows=2) == 0


def test_max_steps_has_to_be_positive():
    with pytest.raises(ValueError, match="max_steps"):
        next(schedule_blocks(make_log([3]), np.arange(1), 1, 0))


def test_the_schedule_is_streamed():
    """The first block of a long log must not wait for the placement of all sessions."""
    log = make_log(np.full(50_000, 3))
    placed = []
    original = schedule._place_sequences

    def counting(*args):
        for part in original(*args):
            placed.append(part.shape[1])
            yield part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "_place_sequences", counting)
        assert isinstance(next(schedule_blocks(log, np.arange(50_000), 10, 100)), Block)
    assert sum(placed) <= schedule.SESSIONS_AT_ONCE


@pytest.mark.parametrize("min_rows, n_steps", [(1, 150), (2, 147)])
def test_schedule_of_the_reference_log(min_rows, n_steps):
    log = index_sessions(read_events(TRAIN, announce=False))
    order = training_order(log, time_sort=True)
    check_schedule(log, order, 8, 20, min_rows)
    assert count_steps(log, order, 8, min_rows) == n_steps
    blocks = list(schedule_blocks(log, order, 8, 1000, min_rows))
    rows = [m for k, m in (block.inputs.shape for block in blocks) for _ in range(k)]
    assert len(rows) == n_steps
    ending = [8, 6, 6, 5, 4, 3, 2, 1, 1, 1]
    assert rows[-7:] == (ending[-7:] if min_rows == 1 else ending[:7])


# --- the order of training ------------------------------------------------------------------------


def test_training_order():
    log = make_log([2, 1, 3, 2, 2], times=[5.0, 0.0, 3.0, 5.0, 1.0])
    assert training_order(log, time_sort=False).tolist() == [0, 2, 3, 4]
    assert training_order(log, time_sort=True).tolist() == [4, 2, 0, 3]  # the tie by session id
    drawn = training_order(log, time_sort=True, rng=np.random.default_rng(3))
    assert drawn.dtype == np.int64 and sorted(drawn.tolist()) == [0, 2, 3, 4]


def test_random_orders_differ_and_repeat_with_the_seed():
    log = make_log([2] * 50)
    rng = np.random.default_rng(1)
    first, second = (training_order(log, True, rng).tolist() for _ in range(2))
    assert first != second
    assert first == training_order(log, True, np.random.default_rng(1)).tolist()


# --- indexing against brute force -----------------------------------------------------------------


def as_id(value):
    """The id that a value of any type stands for: an int if it is integral, else a string."""
    if isinstance(value, str):
        return value
    return int(value) if float(value).is_integer() else str(value)


def brute_force(frame, item_ids=None):
    """Index a frame event by event, with ids compared as strings if any one is a string."""
    events = [
        (as_id(s), as_id(i), t)
        for s, i, t in zip(frame["SessionId"], frame["ItemId"], frame["Time"])
    ]
    if item_ids is None:
        ids = list(dict.fromkeys(str(item) for _, item, _ in events))
    else:
        ids = [str(as_id(item)) for item in item_ids]
    events = [event for event in events if str(event[1]) in ids]
    by_session = {}
    for session, item, moment in events:
        by_session.setdefault(session, []).append((moment, ids.index(str(item))))
    items, offsets, start_times = [], [0], []
    for session in sorted(by_session):
        rows = sorted(by_session[session], key=lambda row: row[0])  # stable
        items += [item for _, item in rows]
        offsets.append(len(items))
        start_times.append(rows[0][0])
    return items, offsets, start_times, ids


def check_log(log, frame, item_ids=None):
    items, offsets, start_times, ids = brute_force(frame, item_ids)
    assert log.items.dtype == np.int32 and log.items.tolist() == items
    assert log.offsets.dtype == np.int64 and log.offsets.tolist() == offsets
    assert log.start_times.tolist() == start_times
    assert [str(item) for item in log.item_ids.tolist()] == ids
    assert (log.n_events, log.n_sessions, log.n_items) == (
        len(items),
        len(offsets) - 1,
        len(ids),
    )
    assert log.support.dtype == np.int64
    assert log.support.tolist() == [items.count(item) for item in range(len(ids))]


def with_types(frame, session_type, item_type, time_type):
    convert = {
        "int64": lambda column: column,
        "int32": lambda column: column.astype("int32"),
        "uint64": lambda column: column.astype("uint64"),
        "float": lambda column: column.astype("float64"),
        "str": lambda column: column.map(lambda value: f"x{value}"),
        "digits": lambda column: column.astype(str),
        "category": lambda column: column.map(lambda value: f"x{value}").astype("category"),
        "unordered": lambda column: pd.Categorical(
            column, categories=sorted(range(12), key=lambda value: value * 7 % 12)
        ),
        "Int64": lambda column: column.astype("Int64"),
        "string": lambda column: column.astype(str).astype("string"),
        "object": lambda column: pd.Series(column.tolist(), dtype=object),
        "halves": lambda column: column * 0.5,
    }
    return pd.DataFrame(
        {
            "ItemId": convert[item_type](frame["ItemId"]),
            "Time": convert[time_type](frame["Time"]),
            "SessionId": convert[session_type](frame["SessionId"]),
        }
    )


ID_TYPES = ["int64", "int32", "uint64", "float", "str", "digits", "category", "unordered"]
ID_TYPES += ["Int64", "string", "object"]
EVENTS = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 11), st.integers(0, 4)), min_size=1, max_size=40
)


@settings(max_examples=200, deadline=None)
@given(
    events=EVENTS,
    session_type=st.sampled_from(ID_TYPES),
    item_type=st.sampled_from([*ID_TYPES, "halves"]),
    time_type=st.sampled_from(["int64", "float", "Int64", "object", "uint64", "halves"]),
)
def test_index_sessions_is_brute_force(events, session_type, item_type, time_type):
    numbers = pd.DataFrame(events, columns=["SessionId", "ItemId", "Time"])
    frame = with_types(numbers, session_type, item_type, time_type)
    before = frame.copy(deep=True)
    log = index_sessions(frame)
    pd.testing.assert_frame_equal(frame, before)
    check_log(log, frame)
    assert log.session_ids is None
    kept = index_sessions(frame, keep_session_ids=True).session_ids
    assert kept.tolist() == sorted({as_id(session) for session in frame["SessionId"]})
    integral = item_type in ("int64", "int32", "uint64", "float", "unordered", "Int64", "object")
    if item_type != "halves":
        assert log.item_ids.dtype == (np.int64 if integral else object)


@settings(max_examples=150, deadline=None)
@given(
    events=EVENTS,
    known=st.lists(st.integers(0, 11), min_size=1, max_size=8, unique=True),
    item_type=st.sampled_from(["int64", "float", "digits", "unordered", "Int64", "string"]),
    known_type=st.sampled_from([int, float, str]),
)
def test_items_of_a_model_are_found_whatever_their_type(events, known, item_type, known_type):
    numbers = pd.DataFrame(events, columns=["SessionId", "ItemId", "Time"])
    frame = with_types(numbers, "int64", item_type, "int64")
    item_ids = [str(item) if known_type is str else known_type(item) for item in known]
    before = frame.copy(deep=True)
    if not set(known) & set(numbers["ItemId"]):
        with pytest.raises(InputError, match='items occurs in column "ItemId"'):
            index_sessions(frame, item_ids=item_ids)
        return
    log = index_sessions(frame, item_ids=item_ids)
    pd.testing.assert_frame_equal(frame, before)
    check_log(log, frame, item_ids)


def test_ids_are_compared_by_value_not_by_spelling():
    frame = pd.DataFrame({"SessionId": 1, "ItemId": ["7", "07", "+7", "7.0"], "Time": range(4)})
    assert index_sessions(frame, item_ids=np.array([7])).items.tolist() == [0]
    assert index_sessions(frame).n_items == 4


def test_equal_ids_of_different_types_in_one_column_are_one_item():
    frame = pd.DataFrame({"SessionId": 1, "ItemId": [12, "12", "a"], "Time": range(3)})
    log = index_sessions(frame)
    assert log.items.tolist() == [0, 0, 1] and log.item_ids.tolist() == ["12", "a"]


def test_booleans_are_words_and_numbers_among_words_stay_numbers():
    mixed = pd.DataFrame({"SessionId": 1, "ItemId": [2.0, "a", np.int64(2)], "Time": range(3)})
    assert index_sessions(mixed).item_ids.tolist() == ["2", "a"]
    flags = pd.DataFrame({"SessionId": 1, "ItemId": [True, False], "Time": range(2)})
    assert index_sessions(flags).item_ids.tolist() == ["True", "False"]


def test_ids_beyond_int64_stay_different():
    frame = pd.DataFrame({"SessionId": 1, "ItemId": [2**63, 2**63 + 1], "Time": range(2)})
    log = index_sessions(frame)
    assert log.item_ids.tolist() == [str(2**63), str(2**63 + 1)]


def test_order_of_sessions():
    frame = pd.DataFrame(
        {"SessionId": [10, 9, 10, 9], "ItemId": [1, 2, 3, 4], "Time": [1, 2, 3, 4]}
    )
    assert index_sessions(frame).start_times.tolist() == [2, 1]  # 9 before 10
    words = frame.assign(SessionId=frame["SessionId"].astype(str))
    assert index_sessions(words).start_times.tolist() == [1, 2]  # "10" before "9"
    halves = frame.assign(SessionId=frame["SessionId"] + 0.5)
    assert index_sessions(halves).start_times.tolist() == [2, 1]


def test_other_column_names_and_strange_indices():
    frame = pd.DataFrame(
        {"t": [2, 1, 1], "i": ["b", "a", "b"], "s": [1, 1, 2], "unused": [np.nan] * 3},
        index=[7, 7, 3],
    )
    log = index_sessions(frame, session_key="s", item_key="i", time_key="t")
    assert log.items.tolist() == [1, 0, 0] and log.item_ids.tolist() == ["b", "a"]


def test_dates_are_times():
    times = pd.to_datetime(["2014-04-07 10:51:09.277", "2014-04-07 10:51:09.276"])
    frame = pd.DataFrame({"SessionId": 1, "ItemId": [1, 2], "Time": times})
    for column in (frame["Time"], frame["Time"].dt.tz_localize("UTC")):
        log = index_sessions(frame.assign(Time=column))
        assert log.items.tolist() == [1, 0] and log.start_times.tolist() == [1396867869.276]


def test_times_beyond_2_to_53_are_exact():
    frame = pd.DataFrame({"SessionId": 1, "ItemId": [1, 2], "Time": [2**60 + 1, 2**60]})
    assert index_sessions(frame).items.tolist() == [1, 0]


def test_announcements(capsys):
    frame = pd.DataFrame({"s": [1, 1, 2], "i": [1, 2, 3], "t": [1, 1, 0]})
    keys = dict(session_key="s", item_key="i", time_key="t")
    index_sessions(frame, announce=True, **keys)
    assert capsys.readouterr().out == "The dataframe is already sorted by s, t\n"
    index_sessions(frame.iloc[::-1], announce=True, **keys)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "The dataframe is not sorted by s, t, sorting now"
    assert re.fullmatch(r"Data is sorted in \d+\.\d\ds", second)
    index_sessions(frame, **keys)
    assert capsys.readouterr().out == ""


# --- more items -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "item_ids, items, expected",
    [
        ([3, 1], [2, 1, 5, 2], [3, 1, 2, 5]),
        ([3, 1], [2.0, 3.0], [3, 1, 2]),
        ([3, 1], ["1", "a"], ["3", "1", "a"]),
        (["3", "x"], [3, 4], ["3", "x", "4"]),
        ([3, 1], ["1", "3"], [3, 1]),
        (["b", "a"], ["c", "a", "c"], ["b", "a", "c"]),
    ],
)
def test_extend_item_ids(item_ids, items, expected):
    frame = pd.DataFrame({"ItemId": items})
    extended = extend_item_ids(np.array(item_ids), frame, "ItemId")
    assert extended.tolist() == expected
    assert extended.dtype == (object if isinstance(expected[0], str) else np.int64)
    again = extend_item_ids(np.array(item_ids), frame.astype("category"))
    assert again.tolist() == expected


@pytest.mark.parametrize("items, words", [([], "no events"), ([1, None], "row 1")])
def test_extend_item_ids_checks_the_column(items, words):
    with pytest.raises(InputError, match=words):
        extend_item_ids(np.array([1]), pd.DataFrame({"ItemId": items}), "ItemId")
    with pytest.raises(InputError, match="-ik"):
        extend_item_ids(np.array([1]), pd.DataFrame({"Item": items}), "ItemId")


@pytest.mark.parametrize("kind", [object, "category"])
def test_ids_in_bytes(kind):
    items = pd.Series([b"7", b"8"]).astype(kind)
    with pytest.raises(InputError, match=r"ids in bytes, such as b'7', .* decode them"):
        extend_item_ids(np.array(["a"]), pd.DataFrame({"ItemId": items}), "ItemId")


# --- ids in calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, pd.Index, iter])
def test_known_items(kind):
    index = known_items(np.array([5, 3, 9]), kind([9, 5, 9]), "items")
    assert index.tolist() == [2, 0, 2] and index.dtype == np.int32
    assert known_items(np.array(["a", "5"], dtype=object), kind([5]), "items").tolist() == [1]
    with pytest.raises(InputError, match=r"^items: item 4 does not occur in the training data"):
        known_items(np.array([5, 3, 9]), kind([9, 4, 7]), "items")


def test_item_indices():
    assert item_indices(np.array([5, 3]), [3, 4, "5", None, np.nan]).tolist() == [1, -1, 0, -1, -1]
    with pytest.raises(InputError, match=r"^items: .* cannot be an id"):
        item_indices(np.array([5, 3]), [[3]])


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, iter])
def test_slot_ids(kind):
    assert slot_ids(kind(["a", "b"]), "session_ids") == ["a", "b"]
    assert slot_ids([(1, 2), 3], "session_ids") == [(1, 2), 3]


@pytest.mark.parametrize("value", [[1], {}, np.nan, pd.NaT, np.array([1, 2])])
def test_slot_ids_that_cannot_be_compared(value):
    with pytest.raises(InputError, match=r"^session_ids: slot 1 holds .*, which cannot be an id"):
        slot_ids(["a", value], "session_ids")


@pytest.mark.parametrize("values", ["abc", b"abc", 5, None, np.zeros((2, 2)), np.array(5)])
def test_what_is_no_sequence_of_ids(values):
    with pytest.raises(InputError, match=r"^items: expected a sequence of ids .*, got \w+$"):
        known_items(np.array([5]), values, "items")


@pytest.mark.parametrize("values", [[], (), np.array([]), pd.Series([], dtype=object)])
def test_no_ids(values):
    with pytest.raises(InputError, match=r"^items: it is empty; give one id or more$"):
        known_items(np.array([5]), values, "items")


# --- frames that cannot be used -------------------------------------------------------------------

GOOD = {"SessionId": [1, 1, 2], "ItemId": [1, 2, 3], "Time": [1, 2, 3]}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"Time": [1, "x", 3]}, ['"Time"', "'x'", "row 1"]),
        ({"Time": [1.0, 2.0, np.inf]}, ['"Time"', "'inf'", "row 2"]),
        ({"Time": [1.0, np.nan, 3.0]}, ['"Time"', "1 missing value,", "row 1"]),
        ({"Time": [True, False, True]}, ['"Time"', "'True'", "row 0"]),
        ({"Time": pd.to_timedelta([1, 2, 3], unit="s")}, ['"Time"', "row 0"]),
        ({"Time": pd.Categorical(["1", "2", "y"])}, ['"Time"', "'y'", "row 2"]),
        ({"ItemId": [None, "a", None]}, ['"ItemId"', "2 missing values", "row 0"]),
        ({"SessionId": pd.array([1, 2, None], dtype="Int64")}, ['"SessionId"', "row 2"]),
        ({"ItemId": [[1], [2], [3]]}, ['"ItemId"', "cannot be an id"]),
        ({"SessionId": [[1], [2], [3]]}, ['"SessionId"', "cannot be an id"]),
    ],
)
def test_values_that_cannot_be_used(change, words):
    with pytest.raises(InputError) as caught:
        index_sessions(pd.DataFrame({**GOOD, **change}), source="my data")
    for word in ["my data", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "frame, words",
    [
        (pd.DataFrame(GOOD).iloc[:0], ["no events"]),
        (pd.DataFrame(GOOD).drop(columns="Time"), ['"Time"', "SessionId, ItemId", "-tk"]),
        (pd.DataFrame(GOOD)[["SessionId", "ItemId", "Time", "Time"]], ['"Time"', "more than once"]),
        (pd.DataFrame(GOOD).to_dict(), ["DataFrame", "dict"]),
        (pd.DataFrame({f"c{i}": [1] for i in range(99)}), ["c19, ...;"]),
    ],
)
def test_frames_that_cannot_be_used(frame, words):
    with pytest.raises(InputError) as caught:
        index_sessions(frame, source="my data")
    for word in ["my data", *words]:
        assert word in str(caught.value)


def test_one_column_for_two_roles():
    with pytest.raises(InputError, match="three columns"):
        index_sessions(pd.DataFrame(GOOD), item_key="Time")


def test_numbers_in_words_are_times():
    frame = pd.DataFrame({**GOOD, "Time": ["30", "20", "10"]})
    assert index_sessions(frame).start_times.tolist() == [20, 10]


@pytest.mark.parametrize(
    "lengths, batch_size, words",
    [
        ([4], 1, ["only one session"]),
        ([1, 1, 1], 2, ["one event only", "-sk"]),
        ([2, 1, 3, 1], 3, ["batch_size is 3", "only 2 sessions", "set batch_size to 2"]),
    ],
)
def test_logs_too_small_to_train_on(lengths, batch_size, words):
    with pytest.raises(InputError) as caught:
        check_training_log(make_log(lengths), batch_size, "train.tsv")
    for word in ["train.tsv", *words]:
        assert word in str(caught.value)


def test_logs_just_big_enough_to_train_on():
    check_training_log(make_log([2, 1, 3, 1]), 2, "train.tsv")
