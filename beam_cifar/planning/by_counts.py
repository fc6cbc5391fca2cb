"""Plans jobs that select rows independently: works from row counts per label, before any pixel is read."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from beam_cifar.data.grouping import by_key
from beam_cifar.data.labels import UNLABELLED, LabelMap, merged_away, remap_table, split_renamings
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.filters.selection import Selection
from beam_cifar.filters.xpath import ItemFilter
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import CHUNK_ROWS, Catalog, FileSummary, RowNames, SinkOptions, Wanted
from beam_cifar.images.encodings import are_pixels
from beam_cifar.naming.components import alike_names
from beam_cifar.options import ConvertOptions
from beam_cifar.planning.checks import (
    Held,
    Named,
    lacking,
    losses_of,
    lossy,
    names_that_clash,
    refuse_bad_rows,
    refuse_missing_images,
    refuse_unlabelled,
    refuse_unreadable,
)
from beam_cifar.planning.copies import told_what_passes
from beam_cifar.planning.cut import Facts, Group, cut, long_first
from beam_cifar.planning.plan import Origin, Plan, Segment, Task
from beam_cifar.planning.summaries import duplicates, label_counts, learn_parents, without_images
from beam_cifar.steps.base import PixelStep
from beam_cifar.steps.pixels import Resize


def wanted_of(sink: Sink, options: ConvertOptions) -> Wanted:
    """Returns what a plan needs from the file summaries."""
    return Wanted(
        filter=item_filter(options),
        sizes=are_pixels(sink.encodings(options)) and options.resize is None,
        names=sink.can.many_files,
        lenient=True,
    )


def item_filter(options: ConvertOptions) -> ItemFilter | None:
    """Returns the XPath filter of a job, or None. Raises `UsageError`."""
    return None if options.filter is None else ItemFilter(options.filter, options.filter_mode)


def make_plan(
    catalog: Catalog,
    summaries: Sequence[FileSummary],
    sink: Sink,
    options: ConvertOptions,
    part_bytes: int | None = None,
) -> Plan:
    """Decides which rows go where.

    Args:
        catalog: files and labels of the input.
        summaries: one per selected file, in order, with everything `wanted_of` asks for.
        sink: format to write.
        options: options of the job.
        part_bytes: image bytes per part, for shards with several parts; default: chosen by the format.

    Raises:
        InputError: there are bad rows, or selected ones without a valid header; superclasses conflict, or no row is
            selected.
        UsageError: a label is unknown, or the format cannot represent a file.
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
        pixel_steps = (Resize(height=options.resize[0], width=options.resize[1]),)
        summaries = [_resized(summary, options.resize) for summary in summaries]
    sources = list(choose(summaries, selection, options.limit, pixels=are_pixels(encodings)))
    if not any(source.take for source in sources) or _loses_all_labels(summaries, options):
        raise InputError(f"{catalog.path}: {_nothing_left(summaries, options, selection)}")
    # A limit may end before such a row; if not, the part that takes the row refuses it.
    whole = [source.summary for source in sources if source.take == source.survivors]
    refuse_unreadable(bad for each in whole for bad in each.unreadable if selection.keeps_label(bad.label))
    sink_options = SinkOptions(
        labels=label_map.table,
        export=sink.export_of(options),
        strict_names=_strict_names(sources, selection, label_map, sink, options)
        if sink.can.many_files
        else frozenset(),
    )
    _refuse_incomplete(sources, selection, sink)
    loses_labels = selection.filter is not None and selection.filter.mode != "items"
    changed = not label_map.is_identity or label_map.table.parents != labels.parents or loses_labels
    groups = _groups(sources, sink, options, unchanged=not changed and options.resize is None)
    held = Held(
        images=any(source.take and source.summary.images for source in sources),
        labelled=any(
            source.take and _has_labels(source.summary) and source.summary.kept_labels != 0 for source in sources
        ),
        subsets=[group.subset for group in groups if group.rows],
        formats=(catalog.format,),
    )
    losses = losses_of(held, sink, sink_options, strict=options.strict)
    made = cut(groups, [source.summary for source in sources], sink, sink_options, part_bytes)
    tasks = _counting_all(made.tasks, [group for group in groups if group in made.left_out])
    written = encodings if sink_options.export.save_images else ()
    files = (source.summary.file for source in sources)
    return Plan(
        files=told_what_passes(files, written, changes_pixels=bool(pixel_steps)),
        origins=(Origin(catalog.format, labels),),
        selection=selection,
        label_map=label_map,
        shards=made.shards,
        tasks=long_first(tasks),
        sink=sink_options,
        encodings=written,
        pixel_steps=pixel_steps if sink_options.export.save_images else (),
        declared=sum(source.summary.rows for source in sources),
        exhaustive=all(source.take == source.survivors for source in sources),
        image_bytes=sum(source.bytes for source in sources),
        notices=(
            *catalog.notices,
            *duplicates(summaries),
            *without_images(catalog, summaries),
            *merged_away(label_map, labels),
            *alike_names(label_map.table.names[target] for target in sorted(set(label_map.targets))),
            *made.notices,
            *lossy(encodings, sink),
            *lacking(losses, sink),
            *sink.lost_names(label_map.table, [source.summary.file.subset for source in sources], options),
            *sink.notices(sink_options),
        ),
        losses=losses,
    )


