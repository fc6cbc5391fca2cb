"""Pascal VOC, classification: `JPEGImages/`, lists of ids in `ImageSets/Main/`, and a file for each class and subset.

Each line of `<class>_<subset>.txt` is an id and 1, -1, or 0 for "difficult", right-aligned (VOC2012 development kit,
section 4.1). `labelmap.txt`, lines of `name:color:parts:actions`, is Datumaro's. Its reader accepts only lists without
`_` in their names, so subset names have %5F instead, which also separates class and subset unambiguously.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable, refuse_repeated
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.sink import SubsetNaming
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.contract.types import Catalog, Shard, ShardResult, SinkOptions, SourceFile
from beam_cifar.formats.kit.folders import ID_TREE, ImageFileRows, TreeSink, write_lines
from beam_cifar.formats.kit.image_lists import (
    ListedRows,
    Texts,
    checked_tree,
    is_inside,
    list_images,
    listed_rows,
    read_line_blocks,
    read_lines,
    subset_files,
)
from beam_cifar.formats.kit.roots import own_file, sorted_files
from beam_cifar.formats.kit.rows import found_in
from beam_cifar.images.encodings import is_image_name
from beam_cifar.naming.components import MAX_COMPONENT_BYTES, decode_name, decoded_names, distinct_components
from beam_cifar.naming.id_paths import decode_path, encode_word, stem
from beam_cifar.naming.ids import natural_key
from beam_cifar.storage import archives

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

IMAGES: Final = "JPEGImages"
SETS: Final = "ImageSets/Main"
LABEL_MAP: Final = "labelmap.txt"
MAX_CLASS_BYTES: Final = 1 << 31
"""Limit for all class files of one subset together: each has a line for every image."""

_MARKED: Final = re.compile(r"\S\s+(-1|0|1)\Z")

CLASSES: Final = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The classes of VOC2007 to VOC2012."""


@dataclass(frozen=True)
class _Sets:
    """The files of `ImageSets/Main`.

    Attributes:
        blob: the folder, with the stamp of its listing.
        classes: class names as written in file names.
        lists: the lists of subsets, in natural order.
        stems: names of all files without `.txt`.
        notices: what the files do not say clearly, one line each.
    """

    blob: storage.Blob
    classes: tuple[str, ...]
    lists: tuple[storage.Entry, ...]
    stems: frozenset[str]
    notices: tuple[str, ...]


class VocSource(Source):
    """Reads the lists and the images they name."""

    name = "voc_classification"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether there are `JPEGImages/` and a list in `ImageSets/Main/`."""
        if archives.is_archive(path) or not storage.is_folder(os.path.join(path, IMAGES)):
            return False
        return bool(sorted_files(os.path.join(path, SETS), _is_list, own=True))

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Separates subset lists from class files, and lists the images."""
        metas = _metas(path)
        sets = _found_sets(path, metas)
        if not sets.lists:
            raise InputError(f"{path}: has no image list; expected {SETS}/<subset>.txt")
        images = list_images(os.path.join(path, IMAGES), is_image_name).blob
        files = subset_files(sets.lists, (sets.blob, images, *(meta.blob for meta in metas)))
        table = LabelTable(tuple(decoded_names(sets.classes).values()))
        return Catalog(self.name, "Pascal VOC, classification", path, table, files, metas, sets.notices)

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ImageFileRows:
        return listed_rows(file, file.beside[1].path, _listed(file), len(labels.names))


@indexed()
def _listed(file: SourceFile) -> pa.Table:
    """Reads a list and the files of all classes, and finds the images."""
    path = os.path.dirname(os.path.dirname(os.path.dirname(file.blob.path)))
    metas = _metas(path)
    sets = _found_sets(path, metas)
    if (sets.blob, *(meta.blob for meta in metas)) != (file.beside[0], *file.beside[2:]):
        raise InputError(f"{file.shown}: class lists changed while it was being converted; run the job again")
    ids = _listed_ids(file)
    numbers, several = _labels(file, sets, ids)
    tree = checked_tree(file.beside[1], is_image_name)
    rows = ListedRows(file)
    images = zip(ids.to_pylist(), tree.with_any_extension(ids), numbers.tolist(), strict=True)
    for row, (item_id, image, label) in enumerate(images):
        decoded = decode_path(item_id)
        filename = decoded + (image[len(stem(image)) :] or ".jpg")
        image_path = image if image or is_inside(item_id) else item_id  # refused later
        rows.append(decoded, image_path, filename, label, several.get(row, ""))
    return rows.made(tree)


