"""Pictures of studies."""

from __future__ import annotations

import warnings

import matplotlib
import optuna
import pytest
from helpers.figures import texts_on_another
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.search import plots, report
from gru4rec_toolkit.tracking import plot

SPACE = {
    "layers": IntDistribution(16, 128, step=16),
    "learning_rate": FloatDistribution(0.01, 0.3, log=True),
    "final_act": CategoricalDistribution(("elu-0.5", "linear", "tanh")),
    "momentum": FloatDistribution(0.0, 0.5, step=0.1),
}
ROWS = [
    (16, 0.01, "linear", 0.0, 0.11),
    (128, 0.3, "elu-0.5", 0.5, 0.17),
    (64, 0.05, "linear", 0.1, 0.25),
    (48, 0.1, "elu-0.5", 0.2, 0.19),
    (96, 0.02, "linear", 0.3, 0.25),
    (80, 0.15, "elu-0.5", 0.1, 0.13),
]


def study_of(rows, pruned=()):
    """A study of complete trials; those whose numbers are in `pruned` were ended early."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for i, (*values, metric) in enumerate(rows):
        params = dict(zip(SPACE, values))
        state = TrialState.PRUNED if i in pruned else TrialState.COMPLETE
        last = {"intermediate_values": {1: metric}} if i in pruned else {}
        distributions = {name: SPACE[name] for name in params}
        study.add_trial(
            create_trial(
                state=state, value=metric, params=params, distributions=distributions, **last
            )
        )
    return study


def drawn(draw, *given):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with plot.style():
        figure = draw(*given, "mrr@20")
        FigureCanvasAgg(figure).draw()
    return figure


def series(panel):
    """The points of the lines and marks of a panel, by their names."""
    found = {}
    for line in panel.lines:
        if not line.get_label().startswith("_"):
            found.setdefault(line.get_label(), []).append([tuple(p) for p in line.get_xydata()])
    return found


def test_history():
    (panel,) = drawn(plots.history, study_of(ROWS, pruned=[1, 3]).get_trials()).axes
    found = series(panel)
    assert found["trial"] == [[(0, 0.11), (4, 0.25), (5, 0.13)]]
    assert found["pruned trial, at its last epoch"] == [[(1, 0.17), (3, 0.19)]]
    # the earlier one of equals, as in the table of the best
    assert found["best: trial 2, MRR@20 0.2500"] == [[(2, 0.25)]]
    (best,) = found["best so far"]
    assert [y for _, y in best] == [0.11, 0.25, 0.25, 0.25, 0.25]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("Trial", "MRR@20")


def test_importances():
    (panel,) = drawn(plots.importances, {"layers": 0.7, "momentum": 0.3}).axes
    assert [bar.get_width() for bar in panel.patches] == [0.3, 0.7]
    assert [text.get_text() for text in panel.get_yticklabels()] == ["momentum", "layers"]
    assert "0.70" in [text.get_text() for text in panel.texts]


def test_slices():
    figure = drawn(plots.slices, study_of(ROWS, pruned=[5]).get_trials())
    layers, rate, act, momentum = figure.axes
    assert [panel.get_xlabel() for panel in figure.axes] == [*SPACE]
    assert (rate.get_xscale(), layers.get_xscale()) == ("log", "linear")
    assert series(layers) == {
        "trials 0 to 1": [[(16, 0.11), (128, 0.17)]],
        "trials 2 to 3": [[(48, 0.19)]],
        "trial 4": [[(96, 0.25)]],
        "best: trial 2, MRR@20 0.2500": [[(64, 0.25)]],
    }
    # one of several values at its place among them, whether a trial has it or not
    assert [text.get_text() for text in act.get_xticklabels()] == ["elu-0.5", "linear", "tanh"]
    assert series(act)["trials 0 to 1"] == [[(1, 0.11), (0, 0.17)]]
    marks = [line.get_marker() for line in layers.lines]
    assert len({*marks}) == len(marks)


def test_parallel_coordinates():
    (panel,) = drawn(plots.parallel, study_of(ROWS).get_trials()).axes
    found = series(panel)
    assert [text.get_text() for text in panel.get_xticklabels()] == [*SPACE, "MRR@20"]
    assert {name: len(lines) for name, lines in found.items()} == {
        "best: trial 2": 1, "best quarter": 1, "other trials": 4,
    }  # fmt: skip
    (worst,) = (line for line in found["other trials"] if line[-1] == (4, 0))
    # the lowest of each; `tanh`, which no trial has, has no place
    assert worst == [(0, 0), (1, 0), (2, 1), (3, 0), (4, 0)]
    texts = [text.get_text() for text in panel.texts]
    assert {"0.02", "0.2", "elu-0.5", "linear", "100", "0.24"} <= {*texts} and "tanh" not in texts


@pytest.mark.parametrize("draw", [plots.history, plots.slices, plots.parallel])
@pytest.mark.parametrize("n", [1, 2, 6])
def test_no_text_lies_on_another(draw, n):
    figure = drawn(draw, study_of(ROWS[:n]).get_trials())
    n_texts, overlapping = texts_on_another(figure, figure.canvas.get_renderer())
    assert n_texts > 3 and overlapping == []


@pytest.mark.parametrize("kind", plot.FORMATS)
def test_the_same_study_gives_the_same_files(tmp_path, kind):
    settings = matplotlib.rcParams.copy()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        report.check_plots(str(tmp_path / name), kind)
        written = report.write_plots(study_of(ROWS), "mrr@20", str(tmp_path / name), kind)
        assert written == {str(tmp_path / name / f"{n}.{kind}"): None for n in report.PLOTS}
    for name in report.PLOTS:
        one, other = ((tmp_path / x / f"{name}.{kind}").read_bytes() for x in "ab")
        assert one == other and one.startswith(plot.FORMATS[kind][0])
    assert matplotlib.rcParams.copy() == settings
    (tmp_path / "a" / f"slice.{kind}").write_bytes(plot.FORMATS[kind][0])
    with pytest.raises(InputError, match=f"slice.{kind}: it exists and is not a plot of paropt.py"):
        report.check_plots(str(tmp_path / "a"), kind)


@pytest.mark.parametrize(
    ("rows", "pruned", "reason"),
    [([], [], "no trial is complete"), (ROWS, range(6), "no trial is complete"),
     ([(0.1,)], [], "no trial has a parameter")],
)  # fmt: skip
def test_studies_that_cannot_be_drawn(tmp_path, rows, pruned, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's, of few trials
        written = report.write_plots(study_of(rows, pruned), "mrr@20", str(tmp_path))
    assert reason in written[str(tmp_path / "slice.png")]
    assert not (tmp_path / "slice.png").exists()


def test_equal_trials_and_a_single_value():
    study = study_of([(64, 0.05, "linear", 0.1, 0.2)] * 3)
    for draw in (plots.history, plots.slices, plots.parallel):
        drawn(draw, study.get_trials())
