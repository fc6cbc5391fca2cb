"""What commands that print tables share."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(lines: Sequence[Sequence[str]], indent: int = 2) -> list[str]:
    """Lines of cells in columns: the first to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    made = []
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        made.append(" " * indent + "  ".join(cells))
    return made


def plain(name: str) -> str:
    """A name on one line, whatever is in it."""
    return name if name.isprintable() else repr(name)[1:-1]


def share(part: int, whole: int) -> str:
    """A part in percent; nothing where there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else ""
