"""The preprocessing of the public data sets, against a slow implementation of its rules.

The slow one works on dictionaries of lists, one rule after the other, and shares nothing with the
fast one. The raw files are written in the formats of their publishers.
"""

from __future__ import annotations

import datetime
import importlib
import random
import re
import shlex
import statistics
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from helpers.cli import ROOT, complaint, files_in, python, succeeds
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(ROOT))

from examples import preprocessing, published
from examples.cli import preprocess
from gru4rec_toolkit.errors import InputError

NAMES = list(published.RESULTS)
HOUR, DAY = 3_600_000, 86_400_000
CHALLENGE_TEST = 10_000  # ids of the challenge's test sessions, in these logs
ENDS = {"rees46": 1_575_158_400_000, "retailrocket": 1_442_545_200_000}
TEST_DAYS = {"diginetica": 7, "retailrocket": 7}


class Row(NamedTuple):
    """An event of a raw file: session, user or visitor; milliseconds; item; kind of event."""

    who: int
    time: int
    item: int | None
    kind: str


# --- raw files in their publishers' formats -------------------------------------------------------


def utc(time: int) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=time)


def empty(item) -> str:
    return "" if item is None else str(item)


def write_challenge(folder: Path, rows: list[Row]) -> None:
    lines = {"clicks": [], "test": []}
    for who, time, item, _ in rows:
        stamp = utc(time).strftime("%Y-%m-%dT%H:%M:%S") + f".{time % 1000:03d}Z"
        part = "test" if who >= CHALLENGE_TEST else "clicks"
        lines[part].append(f"{who},{stamp},{empty(item)},S\n")
    for name, part in lines.items():
        (folder / f"yoochoose-{name}.dat").write_text(
            "".join(part) or "1,2014-01-01T00:00:00Z,1,0\n"
        )


def write_rees46(folder: Path, rows: list[Row]) -> None:
    header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id"
    months = {"2019-Oct": [], "2019-Nov": []}
    for who, time, item, kind in rows:
        month = "2019-Oct" if utc(time).month < 11 else "2019-Nov"
        months[month].append(
            f'{utc(time):%Y-%m-%d %H:%M:%S} UTC,{kind},{empty(item)},2053013555631882655,,"a, b",'
            f"35.79,{who},72d76fde-8bb3-4e00-8c23-a032dfe738bb\n"
        )
    for name, part in months.items():
        part = part or ["2019-10-01 00:00:00 UTC,cart,5,1,,,1,1,x\n"]
        (folder / f"{name}.csv").write_text(f"{header},user_session\n{''.join(part)}")


def write_coveo(folder: Path, rows: list[Row]) -> None:
    lines = ["session_id_hash,event_type,product_action,product_skus_hash,"]
    lines[0] += "server_timestamp_epoch_ms,hashed_url\n"
    for who, time, item, kind in rows:
        action = {"view": "detail", "cart": "add", "page": ""}[kind]
        event = "event_product" if action else "pageview"
        sku = f"p{item}" if item is not None else ""
        lines.append(f"s{who},{event},{action},{sku},{time},e8f1\n")
    (folder / "release_10_23_2020.csv").write_text("".join(lines))


def write_retailrocket(folder: Path, rows: list[Row]) -> None:
    lines = ["timestamp,visitorid,event,itemid,transactionid\n"]
    for who, time, item, kind in rows:
        event = {"view": "view", "cart": "addtocart", "page": "transaction"}[kind]
        lines.append(f"{time},{who},{event},{empty(item)},\n")
    (folder / "events.csv").write_text("".join(lines))


def write_diginetica(folder: Path, rows: list[Row]) -> None:
    """The time frame is what the time is after midnight; the date of an event is its day."""
    lines = ["sessionId;userId;itemId;timeframe;eventdate\n"]
    for who, time, item, _ in rows:
        lines.append(f"{who};NA;{empty(item)};{time % DAY};{utc(time):%Y-%m-%d}\n")
    (folder / "train-item-views.csv").write_text("".join(lines))


