"""The benchmarks run; what they measure depends on the machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import kernel_library

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--events", "3000", "--items", "200"]


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_beside_the_limit():
    assert kernel_library.usable()
    table = run("benchmarks.training", *SMALL, "--rounds", "1", "rsc15")
    row = table.splitlines()[-1]
    assert re.match(r"rsc15 +32 x 100 +\d+\.\d +\d+\.\d +\d+% \(\d+% to \d+%\)", row), table


def test_profile_by_op():
    table = run("benchmarks.profile", *SMALL, "--steps", "20", "rsc15")
    assert re.match(r"\d+\.\d us a step, \d+ nodes", table)
    for op in ("Product", "Loss", "Update", "Gather", "GRU", "Outputs"):
        assert op in table
