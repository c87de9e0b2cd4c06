"""Files of ranks: written whole or not at all, and over no file of another kind."""

from __future__ import annotations

import csv
import errno
import os
import sys

import numpy as np
import pandas as pd
import pytest
from helpers.cli import files_in

from gru4rec_toolkit import tablefile
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.tablefile import RANKS

KINDS = [".tsv", ".parquet"]


def tables(session_ids=(1, 2, 2, 5), item_ids=("a", "b", "ü", "a")):
    """Return ranks in two parts."""
    n = len(session_ids)
    values = {
        "SessionId": np.array(session_ids),
        "Position": np.arange(2, 2 + n),
        "ItemId": pd.Series(item_ids, dtype=object),
        "Better": np.arange(n) * 10**12,
        "Equal": np.zeros(n, dtype=np.int64),
        "Rank": 1 + np.arange(n) / 2,
    }
    table = pd.DataFrame(values)
    return [table[: n // 2], table[n // 2 :]]


def read(path):
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, sep="\t")


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(tmp_path, kind):
    path = tmp_path / f"ranks{kind}"
    tablefile.write(RANKS, path, iter(tables()))
    expected = pd.concat(tables())
    pd.testing.assert_frame_equal(read(path), expected, check_dtype=False)
    assert tablefile.is_one(RANKS, str(path))
    assert files_in(tmp_path).keys() == {path.name}


def test_text(tmp_path):
    tablefile.write(RANKS, tmp_path / "ranks.tsv", tables())
    lines = (tmp_path / "ranks.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "SessionId\tPosition\tItemId\tBetter\tEqual\tRank"
    assert lines[3] == "2\t4\tü\t2000000000000\t0\t2.0"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError(errno.ENOSPC, "")])
def test_whole_or_not_at_all(tmp_path, kind, error):
    def broken():
        yield tables()[0]
        raise error

    path = tmp_path / f"ranks{kind}"
    for before in (False, True):
        if before:
            tablefile.write(RANKS, path, tables())
        seen = files_in(tmp_path)
        with pytest.raises(InputError if isinstance(error, OSError) else type(error)):
            tablefile.write(RANKS, path, broken())
        assert files_in(tmp_path) == seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", ["mine\n", "SessionId\tItemId\tTime\n1\t2\t3\n", "PAR1", ""])
def test_other_files_are_left_alone(tmp_path, kind, content):
    path = tmp_path / f"ranks{kind}"
    path.write_text(content)
    for action in (tablefile.check_writable, lambda *of: tablefile.write(*of, tables())):
        with pytest.raises(InputError, match="it exists and is not a file of ranks.*--force"):
            action(RANKS, path)
    assert path.read_text() == content
    tablefile.write(RANKS, path, tables(), force=True)
    tablefile.write(RANKS, path, tables())
    assert len(read(path)) == 4


def test_a_parquet_file_of_other_columns_is_left_alone(tmp_path):
    path = tmp_path / "ranks.parquet"
    pd.concat(tables()).drop(columns="Rank").to_parquet(path)
    with pytest.raises(InputError, match="is not a file of ranks"):
        tablefile.write(RANKS, path, tables())


@pytest.mark.parametrize("force", [False, True])
def test_inputs_are_never_replaced(tmp_path, force):
    path = tmp_path / "ranks.tsv"
    tablefile.write(RANKS, path, tables())
    os.symlink(path, tmp_path / "link.tsv")
    with pytest.raises(InputError, match="link.tsv: it is the test set; give another path$"):
        tablefile.check_writable(RANKS, tmp_path / "link.tsv", force, {"the test set": str(path)})


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("ranks.csv", r"ranks.csv: give a name that ends in .parquet or .tsv"),
        ("ranks", "ends in .parquet or .tsv"),
        ("", "an empty path: give a name"),
        ("missing/ranks.tsv", "missing/ranks.tsv: No such file.*existing, writable directory"),
        ("a\0b.tsv", "embedded null"),
        (None, "expected a path, got NoneType"),
    ],
)
def test_paths_that_cannot_be_written(tmp_path, monkeypatch, path, words):
    monkeypatch.chdir(tmp_path)
    for action in (tablefile.check_writable, lambda *of: tablefile.write(*of, tables())):
        with pytest.raises(InputError, match=words):
            action(RANKS, path)
    assert files_in(tmp_path) == {}


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="ranks.parquet: writing Parquet files needs.*pyarrow"):
        tablefile.check_writable(RANKS, tmp_path / "ranks.parquet")
    tablefile.write(RANKS, tmp_path / "ranks.tsv", tables())


def test_ids_that_are_no_valid_unicode(tmp_path):
    """A pickled DataFrame can hold them."""
    parts = tables(item_ids=("a", "\ud800", "b", "c"))
    tablefile.write(RANKS, tmp_path / "ranks.tsv", parts)
    assert read(tmp_path / "ranks.tsv").ItemId[1] == "\\ud800"
    with pytest.raises(InputError, match="Parquet cannot hold an id.*ends in .tsv"):
        tablefile.write(RANKS, tmp_path / "ranks.parquet", parts)
    assert files_in(tmp_path).keys() == {"ranks.tsv"}


def test_ids_with_odd_characters_come_back(tmp_path):
    ids = ("a\rb", "\r", 'q"uote', "t\tab", "line\nfeed", "007", "NA")
    table = pd.DataFrame(
        {"SessionId": ids, "Rank": 1, "ItemId": ids, "Score": np.linspace(0, 1, len(ids))}
    )
    path = tmp_path / "r.tsv"
    tablefile.write(tablefile.RECOMMENDATIONS, path, [table])
    with open(path, newline="") as file:
        rows = [*csv.reader(file, delimiter="\t")]
    assert [row[0] for row in rows[1:]] == [row[2] for row in rows[1:]] == [*ids]
    found = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    assert found.ItemId.tolist() == [*ids]
