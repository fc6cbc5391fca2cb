"""Which rows a job keeps: one object for the scan, the source and the transform, so that they cannot disagree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from beam_cifar.data.schema import plain_labels
from beam_cifar.filters.xpath import Decision, ItemFilter

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Selection:
    """A choice by label, then by filter.

    Attributes:
        names: class names, for the filter.
        labels: ids of the classes to keep, or None for all rows, also unlabelled ones.
        filter: an XPath filter, or None.
    """

    names: tuple[str, ...]
    labels: frozenset[int] | None = None
    filter: ItemFilter | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is dropped, no label either."""
        return self.labels is None and self.filter is None

    def shown(self) -> dict[str, str]:
        """Labels and filter, for people."""
        shown = {"labels": ", ".join(self.names[label] for label in sorted(self.labels or ()))}
        if self.filter is not None:
            shown |= {"filter": self.filter.expression, "filter_mode": self.filter.mode}
        return shown

    def count(self, by_label: Mapping[int, int]) -> int:
        """How many rows it keeps of some that the filter keeps, given as rows by label."""
        if self.labels is None:
            return sum(by_label.values())
        return sum(n for label, n in by_label.items() if label in self.labels)

    def decide(self, rows: pa.Table) -> Decision:
        """Decides on each row.

        Args:
            rows: with the columns of `beam_cifar.data.schema.facts_schema`.
        """
        import numpy as np

        everything = np.ones(len(rows), dtype=np.bool_)
        decision = Decision(everything, everything) if self.filter is None else self.filter.decide(rows, self.names)
        if self.labels is None:
            return decision
        return Decision(decision.rows & np.isin(plain_labels(rows), sorted(self.labels)), decision.labels)
