"""Decodes image files with Pillow, without loss; a file that cannot be decoded exactly is refused.

Text, profiles, EXIF and animation are removed before Pillow sees the file: they are where decompression bombs hide and
where Pillow warns. EXIF orientation, which the header tells, is applied afterwards.

Format facts are from the PNG specification (W3C, third edition), sections 5, 8 and 11, and ITU-T T.81 (JPEG), annex B.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from isal import isal_zlib

from beam_cifar.data.arrays import UInt8Array
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError, RowError
from beam_cifar.images.encodings import OTHERS
from beam_cifar.images.exif import tiff_as_stored, upright
from beam_cifar.images.header import (
    JPEG_EOI,
    JPEG_SOS,
    JPEG_START,
    PNG_START,
    Buffer,
    ImageHeader,
    jpeg_segments,
    probe_image,
)

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile
    from PIL.PngImagePlugin import PngImageFile

# NumPy and Pillow are imported when an image is decoded: commands that only look at labels take half the time.

# Real progressive files have about ten scans. A scan takes a few bytes, but decoding it is a pass over the whole image.
MAX_SCANS: Final = 100

# The chunks passed to Pillow. Without acTL an animated PNG is just its default image.
_PNG_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# Samples per pixel by colour type.
_PNG_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_CHUNK_START: Final = struct.Struct(">I4s")  # bytes of its data, and its kind
# Passes of an interlaced image: first column and row, column and row step (section 8.1).
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# Inflated at a time, to count bytes without holding the whole image.
_INFLATED_BYTES: Final = 1 << 18

# Comments and application data, except APP0 (JFIF) and APP14 (Adobe), which define the colour space.
_JPEG_REMARKS: Final = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
# A marker followed by a segment, or EOI; not stuffing, fill or RSTn, which occur within compressed data.
_JPEG_MARKER: Final = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")


def decode_image(data: Buffer, name: str) -> UInt8Array:
    """Decodes an image file to uint8 [C, H, W], where C is 1 (gray) or 3 (R, G, B).

    Palettes become RGB, gray of less than 8 bits is scaled to 0..255, opaque alpha is dropped, and an animated PNG
    gives its default image, other files their first frame or page. The EXIF orientation is applied, as
    `PIL.ImageOps.exif_transpose` does. A JPEG with damaged image data may still decode: the format has no checksums.

    Args:
        data: the whole file.
        name: display name used in messages.

    Raises:
        InputError: as `probe_image`; or the file is damaged or truncated, or not representable as uint8 gray or RGB:
            transparent pixels, more than 8 bits per sample, CMYK.
    """
    header = probe_image(data, name)
    if header.refusal:
        raise RowError(f"{name}: {header.refusal}")
    with damage_named(header.encoding, name):
        return upright(_pixels(open_image(data, header, name), header, name), header.orientation)


@contextmanager
def damage_named(encoding: str, name: str) -> Iterator[None]:
    """Turns what Pillow raises for a damaged file, about ten types of exceptions, into an `InputError`."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise RowError(f"{name}: damaged {encoding.upper()} file: {reason}") from error


def open_image(data: Buffer, header: ImageHeader, name: str) -> ImageFile:
    """Opens an image without what does not affect its pixels, and without its orientation; checks its size.

    Raises:
        InputError: the file is damaged or truncated. Or what Pillow raises; see `damage_named`.
    """
    view = memoryview(data)
    image = _open_png(view, name) if header.encoding == "png" else _open_plain(view, header.encoding, name)
    # A second header inside the file may declare another size; checked before anything is allocated.
    height, width = header.stored_size
    if image.size != (width, height):
        raise RowError(f"{name}: damaged: declares two sizes, {height} x {width} and {image.height} x {image.width}")
    return image


