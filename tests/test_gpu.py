"""The GPU: the Ops' kernels, whole trainings and the command line, on a simulated one (PoCL).

A process has one device, so these tests run others: the tests of the Ops and the golden ones on the
device ``opencl0:0``, and programs of their own.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DEVICE = "opencl0:0"
# both losses that are recommended and the others, all ways of embedding, momentum, several layers,
# equal negatives merged and not, other optimizers
GOLDEN = [
    *("xe_shared_negatives_logq", "xe_separate", "xe_onehot", "xe_smoothing", "xe_logit"),
    *("bprmax_elu", "bprmax_onehot", "bprmax_relu", "top1max"),
    *("two_layers_shared", "two_layers_separate", "momentum", "l2_momentum", "grad_cap"),
    *("rmsprop", "adadelta", "wide_batch"),
]

def run(*command, timeout=1500, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "THEANO_FLAGS": f"device={DEVICE}", **environment}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=env,
    )  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def simulated_gpu():
    result = run("-c", "import theano_setup; theano_setup.configure()")
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1]
        pytest.skip(f"no simulated GPU, `make gpu-sim` installs one: {reason}")


def succeeds(*command, **environment):
    result = run(*command, **environment)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result


def program(text, *arguments, **environment):
    return succeeds("-c", textwrap.dedent(text), *arguments, **environment).stdout


def pytest_on_gpu(*arguments):
    options = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=")
    summary = succeeds("-m", "pytest", *options, *arguments).stdout.strip().splitlines()[-1]
    return int(summary.split(" passed")[0].split()[-1])


def test_every_kernel_agrees_with_numpy():
    assert pytest_on_gpu("tests/test_ops.py") > 50


@pytest.mark.parametrize("part", range(4))
def test_golden_trajectories(part):
    cases = GOLDEN[part::4]
    names = [f"tests/test_golden.py::test_trajectory[{name}]" for name in cases]
    assert pytest_on_gpu(*names) == len(cases)


FIT = """
    import json, sys
    import numpy as np, pandas as pd
    from gru4rec import GRU4Rec
    import evaluation, sampling, training
    rng = np.random.default_rng(0)
    n = 600
    log = pd.DataFrame({"SessionId": np.sort(rng.integers(0, 100, n)), "Time": np.arange(n)})
    log["ItemId"] = rng.integers(0, 50, n)
    training.BLOCK_STEPS = 16
    functions = []
    compile_step = training.Training._compile
    training.Training._compile = lambda self: functions.append(compile_step(self)) or functions[0]
    settings = {"dropout_p_embed": 0.1, "dropout_p_hidden": 0.1, **json.loads(sys.argv[1])}
    gru = GRU4Rec(layers=[16], batch_size=8, n_epochs=2, n_sample=32, constrained_embedding=True,
                  **settings)
    gru.fit(log, **json.loads(sys.argv[2]))
    step = functions[0]
"""
BPR_MAX = {"loss": "bpr-max", "final_act": "elu-0.5", "momentum": 0.1}
CROSS_ENTROPY = {"loss": "cross-entropy", "final_act": "softmax", "logq": 1}
STORES = [{}, {"sample_store": 640}, {"store_type": "cpu"}, {"sample_store": 0}]


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
    # of vectors on the host, the number of different negatives is read, and shapes are made
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
    show = "import theano_setup; print(theano_setup.configure())"
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
    import user_errors
    from pygpu import gpuarray
    import gpu_sampling
    def fail(*_):
        raise gpuarray.GpuArrayException("cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory")
    gpu_sampling.GpuSampler._empty = fail
    try:
        gru.fit(log)
    except user_errors.InputError as err:
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
        import theano_setup
        command = "import theano_setup; print(theano_setup.configure())"
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
    by_op = out.split("\nrsc15:\n")[1]
    assert re.match(r"\d+\.\d us a step, \d+ nodes", by_op)
    assert all(op in by_op for op in ("GpuLoss", "GpuUpdate", "GpuGRU", "GpuGather")), out


# ---------------------------------------------------------------------------- what `make gpu` does


def test_libraries_are_found_by_the_names_that_libgpuarray_opens(tmp_path, monkeypatch):
    """Without any search path: by a stub that is loaded before."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import gpu

    package = tmp_path / "nvidia" / "thing" / "lib"
    package.mkdir(parents=True)
    for name, code in (("libother.so.3", "int other() {return 40;}"),
                       ("libthing.so.12", "int other(); int thing() {return other() + 2;}")):
        source = tmp_path / "source.c"
        source.write_text(code)
        command = ["gcc", "-shared", "-fPIC", "-o", package / name, source, f"-Wl,-soname,{name}"]
        needed = [package / "libother.so.3"] if name != "libother.so.3" else []
        subprocess.run([*command, *needed], check=True)
    monkeypatch.setattr(gpu, "LIBRARIES", {"libthing.so": "nvidia/thing/lib/libthing.so.12"})
    stubs = tmp_path / "prefix" / "lib" / "gru4rec-gpu"
    gpu.link_libraries(tmp_path, stubs)
    out = program(
        """
        import ctypes, sys
        import theano_setup
        sys.prefix = sys.argv[1]
        theano_setup._load_cuda_libraries()
        print("FOUND", ctypes.CDLL("libthing.so").thing())
        """,
        tmp_path / "prefix",
    )
    assert "FOUND 42" in out


