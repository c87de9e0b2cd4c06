"""A Python without the packages: what the command lines say there, and which pip hints name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers.cli import ROOT, TEST, TRAIN, Done, complaint, python, succeeds

from gru4rec_toolkit import errors


def bare(*args: object, cwd) -> Done:
    """Run a Python that sees no installed package: -S leaves out what site adds."""
    command = [sys.executable, "-S", "-E", *map(str, args)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("program", ["run.py", "paropt.py"])
def test_help_needs_no_package(tmp_path, program):
    assert succeeds(bare(ROOT / program, "-h", cwd=tmp_path)).out.startswith(f"usage: {program}")


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (("run.py", TRAIN, "-ps", "n_epochs=1"), "the packages numpy, pandas and theano are"),
        (("run.py", TRAIN, "--check"), "the package pandas is"),
        (("run.py", TRAIN, "--baseline", "popularity", "-t", TEST), "the package numpy is"),
        (("paropt.py", TRAIN, TEST, "-opf", "space"), "paropt.py needs the package optuna"),
    ],
)
def test_the_missing_packages_are_named(tmp_path, arguments, missing):
    space = '{"name": "layers", "dtype": "int", "values": [64, 512], "step": 32}\n'
    (tmp_path / "space").write_text(space)
    program, *rest = arguments
    said = complaint(bare(ROOT / program, *rest, cwd=tmp_path))
    assert said.startswith(missing), said
    assert "Traceback" not in said
    if program == "run.py":
        assert f"run this with {ROOT}/.venv/bin/python" in said and "`pip install .`" in said


def test_a_module_of_somebody_elses_that_is_missing_keeps_its_traceback(tmp_path):
    code = "from gru4rec_toolkit.errors import run_cli\nrun_cli(lambda: __import__('no_such'))"
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.code == 1 and "Traceback" in done.err


@pytest.mark.parametrize(
    ("active", "is_own"),
    [(None, True), ("", True), ("/of/another/project", True), (sys.prefix, False)],
)
def test_a_hint_names_the_pip_of_this_python(tmp_path, active, is_own):
    """``pip`` alone is that of another Python, unless the environment is activated."""
    if sys.prefix == sys.base_prefix:
        pytest.skip("not in a virtual environment")
    (tmp_path / "optuna.py").write_text("raise ModuleNotFoundError(name='optuna')\n")
    space = '{"name": "layers", "dtype": "int", "values": [64, 512], "step": 32}\n'
    (tmp_path / "space").write_text(space)
    command = [ROOT / "paropt.py", TRAIN, TEST, "-opf", "space"]
    done = python(*command, cwd=tmp_path, PYTHONPATH=str(tmp_path), VIRTUAL_ENV=active)
    pip = f"{sys.executable} -m pip" if is_own else "pip"
    assert f"; install it with `{pip} install optuna`" in complaint(done)


def test_a_hint_outside_of_an_environment(monkeypatch):
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    assert errors.pip_install("optuna") == "pip install optuna"


def test_a_python_whose_path_has_a_blank(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "executable", os.path.join("/my projects", "bin", "python"))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    assert errors.pip_install("onnx") == "'/my projects/bin/python' -m pip install onnx"
