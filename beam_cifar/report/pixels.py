"""Sizes, channels and encodings of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from beam_cifar.analysis.stats import SizeCount, Stats
from beam_cifar.report.markup import size_text

MAX_SIZES: Final = 12
"""Maximum number of sizes counted individually; approximate number of bins of the histogram for more."""
_KINDS: Final = {"1": "gray", "3": "in colour"}
_STORED: Final = {
    "raw": "raw pixels",
    "png": "PNG files",
    "jpeg": "JPEG files",
    "webp": "WebP files",
    "gif": "GIF files",
    "bmp": "BMP files",
    "tiff": "TIFF files",
}


def image_kinds(stats: Stats) -> str:
    """Describes the channels and encodings of the images in sentences."""
    text = ""
    for counts, words, start in ((stats.channels, _KINDS, ""), (stats.encodings, _STORED, "Stored as ")):
        present = [(words.get(key, key), count) for key, count in counts.items() if count]
        if len(present) == 1:
            text += f"{start or 'All images are '}{present[0][0]}. "
        elif present:
            text += start + ", ".join(f"{count:,} {word}" for word, count in present) + ". "
    return text


def size_bins(sizes: Sequence[SizeCount]) -> list[tuple[str, int]]:
    """Counts images by size, or by ranges of the longer side if there are more than `MAX_SIZES` sizes."""
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
    """Returns the smallest of 1, 2, 5, 10, 20, 50, ... that is at least `least`."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if factor * step >= least:
                return factor * step
        step *= 10


def common_sizes(sizes: Sequence[SizeCount]) -> list[SizeCount]:
    """Returns the most common sizes, if there are too many to count individually."""
    if len(sizes) <= MAX_SIZES:
        return []
    return sorted(sizes, key=lambda size: (-size.rows, size.height, size.width))[: MAX_SIZES // 2]
