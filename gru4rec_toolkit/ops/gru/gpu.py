"""A step of a GRU layer, its gradient, and dropout on a GPU."""

from __future__ import annotations

from gru4rec_toolkit.ops.gpu_base import (
    COLUMNS,
    MASK,
    PARTS,
    GpuKernelOp,
    activation_constants,
    arrays_and_scalars,
    fail_if,
    launch,
    plain,
)
from gru4rec_toolkit.ops.gru.op import Dropout, GRUGradient
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# ---------------------------------------------------------------------------- hidden layers


class GpuGRU(GpuKernelOp):
    """One step of a GRU layer: two products, two kernels.

    Inputs: those of `GRU`; or, with what follows in a training step, these and p, seed,
    counter of `Dropout` (p 0: none) and goes_on (m,). The first output is the new state
    after dropout then, and there is a fifth one: the same times goes_on.
    """

    __props__ = ("activation",)
    FILE, KERNELS = "gru", ("gates", "new_state")

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return activation_constants(self.activation)

    def infer_shape(self, node, shapes):
        m, n = shapes[2]
        return [(m, n), (m, 2 * n), (m, n), (m, n), (m, n)][: len(node.outputs)]

    def make_node(self, *inputs):
        n_outputs = 5 if len(inputs) > 5 else 4
        inputs = arrays_and_scalars(self, inputs)
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

    Inputs: those of `GRUGradient`; or these and p, seed, counter of `Dropout`: the
    gradient is that by the state after dropout then.
    """

    __props__ = ("activation",)
    FILE, KERNELS = "gru", ("candidate_gradient", "gates_gradient")

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return activation_constants(self.activation)

    infer_shape = GRUGradient.infer_shape

    def make_node(self, *inputs):
        inputs = arrays_and_scalars(self, inputs)
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
    """Dropout with the masks of `Dropout`."""

    __props__ = ()
    FILE, KERNELS = "gru", ("dropout",)

    infer_shape = Dropout.infer_shape

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
