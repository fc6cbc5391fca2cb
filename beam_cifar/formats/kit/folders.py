"""Reads and writes images for formats where every image is a separate file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from beam_cifar import storage
from beam_cifar.data.block import MAX_ROWS, BadRow
from beam_cifar.data.schema import plain_labels
from beam_cifar.errors import RowError
from beam_cifar.formats.contract.sink import Capabilities, PartWriter, Sink
from beam_cifar.formats.contract.source import Runs, StoredImage, runs_of
from beam_cifar.formats.contract.types import FileSummary, SinkOptions, SourceFile
from beam_cifar.formats.kit.rows import (
    ColumnRows,
    column,
    picked,
    prefixed,
    probed,
    row_numbers,
    size_rows,
    unique_ids,
    with_unique_ids,
)
from beam_cifar.images.encodings import file_extensions
from beam_cifar.images.header import ImageHeader, header_or_error
from beam_cifar.naming.components import encode_name
from beam_cifar.naming.id_paths import decode_path, encode_path
from beam_cifar.naming.image_files import file_names, short_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

MAX_FILE_BYTES = 512 << 20
NO_LABEL = "no_label"
"""Folder of unlabelled images where classes are folders."""
ENTRY = "image", "size", "time", "identity"
"""Columns of a table of rows: path of the image in its folder, and what else `storage.Entry` has."""


class ImageFileRows(ColumnRows):
    """Rows whose images are separate files, opened only where sizes are needed.

    Args:
        file: the input file that they belong to.
        root: folder of the images.
        table: the rows, from `image_table`.
        labels: label of each row, -1 for unlabelled.
        bad_rows: rows that cannot be read, by row number; their images are left out.
        digest: returns a hex digest of row data that is not in the image files, if there is any.
    """

    in_one_file = False

    def __init__(
        self,
        file: SourceFile,
        root: str,
        table: pa.Table,
        labels: Sequence[int],
        bad_rows: Mapping[int, BadRow] | None = None,
        digest: Callable[[], str] = str,
    ) -> None:
        super().__init__(file, labels, bad_rows or {})
        self._root, self._digest = root, digest
        ids, self.repeated = unique_ids(table)
        self._ids = prefixed(file.id_prefix, ids)
        self._filenames = column(table, "filename")
        self._entry_columns = [column(table, name) for name in ENTRY]
        self._there = self._entry_columns[0].is_valid().to_numpy(zero_copy_only=False).copy()
        self._there[list(self.bad_rows)] = False

    @property
    def image_paths(self) -> Iterator[str]:
        for start in range(0, self.rows, MAX_ROWS):
            entries = self._entries([(start, min(start + MAX_ROWS, self.rows))])
            yield from (entry.path for entry in entries if entry)

    def _stored_bytes(self, start: int, stop: int) -> int:
        return max((entry.size for entry in self._entries([(start, stop)]) if entry), default=0)

    def summary(self, *, sizes: bool) -> FileSummary:
        good = (row for row in range(self.rows) if row not in self.bad_rows)
        found = self._sizes(runs_of(good), look=True) if sizes else None
        images = image_bytes = 0
        digest = hashlib.sha256(self._digest().encode())
        for start in range(0, self.rows, MAX_ROWS):
            entries = self._entries([(start, min(start + MAX_ROWS, self.rows))])
            facts = "".join(f"{entry.name}\0{entry.size}\0" if entry else "\0" for entry in entries)
            digest.update(facts.encode("utf-8", "surrogateescape"))
            images += sum(entry is not None for entry in entries)
            image_bytes += sum(entry.size for entry in entries if entry)
        return self._summary(images, image_bytes, digest.hexdigest(), found)

    def _sizes(self, runs: Runs, *, look: bool) -> npt.NDArray[np.int32]:
        import numpy as np

        if not look:
            return np.zeros((3, sum(stop - start for start, stop in runs)), dtype=np.int32)
        chunks = [(at, min(at + MAX_ROWS, stop)) for start, stop in runs for at in range(start, stop, MAX_ROWS)]
        headers = (header for chunk in chunks for header in storage.each(_header, self._entries([chunk]), self._root))
        return size_rows(self._noted(headers, row_numbers(runs).tolist()), self.file)

    def _read(self, runs: Runs) -> tuple[pa.Array, Sequence[str], npt.NDArray[np.int32]]:
        import pyarrow as pa

        entries = self._entries(runs)
        images = pa.array(_contents(entries), pa.binary())
        return probed(images, lambda place: getattr(entries[place], "path", ""), self.file)

    def stored(self, row: int) -> StoredImage:
        (entry,) = self._entries([(row, row + 1)])
        return StoredImage() if entry is None else StoredImage(0, _contents([entry])[0], entry.path)

    def _entries(self, runs: Runs) -> list[storage.Entry | None]:
        columns = (picked(values, runs).to_pylist() for values in self._entry_columns)
        there = self._there[row_numbers(runs)].tolist()
        return [
            storage.Entry(name, f"{self._root}/{name}", False, *numbers) if found else None
            for found, name, *numbers in zip(there, *columns, strict=True)
        ]


def image_table(images: Mapping[str, Any], ids: pa.Array, filenames: pa.Array, **more: Any) -> pa.Table:
    """Returns the table of `ImageFileRows`, which can be stored as an index.

    Args:
        images: the image file of each row in the columns `ENTRY`, null for none.
        ids: string `[N]`; repeated ones are made unique.
        filenames: string `[N]`, as found.
        more: further columns.
    """
    import pyarrow as pa

    return with_unique_ids(pa.table({"id": ids, "filename": filenames, **images, **more}))


def _header(entry: storage.Entry | None) -> ImageHeader | RowError | None:
    if entry is None:
        return None
    with storage.reading(entry.path), storage.open_file(entry.path) as file:
        return header_or_error(file, entry.path)


class ImageFileWriter(PartWriter):
    """Writes each image to the folder of its class."""

    sink: TreeSink

    def __post_init__(self) -> None:
        self._folders = self.sink.image_folders(self.options)

    def append(self, table: pa.Table) -> None:
        can = self.sink.can
        ids, filenames, images = (table.column(name).to_pylist() for name in ("id", "filename", "image"))
        suffixes = file_extensions(table, self.options.export.image_ext or can.image_ext)
        short = ids if can.ids_are_paths else list(map(short_name, ids, filenames))
        encode = encode_path if can.ids_are_paths else encode_name
        names = file_names(short, ids, suffixes, self.options.strict_names, encode)
        self.note(names)
        labels = plain_labels(table).tolist()
        listed = [table.column(name).to_pylist() for name in can.listed]
        self.file.add(
            (
                *_placed(self._folders[label], name),  # the last is for unlabelled rows: UNLABELLED is -1
                image,
                self._facts(item_id, decode_path(name[: -len(suffix)]), facts),
            )
            for item_id, name, suffix, label, image, *facts in zip(
                ids, names, suffixes, labels, images, *listed, strict=True
            )
        )

    def note(self, names: Sequence[str]) -> None:
        """Receives the file names of each block, for formats whose `statistics` depend on them."""
        return

    def _facts(self, item_id: str, named: str, facts: Sequence[int | None]) -> dict[str, str]:
        """Returns an image's entry in the list of files: its id, if the name does not give it, and `listed` columns."""
        own = {} if named == item_id else {"id": item_id}
        listed = zip(self.sink.can.listed, facts, strict=True)
        return own | {key: str(value) for key, value in listed if value is not None}


