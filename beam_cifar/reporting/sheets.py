"""Some images of each class."""

from __future__ import annotations

from typing import Final

from beam_cifar.labels import UNLABELLED
from beam_cifar.reporting.facts import Report, Sheet, Tile
from beam_cifar.reporting.markup import Markup, cut, element, joined, name
from beam_cifar.reporting.pictures import MAX_SHEETS, SIDE
from beam_cifar.reporting.tables import by_superclass
from beam_cifar.words import counted

MANY: Final = 200
"""Sheets above which they are shown only on request."""
NARROW: Final = 3
"""Pictures that need only half the width."""
SHEETS: Final = 100
"""Sheets that are shown at a time then."""


def sheets(report: Report, name_bytes: int) -> Markup | None:
    """Some images of each class."""
    if not report.sheets:
        return element("p", "There are no images.")
    labels, shown = report.stats.labels, max(len(sheet.tiles) for sheet in report.sheets)
    figures = {sheet.label: _sheet(sheet, labels.name(sheet.label), name_bytes) for sheet in report.sheets}
    made = [element("p", f"Up to {counted(shown, 'image')} of each class, spread evenly over its rows.", class_="soft")]
    for at, (heading, members) in enumerate(_groups(report)):
        grid = element(
            "div", *(figures[label] for label in members), class_="sheets few" if shown <= NARROW else "sheets"
        )
        if len(report.sheets) > MANY:
            made.append(element("details", element("summary", name(heading)), grid, open=None if at else "open"))
        else:
            made += [*([element("h3", name(heading))] if heading else []), grid]
    if len(report.sheets) == MAX_SHEETS:
        made.append(element("p", "Further classes have none, so that the page stays small.", class_="soft"))
    return joined(*made)


def _groups(report: Report) -> list[tuple[str, list[int]]]:
    """Labels that stand under one heading; empty for no heading."""
    known = [sheet.label for sheet in report.sheets if sheet.label != UNLABELLED]
    if report.stats.labels.has_superclasses:
        made = [
            (heading, [known[at] for at in members]) for heading, members in by_superclass(report.stats.labels, known)
        ]
    elif len(report.sheets) > MANY:
        parts = [known[start : start + SHEETS] for start in range(0, len(known), SHEETS)]
        made = [(f"Classes {part[0]:,} to {part[-1]:,}", part) for part in parts]
    else:
        made = [("", known)] if known else []
    if len(known) < len(report.sheets):
        made.append(("Without label" if known else "", [UNLABELLED]))
    return made


def _sheet(sheet: Sheet, label: str | None, name_bytes: int) -> Markup:
    called = "unlabelled" if label is None else name(cut(label, name_bytes))
    caption = element("figcaption", called, element("span", f" {counted(sheet.images, 'image')}", class_="soft"))
    return element("figure", caption, element("div", *map(tile_image, sheet.tiles), class_="tiles"))


def tile_image(tile: Tile) -> Markup:
    """A picture, or an empty place where it did not fit."""
    if not tile.source:
        return element("span", element("span", "no picture", class_="vh"), class_="tile")
    small = max(tile.height, tile.width) <= SIDE
    alt = f"{cut(tile.id, 80)} ({tile.height} \N{MULTIPLICATION SIGN} {tile.width})"
    return element(
        "img", src=tile.source, alt=alt, title=alt, width=SIDE, height=SIDE, class_="tile small" if small else "tile"
    )
