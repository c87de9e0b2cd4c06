"""Identities of processes: who wrote or does something, and whether that process still runs.

A process id alone is given to others later, and means another process on another machine.
"""

from __future__ import annotations

import hashlib
import os

UNKNOWN_MACHINE = "0" * 16


def this_machine() -> str:
    """Return 16 hexadecimal digits for where a process id means one process.

    They stand for the machine's boot and the namespace of process ids. `UNKNOWN_MACHINE`: it cannot
    be told.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # that is another namespace's /proc
            return UNKNOWN_MACHINE
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            boot = file.read().strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        return UNKNOWN_MACHINE
    return hashlib.sha256(boot + space.encode()).hexdigest()[:16]


def start_time(pid: int) -> int | None:
    """Return the clock ticks from the boot to a process's start.

    None: that cannot be read, since there is no such process or it is hidden. -1: the process is
    dead, and its parent has not looked yet.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return -1 if state in b"ZX" else int(fields[18])


def is_dead(pid: int, start: int) -> bool:
    """Return whether the process of this machine with an id and a start time (0: unknown) ended."""
    now = start_time(pid)
    if now is not None:
        return start != 0 and now != start
    try:  # /proc may hide the processes of others
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False
