"""Steps that change images: the plan learns only their sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from beam_cifar.data.block import Block
from beam_cifar.data.limits import check_size
from beam_cifar.data.row_table import View
from beam_cifar.errors import InputError, UsageError
from beam_cifar.steps.base import PixelStep, Step, option
from beam_cifar.steps.crop import crop
from beam_cifar.steps.grayscale import grayscale
from beam_cifar.steps.resize import resize

# Block functions are imported where they are used: their package loads Beam.


@dataclass(frozen=True)
class Resize(PixelStep):
    """Gives every image one size, by Pillow's bicubic filter."""

    name: ClassVar[str] = "resize"

    width: int = option("-dw", "--width", parse=int, metavar="PIXELS", help="width that every image gets")
    height: int = option("-dh", "--height", parse=int, metavar="PIXELS", help="height that every image gets")

    def check(self) -> None:
        _check_size(self, (self.height, self.width))

    def resized(self, view: View) -> View:
        return _with_size(view, (self.height, self.width))

    def transform(self, block: Block) -> Block:
        return resize(block, size=(self.height, self.width))

    def row_bytes(self) -> int:
        return 3 * self.height * self.width


@dataclass(frozen=True)
class Crop(PixelStep):
    """Cuts one rectangle out of every image; its middle, unless told otherwise."""

    name: ClassVar[str] = "crop"

    width: int = option("-dw", "--width", parse=int, metavar="PIXELS", help="width of the rectangle")
    height: int = option("-dh", "--height", parse=int, metavar="PIXELS", help="height of the rectangle")
    left: int | None = option(
        "-x", "--left", default=None, parse=int, metavar="PIXELS", help="columns left of it; centred if left out"
    )
    top: int | None = option(
        "-y", "--top", default=None, parse=int, metavar="PIXELS", help="rows above it; centred if left out"
    )

    def check(self) -> None:
        _check_size(self, (self.height, self.width))
        for flag, value in (("--left", self.left), ("--top", self.top)):
            if value is not None and value < 0:
                raise self.refuse(f"{flag} must be 0 or more, found {value}")

    def resized(self, view: View) -> View:
        """See `PixelStep.resized`.

        Raises:
            InputError: an image is too small.
        """
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
        more = f" (and {count - 1} more images are too small)" if count > 1 else ""
        return (
            f"crop: subset {subset!r}: {item} is {heights[row]} x {widths[row]} pixels; expected height and width "
            f"of at least {least[0]} x {least[1]}{more}; resize before, or filter such images out"
        )


@dataclass(frozen=True)
class Grayscale(PixelStep):
    """Makes every image gray, one channel, by the luma of ITU-R BT.601."""

    name: ClassVar[str] = "grayscale"

    def needs(self) -> frozenset[str]:
        """Nothing: sizes stay."""
        return frozenset()

    def transform(self, block: Block) -> Block:
        return grayscale(block)


def _check_size(step: Step, size: tuple[int, int]) -> None:
    try:
        check_size(size)
    except UsageError as error:
        raise step.refuse(str(error).removeprefix("--resize ")) from error


def _with_size(view: View, size: tuple[int, int]) -> View:
    """The rows with one size for all images."""
    pictured = np.asarray(view.heights) >= 0
    heights, widths = (np.where(pictured, np.int32(side), np.int32(-1)) for side in size)
    return replace(view, heights=heights, widths=widths)
