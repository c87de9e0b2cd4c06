"""CUDA without a card: the libraries of tests/cuda_emulator, built once, and how to run on them."""

from __future__ import annotations

import atexit
import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tests" / "cuda_emulator"
BUILT = ROOT / "build" / "cuda-emulator"
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-shared", "-U_FORTIFY_SOURCE"]
# what a kernel is compiled with, and the prelude, which is precompiled
KERNEL_FLAGS = [*FLAGS, "-w", "-fno-strict-aliasing", "-fno-gnu-unique"]
# the names that libgpuarray opens and those of NVIDIA's files, and what they are made of
LIBRARIES = {
    "libcuda.so": ("libcuda.so.1", ["driver.cpp", "modules.cpp", "fibers.cpp", "memory.cpp"]),
    "libnvrtc.so": ("libnvrtc.so.12", ["compiler.cpp"]),
    "libcublas.so": ("libcublas.so.12", ["products.cpp"]),
}
PREFIX = "EMULATED_CUDA_"
RC_FILE = "[gpuarray]\ncache_path =\n"


def missing() -> str | None:
    """Say what this machine lacks to run the toolkit on the emulator, or return None."""
    if not shutil.which("g++"):
        return "g++ is not installed"
    for package in ("pygpu", "scipy_openblas32"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    if (Path(sys.prefix) / "lib" / "gru4rec-gpu" / "libcuda.so").exists():
        return "this environment loads the libraries of a card (`make gpu`)"
    return None


def real_nvrtc() -> Path | None:
    """Return NVIDIA's compiler, which every source has to pass as well, where it is installed."""
    if importlib.util.find_spec("nvidia") is None:
        return None
    wheel = importlib.util.find_spec("nvidia.cuda_nvrtc")
    if wheel is None:
        return None
    folders = [Path(folder) / "lib" for folder in wheel.submodule_search_locations]
    return next((p for f in folders for p in f.glob("libnvrtc.so.*")), None)


@functools.lru_cache(maxsize=None)
def build() -> Path:
    """Return the directory of the emulator's libraries, of the present sources.

    It appears whole or not at all: several processes may ask for it at once.
    """
    digest = hashlib.sha256()
    files = sorted(p for p in SOURCES.iterdir() if p.suffix in (".cpp", ".h"))
    files = [p for p in files if p.name != "opencl_counts.cpp"]
    compiler = subprocess.run(["g++", "--version"], capture_output=True, check=True).stdout
    built_by = [Path(__file__), *files]
    options = str([KERNEL_FLAGS, _openblas()]).encode()
    for part in (compiler, options, *map(Path.read_bytes, built_by)):
        digest.update(hashlib.sha256(part).digest())
    directory = BUILT / digest.hexdigest()[:16]
    if directory.exists():
        return directory
    BUILT.mkdir(parents=True, exist_ok=True)
    with open(BUILT / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():  # another process may have made it meanwhile
            with tempfile.TemporaryDirectory(dir=BUILT) as making:
                _build_in(Path(making) / "made")
                os.rename(Path(making) / "made", directory)
    return directory


def _openblas() -> tuple[list[str], list[str]]:
    import scipy_openblas32 as openblas

    library = openblas.get_lib_dir()
    link = [f"-L{library}", f"-l{openblas.get_library()}", f"-Wl,-rpath,{library}"]
    return [f"-I{openblas.get_include_dir()}"], link


def _build_in(directory: Path) -> None:
    directory.mkdir()
    (directory / "kernels").mkdir()
    (directory / "theanorc").write_text(RC_FILE)
    (directory / "theanorc-strict").write_text(RC_FILE + "preallocate = -1\n")
    include, link = _openblas()
    for name, (alias, sources) in LIBRARIES.items():
        more = ["-ldl"]
        if name == "libcublas.so":
            more = [*include, *link, f"-L{directory}", "-lcuda"]
        paths = [str(SOURCES / source) for source in sources]
        # under the names of NVIDIA's files they are found by what is linked with them
        target = [f"-Wl,-soname,{alias}", "-o", str(directory / name)]
        _run(["g++", *FLAGS, "-Wall", "-Wextra", *paths, *target, *more])
        (directory / alias).symlink_to(name)
    for header in ("prelude.h", "kernel_abi.h"):
        shutil.copy(SOURCES / header, directory / header)
    as_header = [flag for flag in KERNEL_FLAGS if flag != "-shared"]
    _run(["g++", *as_header, "-x", "c++-header", str(directory / "prelude.h")])


@functools.lru_cache(maxsize=None)
def build_opencl_counts() -> Path:
    """Return a layer for OpenCL's loader that counts, made anew for this process."""
    directory = Path(tempfile.mkdtemp(prefix="gru4rec-opencl-counts-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    layer = directory / "libopencl_counts.so"
    flags = [*FLAGS, "-Wall", "-Wextra", "-DCL_TARGET_OPENCL_VERSION=300"]
    _run(["g++", *flags, str(SOURCES / "opencl_counts.cpp"), "-o", str(layer)])
    return layer


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def environment(**settings: object) -> dict[str, str | None]:
    """Return the variables that let a process find the emulator in the place of CUDA; None: unset.

    Theano's modules hold the sources of kernels, no binaries: they lie in the directory of all
    others. libgpuarray's cache holds binaries; it is off, since the emulator has one of its own.

    Parameters
    ----------
    **settings
        Settings in lower case, see tests/cuda_emulator/README.md: ``driver=12020, strict=1``. Those
        that are variables already are kept.
    """
    directory = build()
    paths = [str(directory), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    nvrtc = real_nvrtc()
    named = {
        "directory": directory,
        "cache": directory / "kernels",
        "compile": " ".join(["g++", *KERNEL_FLAGS]),
        "nvrtc": nvrtc or "",
        **settings,
    }
    variables = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    variables.update({f"{PREFIX}{name.upper()}": str(value) for name, value in named.items()})
    strict = variables.get(f"{PREFIX}STRICT", "0") != "0"
    rc_file = directory / ("theanorc-strict" if strict else "theanorc")
    rc_files = [str(rc_file), *filter(None, [os.environ.get("THEANORC")])]
    return {
        "LD_LIBRARY_PATH": os.pathsep.join(paths),
        "THEANORC": os.pathsep.join(rc_files),
        "GPUARRAY_CACHE_PATH": None,
        **variables,
    }
