"""Directory of compiled code: its choice, who could put code into it, and why compiling failed.

Theano unpickles and loads whatever lies in its compile directory. So every directory from there up
to the root has to be one in which nobody but this user and root can create, replace or rename what
we read; what we create is closed to everybody else (mode 700).
"""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import logging
import os
import platform
import pwd
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from gru4rec_toolkit.errors import InputError, one_line

logger = logging.getLogger("gru4rec")

NAME = "gru4rec-theano"
_MOST_LINKS = 40  # links on the way to a directory, as many as Linux follows
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
# how compilers say it, the last one where the system has ended them
_NO_MEMORY = "out of memory|virtual memory exhausted|Cannot allocate memory|Killed signal"
_FIRST_MODULES = 1 << 20  # bytes that Theano's own modules take
_ELF_HEADER = 64  # bytes
# seconds after which a lock without an owner is not about to get one
_OWNER_COMES = 10


class CompileError(InputError):
    """Failure of a compilation, in one sentence, whatever Theano does to its arguments.

    Theano puts a node before the arguments of every error that passes through its linker.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = self.args[0]

    def __str__(self) -> str:
        return self.message


# ---------------------------------------------------------------------------- choice


def choose() -> Path:
    """Return a directory of this user and this kind of processor, created if need be.

    Clusters share home directories, and code built with -march=native for one processor crashes
    on another, so each kind of processor has its own.

    Raises
    ------
    InputError
        If neither the cache of the user nor the temporary directory can be written, or if other
        users could put code into both.
    """
    key = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    reasons: list[str] = []
    for place in _places():
        reason = _prepare(place / key)
        if reason is None:
            directory = Path(os.path.realpath(place / key))
            if reasons:
                logger.warning(
                    "compiled code is kept in %s, because %s; set XDG_CACHE_HOME to a directory of "
                    "your own to keep it there",
                    directory,
                    " and ".join(reasons),
                )
            return directory
        reasons.append(reason)
    raise InputError(
        "Theano compiles its graphs in a directory that can be written by this user alone, but "
        f"{' and '.join(reasons)}; set XDG_CACHE_HOME to a directory of your own"
    )


def named(settings: dict[str, str]) -> Path:
    """Return the directory that Theano's settings name, created if need be.

    Raises
    ------
    InputError
        If it cannot be written, or if other users could put code into it.
    """
    setting = "compiledir" if "compiledir" in settings else "base_compiledir"
    directory = Path(os.path.expanduser(settings[setting]))
    reason = _prepare(directory) or (_danger_in(directory) if setting == "compiledir" else None)
    if reason:
        raise InputError(
            f"{setting}={settings[setting]} (THEANO_FLAGS or a configuration file) cannot be used: "
            f"{reason}; name a directory of your own"
        )
    return directory


def private_directory_without_blanks() -> Path:
    """Return a directory of this user alone whose path has no blanks."""
    reasons: list[str] = []
    for place in _places(blanks=False):
        reason = _prepare(place)
        if reason is None:
            return Path(os.path.realpath(place))
        reasons.append(reason)
    raise InputError(
        "the path of BLAS has blanks, which Theano cannot link with, and there is no directory for "
        f"a link to it: {' and '.join(reasons) or 'all have blanks'}; install into a path without "
        "blanks, or set XDG_CACHE_HOME to one"
    )


def _places(blanks: bool = True) -> Iterator[Path]:
    """Yield the user's cache, then a directory among the temporary files."""
    with contextlib.suppress(RuntimeError):  # a user without a home, as in some containers
        yield from _fitting(
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / NAME, blanks
        )
    own = f"{NAME}-{os.getuid()}"
    temporary = []
    with contextlib.suppress(OSError):  # no temporary directory can be written
        temporary.append(tempfile.gettempdir())
    if not blanks:
        temporary.append("/tmp")
    for directory in temporary:
        yield from _fitting(Path(directory) / own, blanks)


def _fitting(directory: Path, blanks: bool) -> list[Path]:
    # Theano's links to it are resolved, so the path behind them counts
    return [] if not blanks and re.search(r"\s", os.path.realpath(directory)) else [directory]


def _prepare(directory: Path) -> str | None:
    """Create a directory; say why it cannot be used, or return None."""
    try:
        # before anything is created in a place that others control
        reason = _danger_below(directory)
        if reason is None:
            _create(directory)
            reason = _danger_below(directory)
        if reason is None and not os.access(directory, os.W_OK | os.X_OK):
            reason = f"{directory} cannot be written"
    except OSError as err:
        reason = f"{directory} cannot be created ({err.strerror})"
    return reason


