"""The C library of the CPU's kernels (``ops/*/cpu.cpp``): compiled once, loaded once a process."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from gru4rec_toolkit import compile_directory, theano_setup
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.theano_setup import theano

# bytes, of a line of the caches and of the longest vectors
LINE = 64
SOURCES = Path(__file__).resolve().parent
# headers, and what all kernels have in common
SHARED = SOURCES / "shared"


def usable() -> bool:
    """Whether the kernels can be used: float32 on the CPU, with a BLAS to link with."""
    return theano_setup.configure().team


@functools.lru_cache(maxsize=None)
def load() -> ctypes.PyDLL:
    """Return the library with its team of threads, compiling it on first use.

    Raises
    ------
    InputError
        If the compiler fails, or if another user could have written the library.
    """
    # PyDLL keeps the interpreter's lock: the team serves one caller at a time
    try:
        library = ctypes.PyDLL(str(path()))
    except OSError:  # half a file, of a machine that stopped while it was written
        _remove(path())
        try:
            library = ctypes.PyDLL(str(path()))
        except OSError as err:
            raise compile_directory.failure(err, path().parent) from err
    library.gk_set_threads(theano_setup.configure().threads)
    # the team's threads call BLAS, whose own threads would only be in their way
    for prefix in ("scipy_", ""):
        set_threads = getattr(library, f"{prefix}openblas_set_num_threads", None)
        if set_threads is not None:
            set_threads(1)
    return library


def path() -> Path:
    """Return the compiled library's path, compiling it where it is missing.

    The cache may be cleared at any time; modules that are compiled later are linked with the file.
    """
    flags, link, target = _recipe()
    compile_directory.restore(target.parent)
    if compile_directory.is_cut_short(target):
        _remove(target)
    if not target.exists():
        _compile(flags, link, target)
    reason = compile_directory.danger(target)
    if reason:
        raise InputError(f"the compiled kernels cannot be loaded: {reason}")
    return target


@functools.lru_cache(maxsize=None)
def _recipe() -> tuple[list[str], list[str], Path]:
    """Return the compiler's flags, the linker's flags and the path of the library."""
    config = theano.config
    sgemm = theano_setup.configure().sgemm
    # of OpenMP only the pragmas that let loops be vectorised, none of its threads
    flags = ["-O3", *shlex.split(config.gcc.cxxflags), "-fopenmp-simd"] + [f"-DBLAS_SGEMM={sgemm}"]
    link = shlex.split(config.blas.ldflags)
    key = repr((flags, link, config.cxx, sources_digest(), "soname"))
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return flags, link, Path(config.compiledir) / f"libgru4rec_{digest}.so"


def empty(shape: tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
    """Return an array like numpy's empty that begins with a line of the caches.

    Vectors of the kernels then lie in one line instead of two, wherever rows are whole lines.
    """
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + LINE, dtype=np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


@functools.lru_cache(maxsize=None)
def sources_digest() -> str:
    """Return a digest of all sources of the library, headers included."""
    digest = hashlib.sha256()
    for source in sorted(p for p in SOURCES.rglob("*") if p.suffix in (".cpp", ".h")):
        if not source.name.endswith("_apply.h"):  # of Theano's modules, not of the library
            digest.update(source.read_bytes())
    return digest.hexdigest()


@functools.lru_cache(maxsize=None)
def text_with_headers(file: Path) -> str:
    """Return the text of a C++ file after that of the headers in ``shared/`` that it includes."""
    text = file.read_text()
    headers = re.findall(r'^#include "(.*)"', text, re.MULTILINE)
    return "\0".join([*(text_with_headers(SHARED / name) for name in headers), text])


def _remove(file: Path) -> None:
    try:
        file.unlink()
    except FileNotFoundError:  # another process was faster
        pass
    except OSError as err:
        raise compile_directory.failure(err, file.parent) from err


def _compile(flags: list[str], link: list[str], target: Path) -> None:
    partial = f"{target}.{os.getpid()}"
    try:
        # not beside the target: Theano clears directories there that it does not know
        with tempfile.TemporaryDirectory() as directory:
            _build(flags, link, Path(directory), partial, target.name)
        os.chmod(partial, 0o700)  # the compiler leaves it to the umask who may write to it
        os.replace(partial, target)  # other processes see the whole file or none
    except OSError as err:
        raise compile_directory.failure(err, target.parent) from err
    finally:
        with contextlib.suppress(OSError):
            os.remove(partial)


def _build(flags: list[str], link: list[str], directory: Path, result: str, name: str) -> None:
    # one compiler a file, side by side
    base = [theano.config.cxx, "-std=c++17", *flags, "-fPIC", "-pthread"]
    objects, compilers = [], []
    for source in sorted(SOURCES.rglob("*.cpp")):
        objects.append(str(directory / f"{source.parent.name}_{source.stem}.o"))
        command = [*base, f"-I{SHARED}", "-c", str(source), "-o", objects[-1]]
        compilers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    messages = [compiler.communicate()[1] for compiler in compilers]
    for message, compiler in zip(messages, compilers):
        _check(compiler.returncode, message, result)
    # linked without the optimisation flags: some of them would link start-up code; under its name
    # modules find the library that is loaded, whatever has become of the file
    command = [theano.config.cxx, "-shared", "-pthread", *objects, "-o", result, *link]
    linker = subprocess.run([*command, f"-Wl,-soname,{name}"], capture_output=True, text=True)
    _check(linker.returncode, linker.stderr, result)


def _check(code: int, message: str, result: str) -> None:
    if code:
        text = " ".join(message.split())[-500:] or f"it ended with code {code}"
        raise compile_directory.failure_text(
            f"the kernels in {SOURCES}: {theano.config.cxx}: {text}", os.path.dirname(result)
        )
