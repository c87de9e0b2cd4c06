"""What the tests of pictures ask of a figure."""

from __future__ import annotations

import itertools
from typing import Any


def texts_on_another(figure: Any, renderer: Any) -> tuple[int, list[tuple[str, str]]]:
    """Return how many texts a figure's panels show, and those pairs of them that overlap."""
    from matplotlib.text import Text

    boxes = []
    for panel in figure.axes:
        hidden = set()  # the labels of ticks beyond an axis, and those of its other side
        for axis in (panel.xaxis, panel.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                hidden |= {tick.label2, *([] if low <= tick.get_loc() <= high else [tick.label1])}
        texts = [t for t in panel.findobj(Text) if t.get_text() and t not in hidden]
        texts = [text for text in texts if text.get_visible()]
        # of the text alone, without an annotation's arrow
        boxes += [(t.get_text(), Text.get_window_extent(t, renderer)) for t in texts]
    pairs = itertools.combinations(boxes, 2)
    return len(boxes), [(a, b) for (a, box), (b, other) in pairs if box.overlaps(other)]
