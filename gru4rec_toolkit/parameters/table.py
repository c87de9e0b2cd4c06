"""The table of parameters: names, defaults, allowed values, and the checks of them.

With it the tables of losses, activations and optimizers, as far as parameters have to know of them,
and the parameters of the baselines.
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gru4rec_toolkit.errors import InputError, shown

# The tables of losses, activations and optimizers: their names, and what parameters have to know of
# them. What they compute is in model/losses.py and model/optimizers.py, under the same names.


@dataclass(frozen=True)
class Loss:
    """A loss, by the final activation that it needs.

    Attributes
    ----------
    softmax : str or None
        The softmax that turns scores into what the loss takes; None: any element-wise activation.
    """

    softmax: str | None


LOSSES: dict[str, Loss] = {
    "cross-entropy": Loss("softmax"),
    "xe_logit": Loss("softmax_logit"),
    "bpr-max": Loss(None),
    "bpr": Loss(None),
    "top1": Loss(None),
    "top1-max": Loss(None),
}
SOFTMAXES = ("softmax", "softmax_logit")
# element-wise activations with their numbers where the name alone is given, those of the README
ACTIVATIONS: dict[str, tuple[float, ...]] = {
    "linear": (),
    "relu": (),
    "tanh": (),
    "leaky": (0.01,),
    "elu": (1.0,),
    "selu": (1.0507, 1.67326),
}
# optimizers with their decay rates, unless adapt_params says otherwise
OPTIMIZERS: dict[str, tuple[float, ...]] = {
    "adagrad": (),
    "rmsprop": (0.9,),
    "adadelta": (0.95,),
    "adam": (0.9, 0.999),
}
# ranks of a target that ties with other items, see evaluation.evaluate_gpu
TIE_MODES = ("standard", "conservative", "median", "tiebreaking")
# metrics beside Recall and MRR, by what run.py calls them
EXTRA_METRICS = {
    "ndcg": "NDCG",
    "hitrate": "HitRate",
    "coverage": "Coverage",
    "popularity": "Popularity",
}
# see significance.breakdown
GROUPINGS = ("length", "position", "popularity")


@dataclass(frozen=True)
class Parameter:
    """One parameter: its default, a function that checks and converts, the values it takes.

    ``values`` is a text, or a function that returns one where a table can grow.
    """

    default: Any
    convert: Callable[[Any], Any]
    values: str | Callable[[], str]

    @property
    def allowed(self) -> str:
        return self.values if isinstance(self.values, str) else self.values()


def one_of(names: Iterable[str]) -> str:
    return "one of " + ", ".join(names)


def elementwise() -> list[str]:
    """Return the names of the element-wise activations, as in elu-<X>."""
    return ["-".join([kind, *("<X>", "<Y>")[: len(n)]]) for kind, n in ACTIVATIONS.items()]


# ---------------------------------------------------------------------------- conversions
# Each takes a string or a value and returns the parameter's value, or raises ValueError.


def _is_truth_value(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")  # numpy's too


def _integer(minimum: int, maximum: float = math.inf) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        number = int(value)
        # int() would cut 1.5 down to 1 and take True for 1
        in_range = minimum <= number <= maximum
        if _is_truth_value(value) or not in_range or float(value) != number:
            raise ValueError
        return number

    return convert


def _number(low: float, high: float = math.inf, low_open: bool = False) -> Callable[[Any], float]:
    def convert(value: Any) -> float:
        number = float(value)
        in_range = low <= number < high and not (low_open and number == low)
        if _is_truth_value(value) or not in_range:
            raise ValueError
        return number

    return convert


def _boolean(value: Any) -> bool:
    text = str(value)
    if text in ("True", "1"):
        return True
    if text in ("False", "0"):
        return False
    raise ValueError


def _choice(*names: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value not in names:
            raise ValueError
        return value

    return convert


def _items(value: Any) -> list:
    if isinstance(value, str):
        return value.split("/") if value and value != "[]" else []
    return list(value) if isinstance(value, Iterable) else [value]


def _layers(value: Any) -> list[int]:
    sizes = [_integer(1)(v) for v in _items(value)]
    if not sizes:
        raise ValueError
    return sizes


def _optimizer(value: Any) -> str | None:
    if value is None or value == "None":
        return None
    return _choice(*OPTIMIZERS)(value)


def _loss(value: Any) -> str:
    return _choice(*LOSSES)(value)


def _embedding(value: Any) -> int | str:
    return value if value == "layersize" else _integer(0)(value)


def _column(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def split_activation(name: str) -> tuple[str, tuple[float, ...]]:
    """Split an activation's name into its kind and its numbers.

    Parameters
    ----------
    name : str
        For example ``tanh``, ``elu-0.5``, ``selu-1.05-1.67``.

    Returns
    -------
    (str, tuple of float)
        ``("elu", (0.5,))``; the numbers are those of `ACTIVATIONS` where the name has none.

    Raises
    ------
    ValueError
        If the numbers do not fit the kind.
    """
    kind, dash, rest = name.partition("-")
    defaults = ACTIVATIONS.get(kind, ())
    if not dash:
        return kind, defaults
    if not re.fullmatch(r"\d+(\.\d*)?(e-?\d+)?(-\d+(\.\d*)?(e-?\d+)?)*", rest):
        raise ValueError(name)
    constants = tuple(float(c) for c in re.split(r"(?<!e)-", rest))
    if len(constants) != len(defaults) or not all(map(math.isfinite, constants)):
        raise ValueError(name)
    return kind, constants


def ranking_activation(name: str) -> str:
    """Return the name of an activation that ranks items as the final activation does.

    The softmax is strictly increasing in a row's scores, so ranking works on the scores themselves:
    items can be scored in blocks, and no ties arise where probabilities underflow. The others are
    applied, since they saturate: a relu makes equal scores of all negative ones.
    """
    return "linear" if name in SOFTMAXES else name


def _list_lengths(value: Any) -> list[int]:
    lengths = [_integer(1)(v) for v in _items(value)]
    if not lengths:
        raise ValueError
    return lengths


def _extra_metrics(value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else value
    return [_choice(*EXTRA_METRICS)(name) for name in names]


def _function(value: Any) -> Callable | None:
    """Check that a value can be called with one argument, as far as it tells before the call."""
    if value is None:
        return None
    if not callable(value):
        raise ValueError
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # many functions in C tell nothing
        return value
    signature.bind(1)
    return value


def _limit(value: Any) -> int:
    number = _integer(0)(value)
    if number == 1:
        raise ValueError
    return number


def _path(value: Any) -> str | None:
    if value is None:
        return None
    path = os.fspath(value)
    if not isinstance(path, str) or not path:
        raise ValueError
    return path


def _patience(value: Any) -> int | None:
    return None if value is None else _integer(1)(value)


def _functions(value: Any) -> list[Callable]:
    """Check that values can be called with one argument each."""
    functions = [value] if callable(value) else list(value)
    if any(_function(function) is None for function in functions):
        raise ValueError
    return functions


def _minutes(value: Any) -> float | None:
    return None if value is None else _number(0)(value)


def _activation(*extra: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        kind, _ = split_activation(value)
        _choice(*ACTIVATIONS, *extra)(kind)
        return value

    return convert


LARGEST_SEED = 2**32 - 1  # NumPy's legacy generator, which draws the initial weights, takes no more
# steps of one graph: it is unrolled, and compiling it takes minutes by then
LONGEST_WINDOW = 256
# what has a dropout mask of its own
DROPOUT_MASKS = ("step", "sequence")
# what happens to the state where a session ends and its user goes on, and to sequences too long
BORDERS = ("carry", "reset")
LONG_SEQUENCES = ("windows", "last")
_YES_NO = "True or False"
_SHARE = "a number of at least 0 and less than 1"
_POSITIVE = "a number of 0 or more"

PARAMETERS: dict[str, Parameter] = {
    "loss": Parameter("bpr-max", _loss, lambda: one_of(LOSSES)),
    "final_act": Parameter(
        "linear", _activation(*SOFTMAXES), lambda: one_of([*SOFTMAXES, *elementwise()])
    ),
    "hidden_act": Parameter("tanh", _activation(), lambda: one_of(elementwise())),
    "layers": Parameter(
        [100], _layers, "the number of units of each GRU layer, separated by / (layers=200/100)"
    ),
    "n_epochs": Parameter(10, _integer(1), "an integer of 1 or more"),
    "batch_size": Parameter(32, _integer(1), "an integer of 1 or more"),
    "dropout_p_embed": Parameter(0.0, _number(0, 1), _SHARE),
    "dropout_p_hidden": Parameter(0.0, _number(0, 1), _SHARE),
    "learning_rate": Parameter(0.1, _number(0, low_open=True), "a number greater than 0"),
    "momentum": Parameter(0.0, _number(0, 1), _SHARE),
    "lmbd": Parameter(0.0, _number(0), _POSITIVE),
    "embedding": Parameter(
        0, _embedding, "an integer of 0 or more (0: no separate embedding) or layersize"
    ),
    "constrained_embedding": Parameter(False, _boolean, _YES_NO),
    "n_sample": Parameter(2048, _integer(0), "an integer of 0 or more"),
    "sample_alpha": Parameter(0.75, _number(0), _POSITIVE),
    "bpreg": Parameter(1.0, _number(0), _POSITIVE),
    "logq": Parameter(0.0, _number(0), _POSITIVE),
    "smoothing": Parameter(0.0, _number(0, 1), _SHARE),
    "adapt": Parameter("adagrad", _optimizer, lambda: one_of([*OPTIMIZERS, "None"])),
    "adapt_params": Parameter(
        [],
        lambda value: [_number(0, 1)(v) for v in _items(value)],
        "decay rates of at least 0 and less than 1, separated by / (adapt_params=0.9/0.999)",
    ),
    "grad_cap": Parameter(0.0, _number(0), _POSITIVE),
    "sigma": Parameter(0.0, _number(0), _POSITIVE),
    "init_as_normal": Parameter(False, _boolean, _YES_NO),
    "train_random_order": Parameter(False, _boolean, _YES_NO),
    "time_sort": Parameter(True, _boolean, _YES_NO),
    "bptt": Parameter(
        1, _integer(1, LONGEST_WINDOW), f"a number of steps from 1 to {LONGEST_WINDOW}"
    ),
    "dropout_mask": Parameter("step", _choice(*DROPOUT_MASKS), one_of(DROPOUT_MASKS)),
    "max_sequence": Parameter(0, _limit, "a number of events, 2 or more, or 0: no limit"),
    "long_sequences": Parameter("windows", _choice(*LONG_SEQUENCES), one_of(LONG_SEQUENCES)),
    "session_key": Parameter("SessionId", _column, "the name of the column of session ids"),
    "item_key": Parameter("ItemId", _column, "the name of the column of item ids"),
    "time_key": Parameter("Time", _column, "the name of the column of time stamps"),
    "user_key": Parameter(
        None,
        lambda value: None if value in (None, "None") else _column(value),
        "the name of the column of user ids, or None",
    ),
    "session_border": Parameter("carry", _choice(*BORDERS), one_of(BORDERS)),
    "seed": Parameter(42, _integer(0, LARGEST_SEED), f"an integer from 0 to {LARGEST_SEED}"),
}

# The parameters of each baseline, by the name that `run.py --baseline` takes. What they compute is
# in baselines/, under the same names.
_COLUMNS = {name: PARAMETERS[name] for name in ("session_key", "item_key", "time_key")}
_NEIGHBOURS = {
    "k": Parameter(100, _integer(1), "a number of neighbours, 1 or more"),
    "sample_size": Parameter(1000, _integer(1), "a number of recent sessions, 1 or more"),
}
BASELINES: dict[str, dict[str, Parameter]] = {
    "random": {"seed": PARAMETERS["seed"], **_COLUMNS},
    "popularity": _COLUMNS,
    "sessionpop": _COLUMNS,
    "markov": _COLUMNS,
    "itemknn": {
        "n_sims": Parameter(100, _integer(1), "a number of similar items, 1 or more"),
        "lmbd": Parameter(20.0, _number(0), _POSITIVE),
        **_COLUMNS,
    },
    "sknn": {**_NEIGHBOURS, **_COLUMNS},
    "vsknn": {**_NEIGHBOURS, "idf_weighting": Parameter(0.0, _number(0), _POSITIVE), **_COLUMNS},
}

# arguments of the public functions, which are no parameters of the model
ARGUMENTS: dict[str, Parameter] = {
    "sample_store": Parameter(10_000_000, _integer(0), "a number of ids, 0 or more"),
    "store_type": Parameter("gpu", _choice("gpu", "cpu"), "'gpu' or 'cpu'"),
    "retrain": Parameter(False, _boolean, _YES_NO),
    "force": Parameter(False, _boolean, _YES_NO),
    "checkpoint": Parameter(None, _path, "the path of a directory, or None"),
    "checkpoint_minutes": Parameter(None, _minutes, "a number of minutes, 0 or more, or None"),
    "resume": Parameter(False, _boolean, _YES_NO),
    "patience": Parameter(None, _patience, "a number of epochs, 1 or more, or None"),
    "keep_optimizer": Parameter(False, _boolean, _YES_NO),
    "callbacks": Parameter([], _functions, "a list of functions of an Epoch"),
    "metric": Parameter("recall", _choice("recall", "mrr"), "'recall' or 'mrr'"),
    "after_epoch": Parameter(None, _function, "a function of an epoch's number, or None"),
    "negative_sampler": Parameter(
        None, _function, "a function of a number of mini-batches, or None"
    ),
    "batch": Parameter(100, _integer(1), "an integer of 1 or more"),
    "batch_size": Parameter(100, _integer(1), "an integer of 1 or more"),
    "k": Parameter(20, _integer(1), "an integer of 1 or more"),
    "exclude_seen": Parameter(False, _boolean, _YES_NO),
    "cut_off": Parameter([20], _list_lengths, "one or more list lengths of 1 or more"),
    "mode": Parameter("standard", _choice(*TIE_MODES), f"one of {', '.join(TIE_MODES)}"),
    "extra": Parameter([], _extra_metrics, f"some of {', '.join(EXTRA_METRICS)}"),
    "n": Parameter(10_000, _integer(1), "a number of resamples, 1 or more"),
    "level": Parameter(0.95, _number(0, 1, low_open=True), "a number between 0 and 1"),
    "seed": Parameter(42, _integer(0, LARGEST_SEED), f"an integer from 0 to {LARGEST_SEED}"),
    "by": Parameter("length", _choice(*GROUPINGS), f"one of {', '.join(GROUPINGS)}"),
    "groups": Parameter(10, _integer(1), "an integer of 1 or more"),
}


def defaults(table: Mapping[str, Parameter] = PARAMETERS) -> dict[str, Any]:
    """Return a fresh dictionary of every parameter's default value."""
    return {
        name: list(p.default) if isinstance(p.default, list) else p.default
        for name, p in table.items()
    }


