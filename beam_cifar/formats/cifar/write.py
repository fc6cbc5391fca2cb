"""Writes CIFAR-10 and CIFAR-100, Python version."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED
from beam_cifar.data.schema import joined_images, plain_labels
from beam_cifar.data.text import counted
from beam_cifar.errors import UsageError
from beam_cifar.formats.cifar.facts import CUSTOM_META, META_FILES, cifar_kind, is_batch_name
from beam_cifar.formats.cifar.read import CifarSource
from beam_cifar.formats.contract.sink import Capabilities, FileSink, PartWriter, SubsetNaming
from beam_cifar.formats.contract.types import CHUNK_ROWS, FileSummary, Shard, ShardResult, SinkOptions, SourceFile
from beam_cifar.images.encodings import RAW
from beam_cifar.naming.components import clash_key, encode_name, escape_first
from beam_cifar.pickles.recognise import Meta
from beam_cifar.pickles.write import BatchWriter, write_meta

if TYPE_CHECKING:
    import pyarrow as pa

SIDE = 32
"""Height and width of the genuine images, in pixels."""
# A Python 2 string holds at most 2**31 - 1 bytes: 699,050 images of 32 x 32.
MAX_PAYLOAD = 2**31 - 1
NUM_VIS = 3072
TRAIN_BATCHES = 5


class _CifarWriter(PartWriter):
    """Appends examples to one batch file."""

    def __post_init__(self) -> None:
        table, shard = self.options.labels, self.shard
        self._kind = cifar_kind(table)
        self._parents = (*table.parents, None)  # the last is for unlabelled rows: UNLABELLED is -1
        self._images = self.options.export.save_images and shard.has_images
        self._writer = BatchWriter(
            self.file,
            rows=self.rows,
            kind=self._kind,
            batch_label=shard.batch_label,
            size=shard.size,
            images=self._images,
        )

    def append(self, table: pa.Table) -> None:
        numbers = plain_labels(table).tolist()
        coarse = [self._parents[number] for number in numbers] if self._kind == "cifar100" else None
        filenames = self._filenames(table)
        labels = [None if number == UNLABELLED else number for number in numbers]
        if not self._images:
            self._writer.append(None, labels, coarse, filenames)
        elif self.shard.size is not None:
            self._writer.append(joined_images(table), labels, coarse, filenames)
        else:
            heights, widths = (table.column(name).to_pylist() for name in ("height", "width"))
            sizes = [None if h is None else (h, w) for h, w in zip(heights, widths, strict=True)]
            self._writer.append(table.column("image").to_pylist(), labels, coarse, filenames, sizes)

    def close(self) -> None:
        self._writer.close()

    def _filenames(self, table: pa.Table) -> list[str]:
        """Returns the original names, or ids plus `image_ext`; with the folder that makes an id unique, if any."""
        ids, found = (table.column(name).to_pylist() for name in ("id", "filename"))
        if self.options.export.image_ext is not None:
            return [item_id + self.options.export.image_ext for item_id in ids]
        return [
            name if os.path.splitext(name)[0] == item_id else item_id + os.path.splitext(name)[1]
            for item_id, name in zip(ids, found, strict=True)
        ]


def batch_name(subset: str) -> str:
    """Returns the file name of a subset: its name, encoded where that is not a valid batch name."""
    name = encode_name(subset, escape="._" if subset.startswith("_") else ".")
    return name if is_batch_name(name) else escape_first(name)


class CifarSink(FileSink):
    """Writes the layout that torchvision, Keras and Datumaro can all read."""

    name = "cifar"
    can = Capabilities(
        pixels=RAW,
        needs_images=False,
        keeps_empty_subsets=True,
        packs=True,
        part_bytes=128 << 20,
        max_shard_bytes=MAX_PAYLOAD,
        row_bytes=8,
        reserved_paths=frozenset({*META_FILES, CUSTOM_META}),
    )
    # Equal paths are refused by the plan; paths equal on only some file systems get a notice.
    subsets = SubsetNaming(numbered=True, merges=True, word=batch_name, genuine=frozenset({"train", "test"}))
    writer = _CifarWriter

    def layout_files(self, subset: str, rows: int, options: SinkOptions) -> Sequence[str]:
        """Returns the names of the genuine files: https://www.cs.toronto.edu/~kriz/cifar.html."""
        if options.export.layout is None:
            return ()
        if cifar_kind(options.labels) == "cifar100":
            return (subset,)
        if subset == "test":
            return ("test_batch",)
        size = -(-rows // TRAIN_BATCHES)
        if rows <= size * (TRAIN_BATCHES - 1):
            raise UsageError(
                f"--layout genuine: train has {rows} images, which do not fill {TRAIN_BATCHES} batches of {size}; "
                "omit --layout, or add images"
            )
        return [f"data_batch_{number + 1}" for number in range(TRAIN_BATCHES)]

    def shard_path(self, subset: str, number: int, count: int) -> str:
        return batch_name(subset)

    def batch_label(self, subset: str, number: int, count: int) -> str:
        """Returns the title in the wording of the genuine files."""
        split = "testing" if "test" in subset else "training"
        return f"{split} batch {number + 1} of {count}"

    def estimate_bytes(self, rows: int, image_bytes: int, options: SinkOptions) -> int:
        return super().estimate_bytes(rows, image_bytes if options.export.save_images else 0, options)

    def copies(self, summary: FileSummary, options: SinkOptions) -> bool:
        """Returns whether it has our style and kind, and pixels and file names are to be written unchanged."""
        kind = cifar_kind(options.labels)
        export = options.export
        return summary.copyable_as == f"cifar:{kind}" and export.save_images and export.image_ext is None

    def join(self, parts: Sequence[str], file: storage.StagedFile, shard: Shard, options: SinkOptions) -> None:
        """Reads the parts, which are batches themselves, and writes them as a single batch."""
        writer = self.open_part(file, shard, shard.rows, options)
        for number, part in enumerate(parts):
            source = SourceFile(shard.path, shard.subset, f"{shard.path} part {number}", storage.whole_file(part))
            with CifarSource().open_rows(source, options.labels) as rows:
                for start in range(0, rows.rows, CHUNK_ROWS):
                    writer.append(rows.table(start, min(start + CHUNK_ROWS, rows.rows)))
        writer.close()

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the meta file, and `dataset_meta.json` on request."""
        kind = cifar_kind(options.labels)
        meta = Meta(
            kind=kind,
            label_names=options.labels.names,
            coarse_label_names=options.labels.coarse_names,
            num_cases_per_batch=max((result.shard.rows for result in shards), default=0),
            num_vis=NUM_VIS,
        )
        buffer = io.BytesIO()
        write_meta(buffer, meta)
        files = {"batches.meta" if kind == "cifar10" else "meta": buffer.getvalue()}
        if options.export.save_dataset_meta:
            files[CUSTOM_META] = (json.dumps({"labels": options.labels.names}, ensure_ascii=False) + "\n").encode()
        return files

    def result_notices(self, options: SinkOptions, shards: Sequence[ShardResult]) -> Iterator[str]:
        """Yields notices about what readers may not take: unequal batches, sizes, case of paths, absent classes.

        Datumaro learns superclasses file by file, and refuses files that disagree on which classes have one.
        """
        batches = [result.shard for result in shards if result.shard.subset != "test_batch"]
        if options.export.layout is not None and len(batches) == TRAIN_BATCHES and batches[-1].rows < batches[0].rows:
            yield (
                f"{batches[-1].path} has {counted(batches[-1].rows, 'image')} and the other batches {batches[0].rows:,}"
                "; readers that expect batches of equal size may refuse it"
            )
        odd = (
            shard for shard in (result.shard for result in shards) if shard.has_images and shard.size != (SIDE, SIDE)
        )
        if options.export.layout is not None and options.export.save_images and (first := next(odd, None)):
            yield (
                f"{first.path} has images that are not {SIDE} x {SIDE}: loaders of the genuine datasets fail, or read "
                f"other images from their bytes; pass --resize {SIDE}x{SIDE}"
            )
        met: dict[str, str] = {}
        for result in shards:
            path = met.setdefault(clash_key(result.shard.path), result.shard.path)
            if path != result.shard.path:
                yield f"{path!r} and {result.shard.path!r} would be the same file on a case-insensitive file system"
        if not options.labels.has_superclasses:
            return
        everywhere = set().union(*(result.labels for result in shards)) - {UNLABELLED}
        for result in shards:
            if missing := everywhere - result.labels:
                example = options.labels.names[min(missing)]
                yield (
                    f"{result.shard.path} has no rows of {len(missing)} of the {len(everywhere)} classes in use, such "
                    f"as {example!r}: Datumaro cannot import this dataset; torchvision and Keras can"
                )
                return
