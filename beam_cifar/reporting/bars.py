"""How many rows each class has: a bar for each, made of the subsets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from beam_cifar.formats.base import series_name
from beam_cifar.measuring import Stats, SubsetStats
from beam_cifar.reporting.markup import Markup, cut, element, joined, name, number
from beam_cifar.reporting.style import SERIES
from beam_cifar.reporting.tables import by_superclass
from beam_cifar.words import counted

FEW: Final = 24
"""Classes that stand in one table."""
MANY: Final = 200
"""Classes above which all of them are shown only on request."""
MAX_CLASSES: Final = 2000
CHUNK: Final = 25
EXTREMES: Final = 10


@dataclass(frozen=True)
class Series:
    """Subsets that make one piece of a bar: numbered ones are together, and the smallest, where there are many.

    Attributes:
        shown: its name.
        members: the subsets.
    """

    shown: str
    members: tuple[SubsetStats, ...]

    @property
    def rows(self) -> int:
        """Of all its subsets."""
        return sum(member.rows for member in self.members)

    def of(self, label: str | None) -> int:
        """Rows of a class, or those without label."""
        if label is None:
            return sum(member.unlabelled for member in self.members)
        return sum(member.labels.get(label, 0) for member in self.members)


@dataclass(frozen=True)
class Row:
    """A class.

    Attributes:
        label: its number; None for the unlabelled.
        name: of it.
        counts: rows of each series.
    """

    label: int | None
    name: str
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """Its rows."""
        return sum(self.counts)


def series_of(stats: Stats) -> tuple[Series, ...]:
    """The pieces that bars are made of, the largest first."""
    found: dict[str, list[SubsetStats]] = {}
    for subset in stats.subsets:
        found.setdefault(series_name(subset.name), []).append(subset)
    if len(found) > SERIES:
        largest = sorted(found, key=lambda key: -sum(subset.rows for subset in found[key]))[: SERIES - 1]
        rest = [subset for key, members in found.items() if key not in largest for subset in members]
        made = [_series(key, found[key]) for key in found if key in largest]
        return (*_largest_first(made), Series(f"{len(rest):,} other subsets", tuple(rest)))
    return _largest_first(_series(key, members) for key, members in found.items())


def _largest_first(series: Iterable[Series]) -> tuple[Series, ...]:
    return tuple(sorted(series, key=lambda one: -one.rows))


def _series(key: str, members: Sequence[SubsetStats]) -> Series:
    if len(members) == 1:
        return Series(cut(members[0].name, 120), tuple(members))
    return Series(f"{cut(key, 120)} ({len(members):,} subsets)", tuple(members))


def class_bars(stats: Stats, name_bytes: int) -> Markup:
    """The section's tables.

    Args:
        stats: of the data set.
        name_bytes: what a name may take on the page.
    """
    series = series_of(stats)
    rows = _rows(stats, series, name_bytes)
    most = max([1, stats.unlabelled, *(row.total for row in rows)])
    none = [Row(None, "unlabelled", tuple(one.of(None) for one in series))] if stats.unlabelled else []
    key = _key(series) if len(series) > 1 else None
    if len(rows) <= FEW and not stats.labels.has_superclasses:
        return joined(summary(rows), key, _wide([*rows, *none], series, most))
    if len(rows) <= MANY:
        return joined(summary(rows), key, _dense(_grouped(stats, rows, none), series, most))
    shown = _grouped(stats, rows[:MAX_CLASSES], none)
    label = f"All {len(rows):,} classes" if len(rows) <= MAX_CLASSES else f"The first {MAX_CLASSES:,} classes"
    return joined(
        summary(rows),
        key,
        _dense(_extremes(rows), series, most),
        element("details", element("summary", label), _dense(shown, series, most)),
    )


def _rows(stats: Stats, series: Sequence[Series], name_bytes: int) -> list[Row]:
    """A row for each class; what is counted by name is told once, where several classes have one."""
    names = stats.labels.names
    first = {each: label for label, each in reversed(list(enumerate(names)))}
    rows = []
    for label, each in enumerate(names):
        shown = cut(each, name_bytes)
        if first[each] == label:
            rows.append(Row(label, shown, tuple(one.of(each) for one in series)))
        else:
            rows.append(Row(label, f"{shown} (counted with {first[each]})", (0,) * len(series)))
    return rows


def summary(rows: Sequence[Row]) -> Markup:
    """How even the classes are, in a sentence."""
    totals = sorted(row.total for row in rows)
    if not totals or not totals[-1]:
        return element("p", "No row has a class." if totals else "There are no classes.")
    empty = sum(not total for total in totals)
    if totals[0] == totals[-1]:
        return element("p", f"All classes have {counted(totals[0], 'row')}." if len(rows) > 1 else None)
    low, high = (next(row for row in rows if row.total == total) for total in (totals[0], totals[-1]))
    middle = totals[len(totals) // 2]
    largest = joined("The largest class is ", name(high.name), f" with {counted(high.total, 'row')}")
    if empty:
        rest = joined(f", the median has {number(middle)}, and {counted(empty, 'class has', 'classes have')} none.")
    else:
        ratio = f" with {low.total:,} (a ratio of {high.total / low.total:,.2f})."
        rest = joined(f", the median has {middle:,}, the smallest is ", name(low.name), ratio)
    return element("p", largest, rest)


def _key(series: Sequence[Series]) -> Markup:
    items = (
        element(
            "li", name(one.shown), element("span", f" {number(one.rows)}", class_="soft"), class_=f"swatch c{place}"
        )
        for place, one in enumerate(series)
    )
    return element("ul", *items, class_="key")


def _grouped(stats: Stats, rows: Sequence[Row], none: Sequence[Row]) -> Iterator[tuple[str, Sequence[Row]]]:
    """Rows under a heading each: their superclass, or what numbers they have."""
    if stats.labels.has_superclasses:
        for heading, members in by_superclass(stats.labels, range(len(rows))):
            yield heading, [rows[label] for label in members]
    else:
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            yield f"Classes {start:,} to {start + len(part) - 1:,}", part
    yield "Others", none


def _extremes(rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[Row]]]:
    ordered = sorted(rows, key=lambda row: -row.total)
    if ordered[0].total != ordered[-1].total:
        yield f"The {EXTREMES} largest", ordered[:EXTREMES]
        yield f"The {EXTREMES} smallest", ordered[-EXTREMES:]


def _wide(rows: Sequence[Row], series: Sequence[Series], most: int) -> Markup:
    """One table, each bar beside its class, and a column for each series."""
    several = len(series) > 1
    head = [element("th", "Class", scope="col")]
    head += [
        element("th", element("span", name(cut(one.shown, 24)), class_=f"swatch c{place}"), scope="col")
        for place, one in enumerate(series if several else ())
    ]
    head.append(element("th", "All" if several else "Rows", scope="col"))
    body = []
    for row in rows:
        cell = element("div", element("span", _called(row), class_="called"), _bar(row, most), class_="cell")
        parts = enumerate(row.counts if several else ())
        counts = [element("td", number(count), class_=f"part c{place}") for place, count in parts]
        body.append(element("tr", element("th", cell, scope="row"), *counts, element("td", number(row.total))))
    table = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    return element("div", table, class_="wide many" if len(series) > 2 else "wide")


def _dense(groups: Iterator[tuple[str, Sequence[Row]]], series: Sequence[Series], most: int) -> Markup:
    """Small tables in columns, each bar below its class."""
    tables = [_small(heading, rows, series, most) for heading, rows in groups if rows]
    return element("div", *tables, class_="dense") if tables else Markup("")


def _small(heading: str, rows: Sequence[Row], series: Sequence[Series], most: int) -> Markup:
    several = 1 < len(series) <= SERIES - 1
    split = " + ".join(one.shown for one in series)
    head = [element("th", "Class", scope="col")]
    head += [element("th", split, scope="col")] if several else []
    head.append(element("th", "Rows", scope="col"))
    body = []
    for row in rows:
        parts = [element("td", " + ".join(map(number, row.counts)), class_="soft")] if several else []
        total = element("td", number(row.total))
        body.append(element("tr", element("th", _called(row), _bar(row, most), scope="row"), *parts, total))
    caption = element(
        "caption", name(heading), element("span", f" {number(sum(row.total for row in rows))}", class_="soft")
    )
    return element("table", caption, element("thead", element("tr", *head), class_="vh"), element("tbody", *body))


def _called(row: Row) -> Markup:
    label = None if row.label is None else element("span", str(row.label), class_="id")
    return joined(label, name(row.name) if row.label is not None else row.name)


def _bar(row: Row, most: int) -> Markup:
    pieces = (
        element("i", class_=f"c{place}", style=f"width:{100 * count / most:.2f}%")
        for place, count in enumerate(row.counts)
        if count
    )
    return element("span", *pieces, class_="bar", aria_hidden="true")
