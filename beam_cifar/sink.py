"""The sink: the blocks of a part become a file in staging, and a small account of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import apache_beam as beam

from beam_cifar import storage, store_options  # noqa: F401  (how workers reach object stores)
from beam_cifar.block import BadRow, Block, Counts, row_counts
from beam_cifar.carried import carried
from beam_cifar.counters import count
from beam_cifar.errors import InputError, JobError
from beam_cifar.formats import get_sink, get_source
from beam_cifar.formats.base import MAX_BAD_ROWS, PartWriter, Shard, SinkOptions, Wanted
from beam_cifar.formats.shared.summary import scan
from beam_cifar.plan import Plan, Task
from beam_cifar.source import SourceSettings


@dataclass(frozen=True)
class SinkSettings:
    """What every part needs besides its blocks.

    Attributes:
        format: name of the output format.
        shards: files of the output.
        options: of the writers.
        folder: where to stage.
    """

    format: str
    shards: tuple[Shard, ...]
    options: SinkOptions
    folder: storage.JobFolder

    @classmethod
    def of(cls, plan: Plan, format_name: str, folder: storage.JobFolder) -> SinkSettings:
        """The settings of a plan."""
        return cls(format_name, plan.shards, plan.sink, folder)

    @property
    def many_files(self) -> bool:
        """Whether every image is a file of its own."""
        return get_sink(self.format).can.many_files

    def is_whole(self, shard: Shard) -> bool:
        """Whether the only part of a shard is its file."""
        sink = get_sink(self.format)
        return shard.parts == 1 and not (sink.can.many_files or sink.can.always_joined)

    def account_path(self, shard: int, part: int) -> str:
        """Where a finished part leaves its account."""
        return os.path.join(self.folder.accounts, f"{shard:06d}-{part:06d}.json")

    def part_path(self, shard: Shard, part: int) -> str:
        """Where a finished part lies, or the list of its files; in the staged tree already where it is the shard."""
        if self.is_whole(shard):
            return os.path.join(self.folder.tree, shard.path)
        return os.path.join(self.folder.parts, f"{shard.index:06d}-{part:06d}")

    def open_part(self, shard: Shard, part: int) -> storage.StagedFile | storage.StagedFolder:
        """What a part is written to."""
        path, folder = self.part_path(shard, part), self.folder
        if self.many_files:
            return storage.StagedFolder(os.path.join(folder.tree, shard.path), path, folder.scratch, folder.guard)
        return folder.stage(path)


@dataclass(frozen=True)
class PartInfo:
    """The account of one finished part.

    Attributes:
        shard: its shard's number.
        part: its number in the shard.
        files: how many it is made of.
        bytes: of these.
        sha256: of the file, or of the list of files, hex.
        read: rows by subset and label, as the source had them.
        filtered: rows that transforms dropped, by source label.
        unlabelled: rows whose label was taken away, by source label.
        written: rows in the file, by source subset and output label.
        rejected: rows that could not be kept.
        bad_rows: the first of those.
        statistics: what the format's `finish` wants to know.
    """

    shard: int
    part: int
    files: int
    bytes: int
    sha256: str
    read: Counts
    filtered: Counts = field(default_factory=Counter)
    unlabelled: Counts = field(default_factory=Counter)
    written: Counts = field(default_factory=Counter)
    rejected: Counts = field(default_factory=Counter)
    bad_rows: tuple[BadRow, ...] = ()
    statistics: dict[str, int] = field(default_factory=dict)


COUNTED = ("read", "written", "filtered", "unlabelled", "rejected")
"""What is counted, row by row."""


def encode_part(info: PartInfo) -> bytes:
    """An account as JSON, with a digest of it; see `decode_part`."""
    counts = {name: [[*key, n] for key, n in sorted(getattr(info, name).items())] for name in COUNTED}
    facts = json.dumps({**asdict(info), **counts})
    return json.dumps([facts, hashlib.sha256(facts.encode()).hexdigest()]).encode()


def decode_part(data: bytes) -> PartInfo:
    """The account of a part from its JSON.

    Raises:
        ValueError: it is damaged.
    """
    try:
        told, digest = json.loads(data)
        if hashlib.sha256(told.encode()).hexdigest() != digest:
            raise ValueError("the account of a part is damaged")
        facts = json.loads(told)
        counts = {name: Counter({(str(s), int(label)): int(n) for s, label, n in facts[name]}) for name in COUNTED}
        bad = tuple(BadRow(**row) for row in facts["bad_rows"])
        return PartInfo(**{**facts, **counts, "bad_rows": bad})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("is no account of a part") from error


@dataclass
class WriteBlocks(beam.PTransform):
    """Writes the blocks of each part to one file.

    Attributes:
        settings: shared by all parts.
    """

    settings: SinkSettings

    def display_data(self) -> dict[str, Any]:
        """Format, output and number of shards."""
        settings = self.settings
        return {"format": settings.format, "output": settings.folder.output, "shards": len(settings.shards)}

    def expand(self, blocks: beam.PCollection[Block]) -> beam.PCollection[PartInfo]:
        """From blocks to accounts of parts."""
        return blocks | beam.ParDo(_WriteParts(self.settings)).with_input_types(Block).with_output_types(PartInfo)


@dataclass
class CopyFiles(beam.PTransform):
    """Copies whole source files that the output format would write byte for byte the same.

    Attributes:
        source: settings of the source.
        sink: settings of the sink.
    """

    source: SourceSettings
    sink: SinkSettings

    def expand(self, tasks: beam.PCollection[Task]) -> beam.PCollection[PartInfo]:
        """From tasks to accounts of parts."""
        dofn = _CopyFile(self.source, self.sink)
        return tasks | beam.ParDo(dofn).with_input_types(Task).with_output_types(PartInfo)


class OpenPart:
    """A part that is being written.

    Args:
        settings: of the sink.
        shard: that the part belongs to.
        part: its number.
    """

    def __init__(self, settings: SinkSettings, shard: Shard, part: int) -> None:
        self._shard, self._part = shard, part
        self._next = 0
        self._counts: dict[str, Counts] = {name: Counter() for name in COUNTED}
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
            InputError: a row that cannot be kept.
            JobError: a block out of order, or another number of rows than planned.
        """
        if block.coordinates != (self._shard.index, self._part, self._next):
            raise JobError(
                f"blocks came out of order: expected {(self._shard.index, self._part, self._next)} as (shard, part, "
                f"number), got {block.coordinates}; a step between ReadBlocks and WriteBlocks, such as a Flatten of "
                "blocks, breaks their order: remove it"
            )
        if block.rejected:
            raise InputError(str(block.rejected[0]))
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
        self._counts["written"].update(row_counts(block.table))
        self._counts["rejected"].update((bad.subset, bad.label) for bad in block.rejected)
        self._bad_rows += block.rejected[: MAX_BAD_ROWS - len(self._bad_rows)]

    def _finish(self) -> PartInfo:
        rows, planned = self._counts["written"].total(), self._shard.rows_of(self._part)
        if rows != planned:
            raise JobError(
                f"{self._shard.path}: {rows} rows came for part {self._part}, {planned} were planned; "
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
            statistics=self._writer.statistics(),
            **self._counts,
        )


