"""Curves of a training: loss and metrics over epochs, Recall and MRR over list lengths."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gru4rec_toolkit.errors import InputError, shortened
from gru4rec_toolkit.tracking.epochs import Epoch
from gru4rec_toolkit.tracking.history import History
from gru4rec_toolkit.tracking.libraries import import_library
from gru4rec_toolkit.tracking.output import Output, checked_path

SOURCE = "a training of GRU4Rec"
# how the files of each format begin, and their metadata: the entry that tells whose they are, and
# the one with the time of day
FORMATS: dict[str, tuple[bytes, str, str | None]] = {
    "png": (b"\x89PNG\r\n", "Source", None),
    "svg": (b"<?xml", "Source", "Date"),
    "pdf": (b"%PDF-", "Creator", "CreationDate"),
}
# colours of Okabe and Ito, which the colour-blind tell apart too; without yellow, pale on white
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
)
_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
_DASHES = ("-", "--", ":", "-.")
_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.08,
    "svg.fonttype": "none",
    "svg.hashsalt": "GRU4Rec",  # else the ids in a file are random
}
# more lines than these would make a legend larger than its panel
_MOST_SEEDS_NAMED = 10


class Lengths(NamedTuple):
    """Recall and MRR of a test set at several list lengths."""

    name: str
    lengths: tuple[int, ...]
    recall: tuple[float, ...]
    mrr: tuple[float, ...]


class Plot:
    """Curves of a training in a picture, for `GRU4Rec.fit`'s ``callbacks``.

    Loss and metrics over the epochs, with a star at the best epoch; trainings of several seeds are
    lines beside each other. The picture is drawn anew after every epoch, whole or not at
    all; it needs no display.

    Parameters
    ----------
    path : str or path-like
        Ends in ``.png``, ``.svg`` or ``.pdf``. An earlier picture of a training is replaced. A
        symbolic link stays, its target is written.
    force : bool
        Whether an existing file of another kind may be replaced.
    inputs : mapping of str to path, optional
        Files that must not be replaced in any case, by what they are: ``the training data``.

    Raises
    ------
    InputError
        If matplotlib is missing, the file cannot be written, or is one that must not be replaced.
        Later, while a training runs, a failure is a warning, and the next epoch tries again.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        force: bool = False,
        inputs: Mapping[str, str | os.PathLike] | None = None,
    ) -> None:
        name = checked_path("the curves of the training", path)
        self._format = os.path.splitext(name)[1].lower()[1:]
        if self._format not in FORMATS:
            raise InputError(
                f"cannot write the curves of the training to {name or 'an empty path'}: give a "
                "name that ends in " + ", ".join(f".{kind}" for kind in FORMATS)
            )
        import_library("matplotlib.figure", f"{name}: drawing curves", "matplotlib")
        self._history = History()
        self._tests: dict[str, Lengths] = {}
        self._is_drawn = True
        self._output = Output(
            "the curves of the training",
            name,
            "a picture of a training",
            lambda existing: is_plot(existing, self._format),
            inputs,
            force,
        )

    def __call__(self, epoch: Epoch) -> None:
        """Add an epoch, and draw; a replayed one is drawn with the next one that is new."""
        self._history.add(epoch)
        self._is_drawn = False
        if not epoch.is_replay:
            self.draw()

    def lengths(
        self, name: str, lengths: Iterable[int], recall: Iterable[float], mrr: Iterable[float]
    ) -> None:
        """Add the results on a test set, and draw.

        Parameters
        ----------
        name : str
            The test set's; results of the same name are replaced.
        lengths : (n,) int
            List lengths N.
        recall, mrr : (n,) float
            Recall@N and MRR@N, as `evaluation.evaluate_gpu` returns them.

        Raises
        ------
        InputError
            If there is not one value of each for each list length.
        """
        numbers = [int(n) for n in lengths]
        recalls, mrrs = [float(x) for x in recall], [float(x) for x in mrr]
        if not len(numbers) == len(recalls) == len(mrrs) or min(numbers, default=0) < 1:
            raise InputError(
                f"lengths: expected list lengths from 1 on, and a recall and an MRR for each, got "
                f"{len(numbers)} lengths, {len(recalls)} recalls and {len(mrrs)} MRRs"
            )
        columns = zip(*sorted(zip(numbers, recalls, mrrs)))
        self._tests[str(name)] = Lengths(str(name), *columns)
        self._is_drawn = False
        self.draw()

    def close(self, error: BaseException | None = None) -> None:
        """Draw what has not been drawn yet; more epochs may follow."""
        if not self._is_drawn:
            self.draw()

    def failure(self) -> InputError | None:
        """Try for the last time what could not be written; return why it is lost, or None."""
        return self._output.failure()

    def draw(self) -> None:
        """Draw all that is known, into the file."""
        data = drawn(self._history, [*self._tests.values()], self._format)
        self._output.write(data)
        self._is_drawn = True


