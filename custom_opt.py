"""Graph rewrites that put this project's Ops in the place of Theano's and run them in place.

`rewrites` is the table of all of them in the order in which they run. On a GPU the graph is first
lifted there: every Op becomes its twin (`gpu_ops.TWINS`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gru4rec_toolkit.ops import base, library
from gru4rec_toolkit.ops.losses.op import Loss
from gru4rec_toolkit.ops.products.op import Product
from gru4rec_toolkit.ops.rows.op import Gather
from gru4rec_toolkit.ops.updates.op import Update
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

in2out = theano.gof.opt.in2out


class Rewrite(NamedTuple):
    """One rewrite of Theano's optimizer database.

    Attributes
    ----------
    name : str
    position : float
        Where it runs among Theano's own, in ascending order.
    optimizer : theano.gof.Optimizer
    tags : tuple of str
        Modes of Theano that include it.
    """

    name: str
    position: float
    optimizer: theano.gof.Optimizer
    tags: tuple[str, ...] = ("fast_run",)


# ---------------------------------------------------------------------------- single nodes


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


def _in_place(ops: list[type]) -> theano.gof.Optimizer:
    """Return a rewrite that lets Ops write into inputs that nobody reads afterwards."""
    kinds: Any = tuple(ops)

    @theano.gof.local_optimizer(ops, inplace=True)
    def local_in_place(node):
        if not isinstance(node.op, kinds) or node.op.inplace:
            return False
        return node.op.in_place()(*node.inputs, return_list=True)

    return theano.gof.opt.TopoOptimizer(
        local_in_place, failure_callback=theano.gof.opt.TopoOptimizer.warn_inplace
    )


# ---------------------------------------------------------------------------- the table


def rewrites() -> list[Rewrite]:
    """Return the rewrites for the device that Theano runs on, in their order."""
    in_place = ("fast_run", "inplace")
    if library.usable():
        return [
            # before Theano's own rewrites of products, at 1.7
            Rewrite("product", 1.65, in2out(local_product)),
            Rewrite("gather", 1.66, in2out(local_gather)),
            Rewrite("in_place", 75, _in_place([Update, Loss]), in_place),
        ]

    import gpu_ops  # imports pygpu, which is optional
    from gru4rec_toolkit.ops import gpu_rewrites as gpu

    return [
        Rewrite("gather", 1.66, in2out(local_gather)),
        # after the graph is on the GPU (48.5), before Theano fuses element-wise Ops (49)
        Rewrite("state", 48.9, in2out(gpu.local_state)),
        Rewrite("gradient_of_dropout", 48.901, in2out(gpu.local_gradient_of_dropout)),
        Rewrite("cost", 48.902, in2out(gpu.local_cost)),
        Rewrite("look_ups", 48.903, in2out(gpu.local_look_ups)),
        Rewrite("product_of_columns", 48.904, in2out(gpu.local_product_of_columns)),
        Rewrite("merge_updates", 48.905, gpu.MergeUpdates()),
        Rewrite("in_place", 75, _in_place([gpu_ops.GpuUpdate, gpu_ops.GpuLoss]), in_place),
    ]


def register() -> None:
    """Add the rewrites to Theano's; further calls do nothing."""
    optdb = theano.compile.optdb
    if not base.usable() or "gru4rec_gather" in optdb.__db__:
        return
    if not library.usable():
        _lift_ops_onto_the_gpu()
    for rewrite in rewrites():
        optdb.register(
            # modes without any of them: excluding("gru4rec")
            *(f"gru4rec_{rewrite.name}", rewrite.optimizer, rewrite.position, "gru4rec"),
            *rewrite.tags,
        )


def _lift_ops_onto_the_gpu() -> None:
    """Register that Ops become their twins, in the way of Theano's own Ops."""
    from theano.gpuarray.opt import op_lifter, register_opt, register_opt2

    import gpu_ops

    for op in gpu_ops.TWINS:

        def lift(op, context_name, inputs, outputs):
            return gpu_ops.twin(op)(*inputs, return_list=True)

        lift.__name__ = f"local_gpu_{op.__name__}"
        register_opt("fast_compile")(op_lifter([op])(lift))
        register_opt2([op], "fast_compile")(lift)
