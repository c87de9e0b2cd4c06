"""A model file written under one system gives the same metrics under every other."""

from __future__ import annotations

import pytest
from helpers.cli import run_py, succeeds
from helpers.systems import LENGTHS, MODELS, log

FILES = sorted(MODELS.glob("*.gru4rec"))


def test_there_are_models_of_several_systems():
    systems = {path.stem.rsplit("-", 1)[0] for path in FILES}
    assert len(systems) >= 4
    assert any("-numpy1." in name for name in systems) and any(
        "-numpy2." in name for name in systems
    )
    assert any("-pandas2." in name for name in systems)
    assert any("-pandas3." in name for name in systems)


@pytest.mark.parametrize("model", FILES, ids=lambda path: path.stem)
def test_same_metrics(tmp_path, model):
    test = log("test", model.stem.rsplit("-", 1)[1], tmp_path)
    done = succeeds(run_py(model, "-l", "-t", test, *LENGTHS, cwd=tmp_path))
    assert done.metrics == model.with_suffix(".txt").read_text().splitlines()