def _checked(kind: str, name: str, parameter: Parameter, value: Any) -> Any:
    try:
        return parameter.convert(value)
    except (ValueError, TypeError, AttributeError, ArithmeticError):
        raise InputError(
            f"{kind}{name}: expected {parameter.allowed}, got {shown(value)}"
        ) from None


def check_arguments(**arguments: Any) -> list[Any]:
    """Check and convert arguments of a public function, as `convert` does with parameters.

    Parameters
    ----------
    **arguments
        Names of `ARGUMENTS` with their values.

    Returns
    -------
    list
        The values, converted, in the same order.

    Raises
    ------
    InputError
        Names the argument and what it takes.
    """
    return [_checked("", name, ARGUMENTS[name], value) for name, value in arguments.items()]


def suggestion(name: str, table: Mapping[str, Parameter] = PARAMETERS) -> str | None:
    """Return the parameter that a misspelt name may mean."""
    close = difflib.get_close_matches(name.lower(), table, n=1, cutoff=0.8)
    return close[0] if close else None


def convert(
    settings: Mapping[str, Any], table: Mapping[str, Parameter] = PARAMETERS
) -> dict[str, Any]:
    """Check and convert parameters that come as strings or values.

    Parameters
    ----------
    settings : mapping of str to (str or value)
    table : mapping of str to Parameter
        The parameters that there are: those of the model, or one entry of `BASELINES`.

    Returns
    -------
    dict
        The same names in the same order, values in their own types.

    Raises
    ------
    InputError
        On an unknown name, a wrong type or a value out of range; names the parameter and what it
        takes.
    """
    if not isinstance(settings, Mapping):
        raise InputError(
            f"parameters: expected a mapping of names to values, got {shown(settings)}"
        )
    converted = {}
    for name, value in settings.items():
        if name not in table:
            close = suggestion(name, table) if isinstance(name, str) else None
            meant = f", did you mean {close}?" if close else ""
            raise InputError(
                f"unknown parameter {shown(name)}{meant}; the parameters are {', '.join(table)}"
            )
        converted[name] = _checked("parameter ", name, table[name], value)
    return converted


