"""Cold and warm start of `run.py`: ``python -m benchmarks.start [--rounds N]``.

In each round `run.py` trains for an epoch on a small synthetic log and evaluates: once with an
empty cache of compiled code, then with the cache that this has filled. The cache is a new directory
(``XDG_CACHE_HOME``), so that of the user is neither read nor written; files of Python, of its
libraries and of the compiler are in the system's memory after the first run. Times are those at
which lines of `run.py` arrive:

- **first step**: from the start of the process until its first epoch begins, which is when the line
  of that epoch arrives less the seconds that this line gives for the epoch;
- **on to the first metric**: from the line ``Total training time``, with which the training ends,
  to the line of Recall and MRR, which includes compiling and ranking a small test set;
- **whole run**: from the start of the process to its end.

Beside them seconds of the processor, all threads together: of the process itself, and of those that
it has started and waited for, which are compilers. Medians of the rounds, in brackets the worst and
the best.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks import options
from benchmarks.results import Results
from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import run_cli

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = (
    "loss=cross-entropy,final_act=softmax,layers=100,batch_size=32,n_sample=2048,"
    "constrained_embedding=True,n_epochs=1"
)
CACHES = ("empty", "filled")
MEASURED = ("first_step", "to_metric", "whole", "own_cpu", "compilers_cpu")
EPOCH = re.compile(r"Epoch1 --> .*\t\((\d+\.\d+)s\)")


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=options.positive, default=20_000, help="of the log")
    parser.add_argument("--items", type=options.positive, default=1_000, help="of the log")
    options.add_rounds(parser, 5)
    options.add_json(parser)
    args = parser.parse_args()
    results = Results(args)
    rounds: dict[str, list[dict[str, float]]] = {cache: [] for cache in CACHES}
    with tempfile.TemporaryDirectory() as directory:
        logs = write_logs(Path(directory), args.events, args.items)
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory(dir=directory) as cache:
                for found in rounds.values():
                    found.append(run(logs, cache))
    print(
        "cache    first step, s        on to the metric, s  whole run, s         own CPU, s       "
        "    compilers' CPU, s"
    )
    for cache, found in rounds.items():
        columns = {name: [one[name] for one in found] for name in MEASURED}
        print(f"{cache:<8} {' '.join(f'{spread(x):<20}' for x in columns.values())}".rstrip())
        results.add(cache=cache, **columns)


def write_logs(directory: Path, n_events: int, n_items: int) -> tuple[Path, Path]:
    """Write a training set, and its first tenth as the test set; return their paths."""
    from benchmarks.training import synthetic_log

    log = synthetic_log(n_events, n_items)
    paths = directory / "train.tsv", directory / "test.tsv"
    for path, n_rows in zip(paths, (n_events, -(-n_events // 10))):
        log[:n_rows].to_csv(path, sep="\t", index=False)
    return paths


def run(logs: tuple[Path, Path], cache: str) -> dict[str, float]:
    """Run `run.py` with a cache; return what `MEASURED` names, in seconds."""
    train, test = map(str, logs)
    command = [sys.executable, "-u", str(ROOT / "run.py"), train, "-t", test, "-m", "20"]
    env = {name: x for name, x in os.environ.items() if name not in ("THEANO_FLAGS", "THEANORC")}
    # a compiler's own cache would make an empty one of ours a filled one
    env.update(XDG_CACHE_HOME=cache, CCACHE_DISABLE="1")
    times = {}
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            [*command, "-d", "cpu", "-ps", PARAMETERS],
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            for line in process.stdout:
                now = time.perf_counter() - start
                if found := EPOCH.match(line):
                    times["first_step"] = now - float(found[1])
                elif line.startswith("Total training time"):
                    trained = now
                elif line.startswith("Recall@"):
                    times["to_metric"] = now - trained
            # the times of its children can be read as long as nobody has asked for its exit code
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            times["whole"] = time.perf_counter() - start
            times["own_cpu"], times["compilers_cpu"] = processor_seconds(process.pid)
        finally:  # if this process is ended, that one ends its compilers, but not those of Theano
            process.terminate()
            process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        if process.returncode or times.keys() != {*MEASURED}:
            errors.seek(0)
            raise SystemExit(f"run.py failed, exit code {process.returncode}:\n{errors.read()}")
    return times


def processor_seconds(pid: int) -> tuple[float, float]:
    """Return the seconds of the processor of a process, and of its children that have ended."""
    # the second field, the name in brackets, may hold anything
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, own_system, children, children_system = map(int, fields[11:15])
    ticks = os.sysconf("SC_CLK_TCK")
    return (own + own_system) / ticks, (children + children_system) / ticks


def spread(seconds: list[float]) -> str:
    """Return the median, and in brackets the worst and the best."""
    return f"{median(seconds):.1f} ({max(seconds):.1f} to {min(seconds):.1f})"


if __name__ == "__main__":
    run_cli(main)
