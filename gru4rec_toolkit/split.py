"""The command line of `data.splits`: a log becomes what comes before, and the test after it.

``python -m gru4rec_toolkit.split PATH -o DIRECTORY`` with one of ``--last N``, ``--from TIME`` and
``--sessions-from TIME`` writes ``before.tsv`` and ``after.tsv``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import IO, Any

from gru4rec_toolkit import arguments, files
from gru4rec_toolkit.errors import InputError, printable, run_cli

NAMES = ("before.tsv", "after.tsv")
ROWS_AT_ONCE = 1 << 18


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m gru4rec_toolkit.split``."""
    parser = arguments.Parser(
        prog="python -m gru4rec_toolkit.split",
        # argparse's own is wider than 80 columns
        usage="%(prog)s [-h] [options] PATH -o DIRECTORY\n"
        "       (--last N | --from TIME | --sessions-from TIME)",
        description="Split a click log into before.tsv and after.tsv, a test.",
    )
    parser.add_argument("path", metavar="PATH", help="click log, in any format that run.py reads")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument(
        "--last", metavar="N", type=int, help="the last N events of every session (or -uk user)"
    )
    way.add_argument(
        "--from", dest="events_from", metavar="TIME",
        help="all events from this time on; sessions are cut there",
    )  # fmt: skip
    way.add_argument(
        "--sessions-from", metavar="TIME", help="the sessions that start at this time or later"
    )
    parser.add_argument("-o", "--output", metavar="DIRECTORY", required=True, help="where to write")
    arguments.add_columns(parser)
    arguments.add_user_column(parser, help="--last is about users, and the column is kept")
    arguments.add_force(parser, help="replace before.tsv and after.tsv in DIRECTORY")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line program."""
    args = build_parser().parse_args(argv)
    if args.last is not None and args.last < 1:
        raise InputError(f"--last: expected a number of events, 1 or more, got {args.last}")
    from gru4rec_toolkit.data import events, sessions, splits

    named = arguments.given_columns(args)
    user_key = named.pop("user_key", None)
    keys = {"session_key": "SessionId", "item_key": "ItemId", "time_key": "Time", **named}
    for option in ("events_from", "sessions_from"):
        value = getattr(args, option)
        if value is not None:
            splits.as_time(value, "--from" if option == "events_from" else "--sessions-from")
    data = events.read_events(
        *(args.path, keys["session_key"], keys["item_key"], keys["time_key"]), user_key=user_key
    )
    if user_key is not None:
        sessions.check_users(data, {"session": keys["session_key"], "user": user_key}, args.path)
    columns = (keys["session_key"], keys["time_key"], args.path)
    if args.last is not None:
        owner = keys["session_key"] if user_key is None else user_key
        parts = splits.last_events(data, args.last, owner, *columns[1:])
    elif args.events_from is not None:
        parts = splits.events_from(data, args.events_from, *columns)
    else:
        parts = splits.sessions_from(data, args.sessions_from, *columns)
    # what is written looks like any other log, so that nothing tells whose a file is
    targets = {name: ("a part of the log", None) for name in NAMES}
    files.prepare_folder("-o", args.output, targets, {"the log": args.path}, args.force)
    paths = [os.path.join(args.output, name) for name in NAMES]
    try:
        with files.replacing_all(paths) as streams:
            for stream, part in zip(streams, parts):
                _write(stream, part, args.path)
    except OSError as err:
        raise InputError(
            f"-o {args.output}: cannot be written ({files.reason_of(err)}); make room, or give "
            "another directory"
        ) from None
    for path, part in zip(paths, parts):
        n = part[keys["session_key"]].nunique()
        print(printable(f"{path}: {len(part)} events of {n} session{'s' * (n != 1)}"))


def _header(columns: Any) -> bytes:
    return ("\t".join(map(str, columns)) + "\n").encode()


def _write(stream: IO[bytes], part: Any, source: str) -> None:
    """Write a table as `run.py` reads it: tabs between the columns, nothing is quoted."""
    stream.write(_header(part.columns))
    for start in range(0, len(part), ROWS_AT_ONCE):
        rows = part[start : start + ROWS_AT_ONCE]
        columns = [rows[name].astype(str).tolist() for name in part.columns]
        lines = "\n".join(map("\t".join, zip(*columns))) + "\n"
        n_separators = lines.count("\t"), lines.count("\n"), lines.count("\r")
        if n_separators != (len(rows) * (len(columns) - 1), len(rows), 0):
            raise InputError(
                f"{source}: an id holds a tab or the end of a line, which a .tsv cannot hold; take "
                "them out, or split the table in Python"
            )
        stream.write(lines.encode())


if __name__ == "__main__":
    run_cli(main)
