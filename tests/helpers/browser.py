"""A headless browser of a test's own: opens pages, and tells what scripts and requests did.

Chromium, driven over the pipe of its DevTools, with an empty profile and no other host than this
machine in reach. It ends with the test that started it: when the pipe is closed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
PACKAGE = "chromium-headless-shell"
# seconds until something that has to come counts as missing
PATIENCE = 300
# seconds without any request, after which a page has loaded what it wants
QUIET = 0.3


def program() -> str | None:
    """Return the path of a browser; None if there is none."""
    return next((path for path in map(shutil.which, PROGRAMS) if path), None)


def needed() -> None:
    """Skip a test module where there is no browser."""
    if program() is None:
        pytest.skip(f"no browser (apt-get install {PACKAGE})", allow_module_level=True)


@dataclass
class Request:
    """A request of a page, and how it ended: a status, or a reason why there is none."""

    url: str
    status: int | None = None
    failure: str | None = None
    ended: bool = False

    @property
    def host(self) -> str:
        """The host, with its port; empty for what needs none (data:, blob:)."""
        return urllib.parse.urlsplit(self.url).netloc

    @property
    def failed(self) -> bool:
        return self.failure is not None or (self.status or 0) >= 400


class Browser:
    """A running browser.

    Parameters
    ----------
    folder : Path
        For its profile and its standard error.
    """

    def __init__(self, folder: Path) -> None:
        self.log = folder / "browser.txt"
        found = program()
        assert found is not None
        options = [
            "--headless",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder / 'profile'}",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",  # containers have a small one
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--window-size=1280,900",
        ]
        if os.geteuid() == 0:  # its sandbox refuses to be started by root
            options.append("--no-sandbox")
        # It reads commands from descriptor 3 and writes answers to 4.
        pipes = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >&2'
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                ["sh", "-c", pipes, found, *options, "about:blank"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )
        self._received = b""
        self._number = 0
        self._pages: dict[str, Page] = {}  # by session; workers' sessions lead to their page

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.stdout.close()

    def open(self, url: str) -> Page:
        """Open a page in a tab of its own, and wait until it has loaded what it wants."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        page = Page(self, target)
        page.go(url)
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict:
        """Return the answer to a command of the DevTools protocol."""
        number = self.send(method, session, **parameters)
        end = time.monotonic() + PATIENCE
        while True:
            message = self._message(end - time.monotonic())
            assert message is not None, f"no answer to {method}: {self._said()}"
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]

    def send(self, method: str, session: str | None = None, **parameters: Any) -> int:
        """Send a command, and return its number; nobody waits for the answer."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            command["sessionId"] = session
        data = json.dumps(command).encode() + b"\0"
        try:
            while data:
                data = data[self.process.stdin.write(data) :]
        except BrokenPipeError:
            raise AssertionError(f"the browser ended: {self._said()}") from None
        return self._number

    def wait(self, seconds: float) -> None:
        """Take in for some time what pages report."""
        end = time.monotonic() + seconds
        while self._message(end - time.monotonic()) is not None:
            pass

    def attach(self, page: Page, session: str) -> None:
        """Let a session report to a page: the page's own, or that of one of its workers."""
        self._pages[session] = page

    def _message(self, seconds: float) -> dict | None:
        """Return the next message, after the page that it is about has seen it; None: too late."""
        end = time.monotonic() + seconds
        pipe = self.process.stdout
        while b"\0" not in self._received:
            left = end - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                return None
            data = os.read(pipe.fileno(), 1 << 20)
            assert data, f"the browser ended: {self._said()}"
            self._received += data
        line, _, self._received = self._received.partition(b"\0")
        message = json.loads(line)
        page = self._pages.get(message.get("sessionId", ""))
        if page is not None and "method" in message:
            page.note(message["method"], message["params"])
        return message

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


