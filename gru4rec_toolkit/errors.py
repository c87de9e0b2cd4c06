"""Errors that users can correct: one sentence on standard error, exit code 2, no traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from gru4rec_toolkit import messages

# characters of a message, and of a value that it repeats
LONGEST_MESSAGE = 1500
LONGEST_VALUE = 200
# signals that end a program from outside: of kill and of clusters, and of a terminal that closes
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
# packages that setup.py names, by the names that Python imports
DEPENDENCIES = ("numpy", "pandas", "scipy", "scipy_openblas32", "theano", "tqdm")
_FULL = (errno.ENOSPC, errno.EDQUOT)
# characters of standard output that may be in a buffer
_MOST_UNSURE = 1 << 16


class InputError(ValueError):
    """Input that cannot be used: a file, a column, a row or a parameter.

    The message is one sentence that names the culprit, says what was expected and what to do. It
    is one line of `LONGEST_MESSAGE` characters at most, whatever paths and names it repeats.
    """

    def __init__(self, message: object = "") -> None:
        # what was expected and what to do stand at the end
        super().__init__(shortened(printable(str(message)), LONGEST_MESSAGE, at_end=600))


class TrainingDiverged(InputError):
    """The loss became NaN or infinite."""


class Interrupted(KeyboardInterrupt):
    """An interrupt that waited until what was done is safe.

    Parameters
    ----------
    message : str
        One line for the user.
    code : int
        The program's exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def shown(value: object, most: int = LONGEST_VALUE) -> str:
    """Return a value as messages repeat it: its repr in one line, cut where it is long."""
    numpy = sys.modules.get("numpy")  # imported by what asks, if at all
    try:
        if isinstance(value, str):
            text = str.__repr__(value)
        elif numpy is not None and isinstance(value, (numpy.number, numpy.bool_)):
            text = str(value)  # NumPy 2's repr is np.int64(7)
        else:
            text = repr(value)
    except Exception:  # of a class of the caller's
        text = f"an object of the class {type(value).__name__}"
    return shortened(" ".join(text.split()), most)


def shortened(text: str, most: int = LONGEST_VALUE, at_end: int = 0) -> str:
    """Return a text with dots in the place of what is too long, before its last characters."""
    if len(text) <= most:
        return text
    return f"{text[: most - at_end]}...{text[len(text) - at_end :]}"


def printable(text: str) -> str:
    """Escape control characters of a text that stands in one line.

    Paths, ids and values may hold line breaks, and codes that a terminal obeys.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


def check_no_directory(path: str, what: str = "") -> None:
    """Raise an InputError if a path leads to a directory; ``what`` stands before the path."""
    if os.path.isdir(path):
        raise InputError(f"{what}{path}: this is a directory; give the path of a file")


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


def one_line(err: BaseException) -> str:
    """Return another library's message in one line, to put it in brackets behind ours."""
    return " ".join(f"{type(err).__name__}: {err}".split())


def pip_install(what: str) -> str:
    """Return the command that installs something into this Python.

    In an environment that is not activated ``pip`` would be that of another Python.
    """
    active = os.environ.get("VIRTUAL_ENV") or None
    is_active = active and os.path.realpath(active) == os.path.realpath(sys.prefix)
    if sys.prefix == sys.base_prefix or is_active:
        return f"pip install {what}"
    return f"{shlex.quote(sys.executable)} -m pip install {what}"


def listed(words: Sequence[str], before_last: str = "and") -> str:
    """Return words as a sentence lists them: a, b and c."""
    *others, last = words
    return f"{', '.join(others)} {before_last} {last}" if others else last


def missing_dependencies(*names: str) -> InputError:
    """Return the message about packages without which nothing runs: it is the wrong Python."""
    several = len(names) > 1
    subject = f"the package{'s' * several} {listed(names)} {'are' if several else 'is'}"
    root = Path(__file__).resolve().parents[1]
    advice = "install the toolkit there with `pip install .`"
    if (root / "Makefile").is_file():  # a clone
        advice = f"run this with {root}/.venv/bin/python, which `make demo` makes, or {advice}"
    return InputError(f"{subject} not installed in {sys.executable or 'this Python'}; {advice}")


def missing_package(
    purpose: str, name: str, err: Exception, module: str | None = None
) -> InputError:
    """Return the message about an optional package that cannot be imported.

    Parameters
    ----------
    purpose : str
        What needs it: ``data.parquet: reading Parquet files``.
    name : str
        What pip calls it.
    err : exception
        Of the import: packages that do not fit each other raise anything.
    module : str, optional
        What Python calls it, if that is not what pip does.
    """
    if isinstance(err, ModuleNotFoundError) and err.name == (module or name):
        return InputError(
            f"{purpose} needs the package {name}; install it with `{pip_install(name)}`"
        )
    return InputError(
        f"{purpose} needs the package {name}, which cannot be imported ({one_line(err)}); install "
        f"it again with `{pip_install(f'--force-reinstall {name}')}`"
    )


