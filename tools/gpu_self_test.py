"""Opens a device, trains a small model on it and evaluates it: ``python gpu_self_test.py cuda0``.

The toolkit has to be importable. A model that has learnt nothing ends the program with exit code 1.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from gru4rec_toolkit import errors, theano_setup

N_SESSIONS, LENGTH, N_ITEMS = 60, 4, 12


def main() -> None:
    print(" ", theano_setup.configure(sys.argv[1]))
    import evaluation
    from gru4rec import GRU4Rec

    # every item is followed by the next one
    rng = np.random.default_rng(0)
    n = N_SESSIONS * LENGTH
    events = pd.DataFrame({"SessionId": np.repeat(np.arange(N_SESSIONS), LENGTH)})
    events["Time"] = np.arange(n)
    first = rng.integers(0, N_ITEMS, N_SESSIONS)
    events["ItemId"] = (first[:, None] + np.arange(LENGTH)).ravel() % N_ITEMS
    gru = GRU4Rec(layers=[16], batch_size=8, n_epochs=8, n_sample=16, constrained_embedding=True)
    gru.fit(events)
    recall, _ = evaluation.evaluate_gpu(gru, events, cut_off=[1])
    if not recall[0] > 0.9:
        sys.exit(f"the model has learnt nothing: Recall@1 is {recall[0]} of 1")
    print("  a small model was trained and evaluated")


if __name__ == "__main__":
    errors.run_cli(main)
