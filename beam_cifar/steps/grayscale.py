"""Makes all images gray."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from beam_cifar.data.block import Block
from beam_cifar.images.gray import to_gray
from beam_cifar.images.runs import map_runs, pixels_of, with_pixels


def grayscale(block: Block) -> Block:
    """Makes every image of a block gray, as pixels of one channel; one that is gray already stays untouched.

    Raises:
        InputError: an image is damaged.
    """
    return replace(block, table=map_runs(block.table, _gray))


def _gray(run: pa.Table) -> pa.Table:
    if run.column("channels")[0].as_py() == 1:
        return run
    return with_pixels(run, to_gray(pixels_of(run)))
