"""The command line: what it prints, what it takes, and what it says about mistakes.

Jobs run as processes of their own where that matters. The rest runs in this process through the
same entry point, because a process spends seconds on importing Theano.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.cli import (
    ROOT,
    TEST,
    TRAIN,
    Done,
    complaint,
    environment,
    files_in,
    metric_values,
    on_terminal,
    own_signals,
    python,
    run_py,
    succeeds,
)

import run
from gru4rec_toolkit import modelfile, parameters
from gru4rec_toolkit.errors import InputError

SMALL = "layers=16,n_epochs=2,n_sample=64"
HEAVY = ("numpy", "pandas", "theano")


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """Run the command line in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["run.py", *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            run.cli()
        except SystemExit as stop:
            code = stop.code
        return Done(code, *capsys.readouterr())

    return call


def write_lines(path, *rows):
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


def read_log(path):
    return pd.read_csv(path, sep="\t", dtype={"ItemId": str})


def set_values(done):
    """The parameters that the SET lines show, as text."""
    lines = [re.split(r"\s+TO\s+|\s+\(type", x[3:]) for x in done.lines if x.startswith("SET ")]
    return {name.strip(): value for name, value, _ in lines}


# --- the main job ---------------------------------------------------------------------------------


class Job:
    """Files of the main job, and what it printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train, self.test = folder / "sorted.tsv", folder / "second test.tsv"
        log = read_log(TRAIN).sort_values(["SessionId", "Time"], kind="stable")
        log.to_csv(self.train, sep="\t", index=False)
        second = read_log(TEST)
        half = second.SessionId <= second.SessionId.median()
        second[half].to_csv(self.test, sep="\t", index=False)
        self.model = folder / "model.npz"
        self.lengths = [1, 5, 20]
        self.done = run_py(
            self.train.name,
            *("-ps", SMALL + ",loss=cross-entropy,final_act=softmax,constrained_embedding=True"),
            *("-t", TEST, self.test.name),
            *("-m", *self.lengths),
            *("-s", self.model.name),
            cwd=folder,
        )


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    job = Job(tmp_path_factory.mktemp("job"))
    succeeds(job.done)
    return job


EVALUATION = [
    r"Loading test data\.\.\.",
    r"Loading data from TAB separated file: {path}",
    r"Starting evaluation \(cut-off=\[1, 5, 20\], using standard mode for tiebreaking\)",
    r"Measuring Recall@1,5,20 and MRR@1,5,20",
    r"Evaluation took \d+\.\d\ds",
    r"Recall@1: 0\.\d{{6}} MRR@1: 0\.\d{{6}}",
    r"Recall@5: 0\.\d{{6}} MRR@5: 0\.\d{{6}}",
    r"Recall@20: 0\.\d{{6}} MRR@20: 0\.\d{{6}}",
]


def evaluation_lines(path):
    return [pattern.format(path=re.escape(str(path))) for pattern in EVALUATION]


EPOCH = r"Epoch{} --> loss: \d+\.\d{{6}} \t\(\d+\.\d\ds\) \t\[\d+\.\d\d mb/s \| \d+ e/s\]"


def assert_matches(lines, patterns):
    for line, pattern in zip(lines, patterns):
        assert re.fullmatch(pattern, line), (line, pattern)
    assert len(lines) == len(patterns), lines[len(patterns) :]


def test_standard_output_of_the_main_job(job):
    assert_matches(
        job.done.lines,
        [
            r"Creating GRU4Rec model",
            r"SET   layers +TO   \[16\] +\(type: <class 'list'>\)",
            r"SET   n_epochs +TO   2 +\(type: <class 'int'>\)",
            r"SET   n_sample +TO   64 +\(type: <class 'int'>\)",
            r"SET   loss +TO   cross-entropy +\(type: <class 'str'>\)",
            r"SET   final_act +TO   softmax +\(type: <class 'str'>\)",
            r"SET   constrained_embedding +TO   True +\(type: <class 'bool'>\)",
            r"Loading training data\.\.\.",
            r"Loading data from TAB separated file: sorted\.tsv",
            r"Started training",
            r"The dataframe is already sorted by SessionId, Time",
            r"Created sample store with 156250 batches of samples \(type=GPU\)",
            EPOCH.format(1),
            EPOCH.format(2),
            r"Total training time: \d+\.\d\ds",
            r"Saving trained model to: model\.npz",
            *evaluation_lines(TEST),
            *evaluation_lines(job.test.name),
        ],
    )


def test_set_lines_are_aligned(job):
    lines = [line for line in job.done.lines if line.startswith("SET ")]
    for part in (" TO ", "(type: "):
        assert len({line.index(part) for line in lines}) == 1


def test_the_log_tells_the_device_and_blas(job):
    assert re.search(r"^device: \S+ \(.+\); BLAS: \S.*$", job.done.err, re.M)


def test_no_progress_bar_without_a_terminal(job):
    assert "\r" not in job.done.out + job.done.err
    assert "%" not in job.done.err


def test_losses_fall(job):
    first, second = job.done.losses
    assert 0 < second < first


def test_metrics_are_metrics(job):
    values = [metric_values(line) for line in job.done.metrics]
    for recall, mrr in values:
        assert 0 < mrr <= recall <= 1
    # the first test set, then the second; longer lists hold more
    for start in (0, 3):
        recalls, mrrs = zip(*values[start : start + 3])
        assert list(recalls) == sorted(recalls) and list(mrrs) == sorted(mrrs)
        assert recalls[0] == mrrs[0]
    assert values[:3] != values[3:]


def test_training_learns(job):
    # a random order of the 60 items would reach 5 / 60
    recall, _ = metric_values(job.done.metrics[1])
    assert recall > 0.3


def test_only_the_model_is_written(job):
    assert set(files_in(job.folder)) == {"sorted.tsv", "second test.tsv", "model.npz"}


@pytest.fixture(scope="module")
def loaded(job):
    """The saved model in a new process."""
    args = ("-l", "-t", TEST, job.test.name, "-m", *job.lengths)
    return succeeds(run_py(job.model.name, *args, cwd=job.folder))


def test_a_loaded_model_gives_the_same_metrics(job, loaded):
    assert len(loaded.metrics) == 6
    assert loaded.metrics == job.done.metrics


def test_standard_output_of_a_loaded_model(job, loaded):
    patterns = evaluation_lines(TEST) + evaluation_lines(job.test.name)
    start = loaded.lines.index("Loading test data...")
    assert_matches(loaded.lines[start:], patterns)
    assert not re.search(r"^(Epoch|SET|Started training)", loaded.out, re.M)


def test_a_loaded_model_without_a_test_set(job, here):
    done = succeeds(here(job.model, "-l"))
    assert done.metrics == []


def test_default_list_length(job, here):
    done = succeeds(here(job.model, "-l", "-t", TEST))
    assert done.metrics == job.done.metrics[2:3]


@pytest.mark.parametrize(("metric", "column"), [(None, 0), ("recall", 0), ("mrr", 1)])
def test_primary_metric(job, here, metric, column):
    option = ["-pm", metric] if metric else []
    done = succeeds(here(job.model, "-l", "-t", TEST, "-m", "5", "-lpm", *option))
    name, value = done.lines[-1].rsplit(" ", 1)
    assert name == "PRIMARY METRIC:"
    assert f"{float(value):.6f}" == f"{metric_values(done.lines[-2])[column]:.6f}"
    recall, mrr = metric_values(done.lines[-2])
    assert recall != mrr  # so the two can be told apart


def test_evaluation_after_every_epoch(plain, here):
    """One line an epoch; the training is the same as without."""
    done = succeeds(here(TRAIN, "-ps", SMALL, "-t", TEST, "-m", 1, 5, "-ee"))
    pattern = r"Epoch{} --> Recall@1: \S+ MRR@1: \S+ Recall@5: \S+ MRR@5: \S+"
    epochs = [line for line in done.lines if line.startswith("Epoch")]
    assert_matches(epochs, [EPOCH.format(1), pattern.format(1), EPOCH.format(2), pattern.format(2)])
    assert done.losses == plain.losses
    assert done.metrics[1:] == plain.metrics
    assert epochs[1].split("--> ")[1] != epochs[3].split("--> ")[1]
    assert epochs[3].endswith(" ".join(done.metrics))
    assert sum(line.startswith("Measuring") for line in done.lines) == 1


# --- evaluation for papers ------------------------------------------------------------------------

EXTRA_LINES = [
    rf"NDCG@{n}: 0\.\d{{6}} HitRate@{n}: 0\.\d{{6}} Coverage@{n}: [01]\.\d{{6}} "
    rf"Popularity@{n}: 0\.\d{{6}}"
    for n in (1, 5, 20)
]


def test_extra_metrics_and_ranks(job, loaded, tmp_path):
    """The lines of a plain evaluation stay as they are, further ones follow."""
    extra = ("-x", "ndcg", "hitrate", "coverage", "popularity", "ndcg", "--ranks", "a.tsv")
    args = (job.model, "-l", "-t", TEST, "-m", *job.lengths, *extra)
    done = succeeds(run_py(*args, cwd=tmp_path))
    start = done.lines.index("Loading test data...")
    patterns = [*evaluation_lines(TEST), *EXTRA_LINES, r"Ranks written to: a\.tsv"]
    assert_matches(done.lines[start:], patterns)
    assert done.metrics == loaded.metrics[:3]
    ranks = pd.read_csv(tmp_path / "a.tsv", sep="\t")
    for n, line, more in zip(job.lengths, done.metrics, done.lines[-4:-1]):
        hits = (ranks.Rank <= n).to_numpy()
        ndcg, mrr = (hits / np.log2(1 + ranks.Rank)).mean(), (hits / ranks.Rank).mean()
        assert line == f"Recall@{n}: {hits.mean():.6f} MRR@{n}: {mrr:.6f}"
        assert more.startswith(f"NDCG@{n}: {ndcg:.6f} HitRate@{n}: {hits.mean():.6f} ")
    assert set(files_in(tmp_path)) == {"a.tsv"}


def test_extra_metrics_and_ranks_of_a_training(here, tmp_path):
    """Where -lpm prints its line, that one stays the last; -ee says what it says without them."""
    args = (TRAIN, "-ps", SMALL, "-t", TEST, "-m", 5, "-lpm", "-ee", "-e", "median")
    done = succeeds(here(*args, "-x", "ndcg", "--ranks", "ranks.parquet"))
    assert_matches(
        done.lines[-4:],
        [
            r"Recall@5: \S+ MRR@5: \S+",
            r"NDCG@5: 0\.\d{6}",
            r"Ranks written to: ranks\.parquet",
            r"PRIMARY METRIC: \S+",
        ],
    )
    epochs = [line for line in done.lines if re.match(r"Epoch\d --> Recall", line)]
    assert [line.count("@5") for line in epochs] == [2, 2]
    recall, mrr = metric_values(done.metrics[-1])
    ranks = pd.read_parquet(tmp_path / "ranks.parquet")
    hits = (ranks.Rank <= 5).to_numpy()
    assert f"{hits.mean():.6f} {(hits / ranks.Rank).mean():.6f}" == f"{recall:.6f} {mrr:.6f}"


def test_popularity_of_an_older_model(here):
    (older,) = (ROOT / "tests" / "models").glob("x86_64-python3.11-*-numbers.gru4rec")
    done = here(older, "-l", "-t", TEST, "-x", "popularity")
    assert "popularity: the model does not hold its items' support" in complaint(done)
    done = succeeds(here(older, "-l", "-t", TEST, "-x", "coverage"))
    assert re.fullmatch(r"Coverage@20: [01]\.\d{6}", done.lines[-1])


def test_ranks_replace_ranks_only(job, here, tmp_path):
    evaluated = (job.model, "-l", "-t", "test.tsv")
    (tmp_path / "test.tsv").write_bytes(TEST.read_bytes())
    (tmp_path / "mine.tsv").write_text("mine\n")
    before = files_in(tmp_path)
    for path, options in (("mine.tsv", ()), ("test.tsv", ("--force",))):
        done = here(*evaluated, "--ranks", path, *options)
        assert path in complaint(done) and done.metrics == []
    assert files_in(tmp_path) == before
    succeeds(here(*evaluated, "--ranks", "mine.tsv", "--force"))
    first = (tmp_path / "mine.tsv").read_bytes()
    succeeds(here(*evaluated, "-e", "median", "--ranks", "mine.tsv"))
    assert first != (tmp_path / "mine.tsv").read_bytes() != b"mine\n"


def test_ranks_and_the_model_are_two_files(here, tmp_path):
    done = here(TRAIN, "-ps", SMALL, "-t", TEST, "-s", "a.tsv", "--ranks", "a.tsv", "--force")
    assert "it is the model of -s" in complaint(done)
    assert files_in(tmp_path) == {}


# --- ways to train --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Metrics and losses of a training on the log as it is, not sorted."""
    args = (TRAIN, "-ps", SMALL, "-t", TEST, "-m", 5)
    return succeeds(run_py(*args, cwd=tmp_path_factory.mktemp("plain")))


def test_a_log_that_has_to_be_sorted(plain):
    start = plain.lines.index("Started training")
    assert plain.lines[start + 1].startswith("The dataframe is not sorted by SessionId, Time")
    assert "already sorted" not in plain.out


def test_pickled_frame(plain, here, tmp_path):
    read_log(TRAIN).to_pickle(tmp_path / "train.pickle")
    read_log(TEST).to_pickle(tmp_path / "test.pickle")
    done = succeeds(here("train.pickle", "-ps", SMALL, "-t", "test.pickle", "-m", 5))
    assert (done.losses, done.metrics) == (plain.losses, plain.metrics)
    assert re.search(r"^Loading data from .*: train\.pickle$", done.out, re.M)


def rename(source, target):
    """Other names, another order and another column."""
    log = read_log(source)[["Time", "ItemId", "SessionId"]]
    log.columns = ["when", "product id", "visit"]
    log.insert(1, "Time", "not a time")
    log.to_csv(target, sep="\t", index=False)


COLUMNS = ("-ik", "product id", "-sk", "visit", "-tk", "when")


def test_column_names(plain, here, tmp_path):
    rename(TRAIN, tmp_path / "train.tsv")
    rename(TEST, tmp_path / "test.tsv")
    train = ("train.tsv", "-ps", SMALL, "-s", "model.npz", "-t", "test.tsv", "-m", 5)
    done = succeeds(here(*train, *COLUMNS))
    assert (done.losses, done.metrics) == (plain.losses, plain.metrics)
    assert set_values(done)["item_key"] == "product id"
    # the model remembers them, and takes others
    done = succeeds(here("model.npz", "-l", "-t", "test.tsv", "-m", 5))
    assert done.metrics == plain.metrics
    other = ("-ik", "ItemId", "-sk", "SessionId", "-tk", "Time")
    done = succeeds(here("model.npz", "-l", "-t", TEST, "-m", 5, *other))
    assert done.metrics == plain.metrics


def test_parameter_file(plain, here, tmp_path):
    (tmp_path / "params.py").write_text(
        "from collections import OrderedDict\n\n"
        "gru4rec_params = OrderedDict([\n"
        "    ('layers', [16]),\n    ('n_epochs', 2),\n    ('n_sample', 64),\n])\n"
    )
    done = succeeds(here(TRAIN, "-pf", "params.py", "-t", TEST, "-m", 5))
    assert (done.losses, done.metrics) == (plain.losses, plain.metrics)
    assert list(set_values(done)) == ["layers", "n_epochs", "n_sample"]


@pytest.mark.parametrize("path", sorted((ROOT / "paramfiles").glob("*.py")), ids=lambda p: p.stem)
def test_shipped_parameter_files(path):
    args = run.parse_arguments([str(TRAIN), "-pf", str(path)])
    # what Python makes of the file when it executes it
    assert args.settings == runpy.run_path(str(path))["gru4rec_params"]


def test_parameters_beside_the_defaults_of_a_variant(tmp_path):
    """Its class body decides what they fit, before the data is read."""
    (tmp_path / "variant.py").write_text(
        "import gru4rec\n\n\nclass GRU4Rec(gru4rec.GRU4Rec):\n"
        "    loss, final_act, adapt = 'cross-entropy', 'softmax', 'adam'\n"
        "    layers, batch_size, n_epochs, n_sample = [4], 8, 1, 8\n"
    )
    command = (TRAIN, "-g", "variant.py", "-ps")
    done = run_py(*command, "smoothing=0.1,adapt_params=0.8/0.99", cwd=tmp_path)
    assert len(succeeds(done).losses) == 1
    done = run_py(*command, "loss=bpr-max,final_act=linear,smoothing=0.1", cwd=tmp_path)
    assert "smoothing works with loss=cross-entropy or xe_logit only, but" in complaint(done)
    assert "Loading training data" not in done.out


def test_store_in_host_memory_and_a_terminal(plain, tmp_path):
    # standard error is a terminal here: progress bars go there and nowhere else
    options = ["-ps", SMALL, "--sample_store_on_cpu", "-ss", 1000, "-t", TEST, "-m", 5]
    done = succeeds(on_terminal(ROOT / "run.py", TRAIN, *options, cwd=tmp_path))
    assert "Epoch 1" in done.err and "%" in done.err
    assert "%" not in done.out and "\r" not in done.out
    assert "Created sample store with 15 batches of samples (type=CPU)" in done.lines
    # other negatives, the same training
    assert done.losses == pytest.approx(plain.losses, rel=0.1)
    assert metric_values(done.metrics[0]) == pytest.approx(metric_values(plain.metrics[0]), abs=0.2)


def test_no_store(plain, here):
    done = succeeds(here(TRAIN, "-ps", SMALL, "-ss", 0, "-t", TEST, "-m", 5))
    assert "Created sample store" not in done.out
    assert done.losses == pytest.approx(plain.losses, rel=0.1)
    assert metric_values(done.metrics[0]) == pytest.approx(metric_values(plain.metrics[0]), abs=0.2)


def test_no_additional_negatives(here):
    done = succeeds(here(TRAIN, "-ps", "layers=16,n_epochs=2,n_sample=0"))
    assert "sample store" not in done.out
    first, second = done.losses
    assert 0 < second < first


def test_theano_flags_name_the_device(job):
    done = succeeds(run_py(job.model, "-l", cwd=job.folder, THEANO_FLAGS="device=cpu"))
    assert re.search(r"^device: cpu \(.*THEANO_FLAGS.*\)", done.err, re.M)


# --- modes of evaluation --------------------------------------------------------------------------


def test_modes_of_evaluation(here, tmp_path, model_with_ties):
    model_with_ties.savemodel(str(tmp_path / "ties.npz"))
    recall, mrr = {}, {}
    for mode in parameters.TIE_MODES:
        done = succeeds(here("ties.npz", "-l", "-t", TEST, "-m", 5, 60, "-e", mode))
        start = f"Starting evaluation (cut-off=[5, 60], using {mode} mode for tiebreaking)"
        assert start in done.lines
        short, whole = done.metrics
        recall[mode], mrr[mode] = metric_values(short)[0], metric_values(whole)[1]
    # in the whole list every tie counts, so nothing but the first and the last place is extreme
    for mode in ("median", "tiebreaking"):
        assert recall["conservative"] <= recall[mode] <= recall["standard"]
        assert mrr["conservative"] < mrr[mode] < mrr["standard"]
    assert recall["conservative"] < recall["standard"]


def test_the_default_mode_is_standard(here, tmp_path, model_with_ties):
    model_with_ties.savemodel(str(tmp_path / "ties.npz"))
    named = succeeds(here("ties.npz", "-l", "-t", TEST, "-e", "standard"))
    assert succeeds(here("ties.npz", "-l", "-t", TEST)).metrics == named.metrics


# --- variants -------------------------------------------------------------------------------------

VARIANT = """
import gru4rec


class GRU4Rec(gru4rec.GRU4Rec):
    def fit(self, data, **options):
        print("the variant trains", sorted(options))
        super().fit(data, **options)
"""


def test_variant_in_a_file(plain, here, tmp_path):
    (tmp_path / "my_variant.py").write_text(VARIANT)
    model = ("-s", "model.npz", "-t", TEST, "-m", 5)
    done = succeeds(here(TRAIN, "-ps", SMALL, "-g", "my_variant.py", *model))
    assert "the variant trains ['sample_store', 'store_type']" in done.lines
    assert done.metrics == plain.metrics
    done = succeeds(here("model.npz", "-l", "-g", tmp_path / "my_variant.py", *model[2:]))
    assert done.metrics == plain.metrics


def test_variant_by_its_name(here, tmp_path, monkeypatch):
    (tmp_path / "named_variant.py").write_text(VARIANT)
    monkeypatch.syspath_prepend(tmp_path)
    done = succeeds(here(TRAIN, "-ps", SMALL, "-g", "named_variant"))
    assert "the variant trains ['sample_store', 'store_type']" in done.lines


@pytest.mark.parametrize("name", ["no_such_module", "no_such.py", "", ".hidden", "user_errors"])
def test_wrong_variants(here, tmp_path, name):
    message = complaint(here(TRAIN, "-ps", SMALL, "-g", name))
    assert f"-g {name}".strip() in message
    assert files_in(tmp_path) == {}


BROKEN_VARIANTS = {
    "no class": ("GRU4Rec = 5\n", ["no class named GRU4Rec"]),
    "syntax": ("x = 1\ny = = 2\n", ["line 2", "SyntaxError"]),
    "bytes": (b"x = 1\ny = '\xff'\n", ["SyntaxError"]),
    "null byte": ("x = '\0'\n", ["null"]),
    "exception": ("def f():\n    return 1 / 0\n\nf()\n", ["line 2", "ZeroDivisionError"]),
    "inside a library": ("import json\n\njson.loads('[')\n", ["line 3", "JSONDecodeError"]),
    "import": ("\nimport no_such_module\n", ["line 2", "no_such_module"]),
    "exit": ("\nimport sys; sys.exit(3)\n", ["line 2", "ends the program"]),
    "exit of a parser": (
        "import argparse\n\nargparse.ArgumentParser().parse_args(['--x'])\n",
        ["line 3", "ends the program"],
    ),
    "no methods": ("class GRU4Rec: pass\n", ["has no set_params, session_key", "derive it from"]),
    "constructor": ("class GRU4Rec:\n    def __init__(self): raise 1\n", ["line 2", "TypeError"]),
    "constructor of more": (
        "class GRU4Rec:\n    def __init__(self, size): pass\n",
        ["'size'", "its constructor"],
    ),
    "constructor that exits": (
        "class GRU4Rec:\n    def __init__(self): exit()\n",
        ["line 2", "ends the program"],
    ),
    "import of ours": ("from gru4rec import GRU5Rec\n", ["line 1", "GRU5Rec"]),
}


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize(("text", "told"), BROKEN_VARIANTS.values(), ids=BROKEN_VARIANTS)
def test_broken_variants(here, tmp_path, monkeypatch, text, told, by_name):
    name = f"broken_{abs(hash(text))}"
    path = tmp_path / f"{name}.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.syspath_prepend(tmp_path)
    before = files_in(tmp_path)
    message = complaint(here(TRAIN, "-ps", SMALL, "-g", name if by_name else path.name))
    assert all(word in message for word in [name, *told])
    assert {k: v for k, v in files_in(tmp_path).items() if "__pycache__" not in k} == before


PARTIAL = """
class GRU4Rec:
    session_key, item_key, time_key = "SessionId", "ItemId", "Time"

    def set_params(self, **settings): pass
    def fit(self, *args, **options): print("FIT")
"""


@pytest.mark.parametrize(
    "options, words",
    [
        (["-s", "model"], "has no savemodel;"),
        (["-t", TEST], "has no item_ids, trained_network;"),
        (["-l"], "has no loadmodel, apply;"),
    ],
)
def test_what_a_variant_lacks_is_told_before_its_training(job, here, tmp_path, options, words):
    (tmp_path / "partial.py").write_text(PARTIAL)
    options = [job.model, "-l"] if options == ["-l"] else [TRAIN, "-ps", SMALL, *options]
    done = here(*options, "-g", "partial.py")
    assert words in complaint(done)
    assert "FIT" not in done.out


DATACLASS = """
from __future__ import annotations

from dataclasses import dataclass

import gru4rec


@dataclass
class Settings:
    size: int = 3


class GRU4Rec(gru4rec.GRU4Rec):
    pass
"""


@pytest.mark.parametrize("name", ["with_dataclass.py", "gru4rec.py"])
def test_a_variant_with_a_dataclass_and_deferred_annotations(job, here, tmp_path, name):
    # dataclasses look for the module in sys.modules; a file may have the name of one of ours
    (tmp_path / name).write_text(DATACLASS)
    succeeds(here(job.model, "-l", "-g", name))


COUNTING = """
import sys

import gru4rec
from gru4rec_toolkit.data import events, sessions


def counted(module, name, words):
    function = getattr(module, name)

    def call(data, *args, **options):
        print(name, words(data, options), file=sys.stderr)
        return function(data, *args, **options)

    setattr(module, name, call)


counted(events, "read_events", lambda path, options: path)
counted(sessions, "index_sessions", lambda data, options: options["source"])
GRU4Rec = gru4rec.GRU4Rec
"""


@pytest.mark.parametrize("kind", ["trained", "every epoch", "loaded"])
def test_every_file_is_read_and_indexed_once(job, tmp_path, kind):
    (tmp_path / "counting.py").write_text(COUNTING)
    second = job.folder / job.test
    args = [TRAIN, "-ps", SMALL, "-t", TEST, second, "-m", 5]
    if kind == "every epoch":
        args = [TRAIN, "-ps", SMALL, "-t", TEST, "-m", 5, "-ee"]
    elif kind == "loaded":
        args = [job.model, "-l", "-t", TEST, second, "-m", 5]
    done = succeeds(run_py(*args, "-g", "counting.py", cwd=tmp_path))
    tests = [TEST] if kind == "every epoch" else [TEST, second]
    expected = [f"{name} {path}" for path in tests for name in ("read_events", "index_sessions")]
    if kind != "loaded":
        expected = [f"read_events {TRAIN}", *expected, "index_sessions training data"]
    pattern = re.compile("(read_events|index_sessions) ")
    assert [line for line in done.err.splitlines() if pattern.match(line)] == expected


def test_a_test_set_that_is_deleted_while_the_model_trains(plain, here, tmp_path):
    (tmp_path / "test.tsv").write_bytes(TEST.read_bytes())
    (tmp_path / "variant.py").write_text(
        "import os\n\nimport gru4rec\n\n\n"
        "class GRU4Rec(gru4rec.GRU4Rec):\n"
        "    def fit(self, data, **options):\n"
        "        os.remove('test.tsv')\n"
        "        super().fit(data, **options)\n"
    )
    args = (TRAIN, "-ps", SMALL, "-g", "variant.py", "-t", "test.tsv", "-m", 5)
    done = succeeds(here(*args))
    assert done.metrics == plain.metrics
    assert "Loading data from TAB separated file: test.tsv" in done.lines


CHOOSING = """
import gru4rec


class GRU4Rec(gru4rec.GRU4Rec):
    def fit(self, data, **options):
        super().fit(data[data.ItemId != data.ItemId.iloc[0]], **options)
"""


@pytest.mark.parametrize("option", [[], ["-ee"]])
def test_a_variant_that_leaves_items_out(here, tmp_path, option):
    """Its test sets are indexed with the items that it has."""
    (tmp_path / "choosing.py").write_text(CHOOSING)
    args = ("-ps", SMALL, "-t", TEST, "-m", 5)
    done = succeeds(here(TRAIN, *args, "-g", "choosing.py", *option))
    log = read_log(TRAIN)
    log[log.ItemId != log.ItemId.iloc[0]].to_csv(tmp_path / "fewer.tsv", sep="\t", index=False)
    expected = succeeds(here("fewer.tsv", *args, *option))
    assert done.metrics == expected.metrics


# --- answers without Theano -----------------------------------------------------------------------


def imported(done):
    """The modules that a process imported, told by python -X importtime."""
    return set(re.findall(r"^import time:.*\| +(\S+)$", done.err, re.M))


def light(*args, cwd):
    """Run the command line and see that it does without the modules that take time to import."""
    done = python("-X", "importtime", ROOT / "run.py", *args, cwd=cwd)
    modules = imported(done)
    assert "argparse" in modules  # the names are where they are looked for
    assert not modules & set(HEAVY)
    return done


def test_help(tmp_path):
    done = light("-h", cwd=tmp_path)
    assert done.code == 0
    options = "-ps --parameter_string -pf --parameter_file -l --load_model -s --save_model "
    options += "-t --test -m --measure -e --eval_type -ss --sample_store_size "
    options += "--sample_store_on_cpu -g --gru4rec_model -d --device -ik --item_key "
    options += "-sk --session_key -tk --time_key -pm --primary_metric -lpm --log_primary_metric "
    options += "-ee --evaluate_each_epoch --force"
    named = re.split(r"[\s,\[\]|()]+", done.out)
    assert [option for option in options.split() if option not in named] == []
    for mode in ("standard", "conservative", "median", "tiebreaking"):
        assert mode in done.out
    assert "10000000" in done.out


def test_a_typing_error_is_told_at_once(tmp_path):
    done = light(TRAIN, "-ps", "layer=100", cwd=tmp_path)
    errors = "\n".join(x for x in done.err.splitlines() if not x.startswith("import time:"))
    assert "'layer'" in complaint(Done(done.code, done.out, errors))


# --- wrong arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("layers", "'layers'"),
        ("=3", "'=3'"),
        ("n_epochs=1,,layers=2", "name=value"),
        ("n_epochs=1,", "name=value"),
        ("", "name=value"),
        ("layers=1,n_epochs=1,layers=2", "layers"),
        ("hidden_units=100", "'hidden_units'"),
        ("layers=abc", "layers"),
        ("layers=0", "layers"),
        ("n_epochs=0", "n_epochs"),
        ("n_epochs=1.5", "n_epochs"),
        ("batch_size=-1", "batch_size"),
        ("learning_rate=nan", "learning_rate"),
        ("learning_rate=0", "learning_rate"),
        ("dropout_p_hidden=1", "dropout_p_hidden"),
        ("constrained_embedding=maybe", "constrained_embedding"),
        ("loss=mse", "loss"),
        ("adapt=sgd", "adapt"),
        ("final_act=elu-x", "final_act"),
        ("loss=cross-entropy,final_act=linear", "final_act=softmax"),
        ("loss=cross-entropy", "final_act=softmax"),
        ("loss=bpr-max,final_act=softmax", "final_act=softmax"),
        ("constrained_embedding=True,embedding=50", "embedding"),
        ("n_sample=0,batch_size=1", "n_sample=0"),
    ],
)
def test_wrong_parameters(here, tmp_path, text, culprit):
    done = here(TRAIN, "-ps", text, "-s", "model.npz")
    assert culprit in complaint(done)
    assert done.out == ""
    assert files_in(tmp_path) == {}


