"""How Theano is configured: device, BLAS, compiler, compile directory."""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
from helpers.cli import ROOT, complaint, python, succeeds
from hypothesis import example, given
from hypothesis import strategies as st

from gru4rec_toolkit import machine, theano_setup
from gru4rec_toolkit.errors import InputError

# what a process starts with: Theano not imported, no CUDA GPU whatever the machine has, and no
# setting of its own but the compile directory, which may be warm
START = f"""
import logging, os, sys
sys.path.insert(0, {str(ROOT)!r})
sys.modules["pygpu"] = None
logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
from gru4rec_toolkit.errors import InputError, run_cli
from gru4rec_toolkit import theano_setup
"""

# a matrix product that goes through BLAS
PRODUCT = """
import numpy as np, theano, theano.tensor as tt
a = np.arange(6, dtype=theano.config.floatX).reshape(2, 3)
x, y = tt.matrices("xy")
f = theano.function([x, y], tt.dot(x, y) + 1)
np.testing.assert_allclose(f(a, a.T), a.dot(a.T) + 1)
print("product is right")
"""


def run(tmp_path, code, **env):
    env = {"THEANO_FLAGS": None, "THEANORC": None, **env}
    return python("-c", START + code, cwd=tmp_path, **env)


def configure(tmp_path, *arguments, **env):
    """Configure in a process of its own, as a program would: mistakes end with exit code 2."""
    code = f"run_cli(lambda: print(theano_setup.configure(*{arguments!r}).device))"
    return run(tmp_path, code, **env)


def rc_file(path, device):
    path.write_text(f"[global]\ndevice = {device}\n")
    return str(path)


def test_settings_that_are_missing(tmp_path):
    """Theano's own would compute in float64, silently."""
    code = """
from pathlib import Path
theano_setup.RC_FILE = Path("missing/.theanorc_gru4rec")
run_cli(lambda: theano_setup.configure("cpu"))
"""
    message = complaint(run(tmp_path, code))
    assert message == "missing/.theanorc_gru4rec is missing; install GRU4Rec again"


# --- device ---------------------------------------------------------------------------------------


def test_argument_before_theano_flags(tmp_path):
    done = succeeds(configure(tmp_path, "cpu", THEANO_FLAGS="device=cuda0"))
    assert done.out == "cpu\n"
    assert "device: cpu (asked for)" in done.err


def test_argument_before_theano_flags_where_it_cannot_be_opened(tmp_path):
    message = complaint(configure(tmp_path, "cuda1", THEANO_FLAGS="device=cpu"))
    assert "cuda1 (asked for)" in message and "pygpu" in message
    assert "-d cpu" in message  # what to do


def test_theano_flags_before_theanorc(tmp_path):
    rc = rc_file(tmp_path / "rc", "cuda0")
    done = succeeds(configure(tmp_path, THEANORC=rc, THEANO_FLAGS="device=cpu"))
    assert done.out == "cpu\n"
    assert re.search(r"device: cpu \(.*THEANO_FLAGS.*\)", done.err)


def test_theano_flags_where_it_cannot_be_opened(tmp_path):
    rc = rc_file(tmp_path / "rc", "cpu")
    flags = "floatX=float32,device=cuda0"
    message = complaint(configure(tmp_path, THEANORC=rc, THEANO_FLAGS=flags))
    assert "cuda0" in message and "THEANO_FLAGS" in message


def test_theanorc_before_the_projects_file(tmp_path):
    # the last one named counts, as in Theano
    first, last = rc_file(tmp_path / "first", "cpu"), rc_file(tmp_path / "last", "cuda3")
    assert "cuda3" in complaint(configure(tmp_path, THEANORC=f"{first}{os.pathsep}{last}"))


