"""Configuration of Theano before it is imported: device, BLAS, compiler flags, directory.

Every module takes Theano from here (``from gru4rec_toolkit.theano_setup import theano``), which
calls `configure`; a program that chooses the device calls it before.
Every setting is taken from the first of these places that names it: the ``device`` argument (only
the device), the environment variable ``THEANO_FLAGS``, the files named in ``THEANORC``,
``.theanorc_gru4rec``, and what is found out here about the machine.
"""

from __future__ import annotations

import configparser
import contextlib
import importlib
import logging
import os
import platform
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gru4rec_toolkit import compile_ahead, compile_directory, theano_patches, versions
from gru4rec_toolkit.errors import InputError, one_line, pip_install, shown
from gru4rec_toolkit.machine import (
    APT,
    check_compiler,
    count_threads,
    find_blas,
    openmp_threads,
    set_blas_threads,
    warn_of_named_threads,
)

logger = logging.getLogger("gru4rec")

RC_FILE = Path(__file__).resolve().with_name(".theanorc_gru4rec")
DEVICE_PATTERN = r"auto|cpu|cuda\d*|opencl\d+:\d+"


@dataclass(frozen=True)
class Setup:
    """Description of the device, BLAS and directory that Theano runs with, and why.

    Attributes
    ----------
    device, device_reason : str
        For example ``cpu`` and ``pygpu is not installed``.
    blas : str
        Where the matrix products come from.
    threads : int
        Threads that compute.
    compile_dir : str
        Directory of the compiled modules. Messages say the one above it, which is this user's.
    sgemm : str
        Name of BLAS's float32 matrix product in C; empty where there is no BLAS to link with.
    team : bool
        Whether the threads are those of the kernels (`ops.library`), else they are BLAS's own.
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
        """Tell whether the graph is built of our Ops, else of Theano's own expressions."""
        return self.team or (self.device != "cpu" and self.floatX == "float32")

    def __str__(self) -> str:
        return (
            f"device: {self.device} ({self.device_reason}); BLAS: {self.blas}, "
            f"{self.threads} thread(s); compile directory: {self._shown_dir()}"
        )

    def _shown_dir(self) -> str:
        """Return the part of the directory's path that tells where it is, from ~ on."""
        path = Path(self.compile_dir)
        if path.name.startswith("compiledir_"):  # of this system and these versions
            path = path.parent
        with contextlib.suppress(RuntimeError, ValueError):  # no home; not in it
            return f"~/{path.relative_to(os.path.realpath(Path.home()))}"
        return str(path)


_setup: Setup | None = None


