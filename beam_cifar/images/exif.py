"""EXIF orientation: which way up an image is shown, and its pixels turned that way.

Format facts are from Exif 3.0 (CIPA DC-008), section 4.6 (tag 0x0112 of the first directory), and TIFF 6.0, section 2.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Collection, Iterator
from typing import BinaryIO, Final

from beam_cifar.data.arrays import UInt8Array

MAX_EXIF_BYTES: Final = 1 << 16
"""Longest metadata that is looked at: what a segment of a JPEG file may hold."""
EXIF_START: Final = b"Exif\0\0"
XMP_START: Final = b"http://ns.adobe.com/xap/1.0/\0"

ORIENTATION: Final = 0x0112
_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
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
    try:
        value = first_values(io.BytesIO(data), frozenset({ORIENTATION})).get(ORIENTATION)
    except (struct.error, KeyError):
        return None
    return value if value is None or value in _TURNS else 1


def first_values(file: BinaryIO, tags: Collection[int]) -> dict[int, int]:
    """Returns the first value of some tags in the first directory of a TIFF file, those with whole numbers.

    Raises:
        struct.error, KeyError: the file is damaged, or is not a TIFF file.
    """
    return {tag: value for tag, value, _ in _entries(file, tags)}


def _entries(file: BinaryIO, tags: Collection[int]) -> Iterator[tuple[int, int, int]]:
    """Yields tag, first value, and the place of that value in the file."""
    file.seek(0)
    order = _ORDERS[file.read(4)]
    (start,) = struct.unpack(f"{order}I", file.read(4))
    file.seek(start)
    (count,) = struct.unpack(f"{order}H", file.read(2))
    directory = file.read(12 * count)
    for at in range(0, 12 * count, 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", directory, at)
        if tag not in tags or kind not in _KINDS or not values:
            continue
        place, size = start + 2 + at + 8, struct.calcsize(_KINDS[kind])
        if size * values > 4:  # the values are elsewhere
            (place,) = struct.unpack_from(f"{order}I", directory, at + 8)
            file.seek(place)
            (value,) = struct.unpack(order + _KINDS[kind], file.read(size))
        else:
            (value,) = struct.unpack_from(order + _KINDS[kind], directory, at + 8)
        yield tag, value, place


def tiff_as_stored(data: bytes) -> bytes:
    """Returns a TIFF file whose orientation is 1, so that decoders show its pixels as they are stored."""
    made = bytearray(data)
    for _, _, place in _entries(io.BytesIO(data), frozenset({ORIENTATION})):
        # A one in either byte order, of a SHORT, which is what this tag has to be; others keep their other bytes.
        made[place : place + 2] = b"\x01\0" if data.startswith(b"II") else b"\0\x01"
    return bytes(made)


def profile_orientation(kind: bytes, body: bytes) -> int | None:
    """Returns the orientation in the EXIF data that ImageMagick writes to a text chunk of a PNG file; None for no such.

    After the keyword come an empty line, the name and the length of the data, and the data in hexadecimal, as Pillow
    reads them (`PngImageFile.getexif`).

    Args:
        kind: b"tEXt", or b"zTXt" for one that is compressed.
        body: the chunk's data, of a bounded length.
    """
    keyword, _, text = body.partition(b"\0")
    if keyword != b"Raw profile type exif":
        return None
    try:
        if kind == b"zTXt":
            text = zlib.decompressobj().decompress(text[1:], MAX_EXIF_BYTES)
        data = bytes.fromhex(b"".join(text.split(b"\n", 3)[3:]).replace(b"\n", b"").decode("ascii"))
    except (ValueError, zlib.error):
        return None
    return exif_orientation(data.removeprefix(EXIF_START))


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
