"""Decides whether rows are moved before they are written: reading them in the order of the output may cost too much.

A row of a Parquet file is reached by decoding its row group from the start. A part that needs a few rows of every
group would decode all of them, and so would the next part: the work would be parts x rows. Instead every group is read
once, in order, and its rows are spread to spills, where each part finds its own together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from beam_cifar.data.block import MAX_BYTES
from beam_cifar.formats.contract.types import FileSummary, RowAccess
from beam_cifar.planning.plan import ChosenRows, Moves, Positions, Spill, Task

Ints = npt.NDArray[np.int32]

WORTH: Final = 1.5
"""Rows are moved if parts would otherwise read this many times the rows that one pass over the input reads."""
SPILL_BYTES: Final = 64 << 20
"""Bytes of images in a spill; more if a single group has more."""
BUCKET_BYTES: Final = MAX_BYTES
"""Bytes of images that a part reads from spills together."""
FACTS_BYTES: Final = 100
"""Approximate bytes of a row in a spill besides its image."""


def bucket(part: int, number: int) -> int:
    """Returns the key of a bucket: rows that follow each other in a part, and are read together.

    Args:
        part: index of the part's batch of chosen rows.
        number: number of the bucket in the part.
    """
    return part << 32 | number


def bucket_ends(files: Ints, image_bytes: Sequence[int]) -> Positions:
    """Returns where the buckets of a part end, so that the images of each fit in memory: int64 `[B]`.

    Args:
        files: int32 `[N]`, input file of each row.
        image_bytes: approximate bytes of an image of each file.
    """
    sizes = np.maximum(1, np.array(image_bytes, dtype=np.int64))[files]
    numbers = (np.cumsum(sizes) - sizes) // BUCKET_BYTES
    return np.append(np.flatnonzero(np.diff(numbers)) + 1, len(files))[: len(files)].astype(np.int64)


def rereads(tasks: Sequence[Task], summaries: Sequence[FileSummary]) -> bool:
    """Returns whether tasks that read ranges of files would read rows so often that moving them first is worth it."""
    read = 0
    once = {number: summary.rows for number, summary in enumerate(summaries) if summary.access.starts}
    starts = {number: np.array(summaries[number].access.starts) for number in once}
    for task in tasks:
        for segment in task.segments if not task.copy else ():
            if segment.file in once and segment.take:
                group = np.searchsorted(starts[segment.file], segment.start, "right") - 1
                read += segment.stop - int(starts[segment.file][group])
    return read > WORTH * sum(once.values())


def moves_of(chosen: ChosenRows, summaries: Sequence[FileSummary], image_bytes: Sequence[int]) -> Moves | None:
    """Returns which rows are moved before they are written; None if it is not worth it.

    Args:
        chosen: rows of every part.
        summaries: summaries of the input files.
        image_bytes: approximate bytes of an image of each file while it is processed.
    """
    spread = np.array([bool(summary.access.starts) for summary in summaries])
    if not spread.any():
        return None
    groups = _Groups([summary.access for summary in summaries])
    read = 0
    latest = np.full(groups.count, -1, dtype=np.int64)
    pieces: list[tuple[Ints, Ints, Positions]] = []
    for part, positions in enumerate(chosen.parts):
        files, rows = chosen.view.files[positions], chosen.view.rows[positions]
        ends = bucket_ends(files, image_bytes)
        buckets = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        mine = spread[files]
        files, rows, buckets = files[mine], rows[mine], buckets[mine]
        found = groups.of(files, rows)
        np.maximum.at(latest, found, rows)
        # A reader goes on where it is if rows ascend; else it starts each bucket anew.
        pass_of = np.zeros_like(buckets) if _ascend(files, rows) else buckets
        read += groups.rows_read(pass_of * groups.count + found, rows)
        pieces.append((files, rows, bucket(part, 0) + buckets))
    once = int((latest - groups.starts + 1)[latest >= 0].sum())
    if read <= WORTH * once:
        return None
    files, rows, keys = (np.concatenate(column) for column in zip(*pieces, strict=True))
    order = np.lexsort((rows, files))
    files, rows, keys = files[order], rows[order], keys[order]
    stored = [_stored_bytes(summary) for summary in summaries]
    spills = tuple(_spills(files, groups.of(files, rows), stored))
    nbytes = sum(spill.rows * stored[spill.file] for spill in spills)
    return Moves(spills, rows, keys, nbytes)


def _ascend(files: Ints, rows: Ints) -> bool:
    steps = np.diff(files)
    return bool(((steps > 0) | ((steps == 0) & (np.diff(rows) >= 0))).all())


def _stored_bytes(summary: FileSummary) -> int:
    return FACTS_BYTES + summary.image_bytes // max(1, summary.images)


def _spills(files: Ints, groups: Positions, stored: Sequence[int]) -> Iterator[Spill]:
    """Yields spills of whole groups, given the file and the group of every row that is moved, in order."""
    firsts = np.append(0, np.flatnonzero(np.diff(groups)) + 1) if len(groups) else np.empty(0, np.int64)
    number = rows = 0
    for first, stop in zip(firsts.tolist(), [*firsts[1:].tolist(), len(groups)], strict=True):
        file = int(files[first])
        rows += stop - first
        last = stop == len(groups) or files[stop] != file
        if last or rows * stored[file] >= SPILL_BYTES:
            yield Spill(number, file, rows)
            number, rows = number + 1, 0


class _Groups:
    """The groups of all files, numbered in order; a file whose rows are read directly has one, which is not used."""

    def __init__(self, accesses: Sequence[RowAccess]) -> None:
        starts = [np.array(access.starts or (0,), dtype=np.int64) for access in accesses]
        self.starts = np.concatenate(starts)
        self.count = len(self.starts)
        self._files = np.repeat(np.arange(len(starts), dtype=np.int64), [len(each) for each in starts])

    def of(self, files: Ints, rows: Ints) -> Positions:
        """Returns the group of each row."""
        keys = self._files << 32 | self.starts
        return np.searchsorted(keys, files.astype(np.int64) << 32 | rows, "right") - 1

    def rows_read(self, passes: Positions, rows: Ints) -> int:
        """Returns how many rows are read; each pass over a group reads it from its start to the last row needed.

        Args:
            passes: pass and group of each row: the number of the pass times the number of groups, plus the group.
            rows: row numbers.
        """
        found, inverse = np.unique(passes, return_inverse=True)
        last = np.full(len(found), -1, dtype=np.int64)
        np.maximum.at(last, inverse, rows)
        return int((last - self.starts[found % self.count] + 1).sum())
