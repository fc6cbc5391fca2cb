"""Which process made something: whether it still runs can only be asked on its own machine."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress


def machine() -> dict[str, str]:
    """Identifies this machine: its host name, which may not be unique, and its boot id and PID namespace."""
    found = ""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        found = f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return {"host": socket.gethostname(), "machine": found}


def here() -> tuple[str, str]:
    """Returns short digests of what names this machine, with its PID namespace, and of its last start."""
    facts = machine()
    boot, _, namespace = facts["machine"].partition(" ")
    host, last = (hashlib.sha256(text.encode()).hexdigest()[:8] for text in (f"{facts['host']} {namespace}", boot))
    return host, last


def started(process: int) -> str:
    """Returns when a process on this machine started, in clock ticks; empty if it is not running or unknown."""
    with suppress(OSError, ValueError), open(f"/proc/{process}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[19].decode()
    return ""