def _create(directory: Path) -> None:
    """Make a directory and those above it that are missing, closed to other users."""
    for level in [*reversed(directory.parents), directory]:
        if not level.is_dir():
            with contextlib.suppress(FileExistsError):
                level.mkdir(mode=0o700)
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))


def _processor() -> str:
    """Return a text that differs between processors that cannot run each other's code."""
    lines = [platform.machine(), platform.processor()]
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        cpuinfo = ""
    for field in ("model name", "flags", "Features", "CPU part"):
        found = re.search(rf"^{field}\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
        lines.append(" ".join(sorted(found.group(1).split())) if found else "")
    return "\n".join(lines)


# ---------------------------------------------------------------------------- safety


def _danger_below(base: Path) -> str | None:
    """Say how others could put code into a directory of compile directories, or return None."""
    reason = danger(base)
    if reason is None and base.is_dir():
        reasons = (_danger_in(d) for d in sorted(base.glob("compiledir_*")))
        reason = next(filter(None, reasons), None)
    return reason


def _danger_in(directory: Path) -> str | None:
    """Say how others could put code, or have put code, into a compile directory."""
    reason = danger(directory)
    if reason is None and directory.is_dir():
        reason = _danger_of_entries(directory, _can_be_entered(os.stat(directory)), depth=2)
    return reason


def _danger_of_entries(directory: str | Path, is_open: bool, depth: int) -> str | None:
    """Say how others could have changed what lies in a directory, which they may enter or not."""
    reason = None
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            status = entry.stat(follow_symlinks=False)
            reason = _owner_problem(entry.path, status)
            if is_open and not stat.S_ISLNK(status.st_mode):
                reason = reason or _mode_problem(entry.path, status, last=True)
            # modules are looked at when they are loaded, but those that Theano loads at its import
            if depth > 1 and stat.S_ISDIR(status.st_mode) and reason is None:
                inner_is_open = is_open and _can_be_entered(status)
                if inner_is_open or entry.name.endswith("_ext"):
                    reason = _danger_of_entries(entry.path, inner_is_open, depth - 1)
        if reason:
            break
    return reason


def _can_be_entered(status: os.stat_result) -> bool:
    """Tell whether other users can reach what lies in a directory."""
    return bool(status.st_mode & (stat.S_IXGRP | stat.S_IXOTH))


def check_loaded(path: str | Path) -> None:
    """Raise a CompileError if others could have written a file that is about to be loaded.

    Parameters
    ----------
    path : str or Path
        A compiled module, or the keys of one. A compile directory that others cannot enter keeps
        them from its files, whatever rights these give.
    """
    reason = None
    # if it is missing, whoever loads it says so
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            reason = danger(Path(path))
        else:
            reason = _owner_problem(str(path), status)
            folder = os.path.dirname(path)
            if reason is None and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                levels = (folder, os.path.dirname(folder))
                if all(_can_be_entered(os.stat(level)) for level in levels):
                    reason = _mode_problem(str(path), status, last=True)
    if reason:
        raise CompileError(f"compiled code cannot be loaded: {reason}")


def is_cut_short(path: str | Path) -> bool:
    """Tell whether a file of compiled code lacks its end, as after a crash or on a full disk.

    The loader maps such a file all the same, and the process dies (SIGBUS) at its first use. The
    last thing in a file are its section headers; the first bytes say where they end.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_ELF_HEADER)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return False
    if len(head) < _ELF_HEADER or not head.startswith(b"\x7fELF"):
        return True
    if head[4] != 2:  # not of 64 bits: the numbers stand elsewhere
        return False
    order: Literal["little", "big"] = "little" if head[5] == 1 else "big"
    start, one, n = (
        int.from_bytes(head[at : at + width], order) for at, width in ((40, 8), (58, 2), (60, 2))
    )
    return size < start + one * n


def remove_damaged(base: Path) -> None:
    """Remove what lacks its end, or all of it, of the modules that Theano loads at its import.

    Theano compiles them where they are loaded from, so another process may be about to.
    """
    for folder in base.glob("compiledir_*/*_ext"):
        with contextlib.suppress(OSError):
            if not folder.is_dir():
                folder.unlink()
                continue
            in_use = (folder.parent / "lock_dir").exists
            # a second look: the other process may have been ready before the lock was looked at
            if _is_damaged(folder) and not in_use() and _is_damaged(folder):
                shutil.rmtree(folder)


def _is_damaged(folder: Path) -> bool:
    libraries = [*folder.glob("*.so")]
    if libraries:
        return any(map(is_cut_short, libraries))
    # Theano writes the version there once it has compiled
    return "_version" in (folder / "__init__.py").read_text()


def danger(path: Path) -> str | None:
    """Say how users other than this one and root could change a file or directory.

    Parameters
    ----------
    path : Path
        Every directory and link on the way to it is looked at, as far as they exist.

    Returns
    -------
    str or None
        The culprit, whose it is, and what to do; None: nobody else can change it.
    """
    here, todo = "/", list(Path(os.path.abspath(os.curdir), path).parts[1:])
    n_links = 0
    try:
        reason = _mode_problem(here, os.lstat(here), last=not todo)
        while todo and reason is None:
            part = todo.pop(0)
            if part == "..":
                here = os.path.dirname(here)
                continue
            level = os.path.join(here, part)
            status = os.lstat(level)
            reason = _owner_problem(level, status)
            if stat.S_ISLNK(status.st_mode):
                n_links += 1
                if n_links > _MOST_LINKS:
                    return f"{path} is a circle of links"
                target = os.readlink(level)
                here = "/" if target.startswith("/") else here
                todo[:0] = [p for p in Path(target).parts if p != "/"]
            else:
                reason = reason or _mode_problem(level, status, last=not todo)
                here = level
    except (FileNotFoundError, NotADirectoryError):
        return None  # nothing there that could be dangerous
    except OSError as err:
        return f"{err.filename or path} cannot be looked at ({err.strerror})"
    return reason


def _owner_problem(path: str, status: os.stat_result) -> str | None:
    # the owner of the root directory is root, under another number where user namespaces map it
    if status.st_uid in (os.geteuid(), 0, os.lstat("/").st_uid):
        return None
    advice = " (remove it)" if _is_cache(path) else ""
    return (
        f"{path} belongs to another user, {_user(status.st_uid)}, whose code would be run{advice}"
    )


def _mode_problem(path: str, status: os.stat_result, last: bool) -> str | None:
    # in a sticky directory others cannot rename or remove what is ours, but they can add to it
    if status.st_mode & stat.S_ISVTX and not last:
        return None
    by_all = status.st_mode & stat.S_IWOTH
    if not by_all and not (status.st_mode & stat.S_IWGRP and _others_in_group(path, status.st_gid)):
        return None
    others = "everybody" if by_all else f"the group {_group(status.st_gid)}"
    # what lies in a cache may be other users' already
    advice = "remove it" if _is_cache(path) else "take that right away with chmod go-w"
    return (
        f"{path} can be written by {others} (mode {stat.S_IMODE(status.st_mode):o}), whose code "
        f"would be run ({advice})"
    )


def _is_cache(path: str) -> bool:
    return NAME in path or "compiledir_" in path


def _others_in_group(path: str, gid: int) -> bool:
    """Tell whether a directory's group may have members beside this user and root.

    Many systems give each user a group of the same name and the umask 002: its directories (mode
    775) are as private as those of mode 755. Directories of users that cannot be listed (LDAP) are
    not searched for members, only the group's own list is.
    """
    # an access control list may name anybody; its mask stands where the group's rights stand
    if "system.posix_acl_access" in _attributes(path):
        return True
    try:
        ours = {pwd.getpwuid(uid).pw_name for uid in (os.geteuid(), 0)}
        members = {*grp.getgrgid(gid).gr_mem}
    except KeyError:  # its members cannot be listed
        return True
    members.update(user.pw_name for user in pwd.getpwall() if user.pw_gid == gid)
    return not members <= ours


def _attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:  # this file system has none
        return []


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _group(gid: int) -> str:
    try:
        return f"{grp.getgrgid(gid).gr_name} (gid {gid})"
    except KeyError:
        return f"gid {gid}"


# ---------------------------------------------------------------------------- use

_checked: dict[str, tuple[int, int]] = {}


def restore(directory: str | Path) -> None:
    """Make sure that a compile directory is there and ours; others may have cleared the cache.

    Raises
    ------
    CompileError
        If it cannot be created again, or if another user has put one in its place.
    """
    path = Path(directory)
    with contextlib.suppress(OSError):
        if _identity(path) == _checked.get(str(path)):
            return
    try:
        reason = _danger_in(path)
        if reason is None:
            _create(path)
            reason = _danger_in(path)
        if reason:
            raise CompileError(f"the compiled code cannot be kept in {path}: {reason}")
        (path / "__init__.py").touch(mode=0o600)
        _checked[str(path)] = _identity(path)
    except OSError as err:
        raise failure(err, path) from err


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def close_to_others(base: Path) -> None:
    """Remove other users' access to what Theano has created with the rights of the umask."""
    for directory in base.glob("compiledir_*"):
        with contextlib.suppress(OSError):
            directory.chmod(0o700)


def check_start(base: Path) -> None:
    """Raise a CompileError where Theano would have to compile its first modules on a full disk."""
    patterns = ("lazylinker_ext/*.so", "compiledir_*/lazylinker_ext/*.so")
    if not any(any(base.glob(pattern)) for pattern in patterns):
        check_writable(base, _FIRST_MODULES)


def check_writable(directory: str | Path, n_bytes: int = 4096) -> None:
    """Raise a CompileError unless some bytes can be written to a directory.

    Theano tries for minutes to take its lock where no file can be written.
    """
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(n_bytes))
            file.flush()
    except OSError as err:
        raise failure(err, directory) from err


