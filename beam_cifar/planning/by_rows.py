"""Plans jobs that need the whole dataset, row by row: splits, samples, sorting, several datasets.

Like `beam_cifar.planning.by_counts` it reads no pixels unless a step asks for their digests. It keeps 24 bytes per
row in memory, plus ids and file names if they are needed; the columns are in `beam_cifar.data.row_table`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from beam_cifar.data.arrays import BoolArray
from beam_cifar.data.labels import LabelMap
from beam_cifar.data.memory import give_back
from beam_cifar.data.row_table import View
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.filters.selection import Selection
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import SinkOptions
from beam_cifar.images.encodings import are_pixels
from beam_cifar.naming.components import alike_names
from beam_cifar.naming.image_files import digests, name_digests, whole_digests
from beam_cifar.options import ConvertOptions
from beam_cifar.planning.checks import (
    Held,
    Named,
    lacking,
    losses_of,
    lossy,
    names_that_clash,
    refuse_missing_images,
    refuse_unlabelled,
)
from beam_cifar.planning.copies import told_what_passes
from beam_cifar.planning.cut import Facts, Group, cut, long_first, no_rows_left
from beam_cifar.planning.from_options import steps_of
from beam_cifar.planning.gather import Gathering, look
from beam_cifar.planning.plan import ChosenRows, Plan, Positions, Task
from beam_cifar.planning.quarantine import Quarantine, told
from beam_cifar.planning.survey import Survey

_PIECE = 1 << 16
"""Number of names converted from Arrow at a time."""


def plan_by_rows(
    options: ConvertOptions, sink: Sink, index_dir: str, part_bytes: int | None = None
) -> tuple[tuple[Survey, ...], Plan]:
    """Decides which rows go where; see `beam_cifar.planning.by_counts.make_plan`."""
    encodings = sink.encodings(options)
    sizes = are_pixels(encodings)
    columns = frozenset({"size"} if sizes else ())
    columns |= {"id", "filename"} if sink.can.many_files else set()
    saved = encodings if sink.export_of(options).save_images else ()
    quarantine = Quarantine(saved, options.max_bad) if options.on_error == "quarantine" else None
    gathering, view = look(options.input, steps_of(options), index_dir, columns, sizes=sizes, quarantine=quarantine)
    set_aside = quarantine.found if quarantine else {}
    if not len(view):
        rows = sum(summary.rows for summary in gathering.summaries)
        said = [*gathering.notices, *told(set_aside)]
        notices = f" ({'; '.join(said)})" if said else ""
        paths = " and ".join(each.shown for each in options.input.leaves)
        raise InputError(f"{paths}: nothing to write: none of {counted(rows, 'row')} is left{notices}")
    sink.check_labels(view.table)
    kept = [name for name in view.subset_names if view.subset(name).any() or sink.can.keeps_empty_subsets]
    sink.subsets.check(kept, options)
    if not (sink.can.takes_missing_images or sink.can.many_files):
        refuse_missing_images(options.input.shown, int((~view.has_image).sum()), sink)
    if not sink.can.takes_unlabelled:
        refuse_unlabelled(options.input.shown, int((view.labels < 0).sum()), sink)
    sink_options = SinkOptions(view.table, sink.export_of(options), _strict_names(view, gathering, sink, options))
    if not view.new_ids:  # unchanged, so workers read them from the files
        view = replace(view, ids=None, filenames=None)
    give_back()
    parts: list[Positions] = []
    groups = list(_groups(view, gathering, sink, sink_options, parts))
    held = Held(
        images=bool(view.has_image.any()),
        labelled=bool((view.labels >= 0).any()),
        subsets=[group.subset for group in groups if group.rows],
        formats=[origin.format for origin in gathering.origins],
    )
    losses = losses_of(held, sink, sink_options, strict=options.strict)
    made = cut(groups, gathering.summaries, sink, sink_options, part_bytes)
    left_out = [no_rows_left(name) for name in view.subset_names if name not in kept]
    files = (summary.file for summary in gathering.summaries)
    plan = Plan(
        files=told_what_passes(files, saved, changes_pixels=gathering.changes_pixels),
        origins=tuple(gathering.origins),
        selection=Selection(view.table.names),
        label_map=LabelMap(tuple(range(len(view.table.names))), view.table),
        shards=made.shards,
        tasks=long_first(made.tasks),
        sink=sink_options,
        encodings=saved,
        pixel_steps=tuple(gathering.pixel_steps) if saved else (),
        declared=sum(summary.rows for summary in gathering.summaries),
        exhaustive=True,
        image_bytes=sum(group.bytes for group in groups),
        notices=(
            *gathering.notices,
            *told(set_aside),
            *left_out,
            *alike_names(view.table.names[label] for label in np.unique(view.labels).tolist() if label >= 0),
            *lossy(encodings, sink),
            *lacking(losses, sink),
            *sink.lost_names(view.table, kept, options),
            *sink.notices(sink_options),
        ),
        losses=losses,
        file_bytes=gathering.file_bytes(),
        counts=gathering.counts(view),
        chosen=ChosenRows(view, tuple(parts)),
        set_aside=set_aside,
    )
    return tuple(gathering.surveys), plan


def _strict_names(view: View, gathering: Gathering, sink: Sink, options: ConvertOptions) -> frozenset[int]:
    """Returns digests of short names that several images of one folder would share."""
    if not sink.can.many_files or view.ids is None or view.filenames is None:
        return frozenset()
    missing = ~view.has_image
    if missing.any():
        first = int(np.flatnonzero(missing)[0])
        shown = gathering.summaries[view.files[first]].file.shown
        refuse_missing_images(shown, int(missing.sum()), sink, first=int(view.rows[first]))
    pieces = []
    for start in range(0, len(view), _PIECE):
        ids, filenames = (column.slice(start, _PIECE).to_pylist() for column in (view.ids, view.filenames))
        wholes = whole_digests(ids)
        pieces.append((digests(ids), wholes if sink.can.ids_are_paths else name_digests(ids, filenames), wholes))
    named = Named(view.subsets, view.labels, *map(np.concatenate, zip(*pieces, strict=True)))

    def place(at: int) -> str:
        return f"{view.ids[at].as_py()!r} in subset {view.subset_names[view.subsets[at]]!r}"  # type: ignore[index]

    return names_that_clash(named, view.subset_names, sink, options, place)


def _groups(
    view: View, gathering: Gathering, sink: Sink, options: SinkOptions, parts: list[Positions]
) -> Iterator[_Rows]:
    """Yields the rows of each output subset, in order."""
    members: dict[str, list[Positions]] = {}
    for number, name in enumerate(view.subset_names):
        found = np.flatnonzero(view.subsets == number)
        if len(found) or sink.can.keeps_empty_subsets:
            members.setdefault(sink.subsets.output(name, options.export), []).append(found)
    pictured = view.has_image
    pixels = gathering.changes_pixels or are_pixels(sink.encodings(options.export))
    for subset, found_in in members.items():
        rows = np.concatenate(found_in)
        nbytes = _image_bytes(view, rows, pictured, gathering, pixels=pixels)
        yield _Rows(subset, len(rows), nbytes, rows, view, pictured, gathering, parts)


def _image_bytes(view: View, rows: Positions, pictured: BoolArray, gathering: Gathering, *, pixels: bool) -> int:
    """Returns the approximate image bytes of some rows as they reach the writer."""
    if gathering.changes_pixels and view.heights is not None and view.widths is not None:
        areas = view.heights[rows].astype(np.int64) * view.widths[rows]
        return int(3 * areas[pictured[rows]].sum())
    counts = np.bincount(view.files[rows], minlength=len(gathering.summaries)).tolist()
    return sum(
        (summary.pixel_bytes if pixels else summary.image_bytes) * n // max(1, summary.rows)
        for n, summary in zip(counts, gathering.summaries, strict=True)
    )


@dataclass(frozen=True, eq=False)
class _Rows(Group):
    """Some rows of a view.

    Attributes:
        members: their positions in the view.
        view: all rows.
        pictured: bool `[N]`, which rows of the view have an image.
        gathering: what is known about the input.
        parts: collects the row positions of each task.
    """

    members: Positions
    view: View
    pictured: BoolArray
    gathering: Gathering
    parts: list[Positions]

    def facts(self, start: int, stop: int) -> Facts:
        rows = self.members[start:stop]
        files, pictured = np.unique(self.view.files[rows]).tolist(), self.pictured[rows]
        return Facts(
            size=self._size(rows, files) if len(rows) and pictured.all() else None,
            has_images=bool(pictured.any()),
            file=files[0] if len(files) == 1 and self._is_subset_of(files[0], rows) else None,
        )

    def _is_subset_of(self, file: int, rows: Positions) -> bool:
        """Returns whether all given rows still belong to the subset of a file."""
        subset = self.view.subsets[rows[0]]
        same = self.view.subset_names[subset] == self.gathering.summaries[file].file.subset
        return same and bool((self.view.subsets[rows] == subset).all())

    def _size(self, rows: Positions, files: Sequence[int]) -> tuple[int, int] | None:
        """Returns the (height, width) that the images of some rows share, or None; every row has an image."""
        if self.view.heights is None or self.view.widths is None:
            sizes = {self.gathering.summaries[file].size for file in files}
            return sizes.pop() if len(sizes) == 1 else None
        height, width = self.view.heights[rows], self.view.widths[rows]
        one = (height == height[0]).all() and (width == width[0]).all()
        return (int(height[0]), int(width[0])) if one else None

    def filled(self, task: Task, start: int, stop: int) -> Task:
        self.parts.append(self.members[start:stop])
        return replace(task, chosen=len(self.parts) - 1)

    def is_whole(self, start: int, stop: int) -> bool:
        view, gathering, rows = self.view, self.gathering, self.members[start:stop]
        number = int(view.files[rows[0]])
        return bool(
            not gathering.changes_pixels
            and not view.new_ids
            and gathering.origins[gathering.summaries[number].file.source].labels == view.table
            and (view.rows[rows] == np.arange(len(rows))).all()
            and (view.labels[rows] == gathering.labels_of(number)).all()
        )
