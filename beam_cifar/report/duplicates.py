"""Which images occur more than once, and whether subsets share any that should be apart."""

from __future__ import annotations

from dataclasses import dataclass

from beam_cifar.analysis.stats import DuplicateGroup, Stats
from beam_cifar.formats.contract.sink import series_name, split_name
from beam_cifar.report.model import Report, Tile


@dataclass(frozen=True)
class SubsetPair:
    """Two subsets that share images.

    Attributes:
        first: one of them.
        second: the other.
        of_first: its rows whose image the other has.
        of_second: the same the other way round.
    """

    first: str
    second: str
    of_first: int
    of_second: int

    @property
    def leaks(self) -> bool:
        """Whether they should share none: numbered batches of one kind are one split.

        >>> SubsetPair("data_batch_1", "data_batch_2", 3, 3).leaks, SubsetPair("data_batch_1", "test_batch", 3, 3).leaks
        (False, True)
        """
        return _split(self.first) != _split(self.second)


def _split(subset: str) -> str:
    return series_name(split_name(subset))


def subset_pairs(stats: Stats) -> list[SubsetPair]:
    """The pairs of subsets that share images, leaks first, and then the largest."""
    place = {subset.name: at for at, subset in enumerate(stats.subsets)}
    found = [
        SubsetPair(first, second, stats.across.get((second, first), 0), rows)
        for (first, second), rows in stats.across.items()
        if rows and place[first] < place[second]
    ]
    return sorted(found, key=lambda pair: (not pair.leaks, -pair.of_first - pair.of_second))


def apart_splits(stats: Stats) -> list[str]:
    """The splits that have images, which should share none."""
    return list(dict.fromkeys(_split(subset.name) for subset in stats.subsets if subset.images))


def shown_groups(report: Report) -> list[tuple[DuplicateGroup, Tile, bool]]:
    """The groups of equal images that are listed, each with its picture and whether its labels differ."""
    tiles = dict(enumerate(report.duplicates))
    return [
        (group, tiles.get(at, Tile("", "")), len({label for *_, label in group.rows}) > 1)
        for at, group in enumerate(report.stats.groups)
    ]
