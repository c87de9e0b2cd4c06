"""Progress bars in notebooks, in what looks like a kernel to tqdm, and the example notebook."""

from __future__ import annotations

import json

import pytest
from helpers.cli import ROOT, TRAIN, python, succeeds

# the modules by which tqdm knows a notebook; widgets print what they show
KERNEL = """
import sys, types

shell = types.SimpleNamespace(config={"IPKernelApp": {}})
for name in ("IPython", "IPython.display", "ipykernel", "ipykernel.zmqshell"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["IPython"].get_ipython = lambda: shell
sys.modules["IPython.display"].display = lambda widget: print("SHOWN", repr(widget))
"""
WIDGETS = """
class Widget:
    def __init__(self, children=(), **options):
        self.children, self.layout = children, types.SimpleNamespace()
        self.value, self.bar_style, self.style = "", "", types.SimpleNamespace(bar_color=None)

    def close(self):
        pass

sys.modules["ipywidgets"] = types.ModuleType("ipywidgets")
for name in ("HTML", "HBox", "FloatProgress"):
    setattr(sys.modules["ipywidgets"], name, type(name, (Widget,), {}))
"""
NO_WIDGETS = """
import warnings
warnings.simplefilter("ignore")  # tqdm names what is missing
sys.modules["ipywidgets"] = sys.modules["IPython.html"] = None
"""
TRAIN_AND_EVALUATE = """
import sys
sys.path.insert(0, sys.argv[1])
import evaluation, gru4rec
from gru4rec_toolkit import progress
from gru4rec_toolkit.data import events

print("CLASS", progress.tqdm.__mro__[1].__module__)
data = events.read_events(sys.argv[2])
gru = gru4rec.GRU4Rec(layers=[16], batch_size=8, n_epochs=1, n_sample=0)
gru.fit(data)
evaluation.evaluate_gpu(gru, data)
"""


@pytest.fixture
def run(tmp_path):
    return lambda code: succeeds(python("-c", code, ROOT, TRAIN, cwd=tmp_path))


def test_a_notebook_shows_widgets(run):
    done = run(KERNEL + WIDGETS + TRAIN_AND_EVALUATE)
    assert "CLASS tqdm.notebook" in done.lines
    shown = [line for line in done.lines if line.startswith("SHOWN")]
    assert [line.split(":")[0] for line in shown] == ["SHOWN Epoch 1", "SHOWN Evaluation"]
    assert "%" not in done.err


def test_a_notebook_without_widgets_shows_text(run):
    done = run(KERNEL + NO_WIDGETS + TRAIN_AND_EVALUATE)
    assert "Epoch 1: 100%" in done.err
    assert "Evaluation: 100%" in done.err


def test_no_bar_elsewhere_without_a_terminal(run):
    done = run(TRAIN_AND_EVALUATE)
    assert "CLASS tqdm.std" in done.lines
    assert "%" not in done.out + done.err


# --- the example ----------------------------------------------------------------------------------

EXAMPLE = ROOT / "examples" / "notebook" / "gru4rec.ipynb"


def test_the_example_notebook(tmp_path):
    from helpers.notebooks import execute, nbformat, pictures

    folder = tmp_path / "examples" / "notebook"
    folder.mkdir(parents=True)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    notebook = execute(nbformat.read(EXAMPLE, as_version=4), folder)
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    (curve,), (again,) = pictures(outputs["train"]), pictures(outputs["resume"])
    assert curve == again
    (items,) = (output for output in outputs["recommend"] if "data" in output)
    assert items.data["text/plain"].count("after") == 2


def test_the_example_notebook_holds_no_outputs():
    cells = json.loads(EXAMPLE.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
