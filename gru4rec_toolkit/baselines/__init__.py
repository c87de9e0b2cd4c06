"""Baselines of session-based recommendation, evaluated as GRU4Rec is. No Theano here.

``base`` is what they have in common, ``counting`` turns scores into ranks, ``arrays`` has what
NumPy lacks for ragged rows. The methods: ``lists`` (random, popularity), ``pairs`` (of items:
Markov, item-kNN), ``neighbours`` (sessions: S-kNN, V-SkNN).
"""

from __future__ import annotations

from gru4rec_toolkit.baselines.base import Baseline, Histories
from gru4rec_toolkit.baselines.lists import Popularity, Random, SessionPopularity
from gru4rec_toolkit.baselines.neighbours import SKNN, VSKNN
from gru4rec_toolkit.baselines.pairs import ItemKNN, Markov

# by the names that `run.py --baseline` takes; their parameters are in parameters.BASELINES
BASELINES: dict[str, type[Baseline]] = {
    method.name: method
    for method in (Random, Popularity, SessionPopularity, Markov, ItemKNN, SKNN, VSKNN)
}

__all__ = [
    "BASELINES",
    "SKNN",
    "VSKNN",
    "Baseline",
    "Histories",
    "ItemKNN",
    "Markov",
    "Popularity",
    "Random",
    "SessionPopularity",
]
