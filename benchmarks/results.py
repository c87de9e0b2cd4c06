"""Rows of a measurement for other programs: ``--json FILE`` of the measurements that have tables.

The file holds a list of objects, one for each row of what is printed, with numbers that have not
been rounded; what was measured in rounds is a list. It is written anew, whole, with every row, so
that what a measurement had found before it failed is there; one that finds nothing leaves the file
as it was.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from gru4rec_toolkit import files


class Results:
    """Rows that go to the file of ``--json``, if it is given.

    Parameters
    ----------
    args : argparse.Namespace
        Of a parser with `options.add_json`.

    Raises
    ------
    InputError
        If the file cannot be written, or is there and holds something else than rows.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.path, self.rows = args.json, []
        if self.path is not None:
            data = getattr(args, "data", None)
            inputs = {"the click log": data} if data else {}
            kind = "a file of rows"
            files.check_target("write rows", self.path, kind, _holds_rows, inputs, force=None)

    def add(self, **row: Any) -> None:
        """Add a row."""
        self.rows.append(row)
        if self.path is not None:
            files.write_text(self.path, _as_text(self.rows))


def _holds_rows(path: str) -> bool:
    """Tell whether a file is one of ours, to the last blank, or empty."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        rows = json.loads(content or b"[]")
    except (ValueError, RecursionError):
        return False
    ours = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    return ours and content in (b"", _as_text(rows).encode())


def _as_text(rows: list[dict]) -> str:
    return json.dumps(rows, indent=1)