def _open_plain(data: memoryview, encoding: str, name: str) -> ImageFile:
    # Not `Image.open`, which warns of large images: their size has been checked.
    if encoding == "jpeg":
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile(io.BytesIO(_bare_jpeg(data, name)))
    if encoding == "gif":
        from PIL.GifImagePlugin import GifImageFile

        return GifImageFile(io.BytesIO(data))
    if encoding == "bmp":
        from PIL.BmpImagePlugin import BmpImageFile

        return BmpImageFile(io.BytesIO(data))
    if encoding == "webp":
        from PIL.WebPImagePlugin import WebPImageFile

        return WebPImageFile(io.BytesIO(data))
    from PIL.TiffImagePlugin import TiffImageFile

    return TiffImageFile(io.BytesIO(tiff_as_stored(bytes(data))))  # Pillow would turn it upright itself


def without_orientation(data: bytes, header: ImageHeader, name: str) -> bytes:
    """Returns the file without its metadata, and so without its orientation; its pixels stay as they are stored."""
    view = memoryview(data)
    return _bare_jpeg(view, name) if header.encoding == "jpeg" else _png_of(_pixel_chunks(view, name))


def probe_whole_image(data: bytes, name: str) -> ImageHeader:
    """Reads the header as `probe_image` does, and refuses a truncated file or one with wrong checksums.

    For files copied without decoding: much cheaper than a decoder, and it catches the most common kinds of damage.

    Raises:
        InputError: as `probe_image`; or the file is damaged or truncated.
    """
    header = probe_image(data, name)
    if header.encoding in OTHERS:
        # Rare, and too many kinds of damage to look for: these are decoded, and the pixels dropped.
        with damage_named(header.encoding, name):
            open_image(data, header, name).load()
        return header
    if header.encoding == "png":
        for _ in _png_chunks(memoryview(data), name):
            pass
        return header
    file = io.BytesIO(data)
    file.seek(len(JPEG_START))
    for _ in jpeg_segments(file, name):
        pass
    # 0xFF is stuffed in compressed data, so a match is the marker. Searched after the frame header only: a thumbnail in
    # EXIF has an EOI of its own.
    if data.find(bytes((0xFF, JPEG_EOI)), file.tell()) < 0:
        raise RowError(f"{name}: truncated: ends at byte {len(data)} without an end marker (EOI)")
    return header


def _open_png(data: memoryview, name: str) -> PngImageFile:
    """Opens a PNG file without the chunks that do not affect pixels."""
    from PIL.PngImagePlugin import PngImageFile

    chunks = _pixel_chunks(data, name)
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBB2xB", data, 16)
    size = _filtered_size(width, height, depth * _PNG_SAMPLES[colour], bool(interlaced))
    found = _inflated_size((chunk[8:-4] for kind, chunk in chunks if kind == b"IDAT"), size)
    # Pillow would silently leave the missing rows black.
    if found < size:
        raise RowError(f"{name}: damaged: found {counted(found, 'byte')} of pixel rows, expected {size:,}")
    image = PngImageFile(io.BytesIO(_png_of(chunks)))
    if image.mode == "L" and depth < 8 and "transparency" in image.info:
        # Pillow scales gray of 2 and 4 bits to 0..255, but not the transparent gray value in tRNS.
        image.info["transparency"] *= 255 // (2**depth - 1)
    return image


def _pixel_chunks(data: memoryview, name: str) -> list[tuple[bytes, memoryview]]:
    """Returns kind and bytes of the chunks that affect pixels."""
    return [(kind, chunk) for kind, chunk in _png_chunks(data, name) if kind in _PNG_CHUNKS]


def _png_of(chunks: Iterable[tuple[bytes, memoryview]]) -> bytes:
    """Returns the PNG file with some chunks."""
    return b"".join((PNG_START, *(chunk for _, chunk in chunks)))