def check_device(device: str) -> None:
    """Raise an InputError if a device's name is misspelt."""
    if not re.fullmatch(DEVICE_PATTERN, device):
        raise InputError(
            f"device {shown(device)} is not known; give auto, cpu, cuda0, cuda1... or opencl0:0"
        )


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
        there is no compiler, if a package's version does not fit (`versions`), or if Theano was
        imported before with settings that cannot work.
    """
    global _setup
    if device is not None:
        check_device(device)
    if _setup is None:
        versions.check()
        check_compiler()
        _setup = _adopt_theano() if "theano" in sys.modules else _import_theano(device)
        compile_directory.restore(_setup.compile_dir)
        theano_patches.apply()
        compile_ahead.apply()
        logger.info("%s", _setup)
        others = [f"{name} {sys.modules[name].__version__}" for name in ("numpy", "theano")]
        logger.debug("compile directory: %s", _setup.compile_dir)
        logger.debug("Python %s, %s", platform.python_version(), ", ".join(others))
    if device not in (None, "auto", _setup.device):
        raise InputError(
            f"device {device} was asked for, but Theano already runs on {_setup.device} in this "
            "process; choose the device before gru4rec or theano is imported"
        )
    return _setup


def __getattr__(name: str):
    """Return Theano, configured, where somebody imports ``theano`` or ``tensor`` from here.

    So is ``pygpu``, with ``theano.gpuarray`` ready to be imported, whatever the device.
    """
    if name not in ("theano", "tensor", "pygpu"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    configure()
    if name == "pygpu":
        importlib.import_module("gru4rec_toolkit.theano_compat").import_gpuarray()
    return importlib.import_module("theano.tensor" if name == "tensor" else name)


def _import_theano(device: str | None) -> Setup:
    named = _named_settings()
    wanted, source = named.get("device", "auto"), "THEANO_FLAGS or a configuration file"
    if device is not None:
        wanted, source = device, "asked for"
    chosen, reason = _choose_device(wanted, source)
    compat = importlib.import_module("gru4rec_toolkit.theano_compat")  # imports NumPy
    flags = {"device": chosen}
    if not any(name.startswith("numpy.seterr") for name in named):
        flags["numpy.seterr_all"] = "None"  # else it would silence NumPy for the whole program
    blas, renames = f"as named: {named.get('blas.ldflags')}", ""
    if "blas.ldflags" not in named:
        flags["blas.ldflags"], renames, blas = find_blas()
        set_blas_threads(count_threads(team=False))
    cxxflags = [named.get("gcc.cxxflags"), renames, *compat.compiler_flags()]
    flags["gcc.cxxflags"] = " ".join(filter(None, cxxflags))
    if "base_compiledir" in named or "compiledir" in named:
        base = compile_directory.named(named)
    else:
        base = compile_directory.choose()
        flags["base_compiledir"] = str(base)
    compile_directory.remove_stale_locks(base)
    compile_directory.remove_damaged(base)
    compile_directory.check_start(base)
    # Theano sets it where it opens a GPU, against forked processes; this one has just been started
    os.environ.pop("THEANO_GPU_IS_ALREADY_ACTIVE", None)
    try:
        with _kept_log("theano.gpuarray") as refusals:
            theano = _import_with(flags)
    except Exception as err:
        if _is_refused_setting(err):
            raise InputError(
                "THEANO_FLAGS or a configuration file has a setting that Theano does not take "
                f"({one_line(err)}); correct it or leave it out"
            ) from None
        if isinstance(err, (AttributeError, ImportError)) and not compile_directory.is_failure(err):
            # an AttributeError would be taken for a name that this module lacks
            numpy = f"NumPy is {importlib.import_module('numpy').__version__}"
            raise InputError(
                f"Theano cannot be imported: {one_line(err)}; of packages that do not fit each "
                f"other ({numpy}) upgrade the older one, as with `{pip_install('--upgrade scipy')}`"
            ) from err
        if not compile_directory.is_failure(err):
            raise
        raise compile_directory.failure(err, base) from err
    finally:
        compile_directory.close_to_others(base)
    if not theano.config.cxx:
        raise InputError(
            f"Theano found no C++ compiler that works; try g++ -v, install one with: {APT} g++"
        )
    if chosen != "cpu" and not importlib.import_module("theano.gpuarray").pygpu_activated:
        reason = "; ".join(refusals) or "no reason given"
        raise InputError(
            f"Theano could not use the device {chosen} ({reason}); use -d cpu to run on the CPU"
        )
    problem = _problem(theano.config)
    if problem:
        raise InputError(
            f"Theano cannot be used with the settings of THEANO_FLAGS or a configuration file, "
            f"because {problem}; leave them out"
        )
    return _describe(theano.config, chosen, reason, blas)


def _adopt_theano() -> Setup:
    """Use the Theano that the user has imported, if blocks of steps can run in it."""
    config = sys.modules["theano"].config
    problem = _problem(config)
    if problem:
        raise InputError(
            f"theano was imported before gru4rec and cannot be used, because {problem}; "
            "import gru4rec first and let it configure Theano"
        )
    blas = f"as configured: {config.blas.ldflags or 'none, NumPy is used'}"
    reason = "Theano was imported before gru4rec"
    return _describe(config, config.device, reason, blas)


def _problem(config) -> str | None:
    """Say why blocks of steps cannot run with Theano's settings, or return None."""
    if not config.cxx:
        return "it has no C++ compiler (config.cxx is empty)"
    if config.floatX not in ("float32", "float64"):
        return f"its floatX is {config.floatX} (float32 is expected)"
    if config.linker not in ("cvm", "cvm_nogc") or config.mode not in ("Mode", "FAST_RUN"):
        return f"its mode={config.mode}, linker={config.linker} do not run in Theano's C VM"
    return None


def _is_refused_setting(err: Exception) -> bool:
    """Tell whether Theano's import ended where it checks its settings."""
    files = {os.path.basename(f.filename) for f in traceback.extract_tb(err.__traceback__)[-3:]}
    return isinstance(err, (TypeError, ValueError)) and "configparser.py" in files


def _describe(config, device: str, reason: str, blas: str) -> Setup:
    sgemm = _sgemm(config)
    team = device == "cpu" and config.floatX == "float32" and bool(sgemm)
    threads = count_threads(team)
    warn_of_named_threads(threads)
    return Setup(device, reason, blas, threads, config.compiledir, sgemm, team, config.floatX)


