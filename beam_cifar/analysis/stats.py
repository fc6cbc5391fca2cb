"""Statistics of a dataset: counts, sizes, mean and standard deviation of pixels, duplicates."""

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
from beam_cifar.analysis.tally import EXAMPLES, Asked, Rows
from beam_cifar.data.arrays import Int64Array
from beam_cifar.data.labels import LabelTable
from beam_cifar.images.options import AS_STORED, ImageOptions
from beam_cifar.naming.components import alike_names
from beam_cifar.options import Input
from beam_cifar.pipeline.runners import BeamOptions
from beam_cifar.planning.summaries import duplicates

MANY_SUBSETS = 100
"""With more subsets, `Stats.across` omits pairs that share no image."""


@dataclass(frozen=True)
class SizeCount:
    """The number of rows with an image of a height and width, in pixels."""

    height: int
    width: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class CommonStats:
    """Statistics of a dataset or a subset.

    Attributes:
        rows: number of rows.
        images: rows with an image.
        unlabelled: rows without a label.
        sizes: image sizes, ascending by height and width.
        mean: mean of R, G and B over all pixels, 0..255; empty without images.
        std: standard deviation of R, G and B.
        channels: number of channels, "1" (gray) or "3" -> images.
        encodings: "raw", "png", "jpeg", ... -> images.
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
    """Statistics of one subset.

    Attributes:
        name: name of the subset.
        labels: class name -> rows, in the order of the label table, zeros included.
        duplicates: rows with the same image as an earlier row of the subset.
        digest: digest of its items, hex; equal for equal items in any order and format. See `beam_cifar.analysis.diff`.
    """

    name: str
    labels: Mapping[str, int]
    duplicates: int
    digest: str


@dataclass(frozen=True)
class DuplicateGroup:
    """Rows with the same image.

    Attributes:
        rows: the first rows, each as (subset, id, class name or None).
        count: total number of rows.
    """

    rows: tuple[tuple[str, str, str | None], ...]
    count: int


@dataclass(frozen=True)
class Stats(CommonStats):
    """Statistics of a dataset.

    Attributes:
        path: absolute path of the directory or archive.
        format: name of the format.
        title: kind of dataset, such as "CIFAR-100".
        labels: classes and superclasses.
        subsets: statistics of the subsets, in the order of their files.
        across: for each pair of different subsets, the rows of the second with an image that is also in the first;
            with more than `MANY_SUBSETS` subsets, only for pairs that share an image.
        groups: the first groups of rows with the same image, in any subsets.
        duplicate_groups: total number of groups.
        conflicting: number of groups with different labels.
        notices: notices for the user.

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
    images: ImageOptions = AS_STORED,
    listed: int = EXAMPLES,
    workers: int | None = None,
    beam_options: BeamOptions = (),
) -> Stats:
    """Reads every image of a dataset once and returns its statistics.

    Args:
        path: directory or archive.
        input_format: name of the format; detected if None.
        subsets: names of the subsets to read; all if empty.
        images: how images are read.
        listed: how many groups of rows with the same image to list, and how many rows of each; no more groups once
            ten times as many rows are listed.
        workers: number of local workers; chosen automatically if None.
        beam_options: Beam's own options, as flags or parsed; default: a local runner.

    Raises:
        BeamCifarError: the dataset cannot be read; the message is one line.

    >>> from beam_cifar import stats
    >>> stats("cifar10").rows
    60
    """
    given = Input(path, input_format, tuple(subsets), images=images)
    with measured(given, Asked(listed=listed), workers=workers, beam_options=beam_options) as found:
        return stats_of(found)


def stats_of(found: Measured) -> Stats:
    """Returns the statistics of a measured dataset."""
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
        notices=(*catalog.notices, *alike_names(catalog.labels.names), *duplicates(found.summaries)),
    )


def _subset_stats(found: Measured, number: int, rows: Rows, duplicates: int) -> SubsetStats:
    names = found.labels.names
    labels = dict.fromkeys(names, 0)
    # Class names may repeat, hence +=; the last count is that of unlabelled rows, which `zip` drops.
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
    """Returns the fields of `CommonStats`."""
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
    groups = list(found.first_groups(map(repeats.group, range(len(repeats)))))
    ids = iter(found.ids([at for group, _ in groups for at in group]))
    names = found.subset_names
    return tuple(
        DuplicateGroup(tuple((names[subsets[at]], next(ids), found.class_name(at)) for at in group), count)
        for group, count in groups
    )


def moments(histogram: Int64Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel, from exact sums; both empty without pixels.

    Args:
        histogram: int64 `[3, 256]`.
    """
    means, deviations = [], []
    # With Python integers: `n * squares` overflows 64 bits at 12 million white pixels.
    for counts in histogram.tolist():
        n = sum(counts)
        if not n:
            return (), ()
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        means.append(total / n)
        deviations.append(math.sqrt(n * squares - total * total) / n)
    return tuple(means), tuple(deviations)
