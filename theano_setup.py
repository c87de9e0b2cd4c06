"""Configures Theano before it is imported: device, BLAS, compiler flags, compile directory.

Every module takes Theano from here (``from theano_setup import theano``), which calls `configure`;
a program that chooses the device calls it before.
Every setting is taken from the first of these places that names it: the ``device`` argument (only
the device), the environment variable ``THEANO_FLAGS``, the files named in ``THEANORC``,
``.theanorc_gru4rec`` beside this file, and what is found out here about the machine.
"""

from __future__ import annotations

import configparser
import contextlib
import ctypes
import ctypes.util
import hashlib
import importlib
import logging
import os
import re
import shlex
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import compile_directory
import theano_mends
from user_errors import InputError

logger = logging.getLogger("gru4rec")

RC_FILE = Path(__file__).resolve().with_name(".theanorc_gru4rec")
DEVICE_PATTERN = r"auto|cpu|cuda\d*|opencl\d+:\d+"
# the routines that Theano's C code calls; scipy-openblas exports them with a prefix
_BLAS_ROUTINES = [
    precision + routine
    for precision in "sd"
    for routine in ("gemm", "gemv", "ger", "dot", "axpy", "copy", "scal")
]
# of a team by default: a step's products are small, and more than this have not been measured
MOST_THREADS = 8
_APT = "sudo apt-get install -y"


@dataclass(frozen=True)
class Setup:
    """What Theano runs on, and why.

    Attributes
    ----------
    device, device_reason : str
        For example ``cpu`` and ``pygpu is not installed``.
    blas : str
        Where the matrix products come from.
    threads : int
        Threads that compute.
    compile_dir : str
        Directory of the compiled modules.
    sgemm : str
        Name of BLAS's float32 matrix product in C; empty where there is no BLAS to link with.
    team : bool
        Whether the threads are those of the kernels (`kernel_library`), else they are BLAS's own.
    floatX : str
        Type of the weights.
    """

    device: str
    device_reason: str
    blas: str
    threads: int
    compile_dir: str
    sgemm: str
    team: bool
    floatX: str

    @property
    def own_ops(self) -> bool:
        """Whether the graph is built of this project's Ops, else of plain Theano expressions."""
        return self.team or (self.device != "cpu" and self.floatX == "float32")

    def __str__(self) -> str:
        return (
            f"device: {self.device} ({self.device_reason}); BLAS: {self.blas}, "
            f"{self.threads} thread(s); compile directory: {self.compile_dir}"
        )


_setup: Setup | None = None


def configure(device: str | None = None) -> Setup:
    """Import Theano with this project's settings; later calls return what the first one set up.

    Parameters
    ----------
    device : str, optional
        ``auto``, ``cpu``, ``cuda0``, ``opencl0:0``... None: left to THEANO_FLAGS and the
        configuration files, ``auto`` where they do not say either.

    Returns
    -------
    Setup

    Raises
    ------
    InputError
        If the device is misspelt, cannot be opened or differs from the one already in use, if
        there is no compiler, or if Theano was imported before with settings that cannot work.
    """
    global _setup
    if device is not None and not re.fullmatch(DEVICE_PATTERN, device):
        raise InputError(
            f"device {device!r} is not known; give auto, cpu, cuda0, cuda1... or opencl0:0"
        )
    if _setup is None:
        _check_compiler()
        _setup = _adopt_theano() if "theano" in sys.modules else _import_theano(device)
        compile_directory.restore(_setup.compile_dir)
        theano_mends.apply()
        logger.info("%s", _setup)
    if device not in (None, "auto", _setup.device):
        raise InputError(
            f"device {device} was asked for, but Theano already runs on {_setup.device} in this "
            "process; choose the device before gru4rec or theano is imported"
        )
    return _setup


