"""Tiny ImageNet: 200 classes of ImageNet at 64 x 64 pixels, as Stanford's CS231n published it.

`train/<wnid>/images/` has the training images of a class, `val/images/` those of all classes, with a line
`<file> <wnid> <x> <y> <width> <height>` for each in `val/val_annotations.txt`, separated by tabs; the images in
`test/images/` have no labels. `wnids.txt` has the ids of the classes (WordNet synsets), whose order numbers them, and
`words.txt` a line `<wnid> <name>` for each synset. Reference: http://cs231n.stanford.edu/tiny-imagenet-200.zip.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.folders import ImageFileRows
from beam_cifar.formats.kit.image_lists import (
    ImageTree,
    ListedRows,
    checked_tree,
    list_images,
    listed_rows,
    natural_places,
    path_names,
    read_lines,
    unmatched,
)
from beam_cifar.formats.kit.records import read_names
from beam_cifar.formats.kit.roots import has_own_file, own_file
from beam_cifar.images.encodings import is_image_name

if TYPE_CHECKING:
    import pyarrow as pa

WNIDS: Final = "wnids.txt"
WORDS: Final = "words.txt"
ANNOTATIONS: Final = "val_annotations.txt"
IMAGES: Final = "images"
SUBSETS: Final = ("train", "val", "test")


class TinyImagenetSource(Source):
    """Reads the folders of the three subsets."""

    name = "tiny_imagenet"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether there are `wnids.txt` and a folder of a subset."""
        if not storage.is_folder(path) or not any(storage.is_folder(os.path.join(path, name)) for name in SUBSETS):
            return False
        return has_own_file(path, WNIDS)

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Reads the names of the classes and the annotations of `val`, and lists all images."""
        with storage.reading(path):
            wnids, words = own_file(path, WNIDS), own_file(path, WORDS)
            if wnids is None:
                raise InputError(f"{path}: has no {WNIDS}; expected the ids of the classes, one per line")
            table = LabelTable(_class_names(tuple(_numbers(wnids)), words))
            files = tuple(file for name in SUBSETS for file in _subset(path, name, wnids.blob, index_dir))
        if not files:
            raise InputError(f"{path}: has no images; expected train/<wnid>/{IMAGES}, val/{IMAGES} or test/{IMAGES}")
        notices = [notice for file in files for notice in unmatched(file.shown, _listed(file), _tree(file))]
        metas = (wnids, words) if words else (wnids,)
        return Catalog(self.name, "Tiny ImageNet", path, table, files, metas, tuple(notices))

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ImageFileRows:
        return listed_rows(file, file.beside[0].path, _listed(file), len(labels.names))


def _numbers(file: SourceFile) -> dict[str, int]:
    """Returns the number of each class by its wnid. Raises `InputError` if one repeats."""
    found: dict[str, int] = {}
    for wnid in map(str.strip, read_names(file)):
        if wnid in found:
            raise InputError(f"{file.shown}: {wnid!r} is on lines {found[wnid] + 1} and {len(found) + 1}; remove one")
        found[wnid] = len(found)
    return found


def _class_names(wnids: tuple[str, ...], words: SourceFile | None) -> tuple[str, ...]:
    """Returns the name of each class: that of `words.txt`, or its wnid where that has none or has one twice."""
    wanted, names = set(wnids), dict[str, str]()
    for _, line in read_lines(words.blob, words.shown) if words else ():
        wnid, _, name = line.partition("\t")
        if wnid in wanted and name.strip():
            names[wnid] = name.strip()
    count = Counter(names.get(wnid, wnid) for wnid in wnids)
    return tuple(name if count[name := names.get(wnid, wnid)] == 1 else wnid for wnid in wnids)


def _subset(path: str, name: str, wnids: storage.Blob, index_dir: str) -> Iterator[SourceFile]:
    """Yields a subset with images: its folder, or its annotations beside the folder that they are about."""
    folder = os.path.join(path, name)
    annotations = own_file(folder, ANNOTATIONS) if name == "val" else None
    root = os.path.join(folder, IMAGES) if annotations else folder
    tree = list_images(root, is_image_name)
    blob, shown = (annotations.blob, annotations.shown) if annotations else (tree.blob, folder)
    if len(tree) or annotations:
        yield SourceFile(name, name, shown, blob, beside=(tree.blob, wnids), index_dir=index_dir)


def _tree(file: SourceFile) -> ImageTree:
    return checked_tree(file.beside[0], is_image_name)


@indexed()
def _listed(file: SourceFile) -> pa.Table:
    """Returns the rows of a subset with their labels and images."""
    wnids = file.beside[1]
    numbers = _numbers(SourceFile(WNIDS, "", wnids.path, wnids))
    rows = ListedRows(file)
    add = _add_folders if file.blob == file.beside[0] else _add_annotated
    add(rows, file, numbers)
    return rows.made(_tree(file))


def _add_folders(rows: ListedRows, file: SourceFile, numbers: Mapping[str, int]) -> None:
    """Adds all images, each with the class that its folder names; those in `test/images` have none."""
    tree = _tree(file)
    for path in tree.names.take(natural_places(tree.names)).to_pylist():
        folder, _, name = path.partition("/")
        item_id, filename = path_names(name.rpartition("/")[2] or folder)
        unlabelled = file.subset == "test" and (folder == IMAGES or not name)
        error = "" if unlabelled or folder in numbers else _unknown(folder if name else "", file)
        rows.append(item_id, path, filename, numbers.get(folder, UNLABELLED), error)


def _unknown(folder: str, file: SourceFile) -> str:
    if file.subset == "val" and folder == IMAGES:
        return f"has no label, because val/{ANNOTATIONS} is missing; restore it"
    return f"is in folder {folder[:50]!r}, which is not a class in {WNIDS}; add it there or move the image away"


def _add_annotated(rows: ListedRows, file: SourceFile, numbers: Mapping[str, int]) -> None:
    """Adds a row for each line of the annotations."""
    met: dict[str, int] = {}
    for _, line in read_lines(file.blob, file.shown):
        if not line.strip():
            continue
        path, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0].strip()
        label = numbers.get(wnid, UNLABELLED)
        error = "" if wnid in numbers else f"class is {wnid[:50]!r}; expected a tab and one of the ids in {WNIDS}"
        if not path:
            error = "has no file name; expected one before the first tab"
        elif not error and met.setdefault(path, label) != label:
            error = f"image {path!r} also has another class, in an earlier row; at most one is supported"
        item_id, filename = path_names(path)
        rows.append(item_id, path, filename, label, error)
