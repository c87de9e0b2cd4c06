"""GRU4Rec's parameters: what they take, and the strings and files they come from."""

from __future__ import annotations

import builtins
import inspect
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec import GRU4Rec
from gru4rec_toolkit import parameters
from gru4rec_toolkit.data import sessions
from gru4rec_toolkit.errors import InputError

ROOT = Path(__file__).resolve().parent.parent

INTEGERS = {"n_epochs": 1, "batch_size": 1, "n_sample": 0, "embedding": 0}  # and their minimum
SHARES = ("dropout_p_embed", "dropout_p_hidden", "momentum", "smoothing")  # 0 <= x < 1
NON_NEGATIVE = ("lmbd", "sample_alpha", "bpreg", "logq", "grad_cap", "sigma")
NUMBERS = (*SHARES, *NON_NEGATIVE, "learning_rate")
BOOLEANS = ("constrained_embedding", "init_as_normal", "train_random_order", "time_sort")
COLUMNS = ("session_key", "item_key", "time_key")


def convert_one(name, value):
    return parameters.convert({name: value})[name]


def refusal(name, value):
    """What is said about a value that the parameter does not take."""
    with pytest.raises(InputError) as caught:
        parameters.convert({name: value})
    message = str(caught.value)
    assert re.search(rf"\b{name}\b", message)
    assert "\n" not in message
    return message


def same(left, right):
    """Equal and of the same type: 1, 1.0 and True are three values here."""
    return left == right and type(left) is type(right)


# --- defaults -------------------------------------------------------------------------------------


def test_defaults():
    expected = {
        "loss": "bpr-max",
        "final_act": "linear",
        "hidden_act": "tanh",
        "layers": [100],
        "n_epochs": 10,
        "batch_size": 32,
        "dropout_p_embed": 0.0,
        "dropout_p_hidden": 0.0,
        "learning_rate": 0.1,
        "momentum": 0.0,
        "lmbd": 0.0,
        "embedding": 0,
        "constrained_embedding": False,
        "n_sample": 2048,
        "sample_alpha": 0.75,
        "bpreg": 1.0,
        "logq": 0.0,
        "smoothing": 0.0,
        "adapt": "adagrad",
        "adapt_params": [],
        "grad_cap": 0.0,
        "sigma": 0.0,
        "init_as_normal": False,
        "train_random_order": False,
        "time_sort": True,
        "session_key": "SessionId",
        "item_key": "ItemId",
        "time_key": "Time",
    }
    found = parameters.defaults()
    assert [name for name in expected if not same(found[name], expected[name])] == []


def test_defaults_are_a_fresh_copy():
    parameters.defaults()["layers"].append(7)
    assert parameters.defaults()["layers"] == [100]


def test_defaults_pass_their_own_checks():
    defaults = parameters.defaults()
    converted = parameters.convert(defaults)
    assert converted == defaults
    parameters.check_combination(converted)


# --- conversion: values that are taken ------------------------------------------------------------


@pytest.mark.parametrize("name", INTEGERS)
@settings(deadline=None)
@given(offset=st.integers(0, 10**9))
def test_integers(name, offset):
    number = INTEGERS[name] + offset
    for value in (number, str(number), float(number), np.int64(number), np.uint32(number)):
        assert same(convert_one(name, value), number)


@pytest.mark.parametrize("name", SHARES)
@settings(deadline=None)
@given(number=st.floats(0, 1, exclude_max=True))
def test_shares(name, number):
    for value in (number, repr(number), np.float64(number)):
        assert same(convert_one(name, value), number)


@pytest.mark.parametrize("name", NON_NEGATIVE)
@settings(deadline=None)
@given(number=st.floats(0, allow_infinity=False))
def test_non_negative_numbers(name, number):
    for value in (number, repr(number), np.float64(number)):
        assert same(convert_one(name, value), number)


@settings(deadline=None)
@given(number=st.floats(0, exclude_min=True, allow_infinity=False))
def test_learning_rate(number):
    for value in (number, repr(number), np.float64(number)):
        assert same(convert_one("learning_rate", value), number)


@settings(deadline=None)
@given(number=st.floats(0, 0.875, width=32))
def test_float32_values(number):
    assert same(convert_one("momentum", np.float32(number)), number)


def test_integers_where_numbers_are_expected():
    assert same(convert_one("bpreg", 2), 2.0)
    assert same(convert_one("bpreg", "2"), 2.0)
    assert same(convert_one("bpreg", np.int32(2)), 2.0)
    assert same(convert_one("dropout_p_embed", "0"), 0.0)


