"""Trainings with several seeds: the arguments of each, and what their metrics have in common."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gru4rec_toolkit import parameters
from gru4rec_toolkit.errors import InputError

if TYPE_CHECKING:
    # a metric of an evaluation with its value, as in ("Recall@20", 0.71)
    Metrics = Sequence[tuple[str, float]]


def each(args: argparse.Namespace) -> list[argparse.Namespace]:
    """Return the arguments of each training of `run.py -ns`, which differ in seed and file names.

    Raises
    ------
    InputError
        If there are no such seeds.
    """
    first = args.settings.get("seed", parameters.defaults()["seed"])
    if args.n_seeds is None:
        of_several = os.path.join(args.checkpoint or "", _directory(first))
        if args.resume and os.path.isdir(of_several):
            raise InputError(
                f"--checkpoint {args.checkpoint}: -ns has made it, one directory for each seed; "
                f"give {of_several}, or -ns"
            )
        return [args]
    if first + args.n_seeds - 1 > parameters.LARGEST_SEED:
        raise InputError(
            f"-ns: {args.n_seeds} seeds from {first} on go beyond {parameters.LARGEST_SEED}, the "
            "largest one; begin with a smaller --seed"
        )
    trainings = []
    for seed in range(first, first + args.n_seeds):
        values = {**vars(args), "settings": {**args.settings, "seed": seed}}
        # the last line is the mean's
        values["log_primary_metric"] = False
        if args.save_model is not None:
            values["save_model"] = path_of(args.save_model, seed)
        if args.checkpoint is not None:
            values["checkpoint"] = os.path.join(args.checkpoint, _directory(seed))
        trainings.append(argparse.Namespace(**values))
    return trainings


def _directory(seed: int) -> str:
    return f"seed-{seed}"


def path_of(path: str, seed: int) -> str:
    """Return the path of one seed's file: ``dir/model.gru`` becomes ``dir/model-seed-42.gru``."""
    directory, name = os.path.split(path)
    root, extension = os.path.splitext(name)
    return os.path.join(directory, f"{root}-seed-{seed}{extension}")


def summary(found: Sequence[Mapping[str, Metrics]]) -> list[str]:
    """Return lines with mean and spread of every metric of every test set.

    Parameters
    ----------
    found : sequence of mappings of str to metrics
        Of each training, by the path of the test set.
    """
    lines = []
    for path in found[0]:
        lines.append(f"Over {len(found)} seeds on {path}: mean, standard deviation, range")
        for metrics in zip(*(results[path] for results in found)):
            values = [value for _, value in metrics]
            mean, deviation = mean_and_deviation(values)
            lines.append(
                f"{metrics[0][0]}: {mean:.6f} sd {deviation:.6f} "
                f"({min(values):.6f} to {max(values):.6f})"
            )
    return lines


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of a sample, and its standard deviation; 0 for a single value."""
    import statistics  # not at the top: every -h would wait for it

    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
