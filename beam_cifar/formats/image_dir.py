"""A folder of images without labels, flat or nested; ids are paths without extension.

Datumaro's `image_dir` writes nested trees, but reads only the images directly in the folder.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.sink import SubsetNaming
from beam_cifar.formats.contract.source import Source
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.folders import ID_TREE, ImageFileRows, TreeSink, image_table
from beam_cifar.formats.kit.image_lists import ImageTree, checked_tree, list_images, natural_places, path_names
from beam_cifar.images.encodings import is_image_name

if TYPE_CHECKING:
    import pyarrow as pa

SUBSET = "default"
"""Datumaro's name for the only subset."""

MAX_LOOKED_AT = 10_000
"""How many files detection checks when looking for an image."""


class ImageDirSource(Source):
    """Reads any tree of images, without labels."""

    name = "image_dir"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether there is an image anywhere in the tree; more specific formats are tried first."""
        if not storage.is_folder(path):
            return False
        files = zip(range(MAX_LOOKED_AT), storage.list_tree(path), strict=False)
        return any(is_image_name(entry.name) for _, entry in files)

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Lists all images."""
        hidden: set[str] = set()
        with storage.reading(path):
            tree = list_images(path, lambda name: _is_shown(name, hidden))
        if not len(tree):
            raise InputError(f"{path}: no image files found")
        file = SourceFile(SUBSET, SUBSET, path, tree.blob)
        notices: tuple[str, ...] = ()
        if hidden:
            count, first = counted(len(hidden), "folder"), min(hidden)
            notices = (f"ignored {count} with images and a name that starts with '_', such as {first!r}; rename it",)
        return Catalog(self.name, "folder of images", path, LabelTable(()), (file,), notices=notices)

    def read_rows(self, file: SourceFile, labels: LabelTable) -> ImageFileRows:
        table = _images(file)
        return ImageFileRows(file, file.blob.path, table, [UNLABELLED] * len(table))


def _is_shown(name: str, hidden: set[str] | None = None) -> bool:
    """Returns whether a path is that of an image outside folders named `_*`, which are added to `hidden`."""
    if not is_image_name(name):
        return False
    folders = name.split("/")[:-1]
    at = next((at for at, folder in enumerate(folders, 1) if folder.startswith("_")), 0)
    if at and hidden is not None:
        hidden.add("/".join(folders[:at]))
    return not at


@indexed()
def _images(file: SourceFile) -> pa.Table:
    """Returns all images in natural order."""
    import pyarrow as pa

    tree: ImageTree = checked_tree(file.blob, _is_shown)
    order = natural_places(tree.names).to_numpy()
    ids, filenames = zip(*map(path_names, tree.names.take(order).to_pylist()), strict=True)
    return image_table(tree.rows(order), *(pa.array(texts, pa.string()) for texts in (ids, filenames)))


class ImageDirSink(TreeSink):
    """Writes `<id>.png`."""

    name = "image_dir"
    can = replace(ID_TREE, losses=frozenset({"labels", "subsets", "superclasses", "unused"}))
    subsets = SubsetNaming(merges=True)
