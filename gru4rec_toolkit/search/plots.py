"""Pictures of a study: history, importances, slices, parallel coordinates.

All show the trials that are complete, and of those that were pruned the metric of their last epoch
where it helps. Marks, dashes and widths tell in grey print what the colours tell.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from gru4rec_toolkit.errors import shortened
from gru4rec_toolkit.tracking.plot import BLACK, BLUE, SKY, VERMILION

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_STAR = {
    "marker": "*",
    "markersize": 15,
    "color": VERMILION,
    "markeredgecolor": "white",
    "markeredgewidth": 0.8,
    "linestyle": "none",
    "zorder": 4,
}
# marks of the search's first, second and last third
_THIRDS = (("o", SKY), ("s", BLUE), ("^", BLACK))
_COLUMNS = 4
# characters of a value on an axis of the parallel coordinates
_LONGEST_VALUE = 14


def history(trials: Sequence[FrozenTrial], metric: str) -> Any:
    """Draw the metric over the trials, and the best one so far."""
    from matplotlib.ticker import MaxNLocator

    complete, best = _complete(trials)
    drawing, (panel,) = _figure(8.4, 4.2)
    pruned = [trial for trial in trials if _is_pruned(trial)]
    others = [trial for trial in complete if trial is not best]  # a star covers its own mark
    panel.plot(
        [trial.number for trial in others], [trial.value for trial in others],
        "o", color=BLUE, markersize=_size(complete), label="trial",
    )  # fmt: skip
    if pruned:
        panel.plot(
            [trial.number for trial in pruned], [trial.value for trial in pruned],
            "x", color="0.45", markersize=_size(pruned), label="pruned trial, at its last epoch",
        )  # fmt: skip
    numbers = [trial.number for trial in complete]
    heights = [*itertools.accumulate((_value(trial) for trial in complete), max)]
    last = max(trial.number for trial in [*complete, *pruned])
    panel.step(
        [*numbers, last], [*heights, heights[-1]],
        where="post", color=VERMILION, linestyle="--", linewidth=1.6, label="best so far",
    )  # fmt: skip
    panel.plot([best.number], [best.value], label=_name_of_best(best, metric), **_STAR)
    panel.set(xlabel="Trial", ylabel=_metric(metric))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panel.margins(y=0.08)
    _legend_above(panel)
    return drawing


def importances(shares: Mapping[str, float], metric: str) -> Any:
    """Draw each parameter's importance, the largest above."""
    drawing, (panel,) = _figure(8.4, 1.2 + 0.42 * len(shares))
    names = [*shares][::-1]
    values = [shares[name] for name in names]
    bars = panel.barh(names, values, height=0.62, color=BLUE, edgecolor=BLACK, linewidth=0.8)
    panel.bar_label(bars, [f"{value:.2f}" for value in values], padding=4, fontsize=9)
    panel.grid(axis="y", visible=False)
    panel.set_xlim(0, 1.12 * max(values))
    panel.set(xlabel=f"Importance for {_metric(metric)} (PED-ANOVA, all sum up to 1)")
    return drawing


def slices(trials: Sequence[FrozenTrial], metric: str) -> Any:
    """Draw the metric over each parameter, in marks of early and late trials."""
    complete, best = _complete(trials)
    distributions = _distributions(complete)
    n_columns = min(_COLUMNS, len(distributions))
    n_rows = math.ceil(len(distributions) / n_columns)
    drawing, panels = _figure(max(4.2, 2.1 * n_columns), 0.7 + 2.7 * n_rows, n_rows, n_columns)
    for panel in panels[len(distributions) :]:
        panel.set_visible(False)
    thirds = _thirds(complete)
    for i, (panel, (name, distribution)) in enumerate(zip(panels, distributions.items())):
        for (mark, colour), third in zip(_THIRDS, thirds):
            shown = [t for t in third if name in t.params and t is not best]
            panel.plot(
                [_place(distribution, trial.params[name]) for trial in shown],
                [trial.value for trial in shown],
                mark, color=colour, markersize=_size(complete), markeredgecolor="white",
                markeredgewidth=0.5, label=_numbers(third),
            )  # fmt: skip
        if name in best.params:
            place = _place(distribution, best.params[name])
            panel.plot([place], [best.value], label=_name_of_best(best, metric), **_STAR)
        _scale(panel, distribution)
        panel.set_xlabel(name)
        panel.margins(y=0.08)
        if i % n_columns == 0:
            panel.set_ylabel(_metric(metric))
        else:
            panel.tick_params(labelleft=False)
    handles = panels[0].get_legend_handles_labels()[0]
    drawing.legend(handles=handles, loc="outside upper left", ncol=4, handletextpad=0.3)
    return drawing


