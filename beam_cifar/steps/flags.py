"""Steps that flags of the command line stand for; they have no name there.

NumPy is imported when they are carried out: a project is listed, and options are made of steps, without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from beam_cifar.data.labels import merged_away, remap_table, split_renamings
from beam_cifar.steps.base import Step, StepContext

if TYPE_CHECKING:
    from beam_cifar.data.row_table import View


@dataclass(frozen=True)
class KeepLabels(Step, name="label"):
    """Keeps the items of some classes or superclasses: `--label`."""

    labels: tuple[str, ...] = field(metadata={"many": True})

    def apply(self, view: View, context: StepContext) -> View:
        import numpy as np

        return view.take(np.isin(view.labels, sorted(view.table.select(self.labels))))


@dataclass(frozen=True)
class First(Step, name="limit"):
    """Keeps the first items: `--limit`."""

    count: int

    def apply(self, view: View, context: StepContext) -> View:
        import numpy as np

        return view.take(np.arange(min(self.count, len(view))))


@dataclass(frozen=True)
class Renamings(Step, name="remap"):
    """Renames classes by texts `OLD:NEW`, in which names may hold colons: `--remap`."""

    texts: tuple[str, ...] = field(metadata={"many": True})

    def apply(self, view: View, context: StepContext) -> View:
        found = remap_table(view.table, split_renamings(view.table, self.texts))
        for notice in merged_away(found, view.table):
            context.notice(notice)
        return view.with_labels(found.targets, found.table)
