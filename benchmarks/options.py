"""Options that several measurements share, each of them once."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

MILLION = 1_000_000
MOST = 10**9  # of events, items, rounds
SIZES = (1 * MILLION, 5 * MILLION, 10 * MILLION, 50 * MILLION)


def add_names(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Add a list of parameter sets, by their data sets' names; `check_names` looks at it."""
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))


def check_names(
    parser: argparse.ArgumentParser, args: argparse.Namespace, names: Sequence[str]
) -> None:
    """End the program if a name is unknown."""
    if unknown := set(args.names) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(names)}")


def add_log(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `training.read_log`."""
    parser.add_argument("--data", metavar="FILE", help="click log, tab-separated")
    parser.add_argument("--events", type=positive, default=80_000, help="of a synthetic log")
    parser.add_argument("--items", type=positive, default=2_900, help="of a synthetic log")


def positive(text: str) -> int:
    """Return a number of an option that has to be 1 or more; for argparse."""
    # int() takes no more than 4,300 digits
    if not text.isdecimal() or len(text) > 10 or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(
            f"expected a whole number, 1 or more (up to {MOST}), got {text[:20]!r}"
        )
    return int(text)


def positive_float(text: str) -> float:
    """Return a finite number above 0; for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Add the sizes of synthetic logs: EVENTS and ``--items``."""
    parser.add_argument("events", nargs="*", type=positive, default=SIZES, help="numbers of events")
    parser.add_argument("--items", type=positive, default=MILLION, help="of the logs")


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add the directory for what may be large."""
    parser.add_argument("--directory", help="where to make the files, a temporary directory each")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the file of `results.Results`."""
    parser.add_argument("--json", metavar="FILE", help="where to write the rows for programs")


def add_rounds(parser: argparse.ArgumentParser, default: int, help: str | None = None) -> None:
    """Add the number of rounds, of which a table shows the medians."""
    parser.add_argument("--rounds", type=positive, default=default, help=help)
