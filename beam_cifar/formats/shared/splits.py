"""What formats share that are made of splits, each of even files: those of Hugging Face and TensorFlow Datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from beam_cifar.errors import UsageError
from beam_cifar.formats.base import Sink, SinkOptions
from beam_cifar.images.files import file_encodings

if TYPE_CHECKING:
    from beam_cifar.options import ExportOptions

MIN_SHARD_BYTES = 32 << 20
# Encoded images are smaller than raw ones or hardly larger: files stay under 500 MB.
MAX_SHARD_BYTES = 480 << 20
SHARDS_OF_A_JOB = 256


class SplitSink(Sink):
    """Writes images as files in even shards of each split."""

    needs_images = True
    # Readers fail on a split without rows.
    keeps_empty_subsets = False
    by_split = True

    def encodings(self, options: ExportOptions) -> tuple[str, ...]:
        """PNG, or JPEG where it is asked for, or there already."""
        return file_encodings(options.image_ext)

    def check_subsets(self, subsets: Sequence[str], options: ExportOptions) -> None:
        """Also a split must not have the name that stands for all of them."""
        if any(self.output_subset(subset, options) == "all" for subset in subsets):
            raise UsageError("a subset called 'all' cannot be a split: readers mean every split by it; rename the file")
        super().check_subsets(subsets, options)

    def rows_together(self, rows: int, image_bytes: int) -> int:
        """How many rows a shard has a multiple of."""
        return 1

    def shard_rows(self, rows: int, image_bytes: int, total_bytes: int, options: ExportOptions) -> int:
        """Even files of 32 MiB raw or more, about 256 a job."""
        if options.images_per_batch:
            return options.images_per_batch
        target = min(max(total_bytes // SHARDS_OF_A_JOB, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
        count = max(1, -(-image_bytes // target))
        step = self.rows_together(rows, image_bytes)
        return max(1, -(-rows // (count * step))) * step

    def estimate_bytes(self, rows: int, image_bytes: int, options: SinkOptions) -> int:
        """Half of the raw size: PNG saves a quarter on photographs, more on drawings."""
        return image_bytes // 2


class ParquetFileWriter(pq.ParquetWriter):
    """Completes a file only when told to: an abandoned part must not write, nor complain, when it is collected."""

    def __del__(self) -> None:
        pass
