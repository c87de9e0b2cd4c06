"""Trainings and the command line on a GPU, a simulated one (PoCL)."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from helpers.on_gpu import (
    BPR_MAX,
    CROSS_ENTROPY,
    DEVICE,
    FIT,
    program,
    run,
    simulated_gpu,
    succeeds,
)

STORES = [{}, {"sample_store": 640}, {"store_type": "cpu"}, {"sample_store": 0}]


@pytest.fixture(scope="module", autouse=True)
def _simulated_gpu():
    simulated_gpu()


@pytest.mark.parametrize(
    ("settings", "store"),
    [(BPR_MAX, STORES[0]), (CROSS_ENTROPY, STORES[1]), (BPR_MAX, STORES[2]), (BPR_MAX, STORES[3])],
)
def test_a_seed_gives_the_same_model_as_on_the_cpu(settings, store, tmp_path):
    """Initial weights, dropout masks and negatives, wherever the store lies."""
    models = []
    for device in (DEVICE, "cpu"):
        target = tmp_path / f"{device.replace(':', '_')}.npz"
        save = "\n    np.savez(sys.argv[3], **gru.weights())\n"
        arguments = (json.dumps(settings), json.dumps(store), target)
        program(FIT + save, *arguments, THEANO_FLAGS=f"device={device}")
        with np.load(target) as weights:
            models.append(dict(weights))
    for name, of_gpu in models[0].items():
        np.testing.assert_allclose(of_gpu, models[1][name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("settings", [BPR_MAX, {**CROSS_ENTROPY, "adapt": "adam"}])
def test_a_seed_gives_the_same_model_again(settings):
    """To the last bit: nothing depends on which thread comes first."""
    again = """
    first = gru.weights()
    gru.fit(log)
    print("SAME", all(np.array_equal(first[name], w) for name, w in gru.weights().items()))
    """
    assert "SAME True" in program(FIT + again, json.dumps(settings), "{}")


NO_DROPOUT = {"dropout_p_embed": 0, "dropout_p_hidden": 0}


@pytest.mark.parametrize(
    ("settings", "n_expected"),
    [(BPR_MAX, 21), (CROSS_ENTROPY, 21), ({**CROSS_ENTROPY, **NO_DROPOUT}, 20)],
)
def test_a_step_stays_on_the_gpu(settings, n_expected):
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
    out = program(FIT + tell, json.dumps(settings), "{}")
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


def test_the_command_line_trains_on_the_gpu_and_the_model_loads_on_the_cpu(tmp_path):
    rows = [f"{i // 4}\t{(i // 4 * 7 + i % 4) % 20}\t{i}" for i in range(400)]
    log, model = tmp_path / "log.tsv", tmp_path / "model.gru4rec"
    log.write_text("SessionId\tItemId\tTime\n" + "\n".join(rows) + "\n")
    parameters = "layers=16,batch_size=8,n_epochs=4,n_sample=16,constrained_embedding=True"
    trained = succeeds(
        "run.py", log, "-ps", parameters, "-t", log, "-m", "1", "5", "-s", model, "-d", DEVICE,
        THEANO_FLAGS="",
    )  # fmt: skip
    assert f"device: {DEVICE} (asked for)" in trained.stderr
    loaded = succeeds("run.py", model, "-l", "-t", log, "-m", "1", "5", "-d", "cpu")

    def metrics(result):
        return [line for line in result.stdout.splitlines() if line.startswith("Recall@")]

    assert metrics(trained) == metrics(loaded)
    assert len(metrics(trained)) == 2


def test_a_gpu_that_is_not_there_is_named_and_auto_goes_on_without_it(tmp_path):
    show = "from gru4rec_toolkit import theano_setup; print(theano_setup.configure())"
    chosen = succeeds("-c", show, THEANO_FLAGS="device=auto").stdout
    if "device: cuda0" in chosen:
        pytest.skip("this machine has a GPU")
    assert "device: cpu (no CUDA GPU: " in chosen and "b'" not in chosen
    result = run("run.py", __file__, "-ps", "layers=4", "-d", "cuda0")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "device cuda0 (asked for) cannot be opened: " in result.stderr


def test_lack_of_memory_is_explained():
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
    message = program(FIT + lacking, json.dumps(BPR_MAX), "{}").split("MESSAGE ")[1]
    assert message.startswith(f"not enough memory on {DEVICE}: the parameters of 50 items with ")
    # 50 rows of 16 + 1, 16 x 48, 16 x 16, 16 x 32 and 48; with Adagrad's sums and the velocity
    assert f"take {4 * 3 * (50 * 17 + 16 * (48 + 16 + 32) + 48) / 1000:.3g} kB" in message
    assert "the store of negatives up to 240 MB (sample_store, -ss)" in message


def test_a_process_on_the_gpu_can_start_others():
    """Theano leaves a variable behind that would keep them from the GPU."""
    out = program(
        """
        import subprocess, sys
        from gru4rec_toolkit import theano_setup
        command = "from gru4rec_toolkit import theano_setup; print(theano_setup.configure())"
        theano_setup.configure()
        subprocess.run([sys.executable, "-c", command], check=True)
        """
    )
    assert f"device: {DEVICE} (THEANO_FLAGS or a configuration file)" in out


def test_the_benchmark():
    options = ("-d", DEVICE, "--events", "800", "--items", "60", "--rounds", "1", "--steps", "10")
    out = succeeds("-m", "benchmarks.gpu", *options, "rsc15").stdout
    row = r"^\| rsc15 \| 32 x 100 \| \d+\.\d \(\d+\.\d to \d+\.\d\) \| \d+ \| \d+ \| 0 \|$"
    assert re.search(row, out, re.MULTILINE), out
    assert "| most beyond needed |" in out
    by_op = out.split("\nrsc15:\n")[1]
    assert re.match(r"\d+\.\d us a step, \d+ nodes", by_op)
    assert all(op in by_op for op in ("GpuLoss", "GpuUpdate", "GpuGRU", "GpuLookUps")), out


def test_the_bytes_that_a_step_moves():
    """With cross-entropy and with bpr-max: beside those that it needs, and beside the floor."""
    options = ("-d", DEVICE, "--bytes", "--events", "800", "--items", "60")
    names = ("rsc15", "retailrocket")
    out = succeeds("-m", "benchmarks.gpu", *options, *names).stdout
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
