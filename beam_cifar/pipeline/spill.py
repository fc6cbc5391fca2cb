"""The first of two passes over rows that are written in another order than they are read in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from beam_cifar.jobs.read_part import SourceSettings
from beam_cifar.jobs.spill import SpillInfo, check_spills, write_spill
from beam_cifar.pipeline import (
    checked,  # noqa: F401  (its coder guards spills and their accounts)
    stores,  # noqa: F401  (how workers reach object stores)
)
from beam_cifar.pipeline.counters import count
from beam_cifar.pipeline.errors import carried
from beam_cifar.planning.plan import Spill, Task
from beam_cifar.storage import JobFolder


@dataclass
class MoveRows(beam.PTransform):
    """Writes spills, in parallel; distributes the tasks of the second pass, once all spills are there.

    Attributes:
        spills: spills to write.
        source: what reading them needs.
        folder: folder of the job.
        tasks: tasks that read the spills.
    """

    spills: Sequence[Spill]
    source: SourceSettings
    folder: JobFolder
    tasks: Sequence[Task]

    def display_data(self) -> dict[str, Any]:
        return {"spills": len(self.spills), "rows": sum(spill.rows for spill in self.spills)}

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Task]:
        return (
            pipeline
            | "Spills" >> beam.Create(self.spills, reshuffle=False).with_output_types(Spill)
            | "SpreadSpills" >> beam.Reshuffle().with_output_types(Spill)
            | "WriteSpills" >> beam.Map(move_rows, self.source, self.folder).with_output_types(SpillInfo)
            # One key for all: the tasks start only once every spill is there.
            | "KeyByJob" >> beam.Map(lambda info: (0, info)).with_output_types(tuple[int, SpillInfo])
            | "GroupSpills" >> beam.GroupByKey()
            | "StartParts" >> beam.FlatMap(_checked, self.spills, self.tasks).with_output_types(Task)
            | "SpreadParts" >> beam.Reshuffle().with_output_types(Task)
        )


@carried()
def move_rows(spill: Spill, source: SourceSettings, folder: JobFolder) -> SpillInfo:
    """Writes a spill, and counts its rows; raises errors in the form of `carried`."""
    info = write_spill(spill, source, folder)
    count(rows_moved=info.rows)
    return info


def _checked(keyed: tuple[int, Iterable[SpillInfo]], spills: Sequence[Spill], tasks: Sequence[Task]) -> Iterator[Task]:
    with carried():
        check_spills(list(keyed[1]), spills)
    yield from tasks
