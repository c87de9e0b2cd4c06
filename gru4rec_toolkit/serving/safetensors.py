"""A trained model as a safetensors file: its weights by name, for other programs.

Tensors
    ``Wx0``, ``Wh0``, ``Wrz0``, ``Bh0``, ..., ``Wy``, ``By`` and ``E`` as `GRU4Rec` has them;
    ``support`` int64 (n_items,), if the model knows it; ``item_ids`` int64 (n_items,), or, of ids
    that are text, ``item_ids.utf8`` uint8 (all of them, one after the other) and
    ``item_ids.lengths`` int64 (n_items,) in bytes.
Metadata
    ``format``, ``version``, and ``parameters`` as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gru4rec_toolkit import container
from gru4rec_toolkit.parameters import Values

FORMAT, VERSION = "gru4rec-safetensors", 1


def serialized(
    settings: Values,
    arrays: Mapping[str, np.ndarray],
    item_ids: np.ndarray,
    support: np.ndarray | None,
) -> bytes:
    """Return the bytes of a safetensors file; the parameters are those of `exports.write`."""
    named: dict[str, np.ndarray] = {**container.encode("item_ids", item_ids), **arrays}
    if support is not None:
        named["support"] = support
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "parameters": json.dumps(settings.as_dict()),
    }
    tensors = {name: np.ascontiguousarray(array) for name, array in named.items()}
    return import_library().numpy.save(tensors, metadata)


def is_one(path: str) -> bool:
    """Tell whether a file is one that this module makes."""
    with import_library().safe_open(path, "np") as file:
        return (file.metadata() or {}).get("format") == FORMAT


def import_library() -> Any:
    """Import safetensors."""
    import safetensors
    import safetensors.numpy

    return safetensors
