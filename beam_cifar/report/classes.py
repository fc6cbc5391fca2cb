"""The rows of each class by series of subsets: the bars and tables of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

from beam_cifar.analysis.stats import Stats, SubsetStats
from beam_cifar.data.grouping import by_key
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.text import counted
from beam_cifar.naming.subsets import series_name
from beam_cifar.report.markup import NAME_BYTES, cut

_T = TypeVar("_T")

MAX_SERIES: Final = 4
"""Sections of a bar; `report.css` has the same number of colours."""
WIDE_CLASSES: Final = 24
"""Maximum number of classes in a single table."""
OPEN_CLASSES: Final = 200
"""With more classes, the full list is folded."""
LISTED_CLASSES: Final = 2000
TABLE_CLASSES: Final = 25
EXTREMES: Final = 10


@dataclass(frozen=True)
class Series:
    """Subsets that share a section of each bar: numbered ones together, and the smallest if there are many."""

    name: str
    subsets: tuple[SubsetStats, ...]

    @property
    def rows(self) -> int:
        """Number of rows in all its subsets."""
        return sum(subset.rows for subset in self.subsets)


@dataclass(frozen=True)
class ClassRow:
    """One class with its counts.

    Attributes:
        label: number of the class; None for unlabelled rows.
        name: name of the class.
        counts: number of rows in each series.
        twin: number of an earlier class with the same name, if any, where the rows are counted.
    """

    label: int | None
    name: str
    counts: tuple[int, ...]
    twin: int | None = None

    @property
    def total(self) -> int:
        """Number of rows in all series."""
        return sum(self.counts)


ClassTables: TypeAlias = list[tuple[str, list[ClassRow]]]
"""Rows under headings."""


@dataclass(frozen=True)
class ClassCounts:
    """All classes, and their layout in tables.

    Attributes:
        series: the sections of each bar, largest first.
        rows: all classes, by label.
        unlabelled: the count of unlabelled rows, if there are any.
        wide: show all classes in a single table; `tables` and `folded` are empty then.
        tables: classes under headings.
        folded: folded tables, which readers can open.
        folded_title: title of `folded`.
    """

    series: tuple[Series, ...]
    rows: list[ClassRow]
    unlabelled: list[ClassRow]
    wide: bool = False
    tables: ClassTables = field(default_factory=list)
    folded: ClassTables = field(default_factory=list)
    folded_title: str = ""


def class_counts(stats: Stats) -> ClassCounts:
    """Counts the rows of every class and lays out the classes in tables."""
    series = _series(stats.subsets)
    rows = _rows(stats.labels.names, series)
    counts = tuple(sum(subset.unlabelled for subset in one.subsets) for one in series)
    unlabelled = [ClassRow(None, "unlabelled", counts)] if stats.unlabelled else []
    if len(rows) <= WIDE_CLASSES and not stats.labels.has_superclasses:
        return ClassCounts(series, rows, unlabelled, wide=True)
    tables = grouped(stats.labels, dict(enumerate(rows[:LISTED_CLASSES])), TABLE_CLASSES)
    if unlabelled:
        tables.append(("Others", unlabelled))
    if len(rows) <= OPEN_CLASSES:
        return ClassCounts(series, rows, unlabelled, tables=tables)
    title = (
        f"All {counted(len(rows), 'class')}" if len(rows) <= LISTED_CLASSES else f"The first {LISTED_CLASSES:,} classes"
    )
    return ClassCounts(series, rows, unlabelled, tables=_extremes(rows), folded=tables, folded_title=title)


def _series(subsets: Sequence[SubsetStats]) -> tuple[Series, ...]:
    found = by_key((series_name(subset.name), subset) for subset in subsets)
    made = [Series(_shown(key, members), tuple(members)) for key, members in found.items()]
    largest = sorted(made, key=lambda one: -one.rows)
    if len(made) <= MAX_SERIES:
        return tuple(largest)
    shown = largest[: MAX_SERIES - 1]
    rest = [subset for one in made if one not in shown for subset in one.subsets]
    return (*shown, Series(f"{len(rest):,} other subsets", tuple(rest)))


def _shown(key: str, members: Sequence[SubsetStats]) -> str:
    if len(members) == 1:
        return cut(members[0].name, 120)
    return f"{cut(key, 120)} ({counted(len(members), 'subset')})"


def _rows(names: Sequence[str], series: Sequence[Series]) -> list[ClassRow]:
    """Returns a row for each class; classes with the same name are counted together, in the first of them."""
    first: dict[str, int] = {}
    rows = []
    for label, name in enumerate(names):
        if first.setdefault(name, label) == label:
            counts = (sum(subset.labels.get(name, 0) for subset in one.subsets) for one in series)
            rows.append(ClassRow(label, name, tuple(counts)))
        else:
            rows.append(ClassRow(label, name, (0,) * len(series), first[name]))
    return rows


def _extremes(rows: list[ClassRow]) -> ClassTables:
    ordered = sorted(rows, key=lambda row: -row.total)
    if ordered[0].total == ordered[-1].total:
        return []
    return [(f"The {EXTREMES} largest", ordered[:EXTREMES]), (f"The {EXTREMES} smallest", ordered[-EXTREMES:])]


def grouped(labels: LabelTable, members: Mapping[int, _T], most: int) -> list[tuple[str, list[_T]]]:
    """Groups values of classes under the names of their superclasses, or under ranges of labels if there are none.

    Args:
        labels: the classes.
        members: values by label.
        most: maximum number of labels in a range.

    >>> grouped(LabelTable(("cat", "oak"), ("trees", "animals"), (1, 0)), {0: "a cat", 1: "an oak"}, 25)
    [('trees', ['an oak']), ('animals', ['a cat'])]
    """
    if not labels.has_superclasses:
        parts = [list(members.items())[start : start + most] for start in range(0, len(members), most)]
        return [(f"Classes {part[0][0]:,} to {part[-1][0]:,}", [member for _, member in part]) for part in parts]
    names = [cut(name, NAME_BYTES) or "(empty)" for name in labels.coarse_names] + ["without superclass"]
    parents = [len(names) - 1 if parent is None else parent for parent in labels.parents]
    found = by_key((parents[label], member) for label, member in members.items())
    return [(names[coarse], found[coarse]) for coarse in sorted(found)]
