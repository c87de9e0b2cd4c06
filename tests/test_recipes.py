"""The recipes of CONTRIBUTING.md, followed with toys: the code is taken from there and run."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
from helpers.cli import ROOT, complaint, python, run_py, succeeds

import evaluation
from gru4rec import GRU4Rec, Network
from gru4rec_toolkit import parameters
from gru4rec_toolkit.data import events
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model import losses, optimizers, training
from gru4rec_toolkit.ops import library
from gru4rec_toolkit.ops.losses.op import Loss
from gru4rec_toolkit.ops.updates.op import Update
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

TABLES = [
    parameters.LOSSES, parameters.OPTIMIZERS, parameters.ACTIVATIONS,
    losses.LOSSES, losses.ACTIVATIONS, optimizers.METHODS, optimizers.STATES, events.READERS,
]  # fmt: skip
SETTINGS = {"layers": [16], "batch_size": 16, "n_sample": 32, "constrained_embedding": True}


@pytest.fixture(autouse=True)
def tables():
    """What a test registers is forgotten after it."""
    before = [dict(table) for table in TABLES]
    yield
    for table, entries in zip(TABLES, before):
        table.clear()
        table.update(entries)


@pytest.fixture
def ops(monkeypatch):
    """The Ops of every training step that is compiled."""
    compiled = []
    compile_step = training.Training.compile

    def spy(self, *n_steps):
        step = compile_step(self, *n_steps)
        compiled.append([node.op for node in step.maker.fgraph.toposort()])
        return step

    monkeypatch.setattr(training.Training, "compile", spy)
    return compiled


def code_of(recipe: str, language: str = "python") -> list[str]:
    """The blocks of code in a recipe of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (section,) = re.findall(rf"^### {recipe}\n(.*?)(?=^### |^## |\Z)", text, re.M | re.S)
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.M | re.S)


def follow(recipe: str) -> dict:
    """Run the first block of a recipe; return the names that it defines."""
    names = {}
    exec(code_of(recipe)[0], names)
    return names


# --- a loss ---------------------------------------------------------------------------------------


def test_a_loss_from_outside_trains(train_data, test_data, ops):
    with pytest.raises(InputError, match="loss: expected one of .*, got 'hinge'"):
        GRU4Rec(loss="hinge")
    follow("A loss")
    gru = GRU4Rec(loss="hinge", learning_rate=0.05, n_epochs=3, **SETTINGS)
    gru.fit(train_data)
    (step,) = ops
    assert not any(isinstance(op, Loss) for op in step)
    recall, _ = evaluation.evaluate_gpu(gru, test_data, cut_off=[5])
    assert recall[0] > 3 * 5 / 60  # chance is 5 of 60 items


def test_a_loss_from_outside_is_what_its_expression_says():
    follow("A loss")
    y = np.array([[1.0, 0.5, -2.0], [0.3, 0.2, 0.9]], dtype=np.float32)
    expected = (0.5 + 0) + (1.1 + 1.7)
    cost = losses.LOSSES["hinge"](tt.as_tensor_variable(y), 0.0, 0.0).eval()
    assert cost == pytest.approx(expected, rel=1e-6)


def test_a_loss_from_outside_in_a_shell(tmp_path, train_data):
    """As the default of a variant, since -ps is checked before the module of -g is imported."""
    train_data.to_csv(tmp_path / "train.tsv", sep="\t", index=False)
    (tmp_path / "variant.py").write_text("".join(code_of("A loss")))
    command = ["train.tsv", "-g", "variant.py", "-ps"]
    settings = "layers=8,n_epochs=1,n_sample=16"
    assert "hinge" in complaint(run_py(*command, f"{settings},loss=hinge", cwd=tmp_path))
    with_hinge = succeeds(run_py(*command, settings, cwd=tmp_path))
    without = succeeds(run_py("train.tsv", "-ps", settings, cwd=tmp_path))
    assert len(with_hinge.losses) == 1 and with_hinge.losses != without.losses


# --- an optimizer ---------------------------------------------------------------------------------


