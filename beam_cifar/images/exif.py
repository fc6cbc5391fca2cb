"""EXIF orientation: which way up an image is shown, and its pixels turned that way.

Format facts are from Exif 3.0 (CIPA DC-008), section 4.6 (tag 0x0112 of the first directory), and TIFF 6.0, section 2.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from beam_cifar.data.arrays import UInt8Array

EXIF_START: Final = b"Exif\0\0"
XMP_START: Final = b"http://ns.adobe.com/xap/1.0/\0"

_ORIENTATION: Final = 0x0112
_ORDERS: Final = {b"II": "<", b"MM": ">"}
_KINDS: Final = {1: "B", 3: "H", 4: "I"}
_XMP: Final = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
# Orientation -> whether rows and columns are swapped, then rows reversed, then columns reversed.
_TURNS: Final = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def exif_orientation(data: bytes) -> int | None:
    """Returns the orientation, 1 to 8, in EXIF data (a TIFF header and its first directory); None if it has none.

    Damaged data has none, and an unknown value is 1: EXIF describes an image, and never makes it unreadable.
    """
    order = _ORDERS.get(data[:2], "")
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(f"{order}HHI", data, place)
            if tag == _ORIENTATION and order:
                (value,) = struct.unpack_from(order + _KINDS[kind], data, place + 8)
                return int(value) if count == 1 and value in _TURNS else 1
    except (struct.error, KeyError):
        return None
    return None


def xmp_orientation(data: bytes) -> int | None:
    """Returns the orientation in XMP data, which some programs write instead of EXIF; None if it has none."""
    found = _XMP.search(data)
    if found is None:
        return None
    return int(found[1]) if int(found[1]) in _TURNS else 1


def swaps_sides(orientation: int) -> bool:
    """Returns whether an image with this orientation is shown with its height and width swapped."""
    return _TURNS.get(orientation, (False,))[0]


def upright(pixels: UInt8Array, orientation: int) -> UInt8Array:
    """Returns pixels, uint8 `[C, H, W]`, as they are shown; equal to `PIL.ImageOps.exif_transpose`."""
    if orientation == 1:
        return pixels
    import numpy as np

    swapped, rows, columns = _TURNS[orientation]
    turned = pixels.transpose(0, 2, 1) if swapped else pixels
    return np.ascontiguousarray(turned[:, :: -1 if rows else 1, :: -1 if columns else 1])
