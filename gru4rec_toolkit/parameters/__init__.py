"""GRU4Rec's parameters, in plain Python, so that a command line rejects a bad one at once.

``table`` is the only table of them, with their checks. ``values`` is their home in a model.
``text`` reads them from strings and files. Other modules take every name from here.
"""

from gru4rec_toolkit.parameters.table import (
    ACTIVATIONS,
    ARGUMENTS,
    BASELINES,
    EXTRA_METRICS,
    LARGEST_SEED,
    LOSSES,
    OPTIMIZERS,
    PARAMETERS,
    SOFTMAXES,
    TIE_MODES,
    Loss,
    Parameter,
    check_arguments,
    check_combination,
    convert,
    defaults,
    ranking_activation,
    split_activation,
    without_effect,
)
from gru4rec_toolkit.parameters.text import parse_string, read_file
from gru4rec_toolkit.parameters.values import HasParameters, ReadOnlyList, Values, announce

__all__ = [
    "ACTIVATIONS",
    "ARGUMENTS",
    "BASELINES",
    "EXTRA_METRICS",
    "LARGEST_SEED",
    "LOSSES",
    "OPTIMIZERS",
    "PARAMETERS",
    "SOFTMAXES",
    "TIE_MODES",
    "HasParameters",
    "Loss",
    "Parameter",
    "ReadOnlyList",
    "Values",
    "announce",
    "check_arguments",
    "check_combination",
    "convert",
    "defaults",
    "parse_string",
    "ranking_activation",
    "read_file",
    "split_activation",
    "without_effect",
]