def test_an_optimizer_from_outside_trains(train_data, test_data, ops):
    follow("An optimizer")
    gru = GRU4Rec(
        loss="cross-entropy", final_act="softmax", adapt="signum", learning_rate=0.01, n_epochs=3,
        **SETTINGS,
    )  # fmt: skip
    gru.fit(train_data)
    (step,) = ops
    assert not any(isinstance(op, Update) for op in step)
    assert any(isinstance(op, Loss) for op in step)
    recall, _ = evaluation.evaluate_gpu(gru, test_data, cut_off=[5])
    assert recall[0] > 3 * 5 / 60


def test_an_optimizer_from_outside_is_what_its_rule_says():
    """On rows of which one comes up twice, and on a whole parameter."""
    follow("An optimizer")
    value = np.zeros((3, 2), dtype=np.float32)
    whole, table = (theano.shared(value, name=name) for name in ("whole", "table"))
    index, target = tt.ivector(), tt.fmatrix()
    rows = table[index]
    updates = optimizers.training_updates(
        (rows * target).sum() + (whole * target).sum(), [whole], [(table, [(rows, index, None)])],
        "signum", [0.5], 0.1,
    )  # fmt: skip
    step = theano.function([index, target], updates=updates)
    gradient = np.array([[1, -1], [2, 3], [-8, 0]], dtype=np.float32)
    step(np.array([2, 0, 2], dtype=np.int32), gradient)
    np.testing.assert_allclose(whole.get_value(), -0.1 * np.sign(gradient), rtol=1e-6)
    mean = 0.5 * np.array([gradient[1], [0, 0], gradient[0] + gradient[2]])
    expected = -0.1 * np.sign(mean) * [[1], [1], [2]]  # each occurrence steps
    np.testing.assert_allclose(table.get_value(), expected, rtol=1e-6)
    step(np.array([1, 1, 1], dtype=np.int32), -gradient)
    mean_whole = 0.5 * 0.5 * gradient - 0.5 * gradient
    expected = -0.1 * (np.sign(gradient) + np.sign(mean_whole))
    np.testing.assert_allclose(whole.get_value(), expected, rtol=1e-6, atol=1e-8)


# --- an activation --------------------------------------------------------------------------------


def test_an_activation_from_outside_trains(train_data, test_data, ops):
    follow("An activation")
    x = np.array([[-2.0, 0.0, 3.0]], dtype=np.float32)
    for name, a in (("softsign", 1), ("softsign-0.5", 0.5)):
        found = losses.activation(name)(tt.as_tensor_variable(x)).eval()
        np.testing.assert_allclose(found, x / (1 + a * abs(x)), rtol=1e-6)
    gru = GRU4Rec(
        loss="bpr-max", final_act="softsign", hidden_act="softsign-0.5", bpreg=0, n_epochs=5,
        **SETTINGS,
    )  # fmt: skip
    gru.fit(train_data)
    recall, _ = evaluation.evaluate_gpu(gru, test_data, cut_off=[5], mode="conservative")
    assert recall[0] > 2 * 5 / 60


# --- a data format --------------------------------------------------------------------------------


def write_jsonl(path, data):
    path.write_text("".join(json.dumps(row) + "\n" for row in data.to_dict("records")))
    return path


def test_a_data_format_from_outside_trains(tmp_path, train_data, test_data, capsys):
    path = write_jsonl(tmp_path / "log.JSONL", train_data)
    with pytest.raises(InputError, match=r'"\.jsonl" cannot be read; .*or \.feather$'):
        events.read_events(path)
    follow("A data format")
    data = events.read_events(path)
    assert capsys.readouterr().out == f"Loading data from JSON lines: {path}\n"
    pd.testing.assert_frame_equal(data, train_data[data.columns], check_dtype=False)
    assert data.columns.tolist() == ["SessionId", "ItemId", "Time"]
    with pytest.raises(InputError, match=r"or \.feather, or \.jsonl$"):
        events.read_events(tmp_path / "log.json")
    gru = GRU4Rec(loss="cross-entropy", final_act="softmax", n_epochs=3, **SETTINGS)
    gru.fit(data)
    recall, _ = evaluation.evaluate_gpu(gru, test_data, cut_off=[5])
    assert recall[0] > 3 * 5 / 60


