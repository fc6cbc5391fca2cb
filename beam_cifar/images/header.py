"""Reads the headers of image files: size, channels and orientation, without a decoder.

Pillow is not used because its `open` also reads text, profiles and EXIF, and a dataset may have millions of files.
Format facts are from the PNG specification (W3C, third edition), section 11, and ITU-T T.81 (JPEG), annex B.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

from beam_cifar.data.limits import MAX_PIXELS
from beam_cifar.data.text import counted
from beam_cifar.errors import RowError
from beam_cifar.images.exif import (
    EXIF_START,
    MAX_EXIF_BYTES,
    XMP_START,
    exif_orientation,
    profile_orientation,
    swaps_sides,
    xmp_orientation,
)
from beam_cifar.images.other_headers import STARTS, other_header

Buffer = bytes | bytearray | memoryview

PNG_START: Final = b"\x89PNG\r\n\x1a\n"
PNG_END: Final = b"\0\0\0\0IEND" + zlib.crc32(b"IEND").to_bytes(4, "big")
JPEG_START: Final = b"\xff\xd8"


# Valid bit depths by colour type.
_PNG_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_GRAY: Final = (0, 4)
_PNG_ALPHA: Final = (4, 6)
_DEPTH_HINT: Final = "pass --depth scale or --depth clip"

# Start of frame: 0xC0..0xCF except DHT, JPG and DAC.
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Stuffing, fill, TEM, RSTn, SOI: no segment follows these.
_JPEG_ALONE: Final = frozenset({0x00, 0x01, 0xFF, *range(0xD0, 0xD9)})
JPEG_EOI, JPEG_SOS = 0xD9, 0xDA
_JPEG_APP1: Final = 0xE1
# Segments and stray bytes, or chunks, read before giving up.
_STEPS: Final = 1 << 16
# Chunks of a PNG file that may have the orientation, the one that counts first.
_ORIENTED: Final = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
# How many of them are looked at: a hundred bytes of zTXt unpack to 64 KB.
_LOOKED_AT: Final = 100


@dataclass(frozen=True)
class ImageHeader:
    """Facts from the header of an image file.

    Attributes:
        encoding: of the file.
        height: in pixels, of the image as it is shown.
        width: in pixels, of the image as it is shown.
        channels: number of channels that `decode_image` returns: 1 for gray, otherwise 3.
        refusal: why `decode_image` would refuse the file; empty if the header is fine.
        orientation: EXIF orientation, 1 to 8, which height and width take into account.
        has_alpha: whether pixels may be transparent.
        depth: bits of a sample.
    """

    encoding: str
    height: int
    width: int
    channels: int
    refusal: str = ""
    orientation: int = 1
    has_alpha: bool = False
    depth: int = 8

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) of the pixels as they are stored."""
        return (self.width, self.height) if swaps_sides(self.orientation) else (self.height, self.width)

    def unturned(self) -> ImageHeader:
        """Returns the header of the same image without an orientation."""
        height, width = self.stored_size
        return replace(self, height=height, width=width, orientation=1)


def probe_image(file: BinaryIO | Buffer, name: str) -> ImageHeader:
    """Reads the header of an image file, no further than needed; its first bytes say what it is, never its name.

    Args:
        file: the file, open at its start and buffered; or its content.
        name: display name used in messages.

    Raises:
        RowError: not an image file, truncated, damaged, without pixels, or with more than `MAX_PIXELS`.
    """
    if isinstance(file, Buffer):
        file = io.BytesIO(file)
    start = file.read(len(JPEG_START))
    if start == JPEG_START:
        return _checked(_jpeg_header(file, name), name)
    start += file.read(len(PNG_START) - len(start))
    if start == PNG_START:
        return _checked(_png_header(file, name), name)
    for known, encoding in STARTS.items():
        if start.startswith(known):
            return _checked(_shown(encoding, **vars(other_header(encoding, file, name))), name)
    raise RowError(
        f"{name}: starts with bytes {start.hex(' ') or '(none)'}; expected a PNG, JPEG, WebP, GIF, BMP or TIFF file"
    )


def header_or_error(file: BinaryIO | Buffer, name: str) -> ImageHeader | RowError:
    """Returns what `probe_image` returns, or the error that it raises."""
    try:
        return probe_image(file, name)
    except RowError as error:
        return error


def _checked(header: ImageHeader, name: str) -> ImageHeader:
    # Pillow warns only above 89 megapixels, and would decode a bomb of 81 silently.
    pixels = header.height * header.width
    if not 1 <= pixels <= MAX_PIXELS:
        raise RowError(f"{name}: size is {header.height} x {header.width}; expected 1 to {MAX_PIXELS:,} pixels")
    return header


def _exactly(file: BinaryIO, size: int, name: str) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise RowError(f"{name}: truncated: ends within its header")
    return data


