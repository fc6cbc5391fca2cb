"""Cuts one rectangle out of all images."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from beam_cifar.data.block import Block
from beam_cifar.errors import InputError
from beam_cifar.images.runs import map_runs, pixels_of, with_pixels


def crop(block: Block, *, size: tuple[int, int], left: int | None = None, top: int | None = None) -> Block:
    """Cuts a rectangle out of every image of a block, as pixels; one that has its size already stays untouched.

    Args:
        block: its rows without image stay as they are.
        size: (height, width) of the rectangle.
        left: columns left of it; None centres it, an odd one goes to the right.
        top: rows above it; None centres it, an odd one goes below.

    Raises:
        InputError: the rectangle does not fit into an image, or an image is damaged.
    """
    return replace(block, table=map_runs(block.table, lambda run: _cropped(run, size, left, top)))


def _cropped(run: pa.Table, size: tuple[int, int], left: int | None, top: int | None) -> pa.Table:
    height, width = (run.column(name)[0].as_py() for name in ("height", "width"))
    first_row = (height - size[0]) // 2 if top is None else top
    first_column = (width - size[1]) // 2 if left is None else left
    rows, columns = slice(first_row, first_row + size[0]), slice(first_column, first_column + size[1])
    if min(first_row, first_column) < 0 or rows.stop > height or columns.stop > width:
        subset, item_id = (run.column(name)[0].as_py() for name in ("subset", "id"))
        raise InputError(
            f"{subset}: image {item_id!r} is {height} x {width} pixels; expected at least height and width of "
            f"{size[0] + (top or 0)} x {size[1] + (left or 0)} to crop; resize before, or filter such images out"
        )
    if (height, width) == size:
        return run
    return with_pixels(run, pixels_of(run)[:, :, rows, columns])
