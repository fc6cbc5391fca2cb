"""Downsampled ImageNet: all of ImageNet at 8 to 64 pixels, in files laid out like CIFAR's (Chrabaszcz et al. 2017).

Reference: https://arxiv.org/abs/1707.08819, https://image-net.org/download-images.php and the authors'
https://github.com/PatrykChrabaszcz/Imagenet32_Scripts: `train_data_batch_1` to `_10` and `val_data` hold `data` uint8
N x 3*S*S, planar, `labels` 1 to 1000, and in the training files `mean`. There is no meta file; the scripts come with
`map_clsloc.txt`, a line `<wnid> <number> <name>` for each class. The same arrays are also offered as `.npz` files.
"""

from __future__ import annotations

import functools
import os
import re
from array import array
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.limits import MAX_PIXELS
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.source import Runs
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.npy import (
    SUFFIX,
    Npy,
    Window,
    blob_header,
    find_array,
    list_arrays,
    read_labels,
    refuse_many_rows,
    refuse_unknown,
)
from beam_cifar.formats.kit.records import FileRecords, ReadPixels, RecordSource, checked_labels
from beam_cifar.formats.kit.roots import archive_files, folder_files
from beam_cifar.naming.ids import natural_key
from beam_cifar.pickles.recognise import read_batch
from beam_cifar.pickles.rows import Images
from beam_cifar.storage import archives

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NAMES = "map_clsloc.txt"
CLASSES = 1000
_NUMBERS = tuple(f"{number:04d}" for number in range(1, CLASSES + 1))
"""Names for classes without one; zero-padded, so that readers that sort names keep the order."""
MAX_NAMES_BYTES = 1 << 20
_BATCH = re.compile(r"(train_data_batch_\d+|val_data)(\.npz)?")
_META_FILES = ("batches.meta", "meta")

_Found: TypeAlias = "tuple[ReadPixels, tuple[int, int], array[int], str]"
"""A function that reads images, their size, the labels as stored, and a digest of the rest of the file."""


class DownsampledImagenetSource(RecordSource):
    """Reads pickles and `.npz` files in a directory or its `Imagenet*` folders; pickles also in an archive."""

    name = "downsampled_imagenet"
    reads_tar = True

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether there is a file with a known name, and none of CIFAR's meta files."""
        if not (storage.is_folder(path) or archives.is_archive(path)):
            return False
        names = {entry.name for entry in _found(path, index_dir)}
        return any(map(_BATCH.fullmatch, names)) and names.isdisjoint(_META_FILES)

    def describe(self, path: str, index_dir: str) -> Catalog:
        with storage.reading(path):
            found = _found(path, index_dir)
        batches: dict[str, SourceFile] = {}
        for entry in sorted(found, key=lambda entry: natural_key(entry.name)):
            if match := _BATCH.fullmatch(entry.name):
                other = batches.get(match[1])
                if other is not None:
                    raise InputError(f"{entry.shown}: {other.shown} has the same rows; move one of the two files away")
                batches[match[1]] = _batch(entry, match[1], index_dir)
        if not batches:
            raise InputError(f"{path}: no files found; expected 'train_data_batch_1' or 'val_data'")
        names = [entry for entry in found if entry.name == NAMES]
        table = LabelTable(_class_names(names[0]) if names else _NUMBERS)
        meta_files = tuple(replace(entry, subset="") for entry in names[:1])
        return Catalog(self.name, "Downsampled ImageNet", path, table, tuple(batches.values()), meta_files)

    def records(self, file: SourceFile, labels: LabelTable) -> FileRecords:
        read, size, values, digest = _array_file(file) if file.beside else _pickle_file(file)
        numbers, bad = checked_labels(file, values, len(labels.names), first=1)
        return FileRecords(file, 3, numbers, read, size, bad_rows=bad, further_digest=digest)


def _found(path: str, index_dir: str) -> list[SourceFile]:
    """Returns the files with known names in a directory, its `Imagenet*` folders, or an archive."""
    if archives.is_archive(path):
        found = list(archive_files(path, index_dir, _is_known).values())
    else:
        # Other folders are skipped: listing them would take long if they have a million images.
        inner = [each for each in storage.folders_in(path) if os.path.basename(each).lower().startswith("imagenet")]
        found = [folder_files(folder, _is_known) for folder in (path, *inner)]
    return [file for files in found for file in files.values()]


