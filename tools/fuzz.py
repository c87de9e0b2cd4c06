"""Damaged and made-up inputs for everything that is read: `make fuzz`.

    python tools/fuzz.py -n 100000 --seed 1 models pickles

Each input has to end as what was read, or as one sentence: no crash, no other exception, nothing
printed or written, no more time and memory than `SECONDS` and `MEMORY`. The inputs are sound files
that are changed in a few places, some in what the format holds, with check sums that are right: the
same for the same seed and number, on every Python. They are read in processes of their own. Those
that end badly are kept in a directory, whose name is told.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from gru4rec_toolkit import arguments, modelfile, parameters
from gru4rec_toolkit.errors import InputError, run_cli
from gru4rec_toolkit.progress import progress_bar
from tools import fuzz_events

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 20  # for one input, on a busy machine
MEMORY = 2 << 30  # that reading may ask for beside what the process has,
RESIDENT = 5 << 28  # and what it may use; pickles have a limit of their own
AT_ONCE = 200  # inputs of a process

Inputs = Iterator[tuple[str, bytes]]  # endings of names, and contents
Check = Callable[[Path], Any]


class Target(NamedTuple):
    """A kind of input.

    Attributes
    ----------
    share : int
        How many of 100 inputs are of it.
    prepare : callable
        Takes a random number generator; returns inputs without end, and a function that reads one
        of them. That returns a text if something is wrong with what it read.
    """

    share: int
    prepare: Callable[[random.Random], tuple[Inputs, Check]]


# --- changes --------------------------------------------------------------------------------------

NUMBERS = "0 -1 1 007 1e5 1e308 1e400 .5 0.5/0.9 nan inf 0x1F 1_0 ٣ 4294967296 9223372036854775808"
NAMES = "True False None softmax bpr-max layersize adam elu elu-0.5 selu-1-2 200/100 [] {} ()"
WORDS = [*NUMBERS.split(), *NAMES.split(), *"/-=:#,\\'\" \t\n\r\0\x1b\f;\u202eé\ud800"]
WORDS += ["", "9" * 30, "9" * 5000, ",,", "==", '"""', "\x1b[2J"]
CODE = r"""import os|__import__('os')|open('x', 'w')|lambda: 0|(x := 1)|[x for x in y]|f'{x}'|1 + 1
-1|1j|print()|{**x}|*x|...|b'x'|x.y|x[0]|if True:|OrderedDict|gru4rec_params|dict(|OrderedDict([
not 1|0x1for x|1 if 1 else 2|'a' 'b'|'a' * 9**9|# coding: rot13|exec('')|'\d'|1 is 1|()()|yield"""
CODE = [*re.split(r"[|\n]", CODE), "(" * 300, "-" * 3000, "0x" + "f" * 99, "@x\ndef f(): pass\n"]
VALUES: list[Any] = [None, True, False, 0, 1, -1, 10**12, 10**30, 10**400, 0.5, 1e308, [], {}, [[]]]
VALUES += [float("nan"), float("inf"), [0], [1e400], [None], {"a": 1}, [100] * 1000, *WORDS]
DTYPES = [
    "<f4",
    "<f8",
    ">f4",
    "<f2",
    "<i8",
    "<i4",
    ">i8",
    "|u1",
    "|b1",
    "<u8",
    "<c8",
    "<U1",
    "<M8[s]",
]


def change_text(rng: random.Random, text: str, words: Sequence[str]) -> str:
    """Change a few places of a text: words, letters, parts that are moved, doubled or left out."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(text) + 1)
        end = min(at + rng.choice((0, 0, 1, 2, 5, 20)), len(text))
        choice = rng.random()
        if choice < 0.6:
            part = rng.choice(words)
        elif choice < 0.75:
            part = ""
        elif choice < 0.9:
            begin = rng.randrange(len(text) + 1)
            part = text[begin : begin + rng.randrange(60)] * rng.choice((1, 1, 1, 2, 500))
        else:
            part = chr(rng.choice((rng.randrange(128), rng.randrange(0x3000))))
        text = text[:at] + part + text[end:]
    return text


def encoded(rng: random.Random, text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return fuzz_events.damage(rng, "", data) if rng.random() < 0.1 else data


def change_json(rng: random.Random, value: Any) -> Any:
    """Replace, add or leave out something somewhere in what JSON holds."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        copied = value.copy()
        choice = rng.random()
        if choice < 0.75:
            copied[key] = change_json(rng, value[key])
        elif choice < 0.9:
            del copied[key]
        elif isinstance(copied, dict):
            copied[rng.choice(WORDS)] = copied[key]
        else:
            copied += copied[: key + 1]
        return copied
    return rng.choice(VALUES)


