"""The documentation as a site: `make docs` builds it without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytest.importorskip("material", reason="the site is built on Python 3.10 and later")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "WARNING -" not in done.stderr
    return folder


def test_every_page_is_there(site):
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        assert (site / ("" if name.name == "index" else name) / "index.html").exists(), name


def test_the_api_pages_have_the_docstrings(site):
    text = (site / "api" / "gru4rec" / "index.html").read_text()
    for name in ("fit", "recommend", "savemodel", "loadmodel", "get_params"):
        assert f'id="gru4rec.GRU4Rec.{name}"' in text
    assert text.count("doc-section-title") > 20  # parameters, results and errors of each


def test_the_parameters_are_a_list(site):
    """Each one is an item, and what cannot be set is not called writable."""
    text = (site / "api" / "gru4rec" / "index.html").read_text()
    items = re.findall(r"<li>\s*(?:<p>)?((?:<code>[\w, ]+</code>): .*?)</li>", text, re.DOTALL)
    names = [name for item in items for name in re.search(">(.*?)<", item)[1].split(", ")]
    assert names[:3] == ["loss", "final_act", "hidden_act"] and "seed" in names
    assert "doc-label-property" in text and "doc-label-writable" not in text
