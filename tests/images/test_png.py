"""PNG encoding: exact pixels through Pillow, chunks and checksums through a parser of the test's own."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from beam_cifar.images import png

SHAPES = [(1, 1), (1, 9), (9, 1), (32, 32), (33, 17), (300, 200)]
ENCODERS = ["isal", "zlib"]


def files(pixels: np.ndarray, encoder: str = "isal") -> list[bytes]:
    buffer, offsets = png.encode_png(pixels, encoder=encoder)
    assert len(offsets) == len(pixels) + 1
    assert offsets[0] == 0
    assert offsets[-1] == len(buffer)
    return [bytes(buffer[start:stop]) for start, stop in pairwise(offsets)]


def by_pillow(file: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(file))
    assert image.format == "PNG"
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def chunks(file: bytes) -> list[tuple[bytes, bytes]]:
    """Reads the chunks of a PNG file, checking the signature and every CRC."""
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    found, place = [], 8
    while place < len(file):
        (length,) = struct.unpack(">I", file[place : place + 4])
        kind, body = file[place + 4 : place + 8], file[place + 8 : place + 8 + length]
        (crc,) = struct.unpack(">I", file[place + 8 + length : place + 12 + length])
        assert crc == zlib.crc32(kind + body)
        found.append((kind, body))
        place += 12 + length
    return found


def pictures(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    if kind == "noise":
        return np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    if kind == "constant":
        return np.full(shape, 200, np.uint8)
    ramp = np.arange(shape[-1]) * 3 + np.arange(shape[-2])[:, None] * 5
    return np.broadcast_to(ramp, shape).astype(np.uint8)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("kind", ["noise", "constant", "gradient"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_pillow_reads_back_equal_pixels(shape: tuple[int, int], channels: int, kind: str, encoder: str) -> None:
    pixels = pictures(kind, (3, channels, *shape))
    for image, file in zip(pixels, files(pixels, encoder), strict=True):
        np.testing.assert_array_equal(by_pillow(file), image)


@settings(max_examples=60, deadline=None)
@given(
    pixels=st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 12), st.integers(1, 12)).flatmap(
        lambda shape: arrays.arrays(np.uint8, shape)
    ),
    encoder=st.sampled_from(ENCODERS),
)
def test_any_pixels_are_kept(pixels: np.ndarray, encoder: str) -> None:
    for image, file in zip(pixels, files(pixels, encoder), strict=True):
        np.testing.assert_array_equal(by_pillow(file), image)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_file_is_one_header_one_stream_and_one_end(encoder: str) -> None:
    pixels = pictures("noise", (2, 3, 5, 7))
    for file in files(pixels, encoder):
        (ihdr, header), (idat, stream), (iend, nothing) = chunks(file)
        assert (ihdr, idat, iend, nothing) == (b"IHDR", b"IDAT", b"IEND", b"")
        assert struct.unpack(">IIBBBBB", header) == (7, 5, 8, 2, 0, 0, 0)
        assert len(zlib.decompress(stream)) == 5 * (1 + 7 * 3)


def test_gray_images_have_colour_type_0() -> None:
    ((_, header), *_) = chunks(files(pictures("noise", (1, 1, 5, 7)))[0])
    assert struct.unpack(">IIBBBBB", header) == (7, 5, 8, 0, 0, 0, 0)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_block_without_images_has_one_offset_and_no_bytes(encoder: str) -> None:
    buffer, offsets = png.encode_png(np.empty((0, 3, 32, 32), np.uint8), encoder=encoder)
    assert len(buffer) == 0
    assert offsets.tolist() == [0]
    assert offsets.dtype == np.int32


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_file_does_not_depend_on_its_neighbours_in_the_block(encoder: str) -> None:
    pixels = pictures("noise", (200, 3, 32, 32))
    pixels[::3] //= 16
    block = files(pixels, encoder)
    assert block == files(pixels, encoder)
    assert [block[0], block[150]] == files(pixels[:1], encoder) + files(pixels[150:151], encoder)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("shape", [(2, 3, 400, 500), (1, 3, 3, 200_000), (1, 1, 300_000, 1)])
def test_images_larger_than_the_working_space_are_encoded_in_stripes(shape: tuple[int, ...], encoder: str) -> None:
    pixels = pictures("gradient", shape)
    pixels[:, :, 1::7] ^= 5
    assert pixels[0].nbytes > png._SLAB_BYTES
    for image, file in zip(pixels, files(pixels, encoder), strict=True):
        assert [kind for kind, _ in chunks(file)] == [b"IHDR", b"IDAT", b"IEND"]
        np.testing.assert_array_equal(by_pillow(file), image)


def test_stripes_filter_to_the_same_bytes_as_the_whole_image() -> None:
    pixels = pictures("noise", (2, 3, 10, 6))
    stripes = [png.filter_rows(pixels, start, start + 4) for start in range(0, 10, 4)]
    np.testing.assert_array_equal(np.concatenate(stripes, axis=1), png.filter_rows(pixels))


def test_rows_take_the_filter_that_leaves_less() -> None:
    across = np.tile(np.arange(0, 250, 25, dtype=np.uint8), (10, 1))
    pixels = np.stack([across, across.T.copy()])[:, None]
    chosen = png.filter_rows(pixels)[:, 1:, 0]
    assert set(chosen[0].tolist()) == {2}
    assert set(chosen[1].tolist()) == {1}


def test_planes_need_not_be_contiguous() -> None:
    pixels = pictures("noise", (4, 32, 32, 3)).transpose(0, 3, 1, 2)
    for image, file in zip(pixels, files(pixels), strict=True):
        np.testing.assert_array_equal(by_pillow(file), image)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((1, 3, 4, 4), np.int16), "int16"),
        (np.zeros((1, 4, 4, 4), np.uint8), "C 1 or 3"),
        (np.zeros((3, 4, 4), np.uint8), r"\[3, 4, 4\]"),
        (np.zeros((1, 3, 0, 4), np.uint8), "0 x 4"),
    ],
)
def test_other_arrays_are_refused(pixels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        png.encode_png(pixels)


def test_an_unknown_encoder_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown encoder 'lzma'; expected one of isal, zlib"):
        png.encode_png(np.zeros((1, 3, 4, 4), np.uint8), encoder="lzma")


def test_a_file_does_not_depend_on_the_thread_that_makes_it() -> None:
    """At levels 1 and 2 isal mixes an address into its hashes: 100 threads then make other files of 5 of these images."""
    images = np.random.default_rng(1).integers(0, 5, (400, 1, 12, 20), dtype=np.uint8)
    made: list[list[bytes]] = []
    together = threading.Barrier(100)  # so that each has a stack of its own

    def make() -> None:
        together.wait()
        made.append(files(images))

    threads = [threading.Thread(target=make) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(other != first for other, first in zip(each, made[0], strict=True)) for each in made] == [0] * 100
