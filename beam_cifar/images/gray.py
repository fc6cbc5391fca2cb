"""Converts RGB images to gray exactly as Pillow does."""

from __future__ import annotations

import numpy as np

from beam_cifar.data.arrays import UInt8Array, are_images


def to_gray(pixels: UInt8Array) -> UInt8Array:
    """Converts images to gray: the luma of ITU-R BT.601, bit for bit equal to Pillow's `convert("L")` of RGB.

    The weights are 0.299, 0.587 and 0.114 in units of 1/65536, rounding half up (Pillow, `Convert.c`, `L24`).

    Args:
        pixels: uint8 `[N, 3, H, W]`, planes of red, green and blue; or uint8 `[N, 1, H, W]`, returned unchanged.

    Returns:
        uint8 `[N, 1, H, W]`. Raises `ValueError` for any other array.
    """
    if not are_images(pixels):
        raise ValueError(f"pixels are {pixels.dtype} {list(pixels.shape)}; expected uint8 [N, 3, H, W] or [N, 1, H, W]")
    if pixels.shape[1] == 1:
        return pixels
    luma = np.full(pixels[:, 0].shape, 0x8000, dtype=np.uint32)
    for channel, weight in enumerate((19595, 38470, 7471)):
        luma += pixels[:, channel] * np.uint32(weight)
    luma >>= 16
    return luma.astype(np.uint8)[:, None]