@pytest.mark.parametrize("name", BOOLEANS)
def test_booleans(name):
    for value in (True, "True", "1", 1, np.bool_(True), np.int64(1)):
        assert convert_one(name, value) is True
    for value in (False, "False", "0", 0, np.bool_(False), np.int64(0)):
        assert convert_one(name, value) is False


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=5))
def test_layers(sizes):
    for value in ("/".join(map(str, sizes)), sizes, tuple(sizes), np.array(sizes)):
        converted = convert_one("layers", value)
        assert same(converted, sizes)
        assert all(type(size) is int for size in converted)


def test_layers_of_one_number():
    assert same(convert_one("layers", 64), [64])
    assert same(convert_one("layers", np.int32(64)), [64])


def test_layers_do_not_share_the_callers_list():
    sizes = [10]
    convert_one("layers", sizes).append(20)
    assert sizes == [10]


@settings(deadline=None)
@given(rates=st.lists(st.floats(0, 1, exclude_max=True), max_size=3))
def test_adapt_params(rates):
    assert same(convert_one("adapt_params", rates), rates)
    # a list of one empty string and an empty list look the same in a parameter string
    assert same(convert_one("adapt_params", "/".join(map(repr, rates))), rates)


def test_no_adapt_params_as_a_string():
    assert convert_one("adapt_params", "[]") == []
    assert convert_one("adapt_params", "") == []


@pytest.mark.parametrize(
    "loss", ["cross-entropy", "xe_logit", "bpr-max", "bpr", "top1", "top1-max"]
)
def test_losses(loss):
    assert convert_one("loss", loss) == loss


@pytest.mark.parametrize("name", ["final_act", "hidden_act"])
@pytest.mark.parametrize(
    "activation",
    ["linear", "relu", "tanh", "leaky-0.1", "elu-0.5", "elu-1", "selu-1.05-1.67", "elu-1e-3"],
)
def test_activations(name, activation):
    assert convert_one(name, activation) == activation


@pytest.mark.parametrize("activation", ["leaky", "elu", "selu"])
def test_hidden_activations_without_numbers(activation):
    assert convert_one("hidden_act", activation) == activation


@pytest.mark.parametrize("activation", ["softmax", "softmax_logit"])
def test_softmax_is_a_final_activation_only(activation):
    assert convert_one("final_act", activation) == activation
    refusal("hidden_act", activation)


@settings(deadline=None)
@given(scale=st.floats(0, 100).filter(lambda x: x == 0 or x > 1e-30), alpha=st.integers(0, 99))
def test_split_activation(scale, alpha):
    assert parameters.split_activation(f"elu-{scale!r}") == ("elu", (scale,))
    assert parameters.split_activation(f"selu-{scale!r}-{alpha}") == ("selu", (scale, alpha))


@pytest.mark.parametrize("adapt", ["adagrad", "rmsprop", "adadelta", "adam"])
def test_optimizers(adapt):
    assert convert_one("adapt", adapt) == adapt


def test_no_optimizer():
    assert convert_one("adapt", "None") is None
    assert convert_one("adapt", None) is None


def test_embedding_of_the_layers_size():
    assert convert_one("embedding", "layersize") == "layersize"


@pytest.mark.parametrize("name", COLUMNS)
@settings(deadline=None)
@given(column=st.text(min_size=1))
def test_column_names(name, column):
    assert convert_one(name, column) == column


def test_conversion_keeps_the_order():
    names = ["time_sort", "layers", "loss"]
    settings = dict(zip(names, [True, [1], "bpr"]))
    assert list(parameters.convert(settings)) == names


# --- conversion: values that are refused ----------------------------------------------------------


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", ["", "x", "1.5", 1.5, math.nan, math.inf, None, [], True, -1])
def test_wrong_integers(name, value):
    assert str(INTEGERS[name]) in refusal(name, value)


@pytest.mark.parametrize("name", ["n_epochs", "batch_size"])
def test_counts_start_at_one(name):
    refusal(name, 0)
    refusal(name, "0")


@pytest.mark.parametrize("name", [*NUMBERS, "n_epochs", "layers"])
def test_a_truth_value_is_no_number(name):
    refusal(name, True)


@pytest.mark.parametrize("name", ["n_epochs", "learning_rate", "layers"])
def test_a_numpy_truth_value_is_no_number(name):
    refusal(name, np.bool_(True))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["", "x", "0.1.2", "nan", "inf", math.nan, math.inf, None, []])
def test_wrong_numbers(name, value):
    assert "number" in refusal(name, value)


@pytest.mark.parametrize("name", NUMBERS)
@settings(deadline=None)
@given(number=st.floats(max_value=0, exclude_max=True))
def test_negative_numbers(name, number):
    refusal(name, number)
    refusal(name, repr(number))


@pytest.mark.parametrize("name", SHARES)
@settings(deadline=None)
@given(number=st.floats(1))
def test_shares_are_less_than_one(name, number):
    assert "less than 1" in refusal(name, number)


