"""PNG and JPEG files to pixels, by Pillow: without loss, or refused with a reason.

Pillow gets the file without text, profiles, EXIF and animation: nothing in them changes a pixel, and they are where
small files grow large and where Pillow warns. EXIF orientation is ignored: the pixels are those stored.

Format facts are from the PNG specification (W3C, third edition), sections 5, 8 and 11, and ITU-T T.81 (JPEG), annex B.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from beam_cifar.data.arrays import UInt8Array
from beam_cifar.errors import InputError
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
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

# NumPy and Pillow are imported when an image is decoded: commands that look at labels only answer in half the time.

# A progressive file in use has about ten scans; each costs a pass over the whole image, and takes only a few bytes.
MAX_SCANS: Final = 100

# Without acTL an animated PNG is its default image.
_PNG_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# Colour type to the samples of a pixel.
_PNG_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Of the passes of an interlaced image, each: first column and row, steps across and down (section 8.1).
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# Inflated at a time.
_INFLATED_BYTES: Final = 1 << 18

# Comments, and application data but APP0 (JFIF) and APP14 (Adobe), which say what the colours are.
_JPEG_REMARKS: Final = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
# A marker that a segment follows, or EOI; not stuffing, fill, or RSTn, which stand in compressed data.
_JPEG_MARKER: Final = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")


def decode_image(data: Buffer, name: str) -> UInt8Array:
    """Decodes a PNG or JPEG file to its pixels, uint8 [C, H, W], C being 1 (gray) or 3 (R, G, B).

    Palettes become RGB, bilevel and other gray of less than 8 bits becomes 0..255, opaque alpha is dropped, an animated
    PNG gives its default image. A JPEG whose compressed data are damaged may still decode: it has no checksum.

    Args:
        data: the whole file.
        name: the file, as the user knows it.

    Raises:
        InputError: as `probe_image`; or if the file is damaged or cut short, or if uint8 gray or RGB cannot hold it:
            transparent pixels, more than 8 bits a sample, CMYK.
    """
    header = probe_image(data, name)
    if header.refusal:
        raise InputError(f"{name}: {header.refusal}")
    from PIL.JpegImagePlugin import JpegImageFile

    view = memoryview(data)
    try:
        if header.encoding == "png":
            return _pixels(_open_png(view, name), header, name)
        return _pixels(JpegImageFile(io.BytesIO(_bare_jpeg(view, name))), header, name)
    except (InputError, MemoryError):
        raise
    # Pillow raises about ten kinds of errors for files that are damaged.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{name}: is a damaged {header.encoding.upper()} file: {reason}") from error


def probe_whole_image(data: bytes, name: str) -> ImageHeader:
    """Reads the header as `probe_image`, and refuses a file that is cut short or differs from its checksums.

    It is for files that are passed through: much cheaper than a decoder, and finds what most often happens to files.

    Raises:
        InputError: as `probe_image`; or if the file is damaged or cut short.
    """
    header = probe_image(data, name)
    if header.encoding == "png":
        for _ in _png_chunks(memoryview(data), name):
            pass
        return header
    file = io.BytesIO(data)
    file.seek(len(JPEG_START))
    for _ in jpeg_segments(file, name):
        pass
    # In compressed data 0xFF is stuffed, so this is the marker; before the frame header it may be a thumbnail's.
    if data.find(bytes((0xFF, JPEG_EOI)), file.tell()) < 0:
        raise InputError(f"{name}: ends at byte {len(data)} before its end marker (EOI); it is cut short")
    return header


def _open_png(data: memoryview, name: str) -> PngImageFile:
    """Opens the file without the chunks that change no pixel."""
    from PIL.PngImagePlugin import PngImageFile

    chunks = [(kind, chunk) for kind, chunk in _png_chunks(data, name) if kind in _PNG_CHUNKS]
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBB2xB", data, 16)
    size = _filtered_size(width, height, depth * _PNG_SAMPLES[colour], bool(interlaced))
    found = _inflated_size((chunk[8:-4] for kind, chunk in chunks if kind == b"IDAT"), size)
    # Pillow would leave the other rows black.
    if found < size:
        raise InputError(f"{name}: holds {found} bytes of rows of pixels; expected {size}: it is damaged")
    image = PngImageFile(io.BytesIO(b"".join((PNG_START, *(chunk for _, chunk in chunks)))))
    if image.mode == "L" and depth < 8 and "transparency" in image.info:
        # Pillow widens gray of 2 and 4 bits to 0..255, but not the gray that tRNS says is transparent.
        image.info["transparency"] *= 255 // (2**depth - 1)
    return image


def _png_chunks(data: memoryview, name: str) -> Iterator[tuple[bytes, memoryview]]:
    """Yields kind and bytes of each chunk up to IEND, all of them checked: Pillow does not check IDAT."""
    place = len(PNG_START)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + 12 + length]
        if len(chunk) < 12 + length:
            break
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise InputError(f"{name}: the chunk at byte {place} differs from its checksum; it is damaged")
        yield kind, chunk
        if kind == b"IEND":
            return
        place += len(chunk)
    raise InputError(f"{name}: ends at byte {len(data)} before its IEND chunk; it is cut short")


def _filtered_size(width: int, height: int, bits: int, interlaced: bool) -> int:
    """Returns the bytes that the rows of all passes take, each with its filter's number, at so many bits a pixel."""
    size = 0
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            size += rows * (1 + (columns * bits + 7) // 8)
    return size


def _inflated_size(pieces: Iterable[memoryview], limit: int) -> int:
    """Returns how many bytes a zlib stream gives, counted up to a limit."""
    from isal import isal_zlib

    stream, size = isal_zlib.decompressobj(), 0
    for piece in pieces:
        rest: Buffer = piece
        while size < limit and not stream.eof:
            inflated = stream.decompress(rest, min(limit - size, _INFLATED_BYTES))
            rest = stream.unconsumed_tail
            # The stream may hold back output after all its input is taken.
            if not inflated and not rest:
                break
            size += len(inflated)
    return size


def _bare_jpeg(data: memoryview, name: str) -> bytes:
    """Returns the file without remarks before its frame header."""
    file = io.BytesIO(data)
    file.seek(len(JPEG_START))
    kept = [JPEG_START]
    # EXIF goes before Pillow sees it, so orientation cannot turn the image: the pixels are those stored.
    for marker, body in jpeg_segments(file, name):
        if marker not in _JPEG_REMARKS:
            kept.append(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)
    rest = file.read()
    scans = _count_scans(rest)
    if scans > MAX_SCANS:
        raise InputError(f"{name}: has {scans} scans, each a pass over the image; expected at most {MAX_SCANS}")
    return b"".join((*kept, rest))


def _count_scans(data: bytes) -> int:
    """Counts the scans of what follows a frame header; other files may follow EOI, such as a phone's video."""
    scans = place = 0
    while match := _JPEG_MARKER.search(data, place):
        marker = match[0][1]
        if marker == JPEG_EOI:
            break
        scans += marker == JPEG_SOS
        place = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
    return scans


def _pixels(image: PngImageFile | JpegImageFile, header: ImageHeader, name: str) -> UInt8Array:
    import numpy as np

    # A second header inside may say otherwise; nothing is allocated before this.
    if image.size != (header.width, header.height):
        raise InputError(
            f"{name}: is {header.height} x {header.width} and {image.height} x {image.width}; it is damaged"
        )
    image.load()
    if image.mode == "P":
        _check_palette(image, name)
    plain = _opaque(image, name)
    mode = "L" if header.channels == 1 else "RGB"
    # Copied, so that the pixels can be written to.
    pixels = np.array(plain if plain.mode == mode else plain.convert(mode))
    return np.ascontiguousarray(pixels.reshape(header.height, header.width, -1).transpose(2, 0, 1))


def _check_palette(image: Image.Image, name: str) -> None:
    # Pillow takes colours beyond the palette for black.
    colours = len(image.palette.palette or b"") // 3 if image.palette else 0
    highest = int(image.getextrema()[1])  # type: ignore[arg-type]
    if highest >= colours:
        raise InputError(f"{name}: has a pixel of colour {highest} and a palette of {colours} colours; it is damaged")


def _opaque(image: Image.Image, name: str) -> Image.Image:
    """Returns the image, without its alpha if it has any. Raises `InputError`: that would lose transparency."""
    if not image.has_transparency_data:
        return image
    whole = image.convert("RGBA")
    if whole.getchannel("A").getextrema() != (255, 255):
        raise InputError(f"{name}: has transparent pixels; expected none: put it on a background first")
    return whole.getchannel("R") if image.mode in ("1", "L", "LA") else whole.convert("RGB")
