"""The library of kernels: what the tests of the Ops cannot see."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kernel_library
from theano_setup import theano

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not kernel_library.usable(), reason="the kernels need float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (5,), (0, 3), (7, 9), (3000, 224)])
def test_arrays_begin_with_a_line_of_the_caches(shape, dtype):
    array = kernel_library.empty(shape, dtype)
    assert array.shape == shape and array.dtype == dtype
    assert array.ctypes.data % 64 == 0 or array.size == 0
    assert array.flags.c_contiguous and array.flags.writeable
    array[...] = 3
    assert np.array_equal(array, np.full(shape, 3, dtype))


@pytest.mark.parametrize("source", ["updates.cpp", "rows.cpp", "sampling.cpp"])
def test_the_compiler_keeps_what_is_fetched_ahead(source):
    """It leaves out calls of functions that seem to have no effect."""
    flags = shlex.split(theano.config.gcc.cxxflags)
    command = [theano.config.cxx, "-std=c++17", "-O3", *flags, "-fopenmp-simd", "-S", "-o", "-"]
    command.append(str(kernel_library.SOURCES / source))
    assembly = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "prefetch" in assembly or "prfm" in assembly


# what machines without this one's longest vectors run: tiles of AVX2, and no tiles but BLAS alone
@pytest.mark.skipif(platform.machine() != "x86_64", reason="GCC's names are for x86-64 alone")
@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx2 -mno-fma"])
def test_shorter_vectors(without):
    flags = f"gcc.cxxflags={theano.config.gcc.cxxflags} {without}"
    library = python(flags, "-c", "import kernel_library; print(kernel_library.path())").strip()
    assert library.endswith(".so") and library != str(kernel_library.path())
    names = ("test_products.py", "test_ops.py", "test_ties.py")
    tests = [str(ROOT / "tests" / name) for name in names]
    chosen = "test_product or equal_rows or test_update_of_rows or whole_parameter"
    chosen += " or equal_score or every_lane"
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    assert " passed" in python(flags, "-m", "pytest", *options, "-k", chosen, *tests)


def python(theano_flags, *arguments):
    """Return what Python printed, with these flags of Theano."""
    env = {**os.environ, "THEANO_FLAGS": theano_flags}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout
