"""SVHN (Street View House Numbers), format 2: cropped digits in MATLAB files, one for each subset.

Reference: http://ufldl.stanford.edu/housenumbers/. `X` is uint8 H x W x 3 x N, `y` N x 1: the digits 1 to 9, and 10 for
the digit 0. MATLAB's first side is the fastest in memory, so an image is three planes that are stored by columns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.limits import MAX_PIXELS
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import Catalog, SourceFile
from beam_cifar.formats.kit.matlab import unpack_matrices
from beam_cifar.formats.kit.npy import Npy, Window, blob_header, read_labels, refuse_many_rows
from beam_cifar.formats.kit.records import FileRecords, RecordSource, checked_labels
from beam_cifar.formats.kit.roots import folder_files

DIGITS: Final = 10
FILES: Final = {f"{subset}_32x32.mat": subset for subset in ("train", "test", "extra")}
_FULL: Final = "test.tar.gz, train.tar.gz and extra.tar.gz, the whole photographs, are not read"


class SvhnSource(RecordSource):
    """Reads a directory with SVHN's `.mat` files, or one of them."""

    name = "svhn"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether there is a file with one of the names; `describe` reports damaged ones."""
        return bool(_files(path))

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Finds the arrays of each subset; unpacks them to `index_dir`."""
        with storage.reading(path):
            found = _files(path)
        if not found:
            raise InputError(f"{path}: no files such as {next(iter(FILES))} found; {_FULL}")
        files = tuple(_source_file(file, index_dir) for file in found)
        return Catalog(self.name, "SVHN", path, LabelTable(tuple(map(str, range(DIGITS)))), files)

    def records(self, file: SourceFile, labels: LabelTable) -> FileRecords:
        import numpy as np

        header, window = _images(file)
        values = read_labels(file.beside[0], f"{file.shown}:y", header.shape[0])
        numbers, bad = checked_labels(file, values, DIGITS, first=1)
        numbers = np.where(numbers < 0, numbers, (numbers + 1) % DIGITS).astype(np.int32)
        return FileRecords(file, window.channels, numbers, window.read, window.size, bad_rows=bad)


def _files(path: str) -> list[SourceFile]:
    """Returns the files, in the order of `FILES`."""
    if storage.is_file(path):
        name = storage.name_of(path)
        return [SourceFile(name, FILES[name], path, storage.whole_file(path))] if name in FILES else []
    if not storage.is_folder(path):
        return []
    found = folder_files(path, FILES.__contains__)
    return [replace(found[name], subset=subset) for name, subset in FILES.items() if name in found]


def _source_file(file: SourceFile, index_dir: str) -> SourceFile:
    arrays = unpack_matrices(file.shown, index_dir, ("X", "y"))
    for name in ("X", "y"):
        if name not in arrays:
            raise InputError(f"{file.shown}: has no array {name!r}; expected X (images) and y (labels)")
    made = replace(file, blob=arrays["X"], beside=(arrays["y"],))
    rows = _images(made)[0].shape[0]
    refuse_many_rows(rows, file.blob.size, file.shown)
    read_labels(arrays["y"], f"{file.shown}:y", rows)
    return made


def _images(file: SourceFile) -> tuple[Npy, Window]:
    """Returns the header of the images, whose shape is N x 3 x W x H, and a window on their pixels."""
    header = blob_header(file.blob, f"{file.shown}:X")
    shape = header.shape if len(header.shape) != 3 else (1, *header.shape)  # MATLAB drops a last side of 1
    if header.dtype.name != "uint8" or len(shape) != 4 or shape[1] not in (1, 3):
        header.refuse("uint8 H x W x 3 x N, which is N x 3 x W x H in the order of memory")
    size = shape[3], shape[2]
    if shape[0] and not (min(size) and size[0] * size[1] <= MAX_PIXELS):
        header.refuse(f"images of 1 to {MAX_PIXELS} pixels")
    return replace(header, shape=shape), Window(file.shown, header.start, size, shape[1], columns=True)
