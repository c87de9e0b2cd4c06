"""Trained models as files for other programs: ONNX graphs and safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import ModuleType

import numpy as np

from gru4rec_toolkit import files
from gru4rec_toolkit.errors import InputError, missing_package, shown
from gru4rec_toolkit.parameters import Values
from gru4rec_toolkit.serving import onnx, safetensors

# modules that make the bytes of a file, by the name of its format: that of the library it needs,
# and the extension of its files
FORMATS: dict[str, ModuleType] = {"onnx": onnx, "safetensors": safetensors}


def format_of(path: str) -> str:
    """Return the name of the format that a path's extension stands for.

    Raises
    ------
    InputError
        If it stands for none.
    """
    name = os.path.splitext(path)[1].lower()[1:]
    if name not in FORMATS:
        raise InputError(
            f"cannot export the model to {path or 'an empty path'}: give a name that ends in "
            + " or ".join(f".{name}" for name in FORMATS)
        )
    return name


def check_writable(
    name: str,
    path: str | os.PathLike,
    force: bool = False,
    inputs: Mapping[str, str] | None = None,
) -> None:
    """Find out before a long training whether its model can be exported.

    Parameters
    ----------
    name : str
        Of `FORMATS`.
    path : str or path-like
        A symbolic link stays, its target is written.
    force : bool
        Whether an existing file of another kind may be replaced.
    inputs : mapping of str to path, optional
        Files that must not be replaced in any case, by what they are: ``the training data``.

    Raises
    ------
    InputError
        Names the path and what keeps it from being written.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"cannot export the model: expected a path, got {shown(path)}")
    path = os.fspath(path)
    module = FORMATS[name]
    try:
        module.import_library()
    except Exception as err:
        raise missing_package(f"{path}: exporting the model", name, err) from None

    def is_one(existing: str) -> bool:
        try:
            return module.is_one(existing)
        except Exception:  # safetensors raises errors of its own about other files
            return False

    files.check_target(
        "export the model", path, f"an export of a model ({name})", is_one, inputs, force
    )


def write(
    name: str,
    path: str | os.PathLike,
    settings: Values,
    arrays: Mapping[str, np.ndarray],
    item_ids: np.ndarray,
    support: np.ndarray | None,
    force: bool = False,
) -> None:
    """Write a model whole or not at all.

    Parameters
    ----------
    name, path
        As `check_writable` takes them.
    settings : Values
        The parameters that the weights were trained with.
    arrays : mapping of str to float array
        The weights, in the shapes of `model.weights.shapes`.
    item_ids : (n_items,) array
    support : (n_items,) int array or None
        The items' numbers of events in the training.
    force : bool
        Whether an existing file of another kind may be replaced.

    Raises
    ------
    InputError
        If the file cannot be written, or is one that must not be replaced.
    """
    check_writable(name, path, force)
    path = os.fspath(path)
    try:
        data = FORMATS[name].serialized(settings, arrays, item_ids, support)
        with files.replacing(path) as file:
            file.write(data)
    except InputError as err:
        raise InputError(f"cannot export the model to {path}: {err}") from None
    except OSError as err:
        raise InputError(f"cannot export the model to {path}: {files.reason_of(err)}") from None
