"""Progress bars of long work."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm


def progress_bar(n_steps: int, what: str) -> tqdm:
    """Return a bar of mini-batches: in a notebook, else on standard error if it is a terminal."""
    # without ipywidgets a notebook shows the bar of terminals; its standard error is none
    disable = False if "ipykernel.zmqshell" in sys.modules else None
    return tqdm(total=n_steps, desc=what, unit="mb", disable=disable)
