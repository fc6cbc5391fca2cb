"""Drawn images for sample sets: shaded objects of a few parts, one blueprint per class, on textured backgrounds.

Only operations that IEEE 754 rounds exactly (`+ - * /`, minimum, maximum) touch pixels: no BLAS, no `exp` or `sin`, no
normal deviates, whose last bit differs between machines. So a seed gives the same bytes everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from beam_cifar.genuine import CIFAR10_NAMES, CIFAR100_COARSE_OF_FINE, CIFAR100_SUPERCLASSES

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

SIDE: Final = 32
# Images drawn at a time: a plane of all of them stays in a core's cache. It is part of what a seed means.
_BLOCK: Final = 125
_PARTS: Final = 6

# One part of an object: centre x, y; half axes x, y; slant (tangent of half the angle); boxiness 0..1; its colour.
# The object lives in -1..1, y downwards.
_MAIN, _SECOND, _DARK, _LIGHT = 0, 1, 2, 3
Part = tuple[float, float, float, float, float, float, int]

BLUEPRINTS: Final[dict[str, tuple[Part, ...]]] = {
    "plane": (
        (0.75, -0.30, 0.14, 0.32, 0.20, 0.5, _SECOND),
        (0.10, -0.12, 0.16, 0.50, 0.30, 0.6, _DARK),
        (0.00, 0.00, 1.00, 0.18, 0.00, 0.1, _MAIN),
        (-0.70, -0.05, 0.14, 0.07, 0.00, 0.3, _DARK),
        (-0.05, 0.26, 0.20, 0.50, -0.35, 0.6, _SECOND),
        (-0.25, 0.22, 0.18, 0.09, 0.00, 0.2, _LIGHT),
    ),
    "car": (
        (0.05, -0.15, 0.55, 0.32, 0.00, 0.5, _MAIN),
        (0.05, -0.16, 0.44, 0.19, 0.00, 0.7, _DARK),
        (0.00, 0.18, 0.98, 0.28, 0.00, 0.8, _MAIN),
        (-0.52, 0.42, 0.23, 0.23, 0.00, 0.0, _DARK),
        (0.52, 0.42, 0.23, 0.23, 0.00, 0.0, _DARK),
        (-0.88, 0.12, 0.09, 0.08, 0.00, 0.2, _LIGHT),
    ),
    "truck": (
        (0.28, -0.12, 0.70, 0.52, 0.00, 1.0, _SECOND),
        (-0.66, 0.06, 0.32, 0.38, 0.00, 0.8, _MAIN),
        (-0.72, -0.08, 0.20, 0.15, 0.00, 0.8, _DARK),
        (0.00, 0.42, 0.98, 0.09, 0.00, 1.0, _DARK),
        (-0.60, 0.52, 0.20, 0.20, 0.00, 0.0, _DARK),
        (0.55, 0.52, 0.20, 0.20, 0.00, 0.0, _DARK),
    ),
    "bird": (
        (0.75, 0.20, 0.40, 0.12, 0.15, 0.4, _SECOND),
        (0.05, 0.70, 0.05, 0.30, 0.00, 0.8, _DARK),
        (0.05, 0.10, 0.62, 0.38, 0.12, 0.0, _MAIN),
        (-0.55, -0.32, 0.27, 0.26, 0.00, 0.0, _MAIN),
        (-0.88, -0.28, 0.18, 0.07, 0.00, 0.3, _LIGHT),
        (0.20, 0.06, 0.46, 0.22, 0.20, 0.1, _SECOND),
    ),
    "beast": (
        (0.48, 0.55, 0.13, 0.42, 0.05, 0.6, _MAIN),
        (-0.38, 0.55, 0.12, 0.42, -0.05, 0.6, _MAIN),
        (0.05, 0.10, 0.70, 0.34, 0.00, 0.2, _MAIN),
        (-0.55, -0.18, 0.20, 0.40, -0.25, 0.1, _SECOND),
        (-0.74, -0.46, 0.32, 0.22, 0.10, 0.1, _MAIN),
        (-0.60, -0.70, 0.08, 0.18, 0.10, 0.2, _DARK),
    ),
    "cub": (
        (0.00, 0.62, 0.58, 0.40, 0.00, 0.1, _MAIN),
        (-0.36, -0.52, 0.16, 0.28, -0.12, 0.3, _MAIN),
        (0.36, -0.52, 0.16, 0.28, 0.12, 0.3, _MAIN),
        (0.00, -0.10, 0.56, 0.46, 0.00, 0.0, _MAIN),
        (0.00, 0.12, 0.24, 0.19, 0.00, 0.0, _LIGHT),
        (0.00, 0.03, 0.11, 0.08, 0.00, 0.0, _DARK),
    ),
    "frog": (
        (0.55, 0.42, 0.45, 0.17, -0.20, 0.0, _SECOND),
        (-0.45, 0.52, 0.35, 0.13, 0.20, 0.0, _SECOND),
        (0.05, 0.15, 0.72, 0.42, 0.08, 0.0, _MAIN),
        (-0.55, -0.05, 0.36, 0.27, 0.00, 0.0, _MAIN),
        (-0.55, -0.28, 0.14, 0.14, 0.00, 0.0, _LIGHT),
        (-0.56, -0.28, 0.07, 0.08, 0.00, 0.0, _DARK),
    ),
    "ship": (
        (-0.20, -0.50, 0.04, 0.50, 0.00, 1.0, _DARK),
        (0.15, -0.15, 0.28, 0.22, 0.00, 1.0, _LIGHT),
        (0.00, 0.10, 0.60, 0.15, 0.00, 1.0, _SECOND),
        (0.30, -0.42, 0.09, 0.18, 0.00, 0.9, _MAIN),
        (0.00, 0.36, 0.98, 0.22, 0.03, 0.6, _MAIN),
        (0.00, 0.66, 1.80, 0.14, 0.00, 0.5, _DARK),
    ),
    "fish": (
        (0.85, 0.00, 0.24, 0.24, 0.41, 1.0, _SECOND),
        (0.05, -0.36, 0.28, 0.22, 0.41, 0.8, _SECOND),
        (-0.05, 0.00, 0.82, 0.38, 0.00, 0.0, _MAIN),
        (-0.05, 0.16, 0.60, 0.18, 0.00, 0.0, _LIGHT),
        (-0.58, -0.08, 0.09, 0.09, 0.00, 0.0, _DARK),
        (0.20, -0.02, 0.08, 0.30, 0.10, 0.4, _SECOND),
    ),
    "flower": (
        (0.05, 0.85, 0.06, 0.60, 0.05, 0.8, _DARK),
        (-0.42, -0.10, 0.45, 0.25, 0.00, 0.0, _MAIN),
        (0.42, -0.10, 0.45, 0.25, 0.00, 0.0, _MAIN),
        (0.00, -0.50, 0.26, 0.44, 0.00, 0.0, _MAIN),
        (0.00, 0.28, 0.26, 0.42, 0.00, 0.0, _MAIN),
        (0.00, -0.10, 0.20, 0.20, 0.00, 0.0, _SECOND),
    ),
    "tree": (
        (0.00, 1.05, 1.90, 0.22, 0.00, 0.3, _SECOND),
        (0.00, 0.60, 0.10, 0.50, 0.00, 0.9, _DARK),
        (-0.38, 0.00, 0.42, 0.36, 0.10, 0.0, _MAIN),
        (0.38, 0.02, 0.42, 0.38, -0.10, 0.0, _MAIN),
        (0.00, -0.35, 0.50, 0.46, 0.00, 0.0, _MAIN),
        (-0.15, -0.45, 0.22, 0.18, 0.00, 0.0, _LIGHT),
    ),
    "vessel": (
        (0.00, 0.82, 0.80, 0.12, 0.00, 0.0, _DARK),
        (0.00, -0.55, 0.16, 0.35, 0.00, 0.8, _MAIN),
        (0.00, 0.20, 0.48, 0.64, 0.00, 0.8, _MAIN),
        (0.00, 0.25, 0.48, 0.22, 0.00, 1.0, _SECOND),
        (0.00, -0.84, 0.20, 0.09, 0.00, 0.7, _SECOND),
        (-0.28, 0.10, 0.06, 0.45, 0.00, 0.3, _LIGHT),
    ),
    "fruit": (
        (0.10, 0.72, 0.80, 0.14, 0.00, 0.0, _DARK),
        (0.06, -0.72, 0.05, 0.26, 0.10, 0.8, _DARK),
        (0.28, -0.66, 0.26, 0.12, -0.20, 0.0, _SECOND),
        (-0.12, 0.05, 0.58, 0.64, 0.00, 0.0, _MAIN),
        (0.14, 0.05, 0.58, 0.62, 0.00, 0.0, _MAIN),
        (-0.28, -0.22, 0.15, 0.13, 0.00, 0.0, _LIGHT),
    ),
    "device": (
        (0.00, 0.78, 0.45, 0.10, 0.00, 0.6, _DARK),
        (0.00, 0.60, 0.10, 0.22, 0.00, 0.8, _SECOND),
        (0.00, -0.05, 0.86, 0.60, 0.00, 0.9, _MAIN),
        (-0.08, -0.05, 0.64, 0.46, 0.00, 0.9, _DARK),
        (0.72, -0.20, 0.07, 0.07, 0.00, 0.0, _LIGHT),
        (-0.25, -0.18, 0.26, 0.18, 0.15, 0.5, _SECOND),
    ),
    "furniture": (
        (-0.62, 0.65, 0.09, 0.40, 0.00, 1.0, _DARK),
        (0.62, 0.65, 0.09, 0.40, 0.00, 1.0, _DARK),
        (0.00, -0.28, 0.75, 0.52, 0.00, 0.8, _MAIN),
        (0.00, -0.24, 0.30, 0.36, 0.00, 0.7, _SECOND),
        (0.00, 0.34, 0.88, 0.20, 0.00, 0.8, _MAIN),
        (0.00, 0.20, 0.72, 0.10, 0.00, 0.5, _LIGHT),
    ),
    "bug": (
        (0.10, 0.00, 0.06, 0.80, 0.15, 0.6, _DARK),
        (-0.20, 0.00, 0.06, 0.75, -0.15, 0.6, _DARK),
        (0.30, 0.00, 0.58, 0.36, 0.00, 0.0, _MAIN),
        (-0.32, 0.00, 0.28, 0.26, 0.00, 0.0, _SECOND),
        (-0.65, 0.00, 0.19, 0.19, 0.00, 0.0, _DARK),
        (0.34, -0.34, 0.48, 0.24, 0.22, 0.1, _LIGHT),
    ),
    "building": (
        (0.00, 1.00, 1.90, 0.22, 0.00, 0.6, _DARK),
        (0.00, -0.45, 0.52, 0.52, 0.41, 1.0, _SECOND),
        (0.00, 0.32, 0.70, 0.60, 0.00, 1.0, _MAIN),
        (0.05, 0.66, 0.14, 0.28, 0.00, 1.0, _DARK),
        (-0.38, 0.16, 0.15, 0.15, 0.00, 1.0, _LIGHT),
        (0.42, 0.16, 0.15, 0.15, 0.00, 1.0, _DARK),
    ),
    "scene": (
        (-0.40, -0.75, 0.60, 0.22, 0.00, 0.0, _LIGHT),
        (-0.60, 0.35, 0.85, 0.62, 0.15, 0.3, _SECOND),
        (0.70, 0.40, 0.90, 0.55, -0.10, 0.2, _MAIN),
        (0.00, 0.95, 2.20, 0.48, 0.03, 0.6, _MAIN),
        (0.30, 1.10, 1.40, 0.36, -0.06, 0.3, _DARK),
        (-0.50, 0.75, 0.35, 0.10, 0.00, 0.0, _LIGHT),
    ),
    "person": (
        (0.00, 0.95, 0.78, 0.46, 0.00, 0.3, _SECOND),
        (0.00, -0.28, 0.54, 0.60, 0.00, 0.1, _DARK),
        (0.00, -0.08, 0.42, 0.54, 0.00, 0.0, _MAIN),
        (-0.17, -0.16, 0.09, 0.05, 0.00, 0.0, _DARK),
        (0.17, -0.16, 0.09, 0.05, 0.00, 0.0, _DARK),
        (0.00, 0.22, 0.15, 0.05, 0.00, 0.0, _SECOND),
    ),
    "crawler": (
        (0.72, 0.42, 0.42, 0.12, -0.25, 0.0, _SECOND),
        (0.30, 0.30, 0.46, 0.20, 0.22, 0.0, _MAIN),
        (-0.15, 0.15, 0.46, 0.24, -0.15, 0.0, _MAIN),
        (-0.55, -0.05, 0.38, 0.22, 0.25, 0.0, _MAIN),
        (-0.78, -0.28, 0.26, 0.19, 0.10, 0.0, _SECOND),
        (-0.84, -0.32, 0.06, 0.06, 0.00, 0.0, _DARK),
    ),
}

_CIFAR10_BLUEPRINTS: Final[dict[str, str]] = {
    "airplane": "plane",
    "automobile": "car",
    "bird": "bird",
    "cat": "cub",
    "deer": "beast",
    "dog": "cub",
    "frog": "frog",
    "horse": "beast",
    "ship": "ship",
    "truck": "truck",
}

_SUPERCLASS_BLUEPRINTS: Final[dict[str, str]] = {
    "aquatic_mammals": "fish",
    "fish": "fish",
    "flowers": "flower",
    "food_containers": "vessel",
    "fruit_and_vegetables": "fruit",
    "household_electrical_devices": "device",
    "household_furniture": "furniture",
    "insects": "bug",
    "large_carnivores": "beast",
    "large_man-made_outdoor_things": "building",
    "large_natural_outdoor_scenes": "scene",
    "large_omnivores_and_herbivores": "beast",
    "medium_mammals": "cub",
    "non-insect_invertebrates": "bug",
    "people": "person",
    "reptiles": "crawler",
    "small_mammals": "cub",
    "trees": "tree",
    "vehicles_1": "car",
    "vehicles_2": "truck",
}

# Backgrounds: colour at the top, colour at the bottom (R, G, B).
_SKY, _FIELD, _WATER, _ROOM, _EARTH, _STUDIO = range(6)
_GROUNDS: Final = np.array(
    [
        [[120, 160, 210], [190, 205, 220]],
        [[130, 150, 110], [85, 115, 55]],
        [[130, 165, 185], [50, 90, 115]],
        [[175, 155, 130], [110, 85, 65]],
        [[160, 145, 120], [125, 105, 80]],
        [[225, 225, 222], [190, 188, 185]],
    ],
    np.float32,
)

_GROUNDS_OF: Final[dict[str, tuple[int, int]]] = {
    "plane": (_SKY, _SKY),
    "car": (_EARTH, _STUDIO),
    "truck": (_EARTH, _SKY),
    "bird": (_SKY, _FIELD),
    "beast": (_FIELD, _EARTH),
    "cub": (_ROOM, _FIELD),
    "frog": (_FIELD, _EARTH),
    "ship": (_WATER, _SKY),
    "fish": (_WATER, _WATER),
    "flower": (_FIELD, _FIELD),
    "tree": (_SKY, _SKY),
    "vessel": (_STUDIO, _ROOM),
    "fruit": (_STUDIO, _ROOM),
    "device": (_STUDIO, _ROOM),
    "furniture": (_ROOM, _STUDIO),
    "bug": (_FIELD, _EARTH),
    "building": (_SKY, _SKY),
    "scene": (_SKY, _SKY),
    "person": (_ROOM, _FIELD),
    "crawler": (_EARTH, _FIELD),
}

# Main colours a class chooses from, by blueprint; others take the muted ones.
_MUTED: Final = ((120, 90, 60), (70, 60, 55), (165, 140, 110), (150, 150, 150), (200, 185, 160), (95, 75, 60))
_VIVID: Final = ((190, 40, 35), (220, 170, 40), (50, 80, 150), (200, 90, 140), (225, 225, 220), (60, 110, 60))
_GREEN: Final = ((60, 100, 45), (95, 125, 55), (40, 75, 45), (120, 115, 60), (75, 110, 80), (140, 105, 50))
_SKIN: Final = ((215, 170, 145), (190, 140, 110), (225, 185, 165), (150, 105, 80), (205, 160, 130), (170, 120, 90))
_METAL: Final = ((215, 215, 220), (150, 160, 175), (90, 100, 120), (235, 235, 235), (180, 185, 190), (70, 85, 110))
_COLOURS_OF: Final[dict[str, tuple[tuple[int, int, int], ...]]] = {
    "plane": _METAL,
    "ship": _METAL,
    "device": _METAL,
    "fish": _METAL,
    "car": _VIVID,
    "truck": _VIVID,
    "flower": _VIVID,
    "fruit": _VIVID,
    "vessel": _VIVID,
    "bug": _VIVID,
    "frog": _GREEN,
    "tree": _GREEN,
    "scene": _GREEN,
    "crawler": _GREEN,
    "person": _SKIN,
}


@dataclass(frozen=True)
class _Classes:
    """What is fixed for each of K classes.

    Attributes:
        parts: float32 [K, 6, 6], the first six figures of each `Part`.
        roles: intp [K, 6], the colour of each part.
        colours: float32 [K, 6, 3], the main colours of the class's blueprint.
        grounds: intp [K, 2], the backgrounds on which a class is seen.
    """

    parts: FloatArray
    roles: npt.NDArray[np.intp]
    colours: FloatArray
    grounds: npt.NDArray[np.intp]


def blueprint_names(kind: str) -> tuple[str, ...]:
    """Returns the blueprint of each class of `kind`, in label order."""
    if kind == "cifar10":
        return tuple(_CIFAR10_BLUEPRINTS[name] for name in CIFAR10_NAMES)
    of_coarse = [_SUPERCLASS_BLUEPRINTS[name] for name in CIFAR100_SUPERCLASSES]
    return tuple(of_coarse[coarse] for coarse in CIFAR100_COARSE_OF_FINE)


@lru_cache(maxsize=2)
def _classes(kind: str) -> _Classes:
    """Returns the tables of a kind; classes that share a blueprint differ in proportions and in tint."""
    names = blueprint_names(kind)
    parts = np.array([[part[:6] for part in BLUEPRINTS[name]] for name in names], np.float32)
    colours = np.array([_COLOURS_OF.get(name, _MUTED) for name in names], np.float32)
    rng = np.random.Generator(np.random.PCG64(len(names)))
    parts[:, :, :4] *= rng.uniform(0.78, 1.22, (len(names), _PARTS, 4)).astype(np.float32)
    colours *= rng.uniform(0.8, 1.2, (len(names), 1, 3)).astype(np.float32)
    return _Classes(
        parts=parts,
        roles=np.array([[part[6] for part in BLUEPRINTS[name]] for name in names], np.intp),
        colours=colours,
        grounds=np.array([_GROUNDS_OF[name] for name in names], np.intp),
    )


def draw_images(rng_seed: int, labels: npt.NDArray[np.integer], kind: str) -> UInt8Array:
    """Draws one image for each label: a shaded object of that class, posed and coloured at random, on a background.

    Args:
        rng_seed: what the images depend on, together with the labels; >= 0.
        labels: int [N], classes of `kind`.
        kind: `cifar10` or `cifar100`, known names only.

    Returns:
        uint8 [N, 3, 32, 32], R, G, B planes.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(rng_seed)))
    images = np.empty((len(labels), 3, SIDE, SIDE), np.uint8)
    for start in range(0, len(labels), _BLOCK):
        block = slice(start, start + _BLOCK)
        images[block] = _draw_block(rng, labels[block], _classes(kind))
    return images


