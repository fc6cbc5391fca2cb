"""Under which headings the sheets of pictures stand."""

from __future__ import annotations

from typing import Final

from beam_cifar.data.labels import UNLABELLED
from beam_cifar.report.classes import grouped
from beam_cifar.report.model import Report, Sheet

OPEN_SHEETS: Final = 200
"""Sheets above which they are shown only on request."""
FOLDED_SHEETS: Final = 100
"""Sheets that are shown at a time then."""


def sheet_groups(report: Report) -> list[tuple[str, list[Sheet]]]:
    """Sheets under a heading each; an empty one is not shown."""
    labels = report.stats.labels
    known = {sheet.label: sheet for sheet in report.sheets if sheet.label != UNLABELLED}
    unlabelled = [sheet for sheet in report.sheets if sheet.label == UNLABELLED]
    if labels.has_superclasses or len(report.sheets) > OPEN_SHEETS:
        made = grouped(labels, known, FOLDED_SHEETS)
    else:
        made = [("", list(known.values()))] if known else []
    return [*made, ("Without label" if known else "", unlabelled)] if unlabelled else made
