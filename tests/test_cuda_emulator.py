"""The emulator of CUDA (tests/cuda_emulator): what it catches, and failures as users meet them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from helpers import cuda_emulator
from helpers.cli import TRAIN, environment
from helpers.on_gpu import CUDA, ROOT, Gpu

ORDERS = ("forward", "backward", "rotated")


def card(**settings) -> Gpu:
    """Return an emulated card with other settings."""
    return Gpu(CUDA, cuda_emulator.environment(**settings))


# ---------------------------------------------------------------------------- planted faults

# each element becomes the sum of it and its right neighbour, and a group's sum goes to `total`
KERNEL = """
#include "cluda.h"
KERNEL void neighbours(GLOBAL_MEM ga_float *x, ga_size n, GLOBAL_MEM ga_float *total) {
    LOCAL_MEM ga_float tile[64];
    const ga_size i = LID_0;
    tile[i] = x[i];
    local_barrier();  // 1
    const ga_float right = i + 1 < n ? tile[i + 1] : 0.f;
    local_barrier();  // 2
    tile[i] += right;
    local_barrier();  // 3
    x[i] = tile[i];
    for (ga_int half_of = LDIM_0 / 2; half_of > 0; half_of /= 2) {
        if (i < half_of) tile[i] += tile[i + half_of];
        local_barrier();  // 4
    }
    if (i == 0) total[0] = tile[0];
}
"""
# argument: kernels by name, in JSON; says for each whether it computes what numpy does
LAUNCH = """
import json, sys
import numpy as np, pygpu
from pygpu import gpuarray
context = pygpu.init("cuda0", max_cache_size=0)
values = np.arange(1, 65, dtype="float32")
right = values + np.append(values[1:], 0).astype("float32")
types = [gpuarray.GpuArray, gpuarray.SIZE, gpuarray.GpuArray]
for name, source in json.loads(sys.argv[1]).items():
    kernel = gpuarray.GpuKernel(source, "neighbours", types, context=context)
    x = gpuarray.array(values, context=context)
    total = gpuarray.empty((1,), "float32", context=context)
    try:
        kernel(x, 64, total, gs=1, ls=64)
        same = np.array_equal(np.asarray(x), right) and np.asarray(total)[0] == right.sum()
        print(name, "right" if same else "wrong", flush=True)
    except gpuarray.GpuArrayException as err:
        print(name, "refused", flush=True)