def test_learning_rate_is_not_zero():
    assert "greater than 0" in refusal("learning_rate", 0)


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.parametrize("value", ["", "yes", "true", 2, "2", None, [], [True]])
def test_wrong_booleans(name, value):
    message = refusal(name, value)
    assert "True" in message and "False" in message


@pytest.mark.parametrize(
    "value", ["", "[]", [], "x", "100/", "/100", "100//100", "1.5", 0, [100, 0], -1, None, [[1]]]
)
def test_wrong_layers(value):
    assert "layers=200/" in refusal("layers", value)  # shows how it is written


@pytest.mark.parametrize("value", ["x", "1", "0.9/", [0.9, 1.0], [-0.1], None])
def test_wrong_adapt_params(value):
    refusal("adapt_params", value)


@pytest.mark.parametrize("value", ["", "softmax", "BPR", "cross_entropy", 1, None, []])
def test_wrong_losses(value):
    message = refusal("loss", value)
    for loss in ("cross-entropy", "xe_logit", "bpr-max", "bpr", "top1", "top1-max"):
        assert loss in message


@pytest.mark.parametrize("name", ["final_act", "hidden_act"])
@pytest.mark.parametrize(
    "value",
    ["", "elu-", "elu-x", "elu-1-2", "elu--1", "selu-1", "selu-1-2-3", "linear-1", "relu-1"]
    + ["sigmoid", "elu 1", "leaky-1-", "elu-inf", "elu-nan", 1, None, []],
)
def test_wrong_activations(name, value):
    message = refusal(name, value)
    for activation in ("linear", "relu", "tanh", "leaky-<X>", "elu-<X>", "selu-<X>-<Y>"):
        assert activation in message


def test_activation_numbers_are_finite():
    refusal("final_act", "elu-1e999")


@pytest.mark.parametrize("value", ["", "sgd", "Adam", "none", 0, False, []])
def test_wrong_optimizers(value):
    message = refusal("adapt", value)
    for adapt in ("adagrad", "rmsprop", "adadelta", "adam", "None"):
        assert adapt in message


@pytest.mark.parametrize("value", ["layer", "LAYERSIZE", "x", -3])
def test_wrong_embeddings(value):
    assert "layersize" in refusal("embedding", value)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("value", ["", None, 1, ["a"]])
def test_wrong_column_names(name, value):
    refusal(name, value)


@pytest.mark.parametrize("value", [-1, 1.5, "x", 2**32])
def test_wrong_seeds(value):
    # numpy's generator, which draws the initial weights, takes 32 bits
    refusal("seed", value)


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_seeds(seed):
    assert same(convert_one("seed", seed), seed)
    np.random.RandomState(convert_one("seed", seed))


@pytest.mark.parametrize("name", ["", "layer", "Layers", "layers ", "elu_param"])
def test_unknown_parameters(name):
    with pytest.raises(InputError) as caught:
        parameters.convert({name: 1})
    assert repr(name) in str(caught.value)
    assert "layers" in str(caught.value) and "n_sample" in str(caught.value)


def test_wrong_values_are_shown():
    assert "'fast'" in refusal("learning_rate", "fast")


def test_wrong_values_are_shown_in_one_line():
    assert "\n" not in refusal("layers", "1\n2")
    table = pd.DataFrame({"a": range(99)})
    assert len(refusal("batch_size", table).splitlines()) == 1


@pytest.mark.parametrize("name, meant", [("n_epoch", "n_epochs"), ("Layers", "layers")])
def test_misspelt_parameters(name, meant):
    with pytest.raises(InputError, match=f"'{name}', did you mean {meant}?"):
        parameters.convert({name: 1})


# --- arguments ------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(parameters.ARGUMENTS)),
    value=st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.lists(st.one_of(st.none(), st.integers(), st.text(), st.floats())),
        st.dictionaries(st.integers(), st.integers()),
    ),
)
def test_arguments_are_converted_or_refused(name, value):
    """Nothing but an InputError, and what comes out is taken again as it is."""
    try:
        (converted,) = parameters.check_arguments(**{name: value})
    except InputError as err:
        assert str(err).startswith(f"{name}: expected ")
        return
    assert parameters.check_arguments(**{name: converted}) == [converted]


