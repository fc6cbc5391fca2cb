"""The rows of one Parquet file: short columns are read at once, images on demand."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from beam_cifar.data.block import MAX_BYTES, MAX_ROWS
from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import InputError, RowError
from beam_cifar.formats.contract.source import Runs
from beam_cifar.formats.contract.types import FileSummary, RowAccess, SourceFile
from beam_cifar.formats.kit.encoded import MAX_IMAGE_BYTES, EncodedRows
from beam_cifar.formats.kit.table_labels import TableReader
from beam_cifar.formats.kit.table_rows import refuse_references, row_labels, row_parents
from beam_cifar.formats.parquet.columns import column_chunk, read_columns, repeated_bytes
from beam_cifar.formats.parquet.schema import OpenParquet, columns_in, damaged, open_parquet, schema_in, stored_bytes
from beam_cifar.images.header import ImageHeader, header_or_error
from beam_cifar.storage.archives import MAX_RATIO, RATIO_FREE_BYTES

# Maximum bytes of a batch in which a dictionary repeats its largest image.
_REPEATED_BYTES = 64 << 20
# Maximum bytes of rows read together; plans, which go by the mean of a row group, ask for far fewer.
_READ_BYTES = 512 << 20

COLUMNS = TableReader(columns_in, read_columns)
"""How Parquet files with columns of images and labels are read."""


@dataclass(frozen=True)
class _Groups:
    """The row groups of a file, from its footer.

    Attributes:
        starts: int64 `[G + 1]`, the first row of each group, and the total number of rows.
        bytes: uncompressed bytes of each group; nearly all are images.
        limit: bytes that one pass may read; more is a bomb, of a dictionary that repeats an image in many rows.
    """

    starts: npt.NDArray[np.int64]
    bytes: tuple[int, ...]
    limit: int

    def group_of(self, row: int) -> int:
        """Returns the row group of a row."""
        return int(np.searchsorted(self.starts, row, "right")) - 1

    def mean_bytes(self, group: int) -> int:
        """Returns the mean bytes per row of a row group."""
        return self.bytes[group] // max(1, int(self.starts[group + 1] - self.starts[group]))


class ParquetRows(EncodedRows):
    """The rows of one file.

    Args:
        file: the Parquet file.
        table: label table of the dataset.
    """

    reader: ClassVar[TableReader] = COLUMNS
    """How the short columns are read; others for files with other rows."""
    _groups: _Groups
    _in_order: _Images

    def __init__(self, file: SourceFile, table: LabelTable) -> None:
        super().__init__(file, *row_labels(self.reader.columns(file), table))
        self._table, self._meaning = table, self.reader.roles(file)

    @contextmanager
    def opened(self) -> Iterator[ParquetRows]:
        with open_parquet(self.file) as opened:
            made = copy.copy(self)
            made._groups = _groups(opened.metadata, self.file)
            made._in_order = _Images(opened, self._column(), made._groups, self.file, self._encoded)
            yield made

    @property
    def access(self) -> RowAccess:
        return RowAccess(tuple(self._groups.starts[:-1].tolist()))

    def summary(self, *, sizes: bool) -> FileSummary:
        """Returns what the plan needs to know; reads images only for sizes, or to count them if the footer does not.

        Raises:
            InputError: two rows give a class different superclasses.
        """
        groups = self._groups
        missing = self._missing()
        if self._meaning.own is None:
            refuse_references(self.file, self.reader.columns(self.file), missing, self._meaning.image)
        digest = hashlib.sha256(json.dumps([groups.starts.tolist(), groups.bytes]).encode())
        facts = pa.record_batch(
            [self._ids, self._filenames, pa.array(self.labels, pa.int64())], ["id", "filename", "label"]
        )
        digest.update(facts.serialize())
        found = self._sizes([(0, self.rows)], look=True) if sizes else None
        parents = row_parents(self.file, self._table, self.reader.columns(self.file).column("coarse"), self.labels)
        return self._summary(self.rows - missing, sum(groups.bytes), digest.hexdigest(), found, parents=parents)

    def _column(self) -> str:
        """Returns the path of the column that images are read from."""
        return self._meaning.image

    def _encoded(self, column: Any, shown: str) -> pa.Array:
        """Returns the encoded images in a column: `binary`, null where there is none. Raises `InputError`."""
        return _binary(column, shown)

    def _images(self, runs: Runs) -> pa.Array:
        return _joined([self._in_order.read(start, stop) for start, stop in runs])

    def _headers(self, start: int, stop: int) -> Iterable[ImageHeader | RowError | None]:
        images = (image for batch in self._in_order.batches(start, stop) for image in batch)
        for row, image in enumerate(images, start):
            yield header_or_error(image.as_buffer().to_pybytes(), self._shown(row)) if image.is_valid else None

    def _stored_bytes(self, start: int, stop: int) -> int:
        """Returns the largest mean among the row groups: the sizes of single images are unknown until they are read."""
        groups = self._groups
        touched = range(groups.group_of(start), groups.group_of(stop - 1) + 1) if stop > start else ()
        return max(map(groups.mean_bytes, touched), default=0)

    def _missing(self) -> int:
        """Returns the number of rows without an image: from the footer, else from our own metadata, else counted."""
        counted = self._in_order.count_missing()
        own = self._meaning.own
        if counted is None and own is not None:
            paths = own.get("paths", {})
            rows = {int(row) for row in paths if re.fullmatch("[0-9]{1,18}", row)} if isinstance(paths, dict) else ()
            return sum(row < self.rows for row in rows)
        if counted is None:
            return sum(images.null_count for images in self._in_order.batches(0, self.rows))
        return counted


class _Images:
    """Reads images in ascending order, a batch at a time; restarts at a row group to go back or far ahead.

    Args:
        opened: the open file.
        column: path of the image column.
        groups: row groups of the file.
        file: the file.
        encoded: returns the images in a batch of the column, given that and a name for messages.
    """

    def __init__(
        self,
        opened: OpenParquet,
        column: str,
        groups: _Groups,
        file: SourceFile,
        encoded: Callable[[Any, str], pa.Array],
    ) -> None:
        self._encoded = encoded
        self._opened, self._column, self._groups, self._file, self._shown = opened, column, groups, file, file.shown
        self._batches: Iterator[Any] = iter(())
        self._held = pa.array([], pa.binary())
        # First row in memory, first row of the next batch, and end of the rows that the current iterator covers.
        self._start = self._next = self._stop = self._unpacked = 0

    def read(self, start: int, stop: int) -> pa.Array:
        """Returns the images of rows [start, stop): `binary`, null where there is none."""
        pieces, held = [], 0
        for piece in self.batches(start, stop):
            pieces.append(piece)
            held += piece.nbytes
            if held > _READ_BYTES and len(pieces) > 1:
                raise InputError(
                    f"{self._shown}: row {start}: dictionary-encoded images unpack to more than {_READ_BYTES} "
                    "bytes in a few rows; refused as a decompression bomb"
                )
        return _joined(pieces)

    def batches(self, start: int, stop: int) -> Iterator[pa.Array]:
        """Yields the images of rows [start, stop) in batches of bounded size."""
        if start == stop:
            return
        group = self._groups.group_of(start)
        if start < self._start or (start >= self._next and self._groups.starts[group] > self._next):
            self._restart(group)
        while start < stop:
            while self._next <= start:
                self._advance()
            taken = self._held.slice(start - self._start, min(stop, self._next) - start)
            yield taken
            start += len(taken)

    def _restart(self, group: int) -> None:
        self._start = self._next = self._stop = int(self._groups.starts[group])
        self._unpacked = 0
        self._batches, self._held = iter(()), pa.array([], pa.binary())

    def _advance(self) -> None:
        """Reads the next batch; batches end with a row group, since images of the next one may be larger."""
        group = self._groups.group_of(self._next)
        with damaged(f"{self._shown}: row group {group}"):
            if self._next == self._stop:
                self._batches = self._opened.iter_batches(
                    self._batch_rows(group), row_groups=[group], columns=[self._column], use_threads=False
                )
                self._stop = int(self._groups.starts[group + 1])
            batch = next(self._batches, None)
            if batch is None:
                raise InputError(
                    f"{self._shown}: row group {group}: ends at row {self._next} of {self._stop}; the file is damaged"
                )
            self._held = self._encoded(batch.column(0), f"{self._shown}: row group {group}")
        self._unpacked += self._held.nbytes
        if self._unpacked > self._groups.limit:
            raise InputError(
                f"{self._shown}: row {self._next}: images unpack to more than {self._groups.limit} bytes, at least "
                f"{MAX_RATIO} times the size of the file; refused as a decompression bomb"
            )
        self._start, self._next = self._next, self._next + len(self._held)

    def count_missing(self) -> int | None:
        """Returns the number of rows without an image, or None if the footer does not say."""
        missing = 0
        for group in range(len(self._groups.bytes)):
            with damaged(f"{self._shown}: row group {group}"):
                chunk = column_chunk(self._opened, group, self._column)
                if not (chunk.is_stats_set and chunk.statistics.has_null_count):
                    return None
                missing += chunk.statistics.null_count
        return missing if 0 <= missing <= self._groups.starts[-1] else None

    def _batch_rows(self, group: int) -> int:
        chunk = column_chunk(self._opened, group, self._column)
        repeated = repeated_bytes(self._opened, chunk, _REPEATED_BYTES // MAX_ROWS)
        rows = min(MAX_BYTES // max(1, self._groups.mean_bytes(group)), _REPEATED_BYTES // max(1, repeated))
        return max(1, min(MAX_ROWS, rows))


def stored_values(file: SourceFile, column: str) -> Iterator[pa.Array]:
    """Yields the values of a column of a file in batches of bounded size: `binary`. Raises `InputError`."""
    with open_parquet(file) as opened:
        with damaged(file.shown):
            kind = schema_in(opened).field(column).type if column in schema_in(opened).names else pa.null()
        if not types.is_binary(kind):
            raise InputError(f"{file.shown}: has no column {column!r} of type binary; restore the file")
        groups = _groups(opened.metadata, file)
        yield from _Images(opened, column, groups, file, _binary).batches(0, opened.metadata.num_rows)


def _groups(metadata: Any, file: SourceFile) -> _Groups:
    """Returns the row groups from the footer. Raises `InputError` for a decompression bomb."""
    stored = stored_bytes(metadata, file)
    with damaged(file.shown):
        counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        starts = np.cumsum([0, *counts], dtype=np.int64)
    return _Groups(starts, stored, max(4 * RATIO_FREE_BYTES, MAX_RATIO * file.blob.size))


def _binary(column: Any, shown: str) -> pa.Array:
    """Returns the encoded images in a column, a struct or any binary type, as `binary`."""
    if types.is_struct(column.type):
        column = column.flatten()[0]
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    sizes = (
        pc.max(
            pc.binary_length(column.cast(pa.large_binary()) if types.is_binary_view(column.type) else column)
        ).as_py()
        or 0
    )
    if sizes > MAX_IMAGE_BYTES:
        raise InputError(f"{shown}: has an image of {sizes} bytes; at most {MAX_IMAGE_BYTES} are supported")
    return column.cast(pa.binary())


def _joined(pieces: Sequence[pa.Array]) -> pa.Array:
    if not pieces:
        return pa.array([], pa.binary())
    return pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)