def _resized(summary: FileSummary, size: tuple[int, int]) -> FileSummary:
    """Returns the summary of a file after all its images are resized, as raw pixels."""
    nbytes = summary.images * 3 * size[0] * size[1]
    whole = size if summary.images == summary.rows else None
    return replace(summary, size=whole, image_bytes=nbytes, pixel_bytes=nbytes, copyable_as="")


def _groups(sources: list[Selected], sink: Sink, options: ConvertOptions, *, unchanged: bool) -> list[_Survivors]:
    """Returns one group per output subset, in order of appearance."""
    sink.subsets.check([source.summary.file.subset for source in sources], options)
    groups = by_key((sink.subsets.output(source.summary.file.subset, options), source) for source in sources)
    return [
        _Survivors(
            subset,
            rows=sum(source.take for source in members),
            bytes=sum(source.bytes for source in members),
            files=[source.summary for source in sources],
            members=members,
            ends=list(itertools.accumulate(source.take for source in members)),
            unchanged=unchanged,
        )
        for subset, members in groups.items()
    ]


def _counting_all(tasks: Sequence[Task], left_out: Sequence[_Survivors]) -> list[Task]:
    """Returns the tasks, with files that keep no row added to the last one so that their rows are counted."""
    unowned = tuple(segment for group in left_out for segment in group.segments(0, 0))
    *most, last = tasks
    return [*most, replace(last, segments=(*last.segments, *unowned), copy=last.copy and not unowned)]


def _refuse_incomplete(sources: Sequence[Selected], selection: Selection, sink: Sink) -> None:
    """Rejects rows without an image or label if the format needs one, as far as counts can show it."""
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
        return "nothing to write: the selected files have no rows"
    asked = [f"has label {' or '.join(map(repr, options.labels))}"] if options.labels else []
    if selection.filter is not None:
        asked.append(f"passes the filter {options.filter!r}{selection.filter.hint(selection.names)}")
    return f"nothing to write: none of {counted(rows, 'row')} {' and '.join(asked)}"


def _loses_all_labels(summaries: Sequence[FileSummary], options: ConvertOptions) -> bool:
    """Returns whether an annotation filter drops every label there is: most likely a misspelt class."""
    if options.filter is None or options.filter_mode == "items":
        return False
    return any(map(_has_labels, summaries)) and not any(summary.kept_labels for summary in summaries)


def _has_labels(summary: FileSummary) -> bool:
    return any(label != UNLABELLED for chunk in summary.chunks for label in chunk)


@dataclass(frozen=True)
class Selected:
    """A file summary, and how many of its rows survive the selection.

    Attributes:
        index: index of the file in the plan.
        summary: summary of the file.
        cumulative: number of survivors before each chunk, then in total.
        take: number of survivors to take.
        image_bytes: approximate bytes of all its images as they reach the writer.
    """

    index: int
    summary: FileSummary
    cumulative: tuple[int, ...]
    take: int
    image_bytes: int

    @property
    def survivors(self) -> int:
        """Number of rows that survive the selection."""
        return self.cumulative[-1]

    @property
    def bytes(self) -> int:
        """Approximate bytes of the images taken."""
        return self.image_bytes * self.take // max(1, self.summary.rows)

    def segment(self, begin: int, end: int) -> Segment:
        """Returns the segment with survivors [begin, end); a file without survivors is one empty segment."""
        first = 0 if begin == 0 else self._chunk_of(begin - 1)
        if begin and self.cumulative[first + 1] == begin:
            first += 1
        last = len(self.cumulative) - 2 if end == self.survivors else self._chunk_of(end - 1)
        start, stop = first * CHUNK_ROWS, min((last + 1) * CHUNK_ROWS, self.summary.rows)
        return Segment(self.index, start, stop, begin - self.cumulative[first], end - begin)

    def _chunk_of(self, survivor: int) -> int:
        """Returns the index of the chunk that contains a survivor."""
        return bisect.bisect_right(self.cumulative, survivor) - 1


