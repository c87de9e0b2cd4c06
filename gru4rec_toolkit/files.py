"""Files that are written whole or not at all, and never over somebody's file of another kind.

A file is written under another name in its directory and takes its place at the end. That name
tells who writes it: the next write into the directory removes what a killed process left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from gru4rec_toolkit import processes
from gru4rec_toolkit.errors import InputError

_PARTIAL = re.compile(
    r"\.gru4rec-(?P<machine>[0-9a-f]{16})-(?P<pid>[1-9]\d{0,9})-(?P<start>\d{1,20})-[0-9a-f]{8}\.part"
)


# ---------------------------------------------------------------------------- writing


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the place of `path` when the block ends without an exception.

    A symbolic link stays, its target is replaced. The file has the permissions of the one that it
    replaces, else those of any new file. After an exception, `path` is as it was.

    Raises
    ------
    OSError, ValueError
        If the file cannot be written, or the path is none (it holds a null byte).
    """
    with replacing_all([path]) as (file,):
        yield file


@contextlib.contextmanager
def replacing_all(paths: Iterable[str | os.PathLike]) -> Iterator[Sequence[IO[bytes]]]:
    """Open files as `replacing` does; all of them are on the disk before the first is replaced."""
    targets = [target(path) for path in paths]
    for directory in {os.path.dirname(path) for path in targets}:
        remove_left_overs(directory)
    with contextlib.ExitStack() as cleaning:
        names: list[str] = []
        files: list[io.BufferedWriter] = []
        for path in targets:
            names.append(_partial_name(path))
            cleaning.callback(_remove, names[-1])  # before there is a file: Ctrl-C comes any time
            files.append(_create(names[-1], like=path))
            # not close(): that would write the rest, perhaps on the full disk that ended all this
            cleaning.callback(files[-1].raw.close)
        yield files
        for file in files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for name, path in zip(names, targets):
            os.replace(name, path)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file in UTF-8, as `replacing` does."""
    # file names that are not valid in the locale's encoding have surrogates
    data = text.encode("utf-8", errors="backslashreplace")
    with replacing(path) as file:
        file.write(data)


def check_writable(path: str | os.PathLike) -> None:
    """Raise the OSError or ValueError that `replacing` would raise; nothing is left behind."""
    path = target(path)
    with contextlib.suppress(FileNotFoundError):
        os.stat(path)  # a name may be too long
    remove_left_overs(os.path.dirname(path))
    name = _partial_name(path)
    try:
        _create(name, like=path).close()
    finally:
        _remove(name)


def target(path: str | os.PathLike) -> str:
    """Return the path of the file behind symbolic links; it need not exist.

    Raises
    ------
    OSError, ValueError
        If links lead in a circle, or the path cannot be one.
    """
    if not os.fspath(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    found = os.path.realpath(path)
    if os.path.islink(found):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return found


def _create(name: str, like: str) -> io.BufferedWriter:
    """Create a file with the permissions of `like`, if that exists."""
    # not mkstemp: the kernel applies the umask, which could not be read without changing it
    file = open(name, "xb")  # noqa: SIM115
    try:
        with contextlib.suppress(FileNotFoundError):
            os.chmod(name, os.stat(like).st_mode & 0o777)
    except BaseException:
        file.close()
        raise
    return file


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)


# ---------------------------------------------------------------------------- what may be replaced


_EXISTS = "it exists"


def obstacle(
    path: str | os.PathLike,
    kind: str,
    is_that_kind: Callable[[str], bool] | None,
    inputs: Mapping[str, str | os.PathLike] | None = None,
    force: bool = False,
) -> str | None:
    """Return why a path must not be written to, as ``it is ...``; None if it may.

    Parameters
    ----------
    path : str or path-like
    kind : str
        Name of what is to be written, with its article: ``a GRU4Rec model``.
    is_that_kind : callable, optional
        Whether an existing file, given by its path, is of that kind. None: that cannot be told.
    inputs : mapping of str to path
        Files that are still needed, by what they are: ``the training data``.
    force : bool
        Whether all regular files may be replaced, not those of that kind alone; inputs never are.
    """
    if os.path.isdir(path):
        return "it is a directory"
    for name, needed in (inputs or {}).items():
        if is_same(path, needed):
            return f"it is {name}"
    if not os.path.exists(path):
        return None
    if not os.path.isfile(path):
        return "it is no regular file"
    if not os.access(path, os.W_OK):
        return "it is write-protected"
    if force:
        return None
    if is_that_kind is None:
        return _EXISTS
    return None if is_that_kind(os.fspath(path)) else f"{_EXISTS} and is not {kind}"


def check_target(
    action: str,
    path: str,
    kind: str,
    is_that_kind: Callable[[str], bool] | None,
    inputs: Mapping[str, str | os.PathLike] | None = None,
    force: bool | None = False,
) -> None:
    """Find out before long work whether its result can be written, and may be.

    Parameters
    ----------
    action : str
        For the message: ``save the model``.
    path, kind, is_that_kind, inputs
        As for `obstacle`.
    force : bool or None
        As for `obstacle`; None: they may not, and there is no option that says so.

    Raises
    ------
    InputError
        Names the path and what keeps it from being written.
    """
    try:
        reason = obstacle(path, kind, is_that_kind, inputs, bool(force))
        if reason is None:
            check_writable(path)
            return
    except (OSError, ValueError) as err:
        raise InputError(
            f"cannot {action} to {path}: {reason_of(err)}; "
            "give a path in an existing, writable directory"
        ) from None
    advice = "give another path"
    if reason.startswith(_EXISTS) and force is not None:
        advice += ", or --force (in Python, force=True) to replace it"
    raise InputError(f"cannot {action} to {path}: {reason}; {advice}")


def reason_of(err: Exception) -> str:
    """Return what an error of the system says, without its number and its path."""
    return str(getattr(err, "strerror", None) or err)


def is_same(left: str | os.PathLike, right: str | os.PathLike) -> bool:
    """Tell whether two paths lead to one file; neither needs to exist."""
    try:
        return os.path.samefile(left, right)
    except (OSError, ValueError):
        return os.path.realpath(left) == os.path.realpath(right)


# ---------------------------------------------------------------------------- directories


def missing(*folders: str | os.PathLike) -> list[Path]:
    """Return which of some directories, and of those above them, are not there."""
    paths = {path for folder in map(Path, folders) for path in (folder, *folder.parents)}
    return [path for path in paths if not os.path.lexists(path)]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of some directories that are there and hold nothing but each other."""
    for path in sorted(folders, key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError, ValueError):
            path.rmdir()


