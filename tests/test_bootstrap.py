"""`make setup` on machines that lack something, and when it is interrupted; `make help`."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPLETE = {"version": [3, 11, 2], "headers": True, "venv": True}
SUDO = "" if os.geteuid() == 0 else "sudo "


class Machine:
    """A copy of the project's set-up on a machine with only the given programs on its PATH."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "a project"  # a path with a space
        self.bin = folder / "bin"
        (self.project / "tools").mkdir(parents=True)
        self.bin.mkdir()
        (self.project / "theano_wheel").mkdir()
        for name in (
            *("tools/bootstrap.py", "requirements.txt", "pyproject.toml", "setup.py", "Makefile"),
            "theano_wheel/backend.py",
        ):
            shutil.copy(ROOT / name, self.project / name)
        for name in ("sh", "sed", "printf"):
            self.program(name, f'exec {shutil.which(name)} "$@"')

    def program(self, name: str, script: str = "exit 1") -> None:
        """Put a program on the PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def python(self, name: str, **answers: object) -> None:
        """Put a Python on the PATH that answers the bootstrap's questions as told."""
        found = {"executable": f"/usr/bin/{name}", **COMPLETE, **answers}
        self.program(name, f"echo '{json.dumps(found)}'")

    def python_with_pip(self, script: str) -> None:
        """Put g++ on the PATH, and a Python in whose virtual environments a script is pip."""
        self.program("pip", script)
        self.program("g++")
        answers = json.dumps({"executable": str(self.bin / "python3"), **COMPLETE})
        lines = [
            f"if [ \"$2\" = -c ]; then echo '{answers}'; exit; fi",
            f'{shutil.which("mkdir")} "$3/bin"',
            f'{shutil.which("cp")} "{self.bin / "pip"}" "$3/bin/python"',
        ]
        self.program("python3", "\n".join(lines))

    def bootstrap(self, *arguments: str, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(self.project / "tools" / "bootstrap.py"), *arguments],
            env={"PATH": str(self.bin), **env},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def complaint(self, *arguments: str, **env: str) -> str:
        """What the bootstrap complains about: one sentence, exit code 2, and nothing was made."""
        before = sorted(self.project.rglob("*"))
        done = self.bootstrap(*arguments, **env)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert re.fullmatch(r"error: [^\n]+\n", done.stderr)
        assert sorted(self.project.rglob("*")) == before
        return done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- what is missing -----------------------------------------------------------------------------


