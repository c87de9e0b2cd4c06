"""coveo: the shopper intent data of a fashion shop, by Coveo.

Sessions as given, cut where more than an hour lies between any two events (of page views and of all
product actions); after cutting only the details of products are kept (product_action = detail), and
of these the ones that name a product. Test: the sessions of the last day. Times are milliseconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.cli import preprocess_cli
from examples.preprocessing import Collector, DataSet, Events, cut, four_parts, sort
from examples.raw_files import RawFile, read_batches

COLUMNS = {
    "session_id_hash": "text",
    "product_action": "text",
    "product_skus_hash": "text",
    "server_timestamp_epoch_ms": "integer",
}
FILES = (RawFile("release_10_23_2020.csv", COLUMNS),)
HOME = "https://github.com/coveooss/shopper-intent-prediction-nature-2020"


def prepare(directory: str) -> dict[str, Events]:
    import pyarrow.compute as pc

    events = Collector("coveo")
    for batch in read_batches(directory, FILES[0]):
        events.add(
            batch["session_id_hash"],
            batch["product_skus_hash"],
            batch["server_timestamp_epoch_ms"],
            relevant=pc.equal(batch["product_action"].dictionary_decode(), "detail"),
        )
    return four_parts(cut(sort(events.finish(ticks=1000)), gap=3_600_000), days=1)


DATA_SET = DataSet("coveo", HOME, FILES, prepare)

if __name__ == "__main__":
    preprocess_cli(DATA_SET)