def remove_stale_locks(base: Path) -> None:
    """Remove the locks of processes that were killed while they compiled.

    Theano knows a dead owner by its process number, which another process may have by now: in a
    container the next start often has the same. Then it would wait for two minutes.
    """
    for directory in base.glob("compiledir_*/lock_dir"):
        remove_stale_lock(directory)


def remove_stale_lock(lock_dir: str | Path) -> None:
    """Remove a lock that nobody holds; this process must hold none."""
    directory = Path(lock_dir)
    with contextlib.suppress(OSError):
        if _is_stale(directory):
            with contextlib.suppress(FileNotFoundError):
                (directory / "lock").unlink()
            directory.rmdir()


def _is_stale(lock_dir: Path) -> bool:
    try:
        pid, _, host = (lock_dir / "lock").read_text().strip().split("_", 2)
        taken = (lock_dir / "lock").stat().st_mtime
        number = int(pid)
    except (OSError, ValueError):  # no owner: killed, or out of space, before it was written
        return time.time() - lock_dir.stat().st_mtime > _OWNER_COMES
    if host != socket.gethostname():
        return False
    # this process holds no lock
    return number == os.getpid() or _started(number) > taken + 1


def _started(pid: int) -> float:
    """Return when a process started, in seconds since the epoch; 0 where that is not known."""
    try:
        # the name of the program, in brackets, may hold blanks
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
        if boot is None:
            return 0.0
        return int(boot[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


# ---------------------------------------------------------------------------- failures


def failure(err: BaseException, directory: str | Path) -> CompileError:
    """Return the message for the user about an error that came out of a compilation.

    Parameters
    ----------
    err : exception
        The system's, or Theano's with the compiler's messages.
    directory : str or Path
        The compile directory.
    """
    cause = system_error(err)
    if cause is None:
        return failure_text(_end_of(str(err.args[0])), directory)
    return failure_text(cause.strerror or str(cause), directory, cause.errno)


def failure_text(text: str, directory: str | Path, number: int | None = None) -> CompileError:
    """Return the message for the user about a compiler's output or a system's error number."""
    try:
        temporary = tempfile.gettempdir()
    except OSError as err:
        return CompileError(
            f"the compiler has no directory for temporary files ({one_line(err)}); free some space "
            "there, or set TMPDIR to a directory that can be written"
        )
    if number in _FULL or re.search("No space left on device|Disk quota exceeded", text):
        return CompileError(
            f"there is no space left for compiled code in {directory}, or in {temporary} for the "
            f"compiler's temporary files ({text}); free some space, or set XDG_CACHE_HOME (and "
            "TMPDIR) to directories that have some"
        )
    if number in _NOT_WRITABLE:
        return CompileError(
            f"the directory of compiled code, {directory}, cannot be written ({text}); make it "
            "writable, or set XDG_CACHE_HOME to a directory that is"
        )
    if number == errno.ENOMEM or re.search(_NO_MEMORY, text):
        return CompileError(
            f"the compiler (g++) has not enough memory ({text}); free some, or start with "
            "`taskset -c 0`, which compiles one file at a time"
        )
    if "failed to map segment" in text:
        return CompileError(
            f"compiled code in {directory} cannot be loaded ({text}), as on a disk that is mounted "
            "with noexec, or where memory is short (ulimit -v); set XDG_CACHE_HOME to a directory "
            "on another disk, or raise that limit"
        )
    return CompileError(
        f"the graph cannot be compiled in {directory}: {text}; check the compiler (g++) and the "
        "flags in .theanorc_gru4rec and THEANO_FLAGS"
    )


def is_failure(err: BaseException) -> bool:
    """Tell whether an error is the system's or the compiler's, not a mistake in Theano or here."""
    if isinstance(err, ImportError):  # compiled code is missing, not a package
        return (err.path or "").endswith(".so")
    texts = [arg for arg in err.args[:1] if isinstance(arg, str)]
    return system_error(err) is not None or any(t.startswith("Compilation failed") for t in texts)


def system_error(err: BaseException | None) -> OSError | None:
    """Return the system's error behind an error; Theano's clean-up covers it with its own."""
    while err is not None and not isinstance(err, OSError):
        err = err.__cause__ or err.__context__
    return err


def _end_of(text: str, most: int = 500) -> str:
    """Return the end of the compiler's output, where the reason is, in one line."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"... {text[-most:]}"
