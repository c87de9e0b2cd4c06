"""Curves that grow in notebooks, in a real kernel of Jupyter."""

from __future__ import annotations

import sys

import pytest
from helpers.cli import ROOT, python, succeeds
from helpers.epochs import made_epochs, tell

from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.tracking.history import History
from gru4rec_toolkit.tracking.notebook import LiveCurve

pytest.importorskip("matplotlib")

SET_UP = """
from helpers.epochs import made_epochs, tell
from gru4rec_toolkit.tracking.notebook import LiveCurve
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    from helpers.notebooks import execute_cells

    cells = [
        SET_UP + "curve = LiveCurve()",
        "tell(curve, made_epochs(3, 1))\ncurve.close()",
        "for seed in (1, 2):\n    tell(curve, made_epochs(2, seed))\n    curve.close()",
        "tell(LiveCurve(), made_epochs(3, n_replayed=2)[:2])",
        "curve = LiveCurve()\ntell(curve, made_epochs(2, n_replayed=2))\ncurve.close()",
        "import matplotlib\nmatplotlib.rcParams['axes.facecolor'] = 'red'\n"
        "tell(LiveCurve(), made_epochs(1))\nmatplotlib.rcParams['axes.facecolor']",
    ]
    return execute_cells(cells, tmp_path_factory.mktemp("notebook"))


@pytest.fixture
def picture():
    """A function that returns the picture of trainings."""
    from gru4rec_toolkit.tracking.plot import drawn

    def of(*trainings):
        history = History()
        for epochs in trainings:
            tell(history.add, epochs)
        return drawn(history)

    return of


def pictures(outputs):
    from helpers.notebooks import pictures

    return pictures(outputs)


def test_one_picture_shows_all_epochs(outputs, picture):
    assert pictures(outputs[0]) == []
    assert len(outputs[1]) == 1  # nothing but it
    assert pictures(outputs[1]) == [picture(made_epochs(3, 1))]


def test_another_cell_has_a_picture_of_its_own_with_all_seeds(outputs, picture):
    assert pictures(outputs[2]) == [picture(made_epochs(2, 1), made_epochs(2, 2))]


def test_replayed_epochs_are_drawn_with_the_next_one_or_at_the_end(outputs, picture):
    assert outputs[3] == []
    assert pictures(outputs[4]) == [picture(made_epochs(2))]


def test_the_users_matplotlib_is_left_alone(outputs, picture):
    assert pictures(outputs[5]) == [picture(made_epochs(1))]
    assert outputs[5][-1].data["text/plain"] == "'red'"


# --- elsewhere ------------------------------------------------------------------------------------


def test_outside_of_notebooks_it_is_refused():
    with pytest.raises(InputError, match=r"LiveCurve draws in notebooks only; use Plot\(path\)"):
        LiveCurve()


def test_without_ipython_it_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(InputError, match="LiveCurve draws in notebooks only"):
        LiveCurve()


def test_in_a_terminals_ipython_it_is_refused(tmp_path):
    pytest.importorskip("IPython")
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.tracking.notebook import LiveCurve
TerminalInteractiveShell.instance()
try:
    LiveCurve()
except InputError as err:
    print(err)
"""
    done = succeeds(python("-c", code, cwd=tmp_path, IPYTHONDIR=str(tmp_path)))
    assert done.lines[-1].startswith("LiveCurve draws in notebooks only")