def parallel(trials: Sequence[FrozenTrial], metric: str) -> Any:
    """Draw a line for each trial through its parameters and its metric; the best stand out."""
    complete, best = _complete(trials)
    distributions = _distributions(complete)
    whole = [trial for trial in complete if distributions.keys() <= trial.params.keys()]
    whole.sort(key=lambda trial: (_value(trial), -trial.number))
    if not whole:
        raise ValueError("no trial has all parameters")
    names = [*distributions, _metric(metric)]
    drawing, (panel,) = _figure(max(8.4, 1.5 * len(names)), 4.4)
    values = [_value(trial) for trial in whole]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    columns = [_Column(distribution, [t.params[name] for t in whole])
               for name, distribution in distributions.items()]  # fmt: skip
    good = len(whole) - math.ceil(len(whole) / 4)
    for i, trial in enumerate(whole):
        heights = [c.height(trial.params[name]) for name, c in zip(distributions, columns)]
        heights.append((_value(trial) - low) / span)
        if trial is best:
            look = {**_STAR, "linestyle": "-", "linewidth": 2.4, "markersize": 12}
            look["label"] = f"best: trial {best.number}"
        elif i >= good:
            look = {"color": BLUE, "linestyle": "--", "linewidth": 1.6, "zorder": 3}
            look["label"] = "best quarter"
        else:
            look = {"color": "0.72", "linewidth": 1, "zorder": 2, "label": "other trials"}
        panel.plot(range(len(names)), heights, **look)
    for at, column in enumerate(columns):
        _axis(panel, at, column.ticks())
    _axis(panel, len(columns), [((v - low) / span, f"{v:.4g}") for v in _nice(low, high)])
    panel.set_xticks(range(len(names)), names)
    panel.set_xlim(-0.35, len(names) - 0.75)
    panel.set_ylim(-0.04, 1.04)
    panel.grid(visible=False)
    panel.set_yticks([])
    panel.tick_params(length=0, pad=8)
    for spine in panel.spines.values():
        spine.set_visible(False)
    handles = dict(zip(*reversed(panel.get_legend_handles_labels())))
    shown = [handles[name] for name in (f"best: trial {best.number}", "best quarter",
                                        "other trials") if name in handles]  # fmt: skip
    panel.legend(handles=shown, loc="lower left", bbox_to_anchor=(0, 1), ncol=3, borderaxespad=0.3)
    return drawing


# ---------------------------------------------------------------------------- trials


def _complete(trials: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], FrozenTrial]:
    """Return the complete trials by number, and the best of them."""
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if not complete:
        raise ValueError("no trial is complete")
    return complete, max(complete, key=lambda trial: (_value(trial), -trial.number))


def _value(trial: FrozenTrial) -> float:
    """Return the metric of a complete trial."""
    return cast(float, trial.value)


def _is_pruned(trial: FrozenTrial) -> bool:
    return trial.state.name == "PRUNED" and trial.value is not None


