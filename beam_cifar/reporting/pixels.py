"""Sizes and kinds of images, and what their channels are like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from beam_cifar.measuring import SizeCount, Stats
from beam_cifar.reporting.markup import Markup, cut, element, joined, name, number, percent
from beam_cifar.reporting.tables import MAX_SUBSETS, NAME, size_text, table

MAX_SIZES: Final = 12
SIDES: Final = "height\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}width"


def pixels(stats: Stats) -> Markup | None:
    """Sizes, kinds of images, and what the channels are like."""
    if not stats.images:
        return None
    return joined(
        element("p", *_kinds(stats)),
        element("h3", "Sizes"),
        _size_table(stats),
        element("h3", "Channels"),
        _channel_table(stats),
        _normalise(stats),
        _channels_by_subset(stats),
    )


def _kinds(stats: Stats) -> Iterator[str]:
    names = {"1": "gray", "3": "in colour"}
    stored = {"raw": "bare pixels", "png": "PNG files", "jpeg": "JPEG files"}
    for counts, words, start in ((stats.channels, names, ""), (stats.encodings, stored, "Stored as ")):
        present = [(words.get(key, key), count) for key, count in counts.items() if count]
        if len(present) == 1:
            word = present[0][0]
            yield f"Stored as {word}. " if start else f"All images are {word}. "
        elif present:
            yield start + ", ".join(f"{number(count)} {word}" for word, count in present) + ". "


def _size_table(stats: Stats) -> Markup:
    sizes = stats.sizes
    if len(sizes) == 1:
        return element("p", f"All images are {size_text(sizes[0])} pixels ({SIDES}).")
    heights, widths = ([getattr(size, side) for size in sizes] for side in ("height", "width"))
    told = element(
        "p",
        f"{len(sizes):,} sizes ({SIDES}), "
        f"heights from {min(heights):,} to {max(heights):,} "
        f"and widths from {min(widths):,} to {max(widths):,} pixels.",
    )
    if len(sizes) <= MAX_SIZES:
        return joined(told, _histogram("Size", [(size_text(size), size.rows) for size in sizes]))
    common = sorted(sizes, key=lambda size: (-size.rows, size.height, size.width))[: MAX_SIZES // 2]
    return joined(
        told,
        _histogram("Longer side", _binned(sizes)),
        element(
            "p", "The most common: ", ", ".join(f"{size_text(size)} ({number(size.rows)})" for size in common), "."
        ),
    )


def _binned(sizes: Sequence[SizeCount]) -> list[tuple[str, int]]:
    """Images by their longer side, in at most a dozen bins of one width, or in powers of two where they differ much."""
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
    """The smallest of 1, 2, 5, 10, 20, 50, ... that is no less."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if factor * step >= least:
                return factor * step
        step *= 10


def _histogram(what: str, counts: Sequence[tuple[str, int]]) -> Markup:
    most, total = max(count for _, count in counts), sum(count for _, count in counts)

    def bar(count: int) -> Markup:
        piece = element("i", class_="c0", style=f"width:{100 * count / most:.2f}%") if count else None
        return element("span", piece, class_="bar", aria_hidden="true")

    lines = [[label, number(count), percent(count, total), bar(count)] for label, count in counts]
    return table([what, "Images", "Share", ""], lines, label=what, kind="hist")


def _channel_table(stats: Stats) -> Markup | None:
    lines = []
    for channel, kind, mean, std in zip(("Red", "Green", "Blue"), ("red", "green", "blue"), stats.mean, stats.std,
                                        strict=False):  # fmt: skip
        low, high = max(0.0, mean - std), min(255.0, mean + std)
        strip = element(
            "span",
            element("i", style=f"left:{low / 2.55:.2f}%;width:{(high - low) / 2.55:.2f}%"),
            element("b", style=f"left:{mean / 2.55:.2f}%"),
            class_=f"range {kind}",
            aria_hidden="true",
        )
        lines.append([channel, f"{mean:.2f}", f"{std:.2f}", strip])
    return table(["Channel", "Mean", "Deviation", "0 to 255"], lines, texts=(3,), label="Channels", kind="ranges")


def _normalise(stats: Stats) -> Markup:
    mean, std = (", ".join(f"{value / 255:.4f}" for value in values) for values in (stats.mean, stats.std))
    values = element("code", f"mean = ({mean})"), ", ", element("code", f"std = ({std})")
    return element("p", "As shares of 255: ", *values, ".")


def _channels_by_subset(stats: Stats) -> Markup | None:
    shown = [subset for subset in stats.subsets if subset.mean][:MAX_SUBSETS]
    if len(shown) < 2:
        return None
    lines = [[name(cut(subset.name, NAME)), *map(_mean_and_std, subset.mean, subset.std)] for subset in shown]
    made = table(["Subset", "Red", "Green", "Blue"], lines, label="Channels by subset", kind="pairs")
    return joined(element("h3", "Mean and deviation by subset"), made)


def _mean_and_std(mean: float, std: float) -> str:
    return f"{mean:.2f} ±\N{NO-BREAK SPACE}{std:.2f}"
