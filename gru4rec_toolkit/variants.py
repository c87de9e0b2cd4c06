"""Classes of users, given by ``run.py -g``: importing one, and what it has to have.

Errors of their code are told as one sentence that names the line.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from gru4rec_toolkit.errors import InputError, one_line


def load_class(name: str) -> Any:
    """Return the GRU4Rec class of a module, given by its name or file."""
    try:
        module = _module_of_file(name) if name.endswith(".py") else importlib.import_module(name)
    except SyntaxError as err:
        where = f", line {err.lineno}" if err.lineno else ""
        raise InputError(
            f"-g {name}: {err.filename or name}{where}: SyntaxError: {err.msg}; correct it"
        ) from None
    except (Exception, SystemExit) as err:  # any error of the user's code
        raise _failure_of(name, err, "give an importable module or its .py file") from None
    model_class = getattr(module, "GRU4Rec", None)
    if not isinstance(model_class, type):
        raise InputError(f"-g {name}: the module holds no class named GRU4Rec")
    return model_class


def new_model(model_class: Any, args: argparse.Namespace) -> Any:
    """Return a new model of a class, which may be the user's, if it has what a training needs."""
    try:
        gru = model_class()
    except InputError:
        raise
    except (Exception, SystemExit) as err:
        raise _failure_of(args.gru4rec_model, err, "correct its constructor") from None
    needed = ["set_params", "session_key", "item_key", "time_key", "fit"]
    needed += ["savemodel"] if args.save_model is not None else []
    needed += ["item_ids", "trained_network"] if args.test else []
    check_parts(gru, needed, args.gru4rec_model)
    return gru


def check_methods(model_class: Any, args: argparse.Namespace) -> None:
    """Raise an InputError if the class, which may be the user's, lacks what options call."""
    needed = {"--recommend": "write_recommendations"} if args.recommend is not None else {}
    if args.export is not None:
        from gru4rec_toolkit.serving import exports

        needed["--export"] = f"export_{exports.format_of(args.export)}"
    for option, method in needed.items():
        if not hasattr(model_class, method):
            raise InputError(
                f"-g {args.gru4rec_model}: its class has no method {method}, which {option} "
                "calls; derive it from gru4rec.GRU4Rec"
            )
    if "export_onnx" in needed.values():
        model_class.check_onnx()


def check_parts(model: object, needed: list[str], name: str) -> None:
    missing = [part for part in needed if not hasattr(model, part)]
    if missing:
        raise InputError(
            f"-g {name}: its class GRU4Rec has no {', '.join(missing)}; derive it from "
            "gru4rec.GRU4Rec, or give it these as well"
        )


def _failure_of(name: str, err: BaseException, advice: str) -> InputError:
    """Return the message for the user about an error that came out of the code of -g."""
    line = _line_that_failed(err)
    if isinstance(err, SystemExit):
        return InputError(
            f"-g {name}: {line or 'its code'}: it ends the program (sys.exit); take that out"
        )
    if line is None:
        return InputError(f"-g {name}: {' '.join(str(err).split())}; {advice}")
    return InputError(f"-g {name}: {line}: {one_line(err)}; correct it")


def _module_of_file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise FileNotFoundError("no such file")
    # the file may have the name of a module that it imports, gru4rec.py for example
    name = f"_variant_{os.path.basename(path)[:-3]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("this is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module while it is executed
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _line_that_failed(err: BaseException) -> str | None:
    """Return file and line of a module's own code that raised; None if none of it was run."""
    frames = traceback.extract_tb(err.__traceback__)
    ours = (__file__, importlib.__file__)
    own = [f for f in frames if f.filename not in ours and not f.filename.startswith("<frozen ")]
    last = [f for f in own if f.filename == own[0].filename][-1:]
    return f"{last[0].filename}, line {last[0].lineno}" if last else None


def check_arguments(fit: Callable, options: dict[str, Any], name: str) -> None:
    """Raise an InputError if the fit of a variant does not take what options of ours need."""
    taken = inspect.signature(fit).parameters
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    for option in options:
        if option not in taken:
            raise InputError(
                f"-g {name}: its fit takes no argument {option}, which an option of this command "
                "line needs; add it, or leave the option out"
            )
