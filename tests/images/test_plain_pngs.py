"""PNG files that are checked many at once: the answers are those of the check of a single file."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, PngImagePlugin

from beam_cifar.errors import InputError
from beam_cifar.images.decode import probe_whole_image
from beam_cifar.images.plain_pngs import have_pixels_first, plain_png_sizes
from beam_cifar.images.png import encode_png


def plain(height: int, width: int, channels: int = 3) -> bytes:
    pixels = np.random.default_rng(height).integers(0, 256, (1, channels, height, width), np.uint8)
    return bytes(encode_png(pixels)[0])


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def by_pillow(mode: str, kind: str = "PNG", **more: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (7, 5)).save(file, kind, **more)
    return file.getvalue()


def flipped(file: bytes, at: int) -> bytes:
    at %= len(file)
    return file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]


def with_ihdr(**fields: int) -> bytes:
    values = {"width": 7, "height": 5, "depth": 8, "colour": 2, "compression": 0, "filter": 0, "interlace": 0, **fields}
    file = plain(5, 7)
    return file[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", *values.values())) + file[33:]


TEXT = PngImagePlugin.PngInfo()
TEXT.add_text("by", "somebody")
GOOD = plain(5, 7)

PLAIN = {
    "colour": (GOOD, (5, 7, 3)),
    "gray": (plain(9, 4, 1), (9, 4, 1)),
    "Pillow's": (by_pillow("RGB"), (5, 7, 3)),
    "one pixel": (plain(1, 1), (1, 1, 3)),
    "interlaced": (with_ihdr(interlace=1), (5, 7, 3)),
    "16 bits, which only decoding refuses": (with_ihdr(depth=16), (5, 7, 3)),
}
OTHERS = {
    "JPEG": by_pillow("RGB", "JPEG"),
    "with a text": by_pillow("RGB", pnginfo=TEXT),
    "palette": by_pillow("P"),
    "two IDAT": GOOD[:33] + chunk(b"IDAT", GOOD[41:45]) + chunk(b"IDAT", GOOD[45:-16]) + GOOD[-12:],
    "nothing": b"",
    "IHDR and IEND": GOOD[:33] + GOOD[-12:],
    "truncated": GOOD[:-1],
    "truncated within the pixels": GOOD[:50],
    "something after IEND": GOOD + b"\0",
    "start": flipped(GOOD, 1),
    "length of IHDR": flipped(GOOD, 11),
    "kind of IHDR": flipped(GOOD, 12),
    "width": flipped(GOOD, 19),
    "checksum of IHDR": flipped(GOOD, 32),
    "length of IDAT": flipped(GOOD, 36),
    "kind of IDAT": flipped(GOOD, 37),
    "pixels": flipped(GOOD, 50),
    "checksum of IDAT": flipped(GOOD, -13),
    "length of IEND": flipped(GOOD, -9),
    "kind of IEND": flipped(GOOD, -8),
    "checksum of IEND": flipped(GOOD, -1),
    "no pixels": with_ihdr(width=0),
    "too many pixels": with_ihdr(width=1 << 20, height=1 << 20),
    "depth of 3": with_ihdr(depth=3),
    "compression": with_ihdr(compression=1),
}


def test_plain_files_have_their_sizes() -> None:
    found = plain_png_sizes(pa.array([file for file, _ in PLAIN.values()], pa.binary()))
    assert found.T.tolist() == [list(size) for _, size in PLAIN.values()]


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_file_is_left_to_the_check_of_one(name: str) -> None:
    assert plain_png_sizes(pa.array([GOOD, OTHERS[name], GOOD], pa.binary())).T.tolist() == [
        [5, 7, 3],
        [0, 0, 0],
        [5, 7, 3],
    ]


def test_missing_images_and_parts_of_an_array() -> None:
    images = pa.array([None, GOOD, None, plain(9, 4, 1), b"x" * 100], pa.binary())
    assert plain_png_sizes(images).T.tolist() == [[0] * 3, [5, 7, 3], [0] * 3, [9, 4, 1], [0] * 3]
    assert plain_png_sizes(images[1:4]).T.tolist() == [[5, 7, 3], [0] * 3, [9, 4, 1]]
    assert plain_png_sizes(images[:0]).shape == (3, 0)
    assert plain_png_sizes(pa.nulls(3, pa.binary())).tolist() == [[0, 0, 0]] * 3


def test_every_flipped_byte_and_every_cut_is_judged_as_by_the_check_of_one() -> None:
    files = [flipped(GOOD, at) for at in range(len(GOOD))] + [GOOD[:size] for size in range(len(GOOD))]
    for file, size in zip(files, plain_png_sizes(pa.array(files, pa.binary())).T.tolist(), strict=True):
        assert size == [0, 0, 0]
        with pytest.raises(InputError):
            probe_whole_image(file, "x")


def test_pixels_come_first_where_no_metadata_does() -> None:
    told, exif = PngImagePlugin.PngInfo(), Image.Exif()
    told.add_text("key", "value")
    exif[0x0112] = 6
    images = {
        plain(3, 4): True,
        by_pillow("RGB"): True,
        by_pillow("RGB", pnginfo=told): False,
        by_pillow("RGB", exif=exif): False,
        by_pillow("RGB", "JPEG"): False,
        b"": False,
        plain(3, 4)[:40]: False,
        plain(3, 4)[:41]: True,
    }
    column = pa.array([b"x" * 50, *images, b"y"], pa.binary())
    assert have_pixels_first(column.slice(1, len(images))).tolist() == list(images.values())
    assert have_pixels_first(column.slice(0, 0)).tolist() == []
