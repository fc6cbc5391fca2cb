"""Which images occur more than once, and whether subsets share any that should be apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from beam_cifar.formats.base import series_name, split_name
from beam_cifar.measuring import Stats
from beam_cifar.reporting.facts import Report, Tile
from beam_cifar.reporting.markup import Markup, cut, element, joined, name, number
from beam_cifar.reporting.sheets import tile_image
from beam_cifar.reporting.tables import NAME, table
from beam_cifar.words import counted

MAX_PAIRS: Final = 50
SHORT: Final = 80
"""Bytes of a name in a list."""


@dataclass(frozen=True)
class Pair:
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
        """Whether they should have none in common: numbered batches of one kind are one split."""
        return _split(self.first) != _split(self.second)


def _split(subset: str) -> str:
    return series_name(split_name(subset))


def pairs_of(stats: Stats) -> list[Pair]:
    """The pairs of subsets that share images, leaks first, and then the largest."""
    place = {subset.name: at for at, subset in enumerate(stats.subsets)}
    found = [
        Pair(first, second, stats.across.get((second, first), 0), rows)
        for (first, second), rows in stats.across.items()
        if rows and place[first] < place[second]
    ]
    return sorted(found, key=lambda pair: (not pair.leaks, -pair.of_first - pair.of_second))


def verdict(stats: Stats) -> Markup | None:
    """Whether subsets that should be apart share images, for the top of the page."""
    leaks = [pair for pair in pairs_of(stats) if pair.leaks]
    if leaks:
        return _leak(leaks)
    apart = list(dict.fromkeys(_split(subset.name) for subset in stats.subsets if subset.images))
    if len(apart) < 2:
        return None
    first, second = (name(cut(each, NAME)) for each in apart[:2])
    who = [first, " and ", second, " share no image."] if len(apart) == 2 else ["No two subsets share an image."]
    return element("div", element("p", element("strong", "No leak. "), *who), class_="note good")


def _leak(leaks: Sequence[Pair]) -> Markup:
    worst, more = leaks[0], len(leaks) - 1
    first, second = name(cut(worst.first, NAME)), name(cut(worst.second, NAME))
    others = (
        "" if not more else " So do those of another pair." if more == 1 else f" So do those of {more:,} other pairs."
    )
    told = [
        element("strong", "Leak. "), first, " and ", second, " share images: ",
        f"{counted(worst.of_first, 'row')} of ", first, f", {counted(worst.of_second, 'row')} of ", second, ".", others,
        " ", element("a", "See duplicates", href="#duplicates"),
    ]  # fmt: skip
    return element("div", element("p", *told), class_="note bad")


def duplicates(report: Report, name_bytes: int) -> Markup | None:
    """Which images occur more than once."""
    stats = report.stats
    if not stats.images:
        return None
    if not stats.duplicate_groups:
        return element("p", "No two images have the same pixels.")
    occur = f"{counted(stats.duplicate_groups, 'image occurs', 'images occur')} more than once."
    which = "Its" if stats.duplicate_groups == 1 else f"For {stats.conflicting:,} of them the"
    pairs = pairs_of(stats)
    listed = len(stats.groups)
    heading = "The images" if listed == stats.duplicate_groups else f"The first {listed:,} images"
    return joined(
        element("p", occur, f" {which} labels differ." if stats.conflicting else None),
        *([element("h3", "Across subsets"), _across(pairs)] if pairs else []),
        element("h3", heading),
        element("ul", *(_group(report, at, min(SHORT, name_bytes)) for at in range(listed)), class_="groups"),
    )


def _across(pairs: Sequence[Pair]) -> Markup:
    lines = [
        [
            name(cut(pair.first, NAME)),
            joined(name(cut(pair.second, NAME)), element("span", "leak", class_="tag") if pair.leaks else None),
            number(pair.of_first),
            number(pair.of_second),
        ]
        for pair in pairs[:MAX_PAIRS]
    ]
    head = ["First subset", "Second subset", "Rows of the first", "Rows of the second"]
    made = table(head, lines, texts=(1,), label="Duplicates across subsets")
    more = len(pairs) - MAX_PAIRS
    return joined(made, element("p", f"and {counted(more, 'further pair')}") if more > 0 else None)


def _group(report: Report, at: int, name_bytes: int) -> Markup:
    group = report.stats.groups[at]
    tile = report.duplicates[at] if at < len(report.duplicates) else Tile("", "")
    conflict = element("span", "labels differ", class_="tag") if len({label for *_, label in group.rows}) > 1 else None
    rows = [element("li", *_occurrence(*row, name_bytes)) for row in group.rows]
    if group.count > len(group.rows):
        rows.append(element("li", f"and {group.count - len(group.rows):,} more", class_="soft"))
    told = element("div", element("strong", f"{group.count:,} times"), conflict, element("ul", *rows))
    return element("li", tile_image(tile), told)


def _occurrence(subset: str, item_id: str, label: str | None, name_bytes: int) -> list[Markup]:
    called = "unlabelled" if label is None else name(cut(label, name_bytes))
    place = element("span", " ", name(cut(subset, SHORT)), " · ", called, class_="soft")
    return [name(cut(item_id, SHORT)), place]
