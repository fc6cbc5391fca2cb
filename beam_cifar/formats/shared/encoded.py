"""What formats share in which one file holds many images, each as a PNG or JPEG file: how their rows are read."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from beam_cifar.block import MAX_ROWS, BadRow
from beam_cifar.example import FACTS, label_array, with_images
from beam_cifar.formats.base import FileSummary, RowReader, SourceFile
from beam_cifar.images.decode import probe_whole_image
from beam_cifar.labels import UNLABELLED

if TYPE_CHECKING:
    from beam_cifar.images.header import ImageHeader

MAX_IMAGE_BYTES = 512 << 20
UNKNOWN, NO_IMAGE = 0, -1
"""What stands for the size of an image that nobody looked at yet, and for that of no image."""


@dataclass(frozen=True)
class RowColumns:
    """What is known of the rows of one file without its images, kept as long as tasks read from it.

    Attributes:
        ids: string `[N]`, unique.
        filenames: string `[N]`.
        labels: int64 `[N]`, -1 for unlabelled, and for bad rows.
        bad_rows: by their number.
        repeated: ids that had to be made unique.
        sizes: int32 `[3, N]`, height, width and channels, filled in as images are looked at.
    """

    ids: pa.Array
    filenames: pa.Array
    labels: npt.NDArray[np.int64]
    bad_rows: Mapping[int, BadRow]
    repeated: int
    sizes: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


class EncodedRows(RowReader):
    """Rows whose images are files within one file.

    Args:
        file: that holds them.
        columns: what is known of them.
    """

    def __init__(self, file: SourceFile, columns: RowColumns) -> None:
        self._file, self._columns = file, columns
        self._labels = array("q", columns.labels.tobytes())

    @abstractmethod
    def _images(self, rows: Sequence[int]) -> pa.Array:
        """The files of some rows, rising: `binary`, null where there is no image."""

    @abstractmethod
    def _headers(self, start: int, stop: int) -> Iterable[ImageHeader | None]:
        """Looks into the images of the rows [start, stop), in order."""

    @property
    def rows(self) -> int:
        """See `RowReader.rows`."""
        return len(self._columns)

    @property
    def labels(self) -> Sequence[int]:
        """See `RowReader.labels`."""
        return self._labels

    @property
    def bad_rows(self) -> Mapping[int, BadRow]:
        """See `RowReader.bad_rows`."""
        return self._columns.bad_rows

    def facts(self, start: int, stop: int, *, sizes: bool = True) -> pa.Table:
        """See `RowReader.facts`."""
        if sizes:
            self._look(start, stop)
        columns = self._columns
        ids, filenames = (column.slice(start, stop - start) for column in (columns.ids, columns.filenames))
        return self._facts(ids, filenames, columns.labels[start:stop], columns.sizes[:, start:stop])

    def table(self, start: int, stop: int) -> pa.Table:
        """See `RowReader.table`."""
        return self.take([row for row in range(start, stop) if row not in self.bad_rows])

    def take(self, rows: Sequence[int]) -> pa.Table:
        """See `RowReader.take`."""
        images = self._images(rows)
        headers = [
            None if image is None else probe_whole_image(image, self._shown(row))
            for row, image in zip(rows, images.to_pylist(), strict=True)
        ]
        places = np.asarray(rows, dtype=np.int64)
        columns, taken = self._columns, pa.array(places)
        columns.sizes[:, places] = _sizes(headers)
        facts = self._facts(
            columns.ids.take(taken), columns.filenames.take(taken), columns.labels[places], columns.sizes[:, places]
        )
        return with_images(facts, images, [header.encoding if header else "raw" for header in headers])

    def row_bytes(self, start: int, stop: int, *, decoded: bool) -> int:
        """See `RowReader.row_bytes`."""
        if not decoded:
            return self._stored_bytes(start, stop)
        self._look(start, stop)
        return int(max(_pixel_bytes(self._columns.sizes[:, start:stop]), default=0))

    @abstractmethod
    def _stored_bytes(self, start: int, stop: int) -> int:
        """Bytes of the largest file of the rows [start, stop)."""

    def _summary(self, images: int, image_bytes: int, digest: str, *, sizes: bool) -> FileSummary:
        """What the plan needs to know of them, single rows left out.

        Args:
            images: rows that have one.
            image_bytes: of all of them.
            digest: of everything but pixels.
            sizes: whether to look into every image.
        """
        columns = self._columns
        if sizes:
            self._look(0, self.rows)
        same = sizes and images == self.rows > 0 and (columns.sizes[:2] == columns.sizes[:2, :1]).all()
        return FileSummary(
            file=self._file,
            rows=self.rows,
            chunks=(),
            images=images,
            image_bytes=image_bytes,
            pixel_bytes=int(_pixel_bytes(columns.sizes).sum()) if sizes else 0,
            size=(int(columns.sizes[0, 0]), int(columns.sizes[1, 0])) if same else None,
            duplicates=columns.repeated,
            digest=digest,
        )

    def _shown(self, row: int) -> str:
        return f"{self._file.shown}: row {row}"

    def _look(self, start: int, stop: int) -> None:
        """Fills in the sizes of the rows [start, stop)."""
        sizes = self._columns.sizes
        for at in range(start, stop, MAX_ROWS):
            end = min(at + MAX_ROWS, stop)
            if (sizes[0, at:end] == UNKNOWN).any():
                sizes[:, at:end] = _sizes(list(self._headers(at, end)))

    def _facts(
        self, ids: pa.Array, filenames: pa.Array, labels: npt.NDArray[np.int64], sizes: npt.NDArray[np.int32]
    ) -> pa.Table:
        height, width, channels = (pa.array(numbers, mask=numbers <= 0) for numbers in sizes)
        columns = {
            "id": ids,
            "subset": pa.repeat(pa.scalar(self._file.subset, pa.string()), len(ids)),
            "height": height,
            "width": width,
            "channels": channels,
            "label": label_array(labels),
            "filename": filenames,
        }
        return pa.Table.from_arrays([columns[name] for name in FACTS.names], schema=FACTS)


def row_columns(
    file: SourceFile, ids: pa.Array, filenames: pa.Array, labels: npt.NDArray[np.int64], bad_rows: Mapping[int, str]
) -> RowColumns:
    """Gathers the columns of a file, and makes its ids unique.

    Args:
        file: that they are of.
        ids: string `[N]`.
        filenames: string `[N]`.
        labels: int64 `[N]`, -1 for unlabelled.
        bad_rows: what is wrong with some rows.
    """
    from beam_cifar.formats.shared.ids import unique_ids

    repeated = 0
    if file.id_prefix:
        ids = pc.binary_join_element_wise(pa.scalar(file.id_prefix), ids, "")
    if pc.count_distinct(ids, mode="all").as_py() != len(ids):
        made, repeated = unique_ids(ids.to_pylist())
        ids = pa.array(made, pa.string())
    labels = labels.copy()
    labels[list(bad_rows)] = UNLABELLED
    bad = {row: BadRow(file.shown, row, file.subset, "read", why) for row, why in bad_rows.items()}
    return RowColumns(ids, filenames, labels, bad, repeated, np.full((3, len(ids)), UNKNOWN, np.int32))


def _sizes(headers: Sequence[ImageHeader | None]) -> npt.NDArray[np.int32]:
    """int32 `[3, N]`."""
    rows = [(h.height, h.width, h.channels) if h else (NO_IMAGE,) * 3 for h in headers]
    return np.ascontiguousarray(np.array(rows, dtype=np.int32).reshape(-1, 3).T)


def _pixel_bytes(sizes: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Bytes of images as three channels of pixels: int64 `[N]`."""
    height, width = np.maximum(sizes[:2], 0).astype(np.int64)
    return np.asarray(3 * height * width)
