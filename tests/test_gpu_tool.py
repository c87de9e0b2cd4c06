"""`make gpu`: which of NVIDIA's libraries fit a driver and its cards, and what is done with them.

Driver and cards are those of a small libcuda, and NVRTC is the real one where it is installed.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers.cli import ROOT, complaint, python, succeeds

TOOLS = ROOT / "tools"
sys.path.insert(0, str(TOOLS))

import cuda_libraries as cuda  # noqa: E402
import gpu  # noqa: E402

# a driver for CUDA VERSION with CARDS, or one that answers INIT
LIBCUDA = r"""
#include <cstdio>
#include <cstdlib>
#include <cstring>
static int cards[8], n_cards;
extern "C" {
int cuInit(int) {
  char text[100];
  std::snprintf(text, sizeof text, "%s", getenv("CARDS"));
  for (char* p = strtok(text, ","); p; p = strtok(nullptr, ",")) cards[n_cards++] = atoi(p);
  return atoi(getenv("INIT"));
}
int cuDriverGetVersion(int* version) { *version = atoi(getenv("VERSION")); return 0; }
int cuDeviceGetCount(int* n) { *n = n_cards; return 0; }
int cuDeviceGet(int* device, int i) { *device = i; return 0; }
int cuDeviceGetName(char* name, int n, int i) { std::snprintf(name, n, "Card %d", i); return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int i) {
  *value = attribute == 75 ? cards[i] / 10 : attribute == 76 ? cards[i] % 10 : -1;
  return 0;
}
}
"""
# the same for one card, whose compute capability can be set
LIBCUDA_OF_ONE = r"""
static int capability;
extern "C" void set(int value) { capability = value; }
extern "C" int cuCtxGetDevice(int* device) { *device = 3; return capability == 0; }
extern "C" int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? capability / 10 : capability % 10;
  return device != 3;
}
"""
NVRTC = r"""
extern "C" int nvrtcVersion(int* a, int* b) { *a = MAJOR; *b = MINOR; return 0; }
extern "C" int nvrtcGetNumSupportedArchs(int* n) { *n = 2; return 0; }
extern "C" int nvrtcGetSupportedArchs(int* a) { a[0] = OLDEST; a[1] = 121; return 0; }
"""
CUBLAS = (
    r"""
extern "C" int cublasGetProperty(int part, int* value) { *value = part ? MINOR : MAJOR; return 0; }
"""
    + 'extern "C" {'
    + "".join(f"int {name}() {{ return 0; }}\n" for name in cuda.FUNCTIONS)
    + "}"
)


def build(path: Path, source: str, *options: str) -> Path:
    """Compile a library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-x", "none", "-o", str(path), *options]
    subprocess.run(command, input=source, text=True, check=True)
    return path


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A directory with the driver's library."""
    path = tmp_path_factory.mktemp("driver") / cuda.DRIVER
    return build(path, LIBCUDA, f"-Wl,-soname,{cuda.DRIVER}").parent


def machine(version, *capabilities):
    cards = [cuda.Card(f"Card {i}", c) for i, c in enumerate(capabilities)]
    return cuda.Machine(Path(cuda.DRIVER), version, cards)


# ---------------------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("version", "capability", "chosen"),
    [
        *(((11, 8), c, (11, 8)) for c in (60, 70, 75, 80, 86, 89, 90)),
        *((v, c, (12, 0)) for v in ((12, 0), (12, 2), (12, 4)) for c in (60, 75, 89, 90)),
        *(((12, 8), c, (12, 8)) for c in (60, 90, 100, 101, 120, 121)),
        *(
            (v, c, (12, 9))
            for v in ((12, 9), (13, 0))
            for c in (60, 70, 75, 90, 100, 103, 120, 121)
        ),
        ((11, 8), 37, (11, 8)),
    ],
)
def test_the_release_for_a_driver_and_a_card(version, capability, chosen):
    release = cuda.choose(machine(version, capability))
    assert release.version == chosen
    names = f"{release.compiler} {release.products}"
    assert re.fullmatch(
        rf"nvidia-cuda-nvrtc-cu{chosen[0]}=={chosen[0]}.{chosen[1]}[.\d]+ "
        rf"nvidia-cublas-cu{chosen[0]}=={chosen[0]}[.\d]+",
        names,
    )


