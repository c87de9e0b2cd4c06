"""Teams of other sizes than this machine's."""

from __future__ import annotations

import contextlib

from gru4rec_toolkit.ops import library


@contextlib.contextmanager
def team_of(threads: int):
    """Let so many threads compute; the kernels' library as a context."""
    kernels = library.load()
    before = kernels.gk_threads()
    kernels.gk_set_threads(threads)
    try:
        yield kernels
    finally:
        kernels.gk_set_threads(before)