def test_a_data_format_from_outside_is_checked_like_any_other(tmp_path):
    follow("A data format")
    good = {"SessionId": 1, "ItemId": "a", "Time": 5}

    def refusal(*rows):
        path = tmp_path / "log.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        with pytest.raises(InputError) as caught:
            events.read_events(path)
        assert str(caught.value).startswith(f"{path}: ")
        return str(caught.value)

    assert "this is no file of JSON lines" in refusal(good, "x")
    assert 'no column "ItemId"' in refusal({"SessionId": 1, "Time": 5})
    assert '"Time" has 1 missing value, the first in row 1' in refusal(good, {**good, "Time": None})
    with pytest.raises(InputError, match=r"none\.jsonl: there is no such file"):
        events.read_events(tmp_path / "none.jsonl")


def test_a_data_format_from_outside_in_a_shell(tmp_path, train_data, test_data):
    """The module of -g registers it; without it the very same command is refused."""
    train = write_jsonl(tmp_path / "train.jsonl", train_data)
    test = write_jsonl(tmp_path / "test.jsonl", test_data)
    variant = "from gru4rec import GRU4Rec\n" + code_of("A data format")[0]
    (tmp_path / "formats.py").write_text(variant)
    command = [train, "-ps", "layers=8,n_epochs=1,n_sample=16", "-t", test, "-m", 5]
    assert '".jsonl" cannot be read' in complaint(run_py(*command, cwd=tmp_path))
    done = succeeds(run_py(*command, "-g", "formats.py", cwd=tmp_path))
    assert f"Loading data from JSON lines: {train}" in done.lines
    assert len(done.losses) == 1 and len(done.metrics) == 1


# --- a data set -----------------------------------------------------------------------------------

PUBLISHED = ((0.1, 0.1), (0.2, 0.15), (0.3, 0.16), (0.4, 0.2))


