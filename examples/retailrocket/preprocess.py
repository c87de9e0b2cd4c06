"""retailrocket: the behaviour data of an e-commerce site, by Retailrocket.

Sessions: a visitor's events, cut where more than an hour lies between any two; after cutting only
views are kept. Test: the sessions of the last 7 days. Times are milliseconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.cli import preprocess_cli
from examples.preprocessing import Collector, DataSet, Events, cut, four_parts, sort
from examples.raw_files import RawFile, read_batches

COLUMNS = {
    "timestamp": "integer",
    "visitorid": "integer",
    "event": "text",
    "itemid": "integer",
}
FILES = (RawFile("events.csv", COLUMNS),)
HOME = "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset"
END = 1_442_545_200_000  # 2015-09-18 03:00 UTC


def prepare(directory: str) -> dict[str, Events]:
    import pyarrow.compute as pc

    events = Collector("retailrocket")
    for batch in read_batches(directory, FILES[0]):
        is_view = pc.equal(batch["event"].dictionary_decode(), "view")
        events.add(batch["visitorid"], batch["itemid"], batch["timestamp"], relevant=is_view)
    return four_parts(cut(sort(events.finish(ticks=1000)), gap=3_600_000), days=7, end=END)


DATA_SET = DataSet("retailrocket", HOME, FILES, prepare)

if __name__ == "__main__":
    preprocess_cli(DATA_SET)