def test_messages_are_one_line_of_bounded_length():
    """Whatever they repeat; what was expected and what to do stand at the end."""

    class Odd:
        def __repr__(self):
            raise RuntimeError

    for value in (np.ones((9, 9)), "x" * 9999, ["a\nb"] * 999, Odd()):
        for refused in (
            lambda value=value: parameters.convert({"layers": {"a": value}}),
            lambda value=value: parameters.parse_string(f"{value!r:}" * 9),
            lambda value=value: sessions.slot_ids([[value]], "session_ids"),
        ):
            try:
                refused()
            except InputError as err:
                assert len(str(err)) < 700, str(err)
                assert str(err).isprintable()
            except RuntimeError:
                assert isinstance(value, Odd)  # its text is the test's own doing
            else:
                pytest.fail("taken")
    long = str(InputError(f"{'/a' * 9999}\n: expected that; do this"))
    assert len(long) < 1600
    assert long.startswith("/a/a")
    assert long.endswith("\\n: expected that; do this")


def test_arguments_keep_their_order():
    seen = parameters.check_arguments(mode="median", cut_off=(5, "20"), batch_size="7")
    assert seen == ["median", [5, 20], 7]


# what a refusal of each argument says, and one value that it is given for
TAKEN = {
    "sample_store": ("a number of ids, 0 or more", -1),
    "store_type": ("'gpu' or 'cpu'", "disk"),
    "retrain": ("True or False", "maybe"),
    "checkpoint": ("the path of a directory, or None", 3),
    "checkpoint_minutes": ("a number of minutes, 0 or more, or None", -1),
    "resume": ("True or False", "maybe"),
    "patience": ("a number of epochs, 1 or more, or None", 0),
    "keep_optimizer": ("True or False", "maybe"),
    "callbacks": ("a list of functions of an Epoch", [print, None]),
    "metric": ("'recall' or 'mrr'", "ndcg"),
    "after_epoch": ("a function of an epoch's number, or None", 3),
    "negative_sampler": ("a function of a number of mini-batches, or None", "random"),
    "batch": ("an integer of 1 or more", 0),
    "batch_size": ("an integer of 1 or more", 0),
    "k": ("an integer of 1 or more", 0),
    "exclude_seen": ("True or False", "maybe"),
    "cut_off": ("one or more list lengths of 1 or more", [0]),
    "mode": ("one of standard, conservative, median, tiebreaking", "best"),
    "force": ("True or False", "maybe"),
    "extra": ("some of ndcg, hitrate, coverage, popularity", "mrr"),
    "n": ("a number of resamples, 1 or more", 0),
    "level": ("a number between 0 and 1", 95),
    "seed": ("an integer from 0 to 4294967295", -1),
    "by": ("one of length, position, popularity", "item"),
    "groups": ("an integer of 1 or more", 0),
}


@pytest.mark.parametrize("name", parameters.ARGUMENTS)
def test_what_arguments_take_is_said(name):
    words, value = TAKEN[name]
    with pytest.raises(InputError) as caught:
        parameters.check_arguments(**{name: value})
    assert str(caught.value) == f"{name}: expected {words}, got {value!r}"


def test_smallest_arguments():
    smallest = {"sample_store": 0, "batch": 1, "batch_size": 1, "cut_off": [1]}
    assert parameters.check_arguments(**smallest) == [*smallest.values()]


def test_defaults_of_arguments():
    for name, argument in parameters.ARGUMENTS.items():
        assert parameters.check_arguments(**{name: argument.default}) == [argument.default]


# --- a model's parameters -------------------------------------------------------------------------


class Model(parameters.HasParameters):
    """A model that has nothing but parameters."""


SETTINGS = [
    *[{"layers": v} for v in ([24], "8/4", (5,), [], "x")],
    *[{"batch_size": v} for v in (16, "1", 0, None)],
    *[{"n_sample": v} for v in (0, 8, -1)],
    *[{"loss": "cross-entropy", "final_act": "softmax"}, {"loss": "bpr"}, {"final_act": "relu"}],
    *[{"adapt": "adam", "adapt_params": "0.9/0.99"}, {"adapt_params": [0.5]}, {"adapt": None}],
    {"seed": 1},
]


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(SETTINGS), st.sampled_from(["attributes", "set_params", "new"]))
    )
)
def test_all_ways_of_setting_are_one(steps):
    """A dictionary, converted step by step, says what every way leaves behind."""
    model, expected = Model(), parameters.defaults()
    for values, way in steps:
        merged = dict(expected)
        try:
            merged.update(parameters.convert(values))
            if way != "attributes":
                parameters.check_combination(merged)
            refused = False
        except InputError:
            merged, refused = dict(expected), True
        try:
            if way == "new":
                model = Model(**{**model.get_params(), **values})
            elif way == "set_params":
                model.set_params(**values)
            else:
                for name, value in values.items():
                    setattr(model, name, value)
            assert not refused
        except InputError:
            assert refused
        expected = merged
        assert model.get_params() == expected
        assert {name: getattr(model, name) for name in expected} == expected


