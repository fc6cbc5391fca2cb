"""A block: about a thousand examples on their way from a source file to a part of the output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# Few enough for memory, enough for formats: with row groups of 10 a Parquet file is 42 % larger than with 1,000.
MAX_ROWS = 1000
MAX_BYTES = 16 << 20

Counts = Counter[tuple[str, int]]
"""Rows by (subset, label); the label is -1 for unlabelled rows."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be kept.

    Attributes:
        file: the source file, as the user knows it.
        row: its number in the file, from 0.
        subset: the subset that it belongs to.
        stage: the step that refused it.
        error: what is wrong with it, in words.
        label: its label as far as the table knows it, else -1.
    """

    file: str
    row: int
    subset: str
    stage: str
    error: str
    label: int = -1

    def __str__(self) -> str:
        return f"{self.file}: row {self.row}: {self.error}"


# Blocks go through no shuffle: 1 GB of images in one took local runners 4.5 to 12 GB of memory, and 143 MB without.
@dataclass(frozen=True)
class Block:
    """Examples that belong to one part, and the account of those that no longer do.

    The blocks of a part travel in order, and an emptied one still travels, so that nothing is lost on the way:
    `read = rows in table + filtered + len(rejected)` holds for each block after each step.

    Attributes:
        table: the examples, in the schema of `beam_cifar.data.schema`.
        shard: number of the output file that they go to.
        part: number of the part within the shard.
        number: position of the block within the part, from 0.
        last: whether the part ends here.
        read: rows that the source read for this block, by their label there.
        filtered: rows that transforms dropped, by their source label.
        unlabelled: rows whose label was taken away, by the label that they had in the source.
        rejected: rows that cannot be kept, with their reason.
        row: number of its first row in the source file.
    """

    table: pa.Table
    shard: int
    part: int
    number: int
    last: bool
    read: Counts
    filtered: Counts = field(default_factory=Counter)
    unlabelled: Counts = field(default_factory=Counter)
    rejected: tuple[BadRow, ...] = ()
    row: int = 0

    @property
    def coordinates(self) -> tuple[int, int, int]:
        """(shard, part, number)."""
        return self.shard, self.part, self.number


def row_counts(table: pa.Table) -> Counts:
    """Counts the rows of a table by subset and label."""
    grouped = table.group_by(["subset", "label"], use_threads=False).aggregate([([], "count_all")])
    subsets, labels, counts = (grouped.column(i).to_pylist() for i in (0, 1, 2))
    return Counter(
        {
            (subset, -1 if label is None else label): n
            for subset, label, n in sorted(
                zip(subsets, labels, counts, strict=True), key=lambda row: (row[0], row[1] is not None, row[1] or 0)
            )
        }
    )


def add_counts(counts: Iterable[Counts]) -> Counts:
    """The sum of several counts."""
    total: Counts = Counter()
    for each in counts:
        total.update(each)
    return total


def spans(start: int, stop: int, row_bytes: int) -> list[tuple[int, int]]:
    """Cuts rows [start, stop) into block-sized spans, by rows and by bytes; an empty range is one empty span."""
    step = max(1, min(MAX_ROWS, MAX_BYTES // max(1, row_bytes)))
    return [(at, min(at + step, stop)) for at in range(start, stop, step)] or [(start, start)]