WRITERS = {
    "rsc15": write_challenge,
    "yoochoose": write_challenge,
    "rees46": write_rees46,
    "coveo": write_coveo,
    "retailrocket": write_retailrocket,
    "diginetica": write_diginetica,
}

# --- the slow implementation ----------------------------------------------------------------------


def by_session(rows):
    sessions = defaultdict(list)
    for row in rows:
        sessions[row.who].append(row)
    return dict(sessions)


def without_short(sessions):
    return {who: rows for who, rows in sessions.items() if len(rows) >= 2}


def without_rare(sessions):
    support = Counter(row.item for rows in sessions.values() for row in rows)
    kept = {who: [r for r in rows if support[r.item] >= 5] for who, rows in sessions.items()}
    return {who: rows for who, rows in kept.items() if rows}


def without_repeats(rows):
    return [row for i, row in enumerate(rows) if i == 0 or row.item != rows[i - 1].item]


def cut_at_gaps(sessions, limit):
    pieces = []
    for who in sorted(sessions):
        piece = []
        for row in sorted(sessions[who], key=lambda row: row.time):
            if piece and row.time - piece[-1].time > limit:
                pieces.append(piece)
                piece = []
            piece.append(row)
        pieces.append(piece)
    return dict(enumerate(pieces, start=1))


def split(sessions, at):
    train = {who: [row for row in rows if row.time < at] for who, rows in sessions.items()}
    test = {who: rows for who, rows in sessions.items() if rows[0].time >= at}
    return without_short(train), test


def split_rsc15(sessions):
    last = max(row.time for rows in sessions.values() for row in rows)
    train = {who: rows for who, rows in sessions.items() if rows[-1].time < last - DAY}
    known = {row.item for rows in train.values() for row in rows}
    test = {
        who: [row for row in rows if row.item in known]
        for who, rows in sessions.items()
        if who not in train
    }
    return train, without_short(test)


def slow_rsc15(rows):
    rows = [row for row in rows if row.who < CHALLENGE_TEST and row.item is not None]
    sessions = without_short(without_rare(without_short(by_session(rows))))
    sessions = {w: sorted(sessions[w], key=lambda row: row.time) for w in sorted(sessions)}
    train_full, test = split_rsc15(sessions)
    return [train_full, test, *split_rsc15(train_full)]


