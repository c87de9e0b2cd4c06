"""The GPU's kernels under oclgrind, which interprets them and watches every access to memory.

Each program runs twice: once for data races (those of writing the same value included), once for
uses of memory that nobody has written. Accesses out of bounds and barriers that not all threads of
a group reach are reported in both.
"""

from __future__ import annotations

import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gru4rec_toolkit.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
SHIM = Path(__file__).with_name("kernels_launches.cpp")
JOB = Path(__file__).with_name("kernels_job.py")
LIBRARY = "liboclgrind-rt.so"
DEVICE = "opencl0:0"

# oclgrind 21.10 can crash where a process takes everything down at its end, so it leaves at once
_LEAVE = """import os, sys, pytest
code = pytest.main(sys.argv[1:])
sys.stdout.flush()
os._exit(code)
"""
_PYTEST = (
    *("-c", _LEAVE, "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"),
    *("-o", "addopts=", "--hypothesis-seed=0", "--disable-warnings"),
)
_OPS = "tests/ops/test_ops.py"
# tests of Ops that together launch all kernels but those of the sampler
_ONE_OF_EACH = (
    "test_gather_out_of_range or test_outputs or test_log_q or test_look_ups_out_of_range or "
    "(test_update_of_rows and adam-True) or test_loss[bpr-max-elu-0.5-1.95] or test_gru[tanh] or "
    "test_activate[tanh] or (test_dropout and not independently) or test_count_ranks[tanh] or "
    "test_top_k[tanh]"
)
# without those whose sums in Theano's kernels oclgrind gives up: of what it does not know it says
# "Unsupported instruction"
PROGRAMS = ((*_PYTEST, _OPS, "-k", "not those_of_differences"), (str(JOB),))
QUICK = ((*_PYTEST, _OPS, "-k", _ONE_OF_EACH), (str(JOB), "--draws"))

RACES = {"OCLGRIND_DATA_RACES": "1", "OCLGRIND_UNIFORM_WRITES": "1"}
# a buffer must not get the number of one that was released: see kernels_launches.cpp; several
# threads of oclgrind would write to what it knows of memory at the same time
UNINITIALISED = {
    "OCLGRIND_UNINITIALIZED": "1", "KERNELS_KEEP": "1", "OCLGRIND_NUM_THREADS": "1",
}  # fmt: skip
SETTINGS = {
    # at "-O2", its default, oclgrind 21.10 meets instructions that it does not know
    "OCLGRIND_BUILD_OPTIONS": "-O1",
    "OCLGRIND_GLOBAL_MEM_SIZE": str(1 << 34),
    "OCLGRIND_MAX_ERRORS": "1000000",
    "THEANO_FLAGS": f"device={DEVICE}",
    "EXAMPLES": "3",
}

# how the first line of a report begins
KINDS = {
    "races": ("Read-write data race", "Write-write data race"),
    "uninitialised": ("Uninitialized", "Controlflow depends on uninitialized"),
    "out of bounds": ("Invalid read of size", "Invalid write of size", "Index ("),
    "divergent barriers": ("Work-group divergence",),
}
OTHER = "other"


@dataclass(frozen=True)
class Finding:
    """A report of oclgrind, without the addresses and the threads in which it can differ."""

    kernel: str
    kind: str
    text: str


@dataclass
class Findings:
    """What the programs have launched, and what oclgrind has reported."""

    launches: collections.Counter = field(default_factory=collections.Counter)
    reports: collections.Counter = field(default_factory=collections.Counter)

    def number(self, kernel: str, kind: str) -> int:
        return sum(n for f, n in self.reports.items() if (f.kernel, f.kind) == (kernel, kind))


def kernels() -> list[str]:
    """Return the names of all kernels of the project."""
    files = sorted((ROOT / "gru4rec_toolkit" / "ops").glob("*/gpu.cl"))
    return [name for f in files for name in re.findall(r"^KERNEL void (\w+)", f.read_text(), re.M)]


def read_log(lines: Iterable[str]) -> Iterator[Finding]:
    """Yield the reports of a log of oclgrind: a line, and indented ones after it."""
    report: list[str] = []
    for line in [*lines, "end"]:
        if line.startswith("OCLGRIND FATAL ERROR"):
            continue  # the next line says what it was, and in which kernel
        if line.strip() and not line[0].isspace():
            if report:
                yield _finding(report)
            report = []
        if line.strip():
            report.append(line.strip())


