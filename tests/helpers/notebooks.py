"""Notebooks, executed by a kernel of Jupyter."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from helpers.cli import ROOT

nbformat = pytest.importorskip("nbformat", reason="Jupyter is installed for Python 3.10 and later")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


def execute(notebook, folder: Path):
    """Execute a notebook in a directory, with the modules of this checkout; return it."""
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    kernel = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        patch.setenv("IPYTHONDIR", str(folder / ".ipython"))
        return kernel.execute()


def execute_cells(cells: list[str], folder: Path) -> list[list]:
    """Execute cells of code; return the outputs of each."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])
    return [cell.outputs for cell in execute(notebook, folder).cells]


def pictures(outputs: list) -> list[bytes]:
    """Return the PNG files among a cell's outputs."""
    data = [output.data for output in outputs if "data" in output]
    return [base64.b64decode(item["image/png"]) for item in data if "image/png" in item]