def slow(name, rows):
    """The four parts, each a dict of session id to its rows in order."""
    if name == "rsc15":
        return slow_rsc15(rows)
    if name == "rees46":  # seconds
        rows = [row._replace(time=row.time // 1000 * 1000) for row in rows if row.kind == "view"]
    if name == "diginetica":
        first = {
            who: min(row.time for row in rows) // DAY * DAY
            for who, rows in by_session(rows).items()
        }
        rows = [row._replace(time=first[row.who] + row.time % DAY) for row in rows]
    sessions = by_session(rows)
    if name in ("rees46", "coveo", "retailrocket"):
        by_text = {f"s{who}": rows for who, rows in sessions.items()}
        sessions = cut_at_gaps(by_text if name == "coveo" else sessions, HOUR)
    if name in ("coveo", "retailrocket"):
        sessions = {who: [r for r in rows if r.kind == "view"] for who, rows in sessions.items()}
    kept = {who: [r for r in rows if r.item is not None] for who, rows in sessions.items()}
    sessions = {
        who: without_repeats(sorted(rows, key=lambda r: (r.time, item_order(name, r.item))))
        for who, rows in sorted(kept.items())
    }
    while True:
        fewer = without_rare(without_short(sessions))
        if fewer == sessions:
            break
        sessions = fewer
    if not sessions:
        raise ValueError("nothing is left")
    days = TEST_DAYS.get(name, 1)
    end = ENDS.get(name) or max(row.time for rows in sessions.values() for row in rows)
    train_full, test = split(sessions, end - days * DAY)
    return [train_full, test, *split(train_full, end - 2 * days * DAY)]


def item_order(name, item):
    return f"p{item}" if name == "coveo" else item


def as_lines(name, part):
    """What a file of a part has to hold: session after session, without the ids made by cutting."""
    seconds = name in ("rsc15", "yoochoose", "rees46")
    return [
        [
            (
                who if name in ("rsc15", "yoochoose", "diginetica") else None,
                f"p{row.item}" if name == "coveo" else str(row.item),
                row.time / 1000 if seconds else row.time,
            )
            for row in rows
        ]
        for who, rows in part.items()
    ]


def read_lines(name, path):
    """The same from a file, which has to hold each session in one piece."""
    header, *lines = path.read_text().splitlines()
    assert header == "SessionId\tItemId\tTime"
    sessions, seen = [], []
    for line in lines:
        who, item, time = line.split("\t")
        if not seen or seen[-1] != int(who):
            seen.append(int(who))
            sessions.append([])
        named = name in ("rsc15", "yoochoose", "diginetica")
        sessions[-1].append((int(who) if named else None, item, float(time)))
    assert seen == sorted(set(seen))
    return sessions


# --- comparing ------------------------------------------------------------------------------------


def data_set(name) -> preprocessing.DataSet:
    return importlib.import_module(f"examples.{name}.preprocess").DATA_SET


PARTS = ["train_full", "test", "train_tr", "train_valid"]
# gaps that matter: ties, the limit of a session and its neighbours, a day
GAPS = [0, 0, 1, 1000, 600_000, HOUR - 1000, HOUR, HOUR + 1, HOUR + 1000, 5 * HOUR, DAY]
EVENTS = st.tuples(
    st.sampled_from([1, 1, 1, 2, 2, 10, 10_001, 10_002]),
    st.sampled_from(GAPS),
    st.sampled_from([9, 9, 9, 10, 10, 11, 100, None]),
    st.sampled_from(["view"] * 6 + ["cart", "page"]),
)


@settings(max_examples=100, deadline=None)
@given(
    events=st.lists(EVENTS, min_size=12, max_size=70),
    shift=st.sampled_from([0, 0, 1, -1, 1000, -HOUR]),
    backwards=st.booleans(),
)
@pytest.mark.parametrize("name", NAMES)
def test_against_the_slow_implementation(tmp_path_factory, name, events, shift, backwards):
    folder = tmp_path_factory.mktemp(name)
    days = TEST_DAYS.get(name, 1)
    n_gaps = sum(gap for _, gap, _, _ in events)
    # about the end of the test, so that sessions lie on either side of both splits, and on them
    time = ENDS.get(name, 1_396_864_269_277) - min(n_gaps // 2, 3 * days * DAY) + shift
    rows = []
    for i, (who, gap, item, kind) in enumerate(events):
        time += gap * (days if gap == DAY else 1)
        # given sessions end after a while
        given_session = name in ("rsc15", "yoochoose", "diginetica")
        rows.append(Row(who + (100 * (i // 9) if given_session else 0), time, item, kind))
    if backwards:
        rows.reverse()
    WRITERS[name](folder, rows)
    if name == "yoochoose" and not any(row.who >= CHALLENGE_TEST for row in rows):
        rows.append(Row(1, 1_388_534_400_000, 1, "view"))
    if name in ("yoochoose", "rsc15") and not any(row.who < CHALLENGE_TEST for row in rows):
        rows.append(Row(1, 1_388_534_400_000, 1, "view"))
    try:
        expected = slow(name, rows)
    except ValueError:  # nothing is left, or nothing to train on
        with pytest.raises(InputError, match=r"no .*(left|train|events)|nothing to train on"):
            preprocess(data_set(name), str(folder))
        return
    paths = preprocess(data_set(name), str(folder), str(folder / "out"))
    assert list(paths) == PARTS
    for part, rows_of_part in zip(PARTS, expected):
        assert read_lines(name, Path(paths[part])) == as_lines(name, rows_of_part), part


# --- as users run it ------------------------------------------------------------------------------


def long_log(name, n_sessions=400, seed=5):
    """A log of which something is left in all four parts."""
    rng = random.Random(seed)
    days = TEST_DAYS.get(name, 1)
    end = ENDS.get(name, 1_396_864_269_277)
    rows = []
    for i in range(n_sessions):
        who = i if name in ("rsc15", "diginetica") else i % 37
        if name == "yoochoose":
            who = i + 1 + CHALLENGE_TEST * (i % 4 == 0)
        time = end - rng.randrange(5 * days * DAY) - HOUR
        for _ in range(rng.randint(1, 7)):
            kind = rng.choice(["view"] * 6 + ["cart", "page"])
            rows.append(Row(who, time, rng.choice([None, *range(8, 40)]), kind))
            time += rng.choice([0, 1000, 60_000, HOUR // 7])
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_the_script(tmp_path, name):
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = long_log(name)
    WRITERS[name](raw, rows)
    before = files_in(raw)
    done = succeeds(python(ROOT / "examples" / name / "preprocess.py", "raw", cwd=tmp_path))
    expected = slow(name, rows)
    assert all(expected)
    after = files_in(raw)
    assert set(after) - set(before) == {f"{name}_{part}.tsv" for part in PARTS}
    assert {path: after[path] for path in before} == before
    header, *lines = done.lines
    assert header.split()[:4] == ["events", "sessions", "items", "days"]
    assert lines[4:] == [f"raw/{name}_{part}.tsv" for part in PARTS]
    for part, line, sessions in zip(PARTS, lines, expected):
        lines_of_part = read_lines(name, raw / f"{name}_{part}.tsv")
        assert lines_of_part == as_lines(name, sessions)
        lengths = [len(rows) for rows in lines_of_part]
        items = {item for rows in lines_of_part for _, item, _ in rows}
        assert line.split()[:4] == [part, *map(str, (sum(lengths), len(lengths), len(items)))]
        longest, median, mean = line.split()[:-4:-1]
        assert float(mean) == pytest.approx(statistics.mean(lengths), abs=0.0051)
        assert abs(float(median) - statistics.median(lengths)) <= 0.5
        assert int(longest) == max(lengths)
    from gru4rec_toolkit.data.events import read_events

    assert len(read_events(raw / f"{name}_test.tsv")) > 0


@pytest.mark.parametrize("name", NAMES)
def test_help_names_the_raw_files(tmp_path, name):
    done = succeeds(python(ROOT / "examples" / name / "preprocess.py", "-h", cwd=tmp_path))
    text = " ".join(done.out.split())
    assert data_set(name).home in text
    assert all(file.name in text for file in data_set(name).files)


def cut_short(content):
    return content[: content.rindex(b",") if b"," in content[-60:] else content.rindex(b";")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "damage, words",
    [
        (None, ["no such file", "download"]),
        (lambda content: b"", ["empty"]),
        (cut_short, ["cut short", "the last row has"]),
        (lambda content: b"PK\3\4\0\0" + content, ["packed"]),
        (lambda content: content.replace(b";", b"|").replace(b",", b"|"), ["expected"]),
    ],
)
def test_raw_files_that_cannot_be_used(tmp_path, name, damage, words):
    WRITERS[name](tmp_path, long_log(name))
    file = data_set(name).files[-1]
    path = tmp_path / file.name
    content = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(content))
    before = files_in(tmp_path)
    with pytest.raises(InputError) as caught:
        preprocess(data_set(name), str(tmp_path))
    for word in [str(path), data_set(name).home, *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    "name, old, new, words",
    [
        ("rees46", b"UTC,view", b"CET,view", ["event_time", "UTC time"]),
        ("coveo", b",detail,", b",detail,x,", ["7 fields, expected 6"]),
        ("retailrocket", b",view,", b"0,9,view,", ["6 fields, expected 5"]),
        ("diginetica", b";NA;", b"x;NA;", ["sessionId", "integer"]),
        ("yoochoose", b"Z,", b",", ["time", "ISO time"]),
    ],
)
def test_a_bad_row_in_the_middle_is_named(tmp_path, name, old, new, words):
    WRITERS[name](tmp_path, long_log(name))
    path = tmp_path / data_set(name).files[-1].name
    lines = path.read_bytes().split(b"\n")
    number = next(i for i in range(50, len(lines)) if old in lines[i])
    lines[number] = lines[number].replace(old, new)
    path.write_bytes(b"\n".join(lines))
    before = files_in(tmp_path)
    done = python(ROOT / "examples" / name / "preprocess.py", tmp_path, cwd=tmp_path)
    message = complaint(done)
    for word in [str(path), f"line {number + 1} ", *words]:
        assert word in message
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    "name, column, what",
    [
        ("retailrocket", 0, "time"),
        ("retailrocket", 1, "session"),
        ("diginetica", 3, "timeframe"),
        ("diginetica", 4, "time"),
        ("coveo", 0, "session"),
    ],
)
def test_a_row_without_a_value(tmp_path, name, column, what):
    WRITERS[name](tmp_path, long_log(name))
    (file,) = data_set(name).files
    lines = (tmp_path / file.name).read_text().splitlines()
    fields = lines[70].split(file.separator)
    lines[70] = file.separator.join([*fields[:column], "", *fields[column + 1 :]])
    (tmp_path / file.name).write_text("\n".join(lines))
    with pytest.raises(InputError, match=rf"^{tmp_path}: .* rows without a {what}; "):
        preprocess(data_set(name), str(tmp_path))


def test_no_directory_and_no_room(tmp_path, monkeypatch):
    coveo = data_set("coveo")
    with pytest.raises(InputError, match=r"no such directory.*release_10_23_2020.csv.*github"):
        preprocess(coveo, str(tmp_path / "none"))
    write_coveo(tmp_path, long_log("coveo"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: cannot write there .* -o"):
        preprocess(coveo, str(tmp_path), str(tmp_path / "file"))
    (tmp_path / "coveo_test.tsv").write_text("SessionId\tItemId\tTime\nmine")
    before = files_in(tmp_path)
    written = []

    def fill_up(stream, part):
        written.append(stream.write(b"half of it"))
        yield len(part)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("examples.cli._write", fill_up)
    with pytest.raises(InputError, match=r"coveo_train_tr.tsv: .*No space left"):
        preprocess(coveo, str(tmp_path))
    assert files_in(tmp_path) == before


def test_what_is_there_is_replaced_if_forced_only(tmp_path):
    coveo = data_set("coveo")
    write_coveo(tmp_path, long_log("coveo"))
    paths = preprocess(coveo, str(tmp_path))
    made = files_in(tmp_path)
    preprocess(coveo, str(tmp_path))  # makes the same files
    assert files_in(tmp_path) == made

    test = tmp_path / "coveo_test.tsv"
    # by another program, or from other raw files: told before anything is read, and after it
    for text in ("a b c\n", "SessionId\tItemId\tTime\n1\t2\t3\n"):
        test.write_text(text)
        before = files_in(tmp_path)
        with pytest.raises(InputError, match=r"coveo_test.tsv: it exists .* --force"):
            preprocess(coveo, str(tmp_path))
        assert files_in(tmp_path) == before
        preprocess(coveo, str(tmp_path), force=True)
        assert files_in(tmp_path) == made

    raw = tmp_path / coveo.files[0].name
    test.unlink()
    test.symlink_to(raw)
    with pytest.raises(InputError, match=r"coveo_test.tsv: it is the raw file"):
        preprocess(coveo, str(tmp_path), force=True)
    assert raw.read_bytes() == made[raw.name] and set(paths) == set(PARTS)


def test_force_in_a_shell(tmp_path):
    write_coveo(tmp_path, long_log("coveo"))
    (tmp_path / "coveo_test.tsv").write_text("mine")
    command = (ROOT / "examples" / "coveo" / "preprocess.py", tmp_path)
    assert "--force" in complaint(python(*command, cwd=tmp_path))
    succeeds(python(*command, "--force", cwd=tmp_path))
    assert (tmp_path / "coveo_test.tsv").read_bytes().startswith(b"SessionId\t")


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"raw data needs the package pyarrow; .*pip install"):
        preprocess(data_set("coveo"), str(tmp_path))


# --- steps that the small logs do not reach -------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(*3 * [st.integers(0, 3)], st.booleans()), min_size=1),
    st.sampled_from([1, 2**40]),
)
def test_sorting_packed_or_not(rows, spread):
    """Times so far apart that an event does not fit in 64 bits are sorted another way."""
    session, item, time, relevant = map(np.array, zip(*rows))
    events = preprocessing.Events(
        session.astype(np.int32),
        item.astype(np.int32),
        time * spread,
        np.arange(2**20),
        np.arange(2**20),
        1,
        False,
        relevant,
    )
    done = preprocessing.sort(events)
    found = zip(done.session, done.time // spread, done.item, done.relevant)
    assert [tuple(map(int, row)) for row in found] == sorted(
        (s, t, i, int(r)) for s, i, t, r in rows
    )


# --- training -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A directory with the raw files of all data sets, as the README has them."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "examples").symlink_to(ROOT / "examples")
    for name in NAMES:
        raw = folder / "raw" / ("yoochoose" if name == "rsc15" else name)
        raw.mkdir(parents=True, exist_ok=True)
        if name != "yoochoose":  # rsc15's sessions serve both
            WRITERS[name](raw, long_log(name, n_sessions=2000))
    return folder


README = (ROOT / "examples" / "README.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


def test_every_command_of_the_readme(workplace):
    assert len(COMMANDS) == 9
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "python"
        done = succeeds(python(*arguments, cwd=workplace, PYTHONPATH=str(ROOT)))
        if "preprocess.py" in command:
            assert done.out.count(".tsv") == 4
        elif "data.report" not in command:
            assert "Epoch10 --> loss" in done.out
            assert re.search(r"^Recall, MRR@20 +0\.\d{4} +0\.\d{4} +[-+]\d", done.out, re.M)
    assert (workplace / "prepared" / "diginetica_test.tsv").exists()


def test_reproduce_says_what_is_wrong_before_it_works(workplace):
    script = ROOT / "examples" / "reproduce.py"

    def run(*arguments):
        return complaint(python(script, *arguments, cwd=workplace))

    assert "n_epoch" in run("coveo", "raw/coveo", "-ps", "n_epoch=1")
    assert "raw/none" in run("coveo", "raw/none")
    assert "none/model" in run("coveo", "raw/coveo", "-s", "none/model")
    raw = "raw/coveo/release_10_23_2020.csv"
    assert "it is the raw file" in run("coveo", "raw/coveo", "-s", raw, "--force")
    output = "raw/coveo/coveo_test.tsv"
    assert "it is the output test" in run("coveo", "raw/coveo", "-s", output, "--force")
    done = python(script, "movielens", "raw", cwd=workplace)
    assert done.code == 2 and "rsc15" in done.err


def test_reproduce_options(workplace):
    arguments = ["-ps", "n_epochs=1,layers=4,batch_size=8", "--valid", "-s", "model", "-o", "out"]
    done = succeeds(
        python(ROOT / "examples" / "reproduce.py", "coveo", "raw/coveo", *arguments, cwd=workplace)
    )
    assert re.search(r"^Loading data .*: out/coveo_train_valid.tsv$", done.out, re.M)
    assert re.search(r"^SET +layers +TO +\[4\]", done.out, re.M)
    assert "not comparable" in done.out
    assert (workplace / "model").exists() and (workplace / "out" / "coveo_test.tsv").exists()


def test_the_example_has_the_parameters_of_the_paramfile():
    from examples.rsc15 import run_rsc15
    from gru4rec_toolkit import parameters

    assert dict(parameters.read_file(published.paramfile("rsc15"))) == run_rsc15.PARAMETERS


def test_comparison_with_what_is_published():
    recall, mrr = zip(*published.RESULTS["coveo"])
    lines = published.comparison("coveo", [2 * x for x in recall], mrr).splitlines()
    assert len(lines) == 5
    row = "Recall, MRR@20 0.6270 0.3135 +100.0% 0.1010 0.1010 +0.0%"
    assert " ".join(lines[-1].split()) == row


def test_every_data_set_has_parameters_and_results():
    for name in NAMES:
        assert Path(published.paramfile(name)).exists()
        assert data_set(name).name == name
        recalls = [recall for recall, _ in published.RESULTS[name]]
        assert recalls == sorted(recalls) and published.RESULTS[name][0][0] == recalls[0]
