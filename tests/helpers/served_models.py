"""Small models of random weights, in which many items have the same row: for the service."""

from __future__ import annotations

from pathlib import Path

import numpy as np

N_ITEMS = 300
FIRST = 1000  # the id of the first item
XE = {"loss": "cross-entropy", "final_act": "softmax"}
SHAPES = {
    "numbers": {**XE, "layers": [8], "constrained_embedding": True},
    "texts": {**XE, "layers": [7, 5], "embedding": 6},
    "relu": {"layers": [8], "final_act": "relu", "hidden_act": "linear"},
    "elu": {"layers": [8], "final_act": "elu-0.5", "constrained_embedding": True},
}


def random_model(name: str, seed: int = 0):
    """Return a GRU4Rec; the ids of "texts" are strings."""
    from gru4rec import GRU4Rec, Network
    from gru4rec_toolkit.model import weights

    rng = np.random.default_rng(seed)
    gru = GRU4Rec(**SHAPES[name])
    arrays = weights.initial(gru.settings, N_ITEMS)
    for array in arrays.values():
        array[:] = rng.normal(0, 0.5, array.shape)
    same = rng.integers(0, N_ITEMS // 2, N_ITEMS)
    arrays["Wy"][:], arrays["By"][:] = arrays["Wy"][same], arrays["By"][same]
    ids = np.arange(FIRST, FIRST + N_ITEMS)
    if name == "texts":
        ids = np.array([f'{i:05d} "ß"' for i in ids], dtype=object)
    # the file of "relu" is one that does not tell how often items occurred
    support = None if name == "relu" else rng.integers(1, 20, N_ITEMS)
    gru.take(Network(gru.settings, arrays), ids, *([] if support is None else [support]))
    return gru


def exported(folder: Path, name: str, seed: int = 0) -> tuple:
    """Return a model and the file that it is exported to."""
    gru = random_model(name, seed)
    path = folder / f"{name}_{seed}.onnx"
    gru.export_onnx(str(path))
    return gru, path
