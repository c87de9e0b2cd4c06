"""Run the two commands and the tests in fresh Debian roots: `make test-distros`.

Each root is a minimal Debian of one release, with its own Python and compiler, made by debootstrap;
the project's files are copied into it. What runs there is what the README says: ``make demo``, then
the tests. Needs root and debootstrap. Where a root cannot be made, a line says so and the others go
on.

Usage: ``python tools/distros.py [--core] [--arch ARCH] [--directory DIRECTORY] [SUITE ...]``, by
default for bookworm, trixie and testing (Debian 12, 13 and the next one). With ``--arch arm64``
another processor is emulated (packages qemu-user-static and binfmt-support), some 20 times as slow
as this one, so that only the tests of what depends on the processor run. Exit codes: 0 all that ran
passed; 1 a step failed; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import run_cli

ROOT = Path(__file__).resolve().parent.parent
SUITES = ("bookworm", "trixie", "testing")
MIRROR = "http://deb.debian.org/debian"
# what the README asks for, and what debootstrap's minimal system lacks to download with
PACKAGES = "ca-certificates,g++,git,make,python3,python3-dev,python3-venv"
# the steps of the model, reading, the command line, saved models: what differs between systems
CORE = (
    *("tests/test_golden.py", "tests/test_theano_compat.py", "tests/test_theano_setup.py"),
    *("tests/ops/test_ops.py", "tests/ops/test_products.py", "tests/model/test_losses.py"),
    *("tests/model/test_optimizers.py", "tests/data", "tests/test_modelfile.py"),
    *("tests/test_run.py", "tests/test_systems.py", "tests/test_versions.py"),
)
# what depends on the processor: kernels, ties, some trajectories, models of other machines
EMULATED = (
    *("tests/ops/test_products.py", "tests/ops/test_ops.py", "tests/test_systems.py"),
    "tests/test_ties.py::test_equal_scores_are_counted_by_their_bits",
    "tests/test_ties.py::test_an_activation_is_the_same_in_every_lane",
    *(
        f"tests/test_golden.py::test_trajectory[{name}]"
        for name in ("xe_shared_negatives_logq", "bprmax_selu", "two_layers_shared", "rmsprop")
    ),
)
# Graviton 2's, where arm64 is emulated: with qemu 7.2's own processor (max, which has SVE) OpenBLAS
# computes wrong products, those of numpy's wheels among them
QEMU_CPU = "neoverse-n1"
# settings of the host that downloads in a root need, too
PASSED_ON = re.compile(r"(https?|no)_proxy|PIP_(CERT|(EXTRA_)?INDEX_URL)|SSL_CERT_FILE", re.I)
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Step(NamedTuple):
    """A command that was run in a root, its duration and its end."""

    name: str
    seconds: float
    code: int
    last_line: str


def main() -> int:
    """Run the command line; see the module's docstring."""
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"default: {' '.join(SUITES)}")
    parser.add_argument(
        "--core", action="store_true", help="run the tests of what differs between systems alone"
    )
    parser.add_argument(
        "--arch", metavar="ARCH", help="Debian's name of a processor to emulate, such as arm64"
    )
    parser.add_argument(
        "--directory",
        metavar="DIRECTORY",
        help="keep the roots here; a root that is there is used again (default: a temporary one)",
    )
    args = parser.parse_args()
    if args.directory:
        Path(args.directory).mkdir(parents=True, exist_ok=True)
        return run_all(args, Path(args.directory).resolve())
    with tempfile.TemporaryDirectory(prefix="gru4rec-roots-") as directory:
        return run_all(args, Path(directory))


