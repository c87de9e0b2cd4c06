"""The published results on the public data sets, and a table of them beside your own.

Recall and MRR of the parameters in `paramfiles/`, on the test data that `preprocess.py` makes, with
all items ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

CUT_OFFS = (1, 5, 10, 20)
PARAMFILES = Path(__file__).resolve().parents[1] / "paramfiles"

# (Recall, MRR) for each of CUT_OFFS
RESULTS = {
    "rsc15": ((0.1845, 0.1845), (0.4906, 0.2954), (0.6218, 0.3130), (0.7283, 0.3205)),
    "yoochoose": ((0.1829, 0.1829), (0.4478, 0.2783), (0.5715, 0.2949), (0.6789, 0.3024)),
    "rees46": ((0.1114, 0.1114), (0.3010, 0.1778), (0.4135, 0.1928), (0.5293, 0.2008)),
    "coveo": ((0.0513, 0.0513), (0.1496, 0.0852), (0.2212, 0.0946), (0.3135, 0.1010)),
    "retailrocket": ((0.1274, 0.1274), (0.3237, 0.1977), (0.4207, 0.2107), (0.5186, 0.2175)),
    "diginetica": ((0.0725, 0.0725), (0.2369, 0.1288), (0.3542, 0.1442), (0.4995, 0.1542)),
}


def paramfile(data_set: str) -> str:
    """Return the path of the parameter file that the published results come from."""
    (path,) = PARAMFILES.glob(f"{data_set}_*_best.py")
    return str(path)


def comparison(data_set: str, recall: Sequence[float], mrr: Sequence[float]) -> str:
    """Set results beside the published ones.

    Parameters
    ----------
    data_set : str
        A key of `RESULTS`.
    recall, mrr : sequences of float
        One for each of `CUT_OFFS`.

    Returns
    -------
    str
        A table with a line for each of `CUT_OFFS`; the difference is relative to what is published.
    """
    lines = [f"{data_set:<14}" + 2 * f"{'':4}{'here':>9}{'published':>11}{'difference':>12}"]
    rows = zip(CUT_OFFS, recall, mrr, RESULTS[data_set])
    for cut_off, *here, published in rows:
        cells = [
            f"    {own:9.4f}{other:11.4f}{100 * (own / other - 1):+11.1f}%"
            for own, other in zip(here, published)
        ]
        lines.append(f"{f'Recall, MRR@{cut_off}':<14}" + "".join(cells))
    return "\n".join(lines)
