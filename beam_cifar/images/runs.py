"""Runs of neighbouring rows whose images have the same encoding, size and channels, or that have no image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.data.arrays import UInt8Array
from beam_cifar.data.schema import binary_array, joined_images, with_columns
from beam_cifar.images.decode import decode_image
from beam_cifar.images.encodings import RAW

RUN_BYTES = 16 << 20
"""Bytes of decoded pixels in memory at a time."""


def alike_runs(table: pa.Table, row_bytes: int = 0) -> Iterator[range]:
    """Yields the positions of each run, at most `RUN_BYTES` of pixels together.

    `row_bytes` is the size of each output image, if that may be larger than the input.
    """
    height, width, channels = (table.column(name).fill_null(0).to_numpy() for name in ("height", "width", "channels"))
    codes = table.column("encoding").combine_chunks().dictionary_encode().indices.to_numpy()
    changes = np.logical_or.reduce([column[1:] != column[:-1] for column in (height, width, channels, codes)])
    for start, stop in pairwise([0, *(np.flatnonzero(changes) + 1).tolist(), len(table)]):
        if start < stop:
            step = max(1, RUN_BYTES // max(1, 3 * int(height[start]) * int(width[start]), row_bytes))
            yield from (range(at, min(at + step, stop)) for at in range(start, stop, step))


def raw_pixels(run: pa.Table) -> npt.NDArray[np.uint8]:
    """Returns the raw images of a run: uint8 `[N, C, H, W]`, a view of Arrow's buffer."""
    shape = [run.column(name)[0].as_py() for name in ("channels", "height", "width")]
    return np.frombuffer(joined_images(run), dtype=np.uint8).reshape(len(run), *shape)


def map_runs(table: pa.Table, function: Callable[[pa.Table], pa.Table], row_bytes: int = 0) -> pa.Table:
    """Applies a function that keeps the number of rows to each run of `alike_runs`, except rows without an image."""
    runs = (table.slice(run.start, len(run)) for run in alike_runs(table, row_bytes))
    pieces = [function(run) if run.column("height")[0].is_valid else run for run in runs]
    return pa.concat_tables(pieces) if pieces else table


def pixels_of(run: pa.Table) -> UInt8Array:
    """Returns the images of a run as uint8 `[N, C, H, W]`; a view of Arrow's buffer if they are raw.

    Raises:
        InputError: an image is damaged, or cannot be decoded without loss.
    """
    if run.column("encoding")[0].as_py() == RAW:
        return raw_pixels(run)
    names = (run.column(name).to_pylist() for name in ("subset", "id"))
    decoded = [
        decode_image(memoryview(image.as_buffer()), f"{subset}: image {item_id!r}")
        for image, subset, item_id in zip(run.column("image").combine_chunks(), *names, strict=True)
    ]
    return np.stack(decoded)


def with_pixels(run: pa.Table, pixels: UInt8Array) -> pa.Table:
    """Returns the same rows with other images, raw, from uint8 `[N, C, H, W]`."""
    count, *shape = pixels.shape
    offsets = np.arange(count + 1, dtype=np.int64) * pixels[:1].nbytes
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"a run has {offsets[-1]} bytes of pixels; at most 2 GiB are supported")
    images = binary_array(np.ascontiguousarray(pixels).reshape(-1).data, offsets.astype(np.int32))
    sizes = zip(("channels", "height", "width"), shape, strict=True)
    return with_columns(run, image=images, encoding=RAW, **dict(sizes))
