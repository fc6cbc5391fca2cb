"""ImageNet's layout: a folder of images for each class, in one tree or in one for each subset.

Datumaro calls them `imagenet` (`<class>/<image>`) and `imagenet_with_subset_dirs` (`<subset>/<class>/<image>`); images
without label lie in `no_label`. torchvision's ImageFolder and the imagefolder of Hugging Face datasets number the class
folders that they find, in order.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from beam_cifar import archives, storage
from beam_cifar.block import BadRow
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.base import (
    Catalog,
    FileSummary,
    PartWriter,
    RowReader,
    Shard,
    ShardResult,
    Sink,
    SinkOptions,
    Source,
    SourceFile,
    Wanted,
)
from beam_cifar.formats.ids import natural_key, unique_ids
from beam_cifar.formats.summary import with_rows
from beam_cifar.images.files import file_encodings, file_extensions, is_image_name
from beam_cifar.labels import UNLABELLED, LabelTable
from beam_cifar.names import clash_key, decode_name, encode_name
from beam_cifar.row_names import digests, file_names

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from beam_cifar.images.decode import ImageHeader
    from beam_cifar.options import ExportOptions

NO_LABEL = "no_label"
MAX_FILE_BYTES = 512 << 20
SUBSET = "default"
"""The subset of all images of one tree, as Datumaro calls it."""


class ImagenetSource(Source):
    """Reads `<class>/<image>`."""

    name = "imagenet"
    depth: ClassVar[int] = 1

    def detect(self, path: str, index_dir: str) -> bool:
        """Whether images lie as deep as they should; where they lie at both depths, `describe` says what is wrong."""
        return not archives.is_archive(path) and min(_image_depths(path), default=0) == self.depth

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Lists all folders; classes are numbered as torchvision does, by the order of their folders' names."""
        with storage.reading(path):
            inner = self._subsets(path)
            folders = {name: _folders(folder) for name, folder in inner.items()}
            stray = [lost for folder in dict.fromkeys((path, *inner.values())) for lost in _files(folder)]
        classes = sorted({name for found in folders.values() for name in found} - {NO_LABEL})
        labels = {name: label for label, name in enumerate(classes)} | {NO_LABEL: UNLABELLED}
        files: list[SourceFile] = []
        for subset, found in folders.items():
            members = (_source_file(subset, folder, found[folder], labels[folder], stray) for folder in sorted(found))
            files += _with_prefixes([member for member in members if len(member[1])])
        if not files:
            raise InputError(f"{path}: no PNG or JPEG files in {'<subset>/' * (self.depth - 1)}<class>/")
        lost = f"{len(stray)} files that are no images of a class are left out, such as {min(stray, default='')}"
        names = tuple(map(decode_name, classes))
        table = LabelTable(names if len(set(names)) == len(names) else tuple(classes))
        return Catalog(self.name, "ImageNet folders", path, table, tuple(files), notices=(lost,) if stray else ())

    def scan(self, file: SourceFile, labels: LabelTable, wanted: Wanted) -> FileSummary:
        """Summarises one folder, from names and sizes of its files; looks into them only for the sizes of images."""
        with self.open_rows(file, labels) as rows:
            return with_rows(rows.summary(sizes=wanted.sizes), rows, labels, wanted)

    @contextmanager
    def open_rows(self, file: SourceFile, labels: LabelTable) -> Iterator[FolderRows]:
        """Lists one folder again; raises `InputError` if it changed."""
        yield FolderRows(file, _checked_listing(file))

    def _subsets(self, path: str) -> dict[str, str]:
        """The folder of each subset."""
        return {SUBSET: path}


class ImagenetWithSubsetDirsSource(ImagenetSource):
    """Reads `<subset>/<class>/<image>`."""

    name = "imagenet_with_subset_dirs"
    depth = 2

    def _subsets(self, path: str) -> dict[str, str]:
        found = _folders(path)
        names = {name: decode_name(name) for name in sorted(found, key=natural_key)}
        distinct = len(set(names.values())) == len(names)
        return {subset if distinct else name: found[name] for name, subset in names.items()}


