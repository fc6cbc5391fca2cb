"""Steps behind flags of the command line, which are not listed as transforms.

NumPy is imported only when a step is applied: creating options and listing a project must not load it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from beam_cifar.data.labels import merged_away, remap_table, split_renamings
from beam_cifar.steps.base import Step, StepContext

if TYPE_CHECKING:
    from beam_cifar.data.row_table import View


@dataclass(frozen=True)
class KeepLabels(Step, named="label"):
    """`--label`: keeps the items of the given classes or superclasses."""

    only_drops = True

    labels: tuple[str, ...] = field(metadata={"many": True})

    def apply(self, view: View, context: StepContext) -> View:
        import numpy as np

        return view.take(np.isin(view.labels, sorted(view.table.select(self.labels))))


@dataclass(frozen=True)
class First(Step, named="limit"):
    """`--limit`: keeps the first items."""

    only_drops = True

    count: int

    def apply(self, view: View, context: StepContext) -> View:
        import numpy as np

        return view.take(np.arange(min(self.count, len(view))))


@dataclass(frozen=True)
class Renamings(Step, named="remap"):
    """`--remap`: renames classes, given as `OLD:NEW`; names may contain colons."""

    texts: tuple[str, ...] = field(metadata={"many": True})

    def apply(self, view: View, context: StepContext) -> View:
        found = remap_table(view.table, split_renamings(view.table, self.texts))
        for notice in merged_away(found, view.table):
            context.notice(notice)
        return view.with_labels(found.targets, found.table)
