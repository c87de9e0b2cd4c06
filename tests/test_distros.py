"""Runs in fresh Debian roots, and how they go on where none can be made; `.ci/run` makes one."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys

import pytest
from helpers.cli import ROOT, python, succeeds

DISTROS = ROOT / "tools" / "distros.py"


@pytest.fixture
def distros(monkeypatch):
    spec = importlib.util.spec_from_file_location("distros", DISTROS)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "distros", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(os.geteuid() != 0, reason="roots are made by root alone")
def test_a_root_that_cannot_be_made_is_left_out(tmp_path):
    """Nothing else fails for that."""
    done = succeeds(python(DISTROS, "--directory", tmp_path, "trixie", cwd=tmp_path, PATH="/none"))
    assert "trixie: no root can be made here (debootstrap is not installed: " in done.out
    assert done.lines[-1] == "| trixie | left out |  |  |  |"


def test_other_users_are_told(distros, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert distros.make_root("trixie", tmp_path / "trixie") == "this needs root"


@pytest.fixture
def made(distros, monkeypatch, tmp_path):
    """A root that was made before; nothing is copied or mounted."""
    (tmp_path / "trixie").mkdir()
    (tmp_path / "trixie" / "made").touch()
    monkeypatch.setattr(distros, "copy_project", lambda root: None)
    monkeypatch.setattr(distros, "mounted", lambda root: contextlib.nullcontext())
    monkeypatch.setattr(distros, "run", lambda root, command: "Python 3.13.5\n14.2.0")
    return tmp_path


@pytest.mark.parametrize(("code", "end"), [(0, "passed"), (1, "FAILED")])
def test_a_step_that_fails_is_the_exit_code(distros, made, monkeypatch, capsys, code, end):
    codes = iter([0, code])

    def step(root, name, command):
        return distros.Step(name, 61.4, next(codes), "2 passed")

    monkeypatch.setattr(distros, "step", step)
    assert distros.run_all(["trixie"], made, core=True) == code
    row = f"| trixie | 3.13.5 | 14.2.0 | passed in 61 s | {end} in 61 s: 2 passed |"
    assert row in capsys.readouterr().out


def test_a_root_in_which_nothing_can_run_is_left_out(distros, made, monkeypatch, capsys):
    monkeypatch.setattr(distros, "mounted", lambda root: contextlib.nullcontext("no permission"))
    assert distros.run_all(["trixie"], made, core=True) == 0
    assert "nothing can run in a root here (no permission); left out" in capsys.readouterr().out