def __getattr__(name: str):
    """Give ``theano`` and ``tensor``: ``from theano_setup import theano`` is configured Theano."""
    if name not in ("theano", "tensor"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    configure()
    return importlib.import_module("theano.tensor" if name == "tensor" else name)


def _import_theano(device: str | None) -> Setup:
    named = _named_settings()
    wanted, source = named.get("device", "auto"), "THEANO_FLAGS or a configuration file"
    if device is not None:
        wanted, source = device, "asked for"
    chosen, reason = _choose_device(wanted, source)
    flags = {"device": chosen}
    blas = f"as named: {named.get('blas.ldflags')}"
    if "blas.ldflags" not in named:
        flags["blas.ldflags"], renames, blas = _find_blas()
        flags["gcc.cxxflags"] = f"{named.get('gcc.cxxflags', '')} {renames}".strip()
        _set_blas_threads(_threads(team=False))
    if "base_compiledir" in named or "compiledir" in named:
        base = compile_directory.named(named)
    else:
        base = compile_directory.choose()
        flags["base_compiledir"] = str(base)
    compile_directory.remove_stale_locks(base)
    compile_directory.check_start(base)
    # Theano sets it where it opens a GPU, against forked processes; this one has just been started
    os.environ.pop("THEANO_GPU_IS_ALREADY_ACTIVE", None)
    try:
        theano = _import_with(flags)
    except Exception as err:
        if not compile_directory.is_failure(err):
            raise
        raise compile_directory.failure(err, base) from err
    finally:
        compile_directory.close_to_others(base)
    if not theano.config.cxx:
        raise InputError(
            f"Theano found no C++ compiler that works; try g++ -v, install one with: {_APT} g++"
        )
    if chosen != "cpu" and not importlib.import_module("theano.gpuarray").pygpu_activated:
        raise InputError(
            f"Theano could not use the device {chosen}, for the reason above; use -d cpu to run on "
            "the CPU"
        )
    return _describe(theano.config, chosen, reason, blas)


def _adopt_theano() -> Setup:
    """Take over a Theano that the user imported, if blocks of steps can run in it."""
    config = sys.modules["theano"].config
    problem = None
    if not config.cxx:
        problem = "it has no C++ compiler (config.cxx is empty)"
    elif config.floatX not in ("float32", "float64"):
        problem = f"its floatX is {config.floatX} (float32 is expected)"
    elif config.linker not in ("cvm", "cvm_nogc") or config.mode not in ("Mode", "FAST_RUN"):
        problem = f"its mode={config.mode}, linker={config.linker} do not run in Theano's C VM"
    if problem:
        raise InputError(
            f"theano was imported before gru4rec and cannot be used, because {problem}; "
            "import gru4rec first and let it configure Theano"
        )
    blas = f"as configured: {config.blas.ldflags or 'none, NumPy is used'}"
    reason = "Theano was imported before gru4rec"
    return _describe(config, config.device, reason, blas)


def _describe(config, device: str, reason: str, blas: str) -> Setup:
    sgemm = _sgemm(config)
    team = device == "cpu" and config.floatX == "float32" and bool(sgemm)
    threads = _threads(team)
    _warn_of_named_threads(threads)
    return Setup(device, reason, blas, threads, config.compiledir, sgemm, team, config.floatX)


def _check_compiler() -> None:
    """Theano compiles while it runs: say in one sentence what the machine lacks for that."""
    missing = []
    if not shutil.which("g++"):
        missing.append(("the C++ compiler g++", "g++"))
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        missing.append((f"Python's headers ({header})", "python3-dev"))
    if missing:
        raise InputError(
            f"{' and '.join(what for what, _ in missing)} not found, but Theano compiles its "
            f"graphs; install with: {_APT} {' '.join(package for _, package in missing)}"
        )


# ---------------------------------------------------------------------------- settings


def _rc_files() -> list[str]:
    own = [p for p in os.environ.get("THEANORC", "").split(os.pathsep) if p]
    return [str(RC_FILE), *map(os.path.expanduser, own)]


def _named_settings() -> dict[str, str]:
    """What the configuration files and THEANO_FLAGS name, under the keys of THEANO_FLAGS."""
    parser = configparser.RawConfigParser()
    parser.optionxform = str
    parser.read(_rc_files())
    named = {
        option if section == "global" else f"{section}.{option}": value
        for section in parser.sections()
        for option, value in parser.items(section)
    }
    for flag in _split_flags(os.environ.get("THEANO_FLAGS", "")):
        key, equals, value = flag.strip().partition("=")
        if equals:
            named[key] = value
    return named


def _split_flags(text: str) -> list[str]:
    splitter = shlex.shlex(text, posix=True)
    splitter.whitespace = ","
    splitter.whitespace_split = True
    try:
        return list(splitter)
    except ValueError as err:
        raise InputError(f"THEANO_FLAGS cannot be read ({err}); check its quotes") from None


def _import_with(flags: dict[str, str]):
    """Import Theano with these flags beside the user's; leave the environment as it was."""
    user = os.environ.get("THEANO_FLAGS", "")
    saved = {name: os.environ.get(name) for name in ("THEANO_FLAGS", "THEANORC")}
    log_level = logging.root.level  # Theano imports numpy.distutils, which may raise it
    own = [flag for flag in _split_flags(user) if flag.strip().partition("=")[0] not in flags]
    settings = [f"{key}={value}" for key, value in flags.items()] + own
    os.environ["THEANO_FLAGS"] = ",".join(shlex.quote(s) for s in settings)
    os.environ["THEANORC"] = os.pathsep.join(_rc_files())
    try:
        return importlib.import_module("theano")
    finally:
        logging.root.setLevel(log_level)
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# ---------------------------------------------------------------------------- device


def _choose_device(wanted: str, source: str) -> tuple[str, str]:
    """Resolve ``auto``; check that a GPU can be opened, since Theano would go on without it."""
    if not re.fullmatch(DEVICE_PATTERN, wanted):
        raise InputError(
            f"device {wanted!r} (from {source}) is not known; "
            "give auto, cpu, cuda0, cuda1... or opencl0:0"
        )
    if wanted == "cpu":
        return "cpu", source
    problem = _gpu_problem("cuda0" if wanted == "auto" else wanted)
    if wanted == "auto":
        return ("cpu", f"no CUDA GPU: {problem}") if problem else ("cuda0", "found a CUDA GPU")
    if problem:
        raise InputError(
            f"device {wanted} ({source}) cannot be opened: {problem}; "
            "use -d cpu or -d auto to run on the CPU"
        )
    return wanted, source


def _load_cuda_libraries() -> None:
    """Load what `make gpu` has put under the names by which libgpuarray looks for it."""
    for library in (Path(sys.prefix) / "lib" / "gru4rec-gpu").glob("lib*.so"):
        with contextlib.suppress(OSError):  # pygpu says what it misses
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def _gpu_problem(device: str) -> str | None:
    if device.startswith("cuda"):
        _load_cuda_libraries()
    try:
        pygpu = importlib.import_module("pygpu")
    except ImportError:
        return "pygpu is not installed"
    try:
        pygpu.init(device)
    except Exception as err:  # pygpu raises its own and plain exceptions alike
        reason = err.args[0].decode() if err.args and isinstance(err.args[0], bytes) else str(err)
        return f"{type(err).__name__}: {reason.strip() or 'no reason given'}"
    return None


# ---------------------------------------------------------------------------- BLAS


def _find_blas() -> tuple[str, str, str]:
    """Return linker flags, compiler flags that rename the routines, and the name for the log."""
    try:
        openblas = importlib.import_module("scipy_openblas32")
    except ImportError:
        return _find_system_blas()
    directory = _path_without_spaces(Path(openblas.get_lib_dir()))
    flags = f"-L{directory} -l{openblas.get_library()} -Wl,-rpath,{directory}"
    renames = " ".join(f"-D{r}_=scipy_{r}_" for r in _BLAS_ROUTINES)
    return flags, renames, f"scipy-openblas32 {openblas.__version__}"


def _find_system_blas() -> tuple[str, str, str]:
    for name in ("openblas", "blas"):
        library = ctypes.util.find_library(name)
        if library:
            return f"-l:{library}", "", f"the system's {library} (no scipy-openblas32 installed)"
    # an empty value makes Theano call NumPy's own products, correct and slower
    return "", "", "NumPy's (neither scipy-openblas32 nor a system BLAS is installed)"


def _sgemm(config) -> str:
    if not config.blas.ldflags:
        return ""
    renamed = re.search(r"-Dsgemm_=(\w+)", config.gcc.cxxflags)
    return renamed.group(1) if renamed else "sgemm_"


def _path_without_spaces(directory: Path) -> Path:
    """Theano splits linker flags at blanks: give a library in such a path a name without them."""
    if not re.search(r"\s", str(directory)):
        return directory
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:12]
    # in a directory where nobody else can put a link to code of theirs
    link = compile_directory.private_directory_without_blanks() / f"blas-{name}"
    try:
        link.symlink_to(directory)
    except FileExistsError:
        pass
    except OSError as err:
        raise compile_directory.failure(err, link.parent) from None
    if link.resolve() != directory.resolve():
        raise InputError(
            f"{link} is not the link to {directory} that it should be; remove it, or install "
            "into a path without blanks"
        )
    return link


