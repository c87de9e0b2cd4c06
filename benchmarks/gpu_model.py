"""An estimate of training speed on GPUs that nobody has measured yet.

    python -m benchmarks.gpu_model [-d DEVICE] [--launch US] [--data FILE] [NAME ...]

A step takes launches x latency + bytes / bandwidth + operations / peak. Launches, bytes (`traffic`)
and operations are counted in the compiled step, on any GPU, the simulated one included; bandwidths
and peaks are those of data sheets, the latency is assumed. So the figures are assumptions put
together, no measurements:

- Kernels reach the whole bandwidth and products the whole peak. Those of small mini-batches do not:
  real steps are slower by that.
- **One after the other**: no launch hides behind a kernel, and no kernel loads while it computes.
  **All at once**: the longest of the three hides the others. Steps lie between the two, as far as
  the assumption before holds.
- The host runs Theano's C VM, whose time a node is measured here, and every launch takes the host
  the latency. It works ahead of the GPU, and a step takes the longer time of the two.
- Products are in FP32: libgpuarray calls cublasSgemm and never asks cuBLAS for TF32, which its
  default mode does not use. The gain that TF32 would bring is among the others.
- A product is one launch; cuBLAS may split a long sum, and add the parts up in a second kernel.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from benchmarks import options, traffic
from benchmarks.training import NAMES, Trainer, read_log, read_settings
from gru4rec_toolkit import arguments
from gru4rec_toolkit.arguments import add_device
from gru4rec_toolkit.errors import run_cli


@dataclass(frozen=True)
class Card:
    """Bytes and operations per second of a GPU, dense, by NVIDIA's data sheets."""

    name: str
    bandwidth: float
    fp32: float
    tf32: float


CARDS = (
    # the data sheets of the A30 Tensor Core GPU, and of the H200 SXM with half of TF32's
    # figure, which is that "with sparsity"
    Card("A30", 933e9, 10.3e12, 82e12),
    Card("H200", 4.8e12, 67e12, 494e12),
)
# assumed: seconds from one launch to the next where no kernel takes longer
LAUNCH = 5e-6
# The reference implementation on an A30 with retailrocket's parameters, as it publishes; its step
# makes 105 launches (tests/model/test_gpu_training.py), so one takes 9.3 us there, all included.
PUBLISHED = {("retailrocket", "A30"): 1027.0}


@dataclass(frozen=True)
class Step:
    """What a training step does: Theano's nodes, launches, bytes, operations of products."""

    nodes: int
    launches: int
    moved: float
    needed: float
    floor: float
    operations: float


@dataclass(frozen=True)
class Times:
    """Seconds of a step's parts."""

    launches: float
    bytes: float
    operations: float
    host: float  # Theano's VM, beside the launches

    @property
    def one_after_the_other(self) -> float:
        return max(self.launches + self.bytes + self.operations, self.launches + self.host)

    @property
    def all_at_once(self) -> float:
        return max(self.launches + self.host, self.bytes, self.operations)


def estimate(step: Step, card: Card, launch: float, vm_node: float) -> Times:
    """Return the times of a step, given seconds a launch and a node of Theano's VM."""
    return Times(
        step.launches * launch,
        step.moved / card.bandwidth,
        step.operations / card.fp32,
        step.nodes * vm_node,
    )


def gains(step: Step, card: Card, launch: float, vm_node: float) -> dict[str, float]:
    """Return the share of a step's time that changes would save, largest first.

    One change at a time, parts one after the other.
    """

    def seconds(changed: Step, changed_card: Card = card) -> float:
        return estimate(changed, changed_card, launch, vm_node).one_after_the_other

    changes = {
        "half the launches": seconds(replace(step, launches=step.launches / 2)),
        "products in TF32": seconds(step, replace(card, fp32=card.tf32)),
        "only the bytes that are needed": seconds(replace(step, moved=step.needed)),
        "only the bytes of the floor": seconds(replace(step, moved=step.floor)),
        "half the nodes": seconds(replace(step, nodes=step.nodes / 2)),
    }
    now = seconds(step)
    saved = {change: 1 - then / now for change, then in changes.items()}
    return dict(sorted(saved.items(), key=lambda item: -item[1]))


# ---------------------------------------------------------------------------- counts


def count(trainer: Trainer) -> Step:
    """Count what the compiled step of a GPU does; Theano's ``allow_gc`` has to be off."""
    sizes = traffic.count(trainer).values()
    moved, needed, floor = (float(sum(column)) for column in zip(*sizes))
    step = trainer.training.step_function
    nodes = step.maker.fgraph.toposort()
    arrays = traffic.Arrays(step.fn.storage_map)
    return Step(
        nodes=len(nodes),
        launches=sum(_launches(node) for node in nodes),
        moved=moved,
        needed=needed,
        floor=floor,
        operations=float(sum(_operations(node, arrays) for node in nodes)),
    )