def prepare_folder(
    option: str,
    folder: str,
    targets: Mapping[str, tuple[str, Callable[[str], bool] | None]],
    inputs: Mapping[str, str | os.PathLike] | None = None,
    force: bool | None = None,
) -> None:
    """Make a folder, and find out before long work whether its files can be written, and may be.

    Parameters
    ----------
    option : str
        The option that gives the folder, for messages.
    folder : str
    targets : mapping of str to (str, callable)
        By the names of the files: ``kind`` and ``is_that_kind`` of `obstacle`.
    inputs, force
        As for `check_target`.

    Raises
    ------
    InputError
        If not; then no folder is left behind.
    """
    made: list[Path] = []
    try:
        made = missing(folder)
        os.makedirs(folder, exist_ok=True)
        for name, (kind, is_that_kind) in targets.items():
            path = os.path.join(folder, name)
            check_target(f"write {kind}", path, kind, is_that_kind, inputs, force)
    except BaseException as err:
        remove_empty(made)
        if isinstance(err, OSError) or type(err) is ValueError:
            reason = reason_of(err)
            raise InputError(f"{option} {folder}: {reason}; give a writable directory") from None
        raise


class Locked(Exception):
    """A file that another process, or another part of this one, has locked."""


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock of a file for the block; the file is there as long.

    The kernel gives the lock of a process that was killed to the next one. Where the file system
    has no locks, the block runs without.

    Raises
    ------
    Locked
        If somebody else holds it.
    OSError
        If the file cannot be made.
    """
    with contextlib.ExitStack() as closing:
        while True:
            file = closing.enter_context(open(path, "ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Locked(path) from None
            except OSError:  # ENOLCK, EOPNOTSUPP and others: no locks here
                break
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    break
            # its holder has just removed it, and the next one would make another
        try:
            yield
        finally:
            _remove(path)


# ---------------------------------------------------------------------------- what is left over


def remove_left_overs(directory: str) -> None:
    """Remove the partial files of processes that were killed while they wrote into a directory.

    Only files of this user are removed whose writer ran on this machine since it was started, and
    runs no more: other machines may share the directory.
    """
    machine = processes.this_machine()
    if machine == processes.UNKNOWN_MACHINE:
        return
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            found = _PARTIAL.fullmatch(entry.name)
            if found is None or found["machine"] != machine:
                continue
            info = entry.stat(follow_symlinks=False)
            is_ours = stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid()
            if is_ours and processes.is_dead(int(found["pid"]), int(found["start"])):
                _remove(entry.path)


def _partial_name(path: str) -> str:
    pid = os.getpid()
    writer = f"{processes.this_machine()}-{pid}-{processes.start_time(pid) or 0}"
    return os.path.join(os.path.dirname(path), f".gru4rec-{writer}-{secrets.token_hex(4)}.part")
