"""Beam sink that turns the blocks of a part into a staged file and its account."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from beam_cifar.data.block import Block
from beam_cifar.errors import JobError
from beam_cifar.jobs.accounts import PartInfo
from beam_cifar.jobs.read_part import SourceSettings
from beam_cifar.jobs.settings import SinkSettings
from beam_cifar.jobs.write_part import OpenPart, copy_file, write_account
from beam_cifar.pipeline import stores  # noqa: F401  (how workers reach object stores)
from beam_cifar.pipeline.counters import count, count_part
from beam_cifar.pipeline.errors import carried
from beam_cifar.planning.plan import Task


@dataclass
class WriteBlocks(beam.PTransform):
    """Writes the blocks of each part to one file."""

    settings: SinkSettings

    def display_data(self) -> dict[str, Any]:
        settings = self.settings
        return {"format": settings.format, "output": settings.folder.output, "shards": len(settings.shards)}

    def expand(self, blocks: beam.PCollection[Block]) -> beam.PCollection[PartInfo]:
        return blocks | beam.ParDo(_WriteParts(self.settings)).with_input_types(Block).with_output_types(PartInfo)


@dataclass
class CopyFiles(beam.PTransform):
    """Copies whole source files that the output format would reproduce byte for byte."""

    source: SourceSettings
    sink: SinkSettings

    def expand(self, tasks: beam.PCollection[Task]) -> beam.PCollection[PartInfo]:
        return tasks | beam.Map(_copy_file, self.source, self.sink).with_output_types(PartInfo)


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
        """Raises `JobError` for a part that is still open: a bundle has whole tasks, so its last blocks were lost."""
        if self._open is not None:
            self._abandon()
            with carried():
                raise JobError("a bundle ended before the last block of its part: blocks have left their fused stage")

    def teardown(self) -> None:
        # A worker that is stopped in the middle of a bundle never reaches `finish_bundle`.
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


@carried()
def _copy_file(task: Task, source: SourceSettings, sink: SinkSettings) -> PartInfo:
    info = copy_file(task, source, sink)
    write_account(info, sink)
    count_part(info)
    count(rows_read=info.read.total(), files_copied=1)
    return info
