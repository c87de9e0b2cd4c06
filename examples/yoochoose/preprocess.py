"""yoochoose: the clicks of the RecSys Challenge 2015, its test sessions included.

Sessions as given. Test: the sessions of the last day. Times are seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.cli import preprocess_cli
from examples.preprocessing import Collector, DataSet, Events, four_parts, sort
from examples.raw_files import RawFile, read_batches

COLUMNS = {"session": "integer", "time": "ISO time", "item": "integer"}
NAMES = ("session", "time", "item", "category")
FILES = tuple(RawFile(f"yoochoose-{part}.dat", COLUMNS, NAMES) for part in ("clicks", "test"))
HOME = "https://www.kaggle.com/datasets/chadgostopp/recsys-challenge-2015"


def read_clicks(directory: str, files: tuple[RawFile, ...], name: str) -> Events:
    """Read click files of the challenge; times are milliseconds, to be written as seconds."""
    clicks = Collector(name)
    for file in files:
        for batch in read_batches(directory, file):
            clicks.add(batch["session"], batch["item"], batch["time"])
    return clicks.finish(ticks=1000, in_seconds=True)


def prepare(directory: str) -> dict[str, Events]:
    return four_parts(sort(read_clicks(directory, FILES, "yoochoose")), days=1)


DATA_SET = DataSet("yoochoose", HOME, FILES, prepare)

if __name__ == "__main__":
    preprocess_cli(DATA_SET)