def test_wrong_parameters_in_a_process(tmp_path):
    done = run_py(TRAIN, "-ps", "learning_rate=fast", "-s", "model.npz", cwd=tmp_path)
    assert "learning_rate" in complaint(done)
    assert done.out == ""
    assert files_in(tmp_path) == {}


def test_parameter_file_with_code(tmp_path):
    (tmp_path / "params.py").write_text(
        "open('executed', 'w').close()\ngru4rec_params = {'layers': [16]}\n"
    )
    done = run_py(TRAIN, "-pf", "params.py", "-s", "model.npz", cwd=tmp_path)
    assert "params.py, line 1" in complaint(done)
    assert set(files_in(tmp_path)) == {"params.py"}


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("gru4rec_params = {'layer': 100}", "'layer'"),
        ("gru4rec_params = {'layers': 'abc'}", "layers"),
        ("gru4rec_params = {1: 100}", "1"),
        ("gru4rec_params = {'loss': 'cross-entropy'}", "final_act"),
        ("gru4rec_params = {'layers': [16]", "params.py"),
        ("", "params.py"),
    ],
)
def test_wrong_parameter_files(here, tmp_path, text, culprit):
    (tmp_path / "params.py").write_text(text)
    done = here(TRAIN, "-pf", "params.py", "-s", "model.npz")
    assert culprit in complaint(done)
    assert set(files_in(tmp_path)) == {"params.py"}


