"""Spills: files of rows that were moved, in which each part finds its own together.

A spill has the rows of a range of one input file. It holds them in memory some MB at a time, in runs, and writes each
run as one slice per bucket: a record batch in Arrow's IPC format, without schema. An index follows the slices.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar import storage
from beam_cifar.data.grouping import by_key
from beam_cifar.data.schema import example_schema
from beam_cifar.errors import JobError
from beam_cifar.formats.kit.slices import AGAIN, Slices, SliceWriter, read_index, read_slices
from beam_cifar.planning.plan import Positions, Spill

RUN_BYTES: Final = 16 << 20
"""Bytes of rows that a spill holds in memory before they are written."""

_SCHEMA: Final = example_schema().append(pa.field("row", pa.int32(), nullable=False))


class SpillWriter:
    """Writes the rows of one spill.

    Args:
        file: new file, which the caller commits after `close`.
        number: number of the spill.
    """

    def __init__(self, file: storage.StagedFile, number: int) -> None:
        self._slices = SliceWriter(file, number)
        self._tables: list[pa.Table] = []
        self._buckets: list[Positions] = []
        self._rows = self._held = 0

    def append(self, table: pa.Table, rows: npt.NDArray[np.int32], buckets: Positions) -> None:
        """Adds examples, which must follow those before in the order of the input.

        Args:
            table: N examples, in `beam_cifar.data.schema.example_schema`.
            rows: int32 `[N]`, their row numbers in the input file.
            buckets: int64 `[N]`, what each goes to.
        """
        self._tables.append(table.append_column(_SCHEMA.field("row"), pa.array(rows)))
        self._buckets.append(buckets)
        self._rows += len(table)
        self._held += table.nbytes
        if self._held >= RUN_BYTES:
            self._write_run()

    def close(self) -> None:
        """Writes what is left, and the index."""
        self._write_run()
        self._slices.close(self._rows)

    def _write_run(self) -> None:
        if not self._tables:
            return
        table, buckets = pa.concat_tables(self._tables), np.concatenate(self._buckets)
        self._tables, self._buckets, self._held = [], [], 0
        if (buckets[1:] < buckets[:-1]).any():
            order = np.argsort(buckets, kind="stable")
            table, buckets = table.combine_chunks().take(pa.array(order)), buckets[order]
        at = 0
        for batch in table.cast(_SCHEMA).to_batches():
            keys = buckets[at : at + len(batch)]
            at += len(batch)
            edges = [0, *(np.flatnonzero(np.diff(keys)) + 1).tolist(), len(keys)]
            for start, stop in itertools.pairwise(edges):
                self._slices.write(batch.slice(start, stop - start).serialize(), int(keys[start]))


@dataclass(frozen=True)
class SpillFolder:
    """The spills of a job.

    Attributes:
        path: folder of their files.
        spills: all of them, by number.
        bucket_bytes: bytes of images in a bucket, as planned.
    """

    path: str = ""
    spills: tuple[Spill, ...] = ()
    bucket_bytes: int = 0
    _indexes: dict[int, Slices] = field(default_factory=dict, compare=False, repr=False)

    @functools.cached_property
    def _of_file(self) -> dict[int, list[int]]:
        return by_key((spill.file, spill.number) for spill in self.spills)

    def file(self, number: int) -> str:
        """Returns the path of a spill."""
        return os.path.join(self.path, f"{number:06d}")

    def has(self, file: int) -> bool:
        """Returns whether the rows of an input file were moved."""
        return file in self._of_file

    def is_whole(self, spill: Spill) -> bool:
        """Returns whether a spill is there, undamaged, with all of its rows."""
        try:
            rows, index = read_index(self.file(spill.number), spill.number)
            return rows == spill.rows and all(read_slices(self.file(spill.number), index))
        except JobError:
            return False

    def take(self, file: int, rows: npt.NDArray[np.int32], bucket: int) -> pa.Table:
        """Returns the rows of an input file that are in a bucket.

        Args:
            file: index of the input file.
            rows: int32 `[N]`, ascending: the rows expected there.
            bucket: key of the bucket.

        Raises:
            JobError: a spill is damaged, or has other rows.
        """
        batches = [batch for number in self._of_file[file] for batch in self._slices(number, bucket)]
        table = pa.Table.from_batches(batches, _SCHEMA)
        found = table.column("row").to_numpy()
        if not np.array_equal(found, rows):
            shared = min(len(found), len(rows))
            same = int(np.append(found[:shared] == rows[:shared], False).argmin())
            raise JobError(
                f"{self.path}: spills of input file {file} have other rows than planned, from row "
                f"{rows[min(same, len(rows) - 1)]} on; {AGAIN}, without --resume"
            )
        return table.drop_columns(["row"])

    def _slices(self, number: int, bucket: int) -> Iterator[pa.RecordBatch]:
        if number not in self._indexes:
            self._indexes[number] = read_index(self.file(number), number)[1]
        index = self._indexes[number]
        for data in read_slices(self.file(number), index[index["key"] == bucket]):
            yield pa.ipc.read_record_batch(pa.py_buffer(data), _SCHEMA)
