"""Compatibility of Theano 1.0.5 with Python 3.12 and later and with NumPy 1.24 and later.

Theano's last release is older than these. Each difference is bridged in memory and from outside: no
file of Theano is changed, and other modules see NumPy and the standard library as they are. Every
bridge is built only where the running Python or NumPy lacks what it stands for.

`theano_setup` imports Theano within `importable` and compiles with `compiler_flags`; what uses a
GPU comes from `import_pygpu` and `import_gpuarray`.
`theano_patches` has the patches of Theano's own bugs, which every Python needs.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

NUMPY_2 = int(np.__version__.split(".")[0]) >= 2
HAS_DISTUTILS = sys.version_info < (3, 12)


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Let Theano be imported in the block; bridge the modules that it has imported at its end.

    What Theano takes from `sys.modules` and from NumPy while it is imported is there only as long.
    """
    distutils = {} if HAS_DISTUTILS else _distutils()
    # scalar.basic looks up the attribute `bool`, other modules the package `distutils`
    lent = _bool()
    if distutils:
        lent["distutils"] = distutils["numpy.distutils"]
    with _lent({**distutils, **_gpuarrays_modules()}, lent):
        yield
        _lend_numpy_names(lent.get("distutils"))
        if NUMPY_2:
            _cast_constants_exactly()
            _add_to_rows_by_numpy()
        if "theano.gpuarray" in sys.modules:
            _copy_where_needed()


def import_pygpu() -> ModuleType:
    """Import pygpu, whose table of dtypes names `np.bool`; NumPy 1.24 to 1.26 have none."""
    with _lent({}, _bool()):
        return importlib.import_module("pygpu")


def import_gpuarray() -> ModuleType:
    """Import ``theano.gpuarray``, which Theano does itself only where its device is a GPU."""
    import_pygpu()
    with _lent(_gpuarrays_modules(), {}):
        gpuarray = importlib.import_module("theano.gpuarray")
        _copy_where_needed()
    return gpuarray


@contextlib.contextmanager
def _lent(modules: dict[str, ModuleType], names: dict[str, Any]) -> Iterator[None]:
    """Put modules into `sys.modules` and names into NumPy for the block."""
    hidden = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    sys.modules.update(modules)
    vars(np).update(names)
    try:
        with warnings.catch_warnings():
            # of backslashes in Theano's texts, where pip has not compiled its files
            warnings.simplefilter("ignore", SyntaxWarning)
            # setuptools says it of itself, for the next year
            warnings.filterwarnings("ignore", "pkg_resources is deprecated")
            yield
    finally:
        for name in names:
            delattr(np, name)
        for name in modules:
            del sys.modules[name]
        sys.modules.update(hidden)


def _bool() -> dict[str, Any]:
    """Return `np.bool` where NumPy has none: 1.24 dropped it, 2.0 has it again."""
    return {} if _in_numpy("bool") else {"bool": np.bool_}


def compiler_flags() -> list[str]:
    """Return the flags that Theano's C code needs with this NumPy's headers.

    Without a target, NumPy 2 hides the fields of a dtype (``elsize``) from code that might run on
    NumPy 1. After 2.0 it dropped Python 2's names of integers, which Theano's virtual machine uses.
    """
    if not NUMPY_2:
        return []
    names = {f"PyInt_{f}": f"PyLong_{f}" for f in ("AsLong", "Check", "FromLong")}
    header = Path(np.get_include(), "numpy", "npy_3kcompat.h")
    known = header.read_text() if header.exists() else ""
    defined = {name: v for name, v in {"NPY_PY3K": "1", **names}.items() if name not in known}
    defined["NPY_TARGET_VERSION"] = "0x00000012"  # NumPy 2.0
    return [f"-D{name}={value}" for name, value in defined.items()]


# ---------------------------------------------------------------------------- distutils


def _distutils() -> dict[str, ModuleType]:
    """Return modules with what Theano takes from distutils and numpy.distutils.

    Python 3.12 dropped the one, and NumPy drops the other there.
    """
    modules: dict[str, dict[str, Any]] = {
        "distutils.spawn": {"find_executable": shutil.which},
        "distutils.sysconfig": {
            "get_config_h_filename": sysconfig.get_config_h_filename,
            "get_config_var": sysconfig.get_config_var,
            "get_python_inc": _python_headers,
            "get_python_lib": _python_library,
            "get_python_version": sysconfig.get_python_version,
        },
        "numpy.distutils.__config__": {},
        "numpy.distutils.misc_util": {"get_numpy_include_dirs": lambda: [np.get_include()]},
    }
    made = {name: _module(name, attributes) for name, attributes in modules.items()}
    for package in ("distutils", "numpy.distutils"):
        start = f"{package}."
        parts = {name[len(start) :]: m for name, m in made.items() if name.startswith(start)}
        made[package] = _module(package, parts)
    return made


