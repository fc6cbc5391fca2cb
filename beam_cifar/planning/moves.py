"""Decides whether rows are moved before they are written: reading them in the order of the output may cost too much.

A row of a Parquet file is reached by decoding its row group from the start. A part that needs a few rows of every
group would decode all of them, and so would the next part: the work would be parts x rows. Instead every group is read
once, in order, and its rows are spread to spills, where each part finds its own together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from beam_cifar.data.block import MAX_BYTES, MAX_ROWS
from beam_cifar.formats.contract.types import FileSummary, RowAccess
from beam_cifar.planning import spills
from beam_cifar.planning.plan import ChosenRows, Moves, Positions, Spill, Task

Ints = npt.NDArray[np.int32]

WORTH: Final = 1.5
"""Rows of a file are moved if parts would otherwise read this many times the rows that one pass over it reads."""
SPILL_BYTES: Final = 64 << 20
"""Bytes of images in a spill; more if a single group has more."""
BUCKET_BYTES: Final = MAX_BYTES
"""Bytes of images that a part reads from spills together."""
FACTS_BYTES: Final = 100
"""Approximate bytes of a row in a spill besides its image."""
SLICE_BYTES: Final = 1300
"""Approximate bytes of a slice besides its rows: Arrow's description of a record batch, and padding."""


def bucket(part: int, number: int) -> int:
    """Returns the key of a bucket: rows that follow each other in a part, and are read together.

    Args:
        part: index of the part's batch of chosen rows.
        number: number of the bucket in the part.
    """
    return part << 32 | number


def bucket_ends(files: Ints, image_bytes: Sequence[int], bucket_bytes: int) -> Positions:
    """Returns where the buckets of a part end, so that the images of each fit in memory: int64 `[B]`.

    Args:
        files: int32 `[N]`, input file of each row.
        image_bytes: approximate bytes of an image of each file.
        bucket_bytes: bytes of images in a bucket, and the limit of its rows: those of 16 blocks, if images are small.
    """
    least = max(1, bucket_bytes // (16 * MAX_ROWS))  # a dictionary may hold large images that are few bytes a row
    sizes = np.maximum(least, np.array(image_bytes, dtype=np.int64))[files]
    numbers = (np.cumsum(sizes) - sizes) // bucket_bytes
    return np.append(np.flatnonzero(np.diff(numbers)) + 1, len(files))[: len(files)].astype(np.int64)


def rereads(tasks: Sequence[Task], summaries: Sequence[FileSummary]) -> bool:
    """Returns whether tasks that read ranges of files would read one so often that it is worth moving its rows."""
    once = {number: summary.rows for number, summary in enumerate(summaries) if summary.access.starts}
    starts = {number: np.array(summaries[number].access.starts) for number in once}
    read = dict.fromkeys(once, 0)
    for task in tasks:
        for segment in task.segments if not task.copy else ():
            if segment.file in once and segment.take:
                group = np.searchsorted(starts[segment.file], segment.start, "right") - 1
                read[segment.file] += segment.stop - int(starts[segment.file][group])
    return any(read[number] > WORTH * rows for number, rows in once.items())


def moves_of(
    chosen: ChosenRows, written: Collection[int], summaries: Sequence[FileSummary], image_bytes: Sequence[int]
) -> Moves:
    """Returns which rows are moved before they are written; none of a file for which it is not worth it.

    Args:
        chosen: rows of every part.
        written: indexes of the parts that are written row by row; others are copies of files.
        summaries: summaries of the input files.
        image_bytes: approximate bytes of an image of each file while it is processed.
    """
    groups = _Groups([summary.access for summary in summaries])
    if not groups.spread.any():
        return Moves()
    read = np.zeros(len(summaries), dtype=np.int64)
    latest = np.full(groups.count, -1, dtype=np.int64)
    parts: list[tuple[Ints, Ints, Positions]] = []
    for part in sorted(written):
        positions = chosen.parts[part]
        files, rows = chosen.view.files[positions], chosen.view.rows[positions]
        ends = bucket_ends(files, image_bytes, BUCKET_BYTES)
        buckets = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        mine = groups.spread[files]
        files, rows, buckets = files[mine], rows[mine], buckets[mine]
        found = groups.of(files, rows)
        np.maximum.at(latest, found, rows)
        # A reader goes on where it is if rows ascend; else it starts each bucket anew.
        pass_of = np.zeros_like(buckets) if ascend(files, rows) else buckets
        read += groups.rows_read(pass_of * groups.count + found, rows)
        parts.append((files, rows, bucket(part, 0) + buckets))
    moved = read > WORTH * groups.by_file(np.arange(groups.count), np.where(latest < 0, 0, latest - groups.starts + 1))
    if not moved.any():
        return Moves()
    files, rows, keys = (np.concatenate(column) for column in zip(*parts, strict=True))
    parts.clear()  # of the same size again
    order = np.lexsort((rows, files))
    order = order[moved[files[order]]]
    files = files[order]
    rows = rows[order]
    keys = keys[order]
    stored = np.array([_stored_bytes(summary) for summary in summaries])
    ends = np.cumsum(stored[files])
    nbytes = int(ends[-1]) + SLICE_BYTES * _count_pairs(ends // spills.RUN_BYTES, keys)
    return Moves(tuple(_spills(files, groups.of(files, rows), stored.tolist())), nbytes, rows, keys)


def _count_pairs(first: Positions, second: Positions) -> int:
    """Returns how many different pairs there are."""
    pairs = first * (int(second.max()) + 1) + second
    pairs.sort()
    return 1 + int(np.count_nonzero(pairs[1:] != pairs[:-1]))


def ascend(files: Ints, rows: Ints) -> bool:
    """Returns whether rows are in the order of the files, and of the rows in each."""
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
    """The groups of all files, numbered in order.

    Attributes:
        spread: bool, per file: whether it has groups; one whose rows are read directly has a group that is not used.
        starts: int64, first row of each group.
        count: number of groups.
    """

    def __init__(self, accesses: Sequence[RowAccess]) -> None:
        self.spread = np.array([bool(access.starts) for access in accesses])
        starts = [np.array(access.starts or (0,), dtype=np.int64) for access in accesses]
        self.starts = np.concatenate(starts)
        self.count = len(self.starts)
        self._files = np.repeat(np.arange(len(starts), dtype=np.int64), [len(each) for each in starts])

    def of(self, files: Ints, rows: Ints) -> Positions:
        """Returns the group of each row."""
        keys = self._files << 32 | self.starts
        return np.searchsorted(keys, files.astype(np.int64) << 32 | rows, "right") - 1

    def by_file(self, found: Positions, counts: Positions) -> Positions:
        """Returns the sum of counts for each file, given the group of each."""
        return np.bincount(self._files[found], counts, len(self.spread)).astype(np.int64)

    def rows_read(self, passes: Positions, rows: Ints) -> Positions:
        """Returns how many rows of each file are read; a pass over a group reads it from its start to the last needed.

        Args:
            passes: pass and group of each row: the number of the pass times the number of groups, plus the group.
            rows: row numbers.
        """
        found, inverse = np.unique(passes, return_inverse=True)
        last = np.full(len(found), -1, dtype=np.int64)
        np.maximum.at(last, inverse, rows)
        return self.by_file(found % self.count, last - self.starts[found % self.count] + 1)
