"""Moves the rows of one spill, in the order of the input, to where the parts that need them find them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from beam_cifar.data.block import MAX_BYTES, MAX_ROWS
from beam_cifar.errors import JobError
from beam_cifar.formats.registry import get_source
from beam_cifar.jobs.accounts import one_each
from beam_cifar.jobs.read_part import SourceSettings
from beam_cifar.planning.chosen_rows import read_batch
from beam_cifar.planning.plan import Spill
from beam_cifar.planning.spills import SpillWriter
from beam_cifar.storage import JobFolder


@dataclass(frozen=True)
class SpillInfo:
    """The account of a finished spill.

    Attributes:
        number: number of the spill.
        rows: number of rows in it.
    """

    number: int
    rows: int


def write_spill(spill: Spill, source: SourceSettings, folder: JobFolder) -> SpillInfo:
    """Reads rows of an input file in order, and writes them to a spill. Raises `InputError` or `JobError`."""
    moves = read_batch(folder.moves, spill.number)
    numbers, buckets = (moves.column(name).to_numpy() for name in ("row", "bucket"))
    file = source.files[spill.file]
    origin = source.origin(file)
    step = max(1, min(MAX_ROWS, MAX_BYTES // max(1, source.image_bytes[spill.file])))
    rows, counts = np.unique(numbers, return_counts=True)
    ends = np.cumsum(counts)
    with folder.stage(source.spilled.file(spill.number), hashed=False) as staged:
        writer = SpillWriter(staged, spill.number)
        with get_source(origin.format).open_rows(file, origin.labels) as reader:
            for at in range(0, len(rows), step):
                stop = min(at + step, len(rows))
                first, last = ends[at] - counts[at], ends[stop - 1]
                table = reader.take(rows[at:stop].tolist())
                if last - first > stop - at:
                    table = table.take(np.repeat(np.arange(stop - at), counts[at:stop]))
                writer.append(table, numbers[first:last], buckets[first:last])
        writer.close()  # outside, where what storage refuses is not taken for a damaged input
        staged.commit()
    return SpillInfo(spill.number, len(numbers))


def check_spills(infos: Sequence[SpillInfo], left: Sequence[Spill]) -> None:
    """Raises `JobError` unless there is one account of each spill, with all of its rows."""
    places = {spill.number: at for at, spill in enumerate(left)}
    found = one_each(infos, len(left), lambda info: places.get(info.number, -1), "spills")
    for info, spill in zip(found, left, strict=True):
        if info.rows != spill.rows:
            raise JobError(f"spill {info.number} has {info.rows} rows; expected {spill.rows}; nothing was published")


def left_to_move(source: SourceSettings, *, resumed: bool) -> tuple[Spill, ...]:
    """Returns the spills that are not finished; only a resumed job has finished ones."""
    spilled = source.spilled
    return tuple(spill for spill in spilled.spills if not (resumed and spilled.is_whole(spill)))