class FolderRows(RowReader):
    """The images of one folder.

    Args:
        file: the folder.
        entries: its images, in order.
    """

    def __init__(self, file: SourceFile, entries: Sequence[storage.Entry]) -> None:
        self._file, self._entries = file, entries
        self._ids, self._repeated = unique_ids([file.id_prefix + _stem(entry.name) for entry in entries])
        self._labels = [file.label] * len(entries)

    @property
    def rows(self) -> int:
        """See `RowReader.rows`."""
        return len(self._entries)

    @property
    def labels(self) -> Sequence[int]:
        """See `RowReader.labels`."""
        return self._labels

    @property
    def bad_rows(self) -> Mapping[int, BadRow]:
        """See `RowReader.bad_rows`."""
        return {}

    def row_bytes(self, start: int, stop: int, *, decoded: bool) -> int:
        """See `RowReader.row_bytes`."""
        if decoded:
            return max((_pixel_bytes(self._header(row)) for row in range(start, stop)), default=0)
        return max((entry.size for entry in self._entries[start:stop]), default=0)

    def facts(self, start: int, stop: int, *, sizes: bool = True) -> pa.Table:
        """See `RowReader.facts`."""
        return self._facts(start, stop, [self._header(row) for row in range(start, stop)] if sizes else None)

    def table(self, start: int, stop: int) -> pa.Table:
        """See `RowReader.table`."""
        import pyarrow as pa

        from beam_cifar.example import with_images
        from beam_cifar.images.decode import probe_whole_image

        images = [self._content(row) for row in range(start, stop)]
        headers = [probe_whole_image(image, self._entries[row].path) for row, image in enumerate(images, start)]
        encodings = [header.encoding for header in headers]
        return with_images(self._facts(start, stop, headers), pa.array(images, pa.binary()), encodings)

    def summary(self, *, sizes: bool) -> FileSummary:
        """What the plan needs to know of the folder, single rows left out."""
        headers = [self._header(row) for row in range(self.rows)] if sizes else []
        found = {(header.height, header.width) for header in headers}
        listed = "".join(f"{entry.name}\0{entry.size}\0" for entry in self._entries)
        return FileSummary(
            file=self._file,
            rows=self.rows,
            chunks=(),
            images=self.rows,
            image_bytes=sum(entry.size for entry in self._entries),
            pixel_bytes=sum(map(_pixel_bytes, headers)),
            size=found.pop() if len(found) == 1 else None,
            duplicates=self._repeated,
            digest=hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest(),
        )

    def _facts(self, start: int, stop: int, headers: Sequence[ImageHeader] | None) -> pa.Table:
        import numpy as np

        from beam_cifar.example import facts_table

        return facts_table(
            ids=self._ids[start:stop],
            subset=self._file.subset,
            sizes=None if headers is None else [(header.height, header.width) for header in headers],
            labels=np.full(stop - start, self._file.label, dtype=np.int64),
            filenames=[_decoded(entry.name) for entry in self._entries[start:stop]],
            channels=None if headers is None else [header.channels for header in headers],
        )

    def _header(self, row: int) -> ImageHeader:
        from beam_cifar.images.decode import probe_image

        path = self._entries[row].path
        with storage.reading(path), open(path, "rb") as file:
            return probe_image(file, path)

    def _content(self, row: int) -> bytes:
        entry = self._entries[row]
        if entry.size > MAX_FILE_BYTES:
            raise InputError(f"{entry.path}: has {entry.size} bytes; an image has {MAX_FILE_BYTES} at most")
        with storage.reading(entry.path), open(entry.path, "rb", buffering=0) as file:
            mtime = os.fstat(file.fileno()).st_mtime_ns
            content = file.read()
        if (len(content), mtime) != (entry.size, entry.mtime):
            raise InputError(f"{entry.path}: the file changed while it was being converted; run the job again")
        return content


