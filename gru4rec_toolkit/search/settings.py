"""Settings of a search, and which of them a study keeps from run to run."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.search.space import SearchParameter


@dataclass(frozen=True)
class Settings:
    """The checked command line.

    Attributes
    ----------
    train, test : str
        Training data and the data that trials are measured on.
    space : sequence of SearchParameter
    fixed : dict of str
        The other parameters, as texts of a parameter string.
    metric, length : str, int
        recall or mrr, of lists of that length.
    eval_type, model : str
        Options ``-e`` and ``-g`` of run.py.
    columns : dict of str
        Parameters that name columns (``item_key``), where they are not the defaults.
    n_trials : int
        The study's trials in total.
    storage, study : str
    results : Path
        Directory of the results and the logs.
    devices : sequence of (str or None)
        One a job; None leaves the choice to `theano_flags`.
    threads : int or None
        Threads of each training; None leaves the choice to it.
    theano_flags : str
    sampler, pruner : str
    seed, heartbeat, max_failures : int
    most_epochs : int
    verbose : bool
        Whether trainings log in detail.
    """

    train: str
    test: str
    space: Sequence[SearchParameter]
    fixed: dict[str, str]
    metric: str
    length: int
    eval_type: str
    model: str
    columns: dict[str, str]
    n_trials: int
    storage: str
    study: str
    results: Path
    devices: Sequence[str | None]
    threads: int | None
    theano_flags: str
    sampler: str
    pruner: str
    seed: int
    heartbeat: int
    max_failures: int
    most_epochs: int
    verbose: bool = False

    @property
    def metric_name(self) -> str:
        return f"{self.metric}@{self.length}"

    def environment(self, device: str | None) -> dict[str, str]:
        """Return the environment variables of a training on a device."""
        flags = [os.environ.get("THEANO_FLAGS", ""), self.theano_flags]
        flags += [f"device={device}"] if device else []
        # of flags that are given twice Theano takes the last
        environment = {"THEANO_FLAGS": ",".join(filter(None, flags))}
        if self.threads is not None:
            environment["OPENBLAS_NUM_THREADS"] = str(self.threads)
        return environment


def describe(settings: Settings) -> dict[str, Any]:
    """Return what a study has to keep from one run to the next, by the options that say it."""
    return {
        "PATH": _digest(settings.train),
        "TEST_PATH": _digest(settings.test),
        "-fp": dict(sorted(settings.fixed.items())),
        "-m, -pm": settings.metric_name,
        "-e": settings.eval_type,
        "-g": Path(settings.model).name,
        "-ik, -sk, -tk, -uk": settings.columns,
        # the longest one last: Optuna's dashboard shows the first 1024 characters
        "-opf": [parameter.as_json() for parameter in settings.space],
    }


def _digest(path: str) -> str:
    """Identify data by its content: another machine may have it elsewhere."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError as err:
        raise InputError(f"{path}: {err.strerror}; check the path") from None
    return digest.hexdigest()


def difference(before: Any, now: Any) -> str:
    """Say how two values of `describe` differ."""

    def show(value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
            return f"data with SHA-256 {value[:12]}..."
        return str(value)

    if isinstance(before, dict) and isinstance(now, dict):
        names = [n for n in {**before, **now} if before.get(n) != now.get(n)]
        before = {n: before[n] for n in names if n in before}
        now = {n: now[n] for n in names if n in now}
    if isinstance(before, list) and isinstance(now, list):
        before, now = [p for p in before if p not in now], [p for p in now if p not in before]
    return f"it was {show(before)}, now it is {show(now)}"
