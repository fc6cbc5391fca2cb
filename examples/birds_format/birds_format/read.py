"""Reads Caltech-UCSD Birds 200-2011: text files of numbered lines beside a folder of images.

`images.txt` has "<number> <path>" for each image, `image_class_labels.txt` "<number> <class>",
`train_test_split.txt` "<number> <1 if train>", and `classes.txt` "<class> <name>", as the README of the dataset says.
"""

from __future__ import annotations

import os

import pyarrow as pa

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.folders import ImageFileRows
from beam_cifar.formats.kit.image_lists import (
    ListedRows,
    checked_tree,
    list_images,
    listed_rows,
    path_names,
    read_lines,
)
from beam_cifar.formats.kit.roots import has_own_file

IMAGES, LABELS, SPLIT, CLASSES = LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
SUBSETS = {"train": "1", "test": "0"}


class BirdsSource(Source):
    """Reads the images of both subsets."""

    name = "birds"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether all lists are there."""
        return storage.is_folder(path) and all(has_own_file(path, name) for name in LISTS)

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Reads the class names, and lists the images."""
        with storage.reading(path):
            images, labels, split, classes = (storage.whole_file(os.path.join(path, name)) for name in LISTS)
        tree = list_images(os.path.join(path, "images")).blob
        names = tuple(_numbered(classes).values())
        files = tuple(
            SourceFile(subset, subset, f"{images.path} ({subset})", images, beside=(tree, labels, split))
            for subset in SUBSETS
        )
        return Catalog(self.name, "Caltech-UCSD Birds", path, LabelTable(names), files)

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ImageFileRows:
        """Returns the rows of one subset."""
        return listed_rows(file, file.beside[0].path, _listed(file), len(labels.names))


@indexed(version="1")
def _listed(file: SourceFile) -> pa.Table:
    tree, labels, split = file.beside
    classes, sides = _numbered(labels), _numbered(split)
    rows = ListedRows(file)
    for number, path in _numbered(file.blob).items():
        if sides.get(number) != SUBSETS[file.subset]:
            continue
        label = classes.get(number, "")
        error = "" if label.isdecimal() else f"image {number} has class {label!r}; expected a number in {labels.path}"
        item_id, filename = path_names(path)
        rows.append(item_id, path, filename, -1 if error else int(label) - 1, error)
    return rows.made(checked_tree(tree))


def _numbered(blob: storage.Blob) -> dict[str, str]:
    """Returns number -> text of each line. Raises `InputError` for a line without both."""
    found: dict[str, str] = {}
    for at, line in read_lines(blob, blob.path):
        number, _, text = line.partition(" ")
        if not text or number in found:
            raise InputError(f"{blob.path}: line {at}: is {line[:50]!r}; expected a new number and a text")
        found[number] = text
    return found
