"""Theano on newer Pythons and NumPys; nothing is bridged where nothing is missing."""

from __future__ import annotations

import configparser
import importlib
import importlib.util
import runpy
import sys
import sysconfig
import warnings

import numpy as np
import pytest
from helpers.cli import ROOT, python, succeeds

from gru4rec_toolkit import theano_compat
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

OLD_NAMES = ("bool", "cast", "complex", "core", "distutils", "product", "sctype2char")


def test_the_modules_of_others_are_as_they_were():
    """What Theano misses is lent to it alone."""
    assert not isinstance(np, theano_compat._Numpy)
    lent = {name for name in OLD_NAMES if name in vars(np)}
    if theano_compat.NUMPY_2:
        assert not lent & {"cast", "complex", "product", "sctype2char"}
    if not theano_compat.HAS_DISTUTILS:
        assert "distutils" not in lent and "numpy.distutils" not in sys.modules
    with theano_compat.importable():
        pass
    assert {name for name in OLD_NAMES if name in vars(np)} == lent


def test_the_stand_in_of_distutils_names_this_pythons_directories():
    made = theano_compat._distutils()
    config = made["distutils"].sysconfig
    assert config is made["distutils.sysconfig"]
    assert config.get_python_inc() == sysconfig.get_path("include")
    assert config.get_python_inc(plat_specific=True) == sysconfig.get_path("platinclude")
    assert config.get_python_lib() == sysconfig.get_path("purelib")
    assert config.get_python_lib(plat_specific=1) == sysconfig.get_path("platlib")
    assert config.get_python_lib(1, standard_lib=1) == sysconfig.get_path("platstdlib")
    assert made["distutils.spawn"].find_executable("sh").endswith("/sh")
    assert made["numpy.distutils"].misc_util.get_numpy_include_dirs() == [np.get_include()]


@pytest.mark.parametrize("value", [0, -128, 127, 128, -129, 300, 40_000, -(2**31) - 1, 2**62])
def test_constants_get_the_smallest_integer_that_holds_them(value):
    dtypes = ("int8", "int16", "int32", "int64")
    smallest = next(d for d in dtypes if np.iinfo(d).min <= value <= np.iinfo(d).max)
    constant = tt.constant(value)
    assert (constant.dtype, constant.data) == (smallest, value)


def test_wrapping_integers_is_an_error_only_beyond_int64():
    assert theano_compat._asarray(300, "int8") == 44
    assert theano_compat._asarray([1.5], "float32").dtype == "float32"
    with pytest.raises(OverflowError):
        theano_compat._asarray(2**64, "int8")


@pytest.mark.parametrize(("value", "dtype"), [(0.1, "float64"), (0.5, "float32"), (3, "int8")])
def test_constants_keep_their_value_in_float64(value, dtype, monkeypatch):
    monkeypatch.setattr(theano.config, "floatX", "float64")
    constant = tt.constant(value)
    assert (constant.dtype, float(constant.data)) == (dtype, value)


def test_constants_are_float32_in_float32(monkeypatch):
    monkeypatch.setattr(theano.config, "floatX", "float32")
    assert tt.constant(0.1).dtype == "float32"


def test_rows_that_come_up_several_times_are_all_added():
    table, rows, index = tt.fmatrix(), tt.fmatrix(), tt.ivector()
    f = theano.function([table, rows, index], tt.inc_subtensor(table[index], rows))
    x, y, i = np.zeros((4, 3), "float32"), np.arange(9, dtype="float32").reshape(3, 3), [1, 3, 1]
    expected = x.copy()
    np.add.at(expected, i, y)
    np.testing.assert_array_equal(f(x, y, np.asarray(i, "int32")), expected)


@pytest.mark.parametrize(
    ("module", "name"), [(m, name) for m, names in theano_compat._NAMES.items() for name in names]
)
def test_modules_of_theano_find_the_names_that_they_use(module, name):
    imported = importlib.import_module(f"theano.{module}")
    numpy = next(getattr(imported, alias) for alias in ("np", "numpy") if hasattr(imported, alias))
    assert hasattr(numpy, name) and numpy.float32 is np.float32


def test_operations_that_use_old_names():
    """This toolkit does not use them, but a variant of the model may."""
    x, z = tt.fvector(), tt.cvector()
    by_python = theano.Mode("py", None)
    ones_to_three, complex_one = np.asarray([1, 2, 3], "float32"), np.asarray([1 + 2j], "complex64")
    for given, built, value, expected in [
        (x, x[0] * x[1] * x[2], ones_to_three, 6),
        (x, tt.cast(x * 1.5, "int8"), ones_to_three, [1, 3, 4]),
        (x, tt.sqrt(tt.cast(x, "int8")), ones_to_three, np.sqrt([1, 2, 3])),
        (z, tt.real(z * 2), complex_one, [2]),
        (x, tt.real(tt.complex_from_polar(x, x)), ones_to_three, [1, 2, 3] * np.cos([1, 2, 3])),
    ]:
        f = theano.function([given], built, mode=by_python)
        np.testing.assert_allclose(f(value), expected, rtol=1e-3)


def test_compiler_flags_only_for_numpy_2(monkeypatch):
    monkeypatch.setattr(theano_compat, "NUMPY_2", False)
    assert theano_compat.compiler_flags() == []
    monkeypatch.setattr(theano_compat, "NUMPY_2", True)
    assert "-DNPY_TARGET_VERSION=0x00000012" in theano_compat.compiler_flags()