class Page:
    """A tab.

    Attributes
    ----------
    errors : list of str
        What the console shows as errors: of scripts, of requests, and what scripts write there.
    requests : list of Request
        Of the page and its workers, in order.
    """

    def __init__(self, browser: Browser, target: str) -> None:
        self.browser, self.target = browser, target
        self.errors: list[str] = []
        self.requests: list[Request] = []
        self._open: dict[str, Request] = {}  # by number; a worker may end what its page began
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        browser.attach(self, self.session)
        # workers wait until their requests are watched, too
        self._call(
            "Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True
        )
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def go(self, url: str) -> None:
        """Load a page in this tab, and wait until it has loaded what it wants."""
        answer = self._call("Page.navigate", url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"
        self.wait_for("document.readyState === 'complete'")
        self.settle()

    def settle(self) -> None:
        """Wait until no request is open, and none has been made for some time."""
        end = time.monotonic() + PATIENCE
        before = -1
        while before != len(self.requests) or not all(r.ended for r in self.requests):
            assert time.monotonic() < end, [r for r in self.requests if not r.ended]
            before = len(self.requests)
            self.browser.wait(QUIET)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in JavaScript; a promise's is waited for."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, _exception(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + PATIENCE
        while True:
            value = self.evaluate(expression)
            if value:
                return value
            assert time.monotonic() < end, f"never true: {expression}\n{self.text()}"
            self.browser.wait(0.05)

    def wait_for_text(self, text: str) -> None:
        """Wait until a text can be seen on the page."""
        self.wait_for(f"document.body.innerText.includes({json.dumps(text)})")

    def dom(self) -> str:
        """Return the document as scripts have left it, as HTML."""
        return self.evaluate("document.documentElement.outerHTML")

    def text(self) -> str:
        """Return the text that can be seen."""
        return self.evaluate("document.body.innerText")

    def click(self, selector: str) -> None:
        """Click on what a selector of CSS finds first."""
        self.wait_for(f"document.querySelector({json.dumps(selector)}) !== null")
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def write(self, selector: str, text: str) -> None:
        """Write into a field, as from the keyboard."""
        self.wait_for(f"document.querySelector({json.dumps(selector)}) !== null")
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self._call("Input.insertText", text=text)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=text[-1])  # some pages wait for it

    def screenshot(self, path: Path) -> None:
        """Write what the window shows into a PNG file."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)

    def note(self, method: str, about: dict) -> None:
        """Take in what the browser reports about this page or one of its workers."""
        if method == "Runtime.exceptionThrown":
            self.errors.append(_exception(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            values = (x.get("value", x.get("description", "")) for x in about["args"])
            self.errors.append(" ".join(map(str, values)))
        elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
            entry = about["entry"]
            self.errors.append(f"{entry['text']} ({entry.get('url', 'no URL')})")
        elif method == "Target.attachedToTarget":
            worker = about["sessionId"]
            self.browser.attach(self, worker)
            for command in ("Runtime.enable", "Log.enable", "Network.enable"):
                self.browser.send(command, worker)
            self.browser.send("Runtime.runIfWaitingForDebugger", worker)
        elif method == "Network.requestWillBeSent":
            request = Request(about["request"]["url"])
            self._end(about, about.get("redirectResponse"))
            if request.host:
                self.requests.append(request)
                self._open[about["requestId"]] = request
        elif method == "Network.responseReceived":
            request = self._open.get(about["requestId"])
            if request is not None:
                request.status = about["response"]["status"]
        elif method == "Network.loadingFinished":
            self._end(about)
        elif method == "Network.loadingFailed":
            # what the page itself has called off is no failure
            self._end(about, failure=None if about.get("canceled") else about["errorText"])

    def _end(self, about: dict, response: dict | None = None, failure: str | None = None) -> None:
        request = self._open.pop(about["requestId"], None)
        if request is not None:
            request.ended, request.failure = True, failure
            if response is not None:
                request.status = response["status"]

    def _call(self, method: str, **parameters: Any) -> dict:
        return self.browser.call(method, self.session, **parameters)


def _exception(details: dict) -> str:
    return details.get("exception", {}).get("description") or details["text"]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser, and remove its profile at the end."""
    folder = tempfile.mkdtemp(prefix="browser-")
    try:
        with Browser(Path(folder)) as started:
            yield started
    finally:
        # a helper process of the browser may still write there
        shutil.rmtree(folder, ignore_errors=True)
