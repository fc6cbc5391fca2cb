"""Selects images for the page and draws them small, as data URIs of limited size."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from beam_cifar.analysis.stats import DuplicateGroup
from beam_cifar.data.arrays import Int64Array, UInt8Array
from beam_cifar.data.labels import UNLABELLED
from beam_cifar.data.row_table import View
from beam_cifar.images.runs import pixels_of
from beam_cifar.planning.chosen_rows import read_rows
from beam_cifar.planning.gather import Gathering
from beam_cifar.report.model import MAX_SHEETS, TILE_SIDE, Sheet, Tile

SHEET_TILES: Final = 10
"""Pictures per class."""
FULL_SHEETS: Final = 100
"""With more classes, each has half the pictures."""
MAX_TILES: Final = 3000
"""Maximum number of pictures in all sheets."""

_PREFIX: Final = "data:image/webp;base64,"
# WebP qualities to try until a picture fits, first in full size, then in half.
_QUALITIES: Final = (90, 60)
_HALF_QUALITIES: Final = (60, 30)


@dataclass(frozen=True)
class Picks:
    """Rows of a view whose images are shown.

    Attributes:
        classes: label and number of images of each class with a sheet.
        rows: for each of these classes, positions in the view: int64, ascending.
        duplicates: position of the first row of each group of duplicates, -1 if not found.
    """

    classes: tuple[tuple[int, int], ...]
    rows: tuple[Int64Array, ...]
    duplicates: tuple[int, ...]

    @property
    def positions(self) -> Int64Array:
        """All distinct positions: int64 `[N]`, ascending."""
        shown = np.array([at for at in self.duplicates if at >= 0], dtype=np.int64)
        return np.unique(np.concatenate([*self.rows, shown]))

    @property
    def uses(self) -> int:
        """Number of pictures on the page; an image shown in two places counts twice."""
        return sum(map(len, self.rows)) + len(self.duplicates)


def pick(view: View, groups: Sequence[DuplicateGroup]) -> Picks:
    """Selects up to the same number of rows of every class, evenly spread, and a row of each group of duplicates.

    Args:
        view: all rows of the dataset, with ids.
        groups: groups of duplicates.
    """
    found = np.flatnonzero(view.has_image)
    order = found[np.argsort(view.labels[found], kind="stable")]
    labels, starts, counts = np.unique(view.labels[order], return_index=True, return_counts=True)
    members = {int(label): order[start : start + n] for label, start, n in zip(labels, starts, counts, strict=True)}
    shown = sorted(members, key=lambda label: (label == UNLABELLED, label))[:MAX_SHEETS]
    usual = SHEET_TILES if len(shown) <= FULL_SHEETS else SHEET_TILES // 2
    each = max(1, min(usual, MAX_TILES // max(1, len(shown))))
    return Picks(
        classes=tuple((label, len(members[label])) for label in shown),
        rows=tuple(_spread(members[label], each) for label in shown),
        duplicates=tuple(_places(view, [group.rows[0][:2] for group in groups])),
    )


def _spread(rows: Int64Array, count: int) -> Int64Array:
    count = min(count, len(rows))
    # The middle of each of `count` equal ranges.
    return rows[(2 * np.arange(count) + 1) * len(rows) // (2 * count)]


def _places(view: View, wanted: Sequence[tuple[str, str]]) -> list[int]:
    """Returns the positions of items given by subset and id; -1 for a missing one."""
    if not wanted or view.ids is None:
        return [-1] * len(wanted)
    among = np.flatnonzero(pc.is_in(view.ids, value_set=pa.array([item_id for _, item_id in wanted], pa.string())))
    places = {(view.subset_names[view.subsets[at]], view.ids[at].as_py()): int(at) for at in among[::-1]}
    return [places.get(item, -1) for item in wanted]


def empty_tiles(picks: Picks, view: View) -> dict[int, Tile]:
    """Returns the pictures by position, with ids and subsets only."""
    return {
        at: Tile("" if view.ids is None else view.ids[at].as_py(), view.subset_names[view.subsets[at]])
        for at in picks.positions.tolist()
    }


def draw_tiles(tiles: dict[int, Tile], view: View, gathering: Gathering, most: int) -> dict[int, Tile]:
    """Draws the tiles, reading only their images.

    Args:
        tiles: tiles by position in the view.
        view: all rows of the dataset.
        gathering: the inputs of the view.
        most: maximum bytes of each data URI.

    Raises:
        InputError: an image is damaged.
    """
    if not tiles:
        return {}
    positions = np.array(sorted(tiles, key=lambda at: (view.files[at], view.rows[at])), dtype=np.int64)
    drawn: dict[int, Tile] = {}
    for table in read_rows(view.files[positions], view.rows[positions], gathering.inputs()):
        for row in range(len(table)):
            at = int(positions[len(drawn)])
            pixels = pixels_of(table.slice(row, 1))[0]
            height, width = pixels.shape[1:]
            drawn[at] = replace(tiles[at], height=height, width=width, source=data_uri(pixels, most))
    return drawn


def data_uri(pixels: UInt8Array, most: int) -> str:
    """Returns an image as a data URI; empty if it does not fit.

    Args:
        pixels: uint8 `[C, H, W]`, with C 1 or 3.
        most: maximum bytes of the data URI.
    """
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    room = (most - len(_PREFIX)) // 4 * 3
    for data in _encodings(image, room):
        if len(data) <= room:
            return _PREFIX + base64.b64encode(data).decode("ascii")
    return ""


def _scaled(image: Image.Image) -> Image.Image:
    longer = max(image.size)
    if longer <= TILE_SIDE:
        return image
    size = [max(1, round(side * TILE_SIDE / longer)) for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _encodings(image: Image.Image, room: int) -> Iterator[bytes]:
    """Yields the image in decreasing sizes; a small one is tried losslessly first if that may fit."""
    whole = _scaled(image)
    if whole is image and 4 * room >= image.width * image.height:
        yield _webp(image, lossless=True, method=0)
    for quality in _QUALITIES:
        yield _webp(whole, quality=quality, method=2)
    half = whole.resize((max(1, whole.width // 2), max(1, whole.height // 2)), Image.Resampling.LANCZOS)
    for quality in _HALF_QUALITIES:
        yield _webp(half, quality=quality, method=2)


def _webp(image: Image.Image, **options: int | bool) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", **options)
    return file.getvalue()


def drawn_sheets(picks: Picks, tiles: dict[int, Tile]) -> tuple[Sheet, ...]:
    """Returns the sheet of each class, from tiles by position."""
    return tuple(
        Sheet(label, images, tuple(tiles[at] for at in rows.tolist()))
        for (label, images), rows in zip(picks.classes, picks.rows, strict=True)
    )
