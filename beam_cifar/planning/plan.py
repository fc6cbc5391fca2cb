"""Types of a plan: plain data that every planner creates and every later stage reads."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.data.block import BadRow, Counts
from beam_cifar.data.labels import LabelMap, LabelTable
from beam_cifar.data.row_table import View
from beam_cifar.filters.selection import Selection
from beam_cifar.formats.contract.types import FileSummary, Shard, SinkOptions, SourceFile
from beam_cifar.steps.base import PixelStep

Positions = npt.NDArray[np.int64]

CHOSEN: Final = pa.schema(
    [
        pa.field("file", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("label", pa.int64()),
        pa.field("id", pa.string()),
        pa.field("filename", pa.string()),
    ]
)
"""One row to write: where it is read from and what it becomes. `id` and `filename` are null if unchanged."""

MOVES: Final = pa.schema([pa.field("row", pa.int32(), nullable=False), pa.field("bucket", pa.int64(), nullable=False)])
"""One row of a spill, and where it goes."""


@dataclass(frozen=True)
class Origin:
    """A dataset that a job reads.

    Attributes:
        format: name of its format.
        labels: its label table.
        pixel_steps: steps applied to its images before it is merged with other datasets.
    """

    format: str
    labels: LabelTable
    pixel_steps: tuple[PixelStep, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """The files and formats that rows are read from.

    Attributes:
        files: input files.
        origins: formats and label tables of the datasets.
        image_bytes: approximate bytes of one image of each file.
    """

    files: tuple[SourceFile, ...]
    origins: tuple[Origin, ...]
    image_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Segment:
    """A run of rows of one input file.

    The rows of [start, stop) that survive the selection are numbered. The segment takes survivors
    [skip, skip + take); it owns the filtered rows before each of them, and those after the last survivor of the
    range. So every row belongs to exactly one task and is counted once.

    Attributes:
        file: index in `Plan.files`.
        start: first row of the range.
        stop: end of the range, exclusive.
        skip: number of survivors that belong to an earlier task.
        take: number of survivors to take.
    """

    file: int
    start: int
    stop: int
    skip: int
    take: int

    def owned(self, survives: Sequence[bool]) -> tuple[int, int]:
        """Returns the range [first, end) of rows that the segment owns.

        Args:
            survives: whether each row of [start, stop) passes the selection.
        """
        ends = [self.start + row + 1 for row, kept in enumerate(survives) if kept]
        first = self.start if self.skip == 0 else ends[self.skip - 1]
        end = self.stop if self.skip + self.take == len(ends) else ends[self.skip + self.take - 1]
        return first, end


@dataclass(frozen=True)
class Task:
    """What one worker does: reads rows in order and writes them as one part.

    Attributes:
        shard: index in `Plan.shards`.
        part: number within the shard.
        rows: number of rows that the part will have.
        segments: where the rows come from.
        copy: whether the part is a copy of the source file, byte for byte.
        chosen: index of its batch of chosen rows, if the plan chose row by row.
    """

    shard: int
    part: int
    rows: int
    segments: tuple[Segment, ...] = ()
    copy: bool = False
    chosen: int | None = None


@dataclass(frozen=True)
class ChosenCounts:
    """Row counts of a plan that chose row by row, by subset and label; -1 is unlabelled.

    Attributes:
        names: classes of all input datasets; `read`, `filtered` and `unlabelled` use their label ids.
        read: all rows of the input, by input subset and label.
        filtered: rows that are not written, by input subset and label.
        unlabelled: rows whose label was removed, by input subset and label.
        written: rows that are written, by output subset and label.
        rejected: bad rows that were set aside, by input subset and label.
    """

    names: tuple[str, ...]
    read: Counts
    filtered: Counts
    unlabelled: Counts
    written: Counts
    rejected: Counts = field(default_factory=Counter)


@dataclass(frozen=True)
class ChosenRows:
    """The rows of every part of the output, before they are stored for the workers.

    Attributes:
        view: all rows.
        parts: int64 positions in the view, one array per part.
    """

    view: View
    parts: tuple[Positions, ...]

    def digest(self) -> str:
        """Returns a hex digest of all chosen rows."""
        found = hashlib.sha256()
        for batch in self.batches():
            found.update(batch.serialize())
        return found.hexdigest()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields one batch per part, in the schema `CHOSEN`."""
        names = pa.array(self.view.subset_names, pa.string())
        for part in self.parts:
            view = self.view.take(part)
            labels = view.labels.astype(np.int64)
            unchanged = pa.nulls(len(view), pa.string())
            columns = {
                "file": pa.array(view.files),
                "row": pa.array(view.rows),
                "subset": names.take(pa.array(view.subsets)),
                "label": pa.array(labels, mask=labels < 0),
                "id": view.ids if view.new_ids else unchanged,
                "filename": view.filenames if view.new_ids else unchanged,
            }
            yield pa.RecordBatch.from_arrays([columns[name] for name in CHOSEN.names], schema=CHOSEN)