# products beside the kernels that an Op names itself
_PRODUCTS = {"GpuGRU": 2, "GpuGRUGradient": 1, "GpuProductOfColumns": 1}


def _launches(node) -> int:
    name = type(node.op).__name__
    if name in traffic.VIEWS or not any(map(traffic.on_gpu, node.outputs)):
        return 0
    if hasattr(node.op, "KERNELS"):
        return len(node.op.KERNELS) + _PRODUCTS.get(name, 0)
    return 1  # an Op of Theano's


def _operations(node, arrays) -> int:
    """Count the multiplications and additions of matrix products."""
    name = type(node.op).__name__
    if name == "GpuDot22":
        (m, k), (_, n) = map(arrays.shape, node.inputs[:2])
        return 2 * m * k * n
    if name == "GpuProductOfColumns":
        (m, n), (_, columns) = arrays.shape(node.inputs[0]), arrays.shape(node.outputs[0])
        return 2 * m * n * columns
    if name == "GpuGRU":
        m, n = arrays.shape(node.inputs[2])
        return 2 * m * n * 3 * n
    if name == "GpuGRUGradient":
        m, n = arrays.shape(node.inputs[1])
        return 2 * m * n * n
    return 0


def vm_seconds_a_node(n_nodes: int = 60, n_calls: int = 3000) -> float:
    """Measure how long Theano's C VM takes for a node that does next to nothing.

    The shortest of several tries, since other programs run at the same time.
    """
    import numpy as np

    from gru4rec_toolkit.theano_setup import tensor as tt
    from gru4rec_toolkit.theano_setup import theano

    value = theano.shared(np.int64(0), "value")
    chain = value
    for _ in range(n_nodes):
        chain = tt.add(chain, value)
    mode = theano.Mode(linker="cvm", optimizer=None)
    function = theano.function([], [], updates=[(value, chain)], mode=mode)
    n_nodes = len(function.maker.fgraph.apply_nodes)
    tries = []
    for _ in range(5):
        start = time.perf_counter()
        function.fn(n_calls=n_calls)
        tries.append((time.perf_counter() - start) / n_calls / n_nodes)
    return min(tries)


# ---------------------------------------------------------------------------- tables


def table_row(name: str, trainer_size: str, step: Step, card: Card, times: Times) -> str:
    """Return a row of the table of times."""
    published = PUBLISHED.get((name, card.name))
    cells = [
        *(name, trainer_size, card.name, f"{step.launches:.0f}"),
        *(f"{1e6 * t:.0f}" for t in (times.launches, times.bytes, times.operations, times.host)),
        f"{1 / times.one_after_the_other:.0f} to {1 / times.all_at_once:.0f}",
        f"{published:.0f}" if published else "",
    ]
    return f"| {' | '.join(cells)} |"


HEADER = (
    "| parameters | mini-batch x units | GPU | launches | launches, us | bytes, us | "
    "products, us | host's VM, us | mini-batches/s | published |\n|" + " --- |" * 10
)


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    options.add_names(parser, NAMES)
    add_device(parser, default="opencl0:0")
    options.add_log(parser)
    parser.add_argument(
        "--launch",
        type=options.positive_float,
        default=1e6 * LAUNCH,
        help="microseconds a launch (%(default)s)",
    )
    args = parser.parse_args()
    options.check_names(parser, args, NAMES)
    if args.device == "cpu":
        parser.error("-d cpu: launches and bytes are those of a GPU's step; try -d opencl0:0")

    from gru4rec_toolkit import theano_setup

    theano_setup.configure(args.device)
    from gru4rec_toolkit.theano_setup import theano

    theano.config.allow_gc = False  # keeps a step's arrays, to look at them after it
    log, launch, vm_node = read_log(args), 1e-6 * args.launch, vm_seconds_a_node()
    print(
        f"assumed: {args.launch:g} us a launch; measured: {1e6 * vm_node:.2f} us a node of "
        f"Theano's VM\n\n{HEADER}"
    )
    counted = {}
    for name in args.names or NAMES:
        trainer = Trainer(read_settings(name), log, merge=True)
        counted[name] = count(trainer)
        size = f"{trainer.model.batch_size} x {trainer.model.layers[0]}"
        for card in CARDS:
            times = estimate(counted[name], card, launch, vm_node)
            print(table_row(name, size, counted[name], card, times), flush=True)
    print("\n| parameters | GPU | what would save how much of a step's time |\n| --- | --- | --- |")
    for name, step in counted.items():
        for card in CARDS:
            by_size = gains(step, card, launch, vm_node).items()
            saved = ", ".join(f"{change} {share:.0%}" for change, share in by_size)
            print(f"| {name} | {card.name} | {saved} |")


if __name__ == "__main__":
    run_cli(main)
