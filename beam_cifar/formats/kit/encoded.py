"""Reads rows for formats where one file contains many images, each as an encoded PNG or JPEG file."""

from __future__ import annotations

import hashlib
import io
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar import storage
from beam_cifar.data.block import MAX_ROWS
from beam_cifar.data.labels import UNLABELLED
from beam_cifar.errors import RowError
from beam_cifar.formats.contract.source import Runs, StoredImage
from beam_cifar.formats.contract.types import FileSummary, SourceFile
from beam_cifar.formats.kit.rows import ColumnRows, column, prefixed, probed, row_numbers, size_rows, unique_ids
from beam_cifar.images.header import ImageHeader, header_or_error
from beam_cifar.naming.image_files import digests

MAX_IMAGE_BYTES = 512 << 20
WHOLE_BYTES = 1 << 16
"""An image of at most so many bytes is read whole for its header."""
UNKNOWN = 0
"""Marks the size of an image whose header has not been read yet."""


class EncodedRows(ColumnRows):
    """Rows whose images are encoded files inside one file.

    Args:
        file: the file that contains them.
        names: table of `id` and `filename`, string, from `with_unique_ids`.
        labels: int64 `[N]`, -1 for unlabelled.
        bad: error message of each bad row, by row number.
    """

    def __init__(
        self, file: SourceFile, names: pa.Table, labels: npt.NDArray[np.int64], bad: Mapping[int, str]
    ) -> None:
        numbers = labels.copy()
        numbers[list(bad)] = UNLABELLED
        rows = {row: file.bad_row(row, why) for row, why in bad.items()}
        super().__init__(file, array("q", numbers.tobytes()), rows)
        ids, self.repeated = unique_ids(names)
        self._ids = prefixed(file.id_prefix, ids)
        self._filenames = column(names, "filename")
        # Height, width and channels, filled in as headers are read; shared by all copies of the cached rows.
        self._looked_at = np.full((3, len(names)), UNKNOWN, np.int32)

    @abstractmethod
    def _images(self, runs: Runs) -> pa.Array:
        """Returns the encoded images of some rows: `binary`, null where there is no image."""

    @abstractmethod
    def _headers(self, start: int, stop: int) -> Iterable[ImageHeader | RowError | None]:
        """Returns the image headers of rows [start, stop), in order; an error for an image without a valid one."""

    def _sizes(self, runs: Runs, *, look: bool) -> npt.NDArray[np.int32]:
        for start, stop in runs if look else ():
            for at in range(start, stop, MAX_ROWS):
                end = min(at + MAX_ROWS, stop)
                if (self._looked_at[0, at:end] == UNKNOWN).any():
                    self._looked_at[:, at:end] = size_rows(
                        self._noted(self._headers(at, end), range(at, end)), self.file
                    )
        return np.concatenate(
            [self._looked_at[:, :0], *(self._looked_at[:, start:stop] for start, stop in runs)], axis=1
        )

    def _read(self, runs: Runs) -> tuple[pa.Array, Sequence[str], npt.NDArray[np.int32]]:
        images, rows = self._images(runs), row_numbers(runs)
        images, encodings, sizes = probed(images, lambda place: self._shown(rows[place]), self.file)
        self._looked_at[:, rows] = sizes
        return images, encodings, sizes

    def stored(self, row: int) -> StoredImage:
        return StoredImage(data=self._images([(row, row + 1)])[0].as_py())

    def _shown(self, row: int) -> str:
        return f"{self.file.shown}: row {row}"


class PlacedRows(EncodedRows):
    """Rows whose images are at known places in the file, which are read one by one.

    Args:
        file: the file that contains them.
        names: as for `EncodedRows`.
        labels: as for `EncodedRows`.
        bad: as for `EncodedRows`.
        offsets: int64 `[N]`, offset of each image in the file, -1 for none.
        sizes: int64 `[N]`, size of each image in bytes.
    """

    def __init__(
        self,
        file: SourceFile,
        names: pa.Table,
        labels: npt.NDArray[np.int64],
        bad: Mapping[int, str],
        offsets: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
    ) -> None:
        super().__init__(file, names, labels, bad)
        self._offsets, self._lengths = offsets, sizes

    def summary(self, *, sizes: bool) -> FileSummary:
        facts = pa.record_batch(
            [self._ids, self._filenames, pa.array(self.labels, pa.int64()), pa.array(self._lengths)],
            ["id", "filename", "label", "size"],
        )
        images = int((self._offsets >= 0).sum())
        digest = hashlib.sha256(facts.serialize()).hexdigest()
        found = self._sizes([(0, self.rows)], look=True) if sizes else None
        return self._summary(images, int(self._lengths.sum()), digest, found, parents=self._parents())

    def stored(self, row: int) -> StoredImage:
        data = self._image(row)
        return StoredImage(None if data is None else int(self._offsets[row]), data)

    def _parents(self) -> dict[int, tuple[int, int]]:
        """Returns class -> (superclass, row that it was found in)."""
        return {}

    def _images(self, runs: Runs) -> pa.Array:
        return pa.array([self._image(row) for row in row_numbers(runs).tolist()], pa.binary())

    def _image(self, row: int) -> bytes | None:
        """Returns the bytes of an image, None for none. Raises `RowError` if it is too large."""
        offset, size = int(self._offsets[row]), int(self._lengths[row])
        if offset < 0:
            return None
        if size > MAX_IMAGE_BYTES:
            raise RowError(f"{self._shown(row)}: image is {size} bytes; at most {MAX_IMAGE_BYTES} are supported")
        return self._bytes_at(offset, size)

    def _bytes_at(self, offset: int, size: int) -> bytes:
        """Returns the bytes of an image."""
        stream = self._stream()
        stream.seek(offset)
        return stream.read(size)

    def _headers(self, start: int, stop: int) -> Iterable[ImageHeader | RowError | None]:
        for row in range(start, stop):
            offset, size = int(self._offsets[row]), int(self._lengths[row])
            if offset < 0:
                yield None
            elif size <= WHOLE_BYTES:
                yield header_or_error(self._image(row) or b"", self._shown(row))
            else:
                window: Any = storage.SubFile(self._stream(), offset, size)
                yield self._header(io.BufferedReader(window), row)

    def _header(self, stream: io.BufferedReader, row: int) -> ImageHeader | RowError:
        """Returns the header of an image that is too large to be read whole, or why it has no valid one."""
        return header_or_error(stream, self._shown(row))

    def _stored_bytes(self, start: int, stop: int) -> int:
        return int(self._lengths[start:stop].max(initial=0))


def with_prefixes(
    files: Sequence[SourceFile], ids_of: Callable[[SourceFile], pa.ChunkedArray]
) -> tuple[SourceFile, ...]:
    """Returns the files, with the file name as id prefix in subsets where two files share an id."""
    repeating = set()
    for subset in dict.fromkeys(file.subset for file in files):
        members = [file for file in files if file.subset == subset]
        chunks = (ids_of(file).chunks for file in members if len(members) > 1)
        keys = [np.unique(digests(text for chunk in each for text in chunk.to_pylist())) for each in chunks]
        # Digests take less memory than texts; a collision only adds a prefix that is not needed.
        if len(np.unique(np.concatenate([np.empty(0, np.uint64), *keys]))) < sum(map(len, keys)):
            repeating.add(subset)
    return tuple(
        replace(file, id_prefix=file.name.rpartition("/")[2].rpartition(".")[0] + "/")
        if file.subset in repeating
        else file
        for file in files
    )
