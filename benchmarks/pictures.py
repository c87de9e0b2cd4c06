"""Pictures of a release's measurements: parts of the limits, speed beside others, growth with data.

Colours are those of Okabe and Ito, which the colour-blind tell apart; hatches, marks and dashes
tell the same in grey.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from benchmarks.tables import MB, STAGES, Row, ratios
from gru4rec_toolkit.tracking import plot
from gru4rec_toolkit.tracking.plot import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILION

SOURCE = "the benchmarks of GRU4Rec"
FORMATS = ("png", "svg")
BAR_WIDTH = 0.36


def is_picture(path: str, kind: str) -> bool:
    """Tell whether a file is a picture of ours."""
    return plot.is_picture(path, kind, SOURCE)


def drawn(draw: Callable[..., Any], kind: str, *given: Any) -> bytes:
    """Return what a function of this module draws, as a PNG or SVG file."""
    with plot.style():
        edge = {"bbox_inches": "tight", "pad_inches": 0.15}
        return plot.saved(draw(*given), kind, SOURCE, dpi=150, **edge)


# ---------------------------------------------------------------------------- training


def limit(rows: list[Row]) -> Any:
    """Draw the training's speed in percent of both limits, the worst and best round as bars."""
    figure, axes = _new()
    for i, (name, label, look) in enumerate((
        ("limit", "of the products with all negatives", {"color": BLUE}),
        ("merged_limit", "of those with equal negatives merged",
         {"color": ORANGE, "hatch": "///"}),
    )):  # fmt: skip
        _bars(axes, i, label, look, [ratios(row["training"], row[name]) for row in rows])
    axes.set_ylabel("Training speed\n(% of the matrix products alone)", linespacing=1.4)
    _percent(axes, rows)
    return figure


def beside(rows: list[Row], others: Sequence[str]) -> Any:
    """Draw the speed beside other implementations; without any, that of our two ways."""
    figure, axes = _new()
    if not others:
        for i, (name, label, look) in enumerate((
            ("training", "training", {"color": BLUE}),
            ("without_merging", "without merging equal negatives",
             {"color": ORANGE, "hatch": "///"}),
        )):  # fmt: skip
            _bars(axes, i, label, look, [ratios(row[name], row["limit"]) for row in rows])
        axes.set_ylabel("Speed (% of the limit)")
        _percent(axes, rows)
        return figure
    ways = [("training", BLUE, "o"), ("without merging equal negatives", ORANGE, "s")]
    ways += [(name, colour, mark) for name, colour, mark in zip(
        others, (GREEN, PURPLE, VERMILION), ("^", "D", "v"))]  # fmt: skip
    for i, (label, colour, mark) in enumerate(ways):
        points = []
        for at, row in enumerate(rows):
            rates = [row["training"], row["without_merging"], *row["others"]][i]
            if None not in rates:
                points.append((at + 0.16 * (i - (len(ways) - 1) / 2), rates))
        middles = [median(rates) for _, rates in points]
        axes.errorbar(
            [at for at, _ in points], middles,
            [[m - min(rates) for m, (_, rates) in zip(middles, points)],
             [max(rates) - m for m, (_, rates) in zip(middles, points)]],
            fmt=mark, color=colour, markersize=5.5, markeredgecolor=BLACK, markeredgewidth=0.8,
            ecolor=BLACK, elinewidth=1, capsize=4, label=label,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylabel("Speed (mini-batches/s)")
    _plain_numbers(axes)
    _name(axes, rows)
    return figure


def _new() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(axis="x", visible=False)
    axes.set_axisbelow(True)
    return figure, axes


def _bars(axes: Any, i: int, label: str, look: dict, found: list[list[float]]) -> None:
    """Draw one of two bars of each parameter set: the median, the worst and the best round."""
    middles = [100 * median(rounds) for rounds in found]
    axes.bar(
        [at + (i - 0.5) * BAR_WIDTH for at in range(len(found))], middles, BAR_WIDTH,
        yerr=[[m - 100 * min(rounds) for m, rounds in zip(middles, found)],
              [100 * max(rounds) - m for m, rounds in zip(middles, found)]],
        capsize=3, edgecolor=BLACK, linewidth=0.8, label=label, **look,
    )  # fmt: skip


def _percent(axes: Any, rows: list[Row]) -> None:
    axes.axhline(100, color=BLACK, linestyle="--", linewidth=1)
    axes.set_ylim(bottom=0)
    _name(axes, rows)


def _name(axes: Any, rows: list[Row]) -> None:
    """Name the parameter sets below the axis, and what is drawn above it, clear of the bars."""
    names = [f"{row['parameters']}\n{row['batch_size']} \u00d7 {row['units']}" for row in rows]
    axes.set_xticks(range(len(rows)), names)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("Parameter set, mini-batch \u00d7 units; lines: worst and best round")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=4, borderaxespad=0.3)


# ---------------------------------------------------------------------------- data


def growth(rows: list[Row]) -> Any:
    """Draw time and memory of each stage before the first step over the number of events."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    time, memory = figure.subplots(1, 2)
    looks = {
        "read": (BLUE, "o", "-"), "index": (VERMILION, "s", "--"), "schedule": (GREEN, "^", "-."),
        "weights": (PURPLE, "D", ":"), "training": (ORANGE, "v", (0, (5, 1, 1, 1, 1, 1))),
    }  # fmt: skip
    for name, (colour, mark, dashes) in looks.items():
        of_stage = [(row["events"], row["stages"][name]) for row in rows]
        look = {"color": colour, "marker": mark, "linestyle": dashes, "markersize": 6}
        _line(time, of_stage, lambda stage: stage["seconds"], label=STAGES[name], **look)
        _line(memory, of_stage, lambda stage: stage["peak"] / MB, **look)
    whole = [(row["events"], row["peak"] / MB) for row in rows]
    look = {"color": BLACK, "marker": "*", "markersize": 9, "linestyle": "-", "linewidth": 1.2}
    _line(memory, whole, lambda peak: peak, label="whole process (memory)", **look)
    time.set_ylabel("Time (s)")
    memory.set_ylabel("Memory at the peak (MB)")
    for axes in (time, memory):
        axes.set_xlabel("Events")
        _logarithmic(axes, [row["events"] for row in rows])
    handles = [h for axes in (time, memory) for h in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside upper left", ncol=3)
    return figure


def _line(axes: Any, points: list[tuple[int, Any]], value: Callable[..., float], **look) -> None:
    """Draw a line through what is above zero, which alone has a place on the axis."""
    shown = [(x, value(y)) for x, y in points if value(y) > 0]
    axes.plot([x for x, _ in shown], [y for _, y in shown], **look)


def _logarithmic(axes: Any, events: list[int]) -> None:
    from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(events))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter())
    _plain_numbers(axes)


def _plain_numbers(axes: Any) -> None:
    """Label 1, 2, 5, 10, 20... on a logarithmic axis, without powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
