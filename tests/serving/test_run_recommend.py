"""`run.py --recommend`: the best next items of sessions, written to a file."""

from __future__ import annotations

import pandas as pd
import pytest
from helpers.cli import TEST, TRAIN, complaint, files_in, run_py, succeeds

SETTINGS = "layers=8,batch_size=8,n_sample=16,n_epochs=1,constrained_embedding=True"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recommend")
    succeeds(run_py(TRAIN, "-ps", SETTINGS, "-s", "model", cwd=folder))
    return folder


def read(path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, sep="\t")


@pytest.mark.parametrize("name", ["out.tsv", "out.parquet"])
@pytest.mark.parametrize("options", [(), ("-k", "3"), ("-k", "7", "--exclude_seen")])
def test_as_recommend_says(folder, name, options):
    import gru4rec

    done = succeeds(run_py("model", "-l", "--recommend", name, "-t", TEST, *options, cwd=folder))
    assert done.lines[-1] == f"Recommendations written to: {name}"
    assert "Recall" not in done.out
    k = int(options[1]) if options else 20
    data = pd.read_csv(TEST, sep="\t")
    gru = gru4rec.GRU4Rec.loadmodel(str(folder / "model"))
    items, scores = gru.recommend(data, k, exclude_seen="--exclude_seen" in options)
    found = read(folder / name)
    assert found.columns.tolist() == ["SessionId", "Rank", "ItemId", "Score"]
    ids = sorted(data.SessionId.unique())
    assert found.SessionId.tolist() == [i for i in ids for _ in range(k)]
    assert found.Rank.tolist() == [*range(1, k + 1)] * len(ids)
    assert found.ItemId.tolist() == items.ravel().tolist()
    assert abs(found.Score - scores.ravel()).max() < 1e-5


def test_sessions_of_one_event_and_of_unknown_items(folder, tmp_path):
    """An evaluation would find nothing to predict."""
    (tmp_path / "s.tsv").write_text("SessionId\tItemId\tTime\n7\t470\t1\nb\t-5\t2\n")
    done = run_py(folder / "model", "-l", "--recommend", "o.tsv", "-t", "s.tsv", cwd=tmp_path)
    assert "1 of 2 events are on items that the model does not know" in succeeds(done).err
    assert read(tmp_path / "o.tsv").SessionId.tolist() == ["7"] * 20 + ["b"] * 20


def test_right_after_the_training(folder):
    options = ("-ps", SETTINGS, "--recommend", "after.tsv", "-t", TEST, "-s", "other")
    assert "Total training time" in succeeds(run_py(TRAIN, *options, cwd=folder)).out
    assert (folder / "after.tsv").exists() and (folder / "other").exists()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("-l", "--recommend", "o.tsv"), "--recommend needs exactly one table of sessions"),
        (("-l", "--recommend", "o.tsv", "-t", TEST, TEST), "--recommend needs exactly one"),
        (("--check", "--recommend", "o.tsv", "-t", TEST), "--recommend needs exactly one"),
        (("-l", "--recommend", "o.xls", "-t", TEST), "cannot write recommendations to o.xls: "),
        (("-l", "--recommend", "model", "-t", TEST), "cannot write recommendations to model: "),
        (("-l", "--recommend", "no/o.tsv", "-t", TEST), "cannot write recommendations to no/o"),
        (("-l", "--recommend", "mine.tsv", "-t", TEST), "cannot write recommendations to mine"),
        (("-l", "--recommend", "o.tsv", "-t", TEST, "-k", "0"), "-k: expected 1 item or more"),
        (("-l", "--recommend", "o.tsv", "-t", TEST, "-x", "ndcg"), "--recommend evaluates no"),
        (("-l", "--recommend", "o.tsv", "-t", TEST, "--ranks", "r.tsv"), "--recommend evalu"),
        (("-l", "-t", TEST, "-k", "5"), "-k and --exclude_seen are about --recommend"),
        (("--baseline", "random", "--recommend", "o.tsv", "-t", TEST), "--recommend is about"),
    ],
)
def test_what_makes_no_sense(folder, options, what):
    (folder / "mine.tsv").write_text("mine\n")
    before = files_in(folder)
    assert complaint(run_py("model", *options, cwd=folder)).startswith(what)
    assert files_in(folder) == before


def test_sessions_that_cannot_be_read_are_found_before_the_training(tmp_path):
    (tmp_path / "s.tsv").write_text("a\tb\n1\t2\n")
    done = run_py(TRAIN, "-ps", SETTINGS, "--recommend", "o.tsv", "-t", "s.tsv", cwd=tmp_path)
    assert complaint(done).startswith("s.tsv: ") and "Started training" not in done.out


def test_sessions_without_a_single_known_item_are_refused(folder, tmp_path):
    """A wrong column or a wrong model must not end in the most popular items for everybody."""
    (tmp_path / "s.tsv").write_text("SessionId\tItemId\tTime\n7\t-4\t1\nb\t-5\t2\n")
    options = ("--recommend", "o.tsv", "-t", "s.tsv")
    for start in ((folder / "model", "-l"), (TRAIN, "-ps", SETTINGS)):
        done = run_py(*start, *options, cwd=tmp_path)
        assert 'items occurs in column "ItemId"' in complaint(done)
        assert "Started training" not in done.out
    assert list(files_in(tmp_path)) == ["s.tsv"]


def test_a_file_that_is_read_is_not_replaced(folder):
    (folder / "s.tsv").write_text(TEST.read_text())
    options = ("-l", "--recommend", "s.tsv", "-t", "s.tsv", "--force")
    said = complaint(run_py("model", *options, cwd=folder))
    assert said.startswith("cannot write recommendations to s.tsv: ")
    assert (folder / "s.tsv").read_text() == TEST.read_text()
