"""Draws images for sample datasets: a simple object per class, posed at random on a textured background.

As PNG files they are as large as photos, 2.3 KB on average. Pixels are computed only with operations that round the
same on every machine (no `exp`, `sin` or normal deviates), so a seed gives the same bytes everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from beam_cifar.data.arrays import UInt8Array
from beam_cifar.formats.cifar.facts import CIFAR100_COARSE_OF_FINE

FloatArray = npt.NDArray[np.float32]

SIDE: Final = 32

# Background and main colour, then shapes from back to front: colour (m, s, d, l: main, second, dark, light; a capital
# is a box, lower case an ellipse), centre x and y, half width and half height, in hundredths of the object's half side.
_OBJECTS: Final = {
    "plane": "sky c8ccd4 S 75 -30 12 32 s 12 -25 11 40 m 0 0 100 18 d -70 -5 14 7 s -4 34 15 46 l -25 22 18 9",
    "car": "earth be2823 m 5 -15 55 36 D 5 -16 40 17 M 0 18 98 26 d -52 42 24 24 d 52 42 24 24 l -88 12 9 8",
    "truck": "earth 3250aa S 28 -12 70 52 M -66 6 32 38 D -72 -8 20 15 D 0 42 98 9 d -60 52 21 21 d 55 52 21 21",
    "bird": "sky a06e3c s 75 12 42 13 D 5 70 5 30 m 5 10 62 38 m -55 -32 27 26 l -88 -28 18 8 s 20 6 46 20",
    "deer": "field a57850 D -80 -80 5 30 D -52 -80 5 30 M 45 60 11 45 M -35 60 11 45 m 5 10 66 32 s -60 -35 28 30",
    "horse": "earth 5a3c28 d 72 28 12 48 M 48 62 13 42 M -38 62 13 42 m 5 8 70 36 M -50 -20 20 42 m -68 -52 36 20",
    "cat": "room d28c3c m 0 62 50 40 M -40 -55 14 26 M 40 -55 14 26 m 0 -10 58 44 d -24 -18 9 9 d 24 -18 9 9",
    "dog": "field 8c7864 s 0 62 50 40 m 0 -15 48 56 s -54 0 20 46 s 54 0 20 46 l 0 18 30 26 d 0 8 13 10",
    "frog": "field 4b8732 s 55 42 45 17 s -45 52 35 13 m 5 15 72 42 m -55 -5 36 27 l -55 -28 16 16 d -56 -28 8 9",
    "ship": "water d2d2d7 D -20 -50 4 50 L 15 -15 28 22 S 0 10 60 15 M 30 -42 9 18 M 0 32 98 14 m 0 42 84 24",
    "fish": "water 8c96a5 s 88 0 18 42 s 5 -38 28 18 m 0 0 80 36 m 70 0 28 14 l -52 -8 11 11 d -54 -8 5 6",
    "flower": "field c8508c D 5 85 6 60 m -42 -10 45 25 m 42 -10 45 25 m 0 -50 26 44 m 0 28 26 42 l 0 -10 20 20",
    "tree": "sky 3c642d s 0 115 300 34 D 0 60 10 50 m -38 0 42 36 m 38 2 42 38 m 0 -35 50 46 l -15 -45 20 15",
    "vessel": "studio 3282a0 d 0 82 80 12 M 0 -55 16 35 M 0 22 48 62 S 0 25 48 22 S 0 -84 20 9 l -28 10 6 45",
    "fruit": "studio c83228 d 10 72 80 14 D 6 -72 5 26 s 28 -66 26 12 m -12 5 58 64 m 14 5 58 62 l -28 -22 15 13",
    "device": "studio 5f697d D 0 78 45 10 S 0 60 10 22 M 0 -5 86 60 D -8 -5 64 46 l 72 -20 7 7 s -25 -18 26 18",
    "furniture": "room 785a3c D -62 65 9 40 D 62 65 9 40 M 0 -28 75 52 S 0 -24 30 36 M 0 34 88 20 l 0 20 72 10",
    "bug": "field b4781e D 10 0 6 80 D -20 0 6 75 m 30 0 58 36 s -32 0 28 26 d -65 0 19 19 l 34 -34 48 20",
    "building": "sky a58c6e D 0 100 300 22 D 0 -40 30 40 M 0 32 70 60 D 5 66 14 28 L -38 16 15 15 L 42 16 15 15",
    "scene": "sky 4b783c l -40 -75 60 22 s -70 55 95 75 m 80 60 99 65 m 0 120 300 60 d 30 130 140 45 l -50 78 35 9",
    "person": "room d7aa91 s 0 95 78 46 d 0 -28 54 60 m 0 -8 42 54 d -17 -16 9 5 d 17 -16 9 5 s 0 24 15 5",
    "crawler": "earth b4c846 s 72 42 42 12 m 30 30 46 20 m -15 15 46 24 m -55 -5 38 22 s -78 -28 26 19 d -84 -32 6 6",
}
# The object for each CIFAR-10 class and each CIFAR-100 superclass, in label order.
_CIFAR10: Final = "plane car bird cat deer dog frog horse ship truck"
_CIFAR100: Final = (
    "fish fish flower vessel fruit device furniture bug deer building "
    "scene horse dog bug person crawler cat tree car truck"
)
# Background colours at the top and at the bottom.
_GROUNDS: Final = {
    "sky": "78a0d2 becddc",
    "field": "82966e 557337",
    "water": "82a5b9 325a73",
    "room": "af9b82 6e5541",
    "earth": "a09178 7d6950",
    "studio": "e1e1de bebcb9",
}
_SHAPE_SIDE: Final = 96
_AXIS: Final = (np.arange(SIDE, dtype=np.float32) - np.float32(15.5)) / np.float32(16)


class _Classes(NamedTuple):
    """The constants of K classes."""

    shapes: UInt8Array  # [K, 96, 96]: colour index of each point of the object, from 1; 0 is the background
    colours: FloatArray  # [K, 3]: main colour
    grounds: FloatArray  # [K, 2, 3]: background colours at the top and at the bottom


@lru_cache(maxsize=2)
def _classes(kind: str) -> _Classes:
    """Returns the constants for a kind; the five classes of a superclass differ in proportions and tint."""
    spread = 0 if kind == "cifar10" else 1
    names = [_CIFAR100.split()[coarse] for coarse in CIFAR100_COARSE_OF_FINE] if spread else _CIFAR10.split()
    grounds, colours, *parts = zip(*(_OBJECTS[name].split() for name in names), strict=True)
    rng = np.random.Generator(np.random.PCG64(len(names)))
    tints = 1 + spread * rng.uniform(-0.5, 0.5, (len(names), 3))
    sizes = 1 + spread * rng.uniform(-0.3, 0.3, (len(names), 6, 2))
    return _Classes(
        shapes=np.stack([_paint(words, factors) for *words, factors in zip(*parts, sizes, strict=True)]),
        colours=np.array([list(bytes.fromhex(colour)) for colour in colours] * tints, np.float32),
        grounds=np.array([list(bytes.fromhex(_GROUNDS[name])) for name in grounds], np.float32).reshape(-1, 2, 3),
    )


def _paint(words: list[str], sizes: npt.NDArray[np.float64]) -> UInt8Array:
    """Returns uint8 [96, 96]: an object, from -150 to 150 hundredths, its shapes scaled by factors [6, 2]."""
    axis = (np.arange(_SHAPE_SIDE) + 0.5) * (300 / _SHAPE_SIDE) - 150
    shape = np.zeros((_SHAPE_SIDE, _SHAPE_SIDE), np.uint8)
    for number, (width, height) in enumerate(sizes):
        colour, *place = words[5 * number : 5 * number + 5]
        x, y, half_width, half_height = map(int, place)
        across, down = (axis - x) / (half_width * width), (axis[:, None] - y) / (half_height * height)
        inside = np.maximum(abs(across), abs(down)) if colour.isupper() else across * across + down * down
        shape[inside < 1] = 1 + "msdl".index(colour.lower())
    return shape


def draw_images(rng_seed: int | Sequence[int], labels: npt.NDArray[np.integer], kind: str) -> UInt8Array:
    """Draws one image per label: an object of that class, posed and coloured at random, on a background.

    Args:
        rng_seed: one or more numbers >= 0; the images depend on these and the labels only.
        labels: int [N], classes of `kind`.
        kind: `cifar10` or `cifar100`; not checked.

    Returns:
        uint8 [N, 3, 32, 32], R, G, B planes.
    """
    rng = np.random.Generator(np.random.PCG64(rng_seed))
    classes, count = _classes(kind), len(labels)
    colours = _posed(rng, classes.shapes, labels)
    palette = _palette(rng, classes.colours[labels]).reshape(3, -1)
    paint = palette.take(colours + 5 * np.arange(count)[:, None, None], axis=1)
    lit = classes.grounds[labels] * _uniform(rng, 0.6, 1.2, count, 1, 1)
    top, bottom = lit.transpose(1, 2, 0)[..., None, None]
    image = np.where(colours > 0, paint, top + (bottom - top) * (_AXIS[:, None] + 1) / 2)
    # Like photos, most images are of medium roughness, some smooth, some rough.
    rough = _uniform(rng, 0.1, 1.2, count, 1, 1) + _uniform(rng, 0, 1, count, 1, 1) * _uniform(rng, 0, 1, count, 1, 1)
    image += _noise(rng, 4, 3, count) * np.float32(0.15)
    for side in (8, 16, SIDE):
        image += _noise(rng, side, count) * (rough * np.float32(0.09))
    image += _noise(rng, SIDE, 3, count) * (rough * np.float32(0.06))
    np.clip(image, 0, 255, out=image)
    return np.ascontiguousarray(image.transpose(1, 0, 2, 3), np.uint8)


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> FloatArray:
    return np.asarray(rng.random(shape, np.float32) * np.float32(high - low) + np.float32(low))


def _posed(rng: np.random.Generator, shapes: UInt8Array, labels: npt.NDArray[np.integer]) -> UInt8Array:
    """Returns uint8 [N, 32, 32]: colour indices of the objects, rotated, scaled, moved, and half of them mirrored."""
    count = len(labels)
    turn, right, down = _uniform(rng, -0.2, 0.2, 3, count, 1, 1)
    zoom = _uniform(rng, 1, 1.4, count, 1, 1) * np.float32(_SHAPE_SIDE / 3)
    mirror = np.where(rng.random((count, 1, 1), np.float32) < 0.5, -zoom, zoom)
    columns = (_AXIS + turn * _AXIS[:, None] + right) * mirror
    rows = (_AXIS[:, None] - turn * _AXIS + down) * zoom
    x, y = (np.clip(places + _SHAPE_SIDE // 2, 0, _SHAPE_SIDE - 1).astype(np.intp) for places in (columns, rows))
    return np.asarray(shapes[labels[:, None, None], y, x])


def _palette(rng: np.random.Generator, main: FloatArray) -> FloatArray:
    """Returns float32 [3, N, 5]: unused, then main, second, dark and light colour of each object; main is [N, 3]."""
    main = main * _uniform(rng, 0.7, 1.25, len(main), 1) + _uniform(rng, -25, 25, *main.shape)
    dark, light = _uniform(rng, 15, 60, len(main), 1), _uniform(rng, 170, 250, len(main), 1)
    return np.asarray(np.stack([main, main, main * np.float32(0.6) + 40, dark + main / 8, light + main / 8]).T)


def _noise(rng: np.random.Generator, side: int, *shape: int) -> FloatArray:
    """Returns float32 [..., 32, 32] in -128..127: random grids of side x side, linearly interpolated.

    Weights are multiples of 1 / 16 and values are single bytes, so sums are exact in whatever order BLAS adds them.
    """
    values = np.frombuffer(rng.bytes(math.prod(shape) * side * side), np.int8)
    grids = values.reshape(*shape, side, side).astype(np.float32)
    if side == SIDE:
        return grids
    places = np.clip((np.arange(SIDE) + 0.5) * side / SIDE - 0.5, 0, side - 1)
    weights = np.maximum(1 - abs(places[:, None] - np.arange(side)), 0).astype(np.float32)
    return np.asarray(weights @ grids @ weights.T)
