"""Gathers all rows of a job's datasets in one view: scans and merges the datasets and applies their steps."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.data.block import WHOLE_FILE, Block, Counts
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.memory import give_back
from beam_cifar.data.row_table import View
from beam_cifar.errors import UsageError
from beam_cifar.formats.contract.types import FileSummary, Wanted
from beam_cifar.options import Input
from beam_cifar.planning.checks import refuse_bad_rows, refuse_unreadable
from beam_cifar.planning.chosen_rows import read_rows
from beam_cifar.planning.merge import merged, union_tables, with_unique_ids
from beam_cifar.planning.plan import ChosenCounts, Inputs, Origin
from beam_cifar.planning.quarantine import Quarantine
from beam_cifar.planning.summaries import duplicates, learn_parents, without_images
from beam_cifar.planning.survey import Survey, survey
from beam_cifar.steps.base import PixelStep, Step, StepContext, changed, row_bytes


def look(
    given: Input,
    steps: Sequence[Step],
    index_dir: str,
    columns: frozenset[str] = frozenset(),
    *,
    sizes: bool = False,
    quarantine: Quarantine | None = None,
) -> tuple[Gathering, View]:
    """Returns the rows of a dataset after some steps, with unique ids.

    Args:
        given: the dataset.
        steps: steps to apply after its own.
        index_dir: directory for unpacked archives.
        columns: columns needed in addition to those that the steps need.
        sizes: whether image sizes are needed even if every image has to be opened for them.
        quarantine: where bad rows are set aside; default: they are refused.

    Raises:
        InputError: a dataset is missing or damaged, or more of its rows are bad than allowed.
        UsageError: a step cannot be applied.
    """
    needed = columns.union(*(step.needs() for step in (*_all_steps(given), *steps)))
    if len(given.leaves) > 1:
        needed |= {"id", "filename"}
    gathering = Gathering(index_dir, needed, sizes=sizes or "size" in needed, quarantine=quarantine)
    view = gathering.gather(given)
    # What is dropped anyway is not looked at.
    first = list(itertools.takewhile(lambda step: step.only_drops and "size" not in step.needs(), steps))
    for step in first:
        view = gathering.follow(view, step)
    rest = steps[len(first) :]
    if quarantine is not None:
        total = sum(summary.rows for summary in gathering.summaries)
        view = quarantine.without_bad_rows(view, gathering.inputs(), rest, total)
    for step in rest:
        view = gathering.follow(view, step)
    gathering.refuse_unreadable(view)
    return gathering, view


def _all_steps(given: Input) -> Iterator[Step]:
    for each in given.merged:
        yield from _all_steps(each)
    yield from given.steps


class Gathering(StepContext):
    """Everything known about the datasets of a job while their steps are applied.

    Args:
        index_dir: directory for unpacked archives.
        columns: columns needed for every row.
        sizes: whether image sizes are needed even if every image has to be opened for them.
        quarantine: where bad rows are set aside; default: they are refused.

    Attributes:
        columns: columns known for every row.
        surveys: one survey per dataset.
        origins: formats and label tables of the datasets.
        summaries: summaries of all input files.
        pixel_steps: steps applied to images so far.
        notices: notices for the user so far.
        held: objects to keep alive as long as this one, such as folders that are removed with their last user.
    """

    def __init__(
        self, index_dir: str, columns: frozenset[str], *, sizes: bool, quarantine: Quarantine | None = None
    ) -> None:
        self._index_dir, self._quarantine = index_dir, quarantine
        self.columns = columns
        self._wanted = Wanted(sizes=sizes, columns=columns | {"label"}, lenient=True, tolerant=quarantine is not None)
        self.surveys: list[Survey] = []
        self.origins: list[Origin] = []
        self.summaries: list[FileSummary] = []
        self.pixel_steps: list[PixelStep] = []
        self.notices: list[str] = []
        self.held: list[Any] = []
        self._labels: list[npt.NDArray[np.int32]] = []
        self._tables: list[LabelTable] = []
        self._first = 0

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def add_pixel_step(self, step: PixelStep) -> None:
        self.pixel_steps.append(step)

    def read_items(self, path: str, table: LabelTable) -> View:
        self._settle()
        view = self._own(Input(path, "items"))
        places = {name: label for label, name in enumerate(table.names)}
        own = [UNLABELLED if label < 0 else view.table.names[label] for label in np.unique(view.labels).tolist()]
        if gone := [name for name in own if isinstance(name, str) and name not in places]:
            raise UsageError(f"an added item has label {gone[0]!r}, which is no longer a category")
        return view.with_labels([places.get(name, UNLABELLED) for name in view.table.names], table)

    def blocks(self, view: View) -> Iterator[tuple[Any, Block]]:
        order = np.lexsort((view.rows, view.files))  # in file order, so that every file is opened only once
        done = 0
        for table in read_rows(
            view.files[order], view.rows[order], self.inputs(), row_bytes=row_bytes(self.pixel_steps)
        ):
            block = Block(table, 0, 0, 0, last=False, read=Counter())
            yield order[done : done + len(table)], changed(block, self.pixel_steps)
            done += len(table)

    def snapshot(self) -> Gathering:
        """Returns a copy that pixel steps added later do not affect."""
        made = copy.copy(self)
        made.origins, made.summaries = list(self.origins), list(self.summaries)
        made.pixel_steps = list(self.pixel_steps)
        return made

    def inputs(self) -> Inputs:
        """Returns the files and formats that rows are read from."""
        return Inputs(tuple(s.file for s in self.summaries), tuple(self.origins), self.file_bytes())

    def file_bytes(self) -> tuple[int, ...]:
        """Returns the approximate bytes of one image of each file while it is processed."""
        return tuple(
            max(
                max(s.image_bytes, s.pixel_bytes) // max(1, s.images),
                row_bytes(self.origins[s.file.source].pixel_steps),
            )
            for s in self.summaries
        )

    @property
    def changes_pixels(self) -> bool:
        """Whether any step changes images."""
        return bool(self.pixel_steps) or any(origin.pixel_steps for origin in self.origins)

    def gather(self, given: Input) -> View:
        """Returns the rows of a dataset and of those merged with it, after its steps.

        Raises:
            InputError: a dataset is missing, damaged, or has bad rows.
            UsageError: datasets conflict, or a step cannot be applied.
        """
        outer = self._first, self.pixel_steps
        self._first, self.pixel_steps = len(self.origins), []
        view = self._merged(given)
        for step in given.steps:
            view = self.follow(view, step)
        self._settle()
        self._first, self.pixel_steps = outer
        return view

    def follow(self, view: View, step: Step) -> View:
        """Returns the rows after one more step, with ids unique within each subset."""
        if "size" in step.needs() and not isinstance(step, PixelStep):
            self.refuse_unreadable(view)  # a filter would take their images for missing ones
        made = step.apply(view, self)
        if step.moves_ids:
            give_back()
            made = with_unique_ids(made, self.notice)
        return made

    def refuse_unreadable(self, view: View) -> None:
        """Raises `RowError` for the first row of a view whose image has no valid header."""
        for file, summary in enumerate(self.summaries):
            if summary.unreadable:
                left = set(view.rows[view.files == file].tolist())
                refuse_unreadable(bad for bad in summary.unreadable if bad.row in left)

    def extend(self, view: View, step: Step) -> View:
        """Returns the rows of the whole job after one more step; images are changed only when they are read."""
        self._first, self.pixel_steps = 0, []
        try:
            made = self.follow(view, step)
            self._settle()
        finally:
            self.pixel_steps = []
        return made

    def _settle(self) -> None:
        """Moves the pixel steps so far to the datasets they apply to, before other datasets join."""
        for number in range(self._first, len(self.origins)):
            origin = self.origins[number]
            self.origins[number] = replace(origin, pixel_steps=(*origin.pixel_steps, *self.pixel_steps))
        self.pixel_steps = []

    def _merged(self, given: Input) -> View:
        own = [self._own(given)] if given.path else []
        views = [*own, *map(self.gather, given.merged)]
        if len(views) == 1:
            return views[0]
        names = [each.shown for each in (*([given] if own else []), *given.merged)]
        maps = union_tables([view.table for view in views], names)
        self._note_missing_parents(views, maps[0].table)
        views = [view.with_labels(to.targets, to.table) for view, to in zip(views, maps, strict=True)]
        return merged(views, maps[0].table, given.on_clash, self.notice)

    def _note_missing_parents(self, views: Sequence[View], table: LabelTable) -> None:
        """Adds a notice if a dataset without superclasses is merged with one that has some."""
        plain = {name for view in views if not view.table.has_superclasses for name in view.table.names}
        lone = [name for name, parent in zip(table.names, table.parents, strict=False) if parent is None]
        if without := [name for name in lone if name in plain]:
            classes = f"{len(without)} classes, such as {without[0]!r}" if without[1:] else f"class {without[0]!r}"
            self.notice(f"{classes}: no superclass, because a merged dataset has none")

    def _own(self, given: Input) -> View:
        number = self._look_at(given)
        return self._view(number)

    def labels_of(self, file: int) -> npt.NDArray[np.int32]:
        """Returns int32 `[N]`, the labels of the rows of an input file before any step."""
        return self._labels[file]

    def counts(self, view: View) -> ChosenCounts:
        """Returns what happened to all rows, given those that are left."""
        maps = union_tables([replace(table, coarse_names=(), parents=()) for table in self._tables])
        read: Counts = Counter()
        kept: Counts = Counter()
        unlabelled: Counts = Counter()
        rejected: Counts = Counter()
        set_aside = self._quarantine.found if self._quarantine else {}
        for number, (summary, to) in enumerate(zip(self.summaries, maps, strict=True)):
            labels = np.array([*to.targets, UNLABELLED], dtype=np.int32)[self._labels[number]]
            here = np.flatnonzero(view.files == number)
            were, are = labels[view.rows[here]], view.labels[here]
            subset = summary.file.subset
            read.update(_counted(subset, labels))
            kept.update(_counted(subset, were))
            bad = np.array([bad.row for bad in set_aside.get(number, ())], np.int64)
            rejected.update(_counted(subset, labels[bad]))
            unlabelled.update(_counted(subset, were[(were >= 0) & (are < 0)]))
        written: Counts = Counter()
        for number, subset in enumerate(view.subset_names):
            written.update(_counted(subset, view.labels[view.subsets == number]))
        names = maps[0].table.names if maps else ()
        return ChosenCounts(names, read, read - kept - rejected, unlabelled, written, rejected)

    def _look_at(self, asked: Input) -> int:
        """Surveys a dataset and returns its number."""
        number = len(self.origins)
        given = asked.path, asked.format, asked.subsets, self._index_dir
        wanted = self._wanted
        found = survey(*given, wanted, number, images=asked.images)
        if "size" not in wanted.columns and any(0 < summary.images < summary.rows for summary in found.summaries):
            # Only the sizes show which rows have an image.
            wanted = replace(wanted, columns=wanted.columns | {"size"})
            found = survey(*given, wanted, number, images=asked.images)
        if self._quarantine is None:
            refuse_bad_rows(found.summaries)
        else:
            for lost in found.lost:
                self._quarantine.add(WHOLE_FILE, lost)
        give_back()
        self.surveys.append(found)
        self.origins.append(Origin(found.catalog.format, learn_parents(found.catalog, found.summaries)))
        self.notices += [
            *found.catalog.notices,
            *duplicates(found.summaries),
            *without_images(found.catalog, found.summaries),
        ]
        return number

    def _view(self, number: int) -> View:
        """Returns the rows of a surveyed dataset."""
        found, table, first = self.surveys[number], self.origins[number].labels, len(self.summaries)
        columns = [_columns_of(summary) for summary in found.summaries]
        self.summaries += [replace(summary, columns=None) for summary in found.summaries]
        self.surveys[number] = found = replace(found, summaries=tuple(self.summaries[first:]))
        self._labels += [each["label"] for each in columns]
        self._tables += [table] * len(columns)
        if not columns:
            return _no_rows(table, self._wanted.columns)
        names = [summary.file.subset for summary in found.summaries]
        subsets, counts = tuple(dict.fromkeys(names)), [summary.rows for summary in found.summaries]

        def joined_column(name: str) -> Any:
            return _joined([each.pop(name) for each in columns]) if all(name in each for each in columns) else None

        give_back()
        made = View(
            files=np.repeat(np.arange(first, len(self.summaries), dtype=np.int32), counts),
            rows=np.concatenate([np.empty(0, np.int32), *(np.arange(n, dtype=np.int32) for n in counts)]),
            labels=joined_column("label"),
            subsets=np.repeat(np.array([subsets.index(name) for name in names], dtype=np.int32), counts),
            subset_names=subsets,
            table=table,
            ids=joined_column("id"),
            filenames=joined_column("filename"),
            heights=joined_column("height"),
            widths=joined_column("width"),
            images=joined_column("image"),
        )
        give_back()
        return self._without_bad_rows(made, found.summaries, first)

    def _without_bad_rows(self, view: View, summaries: Sequence[FileSummary], first: int) -> View:
        """Sets aside the bad rows of files that are numbered from `first`, and returns the others."""
        if self._quarantine is None:
            return view
        kept = np.ones(len(view), dtype=np.bool_)
        starts = np.cumsum([0, *(summary.rows for summary in summaries)])
        for number, (start, summary) in enumerate(zip(starts.tolist(), summaries, strict=False), first):
            for bad in summary.bad_rows:
                self._quarantine.add(number, bad)
                kept[start + bad.row] = False
        return view.take(kept)


def _columns_of(summary: FileSummary) -> dict[str, Any]:
    """Returns the columns of a summary in the form that a view has, and which rows have an image."""
    table = summary.columns
    if table is None:
        raise ValueError(f"{summary.file.shown}: the scan returned no columns")
    made: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        made[name] = column
        if name in ("label", "height", "width"):
            made[name] = (column.fill_null(-1) if column.null_count else column).to_numpy().astype(np.int32)
    made["image"] = made["height"] >= 0 if "height" in made else np.full(summary.rows, summary.images == summary.rows)
    return made


def _joined(columns: Sequence[Any]) -> Any:
    if len(columns) == 1:
        return columns[0]
    return np.concatenate(columns) if isinstance(columns[0], np.ndarray) else pa.concat_arrays(columns)


def _no_rows(table: LabelTable, columns: frozenset[str]) -> View:
    """Returns the view of a dataset without files, such as one created from no items."""
    none = np.empty(0, dtype=np.int32)
    texts, sizes = pa.array([], pa.string()), none if "size" in columns else None
    return View(
        files=none,
        rows=none,
        labels=none,
        subsets=none,
        subset_names=(),
        table=table,
        ids=texts if "id" in columns else None,
        filenames=texts if "filename" in columns else None,
        heights=sizes,
        widths=sizes,
    )


def _counted(subset: str, labels: npt.NDArray[np.int32]) -> Counts:
    values, counts = np.unique(labels, return_counts=True)
    return Counter({(subset, label): n for label, n in zip(values.tolist(), counts.tolist(), strict=True)})
