"""What transforms of images share: runs of alike images, as arrays and back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.example import binary_array, with_columns
from beam_cifar.images.decode import decode_image
from beam_cifar.images.files import RAW

UInt8Array = npt.NDArray[np.uint8]

# Decoded pixels held at a time.
RUN_BYTES = 16 << 20


def map_runs(table: pa.Table, function: Callable[[pa.Table], pa.Table], row_bytes: int = 0) -> pa.Table:
    """Applies a function to runs of rows whose images are alike: in encoding, size and channels, or in having none.

    Args:
        table: of examples.
        function: from rows to as many rows.
        row_bytes: bytes of pixels that it makes of each image, if they are more than there are.
    """
    pieces = [function(run) if run.column("height")[0].is_valid else run for run in _runs(table, row_bytes)]
    return pa.concat_tables(pieces) if pieces else table


def pixels_of(run: pa.Table) -> UInt8Array:
    """The images of alike rows as uint8 `[N, C, H, W]`; a view on Arrow's buffer where they are raw.

    Raises:
        InputError: an image is damaged, or cannot be read without loss.
    """
    images = run.column("image").combine_chunks()
    shape = [run.column(name)[0].as_py() for name in ("channels", "height", "width")]
    if run.column("encoding")[0].as_py() == RAW:
        offsets = np.frombuffer(images.buffers()[1], dtype=np.int32)[images.offset : images.offset + len(images) + 1]
        values = np.frombuffer(images.buffers()[2], dtype=np.uint8)[offsets[0] : offsets[-1]]
        return values.reshape(len(images), *shape)
    names = (run.column(name).to_pylist() for name in ("subset", "id"))
    decoded = [
        decode_image(memoryview(image.as_buffer()), f"{subset}: image {item_id!r}")
        for image, subset, item_id in zip(images, *names, strict=True)
    ]
    return np.stack(decoded)


def with_pixels(run: pa.Table, pixels: UInt8Array) -> pa.Table:
    """The same rows with other images, uint8 `[N, C, H, W]`, raw."""
    count, *shape = pixels.shape
    offsets = np.arange(count + 1, dtype=np.int64) * pixels[:1].nbytes
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"{offsets[-1]} bytes of pixels in one run")
    images = binary_array(np.ascontiguousarray(pixels).reshape(-1).data, offsets.astype(np.int32))
    sizes = zip(("channels", "height", "width"), shape, strict=True)
    return with_columns(run, image=images, encoding=RAW, **dict(sizes))


def _runs(table: pa.Table, row_bytes: int) -> Iterator[pa.Table]:
    for run in _alike(table):
        nbytes = 3 * (run.column("height")[0].as_py() or 0) * (run.column("width")[0].as_py() or 0)
        step = max(1, RUN_BYTES // max(1, nbytes, row_bytes))
        for start in range(0, len(run), step):
            yield run.slice(start, step)


def _alike(table: pa.Table) -> Iterator[pa.Table]:
    columns = [table.column(name).fill_null(0).to_numpy() for name in ("height", "width", "channels")]
    columns.append(table.column("encoding").combine_chunks().dictionary_encode().indices.to_numpy())
    changes = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(table)]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            yield table.slice(start, stop - start)