def test_names_that_numpys_headers_have_are_not_defined(monkeypatch, tmp_path):
    """NumPy 2.0 has Python 2's names of integers, later ones do not."""
    monkeypatch.setattr(theano_compat, "NUMPY_2", True)
    monkeypatch.setattr(theano_compat.np, "get_include", lambda: str(tmp_path))
    assert "-DPyInt_Check=PyLong_Check" in theano_compat.compiler_flags()
    (tmp_path / "numpy").mkdir()
    header = "static inline int PyInt_Check(PyObject *op) { return PyLong_Check(op); }"
    (tmp_path / "numpy" / "npy_3kcompat.h").write_text(header)
    flags = theano_compat.compiler_flags()
    assert "-DPyInt_Check=PyLong_Check" not in flags and "-DPyInt_AsLong=PyLong_AsLong" in flags


def test_code_of_one_numpy_is_not_loaded_with_another():
    assert f"numpy{np.__version__}" in theano.config.compiledir


def test_the_builder_of_theano_restores_what_configparser_lacks(monkeypatch):
    monkeypatch.delattr(configparser, "SafeConfigParser", raising=False)
    runpy.run_path(str(ROOT / "theano_wheel" / "restored" / "sitecustomize.py"))
    parser = configparser.SafeConfigParser()
    parser.readfp(iter(["[a]\n", "b = c\n"]))
    assert parser.get("a", "b") == "c"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="older Pythons do not show them")
def test_theanos_own_warnings_are_not_shown(tmp_path):
    """Python warns of its texts when it compiles its files, which pip does and uv does not."""
    done = python("-c", "import gru4rec", cwd=ROOT, PYTHONPYCACHEPREFIX=str(tmp_path))
    assert succeeds(done).err == ""


# ---------------------------------------------------------------------------- theano.gpuarray


GPUARRAYS_MODULES = ("imp", "pkg_resources", "numpy.linalg.linalg")


def test_theano_gpuarray_gets_the_modules_that_are_not_there():
    made = theano_compat._gpuarrays_modules()
    there = {name: importlib.util.find_spec(name) is not None for name in GPUARRAYS_MODULES}
    assert set(made) == {name for name in there if not there[name]}
    assert ("imp" in made) == (sys.version_info >= (3, 12))


def test_the_stand_ins_of_what_theano_gpuarray_imports(monkeypatch):
    find = importlib.util.find_spec
    hidden = {name: None for name in GPUARRAYS_MODULES}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: hidden.get(name, "found"))
    made = theano_compat._gpuarrays_modules()
    assert set(made) == set(GPUARRAYS_MODULES)
    with theano_compat._lent(made, {}):
        monkeypatch.setattr(importlib.util, "find_spec", find)
        # as theano/gpuarray/linalg.py does
        import pkg_resources
        from numpy.linalg.linalg import LinAlgError

        assert LinAlgError is np.linalg.LinAlgError
        assert issubclass(pkg_resources.DistributionNotFound, Exception)
        assert sys.modules["imp"].find_module("pdb")
        with pytest.raises(ImportError, match="no_debugger"):
            sys.modules["imp"].find_module("no_debugger")
    assert all(sys.modules.get(name) is not made[name] for name in made)


def test_warnings_of_old_modules_are_not_shown(recwarn):
    with theano_compat._lent({}, {}):
        warnings.warn("pkg_resources is deprecated as an API", UserWarning, stacklevel=1)
        warnings.warn("a warning of somebody else", UserWarning, stacklevel=1)
    assert [str(w.message) for w in recwarn] == ["a warning of somebody else"]


@pytest.mark.skipif(not theano_compat.NUMPY_2, reason="NumPy 1 copies where it is needed")
def test_copies_are_made_where_they_are_needed():
    """``theano.gpuarray`` stores float64 values in a float32 variable with ``copy=False``."""
    x = np.ones(3, "float32")
    assert theano_compat._array(x, dtype="float32", copy=False) is x
    assert theano_compat._array(x, dtype="float64", copy=False).dtype == "float64"
    assert theano_compat._array(x) is not x
    assert theano_compat._array(1.5, dtype="float32", copy=False, ndmin=2).shape == (1, 1)


def test_pygpu_finds_bool_in_every_numpy(tmp_path):
    """NumPy 1.24 to 1.26 have none; here it is taken away where that is possible."""
    (tmp_path / "pygpu.py").write_text("import numpy as np\nprint(np.bool(3))\n")
    code = """
import numpy as np
from gru4rec_toolkit import theano_compat
np.__dict__.pop("bool", None)
theano_compat._in_numpy = lambda name: False
theano_compat.import_pygpu()
print("bool" in vars(np))
"""
    path = f"{tmp_path}:{ROOT}"
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=path, PYTHONWARNINGS="ignore")
    assert succeeds(done).lines == ["True", "False"]


def test_the_gpus_ops_can_be_imported_on_the_cpu():
    pytest.importorskip("pygpu")
    code = """
import warnings
warnings.simplefilter("error", UserWarning)
from gru4rec_toolkit import theano_setup
assert theano_setup.configure("cpu").device == "cpu"
import gpu_ops
import numpy as np
from theano.gpuarray import type as gpu_type
print(type(gpu_type.np).__name__, len(gpu_ops.TWINS) > 5)
"""
    numpy = "_Numpy" if theano_compat.NUMPY_2 else "module"
    assert succeeds(python("-c", code, cwd=ROOT, THEANO_FLAGS=None)).lines == [f"{numpy} True"]
