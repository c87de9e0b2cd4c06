"""Epochs of one or several trainings, as tables and curves show them."""

from __future__ import annotations

from collections.abc import Iterator

from gru4rec_toolkit.tracking.epochs import Epoch


class History:
    """Every epoch that a callback was told of, once, by the seeds of the trainings."""

    def __init__(self) -> None:
        self.by_seed: dict[int, list[Epoch]] = {}

    def add(self, epoch: Epoch) -> None:
        """Add an epoch.

        One that was there before, of a training that is repeated or goes on, takes the place of the
        earlier one; the later ones of its seed are dropped, since they will come again.
        """
        earlier = self.by_seed.get(epoch.seed, [])
        kept = [other for other in earlier if other.number < epoch.number]
        self.by_seed[epoch.seed] = [*kept, epoch]

    def __iter__(self) -> Iterator[Epoch]:
        """Yield the epochs in order, those of the first seed first."""
        for epochs in self.by_seed.values():
            yield from epochs

    def metric_names(self) -> list[str]:
        """Return the names of all metrics, in the order in which they first come."""
        return list(dict.fromkeys(name for epoch in self for name in epoch.metrics))

    def best(self, seed: int) -> Epoch | None:
        """Return the best epoch of a training, None without validation."""
        best = [epoch for epoch in self.by_seed[seed] if epoch.is_best]
        return best[-1] if best else None
