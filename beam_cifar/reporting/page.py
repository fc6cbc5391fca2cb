"""The page: a pure function of what is on it."""

from __future__ import annotations

from typing import Final

from beam_cifar.reporting import overview
from beam_cifar.reporting.bars import class_bars
from beam_cifar.reporting.duplicates import duplicates, verdict
from beam_cifar.reporting.facts import Report
from beam_cifar.reporting.job import job
from beam_cifar.reporting.markup import Markup, cut, element, joined
from beam_cifar.reporting.pixels import pixels
from beam_cifar.reporting.sheets import sheets
from beam_cifar.reporting.style import CSS
from beam_cifar.reporting.tables import NAME
from beam_cifar.version import __version__

POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Nothing is loaded, nothing runs: whatever a data set calls its classes."""

NAMES: Final = 250_000
"""Bytes that all class names together take in one place."""


def page(report: Report) -> str:
    """The whole document; equal reports have equal pages."""
    stats = report.stats
    name_bytes = max(24, min(NAME, NAMES // max(1, len(stats.labels.names))))
    parts = [
        ("subsets", "Subsets", overview.subsets(stats)),
        ("classes", "Classes", class_bars(stats, name_bytes)),
        ("images", "Images", sheets(report, name_bytes)),
        ("pixels", "Pixels", pixels(stats)),
        ("duplicates", "Duplicates", duplicates(report, name_bytes)),
        ("job", "How it was made", job(report)),
    ]
    shown = [(anchor, heading, content) for anchor, heading, content in parts if content]
    body = joined(
        overview.header(report),
        verdict(stats),
        overview.notices(stats.notices),
        _contents([(anchor, heading) for anchor, heading, _ in shown]),
        element("main", *(_section(*part) for part in shown)),
        element("footer", f"Made by beam-cifar {__version__}."),
    )
    return f"<!doctype html>\n{element('html', _head(report), element('body', body), lang='en')}\n"


def _head(report: Report) -> Markup:
    return element(
        "head",
        element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", cut(report.title, NAME)),
        element("style", Markup(CSS)),
    )


def _contents(items: list[tuple[str, str]]) -> Markup:
    links = (element("li", element("a", heading, href=f"#{anchor}")) for anchor, heading in items)
    return element("nav", element("ul", *links), aria_label="Contents")


def _section(anchor: str, heading: str, content: str) -> Markup:
    return element("section", element("h2", heading, id=f"{anchor}-heading"), content, id=anchor,
                   aria_labelledby=f"{anchor}-heading")  # fmt: skip
