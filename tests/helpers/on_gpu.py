"""Helpers for tests on a GPU: one simulated by OpenCL (PoCL), one by the emulator of CUDA.

A process has one device, so these tests start others. The fixture `gpu` runs a test on both.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers import cuda_emulator
from helpers.cli import environment

ROOT = Path(__file__).resolve().parents[2]
OPENCL, CUDA = "opencl0:0", "cuda0"
DEVICES = (OPENCL, CUDA)


@dataclass(frozen=True)
class Ran:
    """What a program left behind; ``log``: what the emulator of CUDA found wrong."""

    returncode: int
    stdout: str
    stderr: str
    log: str


@dataclass(frozen=True)
class Gpu:
    """A device that programs can be run on.

    Attributes
    ----------
    name : str
        As ``-d`` takes it.
    environment : dict
        Variables that its programs need; None: not set.
    """

    name: str
    environment: dict[str, str | None] = field(default_factory=dict)

    def strictly(self) -> Gpu:
        """Return the device with guarded memory and other orders of threads, where it has that."""
        if self.name != CUDA:
            return self
        return Gpu(CUDA, cuda_emulator.environment(strict=1, order="rotated"))

    def counting(self) -> dict[str, str]:
        """Return variables for `COUNT`: the library that counts launches and transfers."""
        if self.name == CUDA:
            return {"COUNTER": str(cuda_emulator.build() / "libcuda.so")}
        if not Path("/usr/include/CL/cl_layer.h").exists():
            pytest.skip("OpenCL's headers are not installed (opencl-c-headers)")
        layer = str(cuda_emulator.build_opencl_counts())
        return {"COUNTER": layer, "OPENCL_LAYERS": layer}

    def run(self, *command, timeout=1500, **variables) -> Ran:
        with tempfile.NamedTemporaryFile("r", prefix="gru4rec-emulator-") as log:
            default = {
                "PYTHONPATH": str(ROOT),
                "THEANO_FLAGS": f"device={self.name}",
                "EMULATED_CUDA_LOG": log.name,
            }
            done = subprocess.run(
                [sys.executable, *map(str, command)],
                capture_output=True, text=True, timeout=timeout, cwd=ROOT,
                env=environment(**{**default, **self.environment, **variables}),
            )  # fmt: skip
            return Ran(done.returncode, done.stdout, done.stderr, log.read())

    def succeeds(self, *command, **variables) -> Ran:
        result = self.run(*command, **variables)
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:] + result.log
        assert not result.log
        return result

    def program(self, text, *arguments, **variables) -> str:
        return self.succeeds("-c", textwrap.dedent(text), *arguments, **variables).stdout

    def pytest(self, *arguments, **variables) -> int:
        """Run tests in one process; returns how many passed."""
        options = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=")
        out = self.succeeds("-m", "pytest", *options, *arguments, **variables).stdout
        last = out.strip().splitlines()[-1]
        assert " passed" in last, out[-4000:]
        return int(last.split(" passed")[0].split()[-1])

    def runs(self, file: str, choice: str, *flags: str) -> None:
        """Run chosen tests of a file on the device, with more of Theano's flags."""
        theano_flags = ",".join((f"device={self.name}", *flags))
        self.pytest(file, "-k", choice, THEANO_FLAGS=theano_flags)


@functools.lru_cache(maxsize=None)
def gpu_of(device: str) -> Gpu:
    """Return a device; skips the test where this machine does not have it."""
    if device == CUDA:
        lacking = cuda_emulator.missing()
        if lacking:
            pytest.skip(f"CUDA cannot be emulated: {lacking}")
        return Gpu(CUDA, cuda_emulator.environment())
    gpu = Gpu(device)
    result = gpu.run("-c", "from gru4rec_toolkit import theano_setup; theano_setup.configure()")
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1]
        pytest.skip(f"no simulated GPU, `make gpu-sim` installs one: {reason}")
    return gpu


CPU = Gpu("cpu")


# fits a small model and lets `step` be its compiled training step; arguments, in JSON: settings and
# fit's options
FIT = """
    import json, sys
    import numpy as np, pandas as pd
    from gru4rec import GRU4Rec
    import evaluation
    from gru4rec_toolkit.model import negatives as sampling
    from gru4rec_toolkit.model import training
    rng = np.random.default_rng(0)
    n = 600
    log = pd.DataFrame({"SessionId": np.sort(rng.integers(0, 100, n)), "Time": np.arange(n)})
    log["ItemId"] = rng.integers(0, 50, n)
    training.BLOCK_STEPS = 16
    functions = []
    compile_step = training.Training.compile
    def compile_and_keep(self, *n_steps):
        functions.append(compile_step(self, *n_steps))
        return functions[-1]
    training.Training.compile = compile_and_keep
    settings = {"dropout_p_embed": 0.1, "dropout_p_hidden": 0.1, **json.loads(sys.argv[1])}
    gru = GRU4Rec(layers=[16], batch_size=8, n_epochs=2, n_sample=32, constrained_embedding=True,
                  **settings)
    gru.fit(log, **json.loads(sys.argv[2]))
    step = functions[0]
"""
# before FIT: counts what happens inside of the calls that run steps (`inside`), and overall (`now`)
COUNT = """
    import collections, ctypes, json, os
    from gru4rec_toolkit.model import training as of_model
    counts = ctypes.CDLL(os.environ["COUNTER"]).device_counts
    counts.restype = ctypes.c_char_p
    def now():
        found = json.loads(counts())
        all_counts = collections.Counter(found["launches"])
        for way in ("to_device", "to_host"):
            all_counts[way], all_counts[way + "_bytes"] = found[way]
        return all_counts
    inside, run_steps = collections.Counter(steps=0), of_model.Training.run_steps
    def counted(self, n_steps):
        before = now()
        run_steps(self, n_steps)
        inside.update(now() - before)
        inside["steps"] += n_steps
    of_model.Training.run_steps = counted
"""
BPR_MAX = {"loss": "bpr-max", "final_act": "elu-0.5", "momentum": 0.1}
CROSS_ENTROPY = {"loss": "cross-entropy", "final_act": "softmax", "logq": 1}


def runs(file: str, theano_flags: str, choice: str) -> None:
    """Run chosen tests of a file with other settings of Theano."""
    CPU.pytest(file, "-k", choice, THEANO_FLAGS=theano_flags)
