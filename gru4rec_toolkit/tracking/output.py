"""Files that are written anew after every epoch."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from gru4rec_toolkit import files
from gru4rec_toolkit.errors import InputError, shown

logger = logging.getLogger("gru4rec")


class Output:
    """A file that is whole at any moment, and whose failure does not end a training.

    Parameters
    ----------
    what : str
        For messages: ``the log of the training``.
    path : str or path-like
    kind, is_that_kind, inputs, force
        As for `files.obstacle`.

    Raises
    ------
    InputError
        If the file cannot be written, or is one that must not be replaced.
    """

    def __init__(
        self,
        what: str,
        path: str | os.PathLike,
        kind: str,
        is_that_kind: Callable[[str], bool],
        inputs: Mapping[str, str | os.PathLike] | None = None,
        force: bool = False,
    ) -> None:
        self.what, self.name = what, checked_path(what, path)
        # notebooks change the directory
        self.path = os.path.abspath(self.name) if self.name else ""
        self._obstacle = (kind, is_that_kind, dict(inputs or {}), force)
        self._has_warned = False
        self._unwritten: bytes | None = None
        files.check_target(f"write {what}", self.name, *self._obstacle)

    def write(self, data: bytes) -> None:
        """Write the file whole or not at all; warn of the first failure."""
        reason = self._write(data)
        if reason is not None and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "cannot write %s to %s: %s; the training goes on, and the next epoch tries again",
                self.what,
                self.name,
                reason,
            )

    def _write(self, data: bytes) -> str | None:
        """Write the file; return why that is impossible, or None."""
        self._unwritten = data
        try:
            # another program may have put its file here since
            reason = files.obstacle(self.path, *self._obstacle)
            if reason is None:
                with files.replacing(self.path) as file:
                    file.write(data)
                self._unwritten = None
            return reason
        except (OSError, ValueError) as err:
            return files.reason_of(err)

    def failure(self) -> InputError | None:
        """Try what could not be written for the last time; return why it is lost, or None."""
        reason = None if self._unwritten is None else self._write(self._unwritten)
        if reason is None:
            return None
        return InputError(f"cannot write {self.what} to {self.name}: {reason}")


def checked_path(what: str, path: str | os.PathLike) -> str:
    """Return a path as a string.

    Raises
    ------
    InputError
        If it is none.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"cannot write {what}: expected a path, got {shown(path)}")
    name = os.fspath(path)
    if not isinstance(name, str):
        raise InputError(f"cannot write {what}: expected a path of text, got {shown(path)}")
    return name