def _threads(team: bool) -> int:
    """Return the number of threads that compute.

    It is what OPENBLAS_NUM_THREADS or OMP_NUM_THREADS says, within bounds; else a team has one for
    each core. BLAS's own threads wait for each other in busy loops after every one of a step's
    small products. As soon as another process wants a core, that makes training 20 times slower; so
    BLAS by itself gets one thread.
    """
    for _, number in _named_threads():
        if number is not None:
            return min(max(number, 1), _most_threads())
    return min(available_cores(), MOST_THREADS) if team else 1


def _named_threads() -> list[tuple[str, int | None]]:
    """Return the settings of threads, most important first, with None for what is no number."""
    named = []
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").strip()
        # OpenMP takes a list: the first number is that of threads outside of other threads
        digits = re.fullmatch(r"([0-9]+)(\s*,.*)?", text)
        if text:
            # Python does not convert thousands of digits
            named.append((f"{name}={text[:20]}", int(digits.group(1)[:18]) if digits else None))
    return named


def _most_threads() -> int:
    """Return the most threads that a user can ask for.

    A few more than there are cores cost little, and the number belongs to a model, which another
    machine may have trained. But each thread has a share of every piece of work, and has to wake up
    for it: 256 threads on two cores rank items a hundred times more slowly than two do.
    """
    return max(min(len(os.sched_getaffinity(0)), _quota()), MOST_THREADS)