class ImagenetSink(Sink):
    """Writes `<class>/<id>.png`."""

    name = "imagenet"
    needs_images = True
    keeps_empty_subsets = False
    many_files = True
    part_bytes = 16 << 20

    def encodings(self, options: ExportOptions) -> tuple[str, ...]:
        """PNG, or JPEG where it is asked for, or there already."""
        return file_encodings(options.image_ext)

    def check(self, options: ExportOptions) -> None:
        """There are no batches to be packed."""
        super().check(options)
        if options.images_per_batch is not None:
            raise UsageError(f"--images-per-batch: {self.name} has a file for every image; leave it out")

    def check_labels(self, labels: LabelTable) -> None:
        """Two classes of one name would be one folder."""
        seen: set[str] = set()
        for name in labels.names:
            if name in seen:
                raise UsageError(f"two classes are called {name!r}, and would be one folder; rename one by --remap")
            seen.add(name)

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
        return _FolderWriter(file, options)

    def folders(self, options: SinkOptions, shards: Sequence[ShardResult]) -> list[str]:
        """Folders of all classes, if empty ones are wanted."""
        if not options.export.keep_empty_classes:
            return []
        paths = {result.shard.path for result in shards}
        return sorted(f"{path}/{folder}".lstrip("/") for path in paths for folder in class_folders(options.labels))

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Nothing: the folders say it all."""
        return {}

    def renamed(self, options: SinkOptions, subsets: Sequence[str]) -> dict[str, dict[str, str]]:
        """Folders that are not called as their class, or subset."""
        classes = zip(class_folders(options.labels), options.labels.names, strict=True)
        paths = ((self.shard_path(subset, 0, 1, options.export), subset) for subset in subsets)
        renamed = {
            "classes": {folder: name for folder, name in classes if folder != name},
            "subsets": {folder: name for folder, name in paths if folder and folder != name},
        }
        return {what: names for what, names in renamed.items() if names}

    def result_notices(self, options: SinkOptions, shards: Sequence[ShardResult]) -> Iterator[str]:
        """Readers number the folders that are there."""
        present: dict[str, set[int]] = {}
        for result in shards:
            present.setdefault(result.shard.path, set()).update(result.labels)
        everything = set(range(len(options.labels.names)))
        folders = (*class_folders(options.labels), NO_LABEL)  # the last one is found by UNLABELLED = -1
        if options.export.keep_empty_classes and any(everything - labels for labels in present.values()):
            yield (
                "some class folders are empty: Keras numbers them, torchvision does with allow_empty=True and refuses "
                "them without, Datumaro refuses them, datasets does not see them"
            )
        for path, labels in present.items():
            kept = labels | everything if options.export.keep_empty_classes else labels
            found = sorted(kept, key=folders.__getitem__)
            if any(number != label for number, label in enumerate(found) if label != UNLABELLED):
                yield _shifted(options.labels.names, everything - kept, f" in {path}" if path else "")
                return


class ImagenetWithSubsetDirsSink(ImagenetSink):
    """Writes `<subset>/<class>/<id>.png`."""

    name = "imagenet_with_subset_dirs"

    def check_subsets(self, subsets: Sequence[str]) -> None:
        """Two subsets must not be one folder on a file system that does not tell cases apart."""
        met: dict[str, str] = {}
        for subset in subsets:
            if met.setdefault(clash_key(subset), subset) != subset:
                raise UsageError(
                    f"subsets {met[clash_key(subset)]!r} and {subset!r} would be one folder on some disks; convert one "
                    "at a time with --subset"
                )

    def shard_path(self, subset: str, number: int, count: int, options: ExportOptions) -> str:
        """A folder of its own."""
        return encode_name(subset)

    def name_groups(self, subset: str) -> str:
        """Names may repeat between subsets."""
        return subset


class _FolderWriter(PartWriter):
    """Writes every image to the folder of its class."""

    def __init__(self, folder: storage.StagedFolder, options: SinkOptions) -> None:
        self._folder, self._options = folder, options
        self._folders = (*class_folders(options.labels), NO_LABEL)  # the last one is found by UNLABELLED = -1

    def append(self, table: pa.Table) -> None:
        """See `PartWriter.append`."""
        from beam_cifar.example import plain_labels

        ids, filenames, images = (table.column(name).to_pylist() for name in ("id", "filename", "image"))
        suffixes = file_extensions(table, self._options.export.image_ext)
        names = file_names(ids, filenames, suffixes, self._options.strict_names)
        labels = plain_labels(table).tolist()
        # The list keeps ids that cannot be read off the name.
        self._folder.add(
            (
                self._folders[label],
                name,
                image,
                {} if decode_name(name[: -len(suffix)]) == item_id else {"id": item_id},
            )
            for item_id, name, suffix, label, image in zip(ids, names, suffixes, labels, images, strict=True)
        )

    def close(self) -> None:
        """See `PartWriter.close`."""


@functools.lru_cache(maxsize=8)
def class_folders(labels: LabelTable) -> tuple[str, ...]:
    """The folder of each class: its name in a safe form, in the strict one where two could be one folder."""
    keys = [clash_key(name) for name in labels.names]
    repeated = {key for key, count in Counter(keys).items() if count > 1} | {NO_LABEL}
    return tuple(
        _not_reserved(encode_name(name, strict=key in repeated)) for name, key in zip(labels.names, keys, strict=True)
    )


def _not_reserved(folder: str) -> str:
    """A class that is called as the folder of the unlabelled gets another one."""
    return f"%{ord(folder[0]):02X}{folder[1:]}" if folder == NO_LABEL else folder


def _shifted(names: Sequence[str], missing: Set[int], where: str) -> str:
    """The notice that folders give other label ids than the table."""
    readers = "readers that number the folders (torchvision, Keras, datasets) give other label ids"
    if not missing:
        return f"the classes are not in the order of their folders' names{where}, {NO_LABEL} included: {readers}"
    return (
        f"{len(missing)} of {len(names)} classes have no images{where} and so no folder, such as "
        f"{names[min(missing)]!r}: {readers}; --keep-empty-classes makes the folders"
    )


def _pixel_bytes(header: ImageHeader) -> int:
    return 3 * header.height * header.width


def _image_depths(path: str) -> set[int]:
    """How many folders deep images lie: 1 for `<class>/<image>`, 2 for `<subset>/<class>/<image>`, maybe both."""
    depths = set()
    try:
        for folder in _folders(path).values():
            if storage.has_file(folder, is_image_name):
                depths.add(1)
            elif any(storage.has_file(inner, is_image_name) for inner in _folders(folder).values()):
                depths.add(2)
    except (OSError, InputError):
        return set()
    return depths


def _folders(path: str) -> dict[str, str]:
    """The folders in a folder, name to path; hidden ones left out."""
    return {entry.name: entry.path for entry in storage.list_folder(path) if entry.is_folder and _is_visible(entry)}


def _files(path: str) -> list[str]:
    """The paths of the files in a folder; hidden ones left out."""
    return [entry.path for entry in storage.list_folder(path) if not entry.is_folder and _is_visible(entry)]


def _is_visible(entry: storage.Entry) -> bool:
    return not entry.name.startswith(".")


def _images(path: str, stray: list[str] | None = None) -> list[storage.Entry]:
    """The images of a class folder, in natural order; names of other files are added to `stray`.

    Raises:
        InputError: a folder where images should be, or something that is not a file.
    """
    images = []
    with storage.reading(path):
        for entry in filter(_is_visible, storage.list_folder(path)):
            if entry.is_folder:
                raise InputError(f"{entry.path}: is a folder; expected images only in the folder of a class")
            if is_image_name(entry.name):
                images.append(entry)
            elif stray is not None:
                stray.append(entry.path)
    return sorted(images, key=lambda entry: natural_key(entry.name))


def _source_file(
    subset: str, folder: str, path: str, label: int, stray: list[str]
) -> tuple[SourceFile, npt.NDArray[np.uint64]]:
    """One folder, and the digests of its images' names without extension."""
    images = _images(path, stray)
    blob = storage.Blob(path, 0, sum(entry.size for entry in images), storage.listing_stamp(images))
    return SourceFile(f"{subset}/{folder}", subset, path, blob, label), digests(_stem(entry.name) for entry in images)


def _with_prefixes(found: Sequence[tuple[SourceFile, npt.NDArray[np.uint64]]]) -> list[SourceFile]:
    """Ids are file names, with the folder's name in front of all of a subset if they would not be unique without."""
    import numpy as np

    files = [file for file, _ in found]
    stems = np.concatenate([np.empty(0, np.uint64), *(digests for _, digests in found)])
    if len(np.unique(stems)) == len(stems):
        return files
    return [replace(file, id_prefix=file.name.rpartition("/")[2] + "/") for file in files]


def _stem(name: str) -> str:
    return decode_name(name.rpartition(".")[0])


def _decoded(name: str) -> str:
    """A file's name with its stem decoded: by itself, since a cut one is told by its end."""
    return _stem(name) + "." + name.rpartition(".")[2]


@functools.lru_cache(maxsize=4)
def _checked_listing(file: SourceFile) -> list[storage.Entry]:
    """The images of a folder, kept for a while, because several tasks read parts of a large one."""
    images = _images(file.blob.path)
    if storage.listing_stamp(images) != file.blob.stamp:
        raise InputError(f"{file.shown}: the folder changed while it was being converted; run the job again")
    return images
