"""All rows of a job as the plan sees them: a few numbers of each, and names where something asks for them; no pixels.

A job that only selects by what one row says is planned on counts (`beam_cifar.planning.by_counts`). Where the whole
set has to be looked at (splits, sampling, order, several sources), the plan holds a `View`, and every step makes
another one of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from beam_cifar.data.arrays import BoolArray, Int32Array
from beam_cifar.data.labels import UNLABELLED, LabelTable

COLUMNS = frozenset({"id", "filename", "size"})
"""What a view holds only where it is asked for."""

_NUMBERS = ("files", "rows", "labels", "subsets", "heights", "widths", "images")
_TEXTS = ("ids", "filenames")


@dataclass(frozen=True)
class View:
    """N rows, in the order in which they will be written.

    Attributes:
        files: int32 `[N]`, index of the input file.
        rows: int32 `[N]`, number of the row in that file.
        labels: int32 `[N]`, index in `table`, -1 for unlabelled.
        subsets: int32 `[N]`, index in `subset_names`.
        subset_names: in the order in which they will be written; some may have no rows.
        table: classes and superclasses.
        ids: string `[N]`, unique in each subset as far as steps keep them so; None unless asked for.
        filenames: string `[N]`, as found; None unless asked for.
        heights: int32 `[N]`, pixels, -1 without image; None unless asked for.
        widths: int32 `[N]`, pixels, -1 without image; None unless asked for.
        images: bool `[N]`, which rows have an image; None where `heights` tell, or where all have.
        new_ids: whether any id is another than the source's.
    """

    files: Int32Array
    rows: Int32Array
    labels: Int32Array
    subsets: Int32Array
    subset_names: tuple[str, ...]
    table: LabelTable
    ids: pa.Array | None = None
    filenames: pa.Array | None = None
    heights: Int32Array | None = None
    widths: Int32Array | None = None
    images: BoolArray | None = None
    new_ids: bool = False

    def __len__(self) -> int:
        return len(self.files)

    @property
    def has_image(self) -> BoolArray:
        """Bool `[N]`: which rows have an image."""
        if self.images is not None:
            return self.images
        if self.heights is not None:
            return np.asarray(self.heights >= 0)
        return np.ones(len(self), dtype=np.bool_)

    def take(self, which: npt.NDArray[Any]) -> View:
        """Some of the rows: those where a bool `[N]` is True, or those at some positions, in that order."""
        if which.dtype == np.bool_:
            if which.all():
                return self
            which = np.flatnonzero(which)
        indices = pa.array(which)
        changed: dict[str, Any] = {name: vars(self)[name] for name in (*_NUMBERS, *_TEXTS)}
        for name, column in changed.items():
            if column is not None:
                changed[name] = column[which] if name in _NUMBERS else column.take(indices)
        return replace(self, **changed)

    def with_labels(self, targets: Sequence[int], table: LabelTable) -> View:
        """The same rows under another table: label i becomes `targets[i]`, which may be -1."""
        labels = np.array([*targets, UNLABELLED], dtype=np.int32)[self.labels]
        return replace(self, labels=labels, table=table)

    def with_subsets(self, subsets: Int32Array, names: Sequence[str]) -> View:
        """The same rows in other subsets; equal names become one subset, in its first place."""
        order = tuple(dict.fromkeys(names))
        places = np.array([order.index(name) for name in names], dtype=np.int32)
        return replace(self, subsets=places[subsets] if len(names) else subsets, subset_names=order)

    def with_ids(self, ids: pa.Array) -> View:
        """The same rows with other ids; where one changes the file name follows, and keeps only its extension."""
        if self.ids is None or self.filenames is None:
            raise ValueError("new ids need the old ones, and file names")
        same = pc.equal(ids, self.ids)
        if pc.all(same, min_count=0).as_py():
            return self
        named = pc.binary_join_element_wise(ids, extensions(self.filenames), "")
        return replace(self, ids=ids, filenames=pc.if_else(same, self.filenames, named), new_ids=True)

    def subset(self, name: str) -> BoolArray:
        """Bool `[N]`: which rows are of a subset."""
        if name not in self.subset_names:
            return np.zeros(len(self), dtype=np.bool_)
        return np.asarray(self.subsets == self.subset_names.index(name))

    def facts(self, start: int, stop: int) -> pa.Table:
        """The columns that an item filter looks at, of some rows; null or empty where they were not asked for."""
        rows = stop - start
        subsets = pa.array(self.subset_names, pa.string()).take(pa.array(self.subsets[start:stop]))
        labels = self.labels[start:stop].astype(np.int64)
        columns = {
            "id": pa.repeat(pa.scalar(""), rows) if self.ids is None else self.ids.slice(start, rows),
            "subset": subsets,
            "label": pa.array(labels, mask=labels < 0),
        }
        for name, values in (("height", self.heights), ("width", self.widths)):
            part = None if values is None else values[start:stop]
            columns[name] = pa.nulls(rows, pa.int32()) if part is None else pa.array(part, mask=part < 0)
        return pa.table(columns)


def extensions(filenames: pa.Array) -> pa.Array:
    """The extension of each name, such as ".png", or ""."""
    return pa.array([os.path.splitext(name)[1] for name in filenames.to_pylist()], pa.string())


def joined(views: Sequence[View], table: LabelTable) -> View:
    """The rows of several views, one after the other; all of them have labels of one table already."""
    names = tuple(dict.fromkeys(name for view in views for name in view.subset_names))
    subsets = []
    for view in views:
        places = np.array([names.index(name) for name in view.subset_names], dtype=np.int32)
        subsets.append(places[view.subsets] if len(places) else view.subsets)

    columns: dict[str, Any] = {}
    for name in (*_NUMBERS, *_TEXTS):
        parts = [vars(view)[name] for view in views]
        if all(part is not None for part in parts):
            columns[name] = np.concatenate(parts) if name in _NUMBERS else pa.concat_arrays(parts)
    images = np.concatenate([view.has_image for view in views])
    columns |= {"subsets": np.concatenate(subsets), "images": None if images.all() else images}
    return View(**columns, subset_names=names, table=table, new_ids=any(view.new_ids for view in views))
