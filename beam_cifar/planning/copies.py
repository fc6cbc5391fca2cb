"""Decides when a part of the output equals an input file, which is then copied instead of converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import FileSummary, Shard, SinkOptions
from beam_cifar.planning.plan import Segment, Task


def is_copy(
    shard: Shard, file: FileSummary | None, sink: Sink, options: SinkOptions, holds_whole_file: Callable[[], bool]
) -> bool:
    """Returns whether a shard would equal an input file, byte for byte.

    Args:
        shard: shard to write.
        file: the only input file that its rows come from; None if there are several, or none.
        sink: format to write, which recognises files of its own style.
        options: options of the writers.
        holds_whole_file: returns whether the rows are all rows of the file, unchanged and in order; called last.
    """
    return (
        file is not None
        and shard.parts == 1
        and (file.rows, file.batch_label) == (shard.rows, shard.batch_label)
        and sink.copies(file, options)
        and holds_whole_file()
    )


def as_copy(task: Task, file: int) -> Task:
    """Returns the task as a copy of the input file with this index in the plan."""
    return replace(task, segments=(Segment(file, 0, task.rows, 0, task.rows),), copy=True)
