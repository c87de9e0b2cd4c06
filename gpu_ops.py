"""The Ops of `cpu_ops` on a GPU, with kernels in CLUDA (``kernels/gpu``): CUDA and OpenCL alike.

Each Op here is the twin of the one of the same name without ``Gpu``, whose `perform` defines it;
`custom_opt` lifts those onto the GPU. The host code only launches: it neither waits for the GPU nor
moves anything between it and the host.
"""

from __future__ import annotations

import functools
import re

import numpy as np
from pygpu import gpuarray

import cpu_ops
import kernel_library
from theano_setup import tensor as tt
from theano_setup import theano

# Theano's GPU modules can only be imported after Theano itself is configured
from theano.gpuarray.basic_ops import (  # isort: skip
    GpuKernelBase,
    Kernel,
    as_gpuarray_variable,
    infer_context_name,
)
from theano.gpuarray.type import GpuArrayType  # isort: skip

SOURCES = kernel_library.SOURCES / "gpu"
THREADS = 256  # of a group; the same in gpu_arrays.h
COLUMNS, PARTS = 32, 8  # of a group that adds up columns, or compares occurrences
# scores that are computed together when items are ranked
SCORES_AT_ONCE = 1 << 24

_KERNEL = re.compile(r"^KERNEL void (\w+)\((.*?)\) \{.*?^\}\n", re.MULTILINE | re.DOTALL)
_SCALARS = {
    "ga_size": gpuarray.SIZE,
    "ga_int": np.int32,
    "ga_uint": np.uint32,
    "ga_ulong": np.uint64,
    "ga_float": np.float32,
}


@functools.lru_cache(maxsize=None)
def sources_digest() -> int:
    """Return a digest of all sources in ``kernels/gpu``, and of the host code here."""
    return int(kernel_library.digest_of(SOURCES, __file__)[:15], 16)


def kernel_source(file: str, name: str, **constants) -> tuple[str, list]:
    """Return the text of one kernel of a file, ready for the compiler, and its arguments' types.

    Parameters
    ----------
    file, name : str
        ``name`` in ``kernels/gpu/file.cl``.
    **constants
        Macros that the text needs.
    """
    constants = {"THREADS": THREADS, "COLUMNS": COLUMNS, "PARTS": PARTS, **constants}
    defines = "".join(f"#define {key} {value}\n" for key, value in constants.items())
    text = (SOURCES / f"{file}.cl").read_text()
    found = {match.group(1): match for match in _KERNEL.finditer(text)}
    for other, match in found.items():
        if other != name:
            text = text.replace(match.group(0), "")
    types = []
    # "ARRAY(ga_float, x)" is a buffer and the offset in it
    arguments = found[name].group(2)
    for macro in ("TABLES", "RATES"):
        definition = re.search(rf"#define {macro} \\\n((?:.*\\\n)*.*\n)", text)
        if definition:
            arguments = arguments.replace(macro, definition.group(1))
    for array, scalar in re.findall(r"ARRAY\((\w+), \w+\)|(ga_\w+) \w+", arguments):
        types += [gpuarray.GpuArray, gpuarray.SIZE] if array else [_SCALARS[scalar]]
    common = (SOURCES / "common.cl").read_text()
    return f'#include "cluda.h"\n{defines}{common}{text}', types


def _activation_constants(name: str) -> dict:
    kind, a, b = cpu_ops._activation(name)
    return {
        "ACT": cpu_ops.ACTIVATIONS.index(kind),
        "ACT_A": f"{float(a)!r}f",
        "ACT_B": f"{float(b)!r}f",
    }


class GpuKernelOp(GpuKernelBase, theano.Op):
    """An Op whose host code launches kernels of one file.

    Subclasses say in `FILE` and `KERNELS` which kernels these are, in `constants` what macros they
    need; `arrays` turns inputs into variables on the GPU.
    """

    FILE = ""
    KERNELS: tuple[str, ...] = ()

    def constants(self) -> dict:
        """Return the macros that the kernels need."""
        return {}

    def get_params(self, node):
        return next(
            v.type.context for v in node.inputs if isinstance(v.type, GpuArrayType)
        )

    @staticmethod
    def arrays(*variables) -> list:
        """Return the variables as variables on the GPU."""
        name = infer_context_name(*variables)
        return [as_gpuarray_variable(v, name) for v in variables]

    @staticmethod
    def like(variable, dtype: str, ndim: int):
        """Return a new output on the GPU of ``variable``."""
        name = variable.type.context_name
        return GpuArrayType(dtype, (False,) * ndim, context_name=name)()

    def gpu_kernels(self, node, name):
        kernels = []
        for kernel in self.KERNELS:
            code, types = kernel_source(self.FILE, kernel, **self.constants())
            code = code.replace("\\", "\\\\")  # Theano puts it into a C string as it is
            kernels.append(Kernel(code, types, kernel, flags={}, objvar=f"k_{kernel}"))
        return kernels

    def c_headers(self):
        return ["gpu_arrays.h"]

    def c_header_dirs(self):
        return [np.get_include(), str(SOURCES)]

    def c_compile_args(self):
        return ["-std=c++17"]

    def c_code_cache_version(self):
        return (sources_digest(),)