def test_nothing_is_missing(machine: Machine):
    machine.python("python3")
    machine.program("g++")
    done = machine.bootstrap("--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_compiler(machine: Machine):
    machine.python("python3")
    machine.program("apt-get")
    for arguments in ([], ["--check"]):
        message = machine.complaint(*arguments)
        assert "g++" in message
        assert message.endswith(f"`{SUDO}apt-get install -y g++`\n")


def test_no_headers(machine: Machine):
    machine.python("python3.10", headers=False, version=[3, 10, 1])
    machine.program("g++")
    machine.program("apt-get")
    message = machine.complaint()
    assert "Python.h" in message
    assert "/usr/bin/python3.10" in message
    assert re.search(rf"`{SUDO}apt-get install -y python3(\.10)?-dev`\n$", message)


def test_everything_is_missing_in_one_sentence(machine: Machine):
    machine.python("python3.9", version=[3, 9, 2], headers=False, venv=False)
    machine.program("apt-get")
    message = machine.complaint()
    assert re.search(r"apt-get install -y g\+\+ python3(\.9)?-dev python3(\.9)?-venv`\n$", message)


def test_not_debian(machine: Machine):
    machine.python("python3.11", headers=False)
    message = machine.complaint()
    assert "apt-get" not in message
    assert "package manager" in message


def test_headers_of_a_python_that_is_not_the_systems(machine: Machine):
    """The system's packages would not help an interpreter that somebody built."""
    machine.python("python3.11", executable="/opt/python/bin/python3.11", headers=False)
    machine.program("g++")
    machine.program("apt-get")
    message = machine.complaint()
    assert "apt-get" not in message
    assert "/opt/python/bin/python3.11" in message
    assert "PYTHON=" in message


# --- which interpreter ---------------------------------------------------------------------------


def test_a_complete_interpreter_is_preferred(machine: Machine):
    machine.python("python3.11", headers=False)
    machine.python("python3.8", version=[3, 8, 10])
    machine.program("g++")
    assert machine.bootstrap("--check").returncode == 0


def test_too_new(machine: Machine):
    machine.python("python3", version=[3, 15, 1])
    machine.program("g++")
    message = machine.complaint()
    assert "only Python 3.15.1 was found" in message
    assert "3.8 to 3.14" in message
    assert "uv python install 3.13" in message  # which needs no root


def test_broken_and_absent_interpreters(machine: Machine):
    machine.program("python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127")
    machine.program("python3", "echo 'no JSON'")
    machine.program("g++")
    assert "no Python was found" in machine.complaint()


def test_the_users_choice(machine: Machine, tmp_path: Path):
    machine.python("python3")
    machine.program("g++")
    assert "PYTHON=/nowhere/python" in machine.complaint(PYTHON="/nowhere/python")
    machine.python("mine", version=[3, 7, 16])
    assert "PYTHON=mine is Python 3.7.16" in machine.complaint(PYTHON="mine")
    machine.python("mine")
    assert machine.bootstrap("--check", PYTHON="mine").returncode == 0


def test_the_real_interpreter_is_understood():
    """The questions to an interpreter, put to the one that runs this test."""
    found = load_bootstrap(ROOT / "tools" / "bootstrap.py").probe(sys.executable)
    assert found.version == sys.version_info[:3]
    assert found.supported
    assert found.venv == bool(importlib.util.find_spec("ensurepip"))


# --- making .venv --------------------------------------------------------------------------------


def load_bootstrap(path: Path):
    """The bootstrap of a project as a module."""
    spec = importlib.util.spec_from_file_location("bootstrap", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ready_until_something_changes(machine: Machine):
    machine.program("g++")
    venv = machine.project / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    stamp = venv / f".ready-{load_bootstrap(machine.project / 'tools/bootstrap.py').digest()}"
    stamp.touch()
    done = machine.bootstrap()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    # what now follows needs an interpreter, of which there is none
    with open(machine.project / "requirements.txt", "a") as file:
        file.write("another==1.0\n")
    assert "no Python" in machine.complaint()
    shutil.copy(ROOT / "requirements.txt", machine.project)
    assert machine.bootstrap().returncode == 0
    (venv / "bin" / "python").unlink()
    assert "no Python" in machine.complaint()


@pytest.mark.parametrize("arguments", [["--cores"], ["--core", "--check"], ["setup"]])
def test_arguments_that_mean_nothing(machine: Machine, arguments: list[str]):
    assert "usage: python3 tools/bootstrap.py [--check | --core]" in machine.complaint(*arguments)


def test_a_foreign_venv_is_left_alone(machine: Machine):
    machine.python("python3")
    machine.program("g++")
    (machine.project / ".venv" / "bin").mkdir(parents=True)
    (machine.project / ".venv" / "precious").touch()
    done = machine.bootstrap()
    assert done.returncode == 2
    assert "was not made by `make setup`" in done.stderr
    assert (machine.project / ".venv" / "precious").exists()


def test_without_a_network_and_again(machine: Machine):
    """No half-made .venv counts as ready, and the next try begins from scratch."""
    machine.python_with_pip('echo "pip: no network: $*"; exit 1')
    for _ in range(2):
        done = machine.bootstrap()
        assert done.returncode == 1
        assert "pip: no network" in done.stdout
        assert re.fullmatch(r"error: [^\n]*PyPI[^\n]*\n", done.stderr)
        venv = machine.project / ".venv"
        assert sorted(path.name for path in venv.iterdir()) == [".setting-up", "bin"]
        (venv / "left from the first try").touch()


def test_the_core_and_then_the_rest(machine: Machine):
    """What is there is not installed again, and a rest that fails leaves the core ready."""
    log = machine.project / "log"
    machine.python_with_pip(f'echo "$*" >> "{log}"; case "$*" in *"$FAILING"*) exit 1;; esac')

    def installed(*arguments: str, failing: str = "nothing", code: int = 0) -> list[str]:
        log.write_text("")
        done = machine.bootstrap(*arguments, FAILING=failing)
        assert done.returncode == code, done.stderr
        return log.read_text().splitlines()

    def stamp() -> str:
        (name,) = (path.name for path in (machine.project / ".venv").glob(".*"))
        return name.split("-")[0]

    pinned = installed("--core")
    assert len(pinned) == 2 and pinned[1].endswith("/.venv/constraints.txt -e .")
    assert stamp() == ".core" and installed("--core") == []
    constraints = (machine.project / ".venv" / "constraints.txt").read_text()
    assert "pandas==" in constraints and "./theano_wheel" not in constraints
    (rest,) = installed(failing="requirements.txt", code=1)
    assert stamp() == ".core" and rest.endswith("-r requirements.txt")
    assert installed() == [rest] and stamp() == ".ready"
    assert installed() == installed("--core") == [] and stamp() == ".ready"


def test_every_module_gets_installed():
    """The list in pyproject.toml names each module of the project's root."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^py-modules = \[(.*?)\]", pyproject, re.MULTILINE | re.DOTALL)[1]
    modules = {path.stem for path in ROOT.glob("*.py")} - {"setup"}
    assert set(re.findall(r'"(\w+)"', listed)) == modules


# --- the Makefile --------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
class TestMakefile:
    def make(self, machine: Machine, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [shutil.which("make"), "-C", str(machine.project), *arguments],
            env={"PATH": str(machine.bin)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def test_help_is_the_default_and_lists_every_target(self, machine: Machine):
        makefile = (ROOT / "Makefile").read_text()
        targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
        assert {"help", "demo", "test", "lint", "setup", "clean"} <= set(targets)
        done = self.make(machine)
        assert done.returncode == 0, done.stderr
        listed = re.findall(r"^  make (\S+) +\S.*$", done.stdout, re.MULTILINE)
        assert sorted(listed) == sorted(targets)

    @pytest.mark.parametrize("target", ["setup", "setup-core", "demo", "test", "lint"])
    def test_each_target_does_its_set_up(self, machine: Machine, target: str):
        machine.program("python3", f'exec {shlex.quote(sys.executable)} "$@"')  # no g++ on the PATH
        done = self.make(machine, target)
        assert done.returncode == 2
        assert len(re.findall("^error: ", done.stderr, re.MULTILINE)) == 1
        assert "g++" in done.stderr
        assert not (machine.project / ".venv").exists()

    def test_no_python_at_all(self, machine: Machine):
        done = self.make(machine, "setup")
        assert done.returncode == 2
        assert "error: no Python was found" in done.stderr

    def test_the_users_choice_reaches_the_bootstrap(self, machine: Machine):
        machine.program("python3", f'exec {shlex.quote(sys.executable)} "$@"')
        done = self.make(machine, "setup", "PYTHON=/nowhere/python")
        assert "PYTHON=/nowhere/python is not a working Python 3" in done.stderr
