"""Runs of neighbouring rows whose images are alike: in encoding, size and channels, or in having none."""

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
"""Decoded pixels held at a time."""


def alike_runs(table: pa.Table, row_bytes: int = 0) -> Iterator[range]:
    """Yields the positions of alike neighbours, no more together than `RUN_BYTES` of pixels.

    `row_bytes` is what will be made of each image, where that is more than there is.
    """
    height, width, channels = (table.column(name).fill_null(0).to_numpy() for name in ("height", "width", "channels"))
    codes = table.column("encoding").combine_chunks().dictionary_encode().indices.to_numpy()
    changes = np.logical_or.reduce([column[1:] != column[:-1] for column in (height, width, channels, codes)])
    for start, stop in pairwise([0, *(np.flatnonzero(changes) + 1).tolist(), len(table)]):
        if start < stop:
            step = max(1, RUN_BYTES // max(1, 3 * int(height[start]) * int(width[start]), row_bytes))
            yield from (range(at, min(at + step, stop)) for at in range(start, stop, step))


def raw_pixels(run: pa.Table) -> npt.NDArray[np.uint8]:
    """The images of alike rows, which are raw: uint8 `[N, C, H, W]`, a view on Arrow's buffer."""
    shape = [run.column(name)[0].as_py() for name in ("channels", "height", "width")]
    return np.frombuffer(joined_images(run), dtype=np.uint8).reshape(len(run), *shape)


def map_runs(table: pa.Table, function: Callable[[pa.Table], pa.Table], row_bytes: int = 0) -> pa.Table:
    """Applies a function, from rows to as many rows, to the runs of `alike_runs`; rows without image stay."""
    runs = (table.slice(run.start, len(run)) for run in alike_runs(table, row_bytes))
    pieces = [function(run) if run.column("height")[0].is_valid else run for run in runs]
    return pa.concat_tables(pieces) if pieces else table


def pixels_of(run: pa.Table) -> UInt8Array:
    """The images of alike rows as uint8 `[N, C, H, W]`; a view on Arrow's buffer where they are raw.

    Raises:
        InputError: an image is damaged, or cannot be read without loss.
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
    """The same rows with other images, uint8 `[N, C, H, W]`, raw."""
    count, *shape = pixels.shape
    offsets = np.arange(count + 1, dtype=np.int64) * pixels[:1].nbytes
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"{offsets[-1]} bytes of pixels in one run")
    images = binary_array(np.ascontiguousarray(pixels).reshape(-1).data, offsets.astype(np.int32))
    sizes = zip(("channels", "height", "width"), shape, strict=True)
    return with_columns(run, image=images, encoding=RAW, **dict(sizes))
