"""The quickstart: make a click log, train GRU4Rec on it, evaluate, save, load, evaluate again.

Run it with `make demo`, or as ``python examples/quickstart/quickstart.py``. It calls run.py exactly
as one would in a shell, shows its output, and compares the result with a popularity list, with two
baselines, and with the best that any model could get, which is known because the log comes from a
known process.

Exit codes: 0 all is well; 1 a step failed, the loaded model evaluates differently from the trained
one, or the model is no better than the popularity list.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np
import pandas as pd
from process import DAY, FIRST_DAY, ClickProcess

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gru4rec_toolkit import arguments, files
from gru4rec_toolkit.arguments import add_device
from gru4rec_toolkit.errors import InputError, run_cli

HERE = Path(__file__).resolve().parent
RUN = HERE.parent.parent / "run.py"

N_SESSIONS = 60_000
CUT_OFFS = (1, 5, 10, 20)
CUT_OFF = 20  # list length of the final comparison
PARAMETERS = ",".join(
    [
        "loss=cross-entropy",
        "final_act=softmax",
        "layers=96",
        "batch_size=64",
        "n_epochs=3",
        "learning_rate=0.07",
        "dropout_p_embed=0.05",
        "n_sample=1024",
        "sample_alpha=0.75",
        "logq=1",
        "constrained_embedding=True",
    ]
)
# baselines that the model is compared with, by their names in the table
BASELINES = {"Markov chain": "markov", "V-SkNN": "vsknn"}
# of a line of a command, beside what a shell needs to go on in the next one
COLUMNS = 75
METRIC_LINE = re.compile(r"Recall@(\d+): (\S+) MRR@\1: (\S+)$")


class Metrics(NamedTuple):
    """Recall and MRR of one list length, averaged over the scored events."""

    recall: float
    mrr: float


class Events(NamedTuple):
    """The scored events of a test set, as positions in the process's items, each (E,) int64."""

    current: np.ndarray
    previous: np.ndarray
    target: np.ndarray


class Task(NamedTuple):
    """The last day of a process's log, to be predicted from the days before it.

    Attributes
    ----------
    process : ClickProcess
    train, test : pandas.DataFrame
        Columns SessionId, ItemId, Time.
    support : numpy.ndarray, int64, (n_items,)
        Number of training events of each item of the process.
    events : Events
    """

    process: ClickProcess
    train: pd.DataFrame
    test: pd.DataFrame
    support: np.ndarray
    events: Events

    @classmethod
    def of(cls, process: ClickProcess, n_sessions: int) -> Task:
        """Draw a log of a process and split it."""
        log = process.sample(n_sessions)
        train, test = split(log, at=FIRST_DAY + (process.days - 1) * DAY)
        positions = process.positions(train["ItemId"].to_numpy())
        support = np.bincount(positions, minlength=process.n_items)
        return cls(process, train, test, support, scored_events(process, test, support > 0))

    def popularity_ranks(self) -> np.ndarray:
        """Return the ranks of the targets by number of training events, int64, (E,)."""
        return popularity_ranks(self.support, self.events.target)

    def best_ranks(self) -> np.ndarray:
        """Return the ranks of the targets in the best possible ranking, int64, (E,)."""
        return self.process.best_ranks_at(*self.events, np.flatnonzero(self.support))


