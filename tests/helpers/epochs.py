"""Epochs of made-up trainings."""

from __future__ import annotations

import math

from gru4rec_toolkit.tracking.epochs import Epoch


def made_epochs(
    n_epochs: int = 3,
    seed: int = 42,
    lengths: tuple[int, ...] = (20,),
    n_replayed: int = 0,
    best: int | None = None,
    loss: float = 5.0,
) -> list[Epoch]:
    """Return the epochs of a training whose metrics grow until the best epoch, the last one."""
    best = n_epochs if best is None else best
    return [
        Epoch(
            number=i,
            n_epochs=n_epochs,
            seed=seed,
            loss=loss + math.exp(-i) + seed / 1000,
            seconds=0.1 + i / 3,
            n_steps=100 * i,
            n_events=3200 * i,
            metrics={
                f"{name}@{n}": share * n / 50 * (1 - math.exp(-i)) - 0.01 * max(0, i - best)
                for n in lengths
                for name, share in (("Recall", 0.7), ("MRR", 0.3))
            },
            is_best=bool(lengths) and i <= best,
            is_replay=i <= n_replayed,
        )
        for i in range(1, n_epochs + 1)
    ]


def tell(callback, epochs) -> None:
    """Call a callback with epochs one after the other."""
    for epoch in epochs:
        callback(epoch)
