"""Libraries that only some users need: imported when they are asked for, or named as missing."""

from __future__ import annotations

import importlib
from typing import Any

from gru4rec_toolkit.errors import InputError, one_line


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
    except ModuleNotFoundError as err:
        reason = f"which is not installed ({one_line(err)})"
    except Exception as err:  # of packages that do not fit together, anything
        reason = f"which cannot be imported ({one_line(err)})"
    raise InputError(
        f"{what} needs the package {package}, {reason}; install it with `pip install {package}`"
    )
