"""Checks of the GPU's kernels without a GPU: under oclgrind, and by NVIDIA's assembler."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import textwrap

import pytest
from helpers.cli import ROOT, complaint, python

sys.path.insert(0, str(ROOT))

from gru4rec_toolkit.errors import InputError
from tools import cuda_compiler, kernels_races, kernels_registers

HAS_PYGPU = importlib.util.find_spec("pygpu") is not None
under_oclgrind = pytest.mark.skipif(
    not (HAS_PYGPU and shutil.which("oclgrind")), reason="oclgrind or pygpu is not installed"
)


def has_ptxas() -> bool:
    """Whether there is one that knows all architectures."""
    try:
        kernels_registers.find_ptxas()
    except InputError:
        return False
    return HAS_PYGPU


def brings_ptxas() -> bool:
    """Whether the ptxas of NVIDIA's package is installed."""
    return bool(importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.cuda_nvcc"))


by_ptxas = pytest.mark.skipif(not has_ptxas(), reason="ptxas or pygpu is not installed")


# ---------------------------------------------------------------------------- oclgrind


@under_oclgrind
def test_oclgrind_finds_nothing_in_any_kernel():
    found = kernels_races.watch(kernels_races.QUICK)
    assert not kernels_races.problems(found)
    rows = kernels_races.table(found).splitlines()[2:-1]
    assert len(rows) == len(kernels_races.kernels()) > 20
    assert all(row.endswith(" | 0 | 0 | 0 | 0 | 0 |") for row in rows)


# kernels without a fault, of which the second reads what the first has written into a buffer (each
# buffer follows a smaller one that was released); and one with each fault
FAULTY = """
    import os
    from gru4rec_toolkit import theano_setup
    theano_setup.configure()
    import numpy as np
    from pygpu import gpuarray
    from theano.gpuarray.type import get_context
    context = get_context(None)
    sources = {
        "writes": "KERNEL void writes(GLOBAL_MEM ga_float *x) { x[LID_0] = LID_0; }",
        "reads": "KERNEL void reads(GLOBAL_MEM ga_float *x) { if (x[LID_0] > 2) x[LID_0] = 1; }",
    }
    kernels = [
        gpuarray.GpuKernel('#include "cluda.h"\\n' + source, name, [gpuarray.GpuArray], context)
        for name, source in sources.items()
    ]
    for n in (1, 8, 1, 8):
        x = gpuarray.empty((n,), dtype="f", context=context)
        for kernel in kernels:
            kernel(x, gs=1, ls=n)
        np.asarray(x)
        del x
    BODIES = {
        "right": "sums[LID_0] = x[LID_0]; local_barrier(); y[LID_0] = sums[7 - LID_0];",
        "no_barrier": "sums[LID_0] = x[LID_0]; y[LID_0] = sums[7 - LID_0];",
        "same_value": "y[0] = 1;",
        "global_memory": "y[LID_0] = x[0]; local_barrier(); y[7 - LID_0] = x[1];",
        "one_too_far": "y[LID_0] = x[LID_0 + 1];",
        "in_a_branch": "if (LID_0 < 3) local_barrier(); y[LID_0] = x[LID_0];",
        "never_written": "if (LID_0 > 9) sums[0] = x[0]; if (sums[0] > 0) y[LID_0] = 1;",
        "of_an_empty_array": "if (empty[LID_0] > 0) y[LID_0] = 1;",
    }
    for name, body in BODIES.items():
        source = f'''#include "cluda.h"
        KERNEL void {name}(GLOBAL_MEM ga_float *x, GLOBAL_MEM ga_float *y,
                           GLOBAL_MEM ga_float *empty) {{
            LOCAL_MEM ga_float sums[8];
            {body}
        }}'''
        kernel = gpuarray.GpuKernel(source, name, [gpuarray.GpuArray] * 3, context=context)
        for _ in range(2):
            x = gpuarray.array(np.arange(8, dtype="f"), context=context)
            y, empty = (gpuarray.empty((8,), dtype="f", context=context) for _ in range(2))
            kernel(x, y, empty, gs=1, ls=8)
            np.asarray(y)
            del x, y, empty
    os._exit(0)  # as the programs that are watched otherwise
"""
FAULTS = {
    ("no_barrier", "races"),
    ("no_barrier", "uninitialised"),  # it reads what the threads after it write
    ("same_value", "races"),
    ("global_memory", "races"),
    ("one_too_far", "out of bounds"),
    ("one_too_far", "uninitialised"),
    ("in_a_branch", "divergent barriers"),
    ("never_written", "uninitialised"),
    ("of_an_empty_array", "uninitialised"),
}


@under_oclgrind
def test_oclgrind_finds_each_kind_of_fault():
    found = kernels_races.watch([("-c", textwrap.dedent(FAULTY))])
    assert {(f.kernel, f.kind) for f in found.reports} == FAULTS
    assert found.launches["right"] == 4
    missing = [p for p in kernels_races.problems(found) if p.endswith(" was not launched")]
    assert len(missing) == len(kernels_races.kernels())


LOG = """
Invalid write of size 4 at global memory address 0x2000000000028
\tKernel: update
\tEntity: Global(7,0,0) Local(7,0,0) Group(0,0,0)
\t  store float %0, !dbg !9
\tAt line 12 (column 3) of input.cl:
\t  (source not available)
\t

Invalid write of size 4 at global memory address 0x200000000002c
\tKernel: update
\tEntity: Global(8,0,0) Local(8,0,0) Group(0,0,0)
\t  store float %0, !dbg !9
\tAt line 12 (column 3) of input.cl:
\t  (source not available)
\t

OCLGRIND FATAL ERROR (./src/plugins/Uninitialized.cpp:1805)
Unsupported instruction: freeze
\tKernel: tick
"""


def test_a_report_counts_in_the_row_of_its_kernel():
    found = kernels_races.Findings()
    found.launches.update({name: 3 for name in kernels_races.kernels()})
    assert not kernels_races.problems(found)
    found.reports.update(kernels_races.read_log(LOG.splitlines(keepends=True)))
    rows = kernels_races.table(found).splitlines()
    assert "| update | 3 | 0 | 0 | 2 | 0 | 0 |" in rows
    assert "| tick | 3 | 0 | 0 | 0 | 0 | 1 |" in rows
    first, second = kernels_races.problems(found)
    assert first.startswith("1 times: Unsupported instruction")
    assert second.startswith("2 times: Invalid write of size 4") and "At line 12" in second


def test_every_kernel_is_known_by_its_name():
    """Also to the other check: a kernel that no Op uses there would not be compiled."""
    names = kernels_races.kernels()
    assert len(names) == len(set(names))
    if HAS_PYGPU:
        compiled = {kernel for _, kernel in kernels_registers.sources().values()}
        assert compiled == set(names)


@pytest.mark.parametrize(("command", "tool"), [("races", "oclgrind"), ("registers", "ptxas")])
def test_what_is_missing_is_said_in_a_sentence(command, tool, tmp_path):
    if tool == "ptxas" and brings_ptxas():
        pytest.skip("ptxas is in the environment itself")
    done = python(ROOT / "tools/kernels.py", command, cwd=tmp_path, PATH=str(tmp_path))
    message = complaint(done)
    assert (tool if HAS_PYGPU else "pygpu") in message and "install it with `" in message


def test_a_ptxas_that_does_not_know_an_architecture(tmp_path):
    (tmp_path / "ptxas").write_text("#!/bin/sh\necho \"'sm_75','sm_80','sm_120'\"\n")
    (tmp_path / "ptxas").chmod(0o755)
    if brings_ptxas() or not HAS_PYGPU:
        pytest.skip("ptxas is in the environment itself, or pygpu is not")
    done = python(ROOT / "tools/kernels.py", "registers", cwd=tmp_path, PATH=str(tmp_path))
    assert f"({tmp_path}/ptxas) that does not know sm_60, sm_70, sm_86, sm_90" in complaint(done)


# ---------------------------------------------------------------------------- ptxas

PLAIN = """#include "cluda.h"
KERNEL void plain(GLOBAL_MEM ga_float *x, ga_int n, ga_size at) {
    LOCAL_MEM ga_float part[100];
    part[LID_0] = x[LID_0];
    local_barrier();
    x[at] = part[n];
}
"""
# so many numbers at a time that no registers are left
SPILLING = """#include "cluda.h"
KERNEL void spilling(GLOBAL_MEM ga_float *x) {
    ga_float kept[400];
    #pragma unroll
    for (int i = 0; i < 400; i++) kept[i] = x[i * LID_0];
    local_barrier();
    #pragma unroll
    for (int i = 0; i < 400; i++) x[i * i + LID_0] = kept[i] * kept[(i * 7 + 3) % 400];
}
"""
LARGE = """#include "cluda.h"
typedef struct { ga_float numbers[1025]; } many;
KERNEL void large(GLOBAL_MEM ga_float *x, many of) { x[LID_0] = of.numbers[1024]; }
"""


# says the architecture in the place of the registers
STAND_IN = """#!/bin/sh
echo "ptxas info : 16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads" >&2
echo "ptxas info : Used ${2#-arch=sm_} registers, 400 bytes smem" >&2
"""


def test_needs_by_kernel_and_architecture(tmp_path):
    """With an assembler of the test's own: NVIDIA's is in few environments."""
    try:
        cuda_compiler.nvrtc(), cuda_compiler.cuda_header()
    except InputError as err:
        pytest.skip(str(err))
    ptxas = tmp_path / "ptxas"
    ptxas.write_text(STAND_IN)
    ptxas.chmod(0o700)
    variants = {source: ("a", "plain") for source in (PLAIN, PLAIN.replace("100", "200"))}
    found = kernels_registers.measure(variants, (60, 90), str(ptxas))
    needs = {a: kernels_registers.Needs(a, 8, 16, 400, 24) for a in (60, 90)}
    assert found == {("a/plain", a): [needs[a]] * 2 for a in (60, 90)}
    assert kernels_registers.summary(found).splitlines()[-1] == (
        "| a/plain | 2 | 60 to 90 | 8 | 16 | 400 | 24 |"
    )


@by_ptxas
def test_what_kernels_need():
    kernels = {PLAIN: ("a", "plain"), SPILLING: ("a", "spilling")}
    found = kernels_registers.measure(kernels, (60, 120), kernels_registers.find_ptxas())
    assert set(found) == {(f"a/{n}", a) for n in ("plain", "spilling") for a in (60, 120)}
    for architecture in (60, 120):
        (plain,), (spilling,) = (found[f"a/{n}", architecture] for n in ("plain", "spilling"))
        assert (plain.spilled, plain.shared, plain.parameters) == (0, 400, 24)
        assert 0 < plain.registers < 40
        assert spilling.registers > 200 and spilling.spilled > 0
    warnings = kernels_registers.warnings(found)
    assert [w.split(" bytes")[0].rstrip("0123456789") for w in warnings] == [
        "a/spilling on sm_60 spills ", "a/spilling on sm_120 spills ",
    ]  # fmt: skip
    assert kernels_registers.summary(found).count("\n") == 3
    assert kernels_registers.table(found).count("\n") == 5


@by_ptxas
def test_the_most_demanding_kernel_on_the_oldest_and_the_newest_architecture():
    most = {s: names for s, names in kernels_registers.sources().items() if names[1] == "update"}
    most = dict([max(most.items(), key=lambda item: len(item[0]))])
    found = kernels_registers.measure(most, (60, 120), kernels_registers.find_ptxas())
    assert not kernels_registers.warnings(found)
    assert {n.parameters for needs in found.values() for n in needs} == {2720}


def test_warnings():
    fine = kernels_registers.Needs(255, 0, 0, 0, 4096)
    assert not list(fine.warnings(256))
    assert list(fine.warnings(257)) == [
        "cannot be launched: 257 threads of 255 registers need 65792, a block has at most 65536"
    ]
    (parameters,) = kernels_registers.Needs(8, 0, 0, 0, 4100).warnings(256)
    assert parameters.startswith("takes 4100 bytes of parameters")


SAID = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'count_ranks' for 'sm_80'
ptxas info    : Function properties for count_ranks
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 21 registers, used 1 barriers, 2048 bytes smem, 480 bytes cmem[0]
ptxas info    : Function properties for _Z8value_off
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""


def test_reading_what_ptxas_says():
    needs = kernels_registers.read_needs(SAID, 128)
    assert needs == kernels_registers.Needs(21, 8, 16, 2048, 128)
    without = SAID.replace(" 2048 bytes smem,", "")
    assert kernels_registers.read_needs(without, 0).shared == 0


def test_bytes_of_parameters_with_gaps():
    entry = ".visible .entry f(\n\t.param .u32 f_0,\n\t.param .u64 f_1,\n\t.param .f32 f_2\n)\n{"
    assert kernels_registers.bytes_of_parameters(entry) == 20
    assert kernels_registers.bytes_of_parameters(".entry f()\n{") == 0


def test_source_that_does_not_compile_for_cuda():
    try:
        library, header = cuda_compiler.nvrtc(), cuda_compiler.cuda_header()
    except InputError as err:
        pytest.skip(str(err))
    with pytest.raises(cuda_compiler.CompilationFailed, match="thread_number"):
        source = '#include "cluda.h"\nKERNEL void f(ga_int x) { x = thread_number; }'
        cuda_compiler.compile_for_cuda(library, source, header, 80)
