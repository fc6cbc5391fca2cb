"""From summaries of the input to a list of tasks: pure, and decided before any pixel is read."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.base import (
    CHUNK_ROWS,
    Catalog,
    FileSummary,
    Shard,
    Sink,
    SinkOptions,
    SourceFile,
    Wanted,
    split_name,
)
from beam_cifar.labels import (
    UNLABELLED,
    LabelMap,
    LabelTable,
    parent_conflict,
    remap_table,
    split_renamings,
    unknown_name,
)
from beam_cifar.options import ConvertOptions, ExportOptions
from beam_cifar.selection import Selection

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from beam_cifar.xpath import ItemFilter


@dataclass(frozen=True)
class Segment:
    """Some rows of one input file.

    Of the rows [start, stop), those that survive the selection are numbered; the segment takes the survivors
    [skip, skip + take) and owns the filtered rows before each of them, and those after the last survivor of the
    range. So every row belongs to exactly one task, in the counts as well.

    Attributes:
        file: index in `Plan.files`.
        start: first row of the range.
        stop: end of the range.
        skip: survivors that belong to an earlier task.
        take: survivors to take.
    """

    file: int
    start: int
    stop: int
    skip: int
    take: int

    def owned(self, survives: Sequence[bool]) -> tuple[int, int]:
        """The rows [first, end) that the segment owns.

        Args:
            survives: for each row of [start, stop) whether it passes the selection.
        """
        ends = [self.start + row + 1 for row, kept in enumerate(survives) if kept]
        first = self.start if self.skip == 0 else ends[self.skip - 1]
        end = self.stop if self.skip + self.take == len(ends) else ends[self.skip + self.take - 1]
        return first, end


@dataclass(frozen=True)
class Task:
    """One part of the output: which rows go there, in which order.

    Attributes:
        shard: index in `Plan.shards`.
        part: number within the shard.
        rows: that the part will hold.
        segments: where they come from.
        copy: whether the part is the source file itself, byte for byte.
    """

    shard: int
    part: int
    rows: int
    segments: tuple[Segment, ...]
    copy: bool = False


@dataclass(frozen=True)
class Plan:
    """Everything that a job will do.

    Attributes:
        files: input files that are read.
        labels: label table of the source, superclasses filled in.
        selection: which rows are kept.
        label_map: where labels go.
        shards: files of the output.
        tasks: long ones first.
        sink: what writers need to know.
        encodings: how images may lie in blocks when they reach the writer; empty where images are left out.
        resize: (height, width) that every image gets, or None.
        declared: rows of all input files that are read.
        exhaustive: whether all of those are read (a limit stops early).
        image_bytes: raw bytes of the images kept, about.
        notices: things that a user should know.
    """

    files: tuple[SourceFile, ...]
    labels: LabelTable
    selection: Selection
    label_map: LabelMap
    shards: tuple[Shard, ...]
    tasks: tuple[Task, ...]
    sink: SinkOptions
    encodings: tuple[str, ...]
    resize: tuple[int, int] | None
    declared: int
    exhaustive: bool
    image_bytes: int
    notices: tuple[str, ...]

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
        sizes="raw" in sink.encodings(options) or options.resize is not None,
        names=sink.many_files,
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
    _refuse_bad_rows(summaries)
    labels = learn_parents(catalog, summaries)
    keep = labels.select(options.labels) if options.labels else None
    selection = Selection(labels.names, keep, item_filter(options))
    label_map = remap_table(labels, split_renamings(labels, options.remaps))
    sink.check_labels(label_map.table)
    encodings = sink.encodings(options)
    if options.resize is not None:
        summaries = [_resized(summary, options.resize) for summary in summaries]
    sources = list(_sources(summaries, selection, options.limit, pixels="raw" in encodings))
    if not any(source.take for source in sources):
        raise InputError(f"{catalog.path}: {_nothing_left(summaries, options, selection)}")
    sink_options = SinkOptions(
        labels=label_map.table,
        export=ExportOptions(**{**options.export_options(), "save_images": sink.needs_images or options.save_images}),
        strict_names=clashing_names(sources, selection, label_map, sink) if sink.many_files else frozenset(),
    )
    cutter = _Cutter(sink, sink_options, part_bytes or sink.part_bytes, sum(source.bytes for source in sources))
    for subset, members in _grouped(sources, sink, options):
        cutter.cut(subset, members)
    if not sink.many_files:
        _refuse_clashes([shard.path for shard in cutter.shards], sink)
    tasks = cutter.finished_tasks()
    changed = not label_map.is_identity or label_map.table.parents != labels.parents or selection.filter is not None
    if not changed and options.resize is None:
        tasks = [replace(task, copy=cutter.is_copy(task, sources)) for task in tasks]
    return Plan(
        files=tuple(source.summary.file for source in sources),
        labels=labels,
        selection=selection,
        label_map=label_map,
        shards=tuple(cutter.shards),
        tasks=tuple(sorted(tasks, key=lambda task: (-task.rows, task.shard, task.part))),
        sink=sink_options,
        encodings=encodings if sink_options.export.save_images else (),
        resize=options.resize,
        declared=sum(source.summary.rows for source in sources),
        exhaustive=all(source.take == source.survivors for source in sources),
        image_bytes=sum(source.bytes for source in sources),
        notices=(
            *catalog.notices,
            *_duplicates(summaries),
            *_emptied(label_map, labels),
            *cutter.notices,
            *_lossy(encodings),
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
    _refuse_bad_rows(summaries)
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


@dataclass(frozen=True)
class _Source:
    """A summary with what the selection leaves of it.

    Attributes:
        index: its number among the files of the plan.
        summary: of the file.
        cumulative: survivors up to each chunk.
        take: how many of them to take.
        image_bytes: of all its images, as they reach the writer, about.
    """

    index: int
    summary: FileSummary
    cumulative: tuple[int, ...]
    take: int
    image_bytes: int

    @property
    def survivors(self) -> int:
        return self.cumulative[-1]

    @property
    def bytes(self) -> int:
        return self.image_bytes * self.take // max(1, self.summary.rows)

    def segment(self, begin: int, end: int) -> Segment:
        """The segment that takes survivors [begin, end); a file without survivors is one segment that takes none."""
        first = 0 if begin == 0 else self._chunk_of(begin - 1)
        if begin and self.cumulative[first + 1] == begin:
            first += 1
        last = len(self.cumulative) - 2 if end == self.survivors else self._chunk_of(end - 1)
        start, stop = first * CHUNK_ROWS, min((last + 1) * CHUNK_ROWS, self.summary.rows)
        return Segment(self.index, start, stop, begin - self.cumulative[first], end - begin)

    def _chunk_of(self, survivor: int) -> int:
        """The chunk that holds a survivor."""
        return bisect.bisect_right(self.cumulative, survivor) - 1


def _sources(
    summaries: Sequence[FileSummary], selection: Selection, limit: int | None, *, pixels: bool
) -> Iterator[_Source]:
    left = limit
    for summary in summaries:
        kept = (selection.count(chunk) for chunk in summary.chunks)
        cumulative = (0, *itertools.accumulate(kept)) if summary.chunks else (0, 0)
        if left == 0:
            return
        take = cumulative[-1] if left is None else min(left, cumulative[-1])
        left = None if left is None else left - take
        yield _Source(0, summary, cumulative, take, summary.pixel_bytes if pixels else summary.image_bytes)


def clashing_names(sources: Sequence[_Source], selection: Selection, label_map: LabelMap, sink: Sink) -> frozenset[int]:
    """Digests of short names that several images of one folder would get.

    Raises:
        InputError: a row without image.
        UsageError: two images of one folder have the same id as well, which nothing can tell apart.
    """
    import numpy as np

    from beam_cifar.row_names import strict_names

    _refuse_missing_images(sources, selection, sink)
    folders, names, ids = (np.concatenate(c) for c in zip(*_named(sources, selection, label_map, sink), strict=True))
    strict, twice = strict_names(folders, names, ids)
    if twice:
        where = [_place(sources, selection, position) for position in twice]
        raise UsageError(
            f"{where[0]} and {where[1]} would be one file, because ids repeat between subsets and {sink.name} keeps "
            "all subsets in one folder; convert one --subset at a time, or to imagenet_with_subset_dirs"
        )
    return strict


def _named(
    sources: Sequence[_Source], selection: Selection, label_map: LabelMap, sink: Sink
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64], npt.NDArray[np.uint64]]]:
    """For each source, of each image taken: a number for its folder, the digests of its short name and of its id."""
    import numpy as np

    targets = np.array([*label_map.targets, UNLABELLED], dtype=np.int64)
    groups: dict[str, int] = {}
    for source in sources:
        rows, taken = source.summary.row_names, _taken(source, selection)
        if rows is None:
            raise ValueError(f"{source.summary.file.shown}: the scan gave no names")
        group = groups.setdefault(sink.name_groups(source.summary.file.subset), len(groups))
        folders = targets[rows.kept_labels[taken]] + (group * len(targets) + 1)
        yield folders, rows.names[taken], rows.ids[taken]


def _taken(source: _Source, selection: Selection) -> npt.NDArray[np.int64]:
    """Positions among `RowNames` of the rows that are taken of a source."""
    import numpy as np

    labels = source.summary.row_names.labels  # type: ignore[union-attr]
    if selection.labels is None:
        return np.arange(source.take)
    return np.flatnonzero(np.isin(labels, sorted(selection.labels)))[: source.take]


def _refuse_missing_images(sources: Sequence[_Source], selection: Selection, sink: Sink) -> None:
    for source in sources:
        taken, names = _taken(source, selection), source.summary.row_names
        missing = taken[~names.images[taken]]  # type: ignore[union-attr]
        if len(missing):
            expression = "/item[image]" if selection.filter is None else "the filter with 'and image'"
            raise InputError(
                f"{source.summary.file.shown}: row {names.rows[missing[0]]}: has no image, and {sink.name} is made of "  # type: ignore[union-attr]
                f"images ({len(missing)} such rows in this file); leave them out by --filter {expression}"
            )


def _place(sources: Sequence[_Source], selection: Selection, position: int) -> str:
    """File and row of an image, given its position among all that are taken."""
    for source in sources:
        if position < source.take:
            rows = source.summary.row_names.rows  # type: ignore[union-attr]
            return f"{source.summary.file.shown} row {rows[_taken(source, selection)[position]]}"
        position -= source.take
    raise IndexError(position)


def _grouped(sources: list[_Source], sink: Sink, options: ConvertOptions) -> list[tuple[str, list[_Source]]]:
    """Numbers the sources and puts those of one output subset together, in order of appearance."""
    sink.check_subsets([source.summary.file.subset for source in sources])
    groups: dict[str, list[_Source]] = {}
    for index, source in enumerate(sources):
        sources[index] = replace(source, index=index)
        groups.setdefault(sink.output_subset(source.summary.file.subset, options), []).append(sources[index])
    return list(groups.items())


class _Cutter:
    """Cuts the rows of each output subset into shards, parts and segments."""

    def __init__(self, sink: Sink, sink_options: SinkOptions, part_bytes: int | None, total_bytes: int) -> None:
        self.shards: list[Shard] = []
        self.notices: list[str] = []
        self._tasks: list[Task] = []
        self._unowned: list[Segment] = []
        self._sink, self._sink_options, self._options = sink, sink_options, sink_options.export
        self._part_bytes, self._total_bytes = part_bytes, total_bytes

    def cut(self, subset: str, members: list[_Source]) -> None:
        """Adds the shards and tasks of one subset."""
        rows = sum(source.take for source in members)
        if not rows and not self._sink.keeps_empty_subsets:
            self.notices.append(f"subset {subset!r} has no rows left and is not written")
            self._unowned += [source.segment(0, 0) for source in members]
            return
        image_bytes = sum(source.bytes for source in members)
        step = self._sink.shard_rows(rows, image_bytes, self._total_bytes, self._options)
        count = max(1, -(-rows // step))
        segments = _Segments(members)
        for number in range(count):
            wanted = min(step, rows - number * step)
            self._cut_shard(subset, number, count, wanted, image_bytes // max(1, rows), segments, members)
        self._unowned += segments.rest()

    def _cut_shard(
        self,
        subset: str,
        number: int,
        count: int,
        rows: int,
        row_bytes: int,
        segments: _Segments,
        members: list[_Source],
    ) -> None:
        shard = new_shard(
            self._sink, self._options, self._part_bytes, len(self.shards), (subset, number, count), rows, row_bytes
        )
        taken: list[Segment] = []
        for part in range(shard.parts):
            segments_of_part = segments.take(shard.rows_of(part))
            self._tasks.append(Task(shard.index, part, shard.rows_of(part), tuple(segments_of_part)))
            taken += segments_of_part
        used = {segment.file for segment in taken if segment.take or not rows}
        summaries = [source.summary for source in members if source.index in used]
        sizes = {summary.size for summary in summaries if summary.rows}
        self.shards.append(
            replace(
                shard,
                size=sizes.pop() if len(sizes) == 1 else None,
                has_images=any(summary.images for summary in summaries),
                batch_label=_own_batch_label(count, summaries) or self._sink.batch_label(subset, number, count),
            )
        )

    def finished_tasks(self) -> list[Task]:
        """All tasks; files of which nothing is kept go to the last one, so that their rows are counted."""
        if self._unowned:
            self._tasks[-1] = replace(self._tasks[-1], segments=(*self._tasks[-1].segments, *self._unowned))
        return self._tasks

    def is_copy(self, task: Task, sources: Sequence[_Source]) -> bool:
        """Whether a task takes all rows of one file, and nothing else, into one shard of its own."""
        if len(task.segments) != 1 or self.shards[task.shard].parts != 1:
            return False
        summary = sources[task.segments[0].file].summary
        return (
            task.rows == summary.rows
            and self.shards[task.shard].batch_label == summary.batch_label
            and self._sink.copies(summary, self._sink_options)
        )


def _own_batch_label(count: int, sources: Sequence[FileSummary]) -> str:
    """What a source calls itself, where one file of the output follows one source."""
    return sources[0].batch_label if count == 1 and len(sources) == 1 else ""


def new_shard(
    sink: Sink,
    options: ExportOptions,
    part_bytes: int | None,
    index: int,
    place: tuple[str, int, int],
    rows: int,
    row_bytes: int,
) -> Shard:
    """A shard, of whose images nothing is known yet.

    Args:
        sink: format to write.
        options: of the export.
        part_bytes: bytes of images in a part, or None where a shard is one part.
        index: of the shard.
        place: its output subset, its number among the shards of that, and their count.
        rows: that it will hold.
        row_bytes: of an image, about.

    Raises:
        UsageError: the format cannot hold so much in one file.
    """
    path, limit = sink.shard_path(*place, options), sink.max_shard_bytes
    if limit and options.save_images and rows * row_bytes > limit:
        raise UsageError(
            f"{path} would hold {rows * row_bytes} bytes of pixels, and the format allows {limit} a file; "
            f"pass --images-per-batch {limit // row_bytes} or less"
        )
    part_rows = max(1, part_bytes // max(1, row_bytes)) if part_bytes else rows
    return Shard(index, sink.shard_subset(*place, options), path, rows, part_rows, size=None, has_images=False)


class _Segments:
    """Hands out the survivors of several sources, in order."""

    def __init__(self, sources: list[_Source]) -> None:
        self._sources = sources
        self._at = 0
        self._begin = 0

    def take(self, rows: int) -> list[Segment]:
        """The segments that hold the next `rows` survivors, and files without any that lie between."""
        taken: list[Segment] = []
        while self._at < len(self._sources) and (rows or not self._sources[self._at].take):
            source = self._sources[self._at]
            end = min(source.take, self._begin + rows)
            taken.append(source.segment(self._begin, end))
            rows -= end - self._begin
            self._begin = end
            if end == source.take:
                self._at, self._begin = self._at + 1, 0
        return taken

    def rest(self) -> list[Segment]:
        """Files without survivors that no `take` reached."""
        return [source.segment(0, 0) for source in self._sources[self._at :] if not source.take]


def _refuse_bad_rows(summaries: Sequence[FileSummary]) -> None:
    count = sum(summary.bad_count for summary in summaries)
    if count:
        first = next(bad for summary in summaries for bad in summary.bad_rows)
        more = f" (and {count - 1} more bad rows)" if count > 1 else ""
        raise InputError(f"{first}{more}")


def _refuse_clashes(paths: Sequence[str], sink: Sink) -> None:
    """Two subsets must not be written to one file, nor one over a file of the format's own."""
    taken = set(sink.reserved_paths)
    for path in paths:
        if path in taken:
            raise UsageError(
                f"two files of the output would be called {path!r}; convert the subsets one at a time with --subset"
            )
        taken.add(path)


