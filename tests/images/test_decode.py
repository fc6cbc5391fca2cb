"""Decoding PNG and JPEG: exact pixels of every mode, refusals with a reason, bombs and damaged files."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence, PngImagePlugin

from beam_cifar.data.limits import MAX_PIXELS
from beam_cifar.errors import InputError
from beam_cifar.images.decode import decode_image
from beam_cifar.images.encodings import is_image_name
from beam_cifar.images.header import ImageHeader, probe_image
from beam_cifar.images.png import encode_png
from beam_cifar.images.resize import resize_images
from beam_cifar.samples.drawing import draw_images

DRAWN = draw_images(1, np.arange(10), "cifar10")
RED = np.zeros((3, 5, 7), np.uint8)
RED[0] = 200


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes, interlace: int = 0) -> bytes:
    """Returns a PNG file of these filtered rows, with these chunks before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    image = (
        pixels
        if isinstance(pixels, Image.Image)
        else Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    )
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    pixels = np.array(Image.open(io.BytesIO(data)))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def photos() -> list[Path]:
    """Returns the photographs that come with scikit-learn, if it is there; found without importing it."""
    spec = importlib.util.find_spec("sklearn")
    return list((Path(spec.origin).parent / "datasets" / "images").glob("*.jpg")) if spec and spec.origin else []


@pytest.mark.parametrize("name", ["a.png", "b.JPG", "c.d.jpeg", "dir.x/e.Png"])
def test_png_and_jpeg_names_are_told_by_their_extension(name: str) -> None:
    assert is_image_name(name)


@pytest.mark.parametrize("name", ["png", ".png", "a.png.txt", "a.ppm", "a.jpg/", "dir.png/file", "a.jp", ""])
def test_other_names_are_not(name: str) -> None:
    assert not is_image_name(name)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (32, 32), (40, 17)])
def test_encoded_pixels_come_back(channels: int, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (channels, *shape), np.uint8)
    for data in (bytes(encode_png(pixels[None])[0]), saved(pixels, "PNG")):
        decoded = decode_image(data, "x.png")
        assert decoded.dtype == np.uint8
        assert decoded.flags.c_contiguous
        assert decoded.flags.writeable
        np.testing.assert_array_equal(decoded, pixels)
        assert probe_image(data, "x.png") == ImageHeader("png", *shape, channels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_red_image_is_red(kind: str) -> None:
    decoded = decode_image(saved(RED, kind, quality=95), "red").astype(int)
    assert decoded.shape == (3, 5, 7)
    assert np.abs(decoded - RED).max() <= 2


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_is_taken(wrap: type) -> None:
    data = saved(DRAWN[0], "PNG")
    np.testing.assert_array_equal(decode_image(wrap(data), "x.png"), DRAWN[0])
    assert probe_image(wrap(data), "x.png").width == 32


def test_large_images_come_back_from_png_and_as_pillow_reads_them_from_jpeg() -> None:
    files = [saved(pixels, "JPEG", quality=90) for pixels in resize_images(DRAWN[:3], (150, 211))]
    for data in [*files, *(path.read_bytes() for path in photos())]:
        pixels = decode_image(data, "x.jpg")
        np.testing.assert_array_equal(pixels, by_pillow(data))
        assert probe_image(data, "x.jpg") == ImageHeader("jpeg", *pixels.shape[1:], 3)  # type: ignore[call-arg]
        np.testing.assert_array_equal(decode_image(bytes(encode_png(pixels[None])[0]), "x.png"), pixels)


PALETTE = chunk(b"PLTE", bytes((1, 2, 3, 40, 50, 60)))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(9, 1, 1, 0, b"\0\xa5\x80"), [[255, 0, 255, 0, 0, 255, 0, 255, 255]]),
        (png(4, 1, 2, 0, b"\0\x1b"), [[0, 85, 170, 255]]),
        (png(3, 1, 4, 0, b"\0\x0f\x80"), [[0, 255, 136]]),
        (png(2, 1, 8, 0, b"\0\7\xf0"), [[7, 240]]),
        (png(1, 1, 8, 2, b"\0\1\2\3"), [[1], [2], [3]]),
        (png(2, 1, 8, 3, b"\0\1\0", PALETTE), [[40, 1], [50, 2], [60, 3]]),
        (png(3, 1, 1, 3, b"\0\x40", PALETTE), [[1, 40, 1], [2, 50, 2], [3, 60, 3]]),
        (png(2, 1, 8, 4, b"\0\7\xff\xf0\xff"), [[7, 240]]),
        (png(1, 1, 8, 6, b"\0\1\2\3\xff"), [[1], [2], [3]]),
        # Transparency that no pixel has.
        (png(2, 1, 8, 3, b"\0\1\1", PALETTE, chunk(b"tRNS", b"\0")), [[40, 40], [50, 50], [60, 60]]),
        (png(2, 1, 8, 3, b"\0\1\1", PALETTE, chunk(b"tRNS", b"\x80\xff")), [[40, 40], [50, 50], [60, 60]]),
        (png(2, 1, 8, 0, b"\0\7\xf0", chunk(b"tRNS", b"\0\x08")), [[7, 240]]),
        (png(4, 1, 2, 0, b"\0\x1a", chunk(b"tRNS", b"\0\3")), [[0, 85, 170, 170]]),
        (png(8, 1, 1, 0, b"\0\xff", chunk(b"tRNS", b"\0\0")), [[255] * 8]),
        (png(1, 1, 8, 2, b"\0\1\2\3", chunk(b"tRNS", b"\0\1\0\2\0\4")), [[1], [2], [3]]),
        # Interlaced: three of the seven passes have a pixel in this image.
        (png(2, 2, 8, 0, b"\0\1\0\2\0\3\4", interlace=1), [[1, 2], [3, 4]]),
    ],
)
def test_every_kind_of_png_without_loss_decodes(data: bytes, expected: list[list[int]]) -> None:
    decoded = decode_image(data, "x.png")
    np.testing.assert_array_equal(decoded, np.array(expected).reshape(decoded.shape))
    header = probe_image(data, "x.png")
    assert header.refusal == ""
    assert decoded.shape == (header.channels, header.height, header.width)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 4), (8, 8), (13, 9)])
