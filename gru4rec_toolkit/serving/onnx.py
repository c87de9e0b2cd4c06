"""A trained model's step as an ONNX graph, which other programs run without Theano.

Inputs
    ``items`` int64 (B,)
        The item of each session's next event, as a position in the model's items; -1 leaves the
        session's states as they are.
    ``state_0``, ... float (B, units)
        The states of the layers, zero in a new session.
    ``k`` int64 (1,)
        The length of the lists.
Outputs
    ``new_state_0``, ... float (B, units)
        The states after the event.
    ``scores`` float (B, n_items)
        The scores that items are ranked by: after the final activation, but before a softmax.
    ``top_items`` int64 (B, k), ``top_scores`` float (B, k)
        The positions of the best items, best first, and their scores. Of equal scores the lower
        position comes first. At most all items are listed.

The metadata tell, as JSON, ``item_ids`` (the ids behind the positions), ``support`` (the items'
numbers of events in the training, or null) and ``parameters``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.parameters import Values, ranking_activation, split_activation

FORMAT, VERSION = "gru4rec-onnx", 1
# versions of 2022, so that older runtimes can read the file, too
OPSET, IR_VERSION = 17, 8
# a file begins with the version of its representation and the program that made it
_PRODUCER = "gru4rec"
_START = re.compile(rb"\x08.\x12" + bytes([len(_PRODUCER)]) + _PRODUCER.encode(), re.DOTALL)
# bytes of a message of protobuf, which an ONNX file is
MOST_BYTES = (1 << 31) - 1


def serialized(
    settings: Values,
    arrays: Mapping[str, np.ndarray],
    item_ids: np.ndarray,
    support: np.ndarray | None,
) -> bytes:
    """Return the bytes of an ONNX file; the parameters are those of `exports.write`.

    Raises
    ------
    InputError
        If the file would be larger than ONNX files can be, or an activation has no form in ONNX.
    """
    texts = _metadata(settings, item_ids, support)
    n_bytes = sum(array.nbytes for array in arrays.values())
    if n_bytes + sum(map(len, texts.values())) + (1 << 20) > MOST_BYTES:
        raise InputError(
            f"an ONNX file has at most 2 GB, and the weights alone have {n_bytes >> 20} MB; give "
            "a name that ends in .safetensors"
        )
    return _model(settings, arrays, len(item_ids), texts).SerializeToString()


def is_one(path: str) -> bool:
    """Tell whether a file begins as those that this module makes."""
    with open(path, "rb") as file:
        return _START.match(file.read(64)) is not None


def import_library() -> Any:
    """Import onnx."""
    import onnx

    return onnx


def _metadata(settings: Values, item_ids: np.ndarray, support: np.ndarray | None) -> dict[str, str]:
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "item_ids": json.dumps(item_ids.tolist()),
        "support": json.dumps(None if support is None else support.tolist()),
        "parameters": json.dumps(settings.as_dict()),
    }


# ---------------------------------------------------------------------------- the graph
# B sessions, n units of a layer, N items


class _Graph:
    """Nodes and constants of a graph; what they compute is known by its name."""

    def __init__(self, onnx: Any, dtype: np.dtype) -> None:
        self.onnx, self.dtype = onnx, dtype
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def add(self, op: str, *inputs: str, to: str | Sequence[str], **attributes: Any) -> Any:
        """Add a node; return the names of its outputs, as they were given."""
        outputs = [to] if isinstance(to, str) else list(to)
        node = self.onnx.helper.make_node(op, list(inputs), outputs, outputs[0], **attributes)
        self.nodes.append(node)
        return to

    def constant(self, name: str, value: Any) -> str:
        """Add an array, or a number of the weights' type."""
        array = value if isinstance(value, np.ndarray) else np.array(value, self.dtype)
        if name not in self.constants:
            self.constants[name] = self.onnx.numpy_helper.from_array(array, name)
        return name

    def number(self, value: float) -> str:
        return self.constant(f"number/{float(value)!r}", value)


def _model(
    settings: Values, arrays: Mapping[str, np.ndarray], n_items: int, texts: dict[str, str]
) -> Any:
    onnx = import_library()
    graph = _Graph(onnx, arrays["Wy"].dtype)
    states = [f"state_{i}" for i in range(len(settings.layers))]
    hidden = _hidden(graph, settings, arrays, states)
    rows = graph.constant("Wy", np.ascontiguousarray(arrays["Wy"]))
    biases = graph.constant("By", arrays["By"].reshape(1, -1))  # (1, N)
    products = graph.add("Gemm", hidden, rows, biases, to="products", transB=1)  # (B, N)
    scores = _activated(graph, ranking_activation(settings.final_act), products, "final")
    graph.add("Identity", scores, to="scores")
    length = graph.add("Min", "k", graph.constant("n_items", np.array([n_items])), to="length")
    graph.add("TopK", "scores", length, to=("top_scores", "top_items"))

    kind = onnx.helper.np_dtype_to_tensor_dtype(graph.dtype)
    integers = onnx.TensorProto.INT64

    def info(name: str, element: int, *shape: Any) -> Any:
        return onnx.helper.make_tensor_value_info(name, element, shape)

    inputs = [info("items", integers, "sessions")]
    inputs += [info(h, kind, "sessions", n) for h, n in zip(states, settings.layers)]
    inputs.append(info("k", integers, 1))
    outputs = [
        info("top_items", integers, "sessions", "length"),
        info("top_scores", kind, "sessions", "length"),
        info("scores", kind, "sessions", n_items),
    ]
    outputs += [info(f"new_{h}", kind, "sessions", n) for h, n in zip(states, settings.layers)]
    made = onnx.helper.make_graph(
        graph.nodes, "gru4rec_step", inputs, outputs, list(graph.constants.values())
    )
    model = onnx.helper.make_model(
        made,
        producer_name=_PRODUCER,
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        doc_string=__doc__,
    )
    onnx.helper.set_model_props(model, texts)
    return model


