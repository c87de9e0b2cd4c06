"""Look-ups of rows on a GPU."""

from __future__ import annotations

from gru4rec_toolkit.ops.gpu_base import (
    MASK,
    GpuKernelOp,
    arrays_and_scalars,
    fail_if,
    launch,
    plain,
)
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# ---------------------------------------------------------------------------- rows


class GpuGather(GpuKernelOp):
    """Rows of a table; an index out of range gives a row of NaN instead of an error."""

    __props__ = ()
    FILE, KERNELS = "rows", ("gather",)

    def make_node(self, table, index):
        table, index = self.arrays(table, index)
        return theano.Apply(self, [table, index], [self.like(table, "float32", 2)])

    def infer_shape(self, node, shapes):
        return [(shapes[1][0], shapes[0][1])]

    def c_code(self, node, name, inputs, outputs, sub):
        fail = sub["fail"]
        arguments = ["&table.get()", "table.dim(0)", "width", "&index.get()", "n", f"&{outputs[0]}"]
        return f"""
        {{
        {plain(fail, table=inputs[0], index=inputs[1])}
        const size_t n = index.dim(0), width = table.dim(1);
        if (!gk::allocate({outputs[0]}, {{n, width}}, {sub["params"]})) {{ {fail} }}
        {launch("gather", "gk::groups(n * width)", "gk::THREADS", arguments, fail)}
        }}
        """


class GpuOutputs(GpuKernelOp):
    """Targets and negatives one after the other, and how many copies of each are meant."""

    __props__ = ()
    FILE, KERNELS = "rows", ("outputs",)

    def make_node(self, *inputs):
        inputs = self.arrays(*inputs)
        outputs = [self.like(inputs[0], "int32", 1), self.like(inputs[0], "float32", 1)]
        return theano.Apply(self, inputs, outputs)

    def c_code(self, node, name, inputs, outputs, sub):
        items, weights = outputs
        fail = sub["fail"]
        copies = inputs[2] if len(inputs) > 2 else "NULL"
        arguments = ["m", "&targets.get()", "k", "&negatives.get()", str(len(inputs) - 2)]
        arguments += ["&copies.get()", f"&{items}", f"&{weights}"]
        return f"""
        {{
        {plain(fail, targets=inputs[0], negatives=inputs[1])}
        gk::Plain copies({copies}, &negatives);
        if (!copies.ok()) {{ {fail} }}
        const size_t m = targets.dim(0), k = negatives.dim(0);
        if (!gk::allocate({items}, {{m + k}}, {sub["params"]}, GA_INT) ||
            !gk::allocate({weights}, {{m + k}}, {sub["params"]})) {{ {fail} }}
        {launch("outputs", "gk::groups(m + k)", "gk::THREADS", arguments, fail)}
        }}
        """


class GpuLogQ(GpuKernelOp):
    """Biases less the logQ correction."""

    __props__ = ("of_targets", "of_samples")
    FILE, KERNELS = "rows", ("log_q",)

    def __init__(self, of_targets: float, of_samples: float):
        self.of_targets, self.of_samples = of_targets, of_samples

    def make_node(self, biases, log_support, items, n_targets):
        inputs = [*self.arrays(biases, log_support, items), tt.as_tensor_variable(n_targets)]
        return theano.Apply(self, inputs, [self.like(inputs[0], "float32", 1)])

    def infer_shape(self, node, shapes):
        return [shapes[2]]

    def c_code(self, node, name, inputs, outputs, sub):
        biases, log_support, items, n_targets = inputs
        fail = sub["fail"]
        rates = [f"{float(self.of_targets)!r}f", f"{float(self.of_samples)!r}f"]
        arrays = ["&biases.get()", "&log_support.get()", "&items.get()"]
        arguments = ["n", f"gk::scalar<npy_int64>({n_targets})", *arrays, *rates, f"&{outputs[0]}"]
        return f"""
        {{
        {plain(fail, biases=biases, log_support=log_support, items=items)}
        const size_t n = items.dim(0);
        if (!gk::allocate({outputs[0]}, {{n}}, {sub["params"]})) {{ {fail} }}
        {launch("log_q", "gk::groups(n)", "gk::THREADS", arguments, fail)}
        }}
        """