def change_array(rng: random.Random, array: np.ndarray) -> np.ndarray:
    """Change an array's type, shape or values."""
    choice = rng.random()
    with contextlib.suppress(ValueError, TypeError, OverflowError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if choice < 0.3:
            return array.astype(rng.choice(DTYPES))
        if choice < 0.45:
            return array[: rng.randrange(len(array) + 1)]
        if choice < 0.55:
            return np.concatenate([array, array[: rng.randrange(len(array) + 1)]])
        if choice < 0.65:
            return rng.choice((array.T, array[None], array.reshape(-1), array[..., :0]))
        array = array.copy()
        place = rng.randrange(max(1, array.size))
        array.reshape(-1)[place:] = rng.choice((0, -1, 1, 127, 2**40, 2**63 - 1, np.nan, -np.inf))
    return array


def change_container(rng: random.Random, content: bytes) -> bytes:
    """Change what a model or a checkpoint holds, with right check sums, or its bytes."""
    if rng.random() < 0.35:
        return fuzz_events.damage(rng, "", content)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        name = rng.choice(["header.npy", *members])
        if name not in members:
            continue
        choice = rng.random()
        if choice < 0.05:
            del members[name]
        elif choice < 0.1:
            new = rng.choice(
                ["../x", "/x", "x", "Wy", "item_ids.utf8", "a/b", "\x1b[2J", "support"]
            )
            members[f"{new}.npy"] = members[name]
        elif choice < 0.2:
            members[name] = fuzz_events.damage(rng, "", members[name])
        else:
            with contextlib.suppress(Exception):  # numpy's, of what was damaged before
                array = np.load(io.BytesIO(members[name]))
                if name == "header.npy":
                    text = json.dumps(change_json(rng, json.loads(array.tobytes())))
                    array = np.frombuffer(text.encode(), dtype=np.uint8)
                else:
                    array = change_array(rng, array)
                buffer = io.BytesIO()
                np.save(buffer, array)
                members[name] = buffer.getvalue()
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", kind) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


# --- targets --------------------------------------------------------------------------------------


def strings(rng: random.Random) -> tuple[Inputs, Check]:
    """Parameter strings, as of -ps."""
    sound = [
        "layers=100,batch_size=32,loss=bpr-max,final_act=elu-0.5,n_sample=2048,adapt=adagrad",
        "loss=cross-entropy,final_act=softmax,logq=1.0,constrained_embedding=True,momentum=0.1",
        "layers=200/100,adapt=adam,adapt_params=0.9/0.999,dropout_p_hidden=0.5,seed=7,time_sort=0",
        "embedding=layersize,hidden_act=tanh,session_key=s,item_key=i,time_key=t,bpreg=0.5,sigma=0",
    ]
    words = [*WORDS, *parameters.PARAMETERS]

    def made() -> Inputs:
        for _ in _ever():
            text = rng.choice(sound)
            if rng.random() < 0.5:
                pieces = text.split(",")
                i = rng.randrange(len(pieces))
                pieces[i] = f"{pieces[i].partition('=')[0]}={rng.choice(words)}"
                yield "txt", encoded(rng, ",".join(pieces))
            else:
                yield "txt", encoded(rng, change_text(rng, text, words))

    def check(path: Path) -> None:
        settings = parameters.parse_string(path.read_bytes().decode("utf-8", "surrogateescape"))
        parameters.HasParameters().set_params(**settings)

    return made(), check


def paramfiles(rng: random.Random) -> tuple[Inputs, Check]:
    """Parameter files, as of -pf."""
    sound = [path.read_text() for path in sorted((ROOT / "paramfiles").glob("*.py"))]
    sound += ["gru4rec_params = {'loss': 'bpr-max', 'layers': [100, 50]}\n"]
    sound += ['"""x"""\ngru4rec_params = dict(loss="top1", layers=(100,), logq=1.0)\n']
    words = [*WORDS, *CODE, *parameters.PARAMETERS]

    def check(path: Path) -> None:
        parameters.HasParameters().set_params(**parameters.read_file(str(path)))

    return (
        ("py", encoded(rng, change_text(rng, rng.choice(sound), words))) for _ in _ever()
    ), check


def spaces(rng: random.Random) -> tuple[Inputs, Check]:
    """Search spaces of paropt.py."""
    from gru4rec_toolkit.search import space

    sound = [path.read_text() for path in sorted((ROOT / "paramspaces").glob("*.json"))]

    def made() -> Inputs:
        for _ in _ever():
            lines = rng.choice(sound).splitlines()
            if rng.random() < 0.6:
                i = rng.randrange(len(lines))
                with contextlib.suppress(ValueError):
                    lines[i] = json.dumps(change_json(rng, json.loads(lines[i])))
                yield "json", encoded(rng, "\n".join(lines))
            else:
                yield "json", encoded(rng, change_text(rng, "\n".join(lines), WORDS))

    def check(path: Path) -> None:
        for parameter in space.read_space(str(path)):
            parameter.n_values(), parameter.samples(), parameter.as_json(), parameter.range

    return made(), check


def sound_journal() -> list[str]:
    """Return the lines of a study with three trials, and all that a trial of paropt.py records."""
    import optuna

    from gru4rec_toolkit.search import storage, worker

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("worker", {"host": "h", "machine": "0", "pid": 1, "start": 0})
        trial.report(0.5, 1)
        rate = trial.suggest_float("learning_rate", 0.1, 1, step=0.1)
        return rate + trial.suggest_int("layers", 1, 9) + len(trial.suggest_categorical("x", "ab"))

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "journal")
        study = optuna.create_study(storage=storage.open_storage(path, 60), study_name="s")
        study.set_user_attr(worker.DESCRIPTION, {"-fp": {}})
        study.optimize(objective, n_trials=3)
        return Path(path).read_text().splitlines()


