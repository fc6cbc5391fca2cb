"""Tiny ImageNet: 200 classes of ImageNet at 64 x 64 pixels, as Stanford's CS231n published it.

`train/<wnid>/images/` has the training images of a class, `val/images/` those of all classes, with a line
`<file> <wnid> <x> <y> <width> <height>` for each in `val/val_annotations.txt`, separated by tabs; the images in
`test/images/` have no labels. `wnids.txt` has the ids of the classes (WordNet synsets), whose order numbers them, and
`words.txt` a line `<wnid> <name>` for each synset. Reference: http://cs231n.stanford.edu/tiny-imagenet-200.zip.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.folders import ImageFileRows
from beam_cifar.formats.kit.image_lists import listed_rows, read_lines, unmatched
from beam_cifar.formats.kit.records import read_names
from beam_cifar.formats.kit.roots import has_own_file, own_file
from beam_cifar.formats.kit.synsets import (
    IMAGES,
    SUBSETS,
    SynsetFiles,
    subset_file,
    synset_names,
    synset_numbers,
    synset_rows,
    synset_tree,
)

if TYPE_CHECKING:
    import pyarrow as pa

WNIDS: Final = "wnids.txt"
WORDS: Final = "words.txt"
ANNOTATIONS: Final = "val_annotations.txt"
FILES: Final = SynsetFiles(WNIDS, f"val/{ANNOTATIONS}")


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
            numbers = _numbers(wnids)
            table = LabelTable(synset_names(numbers, dict(_words(words, numbers)) if words else {}))
            files = tuple(file for name in SUBSETS for file in _subset(path, name, wnids.blob, index_dir))
        if not files:
            raise InputError(f"{path}: has no images; expected train/<wnid>/{IMAGES}, val/{IMAGES} or test/{IMAGES}")
        notices = [notice for file in files for notice in unmatched(file.shown, _listed(file), synset_tree(file))]
        metas = (wnids, words) if words else (wnids,)
        return Catalog(self.name, "Tiny ImageNet", path, table, files, metas, tuple(notices))

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ImageFileRows:
        return listed_rows(file, file.beside[0].path, _listed(file), len(labels.names))


def _numbers(file: SourceFile) -> dict[str, int]:
    return synset_numbers(map(str.strip, read_names(file)), file.shown)


def _words(words: SourceFile, wnids: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Yields the ids of classes with their names, from a file of 80,000 lines."""
    for _, line in read_lines(words.blob, words.shown):
        wnid, _, name = line.partition("\t")
        if wnid in wnids and name.strip():
            yield wnid, name.strip()


def _subset(path: str, name: str, wnids: storage.Blob, index_dir: str) -> list[SourceFile]:
    folder = os.path.join(path, name)
    annotations = own_file(folder, ANNOTATIONS) if name == "val" else None
    return subset_file(name, os.path.join(folder, IMAGES) if annotations else folder, annotations, wnids, index_dir)


@indexed()
def _listed(file: SourceFile) -> pa.Table:
    wnids = file.beside[1]
    return synset_rows(file, _numbers(SourceFile(WNIDS, "", wnids.path, wnids)), FILES)
