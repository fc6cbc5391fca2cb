"""The processes that a job has started."""

from __future__ import annotations

import os
from contextlib import suppress


def descendants(ancestor: int) -> list[int]:
    """The ids of all processes below one; none where the system has no `/proc`."""
    children: dict[int, list[int]] = {}
    with suppress(OSError):
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # pid (name) state ppid ...; the name may hold anything.
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found, waiting = [], [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def is_python(process: int) -> bool:
    """Whether a process runs the program that runs us."""
    try:
        return os.path.samefile(f"/proc/{process}/exe", "/proc/self/exe")
    except OSError:
        return False
