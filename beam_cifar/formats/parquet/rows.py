"""The rows of one Parquet file: short columns are read at once, images on demand."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from beam_cifar.data.block import MAX_BYTES, MAX_ROWS
from beam_cifar.data.labels import UNLABELLED, LabelTable, outside_table
from beam_cifar.errors import InputError, RowError
from beam_cifar.formats.contract.source import Runs
from beam_cifar.formats.contract.types import FileSummary, RowAccess, SourceFile
from beam_cifar.formats.kit.encoded import MAX_IMAGE_BYTES, EncodedRows
from beam_cifar.formats.kit.folders import NO_LABEL
from beam_cifar.formats.kit.rows import parents_of
from beam_cifar.formats.parquet.columns import column_chunk, read_columns, repeated_bytes
from beam_cifar.formats.parquet.schema import OpenParquet, columns_in, damaged, open_parquet
from beam_cifar.images.header import ImageHeader, header_or_error
from beam_cifar.storage.archives import MAX_RATIO, RATIO_FREE_BYTES

_FOLDERS = r"(?s)^.*/"

# A file that unpacks to more than this and `MAX_RATIO` times its size is a bomb: images barely compress.
_FREE_BYTES = 64 << 20

# Maximum bytes of a batch in which a dictionary repeats its largest image.
_REPEATED_BYTES = 64 << 20
# Maximum bytes of rows read together; plans, which go by the mean of a row group, ask for far fewer.
_READ_BYTES = 512 << 20


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

    _groups: _Groups
    _in_order: _Images

    def __init__(self, file: SourceFile, table: LabelTable) -> None:
        found = read_columns(file)
        numbers, bad = _numbers(found.column("label"), table.names)
        if table.has_superclasses:
            coarse = _plain(found.column("coarse"))
            for row in np.flatnonzero((coarse < -1) | (coarse >= len(table.coarse_names))).tolist():
                bad[row] = f"coarse label {coarse[row]} is outside the table of {len(table.coarse_names)} superclasses"
        super().__init__(file, _without_classes(found, numbers, table.names), numbers, bad)
        self._table, self._meaning = table, columns_in(file)

    @contextmanager
    def opened(self) -> Iterator[ParquetRows]:
        with open_parquet(self.file) as opened:
            made = copy.copy(self)
            made._groups = _groups(opened.metadata, self.file)
            made._in_order = _Images(opened, self._meaning.image, made._groups, self.file)
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
        self._refuse_references(missing)
        digest = hashlib.sha256(json.dumps([groups.starts.tolist(), groups.bytes]).encode())
        facts = pa.record_batch(
            [self._ids, self._filenames, pa.array(self.labels, pa.int64())], ["id", "filename", "label"]
        )
        digest.update(facts.serialize())
        found = self._sizes([(0, self.rows)], look=True) if sizes else None
        parents = self._parents() if self._table.has_superclasses else {}
        return self._summary(self.rows - missing, sum(groups.bytes), digest.hexdigest(), found, parents=parents)

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

    def _refuse_references(self, missing: int) -> None:
        """Refuses rows with only a path: their images are elsewhere, not missing."""
        named = pc.sum(read_columns(self.file).column("named")).as_py() or 0
        if self._meaning.own is None and missing > self.rows - named:
            raise InputError(
                f"{self.file.shown}: {missing} rows have no bytes in {self._meaning.image!r}, and some have only a "
                "path; save the file again with images embedded"
            )

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

    def _parents(self) -> dict[int, tuple[int, int]]:
        """Returns class -> (superclass, row that it was found in)."""
        coarse = _plain(read_columns(self.file).column("coarse"))
        labels = np.array(self.labels, dtype=np.int64)
        said = np.flatnonzero((labels >= 0) & (coarse >= 0))
        pairs, first = np.unique(np.stack([labels[said], coarse[said]]), axis=1, return_index=True)
        return parents_of(self.file, self._table, zip(*pairs.tolist(), said[first].tolist(), strict=True))


class _Images:
    """Reads images in ascending order, a batch at a time; restarts at a row group to go back or far ahead.

    Args:
        opened: the open file.
        column: path of the image column.
        groups: row groups of the file.
        file: the file.
    """

    def __init__(self, opened: OpenParquet, column: str, groups: _Groups, file: SourceFile) -> None:
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
            self._held = _binary(batch.column(0), f"{self._shown}: row group {group}")
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


def _groups(metadata: Any, file: SourceFile) -> _Groups:
    """Returns the row groups from the footer, and refuses a decompression bomb."""
    with damaged(file.shown):
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        starts = np.cumsum([0, *(group.num_rows for group in groups)], dtype=np.int64)
        stored = tuple(int(group.total_byte_size) for group in groups)
    if min(stored, default=0) < 0 or sum(stored) > max(_FREE_BYTES, MAX_RATIO * file.blob.size):
        raise InputError(
            f"{file.shown}: unpacks to {sum(stored)} bytes, more than {MAX_RATIO} times its size; refused as a "
            "decompression bomb"
        )
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


def _without_classes(found: pa.Table, numbers: npt.NDArray[np.int64], names: Sequence[str]) -> pa.Table:
    """Returns the rows with only the last component of a file name whose folder is the row's class, or `no_label`."""
    column = found.column("filename")
    if not pc.any(pc.match_substring(column, "/")).as_py():
        return found
    classes = pa.array([*names, NO_LABEL], pa.string())
    known = np.where((numbers >= 0) & (numbers < len(names)), numbers, len(names))
    short = pc.replace_substring_regex(column, _FOLDERS, "")
    prefixed = pc.binary_join_element_wise(classes.take(pa.array(known)), short, "/")
    filenames = pc.if_else(pc.equal(prefixed, column), short, column)
    return found.set_column(found.schema.get_field_index("filename"), "filename", filenames)


def _joined(pieces: Sequence[pa.Array]) -> pa.Array:
    if not pieces:
        return pa.array([], pa.binary())
    return pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)


def _plain(column: Any) -> npt.NDArray[np.int64]:
    """Returns int64 `[N]`, -1 for null."""
    return np.asarray(column.fill_null(-1).combine_chunks().to_numpy(zero_copy_only=False), dtype=np.int64)


def _numbers(column: Any, names: Sequence[str]) -> tuple[npt.NDArray[np.int64], dict[int, str]]:
    """Returns labels as numbers, and the error message of each bad row."""
    if types.is_string(column.type):
        found = _plain(pc.index_in(column, pa.array(names, pa.string())).cast(pa.int64()))
        bad = np.flatnonzero((found < 0) & column.is_valid().combine_chunks().to_numpy(zero_copy_only=False))
        return found, {row: f"label {column[row].as_py()!r} is not in the label table" for row in bad.tolist()}
    found = _plain(column)
    rows = np.flatnonzero((found < UNLABELLED) | (found >= len(names))).tolist()
    return found, {row: outside_table(found[row], len(names)) for row in rows}