def test_precedence_of_other_settings(monkeypatch, tmp_path):
    rc = tmp_path / "rc"
    rc.write_text("[global]\nallow_gc = True\noptimizer = fast_run\n[blas]\nldflags = -lmine\n")
    monkeypatch.setenv("THEANORC", str(rc))
    monkeypatch.setenv("THEANO_FLAGS", "optimizer=fast_compile")
    named = theano_setup._named_settings()
    assert named["allow_gc"] == "True"  # the project's file says False
    assert named["blas.ldflags"] == "-lmine"
    assert named["optimizer"] == "fast_compile"
    assert named["floatX"] == "float32"  # named in the project's file only


def test_auto_before_theano_flags(tmp_path):
    # auto looks for a GPU although THEANO_FLAGS names another one
    done = succeeds(configure(tmp_path, "auto", THEANO_FLAGS="device=cuda7"))
    assert done.out == "cpu\n"
    assert "device: cpu (no CUDA GPU: pygpu is not installed)" in done.err


def test_the_projects_file_names_no_device():
    text = theano_setup.RC_FILE.read_text()
    assert not re.search(r"^\s*device\s*=", text, re.M)
    assert not re.search(r"^\s*(blas\.)?ldflags\s*=", text, re.M)


@pytest.mark.parametrize("device", ["", "gpu", "gpu0", "CPU", "cpu0", "cuda-1", "opencl", "cpu,"])
def test_unknown_devices(device):
    with pytest.raises(InputError) as caught:
        theano_setup.configure(device)
    assert repr(device) in str(caught.value)
    assert "cuda0" in str(caught.value)  # shows how they are written


def test_unknown_device_in_theano_flags(tmp_path):
    message = complaint(configure(tmp_path, THEANO_FLAGS="device=gpu0"))
    assert "'gpu0'" in message and "THEANO_FLAGS" in message


def test_theano_flags_with_an_open_quote(tmp_path):
    assert "THEANO_FLAGS" in complaint(configure(tmp_path, THEANO_FLAGS="device='cpu"))


# --- settings -------------------------------------------------------------------------------------


def test_settings_report_and_second_call(tmp_path):
    # several questions to one process: starting Theano takes seconds
    code = """
before = dict(os.environ)
setup = theano_setup.configure("cpu")
assert dict(os.environ) == before
import theano
c = theano.config
print(c.floatX, c.mode, c.allow_gc, c.linker, c.device, c.dnn.enabled)
print(c.optimizer_excluding)
print(setup)
assert theano_setup.configure() is setup
assert theano_setup.configure("auto") is setup
assert theano_setup.configure("cpu") is setup
run_cli(lambda: theano_setup.configure("cuda0"))
"""
    done = run(tmp_path, code, THEANO_FLAGS="exception_verbosity=low", OPENBLAS_NUM_THREADS="1")
    message = complaint(done)
    assert "cuda0" in message and "cpu" in message
    settings, excluded, report = done.lines
    assert settings == "float32 FAST_RUN False cvm cpu False"
    assert excluded == "local_dnn_reduction:local_cudnn_maxandargmax:local_dnn_argmax"
    assert re.fullmatch(
        r"device: cpu \(asked for\); BLAS: \S.*, 1 thread\(s\); compile directory: [/~].*", report
    )
    assert done.err.count(report) == 1  # logged once, by the first call


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("{home}/.cache/gru4rec-theano/ab/compiledir_Linux-6.1", "~/.cache/gru4rec-theano/ab"),
        ("/scratch/ab/compiledir_Linux-6.1", "/scratch/ab"),
        ("/scratch/mine", "/scratch/mine"),
        ("{home}2/mine", "{home}2/mine"),
    ],
)
def test_the_compile_directory_in_short(monkeypatch, tmp_path, path, shown):
    monkeypatch.setenv("HOME", str(tmp_path))
    path, shown = (text.format(home=tmp_path) for text in (path, shown))
    setup = theano_setup.Setup("cpu", "asked for", "mine", 2, path, "sgemm_", True, "float32")
    assert str(setup).endswith(f", 2 thread(s); compile directory: {shown}")


