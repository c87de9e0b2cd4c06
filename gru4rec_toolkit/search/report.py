"""Reports of a search: a table of the best trials, results.tsv, a parameter file, plots."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gru4rec_toolkit import files, parameters
from gru4rec_toolkit.errors import InputError, missing_package
from gru4rec_toolkit.search import plots
from gru4rec_toolkit.search.space import SearchParameter, aligned
from gru4rec_toolkit.tracking import plot

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


WIDEST = 80  # columns of the tables on standard output
RESULTS, BEST = "results.tsv", "best_parameters.py"
# first bytes of our files: nothing else is replaced
KINDS = {
    RESULTS: ("a search's table", rb"trial\tstate\t[^\n]*\tretry_of\treason\tlog\n"),
    BEST: ("a search's best parameters", rb'"""Best of \d+ trials of study '),
}
# the pictures, whose names are those of Optuna's
PLOTS = ("optimization_history", "param_importances", "slice", "parallel_coordinate")
SOURCE = "paropt.py of GRU4Rec"
# in the attribute `reason` of trials that were begun at the same moment as a study's last ones
NOT_NEEDED = "not needed: other workers had the last trials already"
_NO_SIGN = "its worker gave no sign of life any more"


def texts(trial: FrozenTrial, space: Sequence[SearchParameter]) -> dict[str, str]:
    """Return a trial's parameters as they were passed to its training."""
    return {p.name: p.text(trial.params[p.name]) for p in space if p.name in trial.params}


def is_good(trial: FrozenTrial) -> bool:
    """Tell whether a trial counts: it is complete or was pruned."""
    return trial.state.name in ("COMPLETE", "PRUNED")


def best_first(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the complete trials, the best first; the earlier one of equals."""
    complete = [t for t in trials if t.state.name == "COMPLETE"]
    return sorted(complete, key=lambda t: (-cast(float, t.value), t.number))


def best_table(
    trials: Sequence[FrozenTrial], space: Sequence[SearchParameter], metric: str, most: int = 5
) -> str:
    """Return the best trials as a table with their metric and parameters.

    Where it is wider than `WIDEST`, further columns are below it, with the trials' numbers again.
    """
    rows = [("BEST", "TRIAL", metric, *(p.name for p in space))]
    for place, trial in enumerate(best_first(trials)[:most], start=1):
        values = texts(trial, space)
        chosen = (values.get(p.name, "") for p in space)
        rows.append((str(place), str(trial.number), f"{trial.value:.6f}", *chosen))
    widths = [max(map(len, column)) + 2 for column in zip(*rows)]
    parts = [[0, 1]]
    for i in range(2, len(widths)):
        if len(parts[-1]) > 2 and sum(widths[j] for j in [*parts[-1], i]) > WIDEST + 2:
            parts.append([0, 1])
        parts[-1].append(i)
    return "\n".join(aligned([[row[i] for i in part] for row in rows]) for part in parts)


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
    rows: list[list] = [head]
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


# ---------------------------------------------------------------------------- files


def check_files(folder: str | Path) -> None:
    """Find out before the first trial whether results would be written over files of another kind.

    Raises
    ------
    InputError
        Names the file.
    """
    folder = Path(folder)
    for name in KINDS:
        _check_replaceable(folder / name)
    # logs are appended to: nothing on a device can be lost
    try:
        logs = [folder / "final.log", *sorted((folder / "logs").glob("trial_*.log"))]
        logs = [path for path in logs if path.is_file()]
    except OSError as err:
        raise InputError(f"--results {folder}: {err.strerror}; give another directory") from None
    for path in logs:
        _refuse_other_kind(path, "a log of paropt.py", _is_log)


def _is_log(path: str) -> bool:
    return _starts_with(path, rb"\$ |\Z")  # another worker may have opened it just now


def write_whole(path: Path, text: str) -> None:
    """Write a report whole or not at all.

    Raises
    ------
    InputError
        If it cannot be written, or a file of another kind has its name.
    """
    _check_replaceable(path)
    with _explained(path):
        files.write_text(path, text)


def _check_replaceable(path: Path) -> None:
    kind, pattern = KINDS[path.name]
    _refuse_other_kind(path, kind, lambda path: _starts_with(path, pattern))


def _refuse_other_kind(path: Path, kind: str, is_that_kind: Callable[[str], bool]) -> None:
    try:
        reason = files.obstacle(path, kind, is_that_kind)
    except OSError as err:
        reason = f"it cannot be read ({err.strerror or err})"
    if reason is not None:
        raise InputError(
            f"cannot write {path}: {reason}; move it away, or choose another directory and run the "
            "same command again"
        )


def _starts_with(path: str, pattern: bytes) -> bool:
    with open(path, "rb") as file:
        return re.match(pattern, file.read(4096), re.DOTALL) is not None


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise InputError(
            f"cannot write {path}: {err.strerror or err}; the study itself is in its storage, so "
            "make space or choose another directory and run the same command again"
        ) from None


# ---------------------------------------------------------------------------- plots


def check_plots(folder: str, kind: str = "png") -> None:
    """Find out before the first trial whether plots can be drawn and written.

    Raises
    ------
    InputError
        If matplotlib is missing, the directory cannot be made, or other files have their names.
    """
    try:
        importlib.import_module("matplotlib")
    except Exception as err:
        raise missing_package("--plots", "matplotlib", err) from None
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as err:
        raise InputError(f"--plots {folder}: {err.strerror}; give a writable directory") from None
    for name in PLOTS:
        _check_plot(Path(folder) / f"{name}.{kind}", kind)


def _check_plot(path: Path, kind: str) -> None:
    _refuse_other_kind(
        path, "a plot of paropt.py", lambda path: plot.is_picture(path, kind, SOURCE)
    )


def write_plots(
    study: optuna.Study, metric: str, folder: str, kind: str = "png"
) -> dict[str, str | None]:
    """Draw history, importances, slices and parallel coordinates.

    Parameters
    ----------
    study : optuna.Study
    metric : str
        The trials' value, for the axes.
    folder : str
    kind : str
        One of `gru4rec_toolkit.tracking.plot.FORMATS`.

    Returns
    -------
    dict
        Path of each plot to None, or to the reason why it was left out.
    """
    trials = study.get_trials(deepcopy=False)
    draw: dict[str, Callable[[], Any]] = {  # their names are PLOTS
        "optimization_history": lambda: plots.history(trials, metric),
        "param_importances": lambda: plots.importances(_importances(study), metric),
        "slice": lambda: plots.slices(trials, metric),
        "parallel_coordinate": lambda: plots.parallel(trials, metric),
    }
    written: dict[str, str | None] = {}
    for name in PLOTS:
        path = Path(folder) / f"{name}.{kind}"
        try:
            with plot.style():
                picture = plot.saved(draw[name](), kind, SOURCE, dpi=110)
        except (ValueError, RuntimeError) as err:  # too few trials
            written[str(path)] = " ".join(str(err).split())
            continue
        _check_plot(path, kind)
        with _explained(path), files.replacing(path) as file:
            file.write(picture)
        written[str(path)] = None
    return written


def _importances(study: optuna.Study) -> dict[str, float]:
    """Return how much each parameter has to do with whether a trial is good; their sum is 1."""
    import optuna

    evaluator = optuna.importance.PedAnovaImportanceEvaluator()  # needs no further package
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    if not shares:
        raise ValueError("no trial has a parameter")
    return shares
