"""Trainings and the command line on two simulated GPUs."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from helpers.on_gpu import BPR_MAX, COUNT, CPU, CROSS_ENTROPY, CUDA, FIT, OPENCL

STORES = [{}, {"sample_store": 640}, {"store_type": "cpu"}, {"sample_store": 0}]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function that returns a trained model's weights; each is trained once."""
    models = {}

    def weights(device, settings, store):
        arguments = (json.dumps(settings), json.dumps(store))
        key = (device.name, *arguments)
        if key not in models:
            target = tmp_path_factory.mktemp("model") / "weights.npz"
            save = "\n    np.savez(sys.argv[3], **gru.weights())\n"
            device.program(FIT + save, *arguments, target)
            with np.load(target) as arrays:
                models[key] = dict(arrays)
        return models[key]

    return weights


@pytest.mark.parametrize(
    ("settings", "store"),
    [(BPR_MAX, STORES[0]), (CROSS_ENTROPY, STORES[1]), (BPR_MAX, STORES[2]), (BPR_MAX, STORES[3])],
)
def test_a_seed_gives_the_same_model_as_on_the_cpu(gpu, trained, settings, store):
    """Initial weights, dropout masks and negatives, wherever the store lies."""
    on_cpu = trained(CPU, settings, store)
    for name, of_gpu in trained(gpu, settings, store).items():
        np.testing.assert_allclose(of_gpu, on_cpu[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("settings", [BPR_MAX, {**CROSS_ENTROPY, "adapt": "adam"}])
def test_a_seed_gives_the_same_model_again(gpu, settings):
    """To the last bit: nothing depends on which thread comes first."""
    again = """
    first = gru.weights()
    gru.fit(log)
    print("SAME", all(np.array_equal(first[name], w) for name, w in gru.weights().items()))
    """
    assert "SAME True" in gpu.program(FIT + again, json.dumps(settings), "{}")


NO_DROPOUT = {"dropout_p_embed": 0, "dropout_p_hidden": 0}


@pytest.mark.parametrize(
    ("settings", "n_expected"),
    [(BPR_MAX, 21), (CROSS_ENTROPY, 21), ({**CROSS_ENTROPY, **NO_DROPOUT}, 20)],
)
def test_a_step_stays_on_the_gpu(gpu, settings, n_expected):
    """No transfer, no Op of Theano's where there is one of ours, and a count of the launches.

    The reference implementation makes 105 of them with bpr-max, 70 with cross-entropy and logQ.
    """
    tell = """
    names = [type(node.op).__name__ for node in step.maker.fgraph.toposort()]
    on_host = [
        str(node.op) for node in step.maker.fgraph.toposort()
        if not type(node.op).__name__.startswith(("Gpu", "Shape_i", "InplaceGpu"))
        and any(v.type.ndim for v in (*node.inputs, *node.outputs))
    ]
    print("NODES", json.dumps([names, on_host]))
    """
    out = gpu.program(FIT + tell, json.dumps(settings), "{}")
    names, on_host = json.loads(out.split("NODES")[1])
    # on the host, the number of different negatives is read from a vector, and shapes are made
    assert all(op.startswith(("Subtensor", "MakeVector")) for op in on_host), on_host
    assert not {"HostFromGpu", "GpuFromHost", "GpuAdvancedSubtensor1"} & set(names)
    views = {"GpuSubtensor", "GpuReshape", "GpuDimShuffle"}
    launches = {
        **{"GpuLookUps": 1, "GpuDropout": 1, "GpuDot22": 1, "GpuProductOfColumns": 1},
        **{"GpuGRU": 4, "GpuGRUGradient": 3, "GpuLoss": 2, "GpuUpdate": 2},
    }
    on_gpu = [name for name in names if name.startswith("Gpu") and name not in views]
    assert sum(launches[name] for name in on_gpu) == n_expected, names
    assert n_expected <= (105 if settings == BPR_MAX else 70) / 3


# our kernels, and what Theano makes of the cap on the gradients: sums by its own kernels on CUDA,
# by libgpuarray's on OpenCL, where squares are Ops of their own
OUR_KERNELS = {
    *("look_up", "dropout", "gates", "new_state", "loss_rows", "loss_columns"),
    *("candidate_gradient", "gates_gradient", "link_occurrences", "update"),
}
OF_THE_CAP = {
    CUDA: {"elem": 11, "kernel_reduce_01": 1, "kernel_reduce_ccontig": 7},
    OPENCL: {"elem": 17, "reduk": 8},
}


@pytest.mark.parametrize("settings", [BPR_MAX, {**CROSS_ENTROPY, "grad_cap": 1.0}])
def test_nothing_crosses_the_bus_inside_of_a_block(gpu, settings):
    """Counted by the driver, as are launches: the same on both devices but for Theano's sums."""
    tell = """
    print("COUNTS", json.dumps([inside, now()]))
    """
    counting = gpu.counting()
    out = gpu.program(COUNT + FIT + tell, json.dumps(settings), "{}", **counting)
    inside, overall = json.loads(out.split("COUNTS")[1])
    n_steps = inside.pop("steps")
    launches = {name: n / n_steps for name, n in inside.items()}
    products = [name for name in launches if name.startswith(("(cublas)", "Xgemm"))]
    assert sum(launches.pop(name) for name in products) == 11
    of_the_cap = OF_THE_CAP[gpu.name] if "grad_cap" in settings else {}
    assert launches == {**dict.fromkeys(OUR_KERNELS, 1), **of_the_cap}
    # a block's schedule and its costs cross outside, a few times for each of its 16 steps
    assert 0 < overall["to_device"] < n_steps and 0 < overall["to_host"] < n_steps
    assert overall["draw"] == overall["merge"] == 1


def test_the_command_line_trains_on_the_gpu_and_the_model_loads_on_the_cpu(gpu, tmp_path):
    rows = [f"{i // 4}\t{(i // 4 * 7 + i % 4) % 20}\t{i}" for i in range(400)]
    log, model = tmp_path / "log.tsv", tmp_path / "model.gru4rec"
    log.write_text("SessionId\tItemId\tTime\n" + "\n".join(rows) + "\n")
    parameters = "layers=16,batch_size=8,n_epochs=4,n_sample=16,constrained_embedding=True"
    trained = gpu.succeeds(
        "run.py", log, "-ps", parameters, "-t", log, "-m", "1", "5", "-s", model, "-d", gpu.name,
        THEANO_FLAGS="",
    )  # fmt: skip
    assert f"device: {gpu.name} (asked for)" in trained.stderr
    loaded = CPU.succeeds("run.py", model, "-l", "-t", log, "-m", "1", "5", "-d", "cpu")

    def metrics(result):
        return [line for line in result.stdout.splitlines() if line.startswith("Recall@")]

    assert metrics(trained) == metrics(loaded)
    assert len(metrics(trained)) == 2


def test_a_gpu_that_is_not_there_is_named_and_auto_goes_on_without_it(tmp_path):
    show = "from gru4rec_toolkit import theano_setup; print(theano_setup.configure())"
    chosen = CPU.succeeds("-c", show, THEANO_FLAGS="device=auto").stdout
    if "device: cuda0" in chosen:
        pytest.skip("this machine has a GPU")
    assert "device: cpu (no CUDA GPU: " in chosen and "b'" not in chosen
    result = CPU.run("run.py", __file__, "-ps", "layers=4", "-d", "cuda0")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "device cuda0 (asked for) cannot be opened: " in result.stderr


def test_lack_of_memory_is_explained(gpu):
    lacking = """
    from gru4rec_toolkit.errors import InputError
    from pygpu import gpuarray
    from gru4rec_toolkit.ops.sampling.gpu import GpuSampler
    def fail(*_):
        raise gpuarray.GpuArrayException("cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory")
    GpuSampler._empty = fail
    try:
        gru.fit(log)
    except InputError as err:
        print("MESSAGE", err)
    """
    message = gpu.program(FIT + lacking, json.dumps(BPR_MAX), "{}").split("MESSAGE ")[1]
    assert message.startswith(f"not enough memory on {gpu.name}: the parameters of 50 items with ")
    # 50 rows of 16 + 1, 16 x 48, 16 x 16, 16 x 32 and 48; with Adagrad's sums and the velocity
    assert f"take {4 * 3 * (50 * 17 + 16 * (48 + 16 + 32) + 48) / 1000:.3g} kB" in message
    assert "the store of negatives up to 240 MB (sample_store, -ss)" in message


def test_a_process_on_the_gpu_can_start_others(gpu):
    """Theano leaves a variable behind that would keep them from the GPU."""
    out = gpu.program(
        """
        import subprocess, sys
        from gru4rec_toolkit import theano_setup
        command = "from gru4rec_toolkit import theano_setup; print(theano_setup.configure())"
        theano_setup.configure()
        subprocess.run([sys.executable, "-c", command], check=True)
        """
    )
    assert f"device: {gpu.name} (THEANO_FLAGS or a configuration file)" in out


def test_the_benchmark(opencl):
    sizes = ("--events", "800", "--items", "60", "--rounds", "1", "--steps", "10")
    options = ("-d", opencl.name, *sizes)
    out = opencl.succeeds("-m", "benchmarks.gpu", *options, "rsc15").stdout
    row = r"^\| rsc15 \| 32 x 100 \| \d+\.\d \(\d+\.\d to \d+\.\d\) \| \d+ \| \d+ \| 0 \|$"
    assert re.search(row, out, re.MULTILINE), out
    assert "| most beyond needed |" in out
    by_op = out.split("\nrsc15:\n")[1]
    assert re.match(r"\d+\.\d us a step, \d+ nodes", by_op)
    assert all(op in by_op for op in ("GpuLoss", "GpuUpdate", "GpuGRU", "GpuLookUps")), out


def test_the_bytes_that_a_step_moves(opencl):
    """With cross-entropy and with bpr-max: beside those that it needs, and beside the floor."""
    options = ("-d", opencl.name, "--bytes", "--events", "800", "--items", "60")
    names = ("rsc15", "retailrocket")
    out = opencl.succeeds("-m", "benchmarks.gpu", *options, *names).stdout
    for name in names:
        row = next(line for line in out.splitlines() if line.startswith(f"| {name} |"))
        sizes, n_units = row.split(" | ")[1:-2], int(row.split(" | ")[1].split(" x ")[1])
        moved, needed, floor, of_needed, of_floor = map(float, sizes[1:])
        # Wx, Wh, Wrz and Bh with Adagrad's sums, and perhaps velocities, read and written
        dense = 4 * 2 * 2 * (n_units * 6 * n_units + 3 * n_units) / 1e6
        assert dense < floor < 3 * dense, row
        assert floor < needed < moved < 1.5 * needed, row
        assert of_needed == pytest.approx(moved / needed, abs=0.02), row
        assert of_floor == pytest.approx(moved / floor, abs=0.02), row
