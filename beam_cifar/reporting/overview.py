"""What stands at the top: the numbers that matter most, notices, and the subsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from beam_cifar.measuring import SizeCount, Stats, SubsetStats
from beam_cifar.reporting.facts import Report
from beam_cifar.reporting.markup import Markup, cut, element, joined, name, number
from beam_cifar.reporting.tables import MAX_LINES, MAX_SUBSETS, NAME, size_text, table
from beam_cifar.words import counted


def header(report: Report) -> Markup:
    """The title, and the numbers that matter most."""
    stats = report.stats
    shown = cut(report.name, NAME)
    facts = [joined(name(shown)) if report.title != report.name else None, Markup(element("code", stats.format))]
    return element(
        "header",
        element("h1", name(cut(report.title, NAME))),
        element("p", *_between([fact for fact in facts if fact], " · "), f" · {stats.title}", class_="lead"),
        element("dl", *(element("div", element("dt", what), element("dd", value)) for what, value in _figures(stats)),
                class_="figures"),
    )  # fmt: skip


def _between(parts: Sequence[str], what: str) -> Iterator[str]:
    for number_, part in enumerate(parts):
        if number_:
            yield what
        yield part


def _figures(stats: Stats) -> Iterator[tuple[str, str]]:
    yield ("image" if stats.images == 1 else "images"), number(stats.images)
    if stats.rows != stats.images:
        yield ("row" if stats.rows == 1 else "rows"), number(stats.rows)
    classes = len(stats.labels.names)
    yield ("class" if classes == 1 else "classes"), number(classes)
    if stats.labels.has_superclasses:
        yield "superclasses", number(len(stats.labels.coarse_names))
    yield ("subset" if len(stats.subsets) == 1 else "subsets"), number(len(stats.subsets))
    if len(stats.sizes) == 1:
        yield "pixels, all images", size_text(stats.sizes[0])
    elif stats.sizes:
        yield "image sizes", number(len(stats.sizes))
    if stats.unlabelled:
        yield "unlabelled", number(stats.unlabelled)


def notices(lines: Sequence[str]) -> Markup | None:
    """Things that a user should know."""
    if not lines:
        return None
    items = [element("li", cut(line, 1000)) for line in lines[:MAX_LINES]]
    if len(lines) > MAX_LINES:
        items.append(element("li", f"and {len(lines) - MAX_LINES:,} more"))
    return element("div", element("ul", *items), class_="note")


def subsets(stats: Stats) -> Markup | None:
    """A line for each subset."""
    if not stats.subsets:
        return element("p", "There are no subsets.")
    lines = [_subset_line(subset) for subset in stats.subsets[:MAX_SUBSETS]]
    hidden = stats.subsets[MAX_SUBSETS:]
    within = sum(subset.duplicates for subset in stats.subsets)
    counts = (stats.rows, stats.images, stats.unlabelled, within)
    foot = ["All", *map(number, counts), _sizes(stats.sizes), ""]
    head = ["Subset", "Rows", "Images", "Unlabelled", "Duplicates within", "Sizes", "Fingerprint"]
    made = table(head, lines, foot if len(stats.subsets) > 1 else (), texts=(5, 6), label="Subsets")
    return joined(
        made,
        element("p", f"{counted(len(hidden), 'further subset')} with {counted(sum(s.rows for s in hidden), 'row')} "
                "in all are not listed.") if hidden else None,
        element("p", "Equal fingerprints: equal items, in whatever format and order they are stored.", class_="soft"),
    )  # fmt: skip


def _subset_line(subset: SubsetStats) -> list[str]:
    counts = (subset.rows, subset.images, subset.unlabelled, subset.duplicates)
    digest = element("code", subset.digest[:16])
    return [name(cut(subset.name, NAME)), *map(number, counts), _sizes(subset.sizes), digest]


def _sizes(sizes: Sequence[SizeCount]) -> str:
    if not sizes:
        return "none"
    return size_text(sizes[0]) if len(sizes) == 1 else f"{len(sizes):,} sizes"
