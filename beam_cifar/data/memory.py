"""Keeps little freed memory: glibc holds on to small blocks, of which planning frees millions, in a heap per thread."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

_M_ARENA_MAX = -8


def give_back() -> None:
    """Returns freed memory to the system if the C library is glibc; otherwise does nothing."""
    _glibc("malloc_trim")(0)


def share_heap() -> None:
    """Lets all threads that start later share one heap, if the C library is glibc: a job takes a fifth less memory."""
    _glibc("mallopt")(_M_ARENA_MAX, 1)


@functools.cache
def _glibc(name: str) -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return lambda *_: None
    return found
