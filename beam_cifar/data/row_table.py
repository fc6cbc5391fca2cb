"""All rows of a job as seen by the planner: a few numbers per row, names only if needed, no pixels.

A job that selects rows one by one is planned on counts alone (`beam_cifar.planning.by_counts`). If it needs the whole
dataset (splits, sampling, order, several sources), the planner builds a `View`, and each step returns a new one.
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
"""Columns that a view has only if requested."""

_NUMBERS = ("files", "rows", "labels", "subsets", "heights", "widths", "images")
_TEXTS = ("ids", "filenames")


@dataclass(frozen=True)
class View:
    """N rows, in the order they will be written.

    Attributes:
        files: int32 `[N]`, index of the input file.
        rows: int32 `[N]`, row number in that file.
        labels: int32 `[N]`, index in `table`, -1 for unlabelled.
        subsets: int32 `[N]`, index in `subset_names`.
        subset_names: in the order they will be written; a subset may have no rows.
        table: the label table.
        ids: string `[N]`, unique in each subset unless a step made them clash; None unless requested.
        filenames: string `[N]`, as found; None unless requested.
        heights: int32 `[N]`, pixels, -1 for rows without an image; None unless requested.
        widths: int32 `[N]`, pixels, -1 for rows without an image; None unless requested.
        images: bool `[N]`, which rows have an image; None if given by `heights`, or if all have one.
        new_ids: whether any id differs from the one in the source.
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
        """Returns the rows selected by a mask, bool `[N]`, or by positions, in their order."""
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
        """Returns the same rows with another label table: label i becomes `targets[i]`, which may be -1."""
        labels = np.array([*targets, UNLABELLED], dtype=np.int32)[self.labels]
        return replace(self, labels=labels, table=table)

    def with_subsets(self, subsets: Int32Array, names: Sequence[str]) -> View:
        """Returns the same rows in other subsets; equal names become one subset, at the position of the first."""
        order = tuple(dict.fromkeys(names))
        places = np.array([order.index(name) for name in names], dtype=np.int32)
        return replace(self, subsets=places[subsets] if len(names) else subsets, subset_names=order)

    def with_ids(self, ids: pa.Array) -> View:
        """Returns the same rows with other ids; a row with a new id is renamed to it, keeping its file extension."""
        if self.ids is None or self.filenames is None:
            raise ValueError("cannot change ids: the view was built without ids or filenames")
        same = pc.equal(ids, self.ids)
        if pc.all(same, min_count=0).as_py():
            return self
        named = pc.binary_join_element_wise(ids, extensions(self.filenames), "")
        return replace(self, ids=ids, filenames=pc.if_else(same, self.filenames, named), new_ids=True)

    def subset(self, name: str) -> BoolArray:
        """Returns bool `[N]`: which rows belong to a subset."""
        if name not in self.subset_names:
            return np.zeros(len(self), dtype=np.bool_)
        return np.asarray(self.subsets == self.subset_names.index(name))

    def in_subsets(self, names: Sequence[str]) -> BoolArray:
        """Returns bool `[N]`: which rows belong to one of some subsets."""
        asked = [number for number, name in enumerate(self.subset_names) if name in names]
        return np.asarray(np.isin(self.subsets, asked))

    def facts(self, start: int, stop: int) -> pa.Table:
        """Returns the columns that item filters use, for some rows; null or empty if not requested."""
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
    """Returns the extension of each name, such as ".png", or ""."""
    return pa.array([os.path.splitext(name)[1] for name in filenames.to_pylist()], pa.string())


def joined(views: Sequence[View], table: LabelTable) -> View:
    """Returns the rows of several views, one after the other; their labels must already refer to the same table."""
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
