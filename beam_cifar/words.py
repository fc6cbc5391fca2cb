"""Words that messages, tables and pages share."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """A number with what it counts: "1 row", "2,000 rows"; `many` where that is not `one` and an "s"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
