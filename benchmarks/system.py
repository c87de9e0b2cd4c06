"""Description of the machine and its software, for reports."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("Theano", "numpy", "pandas", "scipy-openblas32", "pyarrow", "onnxruntime")


def describe_machine() -> str:
    """Return the processor, the cores that this process may use, memory and system in words."""
    model = first(r"^model name\s*: (.+)$", Path("/proc/cpuinfo")) or platform.machine()
    memory = int(first(r"^MemTotal:\s+(\d+) kB$", Path("/proc/meminfo")) or 0) * 1024 / 1e9
    system = first(r'^PRETTY_NAME="?([^"\n]+)', Path("/etc/os-release")) or platform.system()
    cores = len(os.sched_getaffinity(0))
    return f"{' '.join(model.split())}, {cores} cores, {memory:.0f} GB, {system}"


def describe_software() -> str:
    """Return versions in words."""
    versions = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    versions += [f"g++ {x}" for x in answer(["g++", "-dumpfullversion"])]
    code = "from gru4rec_toolkit import theano_compat as t; print(t.import_pygpu().__version__)"
    versions += [f"pygpu {x}" for x in answer([sys.executable, "-c", code])]
    with contextlib.suppress(OSError):
        nvrtc = ctypes.CDLL(str(Path(sys.prefix, "lib", "gru4rec-gpu", "libnvrtc.so")))
        major, minor = ctypes.c_int(), ctypes.c_int()
        nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        versions.append(f"NVRTC {major.value}.{minor.value}")
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    versions += [f"driver {x}" for x in answer(query)[:1]]
    return ", ".join(versions)


def describe_code() -> str:
    """Return which commit runs, and whether files of it are changed; empty where git is no help."""
    commit = answer(["git", "rev-parse", "--short", "HEAD"])
    changed = answer(["git", "status", "--porcelain", "--untracked-files=no"])
    return f"commit {commit[0]}{', changed' if changed else ''}" if commit else ""


def has_gpu() -> bool:
    """Tell whether NVIDIA's driver lists a card."""
    return bool(answer(["nvidia-smi", "-L"]))


def answer(command: list[str]) -> list[str]:
    """Return the words that a command prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return []
    return [] if done.returncode else done.stdout.split()


def first(pattern: str, file: Path) -> str | None:
    """Return the group of a pattern in a file of the system; None where it is not there."""
    try:
        found = re.search(pattern, file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1].strip() if found else None
