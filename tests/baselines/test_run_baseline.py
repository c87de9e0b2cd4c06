"""`run.py --baseline`: what it prints, without Theano, and what it says about mistakes."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from helpers.cli import ROOT, TEST, TRAIN, complaint, files_in, metric_values, python, succeeds

import evaluation
import run
from gru4rec_toolkit import parameters, run_options
from gru4rec_toolkit.baselines import BASELINES
from gru4rec_toolkit.data import events

LINES = [
    r"Creating baseline vsknn",
    r"SET   k             TO   30    \(type: <class 'int'>\)",
    r"SET   sample_size   TO   200   \(type: <class 'int'>\)",
    r"Loading training data\.\.\.",
    rf"Loading data from TAB separated file: {re.escape(str(TRAIN))}",
    r"Started training",
    r"The dataframe is not sorted by SessionId, Time, sorting now",
    r"Data is sorted in \d+\.\d\ds",
    r"Total training time: \d+\.\d\ds",
    r"Loading test data\.\.\.",
    rf"Loading data from TAB separated file: {re.escape(str(TEST))}",
    r"Starting evaluation \(cut-off=\[1, 5, 20\], using conservative mode for tiebreaking\)",
    r"Measuring Recall@1,5,20 and MRR@1,5,20",
    r"Evaluation took \d+\.\d\ds",
    r"Recall@1: 0\.\d{6} MRR@1: 0\.\d{6}",
    r"Recall@5: 0\.\d{6} MRR@5: 0\.\d{6}",
    r"Recall@20: 0\.\d{6} MRR@20: 0\.\d{6}",
]


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """Run the command line in this process, in an empty directory; return its standard output."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        capsys.readouterr()
        run.main([*map(str, args)])
        return capsys.readouterr().out.splitlines()

    return call


def evaluated(name, **options):
    model = BASELINES[name](**options.pop("settings", {}))
    model.fit(events.read_events(TRAIN, announce=False))
    return evaluation.evaluate_gpu(model, events.read_events(TEST, announce=False), **options)


WITHOUT = """
import sys
for name in ("theano", "gru4rec", "gru4rec_toolkit.theano_setup"):
    sys.modules[name] = None  # importing it fails
import run
run.cli()
"""


def test_what_is_printed_without_theano(tmp_path):
    args = (TRAIN, "--baseline", "vsknn", "-ps", "k=30,sample_size=200", "-t", TEST)
    args += ("-m", 1, 5, 20, "-e", "conservative")
    done = succeeds(python("-c", WITHOUT, *args, cwd=tmp_path, PYTHONPATH=str(ROOT)))
    for line, pattern in zip(done.lines, LINES):
        assert re.fullmatch(pattern, line), (line, pattern)
    assert len(done.lines) == len(LINES)
    assert done.err == ""  # no device, no bar without a terminal
    recall, mrr = evaluated(
        "vsknn",
        settings={"k": 30, "sample_size": 200},
        cut_off=[1, 5, 20],
        mode="conservative",
    )
    for line, *expected in zip(done.metrics, recall, mrr):
        assert metric_values(line) == pytest.approx(expected, abs=1e-6)
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline(here, name):
    lines = here(TRAIN, "--baseline", name, "-t", TEST, "-m", 5)
    recall, mrr = evaluated(name, cut_off=[5])
    assert lines[-1] == f"Recall@5: {recall[0]:.6f} MRR@5: {mrr[0]:.6f}"
    assert not [line for line in lines if line.startswith("SET")]


@pytest.mark.parametrize("mode", parameters.TIE_MODES)
def test_modes(here, mode):
    lines = here(TRAIN, "--baseline", "markov", "-t", TEST, "-m", 5, "-e", mode)
    recall, mrr = evaluated("markov", cut_off=[5], mode=mode)
    assert lines[-1] == f"Recall@5: {recall[0]:.6f} MRR@5: {mrr[0]:.6f}"


