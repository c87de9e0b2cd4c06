"""An exported model: its items, and its step for many sessions at once.

The graph is what `GRU4Rec.export_onnx` writes. B sessions, U units of all layers together.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime
from problems import StartError

FORMAT, VERSION = "gru4rec-onnx", "1"
# scores that a run of the graph may make, at 4 bytes each, and sessions whatever their number
MOST_SCORES, MOST_SESSIONS = 1 << 24, 64


class Exported:
    """A model that ranks all items.

    Parameters
    ----------
    path : str
    threads : int
        Threads that share a matrix product.

    Attributes
    ----------
    item_ids : list of int or str
    digest : bytes
        A checksum of the file: states belong to it.
    dtype : numpy dtype
        Type of states and scores.
    units : int
        U.
    at_once : int
        The largest B.
    popular : (positions, shares) or None
        All items, those of most events first, with their shares of all events.
    """

    def __init__(self, path: str, threads: int = 1) -> None:
        data = read_file(path, "the model")
        try:
            is_ours = not takes_files(memoryview(data))
        except (ValueError, RecursionError):
            is_ours = False
        if not is_ours:
            raise StartError(
                f"{path}: this is no ONNX file of a GRU4Rec model, or one that takes numbers from "
                "other files; write one with GRU4Rec.export_onnx"
            )
        self.digest = hashlib.blake2b(data, digest_size=8).digest()
        self._graph = self._load(path, data, threads)
        try:
            self._take(self._graph)
        except (LookupError, TypeError, ValueError, RecursionError):
            raise StartError(
                f"{path}: this is no ONNX file of a GRU4Rec model, or a damaged one; write one "
                "with GRU4Rec.export_onnx"
            ) from None

    def _load(self, path: str, data: bytes, threads: int) -> onnxruntime.InferenceSession:
        return load_graph(path, data, threads)

    def _take(self, graph: onnxruntime.InferenceSession) -> None:
        texts = graph.get_modelmeta().custom_metadata_map
        if texts["format"] != FORMAT or texts["version"] != VERSION:
            raise ValueError
        self.parameters = json.loads(texts["parameters"])
        self.layers = [int(units) for units in self.parameters["layers"]]
        self.units = sum(self.layers)
        self._bounds = np.cumsum(self.layers)[:-1]
        self._states = [f"state_{i}" for i in range(len(self.layers))]
        self._outputs = [f"new_{name}" for name in self._states]
        inputs = {entry.name: entry for entry in graph.get_inputs()}
        of_state = [inputs[name] for name in self._states]
        if [entry.shape[1] for entry in of_state] != self.layers:
            raise ValueError
        self.dtype = np.dtype({"tensor(float)": "f4", "tensor(double)": "f8"}[of_state[0].type])
        self.item_ids = _item_ids(json.loads(texts["item_ids"]))
        self._positions = {item: position for position, item in enumerate(self.item_ids)}
        if not len(self._positions) == len(self.item_ids) == self._n_items(graph):
            raise ValueError
        self._are_texts = isinstance(self.item_ids[0], str)
        self.at_once = max(1, min(MOST_SESSIONS, MOST_SCORES // len(self.item_ids)))
        self.popular = _by_popularity(json.loads(texts["support"]), len(self.item_ids))

    def _n_items(self, graph: onnxruntime.InferenceSession) -> int:
        return {entry.name: entry.shape for entry in graph.get_outputs()}["scores"][1]

    # ------------------------------------------------------------------------ items

    def position(self, item: int | str) -> int:
        """Return the position of an item, compared by value: 12 is "12". -1 if it is unknown."""
        if self._are_texts:
            return self._positions.get(str(item), -1)
        if isinstance(item, str):
            # "012" is another item than 12
            number = int(item) if re.fullmatch("-?[0-9]{1,19}", item) else None
            item = number if str(number) == item else None
        return self._positions.get(item, -1)

    # ------------------------------------------------------------------------ the step

    def run(
        self, items: np.ndarray, states: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take one event of each session.

        Parameters
        ----------
        items : (B,) int64 array
            Positions; -1 leaves a session's state as it is.
        states : (B, U) array
        k : int

        Returns
        -------
        best, scores : (B, k) arrays
            Positions of the best items after the event, best first, at most all items. Of equal
            scores the lower position comes first.
        states : (B, U) array
        """
        inputs = self._inputs(items, states)
        inputs["k"] = np.array([k])
        best, scores, *new = self._graph.run(["top_items", "top_scores", *self._outputs], inputs)
        return best, scores, joined(new)

    def _inputs(self, items: np.ndarray, states: np.ndarray) -> dict[str, np.ndarray]:
        parts = np.split(states, self._bounds, axis=1) if len(self.layers) > 1 else [states]
        return {"items": items, **dict(zip(self._states, parts))}


def load_graph(path: str, data: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Return a runnable graph; raise a `StartError` if the bytes are none."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # threads that wait actively would take the core that answers requests
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    # onnxruntime has a second format, which it would recognize
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as err:  # onnxruntime's errors have no class of their own
        raise StartError(
            f"{path}: onnxruntime cannot load this file ({' '.join(str(err).split())[:200]}); "
            "write one with GRU4Rec.export_onnx"
        ) from None


def read_file(path: str, what: str) -> bytes:
    """Return a file's bytes; raise a `StartError` if it cannot be read, or never ends."""
    try:
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise ValueError("it is a pipe, a device or a socket")
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or err
        raise StartError(f"{what} {path} cannot be read: {reason}") from None


# The numbers of the fields of ONNX's messages that lead to tensors, and None for a tensor.
_SPARSE: dict[int, Any] = {1: None, 2: None}
_ATTRIBUTE: dict[int, Any] = {5: None, 10: None, 22: _SPARSE, 23: _SPARSE}
_NODE = {5: _ATTRIBUTE}
_GRAPH = {1: _NODE, 5: None, 15: _SPARSE}
_ATTRIBUTE.update({6: _GRAPH, 11: _GRAPH})
_MODEL = {7: _GRAPH, 20: {1: _GRAPH, 2: _GRAPH}, 25: {7: _NODE, 11: _ATTRIBUTE}}
_EXTERNAL = (13, 14)  # where in another file a tensor's numbers are, and that they are


def takes_files(data: memoryview, fields: dict[int, Any] | None = _MODEL) -> bool:
    """Tell whether a model takes numbers from other files, whose paths it names.

    Raises
    ------
    ValueError
        If the bytes are no messages of protobuf.
    """
    for number, part in _fields(data):
        if fields is None:
            found = number in _EXTERNAL and bool(part)
        else:
            below = isinstance(part, memoryview) and number in fields
            found = below and takes_files(part, fields[number])
        if found:
            return True
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message of protobuf: their numbers, and integers or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        n, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, len(data)), at)
        if at + n > len(data):
            raise ValueError
        yield key >> 3, data[at : at + n]
        at += n


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return an integer, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError


def _item_ids(values: Any) -> list[int] | list[str]:
    kinds = {type(value) for value in values}
    if not values or (kinds != {int} and kinds != {str}):
        raise ValueError
    return values


def _by_popularity(support: Any, n_items: int) -> tuple[np.ndarray, np.ndarray] | None:
    if support is None:
        return None
    counts = np.array(support)
    if counts.shape != (n_items,) or counts.dtype.kind not in "iu" or not counts.sum() > 0:
        raise ValueError
    shares = counts / counts.sum()
    order = np.argsort(-shares, kind="stable")
    return order, shares[order]


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the layers' states as one array (B, U)."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
