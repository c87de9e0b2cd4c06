"""rsc15: the clicks of the RecSys Challenge 2015 as in the ICLR 2016 paper.

Not comparable with yoochoose: the challenge's test sessions are left out, events on the item of the
event before are kept, and there is one round of filtering: sessions of one event, then items with
fewer than 5, then sessions of one event. Test: the sessions whose last event falls in the last day
(at T - 86,400 s or later, T being the last event's time after filtering), without items that the
training data lacks. Validation: by the same rule, from the training data with its own last day.
Events at the same time keep the order of the raw file.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.cli import preprocess_cli
from examples.preprocessing import (
    DataSet,
    Events,
    drop_irrelevant,
    drop_rare_items,
    drop_short_sessions,
    sort,
    split_by_end,
)
from examples.yoochoose.preprocess import FILES, HOME, read_clicks
from gru4rec_toolkit.errors import InputError

DAY = 86_400_000  # ms


def prepare(directory: str) -> dict[str, Events]:
    clicks = drop_irrelevant(read_clicks(directory, DATA_SET.files, "rsc15"))
    clicks = sort(clicks, by_item=False)
    clicks = drop_short_sessions(drop_rare_items(drop_short_sessions(clicks)))
    if not len(clicks):
        raise InputError("no session is left after filtering; check that the file is complete")
    train_full, test = split_by_end(clicks, int(clicks.time.max()) - DAY)
    if not len(train_full):
        raise InputError("all sessions end in the last day, there is nothing to train on")
    train_tr, train_valid = split_by_end(train_full, int(train_full.time.max()) - DAY)
    return {
        "train_full": train_full,
        "test": test,
        "train_tr": train_tr,
        "train_valid": train_valid,
    }


DATA_SET = DataSet("rsc15", HOME, FILES[:1], prepare)

if __name__ == "__main__":
    preprocess_cli(DATA_SET)
