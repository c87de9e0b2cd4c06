"""Ids of sessions and items, compared by value whatever their type."""

from __future__ import annotations

import numbers
import re
from collections.abc import Sequence
from typing import Any, Union

import numpy as np
import pandas as pd

from gru4rec_toolkit.data.checks import check_ids, row_place
from gru4rec_toolkit.errors import InputError, shown

# ids of items or sessions, in whatever they come
Ids = Union[Sequence, np.ndarray, pd.Series, pd.Index]


def extend_item_ids(
    item_ids: Ids, data: pd.DataFrame, item_key: str = "ItemId", source: str = "data"
) -> np.ndarray:
    """Return the item ids of a model followed by those that are new in the data.

    Parameters
    ----------
    item_ids : array (n_items,)
        Ids of the model; their positions stay.
    data : pandas.DataFrame
        New events; new items follow in order of first appearance.
    item_key, source : str
        Name of the item column, and what to call the data in messages.

    Returns
    -------
    int64 array or object array of str (n_items + n_new,)
        int64 if the ids on both sides are integers, else all of them are strings.
    """
    check_ids(data, {"item": item_key}, source, row_place)
    _, ids = by_first_appearance(*split_ids(data[item_key], source))
    item_ids = canonical_ids(item_ids)
    new = ids[find_ids(ids, item_ids) < 0]
    return np.concatenate(same_type(item_ids, new)) if len(new) else item_ids


def item_indices(item_ids: Ids, values: Ids) -> np.ndarray:
    """Return the position of each id among a model's items, compared by value whatever the type.

    Parameters
    ----------
    item_ids : array (n_items,)
    values : sequence of ids (n,)

    Returns
    -------
    int64 array (n,)
        -1 where the model does not know the item.
    """
    codes, ids = split_ids(pd.Series(values), "items")
    # code -1 stands for a missing value and indexes the last one
    return np.append(find_ids(ids, canonical_ids(item_ids)), -1)[codes]


class Positions:
    """Positions of a model's items by their ids, one at a time; compared by value as everywhere.

    Parameters
    ----------
    item_ids : array (n_items,)
    """

    def __init__(self, item_ids: np.ndarray) -> None:
        self._of = {item: position for position, item in enumerate(item_ids.tolist())}
        self._are_texts = item_ids.dtype == object

    def of(self, item: Any) -> int:
        """Return the position of an item; -1 where the model does not know it."""
        plain = _plain_id(item)
        if self._are_texts:
            return self._of.get(str(plain), -1)
        if isinstance(plain, str) and re.fullmatch(r"-?[0-9]{1,19}", plain):
            # 12 is "12", but not "012"
            plain = int(plain) if str(int(plain)) == plain else plain
        return self._of.get(plain, -1)


def split_ids(column: pd.Series, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return codes (n_events,) and the canonical id behind each code."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy(), canonical_ids(column.cat.categories)
    try:
        codes, values = pd.factorize(column)
    except TypeError as err:
        raise InputError(
            f'{source}: column "{column.name}" holds something that cannot be an id ({err}); '
            "use integers or strings"
        ) from None
    return codes, canonical_ids(values)


def canonical_ids(values: Ids) -> np.ndarray:
    """Return ids as int64 if all are integers, else as strings; 12 and 12.0 are the same id."""
    if getattr(values, "dtype", None) == np.int64:
        return np.asarray(values)
    if isinstance(values, np.ndarray) and values.dtype.kind == "O":  # noqa: SIM102
        if all(type(value) is str for value in values):
            return values
    ids = [_plain_id(value) for value in values]
    if all(isinstance(plain, int) for plain in ids):
        try:
            return np.array(ids, dtype=np.int64)
        except OverflowError:
            pass
    return np.array([str(plain) for plain in ids], dtype=object)


def _plain_id(value: object) -> int | str:
    if isinstance(value, bytes):
        raise InputError(
            f"ids in bytes, such as {shown(value)}, cannot be told from text that looks like them; "
            'decode them, for example with .str.decode("utf-8")'
        )
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    number: Any = value
    return int(number) if is_number and number % 1 == 0 else str(value)


def same_type(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert integers to strings where only one of two canonical arrays has integers."""
    if left.dtype != right.dtype:
        left, right = (
            ids if ids.dtype == object else np.array([str(i) for i in ids.tolist()], dtype=object)
            for ids in (left, right)
        )
    return left, right


def find_ids(ids: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
    """Return the position of each of `ids` in `item_ids`, -1 where it is missing."""
    ids, item_ids = same_type(ids, item_ids)
    return pd.Index(item_ids, dtype=item_ids.dtype).get_indexer(pd.Index(ids, dtype=ids.dtype))


def by_first_appearance(codes: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber codes by first appearance; ids that became equal (12 and "12") share a number."""
    shared, ids = pd.factorize(ids)
    codes, used = pd.factorize(shared[codes])
    return codes, ids[used]


def sortable_ids(column: pd.Series, source: str) -> np.ndarray:
    """Return numbers (n_events,) in the order of the ids: integers by value, strings by letters."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        return column.to_numpy()
    codes, ids = split_ids(column, source)
    return np.unique(ids, return_inverse=True)[1][codes]