@pytest.mark.parametrize(
    ("version", "capabilities", "said"),
    [
        (
            (11, 4),
            [75],
            "CUDA 11.4 at most, and Card 0 has .* 7.5: .* driver of CUDA 11.8 or later",
        ),
        ((11, 8), [100], "Card 0 has compute capability 10.0: it needs a driver of CUDA 12.8"),
        ((12, 4), [75, 120], "Card 1 has compute capability 12.0: it needs a driver of CUDA 12.8"),
        ((13, 0), [30], "Card 0 has compute capability 3.0, .* know 3.5 and later"),
        ((12, 8), [37, 120], r"fits that and all of Card 0 \(3.7\), Card 1 \(12.0\)"),
    ],
)
def test_what_no_release_fits(version, capabilities, said):
    with pytest.raises(cuda.Unfit, match=said):
        cuda.choose(machine(version, *capabilities))


def test_one_release_serves_all_cards():
    assert cuda.choose(machine((12, 9), 60, 121)).version == (12, 9)
    assert cuda.choose(machine((12, 9), 37)).version == (11, 8)


# ---------------------------------------------------------------------------- the driver


ASK = f"""
import sys
sys.path.insert(0, {str(TOOLS)!r})
import cuda_libraries as cuda
from pathlib import Path
try:
    machine = cuda.ask_driver()
except cuda.Unfit as err:
    sys.exit(str(err))
"""


def ask(driver, code="print(machine)", version="12020", cards="75", init="0", **env):
    variables = {"LD_LIBRARY_PATH": str(driver), "VERSION": version, "CARDS": cards, "INIT": init}
    return python("-c", ASK + code, cwd=driver, **{**variables, **env})


def test_what_the_driver_says(driver):
    code = "print(machine.library, machine.version, machine.cards == {})"
    cards = [cuda.Card("Card 0", 75), cuda.Card("Card 1", 120)]
    done = ask(driver, code.format(repr(cards).replace("Card(", "cuda.Card(")), "13000", "75,120")
    assert succeeds(done).out == f"{driver / cuda.DRIVER} (13, 0) True\n"
    assert "(12, 9)" in ask(driver, "print(machine.version)", "12090").out


def test_a_driver_that_does_not_work(driver, tmp_path):
    for code, said in (("100", "sees no card"), ("803", "restart"), ("999", "error 999")):
        assert said in ask(driver, init=code).err
    assert "sees no card" in ask(driver, cards="").err
    (tmp_path / cuda.DRIVER).write_text("no library")
    assert "NVIDIA's driver, is not installed; " in ask(tmp_path).err


# ---------------------------------------------------------------------------- what is there


FOUND = """
found = cuda.find_compiler(machine), cuda.find_products(machine)
print(*(x and f"{x.version} {x.path}" for x in found), sep="\\n")
"""


def nvrtc(path, major, minor, oldest=50):
    return build(path, NVRTC, f"-DMAJOR={major}", f"-DMINOR={minor}", f"-DOLDEST={oldest}")


def cublas(path, major, minor, source=CUBLAS):
    return build(path, source, f"-DMAJOR={major}", f"-DMINOR={minor}")


def find(driver, packages, **options):
    # none of the machine's own libraries is looked at
    code = f"""
cuda._candidates = lambda name: Path({str(packages)!r}).rglob(f"{{name}}.so.*")
"""
    return succeeds(ask(driver, code + FOUND, **options)).lines


