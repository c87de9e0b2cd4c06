"""The example notebook: it runs, and what it shows is whole and of no particular machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from helpers.cli import ROOT

from tools import tour

TEXT = tour.TOUR.read_text(encoding="utf-8")
CELLS = json.loads(TEXT)["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
# cells that show nothing, for there is nothing to see
SILENT = {"checkout", "imports", "size"}
SMALL = "N_SESSIONS, N_ITEMS = 3_000, 200\nN_EPOCHS = 2\nN_TRIALS = 2"
# not a rate, such as e/s, or a tag
ABSOLUTE_PATH = re.compile(r"(?<![\w.<*])/(?:[\w.+-]+/)+|[A-Z]:\\\\")


def shown(outputs):
    """Return the text of a cell's outputs, of pictures what stands for them."""
    parts = []
    for output in outputs:
        data = {"text": output["text"]} if "text" in output else output.get("data", {})
        parts += [value for kind, value in data.items() if not kind.startswith("image/")]
        parts += output.get("traceback", [])
    return "\n".join("".join(part) for part in parts)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The outputs of the notebook's cells on a small log, by the cells' ids."""
    from helpers.notebooks import execute, nbformat

    pytest.importorskip("matplotlib")
    root = tmp_path_factory.mktemp("tour")
    folder = root / "examples"
    folder.mkdir()
    (folder / "quickstart").symlink_to(ROOT / "examples" / "quickstart")
    notebook = nbformat.read(tour.TOUR, as_version=4)
    (size,) = (cell for cell in notebook.cells if cell.id == "size")
    size.source = SMALL
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONWARNINGS", tour.NO_ADVICE)
        done = execute(notebook, folder)  # an error in a cell ends it
    return {
        cell.id: tour.without_bars(cell.outputs) for cell in done.cells if cell.cell_type == "code"
    }


def test_all_cells_run_without_warnings(executed):
    assert len(executed) == len(CODE)
    for name, outputs in executed.items():
        assert bool(outputs) == (name not in SILENT), name
        assert [o["text"] for o in outputs if o.get("name") == "stderr"] == [], name


def test_the_outputs_are_those_of_one_run():
    assert [cell["execution_count"] for cell in CODE] == [*range(1, len(CODE) + 1)]
    for cell in CODE:
        assert bool(cell["outputs"]) == (cell["id"] not in SILENT), cell["id"]


@pytest.mark.parametrize("cell", CODE, ids=[cell["id"] for cell in CODE])
def test_the_outputs_are_fit_to_be_shown(cell):
    assert all(output["output_type"] != "error" for output in cell["outputs"])
    assert all(output.get("name") != "stderr" for output in cell["outputs"])
    text = shown(cell["outputs"])
    assert "Traceback" not in text
    assert "Warning" not in text
    assert ABSOLUTE_PATH.findall(text) == []


def test_the_file_is_small_and_tells_of_no_machine():
    assert tour.TOUR.stat().st_size < 1_000_000
    assert set(json.loads(TEXT)["metadata"]["language_info"]) == {"name"}


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff_finds_nothing(command):
    pytest.importorskip("ruff")
    found = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", str(tour.TOUR)],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


# --- what stores the outputs ----------------------------------------------------------------------


def stream(name, text):
    return {"output_type": "stream", "name": name, "text": text}


def test_bars_are_left_out_and_nothing_else():
    bar = "Epoch 1:   0%|    | 0/10 [00:00<?, ?mb/s]\rEpoch 1: 100%|####| 10/10 [00:01<00:00]\n"
    widget = {
        "output_type": "display_data",
        "data": {"application/vnd.jupyter.widget-view+json": {}},
    }
    outputs = [
        stream("stderr", bar),
        stream("stdout", "Epoch1 --> 100%|"),
        widget,
        stream("stderr", bar + "UserWarning: look\n" + bar),
    ]
    kept = tour.without_bars(outputs)
    assert [output["text"] for output in kept] == ["Epoch1 --> 100%|", "UserWarning: look\n"]