def check_combination(values: Mapping[str, Any]) -> None:
    """Reject values that are fine alone but contradict each other.

    Parameters
    ----------
    values : mapping
        All parameters, converted.

    Raises
    ------
    InputError
        Names the parameters that clash and what to set.
    """
    loss, final_act = values["loss"], values["final_act"]
    needed = LOSSES[loss].softmax
    if needed and final_act != needed:
        raise InputError(
            f"loss={loss} needs final_act={needed}, but final_act is {final_act}; "
            f"set final_act={needed}"
        )
    if not needed and final_act in SOFTMAXES:
        raise InputError(
            f"final_act={final_act} does not go with loss={loss}; "
            f"set final_act to {one_of(elementwise())}"
        )
    if values["smoothing"] > 0 and not needed:
        with_softmax = " or ".join(name for name, of in LOSSES.items() if of.softmax)
        raise InputError(
            f"smoothing works with loss={with_softmax} only, but loss is {loss}; set smoothing=0"
        )
    if values["constrained_embedding"] and values["embedding"] != 0:
        raise InputError(
            "embedding and constrained_embedding=True exclude each other (the shared embedding has "
            "the size of the last layer); set embedding=0 or constrained_embedding=False"
        )
    if values["n_sample"] == 0 and values["batch_size"] < 2:
        raise InputError(
            "n_sample=0 with batch_size=1 leaves no negative samples; "
            "set n_sample to 1 or more or batch_size to 2 or more"
        )
    n_rates = len(OPTIMIZERS.get(values["adapt"], ()))
    if values["adapt_params"] and len(values["adapt_params"]) != n_rates:
        raise InputError(
            f"adapt_params: adapt={values['adapt']} takes {n_rates} decay rate(s), "
            f"got {values['adapt_params']}"
        )


def without_effect(values: Mapping[str, Any]) -> list[str]:
    """Return a sentence on each value that other values leave without effect.

    Parameters
    ----------
    values : mapping
        All parameters, converted.
    """
    has_one_hot_input = not values["constrained_embedding"] and not values["embedding"]
    has_dropout = values["dropout_p_embed"] > 0 or values["dropout_p_hidden"] > 0
    found = {
        "dropout_p_embed has no effect with one-hot input": values["dropout_p_embed"] > 0
        and has_one_hot_input,
        "dropout_mask has no effect without dropout_p_embed or dropout_p_hidden": not has_dropout
        and values["dropout_mask"] != "step",
        "session_border has no effect without user_key": values["user_key"] is None
        and values["session_border"] != "carry",
        "long_sequences has no effect without max_sequence": not values["max_sequence"]
        and values["long_sequences"] != "windows",
    }
    return [sentence for sentence, is_so in found.items() if is_so]
