"""Options that `reproduce.py` and every data set's `preprocess.py` share."""

from __future__ import annotations

import argparse


def add_directories(parser: argparse.ArgumentParser, written: str = "") -> None:
    """Add RAW_DIRECTORY and ``-o``; `written` says more of what is written there."""
    parser.add_argument("raw_directory", metavar="RAW_DIRECTORY", help="where the raw files are")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIRECTORY",
        help=f"where to write {written}(default: RAW_DIRECTORY)",
    )