def choose(
    summaries: Sequence[FileSummary], selection: Selection, limit: int | None, *, pixels: bool
) -> Iterator[Selected]:
    """Yields what a selection and a limit keep of each file.

    Args:
        summaries: one per file, in order.
        selection: decides which rows are kept.
        limit: maximum number of rows, counted from the first; default: all.
        pixels: whether images reach the writer as raw pixels.
    """
    left = limit
    for index, summary in enumerate(summaries):
        kept = (selection.count(chunk) for chunk in summary.chunks)
        cumulative = (0, *itertools.accumulate(kept)) if summary.chunks else (0, 0)
        if left == 0:
            return
        take = cumulative[-1] if left is None else min(left, cumulative[-1])
        left = None if left is None else left - take
        yield Selected(index, summary, cumulative, take, summary.pixel_bytes if pixels else summary.image_bytes)


@dataclass(frozen=True, eq=False)
class _Survivors(Group):
    """The surviving rows of some files, one file after the other.

    Attributes:
        files: all files of the plan.
        members: files of this group.
        ends: cumulative number of rows taken at the end of each member.
        unchanged: whether rows are written as they were read.
    """

    files: Sequence[FileSummary]
    members: Sequence[Selected]
    ends: Sequence[int]
    unchanged: bool

    def segments(self, start: int, stop: int) -> list[Segment]:
        """Returns segments for the survivors [start, stop), and for files without survivors that follow them."""
        first = bisect.bisect_right(self.ends, start) if start else 0
        found = []
        for at in range(first, len(self.members)):
            source, begin = self.members[at], self.ends[at] - self.members[at].take
            if begin > stop or (begin == stop and source.take):
                break
            found.append(source.segment(max(start - begin, 0), min(stop - begin, source.take)))
        return found

    def facts(self, start: int, stop: int) -> Facts:
        used = [segment.file for segment in self.segments(start, stop) if segment.take or start == stop]
        sizes = {self.files[file].size for file in used if self.files[file].rows}
        return Facts(
            size=sizes.pop() if start < stop and len(sizes) == 1 else None,
            has_images=start < stop and any(self.files[file].images for file in used),
            file=used[0] if len(used) == 1 else None,
        )

    def filled(self, task: Task, start: int, stop: int) -> Task:
        return replace(task, segments=tuple(self.segments(start, stop)))

    def is_whole(self, start: int, stop: int) -> bool:
        return self.unchanged and len(self.segments(start, stop)) == 1


def _strict_names(
    sources: Sequence[Selected], selection: Selection, label_map: LabelMap, sink: Sink, options: ConvertOptions
) -> frozenset[int]:
    """Returns digests of short names that several images of one folder would share.

    Raises:
        InputError: a row has no image.
        UsageError: two images of one folder also have the same id, so no name can distinguish them.
    """
    taken = [(source.summary.file, *_names_taken(source, selection)) for source in sources]
    for file, names, rows in taken:
        if len(missing := rows[~names.images[rows]]):
            hint = "--filter '/item[image]'" if selection.filter is None else "'and image' in the filter"
            refuse_missing_images(file.shown, len(missing), sink, hint, first=int(names.rows[missing[0]]))
    targets = np.array([*label_map.targets, UNLABELLED], dtype=np.int64)
    counts = [len(rows) for _, _, rows in taken]
    named = Named(
        subsets=np.repeat(np.arange(len(taken)), counts),
        labels=np.concatenate([targets[names.kept_labels[rows]] for _, names, rows in taken]),
        ids=np.concatenate([names.ids[rows] for _, names, rows in taken]),
        names=np.concatenate([names.names[rows] for _, names, rows in taken]),
        wholes=np.concatenate([names.wholes[rows] for _, names, rows in taken]),
    )

    def place(position: int) -> str:
        number = int(named.subsets[position])
        file, names, rows = taken[number]
        return f"{file.shown} row {names.rows[rows[position - sum(counts[:number])]]}"

    return names_that_clash(named, [file.subset for file, _, _ in taken], sink, options, place)


def _names_taken(source: Selected, selection: Selection) -> tuple[RowNames, npt.NDArray[np.int64]]:
    """Returns the names of a file's rows, and the positions of the rows taken among them."""
    names = source.summary.row_names
    if names is None:
        raise ValueError(f"{source.summary.file.shown}: the scan returned no names")
    if selection.labels is None:
        return names, np.arange(source.take)
    return names, np.flatnonzero(np.isin(names.labels, sorted(selection.labels)))[: source.take]
