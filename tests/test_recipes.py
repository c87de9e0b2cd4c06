"""The recipes of CONTRIBUTING.md, followed with toys."""

from __future__ import annotations

import numpy as np
import pytest

import evaluation
from gru4rec import GRU4Rec
from gru4rec_toolkit import parameters
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model import losses, optimizers, training
from gru4rec_toolkit.ops.losses.op import Loss
from gru4rec_toolkit.ops.updates.op import Update
from gru4rec_toolkit.theano_setup import tensor as tt

TABLES = [
    parameters.LOSSES, parameters.OPTIMIZERS, parameters.ACTIVATIONS,
    losses.LOSSES, losses.ACTIVATIONS, optimizers.METHODS, optimizers.STATES,
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

    def spy(self):
        step = compile_step(self)
        compiled.append([node.op for node in step.maker.fgraph.toposort()])
        return step

    monkeypatch.setattr(training.Training, "compile", spy)
    return compiled


def hinge(y):
    """sum_ij max(0, 1 + y_ij - y_ii) over the negatives, less M for the targets themselves."""
    return tt.maximum(0, 1 + y - losses.diagonal(y).dimshuffle(0, "x")).sum() - y.shape[0]


def test_a_loss_from_outside_trains(train_data, test_data, ops):
    with pytest.raises(InputError, match="loss: expected one of .*, got 'hinge'"):
        GRU4Rec(loss="hinge")
    losses.register("hinge", hinge)
    gru = GRU4Rec(loss="hinge", learning_rate=0.05, n_epochs=3, **SETTINGS)
    gru.fit(train_data)
    (step,) = ops
    assert not any(isinstance(op, Loss) for op in step)
    recall, _ = evaluation.evaluate_gpu(gru, test_data, cut_off=[5])
    assert recall[0] > 3 * 5 / 60  # chance is 5 of 60 items


def test_a_loss_from_outside_is_what_its_expression_says():
    losses.register("hinge", hinge)
    y = np.array([[1.0, 0.5, -2.0], [0.3, 0.2, 0.9]], dtype=np.float32)
    expected = (0.5 + 0) + (1.1 + 1.7)
    cost = losses.LOSSES["hinge"](tt.as_tensor_variable(y), 0.0, 0.0).eval()
    assert cost == pytest.approx(expected, rel=1e-6)


def sign(access, gradient):
    """The gradient's sign: signSGD (Bernstein et al., ICML 2018)."""
    return tt.sgn(gradient), []


def test_an_optimizer_from_outside_trains(train_data, test_data, ops):
    optimizers.register("sign", sign, states=(), rates=())
    gru = GRU4Rec(
        loss="cross-entropy", final_act="softmax", adapt="sign", learning_rate=0.01, n_epochs=3,
        **SETTINGS,
    )  # fmt: skip
    gru.fit(train_data)
    (step,) = ops
    assert not any(isinstance(op, Update) for op in step)
    assert any(isinstance(op, Loss) for op in step)
    recall, _ = evaluation.evaluate_gpu(gru, test_data, cut_off=[5])
    assert recall[0] > 3 * 5 / 60


def test_an_activation_from_outside_trains(train_data, test_data, ops):
    parameters.ACTIVATIONS["softsign"] = ()
    losses.ACTIVATIONS["softsign"] = lambda x: x / (1 + abs(x))
    gru = GRU4Rec(
        loss="bpr-max", final_act="softsign", hidden_act="softsign", bpreg=0, n_epochs=5, **SETTINGS
    )
    gru.fit(train_data)
    recall, _ = evaluation.evaluate_gpu(gru, test_data, cut_off=[5], mode="conservative")
    assert recall[0] > 2 * 5 / 60


def test_the_tables_agree():
    """Names that parameters take have functions, and the other way round."""
    assert parameters.LOSSES.keys() == losses.LOSSES.keys()
    assert {*parameters.ACTIVATIONS, *parameters.SOFTMAXES} == losses.ACTIVATIONS.keys()
    assert {None, *parameters.OPTIMIZERS} == optimizers.METHODS.keys()
    assert parameters.OPTIMIZERS.keys() == optimizers.STATES.keys()
