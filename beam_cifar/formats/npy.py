"""NumPy `.npy` files of images and of labels: `x_train.npy` with `y_train.npy`, and test sets made for CIFAR's classes.

References: `numpy.lib.format`; https://github.com/modestyachts/CIFAR-10.1 (`cifar10.1_v6_data.npy` with
`cifar10.1_v6_labels.npy`); https://github.com/hendrycks/robustness, whose CIFAR-10-C has a file for each corruption,
such as `gaussian_noise.npy` (10,000 images at each of five severities), and one `labels.npy` for all of them. Quick,
Draw! (https://github.com/googlecreativelab/quickdraw-dataset) has a file for each class, `full_numpy_bitmap_cat.npy`,
whose rows are images of 28 x 28 pixels.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.array_labels import ArrayLabels, array_labels, common_labels, numbers_in, without_rows
from beam_cifar.formats.kit.array_names import LABELS, images_by_split, labels_by_split, role_of, short_splits
from beam_cifar.formats.kit.npy import Npy, blob_header, image_shape, image_window
from beam_cifar.formats.kit.records import FileRecords, RecordSource, checked_labels, refuse_one_subset
from beam_cifar.formats.kit.roots import sorted_files
from beam_cifar.naming.components import decode_name

SUFFIX: Final = ".npy"
SUBSET: Final = "default"
"""Datumaro's name for the only subset."""
BITMAPS: Final = "full_numpy_bitmap_"
"""What names of the files of Quick, Draw! start with, before the class."""
MIN_SIDE: Final = 8
"""Pixels of the side of the smallest images that are taken for such; scikit-learn's digits have as many."""
_EXPECTED: Final = (
    f"x_train{SUFFIX} and y_train{SUFFIX}, or test_data{SUFFIX} and test_labels{SUFFIX}, or arrays of images and one "
    f"labels{SUFFIX} for all of them"
)


