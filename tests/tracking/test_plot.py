"""Curves of trainings in pictures."""

from __future__ import annotations

import re
import sys
from xml.etree import ElementTree

import pytest
from helpers.cli import ROOT, files_in, python, succeeds
from helpers.epochs import made_epochs, tell
from helpers.figures import texts_on_another

from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.tracking.history import History
from gru4rec_toolkit.tracking.plot import Lengths, Plot, drawn, figure, style

matplotlib = pytest.importorskip("matplotlib")


def history_of(*trainings):
    history = History()
    for epochs in trainings:
        tell(history.add, epochs)
    return history


def curves(panel):
    """The points of the lines of a panel that have a length; those of legends have none."""
    return [
        [tuple(point) for point in line.get_xydata().tolist()]
        for line in panel.lines
        if len(line.get_xdata()) > 1
    ]


def stars(panel):
    return [
        tuple(line.get_xydata().tolist()[0])
        for line in panel.lines
        if line.get_marker() == "*" and len(line.get_xdata())
    ]


def legend(panel):
    return [text.get_text() for text in panel.get_legend().get_texts()]


# --- what is drawn --------------------------------------------------------------------------------


def test_loss_and_metrics_over_epochs():
    epochs = made_epochs(4, lengths=(5, 20), best=3)
    loss, recall, mrr = figure(history_of(epochs)).axes
    assert curves(loss) == [[(e.number, e.loss) for e in epochs]]
    assert stars(loss) == [(3, epochs[2].loss)]
    for panel, name in ((recall, "Recall"), (mrr, "MRR")):
        names = [f"{name}@5", f"{name}@20"]
        assert curves(panel) == [[(e.number, e.metrics[n]) for e in epochs] for n in names]
        assert stars(panel) == [(3, epochs[2].metrics[n]) for n in names]
        assert legend(panel) == [f"{name}@20", f"{name}@5", "best epoch: 3"]
        # a line has the colour that the legend has for it
        colours = {line.get_label(): line.get_color() for line in panel.lines}
        assert [colours[n] for n in names] == [line.get_color() for line in panel.lines[::2][:2]]
        # and its dashes, which are all that grey print leaves
        for name, line in zip(names, panel.lines[::2]):
            (shown,) = (other for other in panel.lines if other.get_label() == name)
            assert shown.get_linestyle() == line.get_linestyle()
        assert panel.lines[0].get_linestyle() != panel.lines[2].get_linestyle()
    assert (mrr.get_title("left"), mrr.get_ylabel()) == ("MRR on the validation sessions", "MRR@N")
    assert [panel.get_xlabel() for panel in (loss, recall, mrr)] == ["Epoch"] * 3


def test_one_metric_is_named_by_the_axis():
    _, recall, _ = figure(history_of(made_epochs(2))).axes
    assert recall.get_ylabel() == "Recall@20"
    assert legend(recall) == ["best epoch: 2"]


def test_without_validation_there_is_the_loss_alone():
    (loss,) = figure(history_of(made_epochs(1, lengths=()))).axes
    assert loss.get_ylabel() == "Loss (mean per mini-batch)"
    assert stars(loss) == []
    assert loss.get_legend() is None


def test_seeds_are_lines_in_colours_of_their_own():
    trainings = [made_epochs(3, seed, lengths=(5, 20), best=seed) for seed in (1, 2, 3)]
    loss, recall, _ = figure(history_of(*trainings)).axes
    assert curves(loss) == [[(e.number, e.loss) for e in epochs] for epochs in trainings]
    assert [x for x, _ in stars(loss)] == [1, 2, 3]
    assert legend(loss) == ["seed 1", "seed 2", "seed 3"]
    colours = [line.get_color() for line in loss.lines[::2]]
    assert len({*colours}) == 3
    lines = [line for line in recall.lines if len(line.get_xdata()) > 1]
    assert [line.get_color() for line in lines] == [c for c in colours for _ in range(2)]
    assert [line.get_linestyle() for line in lines] == ["-", "--"] * 3
    assert legend(recall) == ["Recall@20", "Recall@5", "best epoch"]