class VocSink(TreeSink):
    """Writes `JPEGImages/<id>.jpg`, and the lists of each subset and class."""

    name = "voc_classification"
    can = replace(
        ID_TREE,
        losses=frozenset({"jpeg", "superclasses"}),
        image_ext=".jpg",
        keeps_empty_subsets=True,
        listed=("label",),
    )
    # Datumaro does not find lists with `_` in their names.
    subsets = SubsetNaming(word=lambda name: encode_word(name, escape="_"))
    root = IMAGES

    def check_labels(self, labels: LabelTable) -> None:
        """Checks that class names fit in file names."""
        refuse_repeated(labels.names, "and would share a file")
        for name, written in zip(labels.names, self.class_words(labels), strict=True):
            if decode_name(written) != name:
                raise UsageError(f"class {name[:50]!r}... is too long for a file name; rename it with --remap")

    def check_shard(self, shard: Shard, options: SinkOptions) -> None:
        """Checks the size of the class files and the length of their names."""
        words = self.class_words(options.labels)
        size = _class_bytes(shard.rows, len(words))
        if size > MAX_CLASS_BYTES:
            raise UsageError(
                f"subset {shard.subset!r}: {self.name} writes {len(words)} class files of {shard.rows} lines, at "
                f"least {size} bytes; select fewer classes with --label, or choose another format"
            )
        for word in ("", *words):
            name = f"{word}_{self.subsets.written(shard.subset)}.txt"
            if len(name.encode()) > MAX_COMPONENT_BYTES:
                raise UsageError(
                    f"class {decode_name(word)[:50]!r} and subset {shard.subset[:50]!r} give a file name of "
                    f"{len(name.encode())} bytes, but at most {MAX_COMPONENT_BYTES} are supported; rename one of them"
                )

    def estimate_bytes(self, rows: int, image_bytes: int, options: SinkOptions) -> int:
        lists = _class_bytes(rows, len(options.labels.names))
        return super().estimate_bytes(rows, image_bytes, options) + lists

    def complete(self, parts: Sequence[str], files: storage.StagedFiles, shard: Shard, options: SinkOptions) -> None:
        """Writes the list of a subset and its class files."""
        subset = self.subsets.written(shard.subset)
        lines = _ClassLines()
        listed = self.listed_images(parts)
        write_lines(files, f"{SETS}/{subset}.txt", (lines.append(stem(path), label) for path, label, _ in listed))
        for label, word in enumerate(self.class_words(options.labels)):
            with files.open(f"{SETS}/{word}_{subset}.txt") as file:
                lines.write(label, file)

    def folders(self, options: SinkOptions, shards: Sequence[ShardResult]) -> list[str]:
        """Returns the folder for boxes, which readers expect even if it is empty."""
        return ["Annotations"]

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the label map."""
        lines = ["# label:color_rgb:parts:actions", *(f"{word}:::" for word in self.class_words(options.labels))]
        return {LABEL_MAP: ("\n".join(lines) + "\n").encode()}

    def class_words(self, labels: LabelTable) -> Sequence[str]:
        return distinct_components(labels.names, encode_word)


class _ClassLines:
    """The lines of the class files, which differ only in a sign: "id -1", or "id  1" for images of the class."""

    def __init__(self) -> None:
        self._lines = bytearray()
        self._signs, self._labels = array("q"), array("q")

    def append(self, item_id: str, label: int) -> str:
        """Adds an image and returns its line in the subset list; like Datumaro, class files omit unlabelled images."""
        if label != UNLABELLED:
            self._lines += f"{item_id} -1\n".encode()
            self._signs.append(len(self._lines) - 3)
            self._labels.append(label)
        return f"{item_id}\n"

    def write(self, label: int, file: storage.StagedFile) -> None:
        """Writes the file of one class."""
        import numpy as np

        signs = np.frombuffer(self._signs, np.int64)[np.frombuffer(self._labels, np.int64) == label]
        lines = np.frombuffer(self._lines, np.uint8)
        # Changes the shared lines in place and back, rather than copying them for each class.
        lines[signs] = ord(" ")
        file.write(lines)
        lines[signs] = ord("-")


def _class_bytes(rows: int, classes: int) -> int:
    """Returns the minimum size in bytes of the class files."""
    return rows * classes * len("0 -1\n")


def _is_list(name: str) -> bool:
    return name.endswith(".txt")


def _metas(path: str) -> tuple[SourceFile, ...]:
    """Returns the label map, if there is one."""
    with storage.reading(os.path.join(path, LABEL_MAP)):
        found = own_file(path, LABEL_MAP)
    return () if found is None else (found,)


def _found_sets(path: str, metas: Sequence[SourceFile]) -> _Sets:
    folder = os.path.join(path, SETS)
    with storage.reading(folder):
        entries = sorted_files(folder, _is_list, own=True)
    stems = frozenset(stem(entry.name) for entry in entries)
    listed = _label_map(metas[0]) if metas else ()
    unknown = _subsets(stems, listed)
    marked = {name for entry in entries if (name := stem(entry.name)) in unknown and _is_class_list(entry, stems)}
    found = {name[: -len(end) - 1]: name for name in sorted(marked) for end in _ends(name) if end in stems - marked}
    more = sorted(found.keys() - set(listed), key=natural_key)
    if not metas and not found.keys().isdisjoint(CLASSES):
        listed = CLASSES
    classes = (*listed, *(name for name in more if name not in listed))
    subsets = _subsets(stems - marked, classes)
    notices = []
    if metas and more:
        notices.append(
            f"{LABEL_MAP} does not list {counted(len(more), 'class')} of which there are image lists, such as "
            f"{more[0]!r}, after those that it lists"
        )
    if lost := sorted(name for name in marked if not any(end in subsets for end in _ends(name))):
        notices.append(
            f"ignored {counted(len(lost), 'class list')} without a list of their subset, such as {SETS}/{lost[0]}.txt; "
            f"add {SETS}/{lost[0].rpartition('_')[2]}.txt with the ids of its images"
        )
    blob = storage.Blob(folder, 0, sum(entry.size for entry in entries), storage.listing_stamp(entries))
    return _Sets(blob, classes, tuple(e for e in entries if stem(e.name) in subsets), stems, tuple(notices))


def _is_class_list(entry: storage.Entry, stems: Set[str]) -> bool:
    """Returns whether a list named `<class>_<subset>` has 1, 0 or -1 after every id, judging by its first lines.

    Ids may end in a number too: without a -1, the list of its subset must be there.
    """
    name = stem(entry.name)
    if "_" not in name:
        return False
    blocks = read_line_blocks(storage.listed_file(entry), entry.path)
    first: list[str] = next((lines for _, lines in blocks if lines), [])
    lines = [text for line in first if (text := line.strip()) and not text.startswith("#")]
    values = {match[1] if (match := _MARKED.search(line)) else "" for line in lines}
    return "" not in values and ("-1" in values or any(end in stems for end in _ends(name)))


def _label_map(file: SourceFile) -> tuple[str, ...]:
    names: dict[str, int] = {}
    for number, line in read_lines(file.blob, file.shown):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name = text.partition(":")[0]
        if name in names:
            raise InputError(f"{file.shown}: line {number}: class {name!r} is already on line {names[name]}")
        names[name] = number
    return tuple(names)


def _subsets(stems: Iterable[str], classes: Iterable[str]) -> set[str]:
    """Returns the names of subset lists; checks short names first, as a class file's name ends with its subset's."""
    known, subsets = set(classes), set[str]()
    for name in sorted(stems, key=len):
        if not _split(name, known, subsets):
            subsets.add(name)
    return subsets


def _split(name: str, classes: set[str], subsets: set[str]) -> bool:
    """Returns whether a name is `<class>_<subset>`."""
    return any(subset in subsets and name[: -len(subset) - 1] in classes for subset in _ends(name))


def _ends(name: str) -> Iterator[str]:
    """Returns the ends of a name, one after each `_`."""
    return (name[at + 1 :] for at, char in enumerate(name) if char == "_")


def _listed_ids(file: SourceFile) -> pa.Array:
    ids = Texts()
    for _, line in read_lines(file.blob, file.shown):
        text = line.strip()
        if text and not text.startswith("#"):
            ids.append(text)
    return ids.made()


def _labels(file: SourceFile, sets: _Sets, ids: pa.Array) -> tuple[npt.NDArray[np.int64], Mapping[int, str]]:
    """Returns the label of each row, int64 `[N]`, and errors by row for images with several classes."""
    import numpy as np

    labels, several = np.full(len(ids), UNLABELLED), dict[int, str]()
    folder = os.path.dirname(file.blob.path)
    for label, name in enumerate(sets.classes):
        if f"{name}_{file.name}" not in sets.stems:
            continue
        rows = np.unique(found_in(_positives(os.path.join(folder, f"{name}_{file.name}.txt")), ids))
        rows = rows[rows >= 0]
        for row in rows[labels[rows] != UNLABELLED].tolist():
            other = decode_name(sets.classes[labels[row]])
            several[row] = (
                f"{ids[row].as_py()!r} has classes {other!r} and {decode_name(name)!r}; at most one is supported"
            )
        labels[rows] = label
    first = found_in(ids, ids)
    return labels[first], {
        row: several[at] for row, at in enumerate(first.tolist()) if at in several
    } if several else {}


def _positives(path: str) -> pa.Array:
    """Returns the ids marked 1 in a class file."""
    found = Texts()
    with storage.reading(path):
        blob = storage.whole_file(path)
    for first, lines in read_line_blocks(blob, path):
        # Fast path: most lines end with -1, and there is one for each image and class.
        for number, text in [(n, line.strip()) for n, line in enumerate(lines, first) if not line.endswith(" -1")]:
            if not text or text.startswith("#"):
                continue
            item_id, _, value = text.replace("\t", " ").rpartition(" ")
            if value not in ("-1", "0", "1") or not item_id:
                raise InputError(f"{path}: line {number}: found {text[:50]!r}; expected an id and 1, 0 or -1")
            if value == "1":
                found.append(item_id.rstrip())
    return found.made()
