"""Reads formats that have a file of annotations for each subset, JSON or XML, next to a folder of images."""

from __future__ import annotations

import io
import json
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Final

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable, refuse_repeated
from beam_cifar.data.text import counted, is_unicode
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.source import Source, kept
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.folders import ImageFileRows
from beam_cifar.formats.kit.image_lists import list_images, listed_rows, subset_files
from beam_cifar.formats.kit.json_stream import JsonStream
from beam_cifar.formats.kit.roots import sorted_files
from beam_cifar.storage import archives

if TYPE_CHECKING:
    import pyarrow as pa

ANNOTATIONS: Final = "annotations"
IMAGES: Final = "images"

MAX_FILE_BYTES: Final = 8 << 30
"""Limit for the annotation file of one subset; a million items are about 0.2 GB."""

DETECT_BYTES: Final = 2 << 20
"""How much of a file detection reads to find what comes before the items."""

SUPERCLASSES: Final = "superclasses"
"""Our key for the ordered list of all superclasses, in an object of free content; other readers ignore it."""


compact_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Returns a value as JSON text without spaces; made once, because there is a text for each item."""


@dataclass(frozen=True)
class _Contents:
    """The contents of one annotation file.

    Attributes:
        labels: its label table.
        rows: its items.
        left_out: number of ignored annotations by kind.
    """

    labels: LabelTable
    rows: ImageFileRows
    left_out: Counter[str]


class AnnotationSource(Source):
    """Reads `<folder><prefix><subset><suffix>`, and the images of each file in `images/`."""

    title: ClassVar[str]
    """Display name of the kind of dataset."""
    folder: ClassVar[str] = f"{ANNOTATIONS}/"
    """Folder of the annotation files, with "/" at its end; "" for the dataset's own."""
    prefix: ClassVar[str] = ""
    """What the names of annotation files start with."""
    suffix: ClassVar[str] = ".json"
    """What they end with."""

    @abstractmethod
    def starts_right(self, entry: storage.Entry) -> bool:
        """Returns whether the start of an annotation file is in this format. Raises `InputError`."""

    @abstractmethod
    def rows(self, file: SourceFile) -> pa.Table:
        """Returns the rows of one annotation file, from `with_facts`. Raises `InputError`."""

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether one of the first annotation files is in this format."""
        if archives.is_archive(path) or not storage.is_folder(self._folder(path)):
            return False
        return any(self.starts_right(entry) for entry in self._found(path)[:3])

    def files(self, found: Sequence[storage.Entry], images: storage.Blob, index_dir: str) -> tuple[SourceFile, ...]:
        """Returns the annotation files, each with its subset. Raises `InputError`.

        Args:
            found: the files.
            images: the folder of the images.
            index_dir: folder for their indexes.
        """
        return subset_files(found, (images,), index_dir, self.prefix)

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Reads all items once, to count the annotations that are ignored."""
        with storage.reading(self._folder(path)):
            found = self._found(path)
        if not found:
            expected = f"{self.folder}{self.prefix}<subset>{self.suffix}"
            raise InputError(f"{path}: has no annotation files; expected {expected}")
        files = self.files(found, list_images(os.path.join(path, IMAGES)).blob, index_dir)
        tables, left_out = [], Counter[str]()
        for file in files:
            contents = _contents(type(self), file)
            tables.append(contents.labels)
            left_out += contents.left_out
        for file, table in zip(files, tables, strict=True):
            if table != tables[0]:
                raise InputError(f"{file.shown}: classes differ from {files[0].shown}; expected the same in all")
        unread = _unread(left_out)
        notices = (f"ignored {unread}",) if unread else ()
        return Catalog(self.name, self.title, path, tables[0], files, notices=notices, unread=unread)

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ImageFileRows:
        return _contents(type(self), file).rows

    def _folder(self, path: str) -> str:
        return os.path.join(path, self.folder).rstrip("/")

    def may_lose(self, name: str) -> bool:
        return name.startswith(self.prefix) and name.endswith(self.suffix)

    def _found(self, path: str) -> list[storage.Entry]:
        return sorted_files(self._folder(path), self.may_lose, own=bool(self.folder))


