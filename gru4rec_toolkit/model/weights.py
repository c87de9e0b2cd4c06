"""Weights of a model as arrays: shapes, initial values, and the check of those that were read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from gru4rec_toolkit.errors import InputError, shown
from gru4rec_toolkit.ops import library
from gru4rec_toolkit.parameters import Values
from gru4rec_toolkit.theano_setup import theano

# number of initial weights that are drawn together
WEIGHTS_AT_ONCE = 1 << 20


def shapes(settings: Values, n_items: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight, by name, in the order in which the weights are drawn."""
    sizes = settings.layers
    expected: dict[str, tuple[int, ...]] = {}
    n_in = sizes[-1] if settings.constrained_embedding else n_items
    if settings.embedding and not settings.constrained_embedding:
        n_in = settings.embedding_size
        expected["E"] = (n_items, n_in)
    for i, n in enumerate(sizes):
        expected[f"Wx{i}"] = (n_in, 3 * n)
        expected[f"Wh{i}"] = (n, n)
        expected[f"Wrz{i}"] = (n, 2 * n)
        expected[f"Bh{i}"] = (3 * n,)
        n_in = n
    expected["Wy"] = (n_items, sizes[-1])
    expected["By"] = (n_items, 1)
    return expected


def initial(settings: Values, n_items: int) -> dict[str, np.ndarray]:
    """Draw the initial weights in the reference's order, so that a seed gives the same weights.

    Returns
    -------
    dict of str to floatX array
        In the `shapes` that belong to the settings. Biases are zero.
    """
    rng = np.random.RandomState(settings.seed)
    weights = {}
    for name, shape in shapes(settings, n_items).items():
        if name[0] == "B":
            weights[name] = np.zeros(shape, dtype=theano.config.floatX)
            continue
        # candidate, reset and update are matrices of their own, stacked side by side
        n_blocks = {"Wx": 3, "Wrz": 2}.get(name.rstrip("0123456789"), 1)
        size = (shape[0], shape[1] // n_blocks)
        blocks = [_draw(rng, *size, settings) for _ in range(n_blocks)]
        weights[name] = blocks[0] if n_blocks == 1 else np.hstack(blocks)
    return weights


def _draw(rng: np.random.RandomState, rows: int, cols: int, settings: Values) -> np.ndarray:
    sigma = settings.sigma or np.sqrt(6.0 / (rows + cols))
    weights = library.empty((rows, cols), theano.config.floatX)
    # part by part: the same numbers without the whole matrix in float64 beside the weights
    at_once = max(1, WEIGHTS_AT_ONCE // cols)
    for start in range(0, rows, at_once):
        part = weights[start : start + at_once]
        if settings.init_as_normal:
            part[:] = rng.randn(*part.shape) * sigma
        else:
            part[:] = rng.rand(*part.shape) * 2 * sigma - sigma
    return weights


def check_shapes(found: Mapping[str, tuple[int, ...]], settings: Values, n_items: int) -> None:
    """Raise an InputError that names the first weight whose shape does not fit the parameters.

    Parameters
    ----------
    found : mapping of str to tuple of int
        The shapes of a model's weights, which its user may have set.
    """
    for name, expected in shapes(settings, n_items).items():
        if found.get(name) != expected:
            raise InputError(
                f"the model's weights {name} have the shape {found.get(name)} instead of "
                f"{expected}; set them to an array of that shape, or train it again"
            )


def check_values(weights: Mapping[str, np.ndarray], settings: Values, n_items: int) -> None:
    """Raise an InputError that names the first weight of another shape or with NaN or infinity."""
    check_shapes({name: w.shape for name, w in weights.items()}, settings, n_items)
    for name, w in weights.items():
        # NaN goes through min; no array of booleans is made
        if not (np.isfinite(w.min()) and np.isfinite(w.max())):
            raise InputError(f"the model's weights {name} hold NaN or infinity; train it again")


def is_support(found: object, n_items: int) -> bool:
    """Tell whether an object is an array of each item's number of events."""
    if not isinstance(found, np.ndarray) or found.dtype.kind != "i":
        return False
    return found.shape == (n_items,) and not (found < 0).any()


def _is_state(name: str, state: np.ndarray, weights: Mapping[str, np.ndarray]) -> bool:
    """Tell whether an array may be an optimizer's state: of a weight's shape, or one for a row."""
    weight = weights.get(name.partition("_")[0])
    if weight is None or state.dtype.kind != "f" or not np.isfinite(state).all():
        return False
    return state.shape in (weight.shape, weight.shape[:1])


def check(
    weights: Mapping[str, np.ndarray],
    item_ids: np.ndarray | None,
    support: np.ndarray | None,
    settings: Values,
    path: str,
    optimizer_state: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Check that what a model file holds fits its parameters; return the ids.

    Raises
    ------
    InputError
        Names the file and what does not fit.
    """
    problem = None
    if item_ids is None or item_ids.ndim != 1 or item_ids.dtype.kind not in "iO":
        problem = "its item ids are no list of integers or strings"
    elif not (index := pd.Index(item_ids)).is_unique:
        twice = item_ids[np.argmax(index.duplicated())]
        problem = f"item {shown(twice)} is in it twice"
    elif support is not None and not is_support(support, len(item_ids)):
        problem = "its support is not one number of events an item"
    elif {name: w.shape for name, w in weights.items()} != shapes(settings, len(item_ids)):
        problem = "its weights do not fit its parameters"
    elif any(w.dtype.kind != "f" for w in weights.values()):
        problem = "its weights are no floating point numbers"
    elif not all(_is_state(name, state, weights) for name, state in optimizer_state.items()):
        problem = "the state of its optimizer does not fit its weights"
    if item_ids is None or problem is not None:
        raise InputError(
            f"model file {path}: not a GRU4Rec model, {problem}; "
            "give a file that was saved with -s or savemodel"
        )
    return item_ids
