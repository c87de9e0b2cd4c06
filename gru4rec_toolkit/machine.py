"""Compiler, BLAS and cores of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import hashlib
import importlib
import logging
import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path

from gru4rec_toolkit import compile_directory
from gru4rec_toolkit.errors import InputError

logger = logging.getLogger("gru4rec")

# the routines that Theano's C code calls; scipy-openblas exports them with a prefix
_BLAS_ROUTINES = [
    precision + routine
    for precision in "sd"
    for routine in ("gemm", "gemv", "ger", "dot", "axpy", "copy", "scal")
]
# threads of a team by default: what more would give is modelled by benchmarks.threads
MOST_THREADS = 16
# threads that a user may ask for on a machine with fewer cores
ON_FEW_CORES = 8
APT = "sudo apt-get install -y"


def check_compiler() -> None:
    """Raise an InputError that names what Theano lacks to compile while it runs."""
    missing = []
    if not shutil.which("g++"):
        missing.append(("the C++ compiler g++", "g++"))
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        missing.append((f"Python's headers ({header})", "python3-dev"))
    if missing:
        raise InputError(
            f"{' and '.join(what for what, _ in missing)} not found, but Theano compiles its "
            f"graphs; install with: {APT} {' '.join(package for _, package in missing)}"
        )


def load_cuda_libraries() -> None:
    """Load the CUDA libraries that `make gpu` has installed, by the names libgpuarray opens."""
    for library in (Path(sys.prefix) / "lib" / "gru4rec-gpu").glob("lib*.so"):
        with contextlib.suppress(OSError):  # pygpu names the library that it misses
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def load_gpuarray() -> None:
    """Load the libgpuarray of this environment, for a pygpu that does not say where it lies."""
    for prefix in (sys.prefix, sys.base_prefix):
        library = Path(prefix) / "lib" / "libgpuarray.so.3"
        if library.exists():
            with contextlib.suppress(OSError):  # pygpu says it better
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            return


# ---------------------------------------------------------------------------- BLAS


def find_blas() -> tuple[str, str, str]:
    """Return linker flags, compiler flags that rename the routines, and the name for the log."""
    try:
        openblas = importlib.import_module("scipy_openblas32")
    except ImportError:
        return _find_system_blas()
    directory = _path_without_spaces(Path(openblas.get_lib_dir()))
    flags = f"-L{directory} -l{openblas.get_library()} -Wl,-rpath,{directory}"
    renames = " ".join(f"-D{r}_=scipy_{r}_" for r in _BLAS_ROUTINES)
    return flags, renames, f"scipy-openblas32 {openblas.__version__}"


def _find_system_blas() -> tuple[str, str, str]:
    for name in ("openblas", "blas"):
        library = ctypes.util.find_library(name)
        if library:
            return f"-l:{library}", "", f"the system's {library} (no scipy-openblas32 installed)"
    # an empty value makes Theano call NumPy's own products, correct and slower
    return "", "", "NumPy's (neither scipy-openblas32 nor a system BLAS is installed)"


def _path_without_spaces(directory: Path) -> Path:
    """Return a path without blanks to a library, since Theano splits linker flags at blanks."""
    if not re.search(r"\s", str(directory)):
        return directory
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:12]
    # in a private directory: another user could link other code there
    link = compile_directory.private_directory_without_blanks() / f"blas-{name}"
    try:
        link.symlink_to(directory)
    except FileExistsError:
        pass
    except OSError as err:
        raise compile_directory.failure(err, link.parent) from None
    if link.resolve() != directory.resolve():
        raise InputError(
            f"{link} is not the link to {directory} that it should be; remove it, or install "
            "into a path without blanks"
        )
    return link


def count_threads(team: bool) -> int:
    """Return the number of threads that compute.

    OPENBLAS_NUM_THREADS or OMP_NUM_THREADS set it, within bounds; by default a team has one thread
    for each core. BLAS's own threads wait for each other in busy loops after every one of a step's
    small products. As soon as another process wants a core, that makes training 20 times slower; so
    BLAS by itself gets one thread.
    """
    for _, number in _named_threads():
        if number is not None:
            return min(max(number, 1), most_threads())
    return min(available_cores(), MOST_THREADS) if team else 1


def _named_threads() -> list[tuple[str, int | None]]:
    """Return the threads that the environment names, most important first; None: not a number."""
    named = []
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").strip()
        if text:
            named.append((f"{name}={text[:20]}", first_number(text)))
    return named


def first_number(text: str) -> int | None:
    """Return the number of threads in a variable's text; None if it is none."""
    # OpenMP takes a list: the first number is that of threads outside of other threads
    digits = re.fullmatch(r"([0-9]+)(\s*,.*)?", text)
    return int(digits.group(1)[:18]) if digits else None  # int() refuses thousands of digits


def openmp_threads() -> str | None:
    """Return OMP_NUM_THREADS as the single number that Theano takes; None where it has none."""
    number = first_number(os.environ.get("OMP_NUM_THREADS", "").strip())
    return None if number is None else str(number)


def most_threads() -> int:
    """Return the most threads that a user can ask for.

    A few more than there are cores cost little, and the number belongs to a model, which another
    machine may have trained. But each thread has a share of every piece of work, and has to wake up
    for it: 256 threads on two cores rank items a hundred times more slowly than two do.
    """
    return max(min(len(os.sched_getaffinity(0)), _quota()), ON_FEW_CORES)


def warn_of_named_threads(n_threads: int) -> None:
    """Say why the number of threads is not the one that the environment names."""
    for setting, number in _named_threads():
        if number is None:
            logger.warning("%s is not a number of threads and is ignored", setting)
            continue
        if number > n_threads:
            logger.warning(
                "%s is more than this machine can use: %d threads compute", setting, n_threads
            )
        return


def available_cores() -> int:
    """Return how many processor cores this process may use, within its container's quota."""
    return min(_cores(), _quota())


def _quota() -> int:
    """Return how many processors' time a container may use (cgroup v2); sys.maxsize: no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(int(quota) // int(period), 1)
    except (OSError, ValueError):  # no such file, or "max 100000"
        return sys.maxsize


def _cores() -> int:
    """Count the processor cores that this process may use; two threads of one core count once."""
    allowed = os.sched_getaffinity(0)
    cores = set()
    for processor in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            return len(allowed)
    return len(cores)


def set_blas_threads(n_threads: int) -> None:
    try:
        openblas = importlib.import_module("scipy_openblas32")
    except ImportError:
        return
    library = Path(openblas.get_lib_dir()) / f"lib{openblas.get_library()}.so"
    if library.exists():
        ctypes.CDLL(str(library)).scipy_openblas_set_num_threads(n_threads)
