"""Rows shared by all readers: everything except the images is in memory."""

from __future__ import annotations

import copy
import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable, parent_conflict
from beam_cifar.data.schema import facts_table, image_array, with_images
from beam_cifar.errors import RowError
from beam_cifar.formats.contract.source import RowReader, Runs
from beam_cifar.formats.contract.types import FileSummary, SourceFile
from beam_cifar.images.conform import as_read, conformed
from beam_cifar.images.decode import probe_whole_image
from beam_cifar.images.header import ImageHeader
from beam_cifar.images.options import AS_STORED
from beam_cifar.images.plain_pngs import plain_png_sizes
from beam_cifar.naming.ids import unique_texts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

NO_IMAGE = -1
"""Marks the size of a missing image."""
BROKEN = -2
"""Marks the size of an image without a valid header."""


class ColumnRows(RowReader):
    """Rows whose names, labels and sizes are columns; a format supplies them, and reads images.

    Attributes:
        repeated: number of ids that had to be made unique.
    """

    repeated: int = 0
    in_one_file: ClassVar[bool] = True
    """Whether images are in the file itself, which stays open while they are read."""
    opened_late: ClassVar[bool] = False
    """Whether the file is opened only for the first image."""
    _stream: Callable[[], BinaryIO]
    _ids: pa.Array
    _filenames: pa.Array

    @contextmanager
    def opened(self) -> Iterator[RowReader]:
        with ExitStack() as stack:
            made = copy.copy(self)  # cached rows are shared by threads, an open file is not
            if self.in_one_file:
                file = self.file
                made._stream = functools.cache(lambda: stack.enter_context(storage.open_blob(file.blob, file.shown)))
                if not self.opened_late:
                    made._stream()
            yield made

    def facts(self, start: int, stop: int, *, sizes: bool = True) -> pa.Table:
        runs = [(start, stop)]
        return self._facts(runs, self._sizes(runs, look=sizes))

    def examples(self, runs: Runs) -> pa.Table:
        images, encodings, sizes = self._read(runs)
        return with_images(self._facts(runs, sizes), images, encodings)

    def row_bytes(self, start: int, stop: int, *, decoded: bool) -> int:
        if not decoded:
            return self._stored_bytes(start, stop)
        height, width, _ = self._sizes([(start, stop)], look=True).clip(0).astype("int64")
        return int((3 * height * width).max(initial=0))

    def _stored_bytes(self, start: int, stop: int) -> int:
        """Returns the bytes of the largest image in rows [start, stop) as stored in a block; default: as raw pixels."""
        return int(self._sizes([(start, stop)], look=False).astype("int64").prod(axis=0).max(initial=0))

    def _names(self, runs: Runs) -> tuple[pa.Array, pa.Array]:
        """Returns ids and file names of some rows: string `[N]` each."""
        return picked(self._ids, runs), picked(self._filenames, runs)

    @abstractmethod
    def _sizes(self, runs: Runs, *, look: bool) -> npt.NDArray[np.int32]:
        """Returns heights, widths and channels of some rows: int32 `[3, N]`, 0 or less where there is no image.

        Args:
            runs: runs of rows.
            look: whether to read image headers if needed.
        """

    @abstractmethod
    def _read(self, runs: Runs) -> tuple[pa.Array, str | Sequence[str], npt.NDArray[np.int32]]:
        """Returns images of some rows, `binary`, one encoding or a sequence of them, and sizes as `_sizes` does."""

    def _noted(
        self, headers: Iterable[ImageHeader | RowError | None], rows: Iterable[int]
    ) -> Iterator[ImageHeader | RowError | None]:
        """Passes on the headers of some rows; adds rows without a valid one to `unreadable`."""
        for row, header in zip(rows, headers, strict=True):
            if isinstance(header, RowError):
                self.unreadable[row] = self.file.bad_row(row, str(header), self.labels[row])
            yield header

    def _facts(self, runs: Runs, sizes: npt.NDArray[np.int32]) -> pa.Table:
        import numpy as np

        ids, filenames = self._names(runs)
        labels = [np.asarray(self.labels[start:stop], dtype=np.int64) for start, stop in runs]
        return facts_table(
            ids=ids,
            subset=self.file.subset,
            sizes=sizes,
            labels=np.concatenate([np.empty(0, np.int64), *labels]),
            filenames=filenames,
        )

    def _summary(
        self, images: int, image_bytes: int, digest: str, sizes: npt.NDArray[np.int32] | None, **more: Any
    ) -> FileSummary:
        """Returns a summary, with the fields that all formats compute the same way.

        Args:
            images: number of rows with an image.
            image_bytes: total bytes of images as stored in blocks.
            digest: digest of everything except pixels.
            sizes: sizes of all images, as from `_sizes`, if known.
            more: further fields of the summary.
        """
        if sizes is not None:
            sizes = sizes[:, sizes[0] != BROKEN]
            height, width, _ = sizes.clip(0).astype("int64")
            same = len(height) and (sizes[:2] == sizes[:2, :1]).all() and height[0] > 0
            more["pixel_bytes"] = int((3 * height * width).sum())
            more["size"] = (int(height[0]), int(width[0])) if same else None
        made = {"pixel_bytes": 0, "size": None, "duplicates": self.repeated, **more}
        return FileSummary(
            file=self.file, rows=self.rows, chunks=(), images=images, image_bytes=image_bytes, digest=digest, **made
        )


def even_sizes(size: tuple[int, int], channels: int, runs: Runs) -> npt.NDArray[np.int32]:
    """Returns heights, widths and channels of rows with images of one size: int32 `[3, N]`."""
    import numpy as np

    one = np.array([*size, channels], dtype=np.int32)
    return np.broadcast_to(one[:, None], (3, sum(stop - start for start, stop in runs)))