def test_columns_several_test_sets_and_the_primary_metric(here, tmp_path):
    for path, name in ((TRAIN, "train.csv"), (TEST, "test.csv")):
        log = pd.read_csv(path, sep="\t", dtype=str)
        log.columns = ["s", "i", "t"]
        log.to_csv(tmp_path / name, index=False)
    keys = ("-sk", "s", "-ik", "i", "-tk", "t")
    lines = here("train.csv", "--baseline", "sknn", "-t", "test.csv", "test.csv", *keys)
    expected = here(TRAIN, "--baseline", "sknn", "-t", TEST)[-1]
    assert [line for line in lines if line.startswith("Recall")] == [expected, expected]
    lines = here(TRAIN, "--baseline", "sknn", "-t", TEST, "-lpm", "-pm", "mrr")
    assert float(lines[-1].partition(": ")[2]) == pytest.approx(
        metric_values(expected)[1], abs=1e-6
    )


def test_hits_by_ties_are_told_in_one_line(tmp_path):
    train = tmp_path / "train.tsv"
    rows = ["SessionId\tItemId\tTime", *(f"{i // 2}\t{i}\t{i}" for i in range(8))]
    train.write_text("\n".join(rows) + "\n")
    done = python(ROOT / "run.py", train, "--baseline", "markov", "-t", train, cwd=tmp_path)
    assert succeeds(done).err == ""  # each item has its one successor
    test = tmp_path / "test.tsv"
    test.write_text("SessionId\tItemId\tTime\n1\t1\t1\n1\t2\t2\n")
    done = python(
        *(ROOT / "run.py", train, "--baseline", "markov", "-t", test, "-m", 3), cwd=tmp_path
    )
    assert succeeds(done).metrics == ["Recall@3: 1.000000 MRR@3: 1.000000"]
    (line,) = done.err.splitlines()
    assert line.startswith("warning: 100.0% of the targets are among the first 3 only because")


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "culprit"),
    [
        (("-s", "model"), "-s is about GRU4Rec; leave it out with --baseline"),
        (("-s", "model", "--force"), "-s"),
        (("--force",), "--force"),
        (("-l",), "-l is about"),
        (("--check",), "--check is about"),
        (("-pf", "missing.py"), "-pf is about"),
        (("-ss", 10), "-ss is about"),
        (("--sample_store_on_cpu",), "--sample_store_on_cpu is about"),
        (("-g", "variant.py"), "-g is about"),
        (("-d", "cpu"), "-d is about"),
        (("-ee",), "-ee is about"),
        (("-ps", "kk=3"), "unknown parameter 'kk'; the parameters are k, sample_size, idf_weigh"),
        (("-ps", "sample_sise=3"), "did you mean sample_size?"),
        (("-ps", "layers=100"), "unknown parameter 'layers'"),
        (("-ps", "k=many"), "parameter k: expected a number of neighbours, 1 or more, got 'many'"),
        (("-ps", "k"), "name=value"),
        (("-m", 0), "-m"),
        (("-t", "missing.tsv"), "missing.tsv"),
        (("-ik", "Item"), 'there is no column "Item"'),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_mistakes(tmp_path, args, culprit):
    done = python(ROOT / "run.py", TRAIN, "--baseline", "vsknn", *args, cwd=tmp_path)
    assert culprit in complaint(done)
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize("args", [("--baseline", "knn"), ("--baseline",), ("-t", TEST)])
def test_arguments_that_cannot_be_parsed(tmp_path, args):
    done = python(ROOT / "run.py", TRAIN, *args, cwd=tmp_path)
    assert "--baseline" in complaint(done) and done.out == ""


def test_the_options_of_gru4rec_exist():
    actions = {option: a.dest for a in run.build_parser()._actions for option in a.option_strings}
    assert run_options.GRU4REC_OPTIONS.items() <= actions.items()
