"""The plan of a job that looks at the whole set, row by row: splits, samples, orders, several data sets.

Like `beam_cifar.plan` it reads no pixels, unless a step asks for digests of them. It holds 24 bytes a row, and the ids
and file names where something needs them; `beam_cifar.view` has the columns.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar import storage
from beam_cifar.block import Block, Counts
from beam_cifar.chosen import CHOSEN, Inputs, read_rows
from beam_cifar.cutting import Segment, Task, new_shard
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.base import FileSummary, Origin, Shard, Sink, SinkOptions, Wanted
from beam_cifar.in_place import keep_files
from beam_cifar.job import Survey, survey
from beam_cifar.labels import UNLABELLED, LabelMap, LabelTable
from beam_cifar.memory import give_back
from beam_cifar.merging import merged, union_tables, with_unique_ids
from beam_cifar.options import ConvertOptions, Input
from beam_cifar.plan import ChosenCounts, Plan, duplicates, learn_parents, lossy, refuse_bad_rows, refuse_clashes
from beam_cifar.row_names import digests, name_digests, strict_names, whole_digests
from beam_cifar.selection import Selection
from beam_cifar.steps import make_step
from beam_cifar.steps.base import PixelStep, Step, StepContext
from beam_cifar.steps.own import First, KeepLabels, Renamings
from beam_cifar.view import View

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChosenRows:
    """Which rows every part of the output holds, before they are written down for the workers.

    Attributes:
        view: all of them.
        parts: positions in the view, int64, of each part.
    """

    view: View
    parts: tuple[Positions, ...]

    def digest(self) -> str:
        """A hex digest of them."""
        found = hashlib.sha256()
        for batch in self.batches():
            found.update(batch.serialize())
        return found.hexdigest()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields a batch in the schema `CHOSEN` for each part."""
        names = pa.array(self.view.subset_names, pa.string())
        for part in self.parts:
            view = self.view.take(part)
            labels = view.labels.astype(np.int64)
            unchanged = pa.nulls(len(view), pa.string())
            columns = {
                "file": pa.array(view.files),
                "row": pa.array(view.rows),
                "subset": names.take(pa.array(view.subsets)),
                "label": pa.array(labels, mask=labels < 0),
                "id": view.ids if view.new_ids else unchanged,
                "filename": view.filenames if view.new_ids else unchanged,
            }
            yield pa.RecordBatch.from_arrays([columns[name] for name in CHOSEN.names], schema=CHOSEN)

    def write(self, path: str, scratch: str) -> None:
        """Writes them to a file, which appears whole."""
        with storage.StagedFile(path, scratch) as file:
            with pa.ipc.new_file(pa.PythonFile(file, mode="w"), CHOSEN) as writer:
                for batch in self.batches():
                    writer.write_batch(batch)
            file.commit()


