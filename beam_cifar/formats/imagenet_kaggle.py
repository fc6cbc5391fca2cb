"""ImageNet's 1,000 classes as Kaggle's ImageNet Object Localization Challenge has them.

`ILSVRC/Data/CLS-LOC/` has `train/<wnid>/`, and in `val/` and `test/` images of all classes. `LOC_val_solution.csv` has
a line `<image>,<wnid> <x> <y> <x> <y> ...` for each image of `val`, with every box in it, after a header; those in
`test/` have no labels. `LOC_synset_mapping.txt` has a line `<wnid> <name>` for each class.
Reference: https://www.kaggle.com/competitions/imagenet-object-localization-challenge/data.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.folders import ImageFileRows
from beam_cifar.formats.kit.image_lists import listed_rows, unmatched
from beam_cifar.formats.kit.records import read_names
from beam_cifar.formats.kit.roots import own_file
from beam_cifar.formats.kit.synsets import (
    CLASS_TARS,
    SUBSETS,
    SynsetFiles,
    subset_file,
    synset_names,
    synset_numbers,
    synset_rows,
    synset_tree,
)
from beam_cifar.images.encodings import is_image_name

if TYPE_CHECKING:
    import pyarrow as pa

DATA: Final = "ILSVRC/Data/CLS-LOC"
MAPPING: Final = "LOC_synset_mapping.txt"
TRAIN_TAR: Final = "ILSVRC2012_img_train.tar"
"""The official file of training images, a tar file of tar files."""
ANNOTATIONS: Final = "LOC_val_solution.csv"
FILES: Final = SynsetFiles(MAPPING, ANNOTATIONS, "ImageId,PredictionString", ",", "comma", ".JPEG")


class ImagenetKaggleSource(Source):
    """Reads the folders of the three subsets."""

    name = "imagenet_kaggle"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether there is the folder of the images.

        Raises:
            InputError: there are only the official tar files.
        """
        if not storage.is_folder(path):
            return False
        if storage.is_file(os.path.join(path, TRAIN_TAR)) and not storage.folders_in(path):
            raise InputError(f"{path}: {TRAIN_TAR}: {CLASS_TARS}")
        return storage.is_folder(os.path.join(path, DATA))

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Reads the names of the classes and the labels of `val`, and lists all images."""
        with storage.reading(path):
            mapping, annotations = own_file(path, MAPPING), own_file(path, ANNOTATIONS)
            if mapping is None:
                raise InputError(f"{path}: has no {MAPPING}; restore it, or read {DATA}/train alone as imagenet")
            names = _names(mapping)
            files = list[SourceFile]()
            for subset in SUBSETS:
                folder = os.path.join(path, DATA, subset)
                # Many move the images of val to folders of their classes, and leave the list where it is.
                is_listed = subset == "val" and storage.is_folder(folder) and storage.has_file(folder, is_image_name)
                files += subset_file(subset, folder, annotations if is_listed else None, mapping.blob, index_dir)
        if not files:
            raise InputError(f"{path}: has no images; expected {DATA}/train/<wnid>, {DATA}/val or {DATA}/test")
        notices = [notice for file in files for notice in unmatched(file.shown, _listed(file), synset_tree(file))]
        table = LabelTable(synset_names(names, names))
        return Catalog(self.name, "ImageNet of Kaggle", path, table, tuple(files), (mapping,), tuple(notices))

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ImageFileRows:
        return listed_rows(file, file.beside[0].path, _listed(file), len(labels.names))


def _names(file: SourceFile) -> dict[str, str]:
    """Returns the name of each class by its id, in the order of their numbers. Raises `InputError` if one repeats."""
    lines = [line.strip().partition(" ") for line in read_names(file)]
    synset_numbers((wnid for wnid, _, _ in lines), file.shown)
    return {wnid: name.strip() for wnid, _, name in lines}


@indexed()
def _listed(file: SourceFile) -> pa.Table:
    mapping = file.beside[1]
    names = _names(SourceFile(MAPPING, "", mapping.path, mapping))
    return synset_rows(file, {wnid: number for number, wnid in enumerate(names)}, FILES)