@pytest.mark.parametrize(("depth", "channels"), [(8, 1), (8, 3), (1, 1)])
def test_interlaced_png_decodes(shape: tuple[int, int], depth: int, channels: int) -> None:
    pixels = np.random.default_rng(2).integers(0, 2**depth, (*shape, channels), np.uint8)
    rows = b""
    # First row and column of each pass, steps down and across.
    for top, left, down, across in [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]:
        part = pixels[top::down, left::across]
        for row in part if part.size else ():
            rows += b"\0" + (row.tobytes() if depth == 8 else np.packbits(row).tobytes())
    colour = 2 if channels == 3 else 0
    decoded = decode_image(png(shape[1], shape[0], depth, colour, rows, interlace=1), "x.png")
    np.testing.assert_array_equal(decoded.transpose(1, 2, 0), pixels * (255 // (2**depth - 1)))
    with pytest.raises(InputError, match=rf"found {len(rows) - 1} bytes? of pixel rows, expected {len(rows)}"):
        decode_image(png(shape[1], shape[0], depth, colour, rows[:-1], interlace=1), "x.png")


def test_pixels_that_deflate_to_next_to_nothing_in_many_chunks_decode() -> None:
    stream = zlib.compress(bytes(1001 * 2000), 9)
    pieces = [chunk(b"IDAT", stream[place : place + 7]) for place in range(0, len(stream), 7)]
    empty = png(1000, 2000, 8, 0, b"")
    data = empty[:33] + b"".join(pieces) + empty[-12:]
    assert len(data) < 10_000
    np.testing.assert_array_equal(decode_image(data, "x.png"), np.zeros((1, 2000, 1000)))


@pytest.mark.parametrize(
    "data",
    [
        png(2, 1, 8, 4, b"\0\7\xff\xf0\xfe"),
        png(1, 1, 8, 6, b"\0\1\2\3\0"),
        png(2, 1, 8, 3, b"\0\1\0", PALETTE, chunk(b"tRNS", b"\0")),
        png(2, 1, 8, 3, b"\0\1\0", PALETTE, chunk(b"tRNS", b"\x80\xff")),
        png(2, 1, 8, 0, b"\0\7\xf0", chunk(b"tRNS", b"\0\7")),
        png(4, 1, 2, 0, b"\0\x1b", chunk(b"tRNS", b"\0\2")),
        png(2, 1, 4, 0, b"\0\x0f", chunk(b"tRNS", b"\0\x0f")),
        png(8, 1, 1, 0, b"\0\xfe", chunk(b"tRNS", b"\0\0")),
        png(1, 1, 8, 2, b"\0\1\2\3", chunk(b"tRNS", b"\0\1\0\2\0\3")),
    ],
)
def test_transparent_pixels_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^x\.png: has transparent pixels; expected none"):
        decode_image(data, "x.png")


def sample_of_depth(depth: int) -> bytes:
    """A JPEG file whose frame header says this depth."""
    data = saved(RED, "JPEG")
    place = data.index(b"\xff\xc0") + 4
    return data[:place] + bytes((depth,)) + data[place + 1 :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png(1, 1, 16, 0, b"\0\1\2"), "16 bits per sample"),
        (png(1, 1, 16, 2, b"\0\1\2\3\4\5\6"), "16 bits per sample"),
        (png(1, 1, 16, 4, b"\0\1\2\xff\xff"), "16 bits per sample"),
        (png(1, 1, 16, 6, b"\0\1\2\3\4\5\6\xff\xff"), "16 bits per sample"),
        (saved(Image.new("CMYK", (4, 3), (1, 2, 3, 4)), "JPEG"), "CMYK"),
        (sample_of_depth(12), "12 bits per sample"),
    ],
)
def test_what_uint8_gray_or_rgb_cannot_hold_is_refused_and_known_from_the_header(data: bytes, reason: str) -> None:
    assert reason in probe_image(data, "x").refusal
    with pytest.raises(InputError, match=f"^x: .*{reason}"):
        decode_image(data, "x")


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 50},
        {"progressive": True},
        {"subsampling": 2},
        {"subsampling": 1, "optimize": True},
        {"restart_marker_blocks": 1},
        {"keep_rgb": True},
        {"comment": "\xff\xda" * 300},
        {"dpi": (300, 300)},
        {"icc_profile": bytes(200_000)},
        {"exif": b"Exif\0\0II*\0\xff\xff\xff\xff damaged"},
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_jpeg_decodes_as_pillow_does(options: dict[str, object], channels: int) -> None:
    data = saved(DRAWN[3][:channels], "JPEG", **options)
    # Pillow warns of the damaged EXIF.
    plain = {key: value for key, value in options.items() if key != "exif"}
    np.testing.assert_array_equal(decode_image(data, "x.jpg"), by_pillow(saved(DRAWN[3][:channels], "JPEG", **plain)))
    assert probe_image(data, "x.jpg") == ImageHeader("jpeg", 32, 32, channels)


