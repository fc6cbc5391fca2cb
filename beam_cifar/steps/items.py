"""Steps that select items by an expression or by id."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_cifar.data.arrays import BoolArray
from beam_cifar.data.grouping import by_key
from beam_cifar.data.labels import UNLABELLED
from beam_cifar.data.row_table import View
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.filters.xpath import FILTER_MODES, ItemFilter
from beam_cifar.naming.subsets import subsets_meant
from beam_cifar.steps.base import Step, StepContext, option, pair

# Rows converted to a table at a time.
_PIECE: Final = 1 << 16

_OTHER_MODES: Final = {
    "i": "items",
    "a": "annotations",
    "i+a": "items+annotations",
    "a+i": "items+annotations",
    "annotations+items": "items+annotations",
}

# Ids searched for a close match: difflib takes microseconds for each.
_COMPARED: Final = 100_000


@dataclass(frozen=True)
class Filter(Step, named="filter"):
    """Keeps the items, or the labels, that an XPath expression selects."""

    only_drops = True

    expression: str = option("-e", "--filter", metavar="XPATH", help='XPath 1.0, such as /item[annotation/label="cat"]')
    mode: str = option(
        "-m",
        "--mode",
        default="items",
        choices=(*FILTER_MODES, *_OTHER_MODES),
        help="what the expression selects: items, annotations (labels), items+annotations, or i, a, i+a for short",
    )

    def check(self) -> None:
        object.__setattr__(self, "mode", _OTHER_MODES.get(self.mode, self.mode))
        ItemFilter(self.expression, self.mode)

    def needs(self) -> frozenset[str]:
        sees = ItemFilter(self.expression, self.mode).sees
        return frozenset(column for column, child in (("id", "id"), ("size", "image")) if child in sees)

    def apply(self, view: View, context: StepContext) -> View:
        chosen = ItemFilter(self.expression, self.mode)
        rows, labels = _decide(chosen, view)
        made = _unlabelled(view, ~labels).take(rows)
        hint = chosen.hint(view.table.names)
        if self.mode == "annotations" and (view.labels != UNLABELLED).any() and (made.labels == UNLABELLED).all():
            count = int(np.count_nonzero(view.labels != UNLABELLED))
            raise InputError(f"filter: none of {counted(count, 'label')} matches {self.expression!r}{hint}")
        if len(view) and not len(made):
            context.notice(f"filter: none of {counted(len(view), 'item')} matches {self.expression!r}{hint}")
        return made


@dataclass(frozen=True)
class RemoveItems(Step, named="remove_items", columns=("id",)):
    """Removes items by id and subset."""

    only_drops = True

    ids: tuple[tuple[str, str], ...] = option(
        "--id", many=True, parse=pair, metavar="ID:SUBSET", help="item to remove, by id and subset"
    )

    def apply(self, view: View, context: StepContext) -> View:
        return view.take(~_items(self, view, self.ids))


@dataclass(frozen=True)
class RemoveAnnotations(Step, named="remove_annotations"):
    """Removes the labels of the given items, or of all items by default; the items stay."""

    ids: tuple[tuple[str, str], ...] = option(
        "--id",
        many=True,
        default=(),
        parse=pair,
        metavar="ID:SUBSET",
        help="item whose label to remove, by id and subset; default: all items",
    )

    def needs(self) -> frozenset[str]:
        return frozenset({"id"} if self.ids else ())

    def apply(self, view: View, context: StepContext) -> View:
        return _unlabelled(view, _items(self, view, self.ids) if self.ids else np.ones(len(view), dtype=np.bool_))


def _decide(chosen: ItemFilter, view: View) -> tuple[BoolArray, BoolArray]:
    """Returns whether each row stays, and whether it keeps its label: both bool `[N]`."""
    rows, labels = np.ones((2, len(view)), dtype=np.bool_)
    for start in range(0, len(view), _PIECE):
        stop = min(start + _PIECE, len(view))
        decision = chosen.decide(view.facts(start, stop), view.table.names)
        rows[start:stop], labels[start:stop] = decision.rows, decision.labels
    return rows, labels


def _unlabelled(view: View, which: BoolArray) -> View:
    return replace(view, labels=np.where(which, np.int32(UNLABELLED), view.labels))


def _items(step: Step, view: View, ids: Iterable[tuple[str, str]]) -> BoolArray:
    """Returns which rows have one of the ids: bool `[N]`. Raises `UsageError` for an unknown id."""
    every: Any = view.ids
    found = np.zeros(len(view), dtype=np.bool_)
    for subset, asked in by_key((subset, item_id) for item_id, subset in ids).items():
        rows = np.flatnonzero(view.in_subsets(subsets_meant(subset, view.subset_names)))
        present, wanted = every.take(pa.array(rows)), pa.array(asked, pa.string())
        missing = wanted.filter(pc.invert(pc.is_in(wanted, value_set=present)))
        if len(missing):
            hint = _nearest(missing[0].as_py(), present.slice(0, _COMPARED).to_pylist())
            raise step.refuse(f"no item {missing[0].as_py()!r} in subset {subset!r}; {hint}")
        found[rows[np.asarray(pc.is_in(present, value_set=wanted))]] = True
    return found


def _nearest(item_id: str, known: list[str]) -> str:
    near = difflib.get_close_matches(item_id, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"its ids look like {', '.join(map(repr, known[:3]))}" if known else "the subset has no items"