def run_cli(main: Callable[[], None]) -> None:
    """Run a command line program and turn its errors into exit codes.

    Parameters
    ----------
    main : callable without arguments
        The program with the parsing of its arguments. An `InputError` that leaves it is printed as
        ``error: <message>`` on standard error with exit code 2; an interrupt (Ctrl-C) ends with
        exit code 130, SIGTERM with 143, a closed terminal (SIGHUP) with 129, each after what was
        being written is removed; a package that is needed and missing with a sentence and 2, as
        does a full disk that nobody has explained with a sentence and 2; a
        closed output pipe (``run.py ... | head``) ends silently, other output that cannot be
        written (``> /dev/full``) with a sentence, both with exit code 1.
    """
    _open_standard_streams()
    sys.stdout = output = _Output(sys.stdout)
    try:
        try:
            with _raising_at_signals():
                main()
        except SystemExit:  # as after -h; argparse says nothing of an output that cannot be written
            output.check()
            raise
        output.check()
    except InputError as err:
        _end(2, f"error: {printable(str(err))}")
    except Interrupted as err:
        _end(err.code, printable(str(err)))
    except KeyboardInterrupt:
        _end(130, "interrupted")
    except BrokenPipeError:
        _end(1)
    except ModuleNotFoundError as err:
        if err.name not in DEPENDENCIES:
            raise
        _end(2, f"error: {missing_dependencies(err.name)}")
    except OSError as err:
        if err is output.error:
            _end(1, f"error: {output.problem()}")
        if err.errno not in _FULL:
            raise
        where = f"{err.filename}: " if err.filename else ""
        _end(2, printable(f"error: {where}{err.strerror}; free some space and try again"))
    finally:
        sys.stdout = output.stream  # an interrupt may have left it redirected
        if output.error is not None:
            _give_up(output.stream)


def end_at_signal(number: int, frame: FrameType | None = None) -> None:
    """Raise what ends a program at a signal, as a handler of it; no further one disturbs the end.

    Without a handler the kernel would end it at once, and leave what it has half written.
    """
    for other in ENDING_SIGNALS:  # a terminal that closes is told twice, by shell and kernel
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(f"ended by {signal.Signals(number).name}", 128 + number)


@contextlib.contextmanager
def _raising_at_signals() -> Iterator[None]:
    """Let `ENDING_SIGNALS` raise `Interrupted` in the block, where nobody else handles them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    ours = [n for n in ENDING_SIGNALS if signal.getsignal(n) == signal.SIG_DFL]  # nohup ignores one
    try:
        for number in ours:
            signal.signal(number, end_at_signal)
        yield
    finally:
        for number in ours:
            if signal.getsignal(number) == end_at_signal:  # else it ends already
                signal.signal(number, signal.SIG_DFL)


class _Output:
    """Standard output that remembers the error that ended it; a second try may raise none.

    A reader that has gone (``| head``) ends the program. Any other error, as of a full disk, does
    not: what it computes may have taken days. The rest is said on standard error, with the words
    that were not yet written for sure.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None
        self._unsure: deque[str] = deque()
        self._n_unsure = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._unsure.append(text)
        # the stream has less than this in its buffers, and has written what came before
        self._n_unsure += len(text)
        while self._n_unsure - len(self._unsure[0]) > _MOST_UNSURE:
            self._n_unsure -= len(self._unsure.popleft())
        self._do(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._do(self.stream.flush)
        if self.error is None:
            self._forget()

    def _do(self, action: Callable[[], object]) -> None:
        first = self.error is None
        if first:
            try:
                action()
                return
            except OSError as err:
                self.error = err
        if isinstance(self.error, BrokenPipeError):
            raise self.error
        with contextlib.suppress(OSError):
            if first:
                messages.show(f"{self.problem()}; it goes on here:")
            sys.stderr.write("".join(self._unsure))
            sys.stderr.flush()
        self._forget()

    def _forget(self) -> None:
        self._unsure.clear()
        self._n_unsure = 0

    def check(self) -> None:
        """Flush, and raise the error that there was."""
        self.flush()
        if self.error is not None:
            raise self.error from None

    def problem(self) -> str:
        reason = getattr(self.error, "strerror", None) or self.error
        return f"standard output cannot be written: {reason}"


def _open_standard_streams() -> None:
    """Make standard streams that were closed (``>&-``) lead nowhere, and others take any text."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        # else the next files that are opened would be the standard streams of compilers
        null = os.open(os.devnull, os.O_RDWR)
        while null <= 2:
            os.set_inheritable(null, True)
            null = os.open(os.devnull, os.O_RDWR)
        os.close(null)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        # names of files and columns may hold what the encoding lacks; others have no encoding
        reconfigure = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _end(code: int, message: str | None = None) -> None:
    """Leave the program, whether or not anybody reads its output."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    try:
        if message is not None:
            messages.show(message)
        sys.stderr.flush()
    except OSError:
        _give_up(sys.stderr)
    sys.exit(code)


def _give_up(stream: TextIO) -> None:
    """Let a stream lead nowhere: Python flushes it once more at exit, and would complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
