"""What a search leaves for people: a table of the best trials, results.tsv, a paramfile, plots."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import parameters
from search_space import SearchParameter, aligned
from user_errors import InputError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

RESULTS, BEST = "results.tsv", "best_parameters.py"
# in the attribute `reason` of trials that were begun at the same moment as a study's last ones
NOT_NEEDED = "not needed: other workers had the last trials already"
_NO_SIGN = "its worker gave no sign of life any more"


def texts(trial: FrozenTrial, space: Sequence[SearchParameter]) -> dict[str, str]:
    """Return a trial's parameters as its training got them."""
    return {p.name: p.text(trial.params[p.name]) for p in space if p.name in trial.params}


def is_good(trial: FrozenTrial) -> bool:
    """Whether a trial counts: it is complete or was pruned."""
    return trial.state.name in ("COMPLETE", "PRUNED")


def best_first(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the complete trials, the best first; the earlier one of equals."""
    complete = [t for t in trials if t.state.name == "COMPLETE"]
    return sorted(complete, key=lambda t: (-t.value, t.number))


def best_table(
    trials: Sequence[FrozenTrial], space: Sequence[SearchParameter], metric: str, most: int = 5
) -> str:
    """Return the best trials as a table with their metric and parameters."""
    rows = [("BEST", "TRIAL", metric, *(p.name for p in space))]
    for place, trial in enumerate(best_first(trials)[:most], start=1):
        values = texts(trial, space)
        chosen = (values.get(p.name, "") for p in space)
        rows.append((str(place), str(trial.number), f"{trial.value:.6f}", *chosen))
    return aligned(rows)


def results_table(
    trials: Sequence[FrozenTrial], space: Sequence[SearchParameter], metric: str
) -> str:
    """Return all trials tab separated, one a row, with a header line.

    Columns: trial, state, the metric (of a pruned trial that of its last epoch), the parameters,
    seconds, start, worker, retry_of (the trial whose worker died), reason (of failed ones), log.
    """
    names = [p.name for p in space]
    head = ["trial", "state", metric, *names]
    head += ["seconds", "start", "worker", "retry_of", "reason", "log"]
    rows = [head]
    for trial in trials:
        noted = trial.user_attrs
        if noted.get("reason") == NOT_NEEDED:
            continue
        reason = noted.get("reason", "")
        if trial.state.name == "FAIL":
            reason = reason or _NO_SIGN
        worker = noted.get("worker") or {}
        values = texts(trial, space)
        row = [trial.number, trial.state.name, _number(trial.value)]
        row += [values.get(name, "") for name in names]
        row += [
            f"{trial.duration.total_seconds():.2f}" if trial.duration else "",
            trial.datetime_start.isoformat(" ", "seconds") if trial.datetime_start else "",
            f"{worker['host']}:{worker['pid']}" if worker else "",
            noted.get("retry_of", ""),
            reason,
            noted.get("log", ""),
        ]
        rows.append(row)
    return "".join("\t".join(" ".join(str(x).split()) for x in row) + "\n" for row in rows)


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def paramfile(settings: Mapping[str, Any], heading: str) -> str:
    """Return parameters as a file that ``run.py -pf`` reads.

    Parameters
    ----------
    settings : mapping of str to (str or value)
    heading : str
        One line of docstring.
    """
    converted = parameters.convert(settings)
    pairs = "".join(f"        ({name!r}, {value!r}),\n" for name, value in converted.items())
    heading = heading.replace("\\", "/").replace('"', "'")
    return (
        f'"""{heading}"""\n\nfrom collections import OrderedDict\n\n'
        f"gru4rec_params = OrderedDict(\n    [\n{pairs}    ]\n)\n"
    )


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    with _replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _replacing(path: Path):
    """Give a file to write that takes the place of `path` at the end."""
    try:
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix
        )
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            # mkstemp makes files private; results get the permissions that any new file gets
            umask = os.umask(0)
            os.umask(umask)
            partial.chmod(0o666 & ~umask)
            os.replace(partial, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()
    except OSError as err:
        raise InputError(
            f"cannot write {path}: {err.strerror or err}; the study itself is in its storage, so "
            "make space or choose another directory and run the same command again"
        ) from None


# ---------------------------------------------------------------------------- plots


def check_plots(folder: str) -> None:
    """Find out before the first trial whether plots can be drawn and written.

    Raises
    ------
    InputError
        If matplotlib is missing or the directory cannot be made.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(
            "--plots needs the package matplotlib; install it with `pip install matplotlib`"
        )
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as err:
        raise InputError(f"--plots {folder}: {err.strerror}; give a writable directory") from None


def write_plots(study: optuna.Study, metric: str, folder: str) -> dict[str, str | None]:
    """Draw history, importances, slices and parallel coordinates as PNG files.

    Parameters
    ----------
    study : optuna.Study
    metric : str
        What the trials' value is, for the axes.
    folder : str

    Returns
    -------
    dict
        Path of each plot to None, or to the reason why it was left out.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import optuna
    from optuna.visualization import matplotlib as drawing

    n_parameters = max((len(t.params) for t in study.get_trials(deepcopy=False)), default=1)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()  # needs no further package
    plots = {
        "optimization_history": (
            lambda: drawing.plot_optimization_history(study, target_name=metric),
            (9, 5),
        ),
        "param_importances": (
            lambda: drawing.plot_param_importances(study, evaluator=evaluator, target_name=metric),
            (9, 5),
        ),
        "slice": (
            lambda: drawing.plot_slice(study, target_name=metric),
            (max(5, 3.2 * n_parameters), 4.5),
        ),
        "parallel_coordinate": (
            lambda: drawing.plot_parallel_coordinate(study, target_name=metric),
            (max(9, 1.8 * n_parameters), 6),
        ),
    }
    written: dict[str, str | None] = {}
    for name, (draw, size) in plots.items():
        path = Path(folder) / f"{name}.png"
        try:
            draw()
        except (ValueError, RuntimeError) as err:  # too few trials, or all with the same metric
            written[str(path)] = " ".join(str(err).split())
            plt.close("all")
            continue
        figure = plt.gcf()
        figure.set_size_inches(*size)
        with _replacing(path) as partial:
            figure.savefig(partial, dpi=110, bbox_inches="tight")
        plt.close("all")
        written[str(path)] = None
    return written