class GpuLookUps(GpuKernelOp):
    """All that a training step looks up: the Gather, three times, Dropout, Outputs, LogQ.

    Inputs: the input items' table (n_rows, width_in); their index (m,) int32; p, seed, counter of
    Dropout (p 0: none); the output items' table (n_items, width) and biases (n_items, 1); targets
    and negatives, as for Outputs; if there are factors, log_support and n_targets, as for LogQ; as
    for Outputs, copies or nothing. Outputs: the input items' rows after dropout; the output items'
    rows and biases (m + k,), these less the correction; both outputs of Outputs.

    Parameters
    ----------
    factors : (float, float) or None
        of_targets and of_samples of LogQ, if there is a correction.
    """

    __props__ = ("factors",)
    FILE, KERNELS = "rows", ("look_up",)

    def __init__(self, factors: tuple[float, float] | None):
        self.factors = factors

    def make_node(self, *inputs):
        inputs = arrays_and_scalars(self, inputs)
        kinds = (("float32", 2), ("float32", 2), ("float32", 1), ("int32", 1), ("float32", 1))
        return theano.Apply(self, inputs, [self.like(inputs[0], *kind) for kind in kinds])

    def infer_shape(self, node, shapes):
        n = shapes[7][0] + shapes[8][0]
        return [(shapes[1][0], shapes[0][1]), (n, shapes[5][1]), (n,), (n,), (n,)]

    def c_code(self, node, name, inputs, outputs, sub):
        fail, context = sub["fail"], sub["params"]
        table_in, index, p, seed, counter, table, biases, targets, negatives, *more = inputs
        names = ("table_in", "inputs", "table", "biases", "targets", "negatives")
        arrays = dict(zip(names, (table_in, index, table, biases, targets, negatives)))
        log_support, n_targets = more[:2] if self.factors else ("NULL", None)
        copies = more[2 if self.factors else 0 :]
        in_row, out_rows, offsets, items, weights = outputs
        arguments = [
            *["m", "table_in.dim(0)", "width_in", "&table_in.get()", "&inputs.get()", *MASK],
            *["k", "table.dim(0)", "width", "&table.get()", "&biases.get()", "&targets.get()"],
            *["&negatives.get()", str(len(copies)), "&copies.get()"],
            *[str(int(self.factors is not None)), "&log_support.get()"],
            f"gk::scalar<npy_int64>({n_targets})" if self.factors else "0",
            *[f"{float(factor)!r}f" for factor in self.factors or (0, 0)],
            *[f"&{output}" for output in outputs],
        ]
        wrong = "inputs.dim(0) != m || biases.dim(0) != table.dim(0) || copies.dim(0) != k"
        return f"""
        {{
        {plain(fail, **arrays)}
        gk::Plain copies({copies[0] if copies else "NULL"}, &negatives);
        gk::Plain log_support({log_support}, &biases);
        if (!copies.ok() || !log_support.ok()) {{ {fail} }}
        const size_t m = targets.dim(0), k = negatives.dim(0);
        const size_t width_in = table_in.dim(1), width = table.dim(1);
        {fail_if(wrong, "look-ups: the shapes do not fit", fail)}
        const gk::Mask mask({p}, {seed}, {counter});
        if (!gk::allocate({in_row}, {{m, width_in}}, {context}) ||
            !gk::allocate({out_rows}, {{m + k, width}}, {context}) ||
            !gk::allocate({offsets}, {{m + k}}, {context}) ||
            !gk::allocate({items}, {{m + k}}, {context}, GA_INT) ||
            !gk::allocate({weights}, {{m + k}}, {context})) {{ {fail} }}
        {launch("look_up", "gk::groups(m * width_in + (m + k) * width)", "gk::THREADS", arguments,
                fail)}
        }}
        """
