"""Parameters in strings and files, not yet checked.

Nothing that is read here is executed: parameter files are parsed as syntax trees of literals.
"""

from __future__ import annotations

import ast
import warnings
from typing import Any

from gru4rec_toolkit.errors import InputError, check_regular, shortened, shown

# bytes of a parameter file, which has some hundred; Python's parser takes much memory for each
LARGEST_FILE = 1 << 16


def parse_string(text: str) -> dict[str, str]:
    """Split ``name=value,name=value`` into a dictionary of strings.

    Raises
    ------
    InputError
        On a piece that is not ``name=value`` or a name that comes twice.
    """
    settings: dict[str, str] = {}
    for piece in text.split(","):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not equals or not name:
            raise InputError(
                f"parameter string: {shown(piece.strip())} is not of the form name=value; "
                "write name=value,name=value (lists with /, as in layers=200/100)"
            )
        if name in settings:
            raise InputError(f"parameter string: {shortened(name)} is given twice; give it once")
        settings[name] = value
    return settings


def read_file(path: str) -> dict[str, Any]:
    """Read a parameter file: Python source that holds one OrderedDict named ``gru4rec_params``.

    The file is parsed, never executed; only literals are understood.

    Parameters
    ----------
    path : str
        For example ``paramfiles/rsc15_xe_shared_100_best.py``.

    Returns
    -------
    dict
        Names and values as the file has them, not yet checked.

    Raises
    ------
    InputError
        If the file cannot be read, is not Python, or holds anything but that dictionary.
    """
    expected = "one OrderedDict of literals named gru4rec_params (see paramfiles/)"
    check_regular(path, "parameter file ")
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise InputError(
                f"parameter file {path}: it is larger than {LARGEST_FILE >> 10} kB, so it holds no "
                f"parameters; the file must hold {expected}"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, of odd spellings in the file
            tree = ast.parse(content.decode("utf-8-sig"))
    except InputError:
        raise
    except OSError as err:
        raise InputError(f"parameter file {path}: {err.strerror}; check the path") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        line = f", line {err.lineno}" if isinstance(err, SyntaxError) and err.lineno else ""
        raise InputError(
            f"parameter file {path}{line}: not valid Python; the file must hold {expected}"
        ) from None
    found: ast.Assign | None = None
    for node in tree.body:
        if _is_docstring(node) or _is_ordereddict_import(node):
            continue
        if found is None and isinstance(node, ast.Assign) and _is_of_parameters(node):
            found = node
            continue
        raise InputError(
            f"parameter file {path}, line {node.lineno}: unexpected code, nothing was executed; "
            f"the file must hold only {expected}"
        )
    if found is None:
        raise InputError(f"parameter file {path}: no gru4rec_params in it; it must hold {expected}")
    try:
        pairs = [(ast.literal_eval(k), ast.literal_eval(v)) for k, v in _pair_nodes(found.value)]
    except (ValueError, TypeError, AttributeError, SyntaxError, MemoryError, RecursionError):
        raise InputError(
            f"parameter file {path}, line {found.lineno}: gru4rec_params is not a dictionary of "
            f"literals, nothing was executed; the file must hold {expected}"
        ) from None
    settings: dict[str, Any] = {}
    for name, value in pairs:
        if not isinstance(name, str):
            raise InputError(f"parameter file {path}: {shown(name)} is not a parameter's name")
        if name in settings:
            raise InputError(f"parameter file {path}: {shown(name)} is given twice; give it once")
        settings[name] = value
    return settings


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_ordereddict_import(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.ImportFrom)
        and node.module == "collections"
        and [alias.name for alias in node.names] == ["OrderedDict"]
    )


def _is_of_parameters(node: ast.Assign) -> bool:
    (target, *others) = node.targets
    return not others and isinstance(target, ast.Name) and target.id == "gru4rec_params"


def _pair_nodes(node: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """Return the (key, value) nodes of ``{...}``, ``OrderedDict([(k, v)])`` or ``dict(k=v)``."""
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in ("OrderedDict", "dict"):
            raise ValueError("a call of something else")
        if any(k.arg is None for k in node.keywords):
            raise ValueError("unpacking")
        named = [(ast.Constant(k.arg), k.value) for k in node.keywords]
        return [pair for arg in node.args for pair in _pair_nodes(arg)] + named
    if isinstance(node, ast.Dict):
        keys = [key for key in node.keys if key is not None]
        if len(keys) < len(node.keys):
            raise ValueError("unpacking")
        return list(zip(keys, node.values))
    pairs: Any = node  # a list or a tuple of them, else the attributes are missing
    return [(key, value) for key, value in (pair.elts for pair in pairs.elts)]
