"""Cuts the rows that a selection leaves into shards, parts and tasks: pure."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from beam_cifar.errors import UsageError
from beam_cifar.filters.selection import Selection
from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import CHUNK_ROWS, ExportOptions, FileSummary, Shard, SinkOptions
from beam_cifar.planning.plan import Segment, Task
from beam_cifar.planning.summaries import refuse_bad_rows


@dataclass(frozen=True)
class Chosen:
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
        """Rows that the selection leaves."""
        return self.cumulative[-1]

    @property
    def bytes(self) -> int:
        """Of the images taken, about."""
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


def choose(
    summaries: Sequence[FileSummary], selection: Selection, limit: int | None, *, pixels: bool
) -> Iterator[Chosen]:
    """What a selection, and a limit, leave of each file.

    Args:
        summaries: of the files, in order.
        selection: which rows are kept.
        limit: how many at most, the first ones; None for all.
        pixels: whether images reach the writer as pixels.
    """
    left = limit
    for summary in summaries:
        kept = (selection.count(chunk) for chunk in summary.chunks)
        cumulative = (0, *itertools.accumulate(kept)) if summary.chunks else (0, 0)
        if left == 0:
            return
        take = cumulative[-1] if left is None else min(left, cumulative[-1])
        left = None if left is None else left - take
        yield Chosen(0, summary, cumulative, take, summary.pixel_bytes if pixels else summary.image_bytes)


class Cutter:
    """Cuts the rows of each output subset into shards, parts and segments."""

    def __init__(self, sink: Sink, sink_options: SinkOptions, part_bytes: int | None, total_bytes: int) -> None:
        self.shards: list[Shard] = []
        self.notices: list[str] = []
        self._tasks: list[Task] = []
        self._unowned: list[Segment] = []
        self._sink, self._sink_options, self._options = sink, sink_options, sink_options.export
        self._part_bytes, self._total_bytes = part_bytes, total_bytes

    def cut(self, subset: str, members: list[Chosen]) -> None:
        """Adds the shards and tasks of one subset."""
        rows = sum(source.take for source in members)
        if not rows and not self._sink.can.keeps_empty_subsets:
            self.notices.append(f"subset {subset!r} has no rows left and is not written")
            self._unowned += [source.segment(0, 0) for source in members]
            return
        image_bytes = sum(source.bytes for source in members)
        step = self._sink.shard_rows(rows, image_bytes, self._total_bytes, self._options)
        count = max(1, -(-rows // step))
        segments = _Handout(members)
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
        segments: _Handout,
        members: list[Chosen],
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

    def is_copy(self, task: Task, sources: Sequence[Chosen]) -> bool:
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
    subset = sink.subsets.of_file(*place, options)
    path, limit = sink.shard_path(subset, *place[1:]), sink.can.max_shard_bytes
    if path and ("\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/"))):
        raise UsageError(
            f"subset {place[0]!r} would be written to {path!r}, which is no place in the output; rename it"
        )
    if limit and options.save_images and rows * row_bytes > limit:
        raise UsageError(
            f"{path} would hold {rows * row_bytes} bytes of pixels, and the format allows {limit} a file; "
            f"pass --images-per-batch {limit // row_bytes} or less"
        )
    part_rows = max(1, part_bytes // max(1, row_bytes)) if part_bytes else rows
    return Shard(index, subset, path, rows, part_rows, size=None, has_images=False)


class _Handout:
    """Hands out the survivors of several sources, in order."""

    def __init__(self, sources: list[Chosen]) -> None:
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
