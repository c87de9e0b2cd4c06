"""Install what a GPU needs beside `make setup`, and test it: `make gpu`, `make gpu-sim`.

Run by the Python of the environment that gets it, on Debian 12. The modules come from Debian
(pygpu, libgpuarray) and NVIDIA's libraries from PyPI: no CUDA toolkit is needed, only the driver.
``--simulated`` installs PoCL instead, which runs the same kernels on the CPU, slowly.

Usage: ``python tools/gpu.py [--simulated]``. Every step says what it found. Exit codes: 0 all
works; 1 a step failed; 2 something is missing, named in one sentence.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
MODULES = Path("/usr/lib/python3/dist-packages")
PACKAGES = ["python3-pygpu", "libgpuarray-dev"]
SIMULATOR = ["pocl-opencl-icd", "ocl-icd-opencl-dev", "libclblast-dev"]
# 12.x is the last line that compiles for cards from 2016 on (compute capability 6.0); the tests of
# the kernels need only the compiler
COMPILER = "nvidia-cuda-nvrtc-cu12==12.9.86"
PRODUCTS = "nvidia-cublas-cu12==12.9.1.4"
# names that libgpuarray opens; the libraries have other names and places
LIBRARIES = {
    "libcuda.so": "libcuda.so.1",
    "libnvrtc.so": "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
    "libcublas.so": "nvidia/cublas/lib/libcublas.so.12",
}


def fail(message: str, code: int = 2) -> NoReturn:
    """End the program with one sentence on standard error."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def say(what: str) -> None:
    print(f"  {what}", flush=True)


def check_python() -> None:
    """End the program unless this is Python 3.11, for which Debian 12 builds pygpu."""
    if sys.version_info[:2] != (3, 11):
        fail(
            f"Debian's pygpu is for Python 3.11, this environment has {sys.version.split()[0]}; "
            "make one with PYTHON=python3.11 make clean setup"
        )
    say(f"Python {sys.version.split()[0]}")


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


def link_pygpu(packages: Path) -> None:
    """Make Debian's module importable here."""
    link = packages / "pygpu"
    if not link.exists():
        if link.is_symlink():
            link.unlink()
        link.symlink_to(MODULES / "pygpu")
    say(f"pygpu: {link.resolve()}")


def pip_install(*requirements: str) -> None:
    """Install NVIDIA's libraries from PyPI."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-input", *requirements]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        fail(f"pip could not install {' '.join(requirements)}, its messages are above", code=1)
    say(f"from PyPI: {', '.join(requirements)}")


def link_libraries(packages: Path, directory: Path) -> None:
    """Make small libraries under the names that libgpuarray opens; they load the right ones.

    `theano_setup` loads them before pygpu, so no LD_LIBRARY_PATH has to be set: a library that is
    loaded is found by its name, and its functions are found in what it is linked with.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, target in LIBRARIES.items():
        path = packages / target if "/" in target else Path(target)
        if "/" not in target:
            found = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True).stdout
            paths = [x.split("=> ")[1] for x in found.splitlines() if x.strip().startswith(target)]
            if not paths:
                fail(
                    f"{target}, a part of NVIDIA's driver, is not installed; install the driver of "
                    "your card (Debian: nvidia-driver from non-free), or try `make gpu-sim`"
                )
            path = Path(paths[0])
        command = [
            *("g++", "-shared", "-o", str(directory / name), f"-Wl,-soname,{name}"),
            *("-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", str(path)),
            # for the library and for its own dependencies
            *("-Wl,--disable-new-dtags", f"-Wl,-rpath,{path.parent}"),
        ]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            fail(f"{name} cannot be linked: {result.stderr.strip()[-300:]}", code=1)
        say(f"{name}: {path}")


SELF_TEST = """
import sys
from gru4rec_toolkit import theano_setup
print(" ", theano_setup.configure(sys.argv[1]))
import numpy as np
import pandas as pd
from gru4rec import GRU4Rec
import evaluation
rng = np.random.default_rng(0)
events = pd.DataFrame({"SessionId": np.repeat(np.arange(60), 4), "Time": np.arange(240)})
events["ItemId"] = (rng.integers(0, 12, 60)[:, None] + np.arange(4)).ravel() % 12
gru = GRU4Rec(layers=[16], batch_size=8, n_epochs=8, n_sample=16, constrained_embedding=True)
gru.fit(events)
recall, _ = evaluation.evaluate_gpu(gru, events, cut_off=[1])
if not recall[0] > 0.9:
    sys.exit(f"the model has learnt nothing: Recall@1 is {recall[0]} of 1")
print("  a small model was trained and evaluated")
"""


def self_test(device: str) -> None:
    """Open the device and train a small model on it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    if subprocess.run([sys.executable, "-c", SELF_TEST, device], env=env).returncode:
        fail(f"the device {device} does not work, the reason is above", code=1)


def main() -> None:
    """Command line: see the module's docstring."""
    arguments = sys.argv[1:]
    if arguments not in ([], ["--simulated"]):
        fail("usage: python tools/gpu.py [--simulated]")
    packages = Path(sysconfig.get_path("purelib"))
    check_python()
    install_packages(PACKAGES + (SIMULATOR if arguments else []))
    link_pygpu(packages)
    if arguments:
        pip_install(COMPILER)
    else:
        pip_install(COMPILER, PRODUCTS)
        link_libraries(packages, Path(sys.prefix) / "lib" / "gru4rec-gpu")
    self_test("opencl0:0" if arguments else "cuda0")
    print("ready: " + ("-d opencl0:0" if arguments else "-d cuda0, or no -d at all"))


if __name__ == "__main__":
    main()
