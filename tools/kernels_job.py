"""Small trainings, rankings and top lists on a GPU: what `tools/kernels_races.py` watches.

They launch what the tests of single Ops (tests/ops/test_ops.py) do not, the sampler's kernels, and
all others as a whole step launches them. Usage: ``python tools/kernels_job.py [--draws]``; the
option leaves all but the sampler out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd

import evaluation
from gru4rec import GRU4Rec
from gru4rec_toolkit import theano_setup
from gru4rec_toolkit.ops.sampling.gpu import GpuSampler

# every loss, optimizer, way of embedding and activation comes up in one of them; not grad_cap,
# whose sums are kernels of libgpuarray in groups that oclgrind does not take
TRAININGS = (
    dict(loss="cross-entropy", final_act="softmax", adapt="adagrad", logq=1, n_sample=6),
    dict(loss="bpr-max", final_act="elu-0.5", adapt="adam", momentum=0.1, layers=[5, 4]),
    dict(
        loss="xe_logit",
        final_act="softmax_logit",
        adapt="rmsprop",
        smoothing=0.1,
        embedding=3,
        constrained_embedding=False,
    ),
    dict(loss="top1-max", final_act="tanh", adapt="adadelta", hidden_act="relu"),
    dict(loss="top1", final_act="linear", adapt=None, constrained_embedding=False),
    dict(loss="bpr", final_act="selu-1.1-1.6", lmbd=0.01, n_sample=0, hidden_act="elu-1"),
    dict(loss="bpr-max", final_act="leaky-0.1", momentum=0.1, n_sample=3),
)
SHARED = dict(layers=[5], batch_size=4, n_epochs=1, n_sample=300, sample_alpha=0.5, bpreg=1.0,
              constrained_embedding=True, dropout_p_embed=0.2, dropout_p_hidden=0.2)  # fmt: skip


def made_up_log(n_sessions: int) -> pd.DataFrame:
    """Return sessions of two to four events on 40 items."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 5, n_sessions)
    n = int(lengths.sum())
    sessions = np.repeat(np.arange(n_sessions), lengths)
    return pd.DataFrame(
        {"SessionId": sessions, "ItemId": rng.integers(0, 40, n), "Time": np.arange(n)}
    )


def draw_negatives() -> None:
    """Draw mini-batches of fewer and of more negatives than a group has threads."""
    support = np.random.default_rng(0).integers(1, 20, 50)
    for n_sample in (7, 600):
        for merge in (False, True):
            GpuSampler(support, 0.5, n_sample, seed=1).draw_on_device(2, merge)


def train_and_rank(log: pd.DataFrame, settings: dict) -> None:
    """Train a model, rank the log's events, and list the best items of its sessions."""
    model = GRU4Rec(**{**SHARED, **settings})
    model.fit(log)
    evaluation.evaluate_gpu(model, log, batch_size=5, cut_off=[3])
    model.recommend(log.groupby("SessionId")["ItemId"].agg(list).tolist(), k=3)


def main() -> None:
    theano_setup.configure()
    theano_setup.configure()
    draw_negatives()
    if "--draws" in sys.argv[1:]:
        return
    log = made_up_log(16)
    for settings in TRAININGS:
        train_and_rank(log, settings)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # oclgrind can crash where a process takes everything down at its end
