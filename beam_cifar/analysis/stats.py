"""What a dataset is made of: counts, sizes, mean and deviation of pixels, duplicates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from beam_cifar.analysis.derive import (
    Measured,
    Repeats,
    channel_counts,
    encoding_counts,
    repeats_of,
    rows_by_label,
    size_counts,
)
from beam_cifar.analysis.reading import measured
from beam_cifar.analysis.tally import Asked, Rows
from beam_cifar.data.arrays import Int64Array
from beam_cifar.data.labels import LabelTable
from beam_cifar.options import Input
from beam_cifar.pipeline.runners import BeamOptions
from beam_cifar.planning.summaries import duplicates

GROUPS = 10
"""Groups of duplicates that are listed, and rows of each."""
MANY_SUBSETS = 100
"""With more of them, pairs that share no image are left out of `Stats.across`."""


@dataclass(frozen=True)
class SizeCount:
    """How many rows have an image of a height and width, in pixels."""

    height: int
    width: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class CommonStats:
    """What is counted of a dataset, and of each of its subsets.

    Attributes:
        rows: how many.
        images: rows that have an image.
        unlabelled: rows without label.
        sizes: of the images, by height and width, rising.
        mean: of R, G and B over all pixels, 0..255; empty without images.
        std: the standard deviation of the same.
        channels: channels as found, "1" (gray) and "3" -> images.
        encodings: "raw", "png", "jpeg" -> images.
    """

    rows: int
    images: int
    unlabelled: int
    sizes: tuple[SizeCount, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: Mapping[str, int] = field(default_factory=dict)
    encodings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SubsetStats(CommonStats):
    """One subset.

    Attributes:
        name: of it.
        labels: class name -> rows, in the order of the label table, zeros included.
        duplicates: rows whose image an earlier row of the subset has.
        digest: of its items in any order, hex; equal for equal data in any format. See `beam_cifar.analysis.diff`.
    """

    name: str
    labels: Mapping[str, int]
    duplicates: int
    digest: str


@dataclass(frozen=True)
class DuplicateGroup:
    """Rows that have the same image.

    Attributes:
        rows: the first of them, each as (subset, id, class name or None).
        count: how many there are in all.
    """

    rows: tuple[tuple[str, str, str | None], ...]
    count: int


@dataclass(frozen=True)
class Stats(CommonStats):
    """A dataset.

    Attributes:
        path: absolute, of the directory or archive.
        format: name of its format.
        title: of the kind of dataset, such as "CIFAR-100".
        labels: classes and superclasses.
        subsets: in the order of their files.
        across: for each pair of different subsets, the rows of the second whose image the first has too;
            pairs that share none are left out where there are more than `MANY_SUBSETS` subsets.
        groups: the first `GROUPS` groups of rows with the same image, wherever they are.
        duplicate_groups: how many groups there are.
        conflicting: groups with different labels.
        notices: things that a user should know.

    >>> from beam_cifar import stats
    >>> stats("cifar10").subsets[0].name
    'data_batch_1'
    """

    path: str
    format: str
    title: str
    labels: LabelTable
    subsets: tuple[SubsetStats, ...]
    across: Mapping[tuple[str, str], int]
    groups: tuple[DuplicateGroup, ...]
    duplicate_groups: int
    conflicting: int
    notices: tuple[str, ...]


def stats(
    path: str,
    input_format: str | None = None,
    subsets: Sequence[str] = (),
    *,
    workers: int | None = None,
    beam_options: BeamOptions = (),
) -> Stats:
    """Reads every image of a dataset once, and says what it is made of.

    Args:
        path: of a directory or archive.
        input_format: its format; detected if None.
        subsets: to read; all if empty.
        workers: local workers; None chooses.
        beam_options: Beam's own options, as flags or parsed; a local runner without any.

    Raises:
        BeamCifarError: the one line that explains why there is no result.

    >>> from beam_cifar import stats
    >>> stats("cifar10").rows
    60
    """
    given = Input(path, input_format, tuple(subsets))
    with measured(given, Asked(), workers=workers, beam_options=beam_options) as found:
        return stats_of(found)


def stats_of(found: Measured) -> Stats:
    """The same of a dataset that was read."""
    repeats, names, catalog = repeats_of(found.rows), found.subset_names, found.catalog
    subsets = found.subsets
    shared = repeats.shared(subsets, len(names)).tolist()
    return Stats(
        **_common(found.rows, found.histograms.sum(axis=0)),
        path=catalog.path,
        format=catalog.format,
        title=catalog.title,
        labels=found.labels,
        subsets=tuple(
            _subset_stats(found, number, found.rows[subsets == number], shared[number][number])
            for number in range(len(names))
        ),
        across={
            (first, second): shared[i][j]
            for i, first in enumerate(names)
            for j, second in enumerate(names)
            if i != j and (shared[i][j] or len(names) <= MANY_SUBSETS)
        },
        groups=_groups(found, repeats, subsets),
        duplicate_groups=len(repeats),
        conflicting=len(repeats.conflicting(found.rows["label"])),
        notices=(*catalog.notices, *duplicates(found.summaries)),
    )


def _subset_stats(found: Measured, number: int, rows: Rows, duplicates: int) -> SubsetStats:
    names = found.labels.names
    labels = dict.fromkeys(names, 0)
    # Names of a table may repeat, and the last count is of the unlabelled.
    for name, count in zip(names, rows_by_label(rows["label"], len(names)), strict=False):
        labels[name] += count
    return SubsetStats(
        **_common(rows, found.histograms[number]),
        name=found.subset_names[number],
        labels=labels,
        duplicates=duplicates,
        digest=f"{found.totals[number]:032x}",
    )


def _common(rows: Rows, histogram: Int64Array) -> dict[str, Any]:
    """The fields of `CommonStats`."""
    mean, std = moments(histogram)
    return {
        "rows": len(rows),
        "images": int((rows["channels"] > 0).sum()),
        "unlabelled": int((rows["label"] < 0).sum()),
        "sizes": tuple(SizeCount(*each) for each in size_counts(rows)),
        "mean": mean,
        "std": std,
        "channels": channel_counts(rows),
        "encodings": encoding_counts(rows),
    }


def _groups(found: Measured, repeats: Repeats, subsets: Int64Array) -> tuple[DuplicateGroup, ...]:
    members = [repeats.group(number) for number in range(min(len(repeats), GROUPS))]
    listed = [group[:GROUPS] for group in members]
    ids = iter(found.ids([at for group in listed for at in group]))
    names = found.subset_names
    return tuple(
        DuplicateGroup(tuple((names[subsets[at]], next(ids), found.class_name(at)) for at in group), len(whole))
        for group, whole in zip(listed, members, strict=True)
    )


def moments(histogram: Int64Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, from exact sums; both empty without pixels.

    Args:
        histogram: int64 `[3, 256]`.
    """
    means, deviations = [], []
    # In Python's integers: `n * squares` leaves 64 bits at 12 million white pixels.
    for counts in histogram.tolist():
        n = sum(counts)
        if not n:
            return (), ()
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        means.append(total / n)
        deviations.append(math.sqrt(n * squares - total * total) / n)
    return tuple(means), tuple(deviations)
