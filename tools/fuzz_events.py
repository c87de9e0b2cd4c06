"""Damaged tables of events for `fuzz.py`: sound files, what is changed in them, what comes out.

Every input has to end as a table or as one sentence. Where plain Python reads a text, or the
library underneath another file, the values have to be the same.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import math
import os
import pickle
import random
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from gru4rec_toolkit.data.events import read_events

COLUMNS = ["SessionId", "ItemId", "Time"]
WORDS = "0 1 7 -1 +7 007 1e5 1e4294967294 1e4001400000002 1.5 .5 5. 1e309 1396860669.277 a é NA nan"
WORDS += " inf 0x1F 1_0 ٣ 9223372036854775807 9223372036854775808 18446744073709551616 True now T Z"
WORDS += " 2014-04-07 2014-04-07T10 2014-04-07T10:51:09Z 2014-04-07T10:51+02 3000-01-01 0001-01-01"
WORDS += " 2014-04-07T10-0530 2014-W15-1 20140407T1051 2014 1396860669.2770000123 " + "0" * 40 + "1"
WORDS += " 0." + "0" * 330 + "1 " + "9" * 400
WORDS = [*WORDS.split(" "), "", " ", " 7", '"', '""', '"a,b"', "\t", "\n", "\r\n", "\r", ",", "\0"]


# --- files ----------------------------------------------------------------------------------------


def seeds() -> list[tuple[str, bytes]]:
    """Make sound files of all kinds: the ends of their names, and their bytes."""
    found = []
    plain = pd.DataFrame({"SessionId": [3, 3, 1, 1], "ItemId": [1, 2, 1, 3], "Time": [1, 2, 3, 4]})
    dates = pd.to_datetime(["2014-04-07 10:51:09", "2014-04-08", "2015", "2016"], format="ISO8601")
    frames = [
        plain,
        plain.assign(ItemId=["a", "b", "a", "éé"]),
        plain.assign(Time=[1.5, 1396860669.277, 3.0, 4.25]),
        plain.assign(Time=dates),
        plain.assign(Time=dates.tz_localize("UTC"), ItemId=pd.Categorical(["a", "b", "a", "c"])),
        plain.astype({"SessionId": "Int64", "ItemId": "category", "Time": "int32"}),
        plain.assign(ItemId=pd.array(["a", "b", "a", "c"], dtype="string"), x=None),
        plain.assign(Time=["2014-04-07", "2014-04-07T10:51+02", "2014-04-08", "2015-01-01"]),
        pd.concat([plain] * 300, ignore_index=True),
    ]
    for frame in frames:
        for separator, end in (("\t", "tsv"), (",", "csv")):
            text = frame.to_csv(sep=separator, index=False, quoting=csv.QUOTE_MINIMAL).encode()
            found += [(end, text), (f"{end}.gz", gzip.compress(text, 1, mtime=0))]
        for protocol in range(6):
            found.append(("pickle", pickle.dumps(frame, protocol)))
        for end, options in (
            ("parquet", {}),
            ("parquet", {"compression": None, "use_dictionary": False}),
            ("feather", {"compression": "lz4"}),
            ("feather", {"compression": "uncompressed"}),
        ):
            file = io.BytesIO()
            getattr(frame, f"to_{end}")(file, **options)
            found.append((end, file.getvalue()))
    return found


def damage(rng: random.Random, kind: str, content: bytes) -> bytes:
    """Change a few places of a file."""
    content = bytearray(content)
    is_text = kind in ("tsv", "csv")
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(content) + 1)
        if is_text and rng.random() < 0.6:
            at = max(content.rfind(bytes([rng.choice(b"\t\n,")]), 0, at) + 1, 0)
        end = min(at + rng.choice((0, 0, 1, 2, 4, 9)), len(content))
        choice = rng.random()
        if choice < 0.35 and is_text:
            if rng.random() < 0.5:  # a whole field
                ends = [content.find(mark, at) for mark in (b"\t", b"\n", b",")]
                end = min([e for e in ends if e >= 0], default=len(content))
            content[at:end] = rng.choice(WORDS).encode()
        elif choice < 0.6 and at < len(content):
            content[at] = rng.choice((content[at] ^ 1 << rng.randrange(8), rng.randrange(256)))
        elif choice < 0.7 and not is_text:
            number = rng.choice((0, 1, -1, 127, 255, 2**31 - 1, 2**40, 2**63 - 1, -(2**63)))
            raw = struct.pack("<q", number)[: rng.choice((1, 2, 4, 8))]
            content[at : at + len(raw)] = raw
        elif choice < 0.8:
            content[at:end] = b""
        elif choice < 0.9:
            begin = rng.randrange(len(content) + 1)
            # seldom so often that a field, or what is nested, gets long
            times = rng.choice((1, 1, 1, 1, 1, 1, 1, 40, 1000, 20_000))
            content[at:at] = content[begin : begin + rng.randrange(60)] * times
        elif choice < 0.94:
            del content[at:]
        else:
            content[at:end] = bytes(rng.randrange(256) for _ in range(rng.randrange(9)))
    return bytes(content)


def inputs(rng: random.Random, *kinds: str) -> Iterator[tuple[str, bytes]]:
    """Give damaged files of some kinds without end: kinds and bytes."""
    sound = seeds()
    while True:
        kind = rng.choice(kinds)
        content = rng.choice([c for k, c in sound if k == kind])
        if kind.endswith(".gz") and rng.random() < 0.5:  # what is packed is damaged
            yield kind, gzip.compress(damage(rng, kind[:-3], gzip.decompress(content)), 1, mtime=0)
        else:
            yield kind, damage(rng, kind, content)


# --- readers --------------------------------------------------------------------------------------


def check(path: Path) -> str:
    """Read one file: "read", or what is wrong about the values; errors are the caller's."""
    frame = read_events(path, announce=False)
    found = [frame[name].tolist() for name in COLUMNS]
    try:
        if ".tsv" in path.name or ".csv" in path.name:
            return compare_text(path, found)
        return compare_tables(path, found)
    except Exception as err:
        return f"comparison: {type(err).__name__}: {err}"