def raw_images(pixels: bytes | memoryview, sizes: npt.NDArray[np.int32]) -> pa.Array:
    """Returns a `binary` array of images from concatenated pixels, null where there is no image.

    Args:
        pixels: pixels of all images.
        sizes: heights, widths and channels, int32 `[3, N]`, 0 where there is no image.
    """
    return image_array(pixels, sizes.astype("int64").prod(axis=0))


def size_rows(headers: Iterable[ImageHeader | RowError | None], file: SourceFile) -> npt.NDArray[np.int32]:
    """Returns heights, widths and channels as images are read: int32 `[3, N]`, `NO_IMAGE` or `BROKEN` for no valid one.

    Args:
        headers: headers of the images, None where there is none, or why one cannot be read.
        file: the file that they are in.
    """
    import numpy as np

    rows = [_size(header, file) for header in headers]
    return np.ascontiguousarray(np.array(rows, dtype=np.int32).reshape(-1, 3).T)


def _size(header: ImageHeader | RowError | None, file: SourceFile) -> tuple[int, int, int]:
    if isinstance(header, RowError) or header is None:
        return (NO_IMAGE if header is None else BROKEN,) * 3
    found = as_read(header, file.images)
    return found.height, found.width, found.channels


def probed(
    images: pa.Array, name_of: Callable[[int], str], file: SourceFile
) -> tuple[pa.Array, list[str], npt.NDArray[np.int32]]:
    """Returns images as they are read, encodings, "raw" for no image, and sizes; refuses images that are cut off.

    Args:
        images: `binary` array `[N]`, null where there is no image.
        name_of: returns the display name of an image, for messages.
        file: the file that they are in.

    Raises:
        InputError: an image is damaged.
    """
    import numpy as np
    import pyarrow as pa

    plain = file.images == AS_STORED
    sizes = plain_png_sizes(images) if plain else np.zeros((3, len(images)), np.int32)
    encodings = ["png"] * len(images)
    others = np.flatnonzero(sizes[0] == 0)
    chosen = (images if len(others) == len(images) else images.take(pa.array(others))).to_pylist()
    headers = [
        None if image is None else probe_whole_image(image, name_of(row))
        for row, image in zip(others.tolist(), chosen, strict=True)
    ]
    if not plain:
        made = [
            (image, header) if header is None else conformed(image, header, name_of(row), file.images, file.passing)
            for row, (image, header) in enumerate(zip(chosen, headers, strict=True))
        ]
        headers = [header for _, header in made]
        images = pa.array([image for image, _ in made], images.type)
    sizes[:, others] = size_rows(headers, file)
    for row, header in zip(others.tolist(), headers, strict=True):
        encodings[row] = header.encoding if header else "raw"
    return images, encodings, sizes


def parents_of(file: SourceFile, table: LabelTable, said: Iterable[tuple[int, int, int]]) -> dict[int, tuple[int, int]]:
    """Returns class -> (superclass, row that it was found in).

    Args:
        file: the file, for messages.
        table: the label table.
        said: class, superclass and row; each pair of class and superclass once.

    Raises:
        InputError: two rows give a class different superclasses.
    """
    parents: dict[int, tuple[int, int]] = {}
    for label, parent, row in said:
        if label in parents:
            other, first = parents[label]
            where = f"{file.shown} row {first}", f"{file.shown} row {row}"
            raise parent_conflict(table, label, (where[0], other), (where[1], parent))
        parents[label] = parent, row
    return parents


def row_numbers(runs: Runs) -> npt.NDArray[np.int64]:
    """Returns the row numbers in some runs: int64 `[N]`."""
    import numpy as np

    return np.concatenate([np.empty(0, np.int64), *(np.arange(start, stop) for start, stop in runs)])


def picked(column: pa.Array, runs: Runs) -> pa.Array:
    """Returns the values of some rows; a single run is not copied."""
    if len(runs) == 1:
        return column.slice(runs[0][0], runs[0][1] - runs[0][0])
    import pyarrow as pa

    return column.take(pa.array(row_numbers(runs)))


def column(table: pa.Table, name: str) -> pa.Array:
    """Returns a column of a table as one array, without a copy if it is one chunk, as in a stored table."""
    found = table.column(name)
    return found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()


def with_unique_ids(table: pa.Table) -> pa.Table:
    """Returns a table of rows with `unique_id` after `id` if ids repeat, for an index: finding that takes a while."""
    ids, repeated = unique_texts(column(table, "id"))
    return table.append_column("unique_id", ids) if repeated else table


def prefixed(prefix: str, texts: pa.Array) -> pa.Array:
    """Returns texts with a prefix, null for null."""
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(prefix, texts, "") if prefix else texts


def unique_ids(table: pa.Table) -> tuple[pa.Array, int]:
    """Returns the unique ids in a table from `with_unique_ids`, and how many differ from those found."""
    if "unique_id" not in table.column_names:
        return column(table, "id"), 0
    import pyarrow.compute as pc

    ids = column(table, "unique_id")
    return ids, pc.sum(pc.not_equal(ids, column(table, "id"))).as_py()


def found_in(wanted: pa.Array, texts: pa.Array) -> npt.NDArray[np.int64]:
    """Returns the first index of each wanted text: int64 `[M]`, -1 if it is missing."""
    import numpy as np
    import pyarrow.compute as pc

    found = pc.index_in(wanted, value_set=texts)
    return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False)).astype(np.int64)
