"""Resizing: the pixels that Pillow gives for each image by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from beam_cifar.images.resize import resize_images
from beam_cifar.samples.drawing import draw_images

DRAWN = draw_images(1, np.arange(30) % 10, "cifar10")


def by_pillow(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns uint8 [N, 3, h, w], each image resized as RGB."""
    images = [Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in pixels]
    resized = [np.array(image.resize(size[::-1], Image.Resampling.BICUBIC)) for image in images]
    return np.ascontiguousarray(np.stack(resized).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (16, 48), (31, 33), (32, 64), (64, 32), (100, 7), (224, 224)])
def test_every_image_is_resized_as_pillow_does(size: tuple[int, int]) -> None:
    resized = resize_images(DRAWN, size)
    assert resized.dtype == np.uint8
    assert resized.flags.c_contiguous
    assert resized.flags.writeable
    np.testing.assert_array_equal(resized, by_pillow(DRAWN, size))


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 4), st.integers(1, 5))
def test_any_size_is_resized_as_pillow_does(sides: tuple[int, int, int, int], count: int) -> None:
    pixels = np.random.default_rng(sum(sides)).integers(0, 256, (count, 3, *sides[:2]), np.uint8)
    np.testing.assert_array_equal(resize_images(pixels, sides[2:]), by_pillow(pixels, sides[2:]))


def test_large_images_are_resized_as_pillow_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 700, 500), np.uint8)
    for size in [(224, 300), (900, 20)]:
        np.testing.assert_array_equal(resize_images(pixels, size), by_pillow(pixels, size))


def test_pixels_of_that_size_are_returned_as_they_are() -> None:
    assert resize_images(DRAWN, (32, 32)) is DRAWN


def test_channels_are_resized_by_themselves() -> None:
    whole = resize_images(DRAWN, (20, 45))
    for channel in range(3):
        np.testing.assert_array_equal(resize_images(DRAWN[:, channel : channel + 1], (20, 45))[:, 0], whole[:, channel])


@pytest.mark.parametrize("size", [(1, 1), (7, 50), (200, 3), (64, 64)])
@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_constant_images_stay_constant(value: int, size: tuple[int, int]) -> None:
    np.testing.assert_array_equal(
        resize_images(np.full((2, 3, 13, 29), value, np.uint8), size), np.full((2, 3, *size), value)
    )


@pytest.mark.parametrize("size", [(10, 60), (60, 10), (80, 160)])
def test_height_and_width_are_not_swapped(size: tuple[int, int]) -> None:
    down = np.broadcast_to(np.arange(0, 240, 6, dtype=np.uint8)[:, None], (1, 1, 40, 30))
    resized = resize_images(down, size)[0, 0].astype(int)
    assert (np.diff(resized, axis=1) == 0).all()
    assert (np.diff(resized, axis=0) >= 0).all()
    assert resized[0, 0] < 30
    assert resized[-1, 0] > 210
    across = resize_images(down.transpose(0, 1, 3, 2), size[::-1])[0, 0]
    np.testing.assert_array_equal(across.T, resized)


def test_shrinking_averages_over_all_pixels() -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(resize_images(checks[None, None], (8, 8)).astype(int) - 127).max() <= 2


@pytest.mark.parametrize("size", [(8, 8), (20, 20), (40, 40), (333, 333)])
def test_an_edge_overshoots_by_less_than_a_tenth(size: tuple[int, int]) -> None:
    pixels = np.full((1, 1, 32, 32), 100, np.uint8)
    pixels[..., 16:] = 200
    resized = resize_images(pixels, size)
    assert resized.min() >= 90
    assert resized.max() <= 210


def test_views_of_other_arrays_are_taken_and_left_as_they_are() -> None:
    before = DRAWN.copy()
    view = DRAWN[::3, ::-1, 4:20, ::2]
    np.testing.assert_array_equal(resize_images(view, (9, 30)), by_pillow(view, (9, 30)))
    np.testing.assert_array_equal(DRAWN, before)


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (0, 1, 5, 7)])
def test_an_empty_block_gives_an_empty_block(shape: tuple[int, ...]) -> None:
    assert resize_images(np.empty(shape, np.uint8), (8, 9)).shape == (0, shape[1], 8, 9)


@pytest.mark.parametrize(
    ("pixels", "size", "reason"),
    [
        (DRAWN.astype(np.float32), (8, 8), "pixels are float32"),
        (DRAWN[0], (8, 8), r"uint8 \[3, 32, 32\]"),
        (np.empty((2, 3, 0, 5), np.uint8), (8, 8), r"uint8 \[2, 3, 0, 5\]"),
        (DRAWN, (0, 8), "size is 0 x 8; expected a height and width of 1 or more"),
        (DRAWN, (8, -1), "size is 8 x -1"),
    ],
)
def test_what_cannot_be_resized_is_refused(pixels: np.ndarray, size: tuple[int, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        resize_images(pixels, size)
