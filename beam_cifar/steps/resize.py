"""Gives all images one size."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from beam_cifar.data.block import Block
from beam_cifar.images.resize import resize_images
from beam_cifar.images.runs import map_runs, pixels_of, with_pixels


def resize(block: Block, *, size: tuple[int, int]) -> Block:
    """Gives every image of a block the size (height, width), as pixels; one that has it already stays untouched."""
    return replace(block, table=map_runs(block.table, lambda run: _resized(run, size), 3 * size[0] * size[1]))


def _resized(run: pa.Table, size: tuple[int, int]) -> pa.Table:
    if (run.column("height")[0].as_py(), run.column("width")[0].as_py()) == size:
        return run
    return with_pixels(run, resize_images(pixels_of(run), size))
