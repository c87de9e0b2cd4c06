"""The bytes that a training step moves on a GPU, beside those that it has to.

Counted from the compiled step and the sizes of its arrays, without any timing. **Moved**: each
launch reads every element that it uses once and writes every element that it makes once; what it
reads again comes from a cache. Of a table, only the rows that the mini-batch touches count.
**Needed**: the same if

- each matrix product reads its operands once and writes its result once (so the scores are written
  once; their gradient is read by two products);
- what lies between two products is computed by one ideal kernel, which reads each result of a
  product once and writes each operand of one once (so the scores are read once and their gradient
  is written once);
- each touched row of a table is read once for all of its look-ups, and read and written once, with
  its states and velocity, in the update; so are whole parameters;
- each gradient is read once by the update.

So nothing is needed for dropout, sums of columns, links between occurrences, or a second reading of
anything. **The floor** is what no implementation gets below, not even one that computes a whole
step in one kernel: touched rows and whole parameters, their states and velocities read once and
written once, the scores and their gradient written once and read once, and nothing else.
"""

from __future__ import annotations

import collections

import numpy as np

from benchmarks.training import Trainer

VIEWS = ("GpuSubtensor", "GpuReshape", "GpuDimShuffle", "Rebroadcast")


def count(trainer: Trainer) -> dict[str, tuple[int, int, int]]:
    """Return the bytes moved, needed and of the floor in a step, by Op, largest first.

    The trainer's step has to keep its arrays (``allow_gc`` of Theano off when it was made).
    """
    _, run_steps, n_steps = trainer.prepare_block(1)
    run_steps(n_steps)
    step = trainer.training.step_function
    arrays = Arrays(step.fn.storage_map)
    totals = collections.defaultdict(lambda: np.zeros(3, dtype=int))
    for node in step.maker.fgraph.toposort():
        name = type(node.op).__name__
        if name in VIEWS or not any(map(on_gpu, (*node.inputs, *node.outputs))):
            continue
        if name == "Shape_i":
            continue
        totals[name] += COUNTS.get(name, _other)(node, arrays)
    by_size = sorted(totals.items(), key=lambda item: -item[1][0])
    return {name: tuple(map(int, sizes)) for name, sizes in by_size}


def table_row(name: str, trainer: Trainer) -> str:
    """Return a row of a table: megabytes moved and needed, the floor, ratios, what moves the rest.

    The last two columns name the Op that moves most beyond what is needed, and beyond the floor,
    each as a share of that.
    """
    by_op = count(trainer)
    moved, needed, floor = (sum(column) for column in zip(*by_op.values()))
    size, units = trainer.model.batch_size, trainer.model.layers[0]
    return (
        f"| {name} | {size} x {units} | {moved / 1e6:.2f} | {needed / 1e6:.2f} | "
        f"{floor / 1e6:.2f} | {moved / needed:.2f} | {moved / floor:.2f} | "
        f"{_most_beyond(by_op, 1)} | {_most_beyond(by_op, 2)} |"
    )


def _most_beyond(by_op: dict, column: int) -> str:
    extra = {op: sizes[0] - sizes[column] for op, sizes in by_op.items()}
    most = max(extra, key=extra.get)
    return f"{most} {extra[most] / sum(sizes[column] for sizes in by_op.values()):.2f}"


def on_gpu(variable) -> bool:
    return type(variable.type).__name__ == "GpuArrayType"


class Arrays:
    """The values of a step's variables after it."""

    def __init__(self, storage: dict) -> None:
        self.storage = storage

    def shape(self, variable) -> tuple[int, ...]:
        return tuple(self.storage[variable][0].shape)

    def size(self, *variables) -> int:
        """Return the number of elements of all variables."""
        return sum(int(np.prod(self.shape(v))) for v in variables)

    def n_distinct(self, *indices) -> int:
        """Count the different numbers in all integer vectors."""
        return len(np.unique(np.concatenate([np.asarray(self.storage[i][0]) for i in indices])))


# Each returns bytes moved, needed, of the floor.