def _distributions(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Return the parameters and what their values are drawn from."""
    found: dict[str, BaseDistribution] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            found.setdefault(name, distribution)
    if not found:
        raise ValueError("no trial has a parameter")
    return found


def _thirds(trials: Sequence[FrozenTrial]) -> list[Sequence[FrozenTrial]]:
    """Return the first, the second and the last third; fewer parts of fewer trials."""
    n = math.ceil(len(trials) / len(_THIRDS))
    return [trials[i : i + n] for i in range(0, len(trials), n)]


def _numbers(trials: Sequence[FrozenTrial]) -> str:
    first, last = trials[0].number, trials[-1].number
    return f"trial {first}" if first == last else f"trials {first} to {last}"


# ---------------------------------------------------------------------------- looks


def _figure(width: float, height: float, n_rows: int = 1, n_columns: int = 1) -> tuple[Any, list]:
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    panels = [*drawing.subplots(n_rows, n_columns, squeeze=False, sharey=True).flat]
    for panel in panels:
        panel.set_axisbelow(True)
    return drawing, panels


def _size(trials: Sequence[FrozenTrial]) -> float:
    """Return the size of a mark, which is small where there are many."""
    return 7 if len(trials) <= 100 else 4


def _metric(metric: str) -> str:
    """Return a metric as the other pictures write it: MRR@20 for mrr@20."""
    name, at, length = metric.partition("@")
    return {"mrr": "MRR", "recall": "Recall"}.get(name, name) + at + length


def _name_of_best(best: FrozenTrial, metric: str) -> str:
    return f"best: trial {best.number}, {_metric(metric)} {best.value:.4f}"


def _legend_above(panel: Any) -> None:
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=4, borderaxespad=0.3)


# ---------------------------------------------------------------------------- scales


def _choices(distribution: BaseDistribution) -> Sequence[Any] | None:
    return getattr(distribution, "choices", None)


def _place(distribution: BaseDistribution, value: Any) -> Any:
    """Return where a value stands on an axis: one of several at its place among them."""
    choices = _choices(distribution)
    return value if choices is None else [*choices].index(value)


def _scale(panel: Any, distribution: Any) -> None:
    """Set the axis of a panel for the whole range that values are drawn from."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    choices = _choices(distribution)
    if choices is not None:
        texts = [shortened(str(choice), _LONGEST_VALUE) for choice in choices]
        is_long = sum(map(len, texts)) > 16
        panel.set_xticks(range(len(texts)), texts, rotation=45 if is_long else 0)
        panel.set_xlim(-0.5, len(texts) - 0.5)
        return
    low, high = distribution.low, distribution.high
    if distribution.log:
        panel.set_xscale("log")
        ticks = _nice_on_log(low, high, most=4)
        panel.xaxis.set_major_locator(FixedLocator(ticks))
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.xaxis.set_minor_locator(NullLocator())
        room = (high / low) ** 0.06 if high > low else 2
        panel.set_xlim(low / room, high * room)
        return
    is_int = isinstance(low, int)
    panel.xaxis.set_major_locator(MaxNLocator(4, integer=is_int))
    room = 0.06 * (high - low) or 1
    panel.set_xlim(low - room, high + room)


def _nice(low: float, high: float) -> list[float]:
    """Return round numbers within a range."""
    from matplotlib.ticker import MaxNLocator

    found = [float(tick) for tick in MaxNLocator(5).tick_values(low, high)]
    return [tick for tick in found if low <= tick <= high] or [low]


def _nice_on_log(low: float, high: float, most: int = 6) -> list[float]:
    """Return 1, 2, 5, 10, 20... within a range, fewer of a wide one."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**decade for decade in decades for step in steps]
        found = [tick for tick in found if low * 0.999 <= tick <= high * 1.001]
        if len(found) <= most:
            break
    return found or [low]


class _Column:
    """An axis of parallel coordinates: 0 at the lowest value of its range, 1 at the highest.

    Of choices, the range is those that a trial has.
    """

    def __init__(self, distribution: Any, values: Sequence[Any]) -> None:
        self.choices = _choices(distribution)
        self.is_log = getattr(distribution, "log", False)
        if self.choices is None:
            self.low, self.high = distribution.low, distribution.high
        else:
            self.choices = [choice for choice in self.choices if choice in values]
            self.low, self.high = 0, len(self.choices) - 1
        self.is_int = isinstance(self.low, int)

    def height(self, value: Any) -> float:
        if self.low == self.high:
            return 0.5
        if self.choices is not None:
            value = self.choices.index(value)
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return heights and texts."""
        if self.choices is not None:
            texts = [shortened(str(choice), _LONGEST_VALUE) for choice in self.choices]
            return [(self.height(choice), text) for choice, text in zip(self.choices, texts)]
        found = (_nice_on_log if self.is_log else _nice)(self.low, self.high)
        if self.is_int:
            found = [tick for tick in found if tick == int(tick)] or [self.low]
        return [(self.height(tick), f"{tick:g}") for tick in found]


def _axis(panel: Any, at: int, ticks: Sequence[tuple[float, str]]) -> None:
    """Draw an axis of parallel coordinates, its numbers on white at its left."""
    panel.plot([at, at], [0, 1], color=BLACK, linewidth=1, zorder=5)
    white = {"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 1}
    for height, text in ticks:
        panel.plot([at], [height], marker=0, color=BLACK, markersize=5, zorder=5)
        panel.annotate(
            text, (at, height), (-8, 0), textcoords="offset points", ha="right", va="center",
            fontsize=9, bbox=white, zorder=6,
        )  # fmt: skip
