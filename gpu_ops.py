"""The Ops of `cpu_ops` on a GPU, but the optimizers' (`gpu_updates`).

Each Op here is the twin of the one of the same name without ``Gpu``, whose `perform` defines it;
`custom_opt` lifts those onto the GPU.
"""

from __future__ import annotations

import cpu_ops
from gpu_kernels import COLUMNS, PARTS, GpuKernelOp, fail_if, launch, plain
from theano_setup import tensor as tt
from theano_setup import theano

# scores that are computed together when items are ranked
SCORES_AT_ONCE = 1 << 24
# a mask of dropout, as kernels take it
MASK = ("mask.low", "mask.high", "mask.keep_below", "mask.scale")


def _activation_constants(name: str) -> dict:
    kind, a, b = cpu_ops._activation(name)
    return {
        "ACT": cpu_ops.ACTIVATIONS.index(kind),
        "ACT_A": f"{float(a)!r}f",
        "ACT_B": f"{float(b)!r}f",
    }


def _arrays_and_scalars(op: GpuKernelOp, inputs: tuple) -> list:
    """Return inputs as variables, arrays on the GPU and scalars on the host."""
    inputs = [tt.as_tensor_variable(i) if getattr(i, "ndim", 0) == 0 else i for i in inputs]
    arrays = iter(op.arrays(*[i for i in inputs if i.ndim]))
    return [next(arrays) if i.ndim else i for i in inputs]


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
    """All that a training step looks up: `cpu_ops`' Gather, three times, Dropout, Outputs, LogQ.

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
        inputs = _arrays_and_scalars(self, inputs)
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


# ---------------------------------------------------------------------------- losses


class GpuLoss(GpuKernelOp):
    """A loss and its gradient, in one pass over the score matrix and one over its columns.

    Inputs: those of `cpu_ops.Loss`; and costs (k,) and an int64 scalar, if ``collects``: the first
    output is costs then, with the loss in that place.
    """

    __props__ = ("loss", "activation", "scale", "parameter", "collects", "inplace")
    FILE, KERNELS = "losses", ("loss_rows", "loss_columns")

    def __init__(self, loss, activation, scale, parameter=0.0, collects=False, inplace=False):
        self.loss, self.activation, self.scale = loss, activation, scale
        self.parameter, self.collects, self.inplace = parameter, collects, inplace
        if inplace:
            self.destroy_map = {0: [3], 1: [0]} if collects else {1: [0]}

    in_place = cpu_ops.Loss.in_place

    def infer_shape(self, node, shapes):
        return [shapes[3] if self.collects else (), shapes[0], shapes[1]]

    def constants(self):
        activation = "linear" if self.activation.startswith("softmax") else self.activation
        return {
            "LOSS": cpu_ops.LOSSES.index(self.loss),
            "PARAMETER": f"{float(self.parameter)!r}f",
            "GROUP_REDUCTIONS": 1,
            **_activation_constants(activation),
        }

    def make_node(self, *inputs):
        inputs = _arrays_and_scalars(self, inputs)
        outputs = [self.like(inputs[0], "float32", n) for n in (int(self.collects), 2, 1)]
        return theano.Apply(self, inputs, outputs)

    def c_code(self, node, name, inputs, outputs, sub):
        scores, offsets, weights, *collected = inputs
        cost, d_scores, d_offsets = outputs
        fail, context = sub["fail"], sub["params"]
        wrong = "m > n || offsets.dim(0) != n || weights.dim(0) != n"
        message = "loss: expected scores (m, n), n >= m, offsets and weights (n,)"
        scale = f"{float(self.scale)!r}f"
        rows = ["n", f"&{d_scores}", "&offsets.get()", "&weights.get()", scale, "m", "&costs.get()"]
        columns = ["m", "n", f"&{d_scores}", "&costs.get()", scale]
        columns += [f"&{d_offsets}", f"&{cost}", "at"]
        at, into = "0", f"gk::allocate({cost}, {{}}, {context})"
        if self.collects:
            at = f"gk::scalar<npy_int64>({collected[1]})"
            into = f"gk::take({cost}, {collected[0]}, {str(self.inplace).lower()})"
        return f"""
        {{
        {plain(fail, offsets=offsets, weights=weights)}
        const size_t m = {scores}->ga.dimensions[0], n = {scores}->ga.dimensions[1];
        const npy_int64 at = {at};
        {fail_if(wrong, message, fail)}
        gk::Scratch costs(m, GA_FLOAT, {context});
        if (!costs.ok() || !gk::take({d_scores}, {scores}, {str(self.inplace).lower()}) ||
            !gk::allocate({d_offsets}, {{n}}, {context}) ||
            !({into})) {{ {fail} }}
        {fail_if(f"at < 0 || ({cost}->ga.nd && at >= npy_int64({cost}->ga.dimensions[0]))",
                 "loss: no such place in costs", fail)}
        {launch("loss_rows", "m", "gk::THREADS", rows, fail)}
        {launch("loss_columns", f"(n + {COLUMNS - 1}) / {COLUMNS} + 1", f"{COLUMNS * PARTS}",
                 columns, fail)}
        }}
        """


# ---------------------------------------------------------------------------- hidden layers


class GpuGRU(GpuKernelOp):
    """One step of a GRU layer: two products, two kernels.

    Inputs: those of `cpu_ops.GRU`; or, with what follows in a training step, these and p, seed,
    counter of `cpu_ops.Dropout` (p 0: none) and goes_on (m,). The first output is the new state
    after dropout then, and there is a fifth one: the same times goes_on.
    """

    __props__ = ("activation",)
    FILE, KERNELS = "gru", ("gates", "new_state")

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return _activation_constants(self.activation)

    def infer_shape(self, node, shapes):
        m, n = shapes[2]
        return [(m, n), (m, 2 * n), (m, n), (m, n), (m, n)][: len(node.outputs)]

    def make_node(self, *inputs):
        n_outputs = 5 if len(inputs) > 5 else 4
        inputs = _arrays_and_scalars(self, inputs)
        outputs = [self.like(inputs[0], "float32", 2) for _ in range(n_outputs)]
        return theano.Apply(self, inputs, outputs)

    def c_code(self, node, name, inputs, outputs, sub):
        new, rz, reset_h, candidate, kept = [*outputs, outputs[0]][:5]
        p, seed, counter, goes_on = [*inputs[5:], *["NULL"] * 4][:4]
        fail, context = sub["fail"], sub["params"]
        names = ("x", "bias", "h", "w_rz", "w_h")
        shared = ["m", "n", "&x.get()", "&bias.get()", "&h.get()", f"&{rz}"]
        wrong = (
            "x.dim(0) != m || x.dim(1) != 3 * n || bias.dim(0) != 3 * n || w_rz.dim(0) != n || "
            "w_rz.dim(1) != 2 * n || w_h.dim(0) != n || w_h.dim(1) != n || goes_on.dim(0) != m"
        )
        return f"""
        {{
        {plain(fail, **dict(zip(names, inputs)))}
        gk::Plain goes_on({goes_on}, &h);
        if (!goes_on.ok()) {{ {fail} }}
        const size_t m = h.dim(0), n = h.dim(1);
        {fail_if(wrong, "GRU: the shapes do not fit", fail)}
        const gk::Mask mask({p}, {seed}, {counter});
        if (!gk::allocate({new}, {{m, n}}, {context}) ||
            !gk::allocate({rz}, {{m, 2 * n}}, {context}) ||
            !gk::allocate({reset_h}, {{m, n}}, {context}) ||
            !gk::allocate({candidate}, {{m, n}}, {context}) ||
            !gk::allocate({kept}, {{m, n}}, {context})) {{ {fail} }}
        if (!gk::product(h, w_rz, false, {rz})) {{ {fail} }}
        {launch("gates", "gk::groups(m * n)", "gk::THREADS", [*shared, f"&{reset_h}"], fail)}
        gk::Plain gated({reset_h});
        if (!gk::product(gated, w_h, false, {candidate})) {{ {fail} }}
        {launch("new_state", "gk::groups(m * n)", "gk::THREADS",
                [*shared, *MASK, str(len(outputs) - 4), "&goes_on.get()", f"&{candidate}",
                 f"&{new}", f"&{kept}"], fail)}
        }}
        """


class GpuGRUGradient(GpuKernelOp):
    """Gradient of `GpuGRU` by x (m, 3n) and bias (3n,): one product, two kernels.

    Inputs: those of `cpu_ops.GRUGradient`; or these and p, seed, counter of `cpu_ops.Dropout`: the
    gradient is that by the state after dropout then.
    """

    __props__ = ("activation",)
    FILE, KERNELS = "gru", ("candidate_gradient", "gates_gradient")

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return _activation_constants(self.activation)

    infer_shape = cpu_ops.GRUGradient.infer_shape

    def make_node(self, *inputs):
        inputs = _arrays_and_scalars(self, inputs)
        outputs = [self.like(inputs[0], "float32", ndim) for ndim in (2, 1)]
        return theano.Apply(self, inputs, outputs)

    def c_code(self, node, name, inputs, outputs, sub):
        d_x, d_bias = outputs
        fail, context = sub["fail"], sub["params"]
        names = ("d_new", "h", "w_h", "rz", "candidate")
        wrong = (
            "h.dim(0) != m || h.dim(1) != n || w_h.dim(0) != n || w_h.dim(1) != n || "
            "rz.dim(0) != m || rz.dim(1) != 2 * n || candidate.dim(0) != m || "
            "candidate.dim(1) != n"
        )
        p, seed, counter = [*inputs[5:], *["NULL"] * 3][:3]
        shared = ["m", "n", "&d_new.get()", *MASK]
        first = [*shared, "&rz.get()", "&candidate.get()", "&d_candidate.get()"]
        second = [
            *[*shared, "&h.get()", "&rz.get()", "&candidate.get()"],
            *["&d_candidate.get()", "&d_reset_h.get()", f"&{d_x}", f"&{d_bias}"],
        ]
        return f"""
        {{
        {plain(fail, **dict(zip(names, inputs)))}
        const size_t m = d_new.dim(0), n = d_new.dim(1);
        {fail_if(wrong, "gradient of GRU: the shapes do not fit", fail)}
        const gk::Mask mask({p}, {seed}, {counter});
        gk::Scratch d_candidate(m, n, {context}), d_reset_h(m, n, {context});
        if (!d_candidate.ok() || !d_reset_h.ok() ||
            !gk::allocate({d_x}, {{m, 3 * n}}, {context}) ||
            !gk::allocate({d_bias}, {{3 * n}}, {context})) {{ {fail} }}
        {launch("candidate_gradient", "gk::groups(m * n)", "gk::THREADS", first, fail)}
        if (!gk::product(d_candidate, w_h, true, d_reset_h.get())) {{ {fail} }}
        {launch("gates_gradient", f"(3 * n + {COLUMNS - 1}) / {COLUMNS}", f"{COLUMNS * PARTS}",
                 second, fail)}
        }}
        """


class GpuDropout(GpuKernelOp):
    """Dropout with the masks of `cpu_ops.Dropout`."""

    __props__ = ()
    FILE, KERNELS = "gru", ("dropout",)

    infer_shape = cpu_ops.Dropout.infer_shape

    def make_node(self, x, p, seed, counter):
        (x,) = self.arrays(x)
        scalars = [tt.as_tensor_variable(s) for s in (p, seed, counter)]
        return theano.Apply(self, [x, *scalars], [self.like(x, "float32", 2)])

    def c_code(self, node, name, inputs, outputs, sub):
        x, p, seed, counter = inputs
        fail = sub["fail"]
        arguments = ["n", "&x.get()", *MASK, f"&{outputs[0]}"]
        return f"""
        {{
        {plain(fail, x=x)}
        const size_t n = x.size();
        const gk::Mask mask({p}, {seed}, {counter});
        if (!gk::allocate({outputs[0]}, {{x.dim(0), x.dim(1)}}, {sub["params"]})) {{ {fail} }}
        {launch("dropout", "gk::groups(n)", "gk::THREADS", arguments, fail)}
        }}
        """


class GpuProductOfColumns(GpuKernelOp):
    """Product x^T y[:, start:stop] (n, stop - start) of x (m, n) and of columns of y (m, w)."""

    __props__ = ()

    def make_node(self, x, y, start, stop):
        inputs = [*self.arrays(x, y), *map(tt.as_tensor_variable, (start, stop))]
        return theano.Apply(self, inputs, [self.like(inputs[0], "float32", 2)])

    def infer_shape(self, node, shapes):
        return [(shapes[0][1], node.inputs[3] - node.inputs[2])]

    def c_code(self, node, name, inputs, outputs, sub):
        x, y, start, stop = inputs
        fail = sub["fail"]
        wrong = "x.dim(0) != y.dim(0) || first < 0 || last < first || last > npy_int64(y.dim(1))"
        return f"""
        {{
        {plain(fail, x=x, y=y)}
        const npy_int64 first = gk::scalar<npy_int64>({start});
        const npy_int64 last = gk::scalar<npy_int64>({stop});
        {fail_if(wrong, "product of columns: the shapes do not fit", fail)}
        if (!gk::allocate({outputs[0]}, {{x.dim(1), size_t(last - first)}}, {sub["params"]}) ||
            !gk::product_of_columns(x, y, first, {outputs[0]})) {{ {fail} }}
        }}
        """


# ---------------------------------------------------------------------------- ranking


class GpuCountRanks(GpuKernelOp):
    """For each target, how many other items have a higher and an equal score."""

    __props__ = ("activation",)
    FILE, KERNELS = "ranking", ("count_ranks",)

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return _activation_constants(self.activation)

    infer_shape = cpu_ops.CountRanks.infer_shape

    def make_node(self, *inputs):
        inputs = self.arrays(*inputs)
        return theano.Apply(self, inputs, [self.like(inputs[0], "int64", 1) for _ in range(2)])

    def c_code(self, node, name, inputs, outputs, sub):
        better, equal = outputs
        fail, context = sub["fail"], sub["params"]
        names = ("hidden", "rows", "biases", "ids", "targets", "scores")
        wrong = (
            "rows.dim(1) != hidden.dim(1) || biases.dim(0) != k || ids.dim(0) != k || "
            "targets.dim(0) != m || scores.dim(0) != m"
        )
        arguments = [
            *["n", "&block.get()", "biases.get()->ga.data", "offset(biases)"],
            *["ids.get()->ga.data", "offset(ids)", "&targets.get()", "&scores.get()"],
            *["first == 0", f"&{better}", f"&{equal}"],
        ]
        return f"""
        {{
        {plain(fail, **dict(zip(names, inputs)))}
        const size_t m = hidden.dim(0), k = rows.dim(0);
        {fail_if(wrong, "ranks: the shapes do not fit", fail)}
        if (!gk::allocate({better}, {{m}}, {context}, GA_LONG) ||
            !gk::allocate({equal}, {{m}}, {context}, GA_LONG)) {{ {fail} }}
        const size_t at_once = std::max<size_t>(1, {SCORES_AT_ONCE} / std::max<size_t>(1, m));
        for (size_t first = 0; first == 0 || first < k; first += at_once) {{
            const size_t n = std::min(at_once, k - first);
            gk::Scratch block(m, n, {context});
            if (!block.ok() || !gk::product(hidden, rows, true, block.get(), first, n)) {{ {fail} }}
            auto offset = [&](const gk::Plain& of) {{ return of.get()->ga.offset + 4 * first; }};
            {launch("count_ranks", "m", "gk::THREADS", arguments, fail)}
        }}
        }}
        """

    def c_headers(self):
        return ["gpu_arrays.h", "<algorithm>"]