def test_the_whole_compile_directory_with_verbose(tmp_path):
    code = "logging.getLogger().setLevel(logging.DEBUG)\n"
    code += "print(theano_setup.configure('cpu').compile_dir)"
    done = succeeds(run(tmp_path, code))
    assert f"compile directory: {done.lines[-1]}\n" in done.err


def test_theano_flags_before_everything_else(tmp_path):
    compile_dir = tmp_path / "compiled, with a comma"
    code = """
setup = theano_setup.configure()
import theano
print(theano.config.allow_gc, theano.config.floatX, theano.config.exception_verbosity)
print(setup.compile_dir)
"""
    flags = f"device=cpu,allow_gc=True,'base_compiledir={compile_dir}',exception_verbosity=high"
    done = succeeds(run(tmp_path, code, THEANO_FLAGS=flags))
    assert done.lines[0] == "True float32 high"
    assert Path(done.lines[1]).parent == compile_dir


@pytest.mark.parametrize("flags", ["blas.ldflags=", "blas.ldflags= ,device=cpu"])
def test_named_blas_is_left_alone(tmp_path, flags):
    code = "print(theano_setup._named_settings()['blas.ldflags'].strip() == '')"
    assert succeeds(run(tmp_path, code, THEANO_FLAGS=flags)).out == "True\n"


@pytest.mark.parametrize(
    ("variables", "n_threads"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "3"}, 2),
        ({"OPENBLAS_NUM_THREADS": "", "OMP_NUM_THREADS": "x"}, None),
        ({"OPENBLAS_NUM_THREADS": "0"}, 1),
        ({"OMP_NUM_THREADS": "-2"}, None),
        ({"OMP_NUM_THREADS": "1e3"}, None),
        ({"OMP_NUM_THREADS": "²"}, None),
        ({"OMP_NUM_THREADS": " 3, 2"}, 3),
        ({"OPENBLAS_NUM_THREADS": "abc", "OMP_NUM_THREADS": "3"}, 3),
    ],
)
def test_threads(monkeypatch, variables, n_threads):
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # the kernels' team has a thread for each core, BLAS by itself one
    assert machine.count_threads(team=False) == (n_threads or 1)
    most = min(machine._cores(), machine._quota(), machine.MOST_THREADS)
    assert machine.count_threads(team=True) == (n_threads or most)
    assert 1 <= machine._cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "processors"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", sys.maxsize)]
)
def test_a_containers_quota_bounds_the_threads(monkeypatch, text, processors):
    read_text = Path.read_text

    def read(path, *args, **kwargs):
        return text if path.name == "cpu.max" else read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(machine, "_cores", lambda: 6)
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert machine.count_threads(team=True) == min(6, processors)


@pytest.mark.parametrize(
    ("cores", "named", "threads"),
    [
        *((4, None, 4), (16, None, 16), (64, None, 16)),
        *((64, 64, 64), (64, 65, 64), (4, 8, 8), (4, 9, 8)),
    ],
)
def test_how_many_threads_a_machine_of_many_cores_uses(monkeypatch, cores, named, threads):
    """By itself no more than a step is worth; by name, no more than there are processors, or 8."""
    monkeypatch.setattr(machine, "_cores", lambda: cores)
    monkeypatch.setattr(machine, "_quota", lambda: sys.maxsize)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if named:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", str(named))
    assert machine.count_threads(team=True) == threads


