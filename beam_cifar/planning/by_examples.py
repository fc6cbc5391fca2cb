"""Decides where each of many unordered examples goes, from a few numbers per example, before any image moves.

`beam_cifar.planning.by_counts` plans jobs over files; this plans `WriteExamples`, whose examples come from any
pipeline. It creates the same shards as a job over files that keeps the same examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from beam_cifar.data.arrays import Int32Array
from beam_cifar.data.grouping import by_key
from beam_cifar.data.row_table import View
from beam_cifar.errors import InputError
from beam_cifar.formats.arrivals import ArrivalsSource, pixel_bytes
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import Shard, SinkOptions, SourceFile
from beam_cifar.images.encodings import are_pixels
from beam_cifar.planning.checks import (
    Held,
    Named,
    losses_of,
    names_that_clash,
    refuse_missing_images,
    refuse_unlabelled,
)
from beam_cifar.planning.cut import Facts, Group, cut, long_first
from beam_cifar.planning.moves import moves_of
from beam_cifar.planning.plan import ChosenRows, Moves, Positions, Task


@dataclass(frozen=True)
class Layout:
    """Where each example goes.

    Attributes:
        shards: files of the output.
        tasks: one per part, longest first.
        chosen: the rows of every part.
        moves: rows that are moved before the tasks start.
        file_bytes: approximate bytes of one image of each file.
        strict_names: as in `SinkOptions`.
        rows: number of examples.
        losses: what the examples have and the output lacks.
    """

    shards: tuple[Shard, ...]
    tasks: tuple[Task, ...]
    chosen: ChosenRows
    moves: Moves
    file_bytes: tuple[int, ...]
    strict_names: frozenset[int]
    rows: int
    losses: tuple[str, ...]


def lay_out(files: Sequence[SourceFile], sink: Sink, options: SinkOptions) -> Layout:
    """Decides on shards and parts.

    Args:
        files: files of `beam_cifar.formats.arrivals` with at least one example, in any order.
        sink: format to write.
        options: options of the writers; `strict_names` is ignored.

    Raises:
        InputError: two examples are indistinguishable, or one lacks an image that the format needs.
        UsageError: the format cannot represent a subset or an image size.
    """
    readers = [ArrivalsSource().read_rows(file, options.labels) for file in files]
    summaries = [reader.summary(sizes=True) for reader in readers]
    rows = [summary.rows for summary in summaries]
    known = pa.Table.from_batches([reader.known for reader in readers])
    readers.clear()
    view = _view_of(known, rows, options)
    names, subsets = view.subset_names, view.subsets
    sink.subsets.check(names, options.export)
    for name in names:
        mine = view.subset(name)
        if sink.can.many_files or not sink.can.takes_missing_images:
            missing = int((mine & ~view.has_image).sum())
            refuse_missing_images(f"subset {name!r}", missing, sink, "beam.Filter")
        if not sink.can.takes_unlabelled:
            refuse_unlabelled(f"subset {name!r}", int((mine & (view.labels < 0)).sum()), sink)
    strict = frozenset[int]()
    if sink.can.many_files:
        named = Named(subsets, view.labels, *(known.column(name).to_numpy() for name in ("id", "name", "whole")))
        strict = names_that_clash(named, names, sink, options.export, lambda at: _shown(files, view, at))
    parts: list[Positions] = []
    groups = list(_groups(files, known, view, sink, options, parts))
    made = cut(groups, [], sink, options)
    held = Held(bool(view.has_image.any()), bool((view.labels >= 0).any()), [group.subset for group in groups])
    losses = losses_of(held, sink, options)
    file_bytes = tuple(max(s.image_bytes, s.pixel_bytes) // max(1, s.images) for s in summaries)
    chosen = ChosenRows(replace(view, heights=None, widths=None), tuple(parts))
    moves = moves_of(chosen, range(len(parts)), summaries, file_bytes)
    return Layout(made.shards, long_first(made.tasks), chosen, moves, file_bytes, strict, len(view), losses)


def _view_of(known: pa.Table, rows: Sequence[int], options: SinkOptions) -> View:
    """Returns the view of all examples, as they came; subsets are in the order of their first examples."""
    encoded = known.column("subset").dictionary_encode().unify_dictionaries().combine_chunks()
    numbers, found = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    first = np.full(len(found), np.iinfo(np.int64).max)
    np.minimum.at(first, numbers, known.column("order").to_numpy())
    order = sorted(range(len(found)), key=lambda number: (first[number], found[number]))
    places = np.empty(len(found), np.int32)
    places[order] = np.arange(len(found))
    return View(
        files=np.repeat(np.arange(len(rows), dtype=np.int32), rows),
        rows=np.concatenate([np.arange(n, dtype=np.int32) for n in rows]),
        labels=_column(known, "label"),
        subsets=places[numbers],
        subset_names=tuple(found[number] for number in order),
        table=options.labels,
        heights=_column(known, "height"),
        widths=_column(known, "width"),
    )


def _shown(files: Sequence[SourceFile], view: View, at: int) -> str:
    """Returns the display name of the example at a position."""
    row = int(view.rows[at])
    facts = ArrivalsSource().read_rows(files[view.files[at]], view.table).facts(row, row + 1)
    return f"example {facts.column('id')[0].as_py()!r} of subset {view.subset_names[view.subsets[at]]!r}"


def _column(known: pa.Table, name: str) -> Int32Array:
    return np.asarray(known.column(name).to_numpy())


def _groups(
    files: Sequence[SourceFile], known: pa.Table, view: View, sink: Sink, options: SinkOptions, parts: list[Positions]
) -> list[_Examples]:
    """Returns the examples of each output subset, in order."""
    orders, keys, nbytes = (known.column(name).to_numpy() for name in ("order", "key", "bytes"))
    if are_pixels(sink.encodings(options.export)):
        nbytes = pixel_bytes(_column(known, "height"), _column(known, "width"))
    merged = by_key((sink.subsets.output(name, options.export), name) for name in view.subset_names)
    groups = []
    for subset, names in merged.items():
        members = np.concatenate([np.flatnonzero(view.subset(name)) for name in names])
        members = members[np.lexsort((keys[members], orders[members]))]
        same = (np.diff(orders[members]) == 0) & (np.diff(keys[members]) == 0)
        if same.any():
            at = members[1:][same][0]
            raise InputError(
                f"{_shown(files, view, at)}: there are two with this id and order {orders[at]}; make ids unique, for "
                "example with beam_cifar.Example.replace"
            )
        groups.append(_Examples(subset, len(members), int(nbytes[members].sum()), members, view, parts))
    return groups


@dataclass(frozen=True, eq=False)
class _Examples(Group):
    """The examples of an output subset.

    Attributes:
        members: their positions in the view, in order.
        view: all examples.
        parts: collects the positions of each task.
    """

    members: Positions
    view: View
    parts: list[Positions]

    def facts(self, start: int, stop: int) -> Facts:
        rows = self.view.take(self.members[start:stop])
        height, width = (np.asarray(side) for side in (rows.heights, rows.widths))
        one_size = (height == height[0]).all() and (width == width[0]).all() and height[0] >= 0
        return Facts((int(height[0]), int(width[0])) if one_size else None, bool((height >= 0).any()))

    def filled(self, task: Task, start: int, stop: int) -> Task:
        self.parts.append(self.members[start:stop])
        return replace(task, chosen=len(self.parts) - 1)
