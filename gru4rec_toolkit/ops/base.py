"""The base of all Ops: how Theano's C code calls their C++, and the codes they share."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gru4rec_toolkit import compile_ahead, theano_setup
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


class HostCode:
    """The C code of an Op: one call of a C++ function with inputs, outputs and constants.

    The function stands in a file of the Op's folder and is compiled into Theano's module. It checks
    the inputs, allocates the outputs and calls the kernels. It returns false once it has set a
    Python error.

    Attributes
    ----------
    FOLDER : str
        In ``ops/``.
    FILE : str
        ``cpu_apply.h`` or ``gpu_apply.h``.
    FUNCTION : str
        Its name, in the namespace ``gk``.
    N_INPUTS : int
        How many inputs it takes, for Ops with optional ones at the end: those that a node lacks are
        nullptr.
    COMPUTES : bool
        Whether its code computes something beside the kernels that it calls.
    """

    FOLDER = ""
    FILE = ""
    FUNCTION = ""
    N_INPUTS = 0
    COMPUTES = True

    def c_surroundings(self, sub: dict[str, str]) -> tuple:
        """Return the arguments before the inputs, for `cpp`."""
        return ()

    def c_constants(self) -> tuple:
        """Return the arguments after the outputs, for `cpp`."""
        return ()

    def c_arguments(self, node, inputs: list[str], outputs: list[str]) -> list:
        """Return inputs, outputs and constants, for `cpp`."""
        lacking = [None] * (self.N_INPUTS - len(inputs))
        return [*inputs, *lacking, *outputs, *self.c_constants()]

    def c_code(self, node, name, inputs, outputs, sub):
        arguments = [*self.c_surroundings(sub), *self.c_arguments(node, inputs, outputs)]
        call = f"gk::{self.FUNCTION}({', '.join(map(cpp, arguments))})"
        return f"if (!{call}) {{ {sub['fail']} }}"

    def c_headers(self):
        return [f"{self.FOLDER}/{self.FILE}"]

    def c_header_dirs(self):
        return [str(library.SOURCES), str(library.SHARED)]

    def c_code_cache_version(self):
        return (1,)

    def code_digest(self, node: theano.Apply, *others: str) -> int:
        """Return a digest of a node's C code, of the function's file and of other texts.

        The key of a compiled module holds it: a module that was compiled from other code must not
        run.
        """
        inputs = [f"in{i}" for i in range(len(node.inputs))]
        outputs = [f"out{i}" for i in range(len(node.outputs))]
        code = self.c_code(node, "node", inputs, outputs, {"fail": "fail", "params": "params"})
        texts = [code, library.text_with_headers(library.SOURCES / self.FOLDER / self.FILE)]
        return int(hashlib.sha256("\0".join([*texts, *others]).encode()).hexdigest()[:15], 16)


class KernelOp(HostCode, theano.Op):
    """An Op whose C++ function calls the library."""

    FILE = "cpu_apply.h"
    COMPUTES = False

    def c_definitions(self) -> dict[str, object] | None:
        """Return the macros that its folder's part of the library is compiled with.

        None: it calls kernels of the core alone.
        """
        return None

    def _libraries(self) -> list[library.Part]:
        """Return what its modules are linked with: its part, if it has one, and the core."""
        definitions = self.c_definitions()
        parts = [] if definitions is None else [library.part(self.FOLDER, definitions)]
        return [*parts, library.CORE]

    def start_compilation(self) -> list[Path]:
        """Begin to compile what is missing of the library; return the paths of it."""
        return [library.target(part) for part in self._libraries() if library.start(part)]

    def prepare_node(self, node, storage_map, compute_map, impl):
        """Wait for the library: the module is linked with it, and its code runs in its threads."""
        if impl == "c":
            for part in self._libraries():
                library.load(part)
            self.restore_libraries()

    def restore_libraries(self) -> None:
        """Compile again what is missing of the library where the cache was cleared."""
        for part in self._libraries():
            library.path(part)

    def c_libraries(self):
        return [library.name(part) for part in self._libraries()]

    def c_lib_dirs(self):
        return [str(library.target().parent)]

    def c_compile_args(self):
        return [compile_ahead.STANDARD, f"-Wl,-rpath,{library.target().parent}"]

    def c_code_cache_version_apply(self, node):
        return (1, self.code_digest(node, library.sources_digest(), *self.c_libraries()))


# ---------------------------------------------------------------------------- constants in C++


def cpp(value) -> str:
    """Return a constant as C++ writes it.

    Parameters
    ----------
    value : None, bool, int, float, str, list or tuple
        None is a null pointer. Text is a name and stays as it is. A list or tuple is a list in
        braces.
    """
    if value is None:
        return "nullptr"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{float(value)!r}f"
    if isinstance(value, (list, tuple)):
        return f"{{{', '.join(map(cpp, value))}}}"
    return str(value)


def cpp_enum(name: str) -> str:
    """Return the name that kernels.h has for a loss, an activation or an optimizer."""
    return "GK_" + name.upper().replace("-", "_")


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


def cpp_activation(name: str) -> tuple:
    """Return an activation's ``gk_act``, for `cpp`."""
    kind, a, b = kernel_activation(name)
    return cpp_enum(kind), float(a), float(b)


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
