"""Estimates of training memory, to explain out-of-memory errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import numpy as np

from gru4rec_toolkit import theano_setup
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model import optimizers, weights
from gru4rec_toolkit.parameters import Values

# how numpy, CUDA and OpenCL say it
_NO_MEMORY = re.compile(r"out of memory|OUT_OF_MEMORY|ALLOCATION_FAILURE|OUT_OF_HOST|OUT_OF_RES")
FLOAT = 4  # bytes
# bytes an id of the store takes: the id, its number of copies, and, while the store is filled
# again, the old ones and what merging needs
ID_ON_CPU, ID_ON_GPU = 12, 24


def needed(settings: Values, n_items: int, n_store_ids: int) -> dict[str, int]:
    """Return the sizes of the large arrays that a training keeps on its device, in bytes."""
    shapes = weights.shapes(settings, n_items).values()
    n_weights = sum(np.prod(shape, dtype=float) for shape in shapes)
    copies = 1 + len(optimizers.STATES.get(settings.adapt or "", ())) + (settings.momentum > 0)
    on_cpu = theano_setup.configure().device == "cpu"
    ids = n_store_ids if settings.n_sample else 0
    # all steps of a window are kept until its gradient is known
    scores = 2 * settings.bptt * settings.batch_size * (settings.batch_size + settings.n_sample)
    return {
        "parameters": int(FLOAT * n_weights * copies),
        "store": ids * (ID_ON_CPU if on_cpu else ID_ON_GPU),
        "scores": FLOAT * scores,
    }


@contextlib.contextmanager
def explained(settings: Values, n_items: int, n_store_ids: int) -> Iterator[None]:
    """Turn an out-of-memory error into an InputError that says what needs how much."""
    try:
        yield
    except InputError:  # has said what it is, such as a compiler without memory
        raise
    except Exception as err:  # pygpu and Theano raise their own
        if not isinstance(err, MemoryError) and not _NO_MEMORY.search(str(err)):
            raise
        sizes = {name: _readable(n) for name, n in needed(settings, n_items, n_store_ids).items()}
        raise InputError(
            f"not enough memory on {theano_setup.configure().device}: the parameters of {n_items} "
            f"items with the optimizer's states take {sizes['parameters']} (layers, embedding, "
            f"adapt and momentum shrink them), the store of negatives up to {sizes['store']} "
            f"(sample_store, -ss), a mini-batch's scores {sizes['scores']} (batch_size, n_sample, "
            "bptt)"
        ) from err


def _readable(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"
