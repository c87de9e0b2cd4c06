"""diginetica: the item views of the CIKM Cup 2016, track 2.

Sessions as given. An event's time is its session's earliest date (midnight, UTC) plus its time
frame. Test: the sessions of the last 7 days. Times are milliseconds.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from examples.cli import preprocess_cli
from examples.preprocessing import Collector, DataSet, Events, four_parts, sort
from examples.raw_files import RawFile, read_batches
from gru4rec_toolkit.errors import InputError

COLUMNS = {
    "sessionId": "integer",
    "itemId": "integer",
    "timeframe": "integer",
    "eventdate": "date",
}
FILES = (RawFile("train-item-views.csv", COLUMNS, separator=";"),)
HOME = "https://competitions.codalab.org/competitions/11161"


def prepare(directory: str) -> dict[str, Events]:
    views, frames = Collector("diginetica"), []
    for batch in read_batches(directory, FILES[0]):
        if batch["timeframe"].null_count:
            raise InputError("the raw data has rows without a timeframe; download the file again")
        views.add(batch["sessionId"], batch["itemId"], batch["eventdate"])
        frames.append(batch["timeframe"].to_numpy())
    events = views.finish(ticks=1000)
    earliest = np.full(len(events.session_ids), np.iinfo(np.int64).max)
    np.minimum.at(earliest, events.session, events.time)
    time = earliest[events.session] + np.concatenate(frames)
    return four_parts(sort(replace(events, time=time)), days=7)


DATA_SET = DataSet("diginetica", HOME, FILES, prepare)

if __name__ == "__main__":
    preprocess_cli(DATA_SET)
