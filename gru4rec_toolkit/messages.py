"""Messages on standard error: one line each; on a terminal they are wrapped and coloured.

All that this project's programs say there takes this way: errors and remarks by `show`, everything
else through the logger "gru4rec". Its level alone decides how much is said: above INFO there are no
progress bars, either.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import TextIO

logger = logging.getLogger("gru4rec")
# what a message begins with, and its colour; with --verbose the time stands before it
_COLOURS = {"error": 31, "warning": 33}
_KIND = re.compile(rf"((?:[\d-]{{10}} [\d:]{{8}} )?)({'|'.join(_COLOURS)}):")
_NARROWEST = 20
UNKNOWN_COLUMNS = 80


def set_up(quiet: bool = False, verbose: bool = False) -> None:
    """Let a program say what the loggers say.

    Parameters
    ----------
    quiet : bool
        Whether it says warnings only.
    verbose : bool
        Whether it says what this project's logger has at debug level too, and when.
    """
    handler = _Handler()
    handler.setFormatter(_Formatter(verbose))
    # ours at INFO only: Theano's logger would report every wait for another process's compilation
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


def is_quiet() -> bool:
    """Return whether somebody asked for warnings only."""
    return logger.level > logging.INFO  # NOTSET, where nobody asked for anything, is below


def show(text: str) -> None:
    """Say something on standard error."""
    with _bars_aside(sys.stderr):
        print(laid_out(text, sys.stderr), file=sys.stderr, flush=True)


@contextlib.contextmanager
def beside_the_results() -> Iterator[None]:
    """Let what is printed in the block go to standard error, or nowhere where that is quiet."""
    with contextlib.redirect_stdout(io.StringIO() if is_quiet() else sys.stderr):
        yield


def laid_out(text: str, stream: TextIO) -> str:
    """Return a message as a stream shows it: on a terminal wrapped at words and coloured."""
    columns = _columns(stream)
    if columns is None:
        return text
    text = "\n".join(_wrapped(line, columns) for line in text.split("\n"))
    kind = _KIND.match(text)
    if kind and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        time, name = kind.groups()
        text = f"{time}\x1b[{_COLOURS[name]}m{name}:\x1b[0m{text[kind.end() :]}"
    return text


def _wrapped(line: str, columns: int) -> str:
    if len(line) <= columns:
        return line
    # paths and addresses stay in one piece, to be copied
    return textwrap.fill(
        *(line, columns),
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def has_unknown_size(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that does not know its size, as of plain ``script``."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return stream.isatty() and not os.get_terminal_size(stream.fileno()).columns
    return False


def _columns(stream: TextIO) -> int | None:
    """Return how wide a terminal is; None if the stream is none."""
    try:
        if not stream.isatty():
            return None
        columns = os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, OSError, ValueError):  # a stream of somebody else's, or a closed one
        return None
    return max(columns or UNKNOWN_COLUMNS, _NARROWEST)  # 0: a terminal that does not know


@contextlib.contextmanager
def _bars_aside(stream: TextIO) -> Iterator[None]:
    """Take progress bars off a terminal while something else is written there."""
    bar = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    if bar is None or _columns(stream) is None:
        yield
        return
    with bar.external_write_mode(file=stream):
        yield


class _Handler(logging.Handler):
    """Says what is logged on what is standard error at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            show(self.format(record))
        except Exception:
            self.handleError(record)


class _Formatter(logging.Formatter):
    """The message alone, a warning as ``warning: <message>``."""

    def __init__(self, times: bool) -> None:
        super().__init__(datefmt="%Y-%m-%d %H:%M:%S")
        self.times = times

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        # of errors, too: "error:" is the word for what ends the program
        if record.levelno >= logging.WARNING:
            text = f"warning: {text}"
        # a search takes days: when its trials ended is in Optuna's own format, too
        if self.times or record.name.startswith("optuna"):
            text = f"{self.formatTime(record, self.datefmt)} {text}"
        return text