def _hidden(
    graph: _Graph, settings: Values, arrays: Mapping[str, np.ndarray], states: list[str]
) -> str:
    """Add the layers; return the last one's new state (B, n)."""
    zero = _integers(graph, 0)
    known = graph.add("GreaterOrEqual", "items", zero, to="known")
    known = graph.add("Unsqueeze", known, _integers(graph, 1), to="known_sessions")  # (B, 1)
    one_hot = not settings.constrained_embedding and not settings.embedding
    name = "Wy" if settings.constrained_embedding else "Wx0" if one_hot else "E"
    table = graph.constant(name, np.ascontiguousarray(arrays[name]))
    x = graph.add("Gather", table, graph.add("Max", "items", zero, to="positions"), to="input")
    for i, (h, n) in enumerate(zip(states, settings.layers)):
        bias = graph.constant(f"Bh{i}", arrays[f"Bh{i}"])
        if i == 0 and one_hot:  # the rows are the product already
            x = graph.add("Add", x, bias, to=f"x_{i}")  # (B, 3n)
        else:
            x = graph.add("Gemm", x, graph.constant(f"Wx{i}", arrays[f"Wx{i}"]), bias, to=f"x_{i}")
        Wrz, Wh = (graph.constant(name, arrays[name]) for name in (f"Wrz{i}", f"Wh{i}"))
        new = _cell(graph, x, h, Wrz, Wh, n, settings.hidden_act, f"layer_{i}")
        x = graph.add("Where", known, new, h, to=f"new_{h}")
    return x


def _cell(
    graph: _Graph, x: str, h: str, Wrz: str, Wh: str, n: int, hidden_act: str, at: str
) -> str:
    """Add what `gru4rec.gru_cell` computes of x (B, 3n) with its biases, and h (B, n)."""

    def split(name: str, parts: tuple[str, str], sizes: list[int]) -> list[str]:
        lengths = graph.constant(f"{at}/{'_'.join(map(str, sizes))}", np.array(sizes))
        return graph.add("Split", name, lengths, to=[f"{at}/{part}" for part in parts], axis=1)

    def add(op: str, *inputs: str, to: str) -> str:
        return graph.add(op, *inputs, to=f"{at}/{to}")

    x_candidate, x_gates = split(x, ("x_candidate", "x_gates"), [n, 2 * n])
    gates = add("Add", x_gates, add("MatMul", h, Wrz, to="h_gates"), to="gates_in")
    reset, update = split(add("Sigmoid", gates, to="gates"), ("reset", "update"), [n, n])
    kept = add("MatMul", add("Mul", h, reset, to="kept"), Wh, to="h_candidate")
    total = add("Add", x_candidate, kept, to="candidate_in")
    candidate = _activated(graph, hidden_act, total, f"{at}/candidate")
    old = add("Mul", add("Sub", graph.number(1), update, to="stays"), h, to="old")
    return add("Add", old, add("Mul", update, candidate, to="new"), to="state")


def _integers(graph: _Graph, value: int) -> str:
    return graph.constant(f"integer/{value}", np.array([value]))


def _activated(graph: _Graph, name: str, x: str, at: str) -> str:
    """Add an activation of the hidden state or of the scores, in primitives of any float type."""
    kind, constants = split_activation(name)
    if kind not in _ACTIVATIONS:
        raise InputError(f"the activation {kind} has no form in ONNX; add one to {__name__}")
    return _ACTIVATIONS[kind](graph, x, at, *constants)


def _linear(graph: _Graph, x: str, at: str) -> str:
    return x


def _relu(graph: _Graph, x: str, at: str) -> str:
    return graph.add("Relu", x, to=at)


def _tanh(graph: _Graph, x: str, at: str) -> str:
    return graph.add("Tanh", x, to=at)


def _leaky(graph: _Graph, x: str, at: str, slope: float) -> str:
    low = graph.add("Mul", x, graph.number(slope), to=f"{at}/low")
    return graph.add("Where", _at_least_zero(graph, x, at), x, low, to=at)


def _elu(graph: _Graph, x: str, at: str, alpha: float) -> str:
    return _selu(graph, x, at, 1.0, alpha)


def _selu(graph: _Graph, x: str, at: str, scale: float, alpha: float) -> str:
    low = graph.add("Min", x, graph.number(0), to=f"{at}/negative")  # exp would overflow
    low = graph.add("Exp", low, to=f"{at}/exp")
    low = graph.add("Sub", low, graph.number(1), to=f"{at}/exp_1")
    low = graph.add("Mul", low, graph.number(alpha), to=f"{at}/low")
    both = graph.add("Where", _at_least_zero(graph, x, at), x, low, to=f"{at}/unscaled")
    return graph.add("Mul", both, graph.number(scale), to=at)


def _at_least_zero(graph: _Graph, x: str, at: str) -> str:
    return graph.add("GreaterOrEqual", x, graph.number(0), to=f"{at}/positive")


# under the names of `parameters.ACTIVATIONS`, by a test
_ACTIVATIONS: dict[str, Callable[..., str]] = {
    "linear": _linear,
    "relu": _relu,
    "tanh": _tanh,
    "leaky": _leaky,
    "elu": _elu,
    "selu": _selu,
}