@pytest.mark.parametrize("team", [True, False])
@given(text=st.from_regex(r"\A[ ]?-?[0-9]{0,9}[a-z,]?\Z") | st.just("9" * 5000))
@example(text="99999")
def test_threads_that_no_machine_has(team, text):
    most = max(machine.ON_FEW_CORES, len(os.sched_getaffinity(0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setenv("OPENBLAS_NUM_THREADS", text)
        assert 1 <= machine.count_threads(team) <= most


@pytest.mark.parametrize("text", ["4,2", " 3 , 2", "abc", "1.5", "", "-1", "\u00b2"])
def test_openmps_list_does_not_end_theano(tmp_path, text):
    code = """
before = dict(os.environ)
setup = theano_setup.configure("cpu")
assert dict(os.environ) == before
print(setup.threads)
"""
    done = succeeds(run(tmp_path, code, OMP_NUM_THREADS=text, OPENBLAS_NUM_THREADS=None))
    if text in ("4,2", " 3 , 2"):
        assert done.out.split() == [text.split(",")[0].strip()]
    assert ("is not a number of threads and is ignored" in done.err) == (
        text not in ("4,2", " 3 , 2", "")
    )


@pytest.mark.parametrize(
    "flags, words",
    [
        ("openmp=maybe", r"Theano does not take.*maybe"),
        ("mode=x", "Theano does not take.*Mode"),
        ("floatX=float8", "Theano does not take.*floatX"),
        ("mode=DebugMode", "mode=DebugMode, linker=cvm do not run"),
        ("linker=py", "linker=py do not run"),
        ("floatX=float16", "floatX is float16"),
    ],
)
def test_flags_that_theano_or_we_cannot_use(tmp_path, flags, words):
    message = complaint(configure(tmp_path, "cpu", THEANO_FLAGS=flags))
    assert re.search(words, message), message
    assert "THEANO_FLAGS or a configuration file" in message


def test_reasons_for_another_number_of_threads(monkeypatch, caplog):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "many")
    monkeypatch.setenv("OMP_NUM_THREADS", "99999")
    machine.warn_of_named_threads(machine.count_threads(team=True))
    first, second = [record.getMessage() for record in caplog.records]
    assert "OPENBLAS_NUM_THREADS=many" in first and "not a number" in first
    assert "OMP_NUM_THREADS=99999" in second
    assert f": {machine.count_threads(team=True)} threads compute" in second
    caplog.clear()
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    machine.warn_of_named_threads(machine.count_threads(team=True))
    assert not caplog.records


# --- Theano imported before -----------------------------------------------------------------------

# without blas.ldflags Theano 1.0.5 cannot be imported beside this numpy
USABLE = "blas.ldflags=,device=cpu"


@pytest.fixture(scope="module")
def imported_by_itself(tmp_path_factory):
    """Skip where nobody but `theano_setup` can import Theano 1.0.5."""
    done = python("-c", "import theano", cwd=tmp_path_factory.mktemp("alone"), THEANO_FLAGS=USABLE)
    if done.code:
        pytest.skip(f"Theano cannot be imported by itself here: {done.err.splitlines()[-1]}")


@pytest.mark.usefixtures("imported_by_itself")
def test_theano_imported_first(tmp_path):
    code = """
import theano
setup = theano_setup.configure()
print(setup)
assert theano_setup.configure() is setup
run_cli(lambda: theano_setup.configure("opencl0:0"))
"""
    done = run(tmp_path, code, THEANO_FLAGS=USABLE)
    assert "opencl0:0" in complaint(done)
    assert done.out.startswith("device: cpu (Theano was imported before gru4rec)")


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("cxx=", "cxx"),
        ("mode=FAST_COMPILE", "FAST_COMPILE"),
        ("linker=py", "linker=py"),
        ("floatX=float16", "float16"),
    ],
)
@pytest.mark.usefixtures("imported_by_itself")
def test_theano_imported_first_with_unusable_settings(tmp_path, flag, named):
    code = "import theano; run_cli(theano_setup.configure)"
    message = complaint(run(tmp_path, code, THEANO_FLAGS=f"{USABLE},{flag}"))
    assert named in message
    assert "import gru4rec first" in message  # what to do


# --- compiler -------------------------------------------------------------------------------------


def test_no_compiler(tmp_path):
    message = complaint(configure(tmp_path, PATH=str(tmp_path)))
    assert "g++" in message and "apt-get install" in message


def test_no_compiler_and_no_headers(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "include"))
    with pytest.raises(InputError) as caught:
        machine.check_compiler()
    for part in ("g++", str(tmp_path / "include" / "Python.h"), "python3-dev"):
        assert part in str(caught.value)