TREE = Capabilities(many_files=True, any_image_files=True, part_bytes=16 << 20, row_bytes=2048)
"""Capabilities of formats where every image is a file: each wastes half a disk block on average."""

ID_TREE = replace(TREE, classes_are_folders=False, ids_are_paths=True)
"""The same, where images of all classes share one tree and the path of each is its id."""


class TreeSink(Sink):
    """Writes each shard as a folder, and each image as a separate file named by its id."""

    writer = ImageFileWriter
    root: ClassVar[str] = ""
    """Folder of all images, relative to the shard's; see `image_folders`."""

    def image_folders(self, options: SinkOptions) -> Sequence[str]:
        """Returns the image folder of each class, relative to the shard's; the last is for unlabelled images."""
        return (self.root,) * (len(options.labels.names) + 1)

    def shard_path(self, subset: str, number: int, count: int) -> str:
        """Returns "": all subsets share one tree."""
        return ""

    def listed_images(self, parts: Sequence[str]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
        """Yields path below `root`, label (-1 for none) and list entry of each image of a shard, for `complete`."""
        skip = len(self.root) + 1 if self.root else 0
        for entry in storage.read_listing(parts[0]):
            yield entry["path"][skip:], int(entry.get("label", -1)), entry


def write_lines(files: storage.StagedFiles, path: str, lines: Iterable[str]) -> None:
    """Writes a text file next to a shard, some thousand lines at a time."""
    left = iter(lines)
    with files.open(path) as file:
        while chunk := "".join(islice(left, 10_000)):
            file.write(chunk.encode())


def _placed(folder: str, path: str) -> tuple[str, str]:
    """Returns the folder and the file name of an image whose path in `folder` may have subfolders."""
    inner, _, name = path.rpartition("/")
    return (f"{folder}/{inner}" if folder and inner else folder or inner), name


def _contents(entries: Sequence[storage.Entry | None]) -> list[bytes | None]:
    """Returns the contents of image files; None where there is none."""
    there = [entry for entry in entries if entry is not None]
    for entry in there:
        if entry.size > MAX_FILE_BYTES:
            raise RowError(f"{entry.path}: is {entry.size} bytes; at most {MAX_FILE_BYTES} are supported")
    contents = iter(storage.read_all_listed(there))
    return [None if entry is None else next(contents) for entry in entries]