def _draw_block(rng: np.random.Generator, labels: npt.NDArray[np.integer], classes: _Classes) -> UInt8Array:
    """Returns uint8 [N, 3, 32, 32] for labels int [N]."""
    rough = _roughness(rng, len(labels))
    image = _background(rng, classes.grounds[labels], rough)
    _draw_object(rng, image, classes, labels)
    _add_texture(rng, image, rough)
    np.clip(image, 0, 255, out=image)
    return image.astype(np.uint8)


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> FloatArray:
    """Returns float32 numbers in low..high."""
    values = rng.random(shape, np.float32)
    values *= np.float32(high - low)
    values += np.float32(low)
    return values


def _roughness(rng: np.random.Generator, count: int) -> FloatArray:
    """Returns float32 [N, 1, 1]: how textured each image is; most are middling, some smooth, some rough."""
    rough = _uniform(rng, 0.1, 1.15, count, 1, 1)
    return rough + _uniform(rng, 0.0, 1.0, count, 1, 1) * _uniform(rng, 0, 1, count, 1, 1)


def _double(grid: FloatArray) -> FloatArray:
    """Returns a grid [N, S, S] at twice the size, linearly interpolated at the quarters between samples."""
    rows = _double_rows(grid)
    count, height, width = rows.shape
    out = np.empty((count, height, 2 * width), np.float32)
    far, near = rows * np.float32(0.25), rows * np.float32(0.75)
    np.add(near[:, :, 1:], far[:, :, :-1], out=out[:, :, 2::2])
    np.add(near[:, :, :-1], far[:, :, 1:], out=out[:, :, 1:-1:2])
    out[:, :, 0], out[:, :, -1] = rows[:, :, 0], rows[:, :, -1]
    return out


