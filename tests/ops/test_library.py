"""The library of kernels: what the tests of the Ops cannot see."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gru4rec_toolkit import parameters
from gru4rec_toolkit.ops import base
from gru4rec_toolkit.ops.library import FOLDERS_OF_PARTS, SHARED, SOURCES, empty, path, usable
from gru4rec_toolkit.ops.losses.op import LOSSES
from gru4rec_toolkit.ops.updates.op import METHODS
from gru4rec_toolkit.theano_setup import theano

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not usable(), reason="the kernels need float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (5,), (0, 3), (7, 9), (3000, 224)])
def test_arrays_begin_with_a_line_of_the_caches(shape, dtype):
    array = empty(shape, dtype)
    assert array.shape == shape and array.dtype == dtype
    assert array.ctypes.data % 64 == 0 or array.size == 0
    assert array.flags.c_contiguous and array.flags.writeable
    array[...] = 3
    assert np.array_equal(array, np.full(shape, 3, dtype))


@pytest.mark.parametrize("source", ["updates", "rows", "sampling"])
def test_the_compiler_keeps_what_is_fetched_ahead(source):
    """It leaves out calls of functions that seem to have no effect."""
    flags = shlex.split(theano.config.gcc.cxxflags)
    command = [theano.config.cxx, "-std=c++17", "-O3", *flags, "-fopenmp-simd", "-S", "-o", "-"]
    macros = ["-DMETHOD=GK_ADAGRAD", "-DWITH_MOMENTUM=0"]  # of the updates
    command += [f"-I{SHARED}", *macros, str(SOURCES / source / "cpu.cpp")]
    assembly = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "prefetch" in assembly or "prfm" in assembly


# what machines without this one's longest vectors run: tiles of AVX2, and no tiles but BLAS alone
@pytest.mark.skipif(platform.machine() != "x86_64", reason="GCC's names are for x86-64 alone")
@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx2 -mno-fma"])
def test_shorter_vectors(without):
    flags = f"gcc.cxxflags={theano.config.gcc.cxxflags} {without}"
    library = python(flags, "-c", PATH).strip()
    assert library.endswith(".so") and library != str(path())
    names = ("ops/test_products.py", "ops/test_ops.py", "test_ties.py")
    tests = [str(ROOT / "tests" / name) for name in names]
    chosen = "test_product or equal_rows or test_update_of_rows or whole_parameter"
    chosen += " or equal_score or every_lane"
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    assert " passed" in python(flags, "-m", "pytest", *options, "-k", chosen, *tests)


PATH = "from gru4rec_toolkit.ops import library; print(library.path())"


def python(theano_flags, *arguments):
    """Return what Python printed, with these flags of Theano."""
    env = {**os.environ, "THEANO_FLAGS": theano_flags}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_the_codes_of_the_kernels_are_the_positions_in_the_tables():
    """C's enums, and the numbers that the GPU's kernels get, are those of the tables."""
    header = (SHARED / "kernels.h").read_text()
    tables = {
        "gk_method": ["sgd" if name is None else name for name in METHODS],
        "gk_activation": base.ACTIVATIONS,
        "gk_loss": LOSSES,
    }
    for enum, names in tables.items():
        found = re.search(rf"enum {enum} {{(.*?)}}", header, re.DOTALL).group(1)
        expected = [base.cpp_enum(name) for name in names]
        assert re.findall(r"\w+", found) == expected


# the sizes of the product do not fit, so that the message shows which code ran
PRODUCT = """
import sys
sys.path.insert(0, sys.argv[1])
from gru4rec_toolkit.theano_setup import theano, tensor as tt
import numpy as np
from gru4rec_toolkit.ops import library
from gru4rec_toolkit.ops.products.op import Product
assert str(library.SOURCES).startswith(sys.argv[1])
a, b = tt.fmatrices("ab")
try:
    theano.function([a, b], Product()(a, b))(np.ones((2, 3), "f"), np.ones((2, 3), "f"))
except ValueError as err:
    print(str(err).splitlines()[0])
print(library.path().name)
"""


def test_a_module_of_other_code_does_not_run(tmp_path):
    """Neither one of other host code, which needs no other library, nor of another header."""
    shutil.copytree(SOURCES.parent, tmp_path / "gru4rec_toolkit")
    flags = f"base_compiledir={tmp_path}"

    def printed():
        return python(flags, "-c", PRODUCT, str(tmp_path)).splitlines()

    def change(file, old, new):
        path = tmp_path / "gru4rec_toolkit/ops" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    message, library = printed()
    assert message == "product: inner sizes differ"
    change("products/cpu_apply.h", "inner sizes", "other sizes")
    assert printed() == ["product: other sizes differ", library]
    change("shared/arrays.h", "(type, message)", '(type, "the header")')
    message, other_library = printed()
    assert message == "the header" and other_library != library


def test_the_parts_are_those_of_ops_with_definitions():
    """A source is compiled with the macros of its Ops, or into the core, and never both."""
    for op in SOURCES.glob("*/op.py"):
        importlib.import_module(f"gru4rec_toolkit.ops.{op.parent.name}.op")
    none = base.KernelOp.c_definitions
    with_parts = [op for op in base.KernelOp.__subclasses__() if op.c_definitions is not none]
    assert {op.FOLDER for op in with_parts} == {*FOLDERS_OF_PARTS}


def test_kernels_know_what_parameters_take():
    assert set(LOSSES) <= parameters.LOSSES.keys()
    assert set(METHODS) <= {None, *parameters.OPTIMIZERS}
    assert {*base.ACTIVATIONS, "elu"} == {*parameters.ACTIVATIONS}
