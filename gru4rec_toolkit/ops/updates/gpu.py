"""The optimizer step on a GPU: all parameters of a mini-batch in two launches, Adam's in three."""

from __future__ import annotations

from gru4rec_toolkit.ops.gpu_base import COLUMNS, PARTS, GpuKernelOp, fail_if, launch, plain
from gru4rec_toolkit.ops.updates.op import METHODS, Update
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
    FILE = "updates"

    def __init__(self, method, momentum, l2, weighted, inplace=False):
        self.method, self.momentum, self.l2 = method, momentum, l2
        self.weighted, self.inplace = weighted, inplace
        self.n_tables = Update(method, momentum, l2).n_tables
        if any(len(lookups) > 2 for lookups in weighted):
            raise ValueError("a GPU's update of rows takes at most two look-ups")
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

    def c_code(self, node, name, inputs, outputs, sub):
        fail, context = sub["fail"], sub["params"]
        parts = self.parts(inputs)
        tables = [table for tables, _ in parts for table in tables]
        take = " || ".join(
            f"!gk::take({out}, {table}, {str(self.inplace).lower()})"
            for table, out in zip(tables, outputs)
        )
        declared, dense, rows = [], [], []
        for i, ((_, rest), weighted) in enumerate(zip(parts, self.weighted)):
            of_part = outputs[i * self.n_tables : (i + 1) * self.n_tables]
            ndim = node.outputs[i * self.n_tables].ndim
            passed = _Tables(self.method, self.momentum, of_part, ndim)
            if weighted:
                lookups = self.lookups(rest, weighted)
                declared.append(_declare_rows(i, lookups, passed, fail))
                rows.append((i, passed, (*weighted, False)[:2]))
            else:
                declared.append(_declare_dense(i, rest[0], passed, fail))
                dense.append((i, passed))
        return f"""
        {{
        if ({take}) {{ {fail} }}
        auto c = [&](int i) {{ return *(float*)PyArray_GETPTR1({inputs[0]}, i); }};
        size_t n_elements = 0, n_occurrences = 0, n_link_groups = 0, n_ticks = 0;
        {"".join(declared)}
        gk::Scratch owner(n_occurrences, GA_INT, {context});
        gk::Scratch next(n_occurrences, GA_INT, {context});
        if (!owner.ok() || !next.ok()) {{ {fail} }}
        {self._launches(dense, rows, fail)}
        }}
        """

    def _launches(self, dense, rows, fail):
        links = ["&owner.get()", "&next.get()"]
        rates = [f"c({i})" for i in range(6)]
        ids = {i: _lookup_arguments(i, "n", "ids") for i, _, _ in rows}
        of_dense = [a for i, p in dense for a in (*p.arguments, f"&gradient_{i}.get()")]
        of_rows = [
            a
            for i, p, flags in rows
            for a in (
                *[*p.arguments, *ids[i], f"&gradient_a_{i}.get()", f"&gradient_b_{i}.get()"],
                *[str(int(flag)) for flag in flags],
                *[f"&weights_a_{i}.get()", f"&weights_b_{i}.get()"],
            )
        ]
        code = ""
        if rows:
            arguments = [*links, *[a for i, _, _ in rows for a in ids[i]]]
            threads = str(COLUMNS * PARTS)
            code += launch("link_occurrences", "n_link_groups", threads, arguments, fail)
        arguments = ["n_elements", *rates, *links, *of_dense, *of_rows]
        code += launch("update", "gk::groups(n_elements)", "gk::THREADS", arguments, fail)
        if self.method == "adam":
            arguments = ["n_ticks", links[0], *[a for _, p in dense for a in p.times]]
            arguments += [a for i, p, _ in rows for a in (*p.times, *ids[i])]
            code += launch("tick", "gk::groups(n_ticks)", "gk::THREADS", arguments, fail)
        return code


class _Tables:
    """A parameter and its states as the kernels take them."""

    def __init__(self, method, momentum, tables, ndim):
        dummy = tables[0]  # in the place of what the method does not have
        n_states = len(tables) - 1 - momentum
        states = [*tables[1 : 1 + n_states], dummy, dummy, dummy]
        time = states[2] if method == "adam" else dummy
        velocity = tables[-1] if momentum else dummy
        self.n_rows = f"{dummy}->ga.dimensions[0]"
        self.width = f"{dummy}->ga.dimensions[1]" if ndim > 1 else "size_t(1)"
        arrays = [f"&{v}" for v in (dummy, states[0], states[1], time, velocity)]
        self.arguments = [self.n_rows, self.width, *arrays]
        self.times = [self.n_rows, f"&{time}"]


def _declare_dense(i, gradient, tables, fail):
    return f"""
        {plain(fail, **{f"gradient_{i}": gradient})}
        {fail_if(f"gradient_{i}.size() != {tables.n_rows} * {tables.width}",
                 "update: gradient's size", fail)}
        n_elements += gradient_{i}.size();
        n_ticks += {tables.n_rows};
    """


def _declare_rows(i, lookups, tables, fail):
    """Look-ups a and b; with one only, b is a but counted as empty."""
    (ids_a, gradient_a, weights_a), (ids_b, gradient_b, weights_b) = (lookups * 2)[:2]
    arrays = {f"ids_a_{i}": ids_a, f"gradient_a_{i}": gradient_a}
    arrays.update({f"ids_b_{i}": ids_b, f"gradient_b_{i}": gradient_b})
    wrong = " || ".join(
        f"gradient_{of}_{i}.dim(0) != ids_{of}_{i}.dim(0) || "
        f"gradient_{of}_{i}.dim(1) != {tables.width}"
        for of in "ab"
    )
    return f"""
        {plain(fail, **arrays)}
        gk::Plain weights_a_{i}({weights_a or "NULL"}, &ids_a_{i});
        gk::Plain weights_b_{i}({weights_b or "NULL"}, &ids_b_{i});
        if (!weights_a_{i}.ok() || !weights_b_{i}.ok()) {{ {fail} }}
        {fail_if(wrong, "update: gradient's shape", fail)}
        const size_t n_a_{i} = ids_a_{i}.dim(0);
        const size_t n_b_{i} = {f"ids_b_{i}.dim(0)" if len(lookups) == 2 else "0"};
        n_occurrences += n_a_{i} + n_b_{i};
        n_elements += (n_a_{i} + n_b_{i}) * {tables.width};
        n_link_groups += (n_a_{i} + n_b_{i} + {COLUMNS - 1}) / {COLUMNS};
        n_ticks += n_a_{i} + n_b_{i};
    """


def _lookup_arguments(i, size, array):
    return [a for of in "ab" for a in (f"{size}_{of}_{i}", f"&{array}_{of}_{i}.get()")]


def merged(nodes: list) -> list:
    """Return the outputs of one Op that does what several nodes do, by the same rule."""
    op = nodes[0].op
    weighted = tuple(lookups for node in nodes for lookups in node.op.weighted)
    inputs = [v for node in nodes for v in node.inputs[1:]]
    op = GpuUpdate(op.method, op.momentum, op.l2, weighted)
    return op(nodes[0].inputs[0], *inputs, return_list=True)