def is_plot(path: str, kind: str) -> bool:
    """Tell whether a file is a picture that `Plot` has drawn in this format."""
    return is_picture(path, kind, SOURCE)


def drawn(history: History, tests: Sequence[Lengths] = (), kind: str = "png") -> bytes:
    """Return the curves as a picture.

    Parameters
    ----------
    history : History
    tests : sequence of Lengths
        With any, the last panel shows Recall@N and MRR@N over N.
    kind : str
        ``png``, ``svg`` or ``pdf``.
    """
    with style():
        return saved(figure(history, tests), kind, SOURCE, dpi=100)


# ---------------------------------------------------------------------------- any picture


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Set how figures look, whatever somebody has set in a notebook for their own ones."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def saved(figure: Any, kind: str, source: str, **options: Any) -> bytes:
    """Return a figure as a picture, drawn in `style`: the same one gives the same bytes.

    Parameters
    ----------
    figure : matplotlib Figure
    kind : str
        One of `FORMATS`.
    source : str
        Which program it is from, for `is_picture`.
    **options
        As ``Figure.savefig`` takes them.
    """
    _, name_of_source, name_of_date = FORMATS[kind]
    metadata = {name_of_source: source, **({name_of_date: None} if name_of_date else {})}
    data = io.BytesIO()
    figure.savefig(data, format=kind, metadata=metadata, **options)
    return data.getvalue()


def is_picture(path: str, kind: str, source: str) -> bool:
    """Tell whether a file is a picture in a format, from a program."""
    start = FORMATS[kind][0]
    with open(path, "rb") as file:
        if file.read(len(start)) != start:
            return False
        return source.encode() in file.read()


# ---------------------------------------------------------------------------- panels


def figure(history: History, tests: Sequence[Lengths] = ()) -> Any:
    """Return the curves as a matplotlib ``Figure``, which no window shows."""
    from matplotlib.figure import Figure

    families: dict[str, list[str]] = {}
    for name in history.metric_names():
        families.setdefault(name.partition("@")[0], []).append(name)
    has_epochs = any(True for _ in history)
    n_panels = has_epochs + len(families) + bool(tests) or 1
    n_columns = n_panels if n_panels <= 3 else 2 if n_panels == 4 else 3
    n_rows = math.ceil(n_panels / n_columns)
    drawing = Figure(figsize=(1 + 4.2 * n_columns, 3.6 * n_rows), layout="constrained")
    panels = [drawing.add_subplot(n_rows, n_columns, i + 1) for i in range(n_panels)]
    if has_epochs:
        _draw_loss(panels[0], history)
        for panel, (family, names) in zip(panels[1:], families.items()):
            _draw_metrics(panel, history, family, names)
    if tests:
        _draw_lengths(panels[-1], tests)
    return drawing


def _draw_loss(panel: Any, history: History) -> None:
    for i, (seed, epochs) in enumerate(history.by_seed.items()):
        losses = [epoch.loss for epoch in epochs]
        numbers = [epoch.number for epoch in epochs]
        panel.plot(numbers, losses, color=_colour(i), label=f"seed {seed}", **_marks(numbers))
        _mark_best(panel, history.best(seed), lambda epoch: epoch.loss, _colour(i))
    panel.set_title("Training loss", loc="left")
    panel.set_ylabel("Loss (mean per mini-batch)")
    _number_epochs(panel, history)
    if 1 < len(history.by_seed) <= _MOST_SEEDS_NAMED:
        panel.legend(loc="upper right")