def _png_chunks(data: memoryview, name: str) -> Iterator[tuple[bytes, memoryview]]:
    """Yields kind and bytes of each chunk up to IEND, after checking its CRC: Pillow does not check that of IDAT."""
    place = len(PNG_START)
    while place + 12 <= len(data):
        length, kind = _CHUNK_START.unpack_from(data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        if isal_zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise RowError(f"{name}: damaged: wrong checksum of the chunk at byte {place}")
        yield kind, data[place : end + 4]
        if kind == b"IEND":
            return
        place = end + 4
    raise RowError(f"{name}: truncated: ends at byte {len(data)} without an IEND chunk")


def _filtered_size(width: int, height: int, bits: int, interlaced: bool) -> int:
    """Returns the size in bytes of the filtered rows of all passes, at `bits` per pixel plus a filter byte per row."""
    size = 0
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            size += rows * (1 + (columns * bits + 7) // 8)
    return size


def _inflated_size(pieces: Iterable[memoryview], limit: int) -> int:
    """Returns the decompressed size of a zlib stream, counted up to a limit."""
    stream, size = isal_zlib.decompressobj(), 0
    for piece in pieces:
        rest: Buffer = piece
        while size < limit and not stream.eof:
            inflated = stream.decompress(rest, min(limit - size, _INFLATED_BYTES))
            rest = stream.unconsumed_tail
            # The stream may still have output after it has consumed all its input.
            if not inflated and not rest:
                break
            size += len(inflated)
    return size


def _bare_jpeg(data: memoryview, name: str) -> bytes:
    """Returns the file without comments and metadata before its frame header."""
    file = io.BytesIO(data)
    file.seek(len(JPEG_START))
    kept = [JPEG_START]
    for marker, body in jpeg_segments(file, name):
        if marker not in _JPEG_REMARKS:
            kept.append(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)
    rest = file.read()
    scans = _count_scans(rest)
    if scans > MAX_SCANS:
        raise RowError(f"{name}: has {scans} scans, each a pass over the image; at most {MAX_SCANS} are supported")
    return b"".join((*kept, rest))


def _count_scans(data: bytes) -> int:
    """Counts the scans after a frame header, up to EOI: phones append other files there, such as a video."""
    scans = place = 0
    while match := _JPEG_MARKER.search(data, place):
        marker = match[0][1]
        if marker == JPEG_EOI:
            break
        scans += marker == JPEG_SOS
        place = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
    return scans


def _pixels(image: Image.Image, header: ImageHeader, name: str) -> UInt8Array:
    """Returns the pixels as they are stored, uint8 `[C, H, W]`."""
    import numpy as np

    image.load()
    if image.mode == "P":
        _check_palette(image, name)
    plain = _opaque(image, name)
    mode = "L" if header.channels == 1 else "RGB"
    # A copy, because an array over Pillow's own buffer is read-only.
    pixels = np.array(plain if plain.mode == mode else plain.convert(mode))
    return np.ascontiguousarray(pixels.reshape(image.height, image.width, -1).transpose(2, 0, 1))


def _check_palette(image: Image.Image, name: str) -> None:
    # Pillow silently treats indices beyond the palette as black.
    colours = len(image.palette.palette or b"") // 3 if image.palette else 0
    highest = int(image.getextrema()[1])  # type: ignore[arg-type]
    if highest >= colours:
        raise RowError(
            f"{name}: damaged: a pixel has colour {highest}, but the palette has {counted(colours, 'colour')}"
        )


def has_clear_pixels(image: Image.Image) -> bool:
    """Returns whether a pixel is transparent, even in part."""
    return image.has_transparency_data and _is_clear(image.convert("RGBA"))


def _is_clear(whole: Image.Image) -> bool:
    return whole.getchannel("A").getextrema() != (255, 255)


def _opaque(image: Image.Image, name: str) -> Image.Image:
    """Returns the image without an alpha channel. Raises `InputError` if any pixel is transparent."""
    if not image.has_transparency_data:
        return image
    whole = image.convert("RGBA")
    if _is_clear(whole):
        raise RowError(f"{name}: has transparent pixels; expected none: pass --alpha drop, white or black")
    return whole.getchannel("R") if image.mode in ("1", "L", "LA") else whole.convert("RGB")
