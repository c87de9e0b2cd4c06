"""One command for a real card: is it right there, and how fast is it?

    python -m benchmarks.gpu_check [-d cuda0] [--port FOLDER] [-o gpu_check.md] [NAME ...]

Parts: a small training, the tests of the kernels, ten trajectories of the reference, and the
training speed with the parameters of six public data sets, beside that of the official PyTorch port
where its folder is given. A part that fails or takes too long is reported, and the rest goes on.
The report is in Markdown, ready to go into ``benchmarks/README.md``.

What checks results runs side by side, each part with a directory of its own for compiled code, so
that no part waits for another's compiler, and compiles what the speed needs. Speeds are measured
one by one.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import importlib.util
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks import options
from benchmarks.parts import Result, Runner, environment
from benchmarks.system import describe_software
from benchmarks.training import NAMES, ROOT, Other, read_log
from gru4rec_toolkit import arguments, files
from gru4rec_toolkit.arguments import add_device
from gru4rec_toolkit.errors import run_cli

GOLDEN = (
    *("xe_shared_negatives_logq", "xe_separate", "xe_onehot", "bprmax_elu", "bprmax_onehot"),
    *("top1max", "two_layers_shared", "momentum", "grad_cap", "rmsprop"),
)
GOLDEN_A_PART = 2
KERNEL_TESTS, KERNEL_PARTS = "tests/ops/test_ops.py", 6
PARTS = ("training", "kernels", "golden", "speed")
TESTS = ("-q", "-p", "no:cacheprovider", "-o", "addopts=")


class Part(NamedTuple):
    """A command and the longest time that it may take, in seconds."""

    name: str
    command: list[str]
    limit: float


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    options.add_names(parser, NAMES)
    add_device(parser, default="cuda0")
    options.add_log(parser)
    options.add_rounds(parser, 5)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        metavar="PART",
        help=", ".join(PARTS),
    )
    parser.add_argument("--port", metavar="FOLDER", help="it has the port's gru4rec_pytorch.py")
    parser.add_argument(
        "--minutes", type=options.positive_float, default=8, help="that all may take"
    )
    parser.add_argument("-o", "--output", default="gpu_check.md", help="the report")
    args = parser.parse_args()
    options.check_names(parser, args, NAMES)
    if args.port and not Path(args.port, "gru4rec_pytorch.py").exists():
        parser.error(f"--port: {args.port} has no gru4rec_pytorch.py")
    args.names = args.names or list(NAMES)
    # before minutes on a card that is lent
    files.check_target("write the report", args.output, "report", lambda path: True)
    with tempfile.TemporaryDirectory() as directory:
        check = Check(args, Path(directory))
        try:
            check.run()
        finally:  # an interrupt, too: what was found out until then is not lost
            check.stop()
            report = check.report()
            files.write_text(args.output, report.text)
    print(report.text)
    if report.failed:
        raise SystemExit(f"{report.failed} part(s) failed; the report is in {args.output}")


class Report(NamedTuple):
    """The report, and how many parts failed."""

    text: str
    failed: int


class Check:
    """Runs the parts within the time that is left."""

    def __init__(self, args: argparse.Namespace, directory: Path) -> None:
        self.args, self.directory = args, directory
        self.start = time.monotonic()
        self.ends = self.start + 60 * args.minutes
        self.device = ["-d", args.device]
        self.sizes = ["--events", str(args.events), "--items", str(args.items)]
        if args.data:
            self.sizes = ["--data", args.data]
        self.results: list[Result] = []
        self.speeds: list[Result] = []
        self.rows: dict[str, list[str]] = {}
        self.ports: dict[str, float | None] = {}
        self.runner = Runner()

    def stop(self) -> None:
        """End what is running, with the compilers that it has started, and begin nothing more."""
        self.ends = 0
        self.runner.stop()

    def run(self) -> None:
        """Run all parts."""
        # what checks may take a bit more than half of the time, cold compilers included
        listed, kernels = self.kernel_tests() if "kernels" in self.args.parts else ([], [])
        checks = self.checks(kernels, 0.55 * 60 * self.args.minutes)
        self.results += listed
        with concurrent.futures.ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as pool:
            try:
                for result in pool.map(self.run_part, checks):
                    self.results.append(result)
            except BaseException:
                self.stop()  # the pool waits for its threads
                raise
        if "speed" in self.args.parts:
            for name in self.args.names:
                result = self.run_part(self.speed(name, self.args.rounds, 60))
                self.speeds.append(result)
                found = [x for x in result.output.splitlines() if x.startswith(f"| {name} |")]
                self.rows[name] = found
            for name in self.args.names if self.args.port else ():
                result, self.ports[name] = self.run_port(name)
                self.speeds.append(result)

    def kernel_tests(self) -> tuple[list[Result], list[list[str]]]:
        """Return the groups of the kernels' tests; or, why they cannot be listed."""
        command = [sys.executable, "-m", "pytest", *TESTS, "--collect-only", KERNEL_TESTS]
        listed = self.run_part(Part("list of kernels", command, 60))
        if listed.problem:
            return [listed], []
        names = [x for x in listed.output.splitlines() if x.startswith(f"{KERNEL_TESTS}::")]
        size = -(-len(names) // KERNEL_PARTS)
        return [], [names[i : i + size] for i in range(0, len(names), size)]

    def checks(self, kernels: list[list[str]], limit: float) -> list[Part]:
        """Return the parts that check results, and those that compile for the speed."""
        python = sys.executable
        parts = {
            "training": [Part("a small training", [
                python, str(ROOT / "tools" / "gpu_self_test.py"), self.args.device], limit)],
            "kernels": [
                Part(f"tests of kernels, {i}", [python, "-m", "pytest", *TESTS, *names], limit)
                for i, names in enumerate(kernels, start=1)
            ],
            "golden": [
                Part(
                    f"trajectories {', '.join(cases)}",
                    [python, "-m", "pytest", *TESTS]
                    + [f"tests/test_golden.py::test_trajectory[{case}]" for case in cases],
                    limit,
                )
                for cases in (
                    GOLDEN[i : i + GOLDEN_A_PART] for i in range(0, len(GOLDEN), GOLDEN_A_PART)
                )
            ],
            "speed": [
                self.speed(name, 1, limit)._replace(name=f"compilation for {name}")
                for name in self.args.names
            ],
        }  # fmt: skip
        return [part for name in self.args.parts for part in parts[name]]

    def speed(self, name: str, rounds: int, limit: float) -> Part:
        command = [sys.executable, "-m", "benchmarks.gpu", *self.device, *self.sizes, "--speed"]
        return Part(f"speed of {name}", [*command, "--rounds", str(rounds), name], limit)

    def run_part(self, part: Part) -> Result:
        """Run a command within its time and what is left of all."""
        if "pytest" in part.command and not importlib.util.find_spec("pytest"):
            return Result(part.name, "left out: pytest is not installed", 0, "")
        limit = min(part.limit, self.ends - time.monotonic())
        if limit <= 0:
            return Result(part.name, "left out: no time was left", 0, "")
        # a data set's compilation and its speed end with its name
        compiled = self.directory / part.name.split()[-1]
        flags = f"device={self.args.device},base_compiledir={compiled}"
        env = environment(THEANO_FLAGS=flags)
        result = self.runner.run(part.name, part.command, limit, env)
        print(f"{result.name}: {result.problem or 'passed'} ({result.seconds:.0f} s)", flush=True)
        return result

    def run_port(self, name: str) -> tuple[Result, float | None]:
        """Run the PyTorch port; also return its mini-batches per second."""
        kind, number = self.args.device[:4], self.args.device[4:] or "0"
        device = f"cuda:{number}" if kind == "cuda" else "cpu"
        folder = str(Path(self.args.port).resolve()).replace("{", "{{").replace("}", "}}")
        command = [sys.executable, "-m", "benchmarks.pytorch_port", folder]
        command += ["{data}", "{port_parameters}", device]
        port = Other(command, name, read_log(self.args), self.directory)
        result = self.run_part(Part(f"PyTorch port, {name}", port.command, 45))
        speed = None if result.problem else port.speed(result.output)
        if not result.problem and speed is None:
            result = result._replace(problem="failed: it printed no speed")
        return result, speed

    def report(self) -> Report:
        """Return the report in Markdown, of what has been run so far."""
        speeds, results = self.speeds, [*self.results, *self.speeds]
        failed = [result for result in results if result.problem]
        device = next(
            (
                line
                for r in speeds
                for line in r.output.splitlines()
                if line.endswith(f"({self.args.device})")
            ),
            self.args.device,
        )
        lines = [f"### {device}", "", f"{datetime.date.today()}, {describe_software()}.", ""]
        lines += ["| part | result | seconds |", "| --- | --- | --- |"]
        for result in results:
            counts = result.output.strip().splitlines()[-1:] if "tests of" in result.name else []
            passed = counts[0].strip("= ") if counts and " passed" in counts[0] else "passed"
            lines.append(f"| {result.name} | {result.problem or passed} | {result.seconds:.0f} |")
        if speeds:
            lines += ["", *self.table(self.rows, self.ports)]
        for result in failed:
            lines += result.report()
        seconds = time.monotonic() - self.start
        lines += [
            "",
            f"`python -m benchmarks.gpu_check {shlex.join(sys.argv[1:])}`: {seconds:.0f} s",
        ]
        return Report("\n".join(lines) + "\n", len(failed))

    def table(self, rows, ports) -> list[str]:
        """Return the table of speeds."""
        data = self.args.data or f"{self.args.events} synthetic events on {self.args.items} items"
        columns = (
            "| parameters | mini-batch x units | mini-batches/s | events/s | nodes | transfers |"
        )
        port = " port, mini-batches/s | times as fast |" if ports else ""
        table = [f"Training on {data}:", "", columns + port]
        table.append("|" + " --- |" * (table[-1].count("|") - 1))
        for name, (row, *_) in ((name, found) for name, found in rows.items() if found):
            speed = ports.get(name)
            if ports and speed:
                row += f" {speed:.1f} | {float(row.split('|')[3].split()[0]) / speed:.2f} |"
            elif ports:
                row += " | |"
            table.append(row)
        return table


if __name__ == "__main__":
    run_cli(main)
