"""Steps that calls of a `Dataset` in Python stand for; they have no name on the command line."""

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
class Select(Step, name="select", columns=("id", "filename")):
    """Keeps the items that a Python function accepts.

    Attributes:
        decide: from a view to bool `[N]`, given the context.
    """

    decide: Callable[[View, StepContext], Any]

    def options(self) -> dict[str, Any]:
        """Nothing: a function cannot be written down, and the rows that it chose are."""
        return {}

    def apply(self, view: View, context: StepContext) -> View:
        return view.take(np.asarray(self.decide(view, context), dtype=np.bool_))


@dataclass(frozen=True)
class Remove(Step, name="remove", columns=("id",)):
    """Removes single items, and subsets that become empty so."""

    ids: tuple[tuple[str, str], ...] = field(metadata={"many": True})

    def apply(self, view: View, context: StepContext) -> View:
        made = view.take(~_found(view, self.ids))
        emptied = {name for _, name in self.ids if not made.subset(name).any()}
        left = [name for name in view.subset_names if name not in emptied]
        places = np.array([left.index(name) if name in left else 0 for name in view.subset_names], dtype=np.int32)
        return made.with_subsets(places[made.subsets], left)


@dataclass(frozen=True)
class Put(Step, name="put", columns=("id", "filename")):
    """Adds items, which replace those of the same id and subset.

    Attributes:
        path: of the items, in the format "items", with labels of the table that is there by then.
    """

    path: str

    def options(self) -> dict[str, Any]:
        """Nothing: the items are an input of their own."""
        return {}

    def apply(self, view: View, context: StepContext) -> View:
        new = context.read_items(self.path, view.table)  # labels go by name
        names = pa.array(new.subset_names, pa.string()).take(pa.array(new.subsets)).to_pylist()
        ids = [] if new.ids is None else new.ids.to_pylist()
        return joined([view.take(~_found(view, tuple(zip(ids, names, strict=True)))), new], view.table)


def _found(view: View, items: tuple[tuple[str, str], ...]) -> Any:
    """Bool `[N]`: which rows are one of some items, each (id, subset)."""
    if view.ids is None:
        raise ValueError("ids are needed")
    found = np.zeros(len(view), dtype=np.bool_)
    for subset in dict.fromkeys(name for _, name in items):
        asked = pa.array([item_id for item_id, name in items if name == subset], pa.string())
        found |= view.subset(subset) & pc.is_in(view.ids, asked).to_numpy(zero_copy_only=False)
    return found