def test_bytes_out_of_place_before_the_frame_header_are_skipped() -> None:
    data = saved(DRAWN[0], "JPEG")
    place = data.index(b"\xff\xdb")
    np.testing.assert_array_equal(decode_image(data[:place] + b"junk\xff\xff" + data[place:], "x.jpg"), by_pillow(data))


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "JPEG"):
        assert decode_image(saved(RED, kind, exif=exif), "x").shape == (3, 7, 5)


@pytest.mark.parametrize("kind", ["PNG", "MPO"])
def test_of_several_images_the_first_is_read(kind: str) -> None:
    images = [Image.fromarray(pixels.transpose(1, 2, 0)) for pixels in DRAWN[:3]]
    data = saved(images[0], kind, save_all=True, append_images=images[1:])
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 3
    np.testing.assert_array_equal(decode_image(data, "x"), by_pillow(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"starts with bytes \(none\)"),
        (b"\x89", "starts with bytes 89; expected a PNG, JPEG, WebP, GIF, BMP or TIFF file"),
        (b"text, and more of it", "starts with bytes 74 65 78"),
        (saved(RED, "PPM"), "starts with bytes 50 36 0a"),
        (saved(RED, "TGA"), "expected a PNG, JPEG, WebP, GIF, BMP or TIFF file"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (png(1, 1, 8, 0, b"\0\0")[:30], "truncated"),
        (png(1, 1, 8, 0, b"\0\0").replace(b"IHDR", b"IHDr"), "IHDR"),
        (png(0, 5, 8, 0, b""), "is 5 x 0; expected 1 to"),
        (png(5, 0, 8, 0, b""), "is 0 x 5; expected 1 to"),
        (png(60000, 60000, 8, 2, b""), "is 60000 x 60000; expected 1 to 67,108,864 pixels"),
        (png(2**32 - 1, 2**32 - 1, 8, 2, b""), "expected 1 to"),
        (png(8193, 8192, 8, 0, b""), "is 8192 x 8193"),
        (png(1, 1, 3, 0, b"\0\0"), "depth 3"),
        (png(1, 1, 8, 5, b"\0\0"), "colour type 5"),
        (png(1, 1, 8, 0, b"\0\0", interlace=2), "methods"),
        (b"\xff\xd8", "truncated"),
        (b"\xff\xd8\xff\xd9", "no frame header"),
        (b"\xff\xd8\xff\xda\0\2", "no frame header"),
        (b"\xff\xd8\xff\xe1\xff\xffExif", "truncated"),
        (b"\xff\xd8" + b"\0" * 100_000, "no frame header"),
        (b"\xff\xd8" + b"\xff" * 100_000, "no frame header"),
        (b"\xff\xd8" + b"\xff\xfe\0\2" * 100_000, "no frame header"),
        (b"\xff\xd8\xff\xc0\0\3\x08", "frame header of 1 byte,"),
        (b"\xff\xd8\xff\xc0\0\x0b\x08\xea\x60\xea\x60\x01\x01\x11\0", "is 60000 x 60000"),
        (b"\xff\xd8\xff\xc0\0\x0b\x08\0\0\0\x05\x01\x01\x11\0", "is 0 x 5"),
    ],
)
def test_a_header_that_is_none_or_too_large_is_refused_before_any_pixel(data: bytes, reason: str) -> None:
    for read in (probe_image, decode_image):
        with pytest.raises(InputError, match=f"^pictures/x: .*{reason}"):
            read(data, "pictures/x")


