"""Runs in fresh Debian roots, and how they go on where none can be made; `.ci/run` makes one."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shlex
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


def asked(core=False, arch=None):
    """What the command line was given."""
    return argparse.Namespace(suites=["trixie"], core=core, arch=arch)


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
    assert distros.run_all(asked(core=True), made) == code
    row = f"| trixie | 3.13.5 | 14.2.0 | passed in 61 s | {end} in 61 s: 2 passed |"
    assert row in capsys.readouterr().out


def test_a_root_in_which_nothing_can_run_is_left_out(distros, made, monkeypatch, capsys):
    monkeypatch.setattr(distros, "mounted", lambda root: contextlib.nullcontext("no permission"))
    assert distros.run_all(asked(core=True), made) == 0
    assert "nothing can run in a root here (no permission); left out" in capsys.readouterr().out


def test_what_depends_on_the_processor_runs_where_it_is_emulated(
    distros, made, monkeypatch, capsys
):
    (made / "trixie").rename(made / "trixie-arm64")
    commands = []

    def step(root, name, command):
        assert root == made / "trixie-arm64"
        commands.append(command)
        return distros.Step(name, 1, 0, "1 passed")

    monkeypatch.setattr(distros, "step", step)
    assert distros.run_all(asked(arch="arm64"), made) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("| trixie-arm64 | 3.13.5 |")
    demo, test = (shlex.split(command) for command in commands)
    assert demo == ["make", "demo"] and test[:2] == ["make", "test"]
    name, _, chosen = test[2].partition("=")
    assert name == "PYTEST_ARGS" and shlex.split(chosen)[4:] == list(distros.EMULATED)


def test_all_that_is_chosen_exists(distros):
    done = python(
        "-m", "pytest", "--collect-only", "-q", *distros.EMULATED, *distros.CORE, cwd=ROOT
    )
    for name in {*distros.EMULATED, *distros.CORE}:
        assert f"\n{name}" in f"\n{succeeds(done).out}", name


@pytest.mark.skipif(os.geteuid() != 0, reason="roots are made by root alone")
def test_the_processor_is_handed_to_debootstrap(distros, monkeypatch, tmp_path):
    tool = tmp_path / "debootstrap"
    tool.write_text('#!/bin/sh\necho "E: $*"\nexit 1\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said = distros.make_root("trixie", tmp_path / "root", "arm64")
    assert f"--arch=arm64 trixie {tmp_path}/root http://" in said
    assert said.endswith("; emulating takes qemu-user-static and binfmt-support")
    assert "--arch" not in distros.make_root("trixie", tmp_path / "root")


def test_a_root_that_is_used_again_has_the_files_of_today(distros, tmp_path):
    """And the virtual environment of before, which takes minutes to make."""
    distros.copy_project(tmp_path)
    source = tmp_path / "src"
    (source / "tests" / "test_of_yesterday.py").touch()
    (source / ".venv").mkdir()
    (source / ".venv" / "mark").touch()
    distros.copy_project(tmp_path)
    assert not (source / "tests" / "test_of_yesterday.py").exists()
    assert (source / ".venv" / "mark").exists()
    rc = source / "gru4rec_toolkit" / ".theanorc_gru4rec"
    assert rc.is_symlink() and rc.read_text() == (ROOT / ".theanorc_gru4rec").read_text()
