"""The plan of a job that selects by what each row says, from counts per file: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from beam_cifar.data.labels import UNLABELLED, merged_away, remap_table, split_renamings
from beam_cifar.errors import InputError
from beam_cifar.filters.selection import Selection
from beam_cifar.filters.xpath import ItemFilter
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import Catalog, FileSummary, SinkOptions, Wanted
from beam_cifar.images.encodings import are_pixels
from beam_cifar.options import ConvertOptions
from beam_cifar.planning.checks import check_shards, lossy, refuse_missing_images, refuse_unlabelled
from beam_cifar.planning.cut import Chosen, Cutter, choose, reading_tasks
from beam_cifar.planning.inputs import Origin
from beam_cifar.planning.name_clashes import clashing_names
from beam_cifar.planning.plan import Plan, Segment, Task
from beam_cifar.planning.summaries import duplicates, label_counts, learn_parents, refuse_bad_rows, select_files
from beam_cifar.steps.base import PixelStep
from beam_cifar.steps.pixels import Resize

__all__ = ["Plan", "Segment", "Task", "learn_parents", "make_plan", "reading_tasks", "select_files"]


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


def _grouped(sources: list[Chosen], sink: Sink, options: ConvertOptions) -> list[tuple[str, list[Chosen]]]:
    """Numbers the sources and puts those of one output subset together, in order of appearance."""
    sink.subsets.check([source.summary.file.subset for source in sources], options)
    groups: dict[str, list[Chosen]] = {}
    for index, source in enumerate(sources):
        sources[index] = replace(source, index=index)
        groups.setdefault(sink.subsets.output(source.summary.file.subset, options), []).append(sources[index])
    return list(groups.items())


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