def test_a_missing_driver_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import gpu

    monkeypatch.setattr(gpu, "LIBRARIES", {"libcuda.so": "libnot-there.so.1"})
    with pytest.raises(SystemExit) as stop:
        gpu.link_libraries(tmp_path, tmp_path / "stubs")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: libnot-there.so.1, a part of NVIDIA's driver, is not installed")
    assert error.count("\n") == 1


# ---------------------------------------------------------------------------- CUDA's compiler


@pytest.mark.parametrize("capability", [60, 70, 80, 90])
def test_every_kernel_compiles_for_cuda(capability):
    """With the header of the installed libgpuarray, in all ways in which the Ops use kernels."""
    wheel = next(iter(importlib.import_module("nvidia.cuda_nvrtc").__path__))
    library = ctypes.CDLL(str(next(Path(wheel, "lib").glob("libnvrtc.so.*"))))
    listing = program(
        """
        import json
        import cpu_ops, custom_opt, gpu_kernels, gpu_ops, gpu_updates
        Loss, Update = cpu_ops.Loss, cpu_ops.Update
        ops = [cpu_ops.Gather(), cpu_ops.Outputs(), cpu_ops.LogQ(1, 0.5), cpu_ops.Dropout()]
        for name in ("linear", "relu", "tanh", "leaky-0.1", "elu-0.5", "selu-1.1-1.6"):
            ops += [cpu_ops.GRU(name), cpu_ops.GRUGradient(name), cpu_ops.CountRanks(name)]
            ops += [Loss(loss, name, 1, 0.1) for loss in cpu_ops.LOSSES]
        twins = [gpu_ops.GpuLookUps(None), *map(custom_opt.gpu_twin, ops)]
        most = ((),) * gpu_updates.MOST_DENSE + ((False, True),) * gpu_updates.MOST_ROWS
        for method in cpu_ops.METHODS:
            for weighted in (((),), ((True,),), ((), (), (False, True), (False,)), most):
                for momentum in (False, True):
                    twins.append(gpu_updates.GpuUpdate(method, momentum, True, weighted))
        sources = {gpu_kernels.kernel_source("sampling", name)[0] for name in ("draw", "merge")}
        for twin in twins:
            for kernel in twin.KERNELS:
                sources.add(gpu_kernels.kernel_source(twin.FILE, kernel, **twin.constants())[0])
        print("SOURCES", json.dumps(sorted(sources)))
        """
    )
    sources = json.loads(listing.split("SOURCES")[1])
    assert len(sources) > 80
    header = cuda_header()
    for source in sources:
        log = compile_for_cuda(library, source, header, capability)
        assert log is None, f"{log}\n{source}"


def cuda_header() -> bytes:
    """The text of cluda.h for CUDA, as libgpuarray holds it."""
    library = next(path for path in Path("/usr/lib").rglob("libgpuarray.so.3"))
    texts = library.read_bytes().split(b"\0")
    return next(t[t.index(b"#ifndef CLUDA_H") :] for t in texts if b"#define KERNEL extern" in t)


def compile_for_cuda(library, source, header, capability):
    """Return the compiler's messages, None if it succeeds."""
    handle, size = ctypes.c_void_p(), ctypes.c_size_t()
    one = ctypes.c_char_p * 1
    created = library.nvrtcCreateProgram(
        ctypes.byref(handle), source.encode(), b"kernel", 1, one(header), one(b"cluda.h")
    )
    assert created == 0
    options = one(f"-arch=compute_{capability}".encode())
    result = library.nvrtcCompileProgram(handle, 1, options)
    library.nvrtcGetProgramLogSize(handle, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(handle, log)
    library.nvrtcDestroyProgram(ctypes.byref(handle))
    return log.value.decode() if result else None
