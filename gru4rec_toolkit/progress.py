"""Progress bars of long work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gru4rec_toolkit import messages

if TYPE_CHECKING:
    from tqdm.auto import tqdm


def progress_bar(n_steps: int, what: str, unit: str = "mb", done: int = 0, leave: bool = True
) -> tqdm:
    """Return a bar of mini-batches, or of other units, of which some may be done.

    It is in a notebook, else on standard error if that is a terminal, and nowhere if only warnings
    are wanted (`messages.is_quiet`). ``leave``: whether it stays when it is closed.
    """
    from tqdm.auto import tqdm  # here, so that the help of command lines needs no package

    # without ipywidgets a notebook shows the bar of terminals; its standard error is none
    disable = False if "ipykernel.zmqshell" in sys.modules else None
    if messages.is_quiet():
        disable = True
    # tqdm draws nothing on a terminal of no size, and ends the line of it
    unknown = messages.has_unknown_size(sys.stderr)
    size = {"ncols": messages.UNKNOWN_COLUMNS, "nrows": 24} if unknown else {}
    return tqdm(
        total=n_steps, desc=what, unit=unit, initial=done, disable=disable, leave=leave,
        **size,
    )  # fmt: skip