class NpySource(RecordSource):
    """Reads a directory of `.npy` files, or one file of images with the labels beside it."""

    name = "npy"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether the first file that may be one of images has their shape."""
        candidates = list(_candidates(path))
        if any(image_shape(_header(found.path)) for found in candidates[:1]):
            return True
        with suppress(InputError):  # a damaged array of something else does not matter
            return bool(_class_files(path))
        return False

    def describe(self, path: str, index_dir: str) -> Catalog:
        with storage.reading(path):
            files, unread = _source_files(path)
        if not files and (classes := _class_files(path)):
            notice = (
                f"{path}: each array has the images of a class, which has the name of the file (a guess: there are no "
                f"labels, and all rows have {_header(classes[0].shown).shape[1]} values)"
            )
            table = LabelTable(tuple(file.name for file in classes))
            return Catalog(self.name, "NumPy files of classes", path, table, classes, notices=(notice,))
        if not files:
            raise InputError(f"{path}: no arrays of images found; expected {_EXPECTED}")
        refuse_one_subset(files)
        found = {file.shown: without_rows(_labels(file, _header(file.shown).shape[0])) for file in files}
        notices = tuple(_notices(path, files, found, unread))
        return Catalog(self.name, "NumPy files", path, common_labels(found), files, notices=notices)

    def records(self, file: SourceFile, labels: LabelTable) -> FileRecords:
        import numpy as np

        header = blob_header(file.blob, file.shown)
        if file.label != UNLABELLED:
            window = image_window(_as_images(header), file.shown)
            return FileRecords(file, 1, np.full(header.shape[0], file.label, np.int32), window.read, window.size)
        window = image_window(header, file.shown)
        numbers, bad = checked_labels(
            file, numbers_in(_labels(file, header.shape[0]), labels, file.shown), len(labels.names)
        )
        return FileRecords(file, window.channels, numbers, window.read, window.size, bad_rows=bad)


@dataclass(frozen=True)
class _Candidate:
    """A file that may be one of images.

    Attributes:
        path: the file.
        subset: the subset of its rows.
        labels: the file of their labels, "" if there is none.
        sure: whether its name says that it has images; else they are only taken if they fit the labels.
    """

    path: str
    subset: str
    labels: str
    sure: bool


def _stem(path: str) -> str:
    return os.path.basename(path)[: -len(SUFFIX)]


def _arrays(path: str) -> list[str]:
    """Returns the `.npy` files in a directory, or in that of a file, in natural order."""
    if storage.is_file(path):
        if not path.lower().endswith(SUFFIX):
            return []
        path = os.path.dirname(path)
    return [entry.path for entry in sorted_files(path, lambda name: name.lower().endswith(SUFFIX))]


def _candidates(path: str) -> Iterator[_Candidate]:
    """Yields the files that may have images, those with a usual name first; for a file only itself."""
    paths = {_stem(array): array for array in _arrays(path)}
    images = images_by_split(paths)
    labels = labels_by_split(paths, images)
    shared = next(iter(labels_by_split(paths, {"": ""}).values()))
    names = short_splits(images)
    found = [
        _Candidate(paths[stem], decode_name(names[split] or stem), paths.get(labels[split] or shared, ""), True)
        for split, stem in images.items()
    ]
    if shared:
        others = [stem for stem in paths if role_of(stem) is None]
        found += [_Candidate(paths[stem], decode_name(stem), paths[shared], False) for stem in others]
    one = storage.is_file(path)
    yield from (each for each in found if not one or os.path.basename(each.path) == os.path.basename(path))


def _source_files(path: str) -> tuple[tuple[SourceFile, ...], list[str]]:
    """Returns the files of images, and the arrays that are not read."""
    files, used = [], set()
    for found in _candidates(path):
        if found.sure or _fits(_header(found.path), _header(found.labels)):
            beside = (storage.whole_file(found.labels),) if found.labels else ()
            blob = storage.whole_file(found.path)
            files.append(SourceFile(os.path.basename(found.path), found.subset, found.path, blob, beside=beside))
            used |= {found.path, found.labels}
    return tuple(files), [] if storage.is_file(path) else [each for each in _arrays(path) if each not in used]


def _class_files(path: str) -> tuple[SourceFile, ...]:
    """Returns the files of a folder as those of one class each, if they have rows of square images and nothing else."""
    paths = [] if storage.is_file(path) else _arrays(path)
    headers = [_header(array) for array in paths]
    widths = {header.shape[1] if len(header.shape) == 2 else 0 for header in headers}
    width = widths.pop() if len(widths) == 1 else 0
    is_square = math.isqrt(width) ** 2 == width >= MIN_SIDE**2
    if len(paths) < 2 or not is_square or any(header.dtype.name != "uint8" for header in headers):
        return ()
    names = [decode_name(_stem(array).removeprefix(BITMAPS)) for array in paths]
    return tuple(
        SourceFile(name, SUBSET, array, storage.whole_file(array), label=label, id_prefix=f"{name}_")
        for label, (name, array) in enumerate(zip(names, paths, strict=True))
    )


def _as_images(header: Npy) -> Npy:
    """Returns the header of N rows of square images as that of N x H x W."""
    side = math.isqrt(header.shape[1])
    return replace(header, shape=(header.shape[0], side, side))


def _header(path: str) -> Npy:
    return blob_header(storage.whole_file(path), path)


def _fits(images: Npy, labels: Npy) -> bool:
    """Returns whether an array under any name is one of images; N x H x W may be something else."""
    many = len(images.shape) == 4 or images.shape[:1] == labels.shape[:1]
    return many and images.dtype.name == "uint8" and image_shape(images) is not None


def _labels(file: SourceFile, rows: int) -> ArrayLabels:
    """Returns the labels as stored, all -1 if there are none."""
    if not file.beside:
        return ArrayLabels(array("q", [UNLABELLED]) * rows, 0)
    return array_labels(file.beside[0], file.beside[0].path, rows)


def _notices(
    path: str, files: Sequence[SourceFile], found: Mapping[str, ArrayLabels], unread: Sequence[str]
) -> Iterator[str]:
    """Yields what is guessed, missing or left out."""
    if all(labels.names is None for labels in found.values()):
        yield f"{path}: {SUFFIX} files have no class names; classes are named by number"
    told = {file.beside[0].path: found[file.shown].told for file in files if file.beside}
    yield from (f"{shown}: {what}" for shown, what in told.items() if what)
    labelled = [file for file in files if file.beside]
    for labels in dict.fromkeys(file.beside[0].path for file in labelled):
        sharing = [file.name for file in labelled if file.beside[0].path == labels]
        if len(sharing) > 1:
            yield f"{labels}: has the labels of {len(sharing)} files of images, {sharing[0]} to {sharing[-1]}"
    for file in files:
        if not file.beside:
            yield f"{file.shown}: no labels found; expected a file such as {LABELS}{SUFFIX} beside it"
    if unread:
        names = ", ".join(map(os.path.basename, unread[:8]))
        yield f"{path}: arrays not read: {names[:200]}{f' and {len(unread) - 8} more' if len(unread) > 8 else ''}"
