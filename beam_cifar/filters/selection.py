"""The selection of rows: one object for the scan, the source and the transform, so that they cannot disagree."""

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
    """A selection of rows by filter and label.

    Attributes:
        names: class names, for the filter.
        labels: ids of the classes to keep, or None for all rows, unlabelled ones included.
        filter: an XPath filter, or None.
    """

    names: tuple[str, ...]
    labels: frozenset[int] | None = None
    filter: ItemFilter | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether all rows and labels are kept."""
        return self.labels is None and self.filter is None

    def shown(self) -> dict[str, str]:
        """Labels and filter as text, for messages."""
        shown = {"labels": ", ".join(self.names[label] for label in sorted(self.labels or ()))}
        if self.filter is not None:
            shown |= {"filter": self.filter.expression, "filter_mode": self.filter.mode}
        return shown

    def count(self, by_label: Mapping[int, int]) -> int:
        """Counts the rows with selected labels among rows that passed the filter, given as rows by label."""
        return sum(n for label, n in by_label.items() if self.keeps_label(label))

    def keeps_label(self, label: int) -> bool:
        """Returns whether rows with a label are kept if they pass the filter."""
        return self.labels is None or label in self.labels

    def decide(self, rows: pa.Table) -> Decision:
        """Decides which rows and labels to keep.

        Args:
            rows: a table with the columns of `beam_cifar.data.schema.facts_schema`.
        """
        import numpy as np

        everything = np.ones(len(rows), dtype=np.bool_)
        decision = Decision(everything, everything) if self.filter is None else self.filter.decide(rows, self.names)
        if self.labels is None:
            return decision
        return Decision(decision.rows & np.isin(plain_labels(rows), sorted(self.labels)), decision.labels)
