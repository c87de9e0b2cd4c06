"""Versions of Python and of packages that the toolkit runs with, and what does not fit here."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib import metadata
from pathlib import Path

from gru4rec_toolkit.errors import InputError, missing_dependencies, pip_install

# the oldest and the newest
PYTHON = ((3, 8), (3, 14))
# by package: the oldest version, and the first one that is too new; setup.py asks pip for the same
PACKAGES = {"numpy": ("1.20", "3"), "pandas": ("2", "4")}
THEANO = "1.0.5"


def toolkit() -> str:
    """Return the version of this toolkit: of the clone that it runs from, else as pip knows it."""
    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    found = re.search(r'^name = "gru4rec"\nversion = "(.+)"$', text, re.MULTILINE)
    return found[1] if found else _installed("gru4rec") or "of an unknown version"


def check() -> None:
    """Find out whether the environment can run the toolkit, before anything fails halfway.

    pip keeps to the same versions, but others can be installed later, and a checkout runs without
    being installed.

    Raises
    ------
    InputError
        Names everything that does not fit, and what to do, in one sentence.
    """
    missing = [name for name in (*PACKAGES, "theano") if importlib.util.find_spec(name) is None]
    if len(missing) > 1:  # nobody has installed the toolkit here
        raise missing_dependencies(*missing)
    problems = [_of_python(), _of_theano(), *map(_of_package, PACKAGES)]
    found = [problem for problem in problems if problem]
    if found:
        raise InputError("; ".join(found))


def _of_python() -> str | None:
    oldest, newest = PYTHON
    if oldest <= sys.version_info[:2] <= newest:
        return None
    return (
        f"Python {_dotted(sys.version_info[:2])} does not fit, Theano {THEANO} runs on "
        f"{_dotted(oldest)} to {_dotted(newest)}: make an environment with `uv venv --python 3.13` "
        "(`pip install uv`), which needs no root"
    )


def _of_theano() -> str | None:
    installed = _installed("Theano")
    if installed is None and _has_theano():
        return None
    if installed is not None and installed.split("+")[0] == THEANO:
        return None
    what = f"Theano {installed} does not fit" if installed else "Theano is not installed"
    if installed is None and _installed("Theano-PyMC"):
        what = "Theano-PyMC is installed in the place of Theano"
    # of PyPI's Theano alone pip would build no wheel on Python 3.12 and later
    return f"{what}, {THEANO} is needed: install this toolkit with pip, which brings it"


def _has_theano() -> bool:
    """Tell whether there is a Theano that pip does not know, and none of another name."""
    return importlib.util.find_spec("theano") is not None and _installed("Theano-PyMC") is None


def _of_package(name: str) -> str | None:
    installed = _installed(name)
    lowest, too_new = PACKAGES[name]
    if installed is None and importlib.util.find_spec(name) is not None:
        return None  # pip does not know it
    if installed and _numbers(lowest) <= _numbers(installed) < _numbers(too_new):
        return None
    what = f"{name} {installed} does not fit" if installed else f"{name} is not installed"
    wanted = f"'{name}>={lowest},<{too_new}'"
    return f"{what}: `{pip_install(wanted)}`"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version: (2, 5) for 2.5.0rc1."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
