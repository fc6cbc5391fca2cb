"""Bounds on what is read and made, and checks of them."""

from __future__ import annotations

from beam_cifar.errors import UsageError

MAX_SIDE = 65_500
"""Pixels; libjpeg's own limit, a little below the format's 65,535 (ITU-T T.81, table B.2)."""

MAX_PIXELS = 1 << 26
"""8,192 x 8,192: the largest image that is read or made. Below the limit at which Pillow warns."""


def check_size(size: tuple[int, int]) -> None:
    """Refuses a (height, width) that no image can get. Raises `UsageError`."""
    height, width = size
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise UsageError(
            f"--resize takes sides from 1 to {MAX_SIDE}, and at most {MAX_PIXELS} pixels, found {height}x{width}"
        )


def refuse_less_than_one(flag: str, value: int | None) -> None:
    """Refuses a count below one; None is none. Raises `UsageError`."""
    if value is not None and value < 1:
        raise UsageError(f"{flag} must be at least 1, found {value}")
