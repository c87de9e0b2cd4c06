"""Text is looked through block by block while pandas reads it, and read once."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest
from helpers.event_files import HEADER, read, write
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec_toolkit.data import text as text_
from gru4rec_toolkit.data.events import read_events
from gru4rec_toolkit.data.text import SCAN_BYTES, NeedsExactParser, Scan, TextFile
from gru4rec_toolkit.errors import InputError


@pytest.mark.parametrize("word", ["07", "+7", "-0", "-07", "7"])
@pytest.mark.parametrize("n_bytes", [1, 2, 3, 5, 64])
def test_odd_numbers_are_seen_across_the_blocks_of_the_scan(tmp_path, monkeypatch, word, n_bytes):
    monkeypatch.setattr(text_, "SCAN_BYTES", n_bytes)
    for shift in range(n_bytes if n_bytes < 64 else 1):
        rows = "10\t100\t0\n" * 1001 + "1\t1\t1" + "1" * shift + f"\n1\t{word}\t1\n"
        frame = read(write(tmp_path / "a.tsv", HEADER + rows))
        assert frame["ItemId"].iloc[-1] == (7 if word == "7" else word)
        assert frame["SessionId"].dtype == np.int64


def scan(path, n_bytes, numbers=True):
    """Give what a scan by blocks hands on, and the scan."""
    file = TextFile(str(path), "," if ".csv" in path.name else "\t")
    with pytest.MonkeyPatch.context() as patch, file.scan(numbers) as found:
        patch.setattr(text_, "SCAN_BYTES", n_bytes)
        return b"".join(iter(lambda: found.read(1 << 18), b"")), found


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(list('0017-+ \t,,""\n\r.a') + ["é", "\t0", ",-", '"0'])),
    n_bytes=st.integers(1, 7),
    name=st.sampled_from(["a.tsv", "a.csv", "a.csv.gz"]),
)
def test_a_scan_does_not_depend_on_its_blocks(tmp_path_factory, pieces, n_bytes, name):
    """Numbers, quotes and separators are seen as in the whole text, wherever blocks cut it."""
    text = "".join(pieces)
    content = text.encode()
    path = tmp_path_factory.mktemp("scan") / name
    write(path, gzip.compress(content) if name.endswith("gz") else content)
    handed_on, found = scan(path, n_bytes)
    assert handed_on == content
    outside = text if name == "a.tsv" else "".join(text.split('"')[::2])
    assert found.separators == outside.count("\t" if name == "a.tsv" else ",")
    odd = r'[+ \v\f]|-0|(?<=[\0-\r",])0[0-9]'  # a file does not begin with a number
    assert found.plain == (re.search(odd, text) is None)
    assert scan(path, n_bytes, numbers=False)[1].plain


@pytest.mark.parametrize("n_bytes", [1, 100, 1 << 18])
def test_blocks_are_not_longer_than_asked_for(tmp_path, n_bytes):
    file = TextFile(str(write(tmp_path / "a.tsv", HEADER)), "\t")
    with file.scan() as found:
        blocks = list(iter(lambda: found.read(n_bytes), b""))
    assert max(map(len, blocks)) <= n_bytes and b"".join(blocks) == HEADER.encode()


@pytest.mark.parametrize("kind", ["tsv", "csv", "tsv.gz"])
@pytest.mark.parametrize(
    "item, late, n_reads",
    [
        ("7", "7", 1),
        ("7", "x", 2),
        ("7", "007", 2),
        ("7", "9223372036854775808", 2),
        ("a", "x", 1),
        ("a", "7", 1),
        ("a", "007", 2),  # for all that pandas says, it may have been a session
        ("07", "7", 1),
        ("07", "007", 1),
    ],
)
def test_text_is_read_once(tmp_path, monkeypatch, kind, item, late, n_reads):
    """But for its first rows, and where a late id is unlike them."""
    text = HEADER + f"5\t{item}\t1\n" * 40000 + f"5\t{late}\t1\n"
    text = (text.replace("\t", ",") if kind == "csv" else text).encode()
    path = write(tmp_path / f"a.{kind}", gzip.compress(text, 1) if kind == "tsv.gz" else text)
    lengths = []
    monkeypatch.setattr(Scan, "read", noting(Scan.read, lengths))
    frame = read(path)
    assert frame["ItemId"].astype(str).tolist() == [item] * 40000 + [late]
    assert 0 <= sum(lengths) - n_reads * len(text) <= SCAN_BYTES


def noting(read_block, lengths):
    def read(self, size):
        block = read_block(self, size)
        lengths.append(len(block))
        return block

    return read


@pytest.mark.parametrize("word", ["-0", "007", "+7", "7"])
def test_the_last_number_needs_no_end_of_line(tmp_path, word):
    rows = "1\t1\t1\n" * 2000 + f"1\t1\t{word}"
    path = write(tmp_path / "a.tsv", "SessionId\tTime\tItemId\n" + rows)
    assert read(path)["ItemId"].iloc[-1] == (7 if word == "7" else word)


@pytest.mark.parametrize(
    ("rows", "exact"),
    [
        ("a\t1.5\n", False),
        ("apple\tE5.25\n", False),  # a letter e that follows no digit
        ("a\t12345678.123456\n", False),  # 15 signs
        ("a\t12345678.1234567\n", True),
        ("a\t1e5\n", True),
        ("a\t1E5\n", True),
        ("a\t1.e-5\n", True),
    ],
)
@pytest.mark.parametrize("n_bytes", [1, 2, 7, 1 << 10])
def test_the_exact_parser_is_asked_for_where_the_fast_one_may_be_wrong(
    tmp_path, rows, exact, n_bytes
):
    file = TextFile(str(write(tmp_path / "a.tsv", "b\tc\n" + rows)), "\t")
    with file.scan(floats=True) as found:
        blocks = iter(lambda: found.read(n_bytes), b"")
        if exact:
            with pytest.raises(NeedsExactParser):
                list(blocks)
        else:
            assert b"".join(blocks).decode() == "b\tc\n" + rows


@pytest.mark.parametrize("name", ["log.tsv", "log.csv"])
@pytest.mark.parametrize("first", ["\n", "\t\n", ",\n", " \n"])
def test_a_first_line_without_names(tmp_path, name, first):
    path = tmp_path / name
    path.write_text(f"{first}1\t2\t3\n")
    with pytest.raises(InputError, match='there is no column "SessionId"'):
        read_events(path, announce=False)
