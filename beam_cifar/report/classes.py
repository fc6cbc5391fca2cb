"""How many rows each class has, by series of subsets: what the bars of the page are made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from beam_cifar.formats.base import series_name
from beam_cifar.labels import LabelTable
from beam_cifar.measuring import Stats, SubsetStats
from beam_cifar.report.markup import NAME_BYTES, cut

T = TypeVar("T")

MAX_SERIES: Final = 4
"""Pieces of a bar; `report.css` has as many colours."""
WIDE_CLASSES: Final = 24
"""Classes that stand in one table."""
OPEN_CLASSES: Final = 200
"""Classes above which all of them are shown only on request."""
LISTED_CLASSES: Final = 2000
TABLE_CLASSES: Final = 25
EXTREMES: Final = 10


@dataclass(frozen=True)
class Series:
    """Subsets that are one piece of each bar: numbered ones together, and the smallest where there are many.

    Attributes:
        name: as shown.
        subsets: in it.
    """

    name: str
    subsets: tuple[SubsetStats, ...]

    @property
    def rows(self) -> int:
        """Rows of all its subsets."""
        return sum(subset.rows for subset in self.subsets)


@dataclass(frozen=True)
class ClassRow:
    """A class.

    Attributes:
        label: its number; None for the unlabelled.
        name: of it.
        counts: rows of each series.
        twin: number of the first class of the same name, if it is another one: the rows are counted there.
    """

    label: int | None
    name: str
    counts: tuple[int, ...]
    twin: int | None = None

    @property
    def total(self) -> int:
        """Rows of all series."""
        return sum(self.counts)


@dataclass(frozen=True)
class ClassTable:
    """Classes that stand together.

    Attributes:
        heading: a superclass, or a range of labels.
        rows: the classes.
    """

    heading: str
    rows: Sequence[ClassRow]

    @property
    def total(self) -> int:
        """Rows of all its classes."""
        return sum(row.total for row in self.rows)


@dataclass(frozen=True)
class ClassCounts:
    """All classes.

    Attributes:
        series: what each bar is made of, the largest first.
        rows: every class, by label.
        unlabelled: the rows without label, if there are any.
        tables: that are shown.
        folded: tables that are shown on request.
        wide: whether `tables` is a single table of all classes.
    """

    series: tuple[Series, ...]
    rows: Sequence[ClassRow]
    unlabelled: Sequence[ClassRow]
    tables: Sequence[ClassTable]
    folded: Sequence[ClassTable] = ()
    wide: bool = False

    @property
    def longest(self) -> int:
        """Rows that a bar of full length stands for."""
        return max([1, *(row.total for row in (*self.rows, *self.unlabelled))])

    @property
    def folded_title(self) -> str:
        """What `folded` is."""
        count = len(self.rows)
        return f"All {count:,} classes" if count <= LISTED_CLASSES else f"The first {LISTED_CLASSES:,} classes"

    @property
    def largest(self) -> ClassRow:
        """The class with most rows."""
        return max(self.rows, key=lambda row: row.total)

    @property
    def smallest(self) -> ClassRow:
        """The class with fewest rows."""
        return min(self.rows, key=lambda row: row.total)

    @property
    def median(self) -> int:
        """Rows of the class in the middle."""
        return sorted(row.total for row in self.rows)[len(self.rows) // 2]

    @property
    def empty(self) -> int:
        """Classes without rows."""
        return sum(not row.total for row in self.rows)


def class_counts(stats: Stats) -> ClassCounts:
    """Counts the rows of every class, and lays the classes out in tables."""
    series = _series(stats.subsets)
    rows = _rows(stats.labels.names, series)
    counts = tuple(sum(subset.unlabelled for subset in one.subsets) for one in series)
    unlabelled = [ClassRow(None, "unlabelled", counts)] if stats.unlabelled else []
    if len(rows) <= WIDE_CLASSES and not stats.labels.has_superclasses:
        return ClassCounts(series, rows, unlabelled, [ClassTable("", [*rows, *unlabelled])], wide=True)
    tables = list(_tables(stats.labels, rows[:LISTED_CLASSES]))
    if unlabelled:
        tables.append(ClassTable("Others", unlabelled))
    if len(rows) <= OPEN_CLASSES:
        return ClassCounts(series, rows, unlabelled, tables)
    return ClassCounts(series, rows, unlabelled, list(_extremes(rows)), tables)


def _series(subsets: Sequence[SubsetStats]) -> tuple[Series, ...]:
    found: dict[str, list[SubsetStats]] = {}
    for subset in subsets:
        found.setdefault(series_name(subset.name), []).append(subset)
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
    return f"{cut(key, 120)} ({len(members):,} subsets)"


def _rows(names: Sequence[str], series: Sequence[Series]) -> list[ClassRow]:
    """A row for each class; classes of one name are counted by that name, with the first of them."""
    first: dict[str, int] = {}
    rows = []
    for label, name in enumerate(names):
        if first.setdefault(name, label) == label:
            counts = (sum(subset.labels.get(name, 0) for subset in one.subsets) for one in series)
            rows.append(ClassRow(label, name, tuple(counts)))
        else:
            rows.append(ClassRow(label, name, (0,) * len(series), first[name]))
    return rows


def _tables(labels: LabelTable, rows: Sequence[ClassRow]) -> Iterator[ClassTable]:
    if labels.has_superclasses:
        yield from itertools.starmap(ClassTable, by_superclass(labels, dict(enumerate(rows))))
    else:
        for start in range(0, len(rows), TABLE_CLASSES):
            part = rows[start : start + TABLE_CLASSES]
            yield ClassTable(f"Classes {start:,} to {start + len(part) - 1:,}", part)


def _extremes(rows: Sequence[ClassRow]) -> Iterator[ClassTable]:
    ordered = sorted(rows, key=lambda row: -row.total)
    if ordered[0].total != ordered[-1].total:
        yield ClassTable(f"The {EXTREMES} largest", ordered[:EXTREMES])
        yield ClassTable(f"The {EXTREMES} smallest", ordered[-EXTREMES:])


def by_superclass(labels: LabelTable, members: Mapping[int, T]) -> list[tuple[str, list[T]]]:
    """What belongs to classes, under the names of their superclasses.

    Args:
        labels: the classes.
        members: by label.

    >>> by_superclass(LabelTable(("cat", "oak"), ("trees", "animals"), (1, 0)), {0: "a cat", 1: "an oak"})
    [('trees', ['an oak']), ('animals', ['a cat'])]
    """
    found: dict[int, list[T]] = {}
    last = len(labels.coarse_names)
    for label, member in members.items():
        parent = labels.parents[label]
        found.setdefault(last if parent is None else parent, []).append(member)
    names = [cut(name, NAME_BYTES) or "(empty)" for name in labels.coarse_names] + ["without superclass"]
    return [(names[coarse], found[coarse]) for coarse in sorted(found)]
