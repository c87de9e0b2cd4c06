"""A Redis server of a test's own."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest


def needed() -> None:
    """Skip a test module where there is no Redis, or no client of it."""
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("no Redis (apt-get install redis-server)", allow_module_level=True)


class RedisServer:
    """A server on a free port, which can be stopped and started again with what it had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        command = f"redis-server --port {self.port} --bind 127.0.0.1 --appendonly yes"
        self.process = subprocess.Popen(
            [*command.split(), "--dir", str(self.folder)], stdout=subprocess.PIPE, text=True
        )
        for line in self.process.stdout:
            if "Ready to accept connections" in line:
                return
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()

    def client(self):
        import redis

        return redis.Redis.from_url(self.url)
