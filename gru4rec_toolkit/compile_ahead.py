"""Compilation of a graph's modules side by side, before Theano asks for one after the other.

Theano makes a module of each kind of node and runs the compiler for one at a time. `apply` patches
it: the first module that is missing lets compilers start on all modules of its graph, one for each
core (`compilers`), and where Theano runs the compiler it gets what is ready. Which modules there
are, their code, flags and keys, the directory and its lock are Theano's as before.

Most of a compiler's time goes into the headers that all modules include, so these are compiled once
where there are many modules (GCC's precompiled headers). Names of lines for debuggers (``-g``) are
left out, and a module that computes nothing itself is optimised less (``-O1``). None of that
changes a result.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gru4rec_toolkit import compilers

# what every module of Theano's includes first, in this order
_HEADERS = (
    *("<Python.h>", "<iostream>", '"theano_mod_helper.h"', "<math.h>"),
    *("<numpy/arrayobject.h>", "<numpy/arrayscalars.h>", "<algorithm>", "<vector>"),
)
_SOURCE = "mod.cpp"
# where the headers of our Ops are
_OWN = Path(__file__).resolve().parent
# options that only matter once objects are linked
_LINKING = ("-shared", "-l", "-L", "-Wl,")
# the language of our Ops
STANDARD = "-std=gnu++17"
# modules below which it is faster to let each read the headers' text
_WORTH_HEADERS = 6
# Theano's Ops that compute nothing: the compiler need not try hard
_MOVERS = ("DimShuffle", "ScalarFromTensor", "Shape_i", "Subtensor", "TensorFromScalar")


class _Recorded(BaseException):
    """The compiler's command line, where it is asked for and not run.

    Not an Exception: Theano would print it as a failure.
    """

    def __init__(self, command: list[str]) -> None:
        super().__init__()
        self.command = command


class _Graph:
    """A graph whose modules may be missing, and those of them that are being compiled ahead."""

    def __init__(self, schedule: Callable[[], list], n_locks: int) -> None:
        # of the nodes, as Theano will ask for their modules; None once that has begun
        self.schedule: Callable[[], list] | None = schedule
        # of Theano's lock, before
        self.n_locks = n_locks
        self.modules: dict[tuple, tuple[compilers.Job, str]] = {}
        self.directory: str | None = None
        self.blocks = contextlib.ExitStack()


_graph: _Graph | None = None
_recording = False


def apply() -> None:
    """Patch the Theano that is imported."""
    vm = importlib.import_module("theano.gof.vm").VM_Linker
    cmodule: Any = importlib.import_module("theano.gof.cmodule")
    make_all, run_compiler = vm.make_all, cmodule.output_subprocess_Popen

    def make_all_ahead(self, *args, **kwargs):
        with _compiled_ahead(self.fgraph, lambda: self.schedule(self.fgraph)):
            return make_all(self, *args, **kwargs)

    def take_or_run(command, **options):
        if not any(map(_is_source, command)):
            return run_compiler(command, **options)
        if _recording:
            raise _Recorded(command)
        if _graph is not None:
            _start(_graph, libraries=[])
        found = None if _graph is None else _graph.modules.pop(_key(command), None)
        if found is None:
            return run_compiler(_lean(command), **options)
        job, module = found
        output = job.wait()
        if not output[-1]:
            shutil.move(module, _out(command))
        return output

    vm.make_all, cmodule.output_subprocess_Popen = make_all_ahead, take_or_run


@contextlib.contextmanager
def _compiled_ahead(fgraph, schedule: Callable[[], list]) -> Iterator[None]:
    """Let a graph's modules be compiled side by side in the block, once something is missing."""
    global _graph
    lock = importlib.import_module("theano.gof.compilelock")
    outer, _graph = _graph, _Graph(schedule, getattr(lock.get_lock, "n_lock", 0))
    try:
        # an Op of ours says which libraries are being compiled that its module is linked with
        begin = [getattr(node.op, "start_compilation", list) for node in fgraph.apply_nodes]
        libraries = sorted({path for start in begin for path in start()})
        if libraries:
            _start(_graph, libraries)
        yield
    finally:
        graph, _graph = _graph, outer
        _finish(graph)


def _forget() -> None:
    """Begin anew in a forked process: the graph that is being compiled is its parent's."""
    global _graph, _recording
    _graph, _recording = None, False


os.register_at_fork(after_in_child=_forget)


def _start(graph: _Graph, libraries: list[Path]) -> None:
    """Start compilers on all modules of a graph that are missing, unless that was done before."""
    if graph.schedule is None:
        return
    nodes, graph.schedule = graph.schedule(), None
    # until the last module is in its place: another process would compile the same ones
    lock = importlib.import_module("theano.gof.compilelock")
    lock.get_lock()
    graph.directory = compilers.make_directory("gru4rec-modules-")
    for library in libraries:
        _make_stub(library.name, graph.directory)
    missing: dict[tuple, tuple[list[str], Any]] = {}
    for node in nodes:
        command = _command_of(node, os.path.join(graph.directory, str(len(missing))))
        if command is not None:
            missing.setdefault(_key(command), (command, node.op))
    headers = _Headers([command for command, _ in missing.values()], graph.directory)
    for key, (command, op) in missing.items():
        graph.modules[key] = _compile(command, op, headers, graph.directory), _out(command)
    graph.blocks.enter_context(compilers.shown())