"""


def changed(old: str, new: str) -> str:
    assert KERNEL.count(old) == 1
    return KERNEL.replace(old, new)


def launched(kernels: dict[str, str], **settings):
    ran = card(**settings).run("-c", LAUNCH, json.dumps(kernels))
    verdicts = dict(line.split() for line in ran.stdout.splitlines() if len(line.split()) == 2)
    return verdicts, ran


@pytest.mark.parametrize("strict", [0, 1])
def test_a_right_kernel_is_right_in_every_order(cuda, strict):
    for order in ORDERS:
        verdicts, ran = launched({"kernel": KERNEL}, strict=strict, order=order)
        assert verdicts == {"kernel": "right"}, ran
        assert not ran.log


def test_what_is_counted(cuda, tmp_path):
    file = tmp_path / "counts"
    launched({"first": KERNEL, "second": KERNEL}, counts=file)
    expected = {"launches": {"neighbours": 2}, "to_device": [2, 512], "to_host": [4, 2 * 260]}
    assert json.loads(file.read_text()) == expected


def test_each_barrier_that_is_removed_is_noticed(cuda):
    kernels = {str(n): changed(f"local_barrier();  // {n}", "") for n in (1, 2, 3, 4)}
    wrong = set()
    for order in ORDERS:
        verdicts, _ = launched(kernels, order=order)
        wrong |= {name for name, verdict in verdicts.items() if verdict == "wrong"}
    assert wrong == set(kernels)


def test_an_index_one_too_far_ends_the_process_and_names_the_kernel(cuda):
    place = "kernel neighbours, block 0 0 0, thread"
    writes, reads = ("x[i] = tile[i];", "x[i + 1] = tile[i];"), ("= x[i];", "= x[i + 1];")
    for way in (writes, reads):
        verdicts, ran = launched({"beyond": changed(*way)}, strict=1)
        assert ran.returncode == -11 and not verdicts
        expected = f"{place} 63: an access at byte 256 of a buffer of 256 bytes"
        assert ran.log.startswith(expected) and expected in ran.stderr
    verdicts, ran = launched(
        {"before": changed("x[i] = tile[i];", "x[(long)i - 1] = tile[i];")},
        strict=1,
        guard="before",
    )
    assert ran.log.startswith(f"{place} 0: an access at byte -4 of a buffer of 256 bytes")


@pytest.mark.parametrize("optimized", ["", "else local_barrier();"])
def test_a_barrier_in_a_branch_is_named(cuda, optimized):
    source = changed("local_barrier();  // 2", f"if (i < 32) local_barrier(); {optimized}")
    verdicts, ran = launched({"branch": source, "next": KERNEL})
    assert verdicts == {"branch": "refused", "next": "right"}
    assert ran.log.startswith("kernel neighbours: a barrier in a branch: ")
    assert ran.log.count("\n") == 1


def test_memory_that_nobody_has_written_is_not_zero(cuda):
    kernels = {
        "of-the-device": changed("total[0] = tile[0];", "total[0] += tile[0];"),
        "shared": changed("tile[i] = x[i];", "if (i) tile[i] = x[i];"),
    }
    for strict in (0, 1):
        verdicts, _ = launched(kernels, strict=strict)
        assert set(verdicts.values()) == {"wrong"} and len(verdicts) == 2


def test_blocks_that_a_card_does_not_take(cuda):
    source = LAUNCH.replace("gs=1, ls=64", "gs=1, ls=2048")
    ran = card().run("-c", source, json.dumps({"kernel": KERNEL}))
    assert "refused" in ran.stdout


PRODUCTS = """
import ctypes
import numpy as np, pygpu
from pygpu import blas, gpuarray
context = pygpu.init("cuda0", max_cache_size=0)
rng = np.random.default_rng(0)
for dtype in ("float32", "float64"):
    for trans_a in (False, True):
        for trans_b in (False, True):
            a, b = (rng.standard_normal((8, 8)).astype(dtype) for _ in "ab")
            on_gpu = [gpuarray.array(v, context=context) for v in (a, b)]
            # the result's memory is NaN, which beta = 0 must not read
            c = blas.gemm(1, *on_gpu, 0, trans_a=trans_a, trans_b=trans_b)
            np.testing.assert_allclose(
                c, (a.T if trans_a else a) @ (b.T if trans_b else b), rtol=1e-4, atol=1e-5)
        y = blas.gemv(1, on_gpu[0], on_gpu[1][0], 0, trans_a=trans_a)
        np.testing.assert_allclose(y, (a.T if trans_a else a) @ b[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(blas.dot(on_gpu[0][1], on_gpu[1][2]), a[1] @ b[2], rtol=1e-4)
    z = blas.ger(2, on_gpu[0][0], on_gpu[1][0])
    np.testing.assert_allclose(z, 2 * np.outer(a[0], b[0]), rtol=1e-4)
cublas, f = ctypes.CDLL("libcublas.so"), ctypes.c_float(1)
a = ctypes.c_void_p(gpuarray.zeros((8, 8), "float32", context=context).gpudata)
one = ctypes.byref(f)
def sgemm(m, n, k, lda, ldb, ldc):
    return cublas.cublasSgemm_v2(None, 0, 0, m, n, k, one, a, lda, a, ldb, one, a, ldc)
print("CODES", sgemm(8, 8, 8, 8, 8, 8), sgemm(8, 8, 8, 7, 8, 8), sgemm(8, 8, 8, 8, 8, 9),
      sgemm(8, 9, 8, 8, 8, 8), sgemm(-1, 8, 8, 8, 8, 8))
"""


def test_products(cuda):
    ran = cuda.run("-c", PRODUCTS)
    assert "CODES 0 7 7 7 7" in ran.stdout, ran
    assert ran.log.splitlines() == [
        "cublasSgemm_v2: expected lda >= std::max(1, rows_a)",
        "cublasSgemm_v2: expected holds_matrix(c, m, n, ldc)",
        "cublasSgemm_v2: expected holds_matrix(b, rows_b, columns_b, ldb)",
        "cublasSgemm_v2: expected m >= 0 && n >= 0 && k >= 0",
    ]


COMPILE = """
import sys, pygpu
from pygpu import gpuarray
context = pygpu.init("cuda0")
source = '#include "cluda.h"\\nKERNEL void one(GLOBAL_MEM ga_float *x) { x[0] = %s; }' % sys.argv[1]
try:
    gpuarray.GpuKernel(source, "one", [gpuarray.GpuArray], context=context)
    print("COMPILED")
except gpuarray.GpuArrayException as err:
    print(err)
"""


def test_errors_of_the_real_compiler_are_the_result(cuda):
    if cuda_emulator.real_nvrtc() is None:
        pytest.skip("NVIDIA's compiler is not installed")
    ran = cuda.run("-c", COMPILE, 'strlen("a function of the host")')
    assert "error: " in ran.stdout and "strlen" in ran.stdout.split("Compile log")[1]
    assert ran.log.startswith("the real NVRTC refuses a source (6)")


def test_a_driver_refuses_newer_ptx(cuda):
    for driver, compiles in ((12020, False), (12090, True), (13000, True)):
        ran = card(driver=driver, nvrtc="").run("-c", COMPILE, "1.f")
        assert ("COMPILED" in ran.stdout) == compiles, ran
        sentence = "Unsupported .version 8.8; current version is '8.2'"
        assert (sentence in ran.stdout) != compiles
        assert ("PTX 8.8 is too new for a driver of CUDA 12020" in ran.log) != compiles


# ---------------------------------------------------------------------------- the build


def test_the_build_is_whole_or_not_at_all(tmp_path, monkeypatch):
    """And made again when a source changes."""
    if cuda_emulator.missing():
        pytest.skip(f"CUDA cannot be emulated: {cuda_emulator.missing()}")
    sources, built = tmp_path / "sources", tmp_path / "built"
    sources.mkdir()
    for names in (s for _, s in cuda_emulator.LIBRARIES.values()):
        for name in names:
            (sources / name).write_text("")
    for name in ("prelude.h", "kernel_abi.h"):
        (sources / name).write_text("")
    monkeypatch.setattr(cuda_emulator, "SOURCES", sources)
    monkeypatch.setattr(cuda_emulator, "BUILT", built)
    build = cuda_emulator.build.__wrapped__
    first = build()
    assert build() == first
    assert (first / "libcuda.so").exists() and (first / "libnvrtc.so.12").exists()
    (sources / "products.cpp").write_text("no C++")
    with pytest.raises(RuntimeError, match="no C"):
        build()
    assert [p for p in built.iterdir() if p.is_dir()] == [first]
    (sources / "products.cpp").write_text("int changed;")
    assert build() != first
    assert len([p for p in built.iterdir() if p.is_dir()]) == 2


# ---------------------------------------------------------------------------- failures of users


def complaint(ran) -> str:
    """The one sentence that a program says, without a traceback."""
    assert ran.returncode == 2, ran
    assert "Traceback" not in ran.stderr
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and ran.stderr.splitlines()[-1] == errors[0], ran.stderr
    return errors[0]


def train(gpu: Gpu, parameters="layers=16,batch_size=16", device=CUDA, **variables):
    return gpu.run("run.py", TRAIN, "-ps", parameters, "-d", device, THEANO_FLAGS="", **variables)


def test_auto_finds_the_card(cuda):
    trained = train(cuda, "layers=16,batch_size=16,n_epochs=1", device="auto")
    assert trained.returncode == 0 and not trained.log
    assert "device: cuda0 (found a CUDA GPU)" in trained.stderr


def test_no_driver(cuda, tmp_path):
    for name in ("libnvrtc.so", "libcublas.so"):
        shutil.copy(cuda_emulator.build() / name, tmp_path)
    error = complaint(train(cuda, LD_LIBRARY_PATH=str(tmp_path)))
    assert "device cuda0 (asked for) cannot be opened: " in error and "libcuda.so" in error


def test_no_device(cuda):
    error = complaint(train(card(devices=0)))
    assert "device cuda0 (asked for) cannot be opened: " in error
    assert "CUDA_ERROR_NO_DEVICE" in error


def test_a_device_that_is_not_there(cuda):
    error = complaint(train(card(devices=2), device="cuda2"))
    assert "device cuda2 (asked for) cannot be opened: " in error


def test_out_of_memory(cuda):
    parameters = "layers=2000,batch_size=64,constrained_embedding=True"
    error = complaint(train(card(memory=16), parameters))
    assert error.startswith("error: not enough memory on cuda0: ")


NEWER, UNKNOWN = "newer than the driver", "do not know this card"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"driver": 12020}, NEWER), ({"driver": 12040}, NEWER), ({"capability": 120}, UNKNOWN)],
)
def test_a_card_that_opens_and_cannot_compile(cuda, settings, reason):
    """With NVRTC 12.9 as it is; `make gpu` would choose another one, or name the card to it."""
    if cuda_emulator.real_nvrtc() is None:
        pytest.skip("NVIDIA's compiler is not installed")
    error = complaint(train(card(**settings)))
    assert "device cuda0 (asked for) cannot compile: " in error
    assert reason in error and "run `make gpu` again" in error
    trained = train(card(**settings), "layers=16,batch_size=16,n_epochs=1", device="auto")
    assert trained.returncode == 0 and "Traceback" not in trained.stderr
    first = next(line for line in trained.stderr.splitlines() if line.startswith("device: "))
    assert first.startswith("device: cpu (no CUDA GPU: cuda0 cannot compile: ") and reason in first


# ---------------------------------------------------------------------------- make gpu


@pytest.fixture
def fresh(tmp_path):
    """A Python with the packages of this one but NVIDIA's, and the emulator in their place."""
    prefix = tmp_path / "fresh"
    venv.create(prefix, with_pip=False, symlinks=True)
    here = Path(sysconfig.get_path("purelib"))
    there = Path(sysconfig.get_path("purelib", vars={"base": str(prefix)}))
    for entry in here.iterdir():
        if not entry.name.startswith("nvidia"):
            (there / entry.name).symlink_to(entry)
    emulator = cuda_emulator.build()
    for folder, name in (("cuda_nvrtc", "libnvrtc.so.12"), ("cublas", "libcublas.so.12")):
        library = there / "nvidia" / folder / "lib" / name
        library.parent.mkdir(parents=True)
        shutil.copy(emulator / name, library)
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / "libcuda.so.1").symlink_to(emulator / "libcuda.so.1")
    return prefix


@pytest.mark.parametrize("capability", [90, 120])
def test_make_gpu_from_start_to_end(cuda, fresh, tmp_path, capability):
    """Also for a card whose architecture libgpuarray cuts to two digits."""
    variables = {**cuda_emulator.environment(capability=capability), "THEANO_FLAGS": None}
    variables.update(LD_LIBRARY_PATH=str(tmp_path / "driver"), PYTHONPATH=None)
    done = subprocess.run(
        [fresh / "bin" / "python", ROOT / "tools" / "gpu.py"],
        capture_output=True, text=True, cwd=tmp_path, env=environment(**variables),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    steps = done.stdout.splitlines()
    card_line = rf"  driver for CUDA 12.9: \S+/libcuda\S+; cards: .* \({capability / 10}\)"
    assert any(re.fullmatch(card_line, step) for step in steps), steps
    assert any("device: cuda0" in step for step in steps), steps
    assert steps[-2:] == [
        "  a small model was trained and evaluated",
        "ready: -d cuda0, or no -d at all",
    ]
    for name in cuda_emulator.LIBRARIES:
        assert (fresh / "lib" / "gru4rec-gpu" / name).exists()
