"""NumPy `.npz` source: our files of one subset each, and those of Keras (`x_train`) and MedMNIST (`train_images`).

Reference: `numpy.savez` (a zip of `.npy` files), Keras' `mnist.npz`, and https://github.com/MedMNIST/MedMNIST.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.limits import MAX_PIXELS
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.npy import (
    SUFFIX,
    Npy,
    Window,
    ZippedArray,
    find_array,
    integers,
    list_arrays,
    read_array,
    read_header,
    read_labels,
    refuse_many_rows,
    refuse_unknown,
    texts,
)
from beam_cifar.formats.kit.records import FileRecords, RecordSource, checked_labels
from beam_cifar.formats.kit.roots import sorted_files
from beam_cifar.naming.components import decode_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


IMAGES = "images"
MAX_CLASSES = 100_000
MAX_NAME = 1 << 16
# NumPy stores text in cells of one width, four bytes per character.
MAX_NAMES_BYTES = 64 << 20
# Arrow's `string` type has 32-bit offsets.
MAX_IDS_BYTES = 2**31 - 1
_EXPECTED = "'images' and 'labels', or 'x_train' and 'y_train', or 'train_images' and 'train_labels'"


class NpzSource(RecordSource):
    """Reads a `.npz` file, or a directory of them."""

    name = "npz"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether the first `.npz` file has an array of images under a known name."""
        files = _npz_files(path)
        return bool(files and _layout(files[0], list_arrays(files[0])))

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Finds the arrays of each subset; unpacks compressed ones to `index_dir`."""
        with storage.reading(path):
            files = _npz_files(path)
        if not files:
            raise InputError(f"{path}: no {SUFFIX} files found")
        found = [each for file in files for each in _subsets_of(file, index_dir)]
        taken: dict[str, str] = {}
        for subset in found:
            other = taken.setdefault(subset.file.subset, subset.file.shown)
            if other != subset.file.shown:
                raise InputError(
                    f"{subset.file.shown}: subset {subset.file.subset!r} is already in {other}; pass one file as input"
                )
        sources = tuple(subset.file for subset in found)
        return Catalog(self.name, "NumPy arrays", path, _common_table(found), sources)

    def records(self, file: SourceFile, labels: LabelTable) -> FileRecords:
        header, window = _images(file)
        numbers, bad = checked_labels(file, _label_values(file, header.shape[0]), len(labels.names))
        ids = _ids(file, header.shape[0]) if file.beside[1].size else None
        return FileRecords(file, window.channels, numbers, window.read, window.size, None, ids, bad)


@dataclass(frozen=True)
class _Subset:
    """One subset of a file.

    Attributes:
        file: its images; `beside` has labels, ids and id offsets, each an empty blob if missing.
        table: its label table; None if the file has no class names.
        classes: number of classes according to the labels, if the file has no class names.
    """

    file: SourceFile
    table: LabelTable | None
    classes: int


def _npz_files(path: str) -> list[str]:
    """Returns the file itself, or the `.npz` files of a directory in natural order."""
    if storage.is_file(path):
        return [path] if path.lower().endswith(SUFFIX) else []
    return [entry.path for entry in sorted_files(path, lambda name: name.lower().endswith(SUFFIX))]


def _layout(path: str, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Returns the array names (images, labels) of each subset."""
    if IMAGES in names:
        return {decode_name(os.path.basename(path)[: -len(SUFFIX)]): (IMAGES, "labels")}
    found = {}
    for name in sorted(names):
        if match := re.fullmatch(r"x_(.+)", name, re.DOTALL):
            found[match[1]] = name, f"y_{match[1]}"
        elif match := re.fullmatch(r"(.+)_images", name, re.DOTALL):
            found[match[1]] = name, f"{match[1]}_labels"
    # The conventional order; the alphabet would put test before train.
    order = {name: at for at, name in enumerate(("train", "val", "test"))}
    return {subset: found[subset] for subset in sorted(found, key=lambda name: order.get(name, len(order)))}


def _subsets_of(path: str, index_dir: str) -> Iterator[_Subset]:
    """Yields the subsets of a file. Raises `InputError` if it has no images."""
    members = list_arrays(path)
    layout = _layout(path, members)
    if not layout:
        refuse_unknown(path, members, _EXPECTED)
    table = _own_table(path, members, index_dir)
    for subset, (images, labels) in layout.items():
        blob = find_array(path, members[images], index_dir, checked=False)
        nothing = storage.Blob(blob.path, 0, 0, blob.stamp)
        beside = tuple(
            find_array(path, members[name], index_dir) if name in members else nothing
            for name in ((labels, "ids", "ids_offsets") if images == IMAGES else (labels,))
        )
        shown = path if images == IMAGES else f"{path}:{images}"
        file = SourceFile(subset, subset, shown, blob, beside=(*beside, nothing, nothing)[:3])
        found, _ = _images(file)
        refuse_many_rows(found.shape[0], storage.stamp(path)[0], shown)
        values = _label_values(file, found.shape[0]) if table is None else ()
        yield _Subset(file, table, max(values, default=-1) + 1)


