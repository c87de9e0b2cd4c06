"""The optimizer step on a GPU: all parameters of a mini-batch in two launches, Adam's in three."""

from __future__ import annotations

from gru4rec_toolkit.ops.base import cpp, cpp_enum
from gru4rec_toolkit.ops.gpu_base import GpuKernelOp
from gru4rec_toolkit.ops.updates.op import METHODS, MOST_ON_GPU, Update
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# the most parameters of one Op: a kernel takes 4096 bytes of arguments on CUDA
MOST_DENSE, MOST_ROWS = 16, 4


class GpuUpdate(GpuKernelOp):
    """One optimizer step on any number of parameters, each as `Update` defines it.

    Inputs: the constants; then parameter by parameter those of `Update`, without the rows
    as they were looked up: these, which only an L2 penalty needs, are read from the parameter.
    Outputs: the tables of all parameters after the step.

    Parameters
    ----------
    method : str or None
    momentum, l2 : bool
    weighted : tuple of tuple of bool
        For every parameter, whether each of its look-ups is weighted; (): a whole parameter.
    inplace : bool
    """

    __props__ = ("method", "momentum", "l2", "weighted", "inplace")
    FOLDER = "updates"

    def __init__(self, method, momentum, l2, weighted, inplace=False):
        self.method, self.momentum, self.l2 = method, momentum, l2
        self.weighted, self.inplace = weighted, inplace
        self._of_one = Update(method, momentum, l2)  # the same for one parameter
        self.n_tables = self._of_one.n_tables
        self.FUNCTION = f"apply_update<{cpp_enum(method or 'sgd')}>"
        if any(len(lookups) > MOST_ON_GPU for lookups in weighted):
            raise ValueError(f"a GPU's update of rows takes at most {MOST_ON_GPU} look-ups")
        if inplace:
            firsts = [start for start, _ in self._spans()]
            at = [first + i for first in firsts for i in range(self.n_tables)]
            self.destroy_map = {output: [i] for output, i in enumerate(at)}
        self.KERNELS = ("link_occurrences", "update") if any(weighted) else ("update",)
        if method == "adam":
            self.KERNELS += ("tick",)

    in_place = Update.in_place

    @classmethod
    def twin(cls, method, momentum, l2, weighted, inplace):
        """Return the twin of the `Update` with these properties."""
        return cls(method, momentum, l2, (weighted,), inplace)

    def _spans(self):
        """Yield each parameter's first input and first input after it."""
        start = 1
        for lookups in self.weighted:
            stop = start + self.n_tables + (sum(2 + w for w in lookups) if lookups else 1)
            yield start, stop
            start = stop

    def parts(self, inputs) -> list[tuple[list, list]]:
        """Return for each parameter its tables, and its look-ups or its gradient."""
        return [
            (inputs[start : start + self.n_tables], inputs[start + self.n_tables : stop])
            for start, stop in self._spans()
        ]

    def lookups(self, rest, weighted) -> list[tuple]:
        """Return per look-up: index, gradient, weights or None."""
        rest = list(rest)
        return [(rest.pop(0), rest.pop(0), rest.pop(0) if w else None) for w in weighted]

    def constants(self):
        dense = [f"X(d{i})" for i, lookups in enumerate(self.weighted) if not lookups]
        rows = [f"X(r{i})" for i, lookups in enumerate(self.weighted) if lookups]
        return {
            "METHOD": METHODS.index(self.method),
            "MOMENTUM": int(self.momentum),
            "EACH_DENSE(X)": " ".join(dense),
            "EACH_ROWS(X)": " ".join(rows),
        }

    def make_node(self, constants, *inputs):
        if self.l2 and 1 + len(inputs) > list(self._spans())[-1][1]:
            inputs = self._without_rows(inputs)
        inputs = [tt.as_tensor_variable(constants), *self.arrays(*inputs)]
        tables = [table for tables, _ in self.parts(inputs) for table in tables]
        return theano.Apply(self, inputs, [table.type() for table in tables])

    def _without_rows(self, inputs):
        """Return the inputs of a `Update` without the rows as they were looked up."""
        kept, rest = list(inputs[: self.n_tables]), list(inputs[self.n_tables :])
        for weighted in self.weighted[0]:
            kept += rest[: 2 + weighted]
            rest = rest[3 + weighted :]
        return kept

    def infer_shape(self, node, shapes):
        return [shape for tables, _ in self.parts(shapes) for shape in tables]

    def c_arguments(self, node, inputs, outputs):
        whole, of_rows = [], []
        for i, ((tables, rest), weighted) in enumerate(zip(self.parts(inputs), self.weighted)):
            of_part = outputs[i * self.n_tables : (i + 1) * self.n_tables]
            tables = self._of_one.c_tables(tables, of_part)
            if weighted:
                a, b = (self.lookups(rest, weighted) * 2)[:2]
                of_rows.append("gk::OfRows" + cpp([tables, a, b, len(weighted) == 2]))
            else:
                whole.append("gk::Whole" + cpp([tables, rest[0]]))
        return [inputs[0], self.inplace, *whole, *of_rows]


def merged(nodes: list) -> list:
    """Return the outputs of one Op that does what several nodes do, by the same rule."""
    op = nodes[0].op
    weighted = tuple(lookups for node in nodes for lookups in node.op.weighted)
    inputs = [v for node in nodes for v in node.inputs[1:]]
    op = GpuUpdate(op.method, op.momentum, op.l2, weighted)
    return op(nodes[0].inputs[0], *inputs, return_list=True)
