"""Everything that a release measures, its tables and its pictures, by one command.

    python -m benchmarks.release [-o FOLDER] [--data FILE] [--parts PART ...] [--port FOLDER]

Each part is a command of its own, ``python -m benchmarks.PART``; one after the other they take some
50 minutes on two cores, half an hour more with ``--port``, and need 3 GB
of memory and as much for temporary files. ``--quick`` takes sizes of seconds, which measure
nothing, but try all of it. The folder gets ``release.md``, whose tables are ready to go into
``benchmarks/README.md``, and pictures (PNG and SVG): the training's part of both limits, its speed
beside others, time and memory over the number of events. They are written after every part. A part
that fails or takes too long is reported with the end of what it said, and the rest goes on.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import pictures, system, tables
from benchmarks.parts import Result, Runner, environment
from gru4rec_toolkit import arguments, files, theano_setup
from gru4rec_toolkit.arguments import add_device
from gru4rec_toolkit.errors import run_cli
from gru4rec_toolkit.tracking.libraries import import_library

HEADING = "# Benchmarks of a release"
CELLS = (
    "All but `gpu` is computed on the CPU. Medians of interleaved rounds; in brackets the worst "
    "and the best round, where nothing else is said."
)
PORT = "official PyTorch port"
# a part that takes so many times as long as expected, and as many seconds, is ended
PATIENCE, LEAST_LIMIT = 6, 600


class Part(NamedTuple):
    """A measurement: the module of its name, its arguments, and what it takes on two cores.

    Attributes
    ----------
    name, title : str
    full, quick : str
        Arguments.
    seconds, quick_seconds : float
        Expected of the part, for the time that is left and for the longest time.
    note : str
        What its table's cells are.
    log : bool
        Whether it works on a click log, that of ``--data``.
    """

    name: str
    title: str
    full: str
    quick: str
    seconds: float
    quick_seconds: float
    note: str = ""
    log: bool = False


SMALL = "--events 3000 --items 200"
PARTS = {
    part.name: part
    for part in (
        Part("start", "Cold and warm start", "", f"{SMALL} --rounds 1", 90, 20),
        Part("training", "Training", "--rounds 5", "--rounds 1 rsc15", 1000, 15,
             log=True),
        Part("modes", "Modes", "", "--rounds 1 --steps 5", 120, 40, log=True),
        Part("threads", "Threads", "", "--rounds 1 --seconds 0.01 rsc15", 240, 10,
             "Speed of one thread, times so many; of the best rounds.", log=True),
        Part("ranking", "Ranking", "", "--rounds 1 --seconds 0.01", 30, 4),
        Part("data", "Data", "", "2000 10000 --items 500", 480, 10,
             "Each cell: seconds, MB kept, MB at the peak."),
        Part("reading", "Reading", "1000000 10000000", "2000 --items 50 --rounds 1", 240, 15,
             "Seconds of the processor; ratio and peak are those of the largest log."),
        Part("preprocessing", "Preprocessing", "1000000 5000000 10000000", "20000", 200, 8),
        Part("serving", "Serving", "", "60x4 90x3 --rounds 1", 150, 5,
             "Medians, in brackets 90th percentiles."),
        Part("gpu", "GPU", "--speed --rounds 5", "--speed --rounds 1 rsc15", 180, 40, log=True),
    )
}  # fmt: skip
# of the environment, what changes the speed
VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "THEANO_FLAGS")
# with the port, a training's part takes so many times as long
WITH_PORT = 3


class Picture(NamedTuple):
    """A picture of a part's rows."""

    name: str
    part: str
    draw: Callable
    caption: str


