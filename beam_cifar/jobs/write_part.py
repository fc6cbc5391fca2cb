"""Writes the blocks of one part to a staged file, and creates its account."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

from beam_cifar import storage
from beam_cifar.data.block import BadRow, Block, Counts, row_counts
from beam_cifar.errors import JobError, RowError
from beam_cifar.formats.contract.sink import PartWriter
from beam_cifar.formats.contract.types import MAX_BAD_ROWS, Shard, Wanted
from beam_cifar.formats.registry import get_sink, get_source
from beam_cifar.jobs.accounts import COUNTED, PartInfo, encode_part
from beam_cifar.jobs.read_part import SourceSettings, read_task
from beam_cifar.jobs.settings import SinkSettings
from beam_cifar.planning.plan import Task
from beam_cifar.planning.summaries import scan


class OpenPart:
    """A part of a shard that is being written."""

    def __init__(self, settings: SinkSettings, shard: Shard, part: int) -> None:
        self._shard, self._part = shard, part
        self._next = 0
        self._counts: dict[str, Counts] = {name: Counter() for name in COUNTED}
        self._remarks: Counter[str] = Counter()
        self._bad_rows: list[BadRow] = []
        with ExitStack() as stack:
            self._file: storage.StagedFile | storage.StagedFolder = settings.open_part(shard, part)
            stack.enter_context(self._file)
            rows = shard.rows_of(part)
            self._writer: PartWriter = get_sink(settings.format).open_part(self._file, shard, rows, settings.options)
            self._stack = stack.pop_all()

    def append(self, block: Block) -> PartInfo | None:
        """Writes a block; returns the account of the part with its last one.

        Raises:
            RowError: a row cannot be kept.
            JobError: a block is out of order, or the number of rows is not as planned.
        """
        # Fused stages kept the order on every runner tried so far, but Beam's model does not guarantee it.
        if block.coordinates != (self._shard.index, self._part, self._next):
            raise JobError(
                f"blocks out of order: expected (shard, part, number) {(self._shard.index, self._part, self._next)}, "
                f"got {block.coordinates}; a step between ReadBlocks and WriteBlocks, such as a Flatten of blocks, "
                "breaks their order: remove it"
            )
        if block.rejected:
            raise RowError(str(block.rejected[0]))
        self._next += 1
        self._count(block)
        if len(block.table):
            self._writer.append(block.table)
        return self._finish() if block.last else None

    def abandon(self) -> None:
        """Removes the unfinished file."""
        self._stack.close()

    def _count(self, block: Block) -> None:
        for name in ("read", "filtered", "unlabelled"):
            self._counts[name].update(getattr(block, name))
        self._remarks.update(block.remarks)
        self._counts["written"].update(row_counts(block.table))
        self._counts["rejected"].update((bad.subset, bad.label) for bad in block.rejected)
        self._bad_rows += block.rejected[: MAX_BAD_ROWS - len(self._bad_rows)]

    def _finish(self) -> PartInfo:
        rows, planned = self._counts["written"].total(), self._shard.rows_of(self._part)
        if rows != planned:
            raise JobError(
                f"{self._shard.path}: part {self._part} received {rows} rows, but {planned} were planned; "
                "did the input change?"
            )
        self._writer.close()
        self._file.commit()
        self._stack.close()
        return PartInfo(
            shard=self._shard.index,
            part=self._part,
            files=self._file.files,
            bytes=self._file.bytes_written,
            sha256=self._file.sha256,
            bad_rows=tuple(self._bad_rows),
            statistics={**self._writer.statistics(), **self._remarks},
            **self._counts,
        )


def write_part(task: Task, source: SourceSettings, sink: SinkSettings, change: Callable[[Block], Block]) -> PartInfo:
    """Reads the rows of a task and writes them as a part, block by block, in this process.

    Args:
        task: what to read, and which part it becomes.
        source: what reading needs.
        sink: what writing needs.
        change: returns a block as it is written.

    Raises:
        InputError: a row is damaged.
        JobError: the rows are not those that were planned.
    """
    part = OpenPart(sink, sink.shards[task.shard], task.part)
    info = None
    try:
        for block in read_task(task, source):
            info = part.append(change(block))
    finally:
        part.abandon()
    if info is None:
        raise JobError(f"{sink.shards[task.shard].path}: part {task.part} did not end with its last block")
    return info


def write_account(info: PartInfo, settings: SinkSettings) -> None:
    """Writes the account of a finished part to the job folder, where a resumed job finds it."""
    with settings.folder.stage(settings.account_path(info.shard, info.part)) as file:
        file.write(encode_part(info))
        file.commit()


def copy_file(task: Task, source: SourceSettings, sink: SinkSettings) -> PartInfo:
    """Copies the only file of a task, and counts its rows from its labels."""
    shard, file = sink.shards[task.shard], source.files[task.segments[0].file]
    counts: Counts = Counter()
    origin = source.origin(file)
    summary = scan(get_source(origin.format), file, origin.labels, Wanted())
    for chunk in summary.chunks:
        counts.update({(file.subset, label): n for label, n in chunk.items()})
    final, written = sink.part_path(shard, task.part), Counter(counts)
    path = file.blob.path
    if os.path.dirname(path) == sink.folder.output and not os.path.islink(path):  # saved in place
        size, digest = storage.stage_link(path, final, sink.folder.scratch, sink.folder.guard)
        return PartInfo(task.shard, task.part, 1, size, digest, read=counts, written=written)
    with sink.folder.stage(final) as staged:
        storage.copy_blob(file.blob, file.shown, staged)
    return PartInfo(task.shard, task.part, 1, staged.bytes_written, staged.sha256, read=counts, written=written)
