"""Containers of named arrays with a JSON header: ``.npz`` files without pickled objects.

Models and checkpoints are such files. Nothing in one is executed by reading it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple, cast

import numpy as np

from gru4rec_toolkit.errors import InputError, check_no_directory, check_regular


class Kind(NamedTuple):
    """A kind of container.

    Attributes
    ----------
    format : str
        What the header calls it.
    version : int
        The newest that is known.
    noun, name, advice : str
        For messages: ``model file``, ``a GRU4Rec model``, ``give a file that was saved with -s``.
    oldest : int
        The oldest that can be read.
    """

    format: str
    version: int
    noun: str
    name: str
    advice: str
    oldest: int = 1


HEADER_BYTES = 1 << 20  # bytes of a header at most; it has some hundred
# numpy's own reader evaluates this text as Python, which damaged and hostile files can make crash
_ARRAY = re.compile(
    rb"\x93NUMPY\x01\0..\{'descr': '([<>|][biuf]\d{1,2})', "
    rb"'fortran_order': (True|False), 'shape': \((|\d+,|\d+(?:, \d+)+)\), \} *\n",
    re.DOTALL,
)
_LONGEST = 1 << 12  # bytes of that text
_AT_ONCE = 1 << 24


def write(
    kind: Kind, file: IO[bytes], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a container.

    Parameters
    ----------
    kind : Kind
    file : binary file
    header : mapping
        What JSON can hold.
    arrays : mapping of str to array
        Numbers, or object arrays of strings, which are stored as UTF-8 bytes and lengths.
    """
    stored = {}
    for name, array in arrays.items():
        stored.update(encode(name, array))
    full = {"format": kind.format, "version": kind.version, **header}
    # a damaged directory of the container can lose entries without a sign
    full["arrays"] = sorted(stored)
    stored["header"] = np.frombuffer(json.dumps(full).encode(), dtype=np.uint8)
    # not np.savez: after an error it leaves the container open, and Python complains later
    with zipfile.ZipFile(file, "w") as container:
        for name, array in stored.items():
            with container.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)


def is_one(kind: Kind, path: str) -> bool:
    """Tell whether a file is of a kind, of this or another version."""
    try:
        with _opened(path) as (container, members):
            _read_header(kind, container, members)
    except Exception:  # as in `read`
        return False
    return True


def read(kind: Kind, path: str, section: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a container that `write` wrote; nothing in the file is executed.

    Parameters
    ----------
    kind : Kind
    path : str
    section : str
        An entry of the header, which has to be a dictionary.

    Returns
    -------
    (section, arrays)

    Raises
    ------
    InputError
        If the file is missing, truncated, of another kind, or of a newer version.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"{kind.noun}: expected a path, got {type(path).__name__}")
    check_no_directory(path, f"{kind.noun} ")
    check_regular(path, f"{kind.noun} ")
    try:
        with _opened(path) as (container, members):
            header = _read_header(kind, container, members)
            if header["version"] > kind.version:
                raise InputError(
                    f"{kind.noun} {path}: written in format {header['version']}, but this version "
                    f"of GRU4Rec reads up to {kind.version}; update GRU4Rec"
                )
            if header["version"] < kind.oldest:
                raise InputError(
                    f"{kind.noun} {path}: written in format {header['version']}, but this version "
                    f"of GRU4Rec reads from {kind.oldest} on; {kind.advice}"
                )
            if not isinstance(header[section], dict):
                raise ValueError(f"its {section} are no dictionary")
            if sorted(members) != header.get("arrays", sorted(members)):
                raise ValueError("arrays are missing")
            stored = {name: _read_array(container, info) for name, info in members.items()}
        return header[section], _decode(stored)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{kind.noun} {path}: not found; check the path") from None
    except PermissionError:
        raise InputError(f"{kind.noun} {path}: no permission to read it") from None
    except MemoryError:  # the sizes fit the file: this was checked
        raise InputError(
            f"{kind.noun} {path}: not enough memory for the {os.path.getsize(path) >> 20} MB of it"
        ) from None
    # zipfile, struct, json and numpy raise anything on a file of another kind
    except Exception:
        raise InputError(
            f"{kind.noun} {path}: not {kind.name}, or truncated; {kind.advice}"
        ) from None


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open the container; give its arrays by name, of sizes that the file really has."""
    os.stat(path)
    if not os.path.isfile(path):
        raise ValueError("no regular file")  # reading a pipe might wait forever
    with open(path, "rb") as file, zipfile.ZipFile(file) as container:
        members = {}
        for info in container.infolist():
            name, extension = os.path.splitext(info.filename)
            if extension != ".npy" or name in members:
                raise ValueError("a member that is no array, or there twice")
            # models are not compressed: what unpacks to much more than the file is none
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise ValueError("a member that is compressed or encrypted")
            if info.file_size != info.compress_size:
                raise ValueError("two sizes of one array")
            members[name] = info
        if sum(info.file_size for info in members.values()) > os.fstat(file.fileno()).st_size:
            raise ValueError("arrays that are larger than the file")
        yield container, members


def _read_header(
    kind: Kind, container: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]
) -> dict[str, Any]:
    """Take the header from the members and return it."""
    info = members.pop("header")
    if info.file_size > HEADER_BYTES:
        raise ValueError("a header that is too long")
    header = json.loads(_read_array(container, info).tobytes().decode())
    is_kind = header["format"] == kind.format
    if not is_kind or type(header["version"]) is not int or header["version"] < 1:
        raise ValueError(f"no header of {kind.name}")
    return header


def _read_array(container: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """Read one array of numbers in numpy's format."""
    with cast(zipfile.ZipExtFile, container.open(info)) as file:
        start = file.read(10)
        n_bytes = int.from_bytes(start[8:], "little")
        text = _ARRAY.fullmatch(start + file.read(n_bytes)) if n_bytes < _LONGEST else None
        if text is None:
            raise ValueError("no array of numbers")
        dtype = np.dtype(text[1].decode())
        shape = tuple(int(n) for n in re.findall(rb"\d+", text[3]))
        if math.prod(shape) * dtype.itemsize != info.file_size - text.end():
            raise ValueError("a shape that does not fit the array's size")
        array = np.empty(shape[::-1] if text[2] == b"True" else shape, dtype)
        rest = array.reshape(-1).view(np.uint8).data
        while len(rest):
            n = file.readinto(rest[:_AT_ONCE])
            if not n:
                raise ValueError("cut short")
            rest = rest[n:]
        if file.read(1):  # compares the check sum, too
            raise ValueError("more than the array")
    if not dtype.isnative:  # what takes the array may know the processor's byte order only
        array = array.astype(dtype.newbyteorder("="))
    return array.T if text[2] == b"True" else array


def encode(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Return an array as arrays of numbers: strings as their bytes in UTF-8, and lengths."""
    if array.dtype.kind in "biuf":
        return {name: array}
    if array.dtype.kind not in "OU":
        raise TypeError(f"{name}: a model holds numbers and strings, not {array.dtype}")
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
    texts = np.empty(len(lengths), dtype=object)
    if lengths.dtype.kind != "i" or (lengths < 0).any() or (lengths > len(data)).any():
        raise ValueError("the lengths of the strings are none")
    ends = np.cumsum(lengths, dtype=np.int64)
    if lengths.sum() != len(data):
        raise ValueError("the lengths of the strings do not add up")
    texts[:] = [data[end - n : end].decode(errors="surrogatepass") for end, n in zip(ends, lengths)]
    return texts