def test_missing_parameter_file(here):
    assert "missing.py" in complaint(here(TRAIN, "-pf", "missing.py"))


TWO_TESTS = ("-t", TEST, TEST)


@pytest.mark.parametrize(
    ("args", "culprit"),
    [
        (("-m", 0), "-m"),
        (("-m", 5, -1), "-m"),
        (("-m", 10**23), "-m"),
        (("-ss", 2**70), "-ss"),
        (("-ss", -1), "-ss"),
        (("-lpm", *TWO_TESTS), "-lpm"),
        (("-lpm", "-t", TEST, "-m", 1, 5), "-lpm"),
        (("-lpm",), "-lpm"),
        (("-ee", *TWO_TESTS), "-ee"),
        (("-ee",), "-ee"),
        (("-d", "gpu0"), "gpu0"),
        (("-d", ""), "cuda0"),
        (("--ranks", "ranks.tsv"), "--ranks"),
        (("--ranks", "ranks.tsv", *TWO_TESTS), "--ranks"),
        (("--ranks", "ranks.csv", "-t", TEST), "ranks.csv"),
        (("--ranks", "missing/ranks.tsv", "-t", TEST), "missing/ranks.tsv"),
        (("--ranks", "model.npz", "-t", TEST), "model.npz"),
        (("-t", "missing.tsv"), "missing.tsv"),
        (("-t", TEST, "missing.tsv"), "missing.tsv"),
    ],
)
def test_wrong_options(here, tmp_path, args, culprit):
    done = here(TRAIN, "-ps", SMALL, "-s", "model.npz", *args)
    assert culprit in complaint(done)
    assert done.out == ""
    assert files_in(tmp_path) == {}