def _png_header(file: BinaryIO, name: str) -> ImageHeader:
    """Reads IHDR, which must be the first chunk."""
    length, body, check = struct.unpack(">I17sI", _exactly(file, 25, name))
    if length != 13 or body[:4] != b"IHDR" or zlib.crc32(body) != check:
        raise RowError(f"{name}: damaged: the first chunk is not a valid IHDR")
    width, height, depth, colour, *methods = struct.unpack(">4xIIBBBBB", body)
    if depth not in _PNG_DEPTHS.get(colour, ()) or methods[:2] != [0, 0] or methods[2] > 1:
        raise RowError(f"{name}: damaged: invalid IHDR with depth {depth}, colour type {colour}, methods {methods}")
    refusal = f"has 16 bits per sample; expected at most 8: {_DEPTH_HINT}" if depth == 16 else ""
    transparent, orientation = _before_pixels(file)
    alpha = transparent or colour in _PNG_ALPHA
    return _shown("png", height, width, 1 if colour in _PNG_GRAY else 3, refusal, orientation, alpha, depth)


def _before_pixels(file: BinaryIO) -> tuple[bool, int]:
    """Reads the chunks between IHDR and IDAT: whether there is a tRNS, and the orientation.

    That is in eXIf (section 11.3), else in a profile of ImageMagick's, else in XMP.
    """
    start = file.read(8)
    if start[4:] == b"IDAT":  # as in most files: nothing is before them
        return False, 1
    transparent, found, looked_at = False, dict[bytes, int](), 0
    for _ in range(_STEPS):
        kind, length = start[4:], int.from_bytes(start[:4], "big")
        if len(start) < 8 or kind in (b"IDAT", b"IEND"):
            break
        transparent |= kind == b"tRNS"
        if kind in _ORIENTED and length <= MAX_EXIF_BYTES and looked_at < _LOOKED_AT:
            looked_at += 1
            if orientation := _chunk_orientation(kind, file.read(length)):
                found.setdefault(kind, orientation)
            length = 0
        file.seek(length + 4, io.SEEK_CUR)
        start = file.read(8)
    return transparent, next((found[kind] for kind in _ORIENTED if kind in found), 1)


def _chunk_orientation(kind: bytes, body: bytes) -> int | None:
    if kind == b"eXIf":
        return exif_orientation(body)
    if kind == b"iTXt":
        return xmp_orientation(body) if body.startswith(b"XML:com.adobe.xmp\0") else None
    return profile_orientation(kind, body)


def _jpeg_header(file: BinaryIO, name: str) -> ImageHeader:
    orientations: dict[bytes, int | None] = {}
    for marker, body in jpeg_segments(file, name):
        if marker != _JPEG_APP1:
            continue
        if body.startswith(EXIF_START):
            orientations.setdefault(EXIF_START, exif_orientation(body[len(EXIF_START) :]))
        elif body.startswith(XMP_START):
            orientations[XMP_START] = xmp_orientation(body)
    if len(body) < 6:  # that of the frame header, which is the last segment
        raise RowError(f"{name}: damaged: frame header of {counted(len(body), 'byte')}, expected at least 6")
    depth, height, width, components = struct.unpack(">BHHB", body[:6])
    refusal = ""
    if depth != 8:
        refusal = f"has {depth} bits per sample; expected 8: convert it first"
    elif components == 4:
        refusal = "is CMYK, which has no exact RGB equivalent; expected gray or RGB: pass --cmyk convert"
    elif components not in (1, 3):
        refusal = f"has {components} components; expected 1 (gray) or 3 (RGB)"
    orientation = orientations.get(EXIF_START) or orientations.get(XMP_START) or 1
    return _shown("jpeg", height, width, 1 if components == 1 else 3, refusal, orientation, depth=depth)


def _shown(
    encoding: str,
    height: int,
    width: int,
    channels: int,
    refusal: str,
    orientation: int,
    has_alpha: bool = False,
    depth: int = 8,
) -> ImageHeader:
    """Returns a header with the size as shown, from the size as stored."""
    if swaps_sides(orientation):
        height, width = width, height
    return ImageHeader(encoding, height, width, channels, refusal, orientation, has_alpha, depth)


def jpeg_segments(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Yields marker and body of the segments after SOI, up to and including the frame header."""
    before = 0
    for _ in range(_STEPS):
        marker = _exactly(file, 1, name)[0]
        # Stray bytes between segments are skipped, as decoders do.
        if before != 0xFF or marker in _JPEG_ALONE:
            before = marker
            continue
        if marker in (JPEG_SOS, JPEG_EOI):
            break
        length = int.from_bytes(_exactly(file, 2, name), "big")
        yield marker, _exactly(file, max(length - 2, 0), name)
        if marker in _JPEG_FRAMES:
            return
        before = 0
    raise RowError(f"{name}: damaged: no frame header before the image data")