def split(log: pd.DataFrame, at: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a log in time.

    Parameters
    ----------
    log : pandas.DataFrame
        Columns SessionId, ItemId, Time.
    at : int
        Time of the split.

    Returns
    -------
    train, test : pandas.DataFrame
        Test: the sessions that start at `at` or later. Train: the events before it; a session of
        which just one event is left is dropped, as there is nothing to predict in it.
    """
    start = log.groupby("SessionId")["Time"].transform("min")
    test = log[start >= at]
    train = log[log["Time"] < at]
    length = train.groupby("SessionId")["Time"].transform("size")
    return train[length > 1], test


def write_table(data: pd.DataFrame, path: Path) -> None:
    """Write a tab separated file; an interrupted program leaves the old file or none, no half."""
    with files.replacing(path) as file:
        data.to_csv(file, sep="\t", index=False)


def check_replaceable(path: Path, process: ClickProcess) -> None:
    """Raise an InputError if a file holds something else than a log of this process."""
    reason = files.obstacle(path, "a log of this demo", lambda path: is_log(path, process))
    if reason is not None:
        raise InputError(f"{path}: {reason}; give another folder with --data")


def is_log(path: str, process: ClickProcess) -> bool:
    """Tell whether a file holds a log of a process: there are no items but its items."""
    try:
        items = pd.read_csv(path, sep="\t", usecols=["SessionId", "ItemId", "Time"])["ItemId"]
    except ValueError:  # pandas' errors are such
        return False
    return bool(len(items) and items.isin(process.item_ids).all())


def scored_events(process: ClickProcess, test: pd.DataFrame, known: np.ndarray) -> Events:
    """The events that the evaluation scores, with the true last two items before each.

    Parameters
    ----------
    process : ClickProcess
    test : pandas.DataFrame
        Columns SessionId, ItemId, Time.
    known : numpy.ndarray, bool, (n_items,)
        Which items occur in the training data. Events on others are dropped before the evaluation:
        they are not scored, nor is an event that is thereby the first of its session. (What led to
        a scored event is taken from the whole session all the same: no model knows more.)
    """
    test = test.sort_values(["SessionId", "Time"], kind="stable")
    item = process.positions(test["ItemId"].to_numpy())
    session = test["SessionId"].to_numpy()
    place = test.groupby("SessionId").cumcount().to_numpy()  # 0 for the first event of a session
    known_before = pd.Series(known[item].astype(int)).groupby(session).cumsum().to_numpy()
    scored = np.flatnonzero(known[item] & (known_before > 1))
    previous = np.where(place[scored] > 1, scored - 2, scored - 1)
    return Events(item[scored - 1], item[previous], item[scored])


def popularity_ranks(support: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rank of each target in the list of items by number of training events.

    Parameters
    ----------
    support : numpy.ndarray, int64, (n_items,)
        Number of training events of each item.
    target : numpy.ndarray, int64, (E,)

    Returns
    -------
    numpy.ndarray, int64, (E,)
        1 + how many items have strictly more events.
    """
    return 1 + len(support) - np.searchsorted(np.sort(support), support[target], side="right")


def metrics(ranks: np.ndarray, cut_off: int) -> Metrics:
    """Recall and MRR of a list of `cut_off` items, from the ranks of the targets, (E,)."""
    hit = ranks <= cut_off
    return Metrics(float(np.mean(hit)), float(np.mean(np.where(hit, 1.0 / ranks, 0.0))))


def as_typed(command: Sequence[str]) -> str:
    """Return a command for a shell in the working directory, in lines of 80 columns."""
    lines = [""]
    for word in command:
        inside = os.path.isabs(word) and not os.path.relpath(word).startswith("..")
        word = shlex.quote(os.path.relpath(word) if inside else word)
        if lines[-1] and len(lines[-1]) + len(word) > COLUMNS:
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(lines)


def call(command: Sequence[str]) -> dict[int, Metrics]:
    """Run a program with its output shown as it comes; return the metrics that it prints.

    Raises
    ------
    SystemExit
        If the program fails, or prints other list lengths than `CUT_OFFS`.
    """
    print(f"\n$ {as_typed(command)}", flush=True)
    found = {}
    # its standard error, where the progress bar is, stays the terminal
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        bufsize=1,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as program:
        for line in program.stdout:
            print(line, end="", flush=True)
            match = METRIC_LINE.match(line.rstrip())
            if match:
                found[int(match[1])] = Metrics(float(match[2]), float(match[3]))
    if program.returncode != 0:
        sys.exit(f"error: this step ended with exit code {program.returncode}; see above")
    if tuple(found) != CUT_OFFS:
        sys.exit(f"error: this step printed metrics for {list(found)}, not {list(CUT_OFFS)}")
    return found


def report(
    popularity: Metrics, baselines: dict[str, Metrics], model: Metrics, best: Metrics
) -> str:
    """The table of the final comparison."""
    lines = [f"{'':31}{f'Recall@{CUT_OFF}':>12}{f'MRR@{CUT_OFF}':>12}"]
    for name, row in [
        ("popularity list", popularity),
        *baselines.items(),
        ("GRU4Rec", model),
        ("best possible", best),
    ]:
        lines.append(f"{name:31}{row.recall:12.4f}{row.mrr:12.4f}")
    reached = [f"{100 * a / b:.1f}%" for a, b in zip(model, best)]
    lines.append(f"{'GRU4Rec, of the best possible':31}{reached[0]:>12}{reached[1]:>12}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None, run: Path = RUN) -> None:
    """Command line: see ``--help``.

    Parameters
    ----------
    argv : sequence of str, optional
        Command line; that of the process by default.
    run : pathlib.Path
        The program that trains and evaluates.
    """
    parser = arguments.Parser(
        description="Makes a click log, trains GRU4Rec on it with run.py, evaluates, saves, loads.",
    )
    parser.add_argument(
        "--data", type=Path, default=HERE / "data", help="folder of the files (%(default)s)"
    )
    parser.add_argument(
        "--sessions", type=int, default=N_SESSIONS, help="size of the log (%(default)s)"
    )
    parser.add_argument(
        "--parameters", default=PARAMETERS, help="parameter string for run.py's -ps"
    )
    add_device(parser)
    options = parser.parse_args(argv)
    if options.sessions < 1000:
        parser.error("--sessions: give at least 1000, else the last day has too few of them")

    began = time.monotonic()
    task = Task.of(ClickProcess(), options.sessions)
    train_path, test_path = options.data / "train.tsv", options.data / "test.tsv"
    try:
        options.data.mkdir(parents=True, exist_ok=True)
        for path in (train_path, test_path):
            check_replaceable(path, task.process)
    except OSError as err:
        raise InputError(
            f"{options.data}: {err.strerror or err}; give another folder with --data"
        ) from None
    for name, part, path in [("train", task.train, train_path), ("test", task.test, test_path)]:
        write_table(part, path)
        print(f"{name}: {len(part):7} events, {part['SessionId'].nunique():6} sessions: {path}")

    popularity = metrics(task.popularity_ranks(), CUT_OFF)
    best = metrics(task.best_ranks(), CUT_OFF)

    model_path = options.data / "model.gru4rec"
    evaluated = ["-t", str(test_path), "-m", *map(str, CUT_OFFS)]
    common = evaluated + (["-d", options.device] if options.device else [])
    program = [sys.executable, str(run)]
    trained = call(
        [*program, str(train_path), "-ps", options.parameters, "-s", str(model_path), *common]
    )
    loaded = call([*program, str(model_path), "-l", *common])
    # a baseline gives no score to many items: none of these may come first by a tie
    baselines = {
        title: call(
            [*program, str(train_path), "--baseline", name, "-e", "conservative", *evaluated]
        )
        for title, name in BASELINES.items()
    }

    n_events, n_items = len(task.events.target), np.count_nonzero(task.support)
    print(f"\n{n_events} events of the last day, {n_items} items\n")
    of_baselines = {title: found[CUT_OFF] for title, found in baselines.items()}
    print(report(popularity, of_baselines, trained[CUT_OFF], best))
    print(f"\nwhole demo: {time.monotonic() - began:.0f} s", flush=True)
    if loaded != trained:
        sys.exit("error: the loaded model evaluates differently from the trained one")
    if trained[CUT_OFF].recall <= popularity.recall or trained[CUT_OFF].mrr <= popularity.mrr:
        sys.exit("error: the model is no better than the popularity list")
    print("The saved and loaded model gives the same metrics as the trained one.")


if __name__ == "__main__":
    run_cli(main)