def _nothing_left(summaries: Sequence[FileSummary], options: ConvertOptions, selection: Selection) -> str:
    rows = sum(summary.rows for summary in summaries)
    if not rows:
        return "the selected files hold no rows"
    asked = [f"has label {' or '.join(map(repr, options.labels))}"] if options.labels else []
    if selection.filter is not None:
        asked.append(f"passes the filter {options.filter!r}{selection.filter.hint(selection.names)}")
    return f"the selection leaves nothing: none of {rows} rows {' and '.join(asked)}"


def _duplicates(summaries: Sequence[FileSummary]) -> Iterator[str]:
    for summary in summaries:
        if summary.duplicates:
            yield (
                f"{summary.file.shown}: {summary.duplicates} rows repeat the file name of an earlier row; "
                f"their ids get a suffix"
            )


def _lossy(encodings: Sequence[str]) -> Iterator[str]:
    if encodings[0] == "jpeg":
        yield "images become JPEG files (quality 95, 4:4:4), which is lossy; JPEG files pass through as they are"


def _emptied(label_map: LabelMap, labels: LabelTable) -> Iterator[str]:
    taken = set(label_map.targets)
    for label in range(len(labels.names)):
        if label not in taken:
            yield f"class {label_map.table.names[label]!r} is merged away; its id stays in the table, without rows"


def label_counts(summary: FileSummary) -> dict[int, int]:
    """Rows of a file by label, -1 for unlabelled, ordered by label."""
    counts: dict[int, int] = {}
    for chunk in summary.chunks:
        for label, n in chunk.items():
            counts[label] = counts.get(label, 0) + n
    return {label: counts[label] for label in sorted(counts, key=lambda label: (label == UNLABELLED, label))}