class JsonSource(AnnotationSource):
    """Reads `annotations/<prefix><subset>.json`, and the images of each file in `images/`."""

    @abstractmethod
    def is_it(self, key: str, value: JsonStream, before: Set[str]) -> bool:
        """Returns whether a file that has a key, after others, is in this format.

        Args:
            key: the key.
            value: the file, at the value of the key; only `JsonStream.at` may be called.
            before: the keys before it.
        """

    def starts_right(self, entry: storage.Entry) -> bool:
        stream = JsonStream(io.BytesIO(first_bytes(entry)), entry.path)
        found, is_object = set[str](), stream.at("{")
        try:
            if not is_object:
                stream.value()  # a list, such as of another program, or no JSON at all
                return False
            for key in stream.members():
                if self.is_it(key, stream, found):
                    return True
                found.add(key)
                stream.value()
        except InputError:
            if entry.size <= DETECT_BYTES:  # otherwise it may only have been cut here
                raise
        return False


@kept()
def _contents(kind: type[AnnotationSource], file: SourceFile) -> _Contents:
    """Returns the contents of one annotation file. Raises `InputError`."""
    table = kind().rows(file)
    facts = json.loads(table.schema.metadata[b"facts"])
    labels = LabelTable(**{name: tuple(values) for name, values in facts["labels"].items()})
    rows = listed_rows(file, file.beside[0].path, table, len(labels.names))
    return _Contents(labels, rows, Counter(facts["left_out"]))


def with_facts(table: pa.Table, labels: LabelTable, left_out: Mapping[str, int]) -> pa.Table:
    """Returns the rows of an annotation file with what else it says.

    Args:
        table: the rows, from `ListedRows.made`.
        labels: the label table of the file.
        left_out: number of ignored annotations by kind.
    """
    return table.replace_schema_metadata({"facts": json.dumps({"labels": asdict(labels), "left_out": left_out})})


def first_bytes(entry: storage.Entry) -> bytes:
    """Returns the first `DETECT_BYTES` of an annotation file. Raises `InputError`."""
    with storage.reading(entry.path), storage.open_file(entry.path) as file:
        return file.read(DETECT_BYTES)


@contextmanager
def open_annotations(file: SourceFile) -> Iterator[BinaryIO]:
    """Yields an annotation file, at its start. Raises `InputError` if it is too large or changed."""
    if file.blob.size > MAX_FILE_BYTES:
        raise InputError(f"{file.shown}: is {file.blob.size} bytes; at most {MAX_FILE_BYTES} are supported")
    with storage.open_blob(file.blob, file.shown) as opened:
        yield opened


@contextmanager
def open_json(file: SourceFile) -> Iterator[JsonStream]:
    """Yields a JSON file of annotations, at its start; raises as `open_annotations`."""
    with open_annotations(file) as opened:
        yield JsonStream(opened, file.shown)


def label_table(names: Sequence[str], parents: Sequence[str], infos: Any) -> LabelTable:
    """Returns a label table; the parents of classes are the superclasses.

    Args:
        names: the classes.
        parents: the parent of each, "" for none.
        infos: where `SUPERCLASSES` may be; without it, superclasses are in the order of their classes.
    """
    found = tuple(dict.fromkeys(parent for parent in parents if parent))
    if not found:
        return LabelTable(tuple(names))
    listed = infos.get(SUPERCLASSES) if isinstance(infos, dict) else None
    if isinstance(listed, list) and all(isinstance(name, str) and is_unicode(name) for name in listed):
        found = tuple(listed) if set(found) <= set(listed) and len(set(listed)) == len(listed) else found
    numbers = {name: number for number, name in enumerate(found)}
    return LabelTable(tuple(names), found, tuple(numbers.get(parent) for parent in parents))


def superclass_names(labels: LabelTable) -> list[str]:
    """Returns the superclass of each class, "" for none."""
    parents = labels.parents or (None,) * len(labels.names)
    return ["" if parent is None else labels.coarse_names[parent] for parent in parents]


def check_class_names(labels: LabelTable) -> None:
    """Refuses repeated and empty names: Datumaro rejects them, and an empty parent means none. Raises `UsageError`."""
    for what, names in (("class", labels.names), ("superclass", labels.coarse_names)):
        refuse_repeated(names, "which Datumaro refuses", f"{what}es")
        for name in names:
            if not name or not is_unicode(name):
                raise UsageError(
                    f"{what} {name!r} is empty or not valid Unicode, which Datumaro refuses; rename it with --remap"
                )


def _unread(counts: Counter[str]) -> str:
    if not counts:
        return ""
    kinds = ", ".join(f"{kind}: {counts[kind]}" for kind in sorted(counts))
    found = counted(counts.total(), "annotation that is not an image label", "annotations that are not image labels")
    return f"{found} ({kinds})"
