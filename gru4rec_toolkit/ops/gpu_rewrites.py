"""Graph rewrites that make fewer launches of a training step on a GPU: neighbours share a kernel.

They work on the step as `custom_opt` lifted it. What does not look as they expect stays as it is.
"""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops.gpu_base import GpuKernelOp
from gru4rec_toolkit.ops.gru.gpu import GpuDropout, GpuGRU, GpuGRUGradient
from gru4rec_toolkit.ops.losses.gpu import GpuLoss
from gru4rec_toolkit.ops.products.gpu import GpuProductOfColumns
from gru4rec_toolkit.ops.rows.gpu import GpuGather, GpuLogQ, GpuLookUps, GpuOutputs
from gru4rec_toolkit.ops.updates import gpu as updates_gpu_
from gru4rec_toolkit.ops.updates.gpu import MOST_DENSE, MOST_ROWS, GpuUpdate
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

# Theano's GPU modules can only be imported after Theano itself is configured
from theano.gpuarray.basic_ops import GpuReshape  # isort: skip
from theano.gpuarray.blas import GpuDot22  # isort: skip
from theano.gpuarray.elemwise import GpuDimShuffle, GpuElemwise  # isort: skip
from theano.gpuarray.subtensor import GpuIncSubtensor, GpuSubtensor  # isort: skip
from theano.tensor.subtensor import get_idx_list  # isort: skip


# p, seed and counter of a dropout that drops nothing
NO_DROPOUT = (np.float32(0), np.int64(0), np.int64(0))


def _made_by(variable, op: type) -> bool:
    """Whether a variable is the first output of such an Op."""
    return (
        variable.owner is not None
        and isinstance(variable.owner.op, op)
        and variable.owner.outputs[0] is variable
    )


def _read_by(variable) -> list:
    """Return the nodes that read a variable of a graph; "output" where the function returns it."""
    return [client for client, _ in variable.clients]


# ---------------------------------------------------------------------------- products


@theano.gof.local_optimizer([GpuDot22])
def local_product_of_columns(node):
    """x^T y[:, start:stop] without a copy of these columns, which Theano's product makes.

    For the gradients of a GRU's weights: there the columns lie inside of y.
    """
    if not isinstance(node.op, GpuDot22):
        return False
    x, y = node.inputs
    if not (_made_by(x, GpuDimShuffle) and tuple(x.owner.op.new_order) == (1, 0)):
        return False
    if not _made_by(y, GpuSubtensor):
        return False
    whole, index = y.owner.inputs[0], get_idx_list(y.owner.inputs, y.owner.op.idx_list)
    if not _made_by(whole, GpuGRUGradient):
        return False
    if len(index) != 2 or index[0] != slice(None) or not isinstance(index[1], slice):
        return False
    if index[1].step is not None:
        return False
    start = np.int64(0) if index[1].start is None else index[1].start
    width = node.fgraph.shape_feature.get_shape(whole, 1)
    stop = width if index[1].stop is None else index[1].stop
    bounds = [tt.as_tensor_variable(bound) for bound in (start, stop)]
    if any(bound.type.dtype != "int64" for bound in bounds):
        return False
    return [GpuProductOfColumns()(x.owner.inputs[0], whole, *bounds)]


# ---------------------------------------------------------------------------- hidden layers


@theano.gof.local_optimizer([GpuElemwise])
def local_state(node):
    """A GRU's new state, its dropout, and its product with goes_on[:, None] -> one kernel."""
    if not (isinstance(node.op, GpuElemwise) and isinstance(node.op.scalar_op, theano.scalar.Mul)):
        return False
    columns = [v for v in node.inputs if _is_column_of_vector(v)]
    if len(node.inputs) != 2 or len(columns) != 1:
        return False
    state = next(v for v in node.inputs if v is not columns[0])
    undropped, mask = state, NO_DROPOUT
    if _made_by(state, GpuDropout):
        undropped, *mask = state.owner.inputs
        if _read_by(undropped) != [state.owner]:
            return False
    if not _made_by(undropped, GpuGRU) or len(undropped.owner.inputs) > 5:
        return False
    gru = undropped.owner
    new = gru.op(*gru.inputs, *mask, columns[0].owner.inputs[0], return_list=True)
    return {node.outputs[0]: new[4], state: new[0], **dict(zip(gru.outputs[1:], new[1:4]))}


def _is_column_of_vector(variable) -> bool:
    return _made_by(variable, GpuDimShuffle) and tuple(variable.owner.op.new_order) == (0, "x")


@theano.gof.local_optimizer([GpuGRUGradient])
def local_gradient_of_dropout(node):
    """The gradient of dropout, and that of the GRU before it -> the kernels of the latter."""
    if not isinstance(node.op, GpuGRUGradient) or len(node.inputs) > 5:
        return False
    d_new = node.inputs[0]
    if not _made_by(d_new, GpuDropout) or _read_by(d_new) != [node]:
        return False
    d_dropped, *mask = d_new.owner.inputs
    return node.op(d_dropped, *node.inputs[1:], *mask, return_list=True)