def test_column_without_a_name(here, tmp_path):
    assert "item_key" in complaint(here(TRAIN, "-ps", SMALL, "-ik", "", "-s", "model.npz"))
    assert files_in(tmp_path) == {}


def test_saving_what_is_loaded(job, here, tmp_path):
    assert "-s" in complaint(here(job.model, "-l", "-s", "copy.npz"))
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize(
    "args",
    [
        (TRAIN,),
        (TRAIN, "-l", "-ps", SMALL),
        (TRAIN, "-ps", SMALL, "-pf", ROOT / "paramfiles" / "rsc15_xe_shared_100_best.py"),
        (TRAIN, "-ps", SMALL, "-e", "optimistic"),
        (TRAIN, "-ps", SMALL, "-m", "five"),
        (TRAIN, "-ps", SMALL, "-pm", "ndcg"),
        (TRAIN, "-ps", SMALL, "-x", "map"),
        (TRAIN, "-ps", SMALL, "--no_such_option"),
        ("-ps", SMALL),
        (),
    ],
    ids=lambda args: " ".join(map(str, args))[-40:],
)
def test_arguments_that_cannot_be_parsed(here, tmp_path, args):
    done = here(*args)
    assert done.err == f"error: {complaint(done)}\n"
    assert done.out == ""
    assert files_in(tmp_path) == {}


