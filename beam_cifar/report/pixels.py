"""Sizes and kinds of images, and what their channels are like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from beam_cifar.analysis.stats import SizeCount, Stats
from beam_cifar.report.markup import size_text

MAX_SIZES: Final = 12
"""Sizes that are counted one by one, and bars of the histogram of more."""
_KINDS: Final = {"1": "gray", "3": "in colour"}
_STORED: Final = {"raw": "bare pixels", "png": "PNG files", "jpeg": "JPEG files"}


def image_kinds(stats: Stats) -> str:
    """Which channels images have and how they are stored, in sentences."""
    told = ""
    for counts, words, start in ((stats.channels, _KINDS, ""), (stats.encodings, _STORED, "Stored as ")):
        present = [(words.get(key, key), count) for key, count in counts.items() if count]
        if len(present) == 1:
            told += f"{start or 'All images are '}{present[0][0]}. "
        elif present:
            told += start + ", ".join(f"{count:,} {word}" for word, count in present) + ". "
    return told


def size_bins(sizes: Sequence[SizeCount]) -> list[tuple[str, int]]:
    """Images of each size, or of each range of the longer side where there are more than `MAX_SIZES` sizes."""
    if len(sizes) <= MAX_SIZES:
        return [(size_text(size), size.rows) for size in sizes]
    sides = [max(size.height, size.width) for size in sizes]
    low, high = min(sides), max(sides)
    if high <= 16 * low:
        step = _round_step((high - low) / MAX_SIZES)
        edges = list(range(low // step * step, high + step, step))
    else:
        edges = [1 << power for power in range(low.bit_length() - 1, high.bit_length() + 1)]
    edges = edges if edges[-1] > high else [*edges, high + 1]
    counts = [0] * len(edges)
    for side, size in zip(sides, sizes, strict=True):
        counts[next(at for at in range(len(edges) - 1, -1, -1) if edges[at] <= side)] += size.rows
    bins = zip(edges, edges[1:], counts, strict=False)
    return [(f"{start:,}" if end == start + 1 else f"{start:,} to {end - 1:,}", count) for start, end, count in bins]


def _round_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that is not less than `least`."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if factor * step >= least:
                return factor * step
        step *= 10


def common_sizes(sizes: Sequence[SizeCount]) -> list[SizeCount]:
    """The sizes that most images have, where there are too many to count each."""
    if len(sizes) <= MAX_SIZES:
        return []
    return sorted(sizes, key=lambda size: (-size.rows, size.height, size.width))[: MAX_SIZES // 2]
