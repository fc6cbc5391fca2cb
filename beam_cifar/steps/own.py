"""Steps behind methods of `Dataset`, not available on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_cifar.data.row_table import View, joined
from beam_cifar.steps.base import Step, StepContext


@dataclass(frozen=True)
class Select(Step, named="select", columns=("id", "filename")):
    """Keeps the items that a Python function accepts.

    Attributes:
        decide: returns which rows to keep, bool `[N]`, from the view and the context.
    """

    reads = True

    decide: Callable[[View, StepContext], Any]

    def options(self) -> dict[str, Any]:
        """Empty: a function cannot be recorded in the manifest; the rows that it chose are."""
        return {}

    def apply(self, view: View, context: StepContext) -> View:
        return view.take(np.asarray(self.decide(view, context), dtype=np.bool_))


@dataclass(frozen=True)
class Remove(Step, named="remove", columns=("id",)):
    """Removes single items, and the subsets left empty."""

    ids: tuple[tuple[str, str], ...] = field(metadata={"many": True})

    def apply(self, view: View, context: StepContext) -> View:
        made = view.take(~_found(view, self.ids))
        emptied = {name for _, name in self.ids if not made.subset(name).any()}
        left = [name for name in view.subset_names if name not in emptied]
        places = np.array([left.index(name) if name in left else 0 for name in view.subset_names], dtype=np.int32)
        return made.with_subsets(places[made.subsets], left)


@dataclass(frozen=True)
class Put(Step, named="put", columns=("id", "filename")):
    """Adds items, replacing those with the same id and subset.

    Attributes:
        path: directory of the items, in the format "items", with labels of the table at that point.
    """

    path: str

    def options(self) -> dict[str, Any]:
        """Empty: the items are listed as an input."""
        return {}

    def apply(self, view: View, context: StepContext) -> View:
        new = context.read_items(self.path, view.table)  # matches labels by name
        names = pa.array(new.subset_names, pa.string()).take(pa.array(new.subsets)).to_pylist()
        ids = [] if new.ids is None else new.ids.to_pylist()
        return joined([view.take(~_found(view, tuple(zip(ids, names, strict=True)))), new], view.table)


def _found(view: View, items: tuple[tuple[str, str], ...]) -> Any:
    """Returns which rows are among some items, each (id, subset): bool `[N]`."""
    if view.ids is None:
        raise ValueError("ids are needed")
    found = np.zeros(len(view), dtype=np.bool_)
    for subset in dict.fromkeys(name for _, name in items):
        asked = pa.array([item_id for item_id, name in items if name == subset], pa.string())
        found |= view.subset(subset) & pc.is_in(view.ids, asked).to_numpy(zero_copy_only=False)
    return found
