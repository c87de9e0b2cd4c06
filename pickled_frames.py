"""Pickled DataFrames, read without trusting the file: nothing in it is executed."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd

from user_errors import InputError, one_line

_DTYPES = "{0}8Dtype {0}16Dtype {0}32Dtype {0}64Dtype"

# all that the pickles of DataFrames refer to, of pandas 1 and 2; nothing here runs given code
_PICKLE_NAMES = {
    "builtins": "object slice",
    "copyreg": "_reconstructor",
    "datetime": "timedelta timezone",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "pandas._libs.arrays": "__pyx_unpickle_NDArrayBacked",
    "pandas._libs.internals": "_unpickle_block",
    "pandas._libs.missing": "NA",
    "pandas._libs.tslibs.nattype": "_nat_unpickle",
    "pandas._libs.tslibs.offsets": "Day Hour Minute Second",
    "pandas._libs.tslibs.timestamps": "_unpickle_timestamp",
    "pandas.core.arrays.boolean": "BooleanArray BooleanDtype",
    "pandas.core.arrays.categorical": "Categorical",
    "pandas.core.arrays.datetimes": "DatetimeArray",
    "pandas.core.arrays.floating": "FloatingArray Float32Dtype Float64Dtype",
    "pandas.core.arrays.integer": f"IntegerArray {_DTYPES.format('Int')} {_DTYPES.format('UInt')}",
    "pandas.core.arrays.string_": "StringArray StringDtype",
    "pandas.core.arrays.timedeltas": "TimedeltaArray",
    "pandas.core.dtypes.dtypes": "CategoricalDtype DatetimeTZDtype",
    "pandas.core.frame": "DataFrame",
    "pandas.core.indexes.base": "Index _new_Index",
    "pandas.core.indexes.category": "CategoricalIndex",
    "pandas.core.indexes.datetimes": "DatetimeIndex _new_DatetimeIndex",
    "pandas.core.indexes.multi": "MultiIndex",
    "pandas.core.indexes.numeric": "Float64Index Int64Index UInt64Index",
    "pandas.core.indexes.range": "RangeIndex",
    "pandas.core.internals.managers": "BlockManager",
    "pytz": "_UTC",
}
_ALLOWED = {(module, name) for module, names in _PICKLE_NAMES.items() for name in names.split()}
_PYTHON2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # pickle protocols 0 to 2
_NUMPY_CORE = "numpy.core" if np.__version__.startswith("1.") else "numpy._core"


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stand in for _codecs.encode, by which pickle protocols 0 to 2 write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return text.encode("latin1")


class _DataFrameUnpickler(pickle.Unpickler):
    """Unpickles DataFrames and refuses everything else, before anything of it is called."""

    def __init__(self, file, path: str) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str):
        module = _PYTHON2_MODULES.get(module, module).replace("numpy._core.", "numpy.core.")
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        if (module, name) not in _ALLOWED:
            raise InputError(
                f"{self._path}: the pickle asks for {module}.{name}, which is no part of a plain "
                "DataFrame, so it was not loaded; save it again with plain columns only, or as .tsv"
            )
        try:
            return super().find_class(module.replace("numpy.core", _NUMPY_CORE), name)
        except ModuleNotFoundError:
            if module == "pandas.core.indexes.numeric":  # pandas 1's, gone in pandas 2
                return pd.Index
            raise


def read_pickle(path: str) -> pd.DataFrame:
    """Load a pickled DataFrame without trusting the file."""
    with open(path, "rb") as file:
        try:
            frame = _DataFrameUnpickler(file, path).load()
            is_frame = isinstance(frame, pd.DataFrame) and len(list(frame)) == frame.shape[1]
        except InputError:
            raise
        except Exception as err:  # a damaged pickle can raise anything
            raise InputError(
                f"{path}: cannot be read as a pickled DataFrame ({one_line(err)}); the file may "
                "be cut short or be of another kind, save the DataFrame again"
            ) from None
    if not is_frame:
        raise InputError(
            f"{path}: expected a pickled pandas DataFrame, found {type(frame).__name__}; "
            "save the DataFrame itself with to_pickle"
        )
    return frame