# ---------------------------------------------------------------------------- losses


@theano.gof.local_optimizer([GpuIncSubtensor])
def local_cost(node):
    """set_subtensor(costs[step], loss) -> the loss's own kernel writes there."""
    if not isinstance(node.op, GpuIncSubtensor) or not node.op.set_instead_of_inc:
        return False
    costs, cost, *index = node.inputs
    if not _made_by(cost, GpuLoss) or _read_by(cost) != [node] or cost.owner.op.collects:
        return False
    if costs.ndim != 1 or len(index) != 1 or not _made_by(index[0], tt.ScalarFromTensor):
        return False
    step = index[0].owner.inputs[0]
    if step.type.dtype != "int64":
        return False
    op, loss = cost.owner.op, cost.owner
    op = GpuLoss(op.loss, op.activation, op.scale, op.parameter, collects=True)
    new = op(*loss.inputs, costs, step, return_list=True)
    return {node.outputs[0]: new[0], **dict(zip(loss.outputs[1:], new[1:]))}


# ---------------------------------------------------------------------------- look-ups


@theano.gof.local_optimizer([GpuOutputs])
def local_look_ups(node):
    """All look-ups of a step, with what is done to what they find -> one kernel."""
    if not isinstance(node.op, GpuOutputs):
        return False
    gathers = [n for n in node.fgraph.toposort() if isinstance(n.op, GpuGather)]
    of_items = [n for n in gathers if n.inputs[1] is node.outputs[0]]
    biases = [n for n in of_items if _only_reader(n, GpuReshape, GpuLogQ)]
    rows = [n for n in of_items if n not in biases]
    of_inputs = [n for n in gathers if n not in of_items]
    if not len(biases) == len(rows) == len(of_inputs) == 1:
        return False
    (biases,), (rows,), (of_inputs,) = biases, rows, of_inputs
    table_in, index = of_inputs.inputs
    if _depends_on_kernels([*node.inputs, index]):
        return False
    dropout = _only_reader(of_inputs, GpuDropout)
    mask = dropout.inputs[1:] if dropout else NO_DROPOUT
    makes_offsets = _only_reader(biases, GpuReshape, GpuLogQ)
    if makes_offsets.outputs[0].ndim != 1:
        return False
    factors, correction = None, []
    if isinstance(makes_offsets.op, GpuLogQ):
        factors = (makes_offsets.op.of_targets, makes_offsets.op.of_samples)
        correction = [makes_offsets.inputs[1], makes_offsets.inputs[3]]
    targets, negatives, *copies = node.inputs
    new = GpuLookUps(factors)(
        *[table_in, index, *mask, rows.inputs[0], biases.inputs[0]],
        *[targets, negatives, *correction, *copies],
    )
    old = [(dropout or of_inputs).outputs[0], rows.outputs[0], makes_offsets.outputs[0]]
    return dict(zip([*old, *node.outputs], new))


def _only_reader(node, *ops: type):
    """Return the node that alone reads a node's first output if it is of such an Op, else None."""
    readers = _read_by(node.outputs[0])
    fits = len(readers) == 1 and readers[0] != "output" and isinstance(readers[0].op, ops)
    return readers[0] if fits else None


def _depends_on_kernels(variables: list) -> bool:
    ancestors = theano.gof.graph.ancestors(variables)
    return any(v.owner is not None and isinstance(v.owner.op, GpuKernelOp) for v in ancestors)


# ---------------------------------------------------------------------------- updates


class MergeUpdates(theano.gof.Optimizer):
    """The updates of all parameters by the same rule -> one Op.

    Only those are merged of which nothing in the graph depends: none is the input of another.
    """

    def apply(self, fgraph):
        groups = {}
        for node in fgraph.toposort():
            if isinstance(node.op, GpuUpdate) and all(
                client == "output" for v in node.outputs for client in _read_by(v)
            ):
                constants = node.inputs[0]
                if isinstance(constants, theano.Constant):
                    constants = constants.signature()
                rule = (node.op.method, node.op.momentum, node.op.l2, constants)
                groups.setdefault(rule, []).append(node)
        for nodes in groups.values():
            for merged in _as_many_as_a_kernel_takes(nodes):
                new = updates_gpu_.merged(merged)
                old = [output for node in merged for output in node.outputs]
                fgraph.replace_all_validate(list(zip(old, new)), reason="gru4rec_merge_updates")


def _as_many_as_a_kernel_takes(nodes: list) -> list:
    """Divide nodes into lists with so few parameters that they fit into one kernel's arguments."""
    dense = [node for node in nodes if not any(node.op.weighted)]
    rows = [node for node in nodes if any(node.op.weighted)]
    most_dense, most_rows = MOST_DENSE, MOST_ROWS
    n_lists = max(-(-len(dense) // most_dense), -(-len(rows) // most_rows))
    return [
        dense[i * most_dense : (i + 1) * most_dense] + rows[i * most_rows : (i + 1) * most_rows]
        for i in range(n_lists)
    ]