def _finding(report: list[str]) -> Finding:
    text = "\n".join(report)
    kernel = re.search(r"^Kernel: +(\w+)", text, re.M)
    kind = next((kind for kind, starts in KINDS.items() if text.startswith(starts)), OTHER)
    same = re.sub(r"0x[0-9a-f]+|\(\d+,\d+,\d+\)", "...", text)
    return Finding(kernel.group(1) if kernel else "", kind, same)


def watch(programs: Iterable[tuple[str, ...]]) -> Findings:
    """Run Python programs under oclgrind; what they print goes to standard error."""
    found = Findings()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        loading = _load_before_others(directory)
        for program in programs:
            for mode in (RACES, UNINITIALISED):
                log, launches = directory / "log", directory / "launches"
                log.write_text("")
                launches.write_text("")
                env = {**os.environ, **SETTINGS, **loading, **mode, "PYTHONPATH": str(ROOT)}
                env.update(OCLGRIND_LOG=str(log), KERNELS_LAUNCHES=str(launches))
                command = [sys.executable, *program]
                done = subprocess.run(command, env=env, cwd=ROOT, stdout=sys.stderr)
                found.launches.update(launches.read_text().split())
                with log.open(errors="replace") as lines:
                    found.reports.update(read_log(lines))
                if done.returncode:
                    raise ProgramFailed(found, program[-1], done.returncode)
    return found


class ProgramFailed(Exception):
    """A program that ended badly, with what was found until then."""

    def __init__(self, found: Findings, program: str, code: int) -> None:
        super().__init__(f"{program}: exit code {code}, the messages are above")
        self.found = found


def _load_before_others(directory: Path) -> dict[str, str]:
    """Return the variables that put our functions and oclgrind's library before the system's."""
    if shutil.which("oclgrind") is None:
        raise InputError(
            "the kernels are watched by oclgrind, which is not installed; "
            "install it with `apt-get install -y oclgrind`"
        )
    said = subprocess.run(["oclgrind", "env"], capture_output=True, text=True).stdout
    original = next(Path(p) for p in re.findall(r"[^:=\n]+", said) if Path(p).name == LIBRARY)
    # oclgrind's library bears the name of ours, so ours is linked with an empty one of another name
    empty, ours = directory / LIBRARY, directory / "libOpenCL.so"
    _link([f"-Wl,-soname,{LIBRARY}", "-x", "c++", os.devnull, "-o", str(empty)])
    _link(
        [
            *("-O1", "-fPIC", str(SHIM), f"-Wl,-soname,{ours.name}", "-o", str(ours)),
            *("-Wl,--no-as-needed", f"-L{directory}", f"-l:{LIBRARY}", "-ldl"),
        ]
    )
    return {"LD_LIBRARY_PATH": str(original.parent), "LD_PRELOAD": str(ours)}


def _link(arguments: list[str]) -> None:
    command = ["g++", "-shared", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"g++ could not link {arguments[-1]}: {done.stderr.strip()[-300:]}")


def table(found: Findings) -> str:
    """Return a table: kernel, launches, reports by kind."""
    kinds = [*KINDS, OTHER]
    lines = [f"| kernel | launches | {' | '.join(kinds)} |", "|" + " --- |" * (2 + len(kinds))]
    names = kernels()
    rows = [(name, [name]) for name in names]
    every = {*found.launches, *(f.kernel for f in found.reports)}
    rows.append(("of other projects", sorted(every - set(names))))
    for label, members in rows:
        cells = [sum(found.launches[m] for m in members)]
        cells += [sum(found.number(m, kind) for m in members) for kind in kinds]
        lines.append(f"| {label} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def problems(found: Findings) -> list[str]:
    """Return what is wrong with the project's kernels: reports, and kernels not launched."""
    names = kernels()
    by_name = sorted(found.reports.items(), key=lambda item: (item[0].kernel, item[0].text))
    texts = [
        f"{n} times: {finding.text}"
        for finding, n in by_name
        if finding.kernel in names or not finding.kernel
    ]
    missing = [name for name in names if not found.launches[name]]
    return texts + [f"{name} was not launched" for name in missing]
