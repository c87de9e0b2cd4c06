"""Work of the workers of `recommend.py`: split the events by session, recommend for one part.

`recommend.py` sends this file to the workers. Its heavy imports stand in the functions, since the
scheduler loads it as well.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

# columns between the two steps
COLUMNS = ("session", "item", "time")


class RowGroup(NamedTuple):
    """One row group of a Parquet file, the least that can be read of it."""

    path: str
    number: int
    first_row: int
    n_rows: int


class Model(NamedTuple):
    """A model's file, and what tells whether it is still the same."""

    path: str
    size: int
    changed: int

    @classmethod
    def at(cls, path: str) -> Model:
        """Return the model that lies at a path now."""
        status = os.stat(path)
        return cls(path, status.st_size, status.st_mtime_ns)


# ---------------------------------------------------------------------------- splitting


def split(
    number: int, groups: Sequence[RowGroup], keys: dict[str, str], folder: str, n_parts: int
) -> pd.DataFrame:
    """Write the events of some row groups to one file, with a batch for each part.

    A part has all events of its sessions: the hash of a session's id chooses it. The order of the
    events stays as it is, because it decides between events of a session at the same time.

    Parameters
    ----------
    number : int
        Number of this file.
    groups : sequence of RowGroup
    keys : dict
        Names of the columns by role: session, item, time.
    folder : str
    n_parts : int

    Returns
    -------
    DataFrame
        One row: the number of events.

    Raises
    ------
    gru4rec_toolkit.errors.InputError
        If events cannot be read or used, or the file cannot be written.
    """
    import pyarrow as pa

    from gru4rec_toolkit import files
    from gru4rec_toolkit.errors import InputError

    tables = [_read(group, keys) for group in groups]
    # whole times are integers, in some row groups only
    table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    part = _hashes(table.column("session")) % np.uint64(n_parts)
    order = np.argsort(part, kind="stable")
    (batch,) = table.take(order).combine_chunks().to_batches()
    ends = np.searchsorted(part[order], np.arange(n_parts, dtype=np.uint64), side="right")
    path = _split_path(folder, number)
    try:
        with files.replacing(path) as file, pa.ipc.new_file(file, batch.schema) as writer:
            for begin, end in zip([0, *ends], ends):
                writer.write_batch(batch.slice(begin, end - begin))
    except OSError as err:
        raise InputError(
            f"{path}: cannot be written ({files.reason_of(err)}); every worker has to reach the "
            "directory of the output, and to be allowed to write there"
        ) from None
    return pd.DataFrame({"events": [len(table)]})


def _split_path(folder: str, number: int) -> str:
    return os.path.join(folder, f"events-{number:05d}.arrow")


def _read(group: RowGroup, keys: dict[str, str]) -> Any:
    """Return the checked events of a row group as a pyarrow.Table with COLUMNS."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gru4rec_toolkit.data.checks import check_events
    from gru4rec_toolkit.errors import InputError, one_line

    try:
        with pq.ParquetFile(group.path) as file:
            table = file.read_row_group(group.number, columns=[*keys.values()])
        table.validate(full=True)  # damaged data would crash the process below
        frame = table.to_pandas(strings_to_categorical=True, ignore_metadata=True)
    except Exception as err:  # pyarrow can raise anything about a damaged file
        raise InputError(
            f"{group.path}: cannot be read ({one_line(err)}); every worker has to reach the file, "
            "which may be damaged: save it again"
        ) from None
    *_, times = check_events(frame, keys, group.path, lambda row: f"row {group.first_row + row}")
    try:
        ids = [_plain(table.column(keys[role])) for role in ("session", "item")]
    except pa.ArrowInvalid as err:
        raise InputError(
            f"{group.path}: an id is too large ({one_line(err)}); save such ids as text"
        ) from None
    return pa.table([*ids, pa.array(times)], names=COLUMNS)


def _plain(column: Any) -> Any:
    """Return ids as int64 or as text, in whatever type their file has them."""
    import pyarrow as pa

    if pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.large_string())


def _hashes(sessions: Any) -> np.ndarray:
    """Return hashes (n_events,) of ids, equal in every process."""
    return pd.util.hash_array(sessions.to_pandas().to_numpy())


# ---------------------------------------------------------------------------- recommending


def read_part(number: int, folder: str, n_files: int) -> pd.DataFrame:
    """Return the events of one part, in the order in which the input has them.

    Parameters
    ----------
    number : int
        Number of the part.
    folder : str
        Where `split` has written.
    n_files : int
        How many files it has written.
    """
    import pyarrow as pa

    batches = []
    for i in range(n_files):
        with pa.ipc.open_file(_split_path(folder, i)) as file:
            batches.append(pa.Table.from_batches([file.get_batch(number)]))
    table = pa.concat_tables(batches, promote_options="permissive")
    return table.to_pandas(strings_to_categorical=True)


def write_part(
    events: pd.DataFrame,
    folder: str,
    model: Model,
    k: int,
    exclude_seen: bool,
    partition_info: dict[str, Any],
) -> pd.DataFrame:
    """Write the recommendations for one part, whole or not at all.

    It does the same when it is done again, after the death of a worker whose result was lost.

    Parameters
    ----------
    events : DataFrame
        As `read_part` returns them.
    folder : str
    model : Model
    k, exclude_seen
        As `GRU4Rec.recommend` takes them.
    partition_info : dict
        From Dask: the number of the part.

    Returns
    -------
    DataFrame
        One row: the part, the numbers of its sessions, of its events and of those among them on
        items that the model does not know. Without sessions there is no file.

    Raises
    ------
    gru4rec_toolkit.errors.InputError
        If the model cannot be loaded or the part cannot be written.
    """
    from gru4rec_toolkit.data.ids import item_indices

    number = partition_info["number"]
    if len(events) == 0:
        return pd.DataFrame({"part": [number], "sessions": [0], "events": [0], "unknown": [0]})
    with _one_part:
        gru = _loaded(model)
        unknown = int(np.count_nonzero(item_indices(gru.item_ids, events["item"]) < 0))
        events.columns = [gru.session_key, gru.item_key, gru.time_key]
        # of several workers' progress bars in one terminal none could be read
        with contextlib.redirect_stderr(io.StringIO()):
            gru.write_recommendations(part_path(folder, number), events, k, exclude_seen)
    n_sessions = events[gru.session_key].nunique()
    return pd.DataFrame(
        {"part": [number], "sessions": [n_sessions], "events": [len(events)], "unknown": [unknown]}
    )


def part_path(folder: str, number: int) -> str:
    """Return where a part is written."""
    return os.path.join(folder, f"part-{number:05d}.parquet")


# a worker's threads, where it has several, share the model, and Theano runs one function at a time
_one_part = threading.Lock()
_models: dict[Model, Any] = {}


def _loaded(model: Model) -> Any:
    """Return the model, which this process loads once."""
    if model not in _models:
        import gru4rec
        from gru4rec_toolkit.errors import InputError

        # it would report every wait for another worker's compilation
        logging.getLogger("theano").setLevel(logging.WARNING)
        _models.clear()  # one at a time in memory
        gru = gru4rec.GRU4Rec.loadmodel(model.path)
        if Model.at(model.path) != model:
            raise InputError(
                f"model file {model.path}: it has been changed since the command was given, or "
                "another machine has another file there; give the command again"
            )
        _models[model] = gru
    return _models[model]