def _double_rows(grid: FloatArray) -> FloatArray:
    """Returns a grid [N, S, T] with twice the rows."""
    count, height, width = grid.shape
    out = np.empty((count, 2 * height, width), np.float32)
    far, near = grid * np.float32(0.25), grid * np.float32(0.75)
    np.add(near[:, 1:], far[:, :-1], out=out[:, 2::2])
    np.add(near[:, :-1], far[:, 1:], out=out[:, 1:-1:2])
    out[:, 0], out[:, -1] = grid[:, 0], grid[:, -1]
    return out


def _clouds(
    rng: np.random.Generator, count: int, amplitudes: tuple[float, ...], side: int, rough: FloatArray
) -> FloatArray:
    """Returns float32 [N, S, S], S = side * 2**(scales - 1): noise at several scales, as in nature.

    Args:
        rng: the source.
        count: N.
        amplitudes: of each scale, coarsest first.
        side: the size of the coarsest grid.
        rough: float32 [N, 1, 1], multiplies all but the coarsest scale.
    """
    grid = _uniform(rng, -amplitudes[0], amplitudes[0], count, side, side)
    for amplitude in amplitudes[1:]:
        grid = _double(grid)
        detail = _grain(rng, amplitude, *grid.shape)
        detail *= rough
        grid += detail
    return grid


