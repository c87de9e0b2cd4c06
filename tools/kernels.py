"""Checks of the GPU's kernels that need no GPU.

``python tools/kernels.py races [--quick]`` runs them under oclgrind (`kernels_races`) and
prints a table of launches, data races, uses of memory that nobody has written, accesses out of
bounds and divergent barriers. ``python tools/kernels.py registers [--summary]`` compiles
them for NVIDIA's architectures (`kernels_registers`) and prints a table of registers, spills,
shared memory and parameters.

Exit codes: 0 nothing was found; 1 something was, or a kernel was not launched; 2 something is
missing, named in one sentence.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import InputError, run_cli
from tools import kernels_races, kernels_registers


def main() -> None:
    """Command line: see the module's docstring."""
    parser = arguments.Parser(description="Check the GPU's kernels without a GPU.")
    commands = parser.add_subparsers(dest="command", required=True)
    races = commands.add_parser("races", help="run them under oclgrind")
    races.add_argument("--quick", action="store_true", help="each kernel in few launches")
    registers = commands.add_parser("registers", help="compile them for NVIDIA's architectures")
    registers.add_argument("--summary", action="store_true", help="a row a kernel")
    registers.add_argument(
        "--architectures",
        nargs="+",
        type=int,
        metavar="XY",
        default=kernels_registers.ARCHITECTURES,
        help="%(default)s",
    )
    args = parser.parse_args()
    if importlib.util.find_spec("pygpu") is None:
        raise InputError(
            "the kernels are launched by pygpu, which is not in this environment; "
            "install it with `make gpu-sim`"
        )
    if args.command == "races":
        found_something = watch(kernels_races.QUICK if args.quick else kernels_races.PROGRAMS)
    else:
        found_something = compile_all(args.architectures, args.summary)
    sys.exit(1 if found_something else 0)


def watch(programs: tuple) -> bool:
    """Print what oclgrind finds; return whether that is anything."""
    failure = None
    try:
        found = kernels_races.watch(programs)
    except kernels_races.ProgramFailed as err:
        found, failure = err.found, err
    print(kernels_races.table(found))
    problems = kernels_races.problems(found)
    if failure:
        problems.append(str(failure))
    return say(problems)


def compile_all(architectures: tuple[int, ...], summary: bool) -> bool:
    """Print what the kernels need on the architectures; return whether that is too much."""
    ptxas = kernels_registers.find_ptxas(architectures)
    found = kernels_registers.measure(kernels_registers.sources(), architectures, ptxas)
    print((kernels_registers.summary if summary else kernels_registers.table)(found))
    return say(kernels_registers.warnings(found))


def say(problems: list[str]) -> bool:
    """Print them on standard error; return whether there are any."""
    for problem in problems:
        print(f"\n{problem}", file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    run_cli(main)
