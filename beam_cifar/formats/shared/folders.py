"""What formats share in which every image is a file of its own: how such images are read and written."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from beam_cifar import storage
from beam_cifar.block import BadRow
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.base import (
    FileSummary,
    PartWriter,
    Runs,
    Shard,
    ShardResult,
    Sink,
    SinkOptions,
    SourceFile,
)
from beam_cifar.formats.shared.id_paths import decode_path, image_paths
from beam_cifar.formats.shared.ids import unique_texts
from beam_cifar.formats.shared.rows import ColumnRows, probed, row_numbers, size_rows
from beam_cifar.images.files import file_encodings, file_extensions
from beam_cifar.names import decode_name
from beam_cifar.row_names import file_names

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from beam_cifar.images.decode import ImageHeader
    from beam_cifar.options import ExportOptions

MAX_FILE_BYTES = 512 << 20


class ImageFileRows(ColumnRows):
    """Rows whose images are files, looked into only where sizes are needed.

    Args:
        file: that they belong to.
        entry_at: the image file at a place.
        places: int64 `[N]`, of each row's, -1 for none.
        ids: string `[N]`, which are made unique.
        filenames: string `[N]`, as found.
        labels: of each row, -1 for unlabelled.
        bad_rows: rows that cannot be kept, by their number; they have no file.
        digest: hex, of what else there is to know of the rows, where files do not say it all.
    """

    in_one_file = False

    def __init__(
        self,
        file: SourceFile,
        entry_at: Callable[[int], storage.Entry],
        places: npt.NDArray[np.int64],
        ids: pa.Array,
        filenames: pa.Array,
        labels: Sequence[int],
        bad_rows: Mapping[int, BadRow] | None = None,
        digest: str = "",
    ) -> None:
        super().__init__(file, labels, bad_rows or {})
        self._entry_at, self._places, self._filenames, self._digest = entry_at, places, filenames, digest
        self._ids, self.repeated = unique_texts(ids)

    @property
    def image_paths(self) -> Iterator[str]:
        return (entry.path for entry in map(self._entry, range(self.rows)) if entry)

    def _stored_bytes(self, start: int, stop: int) -> int:
        return max((entry.size for entry in map(self._entry, range(start, stop)) if entry), default=0)

    def summary(self, *, sizes: bool) -> FileSummary:
        good = [row for row in range(self.rows) if row not in self.bad_rows]
        found = size_rows(self._headers(good)) if sizes else None
        images = image_bytes = 0
        digest = hashlib.sha256(self._digest.encode())
        for entry in map(self._entry, range(self.rows)):
            digest.update(f"{entry.name}\0{entry.size}\0".encode("utf-8", "surrogateescape") if entry else b"\0")
            images += entry is not None
            image_bytes += entry.size if entry else 0
        return self._summary(images, image_bytes, digest.hexdigest(), found)

    def _sizes(self, runs: Runs, *, look: bool) -> npt.NDArray[np.int32]:
        import numpy as np

        rows = row_numbers(runs)
        return size_rows(self._headers(rows.tolist())) if look else np.zeros((3, len(rows)), dtype=np.int32)

    def _read(self, runs: Runs) -> tuple[pa.Array, Sequence[str], npt.NDArray[np.int32]]:
        import pyarrow as pa

        entries = list(map(self._entry, row_numbers(runs).tolist()))
        images = pa.array(_contents(entries), pa.binary())
        encodings, sizes = probed(images, [entry.path if entry else "" for entry in entries])
        return images, encodings, sizes

    def _entry(self, row: int) -> storage.Entry | None:
        place = int(self._places[row])
        return self._entry_at(place) if place >= 0 else None

    def _headers(self, rows: Sequence[int]) -> list[ImageHeader | None]:
        first = next(filter(None, map(self._entry, rows)), None)
        return list(storage.each(self._header, rows, first.path if first else ""))

    def _header(self, row: int) -> ImageHeader | None:
        from beam_cifar.images.decode import probe_image

        entry = self._entry(row)
        if entry is None:
            return None
        with storage.reading(entry.path), storage.open_file(entry.path) as file:
            return probe_image(file, entry.path)


class ImageFileSink(Sink):
    """Writes every image to a file of its own; the name is its id."""

    needs_images = True
    keeps_empty_subsets = False
    many_files = True
    part_bytes = 16 << 20
    listed: ClassVar[tuple[str, ...]] = ()
    """Columns of examples that the list of files tells as well, for `complete`: of "label", "height", "width"."""
    default_ext: ClassVar[str | None] = None
    """The extension of all images where none is asked for; None for that of each one's encoding."""

    @abstractmethod
    def image_folders(self, shard: Shard, options: SinkOptions) -> tuple[str, ...]:
        """The folder, relative to the shard's, of images of each class; the last one that of images without label."""

    def encodings(self, options: ExportOptions) -> tuple[str, ...]:
        """PNG, or JPEG where it is asked for, or there already."""
        return file_encodings(options.image_ext or self.default_ext)

    def check(self, options: ExportOptions) -> None:
        """There are no batches to be packed."""
        super().check(options)
        if options.images_per_batch is not None:
            raise UsageError(f"--images-per-batch: {self.name} has a file for every image; leave it out")

    def shard_rows(self, rows: int, image_bytes: int, total_bytes: int, options: ExportOptions) -> int:
        """All of them: parts are enough to share the work."""
        return max(1, rows)

    def shard_path(self, subset: str, number: int, count: int, options: ExportOptions) -> str:
        """All subsets share one tree."""
        return ""

    def estimate_bytes(self, rows: int, image_bytes: int, options: SinkOptions) -> int:
        """Half of the raw size, and half of a block of the disk for each file."""
        return image_bytes // 2 + rows * 2048

    def open_part(self, file: storage.StagedFolder, shard: Shard, rows: int, options: SinkOptions) -> PartWriter:
        """Starts the images of a part."""
        return _ImageFileWriter(file, self.image_folders(shard, options), self, options)

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Nothing: the folders say it all."""
        return {}


class _ImageFileWriter(PartWriter):
    """Writes every image to the folder of its class."""

    def __init__(
        self, folder: storage.StagedFolder, folders: Sequence[str], sink: ImageFileSink, options: SinkOptions
    ) -> None:
        self._folder, self._folders, self._sink, self._listed = folder, folders, sink, sink.listed
        self._image_ext, self._strict_names = options.export.image_ext or sink.default_ext, options.strict_names

    def append(self, table: pa.Table) -> None:
        """See `PartWriter.append`."""
        from beam_cifar.example import plain_labels

        ids, filenames, images = (table.column(name).to_pylist() for name in ("id", "filename", "image"))
        suffixes = file_extensions(table, self._image_ext)
        if self._sink.ids_are_paths:
            names = image_paths(ids, suffixes, self._strict_names)
        else:
            names = file_names(ids, filenames, suffixes, self._strict_names)
        labels = plain_labels(table).tolist()
        told = [table.column(name).to_pylist() for name in self._listed]
        self._folder.add(
            (
                *_placed(self._folders[label], name),  # the last one is found by UNLABELLED = -1
                image,
                self._facts(item_id, decode_path(name[: -len(suffix)]), facts),
            )
            for item_id, name, suffix, label, image, *facts in zip(
                ids, names, suffixes, labels, images, *told, strict=True
            )
        )

    def close(self) -> None:
        """See `PartWriter.close`."""

    def _facts(self, item_id: str, told: str, facts: Sequence[int | None]) -> dict[str, str]:
        """What the list says of a file: an id that cannot be read off the name, and what `complete` asks for."""
        own = {} if told == item_id else {"id": item_id}
        return own | {key: str(value) for key, value in zip(self._listed, facts, strict=True) if value is not None}


def _placed(folder: str, path: str) -> tuple[str, str]:
    """The folder and the name of an image whose path in a folder may have folders of its own."""
    inner, _, name = path.rpartition("/")
    return (f"{folder}/{inner}" if folder and inner else folder or inner), name


def file_stem(name: str) -> str:
    """The name without extension of an image file, decoded by itself, since a cut one is told by its end."""
    return decode_name(name.rpartition(".")[0])


def decoded_file_name(name: str) -> str:
    """The same with extension."""
    return file_stem(name) + "." + name.rpartition(".")[2]


def listed_label(entry: Mapping[str, str]) -> int:
    """The label of an image in the list of a shard's files, -1 for unlabelled; for sinks that list it."""
    return int(entry.get("label", -1))


def _contents(entries: Sequence[storage.Entry | None]) -> list[bytes | None]:
    """The contents of images; None where there is none."""
    there = [entry for entry in entries if entry is not None]
    for entry in there:
        if entry.size > MAX_FILE_BYTES:
            raise InputError(f"{entry.path}: has {entry.size} bytes; an image has {MAX_FILE_BYTES} at most")
    contents = iter(storage.read_all_listed(there))
    return [None if entry is None else next(contents) for entry in entries]
