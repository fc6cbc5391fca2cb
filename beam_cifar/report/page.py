"""Renders the page, a pure function of its contents."""

from __future__ import annotations

from typing import Final

from beam_cifar.report.classes import class_counts
from beam_cifar.report.duplicates import apart_splits, shown_groups, subset_pairs
from beam_cifar.report.markup import NAME_BYTES, template_environment
from beam_cifar.report.model import Report
from beam_cifar.report.pixels import common_sizes, image_kinds, size_bins
from beam_cifar.report.sheets import OPEN_SHEETS, sheet_groups
from beam_cifar.version import __version__

ALL_NAMES_BYTES: Final = 250_000
"""Maximum total bytes of all class names in one place."""


def page(report: Report) -> str:
    """Returns the whole HTML document; equal reports give equal pages."""
    stats = report.stats
    sections = {"subsets": "Subsets", "classes": "Classes", "images": "Images"}
    if stats.images:
        sections |= {"pixels": "Pixels", "duplicates": "Duplicates"}
    if report.provenance or report.provenance_error:
        sections["provenance"] = "How it was made"
    return template_environment().get_template("page.html").render(
        report=report,
        stats=stats,
        sections=sections,
        name_bytes=max(24, min(NAME_BYTES, ALL_NAMES_BYTES // max(1, len(stats.labels.names)))),
        classes=class_counts(stats),
        sheet_groups=sheet_groups(report),
        sheets_folded=len(report.sheets) > OPEN_SHEETS,
        image_kinds=image_kinds(stats),
        size_bins=size_bins(stats.sizes),
        common_sizes=common_sizes(stats.sizes),
        channels=list(zip(("Red", "Green", "Blue"), stats.mean, stats.std, strict=False)),
        splits=apart_splits(stats),
        pairs=subset_pairs(stats),
        duplicate_groups=shown_groups(report),
        version=__version__,
    )  # fmt: skip
