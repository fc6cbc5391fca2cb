"""Images that occur more than once, and leaks between subsets."""

from __future__ import annotations

from dataclasses import dataclass

from beam_cifar.analysis.stats import DuplicateGroup, Stats
from beam_cifar.naming.subsets import series_name, split_name
from beam_cifar.report.model import Report, Tile


@dataclass(frozen=True)
class SubsetPair:
    """Two subsets that share images.

    Attributes:
        first: name of the first subset.
        second: name of the second subset.
        of_first: rows of the first with an image that is also in the second.
        of_second: rows of the second with an image that is also in the first.
    """

    first: str
    second: str
    of_first: int
    of_second: int

    @property
    def leaks(self) -> bool:
        """Whether they belong to different splits, which should not share images; numbered batches are one split.

        >>> SubsetPair("data_batch_1", "data_batch_2", 3, 3).leaks, SubsetPair("data_batch_1", "test_batch", 3, 3).leaks
        (False, True)
        """
        return _split(self.first) != _split(self.second)


def _split(subset: str) -> str:
    return series_name(split_name(subset))


def subset_pairs(stats: Stats) -> list[SubsetPair]:
    """Returns the pairs of subsets that share images: leaks first, then by size."""
    place = {subset.name: at for at, subset in enumerate(stats.subsets)}
    found = [
        SubsetPair(first, second, stats.across.get((second, first), 0), rows)
        for (first, second), rows in stats.across.items()
        if rows and place[first] < place[second]
    ]
    return sorted(found, key=lambda pair: (not pair.leaks, -pair.of_first - pair.of_second))


def apart_splits(stats: Stats) -> list[str]:
    """Returns the splits with images, which should not share any."""
    return list(dict.fromkeys(_split(subset.name) for subset in stats.subsets if subset.images))


def shown_groups(report: Report) -> list[tuple[DuplicateGroup, Tile, bool]]:
    """Returns the listed groups of equal images, each with its picture and whether its labels differ."""
    tiles = dict(enumerate(report.duplicates))
    return [
        (group, tiles.get(at, Tile("", "")), len({label for *_, label in group.rows}) > 1)
        for at, group in enumerate(report.stats.groups)
    ]
