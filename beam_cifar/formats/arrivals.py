"""Arrivals: examples of a pipeline on disk, in the order in which they came, until it is known where each one goes.

Each bundle of examples becomes a slice file (`beam_cifar.formats.kit.slices`): record batches in Arrow's IPC format,
keyed by their first row, and what the layout needs to know of all rows, in the schema `FACTS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.schema import example_schema, facts_schema, plain_labels
from beam_cifar.errors import InputError, JobError
from beam_cifar.formats.contract.source import RowReader, Runs, Source
from beam_cifar.formats.contract.types import Catalog, FileSummary, RowAccess, SourceFile
from beam_cifar.formats.kit.slices import AGAIN, Slices, SliceWriter, read_index, read_slices
from beam_cifar.images.encodings import RAW
from beam_cifar.naming.image_files import digests, name_digests, whole_digests

FACTS: Final = pa.schema(
    [
        pa.field("subset", pa.string(), nullable=False),
        pa.field("order", pa.int64(), nullable=False),
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("id", pa.uint64(), nullable=False),
        pa.field("name", pa.uint64(), nullable=False),
        pa.field("whole", pa.uint64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
    ]
)
"""What the layout needs to know about an example.

`key`, `id`, `name` and `whole` are digests: of subset and id, which order examples of equal order, of the id, of the
short name, and of the id used as a name. `bytes` are those of its image: of its file, or as pixels of three channels. A
missing label or size is -1.
"""

_FACTS_KEY: Final = -1


class ArrivalWriter:
    """Writes the examples of one bundle.

    Args:
        file: new file, which the caller commits after `close`.
    """

    def __init__(self, file: storage.StagedFile) -> None:
        self._slices = SliceWriter(file)
        self._facts: list[pa.RecordBatch] = []
        self.rows = 0

    def append(self, table: pa.Table, facts: pa.RecordBatch) -> None:
        """Adds a block of examples in the schema `example_schema`, and their facts, from `facts_of`."""
        (batch,) = table.cast(example_schema()).combine_chunks().to_batches()
        self._slices.write(batch.serialize(), self.rows)
        self._facts.append(facts)
        self.rows += len(table)

    def close(self) -> None:
        """Writes the facts, and the index."""
        (facts,) = pa.Table.from_batches(self._facts, FACTS).combine_chunks().to_batches()
        self._slices.write(facts.serialize(), _FACTS_KEY)
        self._slices.close(self.rows)


def facts_of(table: pa.Table) -> pa.RecordBatch:
    """Returns the facts of some examples in the schema `beam_cifar.data.schema.ordered_schema`."""
    ids, filenames, subsets = (table.column(name).to_pylist() for name in ("id", "filename", "subset"))
    height, width = (table.column(name).fill_null(-1).to_numpy() for name in ("height", "width"))
    stored = pc.binary_length(table.column("image")).fill_null(0).to_numpy()
    is_raw = pc.equal(table.column("encoding"), RAW).to_numpy()
    columns = {
        "subset": subsets,
        "order": table.column("order").to_numpy(),
        # Unique because ids are unique within a subset.
        "key": digests(f"{subset}\0{item_id}" for subset, item_id in zip(subsets, ids, strict=True)),
        "id": digests(ids),
        "name": name_digests(ids, filenames),
        "whole": whole_digests(ids),
        "bytes": np.where(is_raw, pixel_bytes(height, width), stored),
        "height": height,
        "width": width,
        "label": plain_labels(table).astype(np.int32),
    }
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in FACTS], schema=FACTS)


def pixel_bytes(height: npt.NDArray[np.int32], width: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Returns the bytes of images as pixels of three channels, 0 without an image: int64 `[N]`."""
    return np.where(height < 0, 0, 3 * height.astype(np.int64) * width)


class ArrivalsSource(Source):
    """Reads files of `ArrivalWriter`; only the job that keeps them knows which ones there are."""

    name = "arrivals"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns False: these files are no dataset."""
        return False

    def describe(self, path: str, index_dir: str) -> Catalog:
        raise InputError(f"{path}: has rows of a pipeline that has not ended, which only that pipeline can read")

    @contextmanager
    def open_rows(self, file: SourceFile, labels: LabelTable) -> Iterator[ArrivalRows]:
        # Not cached: parts of one order need few of the files, each for a short time.
        yield self.read_rows(file, labels)

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ArrivalRows:
        return ArrivalRows(file)


class ArrivalRows(RowReader):
    """The examples of one bundle.

    Attributes:
        known: facts of all rows, in the schema `FACTS`.
    """

    def __init__(self, file: SourceFile) -> None:
        rows, index = read_index(file.blob.path)
        (data,) = read_slices(file.blob.path, index[index["key"] == _FACTS_KEY])
        self.known = pa.ipc.read_record_batch(pa.py_buffer(data), FACTS)
        if self.known.num_rows != rows:
            raise JobError(f"{file.shown}: has {rows} rows, and facts of {self.known.num_rows}; {AGAIN}")
        self._slices: Slices = index[index["key"] >= 0]
        self._last: tuple[int, pa.Table] | None = None
        super().__init__(file, self.known.column("label").to_numpy(), {})

    @property
    def access(self) -> RowAccess:
        return RowAccess(tuple(self._slices["key"].tolist()))

    def summary(self, *, sizes: bool) -> FileSummary:
        height, width = (self.known.column(name).to_numpy() for name in ("height", "width"))
        images = int((height >= 0).sum())
        same = images == self.rows and (height == height[0]).all() and (width == width[0]).all()
        return FileSummary(
            file=self.file,
            rows=self.rows,
            chunks=(),
            images=images,
            image_bytes=int(self._slices["bytes"].sum()),
            pixel_bytes=int(pixel_bytes(height, width).sum()),
            size=(int(height[0]), int(width[0])) if same else None,
            access=self.access,
        )

    def row_bytes(self, start: int, stop: int, *, decoded: bool) -> int:
        if decoded:
            sides = (self.known.column(name).to_numpy()[start:stop] for name in ("height", "width"))
            return int(pixel_bytes(*sides).max(initial=0))
        stored = pc.binary_length(self.examples([(start, stop)]).column("image"))
        return int(pc.max(stored).as_py() or 0)

    def facts(self, start: int, stop: int, *, sizes: bool = True) -> pa.Table:
        return self.examples([(start, stop)]).select(facts_schema().names)

    def examples(self, runs: Runs) -> pa.Table:
        found = [self._slice(0).slice(0, 0)] if not runs else []
        for start, stop in runs:
            while start < stop:
                number = int(np.searchsorted(self._slices["key"], start, "right")) - 1
                first = int(self._slices["key"][number])
                table = self._slice(number).slice(start - first, stop - start)
                if not len(table):
                    raise JobError(f"{self.file.shown}: has no row {start}; {AGAIN}")
                found.append(table)
                start += len(table)
        return pa.concat_tables(found).combine_chunks()

    def _slice(self, number: int) -> pa.Table:
        if self._last is None or self._last[0] != number:
            (data,) = read_slices(self.file.blob.path, self._slices[number : number + 1])
            batch = pa.ipc.read_record_batch(pa.py_buffer(data), example_schema())
            self._last = number, pa.Table.from_batches([batch])
        return self._last[1]
