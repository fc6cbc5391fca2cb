"""STL-10, binary version: a file of images and one of labels for each subset, and unlabelled images.

Reference: https://cs.stanford.edu/~acoates/stl10/. An image is 3 x 96 x 96 bytes, the red, green and blue planes, each
stored by columns; a label is a byte, 1 to 10. `class_names.txt` has a name per line.
"""

from __future__ import annotations

from array import array
from typing import Final

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.npy import Window
from beam_cifar.formats.kit.records import FileRecords, RecordSource, checked_labels, read_exactly, read_names
from beam_cifar.formats.kit.roots import find_root, has_root

IMAGES: Final = {"train": "train_X.bin", "test": "test_X.bin", "unlabeled": "unlabeled_X.bin"}
LABELS: Final = {"train": "train_y.bin", "test": "test_y.bin"}
NAMES, FOLDS = "class_names.txt", "fold_indices.txt"
CLASSES: Final = 10
SIZE: Final = 96, 96
PIXELS: Final = 3 * 96 * 96
_KNOWN: Final = frozenset({*IMAGES.values(), *LABELS.values(), NAMES, FOLDS})


class Stl10Source(RecordSource):
    """Reads STL-10 from a directory or an archive."""

    name = "stl10"
    reads_tar = True

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether there is a file of images in the directory or archive, or one folder deeper."""
        return has_root(path, index_dir, tuple(IMAGES.values()))

    def describe(self, path: str, index_dir: str) -> Catalog:
        with storage.reading(path):
            if not self.looks_right(path, index_dir):
                raise InputError(f"{path}: no files such as {IMAGES['train']} and {LABELS['train']} found")
        root, found = find_root(path, index_dir, tuple(IMAGES.values()), _KNOWN.__contains__)
        files = tuple(_source_file(subset, found) for subset, name in IMAGES.items() if name in found)
        names = read_names(found[NAMES]) if NAMES in found else tuple(map(str, range(1, CLASSES + 1)))
        notices = []
        if NAMES not in found:
            notices.append(f"{path}: no {NAMES} found; classes are named by number, 1 to {CLASSES}")
        elif len(names) != CLASSES:
            raise InputError(
                f"{found[NAMES].shown}: has {counted(len(names), 'name')}; expected {CLASSES}, one per line"
            )
        if FOLDS in found:
            notices.append(f"{found[FOLDS].shown}: is not read; its folds are row numbers of the training images")
        metas = (found[NAMES],) if NAMES in found else ()
        return Catalog(self.name, "STL-10", path, LabelTable(names), files, metas, tuple(notices), root=root)

    def records(self, file: SourceFile, labels: LabelTable) -> FileRecords:
        rows, rest = divmod(file.blob.size, PIXELS)
        if rest:
            raise InputError(
                f"{file.shown}: has {file.blob.size} bytes, {rest} more than {counted(rows, 'image')}; an image is "
                f"{PIXELS} bytes"
            )
        window = Window(file.shown, 0, SIZE, 3, columns=True)
        numbers, bad = checked_labels(file, _label_values(file, rows), len(labels.names), first=1)
        return FileRecords(file, 3, numbers, window.read, SIZE, bad_rows=bad)


def _source_file(subset: str, found: dict[str, SourceFile]) -> SourceFile:
    images = found[IMAGES[subset]]
    beside: tuple[storage.Blob, ...] = ()
    if subset in LABELS:
        if LABELS[subset] not in found:
            raise InputError(f"{images.shown}: has no labels; expected {LABELS[subset]} beside it")
        beside = (found[LABELS[subset]].blob,)
    return SourceFile(images.name, subset, images.shown, images.blob, beside=beside)


def _label_values(file: SourceFile, rows: int) -> array[int]:
    """Returns the labels as stored, 1 to 10, all -1 if there are none."""
    if not file.beside:
        return array("q", [UNLABELLED]) * rows
    blob, shown = file.beside[0], file.shown.removesuffix(file.name) + LABELS[file.subset]
    if blob.size != rows:
        raise InputError(
            f"{file.shown}: has {counted(rows, 'image')} but {shown} has {counted(blob.size, 'label')}; expected "
            "equal counts"
        )
    with storage.open_blob(blob, shown) as stream:
        return array("q", list(read_exactly(stream, rows, shown)))
