"""Model files: one ``.npz`` container with a JSON header and plain arrays, no pickled objects."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from user_errors import InputError, check_regular

FORMAT = "gru4rec-model"
VERSION = 1
# everything that numpy, zipfile and json raise on a file that is something else
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    EOFError,
    RuntimeError,
    MemoryError,
)


def check_writable(path: str) -> None:
    """Find out before a long training whether its model can be saved.

    Raises
    ------
    InputError
        Names the path and what keeps it from being written.
    """
    if not path:
        raise InputError("cannot save the model: the path is empty; give a file name")
    if os.path.isdir(path):
        raise InputError(f"cannot save the model to {path}: it is a directory; give a file name")
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"cannot save the model to {path}: it is no regular file")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.stat(path)
        handle, probe = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".gru4rec-")
    except OSError as err:
        raise InputError(
            f"cannot save the model to {path}: {err.strerror or err}; "
            "give a path in an existing, writable directory"
        ) from None
    os.close(handle)
    os.remove(probe)


def write(path: str, parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a model whole or not at all.

    Parameters
    ----------
    path : str
    parameters : mapping
        What JSON can hold.
    arrays : mapping of str to array
        Weights and item ids. An object array of strings is stored as UTF-8 bytes and lengths.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    check_writable(path)
    stored = {}
    for name, array in arrays.items():
        stored.update(_encode(name, array))
    header = {"format": FORMAT, "version": VERSION, "parameters": dict(parameters)}
    # a damaged directory of the container can lose entries without a sign
    header["arrays"] = sorted(stored)
    stored["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    handle, partial = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".gru4rec-")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **stored)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a model gets the permissions that any new file gets
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(partial, 0o666 & ~umask)
        os.replace(partial, path)
    except OSError as err:
        raise InputError(f"cannot save the model to {path}: {err.strerror or err}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


def read(path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a model written by `write`; nothing in the file is executed.

    Returns
    -------
    (parameters, arrays)

    Raises
    ------
    InputError
        If the file is missing, truncated, not a model, or of a newer format.
    """
    check_regular(path, "model file ")
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes().decode()) if "header" in file else {}
            if header.get("format") != FORMAT:
                raise ValueError("it has no model header")
            if header["version"] > VERSION:
                raise InputError(
                    f"model file {path}: written in format {header['version']}, but this version "
                    f"of GRU4Rec reads up to {VERSION}; update GRU4Rec"
                )
            if not isinstance(header["parameters"], dict):
                raise ValueError("its parameters are no dictionary")
            stored = {name: file[name] for name in file.files if name != "header"}
            if sorted(stored) != header.get("arrays", sorted(stored)):
                raise ValueError("arrays are missing")
        return header["parameters"], _decode(stored)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"model file {path}: not found; check the path") from None
    except PermissionError:
        raise InputError(f"model file {path}: no permission to read it") from None
    except _UNREADABLE:
        raise InputError(
            f"model file {path}: not a GRU4Rec model, or truncated; "
            "give a file that was saved with -s or savemodel"
        ) from None


def _encode(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    if array.dtype != object:
        return {name: array}
    texts = [text.encode(errors="surrogatepass") for text in array]
    return {
        f"{name}.utf8": np.frombuffer(b"".join(texts), dtype=np.uint8),
        f"{name}.lengths": np.array([len(text) for text in texts], dtype=np.int64),
    }


def _decode(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    arrays = {}
    for name, array in stored.items():
        if name.endswith(".utf8"):
            base = name[: -len(".utf8")]
            arrays[base] = _split_texts(array.tobytes(), stored[f"{base}.lengths"])
        elif not name.endswith(".lengths"):
            arrays[name] = array
    return arrays


def _split_texts(data: bytes, lengths: np.ndarray) -> np.ndarray:
    ends = np.cumsum(lengths)
    texts = np.empty(len(lengths), dtype=object)
    if (lengths < 0).any() or lengths.sum() != len(data):
        raise ValueError("the lengths of the strings do not add up")
    texts[:] = [
        data[end - n : end].decode(errors="surrogatepass") for end, n in zip(ends, lengths)
    ]
    return texts
