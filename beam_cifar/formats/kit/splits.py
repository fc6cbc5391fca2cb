"""What formats share that are made of splits, each of even files: those of Hugging Face and TensorFlow Datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_cifar.formats.contract.sink import Capabilities, FileSink, SubsetNaming

MIN_SHARD_BYTES = 32 << 20
# Encoded images are smaller than raw ones or hardly larger: files stay under 500 MB.
MAX_SHARD_BYTES = 480 << 20
SHARDS_OF_A_JOB = 256

ROW_GROUP_ROWS = 1000
# Large images fill a row group before a thousand of them: a reader holds one at a time.
ROW_GROUP_BYTES = 64 << 20

SPLITS = Capabilities(packs=True)
"""What such formats can; readers fail on a split without rows, so none is kept."""


def split_naming(letters: Callable[[str], str]) -> SubsetNaming:
    """How splits are called, in the letters that a format has; "all" stands for all of them."""
    return SubsetNaming(by_split=True, letters=letters, refused=frozenset({"all"}))


class SplitSink(FileSink):
    """Writes images as files in even shards of each split."""

    def rows_together(self, rows: int, image_bytes: int) -> int:
        """How many rows a shard has a multiple of."""
        return 1

    def even_rows(self, rows: int, image_bytes: int, total_bytes: int) -> int:
        """Even files of 32 MiB raw or more, about 256 a job."""
        target = min(max(total_bytes // SHARDS_OF_A_JOB, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
        count = max(1, -(-image_bytes // target))
        step = self.rows_together(rows, image_bytes)
        return max(1, -(-rows // (count * step))) * step


class RowGroups:
    """A Parquet file whose row groups end at rows, wherever blocks do.

    Args:
        file: that is written.
        schema: of its rows.
        settings: of `pyarrow.parquet.ParquetWriter`.
    """

    def __init__(self, file: Any, schema: pa.Schema, **settings: Any) -> None:
        self._writer = _Writer(pa.PythonFile(file, mode="w"), schema, **settings)
        # Otherwise pages end where chunks do, and so where blocks do.
        self._by_content = bool(settings.get("use_content_defined_chunking"))
        self._gathered: list[pa.Table] = []
        self._rows = self._bytes = 0

    def append(self, table: pa.Table, sizes: Iterable[int]) -> None:
        """Appends rows, of whose images, or records, the bytes are given."""
        self._gathered.append(table)
        for size in sizes:
            self._rows += 1
            self._bytes += size
            if self._rows == ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
                self._flush()

    def close(self, metadata: dict[str | bytes, bytes] | None = None) -> None:
        """Completes the file, with some metadata."""
        if self._rows:
            self._flush()
        if metadata:
            self._writer.add_key_value_metadata(metadata)
        self._writer.close()

    def _flush(self) -> None:
        """Writes the first `_rows` rows of what is gathered as a row group."""
        table = pa.concat_tables(self._gathered)
        group = table.slice(0, self._rows)
        self._writer.write_table(group if self._by_content else group.combine_chunks(), row_group_size=self._rows)
        self._gathered = [table.slice(self._rows)]
        self._rows = self._bytes = 0


class _Writer(pq.ParquetWriter):
    """Completes a file only when told to: an abandoned part must not write, nor complain, when it is collected."""

    def __del__(self) -> None:
        pass
