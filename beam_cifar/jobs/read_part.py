"""Reads the rows of one task as the blocks of a part, in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from beam_cifar.data.block import MAX_ROWS, BadRow, Block, Counts, row_counts, spans
from beam_cifar.data.labels import UNLABELLED
from beam_cifar.data.schema import example_schema
from beam_cifar.errors import InputError
from beam_cifar.filters.selection import Selection
from beam_cifar.formats.contract.source import RowReader
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.registry import get_source
from beam_cifar.images.encodings import are_pixels
from beam_cifar.planning import moves
from beam_cifar.planning.chosen_rows import read_chosen
from beam_cifar.planning.plan import Inputs, Origin, Plan, Segment, Task
from beam_cifar.planning.spills import SpillFolder
from beam_cifar.steps.base import row_bytes
from beam_cifar.storage import JobFolder


@dataclass(frozen=True)
class SourceSettings:
    """What reading a task needs, besides the task itself.

    Attributes:
        origins: formats and label tables of the datasets; files refer to them by index.
        files: input files; segments refer to them by index.
        selection: decides which rows survive, as in the plan.
        decoded: whether images will be decoded, which may make them much larger.
        row_bytes: minimum bytes that every image will need.
        chosen: path of the rows that the plan chose one by one; empty if it did not.
        image_bytes: approximate bytes of one image of each file, if rows are chosen.
        tolerant: whether damaged rows are rejected like bad rows, instead of ending the job.
        spilled: rows that were moved before, and where they are.
    """

    origins: tuple[Origin, ...]
    files: tuple[SourceFile, ...]
    selection: Selection
    decoded: bool = False
    row_bytes: int = 0
    chosen: str = ""
    image_bytes: tuple[int, ...] = ()
    tolerant: bool = False
    spilled: SpillFolder = field(default_factory=SpillFolder)

    @classmethod
    def of(cls, plan: Plan, folder: JobFolder | None = None) -> SourceSettings:
        """Returns the settings for a plan, whose chosen rows and spills are in a job folder."""
        return cls(
            origins=plan.origins,
            files=plan.files,
            selection=plan.selection,
            decoded=are_pixels(plan.encodings) or bool(plan.pixel_steps),
            row_bytes=row_bytes(plan.pixel_steps),
            chosen=folder.rows if folder and plan.counts else "",
            image_bytes=plan.file_bytes,
            spilled=SpillFolder(folder.spills if folder else "", plan.moves.spills, moves.BUCKET_BYTES),
        )

    def origin(self, file: SourceFile) -> Origin:
        """Returns the dataset that a file belongs to."""
        return self.origins[file.source]


def read_task(task: Task, settings: SourceSettings) -> Iterator[Block]:
    """Reads the rows that a task owns, in order, as blocks.

    All of them are read and counted, including those that the selection will drop. A part without rows gives one
    empty block.

    Raises:
        InputError: a file is missing, changed or damaged.
    """
    return _read_segments(task, settings) if task.chosen is None else _read_chosen(task, settings)


def _read_chosen(task: Task, settings: SourceSettings) -> Iterator[Block]:
    """Reads rows that the plan chose one by one; counts their output labels, as the plan counted their input labels."""
    inputs = Inputs(settings.files, settings.origins, settings.image_bytes)
    met: Counter[str] = Counter()
    rows = read_chosen(settings.chosen, task.chosen or 0, inputs, settings.row_bytes, settings.spilled, met)
    for number, (table, last) in enumerate(rows):
        remarks = met.copy()
        met.clear()
        yield Block(table, task.shard, task.part, number, last, read=row_counts(table), remarks=remarks)


def _read_segments(task: Task, settings: SourceSettings) -> Iterator[Block]:
    number = 0
    for at, segment in enumerate(task.segments):
        file = settings.files[segment.file]
        origin = settings.origin(file)
        with get_source(origin.format).open_rows(file, origin.labels) as rows:
            owned = _owned(segment, rows, settings.selection)
            row_bytes = max(settings.row_bytes, rows.row_bytes(*owned, decoded=settings.decoded))
            pieces = spans(*owned, row_bytes)
            for piece, (start, stop) in enumerate(pieces):
                last = at == len(task.segments) - 1 and piece == len(pieces) - 1
                bad = {row: rows.bad_rows[row] for row in range(start, stop) if row in rows.bad_rows}
                table = _sound_rows(rows, start, stop, file, bad) if settings.tolerant else rows.table(start, stop)
                yield Block(
                    table=table,
                    shard=task.shard,
                    part=task.part,
                    number=number,
                    last=last,
                    read=_counts(file.subset, rows.labels[start:stop]),
                    rejected=tuple(bad[row] for row in sorted(bad)),
                    row=start,
                )
                number += 1


def _sound_rows(rows: RowReader, start: int, stop: int, file: SourceFile, bad: dict[int, BadRow]) -> pa.Table:
    """Returns the readable rows of [start, stop); finds the others by bisection and adds them to `bad`."""
    # Handled here: an exception that leaves the generator would also lose the good rows of the range.
    try:
        return rows.table(start, stop)
    except InputError as error:
        if stop == start:
            raise
        if stop - start == 1:
            bad.setdefault(start, file.bad_row(start, str(error), rows.labels[start]))
            return example_schema().empty_table()
    middle = (start + stop) // 2
    halves = (_sound_rows(rows, *half, file, bad) for half in ((start, middle), (middle, stop)))
    return pa.concat_tables(halves).combine_chunks()


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