PICTURES = (
    Picture("limit", "training", pictures.limit, "Training beside its limits"),
    Picture("speed", "training", pictures.beside, "Training beside others"),
    Picture("data", "data", pictures.growth, "Time and memory over the number of events"),
)


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", metavar="FOLDER", default="build/benchmarks")
    parser.add_argument("--data", metavar="FILE", help="click log of training, modes and threads")
    parser.add_argument(
        "--parts", nargs="+", choices=list(PARTS), metavar="PART",
        help=f"{', '.join(PARTS)} (default: all, gpu where NVIDIA's driver lists a card)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="sizes of seconds, to try it")
    parser.add_argument("--port", metavar="FOLDER", help="it has the port's gru4rec_pytorch.py")
    parser.add_argument(
        "--port-python", metavar="PYTHON",
        help="an interpreter that has PyTorch (default: this one)",
    )  # fmt: skip
    add_device(parser, default="cuda0")
    parser.add_argument("--force", action="store_true", help="replace files of another kind, too")
    args = parser.parse_args()
    if args.port and not Path(args.port, "gru4rec_pytorch.py").exists():
        parser.error(f"--port: {args.port} has no gru4rec_pytorch.py")
    args.left_out = [] if args.parts or system.has_gpu() else ["gpu"]
    args.parts = args.parts or [name for name in PARTS if name not in args.left_out]
    if args.port and "training" not in args.parts:
        parser.error("--port: the port is measured in the part training, which is left out")
    import_library("matplotlib.figure", "python -m benchmarks.release: drawing", "matplotlib")
    theano_setup.check_device(args.device)
    if args.data is not None:
        from gru4rec_toolkit.data import events

        events.read_events(args.data, announce=False)
    prepare(args)
    with tempfile.TemporaryDirectory() as directory:
        release = Release(args, Path(directory))
        try:
            release.run()
        finally:  # an interrupt, too: what was measured until then is not lost
            release.runner.stop()
            report = release.write()
    print(report, end="")
    failed = [result for result in release.results.values() if result.problem]
    if failed:
        raise SystemExit(f"{len(failed)} part(s) failed; the report is in {release.path}")


def prepare(args: argparse.Namespace) -> None:
    """Make the folder, and find out whether its files can be written, and may be.

    Raises
    ------
    InputError
        If not; then no folder is left behind.
    """
    inputs = {"the click log": args.data} if args.data else {}
    targets = {"release.md": ("the report of a release", is_report)}
    for picture in PICTURES:
        for kind in pictures.FORMATS if picture.part in args.parts else ():
            is_ours = functools.partial(pictures.is_picture, kind=kind)
            targets[f"{picture.name}.{kind}"] = ("a picture of a release", is_ours)
    files.prepare_folder("-o", args.output, targets, inputs, args.force)


def is_report(path: str) -> bool:
    """Tell whether a file is a report of ours."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\n") == HEADING


class Release:
    """Runs the parts, and writes what is known of them.

    Parameters
    ----------
    args : argparse.Namespace
    directory : Path
        Of temporary files, those of the parts included.
    """

    def __init__(self, args: argparse.Namespace, directory: Path) -> None:
        self.args, self.directory = args, directory
        self.folder = Path(args.output)
        self.path = self.folder / "release.md"
        self.parts = [part for part in PARTS.values() if part.name in args.parts]
        self.others = [PORT] if args.port else []
        self.results: dict[str, Result] = {}
        self.current = ""
        self.drawn: list[Picture] = []
        self.runner = Runner()
        self.start = time.monotonic()
        self.described = [
            ", ".join(filter(None, [str(datetime.date.today()), system.describe_code()])),
            system.describe_machine(),
            system.describe_software(),
        ]
        given = [f"{name}={os.environ[name]}" for name in VARIABLES if os.environ.get(name)]
        self.described += [", ".join(given)] if given else []

    def run(self) -> None:
        """Run all parts."""
        env = environment(TMPDIR=str(self.directory))
        on_cpu = {"THEANO_FLAGS": ",".join(filter(None, [env.get("THEANO_FLAGS"), "device=cpu"]))}
        for i, part in enumerate(self.parts, 1):
            left = f"about {in_words(self.seconds_left())} left"
            tell(f"{i} of {len(self.parts)}: {part.name}; {left}")
            self.current = part.name
            command = [
                *(sys.executable, "-m", f"benchmarks.{part.name}", *self.arguments(part, True)),
                *("--json", str(self.rows_file(part.name))),
            ]
            limit = max(PATIENCE * self.expected(part), LEAST_LIMIT)
            changes = {} if part.name == "gpu" else on_cpu
            result = self.runner.run(part.name, command, limit, {**env, **changes})
            self.results[part.name] = result
            tell(f"{part.name}: {result.problem or 'done'} ({result.seconds:.0f} s)")
            self.write()

    def arguments(self, part: Part, absolute: bool = False) -> list[str]:
        """Return a part's arguments; with absolute paths, for another working directory."""
        args = self.args
        path = os.path.abspath if absolute else str
        words = (part.quick if args.quick else part.full).split()
        if part.log and args.data is not None:
            words += ["--data", path(args.data)]
        elif part.log and args.quick:
            words += SMALL.split()
        if part.name == "gpu":
            words += ["-d", args.device]
        if part.name == "training" and args.port:
            python = args.port_python or (sys.executable if absolute else "python")
            python = path(python) if os.sep in python else python
            port = shlex.join([python, "-m", "benchmarks.pytorch_port", path(args.port)])
            port = port.replace("{", "{{").replace("}", "}}")
            words += ["--other", f"{port} {{data}} {{port_parameters}} cpu"]
        return words

    def expected(self, part: Part) -> float:
        """Return the seconds that a part takes on two cores."""
        seconds = part.quick_seconds if self.args.quick else part.seconds
        return seconds * (WITH_PORT if part.name == "training" and self.args.port else 1)

    def seconds_left(self) -> float:
        """Estimate the seconds that are left from those of the parts that are done."""
        done = [(self.results[p.name].seconds, self.expected(p)) for p in self.parts
                if p.name in self.results and not self.results[p.name].problem]  # fmt: skip
        slower = sum(x for x, _ in done) / sum(x for _, x in done) if done else 1
        return slower * sum(self.expected(p) for p in self.parts if p.name not in self.results)

    def rows_file(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def rows(self, name: str) -> list[tables.Row]:
        """Return the rows that a part has found so far."""
        try:
            return json.loads(self.rows_file(name).read_text())
        except FileNotFoundError:  # it has not begun, or failed before it did
            return []

    # ------------------------------------------------------------------------ report

    def write(self) -> str:
        """Write the report and the pictures of what there is; return the report."""
        try:
            self.draw()
        finally:  # whatever keeps a picture from being written
            report = self.report()
            files.write_text(self.path, report)
        return report

    def draw(self) -> None:
        """Write the pictures of what there is, each of them once."""
        for picture in PICTURES:
            rows = self.rows(picture.part) if picture.part in self.args.parts else []
            if not rows or picture in self.drawn:
                continue
            others = [self.others] if picture.name == "speed" else []
            for kind in pictures.FORMATS:
                with files.replacing(self.folder / f"{picture.name}.{kind}") as file:
                    file.write(pictures.drawn(picture.draw, kind, rows, *others))
            self.drawn.append(picture)

    def report(self) -> str:
        """Return the report in Markdown."""
        seconds = time.monotonic() - self.start
        command = shlex.join(["python", "-m", "benchmarks.release", *sys.argv[1:]])
        lines = [HEADING, "", f"{'. '.join(self.described)}.", "", f"`{command}`: {seconds:.0f} s"]
        if self.args.quick:
            lines += ["", "**`--quick`: these sizes measure nothing.**"]
        lines += ["", *self.parts_table(), "", CELLS]
        for part in self.parts:
            rows = self.rows(part.name)
            if rows:
                lines += ["", *self.section(part, rows)]
        for result in self.results.values():
            if result.problem:
                lines += result.report()
        return "\n".join(lines) + "\n"

    def parts_table(self) -> list[str]:
        """Return a table of what became of the parts."""
        rows = []
        for part in self.parts:
            result = self.results.get(part.name)
            if result:
                rows.append([part.name, result.problem or "done", f"{result.seconds:.0f}"])
            else:
                was_running = part.name == self.current
                rows.append([part.name, "interrupted" if was_running else "not run", ""])
        rows += [[name, "left out: no card", ""] for name in self.args.left_out]
        return tables.markdown(["part", "result", "seconds"], rows)

    def section(self, part: Part, rows: list[tables.Row]) -> list[str]:
        """Return a part's command, table and pictures."""
        command = ["python", "-m", f"benchmarks.{part.name}", *self.arguments(part)]
        others = [self.others] if part.name == "training" else []
        lines = [f"### {part.title}", "", f"`{shlex.join(command)}`", ""]
        lines += [part.note, ""] if part.note else []
        lines += tables.TABLES[part.name](rows, *others)
        for picture in self.drawn:
            if picture.part == part.name:
                lines += ["", f"![{picture.caption}]({picture.name}.png)"]
        return lines


def in_words(seconds: float) -> str:
    """Return a duration as one says it."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_cli(main)
