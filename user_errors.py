"""Mistakes of the user: one clear sentence on standard error, exit code 2, no traceback."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable


class InputError(ValueError):
    """Input that cannot be used: a file, a column, a row or a parameter.

    The message is one sentence that names the culprit, says what was expected and what to do.
    """


def check_regular(path: str, what: str = "") -> None:
    """Raise an InputError if a path leads to a pipe, a device or a socket.

    Reading from one can wait forever or never end, and what was read is gone. Paths that lead to
    nothing, and directories, are left to whoever reads them.

    Parameters
    ----------
    path : str
    what : str
        A name to put before the path, such as "model file ".
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(
            f"{what}{path}: this is no regular file, but a pipe, a device or a socket; save its "
            "content to a file first and give the path of that"
        )


def one_line(err: Exception) -> str:
    """Name another library's complaint in one line, to put it in brackets behind ours."""
    return " ".join(f"{type(err).__name__}: {err}".split())


def run_cli(main: Callable[[], None]) -> None:
    """Run a command line program and turn what users meet into exit codes.

    Parameters
    ----------
    main : callable without arguments
        The program. An `InputError` that leaves it is printed as ``error: <message>`` on standard
        error with exit code 2; an interrupt (Ctrl-C) ends with exit code 130; a closed output pipe
        (``run.py ... | head``) ends silently.
    """
    try:
        main()
        sys.stdout.flush()
    except InputError as err:
        sys.stdout.flush()
        print(f"error: {err}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # Python flushes standard output once more at exit; without a reader that would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