NO_GPU = "raise ImportError('no pygpu here')\n"


def test_a_gpu_that_is_not_there(tmp_path):
    # whatever this machine has, its GPU is out of reach
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "pygpu.py").write_text(NO_GPU)
    path = {"PYTHONPATH": str(tmp_path / "hidden")}
    done = run_py(TRAIN, "-ps", SMALL, "-d", "cuda0", "-s", "model.npz", cwd=tmp_path, **path)
    message = complaint(done)
    assert "cuda0" in message and "-d cpu" in message
    assert done.out == ""
    assert not (tmp_path / "model.npz").exists()


def test_no_compiler(tmp_path):
    done = run_py(TRAIN, "-ps", SMALL, "-s", "model.npz", cwd=tmp_path, PATH=str(tmp_path))
    assert "g++" in complaint(done)
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize("path", ["missing/model.npz", ".", "m" * 300, "", "null\0byte"])
def test_a_model_path_that_cannot_be_written(here, tmp_path, path):
    done = here(TRAIN, "-ps", SMALL, "-s", path)
    assert "save" in complaint(done)
    assert "Started training" not in done.out
    assert files_in(tmp_path) == {}


# --- files that must not be replaced --------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path):
    """Every file that a training reads, by several names."""
    for name, source in (("train.tsv", TRAIN), ("test.tsv", TEST), ("second.tsv", TEST)):
        (tmp_path / name).write_bytes(source.read_bytes())
    (tmp_path / "params.py").write_text("gru4rec_params = {'layers': [16], 'n_epochs': 1}\n")
    (tmp_path / "variant.py").write_text(VARIANT)
    os.link(tmp_path / "train.tsv", tmp_path / "hard.tsv")
    (tmp_path / "link.tsv").symlink_to("test.tsv")
    (tmp_path / "folder").symlink_to(".")
    return tmp_path


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize(
    "path",
    ["train.tsv", "./train.tsv", "hard.tsv", "folder/train.tsv", "test.tsv", "link.tsv"]
    + ["second.tsv", "params.py", "variant.py"],
)
def test_a_model_never_replaces_what_was_read(here, workplace, path, force):
    before = files_in(workplace)
    tests = ("-t", "test.tsv", "second.tsv")
    done = here("train.tsv", "-pf", "params.py", *tests, "-g", "variant.py", "-s", path, *force)
    assert f"cannot save the model to {path}: it is the " in complaint(done)
    assert "Epoch" not in done.out
    assert files_in(workplace) == before and (workplace / "link.tsv").is_symlink()


