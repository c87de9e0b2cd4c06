"""Make the project's virtual environment, `.venv`, ready: `make setup` runs this.

Pure standard library, run by whatever `python3` there is. It finds a Python that Theano 1.0.5 runs
on, checks what has to come from the operating system *before* anything is downloaded, and then
installs the pinned packages of requirements.txt and the project itself (editable) into `.venv`.

Usage: ``python3 tools/bootstrap.py [--check | --core]``. With ``--check`` it only checks the
system, with ``--core`` it installs what the toolkit itself runs on, a fifth of it all; a later call
without it adds the rest. The environment variable PYTHON names the interpreter to use.

Exit codes: 0 ready; 1 an installation step failed; 2 something is missing, named in one sentence on
standard error together with the command that installs it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
# Exactly one of these files lies in a .venv made here: the first while it is being made, the others
# (plus a digest) once the core is there, or all. A rename turns one into the next, so a set-up that
# was interrupted never counts as more than it is.
UNFINISHED = ".setting-up"
CORE, READY = ".core-", ".ready-"

OLDEST, NEWEST = (3, 8), (3, 14)
# 3.11 first: Debian 12's packages for GPUs are for that one
MINORS = (11, 13, 12, 14, 10, 9, 8)
CANDIDATES = (*(f"python3.{minor}" for minor in MINORS), "python3")

# Tools first and pinned too: building Theano's source package depends on setuptools.
# Both are the last releases that still run on Python 3.8.
BUILD_TOOLS = ("pip==25.0.1", "setuptools==75.3.2")

OFFLINE = "the packages could not be installed from PyPI: check the network, then run it again"
# else building Theano would fetch the newest setuptools of the day
UNISOLATED = ("--no-build-isolation", "--use-pep517")

PROBE = """
import importlib.util, json, os, sys, sysconfig
print(json.dumps({
    "executable": sys.executable,
    "version": list(sys.version_info[:3]),
    "headers": os.path.isfile(os.path.join(sysconfig.get_paths()["include"], "Python.h")),
    "venv": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
}))
"""


class Interpreter(NamedTuple):
    """Answers of a Python interpreter about itself.

    Attributes
    ----------
    executable : str
        Absolute path.
    version : tuple of int
        (major, minor, micro).
    headers : bool
        Whether its C headers (Python.h) are installed; Theano's generated code includes them.
    venv : bool
        Whether it can make a virtual environment with pip in it.
    """

    executable: str
    version: tuple[int, int, int]
    headers: bool
    venv: bool

    @property
    def supported(self) -> bool:
        return OLDEST <= self.version[:2] <= NEWEST

    @property
    def complete(self) -> bool:
        return self.supported and self.headers and self.venv


def fail(message: str, code: int = 2) -> NoReturn:
    """End the program with one sentence on standard error."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def probe(command: str) -> Interpreter | None:
    """Ask an interpreter about itself; None if the command is no working Python 3."""
    path = shutil.which(command)
    if path is None:
        return None
    try:
        # outside the project, where no file can be mistaken for a standard module
        answer = subprocess.run(
            [path, "-E", "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd="/", timeout=60, check=True,
        )  # fmt: skip
        found = json.loads(answer.stdout.decode())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(
        found["executable"], tuple(found["version"]), found["headers"], found["venv"]
    )


def choose_interpreter() -> Interpreter:
    """Return the interpreter for the virtual environment; end the program if none is suitable.

    PYTHON, where it is set, is the only candidate. Otherwise the first of `CANDIDATES` that has
    everything; failing that, the first that runs Theano, so that the user learns what it lacks.
    """
    needed = "Python {}.{} to {}.{}".format(*OLDEST, *NEWEST)
    wanted = os.environ.get("PYTHON", "").strip()
    if wanted:
        chosen = probe(wanted)
        if chosen is None:
            fail(f"PYTHON={wanted} is not a working Python 3: let it name {needed}, or unset it")
        if not chosen.supported:
            fail(
                f"PYTHON={wanted} is Python {dotted(chosen)}, and Theano 1.0.5 needs {needed}: "
                "let it name such a one, or unset it"
            )
        return chosen

    found = [answer for answer in map(probe, CANDIDATES) if answer is not None]
    supported = [answer for answer in found if answer.supported]
    for answer in supported:
        if answer.complete:
            return answer
    if supported:
        return supported[0]
    have = f"only Python {dotted(found[0])}" if found else "no Python"
    fail(
        f"Theano 1.0.5 needs {needed}, and {have} was found: install one, which needs no root with "
        "`pip install uv && uv python install 3.13`, and name it, as in "
        "`make setup PYTHON=$(uv python find 3.13)`"
    )


def dotted(interpreter: Interpreter) -> str:
    """Return the version with dots."""
    return ".".join(map(str, interpreter.version))


def check_system(interpreter: Interpreter) -> None:
    """End the program, naming all that is missing, unless the system has what set-up needs."""
    python = f"python{interpreter.version[0]}.{interpreter.version[1]}"
    # Debian's unversioned packages belong to the system's own python3
    system = probe("/usr/bin/python3")
    if system is not None and system.version[:2] == interpreter.version[:2]:
        python = "python3"

    missing, packages = [], []
    if shutil.which("g++") is None:
        missing.append("the C++ compiler g++ (Theano compiles the model with it)")
        packages.append("g++")
    if not interpreter.headers:
        missing.append(f"the C headers (Python.h) of {interpreter.executable}")
        packages.append(f"{python}-dev")
    if not interpreter.venv:
        missing.append(f"the modules venv and ensurepip of {interpreter.executable}")
        packages.append(f"{python}-venv")
    if not missing:
        return

    what = ", ".join(missing[:-1]) + " and " * (len(missing) > 1) + missing[-1]
    # /usr/bin: the packages help only an interpreter that came from packages itself
    from_packages = interpreter.executable.startswith("/usr/bin/") or packages == ["g++"]
    if shutil.which("apt-get") and from_packages:
        sudo = "" if os.geteuid() == 0 else "sudo "
        how = f"install with `{sudo}apt-get install -y {' '.join(packages)}`"
    elif from_packages:
        how = "install with your system's package manager"
    else:
        how = "install what is missing, or name another interpreter with PYTHON=/path/to/python3.13"
    fail(f"missing: {what}: {how}")


def digest() -> str:
    """Identify what a complete `.venv` depends on.

    That is what gets installed, and where: scripts in a virtual environment hold absolute paths,
    so a copied or moved project needs a new one.
    """
    state = hashlib.sha256()
    for part in [
        (ROOT / "requirements.txt").read_bytes(),
        (ROOT / "pyproject.toml").read_bytes(),
        (ROOT / "setup.py").read_bytes(),
        (ROOT / "theano_wheel" / "backend.py").read_bytes(),
        " ".join(BUILD_TOOLS).encode(),
        os.fsencode(ROOT),
    ]:
        state.update(hashlib.sha256(part).digest())
    return state.hexdigest()[:16]


def is_ready(stamp: str) -> bool:
    """Tell whether `.venv` is complete, up to date, and its interpreter is still there."""
    return (VENV / stamp).is_file() and (VENV / "bin" / "python").exists()


def make_empty() -> None:
    """Leave `.venv` as a directory that holds nothing but the `UNFINISHED` mark."""
    mark = VENV / UNFINISHED
    if VENV.is_symlink() or VENV.exists():
        stamps = [stamp for kind in (CORE, READY) for stamp in VENV.glob(f"{kind}*")]
        if not stamps and not mark.exists():
            fail(f"{VENV} was not made by `make setup`: move it away or delete it, then try again")
        for stamp in stamps:
            os.replace(stamp, mark)
        for child in VENV.iterdir():
            if child.name == UNFINISHED:
                continue
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()
    else:
        VENV.mkdir()
        mark.touch()


def run_step(failure: str, *command: str) -> None:
    """Run one step of the installation with its output visible; end the program if it fails."""
    env = {
        name: value
        for name, value in os.environ.items()
        # settings that would make Python or pip look or install elsewhere
        if name not in ("PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
    }
    env.update(PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1")
    if subprocess.run(command, env=env, cwd=ROOT).returncode != 0:
        fail(f"{failure} (`{shlex.join(command)}` failed, its messages are above)", code=1)


def install_core(interpreter: Interpreter, stamp: str) -> None:
    """Make `.venv` from scratch, with the project and what it runs on."""
    print(f"Setting up {VENV} with Python {dotted(interpreter)} ({interpreter.executable})")
    sys.stdout.flush()
    make_empty()
    run_step(
        "the virtual environment could not be made",
        interpreter.executable, "-m", "venv", str(VENV),
    )  # fmt: skip
    run_step(OFFLINE, *pip_install(), *BUILD_TOOLS)
    # the versions of requirements.txt; a constraint has no path
    pinned = (ROOT / "requirements.txt").read_text().splitlines(keepends=True)
    constraints = VENV / "constraints.txt"
    constraints.write_text("".join(line for line in pinned if not line.startswith("./")))
    run_step(OFFLINE, *pip_install(*UNISOLATED), "-c", str(constraints), "-e", ".")
    os.replace(VENV / UNFINISHED, VENV / stamp)


def install_rest(core: str, stamp: str) -> None:
    """Add the packages of tests and examples to a core."""
    run_step(OFFLINE, *pip_install(*UNISOLATED), "-r", "requirements.txt")
    os.replace(VENV / core, VENV / stamp)


def pip_install(*options: str) -> list[str]:
    """Return the beginning of a command that installs into `.venv`."""
    return [str(VENV / "bin" / "python"), "-m", "pip", "install", "--no-input", *options]


def main() -> None:
    """Command line: see the module's docstring."""
    arguments = sys.argv[1:]
    if arguments not in ([], ["--check"], ["--core"]):
        fail("usage: python3 tools/bootstrap.py [--check | --core]")
    if arguments == ["--check"]:
        check_system(choose_interpreter())
        return

    lock = os.open(ROOT, os.O_RDONLY)  # closed, and thereby released, when the process ends
    fcntl.flock(lock, fcntl.LOCK_EX)  # two `make` at a time: the second waits for the first
    core, ready = (kind + digest() for kind in (CORE, READY))
    if is_ready(ready) or (arguments and is_ready(core)):
        return
    if not is_ready(core):
        interpreter = choose_interpreter()
        check_system(interpreter)
        install_core(interpreter, core)
    if not arguments:
        install_rest(core, ready)
    print(f"{VENV} is ready")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as err:  # no permission, disk full
        fail(f"the set-up stopped: {err}", code=1)