def _launch(kernel: str, n_groups: str, threads: str, arguments: list[str], fail: str) -> str:
    """C code that launches a kernel; arguments that begin with ``&`` are arrays."""
    passed = ", ".join(f"GK_ARRAY({a[1:]})" if a[0] == "&" else a for a in arguments)
    return f"""
        if (!gk::run({n_groups}, {threads}, &k_{kernel}, [&](int axes, size_t* gs, size_t* ls) {{
                return {kernel}_call(axes, gs, ls, 0, {passed}); }})) {{ {fail} }}
    """


def _plain(fail: str, **arrays: str) -> str:
    """C code that makes inputs contiguous, under new names."""
    declared = ", ".join(f"{name}({array})" for name, array in arrays.items())
    all_ok = " && ".join(f"{name}.ok()" for name in arrays)
    return f"gk::Plain {declared}; if (!({all_ok})) {{ {fail} }}"


def _fail(condition: str, message: str, fail: str) -> str:
    return f'if ({condition}) {{ PyErr_SetString(PyExc_ValueError, "{message}"); {fail} }}'


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
        {_plain(fail, table=inputs[0], index=inputs[1])}
        const size_t n = index.dim(0), width = table.dim(1);
        if (!gk::allocate({outputs[0]}, {{n, width}}, {sub["params"]})) {{ {fail} }}
        {_launch("gather", "gk::groups(n * width)", "gk::THREADS", arguments, fail)}
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
        {_plain(fail, targets=inputs[0], negatives=inputs[1])}
        gk::Plain copies({copies}, &negatives);
        if (!copies.ok()) {{ {fail} }}
        const size_t m = targets.dim(0), k = negatives.dim(0);
        if (!gk::allocate({items}, {{m + k}}, {sub["params"]}, GA_INT) ||
            !gk::allocate({weights}, {{m + k}}, {sub["params"]})) {{ {fail} }}
        {_launch("outputs", "gk::groups(m + k)", "gk::THREADS", arguments, fail)}
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
        {_plain(fail, biases=biases, log_support=log_support, items=items)}
        const size_t n = items.dim(0);
        if (!gk::allocate({outputs[0]}, {{n}}, {sub["params"]})) {{ {fail} }}
        {_launch("log_q", "gk::groups(n)", "gk::THREADS", arguments, fail)}
        }}
        """


# ---------------------------------------------------------------------------- optimizers


class GpuUpdate(GpuKernelOp):
    """One optimizer step on a whole parameter, or on the rows of one or two look-ups.

    The inputs are those of `cpu_ops.Update`; the rows as they were looked up, which only an L2
    penalty needs, are read from the parameter.
    """

    __props__ = ("method", "momentum", "l2", "weighted", "inplace")
    FILE = "updates"

    def __init__(self, method, momentum, l2, weighted=(), inplace=False):
        self.method, self.momentum, self.l2 = method, momentum, l2
        self.weighted, self.inplace = weighted, inplace
        self.n_tables = cpu_ops.Update(method, momentum, l2).n_tables
        if len(weighted) > 2:
            raise ValueError("a GPU's update of rows takes at most two look-ups")
        if inplace:
            self.destroy_map = {i: [1 + i] for i in range(self.n_tables)}
        self.KERNELS = ("link_occurrences", "update_rows") if weighted else ("update_dense",)
        if method == "adam":
            self.KERNELS += ("tick_rows",) if weighted else ("tick_dense",)

    in_place = cpu_ops.Update.in_place
    _lookups = cpu_ops.Update._lookups
    infer_shape = cpu_ops.Update.infer_shape

    def constants(self):
        a, b = (*self.weighted, False, False)[:2]
        return {
            "METHOD": cpu_ops.METHODS.index(self.method),
            "MOMENTUM": int(self.momentum),
            "WEIGHTED_A": int(a),
            "WEIGHTED_B": int(b),
        }

    def make_node(self, constants, *inputs):
        inputs = [tt.as_tensor_variable(constants), *self.arrays(*inputs)]
        return theano.Apply(self, inputs, [i.type() for i in inputs[1 : 1 + self.n_tables]])

    def c_code(self, node, name, inputs, outputs, sub):
        fail = sub["fail"]
        tables = inputs[1 : 1 + self.n_tables]
        take = " || ".join(
            f"!gk::take({out}, {table}, {str(self.inplace).lower()})"
            for table, out in zip(tables, outputs)
        )
        n_states = len(outputs) - 1 - self.momentum
        dummy = outputs[0]  # in the place of tables that the method does not have
        states = [*outputs[1 : 1 + n_states], *[dummy] * 3][:3]
        velocity = outputs[-1] if self.momentum else dummy
        time = states[2] if self.method == "adam" else dummy
        passed = [f"&{v}" for v in (dummy, states[0], states[1], time, velocity)]
        width = f"{dummy}->ga.dimensions[1]" if node.outputs[0].ndim > 1 else "1"
        step = self._c_rows if self.weighted else self._c_dense
        return f"""
        {{
        if ({take}) {{ {fail} }}
        auto c = [&](int i) {{ return *(float*)PyArray_GETPTR1({inputs[0]}, i); }};
        const size_t n_rows = {dummy}->ga.dimensions[0], width = {width};
        {step(inputs, passed, f"&{time}", sub["params"], fail)}
        }}
        """

    RATES = tuple(f"c({i})" for i in range(6))

    def _c_dense(self, inputs, tables, time, context, fail):
        arguments = ["n", "width", *tables, "&gradient.get()", *self.RATES]
        code = f"""
        {_plain(fail, gradient=inputs[-1])}
        const size_t n = gradient.size();
        {_fail("n != n_rows * width", "update: gradient's size", fail)}
        {_launch("update_dense", "gk::groups(n)", "gk::THREADS", arguments, fail)}
        """
        if self.method == "adam":
            arguments = ["n_rows", time]
            code += _launch("tick_dense", "gk::groups(n_rows)", "gk::THREADS", arguments, fail)
        return code

    def _c_rows(self, inputs, tables, time, context, fail):
        lookups = self._lookups(inputs)
        # with one look-up only, the other is empty
        (ids_a, gradient_a, weights_a, _), (ids_b, gradient_b, weights_b, _) = (lookups * 2)[:2]
        n_b = "ids_b.dim(0)" if len(lookups) == 2 else "0"
        a = ["n_a", "&ids_a.get()", "&gradient_a.get()", "&weights_a.get()"]
        b = ["n_b", "&ids_b.get()", "&gradient_b.get()", "&weights_b.get()"]
        links = ["&owner.get()", "&next.get()"]
        wrong = (
            "gradient_a.dim(0) != n_a || gradient_a.dim(1) != width || "
            "(n_b && gradient_b.dim(0) != n_b) || gradient_b.dim(1) != width"
        )
        arguments = ["n_rows", "width", *tables, *a, *b, *links, *self.RATES]
        code = f"""
        {_plain(fail, ids_a=ids_a, gradient_a=gradient_a, ids_b=ids_b, gradient_b=gradient_b)}
        gk::Plain weights_a({weights_a or "NULL"}, &ids_a);
        gk::Plain weights_b({weights_b or "NULL"}, &ids_b);
        const size_t n_a = ids_a.dim(0), n_b = {n_b};
        {_fail(wrong, "update: gradient's shape", fail)}
        gk::Scratch owner(n_a + n_b, GA_INT, {context}), next(n_a + n_b, GA_INT, {context});
        if (!weights_a.ok() || !weights_b.ok() || !owner.ok() || !next.ok()) {{ {fail} }}
        {_launch("link_occurrences", f"gk::groups(n_a + n_b, {COLUMNS})", f"{COLUMNS * PARTS}",
                 [*a[:2], *b[:2], *links], fail)}
        {_launch("update_rows", "gk::groups((n_a + n_b) * width)", "gk::THREADS", arguments, fail)}
        """
        if self.method == "adam":
            arguments = ["n_rows", time, *a[:2], *b[:2], links[0]]
            code += _launch("tick_rows", "gk::groups(n_a + n_b)", "gk::THREADS", arguments, fail)
        return code


# ---------------------------------------------------------------------------- losses


class GpuLoss(GpuKernelOp):
    """A loss and its gradient, in one pass over the score matrix and one over its columns."""

    __props__ = ("loss", "activation", "scale", "parameter", "inplace")
    FILE, KERNELS = "losses", ("loss_rows", "loss_columns")

    def __init__(self, loss, activation, scale, parameter=0.0, inplace=False):
        self.loss, self.activation, self.scale = loss, activation, scale
        self.parameter, self.inplace = parameter, inplace
        if inplace:
            self.destroy_map = {1: [0]}

    in_place = cpu_ops.Loss.in_place
    infer_shape = cpu_ops.Loss.infer_shape

    def constants(self):
        activation = "linear" if self.activation.startswith("softmax") else self.activation
        return {
            "LOSS": cpu_ops.LOSSES.index(self.loss),
            "PARAMETER": f"{float(self.parameter)!r}f",
            "GROUP_REDUCTIONS": 1,
            **_activation_constants(activation),
        }

    def make_node(self, scores, offsets, weights):
        inputs = self.arrays(scores, offsets, weights)
        outputs = [self.like(inputs[0], "float32", ndim) for ndim in (0, 2, 1)]
        return theano.Apply(self, inputs, outputs)

    def c_code(self, node, name, inputs, outputs, sub):
        scores, offsets, weights = inputs
        cost, d_scores, d_offsets = outputs
        fail, context = sub["fail"], sub["params"]
        wrong = "m > n || offsets.dim(0) != n || weights.dim(0) != n"
        message = "loss: expected scores (m, n), n >= m, offsets and weights (n,)"
        scale = f"{float(self.scale)!r}f"
        rows = ["n", f"&{d_scores}", "&offsets.get()", "&weights.get()", scale, "m", "&costs.get()"]
        columns = ["m", "n", f"&{d_scores}", "&costs.get()", scale, f"&{d_offsets}", f"&{cost}"]
        return f"""
        {{
        {_plain(fail, offsets=offsets, weights=weights)}
        const size_t m = {scores}->ga.dimensions[0], n = {scores}->ga.dimensions[1];
        {_fail(wrong, message, fail)}
        gk::Scratch costs(m, GA_FLOAT, {context});
        if (!costs.ok() || !gk::take({d_scores}, {scores}, {str(self.inplace).lower()}) ||
            !gk::allocate({d_offsets}, {{n}}, {context}) ||
            !gk::allocate({cost}, {{}}, {context})) {{ {fail} }}
        {_launch("loss_rows", "m", "gk::THREADS", rows, fail)}
        {_launch("loss_columns", f"(n + {COLUMNS - 1}) / {COLUMNS} + 1", f"{COLUMNS * PARTS}",
                 columns, fail)}
        }}
        """


# ---------------------------------------------------------------------------- hidden layers


class GpuGRU(GpuKernelOp):
    """One step of a GRU layer: two products, two kernels."""

    __props__ = ("activation",)
    FILE, KERNELS = "gru", ("gates", "new_state")

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return _activation_constants(self.activation)

    infer_shape = cpu_ops.GRU.infer_shape

    def make_node(self, *inputs):
        inputs = self.arrays(*inputs)
        return theano.Apply(self, inputs, [self.like(inputs[0], "float32", 2) for _ in range(4)])

    def c_code(self, node, name, inputs, outputs, sub):
        new, rz, reset_h, candidate = outputs
        fail, context = sub["fail"], sub["params"]
        names = ("x", "bias", "h", "w_rz", "w_h")
        shared = ["m", "n", "&x.get()", "&bias.get()", "&h.get()", f"&{rz}"]
        wrong = (
            "x.dim(0) != m || x.dim(1) != 3 * n || bias.dim(0) != 3 * n || w_rz.dim(0) != n || "
            "w_rz.dim(1) != 2 * n || w_h.dim(0) != n || w_h.dim(1) != n"
        )
        return f"""
        {{
        {_plain(fail, **dict(zip(names, inputs)))}
        const size_t m = h.dim(0), n = h.dim(1);
        {_fail(wrong, "GRU: the shapes do not fit", fail)}
        if (!gk::allocate({new}, {{m, n}}, {context}) ||
            !gk::allocate({rz}, {{m, 2 * n}}, {context}) ||
            !gk::allocate({reset_h}, {{m, n}}, {context}) ||
            !gk::allocate({candidate}, {{m, n}}, {context})) {{ {fail} }}
        if (!gk::product(h, w_rz, false, {rz})) {{ {fail} }}
        {_launch("gates", "gk::groups(m * n)", "gk::THREADS", [*shared, f"&{reset_h}"], fail)}
        gk::Plain gated({reset_h});
        if (!gk::product(gated, w_h, false, {candidate})) {{ {fail} }}
        {_launch("new_state", "gk::groups(m * n)", "gk::THREADS",
                 [*shared, f"&{candidate}", f"&{new}"], fail)}
        }}
        """


class GpuGRUGradient(GpuKernelOp):
    """Gradient of `GpuGRU` by x (m, 3n) and bias (3n,): one product, two kernels."""

    __props__ = ("activation",)
    FILE, KERNELS = "gru", ("candidate_gradient", "gates_gradient")

    def __init__(self, activation: str):
        self.activation = activation

    def constants(self):
        return _activation_constants(self.activation)

    infer_shape = cpu_ops.GRUGradient.infer_shape

    def make_node(self, *inputs):
        inputs = self.arrays(*inputs)
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
        first = ["m", "n", "&d_new.get()", "&rz.get()", "&candidate.get()", "&d_candidate.get()"]
        second = [
            *["m", "n", "&d_new.get()", "&h.get()", "&rz.get()", "&candidate.get()"],
            *["&d_candidate.get()", "&d_reset_h.get()", f"&{d_x}", f"&{d_bias}"],
        ]
        return f"""
        {{
        {_plain(fail, **dict(zip(names, inputs)))}
        const size_t m = d_new.dim(0), n = d_new.dim(1);
        {_fail(wrong, "gradient of GRU: the shapes do not fit", fail)}
        gk::Scratch d_candidate(m, n, {context}), d_reset_h(m, n, {context});
        if (!d_candidate.ok() || !d_reset_h.ok() ||
            !gk::allocate({d_x}, {{m, 3 * n}}, {context}) ||
            !gk::allocate({d_bias}, {{3 * n}}, {context})) {{ {fail} }}
        {_launch("candidate_gradient", "gk::groups(m * n)", "gk::THREADS", first, fail)}
        if (!gk::product(d_candidate, w_h, true, d_reset_h.get())) {{ {fail} }}
        {_launch("gates_gradient", f"(3 * n + {COLUMNS - 1}) / {COLUMNS}", f"{COLUMNS * PARTS}",
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
        arguments = ["n", "&x.get()", "low", "high", "(npy_uint32)((1. - p) * (1 << 24))"]
        arguments += ["1.f / (1.f - p)", f"&{outputs[0]}"]
        return f"""
        {{
        {_plain(fail, x=x)}
        const size_t n = x.size();
        const float p = gk::scalar<npy_float32>({p});
        const uint64_t key = gk::scalar<npy_int64>({seed}) +
                             gk::scalar<npy_int64>({counter}) * UINT64_C(0x9e3779b97f4a7c15);
        const uint32_t low = gk::scramble(key), high = gk::scramble(low ^ (key >> 32));
        if (!gk::allocate({outputs[0]}, {{x.dim(0), x.dim(1)}}, {sub["params"]})) {{ {fail} }}
        {_launch("dropout", "gk::groups(n)", "gk::THREADS", arguments, fail)}
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
        {_plain(fail, **dict(zip(names, inputs)))}
        const size_t m = hidden.dim(0), k = rows.dim(0);
        {_fail(wrong, "ranks: the shapes do not fit", fail)}
        if (!gk::allocate({better}, {{m}}, {context}, GA_LONG) ||
            !gk::allocate({equal}, {{m}}, {context}, GA_LONG)) {{ {fail} }}
        const size_t at_once = std::max<size_t>(1, {SCORES_AT_ONCE} / std::max<size_t>(1, m));
        for (size_t first = 0; first == 0 || first < k; first += at_once) {{
            const size_t n = std::min(at_once, k - first);
            gk::Scratch block(m, n, {context});
            if (!block.ok() || !gk::product(hidden, rows, true, block.get(), first, n)) {{ {fail} }}
            auto offset = [&](const gk::Plain& of) {{ return of.get()->ga.offset + 4 * first; }};
            {_launch("count_ranks", "m", "gk::THREADS", arguments, fail)}
        }}
        }}
        """

    def c_headers(self):
        return ["gpu_arrays.h", "<algorithm>"]