class _WriteParts(beam.DoFn):
    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._open: OpenPart | None = None

    def process(self, block: Block) -> Iterator[PartInfo]:
        with carried():
            try:
                info = self._append(block)
            except BaseException:
                self._abandon()
                raise
        if info is not None:
            with carried():
                write_account(info, self._settings)
            count_part(info)
            yield info

    def finish_bundle(self) -> None:
        """A bundle holds whole tasks: a part that is still open has lost its end."""
        if self._open is not None:
            self._abandon()
            with carried():
                raise JobError("a bundle ended before the last block of its part; blocks left their fused stage")

    def teardown(self) -> None:
        self._abandon()

    def _append(self, block: Block) -> PartInfo | None:
        if self._open is None:
            self._open = OpenPart(self._settings, self._settings.shards[block.shard], block.part)
        info = self._open.append(block)
        if info is not None:
            self._open = None
        return info

    def _abandon(self) -> None:
        if self._open is not None:
            self._open.abandon()
            self._open = None


class _CopyFile(beam.DoFn):
    def __init__(self, source: SourceSettings, sink: SinkSettings) -> None:
        self._source, self._sink = source, sink

    def process(self, task: Task) -> Iterator[PartInfo]:
        with carried():
            info = copy_file(task, self._source, self._sink)
            write_account(info, self._sink)
        count_part(info)
        count(rows_read=info.read.total(), files_copied=1)
        yield info


def write_account(info: PartInfo, settings: SinkSettings) -> None:
    """Leaves the account of a finished part where a job that is resumed finds it."""
    with settings.folder.stage(settings.account_path(info.shard, info.part)) as file:
        file.write(encode_part(info))
        file.commit()


def count_part(info: PartInfo) -> None:
    """Counts a finished part in Beam's metrics."""
    count(rows_written=info.written.total(), parts_written=1, files_written=info.files, bytes_written=info.bytes)


def copy_file(task: Task, source: SourceSettings, sink: SinkSettings) -> PartInfo:
    """Copies the one file of a task, and counts its rows from its labels."""
    shard, file = sink.shards[task.shard], source.files[task.segments[0].file]
    counts: Counts = Counter()
    origin = source.origin(file)
    summary = scan(get_source(origin.format), file, origin.labels, Wanted())
    for chunk in summary.chunks:
        counts.update({(file.subset, label): n for label, n in chunk.items()})
    final, written = sink.part_path(shard, task.part), Counter(counts)
    path = file.blob.path
    if os.path.dirname(path) == sink.folder.output and not os.path.islink(path):  # saved in place
        size, digest = storage.stage_link(path, final, sink.folder.scratch)
        return PartInfo(task.shard, task.part, 1, size, digest, read=counts, written=written)
    with (
        storage.open_blob(file.blob, file.shown) as blob,
        sink.folder.stage(final) as staged,
    ):
        while chunk_bytes := blob.read(storage.COPY_BYTES):
            staged.write(chunk_bytes)
        if staged.bytes_written != file.blob.size:
            raise InputError(f"{file.shown}: ended at byte {staged.bytes_written} of {file.blob.size}")
        staged.commit()
    return PartInfo(task.shard, task.part, 1, staged.bytes_written, staged.sha256, read=counts, written=written)
