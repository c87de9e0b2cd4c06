"""`run.py --validate`, `-ns`, `--keep_optimizer` and the trackers, started as users start them."""

from __future__ import annotations

import re
import statistics

import numpy as np
import pandas as pd
import pytest
from helpers.cli import TEST, TRAIN, complaint, files_in, run_py, succeeds

from gru4rec import GRU4Rec, Validation
from gru4rec_toolkit import seeds

# the best of its epochs, by Recall@20, is neither the first nor the last one
SETTINGS = "layers=8,batch_size=8,n_sample=16,n_epochs=6,learning_rate=0.8"
BASE = {"layers": [8], "batch_size": 8, "n_sample": 16, "n_epochs": 6, "learning_rate": 0.8}


def same(left: GRU4Rec, right: GRU4Rec) -> bool:
    a, b = left.weights(), right.weights()
    return all(a[name].tobytes() == b[name].tobytes() for name in a)


def validated(metric: str = "recall", patience: int | None = None, **options):
    data, held_out = (pd.read_csv(path, sep="\t") for path in (TRAIN, TEST))
    gru, epochs = GRU4Rec(**{**BASE, **options}), []
    validation = Validation(held_out, cut_off=[20, 5], mode="conservative", metric=metric)
    gru.fit(data, validation=validation, patience=patience, callbacks=[epochs.append])
    return gru, epochs


def test_as_in_python(tmp_path):
    # with relu many items tie, which -e is about
    command = (TRAIN, "-ps", f"{SETTINGS},final_act=relu", "--validate", TEST, "-s", "m")
    command += (
        "--patience",
        1,
        "-m",
        20,
        5,
        "-e",
        "conservative",
        "-pm",
        "mrr",
        "--log-file",
        "log.tsv",
    )
    done = succeeds(run_py(*command, cwd=tmp_path))
    gru, epochs = validated("mrr", patience=1, final_act="relu")
    assert same(GRU4Rec.loadmodel(tmp_path / "m"), gru)
    log = pd.read_csv(tmp_path / "log.tsv", sep="\t", float_precision="round_trip")
    assert log.Epoch.tolist() == [e.number for e in epochs]
    for name in ("Recall@20", "MRR@20", "Recall@5", "MRR@5"):
        assert log[name].tolist() == [e.metrics[name] for e in epochs]
    lines = [line for line in done.lines if "--> validation" in line]
    assert lines == [
        f"Epoch{e.number} --> validation "
        + " ".join(f"{name}: {value:.6f}" for name, value in e.metrics.items())
        for e in epochs
    ]
    best = max((e for e in epochs if e.is_best), key=lambda e: e.number)
    assert f"Best epoch: {best.number} of {len(epochs)} (MRR@20: " in done.out


def test_the_best_epoch_is_saved_and_evaluated(tmp_path):
    options = ("--validate", TEST, "-t", TEST, "-e", "conservative", "-m", 20, 5)
    done = succeeds(run_py(TRAIN, "-ps", SETTINGS, *options, cwd=tmp_path))
    _, epochs = validated()
    best = max(epochs, key=lambda e: e.metrics["Recall@20"])
    assert best.number < 6
    texts = [f"{name}: {value:.6f}" for name, value in best.metrics.items()]
    assert done.metrics == [" ".join(texts[:2]), " ".join(texts[2:])]


def test_all_trackers(tmp_path):
    pytest.importorskip("tensorboardX")
    pytest.importorskip("mlflow")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    command = [TRAIN, "-ps", "layers=8,batch_size=8,n_epochs=2,n_sample=0", "-t", TEST, "-ns", 2]
    command += ["--validate", TEST, "--plot", "curves.svg", "--tensorboard", "board"]
    command += ["--mlflow", "trial", "--log_file", "log.tsv", "-m", 1, 20]
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    variables = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = succeeds(run_py(*command, "-q", cwd=tmp_path, **variables))
    assert done.err == ""  # MLflow would tell of the database that it makes
    log = pd.read_csv(tmp_path / "log.tsv", sep="\t")
    assert log[["Seed", "Epoch"]].to_numpy().tolist() == [[42, 1], [42, 2], [43, 1], [43, 2]]
    text = (tmp_path / "curves.svg").read_text()
    for part in ("test.tsv, seed 42", "test.tsv, seed 43", "Recall@20"):
        assert part in text
    for seed in (42, 43):
        events = EventAccumulator(str(tmp_path / "board" / f"seed-{seed}")).Reload()
        losses = [event.value for event in events.Scalars("train/loss")]
        np.testing.assert_allclose(losses, log.Loss[log.Seed == seed], rtol=1e-6)
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("trial").experiment_id])
    assert sorted(run.data.params["seed"] for run in runs) == ["42", "43"]
    assert {run.data.params["layers"] for run in runs} == {"[8]"}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_plot_of_a_saved_model(tmp_path):
    succeeds(run_py(TRAIN, "-ps", "layers=4,n_sample=0,n_epochs=1", "-s", "m", cwd=tmp_path))
    command = ("m", "-l", "-t", TEST, "-m", 1, 5, 20, "--plot", "lengths.png")
    succeeds(run_py(*command, cwd=tmp_path))
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------------------- several seeds


