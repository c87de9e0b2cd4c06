"""Model files: containers of a model's weights, items and parameters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gru4rec_toolkit import container, files
from gru4rec_toolkit.errors import InputError

FORMAT = "gru4rec-model"
# since 2 a model may hold its items' support, since 3 the state of its optimizer
VERSION = 3
_WITHOUT_OPTIMIZER = 2
OPTIMIZER = "optimizer."  # how the names of that state's arrays begin
_KIND = container.Kind(
    *(FORMAT, VERSION, "model file", "a GRU4Rec model"),
    "give a file that was saved with -s or savemodel",
)


def check_writable(
    path: str, force: bool = False, inputs: Mapping[str, str] | None = None
) -> None:
    """Find out before a long training whether its model can be saved.

    Parameters
    ----------
    path : str
        A symbolic link stays, the model goes to where it leads.
    force : bool
        Whether an existing file that is no model may be replaced.
    inputs : mapping of str to path, optional
        Files that must not be replaced in any case, by what they are: ``the training data``.

    Raises
    ------
    InputError
        Names the path and what keeps it from being written.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"cannot save the model: expected a path, got {type(path).__name__}")
    path = os.fspath(path)
    if not path:
        raise InputError("cannot save the model: the path is empty; give a file name")
    if path.endswith(os.sep):
        raise InputError(f"cannot save the model to {path}: it names a directory; add a file name")
    files.check_target("save the model", path, "a GRU4Rec model", is_model, inputs, force)


def write(
    path: str,
    parameters: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    force: bool = False,
) -> None:
    """Write a model whole or not at all.

    Parameters
    ----------
    path : str
    parameters : mapping
        What JSON can hold.
    arrays : mapping of str to array
        Weights, item ids and their support. An object array of strings is stored as UTF-8 bytes and
        lengths.
    force : bool
        Whether an existing file that is no model may be replaced.

    Raises
    ------
    InputError
        If the file cannot be written, or is one that must not be replaced.
    """
    check_writable(path, force)
    has_state = any(name.startswith(OPTIMIZER) for name in arrays)
    # older versions of this toolkit read what they can
    kind = _KIND if has_state else _KIND._replace(version=_WITHOUT_OPTIMIZER)
    try:
        with files.replacing(path) as file:
            container.write(kind, file, {"parameters": dict(parameters)}, arrays)
    except OSError as err:
        raise InputError(f"cannot save the model to {path}: {files.reason_of(err)}") from None


def is_model(path: str) -> bool:
    """Tell whether a file is a model, of this or another version of the format."""
    return container.is_one(_KIND, path)


def read(path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a model written by `write`; nothing in the file is executed.

    Returns
    -------
    (parameters, arrays)

    Raises
    ------
    InputError
        If the file is missing, truncated, not a model, or of a newer format.
    """
    return container.read(_KIND, path, "parameters")


def split_optimizer(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take the arrays of an optimizer's state out of a model's, and return them by their names."""
    names = [name for name in arrays if name.startswith(OPTIMIZER)]
    return {name[len(OPTIMIZER) :]: arrays.pop(name) for name in names}
