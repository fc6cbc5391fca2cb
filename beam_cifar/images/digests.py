"""Digests of images: equal for equal pixels, in any encoding."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from beam_cifar.data.arrays import UInt8Array
from beam_cifar.errors import InputError
from beam_cifar.images.decode import decode_image
from beam_cifar.images.encodings import RAW
from beam_cifar.images.runs import alike_runs, raw_pixels


def pixel_digests(pixels: UInt8Array) -> list[bytes]:
    """Returns the digest of each image of uint8 `[N, C, H, W]`; a gray image gets that of the equal RGB image."""
    start = hashlib.blake2b(struct.pack("<II", *pixels.shape[2:]), digest_size=16)
    planes = 3 // pixels.shape[1]
    step = pixels[:1].nbytes
    view = np.ascontiguousarray(pixels).reshape(-1).data
    made = []
    for at in range(0, len(view), step):
        state = start.copy()
        for _ in range(planes):
            state.update(view[at : at + step])
        made.append(state.digest())
    return made


def pixel_runs(
    table: pa.Table, names: Sequence[str], damaged: Callable[[int, InputError], None]
) -> Iterator[tuple[Sequence[int], UInt8Array]]:
    """Yields the images of a table as pixels, in runs of equal size: (their positions, uint8 `[N, C, H, W]`).

    `names` are the ids, used in messages; `damaged` is called with the position of an image that cannot be decoded and
    the error.
    """
    for run in alike_runs(table):
        part = table.slice(run.start, len(run))
        shape = tuple(part.column(name)[0].as_py() for name in ("channels", "height", "width"))
        if shape[0] is None:
            continue
        if part.column("encoding")[0].as_py() == RAW:
            yield run, raw_pixels(part)
            continue
        decoded = {}
        for at, image in zip(run, part.column("image").combine_chunks(), strict=True):
            try:
                decoded[at] = _decoded(memoryview(image.as_buffer()), names[at], shape)
            except InputError as error:
                damaged(at, error)
        if decoded:
            yield list(decoded), np.stack(list(decoded.values()))


def _decoded(content: memoryview, name: str, shape: tuple[int, ...]) -> UInt8Array:
    pixels = decode_image(content, f"image {name!r}")
    if pixels.shape != shape:
        found, expected = (" x ".join(map(str, sides)) for sides in (pixels.shape, shape))
        raise InputError(f"image {name!r}: size is {found} (channels, height, width); the dataset says {expected}")
    return pixels
