"""Cuts rows into shards, parts and tasks, by the same rule for every planner."""

from __future__ import annotations

import bisect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from beam_cifar.data.grouping import by_key
from beam_cifar.errors import UsageError
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import CHUNK_ROWS, FileSummary, Shard, SinkOptions
from beam_cifar.naming.subsets import series_name
from beam_cifar.planning.checks import check_shards, refuse_bad_rows
from beam_cifar.planning.copies import as_copy, is_copy
from beam_cifar.planning.plan import Segment, Task


@dataclass(frozen=True)
class Facts:
    """What is known about some rows.

    Attributes:
        size: (height, width) if every row has an image of that size, else None.
        has_images: whether any row has an image.
        file: index of the only input file that they come from, if they still belong to its subset; else None.
    """

    size: tuple[int, int] | None
    has_images: bool
    file: int | None = None


@dataclass(frozen=True, eq=False)
class Group(ABC):
    """The rows of one output subset, in order.

    Attributes:
        subset: name of the subset.
        rows: number of rows.
        bytes: approximate bytes of their images as they reach the writer.
    """

    subset: str
    rows: int
    bytes: int

    @abstractmethod
    def facts(self, start: int, stop: int) -> Facts:
        """Returns what is known about the rows [start, stop)."""

    def filled(self, task: Task, start: int, stop: int) -> Task:
        """Returns the task with the locations of its rows [start, stop); called once per task, in order."""
        return task

    def is_whole(self, start: int, stop: int) -> bool:
        """Returns whether the rows [start, stop), all from one file, are the whole file, unchanged and in order."""
        return False


@dataclass(frozen=True)
class Cut:
    """The shards and tasks that groups were cut into.

    Attributes:
        shards: files of the output.
        tasks: one per part, in order.
        first: index of the first shard of each group, by subset.
        left_out: groups without rows, for which the format writes no file.
    """

    shards: tuple[Shard, ...]
    tasks: tuple[Task, ...]
    first: dict[str, int]
    left_out: tuple[Group, ...]

    @property
    def notices(self) -> list[str]:
        """Notices for the user."""
        return [no_rows_left(group.subset) for group in self.left_out]


def cut(
    groups: Sequence[Group],
    files: Sequence[FileSummary],
    sink: Sink,
    options: SinkOptions,
    part_bytes: int | None = None,
) -> Cut:
    """Cuts groups into shards and these into parts, by raw sizes alone, so that the same rows give the same files.

    Args:
        groups: rows of each output subset.
        files: input files; empty if the rows do not come from files.
        sink: format to write.
        options: options of the writers.
        part_bytes: image bytes per part, for shards with several parts; default: chosen by the format.

    Raises:
        UsageError: the format cannot represent a file.
    """
    left_out = tuple(group for group in groups if not (group.rows or sink.can.keeps_empty_subsets))
    total = sum(group.bytes for group in groups)
    pieces: list[_Piece] = []
    first: dict[str, int] = {}
    for group in groups:
        if group not in left_out:
            first[group.subset] = len(pieces)
            pieces += _pieces(group, len(pieces), total, sink, options, part_bytes or sink.can.part_bytes)
    pieces = _with_batch_labels(pieces, files, sink)
    shards = tuple(piece.shard for piece in pieces)
    check_shards(shards, sink, options)
    tasks = [task for piece in pieces for task in _tasks(piece, files, sink, options)]
    return Cut(shards, tuple(tasks), first, left_out)


def no_rows_left(subset: str) -> str:
    """Returns the notice for a subset that is not written."""
    return f"subset {subset!r} has no rows left and is not written"