def test_libraries_of_any_layout_are_taken_where_they_fit(driver, tmp_path):
    old = nvrtc(tmp_path / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12", 12, 2)
    new = nvrtc(tmp_path / "nvidia/cu13/lib/libnvrtc.so.13", 13, 0, oldest=75)
    nvrtc(tmp_path / "nvidia/cu13/lib/libnvrtc.alt.so.13", 13, 9)
    (tmp_path / "nvidia/cu13/lib/libnvrtc-builtins.so.13.0").write_text("")
    (tmp_path / "nvidia/cu13/lib/libnvrtc.so.11").write_text("damaged")
    old_blas = cublas(tmp_path / "nvidia/cublas/lib/libcublas.so.12", 12, 6)
    new_blas = cublas(tmp_path / "nvidia/cu13/lib/libcublas.so.13", 13, 1)
    for version, cards, compiler, products in (
        ("13000", "90", f"(13, 0) {new}", f"(13, 1) {new_blas}"),
        ("13010", "70", f"(12, 2) {old}", f"(12, 6) {old_blas}"),
        (
            "12020",
            "90",
            f"(12, 2) {old}",
            f"(12, 6) {old_blas}",
        ),  # cuBLAS of the same major version
        ("12010", "90", "None", f"(12, 6) {old_blas}"),
        ("12090", "120", f"(12, 2) {old}", "None"),
        ("11080", "75", "None", "None"),
        ("13000", "75,61", f"(12, 2) {old}", f"(12, 6) {old_blas}"),
    ):
        assert find(driver, tmp_path, version=version, cards=cards) == [compiler, products]


def test_a_cublas_without_a_function_is_not_taken(driver, tmp_path):
    path = tmp_path / "libcublas.so.13"
    cublas(path, 13, 0)
    assert find(driver, tmp_path, version="13000")[1] == f"(13, 0) {path}"
    cublas(path, 13, 0, CUBLAS.replace("cublasSger_v2", "cublasSger_v3"))
    assert find(driver, tmp_path, version="13000")[1] == "None"


def test_packages_toolkits_and_the_system_are_looked_at(driver, tmp_path):
    of_pypi = nvrtc(tmp_path / "packages/nvidia/cu13/lib/libnvrtc.so.13", 13, 0)
    toolkit = nvrtc(tmp_path / "cuda/lib64/libnvrtc.so.12", 12, 1)
    env = {"PYTHONPATH": str(tmp_path / "packages"), "CUDA_HOME": str(tmp_path / "cuda")}
    done = succeeds(ask(driver, "print(*cuda.paths('libnvrtc'), sep='\\n')", **env))
    assert {str(of_pypi), str(toolkit)} <= set(done.lines)


# ---------------------------------------------------------------------------- libnvrtc.so


def real_nvrtc() -> Path:
    found = [p for p in cuda.paths("libnvrtc") if list(cuda.look_at_compiler(p))]
    if not found:
        pytest.skip("NVRTC is not installed (make gpu, make gpu-sim)")
    return found[-1]


@pytest.fixture(scope="module")
def compile_for(tmp_path_factory):
    """A function that compiles as libgpuarray does, on a card; returns the architecture."""
    directory = tmp_path_factory.mktemp("nvrtc")
    gpu.link_compiler(directory / "libnvrtc.so", real_nvrtc())
    card = ctypes.CDLL(
        str(build(directory / "libcuda.so", LIBCUDA_OF_ONE, "-Wl,-soname,libcuda.so"))
    )
    library = ctypes.CDLL(str(directory / "libnvrtc.so"))

    def compiled(capability, *options):
        card.set(capability)
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        code = b'extern "C" __global__ void f(float *x) { *x = 1; }'
        assert not library.nvrtcCreateProgram(ctypes.byref(program), code, b"f", 0, None, None)
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if library.nvrtcCompileProgram(program, len(options), given):
            return None
        library.nvrtcGetPTXSize(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        library.nvrtcGetPTX(program, text)
        library.nvrtcDestroyProgram(ctypes.byref(program))
        return int(re.search(r"\.target sm_(\d+)", text.value.decode()).group(1))

    return compiled


def newest_known(capability):
    (library,) = cuda.look_at_compiler(real_nvrtc())
    return capability if capability <= library.newest else library.newest


@pytest.mark.parametrize("capability", [60, 75, 86, 90, 100, 120, 121])
def test_the_architecture_of_the_card_is_compiled_for(compile_for, capability):
    asked = f"compute_{capability}"[: len("compute_12")]  # so much room has libgpuarray
    assert compile_for(capability, "-arch", asked) == newest_known(capability)


def test_the_newest_that_the_compiler_knows_is_taken_for_newer_cards(compile_for):
    assert compile_for(999, "-arch", "compute_99") == newest_known(999)
    assert compile_for(88, "-G", "-arch", "compute_88") in (87, 88)


def test_options_stay_as_they_are_where_nothing_better_is_known(compile_for):
    assert compile_for(0, "-arch", "compute_80") == 80  # no context
    assert compile_for(0, "-arch", "compute_12") is None
    assert compile_for(20, "-arch", "compute_20") is None  # the card is too old
    assert compile_for(90, "-arch=compute_75") == 75


# ---------------------------------------------------------------------------- names


def test_libraries_are_found_by_the_names_that_libgpuarray_opens(tmp_path):
    """Without any search path: by a small library that is loaded before, with what it needs."""
    package = tmp_path / "nvidia" / "thing" / "lib"
    other = build(
        *(package / "libother.so.3", 'extern "C" int other() { return 40; }'),
        "-Wl,-soname,libother.so.3",
    )
    code = 'extern "C" int other(); extern "C" int thing() { return other() + 2; }'
    thing = build(package / "libthing.so.12", code, "-Wl,-soname,libthing.so.12", str(other))
    made = tmp_path / "prefix" / "lib" / "gru4rec-gpu"
    made.mkdir(parents=True)
    gpu.link_library(made / "libthing.so", thing)
    code = """
import ctypes, sys
from gru4rec_toolkit import machine
sys.prefix = sys.argv[1]
machine.load_cuda_libraries()
print(ctypes.CDLL("libthing.so").thing())
"""
    done = python("-c", code, tmp_path / "prefix", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert succeeds(done).out == "42\n"


def test_the_library_of_the_environment_comes_before_the_systems(tmp_path):
    """For a pygpu that does not know where its library lies, as its own build makes it."""
    soname = "-Wl,-soname,libgpuarray.so.3"
    build(tmp_path / "prefix/lib/libgpuarray.so.3", 'extern "C" int here() { return 1; }', soname)
    build(tmp_path / "base/lib/libgpuarray.so.3", "", soname)
    code = """
import ctypes, sys
from gru4rec_toolkit import machine
sys.prefix, sys.base_prefix = sys.argv[1:]
machine.load_gpuarray()
print(hasattr(ctypes.CDLL("libgpuarray.so.3"), "here"))
"""
    for prefix, here in (("prefix", "True"), ("none", "False")):
        prefixes = tmp_path / prefix, tmp_path / "base"
        done = python("-c", code, *prefixes, cwd=tmp_path, PYTHONPATH=str(ROOT))
        assert succeeds(done).out == f"{here}\n"


# ---------------------------------------------------------------------------- from start to end


@pytest.fixture
def environment(tmp_path):
    """A virtual environment that sees the packages of this one."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True
    )
    site = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    (site / "these.pth").write_text(sysconfig.get_path("purelib"))
    return tmp_path / "env"


def make_gpu(environment, driver, *arguments, **variables):
    env = {"VERSION": "13000", "CARDS": "90", "INIT": "0", "LD_LIBRARY_PATH": str(driver)}
    env["PIP_NO_INDEX"] = "1"
    env["PIP_FIND_LINKS"] = None
    python_there = environment / "bin" / "python"
    code = f"import runpy, sys; sys.argv[1:] = {list(arguments)}; "
    code += f"sys.path.insert(0, {str(TOOLS)!r}); "
    # the machine's own libraries are left out
    code += "import cuda_libraries as c; c._candidates = lambda name: c.Path(sys.prefix).rglob("
    code += "name + '.so.*'); "
    code += f"runpy.run_path({str(TOOLS / 'gpu.py')!r}, run_name='__main__')"
    script = f"import subprocess, sys; sys.exit(subprocess.call([{str(python_there)!r}, '-c', "
    script += f"{code!r}]))"
    return python("-c", script, cwd=environment, **{**env, **variables})


def has_pygpu():
    pytest.importorskip("pygpu", reason="pygpu is not installed")


def test_libraries_that_are_there_are_linked_and_nothing_is_installed(environment, driver):
    has_pygpu()
    folder = environment / "lib/nvidia/cu13/lib"
    # a compiler that leaves the place of its second library to the user
    nvrtc(folder / "libnvrtc.so.13", 13, 0)
    build(folder / "libnvrtc-builtins.so.13.0", "", "-Wl,-soname,libnvrtc-builtins.so.13.0")
    cublas(folder / "libcublas.so.13", 13, 0)
    done = make_gpu(environment, driver)
    assert f"NVRTC 13.0: {folder}/libnvrtc.so.13" in done.out, done.err
    assert f"cuBLAS 13.0: {folder}/libcublas.so.13" in done.out
    assert "driver for CUDA 13.0" in done.out and "Card 0 (9.0)" in done.out
    made = environment / "lib" / "gru4rec-gpu"
    for name in ("libcuda.so", "libnvrtc.so", "libcublas.so"):
        needed = subprocess.run(["readelf", "-d", made / name], capture_output=True, text=True)
        assert f"[{name}]" in needed.stdout
        assert f"[{name}.1]" in needed.stdout or str(folder) in needed.stdout
    needed = subprocess.run(["readelf", "-d", made / "libnvrtc.so"], capture_output=True, text=True)
    assert "libnvrtc-builtins.so.13.0" in needed.stdout
    # these stand-ins do not compute
    assert done.code == 1 and done.err.splitlines()[-1].startswith("error: the device cuda0 does")


def test_a_driver_or_a_card_that_nothing_fits(environment, driver):
    has_pygpu()
    old = complaint(make_gpu(environment, driver, VERSION="11040"))
    assert "a driver of CUDA 11.8 or later" in old
    assert "CUDA 12.8" in complaint(make_gpu(environment, driver, VERSION="12040", CARDS="120"))


def test_no_driver(environment, driver, tmp_path):
    has_pygpu()
    (tmp_path / cuda.DRIVER).write_text("no library")
    message = complaint(make_gpu(environment, driver, LD_LIBRARY_PATH=str(tmp_path)))
    assert message.startswith("libcuda.so.1, a part of NVIDIA's driver, is not installed; ")


def test_libraries_that_cannot_be_downloaded(environment, driver):
    has_pygpu()
    done = make_gpu(environment, driver, VERSION="12020")
    assert done.code == 1
    assert "pip could not install nvidia-cuda-nvrtc-cu12==12.0.76 nvidia-cublas-cu12" in done.err


@pytest.mark.parametrize("loads_a_library", [True, False])
def test_a_pygpu_of_another_version(environment, driver, loads_a_library):
    site = next((environment / "lib").glob("python*")) / "site-packages"
    (site / "pygpu").mkdir()
    module = "import ctypes\n__version__ = '0.6.9'\nclass gpuarray: api_version = lambda: (1, 2)\n"
    real = build(site / "pygpu" / "libgpuarray.so.2", "")
    module += f"ctypes.CDLL({str(real)!r})\n" if loads_a_library else ""
    (site / "pygpu" / "__init__.py").write_text(module)
    message = complaint(make_gpu(environment, driver))
    assert f"{site}/pygpu is pygpu 0.6.9 (API 1), and Theano 1.0.5 needs 0.7.x (API 2)" in message


def test_a_pygpu_of_another_directory(environment, driver, tmp_path):
    """PYTHONPATH is the user's."""
    (tmp_path / "mine" / "pygpu").mkdir(parents=True)
    (tmp_path / "mine" / "pygpu" / "__init__.py").write_text("raise ValueError('mine')")
    done = make_gpu(environment, driver, PYTHONPATH=str(tmp_path / "mine"))
    assert "pygpu cannot be imported: ValueError: mine" in complaint(done)


def test_a_pygpu_that_cannot_be_imported(environment, driver):
    site = next((environment / "lib").glob("python*")) / "site-packages"
    (site / "pygpu").mkdir()
    (site / "pygpu" / "__init__.py").write_text("import no_mako_here")
    message = complaint(make_gpu(environment, driver))
    assert "pygpu cannot be imported: ModuleNotFoundError: No module named 'no_mako" in message


def test_headers_that_are_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "MODULE", '#include "gpuarray/of_no_system.h"\n')
    with pytest.raises(SystemExit) as ended:
        gpu.check_headers()
    assert ended.value.code == 2
    assert "of_no_system.h" in capsys.readouterr().err


def test_no_pygpu_for_this_python(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "DEBIANS", (3, 7))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        gpu.get_from_others(tmp_path / "packages")
    message = capsys.readouterr().err
    assert ended.value.code == 2 and "pygpu is not installed for this Python 3." in message
    assert f"-DCMAKE_INSTALL_PREFIX={sys.prefix}" in message


def test_the_pygpu_of_the_python_that_the_environment_was_made_from(monkeypatch, tmp_path):
    """With the library and the headers that belong to it, as conda puts them."""
    base, env = tmp_path / "base", tmp_path / "env"
    monkeypatch.setattr(sys, "base_prefix", str(base))
    monkeypatch.setattr(sys, "prefix", str(env))
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(env)}))
    there = Path(sysconfig.get_path("purelib", vars={"base": str(base)})) / "pygpu"
    headers, library = base / "include" / "gpuarray", base / "lib" / "libgpuarray.so"
    there.mkdir(parents=True)
    headers.mkdir(parents=True)
    library.write_text("")
    (packages / "pygpu").parent.mkdir(parents=True)
    (packages / "pygpu").symlink_to(tmp_path / "gone")
    for _ in range(2):
        gpu.get_from_others(packages)
        assert (packages / "pygpu").resolve() == there
        assert (env / "include" / "gpuarray").resolve() == headers
        assert (env / "lib" / "libgpuarray.so").resolve() == library


def test_debians_pygpu_is_linked(environment, driver):
    if sys.version_info[:2] != gpu.DEBIANS or not (gpu.MODULES / "pygpu").exists():
        pytest.skip("Debian's pygpu is not installed, or is for another Python")
    site = next((environment / "lib").glob("python*")) / "site-packages"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "install_packages", lambda names: None)
        gpu.get_from_others(site)
    assert (site / "pygpu").resolve() == gpu.MODULES / "pygpu"
