"""Problems that are answered with one sentence: at the start, and of single requests."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn


class StartError(Exception):
    """A reason why the service cannot start; the command line ends with exit code 2."""


class RequestError(Exception):
    """A request that is refused, with its HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        # argparse says "argument --port: invalid int value: 'x'"
        start = "argument "
        raise StartError(message[len(start) :] if message.startswith(start) else message) from None


def shown(value: object, most: int = 80) -> str:
    """Return a value as messages repeat it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def run(main: Callable[[], None]) -> None:
    """Run a program: an error is one sentence, and Ctrl-C ends it without a traceback."""
    try:
        main()
    except StartError as err:
        print(f"error: {err}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
