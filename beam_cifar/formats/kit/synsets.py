"""What layouts of ImageNet share: classes are WordNet synsets, named by folders, or by a list beside the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.kit.image_lists import (
    ImageTree,
    ListedRows,
    checked_tree,
    list_images,
    natural_places,
    path_names,
    read_lines,
)
from beam_cifar.images.encodings import is_image_name

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES: Final = "images"
"""A folder of images of any class, or of that of the folder around it."""

SUBSETS: Final = ("train", "val", "test")

CLASS_TARS: Final = (
    "the images of each class are in a tar file of their own, which says nothing else about them; unpack each into a "
    "folder of its name, such as n01440764.tar into n01440764, and read the folder of these as imagenet"
)
"""What is said of the official files of ImageNet's training images."""


@dataclass(frozen=True)
class SynsetFiles:
    """The files of a layout beside its images.

    Attributes:
        classes: name of the file with the ids of the classes.
        annotations: name of the list of `val`: an image, a delimiter, and the id and the box of each object.
        header: its first line; "" for none.
        delimiter: what ends the image in a line.
        delimiter_name: the same in words.
        suffix: what the list leaves out of the names of images.
    """

    classes: str
    annotations: str
    header: str = ""
    delimiter: str = "\t"
    delimiter_name: str = "tab"
    suffix: str = ""


def synset_numbers(wnids: Iterable[str], shown: str) -> dict[str, int]:
    """Returns the number of each class by its id, given one per line. Raises `InputError` if one repeats."""
    found: dict[str, int] = {}
    for wnid in wnids:
        if wnid in found:
            raise InputError(f"{shown}: {wnid!r} is on lines {found[wnid] + 1} and {len(found) + 1}; remove one")
        found[wnid] = len(found)
    return found


def synset_names(wnids: Iterable[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the name of each class: its own, or its id where it has none or another class has it too."""
    named = [(names.get(wnid) or wnid, wnid) for wnid in wnids]
    count = Counter(name for name, _ in named)
    return tuple(name if count[name] == 1 else wnid for name, wnid in named)


def subset_file(
    name: str, root: str, annotations: SourceFile | None, classes: storage.Blob, index_dir: str
) -> list[SourceFile]:
    """Returns a subset with images: their folder, or the list of them; none if there are no images.

    Args:
        name: its name.
        root: folder of its images.
        annotations: the list of them, if there is one.
        classes: the file with the ids of the classes.
        index_dir: folder for indexes.
    """
    tree = list_images(root, is_image_name)
    blob, shown = (annotations.blob, annotations.shown) if annotations else (tree.blob, root)
    found = SourceFile(name, name, shown, blob, beside=(tree.blob, classes), index_dir=index_dir)
    return [found] if len(tree) or annotations else []


def synset_tree(file: SourceFile) -> ImageTree:
    """Returns the images of a subset. Raises `InputError` if they changed."""
    return checked_tree(file.beside[0], is_image_name)


def synset_rows(file: SourceFile, numbers: Mapping[str, int], files: SynsetFiles) -> pa.Table:
    """Returns the rows of a subset with their labels and images, for `listed_rows`.

    Args:
        file: the subset, from `subset_file`.
        numbers: the number of each class by its id.
        files: the files of its layout.
    """
    rows = ListedRows(file)
    add = _add_folders if file.blob == file.beside[0] else _add_annotated
    add(rows, file, numbers, files)
    return rows.made(synset_tree(file))


def _add_folders(rows: ListedRows, file: SourceFile, numbers: Mapping[str, int], files: SynsetFiles) -> None:
    """Adds all images, each with the class that its folder names; those of `test` in no such folder have none."""
    tree = synset_tree(file)
    for path in tree.names.take(natural_places(tree.names)).to_pylist():
        folder, _, name = path.partition("/")
        item_id, filename = path_names(name.rpartition("/")[2] or folder)
        is_flat = folder == IMAGES or not name
        unlabelled = file.subset == "test" and is_flat
        error = "" if unlabelled or folder in numbers else _unknown(folder if name else "", file, is_flat, files)
        rows.append(item_id, path, filename, numbers.get(folder, UNLABELLED), error)


def _unknown(folder: str, file: SourceFile, is_flat: bool, files: SynsetFiles) -> str:
    if file.subset == "val" and is_flat:
        return f"has no label, because {files.annotations} is missing; restore it"
    return f"is in folder {folder[:50]!r}, which is not a class in {files.classes}; add it there or move the image away"


def _add_annotated(rows: ListedRows, file: SourceFile, numbers: Mapping[str, int], files: SynsetFiles) -> None:
    """Adds a row for each line of the annotations."""
    met: dict[str, int] = {}
    for number, line in read_lines(file.blob, file.shown):
        if not line.strip() or (number == 1 and line == files.header):
            continue
        image, _, objects = line.partition(files.delimiter)
        path = image and image + files.suffix
        wnid = " ".join(dict.fromkeys(objects.split()[::5]))  # an id and four numbers for each object
        label = numbers.get(wnid, UNLABELLED)
        found = f"class is {wnid[:50]!r}; expected a {files.delimiter_name} and one of the ids in {files.classes}"
        error = "" if wnid in numbers else found
        if not path:
            error = f"has no file name; expected one before the first {files.delimiter_name}"
        elif not error and met.setdefault(path, label) != label:
            error = f"image {path!r} also has another class, in an earlier row; at most one is supported"
        item_id, filename = path_names(path)
        rows.append(item_id, path, filename, label, error)
