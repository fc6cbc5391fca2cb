"""The plan of a job that looks at the whole set, row by row: splits, samples, orders, several data sets.

Like `beam_cifar.planning.by_counts` it reads no pixels, unless a step asks for digests of them. It holds 24 bytes a
row, and the ids and file names where something needs them; `beam_cifar.data.row_table` has the columns.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from beam_cifar.data.labels import LabelMap
from beam_cifar.data.memory import give_back
from beam_cifar.data.row_table import View
from beam_cifar.errors import InputError
from beam_cifar.filters.selection import Selection
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import Shard, SinkOptions
from beam_cifar.images.encodings import are_pixels
from beam_cifar.naming.collisions import strict_names
from beam_cifar.naming.image_files import digests, name_digests, whole_digests
from beam_cifar.options import ConvertOptions
from beam_cifar.planning.checks import check_shards, lossy, one_file, refuse_missing_images, refuse_unlabelled
from beam_cifar.planning.chosen_rows import ChosenRows, Positions
from beam_cifar.planning.cut import new_shard
from beam_cifar.planning.from_options import steps_of
from beam_cifar.planning.gather import Gathering, look
from beam_cifar.planning.plan import Plan, Segment, Task
from beam_cifar.planning.survey import Survey

_PIECE = 1 << 16
"""Names that are taken out of Arrow together."""


def plan_by_rows(
    options: ConvertOptions, sink: Sink, index_dir: str, part_bytes: int | None = None
) -> tuple[tuple[Survey, ...], Plan]:
    """Decides which rows go where; see `beam_cifar.planning.by_counts.make_plan`."""
    encodings = sink.encodings(options)
    sizes = are_pixels(encodings)
    columns = frozenset({"size"} if sizes else ())
    columns |= {"id", "filename"} if sink.can.many_files else set()
    gathering, view = look(options.input, steps_of(options), index_dir, columns, sizes=sizes)
    if not len(view):
        rows = sum(summary.rows for summary in gathering.summaries)
        notices = f" ({'; '.join(gathering.notices)})" if gathering.notices else ""
        paths = " and ".join(each.shown for each in options.input.leaves)
        raise InputError(f"{paths}: the selection leaves nothing of {rows} rows{notices}")
    sink.check_labels(view.table)
    kept = [name for name in view.subset_names if view.subset(name).any() or sink.can.keeps_empty_subsets]
    sink.subsets.check(kept, options)
    if not (sink.can.takes_missing_images or sink.can.many_files):
        refuse_missing_images(options.input.shown, int((~view.has_image).sum()), sink)
    if not sink.can.takes_unlabelled:
        refuse_unlabelled(options.input.shown, int((view.labels < 0).sum()), sink)
    sink_options = SinkOptions(view.table, sink.export_of(options), _strict(view, gathering, sink, options))
    if not view.new_ids:  # workers read them from the files
        view = replace(view, ids=None, filenames=None)
    give_back()
    layout = _Layout(view, gathering, sink, sink_options, part_bytes or sink.can.part_bytes)
    check_shards(layout.shards, sink, sink_options)
    save_images = sink_options.export.save_images
    tasks = layout.tasks if gathering.changes_pixels else [layout.copied(task) for task in layout.tasks]
    plan = Plan(
        files=tuple(summary.file for summary in gathering.summaries),
        origins=tuple(gathering.origins),
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


def _strict(view: View, gathering: Gathering, sink: Sink, options: ConvertOptions) -> frozenset[int]:
    """Digests of short names that several images of one folder would get."""
    if not sink.can.many_files or view.ids is None or view.filenames is None:
        return frozenset()
    missing = ~view.has_image
    if missing.any():
        first = int(np.flatnonzero(missing)[0])
        shown = gathering.summaries[view.files[first]].file.shown
        refuse_missing_images(shown, int(missing.sum()), sink, first=int(view.rows[first]))
    groups = {name: sink.subsets.group(sink.subsets.output(name, options)) for name in view.subset_names}
    numbers = {group: at for at, group in enumerate(dict.fromkeys(groups.values()))}
    places = np.array([numbers[groups[name]] for name in view.subset_names], dtype=np.int64)
    classes = len(view.table.names) + 1
    folders = places[view.subsets] * classes + (view.labels + 1 if sink.can.classes_are_folders else 0)
    pieces = []
    for start in range(0, len(view), _PIECE):
        ids, filenames = (column.slice(start, _PIECE).to_pylist() for column in (view.ids, view.filenames))
        wholes = whole_digests(ids)
        names = wholes if sink.can.ids_are_paths else name_digests(ids, filenames)
        pieces.append((names, digests(ids), wholes))
    strict, twice = strict_names(folders, *(np.concatenate(column) for column in zip(*pieces, strict=True)))
    if twice:
        where = [f"{view.ids[at].as_py()!r} of subset {view.subset_names[view.subsets[at]]!r}" for at in twice]
        raise one_file(where[0], where[1], sink)
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
        pixels = are_pixels(sink.encodings(options.export)) or gathering.changes_pixels
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
        number = int(self._view.files[part[0]])
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
            if not len(found) and not self._sink.can.keeps_empty_subsets:
                self.notices.append(f"subset {name!r} has no rows left and is not written")
                continue
            members.setdefault(self._sink.subsets.output(name, export), []).append(found)
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