def journals(rng: random.Random) -> tuple[Inputs, Check]:
    """Journals of studies, as paropt.py opens them."""
    from gru4rec_toolkit.search import storage, worker

    lines = sound_journal()

    def made() -> Inputs:
        for _ in _ever():
            changed = lines[: rng.randrange(1, len(lines) + 1)]
            i = rng.randrange(len(changed))
            if rng.random() < 0.7:
                changed[i] = json.dumps(
                    change_json(rng, json.loads(lines[i])), separators=(",", ":")
                )
                yield "journal", encoded(rng, "\n".join(changed) + "\n")
            else:
                yield "journal", encoded(rng, change_text(rng, "\n".join(changed) + "\n", WORDS))

    def check(path: Path) -> None:
        where = str(path)
        storage.check_storage(where)
        try:
            opened = storage.open_storage(where, 60)
            for study in opened.get_all_studies():
                for trial in opened.get_all_trials(study._study_id):
                    worker._problem(trial, [])
        except Exception as err:
            told = worker.in_one_sentence(err, where)
            raise (InputError(told) if isinstance(told, worker.SearchFailed) else told) from None

    return made(), check


def models(rng: random.Random) -> tuple[Inputs, Check]:
    """Model files."""
    from gru4rec import GRU4Rec, Network
    from gru4rec_toolkit.model import weights

    sound = []
    ids = np.array(["a", "", "é", "\x1b[2J"], dtype=object)
    for settings in (
        {"layers": [3]},
        {"layers": [2, 3], "embedding": 4, "loss": "cross-entropy", "final_act": "softmax"},
        {"layers": [3], "constrained_embedding": True},
    ):
        gru = GRU4Rec(**settings)
        for item_ids in (np.arange(4), ids):
            network = Network(gru.settings, weights.initial(gru.settings, 4))
            gru.take(network, item_ids, np.array([4, 3, 2, 1]))
            with tempfile.TemporaryDirectory() as folder:
                gru.savemodel(os.path.join(folder, "model"))
                sound.append(Path(folder, "model").read_bytes())

    def check(path: Path) -> None:
        modelfile.is_model(str(path))
        repr(GRU4Rec.loadmodel(str(path)))

    return (("model", change_container(rng, rng.choice(sound))) for _ in _ever()), check