def compare_text(path: Path, found: list[list]) -> str:
    content = path.read_bytes()
    content = gzip.decompress(content) if path.name.endswith(".gz") else content
    # what stands in columns that are not read does not matter
    text = content.decode("utf-8-sig", errors="surrogateescape")
    if ".csv" in path.name:
        if '"' in text:
            return "read"  # pandas and csv agree on sound quotes, which test_events.py looks at
        rows = list(csv.reader(io.StringIO(text, newline="")))
        rows = [row for row in rows if len(row) > 1 or "".join(row).strip(" \t")]
    else:
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        rows = [line.split("\t") for line in lines if line.strip(" ")]
    header, *rows = rows
    if len(rows) != len(found[0]):
        return f"wrong: {len(found[0])} rows instead of {len(rows)}"
    for name, values in zip(COLUMNS, found):
        position = header.index(name)
        for row, value in zip(rows, values):
            word = row[position]
            if name != "Time":
                if str(value) != word:
                    return f"wrong: {name} {value!r} instead of {word!r}"
                continue
            expected = plain_time(word)
            if isinstance(value, float) and expected is not None:
                expected = float(expected)  # of an integer that no int64 holds
            if expected is not None and value != expected:
                return f"wrong: time {value!r} instead of {word!r}, {expected!r}"
    return "read"


def plain_time(word: str) -> int | float | None:
    """Read a time as Python does."""
    for read in (int, float):
        try:
            return float(word) if read is float else int(word)
        except ValueError:
            pass
    try:
        date = datetime.datetime.fromisoformat(word)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=datetime.timezone.utc)
    return (date - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)).total_seconds()


def compare_tables(path: Path, found: list[list]) -> str:
    """Compare with the library underneath, where that reads the file without a crash."""
    output, given = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(output)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read = {"pickle": pd.read_pickle, "parquet": pd.read_parquet}
                frame = read.get(path.suffix[1:], pd.read_feather)(path)
            times = frame["Time"]
            if times.dtype.kind == "M":
                times = times.astype("int64") / {"s": 1, "ms": 1e3, "us": 1e6}.get(
                    times.dt.unit, 1e9
                )
            elif times.dtype == object or times.dtype == "string":
                times = times.map(plain_time)
            columns = [frame[n].astype(object).tolist() for n in COLUMNS[:2]] + [times.tolist()]
            with os.fdopen(given, "wb") as file:
                file.write(pickle.dumps(columns))
        finally:
            os._exit(0)
    os.close(given)
    with os.fdopen(output, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    if not content:
        return "read"
    for name, ours, theirs in zip(COLUMNS, found, pickle.loads(content)):
        if len(ours) != len(theirs):
            return f"wrong: {len(ours)} rows instead of {len(theirs)}"
        for one, other in zip(ours, theirs):
            if name == "Time" and other is not None:
                same = math.isclose(one, other, rel_tol=1e-15, abs_tol=1e-9)
            else:
                same = other is None or one == other or str(one) == str(other)
            if not same:
                return f"wrong: {name} {one!r} instead of {other!r}"
    return "read"
