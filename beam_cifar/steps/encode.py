"""Encodes the images of a block for the writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa

from beam_cifar.data.arrays import Offsets, UInt8Array
from beam_cifar.data.block import Block
from beam_cifar.data.schema import binary_array, with_columns
from beam_cifar.images.encodings import GRAY, RAW
from beam_cifar.images.gray import to_gray
from beam_cifar.images.jpeg import encode_jpeg
from beam_cifar.images.png import encode_png
from beam_cifar.images.remarks import map_images
from beam_cifar.images.runs import pixels_of, with_pixels

_ENCODERS: dict[str, Callable[[UInt8Array], tuple[bytearray, Offsets]]] = {"png": encode_png, "jpeg": encode_jpeg}


def encode_images(block: Block, *, encodings: tuple[str, ...]) -> Block:
    """Encodes the images of a block; images already in an accepted encoding pass through byte for byte.

    Args:
        block: images in any encoding; rows without an image stay unchanged.
        encodings: the accepted ones: "raw" (three channels), "gray" (raw, one channel), "png" or "jpeg"; other images
            are converted to the first.

    Raises:
        InputError: an encoded image is damaged, or cannot be decoded without loss.
    """
    found = block.table.column("encoding").unique().to_pylist()
    if set(found) <= set(encodings) and RAW not in found:
        return block
    return map_images(block, lambda run: _encoded(run, encodings))


def drop_images(block: Block) -> Block:
    """Returns the same examples without images, for a writer of labels alone."""
    table = block.table
    nothing = {name: pa.nulls(len(table), table.field(name).type) for name in ("image", "height", "width", "channels")}
    return replace(block, table=with_columns(table, **nothing))


def _encoded(run: pa.Table, encodings: tuple[str, ...]) -> pa.Table:
    found, target = run.column("encoding")[0].as_py(), encodings[0]
    channels = run.column("channels")[0].as_py()
    if (found in encodings and (found != RAW or channels == 3)) or (found, target, channels) == (RAW, GRAY, 1):
        return run
    pixels = pixels_of(run)
    if target == GRAY:
        return with_pixels(run, to_gray(pixels))
    if target == RAW:
        return with_pixels(run, np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:])))
    buffer, offsets = _ENCODERS[target](pixels)
    return with_columns(run, image=binary_array(buffer, np.asarray(offsets, dtype=np.int32)), encoding=target)