def _draw_metrics(panel: Any, history: History, family: str, names: Sequence[str]) -> None:
    """Draw the metrics of one kind: dashes tell the list length, and with one seed colours, too."""
    is_one_seed = len(history.by_seed) == 1
    for i, (seed, epochs) in enumerate(history.by_seed.items()):
        best = history.best(seed)
        for j, name in enumerate(names):
            known = [epoch for epoch in epochs if name in epoch.metrics]
            numbers = [epoch.number for epoch in known]
            colour = _colour(j if is_one_seed else i)
            style = _DASHES[j % len(_DASHES)]
            values = [epoch.metrics[name] for epoch in known]
            panel.plot(numbers, values, style, color=colour, **_marks(numbers))
            _mark_best(panel, best, lambda epoch, name=name: epoch.metrics.get(name), colour)
    panel.set_title(f"{family} on the validation sessions", loc="left")
    panel.set_ylabel(names[0] if len(names) == 1 else f"{family}@N")
    _number_epochs(panel, history)
    # the longest lists, whose values are the highest, come first
    shown = [*enumerate(names if len(names) > 1 else ())]
    for j, name in sorted(shown, key=lambda item: -int(item[1].rpartition("@")[2])):
        colour = _colour(j) if is_one_seed else "0.3"
        panel.plot([], [], _DASHES[j % len(_DASHES)], color=colour, label=name)
    best = history.best(next(iter(history.by_seed))) if is_one_seed else None
    label = "best epoch" if best is None else f"best epoch: {best.number}"
    if any(history.best(seed) for seed in history.by_seed):
        panel.plot([], [], "*", color="0.3", markersize=11, label=label)
    if panel.get_legend_handles_labels()[1]:
        panel.legend(loc="best")


def _draw_lengths(panel: Any, tests: Sequence[Lengths]) -> None:
    """Draw Recall@N (solid) and MRR@N (dashed) over N, each test set in a colour of its own."""
    for i, test in enumerate(tests):
        panel.plot(test.lengths, test.recall, "-o", color=_colour(i), markersize=5)
        panel.plot(test.lengths, test.mrr, "--s", color=_colour(i), markersize=4)
    shown = sorted({n for test in tests for n in test.lengths})
    is_log = shown[-1] >= 10 * shown[0]
    if is_log:
        panel.set_xscale("log")
    panel.set_xticks(_apart(shown), [str(n) for n in _apart(shown)])
    panel.minorticks_off()
    panel.set_ylim(bottom=0)
    title = f"Test set: {shortened(tests[0].name, 40)}" if len(tests) == 1 else "Test sets"
    panel.set_title(title, loc="left")
    label = "List length N (items, log scale)" if is_log else "List length N (items)"
    panel.set(xlabel=label, ylabel="Recall@N, MRR@N")
    for i, test in enumerate(tests if len(tests) > 1 else ()):
        panel.plot([], [], "-", color=_colour(i), linewidth=3, label=shortened(test.name, 30))
    colour = _colour(0) if len(tests) == 1 else "0.3"
    panel.plot([], [], "-o", color=colour, markersize=5, label="Recall@N")
    panel.plot([], [], "--s", color=colour, markersize=4, label="MRR@N")
    panel.legend(loc="best")


def _apart(lengths: Sequence[int]) -> list[int]:
    """Return the list lengths whose labels have room on the axis, the last one first of all."""
    is_log = lengths[-1] >= 10 * lengths[0]
    places = [math.log(n) if is_log else float(n) for n in lengths]
    room = (places[-1] - places[0]) / 12
    kept = [len(lengths) - 1]
    for i in reversed(range(len(lengths) - 1)):
        if places[kept[-1]] - places[i] >= room:
            kept.append(i)
    return [lengths[i] for i in reversed(kept)]


def _colour(i: int) -> str:
    return _COLOURS[i % len(_COLOURS)]


def _marks(numbers: Sequence[int]) -> dict[str, Any]:
    """Return the points' marks; those of many epochs would hide the line."""
    return {"marker": "o" if len(numbers) <= 30 else None, "markersize": 3.5, "linewidth": 1.6}


def _mark_best(panel: Any, best: Epoch | None, value_of: Any, colour: str) -> None:
    value = None if best is None else value_of(best)
    if best is not None and value is not None:
        white = {"markeredgecolor": "white", "markeredgewidth": 0.8}
        panel.plot([best.number], [value], "*", color=colour, markersize=13, zorder=3, **white)


def _number_epochs(panel: Any, history: History) -> None:
    from matplotlib.ticker import MaxNLocator

    last = max(epoch.number for epoch in history)
    first = min(epoch.number for epoch in history)
    panel.set_xlabel("Epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    margin = max(last - first, 1) * 0.05
    panel.set_xlim(first - margin, last + margin)