def _own_table(path: str, members: Mapping[str, ZippedArray], index_dir: str) -> LabelTable | None:
    """Returns the label table of a file, None if it has no class names."""
    if "label_names" not in members:
        return None

    def read(name: str) -> tuple[Npy, bytes]:
        return read_array(find_array(path, members[name], index_dir), f"{path}:{name}.npy", MAX_NAMES_BYTES)

    names = tuple(texts(*read("label_names")))
    coarse = tuple(texts(*read("coarse_names"))) if "coarse_names" in members else ()
    if not coarse:
        return LabelTable(names)
    parents = integers(*read("parents")) if "parents" in members else array("q", [-1] * len(names))
    if len(parents) != len(names) or not all(-1 <= parent < len(coarse) for parent in parents):
        raise InputError(
            f"{path}: 'parents' must have {len(names)} values from -1 to {len(coarse) - 1}, one for each class"
        )
    return LabelTable(names, coarse, tuple(None if parent < 0 else parent for parent in parents))


def _common_table(found: Sequence[_Subset]) -> LabelTable:
    """Returns the label table that all files share; classes are named by number if no file has names."""
    first = found[0]
    for subset in found:
        if subset.table != first.table:
            raise InputError(f"{subset.file.shown}: classes differ from {first.file.shown}; convert one at a time")
    if first.table is not None:
        return first.table
    count = max(subset.classes for subset in found)
    if count > MAX_CLASSES:
        where = max(found, key=lambda subset: subset.classes).file.shown
        raise InputError(f"{where}: has label {count - 1}; at most {MAX_CLASSES} classes are supported")
    return LabelTable(tuple(map(str, range(count))))


def _images(file: SourceFile) -> tuple[Npy, Window]:
    """Returns the header of a subset's images, and a window on their pixels."""
    with storage.open_blob(file.blob, file.shown) as stream:
        header = read_header(stream, file.blob.size, file.shown)
    expected = "uint8 N x H x W x 3, N x H x W x 1 or N x H x W"
    if header.dtype.kind == "f":
        expected += " (convert floats from 0 to 1 with (255 * x).round().astype('uint8'))"
    shape = header.shape
    if header.dtype.name != "uint8" or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        header.refuse(expected)
    if header.fortran:
        header.refuse("C order (convert it with numpy.ascontiguousarray)")
    rows, height, width = shape[:3]
    if rows and not (height and width and height * width <= MAX_PIXELS):
        header.refuse(f"images of 1 to {MAX_PIXELS} pixels")
    return header, Window(file.shown, header.start, (height, width), shape[3] if len(shape) == 4 else 1)


def _label_values(file: SourceFile, rows: int) -> array[int]:
    """Returns the labels as stored, all -1 if there are none."""
    blob = file.beside[0]
    if not blob.size:
        return array("q", [UNLABELLED]) * rows
    expected = f"one integer for each of {rows} images (convert one-hot rows with numpy.argmax)"
    return read_labels(blob, f"{file.shown}: labels", rows, expected, expected)


def _ids(file: SourceFile, rows: int) -> pa.Array:
    """Returns the ids, string `[N]`."""
    import pyarrow as pa

    shown = f"{file.shown}: ids"
    header, data = read_array(file.beside[1], shown, min(MAX_IDS_BYTES, MAX_NAME * max(1, rows)))
    if header.dtype.kind in "SU":
        ids = pa.array(texts(header, data), pa.string())
    elif header.dtype.name != "uint8" or len(header.shape) != 1:
        header.refuse("text, or UTF-8 as uint8 with 'ids_offsets'")
    else:
        ids = _cut_texts(data, _offsets(file, rows), shown)
    if len(ids) != rows:
        header.refuse(f"one id for each of {rows} images")
    return ids


def _offsets(file: SourceFile, rows: int) -> npt.NDArray[np.int64]:
    import numpy as np

    shown = f"{file.shown}: ids_offsets"
    if not file.beside[2].size:
        raise InputError(f"{shown}: is missing; expected the start of each id in 'ids'")
    header, data = read_array(file.beside[2], shown, 8 * (rows + 1))
    if header.shape != (rows + 1,):
        header.refuse(f"{rows + 1} integers")
    return np.frombuffer(integers(header, data), np.int64)


def _cut_texts(data: bytes, offsets: npt.NDArray[np.int64], shown: str) -> pa.Array:
    """Splits concatenated UTF-8 texts at the offsets."""
    import numpy as np
    import pyarrow as pa

    if offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
        raise InputError(f"{shown}: 'ids_offsets' must increase from 0 to {len(data)}, the size of 'ids' in bytes")
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    found = pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)
    try:
        found.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(f"{shown}: is not valid UTF-8") from error
    return found