def _background(rng: np.random.Generator, grounds: npt.NDArray[np.intp], rough: FloatArray) -> FloatArray:
    """Returns float32 [N, 3, 32, 32]: a gradient between two colours, tinted by large soft patches."""
    count = len(grounds)
    pick = np.where(rng.random(count, np.float32) < 0.7, grounds[:, 0], grounds[:, 1])
    ends = _GROUNDS[pick] * _uniform(rng, 0.55, 1.2, count, 1, 1) + _uniform(rng, -22, 22, count, 2, 3)
    slope = np.arange(SIDE, dtype=np.float32) / np.float32(SIDE - 1)
    lean = _uniform(rng, -0.4, 0.4, count, 1, 1)
    blend = slope[:, None] * (1 - np.abs(lean)) + lean * slope
    patches = _clouds(rng, 3 * count, (16.0, 12.0), 4, np.repeat(rough, 3, axis=0))
    patches = _double(_double(patches)).reshape(count, 3, SIDE, SIDE)
    patches += ends[:, 0, :, None, None]
    patches += blend[:, None] * (ends[:, 1] - ends[:, 0])[:, :, None, None]
    return patches


def _draw_object(
    rng: np.random.Generator, image: FloatArray, classes: _Classes, labels: npt.NDArray[np.integer]
) -> None:
    """Draws the parts of each image's object in place, in a common pose and light; image float32 [N, 3, 32, 32]."""
    count = len(labels)
    parts = classes.parts[labels] * _uniform(rng, 0.85, 1.15, count, _PARTS, 6)
    colours = _palette(rng, classes.colours[labels])[np.arange(count)[:, None], classes.roles[labels]]
    colours += _uniform(rng, -14, 14, count, _PARTS, 3)
    pose = _pose(rng, count)
    light = _uniform(rng, -0.28, 0.28, 2, count)
    light[1] -= np.float32(0.12)
    for number in range(_PARTS):
        _draw_part(image, _PlacedPart(parts[:, number], pose), colours[:, number], light)


