"""The documentation as a site: every page in a browser, which reaches no other host."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import browser as browsers
from helpers.cli import ROOT

pytest.importorskip("mkdocs")
pytest.importorskip("material")
browsers.needed()

# the links of the navigation, those of the table of contents left out
NAVIGATION = """Array.from(
    document.querySelectorAll("nav.md-nav--primary a.md-nav__link[href]"), (a) => a.href
).filter((url) => !url.includes("#"))"""
TITLE = """(() => {
    const title = document.querySelector("h1").cloneNode(true)
    title.querySelectorAll(".headerlink").forEach((link) => link.remove())
    return title.textContent.trim()
})()"""
QUERY = "input[data-md-component=search-query]"
# the search's own word on what it has found; before that it says that it waits
FOUND = """/matching/.test(document.querySelector(".md-search-result__meta").textContent)"""
RESULTS = """Array.from(
    document.querySelectorAll("a.md-search-result__link"), (a) => a.href.split(/[?#]/)[0]
)"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path):
    """Serve a folder, and give its URL."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def problems(site: Path, browser: browsers.Browser) -> tuple[list[str], list[str]]:
    """Open every page of a site's navigation, in a tab of its own.

    Parameters
    ----------
    site : Path
        The folder that `mkdocs build` has made.
    browser : Browser

    Returns
    -------
    list of str, list of str
        The pages, and what is wrong with them: errors in the console, requests that fail or go to
        another host, a title that is not the heading's, a search that does not find the heading.
    """
    with served(site) as root:
        first = browser.open(root)
        name = first.evaluate("document.querySelector('a.md-logo').title")
        urls = list(dict.fromkeys(url for url in first.evaluate(NAVIGATION) if root in url))
        first.close()
        pages = [url[len(root) :] or "index.html" for url in urls]
        found = []
        for path, url in zip(pages, urls):
            page = browser.open(url)
            found += [f"{path}: {problem}" for problem in _problems(page, url, root, name)]
            page.close()
    return pages, found


def _problems(page: browsers.Page, url: str, root: str, name: str) -> list[str]:
    heading, title = page.evaluate(TITLE), page.evaluate("document.title")
    titles = [f"{heading} - {name}"] if url != root else [name]
    found = [] if heading and title in titles else [f"the title is {title!r}, not {titles[0]!r}"]
    if not page.errors:  # a search that lacks its scripts would be waited for in vain
        page.write(QUERY, heading)
        page.wait_for(FOUND)
        page.settle()
        results = page.evaluate(RESULTS)
        if url not in results:
            found.append(f"the search for {heading!r} finds {results}")
    found += page.errors
    for request in page.requests:
        if not request.url.startswith(root):
            found.append(f"{request.url} is asked for on another host")
        elif request.failed:
            found.append(f"{request.url} fails: {request.failure or request.status}")
    return found


def build(folder: Path, configuration: Path) -> Path:
    """Build a site into a folder, with broken links as errors."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(
        [*command, "-f", configuration, "-d", folder],
        cwd=configuration.parent,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser():
    with browsers.browser() as started:
        yield started


CONFIGURATION = """site_name: Sparrows
theme: {name: material, font: false}
markdown_extensions: [toc: {permalink: true}]
nav: [index.md, Places: [nests.md]]
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A site of two pages."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "docs").mkdir()
    (folder / "mkdocs.yml").write_text(CONFIGURATION)
    (folder / "docs" / "index.md").write_text("# Birds\n\nSee [nests](nests.md).\n")
    (folder / "docs" / "nests.md").write_text("# Nests in hedges\n\nOf straw.\n")
    return build(folder / "site", folder / "mkdocs.yml")


def test_a_small_site(small, browser):
    assert problems(small, browser) == (["index.html", "nests/"], [])


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ("</body>", "<script>throw new Error('a fault')</script></body>", "Error: a fault"),
        ("</body>", "<script>console.error('a fault', 7)</script></body>", "a fault 7"),
        ("Of straw.", "<img src='none.png'>", "/nests/none.png fails: 404"),
        ("Of straw.", "<img src='https://a.org/a.png'>", "a.png is asked for on another host"),
        ("<title>Nests", "<title>Nets", "the title is 'Nets in hedges - Sparrows', not 'Nests"),
    ],
)
def test_a_fault_of_a_page_is_found(small, browser, tmp_path, before, after, what):
    site = shutil.copytree(small, tmp_path / "site")
    page = site / "nests" / "index.html"
    text = page.read_text()
    assert before in text
    page.write_text(text.replace(before, after))
    _, found = problems(site, browser)
    assert any(what in problem for problem in found), found
    assert all(problem.startswith("nests/: ") for problem in found)


def test_a_page_that_the_search_does_not_find(small, browser, tmp_path):
    site = shutil.copytree(small, tmp_path / "site")
    index = site / "search" / "search_index.json"
    text = index.read_text()
    assert text.count("Nests in hedges") == 1
    index.write_text(text.replace("Nests in hedges", "Anything"))
    _, found = problems(site, browser)
    assert len(found) == 1 and "nests/: the search for 'Nests in hedges' finds" in found[0]


def test_the_documentation(tmp_path, browser):
    pages, found = problems(build(tmp_path / "site", ROOT / "mkdocs.yml"), browser)
    assert len(pages) > 5 and found == []
