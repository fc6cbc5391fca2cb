"""Gives all images one size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import apache_beam as beam
import pyarrow as pa

from beam_cifar.block import Block
from beam_cifar.coders import map_blocks
from beam_cifar.images.resize import resize_images
from beam_cifar.transforms.pixels import map_runs, pixels_of, with_pixels


def resize(block: Block, *, size: tuple[int, int]) -> Block:
    """Gives every image of a block the size (height, width), as pixels; one that has it already stays untouched."""
    return replace(block, table=map_runs(block.table, lambda run: _resized(run, size), 3 * size[0] * size[1]))


def _resized(run: pa.Table, size: tuple[int, int]) -> pa.Table:
    if (run.column("height")[0].as_py(), run.column("width")[0].as_py()) == size:
        return run
    return with_pixels(run, resize_images(pixels_of(run), size))


@dataclass
class Resize(beam.PTransform):
    """Gives all images one size.

    Attributes:
        size: (height, width), in pixels.
    """

    size: tuple[int, int]

    def display_data(self) -> dict[str, str]:
        """The size."""
        return {"size": f"{self.size[0]}x{self.size[1]}"}

    def expand(self, blocks: beam.PCollection[Block]) -> beam.PCollection[Block]:
        """From blocks to blocks."""
        return blocks | map_blocks(resize, size=self.size)
