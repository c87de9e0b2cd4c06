"""Helpers for tests on a GPU, which is a simulated one (PoCL).

A process has one device, so these tests start others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "opencl0:0"


def run(*command, timeout=1500, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "THEANO_FLAGS": f"device={DEVICE}", **environment}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=env,
    )  # fmt: skip


def simulated_gpu():
    """Skip a test unless there is one."""
    result = run("-c", "from gru4rec_toolkit import theano_setup; theano_setup.configure()")
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1]
        pytest.skip(f"no simulated GPU, `make gpu-sim` installs one: {reason}")


def succeeds(*command, **environment):
    result = run(*command, **environment)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result


def program(text, *arguments, **environment):
    return succeeds("-c", textwrap.dedent(text), *arguments, **environment).stdout


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
    training.Training.compile = lambda self: functions.append(compile_step(self)) or functions[-1]
    settings = {"dropout_p_embed": 0.1, "dropout_p_hidden": 0.1, **json.loads(sys.argv[1])}
    gru = GRU4Rec(layers=[16], batch_size=8, n_epochs=2, n_sample=32, constrained_embedding=True,
                  **settings)
    gru.fit(log, **json.loads(sys.argv[2]))
    step = functions[0]
"""
BPR_MAX = {"loss": "bpr-max", "final_act": "elu-0.5", "momentum": 0.1}
CROSS_ENTROPY = {"loss": "cross-entropy", "final_act": "softmax", "logq": 1}


def runs(file: str, theano_flags: str, choice: str) -> None:
    """Run chosen tests of a file with other settings of Theano."""
    options = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=")
    done = succeeds("-m", "pytest", *options, file, "-k", choice, THEANO_FLAGS=theano_flags)
    assert " passed" in done.stdout.splitlines()[-1], done.stdout[-4000:]