def test_the_training_data_is_not_replaced_in_a_process(workplace):
    before = files_in(workplace)
    done = run_py("train.tsv", "-ps", SMALL, "-s", "train.tsv", cwd=workplace)
    assert "train.tsv: it is the training data" in complaint(done)
    assert files_in(workplace) == before


def test_another_file_is_replaced_if_forced_only(here, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine\n")
    message = complaint(here(TRAIN, "-ps", SMALL, "-s", "notes.txt"))
    assert "notes.txt" in message and "--force" in message
    assert files_in(tmp_path) == {"notes.txt": b"mine\n"}
    succeeds(here(TRAIN, "-ps", SMALL, "-s", "notes.txt", "--force"))
    assert modelfile.is_model(str(notes))
    model = notes.read_bytes()
    succeeds(here(TRAIN, "-ps", SMALL + ",seed=1", "-s", "notes.txt"))
    assert notes.read_bytes() != model and modelfile.is_model(str(notes))


def test_force_without_a_path(here):
    assert "--force" in complaint(here(TRAIN, "-ps", SMALL, "--force"))


APPEARING = """
import gru4rec


class GRU4Rec(gru4rec.GRU4Rec):
    def fit(self, data, **options):
        super().fit(data, **options)
        with open("model", "w") as file:
            file.write("mine")
"""


def test_a_file_that_appears_while_the_model_trains(here, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "appearing.py").write_text(APPEARING)
    done = here(TRAIN, "-ps", SMALL, "-g", "appearing.py", "-s", "model")
    assert "--force" in complaint(done) and "Epoch2" in done.out
    assert (tmp_path / "model").read_text() == "mine"
    (saved,) = (tmp_path / "temporary").glob("*/*")
    assert f"it is in {saved} instead" in complaint(done) and modelfile.is_model(str(saved))


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(here, tmp_path, job, exists):
    if exists:
        (tmp_path / "target").write_bytes(job.model.read_bytes())
    (tmp_path / "link").symlink_to("target")
    succeeds(here(TRAIN, "-ps", SMALL, "-s", "link"))
    assert (tmp_path / "link").is_symlink() and not (tmp_path / "target").is_symlink()
    assert modelfile.read(str(tmp_path / "target"))[0]["layers"] == [16]


def test_saving_from_python(model_with_ties, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(InputError, match="force=True"):
        model_with_ties.savemodel(str(path))
    assert path.read_text() == "mine"
    model_with_ties.savemodel(str(path), force=True)
    model_with_ties.savemodel(str(path))
    assert modelfile.is_model(str(path))


# --- standard streams -----------------------------------------------------------------------------

REPORT = "gru4rec_toolkit.data.report"
PROGRAMS = {
    "run.py -h": (ROOT / "run.py", "-h"),
    "run.py": (ROOT / "run.py", TRAIN, "--check"),
    "paropt.py -h": (ROOT / "paropt.py", "-h"),
    "report -h": ("-m", REPORT, "-h"),
    "report": ("-m", REPORT, TRAIN),
}
WRONG = {
    "run.py": (ROOT / "run.py", "missing.tsv", "--check"),
    "paropt.py": (ROOT / "paropt.py", "missing.tsv", "missing.tsv", "-opf", "x"),
    "report": ("-m", REPORT, "missing.tsv"),
}


def shell(command, redirection, cwd, **env):
    """Run Python in a shell that redirects its streams."""
    words = " ".join(shlex.quote(str(word)) for word in (sys.executable, *command))
    done = subprocess.run(
        ["bash", "-c", f"{words} {redirection}"],
        cwd=cwd,
        env=environment(PYTHONPATH=str(ROOT), **env),
        capture_output=True,
        text=True,
        timeout=600,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", PROGRAMS.values(), ids=PROGRAMS)
def test_closed_streams(tmp_path, command, closed):
    done = shell(command, closed, tmp_path)
    assert (done.code, done.err) == (0, "")
    assert bool(done.out) == (closed == "2>&-")
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize("command", WRONG.values(), ids=WRONG)
def test_mistakes_with_closed_streams(tmp_path, command):
    assert "missing.tsv" in complaint(shell(command, ">&-", tmp_path))
    # an error has no place on standard output
    done = shell(command, "2>&-", tmp_path)
    assert (done.code, done.out, done.err) == (2, "", "")


@pytest.mark.parametrize("unbuffered", [None, "1"])
@pytest.mark.parametrize("command", PROGRAMS.values(), ids=PROGRAMS)
def test_output_that_cannot_be_written(tmp_path, command, unbuffered):
    done = shell(command, ">/dev/full", tmp_path, PYTHONUNBUFFERED=unbuffered)
    problem = "standard output cannot be written: No space left on device"
    assert done.code == 1
    assert done.err.startswith(f"{problem}; it goes on here:\n")
    assert done.err.endswith(f"\nerror: {problem}\n")
    assert shell(command, "", tmp_path).out in done.err


def test_files_do_not_become_standard_streams(tmp_path):
    # a compiler would write its standard output into the first file that is opened
    code = """
import subprocess
from gru4rec_toolkit.errors import run_cli

def main():
    with open("mine", "w"):
        subprocess.run(["sh", "-c", "echo noise; echo noise >&2"])

run_cli(main)
"""
    done = shell(("-c", code), "<&- >&- 2>&-", tmp_path)
    assert done.code == 0
    assert files_in(tmp_path) == {"mine": b""}


ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C"},
    "C without UTF-8": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "UTF-8": {"PYTHONIOENCODING": "utf-8:strict"},
}
NAMES_OF_FILES = {"unicode": "м\u20ac.tsv".encode(), "no UTF-8": b"a\xff.tsv"}


@pytest.mark.parametrize("env", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("name", NAMES_OF_FILES.values(), ids=NAMES_OF_FILES)
@pytest.mark.parametrize("program", ["run.py", "report"])
def test_names_that_the_encoding_lacks(tmp_path, name, env, program):
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(TRAIN.read_bytes())
    option = [b"--check"] if program == "run.py" else []
    start = [str(ROOT / program)] if program == "run.py" else ["-m", REPORT]
    command = [sys.executable, *start, path, *option, b"-t", path]
    env = environment(PYTHONPATH=str(ROOT), **env)
    ran = subprocess.run(command, env=env, capture_output=True, timeout=600)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"events" in ran.stdout
    os.remove(path)
    ran = subprocess.run(command, env=env, capture_output=True, timeout=600)
    done = Done(ran.returncode, ran.stdout.decode(), ran.stderr.decode())
    assert "no such file" in complaint(done)


def test_a_model_with_a_name_that_the_encoding_lacks(job, tmp_path):
    path = tmp_path / "модель"
    path.write_bytes(job.model.read_bytes())
    done = succeeds(run_py(path, "-l", cwd=tmp_path, PYTHONIOENCODING="ascii"))
    assert done.lines == [
        "Loading trained model from file: " + str(path).encode("ascii", "backslashreplace").decode()
    ]


def test_a_path_with_a_line_break(here):
    assert "two\\nlines: no such file" in complaint(here("two\nlines", "-l"))


@pytest.mark.parametrize(
    "options", [(".", "-ps", "n_epochs=1"), (".", "-l"), (TRAIN, "-ps", "n_epochs=1", "-t", ".")]
)
def test_a_directory_in_the_place_of_a_file(here, options):
    assert complaint(here(*options)) == ".: this is a directory; give the path of a file"


@pytest.mark.parametrize(
    "options", [(), ("-t", TEST), ("-ps", "n_epochs=1"), ("--check",), ("--baseline", "popularity")]
)
def test_a_model_in_the_place_of_training_data(here, job, options):
    assert complaint(here(job.model, *options)) == (
        f"{job.model}: this is a saved model; add -l to load it, or give training data as PATH and "
        "the model to --retrain"
    )


def test_no_option_that_says_what_to_do(here, tmp_path):
    """Nor a model: zip archives begin as models do."""
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("x", "")
    for path in (TRAIN, "archive.zip", "nowhere", "."):
        assert complaint(here(path)).startswith("one of -ps, -pf, -l, ")


# --- wrong data -----------------------------------------------------------------------------------

NAMES = ("SessionId", "ItemId", "Time")


def sessions(*lengths):
    """Rows of sessions on items 1, 2, 3..."""
    return [(s, 1 + i, 100 * s + i) for s, n in enumerate(lengths) for i in range(n)]


BAD_LOGS = {
    "empty": ([], "empty"),
    "header only": ([NAMES], "no events"),
    "missing column": ([("SessionId", "Item", "Time"), (1, 2, 3)], "ItemId"),
    "column twice": ([(*NAMES, "Time"), (1, 2, 3, 4)], "Time"),
    "times in words": ([NAMES, (1, 1, 10), (1, 2, "noon")], "line 3"),
    "infinite time": ([NAMES, (1, 1, 10), (1, 2, "inf")], "line 3"),
    "missing item": ([NAMES, (1, 1, 10), (1, "", 11)], "line 3"),
    "missing session": ([NAMES, (1, 1, 10), ("", 2, 11)], "line 3"),
    "missing time": ([NAMES, (1, 1, ""), (1, 2, 11)], "line 2"),
    "short line": ([NAMES, (1, 1, 10), (1, 2)], "bad.tsv"),
    "long line": ([NAMES, (1, 1, 10), (1, 2, 3, 4)], "line 3"),
    "commas": ([("SessionId,ItemId,Time",), ("1,2,3",)], "SessionId"),
}
TOO_FEW = {
    "one session": ([NAMES, *sessions(4)], "one session"),
    "sessions of one event": ([NAMES, *sessions(*[1] * 50)], "one event"),
    "fewer sessions than batch_size": ([NAMES, *sessions(*[2] * 31, 1, 1)], "batch_size"),
}


BAD_TRAINING = {**BAD_LOGS, **TOO_FEW}


@pytest.mark.parametrize(("rows", "culprit"), BAD_TRAINING.values(), ids=BAD_TRAINING)
def test_bad_training_data(here, tmp_path, rows, culprit):
    write_lines(tmp_path / "bad.tsv", *rows)
    done = here("bad.tsv", "-ps", SMALL, "-s", "model.npz")
    assert culprit in complaint(done)
    assert "Epoch" not in done.out
    assert set(files_in(tmp_path)) == {"bad.tsv"}


@pytest.mark.parametrize(("rows", "culprit"), BAD_LOGS.values(), ids=BAD_LOGS)
def test_bad_test_data(here, tmp_path, rows, culprit):
    write_lines(tmp_path / "bad.tsv", *rows)
    done = here(TRAIN, "-ps", SMALL, "-s", "model.npz", "-t", TEST, "bad.tsv")
    message = complaint(done)
    assert culprit in message and "bad.tsv" in message
    assert "Started training" not in done.out
    assert set(files_in(tmp_path)) == {"bad.tsv"}


@pytest.mark.parametrize("option", ["-ps", "-l"])
def test_a_test_set_that_shares_no_item(job, here, tmp_path, option):
    write_lines(tmp_path / "other.tsv", NAMES, (1, "a", 1), (1, "b", 2), (1, "a", 3))
    args = (TRAIN, "-ps", SMALL, "-s", "model.npz") if option == "-ps" else (job.model, "-l")
    done = here(*args, "-t", TEST, "other.tsv")
    assert "other.tsv" in complaint(done)
    assert "Epoch" not in done.out and done.metrics == []
    assert set(files_in(tmp_path)) == {"other.tsv"}


def test_a_test_set_with_nothing_to_predict(here, tmp_path):
    # every session has one known item only
    known = read_log(TRAIN).ItemId.iloc[0]
    write_lines(tmp_path / "other.tsv", NAMES, (1, known, 1), (1, "b", 2), (2, known, 3))
    done = here(TRAIN, "-ps", SMALL, "-s", "model.npz", "-t", "other.tsv")
    assert "other.tsv" in complaint(done)
    assert "Epoch" not in done.out
    assert set(files_in(tmp_path)) == {"other.tsv"}


@pytest.mark.parametrize("name", ["missing.tsv", ".", "folder.tsv"])
def test_training_data_that_is_no_file(here, tmp_path, name):
    (tmp_path / "folder.tsv").mkdir()
    assert name in complaint(here(name, "-ps", SMALL, "-s", "model.npz"))
    assert set(files_in(tmp_path)) == {"folder.tsv"}


def test_missing_training_data_in_a_process(tmp_path):
    done = run_py("missing.tsv", "-ps", SMALL, "-s", "model.npz", cwd=tmp_path)
    assert "missing.tsv" in complaint(done)
    assert files_in(tmp_path) == {}


def test_a_pickle_that_is_no_frame_is_not_executed(here, tmp_path):
    (tmp_path / "train.pickle").write_bytes(pickle.dumps(Executes("executed")))
    done = here("train.pickle", "-ps", SMALL, "-s", "model.npz")
    assert "train.pickle" in complaint(done)
    assert set(files_in(tmp_path)) == {"train.pickle"}


def test_a_failing_process_says_one_sentence(tmp_path):
    # this one has got as far as Theano and the data
    write_lines(tmp_path / "bad.tsv", NAMES, *sessions(4))
    done = run_py("bad.tsv", "-ps", SMALL, "-s", "model.npz", cwd=tmp_path)
    assert "only one session" in complaint(done)
    assert set(files_in(tmp_path)) == {"bad.tsv"}


# --- wrong models ---------------------------------------------------------------------------------


class Executes:
    """Makes a file in the current directory when it is unpickled."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return os.mkdir, (self.name,)


def change_header(source, target, **changes):
    """Copy a model with something else in its header."""
    with np.load(source) as file:
        arrays = dict(file)
    header = {**json.loads(arrays["header"].tobytes()), **changes}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    np.savez(target, **arrays)


def without_array(source, target, name):
    with np.load(source) as file:
        np.savez(target, **{key: array for key, array in file.items() if not key.startswith(name)})


def changed(name, change):
    """Return what copies a model with one of its arrays changed."""

    def copy(source, target):
        found, arrays = modelfile.read(str(source))
        modelfile.write(str(target), found, {**arrays, name: change(arrays[name])})

    return copy


def in_numpys_format(name, change):
    """As `changed`, for arrays that no model holds."""

    def copy(source, target):
        with np.load(source) as file:
            arrays = dict(file)
        with open(target, "wb") as file:
            np.savez(file, **{**arrays, name: change(arrays[name])})

    return copy


BAD_MODELS = {
    "empty": lambda good, path: path.write_bytes(b""),
    "half": lambda good, path: path.write_bytes(good.read_bytes()[: good.stat().st_size // 2]),
    "one byte short": lambda good, path: path.write_bytes(good.read_bytes()[:-1]),
    "text": lambda good, path: path.write_bytes(TRAIN.read_bytes()),
    "pickle": lambda good, path: path.write_bytes(pickle.dumps(Executes("executed"))),
    "plain npz": lambda good, path: np.savez(path, Wy=np.zeros(3)),
    "object array": lambda good, path: np.savez(path, header=np.array([Executes("executed")])),
    "newer format": lambda good, path: change_header(good, path, version=modelfile.VERSION + 1),
    "unknown parameter": lambda good, path: change_header(good, path, parameters={"alpha": 1}),
    "wrong parameter": lambda good, path: change_header(good, path, parameters={"layers": "x"}),
    "missing weights": lambda good, path: without_array(good, path, "Wh0"),
    "missing item ids": lambda good, path: without_array(good, path, "item_ids"),
    "wrong shape": changed("Wy", lambda w: w[:-1]),
    "flat weights": changed("Wy", np.ravel),
    "whole numbers as weights": changed("Wy", lambda w: w.astype(np.int32)),
    "truth values as weights": changed("Bh0", lambda w: w > 0),
    "words as weights": in_numpys_format("Wy", lambda w: w.astype(str)),
    "bytes as weights": in_numpys_format("Wy", lambda w: w.astype("S4")),
    "item ids of no dimension": changed("item_ids", lambda ids: np.array(7)),
    "item ids of two dimensions": changed("item_ids", lambda ids: np.zeros((len(ids), 2), int)),
    "item ids as floats": changed("item_ids", lambda ids: np.arange(len(ids)) + 0.5),
    "item ids twice": changed("item_ids", lambda ids: np.zeros(len(ids), np.int64)),
    "names twice": changed("item_ids", lambda ids: np.array(["a"] * len(ids), object)),
    "item ids of fields": in_numpys_format(
        "item_ids", lambda ids: np.zeros(len(ids), [("a", "<i8")])
    ),
    "support of fewer items": changed("support", lambda n: n[:-1]),
    "support in floats": changed("support", lambda n: n + 0.5),
    "negative support": changed("support", lambda n: -n),
    "parameter named self": lambda good, path: change_header(good, path, parameters={"self": 1}),
    "huge layer": lambda good, path: change_header(good, path, parameters={"layers": [10**30]}),
    "version in words": lambda good, path: change_header(good, path, version="1"),
    "directory": lambda good, path: path.mkdir(),
}


@pytest.mark.parametrize("make", BAD_MODELS.values(), ids=BAD_MODELS)
def test_bad_models(job, here, tmp_path, make):
    make(job.model, tmp_path / "bad.npz")
    before = files_in(tmp_path)
    done = here("bad.npz", "-l", "-t", TEST)
    assert "bad.npz" in complaint(done)
    assert done.metrics == []
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2"])
def test_models_in_other_floats(job, here, tmp_path, dtype, order):
    # as another machine may have written it; float16 rounds
    def change(w):
        return np.asarray(w, dtype=dtype, order=order)

    changed("Wy", change)(job.model, tmp_path / "other.npz")
    done = succeeds(here("other.npz", "-l", "-t", TEST, "-m", *job.lengths))
    if dtype != "<f2":
        assert done.metrics == job.done.metrics[:3]


def test_a_newer_model_says_so(job, here, tmp_path):
    change_header(job.model, tmp_path / "newer.npz", version=modelfile.VERSION + 1)
    message = complaint(here("newer.npz", "-l"))
    assert str(modelfile.VERSION + 1) in message and "update" in message


def test_missing_model(here):
    assert "missing.npz" in complaint(here("missing.npz", "-l"))


# --- trainings that end early ---------------------------------------------------------------------


def test_diverging_training(tmp_path):
    settings = f"{SMALL},adapt=None,learning_rate=1e30,loss=bpr-max,final_act=linear"
    done = run_py(TRAIN, "-ps", settings, "-s", "model.npz", "-t", TEST, cwd=tmp_path)
    message = complaint(done)
    assert re.search(r"\bepoch 1, step \d+\b", message)
    assert "learning_rate" in message and "1e+30" in message
    assert "Saving" not in done.out and done.metrics == []
    assert files_in(tmp_path) == {}


def test_memory_does_not_grow_from_epoch_to_epoch(here, monkeypatch):
    # at the end of every epoch the mini-batches shrink step by step, so buffers are made anew;
    # Theano 1.0.5's row look-up on the CPU keeps one reference too many to each of them
    traced = []

    class Watch:
        """Standard output that looks at the memory after every epoch."""

        def __init__(self, stream):
            self.stream = stream

        def write(self, text):
            if text.startswith("Epoch"):
                traced.append(tracemalloc.get_traced_memory()[0])
            return self.stream.write(text)

        def flush(self):
            self.stream.flush()

    monkeypatch.setattr(sys, "stdout", Watch(sys.stdout))
    tracemalloc.start()
    try:
        done = succeeds(here(TRAIN, "-ps", "layers=16,n_epochs=25,n_sample=512"))
    finally:
        tracemalloc.stop()
    assert len(done.losses) == len(traced) == 25
    # one leaked block of looked-up rows, 512 x 16 floats, has 32 kB; an epoch has ten such blocks
    assert traced[-1] - traced[4] < 500_000


def test_interrupted_training(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), str(TRAIN), "-s", "model.npz"]
        + ["-ps", "layers=16,n_epochs=1000000,n_sample=64"],
        cwd=tmp_path,
        env=environment(PYTHONUNBUFFERED="1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=own_signals,
    )
    try:
        for line in process.stdout:
            if line.startswith("Epoch2"):
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "interrupted"
    assert files_in(tmp_path) == {}


def test_a_reader_that_goes_away(tmp_path):
    # run.py ... | head -n 1
    code = """
import sys
from gru4rec_toolkit.errors import run_cli

def main():
    for i in range(100000):
        print("line", i)

run_cli(main)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


# --- the functions behind it ----------------------------------------------------------------------


def test_options_go_before_the_parameters_columns():
    args = run.parse_arguments([str(TRAIN), "-ps", "item_key=a,time_key=b", "-ik", "c"])
    assert args.settings["item_key"] == "c" and args.settings["time_key"] == "b"


def test_defaults_of_the_options():
    args = run.parse_arguments([str(TRAIN), "-ps", SMALL])
    assert (args.measure, args.test, args.save_model) == ([20], [], None)
    assert (args.eval_type, args.primary_metric) == ("standard", "recall")
    assert (args.sample_store_size, args.sample_store_on_cpu) == (10_000_000, False)
    assert (args.gru4rec_model, args.device, args.log_primary_metric) == ("gru4rec", None, False)
    assert args.settings == parameters.convert(parameters.parse_string(SMALL))


def test_every_missing_path_is_named():
    with pytest.raises(InputError, match=r"nowhere\.tsv"):
        run.parse_arguments(["nowhere.tsv", "-ps", SMALL])
