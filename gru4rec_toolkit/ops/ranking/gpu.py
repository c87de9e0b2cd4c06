"""Ranks of targets among all items on a GPU."""

from __future__ import annotations

from gru4rec_toolkit.ops.gpu_base import (
    GpuKernelOp,
    activation_constants,
    fail_if,
    launch,
    plain,
)
from gru4rec_toolkit.ops.ranking.op import CountRanks
from gru4rec_toolkit.theano_setup import theano

# scores that are computed together when items are ranked
SCORES_AT_ONCE = 1 << 24


# ---------------------------------------------------------------------------- ranking


class GpuCountRanks(GpuKernelOp):
    """For each target, how many other items have a higher and an equal score."""

    __props__ = ("activation",)
    FILE, KERNELS = "ranking", ("count_ranks",)

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return activation_constants(self.activation)

    infer_shape = CountRanks.infer_shape

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
