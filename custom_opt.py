"""Graph rewrites that put this project's Ops in the place of Theano's and run them in place."""

from __future__ import annotations

import kernel_library
from cpu_ops import Gather, Loss, Product, Update
from theano_setup import tensor as tt
from theano_setup import theano


def _is_float32_matrix(variable) -> bool:
    return variable.type.dtype == "float32" and variable.type.ndim == 2


@theano.gof.local_optimizer([tt.Dot])
def local_product(node):
    """Dot of two float32 matrices -> Product."""
    if isinstance(node.op, tt.Dot) and all(map(_is_float32_matrix, node.inputs)):
        return [tt.patternbroadcast(Product()(*node.inputs), node.outputs[0].broadcastable)]
    return False


@theano.gof.local_optimizer([tt.AdvancedSubtensor1])
def local_gather(node):
    """table[index] -> Gather, for a float32 table and an int32 index."""
    if not isinstance(node.op, tt.AdvancedSubtensor1):
        return False
    table, index = node.inputs
    if _is_float32_matrix(table) and index.type.dtype == "int32":
        return [tt.patternbroadcast(Gather()(table, index), node.outputs[0].broadcastable)]
    return False


@theano.gof.local_optimizer([Update, Loss], inplace=True)
def local_in_place(node):
    """Let Ops write into inputs that nobody reads afterwards."""
    if not isinstance(node.op, (Update, Loss)) or node.op.inplace:
        return False
    return node.op.in_place()(*node.inputs, return_list=True)


def register() -> None:
    """Add the rewrites to Theano's; further calls do nothing."""
    optdb = theano.compile.optdb
    if not kernel_library.usable() or "gru4rec_product" in optdb.__db__:
        return
    # before Theano's own BLAS rewrites, which are at 1.7
    optdb.register("gru4rec_product", theano.gof.opt.in2out(local_product), 1.65, "fast_run")
    optdb.register("gru4rec_gather", theano.gof.opt.in2out(local_gather), 1.66, "fast_run")
    in_place = theano.gof.opt.TopoOptimizer(
        local_in_place, failure_callback=theano.gof.opt.TopoOptimizer.warn_inplace
    )
    optdb.register("gru4rec_in_place", in_place, 75, "fast_run", "inplace")
