"""Groups the sheets of pictures under headings."""

from __future__ import annotations

from typing import Final

from beam_cifar.data.labels import UNLABELLED
from beam_cifar.report.classes import grouped
from beam_cifar.report.model import Report, Sheet

OPEN_SHEETS: Final = 200
"""With more sheets, they are folded."""
FOLDED_SHEETS: Final = 100
"""Sheets per folded group."""


def sheet_groups(report: Report) -> list[tuple[str, list[Sheet]]]:
    """Returns groups of sheets with their headings; empty headings are not shown."""
    labels = report.stats.labels
    known = {sheet.label: sheet for sheet in report.sheets if sheet.label != UNLABELLED}
    unlabelled = [sheet for sheet in report.sheets if sheet.label == UNLABELLED]
    if labels.has_superclasses or len(report.sheets) > OPEN_SHEETS:
        made = grouped(labels, known, FOLDED_SHEETS)
    else:
        made = [("", list(known.values()))] if known else []
    return [*made, ("Without label" if known else "", unlabelled)] if unlabelled else made