def test_repr_says_what_differs_from_the_class():
    class Variant(Model):
        loss = "top1"

    assert repr(Model()) == "Model()" and repr(Variant()) == "Variant()"
    model = Variant(layers=[24], batch_size=16, loss="bpr")
    assert repr(model) == "Variant(loss='bpr', layers=[24], batch_size=16)"


def test_what_is_set_is_printed(capsys):
    assert Model().set_params() is not None
    assert capsys.readouterr().out == ""
    Model().set_params(layers="8/4", n_epochs="12")
    assert capsys.readouterr().out == (
        "SET   layers     TO   [8, 4]   (type: <class 'list'>)\n"
        "SET   n_epochs   TO   12       (type: <class 'int'>)\n"
    )


def test_values_are_immutable():
    values = Model(layers=[5]).settings
    with pytest.raises(AttributeError):
        values.layers = [6]
    assert values.layers == (5,)
    assert values.changed({"layers": [6]}).as_dict()["layers"] == [6]
    assert values.layers == (5,)


def test_architecture():
    shapes = [
        dict(),
        dict(layers=[5]),
        dict(layers=[5, 5]),
        dict(layers=[5], constrained_embedding=True),
        dict(layers=[5], embedding=4),
    ]
    seen = [Model(**values).settings.architecture for values in shapes]
    assert len(set(seen)) == len(seen)
    as_size = Model(layers=[5], embedding="layersize").settings.architecture
    assert as_size == Model(layers=[5], embedding=5, loss="bpr").settings.architecture


# --- combinations ---------------------------------------------------------------------------------


def combine(**settings):
    parameters.check_combination({**parameters.defaults(), **parameters.convert(settings)})


def contradiction(*names, **settings):
    with pytest.raises(InputError) as caught:
        combine(**settings)
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize("activation", ["linear", "tanh", "elu-1", "softmax_logit"])
def test_cross_entropy_needs_softmax(activation):
    combine(loss="cross-entropy", final_act="softmax")
    contradiction(
        "loss=cross-entropy", "final_act=softmax", loss="cross-entropy", final_act=activation
    )


@pytest.mark.parametrize("activation", ["linear", "tanh", "elu-1", "softmax"])
def test_xe_logit_needs_softmax_logit(activation):
    combine(loss="xe_logit", final_act="softmax_logit")
    contradiction("loss=xe_logit", "final_act=softmax_logit", loss="xe_logit", final_act=activation)


@pytest.mark.parametrize("loss", ["bpr-max", "bpr", "top1", "top1-max"])
def test_pairwise_losses_take_no_softmax(loss):
    for activation in ("linear", "relu", "tanh", "leaky-0.1", "elu-0.5", "selu-1-1"):
        combine(loss=loss, final_act=activation)
    for activation in ("softmax", "softmax_logit"):
        contradiction("loss", "final_act", loss=loss, final_act=activation)


def test_smoothing_is_for_cross_entropy():
    combine(loss="cross-entropy", final_act="softmax", smoothing=0.1)
    contradiction("smoothing", "loss", smoothing=0.1)


@pytest.mark.parametrize("embedding", [1, "layersize"])
def test_one_kind_of_embedding(embedding):
    combine(embedding=embedding)
    combine(constrained_embedding=True)
    contradiction(
        "embedding", "constrained_embedding", embedding=embedding, constrained_embedding=True
    )


def test_a_target_needs_something_to_be_compared_with():
    combine(n_sample=0, batch_size=2)
    combine(n_sample=1, batch_size=1)
    contradiction("n_sample", "batch_size", n_sample=0, batch_size=1)


@pytest.mark.parametrize(
    ("adapt", "n_rates"), [("adagrad", 0), ("rmsprop", 1), ("adadelta", 1), ("adam", 2), (None, 0)]
)
def test_number_of_adapt_params(adapt, n_rates):
    combine(adapt=adapt)
    combine(adapt=adapt, adapt_params=[0.9] * n_rates)
    contradiction("adapt_params", "adapt", adapt=adapt, adapt_params=[0.9] * (n_rates + 1))


# --- parameter strings ----------------------------------------------------------------------------


def test_parse_string():
    text = "layers=200/100,loss=cross-entropy,constrained_embedding=True,adapt_params="
    assert parameters.parse_string(text) == {
        "layers": "200/100",
        "loss": "cross-entropy",
        "constrained_embedding": "True",
        "adapt_params": "",
    }


def test_parse_string_ignores_blanks_around_names_and_values():
    assert parameters.parse_string(" a = 1 , b= x y ") == {"a": "1", "b": "x y"}


def test_parse_string_takes_equals_signs_in_values():
    assert parameters.parse_string("session_key=a=b") == {"session_key": "a=b"}


names = st.text("abcdefghij_", min_size=1)
plain_values = st.text("abc0123456789./-_=").map(str.strip)


