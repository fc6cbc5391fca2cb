"""Ends an interrupted command and its workers, even while the local runner is waiting."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

PATIENCE = 5.0
"""Seconds that the local runner gets to stop its workers."""

LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner"


class Interrupts:
    """Turns SIGINT and SIGTERM into KeyboardInterrupt, and records that one arrived.

    Args:
        quiet: silence standard error from then on, because runner threads keep going for a while and print errors.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.seen, self._quiet = False, quiet
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, *_: Any) -> NoReturn:
        self.seen = True
        if self._quiet:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (open until the process ends)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second one would cut the cleanup short
        # Not with `threading`: the main thread may have been stopped while holding one of its locks.
        _thread.start_new_thread(_end_workers_that_start, ())
        signal.signal(signal.SIGALRM, _leave_runner)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE)
        raise KeyboardInterrupt


def _leave_runner(_: int, frame: FrameType | None) -> None:
    """Takes the main thread out of the local runner, which would wait forever for a worker that started too late."""
    while frame:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(LOCAL_RUNNER):
            raise KeyboardInterrupt
        if module.startswith("beam_cifar."):
            return
        frame = frame.f_back


def end_workers(*, servers: bool = True) -> None:
    """Kills worker processes, which do not exit by themselves.

    Args:
        servers: also kill processes other than Python, such as a job server.
    """
    for process in _descendants(os.getpid()):
        if servers or _is_python(process):
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)


def _end_workers_that_start() -> NoReturn:
    """Kills workers while the local runner waits for them, but no job server, which still has to cancel its job.

    Runs until this process exits, because a worker may still be starting: the runner would wait forever for one that
    connects after it closed its connections.
    """
    while True:
        end_workers(servers=False)
        time.sleep(0.1)


def _descendants(ancestor: int) -> list[int]:
    """The ids of all descendants of a process; empty on systems without `/proc`."""
    children: dict[int, list[int]] = {}
    with suppress(OSError):
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # pid (name) state ppid ...; the name may contain any character, ")" and spaces too.
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found, waiting = [], [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _is_python(process: int) -> bool:
    """Whether a process runs the same executable as this one."""
    try:
        return os.path.samefile(f"/proc/{process}/exe", "/proc/self/exe")
    except OSError:
        return False
