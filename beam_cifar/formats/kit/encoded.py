"""Reads rows for formats where one file contains many images, each as an encoded PNG or JPEG file."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.data.block import MAX_ROWS
from beam_cifar.data.labels import UNLABELLED
from beam_cifar.errors import RowError
from beam_cifar.formats.contract.source import Runs, StoredImage
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.kit.rows import ColumnRows, column, prefixed, probed, row_numbers, size_rows, unique_ids
from beam_cifar.images.header import ImageHeader
from beam_cifar.naming.image_files import digests

MAX_IMAGE_BYTES = 512 << 20
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
