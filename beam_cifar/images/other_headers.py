"""Reads the headers of GIF, BMP, WebP and TIFF files: size, channels and orientation, without a decoder.

Format facts are from the GIF89a specification, sections 17 and 18; Microsoft's BITMAPINFOHEADER; RFC 9649 (WebP),
sections 2.5 to 2.7 and 3; and TIFF 6.0, sections 2, 3, 6 and 8.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Final

from beam_cifar.errors import RowError
from beam_cifar.images.exif import EXIF_START, ORIENTATION, exif_orientation, first_values, xmp_orientation

STARTS: Final = {b"GIF8": "gif", b"BM": "bmp", b"RIFF": "webp", b"II*\0": "tiff", b"MM\0*": "tiff"}
"""First bytes of each kind; those of WebP go on after the size of the file."""

# WebP: chunks read before giving up; EXIF and XMP are after the pixels.
_CHUNKS: Final = 1 << 16
_META_BYTES: Final = 1 << 16
_HAS_ALPHA, _HAS_META = 0x10, 0x0C

# TIFF: tags of the first directory, and kinds of colour (PhotometricInterpretation).
_WIDTH, _HEIGHT, _BITS, _COLOUR, _SAMPLES, _FORMAT, _EXTRA = 256, 257, 258, 262, 277, 339, 338
_TAGS: Final = frozenset({_WIDTH, _HEIGHT, _BITS, _COLOUR, _SAMPLES, _FORMAT, _EXTRA, ORIENTATION})
_GRAY, _CMYK = (0, 1), 5
_COLOURS: Final = (*_GRAY, 2, 3, _CMYK, 6)


@dataclass(frozen=True)
class OtherHeader:
    """Facts from the header of such a file, its size as stored; otherwise as in `ImageHeader`."""

    height: int
    width: int
    channels: int = 3
    refusal: str = ""
    orientation: int = 1
    has_alpha: bool = False
    depth: int = 8


def other_header(encoding: str, file: BinaryIO, name: str) -> OtherHeader:
    """Reads the header of a GIF, BMP, WebP or TIFF file, open anywhere and seekable. Raises `RowError`."""
    try:
        return _READERS[encoding](file)
    except (struct.error, IndexError, KeyError) as error:
        raise RowError(f"{name}: damaged: not a valid {encoding.upper()} header") from error


def _read_at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def _gif(file: BinaryIO) -> OtherHeader:
    width, height = struct.unpack("<HH", _read_at(file, 6, 4))
    return OtherHeader(height, width, has_alpha=True)  # any frame may have a transparent colour


def _bmp(file: BinaryIO) -> OtherHeader:
    start = _read_at(file, 14, 16)
    old = start[:4] == b"\x0c\0\0\0"
    width, height, _, bits = struct.unpack_from("<HHHH" if old else "<iiHH", start, 4)
    return OtherHeader(abs(height), width, has_alpha=bits == 32)  # rows from the top have a negative height


def _webp(file: BinaryIO) -> OtherHeader:
    start = _read_at(file, 0, 30)
    kind = start[12:16]
    if start[8:12] != b"WEBP" or len(start) < 25:
        raise KeyError(kind)
    if kind == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        return OtherHeader((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, has_alpha=bool(bits >> 28 & 1))
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", start, 26)
        return OtherHeader(height & 0x3FFF, width & 0x3FFF)
    if kind != b"VP8X":
        raise KeyError(kind)
    width, height = (int.from_bytes(start[at : at + 3], "little") + 1 for at in (24, 27))
    orientation = _webp_orientation(file) if start[20] & _HAS_META else 1
    return OtherHeader(height, width, orientation=orientation, has_alpha=bool(start[20] & _HAS_ALPHA))


def _webp_orientation(file: BinaryIO) -> int:
    place, found = 12, dict[bytes, int | None]()
    for _ in range(_CHUNKS):
        kind, size = struct.unpack("<4sI", _read_at(file, place, 8).ljust(8, b"\0"))
        if not kind.strip(b"\0"):
            break
        if kind in (b"EXIF", b"XMP ") and size <= _META_BYTES:
            data = file.read(size)
            found[kind] = exif_orientation(data.removeprefix(EXIF_START)) if kind == b"EXIF" else xmp_orientation(data)
        place += 8 + size + size % 2
    return found.get(b"EXIF") or found.get(b"XMP ") or 1


def _tiff(file: BinaryIO) -> OtherHeader:
    found = first_values(file, _TAGS)
    depth, colour, samples = found.get(_BITS, 1), found[_COLOUR], found.get(_SAMPLES, 1)
    refusal = ""
    if colour not in _COLOURS:
        refusal = f"has colours of TIFF's kind {colour}; expected gray, RGB, a palette, YCbCr or CMYK: convert it first"
    elif colour == _CMYK:
        refusal = "is CMYK, which has no exact RGB equivalent; expected gray or RGB: pass --cmyk convert"
    elif depth == 16 and samples == 1 and found.get(_FORMAT, 1) == 1:
        refusal = "has 16 bits per sample; expected at most 8: pass --depth scale or --depth clip"
    elif depth > 8:
        refusal = f"has {depth} bits per sample; expected at most 8: pass --rgb, which converts as Pillow does"
    return OtherHeader(
        found[_HEIGHT],
        found[_WIDTH],
        1 if colour in _GRAY else 3,
        refusal,
        found.get(ORIENTATION, 1) if 1 <= found.get(ORIENTATION, 1) <= 8 else 1,
        _EXTRA in found,
        max(8, depth),
    )


_READERS: Final[dict[str, Callable[[BinaryIO], OtherHeader]]] = {"gif": _gif, "bmp": _bmp, "webp": _webp, "tiff": _tiff}


def has_more_frames(data: bytes) -> bool:
    """Returns whether a file of these kinds, whose first frame can be read, has another one that can."""
    from PIL import Image

    # Pillow raises about ten types of exceptions for a second frame that is damaged: then the first is all there is.
    with suppress(Exception), Image.open(io.BytesIO(data), formats=("GIF", "WEBP", "TIFF", "BMP")) as image:
        return bool(getattr(image, "is_animated", False))
    return False