def test_several_seeds(tmp_path):
    options = ("-t", TEST, TEST, "-m", 20, "-x", "ndcg", "-ns", 3, "--seed", 7, "-s", "dir/m.gru")
    (tmp_path / "dir").mkdir()
    done = succeeds(run_py(TRAIN, "-ps", SETTINGS, *options, cwd=tmp_path))
    assert sorted(files_in(tmp_path / "dir")) == [f"m-seed-{s}.gru" for s in (7, 8, 9)]
    values = []
    for number, seed in enumerate((7, 8, 9), 1):
        assert f"Seed {seed} ({number} of 3)" in done.lines
        gru = GRU4Rec(**BASE, seed=seed)
        gru.fit(pd.read_csv(TRAIN, sep="\t"))
        assert same(GRU4Rec.loadmodel(tmp_path / "dir" / f"m-seed-{seed}.gru"), gru)
        one = run_py(tmp_path / "dir" / f"m-seed-{seed}.gru", "-l", "-t", TEST, cwd=tmp_path)
        (line,) = succeeds(one).metrics
        values.append(re.findall(r"\d\.\d+", line))
        assert line in done.lines
    (start,) = (i for i, line in enumerate(done.lines) if line.startswith("Over 3 seeds on "))
    found = done.lines[start:]
    assert found[0] == f"Over 3 seeds on {TEST}: mean, standard deviation, range"
    assert len(found) == 4  # one and the same test set is named once
    for line, name, column in zip(found[1:], ("Recall@20", "MRR@20"), zip(*values)):
        match = re.fullmatch(rf"{name}: (\S+) sd (\S+) \((\S+) to (\S+)\)", line)
        numbers = [float(x) for x in column]
        expected = [statistics.fmean(numbers), statistics.stdev(numbers)]
        expected += [min(numbers), max(numbers)]
        np.testing.assert_allclose([float(x) for x in match.groups()], expected, atol=2e-6)
    assert found[3].startswith("NDCG@20: ")
    assert done.out.count("Loading training data...") == 1


def test_the_primary_metric_of_several_seeds(tmp_path):
    settings = "layers=4,n_sample=0,n_epochs=1"
    command = (TRAIN, "-ps", settings, "-t", TEST, "-ns", 2, "-lpm", "-pm", "mrr")
    done = succeeds(run_py(*command, cwd=tmp_path))
    (mean,) = re.findall(r"^MRR@20: (\S+) sd", done.out, re.M)
    assert re.fullmatch(r"PRIMARY METRIC: (\S+)", done.lines[-1])
    assert float(done.lines[-1].split()[-1]) == pytest.approx(float(mean), abs=1e-6)
    assert done.out.count("PRIMARY METRIC") == 1


def test_checkpoints_of_several_seeds(tmp_path):
    command = (TRAIN, "-ps", SETTINGS, "-ns", 2, "-s", "m", "--checkpoint", "c", "-t", TEST)
    first = succeeds(run_py(*command, cwd=tmp_path))
    assert {"c/seed-42/checkpoint.gru4rec", "c/seed-43/checkpoint.gru4rec"} <= {*files_in(tmp_path)}
    again = succeeds(run_py(*command, "--resume", cwd=tmp_path))
    assert again.losses == [] and again.metrics == first.metrics


