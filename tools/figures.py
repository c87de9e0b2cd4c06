"""All pictures of the documentation: `make figures`.

Usage: ``python tools/figures.py [-o FOLDER] [--parts PART ...] [--rows FILE] [--quick]``. It writes
SVG files, some three minutes on two cores:

- ``curves.svg``: a training on the quickstart's log, watched on the day before the last;
- ``lengths.svg``: GRU4Rec, baselines and the best possible over the list length;
- ``limit.svg``: the training's speed beside that of its matrix products, from rows that
  ``python -m benchmarks.training --json FILE`` has measured;
- ``beside.svg``: its speed beside other implementations, from the same rows;
- ``search-*.svg``: what ``paropt.py --plots`` draws of a small search.

All is computed on the CPU. The same machine draws the same bytes again. ``--quick`` takes sizes of
seconds, which show nothing, but try all of it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "quickstart")]

import quickstart  # noqa: E402
from process import DAY, FIRST_DAY, ClickProcess  # noqa: E402

from benchmarks import pictures  # noqa: E402
from benchmarks.parts import Runner, environment  # noqa: E402
from gru4rec_toolkit import files, messages  # noqa: E402
from gru4rec_toolkit.arguments import Parser  # noqa: E402
from gru4rec_toolkit.errors import InputError, run_cli  # noqa: E402
from gru4rec_toolkit.ranks import recall_and_mrr  # noqa: E402
from gru4rec_toolkit.search import report  # noqa: E402
from gru4rec_toolkit.tracking import plot  # noqa: E402
from gru4rec_toolkit.tracking.history import History  # noqa: E402
from gru4rec_toolkit.tracking.libraries import import_library  # noqa: E402
from gru4rec_toolkit.tracking.plot import (  # noqa: E402
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILION,
    Lengths,
)

PICTURES = ROOT / "docs" / "pictures"
QUICK_PICTURES = ROOT / "build" / "pictures"
ROWS = ROOT / "benchmarks" / "measured" / "training.json"
# of the rows that `python -m benchmarks.training --json FILE` writes, what is drawn
ROUNDS = ("limit", "merged_limit", "training")

LENGTHS = range(1, 21)
# baselines by their names in the picture
BASELINES = {
    "V-SkNN": "vsknn",
    "Markov chain": "markov",
    "item-kNN": "itemknn",
    "popularity": "popularity",
}
BEST, MODEL = "best possible", "GRU4Rec"
# colour, mark, dashes, width
LOOKS: dict[str, tuple[str, str, Any, float]] = {
    BEST: (BLACK, "", (0, (4, 2)), 1.6),
    MODEL: (BLUE, "o", "-", 2.6),
    "Markov chain": (GREEN, "^", "-.", 1.6),
    "V-SkNN": (ORANGE, "s", (0, (6, 2)), 1.6),
    "item-kNN": (PURPLE, "D", (0, (5, 1, 1, 1, 1, 1)), 1.6),
    "popularity": (VERMILION, "v", ":", 1.8),
}
# height of a line's name, of the panel's height
NAME_HEIGHT = 0.062

SPACE = """{"name": "layers", "dtype": "int", "values": [16, 128], "step": 16}
{"name": "batch_size", "dtype": "categorical", "values": ["32", "64", "128"]}
{"name": "learning_rate", "dtype": "float", "values": [0.01, 0.3], "log": true}
{"name": "dropout_p_embed", "dtype": "float", "values": [0.0, 0.5], "step": 0.05}
"""
# the names of `paropt.py --plots` and those in the documentation
SEARCH = {
    "optimization_history": "history",
    "param_importances": "importances",
    "slice": "slices",
    "parallel_coordinate": "parallel",
}
# seconds, ten times as many as it takes
LONGEST_SEARCH = 1200


class Sizes(NamedTuple):
    """Sessions of the logs, epochs of the training that is watched, trials of the search."""

    sessions: int
    epochs: int
    searched_sessions: int
    trials: int


FULL = Sizes(quickstart.N_SESSIONS, 10, 12_000, 12)
QUICK = Sizes(1500, 2, 1000, 2)


# ---------------------------------------------------------------------------- training


def settings(**changes: Any) -> dict[str, Any]:
    """Return the quickstart's parameters, some of them changed."""
    from gru4rec_toolkit import parameters

    return {**parameters.convert(parameters.parse_string(quickstart.PARAMETERS)), **changes}


