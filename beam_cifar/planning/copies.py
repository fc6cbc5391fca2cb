"""When a part of the output is an input file itself, and is copied whole instead of converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import FileSummary, Shard, SinkOptions
from beam_cifar.planning.plan import Segment, Task


def is_copy(
    shard: Shard, file: FileSummary | None, sink: Sink, options: SinkOptions, holds_whole_file: Callable[[], bool]
) -> bool:
    """Whether a shard would be an input file, byte for byte.

    Args:
        shard: what would be written.
        file: the one input file that its rows come from; None where there are several, or none.
        sink: format to write, which knows files of its own style.
        options: of the writers.
        holds_whole_file: whether the rows are all that the file has, unchanged and in order; asked last.
    """
    return (
        file is not None
        and shard.parts == 1
        and (file.rows, file.batch_label) == (shard.rows, shard.batch_label)
        and sink.copies(file, options)
        and holds_whole_file()
    )


def as_copy(task: Task, file: int) -> Task:
    """The task as a copy of an input file, given by its number in the plan."""
    return replace(task, segments=(Segment(file, 0, task.rows, 0, task.rows),), copy=True)