@dataclass(frozen=True)
class Spill:
    """Rows of an input file that are moved in one pass, in order, to where the parts that need them find them.

    Attributes:
        number: its number in the plan.
        file: index in `Plan.files`.
        rows: number of rows to move; a row that is written twice counts twice.
    """

    number: int
    file: int
    rows: int


@dataclass(frozen=True)
class Moves:
    """Where the rows of every spill go, before they are stored for the workers.

    Attributes:
        spills: the spills, those of a file in order.
        bytes: approximate bytes of all spills.
        rows: int32, row numbers in the files; those of each spill ascend. Empty once they are stored.
        buckets: int64, what each row goes to; see `beam_cifar.planning.moves.bucket`. Empty once they are stored.
    """

    spills: tuple[Spill, ...] = ()
    bytes: int = 0
    rows: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    buckets: Positions = field(default_factory=lambda: np.empty(0, np.int64))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields one batch per spill, in the schema `MOVES`."""
        start = 0
        for spill in self.spills:
            stop = start + spill.rows
            columns = [pa.array(self.rows[start:stop]), pa.array(self.buckets[start:stop])]
            yield pa.RecordBatch.from_arrays(columns, schema=MOVES)
            start = stop


@dataclass(frozen=True)
class Plan:
    """Everything that a job will do.

    Attributes:
        files: input files to read.
        origins: the datasets that they belong to, with superclasses filled in.
        selection: decides which rows are kept.
        label_map: maps input labels to output labels.
        shards: files of the output.
        tasks: all tasks, longest first.
        sink: what writers need to know.
        encodings: encodings in which images may reach the writer; empty if images are not written.
        pixel_steps: steps applied to every image, in order.
        declared: number of rows in all input files.
        exhaustive: whether all of those are read (a limit stops early).
        image_bytes: approximate raw bytes of the images kept.
        notices: notices for the user.
        losses: what the rows have and the output lacks, as words of `beam_cifar.formats.contract.sink.LOSSES`.
        file_bytes: approximate bytes of one image of each input file.
        counts: row counts before and after, if the plan chose row by row, else None.
        chosen: the rows chosen; None if the plan did not choose row by row, or once they are stored.
        moves: rows that are moved before the tasks start.
        set_aside: bad rows that are left out; see `beam_cifar.planning.quarantine.Found`. Empty once they are stored.
    """

    files: tuple[SourceFile, ...]
    origins: tuple[Origin, ...]
    selection: Selection
    label_map: LabelMap
    shards: tuple[Shard, ...]
    tasks: tuple[Task, ...]
    sink: SinkOptions
    encodings: tuple[str, ...]
    pixel_steps: tuple[PixelStep, ...]
    declared: int
    exhaustive: bool
    image_bytes: int
    notices: tuple[str, ...]
    losses: tuple[str, ...] = ()
    file_bytes: tuple[int, ...] = ()
    counts: ChosenCounts | None = None
    chosen: ChosenRows | None = None
    moves: Moves = field(default_factory=Moves)
    set_aside: Mapping[int, Sequence[BadRow]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows to write."""
        return sum(shard.rows for shard in self.shards)

    def stored(self) -> Plan:
        """Returns the plan without the rows that it chose, which workers read from the job folder, and the bad ones."""
        return replace(self, chosen=None, moves=Moves(self.moves.spills, self.moves.bytes), set_aside={})

    def digest(self, inputs: Sequence[FileSummary], meaning: dict[str, Any]) -> str:
        """Returns a hash of everything that determines the output; equal jobs have equal hashes."""
        facts = {
            "inputs": [[s.file.name, s.file.blob.size, s.digest] for s in inputs],
            "options": meaning,
            "labels": asdict(self.label_map.table),
            "shards": [asdict(shard) for shard in self.shards],
            "tasks": [asdict(task) for task in self.tasks],
            "chosen": self.chosen.digest() if self.chosen else "",
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
