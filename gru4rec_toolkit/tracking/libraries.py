"""Libraries that only some users need: imported when they are asked for, or named as missing."""

from __future__ import annotations

import importlib
from typing import Any

from gru4rec_toolkit.errors import missing_package


def import_library(module: str, what: str, package: str) -> Any:
    """Return a module of another library.

    Parameters
    ----------
    module : str
        Its name: ``matplotlib.figure``.
    what : str
        For the message: ``drawing curves``.
    package : str
        What pip installs.

    Raises
    ------
    InputError
        If it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except Exception as err:  # packages that do not fit together raise anything
        raise missing_package(what, package, err, module.partition(".")[0]) from None
