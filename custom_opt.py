"""Graph rewrites that put this project's Ops in the place of Theano's and run them in place."""

from __future__ import annotations

from collections.abc import Callable

import cpu_ops
import kernel_library
from theano_setup import tensor as tt
from theano_setup import theano


def _is_float32_matrix(variable) -> bool:
    return variable.type.dtype == "float32" and variable.type.ndim == 2


@theano.gof.local_optimizer([tt.Dot])
def local_product(node):
    """Dot of two float32 matrices -> Product."""
    if isinstance(node.op, tt.Dot) and all(map(_is_float32_matrix, node.inputs)):
        return [tt.patternbroadcast(cpu_ops.Product()(*node.inputs), node.outputs[0].broadcastable)]
    return False


@theano.gof.local_optimizer([tt.AdvancedSubtensor1])
def local_gather(node):
    """table[index] -> Gather, for a float32 table and an int32 index."""
    if not isinstance(node.op, tt.AdvancedSubtensor1):
        return False
    table, index = node.inputs
    if _is_float32_matrix(table) and index.type.dtype == "int32":
        return [tt.patternbroadcast(cpu_ops.Gather()(table, index), node.outputs[0].broadcastable)]
    return False


def _in_place(ops: list[type]):
    """Return a rewrite that lets Ops write into inputs that nobody reads afterwards."""

    @theano.gof.local_optimizer(ops, inplace=True)
    def local_in_place(node):
        if not isinstance(node.op, tuple(ops)) or node.op.inplace:
            return False
        return node.op.in_place()(*node.inputs, return_list=True)

    return local_in_place


def gpu_twins() -> dict[type, Callable]:
    """Return what makes the GPU's twin of each Op of `cpu_ops`; the product is Theano's there."""
    import gpu_ops  # needs pygpu
    import gpu_updates

    return {
        cpu_ops.Gather: gpu_ops.GpuGather,
        cpu_ops.Outputs: gpu_ops.GpuOutputs,
        cpu_ops.LogQ: gpu_ops.GpuLogQ,
        cpu_ops.Update: gpu_updates.GpuUpdate.twin,
        cpu_ops.Loss: gpu_ops.GpuLoss,
        cpu_ops.GRU: gpu_ops.GpuGRU,
        cpu_ops.GRUGradient: gpu_ops.GpuGRUGradient,
        cpu_ops.Dropout: gpu_ops.GpuDropout,
        cpu_ops.CountRanks: gpu_ops.GpuCountRanks,
    }


def gpu_twin(op: cpu_ops.KernelOp):
    """Return the same Op for the GPU."""
    properties = {name: getattr(op, name) for name in op.__props__}
    return gpu_twins()[type(op)](**properties)


def _lift_onto_gpu(op: type) -> None:
    """Register, the way Theano's own are, that Ops of a class become their twins."""
    from theano.gpuarray.opt import op_lifter, register_opt, register_opt2

    def lift(op, context_name, inputs, outputs):
        return gpu_twin(op)(*inputs, return_list=True)

    lift.__name__ = f"local_gpu_{op.__name__}"
    register_opt("fast_compile")(op_lifter([op])(lift))
    register_opt2([op], "fast_compile")(lift)


def register() -> None:
    """Add the rewrites to Theano's; further calls do nothing."""
    optdb = theano.compile.optdb
    if not cpu_ops.usable() or "gru4rec_gather" in optdb.__db__:
        return
    register_local = theano.gof.opt.in2out
    # before Theano's own BLAS rewrites, which are at 1.7
    if kernel_library.usable():
        optdb.register("gru4rec_product", register_local(local_product), 1.65, "fast_run")
    optdb.register("gru4rec_gather", register_local(local_gather), 1.66, "fast_run")
    works_in_place = [cpu_ops.Update, cpu_ops.Loss]
    if not kernel_library.usable():
        import gpu_fusion  # needs pygpu

        works_in_place = gpu_fusion.WORKS_IN_PLACE
        for op in gpu_twins():
            _lift_onto_gpu(op)
        gpu_fusion.register()
    in_place = theano.gof.opt.TopoOptimizer(
        _in_place(works_in_place), failure_callback=theano.gof.opt.TopoOptimizer.warn_inplace
    )
    optdb.register("gru4rec_in_place", in_place, 75, "fast_run", "inplace")