def _is_known(name: str) -> bool:
    return name in (NAMES, *_META_FILES) or _BATCH.fullmatch(name) is not None


def _batch(entry: SourceFile, name: str, index_dir: str) -> SourceFile:
    """Returns a batch as a source file; for `.npz`, the array of images with the labels in `beside`."""
    if not entry.name.endswith(SUFFIX):
        return SourceFile(name, name, entry.shown, entry.blob)
    if entry.shown != entry.blob.path:
        raise InputError(f"{entry.shown}: cannot read {SUFFIX} files in an archive; unpack it and read the directory")
    members = list_arrays(entry.shown)
    if not {"data", "labels"} <= members.keys():
        refuse_unknown(entry.shown, members, "'data' and 'labels'")
    data = find_array(entry.shown, members["data"], index_dir, checked=False)
    labels = find_array(entry.shown, members["labels"], index_dir)
    file = SourceFile(name, name, entry.shown, data, beside=(labels,))
    refuse_many_rows(_array_header(file).shape[0], entry.blob.size, entry.shown)
    return file


def _class_names(entry: SourceFile) -> tuple[str, ...]:
    """Returns the class names in order of their numbers; a name shared by several classes gets the synset id added."""
    if entry.blob.size > MAX_NAMES_BYTES:
        raise InputError(f"{entry.shown}: is {entry.blob.size} bytes; at most {MAX_NAMES_BYTES} are supported")
    with storage.open_blob(entry.blob, entry.shown) as stream:
        try:
            lines = stream.read().decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{entry.shown}: is not valid UTF-8") from error
    found: dict[int, tuple[str, str]] = {}
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"(\S+)\s+([0-9]{1,6})\s+(\S.*?)\s*", line)
        if match and int(match[2]) not in found:
            found[int(match[2])] = match[1], match[3]
        elif line.strip():
            raise InputError(f"{entry.shown}: line {number}: found {line[:80]!r}; expected <wnid> <number> <name>")
    if set(found) != set(range(1, len(found) + 1)):
        raise InputError(f"{entry.shown}: class numbers must be 1 to {len(found)}, each exactly once")
    count = Counter(name for _, name in found.values())
    ordered = (found[number] for number in sorted(found))
    return tuple(name if count[name] == 1 else f"{name}_{wnid}" for wnid, name in ordered)


def _pickle_file(file: SourceFile) -> _Found:
    with storage.open_blob(file.blob, file.shown) as stream:
        batch = read_batch(stream, file.shown, file.blob.stamp[0])
    if batch.kind != "cifar10":
        raise InputError(f"{file.shown}: has no 'labels'; expected the labels of a Downsampled ImageNet batch")
    images = batch.images
    if images is None or images.size is None or images.missing:
        raise InputError(f"{file.shown}: 'data' is missing or of mixed sizes; expected a uint8 array of N x 3*S*S")
    wrong = next((row for row, label in enumerate(batch.labels) if not isinstance(label, int)), None)
    if wrong is not None:
        raise InputError(f"{file.shown}: row {wrong}: label is {batch.labels[wrong]!r:.80}; expected a number")
    # An array, because a million Python integers take 36 MB.
    return functools.partial(_read_pickled, images), images.size, array("q", batch.labels), batch.structure_sha256  # type: ignore[arg-type]


def _read_pickled(images: Images, stream: BinaryIO, runs: Runs) -> npt.NDArray[np.uint8]:
    import numpy as np

    return np.frombuffer(images.gather(stream, runs)[0], np.uint8)


def _array_header(file: SourceFile) -> Npy:
    header = blob_header(file.blob, f"{file.shown}:data")
    if len(header.shape) != 2:
        header.refuse("uint8 N x 3*S*S in C order")
    return header


def _array_file(file: SourceFile) -> _Found:
    header = _array_header(file)
    side = round((header.shape[1] / 3) ** 0.5)
    if header.dtype.name != "uint8" or header.fortran or not side or 3 * side * side != header.shape[1]:
        header.refuse("uint8 N x 3*S*S in C order")
    if side * side > MAX_PIXELS:
        header.refuse(f"images of at most {MAX_PIXELS} pixels")
    rows = header.shape[0]
    labels = read_labels(file.beside[0], f"{file.shown}:labels", rows)
    window = Window(file.shown, header.start, (side, side), 3, planar=True)
    return window.read, window.size, labels, ""
