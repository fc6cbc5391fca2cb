"""PNG and JPEG files in a folder of classes."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from tests.helpers.hostile_files import Maker, files
from tests.helpers.image_trees import encoded, picture

START = b"\x89PNG\r\n\x1a\n"
JPEG = encoded(picture(1, 16, 16), "JPEG")
PLAIN = bytes(8 * (1 + 8 * 3))


def chunk(kind: bytes, data: bytes = b"", *, right: bool = True) -> bytes:
    check = zlib.crc32(kind + data) if right else 7
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def head(width: int = 8, height: int = 8, depth: int = 8, colour: int = 2, *rest: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, *(rest or (0, 0, 0))))


PROFILE = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\n" * 65536, 9))
IDAT, IEND = chunk(b"IDAT", zlib.compress(PLAIN)), chunk(b"IEND")


def png(*chunks: bytes) -> Maker:
    return image(START + b"".join(chunks))


def image(data: bytes, name: str = "a.png") -> Maker:
    return files({f"cat/{name}": data, "cat/good.png": encoded(picture(1, 8, 8))})


def jpeg(data: bytes) -> Maker:
    return image(data, "a.jpg")


def deflated(data: bytes, wbits: int = 15) -> bytes:
    pack = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return chunk(b"IDAT", pack.compress(data) + pack.flush())


def frame(height: int, width: int, channels: int = 3, marker: int = 0xC0, bits: int = 8) -> bytes:
    """A frame header of a JPEG."""
    each = b"".join(bytes([number, 0x11, 0]) for number in range(1, channels + 1))
    return struct.pack(">BBHBHHB", 0xFF, marker, 8 + 3 * channels, bits, height, width, channels) + each


SOF = JPEG.index(b"\xff\xc0")
SOS = JPEG.index(b"\xff\xda")


def resized(height: int, width: int) -> Maker:
    return jpeg(JPEG[: SOF + 5] + struct.pack(">HH", height, width) + JPEG[SOF + 9 :])


PNGS: dict[str, Maker] = {
    "no bytes": image(b""),
    "text": image(b"<html>not found</html>"),
    "signature only": image(START),
    "half a signature": image(START[:5]),
    "header cut": image((START + head())[:20]),
    "no pixels": png(head(), IEND),
    "no end": png(head(), IDAT),
    "end before the pixels": png(head(), IEND, IDAT),
    "pixels cut": png(head(), deflated(PLAIN[:-1]), IEND),
    "compressed pixels cut": png(head(), chunk(b"IDAT", zlib.compress(PLAIN)[:-6]), IEND),
    "pixels that are not zlib": png(head(), chunk(b"IDAT", b"text"), IEND),
    "pixels without a zlib header": png(head(), deflated(PLAIN, -15), IEND),
    "wrong checksum of the header": png(chunk(b"IHDR", head()[8:21], right=False), IDAT, IEND),
    "wrong checksum of pixels": png(head(), chunk(b"IDAT", zlib.compress(PLAIN), right=False), IEND),
    "wrong checksum inside pixels": png(head(), chunk(b"IDAT", zlib.compress(PLAIN)[:-4] + b"abcd"), IEND),
    "no width": png(head(0), IDAT, IEND),
    "no height": png(head(8, 0), IDAT, IEND),
    "2**31 - 1 wide": png(head(2**31 - 1), IDAT, IEND),
    "2**32 - 1 high": png(head(8, 2**32 - 1), IDAT, IEND),
    "60,000 x 60,000": png(head(60_000, 60_000), IDAT, IEND),
    "8,000 x 8,000 of nothing": png(head(8000, 8000), IDAT, IEND),
    "bomb": png(head(30_000, 30_000, 1, 0), deflated(bytes(30_000 * 3751)), IEND),
    "more pixels than its size": png(head(), deflated(bytes(200 << 20)), IEND),
    "depth 3": png(head(8, 8, 3), IDAT, IEND),
    "depth 16": png(head(8, 8, 16), deflated(bytes(8 * 49)), IEND),
    "colour type 5": png(head(8, 8, 8, 5), IDAT, IEND),
    "compression 1": png(head(8, 8, 8, 2, 1, 0, 0), IDAT, IEND),
    "filter method 1": png(head(8, 8, 8, 2, 0, 1, 0), IDAT, IEND),
    "interlacing 2": png(head(8, 8, 8, 2, 0, 0, 2), IDAT, IEND),
    "filter type 9": png(head(), deflated(b"\x09" + PLAIN[1:]), IEND),
    "no palette": png(head(8, 8, 8, 3), deflated(bytes(72)), IEND),
    "palette too short": png(head(8, 8, 8, 3), chunk(b"PLTE", bytes(3)), deflated(b"\0\7" * 36), IEND),
    "palette of 4 bytes": png(head(8, 8, 8, 3), chunk(b"PLTE", bytes(4)), deflated(bytes(72)), IEND),
    "transparent": png(head(8, 8, 8, 6), deflated(bytes(8 * 33)), IEND),
    "transparent colour": png(head(), chunk(b"tRNS", bytes(6)), IDAT, IEND),
    "tRNS cut": png(head(), chunk(b"tRNS", b"\0"), IDAT, IEND),
    "chunk of 4 GiB": png(head(), struct.pack(">I", 2**32 - 1) + b"IDAT", IEND),
    "chunk of unknown kind": png(head(), chunk(b"ABCD"), IDAT, IEND),
    "text bomb": png(head(), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20), 9)), IDAT[:-1]),
    "profile bomb": png(head(), chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(200 << 20), 9)), IDAT[:-1]),
    "100,000 chunks": png(head(), chunk(b"tEXt", b"a\0b") * 100_000, IDAT[:-1]),
    "20,000 orientations": png(head(), PROFILE * 20_000, IDAT[:-1]),
    "two headers": png(head(), head(9, 9), IDAT, IEND),
    "animation": png(head(), chunk(b"acTL", struct.pack(">II", 2**31, 0)), IDAT[:-1]),
}
JPEGS: dict[str, Maker] = {
    "JPEG: signature only": jpeg(b"\xff\xd8"),
    "JPEG: cut in the tables": jpeg(JPEG[:100]),
    "JPEG: cut before the scan": jpeg(JPEG[:SOS]),
    "JPEG: cut in the scan": jpeg(JPEG[: SOS + 20]),
    "JPEG: without an end": jpeg(JPEG[:-2]),
    "JPEG: no frame": jpeg(JPEG[:2] + JPEG[SOS:]),
    "JPEG: 65,535 x 65,535": resized(65_535, 65_535),
    "JPEG: no width": resized(16, 0),
    "JPEG: no height": resized(0, 16),
    "JPEG: 8,000 x 8,000 of nothing": resized(8000, 8000),
    "JPEG: segment of no length": jpeg(JPEG[:2] + b"\xff\xe1\0\0" + JPEG[2:]),
    "JPEG: segment beyond the end": jpeg(JPEG[:2] + b"\xff\xe1\xff\xff"),
    "JPEG: two frames": jpeg(JPEG[:SOF] + frame(8, 8) + JPEG[SOF:]),
    "JPEG: 12 bits": jpeg(JPEG[: SOF + 4] + b"\x0c" + JPEG[SOF + 5 :]),
    "JPEG: 255 channels": jpeg(JPEG[: SOF + 9] + b"\xff" + JPEG[SOF + 10 :]),
    "JPEG: lossless": jpeg(JPEG[:SOF] + frame(16, 16, marker=0xC3) + JPEG[SOS:]),
    "JPEG: arithmetic": jpeg(JPEG[: SOF + 1] + b"\xc9" + JPEG[SOF + 2 :]),
    "JPEG: 2,000 scans": jpeg(JPEG[:SOS] + JPEG[SOS:-2] * 2000 + JPEG[-2:]),
    "JPEG: no tables": jpeg(JPEG[:2] + JPEG[SOF:]),
    "JPEG: four channels": jpeg(JPEG[:SOF] + frame(16, 16, 4) + JPEG[SOS:]),
    "JPEG: orientation cut": jpeg(JPEG[:2] + b"\xff\xe1\x00\x10Exif\0\0MM\0*\xff\xff\xff\xff" + JPEG[2:SOS]),
    "JPEG: noise after the frame": jpeg(JPEG[:SOS] + np.random.default_rng(1).bytes(5000)),
    "GIF named PNG": image(b"GIF89a" + bytes(20)),
    "TIFF named PNG": image(b"MM\0*\xff\xff\xff\xff"),
    "PNG named JPEG, cut": jpeg(START + head()),
}
HOSTILE: dict[str, Maker] = PNGS | JPEGS
