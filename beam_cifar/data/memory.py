"""Giving memory back: the C library keeps what was freed in small pieces, which a plan does a million times."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any


def give_back() -> None:
    """Returns what was freed to the system, where the C library is glibc; does nothing elsewhere."""
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], Any]:
    try:
        found: Callable[[int], Any] = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return lambda _: None
    return found
