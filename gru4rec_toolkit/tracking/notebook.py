"""Curves of a training in the output of a notebook's cell."""

from __future__ import annotations

from typing import Any

from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.tracking.epochs import Epoch
from gru4rec_toolkit.tracking.history import History
from gru4rec_toolkit.tracking.libraries import import_library
from gru4rec_toolkit.tracking.plot import drawn


class LiveCurve:
    """Curves that grow in a notebook's cell, for `GRU4Rec.fit`'s ``callbacks``.

    Loss and metrics over the epochs, as `Plot` draws them, in one picture that is replaced after
    every epoch. Trainings of other seeds become further lines of it. A training in another cell
    gets a picture of its own, in that cell.

    Raises
    ------
    InputError
        Outside of notebooks, or if matplotlib is missing.
    """

    def __init__(self) -> None:
        self._shell = _shell()
        import_library("matplotlib.figure", "LiveCurve", "matplotlib")
        self._history = History()
        self._handle: Any = None
        self._cell: int | None = None
        self._is_drawn = True

    def __call__(self, epoch: Epoch) -> None:
        """Add an epoch, and draw; a replayed one is drawn with the next one that is new."""
        self._history.add(epoch)
        self._is_drawn = False
        if not epoch.is_replay:
            self._draw()

    def close(self, error: BaseException | None = None) -> None:
        """Draw what has not been drawn yet; more epochs may follow."""
        if not self._is_drawn:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import Image, display

        picture = Image(data=drawn(self._history), format="png")
        if self._handle is None or self._cell != self._shell.execution_count:
            self._cell = self._shell.execution_count
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)
        self._is_drawn = True


def _shell() -> Any:
    """Return the notebook's shell.

    Raises
    ------
    InputError
        Outside of notebooks.
    """
    try:
        from IPython import get_ipython
    except ImportError:
        shell = None
    else:
        shell = get_ipython()
    # IPython in a terminal has a shell, but no kernel
    if getattr(shell, "kernel", None) is None:
        raise InputError(
            "LiveCurve draws in notebooks only; use Plot(path), which draws the same into a file"
        )
    return shell