def test_a_training_without_validation_beside_one_with_it():
    history = history_of(made_epochs(2, 1, lengths=()), made_epochs(2, 2))
    loss, recall, _ = figure(history).axes
    assert len(curves(loss)) == 2
    assert len(curves(recall)) == 1


def test_recall_and_mrr_over_list_lengths():
    tests = [Lengths("a.tsv", (1, 5, 20), (0.1, 0.3, 0.5), (0.1, 0.2, 0.25))]
    (panel,) = figure(History(), tests).axes
    assert curves(panel) == [
        [(1, 0.1), (5, 0.3), (20, 0.5)],
        [(1, 0.1), (5, 0.2), (20, 0.25)],
    ]
    assert (panel.get_title("left"), panel.get_xlabel()) == (
        "Test set: a.tsv",
        "List length N (items, log scale)",
    )
    assert legend(panel) == ["Recall@N", "MRR@N"]
    (panel,) = figure(History(), [Lengths("a.tsv", (5, 20), (0.3, 0.5), (0.2, 0.25))]).axes
    assert (panel.get_xscale(), panel.get_xlabel()) == ("linear", "List length N (items)")
    tests.append(Lengths("b.tsv", (20,), (0.4,), (0.2,)))
    *_, panel = figure(history_of(made_epochs()), tests).axes
    assert legend(panel) == ["a.tsv", "b.tsv", "Recall@N", "MRR@N"]
    assert panel.get_title("left") == "Test sets"