def long_first(tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Returns the tasks, longest first: local runners distribute them by count, and idle workers never steal."""
    return tuple(sorted(tasks, key=lambda task: (-task.rows, task.shard, task.part)))


class _Piece(NamedTuple):
    """A planned shard: rows of a group from `start` on; `place` has its subset, its number and the number of shards."""

    shard: Shard
    group: Group
    start: int
    file: int | None
    place: tuple[str, int, int]


def _pieces(
    group: Group, first: int, total_bytes: int, sink: Sink, options: SinkOptions, part_bytes: int | None
) -> Iterator[_Piece]:
    """Yields the shards of a group, without batch labels."""
    names = sink.layout_files(group.subset, group.rows, options)
    step = max(1, -(-group.rows // len(names))) if names else 0
    step = step or sink.shard_rows(group.rows, group.bytes, total_bytes, options.export)
    count = max(1, -(-group.rows // step))
    row_bytes = group.bytes // max(1, group.rows)
    for number in range(count):
        start, place = number * step, (group.subset, number, count)
        rows = min(step, group.rows - start)
        facts = group.facts(start, start + rows)
        subset = names[number] if names else sink.subsets.of_file(*place, options.export)
        shard = Shard(
            index=first + number,
            subset=subset,
            path=_path(subset, place, rows, row_bytes, sink, options),
            rows=rows,
            part_rows=max(1, part_bytes // max(1, row_bytes)) if part_bytes else rows,
            size=facts.size,
            has_images=facts.has_images,
        )
        yield _Piece(shard, group, start, facts.file, place)


def _path(subset: str, place: tuple[str, int, int], rows: int, row_bytes: int, sink: Sink, options: SinkOptions) -> str:
    """Returns the path of a shard; raises `UsageError` if it is invalid or the shard would be too large."""
    path, limit = sink.shard_path(subset, *place[1:]), sink.can.max_shard_bytes
    if path and ("\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/"))):
        raise UsageError(
            f"subset {place[0]!r} would be written to {path!r}, not a valid path inside the output; rename the subset"
        )
    if limit and options.export.save_images and rows * row_bytes > limit:
        raise UsageError(
            f"{path}: would have {rows * row_bytes} bytes of pixels, but the format allows at most {limit} per file; "
            f"pass --images-per-batch {limit // row_bytes} or less"
        )
    return path


def _with_batch_labels(pieces: Sequence[_Piece], files: Sequence[FileSummary], sink: Sink) -> list[_Piece]:
    """Returns the shards with batch labels: that of the input file they repeat, or one from their place in the subset.

    If rows do not come from files, numbered shards such as `data_batch_1` count as one series: examples read from
    CIFAR no longer carry the name of their file, but still get the batch labels of the genuine dataset.
    """
    series = by_key((series_name(piece.shard.subset), piece.shard.index) for piece in pieces)
    made = []
    for piece in pieces:
        shard, place, name = piece.shard, piece.place, series_name(piece.shard.subset)
        if not files:
            place = name, bisect.bisect_left(series[name], shard.index), len(series[name])
        own = files[piece.file].batch_label if piece.file is not None and piece.place[2] == 1 else ""
        label = own or sink.batch_label(*place)
        made.append(piece._replace(shard=replace(shard, batch_label=label)))
    return made


def _tasks(piece: _Piece, files: Sequence[FileSummary], sink: Sink, options: SinkOptions) -> Iterator[Task]:
    """Yields the tasks of a shard: one per part, or a copy of the input file that it would equal byte for byte."""
    shard, group, start = piece.shard, piece.group, piece.start
    file = None if piece.file is None else files[piece.file]
    copied = is_copy(shard, file, sink, options, lambda: group.is_whole(start, start + shard.rows))
    for part in range(shard.parts):
        rows = shard.rows_of(part)
        task = group.filled(Task(shard.index, part, rows), start, start + rows)
        yield as_copy(task, piece.file or 0) if copied else task
        start += rows


READ_BYTES = 16 << 20
"""Image bytes that a task reads in jobs that write nothing."""


def reading_tasks(summaries: Sequence[FileSummary], *, tolerant: bool = False) -> list[Task]:
    """Returns tasks that read all rows of some files; the shard of each task is the index of its file.

    Args:
        summaries: summaries of the files.
        tolerant: whether bad rows are accepted; they travel in `Block.rejected`.

    Raises:
        InputError: there is a bad row, and `tolerant` is false.
    """
    if not tolerant:
        refuse_bad_rows(summaries)
    tasks = []
    for index, summary in enumerate(summaries):
        row_bytes = max(1, summary.image_bytes // max(1, summary.rows))
        step = max(1, READ_BYTES // (row_bytes * CHUNK_ROWS)) * CHUNK_ROWS
        cuts = [*_cuts(summary, step), summary.rows]
        for part, (start, stop) in enumerate(itertools.pairwise(cuts)):
            chunks = summary.chunks[start // CHUNK_ROWS : -(-stop // CHUNK_ROWS)]
            rows = sum(sum(chunk.values()) for chunk in chunks)
            tasks.append(Task(index, part, rows, (Segment(index, start, stop, 0, rows),)))
    return tasks


def _cuts(summary: FileSummary, step: int) -> Iterator[int]:
    """Yields where tasks that read a file start: about every `step` rows, near the start of a group of rows."""
    starts = summary.access.starts
    at = 0
    while at < summary.rows:
        yield at
        at += step
        while starts and at < summary.rows and at - starts[bisect.bisect(starts, at) - 1] >= CHUNK_ROWS:
            at += CHUNK_ROWS  # a task that starts in the middle would read the group from its start
