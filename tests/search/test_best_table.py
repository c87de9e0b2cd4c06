"""The table of the best trials, which a search prints after every trial."""

from __future__ import annotations

import pytest
from helpers.cli import ROOT

from gru4rec_toolkit.search import report
from gru4rec_toolkit.search.space import read_space

optuna = pytest.importorskip("optuna")


def trials_of(space, values):
    """Return complete trials of these values, with parameters at random."""
    study = optuna.create_study(direction="maximize")
    for value in values:
        trial = study.ask()
        for parameter in space:
            parameter.suggest(trial)
        study.tell(trial, value)
    return study.trials


def fields(table):
    """Return the parts of a table, each as its rows of fields."""
    parts = []
    for line in table.splitlines():
        if line.startswith("BEST"):
            parts.append([])
        parts[-1].append(line.split())
    return parts


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "paramspaces").glob("*.json")))
def test_a_space_that_is_shipped_fits_a_terminal(name):
    space = read_space(str(ROOT / "paramspaces" / name))
    trials = trials_of(space, [0.25, 0.5, 0.375])
    table = report.best_table(trials, space, "recall@20")
    assert max(map(len, table.splitlines())) <= 80
    parts = fields(table)
    assert len(parts) > 1
    numbers = [["BEST", "TRIAL"], ["1", "1"], ["2", "2"], ["3", "0"]]
    assert all([row[:2] for row in part] == numbers for part in parts)
    names, *rows = ([x for part in parts for x in part[i][2:]] for i in range(4))
    assert names == ["recall@20", *(p.name for p in space)]
    for row, trial in zip(rows, report.best_first(trials)):
        assert row == [f"{trial.value:.6f}", *report.texts(trial, space).values()]


def test_a_narrow_space_is_one_table():
    space = read_space(str(ROOT / "paramspaces" / "gru4rec_xe_standard_parspace.json"))[:2]
    (part,) = fields(report.best_table(trials_of(space, [0.5]), space, "recall@20"))
    assert part[0] == ["BEST", "TRIAL", "recall@20", "layers", "batch_size"]
