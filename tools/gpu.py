"""Get ready what a GPU needs beside `make setup`, and test it: `make gpu`, `make gpu-sim`.

Run by the Python of the environment that gets it. pygpu is taken where Python finds it, whoever
installed it; for Python 3.11 it comes from Debian 12's packages where they are. NVIDIA's compiler
and cuBLAS are chosen by driver and card (`cuda_libraries`): those that are there, else from PyPI.
No CUDA toolkit is needed, only the driver. ``--simulated`` takes PoCL instead, which runs the same
kernels on the CPU, slowly.

Usage: ``python tools/gpu.py [--simulated]``. Every step says what it found. Exit codes: 0 all
works; 1 a step failed; 2 something is missing, named in one sentence.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NoReturn

import cuda_libraries as cuda

ROOT = Path(__file__).resolve().parent.parent
# Debian 12's packages, and the Python that they are for
MODULES = Path("/usr/lib/python3/dist-packages")
DEBIANS = (3, 11)
PACKAGES = ["python3-pygpu", "libgpuarray-dev"]
SIMULATOR = ["pocl-opencl-icd", "ocl-icd-opencl-dev", "libclblast-dev"]
# what Theano 1.0.5 works with
VERSION, API = "0.7", 2


def fail(message: str, code: int = 2) -> NoReturn:
    """End the program with one sentence on standard error."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def say(what: str) -> None:
    print(f"  {what}", flush=True)


def install_packages(names: list[str]) -> None:
    """Install Debian's packages, which only root can."""
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}"]
    missing = [
        name
        for name in names
        if not shutil.which("dpkg-query")
        or subprocess.run([*query, name], capture_output=True, text=True).stdout != "installed"
    ]
    if missing:
        command = f"apt-get install -y --no-install-recommends {' '.join(missing)}"
        if os.getuid() != 0:
            fail(f"missing: {', '.join(missing)}; install with: sudo {command}")
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], env=env, stdout=sys.stderr)
        if subprocess.run(command.split(), env=env, stdout=sys.stderr).returncode:
            fail(f"`{command}` failed, its messages are above", code=1)
    say(f"Debian's packages: {', '.join(names)}")


# ---------------------------------------------------------------------------- pygpu

# prints where pygpu and the library that it loads lie; as the toolkit does, it takes the library of
# the environment first
PROBE = """
import json
from gru4rec_toolkit import machine, theano_compat
machine.load_gpuarray()
pygpu = theano_compat.import_pygpu()
library = next((x for x in open("/proc/self/maps") if "/libgpuarray.so" in x), "/no library")
api = pygpu.gpuarray.api_version()[0] if hasattr(pygpu, "gpuarray") else None
print(json.dumps([pygpu.__version__, api, pygpu.__path__[0],
                  "/" + library.strip().partition("/")[2]]))
"""
# includes and links what Theano's modules do
MODULE = """
#include <gpuarray/array.h>
int main() { return GpuArray_clear(nullptr), 0; }
"""


def get_pygpu(packages: Path) -> None:
    """Say which pygpu there is; get it from Debian where that is possible."""
    found = probe_pygpu()
    if isinstance(found, str) and "No module named 'pygpu'" in found:
        get_from_others(packages)
        found = probe_pygpu()
    if isinstance(found, str):
        fail(f"pygpu cannot be imported: {found}")
    version, api, directory, library = found
    if not version.startswith(f"{VERSION}.") or api != API:
        fail(
            f"{directory} is pygpu {version} (API {api}), and Theano 1.0.5 needs {VERSION}.x "
            f"(API {API}): install that, libgpuarray {VERSION}.6 is the last one"
        )
    say(f"pygpu {version}: {directory}, with {library}")
    check_headers()


def environment() -> dict[str, str]:
    """Return the variables of processes that import the toolkit."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def probe_pygpu() -> list | str:
    """Return version, API, directory and library, or why pygpu cannot be imported."""
    env = environment()
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, env=env)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return json.loads(done.stdout.splitlines()[-1])


def get_from_others(packages: Path) -> None:
    """Make the pygpu of the Python that this environment was made from, or Debian's, importable."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    base = Path(sysconfig.get_path("purelib", vars={"base": sys.base_prefix}))
    if base != packages and (base / "pygpu").is_dir():
        link(packages / "pygpu", base / "pygpu")
        for part in (Path("include", "gpuarray"), Path("lib", "libgpuarray.so")):
            if (Path(sys.base_prefix) / part).exists():
                link(Path(sys.prefix) / part, Path(sys.base_prefix) / part)
    elif sys.version_info[:2] == DEBIANS and (MODULES.joinpath("pygpu").exists() or is_debian_12()):
        install_packages(PACKAGES)
        link(packages / "pygpu", MODULES / "pygpu")
    else:
        fail(
            f"pygpu is not installed for this Python {python}: build libgpuarray {VERSION}.6 with "
            f"-DCMAKE_INSTALL_PREFIX={sys.prefix} and pygpu with {sys.executable} "
            "(libgpuarray's documentation), or take Debian 12 and its Python 3.11, for which this "
            "command installs packages (PYTHON=python3.11 make clean setup gpu)"
        )


def is_debian_12() -> bool:
    """Tell whether the system has packages of pygpu."""
    release = Path("/etc/os-release")
    return release.exists() and "bookworm" in release.read_text()


