"""GPU Ops by name, and the table that says which Op becomes which on a GPU.

An Op of ``gru4rec_toolkit/ops`` has a twin of the same name with ``Gpu`` before it, whose kernels
are in the same folder. The Op's `perform` in numpy defines both.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

# not imported: theano_setup loads CUDA's libraries before it
if importlib.util.find_spec("pygpu") is None:
    raise ImportError(
        "gpu_ops needs pygpu, by which Theano uses a GPU; install it with `make gpu` (README.md)"
    )

from gru4rec_toolkit.ops.base import KernelOp
from gru4rec_toolkit.ops.gru.gpu import GpuDropout, GpuGRU, GpuGRUGradient
from gru4rec_toolkit.ops.gru.op import GRU, Dropout, GRUGradient
from gru4rec_toolkit.ops.losses.gpu import GpuLoss
from gru4rec_toolkit.ops.losses.op import Loss
from gru4rec_toolkit.ops.products.gpu import GpuProductOfColumns
from gru4rec_toolkit.ops.ranking.gpu import GpuActivate, GpuCountRanks
from gru4rec_toolkit.ops.ranking.op import Activate, CountRanks
from gru4rec_toolkit.ops.rows.gpu import GpuGather, GpuLogQ, GpuLookUps, GpuOutputs
from gru4rec_toolkit.ops.rows.op import Gather, LogQ, Outputs
from gru4rec_toolkit.ops.topk.gpu import GpuTopK
from gru4rec_toolkit.ops.topk.op import TopK
from gru4rec_toolkit.ops.updates.gpu import GpuUpdate
from gru4rec_toolkit.ops.updates.op import Update

# Theano's own product of matrices takes the place of Product. GpuLookUps and GpuProductOfColumns
# have no Op on the CPU: rewrites of a GPU's graph make them (`custom_opt`).
TWINS: dict[type, Callable] = {
    Gather: GpuGather,
    Outputs: GpuOutputs,
    LogQ: GpuLogQ,
    GRU: GpuGRU,
    GRUGradient: GpuGRUGradient,
    Dropout: GpuDropout,
    Loss: GpuLoss,
    Update: GpuUpdate.twin,
    Activate: GpuActivate,
    CountRanks: GpuCountRanks,
    TopK: GpuTopK,
}

__all__ = [
    "TWINS",
    "GpuActivate",
    "GpuCountRanks",
    "GpuDropout",
    "GpuGRU",
    "GpuGRUGradient",
    "GpuGather",
    "GpuLogQ",
    "GpuLookUps",
    "GpuLoss",
    "GpuOutputs",
    "GpuProductOfColumns",
    "GpuTopK",
    "GpuUpdate",
    "twin",
]


def twin(op: KernelOp):
    """Return the same Op for the GPU."""
    properties = {name: getattr(op, name) for name in op.__props__}
    return TWINS[type(op)](**properties)
