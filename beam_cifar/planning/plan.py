"""The types of a plan: what is read, which tasks there are, which shards they make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from beam_cifar.data.block import Counts
from beam_cifar.data.labels import LabelMap
from beam_cifar.filters.selection import Selection
from beam_cifar.formats.contract.types import FileSummary, Shard, SinkOptions, SourceFile
from beam_cifar.planning.chosen_rows import ChosenRows
from beam_cifar.planning.inputs import Origin
from beam_cifar.steps.base import PixelStep


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
        names: the classes that rows were of, in all data sets; label ids of `read`, `filtered` and `unlabelled`.
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
class Plan:
    """Everything that a job will do.

    Attributes:
        files: input files that are read.
        origins: the data sets that they belong to, with superclasses filled in.
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
