"""NumPy `.npz` source: our files of one subset each, those of Keras (`x_train`), MedMNIST (`train_images`) and KMNIST.

Reference: `numpy.savez` (a zip of `.npy` files), Keras' `mnist.npz`, https://github.com/MedMNIST/MedMNIST, and
https://github.com/rois-codh/kmnist, where images and labels are files with one array each, named `arr_0`.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.text import counted
from beam_cifar.errors import ConflictError, InputError
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.array_labels import ArrayLabels, array_labels, common_labels, numbers_in, without_rows
from beam_cifar.formats.kit.array_names import IMAGES, images_by_split, labels_by_split, role_of, short_splits
from beam_cifar.formats.kit.npy import (
    SUFFIX,
    Npy,
    Window,
    ZippedArray,
    blob_header,
    find_array,
    image_shape,
    image_window,
    integers,
    list_arrays,
    read_array,
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


MAX_NAME = 1 << 16
# NumPy stores text in cells of one width, four bytes per character.
MAX_NAMES_BYTES = 64 << 20
# Arrow's `string` type has 32-bit offsets.
MAX_IDS_BYTES = 2**31 - 1
_OWN_NAMES = re.compile(r"images|x_.+|.+_images", re.DOTALL)
"""Names of images in our own files, Keras' and MedMNIST's, whatever the shape: an error then says what is wrong."""
_EXTRA = ("ids", "ids_offsets", "label_names", "coarse_names", "parents")
_EXPECTED = (
    "'images' and 'labels', or 'x_train' and 'y_train', or 'train_images' and 'train_labels', or "
    "one array in each of two files such as train-images.npz and train-labels.npz"
)


class NpzSource(RecordSource):
    """Reads a `.npz` file, or a directory of them."""

    name = "npz"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether the first `.npz` file, apart from files of labels, has an array of images."""
        for file in _npz_files(path):
            members, role = list_arrays(file), role_of(_stem(file))
            if _layout(file, members):
                return True
            if role is None or role.kind == IMAGES or len(members) != 1:
                return role is not None and len(members) == 1 and _shaped(next(iter(members.values())))
        return False

    def may_lose(self, name: str) -> bool:
        """Returns whether it is a `.npz` file whose name is not one of labels alone."""
        role = role_of(_stem(name))
        return name.lower().endswith(SUFFIX) and (role is None or role.kind == IMAGES)

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Finds the arrays of each subset; unpacks compressed ones to `index_dir`."""
        with storage.reading(path):
            files = _npz_files(path)
        if not files:
            raise InputError(f"{path}: no {SUFFIX} files found")
        found = list(_subsets(files, index_dir))
        taken: dict[str, str] = {}
        for subset in found:
            other = taken.setdefault(subset.file.subset, subset.file.shown)
            if other != subset.file.shown:
                raise ConflictError(
                    f"{subset.file.shown}: subset {subset.file.subset!r} is already in {other}; pass one file as input"
                )
        sources = tuple(subset.file for subset in found)
        notices = tuple(subset.notice for subset in found if subset.notice)
        return Catalog(self.name, "NumPy arrays", path, _common_table(found), sources, notices=notices)

    def records(self, file: SourceFile, labels: LabelTable) -> FileRecords:
        header, window = _images(file)
        numbers, bad = checked_labels(
            file, numbers_in(_labels(file, header.shape[0]), labels, file.shown), len(labels.names)
        )
        ids = _ids(file, header.shape[0]) if file.beside[1].size else None
        return FileRecords(file, window.channels, numbers, window.read, window.size, None, ids, bad)


_Place: TypeAlias = "tuple[str, ZippedArray]"
"""An `.npz` file and one of its arrays."""


@dataclass(frozen=True)
class _Arrays:
    """Where the arrays of one subset are.

    Attributes:
        subset: its name.
        shown: display name of its images, used in messages.
        images: its images.
        beside: labels, ids and id offsets, each None if missing.
        told: what is guessed or not read in its file, for the first subset of it.
    """

    subset: str
    shown: str
    images: _Place
    beside: tuple[_Place | None, _Place | None, _Place | None]
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Subset:
    """One subset.

    Attributes:
        file: its images; `beside` has labels, ids and id offsets, each an empty blob if missing.
        table: its label table; None if the file has no class names.
        labels: its labels without those of the rows, if the file has no class names.
        notice: what is missing or not read, for the user; "" if there is nothing to say.
    """

    file: SourceFile
    table: LabelTable | None
    labels: ArrayLabels
    notice: str


def _npz_files(path: str) -> list[str]:
    """Returns the file itself, or the `.npz` files of a directory in natural order."""
    if storage.is_file(path):
        return [path] if path.lower().endswith(SUFFIX) else []
    return [entry.path for entry in sorted_files(path, lambda name: name.lower().endswith(SUFFIX))]


def _stem(path: str) -> str:
    return os.path.basename(path)[: -len(SUFFIX)]


def _layout(path: str, members: Mapping[str, ZippedArray]) -> dict[str, tuple[str, str]]:
    """Returns the array names (images, labels) of each subset, labels "" if there are none.

    Names decide, and where they say nothing the only array of images and the only one with an integer for each.
    """
    known = [name for name in members if _OWN_NAMES.fullmatch(name) or _shaped(members[name])]
    images = images_by_split(known)
    if "" in images:
        images = {"": images[""]}
    if images:
        labels = labels_by_split(members, images)
        return {split or decode_name(_stem(path)): (name, labels[split]) for split, name in images.items()}
    pixels = {name: found.header for name, found in members.items() if _shaped(found, "u") and found.header}
    if len(pixels) == 1:
        rows = next(iter(pixels.values())).shape[0]
        numbers = [name for name in members if _one_each(members[name], rows)]
        if len(numbers) == 1:
            return {decode_name(_stem(path)): (next(iter(pixels)), numbers[0])}
    return {}


def _shaped(member: ZippedArray, kinds: str = "uif") -> bool:
    """Returns whether an array has the shape of images; an array under a usual name that has not is something else."""
    header = member.header
    return header is not None and header.dtype.kind in kinds and image_shape(header) is not None


def _one_each(member: ZippedArray, rows: int) -> bool:
    header = member.header
    return header is not None and header.dtype.kind in "iu" and header.shape in ((rows,), (rows, 1))


def _subsets(files: Sequence[str], index_dir: str) -> Iterator[_Subset]:
    """Yields all subsets: those of each file, and those of pairs of files with one array. Raises `InputError`."""
    members = {path: list_arrays(path) for path in files}
    pairs = _pairs(members)
    splits = {path: role.split if (role := role_of(_stem(path))) else "" for path in pairs}
    names = short_splits(splits.values())
    for path, arrays in members.items():
        if path in pairs:
            images, *labels = ((file, next(iter(members[file].values()))) for file in (path, pairs[path]) if file)
            name = decode_name(names[splits[path]] or _stem(path))
            yield _subset(_Arrays(name, path, images, (labels[0] if labels else None, None, None)), None, index_dir)
        elif path not in pairs.values():
            layout = _layout(path, arrays)
            if not layout:
                refuse_unknown(path, arrays, _EXPECTED)
            table = _own_table(path, arrays, index_dir)
            for found in _arrays_of(path, arrays, layout):
                yield _subset(found, table, index_dir)


def _pairs(members: Mapping[str, Mapping[str, ZippedArray]]) -> dict[str, str]:
    """Returns file of images -> file of labels, for files with one array, whose own names say what it is.

    Images without a file of labels are included, with "", if the array itself has no usual name.
    """
    single = {_stem(path): path for path, arrays in members.items() if len(arrays) == 1}
    images = images_by_split(single)
    labels = labels_by_split(single, images)
    found = {single[name]: single.get(labels[split], "") for split, name in images.items()}
    return {path: other for path, other in found.items() if other or not _layout(path, members[path])}


def _arrays_of(
    path: str, members: Mapping[str, ZippedArray], layout: Mapping[str, tuple[str, str]]
) -> Iterator[_Arrays]:
    """Yields the arrays of each subset of a file."""
    used = {*_EXTRA, *(name for names in layout.values() for name in names)}
    unread = ", ".join(sorted(members.keys() - used)[:8])[:200]
    told = (f"arrays not read: {unread}",) if unread else ()
    if not any(map(role_of, used - {*_EXTRA, ""})):
        told = (f"no array has a usual name; images and labels found by shape: {', '.join(*layout.values())}", *told)
    for subset, names in layout.items():
        own = names[0] == IMAGES
        places = [(path, members[name]) if name in members else None for name in (*names, "ids", "ids_offsets")]
        labels, ids, offsets = places[1], places[2] if own else None, places[3] if own else None
        shown = path if own else f"{path}:{names[0]}"
        yield _Arrays(subset, shown, (path, members[names[0]]), (labels, ids, offsets), told)
        told = ()


def _subset(arrays: _Arrays, table: LabelTable | None, index_dir: str) -> _Subset:
    """Returns a subset; unpacks its compressed arrays to `index_dir`. Raises `InputError`."""
    path, member = arrays.images
    blob = find_array(path, member, index_dir, checked=False)
    nothing = storage.Blob(blob.path, 0, 0, blob.stamp)
    beside = tuple(find_array(*place, index_dir) if place else nothing for place in arrays.beside)
    file = SourceFile(arrays.subset, arrays.subset, arrays.shown, blob, beside=beside)
    found, _ = _images(file)
    refuse_many_rows(found.shape[0], storage.stamp(path)[0], arrays.shown)
    labels = without_rows(_labels(file, found.shape[0])) if table is None else ArrayLabels(array("q"), 0)
    told = list(filter(None, ("" if arrays.beside[0] else "no labels found", labels.told, *arrays.told)))
    return _Subset(file, table, labels, f"{arrays.shown}: {'; '.join(told)}" if told else "")


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
            f"{path}: 'parents' must have {counted(len(names), 'value')} from -1 to {len(coarse) - 1}, one for each "
            "class"
        )
    return LabelTable(names, coarse, tuple(None if parent < 0 else parent for parent in parents))


def _common_table(found: Sequence[_Subset]) -> LabelTable:
    """Returns the label table that all files share; without names of classes they are those of the labels."""
    first = found[0]
    for subset in found:
        if subset.table != first.table:
            raise ConflictError(f"{subset.file.shown}: classes differ from {first.file.shown}; convert one at a time")
    if first.table is not None:
        return first.table
    return common_labels({subset.file.shown: subset.labels for subset in found})


def _images(file: SourceFile) -> tuple[Npy, Window]:
    """Returns the header of a subset's images, and a window on their pixels."""
    header = blob_header(file.blob, file.shown)
    return header, image_window(header, file.shown)


def _labels(file: SourceFile, rows: int) -> ArrayLabels:
    """Returns the labels as stored, all -1 if there are none."""
    if not file.beside[0].size:
        return ArrayLabels(array("q", [UNLABELLED]) * rows, 0)
    return array_labels(file.beside[0], f"{file.shown}: labels", rows)


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
        header.refuse(f"one id for each of {counted(rows, 'image')}")
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