def _palette(rng: np.random.Generator, colours: FloatArray) -> FloatArray:
    """Returns float32 [N, 4, 3]: main, second, dark and light colour of each object, from its class's [N, 6, 3]."""
    count, choices = colours.shape[:2]
    rows = np.arange(count)
    # The least of two draws: a class has its usual colours and its rare ones.
    first = rng.integers(0, choices, (2, count)).min(axis=0)
    main, second = colours[rows, first], colours[rows, rng.integers(0, choices, count)]
    dark = _uniform(rng, 15, 60, count, 1) + main * np.float32(0.12)
    light = _uniform(rng, 170, 240, count, 1) + second * np.float32(0.1)
    palette = np.stack([main, (main + second) * np.float32(0.5), dark, light], axis=1)
    return np.asarray(palette * _uniform(rng, 0.7, 1.2, count, 1, 1), np.float32)


def _pose(rng: np.random.Generator, count: int) -> FloatArray:
    """Returns float32 [2, 3, N]: object x and y of a pixel, as factors of its column, its row, and 1.

    The object is scaled, turned a little, moved, and mirrored half of the time.
    """
    cosine, sine = _turn(_uniform(rng, -0.12, 0.12, count))
    zoom = _uniform(rng, 0.95, 1.5, count)
    mirror = np.where(rng.random(count, np.float32) < 0.5, -zoom, zoom)
    left, top = _uniform(rng, -0.2, 0.2, 2, count)
    x = np.stack([cosine * mirror, sine * mirror, -(left * cosine + top * sine) * mirror])
    y = np.stack([-sine * zoom, cosine * zoom, (left * sine - top * cosine) * zoom])
    return np.stack([x, y])