def test_a_single_seed_has_no_deviation():
    lines = seeds.summary([{"a.tsv": [("Recall@20", 0.5)]}])
    assert lines[1] == "Recall@20: 0.500000 sd 0.000000 (0.500000 to 0.500000)"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("m", "m-seed-3"),
        ("a.b/m", "a.b/m-seed-3"),
        ("dir/m.tar.gz", "dir/m.tar-seed-3.gz"),
        (".hidden", ".hidden-seed-3"),
    ],
)
def test_names_of_files(path, expected):
    assert seeds.path_of(path, 3) == expected


# ---------------------------------------------------------------------------- the optimizer


def test_a_kept_optimizer(tmp_path):
    settings = "layers=6,batch_size=8,n_sample=0,n_epochs=1"
    succeeds(run_py(TRAIN, "-ps", settings, "--keep_optimizer", "-s", "m", cwd=tmp_path))
    succeeds(run_py(TRAIN, "--retrain", "m", "--keep_optimizer", "-s", "on", cwd=tmp_path))
    whole = GRU4Rec(layers=[6], batch_size=8, n_sample=0, n_epochs=2)
    whole.fit(pd.read_csv(TRAIN, sep="\t"))
    assert same(GRU4Rec.loadmodel(tmp_path / "on"), whole)
    succeeds(run_py(TRAIN, "--retrain", "m", "-s", "anew", cwd=tmp_path))
    assert not same(GRU4Rec.loadmodel(tmp_path / "anew"), whole)
    done = run_py(TRAIN, "--retrain", "anew", "--keep_optimizer", "-s", "begun", cwd=tmp_path)
    assert "the model keeps no optimizer's state to go on from" in succeeds(done).err


# ---------------------------------------------------------------------------- early ends

SPOILED = """
import os, signal
import numpy as np
import gru4rec


class GRU4Rec(gru4rec.GRU4Rec):
    def fit(self, data, **options):
        def spoil(epoch):
            if epoch == 5 and self.seed == 42:
                if os.environ.get("END") == "interrupt":
                    os.kill(os.getpid(), signal.SIGTERM)
                self.Wy.set_value(self.Wy.get_value() * np.nan)

        super().fit(data, **options, after_epoch=spoil)
"""


@pytest.mark.parametrize(("end", "code"), [("NaN", 2), ("interrupt", 143)])
def test_the_best_epoch_is_saved_whatever_ends_the_training(tmp_path, end, code):
    (tmp_path / "variant.py").write_text(SPOILED)
    command = (
        TRAIN,
        "-ps",
        SETTINGS,
        "-g",
        "variant.py",
        "--validate",
        TEST,
        "-s",
        "m",
        "-t",
        TEST,
    )
    done = run_py(*command, "-e", "conservative", "-m", 20, 5, cwd=tmp_path, END=end)
    assert done.code == code and "Traceback" not in done.err
    gru, epochs = validated(n_epochs=5)
    assert same(GRU4Rec.loadmodel(tmp_path / "m"), gru)
    assert "whose weights are kept" in done.out and "Saving trained model to: m" in done.out
    # without a validation there is no epoch that is known to be good
    (tmp_path / "m").unlink()
    command = (TRAIN, "-ps", SETTINGS, "-g", "variant.py", "-s", "m")
    assert run_py(*command, cwd=tmp_path, END=end).code == code
    assert not (tmp_path / "m").exists()


def test_a_seed_that_diverges(tmp_path):
    (tmp_path / "variant.py").write_text(SPOILED)
    command = (TRAIN, "-ps", SETTINGS, "-g", "variant.py", "-ns", 3, "-t", TEST, "-s", "m")
    done = run_py(*command, cwd=tmp_path)
    assert complaint(done).startswith("seed 42: the loss became NaN or infinite in epoch 6")
    assert f"Over 2 seeds on {TEST}: mean, standard deviation, range" in done.lines
    assert sorted(files_in(tmp_path)) == ["m-seed-43", "m-seed-44", "variant.py"]


def test_a_model_that_retraining_makes_worse(tmp_path):
    succeeds(run_py(TRAIN, "-ps", "layers=8,n_sample=16,n_epochs=3", "-s", "m", cwd=tmp_path))
    before = GRU4Rec.loadmodel(tmp_path / "m")
    options = ("--validate", TEST, "-ps", "learning_rate=1,n_epochs=3", "--patience", 2)
    done = succeeds(run_py(TRAIN, "--retrain", "m", "-s", "m", *options, cwd=tmp_path))
    (line,) = (line for line in done.lines if line.startswith("Before the training --> valid"))
    number = re.findall(r"Recall@20: (\S+)", line)[0]
    assert len(done.losses) == 2 and "the training ends early" in done.out
    kept = f"No epoch was better than the model before the training (Recall@20: {number}), whose"
    assert kept in done.out
    assert same(GRU4Rec.loadmodel(tmp_path / "m"), before)


