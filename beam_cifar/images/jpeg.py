"""Encodes blocks of images as JPEG files with Pillow: no chroma subsampling, standard tables, no metadata."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image

from beam_cifar.data.arrays import Offsets, UInt8Array, narrow, refuse_other_than_images
from beam_cifar.data.limits import MAX_SIDE

# Pillow and Datumaro default to 75, which loses too much detail in small images.
QUALITY: Final = 95


def encode_jpeg(pixels: UInt8Array, *, quality: int = QUALITY) -> tuple[bytearray, Offsets]:
    """Encodes each image of a block as a baseline JPEG file.

    The output is deterministic for a given version of Pillow and its JPEG library.

    Args:
        pixels: uint8 [N, C, H, W], planes; C is 1 (gray) or 3 (R, G, B).
        quality: 1 to 100 on the IJG library's scale; at 95 differences are invisible.

    Returns:
        All files one after another, and their offsets, as `encode_png` does.

    Raises:
        ValueError: invalid pixels, a side longer than `MAX_SIDE`, or a quality outside 1 to 100.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; expected 1 to 100")
    refuse_other_than_images(pixels, "JPEG", MAX_SIDE)
    file = io.BytesIO()
    offsets = np.zeros(len(pixels) + 1, np.int64)
    for number, image in enumerate(pixels, 1):
        picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
        picture.save(file, "JPEG", quality=quality, subsampling=0)
        offsets[number] = file.tell()
    return bytearray(file.getbuffer()), narrow(offsets)
