"""NVIDIA's driver, cards and libraries: what is there, and which libraries fit.

NVRTC, the compiler, writes assembly (PTX) of its own version whatever the card, and a driver
refuses what is newer than itself. NVRTC and cuBLAS know cards up to those of their time, and drop
old ones.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DRIVER = "libcuda.so.1"
# attributes of a device
MAJOR, MINOR = 75, 76
NAME_LENGTH = 100
# what cuInit answers where something simple is wrong
ANSWERS = {
    100: "the driver sees no card; look at nvidia-smi and at CUDA_VISIBLE_DEVICES",
    803: "the driver was updated since the machine started; restart it",
}
# those of cuBLAS that libgpuarray 0.7.6 needs (its src/loaders/libcublas.fn)
FUNCTIONS = (
    *(f"cublas{name}_v2" for name in ("Create", "Destroy", "SetStream")),
    *("cublasSetPointerMode_v2", "cublasGetPointerMode_v2", "cublasSetAtomicsMode"),
    *(f"cublas{kind}{name}_v2" for kind in "SD" for name in ("dot", "gemm", "gemv", "ger")),
    *("cublasSgemmBatched", "cublasDgemmBatched"),
)


class Release(NamedTuple):
    """A release of CUDA, as PyPI has it.

    Attributes
    ----------
    version : tuple of int
        It is that of the oldest driver, too.
    compiler, products : str
        Requirements of pip: NVRTC and cuBLAS.
    oldest, newest : int
        Compute capability of the cards that it knows, 75 for 7.5.
    """

    version: tuple[int, int]
    compiler: str
    products: str
    oldest: int
    newest: int


# best first. CUDA 13 knows no card that 12.9 does not know, and drops those before 7.5
RELEASES = (
    Release((12, 9), "nvidia-cuda-nvrtc-cu12==12.9.86", "nvidia-cublas-cu12==12.9.1.4", 50, 121),
    Release((12, 8), "nvidia-cuda-nvrtc-cu12==12.8.93", "nvidia-cublas-cu12==12.8.4.1", 50, 120),
    Release((12, 0), "nvidia-cuda-nvrtc-cu12==12.0.76", "nvidia-cublas-cu12==12.0.2.224", 50, 90),
    Release((11, 8), "nvidia-cuda-nvrtc-cu11==11.8.89", "nvidia-cublas-cu11==11.11.3.6", 35, 90),
)
# cards that a cuBLAS knows, by the first version for which that is so
PRODUCTS = {(13, 0): (75, 121), (12, 8): (50, 121), (12, 0): (50, 90), (11, 8): (35, 90)}


class Unfit(Exception):
    """Driver or card that nothing fits; the message is one sentence."""


class Card(NamedTuple):
    """A card, by name and compute capability (75 for 7.5)."""

    name: str
    capability: int


class Machine(NamedTuple):
    """What the driver says.

    Attributes
    ----------
    library : Path
        The driver's library.
    version : tuple of int
        The newest CUDA that the driver runs.
    cards : list of Card
    """

    library: Path
    version: tuple[int, int]
    cards: list[Card]


class Library(NamedTuple):
    """A library of NVIDIA's that lies on this machine."""

    path: Path
    version: tuple[int, int]
    oldest: int
    newest: int


def dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def ask_driver() -> Machine:
    """Ask the driver for its version and its cards; raise `Unfit` if it has none."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        raise Unfit(
            f"{DRIVER}, a part of NVIDIA's driver, is not installed; install the driver of your "
            "card (Debian: nvidia-driver from non-free), or try `make gpu-sim`"
        ) from None
    answer = driver.cuInit(0)
    if answer:
        raise Unfit(f"cuInit failed: {ANSWERS.get(answer, f'error {answer}; look at nvidia-smi')}")
    number = ctypes.c_int()

    def asked(function, *arguments) -> int:
        answer = function(ctypes.byref(number), *arguments)
        if answer:
            raise Unfit(f"the driver does not answer (error {answer}); look at nvidia-smi")
        return number.value

    version = asked(driver.cuDriverGetVersion)
    cards = []
    for index in range(asked(driver.cuDeviceGetCount)):
        device = asked(driver.cuDeviceGet, index)
        name = ctypes.create_string_buffer(NAME_LENGTH)
        driver.cuDeviceGetName(name, NAME_LENGTH, device)
        major, minor = (asked(driver.cuDeviceGetAttribute, a, device) for a in (MAJOR, MINOR))
        cards.append(Card(name.value.decode(errors="replace"), 10 * major + minor))
    if not cards:
        raise Unfit(ANSWERS[100])
    return Machine(loaded(DRIVER), (version // 1000, version % 1000 // 10), cards)


def loaded(name: str) -> Path:
    """Return the path of a library that this process has loaded."""
    name = re.escape(name.split(".so")[0] + ".so")
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[1:]
        if re.search(rf"/{name}[^/]*$", "".join(path)):
            return Path("".join(path))
    raise FileNotFoundError(name)


def choose(machine: Machine) -> Release:
    """Return the best release that runs on the driver and knows all cards; `Unfit` if none does."""
    for release in RELEASES:
        if release.version <= machine.version and knows(release, machine.cards):
            return release
    driver = f"the driver runs CUDA {dotted(machine.version)} at most"
    for card in machine.cards:
        fits = [release for release in RELEASES if knows(release, [card])]
        what = f"{card.name} has compute capability {card.capability / 10}"
        if not fits:
            raise Unfit(f"{what}, and NVIDIA's libraries know {RELEASES[-1].oldest / 10} and later")
        oldest = min(release.version for release in fits)
        if oldest > machine.version:
            raise Unfit(
                f"{driver}, and {what}: it needs a driver of CUDA {dotted(oldest)} or later"
            )
    names = ", ".join(f"{card.name} ({card.capability / 10})" for card in machine.cards)
    raise Unfit(
        f"{driver}, and no release of NVIDIA's libraries fits that and all of {names}; choose "
        "cards with CUDA_VISIBLE_DEVICES, or update the driver"
    )


def knows(what: Release | Library, cards: list[Card]) -> bool:
    """Tell whether a library runs on cards.

    One generation's assembly and machine code run on its later members, too: 12.0's on 12.1.
    """
    return all(
        what.oldest <= card.capability and card.capability // 10 <= what.newest // 10
        for card in cards
    )


# ---------------------------------------------------------------------------- what is there


def find_compiler(machine: Machine) -> Library | None:
    """Return the newest NVRTC on this machine that fits."""
    found = [library for path in paths("libnvrtc") for library in look_at_compiler(path)]
    fits = [x for x in found if x.version <= machine.version and knows(x, machine.cards)]
    return max(fits, key=lambda library: library.version, default=None)


def find_products(machine: Machine) -> Library | None:
    """Return the newest cuBLAS on this machine that fits.

    It runs on every driver of its major version.
    """
    found = [library for path in paths("libcublas") for library in look_at_products(path)]
    fits = [x for x in found if x.version[0] <= machine.version[0] and knows(x, machine.cards)]
    return max(fits, key=lambda library: library.version, default=None)


def paths(name: str) -> list[Path]:
    """Return the libraries of a name: of packages from PyPI, of a toolkit, of the system."""
    found = {path.resolve() for path in _candidates(name)}
    return sorted(path for path in found if re.search(rf"/{name}\.so\.[\d.]+$", str(path)))


def _candidates(name: str) -> Iterator[Path]:
    packages = importlib.util.find_spec("nvidia")
    for folder in (packages and packages.submodule_search_locations) or []:
        yield from Path(folder).rglob(f"{name}.so.*")
    toolkit = Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda")
    for folder in ("lib64", "lib"):
        yield from (toolkit / folder).glob(f"{name}.so.*")
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True).stdout
    for line in listed.splitlines():
        if line.strip().startswith(f"{name}.so."):
            yield Path(line.split("=> ")[1])


def look_at_compiler(path: Path) -> Iterator[Library]:
    """Yield a description of an NVRTC, if it can be loaded."""
    try:
        library = ctypes.CDLL(str(path))
        major, minor, number = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        failed = library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        failed = failed or library.nvrtcGetNumSupportedArchs(ctypes.byref(number))
        known = (ctypes.c_int * number.value)()
        failed = failed or library.nvrtcGetSupportedArchs(known)
    except (OSError, AttributeError):  # one before CUDA 11.2 does not tell its architectures
        return
    if not failed and number.value:
        yield Library(path, (major.value, minor.value), min(known), max(known))


def look_at_products(path: Path) -> Iterator[Library]:
    """Yield a description of a cuBLAS, if it can be loaded and has what libgpuarray needs."""
    try:
        library = ctypes.CDLL(str(path))
        for function in FUNCTIONS:
            getattr(library, function)
        version = []
        for part in (0, 1):  # MAJOR_VERSION, MINOR_VERSION
            number = ctypes.c_int()
            if library.cublasGetProperty(part, ctypes.byref(number)):
                return
            version.append(number.value)
    except (OSError, AttributeError):
        return
    for first, (oldest, newest) in PRODUCTS.items():
        if (version[0], version[1]) >= first:
            yield Library(path, (version[0], version[1]), oldest, newest)
            return