def trained(train: Any, **arguments: Any) -> Any:
    """Return a model that was trained on the CPU, with the quickstart's parameters or others."""
    from gru4rec_toolkit import theano_setup

    theano_setup.configure("cpu")
    from gru4rec import GRU4Rec

    changes = arguments.pop("changes", {})
    model = GRU4Rec(**settings(**changes))
    model.fit(train, **arguments)
    return model


def curves(sizes: Sizes) -> list[bytes]:
    """Draw a training: the quickstart's, for more epochs, validated on the day before the last."""
    import evaluation
    from gru4rec_toolkit.model.validation import Validation

    task = task_of(sizes.sessions)
    train, valid = before_the_last(task.train, task.process)
    history = History()
    model = trained(
        train,
        changes={"n_epochs": sizes.epochs},
        validation=Validation(valid, cut_off=[20, 5]),
        callbacks=[history.add],
    )
    lengths = [1, 2, 5, 10, 20]
    metrics = evaluation.evaluate_gpu(model, task.test, cut_off=lengths)
    test = Lengths("the last day", *map(tuple, (lengths, *metrics)))
    return [plot.drawn(history, [test], "svg")]


@functools.lru_cache(maxsize=1)
def task_of(n_sessions: int) -> Any:
    return quickstart.Task.of(ClickProcess(), n_sessions)


def before_the_last(train: Any, process: ClickProcess) -> tuple[Any, Any]:
    """Split the quickstart's training data before its own last day."""
    return quickstart.split(train, at=FIRST_DAY + (process.days - 2) * DAY)


# ---------------------------------------------------------------------------- lengths


def lengths(sizes: Sizes) -> list[bytes]:
    """Draw Recall and MRR of the quickstart's model, of baselines and of the best possible."""
    with plot.style():
        drawing = draw_lengths(methods(task_of(sizes.sessions)))
        return [plot.saved(drawing, "svg", SOURCE)]


def methods(task: Any) -> list[Lengths]:
    """Return the metrics of all methods; ties count against the target."""
    import evaluation
    from gru4rec_toolkit.baselines import BASELINES as CLASSES

    models = {MODEL: trained(task.train)}
    models.update({title: CLASSES[name]().fit(task.train) for title, name in BASELINES.items()})
    found = [(BEST, recall_and_mrr(task.best_ranks(), LENGTHS))]
    for title, model in models.items():
        metrics = evaluation.evaluate_gpu(model, task.test, cut_off=LENGTHS, mode="conservative")
        found.append((title, metrics))
    return [Lengths(title, *map(tuple, (LENGTHS, *metrics))) for title, metrics in found]


