"""A block: up to about a thousand examples on their way from a source file to a part of the output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# Small enough for memory, large enough for file formats: with row groups of 10 instead of 1,000 rows a Parquet file is
# 42 % larger.
MAX_ROWS = 1000
MAX_BYTES = 16 << 20

Counts = Counter[tuple[str, int]]
"""Row counts by (subset, label); the label is -1 for unlabelled rows."""


WHOLE_FILE = -1
"""The row number of a record about a file of which no row can be read."""


@dataclass(frozen=True, slots=True)  # with slots: a job may keep many
class BadRow:
    """A rejected row.

    Attributes:
        file: display name of the source file.
        row: row number in the file, from 0, or `WHOLE_FILE`.
        subset: subset the row belongs to.
        stage: the step that rejected it.
        error: why it was rejected.
        label: its label if that is in the label table, else -1.
    """

    file: str
    row: int
    subset: str
    stage: str
    error: str
    label: int = -1

    def __str__(self) -> str:
        return f"{self.file}: {self.error}" if self.row == WHOLE_FILE else f"{self.file}: row {self.row}: {self.error}"


# Blocks are never shuffled: with a shuffle, 1 GB of images took local runners 4.5 to 12 GB of memory; without, 143 MB.
@dataclass(frozen=True)
class Block:
    """Examples of one part, with counts of the rows that were dropped from it.

    The blocks of a part stay in order, and empty blocks are passed on too, so that every row is accounted for:
    after each step, `read = rows in table + filtered + len(rejected)`.

    Attributes:
        table: the examples, in the schema of `beam_cifar.data.schema`.
        shard: number of the output file that the examples go to.
        part: number of the part within the shard.
        number: position of the block within the part, from 0.
        last: whether this is the last block of the part.
        read: rows that the source read for this block, by source label.
        filtered: rows dropped by transforms, by source label.
        unlabelled: rows whose label was removed, by source label.
        rejected: rejected rows, with the reason.
        row: number of the block's first row in the source file.
        remarks: what decoding did to images that users should know, by kind; see `beam_cifar.images.remarks`.
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
    remarks: Counter[str] = field(default_factory=Counter)

    @property
    def coordinates(self) -> tuple[int, int, int]:
        """(shard, part, number)."""
        return self.shard, self.part, self.number


def row_counts(table: pa.Table) -> Counts:
    """Returns the number of rows of a table by subset and label."""
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
    """Returns the sum of several counts."""
    total: Counts = Counter()
    for each in counts:
        total.update(each)
    return total


def spans(start: int, stop: int, row_bytes: int) -> list[tuple[int, int]]:
    """Cuts rows [start, stop) into spans of block size, in rows and bytes; an empty range gives one empty span."""
    step = max(1, min(MAX_ROWS, MAX_BYTES // max(1, row_bytes)))
    return [(at, min(at + step, stop)) for at in range(start, stop, step)] or [(start, start)]