@pytest.mark.parametrize(
    ("lengths", "n_seeds"), [(range(1, 101), 12), ((1, 5, 10, 20), 1), ((18, 19, 20), 3), ((7,), 1)]
)
def test_no_text_lies_on_another(lengths, n_seeds):
    """At the size and resolution that are written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    values = tuple(1 - 1 / (1 + n) for n in lengths)
    tests = [Lengths("a test set with quite a long name.tsv", tuple(lengths), values, values)]
    history = history_of(*(made_epochs(45, seed, (1, 5, 10, 20)) for seed in range(n_seeds)))
    with style():
        drawing = figure(history, tests)
        canvas = FigureCanvasAgg(drawing)
        canvas.draw()
    n_texts, overlapping = texts_on_another(drawing, canvas.get_renderer())
    assert n_texts > 20 and overlapping == []


# --- files ----------------------------------------------------------------------------------------


def test_a_png_is_drawn_after_every_epoch(tmp_path):
    from matplotlib import image

    plot = Plot(tmp_path / "curves.png")
    pictures = []
    for epoch in made_epochs(2):
        plot(epoch)
        pictures.append((tmp_path / "curves.png").read_bytes())
    assert pictures[0] != pictures[1]
    height, width, _ = image.imread(tmp_path / "curves.png").shape
    assert (height, width) == (360, 1360)
    plot.lengths("test.tsv", [20, 5], [0.5, 0.3], [0.2, 0.1])
    assert image.imread(tmp_path / "curves.png").shape[:2] == (720, 940)
    assert [*files_in(tmp_path)] == ["curves.png"]


def test_an_svg_holds_its_text(tmp_path):
    tell(Plot(tmp_path / "curves.svg"), made_epochs(1))
    root = ElementTree.parse(tmp_path / "curves.svg").getroot()
    texts = {"".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("text")}
    assert {"Training loss", "Recall on the validation sessions", "Epoch"} <= texts


def test_a_pdf_is_one(tmp_path):
    tell(Plot(tmp_path / "curves.pdf"), made_epochs(1))
    assert re.match(rb"%PDF-1\.\d\n.*%%EOF\n$", (tmp_path / "curves.pdf").read_bytes(), re.DOTALL)


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_training_gives_the_same_bytes(kind):
    one, other = (drawn(history_of(made_epochs(2)), kind=kind) for _ in range(2))
    assert one == other
    assert b"dc:date" not in one and b"CreationDate" not in one


def test_lengths_are_sorted_and_replace_those_of_the_same_test_set(tmp_path):
    plot = Plot(tmp_path / "curves.png")
    plot.lengths("a", [20, 5], [0.5, 0.3], [0.2, 0.1])
    first = (tmp_path / "curves.png").read_bytes()
    plot.lengths("a", [1], [0.1], [0.1])
    assert (tmp_path / "curves.png").read_bytes() != first
    plot.lengths("a", [5, 20], [0.3, 0.5], [0.1, 0.2])
    assert (tmp_path / "curves.png").read_bytes() == first


@pytest.mark.parametrize(
    "values", [([], [], []), ([5], [0.1], []), ([5, 20], [0.1], [0.1]), ([0], [0.1], [0.1])]
)
def test_lengths_that_do_not_fit_are_refused(tmp_path, values):
    with pytest.raises(InputError, match="lengths: expected list lengths from 1 on"):
        Plot(tmp_path / "curves.png").lengths("a", *values)


def test_replayed_epochs_are_drawn_with_the_next_one(tmp_path):
    plot = Plot(tmp_path / "curves.png")
    first, second, third = made_epochs(3, n_replayed=2)
    plot(first)
    plot(second)
    assert files_in(tmp_path) == {}
    plot(third)
    picture = (tmp_path / "curves.png").read_bytes()
    assert picture == drawn(history_of(made_epochs(3)))


def test_a_training_without_further_epochs_is_drawn_at_its_end(tmp_path):
    plot = Plot(tmp_path / "curves.png")
    tell(plot, made_epochs(2, n_replayed=2))
    plot.close()
    picture = (tmp_path / "curves.png").read_bytes()
    assert picture == drawn(history_of(made_epochs(2)))
    (tmp_path / "curves.png").unlink()
    plot.close(KeyboardInterrupt())
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_its_own_picture_is_replaced_and_no_other(tmp_path, kind):
    from matplotlib.figure import Figure

    path = tmp_path / f"curves.{kind}"
    tell(Plot(path), made_epochs(1))
    Plot(path)
    Figure().savefig(path)
    with pytest.raises(InputError, match="exists and is not a picture of a training; .*--force"):
        Plot(path)
    Plot(path, force=True)
    with pytest.raises(InputError, match="it is the test data"):
        Plot(path, force=True, inputs={"the test data": path})
    path.write_bytes(b"a training of GRU4Rec")
    with pytest.raises(InputError, match="is not a picture of a training"):
        Plot(path)


@pytest.mark.parametrize("name", ["", "curves", "curves.jpg", "png"])
def test_other_extensions_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"ends in \.png, \.svg, \.pdf"):
        Plot(name)


def test_a_missing_matplotlib_is_told_at_once(tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(InputError, match="needs the package matplotlib.*`pip install matplotlib`"):
        Plot(tmp_path / "curves.png")


def test_a_full_disk_is_a_warning(tmp_path, caplog, full_disk):
    plot = Plot(tmp_path / "curves.png")
    first, second, third = made_epochs(3)
    full_disk(1000)
    plot(first)
    plot(second)
    full_disk()
    assert files_in(tmp_path) == {}
    (record,) = caplog.records
    assert re.match("cannot write the curves of .*: File too large; the tr", record.getMessage())
    plot(third)
    assert (tmp_path / "curves.png").read_bytes() == drawn(history_of(made_epochs(3)))


def test_the_users_matplotlib_is_left_alone(tmp_path):
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from helpers.epochs import made_epochs, tell
from gru4rec_toolkit.tracking.plot import Plot
import matplotlib
matplotlib.rcParams["axes.facecolor"] = "red"
before = matplotlib.rcParams.copy()
tell(Plot("curves.png"), made_epochs(1))
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.rcParams.copy() == before
"""
    succeeds(python("-c", code, cwd=tmp_path, DISPLAY=None, MPLBACKEND=None))
    assert (tmp_path / "curves.png").read_bytes() == drawn(history_of(made_epochs(1)))
