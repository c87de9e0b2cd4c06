"""Helpers for tests of event tables in files."""

from __future__ import annotations

from gru4rec_toolkit.data.events import read_events

HEADER = "SessionId\tItemId\tTime\n"


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path, **keys):
    return read_events(path, announce=False, **keys)
