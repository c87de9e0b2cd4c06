"""What several tests of trackers share."""

from __future__ import annotations

import resource
import signal

import pytest


@pytest.fixture
def full_disk():
    """A function that lets no file grow beyond some bytes, or any again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size=None: resource.setrlimit(
        resource.RLIMIT_FSIZE, before if size is None else (size, before[1])
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)