def _turn(half_tangent: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Returns cosine and sine of an angle from the tangent of its half, exactly rounded on any machine."""
    square = half_tangent * half_tangent
    return (1 - square) / (1 + square), 2 * half_tangent / (1 + square)


class _PlacedPart:
    """One part of N objects, ready to draw.

    Args:
        part: float32 [N, 6], see `Part`.
        pose: float32 [2, 3, N], see `_pose`.

    Attributes:
        boxy: float32 [N], 0 for an ellipse, 1 for a box.
        sharp: float32 [N], how much the coverage falls over the outermost half radius.
        u: float32 [3, N], place along the part's own first axis as factors of column, row, and 1; +-1 at its edge.
        v: the same for the second axis.
    """

    def __init__(self, part: FloatArray, pose: FloatArray) -> None:
        centre_x, centre_y, radius_x, radius_y, slant, boxy = part.T
        cosine, sine = _turn(slant)
        x, y = pose
        x, y = _moved(x, centre_x), _moved(y, centre_y)
        self.u = (x * cosine + y * sine) / radius_x
        self.v = (y * cosine - x * sine) / radius_y
        self.boxy = np.minimum(boxy, np.float32(1))
        # 1 - r**2 falls by 2 per radius at the edge, and a pixel is 1 / 16 of the image's half side.
        self.sharp = 7 * np.minimum(radius_x, radius_y)


def _moved(factors: FloatArray, distance: FloatArray) -> FloatArray:
    """Returns factors float32 [3, N] with the constant less the distance."""
    return np.stack([factors[0], factors[1], factors[2] - distance])


_AXIS: Final = (np.arange(SIDE, dtype=np.float32) - np.float32(15.5)) / np.float32(16)


def _plane(factors: FloatArray) -> FloatArray:
    """Returns float32 [N, 32, 32]: factors [3, N] of column, row, and 1, at each pixel."""
    across = factors[0, :, None] * _AXIS + factors[2, :, None]
    down = factors[1, :, None] * _AXIS
    plane: FloatArray = across[:, None, :] + down[:, :, None]
    return plane


def _draw_part(image: FloatArray, part: _PlacedPart, colour: FloatArray, light: FloatArray) -> None:
    """Draws one part of each object in place, shaded as if round.

    Args:
        image: float32 [N, 3, 32, 32].
        part: its place and form.
        colour: float32 [N, 3].
        light: float32 [2, N], how much brighter the part gets along each axis.
    """
    shade = part.u * light[0] + part.v * light[1]
    shade[2] += 1
    shading = _plane(shade)
    cover = _coverage(part)
    paint = np.empty_like(cover)
    for channel in range(3):
        np.multiply(shading, colour[:, channel, None, None], out=paint)
        paint -= image[:, channel]
        paint *= cover
        image[:, channel] += paint


def _coverage(part: _PlacedPart) -> FloatArray:
    """Returns float32 [N, 32, 32] in 0..1: how much of each pixel the part covers; its edge is about a pixel soft."""
    sharp = np.sqrt(part.sharp)
    across, down = _plane(part.u * sharp), _plane(part.v * sharp)
    across *= across
    down *= down
    cover = np.minimum(across, down)
    cover *= part.boxy[:, None, None]
    cover -= across
    cover -= down
    cover += (part.sharp + np.float32(0.5))[:, None, None]
    return np.clip(cover, 0, 1, out=cover)


def _grain(rng: np.random.Generator, amplitude: float, *shape: int) -> FloatArray:
    """Returns float32 numbers in -amplitude..amplitude, in 256 steps: less than half the price of `_uniform`."""
    values = np.frombuffer(rng.bytes(math.prod(shape)), np.uint8).reshape(shape).astype(np.float32)
    values -= np.float32(127.5)
    values *= np.float32(amplitude / 127.5)
    return values


def _add_texture(rng: np.random.Generator, image: FloatArray, rough: FloatArray) -> None:
    """Adds grain in place: most of it brightness at several scales, a little each channel's own."""
    count = len(image)
    image += _clouds(rng, count, (9.0, 9.0, 10.0, 12.0), 4, rough)[:, None]
    own = _grain(rng, 5.0, *image.shape)
    own *= rough[:, None]
    image += own
