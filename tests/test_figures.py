"""`make figures`: all pictures of the documentation are drawn, and what they show."""

from __future__ import annotations

import itertools
import json
import re
import sys
from xml.etree import ElementTree

import pytest
from helpers.cli import ROOT, complaint, files_in, python, succeeds

pytest.importorskip("matplotlib")
sys.path.insert(0, str(ROOT / "tools"))

import figures

from gru4rec_toolkit.tracking import plot
from gru4rec_toolkit.tracking.plot import Lengths

NAMES = [f"{name}.svg" for part in figures.PARTS.values() for name in part.files]
SVG = "{http://www.w3.org/2000/svg}"
# points; matplotlib's SVG files have one for each pixel
SMALLEST_TEXT = 8
# axes and series of each picture
TEXTS = {
    "curves": {
        *("Epoch", "Loss (mean per mini-batch)", "Recall@N", "MRR@N"),
        "List length N (items, log scale)",
    },
    "lengths": {
        *("List length N (items)", "Recall@N (share of the next clicks)"),
        *("MRR@N (mean of 1 / rank)", *figures.LOOKS),
    },
    "limit": {"(% of the matrix products alone)", "rsc15", "rees46"},
    "beside": {"Speed (mini-batches/s)", "training", "the official PyTorch port", "rees46"},
    "search-history": {"Trial", "MRR@20", "trial", "best so far"},
    "search-importances": {
        *("Importance for MRR@20 (PED-ANOVA, all sum up to 1)", "learning_rate", "layers"),
    },
    "search-slices": {"MRR@20", "learning_rate", "layers", "batch_size", "dropout_p_embed"},
    "search-parallel": {"MRR@20", "learning_rate", "layers", "batch_size", "other trials"},
}


def run(*arguments, cwd=ROOT):
    return python(ROOT / "tools" / "figures.py", *arguments, cwd=cwd)


