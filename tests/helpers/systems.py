"""Models written under one system and read under all others: ``python tests/helpers/systems.py``.

That trains two small models on tests/golden, one with integers as ids and one with text, saves them
in tests/models under the name of this system, and beside each the metrics that were printed.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.cli import run_py, succeeds  # noqa: E402

MODELS = ROOT / "tests" / "models"
PARAMETERS = (
    "loss=bpr-max,final_act=elu-0.5,layers=16,batch_size=8,n_sample=32,bpreg=1.0,momentum=0.1,"
    "dropout_p_hidden=0.2,constrained_embedding=True,learning_rate=0.1,n_epochs=5,seed=3"
)
LENGTHS = ("-m", "1", "5", "20")


def log(name: str, kind: str, directory: Path) -> Path:
    """Return the path of a log of tests/golden with ids of a kind, ``numbers`` or ``text``.

    As text they look like numbers, which pandas would read as such: "0470" and "470" are one then.
    """
    source = ROOT / "tests" / "golden" / f"{name}.tsv"
    if kind == "numbers":
        return source
    header, *rows = (line.split("\t") for line in source.read_text().splitlines())
    rows = [[session, f"{'0' * (int(item) % 3)}{item}", time] for session, item, time in rows]
    # a name that is not a number, so that the ids are text
    rows.append([rows[-1][0], "the last one", rows[-1][2]])
    path = directory / f"{name}-text.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]))
    return path


def main() -> None:
    """Write the models of this system."""
    import numpy as np
    import pandas as pd

    versions = (platform.machine(), f"python{sys.version_info[0]}.{sys.version_info[1]}")
    system = "-".join((*versions, f"numpy{np.__version__}", f"pandas{pd.__version__}"))
    MODELS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for kind in ("numbers", "text"):
            model = MODELS / f"{system}-{kind}.gru4rec"
            train, test = (log(part, kind, directory) for part in ("train", "test"))
            options = ("-ps", PARAMETERS, "-t", test, *LENGTHS, "-s", model)
            done = succeeds(run_py(train, *options, cwd=directory))
            model.with_suffix(".txt").write_text("\n".join(done.metrics) + "\n")


if __name__ == "__main__":
    main()
