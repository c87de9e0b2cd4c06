"""Registers, spills, memory and parameters of the GPU's kernels on NVIDIA's architectures.

Each kernel is compiled in all ways in which the Ops use it, by NVRTC as libgpuarray calls it, and
assembled by ptxas, which tells what it needs. No GPU is needed.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gru4rec_toolkit.errors import InputError
from tools.cuda_compiler import CompilationFailed, compile_for_cuda, cuda_header, nvrtc

ARCHITECTURES = (60, 70, 75, 80, 86, 90, 100, 120)
# the last one for all of these
PTXAS = "nvidia-cuda-nvcc-cu12==12.9.86"
# CUDA's limits, the same for all of them: bytes of parameters that every driver takes, registers of
# a block, which a warp gets in units of 8 a thread
MOST_PARAMETERS = 4096
MOST_REGISTERS = 65536
UNIT = 8

_SIZES = {"u64": 8, "b64": 8, "s64": 8, "f64": 8, "u32": 4, "b32": 4, "s32": 4, "f32": 4}


@dataclass(frozen=True)
class Needs:
    """What a kernel needs; of several, the most of each."""

    registers: int
    spilled: int  # bytes
    stack: int  # bytes a thread
    shared: int  # bytes a block, static
    parameters: int  # bytes

    def warnings(self, threads: int) -> Iterator[str]:
        """Say what is slow, or cannot be launched in blocks of so many threads."""
        if self.spilled:
            yield f"spills {self.spilled} bytes"
        if self.parameters > MOST_PARAMETERS:
            yield f"takes {self.parameters} bytes of parameters, CUDA at most {MOST_PARAMETERS}"
        needed = -(-self.registers // UNIT) * UNIT * threads
        if needed > MOST_REGISTERS:
            yield (
                f"cannot be launched: {threads} threads of {self.registers} registers need "
                f"{needed}, a block has at most {MOST_REGISTERS}"
            )


def sources() -> dict[str, tuple[str, str]]:
    """Return the sources of all kernels, as the Ops compile them: source -> folder, kernel."""
    import gpu_ops
    from gru4rec_toolkit.ops import gpu_base
    from gru4rec_toolkit.ops.losses.op import LOSSES
    from gru4rec_toolkit.ops.updates import gpu as gpu_updates
    from gru4rec_toolkit.ops.updates.op import METHODS

    cpu_ops = {op.__name__: op for op in gpu_ops.TWINS}
    ops = [cpu_ops[name]() for name in ("Gather", "Outputs", "Dropout")]
    ops.append(cpu_ops["LogQ"](1, 0.5))
    for name in ("linear", "relu", "tanh", "leaky-0.1", "elu-0.5", "selu-1.1-1.6"):
        of_scores = ("Activate", "CountRanks", "TopK")
        ops += [cpu_ops[op](name) for op in ("GRU", "GRUGradient", *of_scores)]
        ops += [cpu_ops["Loss"](loss, name, 1, 0.1) for loss in LOSSES]
    twins = [gpu_ops.GpuLookUps(None), *map(gpu_ops.twin, ops)]
    most = ((),) * gpu_updates.MOST_DENSE + ((False, True),) * gpu_updates.MOST_ROWS
    twins.append(gpu_ops.GpuUpdate("adam", True, True, most))
    for method in METHODS:
        for weighted in (((),), ((), (), (False, True), (False,))):
            for momentum in (False, True):
                twins.append(gpu_ops.GpuUpdate(method, momentum, True, weighted))
    found = {
        gpu_base.kernel_source("sampling", name)[0]: ("sampling", name)
        for name in ("draw", "merge")
    }
    for twin in twins:
        for kernel in twin.KERNELS:
            source, _ = gpu_base.kernel_source(twin.FOLDER, kernel, **twin.constants())
            found[source] = (twin.FOLDER, kernel)
    return found


def block_size() -> int:
    """Return the most threads that a block of any kernel has."""
    from gru4rec_toolkit.ops import gpu_base

    return max(gpu_base.THREADS, gpu_base.COLUMNS * gpu_base.PARTS)


def find_ptxas(architectures: Iterable[int] = ARCHITECTURES) -> str:
    """Return the path of a ptxas that knows the architectures: the wheel's, or on the PATH."""
    spec = None
    if importlib.util.find_spec("nvidia") is not None:
        spec = importlib.util.find_spec("nvidia.cuda_nvcc")
    directories = (spec and spec.submodule_search_locations) or ()
    places = [str(Path(directory, "bin")) for directory in directories]
    ptxas = shutil.which("ptxas", path=os.pathsep.join([*places, os.environ.get("PATH", "")]))
    found = "neither in this environment nor on the PATH"
    if ptxas is not None:
        known = subprocess.run([ptxas, "--help"], capture_output=True, text=True).stdout
        unknown = [f"sm_{a}" for a in architectures if not re.search(rf"'sm_{a}'", known)]
        if not unknown:
            return ptxas
        found = f"here of a version ({ptxas}) that does not know {', '.join(unknown)}"
    raise InputError(
        f"the registers of kernels need NVIDIA's assembler ptxas, which is {found}; "
        f"install it with `pip install {PTXAS}`"
    )