def _warn_of_named_threads(n_threads: int) -> None:
    """Say why the number of threads is not the one that the environment names."""
    for setting, number in _named_threads():
        if number is None:
            logger.warning("%s is not a number of threads and is ignored", setting)
            continue
        if number > n_threads:
            logger.warning(
                "%s is more than this machine can use: %d threads compute", setting, n_threads
            )
        return


def available_cores() -> int:
    """Return how many processor cores this process may use, within its container's quota."""
    return min(_cores(), _quota())


def _quota() -> int:
    """Processors' worth of time that a container may use (cgroup v2); without a limit, many."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(int(quota) // int(period), 1)
    except (OSError, ValueError):  # no such file, or "max 100000"
        return sys.maxsize


def _cores() -> int:
    """Processor cores that this process may use; two threads of one core count once."""
    allowed = os.sched_getaffinity(0)
    cores = set()
    for processor in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            return len(allowed)
    return len(cores)


def _set_blas_threads(n_threads: int) -> None:
    try:
        openblas = importlib.import_module("scipy_openblas32")
    except ImportError:
        return
    library = Path(openblas.get_lib_dir()) / f"lib{openblas.get_library()}.so"
    if library.exists():
        ctypes.CDLL(str(library)).scipy_openblas_set_num_threads(n_threads)