@pytest.fixture
def project(tmp_path):
    """The project with files of its own where the recipe adds or changes some."""
    folder = tmp_path / "project"
    folder.mkdir()
    for path in [*ROOT.glob("*.py"), ROOT / "gru4rec_toolkit"]:
        (folder / path.name).symlink_to(path)
    for name in ("examples", "paramfiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def clicks():
    """(user, second, product) up to one day; some gaps are just an hour, or a second more."""
    rng = random.Random(3)
    rows = []
    for user in range(30):
        second = 1_400_000_000 + rng.randrange(86400)
        for _ in range(120):
            second -= rng.choice([0, 1, 60, 3600, 3601, 40_000])
            rows.append((user, second, f"p{rng.randrange(9)}"))
    rng.shuffle(rows)
    return rows


def slow_rules(rows):
    """The training and test sessions of toylog as lists of (product, second)."""
    sessions, last = [], {}
    for user, second, product in sorted(rows, key=lambda row: (row[0], row[1], row[2])):
        if user not in last or second - last[user] > 3600:
            sessions.append([])
        last[user] = second
        if not sessions[-1] or sessions[-1][-1][0] != product:
            sessions[-1].append((product, second))
    while True:
        support = Counter(product for session in sessions for product, _ in session)
        kept = [[row for row in s if support[row[0]] >= 5] for s in sessions if len(s) >= 2]
        if sum(map(len, kept)) == sum(map(len, sessions)):
            break
        sessions = kept
    at = max(second for session in sessions for _, second in session) - 86400
    train = [[row for row in session if row[1] < at] for session in sessions]
    return [s for s in train if len(s) >= 2], [s for s in sessions if s[0][1] >= at]


def read_sessions(path):
    sessions = defaultdict(list)
    for line in path.read_text().splitlines()[1:]:
        session, product, second = line.split("\t")
        sessions[int(session)].append((product, int(second)))
    return list(sessions.values())


def test_a_data_set(project, tmp_path):
    (project / "examples" / "toylog").mkdir()
    script = project / "examples" / "toylog" / "preprocess.py"
    script.write_text(code_of("A data set")[0])
    published = project / "examples" / "published.py"
    entry = f'RESULTS = {{\n    "toylog": {PUBLISHED},\n'
    published.write_text(published.read_text().replace("RESULTS = {\n", entry))
    shutil.copy(
        ROOT / "paramfiles" / "rsc15_xe_shared_100_best.py",
        project / "paramfiles" / "toylog_xe_shared_best.py",
    )
    raw = tmp_path / "raw"
    raw.mkdir()
    assert "clicks.csv" in complaint(python(script, raw, cwd=tmp_path))
    rows = clicks()
    lines = [f"{user},{product},{second}\n" for user, second, product in rows]
    (raw / "clicks.csv").write_text("".join(["user,product,seconds\n", *lines]))
    succeeds(python(script, raw, cwd=tmp_path))
    train, test = slow_rules(rows)
    assert len(train) > 100 and len(test) > 5
    assert read_sessions(raw / "toylog_train_full.tsv") == train
    assert read_sessions(raw / "toylog_test.tsv") == test
    command = [project / "examples" / "reproduce.py", "toylog", raw]
    done = succeeds(python(*command, "-ps", "layers=8,n_epochs=1,n_sample=16", cwd=tmp_path))
    assert re.search(r"^Recall, MRR@20 +[01]\.\d{4} +0\.4000 .* 0\.2000 ", done.out, re.M)


# --- an Op ----------------------------------------------------------------------------------------

USE = """
import sys
import numpy as np
from gru4rec_toolkit.ops import base, library
from gru4rec_toolkit.ops.norms.op import RowNorms, row_norms
from gru4rec_toolkit.theano_setup import tensor as tt, theano

assert str(library.SOURCES).startswith(sys.argv[1])
x = tt.fmatrix()
mode = theano.Mode(linker="c", optimizer=None)
norms = row_norms(x)
assert isinstance(norms.owner.op, RowNorms)
kernel = theano.function([x], norms, mode=mode)
rng = np.random.default_rng(0)
for shape in ((0, 3), (3, 0), (1, 1), (2, 7), (40, 33)):
    value = rng.standard_normal(shape).astype(np.float32)
    for array in (value, np.asfortranarray(value)):
        storage = [[None]]
        norms.owner.op.perform(norms.owner, [array], storage)
        found, expected = kernel(array), storage[0][0]
        assert found.dtype == expected.dtype == np.float32 and found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        np.testing.assert_allclose(expected, np.linalg.norm(value, axis=1), rtol=1e-6)
wide = rng.standard_normal((3, 4)).astype(np.float32)
theano.gradient.verify_grad(
    RowNorms(), [wide], rng=np.random.RandomState(0), mode=mode, abs_tol=0.05, rel_tol=0.05
)
base.usable = lambda: False
python = theano.Mode(linker="py", optimizer=None)
symbolic = theano.function([x], row_norms(x), mode=python)
assert not any(isinstance(n.op, base.KernelOp) for n in symbolic.maker.fgraph.toposort())
np.testing.assert_allclose(symbolic(wide), kernel(wide), rtol=1e-6)
print("all is well")
"""


@pytest.mark.skipif(not library.usable(), reason="the kernels need float32")
def test_an_op(tmp_path):
    """The library is compiled anew with the kernel, in a copy of the package."""
    package = tmp_path / "gru4rec_toolkit"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gru4rec_toolkit", package, ignore=ignore)
    folder = package / "ops" / "norms"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Norms of rows."""\n')
    (folder / "op.py").write_text(code_of("An Op")[0])
    kernel, declaration, host_code = code_of("An Op", "cpp")
    (folder / "cpu.cpp").write_text(kernel)
    (folder / "cpu_apply.h").write_text(host_code)
    header = package / "ops" / "shared" / "kernels.h"
    before, end = header.read_text().rsplit("#ifdef __cplusplus", 1)
    header.write_text(f"{before}{declaration}\n#ifdef __cplusplus{end}")
    flags = f"gcc.cxxflags={theano.config.gcc.cxxflags} -O0"  # the kernels need not be fast
    env = {"PYTHONPATH": str(tmp_path), "THEANO_FLAGS": flags, "XDG_CACHE_HOME": str(tmp_path)}
    done = succeeds(python("-c", USE, tmp_path, cwd=tmp_path, **env))
    assert done.lines == ["all is well"]


# --- a baseline -----------------------------------------------------------------------------------


def slow_ranks(train, test):
    """Better and equal items of each target: what was seen, then by popularity."""
    popularity = Counter(train.ItemId)
    for _, session in test.groupby("SessionId"):
        session = session.sort_values("Time", kind="stable")
        known = [item for item in session.ItemId if item in popularity]
        for i in range(1, len(known)):
            most = max(popularity.values())
            key = {item: n + most * (item in known[:i]) for item, n in popularity.items()}
            target = key.pop(known[i])
            yield sum(k > target for k in key.values()), sum(k == target for k in key.values())


@pytest.mark.filterwarnings("ignore:use evaluate_gpu")
@pytest.mark.parametrize("batch_size", [7, 1000])
def test_a_baseline(train_data, test_data, batch_size):
    model = follow("A baseline")["RepeatedOrPopular"]().fit(train_data)
    better, equal = np.array(list(slow_ranks(train_data, test_data))).T
    assert (equal > 0).any()
    for mode, ties in (("standard", 0), ("conservative", equal), ("median", equal / 2)):
        ranks = 1 + better + ties
        recall, mrr = evaluation.evaluate_sessions_batch(
            model, test_data, cut_off=[1, 5, 20], batch_size=batch_size, mode=mode
        )
        for n, r, m in zip([1, 5, 20], recall, mrr):
            assert r == pytest.approx((ranks <= n).mean())
            assert m == pytest.approx(np.where(ranks <= n, 1 / ranks, 0).mean())


# --- all of them ----------------------------------------------------------------------------------


def test_the_tables_agree():
    """Names that parameters take have functions, and the other way round."""
    assert parameters.LOSSES.keys() == losses.LOSSES.keys()
    assert {*parameters.ACTIVATIONS, *parameters.SOFTMAXES} == losses.ACTIVATIONS.keys()
    assert {None, *parameters.OPTIMIZERS} == optimizers.METHODS.keys()
    assert parameters.OPTIMIZERS.keys() == optimizers.STATES.keys()


# --- what recipes must not do ---------------------------------------------------------------------


def test_names_of_the_toolkit_are_not_registered_again():
    """Their kernels would go on computing what is built in."""
    with pytest.raises(InputError, match=r"losses.register: 'bpr-max' is a loss of the toolkit"):
        losses.register("bpr-max", lambda y: 0 * y.sum())
    with pytest.raises(InputError, match=r"optimizers.register: 'adam' is an optimizer"):
        optimizers.register("adam", lambda access, gradient: (gradient, []), (), ())


def test_a_name_that_begins_like_another(monkeypatch):
    """Only the softmaxes keep the order of the scores."""
    monkeypatch.setitem(parameters.ACTIVATIONS, "softmaxzero", ())
    monkeypatch.setitem(losses.ACTIVATIONS, "softmaxzero", lambda x: 0 * x)
    assert parameters.ranking_activation("softmaxzero") == "softmaxzero"
    assert parameters.ranking_activation("softmax_logit") == "linear"


class ScaledNetwork(Network):
    """A network with a part of its own."""

    @staticmethod
    def scores(h, rows, biases):
        return 0 * Network.scores(h, rows, biases)


class Scaled(GRU4Rec):
    network_class = ScaledNetwork


def test_a_variant_of_the_network(train_data, test_data, tmp_path):
    model = Scaled(layers=[4], n_epochs=1, batch_size=8, n_sample=8)
    model.fit(train_data)
    model.savemodel(str(tmp_path / "model"))
    for variant in (model, Scaled.loadmodel(str(tmp_path / "model"))):
        assert type(variant.network) is ScaledNetwork
        recall, _ = evaluation.evaluate_gpu(variant, test_data, cut_off=[1])
        pessimist, _ = evaluation.evaluate_gpu(variant, test_data, cut_off=[1], mode="conservative")
        assert (recall, pessimist) == ([1], [0])  # all scores are equal
