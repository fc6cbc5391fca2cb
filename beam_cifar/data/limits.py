"""Size limits for images read and written, checks of options against them, and the level of compression."""

from __future__ import annotations

from beam_cifar.errors import UsageError

MAX_SIDE = 65_500
"""Largest side in pixels: libjpeg's own limit, a little below the format's 65,535 (ITU-T T.81, table B.2)."""

MAX_PIXELS = 1 << 26
"""Largest image read or written, 8,192 x 8,192 pixels; below the size at which Pillow warns."""

ISAL_LEVEL = 3
"""Level at which isal deflates.

At levels 1 and 2, ISA-L (2.32.1 and later) takes the hash of the third byte from a register that still holds the
address of the stream (`.write_first_byte` in `igzip_icf_body_h1_gr_bt.asm`), so that a few images became other bytes in
some threads. Level 3 has code of its own.
"""


def check_size(size: tuple[int, int]) -> None:
    """Checks the (height, width) given to `--resize`. Raises `UsageError` if it is outside the limits."""
    height, width = size
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise UsageError(
            f"--resize must have sides from 1 to {MAX_SIDE} and at most {MAX_PIXELS} pixels, found {height}x{width}"
        )


def refuse_less_than_one(flag: str, value: int | None) -> None:
    """Raises `UsageError` if the value of an option is less than one; None (not given) passes."""
    if value is not None and value < 1:
        raise UsageError(f"{flag} must be at least 1, found {value}")