def test_an_image_at_the_cap_is_taken() -> None:
    header = probe_image(png(8192, 8192, 8, 2, b""), "x.png")
    assert header.height * header.width == MAX_PIXELS


def test_the_header_of_an_open_file_is_read_no_further_than_needed(tmp_path: Path) -> None:
    jpeg = saved(DRAWN[0], "JPEG", icc_profile=bytes(100_000))
    data: dict[Literal["png", "jpeg"], bytes] = {"png": saved(DRAWN[0], "PNG"), "jpeg": jpeg}
    for encoding, content in data.items():
        (tmp_path / encoding).write_bytes(content)
        with (tmp_path / encoding).open("rb") as file:
            assert probe_image(file, encoding) == ImageHeader(encoding, 32, 32, 3)
            assert file.tell() == (33 + 8 if encoding == "png" else content.index(b"\xff\xc0") + 19)


def test_text_and_profile_bombs_are_not_unpacked() -> None:
    bomb = zlib.compress(bytes(1 << 23), 9)
    remarks = [chunk(b"iCCP", b"x\0\0" + bomb), *[chunk(b"zTXt", b"x\0\0" + bomb)] * 100, chunk(b"pHYs", b"")]
    data = png(2, 1, 8, 0, b"\0\7\xf0", *remarks)
    with pytest.raises(ValueError, match="too large"):
        Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(decode_image(data, "x.png"), [[[7, 240]]])


def test_pixels_beyond_the_image_are_not_unpacked() -> None:
    np.testing.assert_array_equal(decode_image(png(1, 1, 8, 0, b"\0\7" + bytes(1 << 24)), "x.png"), [[[7]]])


def test_a_jpeg_of_many_scans_is_refused() -> None:
    data = saved(RED, "JPEG")
    with pytest.raises(InputError, match="has 201 scans, .*at most 100 are supported"):
        decode_image(data[:-2] + b"\xff\xfe\0\4\xff\xd9" + b"\xff\xda\0\2" * 200 + data[-2:], "x.jpg")


def test_what_follows_a_jpeg_is_ignored() -> None:
    data = saved(DRAWN[0], "JPEG", progressive=True)
    np.testing.assert_array_equal(decode_image(data + b"\xff\xda\0\2" * 200, "x.jpg"), by_pillow(data))