def checkpoints(rng: random.Random) -> tuple[Inputs, Check]:
    """Checkpoints; a training goes on from those that fit."""
    import pandas as pd

    from gru4rec import GRU4Rec, Network
    from gru4rec_toolkit.data import sessions
    from gru4rec_toolkit.model import checkpoint, training, weights

    training.BLOCK_STEPS = 8
    n = 240
    numbers = np.random.default_rng(0).integers(0, 12, (2, n))
    data = pd.DataFrame({"SessionId": np.arange(n) // 6, "ItemId": numbers[0], "Time": range(n)})
    settings = {"layers": [3, 2], "batch_size": 4, "n_sample": 4, "n_epochs": 2, "adapt": "rmsprop"}
    gru = GRU4Rec(**settings)
    written: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        # a process of its own: threads of a training would not be in the processes that are forked
        child = os.fork()
        if child == 0:
            write = checkpoint.Checkpoints.write

            def write_copy(self: checkpoint.Checkpoints, of: Any) -> None:
                write(self, of)
                shutil.copy(self.path, f"{folder}/{len(os.listdir(folder))}.copy")

            checkpoint.Checkpoints.write = write_copy  # type: ignore[method-assign]
            with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
                gru.fit(data, sample_store=100, checkpoint=folder, checkpoint_minutes=0)
            os._exit(0)
        os.waitpid(child, 0)
        written += [path.read_bytes() for path in sorted(Path(folder).glob("*.copy"))]
    log = sessions.index_sessions(data, "SessionId", "ItemId", "Time", announce=False)
    network = Network(gru.settings, weights.initial(gru.settings, log.n_items))
    resumed = training.Training(network, log, 100, on_device=True)

    def check(path: Path) -> None:
        found = checkpoint.Checkpoints(path.parent, resume=True)
        found.path, found.write = str(path), lambda of: None  # type: ignore[method-assign]
        found.restore(resumed)
        resumed.run(checkpoints=found)

    return (("checkpoint", change_container(rng, rng.choice(written))) for _ in _ever()), check


def events(*kinds: str) -> Callable[[random.Random], tuple[Inputs, Check]]:
    """Tables of events of some kinds."""
    return lambda rng: (fuzz_events.inputs(rng, *kinds), fuzz_events.check)


TARGETS = {
    "strings": Target(15, strings),
    "paramfiles": Target(15, paramfiles),
    "spaces": Target(5, spaces),
    "journals": Target(5, journals),
    "text": Target(20, events("tsv", "csv", "tsv.gz", "csv.gz")),
    "pickles": Target(12, events("pickle")),
    "arrow": Target(3, events("parquet", "feather")),
    "models": Target(20, models),
    "checkpoints": Target(5, checkpoints),
}


def _ever() -> Iterable[None]:
    return iter(lambda: None, 0)


# --- processes ------------------------------------------------------------------------------------


def run(
    name: str, n_inputs: int, seed: int, folder: Path, progress: Callable[[int], Any] = bool
) -> dict[str, int]:
    """Read inputs of a target and count how that ends; those that end badly stay in the folder.

    Parameters
    ----------
    name : str
        Of `TARGETS`.
    folder : Path
        Empty, but for what was kept of others.
    progress : callable
        Gets how many inputs were read since the last call.
    """
    counts: dict[str, int] = {}
    made, check = TARGETS[name].prepare(random.Random(f"{seed} {name}"))
    for first in range(0, n_inputs, AT_ONCE):
        paths = []
        for i in range(first, min(first + AT_ONCE, n_inputs)):
            kind, content = next(made)
            paths.append(folder / f"{name}-{seed}-{i}.{kind}")
            paths[-1].write_bytes(content)
        n = len(paths)
        while paths:
            for path, result in zip(list(paths), read_all(paths, check)):
                paths.remove(path)
                if result in ("read", "refused"):
                    path.unlink()
                else:
                    print(f"{path}: {result}", flush=True)
                    result = result.split(":")[0]
                counts[result] = counts.get(result, 0) + 1
        progress(n)
    return counts


def read_all(paths: list[Path], check: Check) -> list[str]:
    """Read files in a process until one of them ends it."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as empty:
        return _read_until_the_end(paths, check, empty)


def _read_until_the_end(paths: list[Path], check: Check, empty: str) -> list[str]:
    sys.stdout.flush()
    sys.stderr.flush()
    output, given = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(output)
        try:
            _alone(empty)
            for path in paths:
                signal.alarm(SECONDS)
                result = " ".join(outcome(path, check).split())[:500]
                os.write(given, result.encode(errors="backslashreplace") + b"\n")
        finally:
            os._exit(1)
    os.close(given)
    with os.fdopen(output, encoding="utf-8") as file:
        results = file.read().splitlines()
    _, status = os.waitpid(child, 0)
    if len(results) < len(paths):
        slow = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        results.append("too slow" if slow else f"crash: status {status}")
    return results


def _alone(empty: str) -> None:
    """Prepare a process that reads: its limits, an empty directory, and its output to a file."""
    with open("/proc/self/statm", encoding="ascii") as file:
        in_use = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    null, said = os.open(os.devnull, os.O_RDWR), tempfile.TemporaryFile()  # noqa: SIM115
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(said.fileno(), 2)
    sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115
    os.chdir(empty)


def outcome(path: Path, check: Check) -> str:
    """Read one file: "read", "refused", or what is wrong about it."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    before, files_before = path.read_bytes(), os.listdir(path.parent)
    try:
        result = check(path) or "read"
    except InputError as err:
        message = str(err)
        fine = message.isprintable() and len(message) < 3000
        result = "refused" if fine else f"no sentence: {message}"
    except BaseException as err:
        result = f"{type(err).__name__}: {err}"
    if path.read_bytes() != before or os.listdir(path.parent) != files_before or os.listdir("."):
        result = f"something was written: {result}"
    most = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - most
    if most > RESIDENT:
        result = f"memory: {most >> 20} MB ({result})"
    sys.stderr.flush()
    n_said = os.lseek(2, 0, os.SEEK_END)
    if n_said:
        os.lseek(2, 0, os.SEEK_SET)
        result = f"printed: {os.read(2, 1000)!r} ({result})"
        os.ftruncate(2, 0)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line program."""
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)"
    )
    parser.add_argument(
        "-n",
        type=int,
        default=100_000,
        help="number of inputs, of all targets (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args(argv)
    unknown = [name for name in args.targets if name not in TARGETS]
    if unknown or args.n < 1:
        parser.error(f"expected targets of {', '.join(TARGETS)}, and 1 input or more")
    names = list(dict.fromkeys(args.targets)) or list(TARGETS)
    total = sum(TARGETS[name].share for name in names)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-inputs-"))
    bad = 0
    print(
        "| target | inputs | read | refused | others | seconds |\n" + "| --- " * 6 + "|", flush=True
    )
    for name in names:
        n_inputs = -(-args.n * TARGETS[name].share // total)
        began = time.monotonic()
        with progress_bar(n_inputs, name, unit="input") as bar:
            counts = run(name, n_inputs, args.seed, folder, bar.update)
        others = n_inputs - counts.get("read", 0) - counts.get("refused", 0)
        numbers = (n_inputs, counts.get("read", 0), counts.get("refused", 0), others)
        print(f"| {name} | {' | '.join(map(str, numbers))} | {time.monotonic() - began:.0f} |")
        bad += others
    if bad:
        print(f"{bad} inputs that ended badly are in {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    run_cli(main)