@settings(deadline=None)
@given(pairs=st.dictionaries(names, plain_values, min_size=1))
def test_parse_string_gives_back_what_was_joined(pairs):
    text = ",".join(f"{name}={value}" for name, value in pairs.items())
    assert parameters.parse_string(text) == pairs


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("layers", "'layers'"),
        ("=3", "'=3'"),
        ("a=1,,b=2", "''"),
        ("a=1,", "''"),
        ("", "''"),
        ("a=1,b", "'b'"),
        ("a=1;b=2, c", "'c'"),
    ],
)
def test_malformed_strings(text, culprit):
    with pytest.raises(InputError) as caught:
        parameters.parse_string(text)
    assert culprit in str(caught.value)
    assert "name=value" in str(caught.value)


def test_a_name_given_twice():
    with pytest.raises(InputError, match="layers is given twice"):
        parameters.parse_string("layers=1,loss=bpr,layers=2")


# --- parameter files ------------------------------------------------------------------------------

# loss, final_act, layers, batch_size, dropout_p_embed, dropout_p_hidden, learning_rate, momentum,
# sample_alpha, bpreg, logq
BEST = {
    "rsc15_xe_shared_100_best.py": (
        "cross-entropy", "softmax", [100], 32, 0.1, 0.0, 0.1, 0.0, 0.75, 0.0, 1.0
    ),
    "yoochoose_xe_shared_best.py": (
        "cross-entropy", "softmax", [480], 48, 0.0, 0.2, 0.07, 0.0, 0.2, 0.0, 1.0
    ),
    "rees46_xe_shared_best.py": (
        "cross-entropy", "softmax", [512], 240, 0.45, 0.0, 0.065, 0.0, 0.5, 0.0, 1.0
    ),
    "coveo_bprmax_shared_best.py": (
        "bpr-max", "elu-1", [512], 144, 0.35, 0.0, 0.05, 0.4, 0.2, 1.85, 0.0
    ),
    "retailrocket_bprmax_shared_best.py": (
        "bpr-max", "elu-0.5", [224], 80, 0.5, 0.05, 0.05, 0.4, 0.4, 1.95, 0.0
    ),
    "diginetica_bprmax_shared_best.py": (
        "bpr-max", "elu-1", [512], 128, 0.5, 0.3, 0.05, 0.15, 0.3, 0.9, 0.0
    ),
}  # fmt: skip


def test_there_is_a_file_for_every_public_data_set():
    assert {path.name for path in (ROOT / "paramfiles").glob("*.py")} == set(BEST)


@pytest.mark.parametrize("file_name", BEST)
def test_best_parameters(file_name):
    found = parameters.convert(parameters.read_file(str(ROOT / "paramfiles" / file_name)))
    columns = "loss final_act layers batch_size dropout_p_embed dropout_p_hidden learning_rate "
    columns += "momentum sample_alpha bpreg logq"
    expected = {
        "constrained_embedding": True,
        "embedding": 0,
        "n_sample": 2048,
        "n_epochs": 10,
        **dict(zip(columns.split(), BEST[file_name])),
    }
    assert found == expected
    parameters.check_combination({**parameters.defaults(), **found})


def read_text(tmp_path, text):
    path = tmp_path / "params.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return parameters.read_file(str(path))