def link(path: Path, target: Path) -> None:
    """Make a symbolic link, in the place of one that leads nowhere."""
    if path.is_symlink() and not path.exists():
        path.unlink()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def check_headers() -> None:
    """End the program unless Theano's modules can be compiled."""
    with tempfile.TemporaryDirectory() as directory:
        command = ["g++", "-x", "c++", "-", "-o", str(Path(directory) / "test")]
        command += [f"-I{sys.prefix}/include", f"-L{sys.prefix}/lib", "-lgpuarray"]
        done = subprocess.run(command, input=MODULE, capture_output=True, text=True)
    if done.returncode:
        missing = next((x for x in done.stderr.splitlines() if "rror" in x or "cannot" in x), "")
        fail(
            f"the headers or the library of libgpuarray are missing ({missing.strip()[-200:]}): "
            f"install them below {sys.prefix} or /usr (Debian 12: libgpuarray-dev)"
        )


# ---------------------------------------------------------------------------- NVIDIA's libraries


def get_libraries(directory: Path) -> None:
    """Find or install NVIDIA's libraries; make them loadable under libgpuarray's names."""
    machine = cuda.ask_driver()
    cards = ", ".join(f"{card.name} ({card.capability / 10})" for card in machine.cards)
    say(f"driver for CUDA {cuda.dotted(machine.version)}: {machine.library}; cards: {cards}")
    compiler, products = cuda.find_compiler(machine), cuda.find_products(machine)
    if not (compiler and products):
        release = cuda.choose(machine)
        missing = (
            release.compiler if not compiler else "",
            release.products if not products else "",
        )
        pip_install(*filter(None, missing))
        compiler, products = cuda.find_compiler(machine), cuda.find_products(machine)
    if not (compiler and products):
        what = "cuBLAS" if compiler else "NVRTC"
        fail(f"{what} was installed, but cannot be loaded; try `make clean gpu`", code=1)
    directory.mkdir(parents=True, exist_ok=True)
    link_library(directory / "libcuda.so", machine.library)
    link_library(directory / "libcublas.so", products.path)
    link_compiler(directory / "libnvrtc.so", compiler.path)
    say(f"NVRTC {cuda.dotted(compiler.version)}: {compiler.path}")
    say(f"cuBLAS {cuda.dotted(products.version)}: {products.path}")


def pip_install(*requirements: str, needed: bool = True) -> None:
    """Install NVIDIA's libraries from PyPI."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-input", *requirements]
    failed = subprocess.run(command, stdout=sys.stderr).returncode
    if failed and needed:
        fail(f"pip could not install {' '.join(requirements)}, its messages are above", code=1)
    say(f"from PyPI{', not installed' if failed else ''}: {', '.join(requirements)}")


def link_compiler(path: Path, compiler: Path) -> None:
    """Make libnvrtc.so, with the architecture of the card (`libnvrtc.cpp`)."""
    # NVRTC 13.0 leaves it to the user where its second library lies
    builtins = sorted(compiler.parent.glob("libnvrtc-builtins.so.*"))
    source = [str(ROOT / "tools" / "libnvrtc.cpp"), f'-DNVRTC="{compiler}"', "-O2", "-fPIC"]
    link_library(path, compiler, *map(str, builtins), *source, "-ldl")


def link_library(path: Path, target: Path, *more: str) -> None:
    """Make a small library of this name, which loads the target.

    `gpu_probe` loads it before pygpu, so no LD_LIBRARY_PATH has to be set: a library that is loaded
    is found by its name, and its functions are found in what it is linked with.
    """
    command = [
        *("g++", "-shared", "-o", str(path), f"-Wl,-soname,{path.name}"),
        *("-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", *more, str(target)),
        # for the library and for its own dependencies
        *("-Wl,--disable-new-dtags", f"-Wl,-rpath,{target.parent}"),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        fail(f"{path.name} cannot be linked: {result.stderr.strip()[-300:]}", code=1)


# ---------------------------------------------------------------------------- the test


def self_test(device: str) -> None:
    """Open the device and train a small model on it."""
    env = environment()
    if subprocess.run(
        [sys.executable, ROOT / "tools" / "gpu_self_test.py", device], env=env
    ).returncode:
        fail(f"the device {device} does not work, the reason is above", code=1)


def opens(device: str) -> bool:
    """Tell whether a device computes."""
    code = f"from gru4rec_toolkit import gpu_probe; exit(bool(gpu_probe.find_problem({device!r})))"
    env = environment()
    return not subprocess.run([sys.executable, "-c", code], env=env, capture_output=True).returncode


def main() -> None:
    """Command line: see the module's docstring."""
    arguments = sys.argv[1:]
    if arguments not in ([], ["--simulated"]):
        fail("usage: python tools/gpu.py [--simulated]")
    device = "opencl0:0" if arguments else "cuda0"
    say(f"Python {sys.version.split()[0]}")
    get_pygpu(Path(sysconfig.get_path("purelib")))
    if arguments:
        if not opens(device):
            install_packages(SIMULATOR)
        if not cuda.paths("libnvrtc"):  # the tests of the kernels compile them for CUDA, too
            pip_install(cuda.RELEASES[0].compiler, needed=False)
    else:
        try:
            get_libraries(Path(sys.prefix) / "lib" / "gru4rec-gpu")
        except cuda.Unfit as err:
            fail(str(err))
    self_test(device)
    print("ready: " + (f"-d {device}" if arguments else f"-d {device}, or no -d at all"))


if __name__ == "__main__":
    main()