class Gathering(StepContext):
    """Everything that is known of the data sets of a job, and what steps leave.

    Args:
        index_dir: where unpacked archives may be put.
        columns: what is needed of every row.
        sizes: whether image sizes are needed where they take a look into every image.

    Attributes:
        surveys: of the data sets.
        origins: their formats and label tables.
        summaries: of all input files.
        pixel_steps: what is done to images, so far.
        notices: what a user should know, so far.
        held: what must live as long as this does, such as folders that go with their last user.
    """

    def __init__(self, index_dir: str, columns: frozenset[str], *, sizes: bool) -> None:
        self._index_dir = index_dir
        self._wanted = Wanted(sizes=sizes, columns=columns | {"label"})
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
        """See `StepContext.notice`."""
        self.notices.append(text)

    def add_pixel_step(self, step: PixelStep) -> None:
        """See `StepContext.add_pixel_step`."""
        self.pixel_steps.append(step)

    def read_items(self, path: str, table: LabelTable) -> View:
        """See `StepContext.read_items`."""
        self._settle()
        return replace(self._own(Input(path, "items")), table=table)

    def blocks(self, view: View) -> Iterator[tuple[Any, Block]]:
        """See `StepContext.blocks`; the rows come in the order in which they lie."""
        order = np.lexsort((view.rows, view.files))
        done = 0
        for table in read_rows(
            view.files[order], view.rows[order], self.inputs(), row_bytes=row_bytes(self.pixel_steps)
        ):
            block = Block(table, 0, 0, 0, last=False, read=Counter())
            for step in self.pixel_steps:
                block = step.transform(block)
            yield order[done : done + len(table)], block
            done += len(table)

    def inputs(self) -> Inputs:
        """What rows are read from."""
        return Inputs(tuple(s.file for s in self.summaries), tuple(self.origins), self.file_bytes())

    def file_bytes(self) -> tuple[int, ...]:
        """Bytes of an image of each file, about, as it is worked on."""
        return tuple(
            max(
                max(s.image_bytes, s.pixel_bytes) // max(1, s.images),
                row_bytes(self.origins[s.file.source].pixel_steps),
            )
            for s in self.summaries
        )

    @property
    def changes_pixels(self) -> bool:
        """Whether anything is done to images."""
        return bool(self.pixel_steps) or any(origin.pixel_steps for origin in self.origins)

    def gather(self, given: Input) -> View:
        """The rows of a data set, merged with others, and after its steps.

        Raises:
            InputError: a data set is missing, damaged, or has bad rows.
            UsageError: data sets contradict each other, or a step cannot be done.
        """
        outer = self._first, self.pixel_steps
        self._first, self.pixel_steps = len(self.origins), []
        view = self._merged(given)
        for step in given.steps:
            view = step.apply(view, self)
        self._settle()
        self._first, self.pixel_steps = outer
        return view

    def _settle(self) -> None:
        """Leaves what was done to images so far to the data sets that they are of: others are going to join them."""
        for number in range(self._first, len(self.origins)):
            origin = self.origins[number]
            self.origins[number] = replace(origin, pixel_steps=(*origin.pixel_steps, *self.pixel_steps))
        self.pixel_steps = []

    def _merged(self, given: Input) -> View:
        own = [self._own(given)] if given.path else []
        views = [*own, *map(self.gather, given.merged)]
        if len(views) == 1:
            return views[0]
        names = [*([given.path] if own else []), *(each.leaves[0].path for each in given.merged)]
        maps = union_tables([view.table for view in views], names)
        for view, to in zip(views, maps, strict=True):
            self._rename(view, to)
        views = [view.with_labels(to.targets, to.table) for view, to in zip(views, maps, strict=True)]
        for to in maps[1:]:
            if to.table.has_superclasses and None in to.table.parents:
                missing = to.table.parents.count(None)
                self.notice(f"{missing} classes have no superclass, because their data set has none")
                break
        return merged(views, maps[0].table, given.on_clash, self.notice)

    def _rename(self, view: View, to: LabelMap) -> None:
        """Counts the rows of data sets by labels of the merged table, unless steps have changed them already."""
        for file in np.unique(view.files).tolist():
            if self._tables[file].names == view.table.names:
                self._tables[file] = to.table
                self._labels[file] = np.array([*to.targets, UNLABELLED], dtype=np.int32)[self._labels[file]]

    def _own(self, given: Input) -> View:
        number = self._look_at(given)
        return self._view(number)

    def labels_of(self, file: int) -> npt.NDArray[np.int32]:
        """int32 `[N]`: the labels that the rows of an input file had before any step."""
        return self._labels[file]

    def counts(self, view: View) -> ChosenCounts:
        """What became of all rows, given those that are left."""
        read: Counts = Counter()
        kept: Counts = Counter()
        unlabelled: Counts = Counter()
        for number, (summary, labels) in enumerate(zip(self.summaries, self._labels, strict=True)):
            here = np.flatnonzero(view.files == number)
            were, are = labels[view.rows[here]], view.labels[here]
            subset = summary.file.subset
            read.update(_counted(subset, labels))
            kept.update(_counted(subset, were))
            unlabelled.update(_counted(subset, were[(were >= 0) & (are < 0)]))
        written: Counts = Counter()
        for number, subset in enumerate(view.subset_names):
            written.update(_counted(subset, view.labels[view.subsets == number]))
        return ChosenCounts(read, read - kept, unlabelled, written)

    def _look_at(self, asked: Input) -> int:
        """Surveys a data set; its number."""
        number = len(self.origins)
        wanted = self._wanted
        found = survey(asked.path, asked.format, asked.subsets, self._index_dir, wanted, number)
        if "size" not in wanted.columns and any(0 < summary.images < summary.rows for summary in found.summaries):
            # Only sizes tell which rows have an image.
            wanted = replace(wanted, columns=wanted.columns | {"size"})
            found = survey(asked.path, asked.format, asked.subsets, self._index_dir, wanted, number)
        refuse_bad_rows(found.summaries)
        give_back()
        self.surveys.append(found)
        self.origins.append(Origin(found.catalog.format, learn_parents(found.catalog, found.summaries)))
        self.notices += [*found.catalog.notices, *duplicates(found.summaries)]
        return number

    def _view(self, number: int) -> View:
        """The rows of a data set."""
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
        return View(
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


def _columns_of(summary: FileSummary) -> dict[str, Any]:
    """What a summary says of every row, as a view holds it, and which rows have an image."""
    table = summary.columns
    if table is None:
        raise ValueError(f"{summary.file.shown}: the scan gave no columns")
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
    """What a data set without files shows: one that was made of no items."""
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


def row_bytes(steps: Sequence[PixelStep]) -> int:
    """Bytes that every image will have at least."""
    return max((step.row_bytes() for step in steps), default=0)


def steps_of(options: ConvertOptions) -> list[Step]:
    """All that is done to the rows, in order: what the options ask for, then the steps."""
    steps: list[Step] = []
    if options.labels:
        steps.append(KeepLabels(options.labels))
    if options.filter is not None:
        steps.append(make_step("filter", {"expression": options.filter, "mode": options.filter_mode}))
    if options.limit is not None:
        steps.append(First(options.limit))
    if options.remaps:
        steps.append(Renamings(options.remaps))
    if options.resize is not None:
        steps.append(make_step("resize", {"height": options.resize[0], "width": options.resize[1]}))
    return [*steps, *options.steps]


def look(
    given: Input,
    steps: Sequence[Step],
    index_dir: str,
    columns: frozenset[str] = frozenset(),
    *,
    sizes: bool = False,
) -> tuple[Gathering, View]:
    """The rows that data sets have after some steps, with unique ids.

    Args:
        given: the data set.
        steps: that follow its own.
        index_dir: where unpacked archives may be put.
        columns: that are needed whatever the steps need.
        sizes: whether image sizes are needed where they take a look into every image.

    Raises:
        InputError: a data set is missing or damaged.
        UsageError: a step cannot be done.
    """
    needed = columns.union(*(step.needs() for step in (*_all_steps(given), *steps)))
    if len(given.leaves) > 1:
        needed |= {"id", "filename"}
    gathering = Gathering(index_dir, needed, sizes=sizes or "size" in needed)
    view = gathering.gather(given)
    for step in steps:
        view = step.apply(view, gathering)
    if view.ids is not None and view.filenames is not None:
        view = with_unique_ids(view, gathering.notice)
    return gathering, view


def _all_steps(given: Input) -> Iterator[Step]:
    for each in given.merged:
        yield from _all_steps(each)
    yield from given.steps


def plan_by_rows(
    options: ConvertOptions, sink: Sink, index_dir: str, part_bytes: int | None = None
) -> tuple[tuple[Survey, ...], Plan]:
    """Decides which rows go where; see `beam_cifar.plan.make_plan`."""
    encodings = sink.encodings(options)
    columns = frozenset({"size"} if "raw" in encodings else ())
    columns |= {"id", "filename"} if sink.many_files else set()
    gathering, view = look(options.input, steps_of(options), index_dir, columns, sizes="raw" in encodings)
    if not len(view):
        rows = sum(summary.rows for summary in gathering.summaries)
        notices = f" ({'; '.join(gathering.notices)})" if gathering.notices else ""
        paths = " and ".join(each.path for each in options.input.leaves)
        raise InputError(f"{paths}: the selection leaves nothing of {rows} rows{notices}")
    sink.check_labels(view.table)
    sink.check_subsets([name for name in view.subset_names if view.subset(name).any() or sink.keeps_empty_subsets])
    sink_options = SinkOptions(view.table, sink.export_of(options), _strict(view, gathering, sink))
    layout = _Layout(view, gathering, sink, sink_options, part_bytes or sink.part_bytes)
    if not sink.many_files:
        refuse_clashes([shard.path for shard in layout.shards], sink)
    save_images = sink_options.export.save_images
    tasks = layout.tasks if gathering.changes_pixels else [layout.copied(task) for task in layout.tasks]
    files, origins = [summary.file for summary in gathering.summaries], list(gathering.origins)
    if options.kept is not None:
        tasks = keep_files(tasks, layout.shards, options, view.table, files, origins)
    plan = Plan(
        files=tuple(files),
        origins=tuple(origins),
        selection=Selection(view.table.names),
        label_map=LabelMap(tuple(range(len(view.table.names))), view.table),
        shards=tuple(layout.shards),
        tasks=tuple(sorted(tasks, key=lambda task: (-task.rows, task.shard, task.part))),
        sink=sink_options,
        encodings=encodings if save_images else (),
        pixel_steps=tuple(gathering.pixel_steps) if save_images else (),
        declared=sum(summary.rows for summary in gathering.summaries),
        exhaustive=True,
        image_bytes=layout.total_bytes,
        notices=(*gathering.notices, *layout.notices, *lossy(encodings), *sink.notices(sink_options)),
        file_bytes=gathering.file_bytes(),
        counts=gathering.counts(view),
        chosen=ChosenRows(view, tuple(layout.parts)),
    )
    return tuple(gathering.surveys), plan


def _strict(view: View, gathering: Gathering, sink: Sink) -> frozenset[int]:
    """Digests of short names that several images of one folder would get."""
    if not sink.many_files or view.ids is None or view.filenames is None:
        return frozenset()
    missing = ~view.has_image
    if missing.any():
        first = int(np.flatnonzero(missing)[0])
        raise InputError(
            f"{gathering.summaries[view.files[first]].file.shown}: row {view.rows[first]}: has no image, and "
            f"{sink.name} is made of images ({int(missing.sum())} such rows); leave them out by --filter /item[image]"
        )
    ids, filenames = view.ids.to_pylist(), view.filenames.to_pylist()
    groups = {name: sink.name_groups(name) for name in view.subset_names}
    numbers = {group: at for at, group in enumerate(dict.fromkeys(groups.values()))}
    places = np.array([numbers[groups[name]] for name in view.subset_names], dtype=np.int64)
    folders = view.labels + places[view.subsets] * (len(view.table.names) + 1) + 1
    strict, twice = strict_names(folders, name_digests(ids, filenames), digests(ids), whole_digests(ids))
    if twice:
        where = [f"{ids[at]!r} of subset {view.subset_names[view.subsets[at]]!r}" for at in twice]
        raise UsageError(
            f"{where[0]} and {where[1]} would be one file, because ids repeat between subsets and {sink.name} keeps "
            "all subsets in one folder; convert one --subset at a time, or to imagenet_with_subset_dirs"
        )
    return strict


class _Layout:
    """Cuts the rows of a view into shards and parts.

    Attributes:
        shards: of the output.
        tasks: one for each part.
        parts: positions in the view of the rows of each task.
        notices: what a user should know.
        total_bytes: of all images, as they reach the writer, about.
    """

    def __init__(
        self, view: View, gathering: Gathering, sink: Sink, options: SinkOptions, part_bytes: int | None
    ) -> None:
        self._view, self._sink, self._options, self._part_bytes = view, sink, options, part_bytes
        self._gathering, self._summaries = gathering, gathering.summaries
        self._unchanged = [origin.labels == view.table for origin in gathering.origins]
        self._images = view.has_image
        pixels = "raw" in sink.encodings(options.export) or gathering.changes_pixels
        each = [(s.pixel_bytes if pixels else s.image_bytes) for s in self._summaries]
        self._file_bytes = [(nbytes, max(1, s.rows)) for nbytes, s in zip(each, self._summaries, strict=True)]
        self._by_size = gathering.changes_pixels and view.heights is not None
        self.shards: list[Shard] = []
        self.tasks: list[Task] = []
        self.parts: list[Positions] = []
        self.notices: list[str] = []
        groups = self._groups()
        self.total_bytes = sum(self._bytes(members) for members in groups.values())
        for subset, members in groups.items():
            self._cut(subset, members)

    def copied(self, task: Task) -> Task:
        """The task; as a copy of a file where it would make the same."""
        shard, part = self.shards[task.shard], self.parts[task.chosen or 0]
        if not len(part) or shard.parts != 1 or self._view.new_ids:
            return task
        view = self._view.take(part[[0]])
        number = int(view.files[0])
        summary = self._summaries[number]
        same = (
            summary.rows == len(part)
            and self._unchanged[summary.file.source]
            and shard.subset == summary.file.subset
            and shard.batch_label == summary.batch_label
            and self._sink.copies(summary, self._options)
            and (self._view.files[part] == number).all()
            and (self._view.rows[part] == np.arange(len(part))).all()
            and (self._view.labels[part] == self._gathering.labels_of(number)).all()
        )
        return replace(task, segments=(Segment(number, 0, len(part), 0, len(part)),), copy=True) if same else task

    def _groups(self) -> dict[str, Positions]:
        """The rows of each output subset, in order."""
        view, export = self._view, self._options.export
        members: dict[str, list[Positions]] = {}
        for number, name in enumerate(view.subset_names):
            found = np.flatnonzero(view.subsets == number)
            if not len(found) and not self._sink.keeps_empty_subsets:
                self.notices.append(f"subset {name!r} has no rows left and is not written")
                continue
            members.setdefault(self._sink.output_subset(name, export), []).append(found)
        return {name: np.concatenate(found) for name, found in members.items()}

    def _bytes(self, members: Positions) -> int:
        """Bytes of the images of some rows, as they reach the writer, about."""
        if self._by_size and self._view.heights is not None and self._view.widths is not None:
            areas = self._view.heights[members].astype(np.int64) * self._view.widths[members]
            return int(3 * areas[self._images[members]].sum())
        counts = np.bincount(self._view.files[members], minlength=len(self._file_bytes)).tolist()
        return sum(nbytes * n // rows for n, (nbytes, rows) in zip(counts, self._file_bytes, strict=True))

    def _cut(self, subset: str, members: Positions) -> None:
        rows, nbytes = len(members), self._bytes(members)
        step = self._sink.shard_rows(rows, nbytes, self.total_bytes, self._options.export)
        count = max(1, -(-rows // step))
        for number in range(count):
            part = members[number * step : (number + 1) * step]
            place = (subset, number, count)
            shard = new_shard(
                self._sink,
                self._options.export,
                self._part_bytes,
                len(self.shards),
                place,
                len(part),
                nbytes // max(1, rows),
            )
            self.shards.append(
                replace(
                    shard,
                    size=self._size(part),
                    has_images=bool(self._images[part].any()),
                    batch_label=self._own_batch_label(shard, count, part)
                    or self._sink.batch_label(subset, number, count),
                )
            )
            self._cut_parts(self.shards[-1], part)

    def _cut_parts(self, shard: Shard, members: Positions) -> None:
        done = 0
        for number in range(shard.parts):
            rows = shard.rows_of(number)
            self.tasks.append(Task(shard.index, number, rows, chosen=len(self.parts)))
            self.parts.append(members[done : done + rows])
            done += rows

    def _size(self, members: Positions) -> tuple[int, int] | None:
        """(height, width) where all rows have an image of that size."""
        view = self._view
        if not len(members) or not self._images[members].all():
            return None
        if view.heights is None or view.widths is None:
            sizes = {self._summaries[file].size for file in np.unique(view.files[members])}
            return sizes.pop() if len(sizes) == 1 else None
        height, width = view.heights[members], view.widths[members]
        one = (height == height[0]).all() and (width == width[0]).all()
        return (int(height[0]), int(width[0])) if one else None

    def _own_batch_label(self, shard: Shard, count: int, members: Positions) -> str:
        """What a source calls itself, where one file of the output follows one source."""
        found = np.unique(self._view.files[members])
        if count > 1 or len(found) != 1 or self._summaries[found[0]].file.subset != shard.subset:
            return ""
        own: str = self._summaries[found[0]].batch_label
        return own