def test_no_headers(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(InputError, match=r"Python\.h") as caught:
        machine.check_compiler()
    assert "compiler" not in str(caught.value)


# --- compile directory ----------------------------------------------------------------------------


def test_an_unwritable_home_in_a_whole_run(tmp_path):
    (tmp_path / "file").write_text("")
    env = {"HOME": str(tmp_path / "file"), "XDG_CACHE_HOME": None, "TMPDIR": str(tmp_path)}
    code = "print(theano_setup.configure('cpu').compile_dir)"
    done = succeeds(run(tmp_path, code, **env))
    assert done.out.startswith(str(tmp_path / f"gru4rec-theano-{os.getuid()}"))
    # closed to others, what Theano makes too
    for directory in tmp_path.glob("gru4rec-theano-*/**/compiledir_*"):
        assert directory.stat().st_mode & 0o077 == 0
    # says where the code is kept, and why not there
    assert str(tmp_path / "file") in done.err.splitlines()[0]


@pytest.mark.parametrize("setting", ["compiledir", "base_compiledir"])
def test_a_named_compile_directory_that_everybody_can_write(tmp_path, setting):
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o777)
    flags = f"{setting}={directory}"
    message = complaint(configure(tmp_path, "cpu", THEANO_FLAGS=flags))
    assert flags in message and "mode 777" in message
    assert list(directory.iterdir()) == []


# --- BLAS -----------------------------------------------------------------------------------------


def test_products_go_through_the_blas_that_is_named(tmp_path):
    pytest.importorskip("scipy_openblas32")
    code = "print(theano_setup.configure('cpu').blas)" + PRODUCT
    code += """
assert "openblas" in theano.config.blas.ldflags
names = {type(node.op).__name__ for node in f.maker.fgraph.toposort()}
assert names & {"Dot22", "Gemm"}, names
"""
    done = succeeds(run(tmp_path, code))
    assert re.match(r"scipy-openblas32 \d", done.out)
    assert "product is right" in done.out


@pytest.mark.parametrize("system", ["its own", None])
def test_without_scipy_openblas32(tmp_path, system):
    code = "sys.modules['scipy_openblas32'] = None\n"
    if system is None:
        code += "import ctypes.util; ctypes.util.find_library = lambda name: None\n"
    code += "setup = theano_setup.configure('cpu'); print(setup.blas)" + PRODUCT
    done = succeeds(run(tmp_path, code))
    assert "scipy-openblas32" in done.lines[0]  # says what is missing
    assert "the system's" in done.lines[0] or "NumPy's" in done.lines[0]
    assert done.lines[1] == "product is right"
    assert done.lines[0] in done.err


