"""Beam source that turns each task into the blocks of one part, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

import beam_cifar.pipeline.blocks  # its coder guards blocks
import beam_cifar.pipeline.checked  # its coder guards tasks
import beam_cifar.pipeline.stores  # noqa: F401  (how workers reach object stores)
from beam_cifar.data.block import Block
from beam_cifar.formats.registry import INTERNAL
from beam_cifar.jobs.read_part import SourceSettings, read_task
from beam_cifar.pipeline.counters import count, read_from
from beam_cifar.pipeline.errors import carried
from beam_cifar.planning.plan import Task


@dataclass
class ReadBlocks(beam.PTransform):
    """Reads the rows of each task as blocks of about a thousand examples."""

    settings: SourceSettings

    def display_data(self) -> dict[str, Any]:
        formats = dict.fromkeys(origin.format for origin in self.settings.origins)
        return {"format": ", ".join(formats), "files": len(self.settings.files)}

    def expand(self, tasks: beam.PCollection[Task]) -> beam.PCollection[Block]:
        return tasks | beam.ParDo(_ReadTask(self.settings)).with_input_types(Task).with_output_types(Block)


def deal_tasks(pipeline: beam.Pipeline, name: str, tasks: Sequence[Task], spread: str) -> beam.PCollection[Task]:
    """Distributes tasks to workers, in two steps with the given names."""
    # Without the reshuffle, a runner fuses `Create` with what follows, and one worker does everything.
    return (
        pipeline
        | name >> beam.Create(tasks, reshuffle=False).with_output_types(Task)
        | spread >> beam.Reshuffle().with_output_types(Task)
    )


def counted(blocks: Iterator[Block]) -> Iterator[Block]:
    """Yields blocks as they are read, and counts their rows; raises errors in the form of `carried`."""
    # `next` is wrapped but `yield` is not: errors of later steps must not be treated as read errors.
    while True:
        with carried():
            block = next(blocks, None)
        if block is None:
            return
        count(rows_read=block.read.total(), rows_filtered=block.filtered.total(), rows_rejected=len(block.rejected))
        yield block


class _ReadTask(beam.DoFn):
    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._told = False
        self._blocks: Iterator[Block] = iter(())

    def process(self, task: Task) -> Iterator[Block]:
        """Yields the blocks of a task, with only one in memory at a time."""
        if not self._told:
            self._told = True
            sources = [file for file in self._settings.files if self._settings.origin(file).format not in INTERNAL]
            for path in {file.blob.path for file in sources}:
                read_from(path)
        self._blocks = read_task(task, self._settings)
        yield from counted(self._blocks)

    def teardown(self) -> None:
        # After a failure downstream, Beam keeps the generator suspended, with its file open.
        with suppress(AttributeError, ValueError):
            self._blocks.close()  # type: ignore[attr-defined]
