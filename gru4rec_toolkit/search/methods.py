"""Optuna's samplers and pruners by name, seeded so that a search that is resumed repeats itself."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from gru4rec_toolkit.errors import InputError, pip_install
from gru4rec_toolkit.search import space as space_
from gru4rec_toolkit.search.space import SearchParameter, grid_values

# combinations of a grid search; Optuna lists them all
LARGEST_GRID = 100_000
# values of one parameter; Optuna's sampler gp lists them in every trial
MOST_VALUES = 1_000_000
# package that a sampler needs beside Optuna
NEEDS = {"gp": ("torch", "scipy")}


def check_sampler(name: str, space: Sequence[SearchParameter]) -> None:
    """Find out before the first trial whether a sampler can work.

    Raises
    ------
    InputError
        If a package is missing, or the space has no (or too large a) grid.
    """
    for package in NEEDS.get(name, ()):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"--sampler {name} needs the package {package}; install it with "
                f"`{pip_install(package)}`, or choose tpe, random or grid"
            )
    if name == "grid":
        grid_size(space)
    if name == "gp":
        for parameter in space:
            n_values = parameter.n_values() or 0
            if n_values > MOST_VALUES:
                raise InputError(
                    f"{parameter.where}: {parameter.name} has {n_values:,} values, but --sampler "
                    f"gp takes {MOST_VALUES:,} at most; make the step longer, or choose another "
                    "--sampler"
                )


def make_sampler(name: str, seed: int, space: Sequence[SearchParameter]) -> BaseSampler:
    """Return a sampler: tpe, random, gp or grid.

    With the same seed, a trial's suggestions follow from its place and the trials before it alone.
    So one job repeats a search, even an interrupted one, and workers do not repeat each other.
    """
    if name == "grid":
        # its seed orders the grid, in the same way for all workers; the trial's number is the place
        values = grid_values(space, LARGEST_GRID)
        return optuna.samplers.GridSampler(values, seed=seed)
    make: dict[str, Callable[[int], BaseSampler]] = {
        # the liar keeps parallel trials apart
        "tpe": lambda s: optuna.samplers.TPESampler(seed=s, constant_liar=True),
        "random": lambda s: optuna.samplers.RandomSampler(seed=s),
        "gp": lambda s: optuna.samplers.GPSampler(seed=s),
    }
    return SeededByTrial(make[name], seed)


def grid_size(space: Sequence[SearchParameter]) -> int:
    """Return the number of points of a space's grid."""
    return space_.grid_size(space, LARGEST_GRID)


class SeededByTrial(BaseSampler):
    """Sampler that is made anew for every trial, with a seed of the trial's place.

    Optuna's samplers begin their random numbers anew in every process: a search that goes on in
    another process would suggest what it suggested at its beginning.

    Parameters
    ----------
    make : callable
        Makes the sampler from a seed.
    seed : int
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self.make, self.seed = make, seed
        self._of_thread = threading.local()

    def _of(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> BaseSampler:
        mine = self._of_thread
        if getattr(mine, "number", None) != trial.number:
            # a retry of a killed worker's trial takes a number, but no place in the sequence
            first = trial.system_attrs.get("failed_trial", trial.number)
            retries = sum(
                t.number < first and "failed_trial" in t.system_attrs
                for t in study.get_trials(deepcopy=False)
            )
            sequence = np.random.SeedSequence([self.seed, first - retries])
            mine.sampler = self.make(int(sequence.generate_state(1)[0]))
            mine.number = trial.number
        return mine.sampler

    def infer_relative_search_space(self, study, trial) -> dict[str, Any]:
        return self._of(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(self, study, trial, search_space) -> dict[str, Any]:
        return self._of(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(self, study, trial, name, distribution) -> Any:
        return self._of(study, trial).sample_independent(study, trial, name, distribution)

    def before_trial(self, study, trial) -> None:
        self._of(study, trial).before_trial(study, trial)

    def after_trial(self, study, trial, state, values) -> None:
        self._of(study, trial).after_trial(study, trial, state, values)


def make_pruner(name: str, most_epochs: int) -> optuna.pruners.BasePruner:
    """Return a pruner: none, median or hyperband.

    Parameters
    ----------
    name : str
    most_epochs : int
        Epochs of the longest training, hyperband's largest resource.
    """
    if name == "median":
        return optuna.pruners.MedianPruner()
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=most_epochs)
    return optuna.pruners.NopPruner()