def _other(node, arrays) -> np.ndarray:
    """Count an Op that is neither a product nor ours: an ideal kernel would absorb it."""
    in_and_out = [v for v in (*node.inputs, *node.outputs) if on_gpu(v)]
    return np.array([4 * arrays.size(*in_and_out), 0, 0])


def _product(node, arrays) -> np.ndarray:
    moved = 4 * arrays.size(*node.inputs[:2], *node.outputs)
    return np.array([moved, moved, 0])


def _product_of_columns(node, arrays) -> np.ndarray:
    (m, n), columns = arrays.shape(node.inputs[0]), arrays.shape(node.outputs[0])[1]
    moved = 4 * (m * n + m * columns + n * columns)
    return np.array([moved, moved, 0])


def _look_ups(node, arrays) -> np.ndarray:
    table_in, index, *_ = node.inputs
    targets, negatives = node.inputs[7:9]
    m, width_in = arrays.shape(index)[0], arrays.shape(table_in)[1]
    n = m + arrays.shape(negatives)[0]
    row = arrays.shape(node.inputs[5])[1] + 1 + (node.op.factors is not None)
    copies = n - m if len(node.inputs) % 2 == 0 else 0
    written = arrays.size(*node.outputs)
    distinct = arrays.n_distinct(targets, negatives)
    moved = m + m * width_in + n + n * row + copies + written
    needed = m + arrays.n_distinct(index) * width_in + n + distinct * row + copies + written
    return 4 * np.array([moved, needed, 0])


def _gru(node, arrays) -> np.ndarray:
    m, n = arrays.shape(node.inputs[2])
    products = (m * n + 2 * n * n + 2 * m * n) + (m * n + n * n + m * n)
    gates = (2 + 2 + 1) * m * n + 2 * n + (2 + 1) * m * n
    new_state = (1 + 1 + 1 + 1) * m * n + n + (len(node.outputs) - 2) * m * n
    moved = products + gates + new_state
    return 4 * np.array([moved, moved, 0])


def _gru_gradient(node, arrays) -> np.ndarray:
    m, n = arrays.shape(node.inputs[1])
    product = m * n + n * n + m * n
    of_candidate = (3 + 1) * m * n
    of_gates = (1 + 1 + 1 + 2 + 1 + 1) * m * n + 3 * m * n + 3 * n
    moved = product + of_candidate + of_gates
    return 4 * np.array([moved, moved - 2 * m * n, 0])  # the candidate's gradient is copied


def _loss(node, arrays) -> np.ndarray:
    m, n = arrays.shape(node.inputs[0])
    rows, columns = 2 * m * n + 2 * n + m, m * n + m + n + 1
    return 4 * np.array([rows + columns, 2 * m * n + 3 * n + 1, 4 * m * n])


def _update(node, arrays) -> np.ndarray:
    moved, needed, floor = 0, 0, 0
    for (tables, rest), weighted in zip(node.op.parts(node.inputs), node.op.weighted):
        if not weighted:
            of_tables, gradient = 2 * arrays.size(*tables), arrays.size(rest[0])
            moved += of_tables + gradient
            needed += of_tables + gradient
            floor += of_tables
            continue
        lookups = node.op.lookups(rest, weighted)
        ids = [index for index, _, _ in lookups]
        n, distinct = arrays.size(*ids), arrays.n_distinct(*ids)
        read = arrays.size(*rest)
        per_row = sum(arrays.size(table) / arrays.shape(table)[0] for table in tables)
        floor += 2 * distinct * per_row
        needed += read + 2 * distinct * per_row
        moved += read + 2 * distinct * per_row + n + (2 + 2) * n  # ids again, links both ways
    return 4 * np.array([moved, needed, floor]).astype(int)


COUNTS = {
    "GpuDot22": _product,
    "GpuProductOfColumns": _product_of_columns,
    "GpuLookUps": _look_ups,
    "GpuGRU": _gru,
    "GpuGRUGradient": _gru_gradient,
    "GpuLoss": _loss,
    "GpuUpdate": _update,
}
