"""Train and evaluate on rsc15 as a Python program of your own would, beside the published results.

First make the data: ``python examples/rsc15/preprocess.py RAW_DIRECTORY``. Then
``python examples/rsc15/run_rsc15.py RAW_DIRECTORY``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.published import CUT_OFFS, comparison
from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import run_cli

# those of paramfiles/rsc15_xe_shared_100_best.py
PARAMETERS = {
    "loss": "cross-entropy",  # over the mini-batch's items and the additional negatives
    "final_act": "softmax",
    "constrained_embedding": True,  # the matrix of output items is the input embedding
    "embedding": 0,
    "layers": [100],
    "n_epochs": 10,
    "batch_size": 32,
    "dropout_p_embed": 0.1,
    "dropout_p_hidden": 0.0,
    "learning_rate": 0.1,
    "momentum": 0.0,
    "n_sample": 2048,  # additional negatives, drawn with probability support^sample_alpha
    "sample_alpha": 0.75,
    "bpreg": 0.0,
    "logq": 1.0,  # corrects the scores for how often an item is drawn as a negative
}


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", metavar="DIRECTORY", help="where preprocess.py wrote to")
    parser.add_argument("--epochs", type=int, help="fewer than the 10 of the published results")
    args = parser.parse_args()
    run(args.directory, args.epochs)


def run(directory: str, epochs: int | None) -> None:
    import evaluation
    from gru4rec import GRU4Rec
    from gru4rec_toolkit.data.events import read_events

    train = read_events(os.path.join(directory, "rsc15_train_full.tsv"))
    test = read_events(os.path.join(directory, "rsc15_test.tsv"))

    gru = GRU4Rec(**{**PARAMETERS, "n_epochs": epochs or PARAMETERS["n_epochs"]})
    gru.fit(train)
    recall, mrr = evaluation.evaluate_gpu(gru, test, cut_off=list(CUT_OFFS))

    print(comparison("rsc15", recall, mrr))


if __name__ == "__main__":
    run_cli(main)
