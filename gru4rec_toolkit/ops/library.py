"""The C library of the CPU's kernels (``ops/*/*.cpp``): compiled once, loaded once a process.

It consists of a core, which every training and evaluation needs, and of parts, one for each choice
of a loss, an optimizer, an activation: a training compiles those that it needs and no others.
Theano's modules are linked with the core and with the part that their Op calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gru4rec_toolkit import compile_directory, compilers, theano_setup
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.theano_setup import theano

# bytes, of a line of the caches and of the longest vectors
LINE = 64
SOURCES = Path(__file__).resolve().parent
# headers, and what all kernels have in common
SHARED = SOURCES / "shared"
# whose cpu.cpp is a part; all other sources are the core's
FOLDERS_OF_PARTS = ("gru", "losses", "ranking", "topk", "updates")


class Part(NamedTuple):
    """A part of the library: the folder of its source, and the macros it is compiled with."""

    folder: str
    definitions: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        words = [value for _, value in self.definitions]
        return "_".join([self.folder or "core", *words]).lower().replace("gk_", "")

    def sources(self) -> list[Path]:
        """Return the sources, those that take long first."""
        if self.folder:
            return [SOURCES / self.folder / "cpu.cpp"]
        parts = {SOURCES / folder / "cpu.cpp" for folder in FOLDERS_OF_PARTS}
        core = set(SOURCES.rglob("*.cpp")) - parts
        return sorted(core, key=lambda source: (-source.stat().st_size, source))


CORE = Part("")


def part(folder: str, definitions: Mapping[str, object]) -> Part:
    """Return a part, given its folder in ``ops/`` and the macros that choose among the kernels."""
    return Part(folder, tuple((name, str(value)) for name, value in definitions.items()))


def usable() -> bool:
    """Whether the kernels can be used: float32 on the CPU, with a BLAS to link with."""
    return theano_setup.configure().team


@functools.lru_cache(maxsize=None)
def load(which: Part = CORE) -> ctypes.PyDLL:
    """Return the core with its team of threads, or a part, compiling it on first use.

    Raises
    ------
    InputError
        If the compiler fails, or if another user could have written the library.
    """
    if which != CORE:
        load()  # else a part would bring one without its threads
    # PyDLL keeps the interpreter's lock: the team serves one caller at a time
    try:
        library = ctypes.PyDLL(str(path(which)))
    except OSError:  # half a file, of a machine that stopped while it was written
        _remove(path(which))
        try:
            library = ctypes.PyDLL(str(path(which)))
        except OSError as err:
            raise compile_directory.failure(err, path(which).parent) from err
    if which != CORE:
        return library
    library.gk_set_threads(theano_setup.configure().threads)
    # the team's threads call BLAS, whose own threads would only be in their way
    for prefix in ("scipy_", ""):
        set_threads = getattr(library, f"{prefix}openblas_set_num_threads", None)
        if set_threads is not None:
            set_threads(1)
    return library


def start(which: Part = CORE) -> bool:
    """Begin to compile the core or a part where it is missing, while this process does other work.

    Returns
    -------
    bool
        Whether it is missing.
    """
    with contextlib.suppress(OSError):  # whoever needs the library meets it again
        if usable() and not target(which).exists():
            _begin(which)
            return True
    return False


def target(which: Part = CORE) -> Path:
    """Return the path that the compiled library has or will have."""
    *_, file = _recipe()
    return file if which == CORE else file.with_name(f"{file.stem}_{which}.so")


def name(which: Part = CORE) -> str:
    """Return the name that a linker knows the library by."""
    return target(which).stem[len("lib") :]


def path(which: Part = CORE) -> Path:
    """Return the compiled library's path, compiling it where it is missing.

    The cache may be cleared at any time; modules that are compiled later are linked with the file.
    """
    file = target(which)
    compile_directory.restore(file.parent)
    if compile_directory.is_cut_short(file):
        _remove(file)
    if not file.exists():
        _compile(which)
    reason = compile_directory.danger(file)
    if reason:
        raise InputError(f"the compiled kernels cannot be loaded: {reason}")
    return file


@functools.lru_cache(maxsize=None)
def _recipe() -> tuple[list[str], list[str], Path]:
    """Return the compiler's flags, the linker's flags and the path of the core."""
    config = theano.config
    sgemm = theano_setup.configure().sgemm
    # of OpenMP only the pragmas that let loops be vectorised, none of its threads
    flags = ["-O3", *shlex.split(config.gcc.cxxflags), "-fopenmp-simd"] + [f"-DBLAS_SGEMM={sgemm}"]
    link = shlex.split(config.blas.ldflags)
    key = repr((flags, link, config.cxx, sources_digest(), "parts"))
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


class _Objects:
    """The object files of the core or of a part, which compilers make side by side."""

    def __init__(self, which: Part) -> None:
        self.part = which
        # not beside the target: Theano clears directories there that it does not know
        self.directory = compilers.make_directory("gru4rec-kernels-")
        macros = [f"-D{macro}={value}" for macro, value in which.definitions]
        base = [theano.config.cxx, "-std=c++17", *_recipe()[0], "-fPIC", "-pthread", *macros]
        self.files, self.jobs = [], []
        for source in which.sources():
            file = os.path.join(self.directory, f"{source.parent.name}_{source.stem}.o")
            command = [*base, f"-I{SHARED}", "-c", str(source), "-o", file]
            self.files.append(file)
            run = functools.partial(list, command)
            self.jobs.append(compilers.start(run, compilers.LIBRARY, f"kernels: {which}"))

    def link(self, result: str) -> None:
        """Wait for the compilers and put the objects together."""
        for job in self.jobs:
            _check(job.wait(), result)
        # linked without the optimisation flags: some of them would link start-up code; under its
        # name modules find the library that is loaded, whatever has become of the file
        soname = f"-Wl,-soname,{target(self.part).name}"
        command = [theano.config.cxx, "-shared", "-pthread", *sorted(self.files), "-o", result]
        others = _recipe()[1] if self.part == CORE else [str(path()), f"-Wl,-rpath,{path().parent}"]
        linker = subprocess.run([*command, *others, soname], capture_output=True)
        _check((linker.stdout, linker.stderr, linker.returncode), result)


# by process: one that was forked begins anew
_begun: dict[tuple[int, Part], _Objects] = {}


def _begin(which: Part) -> _Objects:
    key = os.getpid(), which
    if key not in _begun:
        _begun[key] = _Objects(which)
    return _begun[key]


def _compile(which: Part) -> None:
    file = target(which)
    partial = f"{file}.{os.getpid()}"
    try:
        objects = _begin(which)
        try:
            objects.link(partial)
        finally:
            compilers.remove_directory(objects.directory)
        os.chmod(partial, 0o700)  # the compiler leaves it to the umask who may write to it
        os.replace(partial, file)  # other processes see the whole file or none
    except OSError as err:
        raise compile_directory.failure(err, file.parent) from err
    finally:
        _begun.pop((os.getpid(), which), None)
        with contextlib.suppress(OSError):
            os.remove(partial)


def _check(output: tuple[bytes, bytes, int], result: str) -> None:
    _, message, code = output
    if code:
        text = " ".join(message.decode(errors="replace").split())[-500:]
        text = text or f"it ended with code {code}"
        raise compile_directory.failure_text(
            f"the kernels in {SOURCES}: {theano.config.cxx}: {text}", os.path.dirname(result)
        )
