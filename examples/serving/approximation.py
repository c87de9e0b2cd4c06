"""Ranking by an approximate index (HNSW, of usearch), for millions of items.

A score before the final activation is the product of state and item, plus the item's bias. In the
index an item is its vector with two more dimensions: its bias, and what makes all vectors equally
long. A state gets 1 and 0 there, so that the order of the cosines is the order of the scores
(Bachrach et al., RecSys 2014). The graph of an HNSW index is good for cosines and poor for inner
products: among 40,000 items the index without the last dimension found 80% of the best 20 items,
with it 99.9%.

The index finds candidates, which are scored exactly. Final activations never decrease, so the order
stays right. Where one saturates (relu: all negative scores become 0), the exact list has the first
of the items that tie, and this list any of them.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime  # before usearch: the other order of importing crashes (1.32 and 2.26)
from exported import Exported, joined, load_graph, read_file
from problems import StartError

# nodes that a search visits at least, and candidates beyond the list's length
VISITED, SPARE = 128, 10
# magic, format, checksum of the model, checksum of the index
_HEADER = struct.Struct("<8sB8sI")
_MAGIC, _FORMAT = b"GRU4RECI", 1

# final activations; softmax ranks as linear
_ACTIVATIONS: dict[str, Callable] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "leaky": lambda x, slope=0.01: np.where(x >= 0, x, slope * x),
    "elu": lambda x, a=1.0: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))),
    "selu": lambda x, b=1.0507, a=1.67326: b * np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))),
}


class Approximate(Exported):
    """A model that ranks by an approximate index; `run` is that of `Exported` otherwise.

    Parameters
    ----------
    path : str
    threads : int
    file : str
        Where the index is kept. It is built and saved there if there is none of this model. Empty:
        it is built and not saved.
    """

    def __init__(self, path: str, threads: int = 1, file: str = "") -> None:
        try:
            import onnx
            from usearch.index import Index
        except ImportError as err:
            raise StartError(
                f"--approximate needs the package {err.name}: pip install usearch onnx"
            ) from None
        self._onnx, self._new_index = onnx, Index
        super().__init__(path, threads)
        name = self.parameters["final_act"]
        kind, *constants = ("linear" if "softmax" in name else name).split("-", 1)
        numbers = [float(number) for number in constants[0].split("-")] if constants else []
        self._activate = lambda x: _ACTIVATIONS[kind](x, *numbers).astype(self.dtype)
        self._threads = threads
        self.index = self._loaded(file) if file else None
        if self.index is None:
            self.index = self._built()
            if file:
                self._save(file)
        self.at_once = 64

    def run(
        self, items: np.ndarray, states: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take one event of each session, as `Exported.run`; -1 stands where no item was found."""
        new = self._graph.run(self._outputs, self._inputs(items, states))
        best, scores = self.best(new[-1], k)
        return best, scores, joined(new)

    def best(self, hidden: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the best items (B, k) of states (B, units) of the last layer, and their scores."""
        n_items = len(self.item_ids)
        k = min(k, n_items)
        n = min(k + SPARE, n_items)
        self.index.expansion_search = max(VISITED, 2 * n)
        found = self.index.search(_queries(hidden), n, threads=self._threads)
        # a lone query has an answer of one dimension
        candidates = np.atleast_2d(found.keys).astype(np.int64)
        counts = np.atleast_1d(getattr(found, "counts", candidates.shape[1]))
        missing = np.arange(candidates.shape[1]) >= counts[:, None]
        candidates[missing] = 0
        scores = np.einsum("bnu,bu->bn", self._vectors[candidates], hidden)
        scores = self._activate(scores + self._biases[candidates])
        scores[missing] = -np.inf
        candidates[missing] = -1
        order = np.lexsort((candidates, -scores), axis=1)[:, :k]
        return (
            np.take_along_axis(candidates, order, axis=1),
            np.take_along_axis(scores, order, axis=1),
        )

    # ------------------------------------------------------------------------ the graph

    def _load(self, path: str, data: bytes, threads: int) -> onnxruntime.InferenceSession:
        """Load the part of the graph that gives the states, and take the vectors of the items.

        onnxruntime computes all of a graph, whichever outputs are asked for.
        """
        try:
            model = self._onnx.load_model_from_string(data)
            arrays = {array.name: array for array in model.graph.initializer}
            of_name = self._onnx.numpy_helper.to_array
            self._vectors, biases = of_name(arrays["Wy"]), of_name(arrays["By"])
            self._biases = biases.reshape(-1)
            names = [entry.name for entry in model.graph.output]
            outputs = [name for name in names if name.startswith("new_state_")]
            inputs = ["items", *(name.removeprefix("new_") for name in outputs)]
            part = self._onnx.utils.Extractor(model).extract_model(inputs, outputs)
            texts = {entry.key: entry.value for entry in model.metadata_props}
            self._onnx.helper.set_model_props(part, texts)
            data = part.SerializeToString()
        except Exception:  # protobuf's errors, and those of a graph that is not ours
            raise StartError(
                f"{path}: this is no ONNX file of a GRU4Rec model, or a damaged one; write one "
                "with GRU4Rec.export_onnx"
            ) from None
        return load_graph(path, data, threads)

    def _n_items(self, graph: onnxruntime.InferenceSession) -> int:
        return len(self._vectors)

    # ------------------------------------------------------------------------ the index

    def _empty(self) -> Any:
        # half precision: candidates are scored again
        return self._new_index(ndim=self._vectors.shape[1] + 2, metric="cos", dtype="f16")

    def _built(self) -> Any:
        index = self._empty()
        index.add(
            np.arange(len(self._vectors)),
            _equally_long(self._vectors, self._biases),
            threads=self._threads,
        )
        return index

    def _save(self, file: str) -> None:
        data = bytes(self.index.save())
        header = _HEADER.pack(_MAGIC, _FORMAT, self.digest, zlib.crc32(data))
        try:
            directory = os.path.dirname(os.path.abspath(file))
            with tempfile.NamedTemporaryFile(dir=directory, delete=False) as part:
                try:
                    part.write(header)
                    part.write(data)
                    part.close()
                    os.replace(part.name, file)
                except BaseException:
                    os.unlink(part.name)
                    raise
        except OSError as err:
            raise StartError(f"the index {file} cannot be written: {err.strerror}") from None

    def _loaded(self, file: str) -> Any:
        """Return the index of a file, None if there is none."""
        if not os.path.exists(file):
            return None
        data = read_file(file, "the index")
        wrong = StartError(
            f"--approximate {file}: this is no index of the service, or a damaged one; give the "
            "path of another file, which need not exist yet"
        )
        if len(data) < _HEADER.size:
            raise wrong
        magic, version, digest, checksum = _HEADER.unpack_from(data)
        data = data[_HEADER.size :]
        if (magic, version) != (_MAGIC, _FORMAT) or zlib.crc32(data) != checksum:
            raise wrong
        if digest != self.digest:
            raise StartError(
                f"--approximate {file}: this is the index of another model; give another path, or "
                "delete it to have one built for this model"
            )
        index = self._empty()
        index.load(data)
        if len(index) != len(self.item_ids):
            raise wrong
        return index


def _equally_long(vectors: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """Return the items' vectors (n, units + 2) in the index."""
    squares = np.einsum("nu,nu->n", vectors, vectors) + biases**2
    rest = np.sqrt(squares.max() - squares)
    return np.column_stack([vectors, biases, rest]).astype(np.float32)


def _queries(hidden: np.ndarray) -> np.ndarray:
    """Return the states' vectors (B, units + 2) in the index."""
    queries = np.zeros((len(hidden), hidden.shape[1] + 2), np.float32)
    queries[:, :-2], queries[:, -2] = hidden, 1
    return queries
