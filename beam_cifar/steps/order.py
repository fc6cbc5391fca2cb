"""Steps that reorder items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from beam_cifar.data.arrays import Int64Array
from beam_cifar.data.labels import UNLABELLED, unknown_name
from beam_cifar.data.row_table import View
from beam_cifar.naming.ids import natural_bytes, natural_key
from beam_cifar.steps.base import Step, StepContext, option
from beam_cifar.steps.chance import permutation, seed_option

_PIECE = 1 << 16
_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Sort(Step, named="sort"):
    """Sorts items; equal ones keep their order, and items without the label or image to sort by come last."""

    by: tuple[str, ...] = option(
        "--by",
        many=True,
        default=("id",),
        choices=("id", "label", "subset", "filename", "size"),
        help="sort key, the first one given being primary; label: class order, size: pixels, subset: sorts subsets too",
    )
    reverse: bool = option("--reverse", default=False, help="reverse the order")

    def check(self) -> None:
        if not self.by:
            raise self.refuse("--by is empty; omit it to sort by id")
        for key in self.by:
            if key not in _KEYS:
                raise self.refuse(str(unknown_name("--by", key, list(_KEYS))))

    def needs(self) -> frozenset[str]:
        return frozenset(self.by) & {"id", "filename", "size"}

    def apply(self, view: View, context: StepContext) -> View:
        if "subset" in self.by:
            view = _with_sorted_subsets(view, self.reverse)
        numbers = [key for name in self.by for key in _KEYS[name](view)]
        if self.reverse:
            numbers = [np.where(key == _LAST, _LAST, -key) for key in numbers]
        # To lexsort the last key is the primary one.
        return view.take(np.lexsort(numbers[::-1]))


@dataclass(frozen=True)
class Shuffle(Step, named="shuffle"):
    """Shuffles all items; the order of the subsets does not change."""

    seed: int = seed_option()

    def apply(self, view: View, context: StepContext) -> View:
        return view.take(permutation(self.seed, self.name, len(view)))


def _with_sorted_subsets(view: View, reverse: bool) -> View:
    order = sorted(view.subset_names, key=natural_key, reverse=reverse)
    places = np.array([order.index(name) for name in view.subset_names], dtype=np.int32)
    return replace(view, subsets=places[view.subsets], subset_names=tuple(order))


def _by_text(texts: Any) -> Int64Array:
    """Returns the rank of each text in natural order, the same for equal texts: int64 `[N]`."""
    # A slice at a time: as Python text and bytes, the ids of millions of rows would take gigabytes at once.
    pieces = [
        pa.array(list(map(natural_bytes, texts.slice(start, _PIECE).to_pylist())), pa.binary())
        for start in range(0, len(texts), _PIECE)
    ]
    order = pa.compute.sort_indices(pa.chunked_array(pieces, pa.binary())).to_numpy().astype(np.int64)
    del pieces  # as large as the ids, which are copied in order next
    in_order = texts.take(pa.array(order))
    changes = pa.compute.not_equal(in_order.slice(1), in_order.slice(0, max(0, len(texts) - 1)))
    places = np.zeros(len(texts), dtype=np.int64)
    places[order[1:]] = np.cumsum(changes.to_numpy(zero_copy_only=False))
    return places


def _by_subset(view: View) -> Int64Array:
    """Ranks by name and not by index: with `--reverse`, the subsets themselves are reversed already."""
    return _by_text(pa.array(view.subset_names, pa.string()))[view.subsets]


def _by_size(view: View) -> list[Int64Array]:
    heights, widths = (np.asarray(sides).astype(np.int64) for sides in (view.heights, view.widths))
    return [np.where(heights < 0, _LAST, key) for key in (heights * widths, heights)]


_KEYS: dict[str, Callable[[View], list[Int64Array]]] = {
    "id": lambda view: [_by_text(view.ids)],
    "label": lambda view: [np.where(view.labels == UNLABELLED, _LAST, view.labels.astype(np.int64))],
    "subset": lambda view: [_by_subset(view)],
    "filename": lambda view: [_by_text(view.filenames)],
    "size": _by_size,
}