def draw_lengths(methods: Sequence[Lengths]) -> Any:
    """Draw Recall@N and MRR@N over N, the names of the methods at the ends of their lines."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(8.4, 3.9), layout="constrained")
    drawing.get_layout_engine().set(w_pad=0.08, wspace=0.06)
    panels = drawing.subplots(1, 2)
    for panel, metric in zip(panels, ("recall", "mrr")):
        top = 1.1 * max(max(getattr(method, metric)) for method in methods)
        panel.set_ylim(0, top)
        for method in methods:
            draw_line(panel, method, getattr(method, metric))
        name_lines(panel, [(getattr(method, metric)[-1], method.name) for method in methods])
        longest = methods[0].lengths[-1]
        panel.set_xlim(0.2, longest)
        panel.set_xticks([n for n in (1, 5, 10, 15, 20) if n <= longest])
        panel.set_xlabel("List length N (items)")
        panel.spines["right"].set_visible(False)
    panels[0].set_ylabel("Recall@N (share of the next clicks)")
    panels[1].set_ylabel("MRR@N (mean of 1 / rank)")
    return drawing


def draw_line(panel: Any, method: Lengths, values: Sequence[float]) -> None:
    colour, mark, dashes, width = LOOKS[method.name]
    panel.plot(
        method.lengths, values, linestyle=dashes, linewidth=width, color=colour, marker=mark,
        markevery=[i for i, n in enumerate(method.lengths) if n in (1, 2, 5, 10, 15, 20)],
        markersize=6.5 if method.name == MODEL else 5.5, markeredgecolor="white",
        markeredgewidth=0.7, clip_on=False, zorder=4 if method.name == MODEL else 3,
    )  # fmt: skip
    if method.name == BEST:
        top = panel.get_ylim()[1]
        panel.fill_between(method.lengths, values, top, color="0.93", linewidth=0, zorder=0)
        panel.text(
            method.lengths[0] + 0.4, 0.97 * top, "no method gets here", ha="left", va="top",
            color="0.35", fontsize=9,
        )  # fmt: skip


def name_lines(panel: Any, ends: Sequence[tuple[float, str]]) -> None:
    """Write names and values right of the lines' ends, as close as they can without overlap."""
    ends = sorted(ends)
    height = panel.get_ylim()[1]
    places = apart([value for value, _ in ends], NAME_HEIGHT * height)
    for (value, name), place in zip(ends, places):
        colour = LOOKS[name][0]
        panel.annotate(
            f"{name} {value:.3f}", (1.01, value), (1.07, place),
            xycoords=("axes fraction", "data"), textcoords=("axes fraction", "data"),
            va="center", fontsize=9, color=BLACK,
            fontweight="bold" if name == MODEL else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1, "shrinkA": 2,
                        "shrinkB": 1, "relpos": (0, 0.5)},
        )  # fmt: skip


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights to a distance of `gap` at least, by the least squares.

    That is isotonic regression of what is left of them without the gaps.
    """
    blocks: list[list[float]] = []  # sum and number of heights that move together
    for i, height in enumerate(heights):
        blocks.append([height - i * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, n = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += n
    flat = [total / n for total, n in blocks for _ in range(int(n))]
    return [height + i * gap for i, height in enumerate(flat)]


# ---------------------------------------------------------------------------- speed


def limit(rows: Sequence[Mapping[str, Any]]) -> list[bytes]:
    return [pictures.drawn(pictures.limit, "svg", rows)]


def beside(rows: Sequence[Mapping[str, Any]], others: Sequence[str]) -> list[bytes]:
    return [pictures.drawn(pictures.beside, "svg", rows, others)]


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Return rows that ``python -m benchmarks.training --json FILE`` has written.

    Raises
    ------
    InputError
        If the file cannot be read or holds something else.
    """
    expected = "give a file that `python -m benchmarks.training --json FILE` has written"
    try:
        rows = json.loads(Path(path).read_bytes())
    except OSError as err:
        raise InputError(f"--rows {path}: {files.reason_of(err)}; {expected}") from None
    except (ValueError, RecursionError):
        raise InputError(f"--rows {path}: this is no JSON; {expected}") from None
    if not isinstance(rows, list) or not rows or not all(map(is_row, rows)):
        raise InputError(f"--rows {path}: these are no rows of a training's speed; {expected}")
    return rows


def check_others(
    rows: Sequence[Mapping[str, Any]], others: Sequence[str], path: str | os.PathLike
) -> None:
    """Raise an InputError unless every row has the rates of that many other implementations."""
    for row in rows:
        found = row.get("others")
        found = found if isinstance(found, list) else []
        measured = all(
            isinstance(rates, list) and rates and all(x is None or is_rate(x) for x in rates)
            for rates in found
        )
        if not measured or len(found) != len(others):
            raise InputError(
                f"--rows {path}: {row['parameters']} was measured beside {len(found)} others, and "
                f"--others names {len(others)}; name each --other of that measurement"
            )


def is_rate(x: object) -> bool:
    return isinstance(x, (int, float)) and 0 < x < math.inf


def is_row(row: object) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("parameters"), str):
        return False
    if not all(isinstance(row.get(name), int) for name in ("batch_size", "units")):
        return False
    rounds = [row.get(name) for name in ROUNDS]
    if not all(isinstance(rates, list) and rates for rates in rounds):
        return False
    is_number = all(is_rate(x) for rates in rounds for x in rates)
    return is_number and len({len(rates) for rates in rounds}) == 1


# ---------------------------------------------------------------------------- search


def search(sizes: Sizes) -> list[bytes]:
    """Draw what `paropt.py --plots` draws, of a search for one epoch of a small log."""
    task = quickstart.Task.of(ClickProcess(), sizes.searched_sessions)
    train, valid = before_the_last(task.train, task.process)
    searched = [json.loads(line)["name"] for line in SPACE.splitlines()]
    fixed = [pair for pair in quickstart.PARAMETERS.split(",")
             if pair.partition("=")[0] not in (*searched, "n_epochs")]  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for name, part in (("train.tsv", train), ("valid.tsv", valid)):
            quickstart.write_table(part, folder / name)
        (folder / "space.json").write_text(SPACE)
        command = [
            *(sys.executable, str(ROOT / "paropt.py")),
            *(str(folder / "train.tsv"), str(folder / "valid.tsv")),
            *("-opf", str(folder / "space.json"), "-fp", ",".join([*fixed, "n_epochs=1"])),
            *("-nt", str(sizes.trials), "-pm", "mrr", "-tf", "device=cpu"),
            *("--results", str(folder / "results"), "--study", "figures"),
            *("--plots", str(folder / "plots"), "--plots_format", "svg"),
        ]
        result = Runner().run("search", command, LONGEST_SEARCH, environment())
        paths = [folder / "plots" / f"{name}.svg" for name in SEARCH]
        if result.problem or not all(path.exists() for path in paths):
            problem = result.problem or "it has not drawn all of its plots"
            raise SystemExit("\n".join(result._replace(problem=problem).report()).strip())
        return [path.read_bytes() for path in paths]


