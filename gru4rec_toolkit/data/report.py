"""A report on a click log: what it looks like, and what in it ruins results.

``python -m gru4rec_toolkit.data.report PATH`` and ``run.py PATH --check`` print it, one line for
each of the `findings`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gru4rec_toolkit import arguments, messages
from gru4rec_toolkit.errors import printable, run_cli


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m gru4rec_toolkit.data.report``."""
    parser = arguments.Parser(
        prog="python -m gru4rec_toolkit.data.report",
        description="Say what a click log looks like, and warn of what ruins results.",
    )
    parser.add_argument(
        "path", metavar="PATH", help="training data, in any format that run.py reads"
    )
    arguments.add_test_sets(parser, help="test sets to go with it")
    arguments.add_columns(parser)
    arguments.add_user_column(parser, help="say how many sessions and events they have")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line program."""
    args = build_parser().parse_args(argv)
    report(args.path, args.test, **arguments.given_columns(args))


def report(
    path: str,
    tests: Sequence[str] = (),
    session_key: str = "SessionId",
    item_key: str = "ItemId",
    time_key: str = "Time",
    user_key: str | None = None,
) -> None:
    """Print what a log and the test sets to go with it look like, and what is wrong with them.

    Parameters
    ----------
    path : str
        Training data.
    tests : sequence of str
        Test sets; they are compared with the training data too.
    session_key, item_key, time_key : str
        Names of the columns.
    user_key : str, optional
        Name of the column of users, if there is one.

    Raises
    ------
    InputError
        A file cannot be used at all, or a session belongs to two users.
    """
    from gru4rec_toolkit.data import events, findings, sessions

    keys = (session_key, item_key, time_key)
    counts = {"warning": 0, "note": 0}
    train = None
    for name in (path, *tests):
        data = events.read_events(name, *keys, announce=False, user_key=user_key)
        log = findings.Log.of(data, keys)
        lines = f"{printable(name)}: {findings.describe(log)}".split("\n")
        if user_key is not None:
            users = sessions.check_users(data, {"session": session_key, "user": user_key}, name)
            lines.append(findings.describe_users(users, data[session_key]))
        _show(*lines)
        found = [*findings.findings(log)]
        found += findings.odd_items(log) if train is None else findings.compare(train, log)
        train = train or log
        for kind, text in found:
            counts[kind] += 1
            _show(f"{kind}: {text}")
    _show(", ".join(findings.count(n, kind) for kind, n in counts.items()))


def _show(*lines: str) -> None:
    for line in lines:
        print(messages.laid_out(printable(line), sys.stdout), flush=True)


def cli() -> None:
    """Entry point of ``python -m gru4rec_toolkit.data.report``."""
    run_cli(main)


if __name__ == "__main__":
    cli()
