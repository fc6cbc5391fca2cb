"""What a plan is made of: plain types, which every planner makes and every later stage reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.data.block import Counts
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
"""One row to write: where it lies, and what it becomes. `id` and `filename` are null where they stay as they are."""


@dataclass(frozen=True)
class Origin:
    """A dataset that a job reads.

    Attributes:
        format: its name.
        labels: its label table.
        pixel_steps: what is done to its images before they meet those of other datasets.
    """

    format: str
    labels: LabelTable
    pixel_steps: tuple[PixelStep, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """What rows are read from.

    Attributes:
        files: input files.
        origins: their formats and label tables.
        image_bytes: of an image of each file, about.
    """

    files: tuple[SourceFile, ...]
    origins: tuple[Origin, ...]
    image_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Segment:
    """Some rows of one input file.

    Of the rows [start, stop), those that survive the selection are numbered; the segment takes the survivors
    [skip, skip + take) and owns the filtered rows before each of them, and those after the last survivor of the
    range. So every row belongs to exactly one task, in the counts as well.

    Attributes:
        file: index in `Plan.files`.
        start: first row of the range.
        stop: end of the range.
        skip: survivors that belong to an earlier task.
        take: survivors to take.
    """

    file: int
    start: int
    stop: int
    skip: int
    take: int

    def owned(self, survives: Sequence[bool]) -> tuple[int, int]:
        """The rows [first, end) that the segment owns.

        Args:
            survives: for each row of [start, stop) whether it passes the selection.
        """
        ends = [self.start + row + 1 for row, kept in enumerate(survives) if kept]
        first = self.start if self.skip == 0 else ends[self.skip - 1]
        end = self.stop if self.skip + self.take == len(ends) else ends[self.skip + self.take - 1]
        return first, end


@dataclass(frozen=True)
class Task:
    """One part of the output: which rows go there, in which order.

    Attributes:
        shard: index in `Plan.shards`.
        part: number within the shard.
        rows: that the part will hold.
        segments: where they come from.
        copy: whether the part is the source file itself, byte for byte.
        chosen: number of the batch of chosen rows that it holds, where the plan chose row by row.
    """

    shard: int
    part: int
    rows: int
    segments: tuple[Segment, ...] = ()
    copy: bool = False
    chosen: int | None = None


@dataclass(frozen=True)
class ChosenCounts:
    """Rows of a plan that chose row by row, by subset and label; -1 is unlabelled.

    Attributes:
        names: the classes that rows were of, in all datasets; label ids of `read`, `filtered` and `unlabelled`.
        read: all rows of the input, by what they were.
        filtered: those that are not written, by what they were.
        unlabelled: those whose label was taken away, by what they were.
        written: those that are written, by what they become.
    """

    names: tuple[str, ...]
    read: Counts
    filtered: Counts
    unlabelled: Counts
    written: Counts


@dataclass(frozen=True)
class ChosenRows:
    """Which rows every part of the output holds, before they are written down for the workers.

    Attributes:
        view: all of them.
        parts: positions in the view, int64, of each part.
    """

    view: View
    parts: tuple[Positions, ...]

    def digest(self) -> str:
        """A hex digest of them."""
        found = hashlib.sha256()
        for batch in self.batches():
            found.update(batch.serialize())
        return found.hexdigest()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields a batch in the schema `CHOSEN` for each part."""
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
class Plan:
    """Everything that a job will do.

    Attributes:
        files: input files that are read.
        origins: the datasets that they belong to, with superclasses filled in.
        selection: which rows are kept.
        label_map: where labels go.
        shards: files of the output.
        tasks: long ones first.
        sink: what writers need to know.
        encodings: how images may lie in blocks when they reach the writer; empty where images are left out.
        pixel_steps: what is done to every image, in order.
        declared: rows of all input files that are read.
        exhaustive: whether all of those are read (a limit stops early).
        image_bytes: raw bytes of the images kept, about.
        notices: things that a user should know.
        file_bytes: of an image of each input file, about.
        counts: rows by what they were and what they become, where the plan chose row by row, else None.
        chosen: those rows; None where it did not, or once they are written down.
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
    file_bytes: tuple[int, ...] = ()
    counts: ChosenCounts | None = None
    chosen: ChosenRows | None = None

    @property
    def rows(self) -> int:
        """Rows that will be written."""
        return sum(shard.rows for shard in self.shards)

    def digest(self, inputs: Sequence[FileSummary], meaning: dict[str, Any]) -> str:
        """A hash of what determines the output: the same job has the same."""
        facts = {
            "inputs": [[s.file.name, s.file.blob.size, s.digest] for s in inputs],
            "options": meaning,
            "labels": asdict(self.label_map.table),
            "shards": [asdict(shard) for shard in self.shards],
            "tasks": [asdict(task) for task in self.tasks],
            "chosen": self.chosen.digest() if self.chosen else "",
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