def test_checkpoints_of_several_seeds_for_one(tmp_path):
    command = (TRAIN, "-ps", "layers=4,n_sample=0,n_epochs=1", "--checkpoint", "c")
    succeeds(run_py(*command, "-ns", 2, cwd=tmp_path))
    done = run_py(*command, "--resume", "--seed", 43, cwd=tmp_path)
    assert complaint(done).endswith("one directory for each seed; give c/seed-43, or -ns")
    command = (*command[:-1], "c/seed-43")
    assert succeeds(run_py(*command, "--resume", "--seed", 43, cwd=tmp_path)).losses == []


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--patience", 2), "--patience is about --validate; give --validate VALID_PATH, too"),
        (("--validate", TEST, "--patience", 0), "--patience: expected 1 epoch or more, got 0"),
        (("--validate", "no.tsv"), "no.tsv: no such file; check the path"),
        (("-ns", 0), "-ns: expected 1 seed or more, got 0"),
        (("-ns", 2, "--seed", 2**32 - 1), "-ns: 2 seeds from 4294967295 on go beyond 4294967295"),
        (("-ns", 2, "--export", "m.onnx"), "--export is about one model; leave out -ns, or save"),
        (("-ns", 2, "-t", TEST, "--ranks", "r.tsv"), "--ranks is about one model"),
        (("-ns", 2, "-t", TEST, "--recommend", "r.tsv"), "--recommend is about one model"),
        (("--plot", "curves.jpg"), "give a name that ends in .png, .svg, .pdf"),
        (("--plot", "notes.png"), "notes.png: it exists and is not a picture of a training"),
        (("--log-file", "notes.png"), "notes.png: it exists and is not a log of a training"),
        (("--log-file", "no/log.tsv"), "no/log.tsv"),
        (("--log-file", TRAIN, "--force"), "train.tsv: it is the training data"),
        (("--log-file", "x", "--plot", "x.svg", "-s", "x"), "x: it is the file of -s"),
        (("--validate", "v.tsv", "--log-file", "v.tsv", "--force"), "the sessions of --validate"),
        (("--tensorboard", "notes.png"), "notes.png"),
    ],
    ids=str,
)
def test_refusals(tmp_path, options, message):
    (tmp_path / "notes.png").write_text("notes")
    (tmp_path / "v.tsv").write_text("SessionId\tItemId\tTime\n")
    before = files_in(tmp_path)
    command = (TRAIN, "-ps", "layers=4,n_epochs=1", *options)
    assert message in complaint(run_py(*command, cwd=tmp_path))
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    ("option", "name"),
    [
        (("--validate", TEST), "--validate"),
        (("--log-file", "x.tsv"), "--log-file"),
        (("--tensorboard", "x"), "--tensorboard"),
        (("--mlflow", "x"), "--mlflow"),
        (("-ns", 2), "-ns"),
        (("--keep_optimizer",), "--keep_optimizer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_of_a_training_alone(tmp_path, option, name):
    for beside in (("-l",), ("--check",)):
        done = run_py(TRAIN, *beside, *option, cwd=tmp_path)
        assert f"{name} is about a training; leave it out with -l and --check" in complaint(done)
    done = run_py(TRAIN, "--baseline", "popularity", *option, cwd=tmp_path)
    assert f"{name} is about GRU4Rec; leave it out with --baseline" in complaint(done)


def test_a_validation_that_shares_nothing(tmp_path):
    other = pd.read_csv(TEST, sep="\t").assign(ItemId=lambda table: table.ItemId + 10**9)
    other.to_csv(tmp_path / "v.tsv", sep="\t", index=False)
    command = (TRAIN, "-ps", "layers=4", "--validate", "v.tsv", "-s", "m", "--log-file", "l.tsv")
    message = complaint(run_py(*command, cwd=tmp_path))
    assert message.startswith("v.tsv: none of the model's 60 items occurs in column")
    assert sorted(files_in(tmp_path)) == ["v.tsv"]
