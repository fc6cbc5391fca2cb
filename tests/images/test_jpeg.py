"""JPEG encoding: what the headers say, how near the pixels are, and where each file lies."""

from __future__ import annotations

import io
import struct
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from beam_cifar.data.limits import MAX_SIDE
from beam_cifar.images.decode import decode_image
from beam_cifar.images.jpeg import QUALITY, encode_jpeg
from beam_cifar.images.resize import resize_images
from beam_cifar.samples.drawing import draw_images

DRAWN = draw_images(1, np.arange(40) % 10, "cifar10")
# Of the first entries of the luma table in ITU-T T.81, K.1, in zigzag order.
LUMA = (16, 11, 12, 14, 12, 10, 16, 14)


def files(pixels: np.ndarray, **options: int) -> list[bytes]:
    buffer, offsets = encode_jpeg(pixels, **options)
    assert isinstance(buffer, bytearray)
    assert offsets.dtype == np.int32
    assert len(offsets) == len(pixels) + 1
    assert offsets[0] == 0
    assert offsets[-1] == len(buffer)
    return [bytes(buffer[start:stop]) for start, stop in pairwise(offsets)]


def segments(file: bytes) -> dict[int, bytes]:
    """Returns the first segment of each marker up to the scan."""
    assert file[:2] == b"\xff\xd8"
    assert file[-2:] == b"\xff\xd9"
    found: dict[int, bytes] = {}
    place, marker = 2, 0
    while marker != 0xDA:
        start, marker, length = struct.unpack_from(">BBH", file, place)
        assert start == 0xFF
        found.setdefault(marker, file[place + 4 : place + 2 + length])
        place += 2 + length
    return found


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other) ** 2)
    return float(10 * np.log10(255**2 / error))


@pytest.mark.parametrize(("channels", "sampling"), [(1, [(1, 0x11)]), (3, [(1, 0x11), (2, 0x11), (3, 0x11)])])
@pytest.mark.parametrize("shape", [(1, 1), (7, 30), (32, 32)])
def test_files_are_baseline_at_full_colour_resolution(
    channels: int, sampling: list[tuple[int, int]], shape: tuple[int, int]
) -> None:
    for file in files(np.full((2, channels, *shape), 90, np.uint8)):
        depth, height, width, components = struct.unpack(">BHHB", segments(file)[0xC0][:6])
        assert (depth, height, width, components) == (8, *shape, channels)
        layers = segments(file)[0xC0][6:]
        assert [(layers[place], layers[place + 1]) for place in range(0, len(layers), 3)] == sampling
        assert not segments(file).keys() & {0xE1, 0xE2, 0xFE}


@pytest.mark.parametrize("quality", [1, 30, 75, 95, 100])
def test_quality_is_that_of_the_quantization_table(quality: int) -> None:
    (file,) = files(DRAWN[:1], quality=quality)
    # As jpeg_quality_scaling of the IJG library.
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    expected = [min(255, max(1, (value * scale + 50) // 100)) for value in LUMA]
    assert list(segments(file)[0xDB][1:9]) == expected


def test_quality_is_95_unless_said_otherwise() -> None:
    assert QUALITY == 95
    assert files(DRAWN) == files(DRAWN, quality=95) != files(DRAWN, quality=94)


@pytest.mark.parametrize("channels", [1, 3])
def test_drawn_images_stay_above_35_decibels(channels: int) -> None:
    large = resize_images(DRAWN[:4], (120, 97))
    for pixels in (DRAWN, large):
        for image, file in zip(pixels[:, :channels], files(pixels[:, :channels]), strict=True):
            decoded = np.array(Image.open(io.BytesIO(file))).reshape(*image.shape[1:], channels).transpose(2, 0, 1)
            assert psnr(image, decoded) > 35
            np.testing.assert_array_equal(decode_image(file, "x.jpg"), decoded)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_no_channel_is_swapped_and_no_side(channel: int) -> None:
    pixels = np.zeros((1, 3, 20, 50), np.uint8)
    pixels[:, channel, :10] = 200
    (file,) = files(pixels)
    assert np.abs(decode_image(file, "x.jpg").astype(int) - pixels[0]).max() < 12


def test_views_of_other_arrays_are_taken() -> None:
    assert files(DRAWN[::2, ::-1, :, 4:20]) == files(np.ascontiguousarray(DRAWN[::2, ::-1, :, 4:20]))


def test_an_image_is_encoded_the_same_in_any_block() -> None:
    assert files(DRAWN) == [file for image in DRAWN for file in files(image[None])]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_empty_block_gives_no_file(channels: int) -> None:
    buffer, offsets = encode_jpeg(np.empty((0, channels, 32, 32), np.uint8))
    assert (buffer, offsets.tolist()) == (bytearray(), [0])


@pytest.mark.parametrize("shape", [(MAX_SIDE, 1), (1, MAX_SIDE)])
def test_the_longest_side_is_encoded(shape: tuple[int, int]) -> None:
    (file,) = files(np.full((1, 1, *shape), 7, np.uint8))
    assert decode_image(file, "x.jpg").shape == (1, *shape)


@pytest.mark.parametrize(
    ("pixels", "quality", "reason"),
    [
        (np.zeros((1, 1, MAX_SIDE + 1, 1), np.uint8), 95, "images are 65501 x 1; JPEG supports sides from 1 to 65500"),
        (np.zeros((1, 1, 1, MAX_SIDE + 1), np.uint8), 95, "images are 1 x 65501"),
        (np.zeros((1, 3, 0, 5), np.uint8), 95, "images are 0 x 5"),
        (np.zeros((1, 4, 5, 5), np.uint8), 95, "uint8 [1, 4, 5, 5]"),
        (np.zeros((1, 3, 5, 5), np.float32), 95, "pixels are float32"),
        (np.zeros((3, 5, 5), np.uint8), 95, "uint8 [3, 5, 5]"),
        (DRAWN, 0, "quality is 0; expected 1 to 100"),
        (DRAWN, 101, "quality is 101"),
    ],
)
def test_what_cannot_be_encoded_is_refused(pixels: np.ndarray, quality: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("[", r"\[").replace("]", r"\]")):
        encode_jpeg(pixels, quality=quality)