def texts(path):
    """The texts of an SVG file, in which numbers follow names of lines."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    found = {"".join(node.itertext()).strip() for node in root.iter(f"{SVG}text")}
    return found | {text.rpartition(" ")[0] for text in found}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """All pictures, of sizes that show nothing."""
    folder = tmp_path_factory.mktemp("figures") / "new" / "pictures"
    return succeeds(run("--quick", "-o", folder)), folder


def test_all_pictures_are_drawn(drawn):
    done, folder = drawn
    assert sorted(files_in(folder)) == sorted(NAMES)
    assert done.lines == [str(folder / name) for name in NAMES]
    for i, part in enumerate(figures.PARTS, 1):
        assert re.search(rf"^{i} of 5: {part}$", done.err, re.M), done.err
        assert re.search(rf"^{part}: done \(\d+ s\)$", done.err, re.M), done.err


@pytest.mark.parametrize("name", TEXTS)
def test_axes_and_series_are_named(drawn, name):
    _, folder = drawn
    for path in (folder / f"{name}.svg", figures.PICTURES / f"{name}.svg"):
        assert texts(path) >= TEXTS[name], path
        content = path.read_text()
        sizes = re.findall(r"font(?:-size)?: (?:\S+ )*?([\d.]+)px", content)
        assert sizes and min(map(float, sizes)) >= SMALLEST_TEXT, path
        assert "<image" not in content  # all of it is lines and text


def test_the_committed_pictures_are_ours():
    assert {f"{name}.svg" for name in TEXTS} == {*NAMES}
    for part in figures.PARTS.values():
        for name in part.files:
            path = figures.PICTURES / f"{name}.svg"
            assert plot.is_picture(str(path), "svg", part.source), path
            assert path.stat().st_size < 200_000, path
    assert {path.name for path in figures.PICTURES.iterdir()} == set(NAMES)


def test_the_committed_speed_is_that_of_the_committed_rows():
    rows = figures.read_rows(figures.ROWS)
    (limit,), (beside,) = figures.limit(rows), figures.beside(rows, ["the official PyTorch port"])
    for name, picture in (("limit.svg", limit), ("beside.svg", beside)):
        assert points(picture) == points((figures.PICTURES / name).read_bytes())


def points(picture: bytes):
    """The lines of a picture, which other versions of matplotlib draw alike."""
    paths = ElementTree.fromstring(picture).iter(f"{SVG}path")
    return [path.get("d") for path in paths]


def test_the_same_input_gives_the_same_bytes(drawn, tmp_path):
    """In another process, which trains again, over pictures of before."""
    _, folder = drawn
    (tmp_path / "lengths.svg").write_bytes(b"<?xml tools/figures.py of GRU4Rec")
    succeeds(run("--quick", "-o", tmp_path, "--parts", "lengths", "limit"))
    for name in ("lengths.svg", "limit.svg"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


# ---------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("name", NAMES)
def test_files_of_others_are_left_alone(tmp_path, name):
    (tmp_path / name).write_text("<?xml mine")
    assert name in complaint(run("--quick", "-o", tmp_path))
    assert files_in(tmp_path) == {name: b"<?xml mine"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", "this is no JSON"),
        ("{}", "these are no rows"),
        ("[]", "these are no rows"),
        ("[3]", "these are no rows"),
        ('[{"parameters": "rsc15", "batch_size": 32, "units": 100}]', "these are no rows"),
        (None, "No such file"),
    ],
)
def test_rows_that_cannot_be_drawn(tmp_path, rows, words):
    path = tmp_path / "rows.json"
    if rows is not None:
        path.write_text(rows)
    folder = tmp_path / "new"
    message = complaint(run("--parts", "limit", "-o", folder, "--rows", path))
    assert words in message and "benchmarks.training --json FILE" in message
    assert not folder.exists()


def test_rounds_have_to_fit():
    (row, *_) = figures.read_rows(figures.ROWS)
    assert figures.is_row(row)
    for name in figures.ROUNDS:
        for rates in ([], [1.0], [1.0, 0, 2.0], [1.0, None, 2.0], "fast", [float("nan")] * 3):
            assert not figures.is_row({**row, name: rates}), rates


def test_rows_of_ones_own(tmp_path):
    (row, *_) = figures.read_rows(figures.ROWS)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{**row, "parameters": "my shop"}]))
    done = succeeds(run("--parts", "limit", "-o", tmp_path, "--rows", path))
    assert done.lines == [str(tmp_path / "limit.svg")]
    assert "my shop" in texts(tmp_path / "limit.svg")


def test_others_have_to_be_named(tmp_path):
    """As many as were measured; a picture would give one's speed another's name."""
    (row, *_) = figures.read_rows(figures.ROWS)
    path, options = tmp_path / "rows.json", ["--parts", "beside", "-o", tmp_path / "new", "--rows"]
    path.write_text(json.dumps([{**row, "others": [[3.0, None, 4.0], [5.0] * 3]}]))
    said = "rsc15 was measured beside 2 others, and --others names 1"
    assert said in complaint(run(*options, path))
    done = succeeds(run(*options, path, "--others", "mine", "theirs"))
    assert done.lines == [str(tmp_path / "new" / "beside.svg")]
    assert {"theirs"} <= texts(tmp_path / "new" / "beside.svg")
    for others in ([], None, [[]], [["fast"]], [3]):
        path.write_text(json.dumps([{**row, "others": others}]))
        assert "name each --other" in complaint(run(*options, path))


def test_the_docstring_names_all_pictures():
    named = set(re.findall(r"``([\w*-]+\.svg)``", figures.__doc__))
    assert {re.sub("search-.*", "search-*.svg", name) for name in NAMES} == named


@pytest.mark.parametrize("arguments", [["--parts", "speed"], ["--parts"], ["-o"], ["--size", "3"]])
def test_wrong_arguments(arguments):
    done = run(*arguments)
    assert done.code == 2 and "Traceback" not in done.err


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    message = complaint(run("--parts", "limit", "-o", tmp_path / "file" / "folder"))
    assert message.startswith(f"-o {tmp_path / 'file' / 'folder'}: Not a directory")
    (tmp_path / "limit.svg").mkdir()
    assert "it is a directory" in complaint(run("--parts", "limit", "-o", tmp_path))


# ---------------------------------------------------------------------------- names of lines


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([0, 5, 9], [0, 5, 9]),
        ([3, 3], [2.5, 3.5]),
        ([0, 1, 1, 1.5], [-0.625, 0.375, 1.375, 2.375]),
        ([0, 4, 4.5, 9], [0, 3.75, 4.75, 9]),
        ([], []),
    ],
)
def test_names_move_apart_and_no_further(heights, expected):
    assert figures.apart(heights, 1) == pytest.approx(expected)


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.2])
def test_names_of_lines_that_end_together_do_not_overlap(spread):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Annotation, Text

    lengths = tuple(range(1, 21))
    methods = [
        Lengths(name, lengths, *2 * [tuple(0.02 * n + spread * i for n in lengths)])
        for i, name in enumerate(reversed(figures.LOOKS))
    ][::-1]
    with plot.style():
        drawing = figures.draw_lengths(methods)
        canvas = FigureCanvasAgg(drawing)
        canvas.draw()
    for panel in drawing.axes:
        names = panel.findobj(Annotation)
        assert len(names) == len(methods)
        # without the lines that lead to them
        boxes = [Text.get_window_extent(name, canvas.get_renderer()) for name in names]
        assert max(box.x1 for box in boxes) < drawing.get_window_extent().width
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)
