"""Decides when a part of the output equals an input file, which is then copied instead of converted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from beam_cifar.formats.contract.sink import Sink
from beam_cifar.formats.contract.types import FileSummary, Shard, SinkOptions, SourceFile
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
        and not file.file.images.changes_pixels
        and shard.parts == 1
        and (file.rows, file.batch_label) == (shard.rows, shard.batch_label)
        and sink.copies(file, options)
        and holds_whole_file()
    )


def told_what_passes(
    files: Iterable[SourceFile], encodings: tuple[str, ...], *, changes_pixels: bool
) -> tuple[SourceFile, ...]:
    """Returns input files that know which encodings are written as they are, where that matters to how they are read.

    Args:
        files: the files.
        encodings: those that may reach the writer.
        changes_pixels: whether a step changes images.
    """
    passing = () if changes_pixels else encodings
    return tuple(replace(file, passing=passing) if file.images.exif == "keep" else file for file in files)


def as_copy(task: Task, file: int) -> Task:
    """Returns the task as a copy of the input file with this index in the plan."""
    return replace(task, segments=(Segment(file, 0, task.rows, 0, task.rows),), copy=True)
