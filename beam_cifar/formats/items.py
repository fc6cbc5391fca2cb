"""Items created in Python, stored on disk for the duration of a job.

A directory with `items.json` (labels, and the subsets in order) and one Arrow file per subset, in the schema of
`beam_cifar.data.schema`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from beam_cifar import storage
from beam_cifar.data.block import MAX_BYTES, MAX_ROWS
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.schema import example_schema, facts_schema, has_images, plain_labels
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.source import RowReader, Runs, Source
from beam_cifar.formats.contract.types import Catalog, FileSummary, SourceFile
from beam_cifar.images.example import Example
from beam_cifar.naming.image_files import digests

CATALOG = "items.json"


class ItemsSource(Source):
    """Reads the output of `write_items`."""

    name = "items"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether the directory has a catalog."""
        return storage.is_file(os.path.join(path, CATALOG))

    def describe(self, path: str, index_dir: str) -> Catalog:
        with storage.reading(path), open(os.path.join(path, CATALOG), encoding="utf-8") as file:
            found = json.load(file)
        labels = LabelTable(**{name: tuple(values) for name, values in found["labels"].items()})
        files = [
            SourceFile(
                f"items {number}", subset, f"items of subset {subset!r}", storage.whole_file(_path(path, number))
            )
            for number, subset in enumerate(found["subsets"])
        ]
        return Catalog(self.name, "items", "the items made in Python", labels, tuple(files))

    @contextmanager
    def open_rows(self, file: SourceFile, labels: LabelTable) -> Iterator[ItemRows]:
        # Not cached: a mapped file keeps its disk space after its folder is deleted.
        yield self.read_rows(file, labels)

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ItemRows:
        with storage.reading(file.shown), storage.mapped(file.blob, file.shown) as buffer:
            return ItemRows(file, pa.ipc.open_file(buffer).read_all())


class ItemRows(RowReader):
    """The items of one subset; sizes are always known.

    Args:
        file: the file that contains them.
        table: all items, memory-mapped rather than read.
    """

    def __init__(self, file: SourceFile, table: pa.Table) -> None:
        super().__init__(file, plain_labels(table).tolist(), {})
        self._table = table

    def row_bytes(self, start: int, stop: int, *, decoded: bool) -> int:
        part = self._table.slice(start, stop - start)
        return int(max((_pixels(part) if decoded else _stored(part)), default=0))

    def facts(self, start: int, stop: int, *, sizes: bool = True) -> pa.Table:
        return self._table.slice(start, stop - start).select(facts_schema().names).combine_chunks()

    def examples(self, runs: Runs) -> pa.Table:
        found = [self._table.slice(start, stop - start) for start, stop in runs]
        return pa.concat_tables([self._table.slice(0, 0), *found]).combine_chunks()

    def summary(self, *, sizes: bool) -> FileSummary:
        table = self._table
        images = int(has_images(table).sum())
        found_sizes = set(zip(*(table.column(name).to_pylist() for name in ("height", "width")), strict=True))
        facts = table.select([name for name in example_schema().names if name != "image"])
        found = hashlib.sha256()
        for batch in facts.to_batches(max_chunksize=MAX_ROWS):
            found.update(batch.serialize())
        return FileSummary(
            file=self.file,
            rows=len(table),
            chunks=(),
            images=images,
            image_bytes=int(_stored(table).sum()),
            pixel_bytes=int(_pixels(table).sum()),
            size=found_sizes.pop() if len(found_sizes) == 1 and images == len(table) else None,
            digest=found.hexdigest(),
        )


def write_items(examples: Iterable[Example], labels: LabelTable, folder: str) -> None:
    """Writes items to an empty folder, a thousand at a time.

    Raises:
        InputError: an id repeats in a subset.
        JobError: the folder cannot be written.
    """
    writers: dict[str, Any] = {}
    waiting: dict[str, list[Example]] = {}
    held = rows = 0
    try:
        for example in examples:
            waiting.setdefault(example.subset, []).append(example)
            held, rows = held + len(example.image or b""), rows + 1
            if held >= MAX_BYTES or rows >= MAX_ROWS:
                _flush(waiting, writers, folder)
                held = rows = 0
        _flush(waiting, writers, folder)
    finally:
        with storage.writing(folder):
            for writer, file in writers.values():
                with file:  # closed even if the rest cannot be written
                    writer.close()
    for number, subset in enumerate(writers):
        _refuse_repeated(_path(folder, number), subset)
    content = json.dumps({"labels": asdict(labels), "subsets": list(writers)})
    storage.write_whole(os.path.join(folder, CATALOG), content.encode(), folder)


def _flush(waiting: dict[str, list[Example]], writers: dict[str, Any], folder: str) -> None:
    for subset, examples in waiting.items():
        columns = list(zip(*examples, strict=True))[: len(example_schema())]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, example_schema(), strict=True)]
        with storage.writing(folder):
            if subset not in writers:
                file = open(_path(folder, len(writers)), "xb")  # noqa: SIM115 (closed by `write_items`)
                writers[subset] = pa.ipc.new_file(file, example_schema()), file
            writers[subset][0].write_batch(pa.record_batch(arrays, schema=example_schema()))
    waiting.clear()


def _refuse_repeated(path: str, subset: str) -> None:
    """Raises `InputError` for a repeated id; compares 64-bit digests first, to keep few texts in memory."""
    with pa.memory_map(path) as buffer:
        ids = pa.ipc.open_file(buffer).read_all().column("id")
        keys = np.concatenate([digests(chunk.to_pylist()) for chunk in ids.chunks])
        order = np.sort(keys)
        met = np.isin(keys, order[1:][np.diff(order) == 0])
        seen = set()
        for row in np.flatnonzero(met).tolist():
            item_id = ids[row].as_py()
            if item_id in seen:
                raise InputError(f"two items of subset {subset!r} have the id {item_id!r}; ids must be unique")
            seen.add(item_id)


def _path(folder: str, number: int) -> str:
    return os.path.join(folder, f"{number:06d}.arrow")


def _stored(table: pa.Table) -> Any:
    """Returns the bytes of each image as stored: int64 `[N]`."""
    return pa.compute.binary_length(table.column("image")).fill_null(0).to_numpy().astype(np.int64)


def _pixels(table: pa.Table) -> Any:
    """Returns the bytes of each image as pixels of three channels: int64 `[N]`."""
    height, width = (table.column(name).fill_null(0).to_numpy().astype(np.int64) for name in ("height", "width"))
    return 3 * height * width
