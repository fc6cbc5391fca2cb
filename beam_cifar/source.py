"""The source: a task becomes the blocks of one part, in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from beam_cifar import coders  # noqa: F401  (registers the coder that guards blocks)
from beam_cifar.block import MAX_ROWS, Block, Counts, spans
from beam_cifar.carried import carried
from beam_cifar.counters import count
from beam_cifar.formats import get_source
from beam_cifar.formats.base import RowReader, SourceFile
from beam_cifar.labels import UNLABELLED, LabelTable
from beam_cifar.plan import Plan, Segment, Task
from beam_cifar.selection import Selection

__all__ = ["ReadBlocks", "SourceSettings", "read_task"]


@dataclass(frozen=True)
class SourceSettings:
    """What every task needs besides itself.

    Attributes:
        format: name of the input format.
        files: input files; segments name them by index.
        labels: label table of the source.
        selection: which rows the plan counted as surviving.
        decoded: whether images will be decoded, which may make them much larger.
        row_bytes: bytes that every image will have at least.
    """

    format: str
    files: tuple[SourceFile, ...]
    labels: LabelTable
    selection: Selection
    decoded: bool = False
    row_bytes: int = 0

    @classmethod
    def of(cls, plan: Plan, format_name: str) -> SourceSettings:
        """The settings of a plan."""
        decoded = "raw" in plan.encodings or plan.resize is not None
        row_bytes = 3 * plan.resize[0] * plan.resize[1] if plan.resize else 0
        return cls(format_name, plan.files, plan.labels, plan.selection, decoded, row_bytes)


@dataclass
class ReadBlocks(beam.PTransform):
    """Reads the rows of each task as blocks of about a thousand examples.

    Attributes:
        settings: shared by all tasks.
    """

    settings: SourceSettings

    def display_data(self) -> dict[str, Any]:
        """Format and number of files."""
        return {"format": self.settings.format, "files": len(self.settings.files)}

    def expand(self, tasks: beam.PCollection[Task]) -> beam.PCollection[Block]:
        """From tasks to blocks."""
        return tasks | beam.ParDo(_ReadTask(self.settings)).with_input_types(Task).with_output_types(Block)


class _ReadTask(beam.DoFn):
    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings

    def process(self, task: Task) -> Iterator[Block]:
        """Yields block after block; only one is held at a time."""
        blocks = read_task(task, self._settings)
        while True:
            with carried():
                block = next(blocks, None)
            if block is None:
                return
            count(rows_read=block.read.total(), rows_rejected=len(block.rejected))
            yield block


def read_task(task: Task, settings: SourceSettings) -> Iterator[Block]:
    """Reads the rows that a task owns, in order.

    Every row of them is read and counted, also those that the selection will drop. A part without rows is one
    empty block.

    Raises:
        InputError: a file is gone, changed or damaged.
    """
    number = 0
    source = get_source(settings.format)
    for at, segment in enumerate(task.segments):
        file = settings.files[segment.file]
        with source.open_rows(file, settings.labels) as rows:
            owned = _owned(segment, rows, settings.selection)
            row_bytes = max(settings.row_bytes, rows.row_bytes(*owned, decoded=settings.decoded))
            pieces = spans(*owned, row_bytes)
            for piece, (start, stop) in enumerate(pieces):
                last = at == len(task.segments) - 1 and piece == len(pieces) - 1
                rejected = tuple(rows.bad_rows[row] for row in sorted(rows.bad_rows) if start <= row < stop)
                yield Block(
                    table=rows.table(start, stop),
                    shard=task.shard,
                    part=task.part,
                    number=number,
                    last=last,
                    read=_counts(file.subset, rows.labels[start:stop]),
                    rejected=rejected,
                    row=start,
                )
                number += 1


def _owned(segment: Segment, rows: RowReader, selection: Selection) -> tuple[int, int]:
    survives: list[bool] = []
    for start in range(segment.start, segment.stop, MAX_ROWS):
        stop = min(start + MAX_ROWS, segment.stop)
        survives += _survivors(rows, start, stop, selection)
    if rows.bad_rows:
        survives = [kept and row not in rows.bad_rows for row, kept in enumerate(survives, segment.start)]
    return segment.owned(survives)


def _survivors(rows: RowReader, start: int, stop: int, selection: Selection) -> list[bool]:
    if selection.filter is not None:
        facts = rows.facts(start, stop, sizes="image" in selection.filter.sees)
        kept: list[bool] = selection.decide(facts).rows.tolist()
        return kept
    return [selection.labels is None or label in selection.labels for label in rows.labels[start:stop]]


def _counts(subset: str, labels: Sequence[int]) -> Counts:
    counts = Counter(labels)
    return Counter({(subset, label): counts[label] for label in sorted(counts, key=lambda n: (n == UNLABELLED, n))})
