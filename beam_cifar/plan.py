"""From summaries of the input to a list of tasks: pure, and decided before any pixel is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from beam_cifar.block import Counts
from beam_cifar.clashes import clashing_names
from beam_cifar.cutting import Chosen, Cutter, Segment, Task, choose
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.base import (
    CHUNK_ROWS,
    Catalog,
    FileSummary,
    Origin,
    Shard,
    Sink,
    SinkOptions,
    SourceFile,
    Wanted,
    split_name,
)
from beam_cifar.images.files import GRAY, are_pixels
from beam_cifar.labels import (
    UNLABELLED,
    LabelMap,
    LabelTable,
    merged_away,
    parent_conflict,
    remap_table,
    split_renamings,
    unknown_name,
)
from beam_cifar.options import ConvertOptions
from beam_cifar.refusals import refuse_missing_images, refuse_unlabelled
from beam_cifar.selection import Selection

__all__ = ["Plan", "Segment", "Task", "learn_parents", "make_plan", "reading_tasks", "select_files"]

if TYPE_CHECKING:
    from beam_cifar.row_plan import ChosenRows
    from beam_cifar.steps.base import PixelStep
    from beam_cifar.xpath import ItemFilter


@dataclass(frozen=True)
class ChosenCounts:
    """Rows of a plan that chose row by row, by subset and label; -1 is unlabelled.

    Attributes:
        names: the classes that rows were of, in all data sets; label ids of `read`, `filtered` and `unlabelled`.
        read: all rows of the input, by what they were.
        filtered: those that are not written, by what they were.
        unlabelled: those whose label was taken away, by what they were.
        written: those that are written, by what they become.
    """

    names: tuple[str, ...]
    read: Counts
    filtered: Counts
    unlabelled: Counts
    written: Counts


@dataclass(frozen=True)
class Plan:
    """Everything that a job will do.

    Attributes:
        files: input files that are read.
        origins: the data sets that they belong to, with superclasses filled in.
        selection: which rows are kept.
        label_map: where labels go.
        shards: files of the output.
        tasks: long ones first.
        sink: what writers need to know.
        encodings: how images may lie in blocks when they reach the writer; empty where images are left out.
        pixel_steps: what is done to every image, in order.
        declared: rows of all input files that are read.
        exhaustive: whether all of those are read (a limit stops early).
        image_bytes: raw bytes of the images kept, about.
        notices: things that a user should know.
        file_bytes: of an image of each input file, about.
        counts: rows by what they were and what they become, where the plan chose row by row, else None.
        chosen: those rows; None where it did not, or once they are written down.
    """

    files: tuple[SourceFile, ...]
    origins: tuple[Origin, ...]
    selection: Selection
    label_map: LabelMap
    shards: tuple[Shard, ...]
    tasks: tuple[Task, ...]
    sink: SinkOptions
    encodings: tuple[str, ...]
    pixel_steps: tuple[PixelStep, ...]
    declared: int
    exhaustive: bool
    image_bytes: int
    notices: tuple[str, ...]
    file_bytes: tuple[int, ...] = ()
    counts: ChosenCounts | None = None
    chosen: ChosenRows | None = None

    @property
    def rows(self) -> int:
        """Rows that will be written."""
        return sum(shard.rows for shard in self.shards)

    def digest(self, inputs: Sequence[FileSummary], meaning: dict[str, Any]) -> str:
        """A hash of what determines the output: the same job has the same."""
        facts = {
            "inputs": [[s.file.name, s.file.blob.size, s.digest] for s in inputs],
            "options": meaning,
            "labels": asdict(self.label_map.table),
            "shards": [asdict(shard) for shard in self.shards],
            "tasks": [asdict(task) for task in self.tasks],
            "chosen": self.chosen.digest() if self.chosen else "",
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def select_files(catalog: Catalog, subsets: Sequence[str]) -> tuple[SourceFile, ...]:
    """The files of the subsets asked for; "train" and "test" stand for all batches of that split.

    Raises:
        UsageError: a name that no file and no split has.
    """
    known = {file.subset for file in catalog.files} | {split_name(file.subset) for file in catalog.files}
    for subset in subsets:
        if subset not in known:
            raise unknown_name("subset", subset, sorted(known))
    wanted = set(subsets)
    return tuple(f for f in catalog.files if not wanted or f.subset in wanted or split_name(f.subset) in wanted)


def wanted_of(sink: Sink, options: ConvertOptions) -> Wanted:
    """What a plan needs summaries to tell."""
    return Wanted(
        filter=item_filter(options),
        sizes=are_pixels(sink.encodings(options)) and options.resize is None,
        names=sink.can.many_files,
    )


def item_filter(options: ConvertOptions) -> ItemFilter | None:
    """The XPath filter of a job, or None. Raises `UsageError`."""
    if options.filter is None:
        return None
    from beam_cifar.xpath import ItemFilter

    return ItemFilter(options.filter, options.filter_mode)


def make_plan(
    catalog: Catalog,
    summaries: Sequence[FileSummary],
    sink: Sink,
    options: ConvertOptions,
    part_bytes: int | None = None,
) -> Plan:
    """Decides which rows go where.

    Args:
        catalog: of the input.
        summaries: of the selected files, in order, with what `wanted_of` asks for.
        sink: format to write.
        options: of the job.
        part_bytes: bytes of images in a part, where a shard has several; None for the format's own choice.

    Raises:
        InputError: bad rows, contradicting superclasses, or a selection that leaves nothing.
        UsageError: an unknown label, or a file that the format cannot hold.
    """
    refuse_bad_rows(summaries)
    labels = learn_parents(catalog, summaries)
    keep = labels.select(options.labels) if options.labels else None
    selection = Selection(labels.names, keep, item_filter(options))
    label_map = remap_table(labels, split_renamings(labels, options.remaps))
    sink.check_labels(label_map.table)
    encodings = sink.encodings(options)
    pixel_steps: tuple[PixelStep, ...] = ()
    if options.resize is not None:
        from beam_cifar.steps.pixels import Resize

        pixel_steps = (Resize(height=options.resize[0], width=options.resize[1]),)
        summaries = [_resized(summary, options.resize) for summary in summaries]
    sources = list(choose(summaries, selection, options.limit, pixels=are_pixels(encodings)))
    if not any(source.take for source in sources) or _loses_all_labels(summaries, options):
        raise InputError(f"{catalog.path}: {_nothing_left(summaries, options, selection)}")
    sink_options = SinkOptions(
        labels=label_map.table,
        export=sink.export_of(options),
        strict_names=clashing_names(sources, selection, label_map, sink, options)
        if sink.can.many_files
        else frozenset(),
    )
    _refuse_incomplete(sources, selection, sink)
    cutter = Cutter(sink, sink_options, part_bytes or sink.can.part_bytes, sum(source.bytes for source in sources))
    for subset, members in _grouped(sources, sink, options):
        cutter.cut(subset, members)
    check_shards(cutter.shards, sink, sink_options)
    tasks = cutter.finished_tasks()
    loses_labels = selection.filter is not None and selection.filter.mode != "items"
    changed = not label_map.is_identity or label_map.table.parents != labels.parents or loses_labels
    if not changed and options.resize is None:
        tasks = [replace(task, copy=cutter.is_copy(task, sources)) for task in tasks]
    return Plan(
        files=tuple(source.summary.file for source in sources),
        origins=(Origin(catalog.format, labels),),
        selection=selection,
        label_map=label_map,
        shards=tuple(cutter.shards),
        tasks=tuple(sorted(tasks, key=lambda task: (-task.rows, task.shard, task.part))),
        sink=sink_options,
        encodings=encodings if sink_options.export.save_images else (),
        pixel_steps=pixel_steps if sink_options.export.save_images else (),
        declared=sum(source.summary.rows for source in sources),
        exhaustive=all(source.take == source.survivors for source in sources),
        image_bytes=sum(source.bytes for source in sources),
        notices=(
            *catalog.notices,
            *duplicates(summaries),
            *merged_away(label_map, labels),
            *cutter.notices,
            *lossy(encodings),
            *sink.notices(sink_options),
        ),
    )


def _resized(summary: FileSummary, size: tuple[int, int]) -> FileSummary:
    """The summary of a file whose images all get one size, as pixels."""
    nbytes = summary.images * 3 * size[0] * size[1]
    whole = size if summary.images == summary.rows else None
    return replace(summary, size=whole, image_bytes=nbytes, pixel_bytes=nbytes, copyable_as="")


READ_BYTES = 16 << 20
"""Bytes of images that a task reads, where nothing is written."""


def reading_tasks(summaries: Sequence[FileSummary]) -> list[Task]:
    """Tasks that read all rows of some files: the shard of each is the number of its file.

    Raises:
        InputError: a bad row.
    """
    refuse_bad_rows(summaries)
    return whole_file_tasks(summaries)


def whole_file_tasks(summaries: Sequence[FileSummary]) -> list[Task]:
    """The same, where bad rows are no reason to refuse: they travel in `Block.rejected`."""
    tasks = []
    for index, summary in enumerate(summaries):
        row_bytes = max(1, summary.image_bytes // max(1, summary.rows))
        step = max(1, READ_BYTES // (row_bytes * CHUNK_ROWS)) * CHUNK_ROWS
        for part, start in enumerate(range(0, summary.rows, step)):
            stop = min(start + step, summary.rows)
            chunks = summary.chunks[start // CHUNK_ROWS : -(-stop // CHUNK_ROWS)]
            rows = sum(sum(chunk.values()) for chunk in chunks)
            tasks.append(Task(index, part, rows, (Segment(index, start, stop, 0, rows),)))
    return tasks


def learn_parents(catalog: Catalog, summaries: Sequence[FileSummary]) -> LabelTable:
    """Fills in the superclass of each class from what the rows of all files say.

    Raises:
        InputError: two rows give one class two superclasses.
    """
    table = catalog.labels
    if not table.has_superclasses:
        return table
    parents = list(table.parents)
    said: dict[int, str] = {}
    for summary in summaries:
        for label, (coarse, row) in sorted(summary.parents.items()):
            here = f"{summary.file.shown} row {row}"
            if label in said and parents[label] != coarse:
                raise parent_conflict(table, label, (said[label], parents[label] or 0), (here, coarse))
            said.setdefault(label, here)
            parents[label] = coarse
    return replace(table, parents=tuple(parents))


def _grouped(sources: list[Chosen], sink: Sink, options: ConvertOptions) -> list[tuple[str, list[Chosen]]]:
    """Numbers the sources and puts those of one output subset together, in order of appearance."""
    sink.subsets.check([source.summary.file.subset for source in sources], options)
    groups: dict[str, list[Chosen]] = {}
    for index, source in enumerate(sources):
        sources[index] = replace(source, index=index)
        groups.setdefault(sink.subsets.output(source.summary.file.subset, options), []).append(sources[index])
    return list(groups.items())


def refuse_bad_rows(summaries: Sequence[FileSummary]) -> None:
    """Raises `InputError` for the first row that cannot be kept."""
    count = sum(summary.bad_count for summary in summaries)
    if count:
        first = next(bad for summary in summaries for bad in summary.bad_rows)
        more = f" (and {count - 1} more bad rows)" if count > 1 else ""
        raise InputError(f"{first}{more}")


def check_shards(shards: Sequence[Shard], sink: Sink, options: SinkOptions) -> None:
    """Refuses files that the format cannot hold, or that would be one. Raises `UsageError`."""
    taken = set(sink.can.reserved_paths)
    for shard in shards:
        if shard.path in taken and not sink.can.many_files:
            raise UsageError(
                f"two files of the output would be called {shard.path!r}; convert the subsets one at a time with "
                "--subset"
            )
        taken.add(shard.path)
        if sink.can.one_size and shard.rows and shard.has_images and shard.size is None:
            raise UsageError(f"{shard.path}: {sink.name} holds images of one size, and these differ; pass --resize HxW")
        sink.check_shard(shard, options)


def _refuse_incomplete(sources: Sequence[Chosen], selection: Selection, sink: Sink) -> None:
    """Refuses rows without image or label where the format takes none; the writer does where only it can tell."""
    selects = selection.labels is not None or selection.filter is not None
    for source in sources:
        summary = source.summary
        if not (sink.can.takes_missing_images or sink.can.many_files or selects) and source.take:
            refuse_missing_images(summary.file.shown, summary.rows - summary.images, sink)
        if not sink.can.takes_unlabelled and source.take and selection.labels is None:
            counted = label_counts(summary)
            lost = 0 if summary.kept_labels is None else sum(counted.values()) - summary.kept_labels
            refuse_unlabelled(summary.file.shown, max(lost, counted.get(UNLABELLED, 0)), sink)


def _nothing_left(summaries: Sequence[FileSummary], options: ConvertOptions, selection: Selection) -> str:
    rows = sum(summary.rows for summary in summaries)
    if not rows:
        return "the selected files hold no rows"
    asked = [f"has label {' or '.join(map(repr, options.labels))}"] if options.labels else []
    if selection.filter is not None:
        asked.append(f"passes the filter {options.filter!r}{selection.filter.hint(selection.names)}")
    return f"the selection leaves nothing: none of {rows} rows {' and '.join(asked)}"


def _loses_all_labels(summaries: Sequence[FileSummary], options: ConvertOptions) -> bool:
    """Whether a filter of annotations keeps none, although there are some: a misspelt class, most likely."""
    if options.filter is None or options.filter_mode == "items":
        return False
    labelled = any(label != UNLABELLED for summary in summaries for chunk in summary.chunks for label in chunk)
    return labelled and not any(summary.kept_labels for summary in summaries)


def duplicates(summaries: Sequence[FileSummary]) -> Iterator[str]:
    """A line for each file in which names repeat."""
    for summary in summaries:
        if summary.duplicates:
            yield (
                f"{summary.file.shown}: {summary.duplicates} rows repeat the file name of an earlier row; "
                f"their ids get a suffix"
            )


def lossy(encodings: Sequence[str]) -> Iterator[str]:
    """A line where images lose something by being encoded."""
    if encodings[0] == GRAY:
        yield "coloured images become gray (luma, ITU-R BT.601), which is lossy; gray ones stay as they are"
    if encodings[0] == "jpeg":
        yield "images become JPEG files (quality 95, 4:4:4), which is lossy; JPEG files pass through as they are"


def label_counts(summary: FileSummary) -> dict[int, int]:
    """Rows of a file by label, -1 for unlabelled, ordered by label."""
    counts: dict[int, int] = {}
    for chunk in summary.chunks:
        for label, n in chunk.items():
            counts[label] = counts.get(label, 0) + n
    return {label: counts[label] for label in sorted(counts, key=lambda label: (label == UNLABELLED, label))}
