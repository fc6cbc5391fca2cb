"""Code shared by formats of splits in evenly sized files: Hugging Face datasets and TensorFlow Datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_cifar.formats.contract.sink import Capabilities, FileSink, SubsetNaming

MIN_SHARD_BYTES = 32 << 20
# Encoded images are smaller than raw ones, or barely larger: files stay under 500 MB.
MAX_SHARD_BYTES = 480 << 20
SHARDS_OF_A_JOB = 256

ROW_GROUP_ROWS = 1000
# Large images fill a row group before 1,000 rows: a reader has one group in memory at a time.
ROW_GROUP_BYTES = 64 << 20

SPLITS = Capabilities(packs=True)
"""Capabilities of these formats; empty splits are dropped, since readers fail on them."""


def split_naming(letters: Callable[[str], str]) -> SubsetNaming:
    """Returns the naming of splits, in characters that the format supports; "all" is refused: it means every split."""
    return SubsetNaming(by_split=True, letters=letters, refused=frozenset({"all"}))


class SplitSink(FileSink):
    """Writes encoded images, in evenly sized shards of each split."""

    def rows_together(self, rows: int, image_bytes: int) -> int:
        """Returns a number of rows; every shard has a multiple of it."""
        return 1

    def even_rows(self, rows: int, image_bytes: int, total_bytes: int) -> int:
        """Returns rows for evenly sized files of at least 32 MiB raw, about 256 per job."""
        target = min(max(total_bytes // SHARDS_OF_A_JOB, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
        count = max(1, -(-image_bytes // target))
        step = self.rows_together(rows, image_bytes)
        return max(1, -(-rows // (count * step))) * step


class RowGroups:
    """A Parquet file whose row groups do not depend on how rows were divided into blocks.

    Args:
        file: the output file.
        schema: schema of its rows.
        settings: arguments of `pyarrow.parquet.ParquetWriter`.
    """

    def __init__(self, file: Any, schema: pa.Schema, **settings: Any) -> None:
        self._writer = _Writer(pa.PythonFile(file, mode="w"), schema, **settings)
        # Without it, pages end wherever chunks, and so blocks, end: chunks are combined first.
        self._by_content = bool(settings.get("use_content_defined_chunking"))
        self._gathered: list[pa.Table] = []
        self._rows = self._bytes = 0

    def append(self, table: pa.Table, sizes: Iterable[int]) -> None:
        """Appends rows; `sizes` are the bytes of each row's image or record."""
        self._gathered.append(table)
        for size in sizes:
            self._rows += 1
            self._bytes += size
            if self._rows == ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
                self._flush()

    def close(self, metadata: dict[str | bytes, bytes] | None = None) -> None:
        """Completes the file, with optional metadata."""
        if self._rows:
            self._flush()
        if metadata:
            self._writer.add_key_value_metadata(metadata)
        self._writer.close()

    def _flush(self) -> None:
        """Writes the first `_rows` gathered rows as a row group."""
        table = pa.concat_tables(self._gathered)
        group = table.slice(0, self._rows)
        self._writer.write_table(group if self._by_content else group.combine_chunks(), row_group_size=self._rows)
        self._gathered = [table.slice(self._rows)]
        self._rows = self._bytes = 0


class _Writer(pq.ParquetWriter):
    """Completes a file only on `close`: an abandoned part must not write, or fail, when it is garbage collected."""

    def __del__(self) -> None:
        pass
