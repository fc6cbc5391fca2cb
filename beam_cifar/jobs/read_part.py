"""Reads the rows of one task as the blocks of a part, in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from beam_cifar.data.block import MAX_ROWS, BadRow, Block, Counts, row_counts, spans
from beam_cifar.data.labels import UNLABELLED
from beam_cifar.data.schema import example_schema
from beam_cifar.errors import InputError
from beam_cifar.filters.selection import Selection
from beam_cifar.formats.contract.source import RowReader, runs_of
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

    All of them are counted, but what the selection drops is not read: its image may be damaged. A part without rows
    gives one empty block.

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
            kept = _kept(segment, rows, settings.selection)
            owned = segment.owned(
                [row in kept and row not in rows.bad_rows for row in range(segment.start, segment.stop)]
            )
            wanted = [row for row in range(*owned) if row in kept and row not in rows.bad_rows]
            pieces = spans(*owned, max(settings.row_bytes, _row_bytes(rows, owned, wanted, settings)))
            for piece, (start, stop) in enumerate(pieces):
                last = at == len(task.segments) - 1 and piece == len(pieces) - 1
                yield _block(rows, range(start, stop), kept, (task, number, last), settings)
                number += 1


def _row_bytes(rows: RowReader, owned: tuple[int, int], wanted: Sequence[int], settings: SourceSettings) -> int:
    """Returns the bytes of the largest image of some wanted rows, or an upper bound where that is found out sooner."""
    runs = runs_of(wanted) if settings.decoded else [owned]
    return max((rows.row_bytes(*run, decoded=settings.decoded) for run in runs), default=0)


def _block(
    rows: RowReader, span: range, kept: Collection[int], place: tuple[Task, int, bool], settings: SourceSettings
) -> Block:
    """Returns the rows of a span that are kept as the block of a task that has a number and may be its last."""
    file, (task, number, last) = rows.file, place
    bad = {row: rows.bad_rows[row] for row in span if row in kept and row in rows.bad_rows}
    dropped = [rows.labels[row] for row in span if row not in kept]
    wanted = [row for row in span if row in kept and row not in bad]
    return Block(
        table=_sound_rows(rows, wanted, file, bad) if settings.tolerant else rows.take(wanted),
        shard=task.shard,
        part=task.part,
        number=number,
        last=last,
        read=_counts(file.subset, rows.labels[span.start : span.stop]),
        filtered=_counts(file.subset, dropped),
        rejected=tuple(bad[row] for row in sorted(bad)),
        row=span.start,
    )


def _sound_rows(rows: RowReader, wanted: Sequence[int], file: SourceFile, bad: dict[int, BadRow]) -> pa.Table:
    """Returns those of some rows that can be read; finds the others by bisection and adds them to `bad`."""
    # Handled here: an exception that leaves the generator would also lose the good rows of the range.
    try:
        return rows.take(wanted)
    except InputError as error:
        if not wanted:
            raise
        if len(wanted) == 1:
            bad.setdefault(wanted[0], file.bad_row(wanted[0], str(error), rows.labels[wanted[0]]))
            return example_schema().empty_table()
    middle = len(wanted) // 2
    halves = (_sound_rows(rows, half, file, bad) for half in (wanted[:middle], wanted[middle:]))
    return pa.concat_tables(halves).combine_chunks()


def _kept(segment: Segment, rows: RowReader, selection: Selection) -> Collection[int]:
    """Returns the rows of a segment's range that the selection keeps, bad ones included."""
    if selection.keeps_all:
        return range(segment.start, segment.stop)
    survives: list[bool] = []
    for start in range(segment.start, segment.stop, MAX_ROWS):
        survives += _survivors(rows, start, min(start + MAX_ROWS, segment.stop), selection)
    return {row for row, kept in enumerate(survives, segment.start) if kept}


def _survivors(rows: RowReader, start: int, stop: int, selection: Selection) -> list[bool]:
    if selection.filter is not None:
        facts = rows.facts(start, stop, sizes="image" in selection.filter.sees)
        kept: list[bool] = selection.decide(facts).rows.tolist()
        return kept
    return list(map(selection.keeps_label, rows.labels[start:stop]))


def _counts(subset: str, labels: Sequence[int]) -> Counts:
    counts = Counter(labels)
    return Counter({(subset, label): counts[label] for label in sorted(counts, key=lambda n: (n == UNLABELLED, n))})
