"""What does not fit in an environment is named before anything fails halfway."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
from helpers.cli import ROOT, complaint, python, run_py

from gru4rec_toolkit import versions
from gru4rec_toolkit.errors import InputError, shown

TRAIN = ROOT / "tests" / "golden" / "train.tsv"


def pretend(directory, name, version):
    """Let `importlib.metadata` find a package of that version first; nothing of it is there."""
    info = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return str(directory)


@pytest.mark.parametrize(
    ("name", "version", "what"),
    [
        ("numpy", "3.0.0", "numpy 3.0.0 does not fit: `pip install 'numpy>=1.20,<3'`"),
        ("numpy", "1.19.5", "numpy 1.19.5 does not fit: `pip install 'numpy>=1.20,<3'`"),
        ("pandas", "1.5.3", "pandas 1.5.3 does not fit: `pip install 'pandas>=2,<4'`"),
        ("pandas", "4.0.0rc1", "pandas 4.0.0rc1 does not fit: `pip install 'pandas>=2,<4'`"),
        ("Theano", "1.0.3", "Theano 1.0.3 does not fit, 1.0.5 is needed: install this toolkit "),
    ],
)
def test_a_version_that_does_not_fit(tmp_path, name, version, what):
    """The command line says so in one sentence, before it reads anything."""
    path = pretend(tmp_path / "packages", name, version)
    assert complaint(run_py(TRAIN, "-ps", "n_epochs=1", cwd=tmp_path, PYTHONPATH=path)).startswith(
        what
    )


def test_everything_is_named_at_once(tmp_path):
    pretend(tmp_path / "packages", "pandas", "1.5.3")
    path = pretend(tmp_path / "packages", "numpy", "3.1")
    said = complaint(run_py(TRAIN, "-ps", "n_epochs=1", cwd=tmp_path, PYTHONPATH=path))
    assert said.startswith("numpy 3.1 does not fit: ") and "; pandas 1.5.3 does not fit: " in said


def test_an_import_says_the_same(tmp_path):
    path = pretend(tmp_path / "packages", "numpy", "3.0.0")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import gru4rec"
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=path)
    assert done.err.splitlines()[-1].endswith(
        "numpy 3.0.0 does not fit: `pip install 'numpy>=1.20,<3'`"
    )


def test_a_package_that_is_missing(monkeypatch):
    """Not every clone has been installed."""
    monkeypatch.setattr(versions, "_installed", lambda name: {"Theano": "1.0.5"}.get(name))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pandas" else find(name)
    )
    sentence = r"^pandas is not installed: `pip install 'pandas>=2,<4'`$"
    with pytest.raises(InputError, match=sentence):
        versions.check()


def test_a_scipy_that_does_not_fit_numpy(tmp_path):
    """The command line and an import name the reason, not a name that an import statement lacks."""
    (tmp_path / "scipy").mkdir()
    (tmp_path / "scipy" / "__init__.py").write_text("import numpy\nnumpy.a_name_of_old\n")
    done = run_py(TRAIN, "-ps", "n_epochs=1", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert re.match(
        "Theano cannot be imported: AttributeError: .*a_name_of_old.*; of packages that do not fit",
        complaint(done),
    )
    code = f"import sys; sys.path.insert(1, {str(ROOT)!r}); import gru4rec"
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "InputError: Theano cannot be imported: " in done.err.splitlines()[-1]


@pytest.mark.parametrize("version", ["1.20.0", "2.99", "1.26.4+of.a.distribution", "2.5.0rc1"])
def test_versions_that_fit(tmp_path, monkeypatch, version):
    monkeypatch.syspath_prepend(pretend(tmp_path, "numpy", version))
    assert metadata.version("numpy") == version
    versions.check()


@pytest.mark.parametrize("version", [(3, 7), (3, 15), (4, 0)])
def test_a_python_that_does_not_fit(monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", (*version, 1, "final", 0))
    number = ".".join(map(str, version))
    with pytest.raises(InputError, match=rf"^Python {number} does not fit, .* 3\.8 to 3\.14: make"):
        versions.check()


def installed(monkeypatch, found):
    """Let pip know these packages only."""

    def version(name):
        if name not in found:
            raise metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(metadata, "version", version)


def test_theano_under_another_name(monkeypatch):
    installed(monkeypatch, {"Theano-PyMC": "1.1.2"})
    what = "^Theano-PyMC is installed in the place of Theano, 1.0.5 is needed: install this toolkit"
    with pytest.raises(InputError, match=what):
        versions.check()


def test_no_theano(monkeypatch):
    installed(monkeypatch, {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: {"theano": None}.get(name, name))
    with pytest.raises(InputError, match=r"^Theano is not installed, 1\.0\.5 is needed: "):
        versions.check()


def test_packages_that_pip_does_not_know(monkeypatch):
    """Of a directory in PYTHONPATH, for example: their import tells."""
    installed(monkeypatch, {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "somewhere")
    versions.check()


def test_pip_is_asked_for_the_same():
    """In setup.py, pyproject.toml and the set-up of .venv."""
    asked = (ROOT / "setup.py").read_text()
    for name, (lowest, too_new) in versions.PACKAGES.items():
        assert f'"{name}>={lowest},<{too_new}"' in asked
    assert f'THEANO = "Theano=={versions.THEANO}"' in asked
    (oldest, newest) = versions.PYTHON
    wanted = re.search(r'requires-python = "(.*)"', (ROOT / "pyproject.toml").read_text()).group(1)
    assert wanted == f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"
    bootstrap = (ROOT / "tools" / "bootstrap.py").read_text()
    assert f"OLDEST, NEWEST = {oldest}, {newest}" in bootstrap


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(7), "7"),
        (np.float32(0.1), "0.1"),
        (np.bool_(True), "True"),
        (np.str_("a b"), "'a b'"),
        (pd.Series([7, 8]).iloc[1], "8"),
        (pd.Series(["x"], dtype=object).iloc[0], "'x'"),
    ],
)
def test_messages_repeat_a_value_alike(value, expected):
    """NumPy 2 has reprs of its own, such as np.int64(7)."""
    assert shown(value) == expected
