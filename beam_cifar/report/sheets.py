"""Under which headings the sheets of pictures stand."""

from __future__ import annotations

from typing import Final

from beam_cifar.labels import UNLABELLED
from beam_cifar.report.classes import by_superclass
from beam_cifar.report.model import Report, Sheet

OPEN_SHEETS: Final = 200
"""Sheets above which they are shown only on request."""
FOLDED_SHEETS: Final = 100
"""Sheets that are shown at a time then."""


def sheet_groups(report: Report) -> list[tuple[str, list[Sheet]]]:
    """Sheets under a heading each; an empty one is not shown."""
    labels = report.stats.labels
    known = {sheet.label: sheet for sheet in report.sheets if sheet.label != UNLABELLED}
    if labels.has_superclasses:
        made = by_superclass(labels, known)
    elif len(report.sheets) > OPEN_SHEETS:
        sheets = list(known.values())
        parts = [sheets[start : start + FOLDED_SHEETS] for start in range(0, len(sheets), FOLDED_SHEETS)]
        made = [(f"Classes {part[0].label:,} to {part[-1].label:,}", part) for part in parts]
    else:
        made = [("", list(known.values()))] if known else []
    unlabelled = [sheet for sheet in report.sheets if sheet.label == UNLABELLED]
    return [*made, ("Without label" if known else "", unlabelled)] if unlabelled else made
