"""Steps that change pixels, each with the function that applies it to a block; the plan records only the sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from beam_cifar.data.block import Block
from beam_cifar.data.limits import check_size
from beam_cifar.data.row_table import View
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError, UsageError
from beam_cifar.images.gray import to_gray
from beam_cifar.images.remarks import map_images
from beam_cifar.images.resize import resize_images
from beam_cifar.images.runs import pixels_of, with_pixels
from beam_cifar.steps.base import PixelStep, Step, option


@dataclass(frozen=True)
class Resize(PixelStep, named="resize"):
    """Resizes every image to the same size, with Pillow's bicubic filter."""

    width: int = option("-dw", "--width", parse=int, metavar="PIXELS", help="new width")
    height: int = option("-dh", "--height", parse=int, metavar="PIXELS", help="new height")

    def check(self) -> None:
        _check_size(self, (self.height, self.width))

    def resized(self, view: View) -> View:
        return _with_size(view, (self.height, self.width))

    def transform(self, block: Block) -> Block:
        return resize(block, size=(self.height, self.width))

    def row_bytes(self) -> int:
        return 3 * self.height * self.width


@dataclass(frozen=True)
class Crop(PixelStep, named="crop"):
    """Crops every image to a rectangle, by default its centre."""

    width: int = option("-dw", "--width", parse=int, metavar="PIXELS", help="width of the rectangle")
    height: int = option("-dh", "--height", parse=int, metavar="PIXELS", help="height of the rectangle")
    left: int | None = option(
        "-x", "--left", default=None, parse=int, metavar="PIXELS", help="columns to cut on the left; default: centred"
    )
    top: int | None = option(
        "-y", "--top", default=None, parse=int, metavar="PIXELS", help="rows to cut at the top; default: centred"
    )

    def check(self) -> None:
        _check_size(self, (self.height, self.width))
        for flag, value in (("--left", self.left), ("--top", self.top)):
            if value is not None and value < 0:
                raise self.refuse(f"{flag} must be 0 or more, found {value}")

    def resized(self, view: View) -> View:
        """Returns the rows with the new sizes. Raises `InputError` for an image that is too small."""
        heights, widths = np.asarray(view.heights), np.asarray(view.widths)
        least = (self.height + (self.top or 0), self.width + (self.left or 0))
        small = np.flatnonzero((heights >= 0) & ((heights < least[0]) | (widths < least[1])))
        if len(small):
            raise InputError(self._too_small(view, int(small[0]), len(small), least))
        return _with_size(view, (self.height, self.width))

    def transform(self, block: Block) -> Block:
        return crop(block, size=(self.height, self.width), left=self.left, top=self.top)

    def _too_small(self, view: View, row: int, count: int, least: tuple[int, int]) -> str:
        heights, widths, ids = np.asarray(view.heights), np.asarray(view.widths), view.ids
        subset = view.subset_names[view.subsets[row]]
        item = f"row {view.rows[row]} of its file" if ids is None else f"image {ids[row].as_py()!r}"
        more = f" (and {counted(count - 1, 'more image', verb='are')} too small)" if count > 1 else ""
        return (
            f"crop: subset {subset!r}: {item} is {heights[row]} x {widths[row]} pixels (height x width), expected "
            f"at least {least[0]} x {least[1]}{more}; resize first, or exclude small images with a filter"
        )


@dataclass(frozen=True)
class Grayscale(PixelStep, named="grayscale", columns=()):
    """Converts every image to gray, one channel, with the luma weights of ITU-R BT.601."""

    def transform(self, block: Block) -> Block:
        return grayscale(block)


def _check_size(step: Step, size: tuple[int, int]) -> None:
    try:
        check_size(size)
    except UsageError as error:
        raise step.refuse(str(error).removeprefix("--resize ")) from error


def _with_size(view: View, size: tuple[int, int]) -> View:
    """Returns the rows with the given size for all images."""
    pictured = np.asarray(view.heights) >= 0
    heights, widths = (np.where(pictured, np.int32(side), np.int32(-1)) for side in size)
    return replace(view, heights=heights, widths=widths)


def resize(block: Block, *, size: tuple[int, int]) -> Block:
    """Resizes every image of a block to (height, width), as raw pixels; images of that size stay untouched."""
    return map_images(block, lambda run: _resized(run, size), 3 * size[0] * size[1])


def _resized(run: pa.Table, size: tuple[int, int]) -> pa.Table:
    if (run.column("height")[0].as_py(), run.column("width")[0].as_py()) == size:
        return run
    return with_pixels(run, resize_images(pixels_of(run), size))


def crop(block: Block, *, size: tuple[int, int], left: int | None = None, top: int | None = None) -> Block:
    """Crops every image of a block, as raw pixels; images that already have the size stay untouched.

    Args:
        block: rows without an image stay unchanged.
        size: (height, width) of the rectangle.
        left: columns to cut on the left; None centres, and cuts an odd one on the right.
        top: rows to cut at the top; None centres, and cuts an odd one at the bottom.

    Raises:
        InputError: an image is damaged, or smaller than the rectangle.
    """
    return map_images(block, lambda run: _cropped(run, size, left, top))


def _cropped(run: pa.Table, size: tuple[int, int], left: int | None, top: int | None) -> pa.Table:
    height, width = (run.column(name)[0].as_py() for name in ("height", "width"))
    first_row = (height - size[0]) // 2 if top is None else top
    first_column = (width - size[1]) // 2 if left is None else left
    rows, columns = slice(first_row, first_row + size[0]), slice(first_column, first_column + size[1])
    if min(first_row, first_column) < 0 or rows.stop > height or columns.stop > width:
        subset, item_id = (run.column(name)[0].as_py() for name in ("subset", "id"))
        raise InputError(
            f"{subset}: image {item_id!r} is {height} x {width} pixels (height x width), expected at least "
            f"{size[0] + (top or 0)} x {size[1] + (left or 0)} to crop; resize first, or exclude it with a filter"
        )
    if (height, width) == size:
        return run
    return with_pixels(run, pixels_of(run)[:, :, rows, columns])


def grayscale(block: Block) -> Block:
    """Converts every image of a block to gray, as raw pixels of one channel; gray images stay untouched.

    Raises:
        InputError: an image is damaged.
    """
    return map_images(block, _gray)


def _gray(run: pa.Table) -> pa.Table:
    if run.column("channels")[0].as_py() == 1:
        return run
    return with_pixels(run, to_gray(pixels_of(run)))