def test_order_of_the_systems_libraries(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy_openblas32", None)
    found = {"openblas": "libopenblas.so.0", "blas": "libblas.so.3"}
    monkeypatch.setattr("ctypes.util.find_library", found.get)
    flags, renames, name = machine.find_blas()
    assert (flags, renames) == ("-l:libopenblas.so.0", "")
    assert "libopenblas.so.0" in name
    del found["openblas"]
    assert machine.find_blas()[0] == "-l:libblas.so.3"


# --- blanks in paths ------------------------------------------------------------------------------


# scipy_openblas32 resolves links, so a link to it does not make its path one with blanks
OPENBLAS = """
__version__ = "9.9"


def get_lib_dir():
    return {directory!r}


def get_library():
    return {library!r}
"""


def test_everything_in_a_path_with_a_blank(tmp_path):
    openblas = pytest.importorskip("scipy_openblas32")
    blank = tmp_path / "a path with blanks"
    project, home, temporary = blank / "my project", blank / "my home", tmp_path / "temporary"
    for folder in (project, home, temporary):
        folder.mkdir(parents=True)
    for name in (".theanorc_gru4rec", *(path.name for path in ROOT.glob("*.py"))):
        shutil.copy(ROOT / name, project / name)
    shutil.copytree(ROOT / "gru4rec_toolkit", project / "gru4rec_toolkit", symlinks=True)
    (blank / "my packages").symlink_to(sysconfig.get_path("purelib"))
    (blank / "my blas").symlink_to(openblas.get_lib_dir())
    (project / "scipy_openblas32.py").write_text(
        OPENBLAS.format(directory=str(blank / "my blas"), library=openblas.get_library())
    )
    code = START.replace(str(ROOT), str(project)) + "print(theano_setup.configure('cpu'))" + PRODUCT
    code += f"""
for module in (theano_setup, theano, np):
    assert module.__file__.startswith({str(blank)!r}), module
print(theano.config.floatX, theano.config.allow_gc)
import custom_opt
from gru4rec_toolkit.ops import library
from gru4rec_toolkit.theano_setup import tensor as tt
custom_opt.register()
x = tt.fmatrix()
square = theano.function([x], tt.dot(x, x))
assert "Product" in str(square.maker.fgraph.toposort()), square.maker.fgraph.toposort()
assert str(library.SOURCES).startswith({str(blank)!r}), library.SOURCES
print(square(np.eye(3, dtype="float32") * 3).trace())
"""
    done = python(
        "-c",
        code,
        cwd=blank,
        PYTHONPATH=str(blank / "my packages"),
        HOME=str(home),
        XDG_CACHE_HOME=None,
        TMPDIR=str(temporary),
        THEANO_FLAGS=None,
        THEANORC=None,
    )
    succeeds(done)
    assert "BLAS: scipy-openblas32 9.9" in done.lines[0]
    shown = re.search("compile directory: (.*)", done.lines[0])[1]
    assert re.fullmatch(r"~/\.cache/gru4rec-theano/\w{12}", shown)
    assert done.lines[1:] == ["product is right", "float32 False", "27.0"]


@pytest.fixture
def openblas_with_a_blank(monkeypatch, tmp_path):
    """Stand in for scipy_openblas32 installed into a path with a blank."""
    folder = tmp_path / "my packages" / "lib"
    folder.mkdir(parents=True)

    class Module:
        __version__ = "0.3"

        @staticmethod
        def get_lib_dir():
            return str(folder)

        @staticmethod
        def get_library():
            return "scipy_openblas"

    monkeypatch.setitem(sys.modules, "scipy_openblas32", Module)
    return folder


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gru4rec-theano"


def link_in(flags):
    """The directory in linker flags that Theano splits at blanks."""
    directories = {part[2:] for part in flags.split() if part.startswith("-L")}
    assert len(directories) == 1
    assert len(flags.split()) == 3
    return Path(directories.pop())


def test_linker_flags_without_blanks(openblas_with_a_blank, cache):
    link = link_in(machine.find_blas()[0])
    assert link.parent == cache
    assert cache.stat().st_mode & 0o077 == 0
    assert link.resolve() == openblas_with_a_blank
    # the second time it is there already
    assert link_in(machine.find_blas()[0]) == link


def test_a_link_to_other_code(openblas_with_a_blank, cache, tmp_path):
    link = link_in(machine.find_blas()[0])
    link.unlink()
    link.symlink_to(tmp_path)
    with pytest.raises(InputError, match=re.escape(str(link))):
        machine.find_blas()


def test_a_link_where_others_can_change_it(openblas_with_a_blank, cache, monkeypatch, tmp_path):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "shared"))
    link = link_in(machine.find_blas()[0])
    assert str(tmp_path) not in str(link)  # but in /tmp
    assert link.lstat().st_uid == os.getuid()
    assert link.parent.stat().st_mode & 0o077 == 0


def test_blanks_in_every_directory_of_ours(openblas_with_a_blank, monkeypatch, tmp_path):
    folder = tmp_path / "my temporary files"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    assert link_in(machine.find_blas()[0]).resolve() == openblas_with_a_blank