def test_a_jpeg_of_two_sizes_is_refused() -> None:
    data = saved(RED, "JPEG")
    frame = data[data.index(b"\xff\xc0") : data.index(b"\xff\xc0") + 19]
    larger = frame[:5] + b"\xff\0\xff\0" + frame[9:]
    with pytest.raises(InputError, match="two sizes, 5 x 7 and 65280 x 65280"):
        decode_image(data.replace(frame, frame + larger), "x.jpg")


def without(data: bytes, kind: bytes) -> bytes:
    place = data.index(kind) - 4
    (length,) = struct.unpack_from(">I", data, place)
    return data[:place] + data[place + 12 + length :]


TEN = png(2, 1, 8, 3, b"\0\1\0", PALETTE)


@pytest.mark.parametrize(
    "data",
    [
        without(TEN, b"IDAT"),
        without(TEN, b"IEND"),
        without(TEN, b"PLTE"),
        png(2, 1, 8, 3, b"\0\1\2", PALETTE),
        png(2, 1, 8, 3, b"\0\1\0", chunk(b"PLTE", b"")),
        png(2, 1, 8, 3, b"\0\1\0") + PALETTE,
        png(2, 2, 8, 0, b"\0\1\2\0\3"),
        png(2, 2, 8, 0, b"\0\1\2"),
        png(2, 2, 8, 0, b""),
        png(2, 1, 8, 0, b"\7\1\2"),
        png(2, 1, 8, 0, b"\0\1\2", chunk(b"IDAT", b"not deflated")),
        png(2, 1, 8, 0, b"\0\1\2", chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))),
        png(2, 1, 8, 0, b"\0\1\2", chunk(b"tRNS", b"")),
        png(2, 1, 8, 0, b"\0\1\2", struct.pack(">I", 2**32 - 1) + b"tEXt"),
        b"\xff\xd8\xff\xc0\0\x0b\x08\0\5\0\7\x01\x01\x11\0",
        b"\xff\xd8\xff\xc0\0\x0b\x08\0\5\0\7\x01\x01\x11\0\xff\xda\0\2\xff\xd9",
        b"\xff\xd8\xff\xc3\0\x0b\x08\0\5\0\7\x01\x01\x11\0\xff\xd9",
        without(saved(RED, "PNG"), b"IDAT"),
        saved(RED, "JPEG").replace(b"\xff\xdb", b"\xff\xfe"),
        saved(RED, "JPEG").replace(b"\xff\xda", b"\xff\xfe"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^a/b\.x: .") as caught:
        decode_image(data, "a/b.x")
    assert "\n" not in str(caught.value)


def test_any_flipped_bit_or_missing_end_of_a_png_is_found() -> None:
    data = saved(RED, "PNG", pnginfo=_text())
    for place in range(len(data)):
        for changed in (data[:place], data[:place] + bytes((data[place] ^ 1 << place % 8,)) + data[place + 1 :]):
            with pytest.raises(InputError, match="^x"):
                decode_image(changed, "x")


def _text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b")
    return info


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_short_is_found_unless_all_its_pixels_are_there(progressive: bool) -> None:
    data = saved(DRAWN[0], "JPEG", progressive=progressive)
    whole = decode_image(data, "x")
    refused = 0
    for place in range(len(data)):
        try:
            np.testing.assert_array_equal(decode_image(data[:place], "x"), whole)
        except InputError:
            refused += 1
    assert refused >= len(data) - 4


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_the_bytes_only_an_input_error_is_raised(given_data: st.DataObject) -> None:
    base = given_data.draw(
        st.sampled_from([TEN, saved(DRAWN[0], "JPEG"), saved(DRAWN[0], "JPEG", progressive=True), b"\xff\xd8"])
    )
    data = bytearray(base)
    for _ in range(given_data.draw(st.integers(1, 5))):
        place = given_data.draw(st.integers(0, len(data)))
        data[place : place + given_data.draw(st.integers(0, 3))] = given_data.draw(st.binary(max_size=4))
    with contextlib.suppress(InputError):
        header = probe_image(data, "x")
        assert decode_image(data, "x").shape == (header.channels, header.height, header.width)
