"""Opens Parquet files, and finds which of their columns contain images and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from beam_cifar import storage
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.source import kept
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.kit.column_roles import IMAGE_LOOK, ColumnRoles, columns_of, image_candidates, starts_like_image
from beam_cifar.formats.kit.short_columns import damaged_table
from beam_cifar.storage.archives import MAX_RATIO

READ_ROWS = 10_000
READ_BYTES = 1 << 20
_THRIFT_STRING_BYTES = 16 << 20
_THRIFT_ITEMS = 1_000_000
# More rows than bytes means damage: each row has an image or a name. Up to this many, 400 bytes each in memory, pass.
_FREE_ROWS = 250_000
# A file that unpacks to more than this and `MAX_RATIO` times its size is a bomb: images barely compress.
_FREE_BYTES = 64 << 20


class OpenParquet(pq.ParquetFile):
    """A file that is being read.

    Args:
        stream: the file, open.
        texts: columns that are read as dictionaries.

    Attributes:
        stream: the same; moving it does not disturb what is read.
    """

    def __init__(self, stream: BinaryIO, texts: Sequence[str]) -> None:
        super().__init__(
            pa.PythonFile(stream, mode="r"),
            read_dictionary=list(texts),
            pre_buffer=False,
            buffer_size=READ_BYTES,
            thrift_string_size_limit=_THRIFT_STRING_BYTES,
            thrift_container_size_limit=_THRIFT_ITEMS,
            page_checksum_verification=True,
        )
        self.stream = stream


@contextmanager
def open_parquet(file: SourceFile, texts: Sequence[str] = ()) -> Iterator[OpenParquet]:
    """Opens a file; the columns `texts` are read as dictionaries, so that a long text is not repeated in memory.

    Raises:
        InputError: it is damaged, or not a Parquet file.
    """
    with storage.open_blob(file.blob, file.shown) as stream:
        with damaged(file.shown):
            opened = OpenParquet(stream, texts)
            _refuse_absurd(opened.metadata, file)
        yield opened


def schema_in(opened: Any) -> pa.Schema:
    """Returns the Arrow schema of a file, with all metadata of the file."""
    schema = opened.schema_arrow
    return schema.with_metadata({**(opened.metadata.metadata or {}), **(schema.metadata or {})})


def damaged(shown: str) -> AbstractContextManager[None]:
    """Turns the many errors of a damaged Parquet file into a one-line `InputError`."""
    return damaged_table(shown, "a Parquet file")


def _refuse_absurd(metadata: Any, file: SourceFile) -> None:
    rows = metadata.num_rows
    counted = sum(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    if not 0 <= rows <= max(_FREE_ROWS, file.blob.size) or counted != rows:
        raise InputError(
            f"{file.shown}: declares {rows} rows, {counted} in its row groups, in {file.blob.size} bytes; "
            "the file is damaged"
        )


def stored_bytes(metadata: Any, file: SourceFile) -> tuple[int, ...]:
    """Returns the bytes of each row group when unpacked, from the footer. Raises `InputError` for a bomb."""
    with damaged(file.shown):
        stored = tuple(int(metadata.row_group(number).total_byte_size) for number in range(metadata.num_row_groups))
    if min(stored, default=0) < 0 or sum(stored) > max(_FREE_BYTES, MAX_RATIO * file.blob.size):
        raise InputError(
            f"{file.shown}: unpacks to {sum(stored)} bytes, more than {MAX_RATIO} times its size; refused as a "
            "decompression bomb"
        )
    return stored


def may_have_images(path: str) -> bool:
    """Returns whether a file may have images; True if it cannot be read, so that `describe` reports why."""
    try:
        with open_parquet(SourceFile(path, "", path, storage.whole_file(path))) as opened:
            return bool(image_candidates(opened.schema_arrow))
    except InputError:
        return True


@kept(64)
def columns_in(file: SourceFile) -> ColumnRoles:
    """Returns the column roles of a file, cached; see `columns_of`."""
    with open_parquet(file) as opened:
        with damaged(file.shown):
            schema = schema_in(opened)
        stored_bytes(opened.metadata, file)  # before any value is looked at
        return columns_of(schema, file.shown, lambda column: _holds_images(opened, column, file.shown))


def _holds_images(opened: OpenParquet, column: str, shown: str) -> bool:
    """Returns whether the first value in a column, of the first rows that have one, starts like an image file."""
    with damaged(shown):
        # One row at a time: a dictionary may repeat a large value.
        for batch in islice(opened.iter_batches(1, columns=[column], use_threads=False), IMAGE_LOOK):
            found = starts_like_image(batch.column(0))
            if found is not None:
                return found
    return False