def bytes_of_parameters(assembly: str) -> int:
    """Return the bytes of an entry's parameters in PTX, gaps of alignment included."""
    (parameters,) = re.findall(r"\.entry \w+\((.*?)\)", assembly, re.DOTALL)
    total = 0
    for kind in re.findall(r"\.param \.(\w+)", parameters):
        size = _SIZES[kind]
        total = -(-total // size) * size + size
    return total


@functools.lru_cache(maxsize=None)  # variants that differ only in unused macros
def assemble(ptxas: str, assembly: str, capability: int) -> Needs:
    """Return what ptxas says that a kernel needs."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "kernel.ptx")
        path.write_text(assembly)
        command = [ptxas, "-v", f"-arch=sm_{capability}", str(path), "-o", f"{path}.cubin"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CompilationFailed(f"{done.stderr.strip()}\n{assembly}")
    return read_needs(done.stderr, bytes_of_parameters(assembly))


def read_needs(said: str, parameters: int) -> Needs:
    """Return what ptxas -v has said of one kernel; the functions that it calls count."""
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", said)]
    shared = re.search(r"(\d+) bytes smem", said)
    return Needs(
        registers=max(int(n) for n in re.findall(r"Used (\d+) registers", said)),
        spilled=max(spills),
        stack=max(int(n) for n in re.findall(r"(\d+) bytes stack frame", said)),
        shared=int(shared.group(1)) if shared else 0,
        parameters=parameters,
    )


def measure(
    kernels: dict[str, tuple[str, str]], architectures: Iterable[int], ptxas: str
) -> dict[tuple[str, int], list[Needs]]:
    """Return what each kernel needs in all its variants: (folder/kernel, architecture) -> list.

    ``kernels`` are those of `sources`, or others in the same form.
    """
    library, header = nvrtc(), cuda_header()

    def one(item: tuple[int, str, tuple[str, str]]) -> tuple[str, int, Needs]:
        architecture, source, names = item
        assembly = compile_for_cuda(library, source, header, architecture)
        return "/".join(names), architecture, assemble(ptxas, assembly, architecture)

    jobs = [(a, source, names) for a in architectures for source, names in kernels.items()]
    found = collections.defaultdict(list)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for kernel, architecture, needs in pool.map(one, jobs):
            found[kernel, architecture].append(needs)
    return dict(found)


def most(all_needs: Iterable[Needs]) -> Needs:
    """Return the most of each that any of them needs."""
    return Needs(*map(max, zip(*(vars(needs).values() for needs in all_needs))))


def table(found: dict[tuple[str, int], list[Needs]]) -> str:
    """Return a table: kernel and architecture, the most of all variants."""
    lines = [
        "| kernel | architecture | variants | registers | spilled, bytes | stack, bytes | "
        "shared, bytes | parameters, bytes |",
        "|" + " --- |" * 8,
    ]
    for (kernel, architecture), variants in sorted(found.items()):
        cells = [kernel, f"sm_{architecture}", len(variants), *vars(most(variants)).values()]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def summary(found: dict[tuple[str, int], list[Needs]]) -> str:
    """Return a table of the kernels: the least and the most of all variants and architectures."""
    lines = [
        "| kernel | variants | registers | spilled, bytes | stack, bytes | shared, bytes | "
        "parameters, bytes |",
        "|" + " --- |" * 7,
    ]
    kernels = collections.defaultdict(list)
    for (kernel, _), variants in sorted(found.items()):
        kernels[kernel].append(variants)
    for kernel, by_architecture in kernels.items():
        columns = zip(*(vars(n).values() for variants in by_architecture for n in variants))
        cells = [kernel, str(max(map(len, by_architecture)))]
        for column in columns:
            low, high = min(column), max(column)
            cells.append(str(low) if low == high else f"{low} to {high}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def warnings(found: dict[tuple[str, int], list[Needs]]) -> list[str]:
    """Return a sentence for everything that is slow or cannot be launched."""
    threads = block_size()
    return [
        f"{kernel} on sm_{architecture} {warning}"
        for (kernel, architecture), variants in sorted(found.items())
        for warning in most(variants).warnings(threads)
    ]
