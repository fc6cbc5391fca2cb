"""Tables, as all sections have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from beam_cifar.labels import LabelTable
from beam_cifar.measuring import SizeCount
from beam_cifar.reporting.markup import Markup, cut, element

NAME: Final = 160
"""Bytes of a name where there are few of them."""
MAX_SUBSETS: Final = 200
"""Subsets that are listed."""
MAX_LINES: Final = 50
"""Lines of anything else."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], foot: Sequence[str] = (), texts: Sequence[int] = (),
          label: str = "", kind: str | None = None) -> Markup:  # fmt: skip
    """A table that scrolls by itself where it is too wide.

    Args:
        head: what the columns are.
        rows: cells; the first of each is what the row is of.
        foot: the cells of a last row, of all rows.
        texts: columns that are no numbers.
        label: what the table is of.
        kind: its CSS class.
    """

    def line(cells: Sequence[str]) -> Markup:
        rest = (
            element("td", cell, class_="text" if at in texts else None) for at, cell in enumerate(cells[1:], start=1)
        )
        return element("tr", element("th", cells[0], scope="row"), *rest)

    top = (element("th", cell, scope="col", class_="text" if at in texts else None) for at, cell in enumerate(head))
    made = element(
        "table",
        element("thead", element("tr", *top)),
        element("tbody", *map(line, rows)),
        element("tfoot", line(foot)) if foot else None,
        class_=kind,
    )
    return element("div", made, class_="scroll", role="region", tabindex=0, aria_label=label)


def by_superclass(labels: LabelTable, members: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Places in a list of labels, under the name of their superclass; those without any come last."""
    found: dict[int, list[int]] = {}
    last = len(labels.coarse_names)
    for place, label in enumerate(members):
        parent = labels.parents[label]
        found.setdefault(last if parent is None else parent, []).append(place)
    names = {coarse: cut(labels.coarse_names[coarse], NAME) or "(empty)" for coarse in found if coarse < last}
    return [(names.get(coarse, "without superclass"), found[coarse]) for coarse in sorted(found)]


def size_text(size: SizeCount) -> str:
    """Height and width."""
    return f"{size.height:,}\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}{size.width:,}"
