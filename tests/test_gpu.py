"""The GPU: the Ops' kernels, whole trainings and the command line, on a simulated one (PoCL).

A process has one device, so these tests run others: the tests of the Ops and the golden ones on the
device ``opencl0:0``, and programs of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEVICE = "opencl0:0"
# both losses that are recommended, all ways of embedding, momentum, several layers, and all others
GOLDEN = [
    "xe_shared_negatives_logq",
    "bprmax_shared_negatives",
    "bprmax_onehot",
    "xe_separate",
    "momentum",
    "two_layers",
]


def run(*command, timeout=1500, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "THEANO_FLAGS": f"device={DEVICE}", **environment}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=env,
    )  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def simulated_gpu():
    result = run("-c", "import theano_setup; theano_setup.configure()")
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1]
        pytest.skip(f"no simulated GPU, `make gpu-sim` installs one: {reason}")


def succeeds(*command, **environment):
    result = run(*command, **environment)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result


def program(text, *arguments, **environment):
    return succeeds("-c", textwrap.dedent(text), *arguments, **environment).stdout


def pytest_on_gpu(*arguments):
    options = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=")
    return succeeds("-m", "pytest", *options, *arguments).stdout


def test_every_kernel_agrees_with_numpy():
    out = pytest_on_gpu("tests/test_ops.py")
    assert " passed" in out and "failed" not in out
