"""Models of made-up weights in the size of real ones, to measure the service with.

The vectors of items are made the way trained ones look: the items belong to clusters of Zipf
sizes, whose centers lie around fewer, coarser ones, a vector is its cluster's center with noise,
and the logarithm of an item's popularity (Zipf) is in its bias and, a little, in its length.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gru4rec_toolkit.parameters import HasParameters
from gru4rec_toolkit.serving import onnx

# an item's share of the variance that its topic, its cluster and itself explain
SHARES = (0.3, 0.4, 0.3)


def item_vectors(n_items: int, units: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw the vectors of items and their biases.

    Returns
    -------
    vectors : (n_items, units) float32 array
    biases : (n_items,) float32 array
    """
    rng = np.random.default_rng(seed)
    n_clusters = max(1, int(n_items**0.5))
    n_topics = max(1, int(n_clusters**0.5))
    of_topic, of_cluster, of_item = (np.sqrt(share, dtype=np.float32) for share in SHARES)
    topics = rng.standard_normal((n_topics, units), dtype=np.float32)
    centers = of_topic * topics[rng.integers(0, n_topics, n_clusters)]
    centers += of_cluster * rng.standard_normal((n_clusters, units), dtype=np.float32)
    sizes = 1 / np.arange(1, n_clusters + 1)
    clusters = rng.choice(n_clusters, n_items, p=sizes / sizes.sum())
    vectors = rng.standard_normal((n_items, units), dtype=np.float32)
    vectors *= of_item
    vectors += centers[clusters]
    popularity = np.log(1 / rng.permutation(np.arange(1, n_items + 1)))
    popularity = ((popularity - popularity.mean()) / popularity.std()).astype(np.float32)
    vectors *= (1 + 0.1 * popularity)[:, None] * np.float32(3 / units**0.5)
    return vectors, popularity


def random_model(n_items: int, units: int, seed: int = 0) -> bytes:
    """Return the bytes of an exported model with one layer and a shared embedding."""
    rng = np.random.default_rng(seed + 1)
    vectors, biases = item_vectors(n_items, units, seed)
    size = np.float32(1 / units**0.5)
    arrays = {
        "Wx0": size * rng.standard_normal((units, 3 * units), dtype=np.float32),
        "Wh0": size * rng.standard_normal((units, units), dtype=np.float32),
        "Wrz0": size * rng.standard_normal((units, 2 * units), dtype=np.float32),
        "Bh0": np.zeros(3 * units, dtype=np.float32),
        "Wy": vectors,
        "By": biases[:, None],
    }
    # a trained model answers with items like those of the session: the candidate is near the input
    arrays["Wx0"][:, :units] = np.eye(units, dtype=np.float32) + arrays["Wx0"][:, :units] / 4
    arrays["Bh0"][2 * units :] = 1  # the update gate: the last clicks matter most
    settings = HasParameters(
        layers=[units], loss="cross-entropy", final_act="softmax", constrained_embedding=True
    ).settings
    ids = 10_000_000 + 7 * np.arange(n_items)
    support = np.maximum(1, np.exp(2 * biases) * 5).astype(np.int64)
    return onnx.serialized(settings, arrays, ids, support)
