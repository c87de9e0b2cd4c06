"""Progress bars in notebooks, in what looks like a kernel to tqdm."""

from __future__ import annotations

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
from gru4rec_toolkit.data import events
from tqdm.auto import tqdm

print("CLASS", tqdm.__mro__[1].__module__)
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
    # beside a bar of what is being compiled, where that is not there
    bars = [line.split(":")[0] for line in shown if not line.startswith("SHOWN Compiling")]
    assert bars == ["SHOWN Epoch 1", "SHOWN Evaluation"]
    assert "%" not in done.err


def test_a_notebook_without_widgets_shows_text(run):
    done = run(KERNEL + NO_WIDGETS + TRAIN_AND_EVALUATE)
    assert "Epoch 1: 100%" in done.err
    assert "Evaluation: 100%" in done.err


def test_no_bar_elsewhere_without_a_terminal(run):
    done = run(TRAIN_AND_EVALUATE)
    assert "CLASS tqdm.std" in done.lines
    assert "%" not in done.out + done.err