# ---------------------------------------------------------------------------- settings


def _rc_files() -> list[str]:
    if not RC_FILE.is_file():
        # without the file Theano would compute in float64, with slower code
        raise InputError(f"{RC_FILE} is missing; install GRU4Rec again")
    own = [p for p in os.environ.get("THEANORC", "").split(os.pathsep) if p]
    return [str(RC_FILE), *map(os.path.expanduser, own)]


def _named_settings() -> dict[str, str]:
    """Return what the configuration files and THEANO_FLAGS name, under the keys of THEANO_FLAGS."""
    parser = configparser.RawConfigParser()
    # the way that configparser names to keep the case of options
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read(_rc_files())
    named = {
        option if section == "global" else f"{section}.{option}": value
        for section in parser.sections()
        for option, value in parser.items(section)
    }
    for flag in split_flags(os.environ.get("THEANO_FLAGS", "")):
        key, equals, value = flag.strip().partition("=")
        if equals:
            named[key] = value
    return named


def split_flags(text: str, source: str = "THEANO_FLAGS") -> list[str]:
    """Split flags as Theano does it; ``source`` names them where their quotes do not fit."""
    splitter = shlex.shlex(text, posix=True)
    splitter.whitespace = ","
    splitter.whitespace_split = True
    try:
        return list(splitter)
    except ValueError as err:
        raise InputError(f"{source} cannot be read ({err}); check its quotes") from None


def _import_with(flags: dict[str, str]):
    """Import Theano with these flags beside the user's; leave the environment as it was."""
    user = os.environ.get("THEANO_FLAGS", "")
    changed = ("THEANO_FLAGS", "THEANORC", "OMP_NUM_THREADS")
    saved = {name: os.environ.get(name) for name in changed}
    log_level = logging.root.level  # Theano imports numpy.distutils, which may raise it
    own = [flag for flag in split_flags(user) if flag.strip().partition("=")[0] not in flags]
    settings = [f"{key}={value}" for key, value in flags.items()] + own
    os.environ["THEANO_FLAGS"] = ",".join(shlex.quote(s) for s in settings)
    os.environ["THEANORC"] = os.pathsep.join(_rc_files())
    # of OpenMP's list Theano takes nothing, and what is no number ends it
    os.environ["OMP_NUM_THREADS"] = openmp_threads() or ""
    try:
        with importlib.import_module("gru4rec_toolkit.theano_compat").importable():
            return importlib.import_module("theano")
    finally:
        logging.root.setLevel(log_level)
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _kept_log(name: str) -> Iterator[list[str]]:
    """Keep a logger from showing tracebacks in the block; their last lines are in the list."""
    log, kept = logging.getLogger(name), []

    def keep(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            kept.append(one_line(record.exc_info[1]))
        return not record.exc_info

    log.addFilter(keep)
    try:
        yield kept
    finally:
        log.removeFilter(keep)


# ---------------------------------------------------------------------------- device


def _choose_device(wanted: str, source: str) -> tuple[str, str]:
    """Resolve ``auto``; check that a GPU computes, since Theano would go on without it."""
    if not re.fullmatch(DEVICE_PATTERN, wanted):
        raise InputError(
            f"device {shown(wanted)} (from {source}) is not known; "
            "give auto, cpu, cuda0, cuda1... or opencl0:0"
        )
    if wanted == "cpu":
        return "cpu", source
    gpu_probe = importlib.import_module("gru4rec_toolkit.gpu_probe")  # imports NumPy
    problem = gpu_probe.find_problem("cuda0" if wanted == "auto" else wanted)
    if wanted == "auto":
        if problem is None:
            return "cuda0", "found a CUDA GPU"
        if gpu_probe.has_no_driver(problem):
            logger.debug("no CUDA GPU: %s", problem.reason)
            return "cpu", "no CUDA GPU: there is no driver, libcuda.so"
        failed = "" if problem.action == "be opened" else f"cuda0 cannot {problem.action}: "
        return "cpu", f"no CUDA GPU: {failed}{problem.reason}"
    if problem:
        raise InputError(
            f"device {wanted} ({source}) cannot {problem.action}: {problem.reason}; "
            "use -d cpu or -d auto to run on the CPU"
        )
    return wanted, source


def _sgemm(config) -> str:
    if not config.blas.ldflags:
        return ""
    renamed = re.search(r"-Dsgemm_=(\w+)", config.gcc.cxxflags)
    return renamed.group(1) if renamed else "sgemm_"
