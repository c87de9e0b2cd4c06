"""rees46: the views of a multi-category shop in October and November 2019.

Sessions: a user's views, cut where more than an hour lies between two. Test: the sessions of the
last day of November. Times are seconds. The raw files have 110 million rows: they are read as a
stream, of which some 13 bytes an event are kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.cli import preprocess_cli
from examples.preprocessing import Collector, DataSet, Events, cut, four_parts, sort
from examples.raw_files import RawFile, read_batches

COLUMNS = {
    "event_time": "UTC time",
    "event_type": "text",
    "product_id": "integer",
    "user_id": "integer",
}
FILES = tuple(RawFile(f"2019-{month}.csv", COLUMNS) for month in ("Oct", "Nov"))
HOME = "https://www.kaggle.com/datasets/mkechinov/ecommerce-behavior-data-from-multi-category-store"
END = 1_575_158_400  # 2019-12-01 00:00 UTC


def prepare(directory: str) -> dict[str, Events]:
    import pyarrow.compute as pc

    views = Collector("rees46")
    for file in FILES:
        for batch in read_batches(directory, file):
            batch = batch.filter(pc.equal(batch["event_type"].dictionary_decode(), "view"))
            views.add(batch["user_id"], batch["product_id"], batch["event_time"])
    return four_parts(cut(sort(views.finish(ticks=1)), gap=3600), days=1, end=END)


DATA_SET = DataSet("rees46", HOME, FILES, prepare)

if __name__ == "__main__":
    preprocess_cli(DATA_SET)
