"""Execute the example notebook anew, and store its outputs in it.

    python tools/tour.py

Progress bars are left out, which a page cannot show. What else the cells write to standard error
stays, and fails `tests/test_tour.py`: a reader would see it too.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gru4rec_toolkit import files
from gru4rec_toolkit.errors import missing_package, run_cli

TOUR = Path(__file__).resolve().parents[1] / "examples" / "gru4rec_tour.ipynb"
# tqdm's advice to install ipywidgets
NO_ADVICE = "ignore:IProgress not found"
_BAR = re.compile(r"[^\r\n]*\d+%\|[^\r\n]*[\r\n]*|\r")
_WIDGET = "application/vnd.jupyter.widget-view+json"


def without_bars(outputs: list) -> list:
    """Return a cell's outputs without progress bars, widgets or text."""
    kept = []
    for output in outputs:
        if output.get("name") == "stderr":
            output["text"] = _BAR.sub("", output["text"])
        is_empty = output.get("name") == "stderr" and not output["text"].strip()
        if not is_empty and _WIDGET not in output.get("data", {}):
            kept.append(output)
    return kept


def main() -> None:
    """Run the command line program."""
    try:
        import nbclient
        import nbformat
    except ImportError as err:
        raise missing_package("executing the notebook", "nbclient", err) from None
    notebook = nbformat.read(TOUR, as_version=4)
    os.environ["PYTHONWARNINGS"] = NO_ADVICE
    nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(TOUR.parent)}},
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = without_bars(cell.outputs)
    notebook.metadata.language_info = {"name": "python"}  # nothing of this machine
    files.write_text(TOUR, nbformat.writes(notebook) + "\n")


if __name__ == "__main__":
    run_cli(main)
