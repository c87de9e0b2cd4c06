"""The C library of the CPU's kernels (``kernels/``): compiled once, loaded once a process."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import theano_setup
from theano_setup import theano
from user_errors import InputError

# bytes, of a line of the caches and of the longest vectors
LINE = 64
SOURCES = Path(__file__).resolve().with_name("kernels")


def usable() -> bool:
    """Whether the kernels can be used: float32 on the CPU, with a BLAS to link with."""
    return theano_setup.configure().team


@functools.lru_cache(maxsize=None)
def load() -> ctypes.PyDLL:
    """Return the library with its team of threads, compiling it on first use.

    Raises
    ------
    InputError
        If the compiler fails.
    """
    # PyDLL keeps the interpreter's lock: the team serves one caller at a time
    library = ctypes.PyDLL(str(path()))
    library.gk_set_threads(theano_setup.configure().threads)
    # the team's threads call BLAS, whose own threads would only be in their way
    for prefix in ("scipy_", ""):
        set_threads = getattr(library, f"{prefix}openblas_set_num_threads", None)
        if set_threads is not None:
            set_threads(1)
    return library


@functools.lru_cache(maxsize=None)
def path() -> Path:
    """Return the compiled library's path, compiling it where that has not been done yet."""
    config = theano.config
    sgemm = theano_setup.configure().sgemm
    # of OpenMP only the pragmas that let loops be vectorised, none of its threads
    flags = ["-O3", *shlex.split(config.gcc.cxxflags), "-fopenmp-simd"] + [f"-DBLAS_SGEMM={sgemm}"]
    link = shlex.split(config.blas.ldflags)
    key = repr((flags, link, config.cxx, sources_digest()))
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    target = Path(config.compiledir) / f"libgru4rec_{digest}.so"
    if not target.exists():
        _compile(flags, link, target)
    return target


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
    """Return a digest of all sources of the library."""
    return digest_of(SOURCES)


def digest_of(directory: Path, *others: str) -> str:
    """Return a digest of the files in a directory and of others."""
    digest = hashlib.sha256()
    for source in [*sorted(directory.iterdir()), *map(Path, others)]:
        if source.is_file():
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _compile(flags: list[str], link: list[str], target: Path) -> None:
    # not beside the target: Theano clears directories there that it does not know
    with tempfile.TemporaryDirectory() as directory:
        # one compiler a file, side by side
        base = [theano.config.cxx, "-std=c++17", *flags, "-fPIC", "-pthread"]
        objects, compilers = [], []
        for source in sorted(SOURCES.glob("*.cpp")):
            objects.append(os.path.join(directory, f"{source.stem}.o"))
            command = [*base, "-c", str(source), "-o", objects[-1]]
            compilers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        messages = [compiler.communicate()[1] for compiler in compilers]
        failed = [m for m, compiler in zip(messages, compilers) if compiler.returncode]
        partial = f"{target}.{os.getpid()}"
        if not failed:
            # linked without the optimisation flags: some of them would link start-up code
            command = [theano.config.cxx, "-shared", "-pthread", *objects, "-o", partial, *link]
            result = subprocess.run(command, capture_output=True, text=True)
            failed = [result.stderr] if result.returncode else []
        if failed:
            raise InputError(
                f"the kernels in {SOURCES} cannot be compiled with {theano.config.cxx}; check the "
                f"compiler and the flags in .theanorc_gru4rec: {failed[0].strip()[-500:]}"
            )
        os.replace(partial, target)  # other processes see the whole file or none