SOURCES = {
    "pairs": "OrderedDict([('loss', 'bpr'), ('layers', [10, 20]), ('time_sort', False)])",
    "tuples": "OrderedDict((('loss', 'bpr'), ('layers', [10, 20]), ('time_sort', False)))",
    "wrapped": "OrderedDict({'loss': 'bpr', 'layers': [10, 20], 'time_sort': False})",
    "literal": "{'loss': 'bpr', 'layers': [10, 20], 'time_sort': False}",
    "keywords": "OrderedDict(loss='bpr', layers=[10, 20], time_sort=False)",
    "commented": "{\n  'loss': 'bpr',  # or top1\n  'layers': [10, 20],\n  'time_sort': False,\n}",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize(
    "head",
    [
        "",
        "from collections import OrderedDict\n\n",
        '"""Found by a search."""\n# a comment\nfrom collections import OrderedDict\n',
        "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n# Große Schichten\n",
    ],
    ids=["bare", "import", "docstring", "comments"],
)
def test_styles_of_parameter_files(tmp_path, head, source):
    found = read_text(tmp_path, f"{head}gru4rec_params = {source}\n")
    assert list(found.items()) == [("loss", "bpr"), ("layers", [10, 20]), ("time_sort", False)]


def test_values_of_parameter_files(tmp_path):
    text = "gru4rec_params = {'a': -1, 'b': 1e-3, 'c': None, 'd': '200/100', 'e': ()}"
    expected = {"a": -1, "b": 1e-3, "c": None, "d": "200/100", "e": ()}
    assert read_text(tmp_path, text) == expected


def test_windows_line_ends(tmp_path):
    assert read_text(tmp_path, b"gru4rec_params = {\r\n'layers': [1],\r\n}\r\n") == {"layers": [1]}


def test_byte_order_mark(tmp_path):
    # some editors put one before the text, and Python takes it
    assert read_text(tmp_path, "\ufeffgru4rec_params = {'layers': [1]}\n") == {"layers": [1]}


HOSTILE = {
    "statement": "open({path!r}, 'w')\ngru4rec_params = {{}}",
    "statement after": "gru4rec_params = {{}}\nopen({path!r}, 'w')",
    "same line": "gru4rec_params = {{}}; open({path!r}, 'w')",
    "import": "import os\ngru4rec_params = {{}}",
    "import more": "from collections import OrderedDict, abc\ngru4rec_params = {{}}",
    "import as": "from os import system as OrderedDict\ngru4rec_params = OrderedDict('true')",
    "value call": "gru4rec_params = {{'layers': open({path!r}, 'w')}}",
    "key call": "gru4rec_params = {{open({path!r}, 'w'): 1}}",
    "pair call": "gru4rec_params = OrderedDict([('layers', open({path!r}, 'w'))])",
    "argument call": "gru4rec_params = OrderedDict(open({path!r}, 'w'))",
    "other call": "gru4rec_params = open({path!r}, 'w')",
    "call of another name": "gru4rec_params = defaultdict([('layers', [1])])",
    "attribute call": "gru4rec_params = OrderedDict.fromkeys([open({path!r}, 'w')])",
    "keyword call": "gru4rec_params = OrderedDict(layers=open({path!r}, 'w'))",
    "lambda": "gru4rec_params = {{'layers': (lambda: open({path!r}, 'w'))()}}",
    "f-string": "gru4rec_params = {{'layers': f'{{open({path!r}, chr(119))}}'}}",
    "comprehension": "gru4rec_params = {{k: open({path!r}, 'w') for k in ['layers']}}",
    "list comprehension": "gru4rec_params = {{'layers': [open({path!r}, 'w') for _ in [1]]}}",
    "generator": "gru4rec_params = OrderedDict(('layers', open({path!r}, 'w')) for _ in [1])",
    "attribute": "gru4rec_params = {{'layers': ().__class__.__base__}}",
    "index": "gru4rec_params = {{'layers': [1][0]}}",
    "name": "gru4rec_params = {{'layers': __file__}}",
    "unpacking": "gru4rec_params = {{**{{'layers': [1]}}}}",
    "keyword unpacking": "gru4rec_params = OrderedDict(**{{'layers': [1]}})",
    "star": "gru4rec_params = OrderedDict([*[('layers', [1])]])",
    "walrus": "gru4rec_params = (x := {{'layers': [1]}})",
    "condition": "if True:\n    gru4rec_params = {{}}",
    "function": "def f():\n    pass\ngru4rec_params = {{}}",
    "class": "class gru4rec_params:\n    layers = [1]",
    "twice": "gru4rec_params = {{}}\ngru4rec_params = {{}}",
    "second name": "gru4rec_params = other = {{}}",
    "attribute target": "a.gru4rec_params = {{}}",
    "update": "gru4rec_params = {{}}\ngru4rec_params['layers'] = 1",
    "arithmetic": "gru4rec_params = {{'layers': 2 ** 100}}",
    "three in a pair": "gru4rec_params = OrderedDict([('layers', 1, 2)])",
    "no pairs": "gru4rec_params = OrderedDict(['ab'])",
    "a string": "gru4rec_params = 'layers=1'",
    "a number": "gru4rec_params = 1",
    "list as a name": "gru4rec_params = {{[1]: 2}}",
    "dictionary as a name": "gru4rec_params = OrderedDict([({{}}, 2)])",
    "no parameters": "params = {{'layers': [1]}}",
    "nothing": "",
    "no Python": "layers: 100\nloss = = bpr",
    "open bracket": "gru4rec_params = {{'layers': [1]",
    "zero byte": "gru4rec_params = {{}}\0",
    "name given twice": "gru4rec_params = {{'layers': [1], 'layers': [2]}}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_other_code_is_refused_and_not_executed(tmp_path, source):
    trace = tmp_path / "executed"
    with pytest.raises(InputError) as caught:
        read_text(tmp_path, source.format(path=str(trace)))
    assert str(tmp_path / "params.py") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


NESTED = {
    "lists": "[" * 5000 + "]" * 5000,
    "some lists": "[" * 150 + "]" * 150,
    "signs": "-" * 50000 + "1",
    "some signs": "-" * 900 + "1",
    "attributes": "a" + ".a" * 50000,
    "sum": "1" + " + 1j" * 50000,
    "calls": "f(" * 5000 + ")" * 5000,
}


@pytest.mark.parametrize("value", NESTED.values(), ids=NESTED)
def test_deep_nesting(tmp_path, value):
    # 150 lists in each other are literals still: reading them may succeed, converting them may not
    with pytest.raises(InputError):
        parameters.convert(read_text(tmp_path, f"gru4rec_params = {{'layers': {value}}}"))


def test_line_of_the_code_that_does_not_belong(tmp_path):
    with pytest.raises(InputError, match="line 3: "):
        read_text(tmp_path, "gru4rec_params = {}\n\nprint()\n")


def test_line_of_a_syntax_error(tmp_path):
    with pytest.raises(InputError, match="line 2: "):
        read_text(tmp_path, "# parameters\ngru4rec_params = = {}\n")


def test_parameter_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "missing.py", tmp_path):
        with pytest.raises(InputError, match=re.escape(str(path))):
            parameters.read_file(str(path))


@settings(deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path_factory, data):
    with pytest.raises(InputError):
        read_text(tmp_path_factory.getbasetemp(), data)


# --- search spaces --------------------------------------------------------------------------------

COMMON_SPACE = {
    "layers": ("int", [64, 512], 32),
    "batch_size": ("int", [32, 256], 16),
    "learning_rate": ("float", [0.01, 0.25], 0.005),
    "dropout_p_embed": ("float", [0, 0.5], 0.05),
    "dropout_p_hidden": ("float", [0, 0.7], 0.05),
    "momentum": ("float", [0, 0.9], 0.05),
    "sample_alpha": ("float", [0, 1], 0.1),
}
SPACES = {
    "gru4rec_xe_standard_parspace.json": COMMON_SPACE,
    "gru4rec_bprmax_standard_parspace.json": {
        **COMMON_SPACE,
        "bpreg": ("float", [0, 2], 0.05),
        "final_act": ("categorical", ["elu-0.5", "elu-1", "linear"], None),
    },
}


@pytest.mark.parametrize("file_name", SPACES)
def test_search_spaces(file_name):
    lines = (ROOT / "paramspaces" / file_name).read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    found = {e["name"]: (e["dtype"], e["values"], e.get("step")) for e in entries}
    assert found == SPACES[file_name]
    assert len(found) == len(entries)


@pytest.mark.parametrize("file_name", SPACES)
def test_search_spaces_lie_in_what_the_parameters_take(file_name):
    for line in (ROOT / "paramspaces" / file_name).read_text().splitlines():
        entry = json.loads(line)
        for value in entry["values"]:
            parameters.convert({entry["name"]: value})


def kind(annotation):
    """Return the types that an annotation names, such as ``int | str`` or ``list[int]``."""
    names = annotation.replace("list[int]", "list").replace("list[float]", "list").split(" | ")
    return {{**vars(builtins), "None": type(None)}[name] for name in names}


def test_the_types_are_those_of_the_table():
    """Those of a model's attributes, and the same with tuples for lists."""
    annotated = dict(parameters.HasParameters.__annotations__)
    assert list(annotated) == list(parameters.PARAMETERS)
    for name, parameter in parameters.PARAMETERS.items():
        assert type(parameter.default) in kind(annotated[name]), name
    assert parameters.convert({"embedding": "layersize"})["embedding"] == "layersize"
    assert kind(annotated["embedding"]) == {int, str}
    assert kind(annotated["adapt"]) == {str, type(None)}
    fields = parameters.Values.__mro__[1].__annotations__
    assert list(fields) == list(parameters.Values._fields) == list(parameters.PARAMETERS)
    for name, field in fields.items():
        text = getattr(field, "__forward_arg__", field)  # typing wraps it
        expected = re.sub(r"list\[(\w+)\]", r"tuple[\1, ...]", annotated[name])
        assert text == expected, name


def test_the_docstring_says_what_the_table_says():
    """Names and defaults of the parameters, in the order of the table."""
    doc = inspect.cleandoc(GRU4Rec.__doc__)  # from Python 3.13 on it comes like that
    text = doc[doc.index("**settings") : doc.index("Attributes")]
    # a list, since the site shows a definition list within another as one paragraph
    items = [" ".join(item.split()) for item in text.split("\n    - ")[1:]]
    found = [re.match(r"``([\w, ]+)``: .*?\((?:default )?([^)]*)\)\.(?: |$)", x) for x in items]
    names = [name for item in found for name in item[1].split(", ")]
    defaults = [value for item in found for value in item[2].split(", ")]
    assert names == list(parameters.PARAMETERS)
    table = [f"{p.default:g}" if isinstance(p.default, float) else str(p.default)
             for p in parameters.PARAMETERS.values()]  # fmt: skip
    assert defaults == table