def _finish(graph: _Graph) -> None:
    if graph.directory is None:
        return
    lock = importlib.import_module("theano.gof.compilelock")
    while lock.get_lock.n_lock > graph.n_locks:  # what has failed may have given it back
        lock.release_lock()
    graph.blocks.close()
    compilers.remove_directory(graph.directory)


def _make_stub(name: str, directory: str) -> None:
    """Make an empty library of this name: a linker needs the name alone."""
    cxx = importlib.import_module("theano").config.cxx
    command = [cxx, "-shared", "-nostdlib", "-x", "c", os.devnull, f"-Wl,-soname,{name}"]
    # where it fails, so do the linkers, and say it
    subprocess.run([*command, "-o", os.path.join(directory, name)], capture_output=True)


def _command_of(node, place: str) -> list[str] | None:
    """Return the command line that compiles a node's module; None: it has none, or it is there."""
    global _recording
    cmodule = importlib.import_module("theano.gof.cmodule")
    cc = importlib.import_module("theano.gof.cc")
    graph = importlib.import_module("theano.gof.fg").FunctionGraph
    try:
        linker = cc.CLinker().accept(graph(node.inputs, node.outputs))
        key, cache = linker.cmodule_key(), cc.get_module_cache()
        if key in cache.entry_from_key:
            return None
        if cmodule.get_module_hash(linker.get_src_code(), key) in cache.module_hash_to_key_data:
            return None
        os.makedirs(place, exist_ok=True)
        _recording = True
        linker.compile_cmodule(place)
    except _Recorded as recorded:
        return recorded.command
    except Exception:  # without C code, for example; whatever it is, Theano meets it next
        return None
    finally:
        _recording = False
    return None


def _compile(command: list[str], op, headers: _Headers, stubs: str) -> compilers.Job:
    """Start the compiler on a module, as soon as the headers are there."""
    computes = getattr(op, "COMPUTES", type(op).__name__ not in _MOVERS)

    def words() -> list[str]:
        # a library that is missing is found by its stub; as that is empty, a linker could drop it
        lean = [*_lean(command), *headers.wait(command)]
        lean[1:1] = [f"-L{stubs}", "-Wl,--no-as-needed"]
        return lean if computes else ["-O1" if word == "-O3" else word for word in lean]

    return compilers.start(words, compilers.MODULE, type(op).__name__)


# ---------------------------------------------------------------------------- command lines


def _is_source(word: str) -> bool:
    return os.path.basename(word) == _SOURCE


def _out(command: list[str]) -> str:
    return command[command.index("-o") + 1]


def _key(command: list[str]) -> tuple:
    """Return what a module is compiled from: the code, the name and all options."""
    source = next(filter(_is_source, command))
    words = [w for w in command if w not in (source, _out(command))]
    return (*words, os.path.basename(_out(command)), Path(source).read_bytes())


def _lean(command: list[str]) -> list[str]:
    """Return a command line without lines for debuggers."""
    return [word for word in command if word != "-g"]


def _options_of_headers(command: list[str]) -> tuple[str, ...]:
    """Return the options of a module that headers have to be compiled with."""
    others = (*_LINKING, "-o", "-g", "-std=", f"-I{_OWN}")
    out = _out(command)
    words = [w for w in command if not (w.startswith(others) or w == out or _is_source(w))]
    # in the language of our Ops, which is what compilers take by themselves since GCC 11
    return (*words, STANDARD)


# ---------------------------------------------------------------------------- headers


class _Headers:
    """The headers that all modules include, compiled once for the options that most of them have.

    Where that fails, or the compiler finds that they do not fit a module, it reads their text.
    """

    def __init__(self, commands: list[list[str]], directory: str) -> None:
        self.source = os.path.join(directory, "headers.h")
        options = collections.Counter(map(_options_of_headers, commands))
        self.options, n_modules = options.most_common(1)[0] if options else ((), 0)
        self.job: compilers.Job | None = None
        if n_modules >= _WORTH_HEADERS:
            self.job = compilers.start(self._command, compilers.HEADERS, "headers")

    def wait(self, command: list[str]) -> list[str]:
        """Wait for the compiler; return the options that let a module use what it made."""
        if self.job is None or _options_of_headers(command) != self.options:
            return []
        with contextlib.suppress(OSError):
            if not self.job.wait()[-1]:
                return ["-include", self.source]
        return []

    def _command(self) -> list[str]:
        Path(self.source).write_text("".join(f"#include {header}\n" for header in _HEADERS))
        return [*self.options, "-x", "c++-header", self.source, "-o", f"{self.source}.gch"]