def _module(name: str, attributes: dict[str, Any]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


def _python_headers(plat_specific: bool = False) -> str:
    return sysconfig.get_path("platinclude" if plat_specific else "include")


def _python_library(plat_specific: bool = False, standard_lib: bool = False) -> str:
    names = {
        (False, False): "purelib",
        (True, False): "platlib",
        (False, True): "stdlib",
        (True, True): "platstdlib",
    }
    return sysconfig.get_path(names[bool(plat_specific), bool(standard_lib)])


# ---------------------------------------------------------------------------- theano.gpuarray


def _gpuarrays_modules() -> dict[str, ModuleType]:
    """Return modules that ``theano.gpuarray`` imports, those that are not there.

    Python 3.12 dropped `imp`, by which Theano's breakpoints look for a debugger; setuptools 82
    dropped `pkg_resources` and NumPy 2.5 `numpy.linalg.linalg`, of which one exception is used.
    """
    made: dict[str, dict[str, Any]] = {
        "imp": {"find_module": _find_module},
        "pkg_resources": {"DistributionNotFound": ModuleNotFoundError},
        "numpy.linalg.linalg": {"LinAlgError": np.linalg.LinAlgError},
    }
    return {name: _module(name, made[name]) for name in made if not importlib.util.find_spec(name)}


def _find_module(name: str):
    """Find a module as `imp.find_module` did."""
    found = importlib.util.find_spec(name)
    if found is None:
        raise ImportError(f"No module named {name!r}", name=name)
    return found


def _array(*args, copy=True, **options):
    """Copy with ``copy=False`` where that is needed, as `np.array` did before NumPy 2.0."""
    options["copy"] = copy or None
    return np.array(*args, **options)


def _copy_where_needed() -> None:
    """Let values of another type be stored on a GPU: NumPy 2 refuses to copy them."""
    names = vars(importlib.import_module("theano.gpuarray.type"))
    if NUMPY_2 and names["np"] is np:
        names["np"] = _Numpy({"array": _array})


# ---------------------------------------------------------------------------- NumPy


class _Numpy(ModuleType):
    """NumPy with some more names, as the global `np` of one of Theano's modules."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__("numpy")
        vars(self).update(names)

    def __getattr__(self, name: str):
        return getattr(np, name)


class _Cast:
    """Stand-in of `np.cast`, which NumPy 2.0 dropped: ``np.cast["int8"](3)``."""

    def __getitem__(self, dtype):
        return lambda value: np.asarray(value).astype(dtype)


def _complex(*values):
    """Stand-in of `np.complex` (dropped by 1.24), which took arrays of one element, too."""
    return complex(*(v.item() if isinstance(v, np.ndarray) else v for v in values))


def _asarray(value, dtype=None, order=None):
    """Wrap integers that the dtype does not hold, as `np.asarray` did before NumPy 2.0.

    Theano finds the dtype of a constant by trying int8, int16... until its value stays the same.
    """
    try:
        return np.asarray(value, dtype=dtype, order=order)
    except OverflowError:
        # beyond int64 it is an error again, as it always was
        return np.asarray(value, dtype=np.int64, order=order).astype(dtype)


# names that modules of Theano take from NumPy while they run, and what stands for them
_NAMES: dict[str, dict[str, Any]] = {
    "scalar.basic": {"cast": _Cast(), "complex": complex, "product": np.prod},
    "tensor.basic": {"complex": _complex},
    "tensor.elemwise": {"sctype2char": lambda dtype: np.dtype(dtype).char},
    "tensor.nnet.abstract_conv": {"ComplexWarning": getattr(np, "exceptions", np).ComplexWarning},
    "tensor.nnet.bn": {"cast": _Cast()},
    "tensor.nnet.conv": {"ComplexWarning": getattr(np, "exceptions", np).ComplexWarning},
    "tensor.slinalg": {"ComplexWarning": getattr(np, "exceptions", np).ComplexWarning},
}


def _in_numpy(name: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the name is going to be dropped
        return hasattr(np, name)


def _lend_numpy_names(distutils: ModuleType | None) -> None:
    """Give each module of Theano a NumPy with the names that it uses and NumPy lacks."""
    names = {
        module: {name: value for name, value in lent.items() if not _in_numpy(name)}
        for module, lent in _NAMES.items()
    }
    if distutils:
        names["gof.cmodule"] = {"distutils": distutils}
    if NUMPY_2:
        # NumPy warns of the old name; the old behaviour has no other
        names["gof.cc"] = {"core": importlib.import_module("numpy._core")}
        names["misc.safe_asarray"] = {"asarray": _asarray}
    for name, lent in names.items():
        module = importlib.import_module(f"theano.{name}")
        for alias in ("np", "numpy"):
            if lent and getattr(module, alias, None) is np:
                setattr(module, alias, _Numpy(lent))


def _cast_constants_exactly() -> None:
    """Keep Python's floats in float64 where floatX is float64.

    Theano casts a constant such as 0.1 to float32 and compares the two. NumPy 2 rounds Python's
    number to float32 for that (NEP 50), so that they are always equal.
    """
    basic = importlib.import_module("theano.scalar.basic")
    cast = basic.NumpyAutocaster.__call__

    def cast_exactly(self, x):
        found = cast(self, x)
        rounded = isinstance(x, float) and float(found) != x
        if rounded and basic.config.floatX == "float64" and "float64" in self.dtypes:
            return np.asarray(x, dtype=np.float64)
        return found

    basic.NumpyAutocaster.__call__ = cast_exactly


def _add_to_rows_by_numpy() -> None:
    """Compute additions to looked-up rows by NumPy; duplicates of a row are all added.

    The C code for them is written with an iterator (``PyArrayMapIterObject``) that NumPy 2 keeps to
    itself. Theano falls back to `perform`, which calls `np.add.at`.
    """
    subtensor = importlib.import_module("theano.tensor.subtensor")

    def c_code(self, node, name, input_names, output_names, sub):
        raise NotImplementedError("NumPy 2 has no PyArrayMapIterObject")

    subtensor.AdvancedIncSubtensor1.c_code = c_code
