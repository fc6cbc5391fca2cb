"""Asks for threads and address space before native code takes them: libraries end the process when they get none."""

from __future__ import annotations

import _thread
import resource
import threading
from contextlib import suppress

from beam_cifar.errors import JobError


def address_space() -> int | None:
    """Returns the bytes that this process may still map; None without a limit.

    >>> from beam_cifar.data.resources import address_space
    >>> address_space() is None
    True
    """
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    found = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    return max(0, min(found) - _mapped()) if found else None


def threads_start(count: int) -> bool:
    """Returns whether so many threads can be started, one beside the other; takes some 50 microseconds for each.

    >>> from beam_cifar.data.resources import threads_start
    >>> threads_start(4)
    True
    """
    gate, ended = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        gate.wait()
        ended.release()

    started = 0
    with suppress(RuntimeError):
        for _ in range(count):
            _thread.start_new_thread(wait, ())
            started += 1
    gate.set()
    for _ in range(started):
        ended.acquire()
    return started == count


def require(*, space: int = 0, threads: int = 0, advice: str) -> None:
    """Raises `JobError` unless so many bytes of address space and so many threads can be had."""
    left = address_space()
    if left is not None and left < space:
        raise JobError(
            f"the address space is limited: {left >> 20} MiB are left (ulimit -v, ulimit -d), but {space >> 20} MiB "
            f"are needed; {advice}"
        )
    if threads and not threads_start(threads):
        raise JobError(f"{threads} threads are needed, but not so many can be started (ulimit -u, ulimit -v); {advice}")


def _mapped() -> int:
    """Bytes that this process has mapped; 0 on systems without `/proc`."""
    with suppress(OSError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
    return 0
