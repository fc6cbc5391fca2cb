"""Ends an interrupted command and its workers, even while the local runner waits or a library computes."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 5.0
"""Seconds until the main thread is taken out of the local runner, or given up if a library never returned to us."""
LAST_PATIENCE = 150.0
"""Seconds that cleaning up may take; cancelling a job on a cluster takes up to 120."""
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner"


class Interrupts:
    """Context for a command: turns signals into KeyboardInterrupt, and ends the process if that does not help.

    Signals that the caller ignores, as `nohup` does, stay ignored.

    Args:
        quiet: silence standard error from then on, because runner threads keep going for a while and print errors.

    Attributes:
        seen: number of the signal that arrived; 0 if none did.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.seen, self._quiet = 0, quiet
        self._before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
        self._handled = [number for number in SIGNALS if self._before[number] is not signal.SIG_IGN]
        with suppress(OSError):  # closed by the caller
            self._terminal = os.dup(2)  # standard error is turned off while libraries work

    def __enter__(self) -> Interrupts:
        read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        try:
            # Not with `threading`: the main thread may be stopped while holding one of its locks.
            _thread.start_new_thread(self._watch, (read,))
        except RuntimeError:  # no thread can be had: then nobody else has one either
            os.close(read)
        for number in self._handled:
            signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._write)  # ends the thread
        with suppress(AttributeError):
            os.close(self._terminal)

    def leave(self, number: int) -> NoReturn:
        """Ends the workers and this process. An ordinary exit would wait for the runner's threads."""
        end_workers()
        with suppress(AttributeError, OSError, ValueError):  # the terminal may be gone
            sys.stdout.flush()
        with suppress(AttributeError, OSError):
            os.write(self._terminal, b"beam-cifar: error: interrupted\n")
        os._exit(128 + number)

    def _interrupt(self, number: int, _: object) -> NoReturn:
        self.seen = number
        if self._quiet:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (open until the process ends)
        for each in self._handled:
            signal.signal(each, signal.SIG_IGN)  # a second one would cut the cleanup short
        signal.signal(signal.SIGALRM, _leave_runner)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE)
        raise KeyboardInterrupt(number)

    def _watch(self, read: int) -> None:
        """Waits for a signal, which Python writes to the pipe even while the main thread is in a library.

        From then on kills workers, until this process exits, because one may still be starting: the runner would wait
        forever for a worker that connects after it closed its connections. No job server is killed, which still has
        to cancel its job.
        """
        while number := next(iter(os.read(read, 1)), 0):
            if number not in self._handled:
                continue
            for tenth in range(int(LAST_PATIENCE * 10)):
                if tenth > PATIENCE * 10 and not self.seen:
                    break
                end_workers(servers=False)
                time.sleep(0.1)
            self.leave(number)
        os.close(read)


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
