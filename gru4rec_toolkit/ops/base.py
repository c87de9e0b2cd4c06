"""The base of all Ops: how their C code reaches the library, and the codes they share."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable

import numpy as np

from gru4rec_toolkit import theano_setup
from gru4rec_toolkit.ops import library
from gru4rec_toolkit.parameters import split_activation
from gru4rec_toolkit.theano_setup import theano

ACTIVATIONS = ("linear", "relu", "tanh", "leaky", "selu")


def usable() -> bool:
    """Whether graphs can be built of these Ops: float32, on the CPU with a BLAS or on a GPU."""
    return theano_setup.configure().own_ops


def in_one_kernel(op: Callable) -> Callable:
    """Let an Op take the place of a symbolic expression wherever its kernels run.

    The expression stays the definition: it is built where no kernel runs, and tests compare the
    two. So whoever writes an expression need not ask for the device.

    Parameters
    ----------
    op : callable
        Takes the arguments of the expression; returns the Op's result, or None where it has no
        kernel for them, such as for an activation from outside.

    Returns
    -------
    callable
        Decorates the function of the expression, which stays reachable as its ``__wrapped__``.
    """

    def decorate(expression: Callable) -> Callable:
        @functools.wraps(expression)
        def build(*args, **kwargs):
            result = op(*args, **kwargs) if usable() else None
            return expression(*args, **kwargs) if result is None else result

        return build

    return decorate


class KernelOp(theano.Op):
    """An Op whose C code calls the library.

    The C code of each stands in braces of its own: Theano's ``fail`` is a jump, and C++ forbids
    jumps past the start of a variable's life.
    """

    def c_headers(self):
        return ["arrays.h"]

    def c_header_dirs(self):
        return [str(library.SHARED)]

    def c_libraries(self):
        library.load()  # with its threads, before the code of the Op can run
        return [library.path().name[len("lib") : -len(".so")]]

    def c_lib_dirs(self):
        return [str(library.path().parent)]

    def c_compile_args(self):
        return ["-std=c++17", f"-Wl,-rpath,{library.path().parent}"]

    def c_code_cache_version(self):
        return (1,)

    def c_code_cache_version_apply(self, node):
        # a module that was compiled from other code, or against other headers, must not run
        return (1, code_digest(self, node, library.sources_digest()))


def code_digest(op: theano.Op, node: theano.Apply, *others: str) -> int:
    """Return a digest of the C code that an Op writes for a node, and of other texts."""
    inputs = [f"in{i}" for i in range(len(node.inputs))]
    outputs = [f"out{i}" for i in range(len(node.outputs))]
    code = op.c_code(node, "node", inputs, outputs, {"fail": "fail", "params": "params"})
    return int(hashlib.sha256("\0".join([code, *others]).encode()).hexdigest()[:15], 16)


def fail_if(condition: str, error: str, message: str, fail: str) -> str:
    return f'if ({condition}) {{ PyErr_SetString(PyExc_{error}, "{message}"); {fail} }}'


# ---------------------------------------------------------------------------- activations, losses


def has_activation(name: str) -> bool:
    """Tell whether the kernels know an activation."""
    return split_activation(name)[0] in (*ACTIVATIONS, "elu")


def kernel_activation(name: str) -> tuple[str, float, float]:
    """Return kind and constants for the kernels; elu-b is selu-1-b."""
    kind, constants = split_activation(name)
    if kind == "elu":
        return "selu", 1.0, constants[0]
    return (kind, *constants, *[0.0] * (2 - len(constants)))


def c_activation(name: str) -> str:
    kind, a, b = kernel_activation(name)
    return f"gk_act{{{ACTIVATIONS.index(kind)}, {float(a)!r}f, {float(b)!r}f}}"


def activate(name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the activation of x and its derivative."""
    kind, a, b = kernel_activation(name)
    if kind == "relu":
        return np.maximum(x, 0), (x > 0).astype(float)
    if kind == "tanh":
        return np.tanh(x), 1 - np.tanh(x) ** 2
    if kind == "leaky":
        return np.where(x >= 0, x, a * x), np.where(x >= 0, 1, a)
    if kind == "selu":
        e = b * np.exp(np.minimum(x, 0))
        return a * np.where(x >= 0, x, e - b), a * np.where(x >= 0, 1, e)
    return x, np.ones_like(x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)