# ---------------------------------------------------------------------------- command line

SOURCE = "tools/figures.py of GRU4Rec"


class Part(NamedTuple):
    """Pictures that are made together.

    Attributes
    ----------
    files : sequence of str
        Their names, without ``.svg``.
    source : str
        The program that they say they are from.
    seconds : int
        Expected on two cores.
    """

    files: Sequence[str]
    source: str
    seconds: int


PARTS = {
    "lengths": Part(["lengths"], SOURCE, 40),
    "curves": Part(["curves"], plot.SOURCE, 50),
    "limit": Part(["limit"], pictures.SOURCE, 1),
    "beside": Part(["beside"], pictures.SOURCE, 1),
    "search": Part([f"search-{name}" for name in SEARCH.values()], report.SOURCE, 80),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: see the module's docstring."""
    parser = Parser(
        prog="figures.py", description="Draw all pictures of the documentation, as SVG files."
    )
    parser.add_argument(
        "-o", "--output", metavar="FOLDER",
        help="folder of the pictures (default: docs/pictures; with --quick build/pictures)",
    )  # fmt: skip
    parser.add_argument(
        "--parts", nargs="+", choices=list(PARTS), metavar="PART", default=list(PARTS),
        help=f"{', '.join(PARTS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--rows", metavar="FILE", default=str(ROWS),
        help="what `python -m benchmarks.training --json FILE` has written "
        "(default: benchmarks/measured/training.json)",
    )  # fmt: skip
    parser.add_argument(
        "--others", nargs="+", metavar="NAME", default=["the official PyTorch port"],
        help="what each --other of that measurement was (default: the official PyTorch port)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="sizes of seconds, to try it")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else FULL
    folder = options.output or str(QUICK_PICTURES if options.quick else PICTURES)
    if folder == "":
        parser.error("-o: give a folder")
    import_library("matplotlib.figure", "tools/figures.py", "matplotlib")
    if "search" in options.parts:
        import_library("optuna", "tools/figures.py", "optuna")
    rows = read_rows(options.rows) if {"limit", "beside"} & {*options.parts} else []
    if "beside" in options.parts:
        check_others(rows, options.others, options.rows)
    parts = [name for name in PARTS if name in options.parts]
    targets = {
        f"{file}.svg": (f"a picture of {PARTS[name].source}",
                        functools.partial(plot.is_picture, kind="svg", source=PARTS[name].source))
        for name in parts for file in PARTS[name].files
    }  # fmt: skip
    files.prepare_folder("-o", folder, targets, inputs={"the measured rows": options.rows})
    logging.getLogger("gru4rec").setLevel(logging.ERROR)
    draw: dict[str, Callable[[], list[bytes]]] = {
        "lengths": lambda: lengths(sizes),
        "curves": lambda: curves(sizes),
        "limit": lambda: limit(rows),
        "beside": lambda: beside(rows, options.others),
        "search": lambda: search(sizes),
    }
    for i, name in enumerate(parts):
        seconds = sum(PARTS[other].seconds for other in parts[i:])
        left = "" if options.quick else f"; {seconds} s left"
        messages.show(f"{i + 1} of {len(parts)}: {name}{left}")
        start = time.monotonic()
        with contextlib.redirect_stdout(sys.stderr):  # of models, which say how far they are
            drawn = draw[name]()
        paths = [Path(folder) / f"{file}.svg" for file in PARTS[name].files]
        with files.replacing_all(paths) as written:
            for file, data in zip(written, drawn):
                file.write(data)
        messages.show(f"{name}: done ({time.monotonic() - start:.0f} s)")
        for path in paths:
            print(path, flush=True)


if __name__ == "__main__":
    run_cli(main)