def run_all(args: argparse.Namespace, directory: Path) -> int:
    """Run the steps for every suite and print a table; return the exit code."""
    rows, failed = [], False
    chosen = EMULATED if args.arch else CORE if args.core else ()
    tests = shlex.join(["-n", "2", "--dist", "load" if args.arch else "loadfile", *chosen])
    for release in args.suites or SUITES:
        suite = f"{release}-{args.arch}" if args.arch else release
        root = directory / suite
        problem = make_root(release, root, args.arch)
        if problem:
            print(f"{suite}: no root can be made here ({problem}); left out", flush=True)
            rows.append([suite, "left out", "", "", ""])
            continue
        copy_project(root)
        with mounted(root) as problem:
            if problem:
                print(f"{suite}: nothing can run in a root here ({problem}); left out", flush=True)
                rows.append([suite, "left out", "", "", ""])
                continue
            versions = run(root, "python3 --version; g++ -dumpfullversion").split("\n")
            python, compiler = versions[0].replace("Python ", ""), versions[1]
            steps = [
                step(root, "make demo", "make demo"),
                step(root, "make test", f"make test PYTEST_ARGS={shlex.quote(tests)}"),
            ]
        failed |= any(s.code for s in steps)
        cells = [f"{'passed' if s.code == 0 else 'FAILED'} in {s.seconds:.0f} s" for s in steps]
        rows.append([suite, python, compiler, cells[0], f"{cells[1]}: {steps[1].last_line}"])
    print("\n| suite | Python | g++ | make demo | tests |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return int(failed)


# ---------------------------------------------------------------------------- roots


def make_root(suite: str, root: Path, arch: str | None = None) -> str | None:
    """Make a root, unless it is there; return why it cannot be made."""
    if (root / "made").exists():
        return None
    if os.geteuid() != 0:
        return "this needs root"
    if shutil.which("debootstrap") is None:
        return "debootstrap is not installed: apt-get install -y debootstrap"
    shutil.rmtree(root, ignore_errors=True)
    print(f"{suite}: making a root in {root}", flush=True)
    done = subprocess.run(
        [
            *("debootstrap", "--variant=minbase", f"--include={PACKAGES}"),
            *([f"--arch={arch}"] if arch else []),
            *(suite, str(root), MIRROR),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        emulated = "; emulating takes qemu-user-static and binfmt-support" if arch else ""
        return f"debootstrap: {(done.stdout.strip().splitlines() or ['no output'])[-1]}{emulated}"
    (root / "made").touch()
    return None


def copy_project(root: Path) -> None:
    """Copy the files that git knows or would add, and the host's addresses and certificates.

    Of an earlier copy nothing stays but its virtual environment, which `make setup` looks after.
    """
    target = root / "src"
    for old in target.iterdir() if target.exists() else ():
        if old.is_dir() and not old.is_symlink():
            if old.name != ".venv":
                shutil.rmtree(old)
        else:
            old.unlink()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    for file in (Path("/etc/resolv.conf"), Path("/etc/hosts"), CERTIFICATES):
        if file.exists():
            copy = root / file.relative_to("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())


@contextlib.contextmanager
def mounted(root: Path) -> Iterator[str | None]:
    """Mount what programs in a root expect for the block; yield why that is impossible, or None."""
    mounts = [
        ["-t", "proc", "proc", root / "proc"],
        ["--rbind", "/dev", root / "dev"],
        # else unmounting it would unmount what lies below the host's /dev, too
        ["--make-rslave", root / "dev"],
    ]
    done = []
    try:
        problem = None
        for arguments in mounts:
            command = ["mount", *map(str, arguments)]
            mount = subprocess.run(command, stderr=subprocess.PIPE, text=True)
            if mount.returncode:
                problem = " ".join(mount.stderr.split())
                break
            done.append(arguments[-1])
        yield problem
    finally:
        for path in dict.fromkeys(reversed(done)):
            subprocess.run(["umount", "--recursive", "--lazy", str(path)], check=False)


# ---------------------------------------------------------------------------- steps


def step(root: Path, name: str, command: str) -> Step:
    """Run a command in a root with its output visible."""
    print(f"\n{root.name}: {name}", flush=True)
    start = time.monotonic()
    process = _start(root, command, subprocess.PIPE)
    last = ""
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        last = line.strip() if re.search(r"\d (passed|failed)", line) else last
    code = process.wait()
    return Step(name, time.monotonic() - start, code, last.strip("= "))


def run(root: Path, command: str) -> str:
    """Return what a command in a root prints."""
    process = _start(root, command, subprocess.PIPE)
    return process.communicate()[0].strip()


def _start(root: Path, command: str, stdout: int) -> subprocess.Popen:
    emulated = [f"QEMU_CPU={QEMU_CPU}"] if root.name.endswith("-arm64") else []
    passed_on = [f"{name}={v}" for name, v in os.environ.items() if PASSED_ON.fullmatch(name)]
    return subprocess.Popen(
        [
            *("chroot", str(root), "env", "-i", "HOME=/root", "LANG=C.UTF-8"),
            *("PATH=/usr/sbin:/usr/bin:/sbin:/bin", *emulated, *passed_on),
            *("sh", "-c", f"cd /src && {command}"),
        ],
        stdout=stdout, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


if __name__ == "__main__":
    run_cli(lambda: sys.exit(main()))
