"""Encodes pixels as files, a block at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.block import Block
from beam_cifar.coders import map_blocks
from beam_cifar.example import RAW, binary_array
from beam_cifar.images.png import encode_png


def encode_images(block: Block, *, encoding: str) -> Block:
    """Encodes the raw images of a block; rows without image stay without.

    Args:
        block: with images that are all raw, or all in `encoding` already, which pass through untouched.
        encoding: "raw" or "png".
    """
    table = block.table
    if encoding == RAW or table.column("encoding").unique().to_pylist() in ([], [encoding]):
        return block
    images = _encoded(table)
    image_at, encoding_at = (table.schema.get_field_index(name) for name in ("image", "encoding"))
    names = pa.repeat(pa.scalar(encoding, pa.string()), len(table))
    table = table.set_column(image_at, table.field(image_at), images)
    return replace(block, table=table.set_column(encoding_at, table.field(encoding_at), names))


@dataclass
class EncodeImages(beam.PTransform):
    """Encodes raw pixels.

    Attributes:
        encoding: "raw" (nothing happens) or "png".
    """

    encoding: str

    def __post_init__(self) -> None:
        if self.encoding not in (RAW, "png"):
            raise ValueError(f"encoding must be 'raw' or 'png', found {self.encoding!r}")

    def expand(self, blocks: beam.PCollection[Block]) -> beam.PCollection[Block]:
        """From blocks to blocks."""
        return blocks | map_blocks(encode_images, encoding=self.encoding)


def _encoded(table: pa.Table) -> pa.ChunkedArray | pa.Array:
    """The images of a table as PNG files."""
    pieces = [_encode_run(run) for run in _runs(table)]
    return pieces[0] if len(pieces) == 1 else pa.chunked_array(pieces, pa.binary())


def _runs(table: pa.Table) -> Iterator[pa.Table]:
    """Cuts a table where the image size changes: images of one size are encoded together."""
    heights, widths = (table.column(name).fill_null(0).to_numpy() for name in ("height", "width"))
    cuts = np.flatnonzero((np.diff(heights) != 0) | (np.diff(widths) != 0)) + 1
    edges = [0, *cuts.tolist(), len(table)]
    for start, stop in itertools.pairwise(edges):
        yield table.slice(start, stop - start)


def _encode_run(table: pa.Table) -> pa.Array:
    images = table.column("image").combine_chunks()
    if images.null_count:
        return images
    buffer, offsets = encode_png(_pixels(images, table))
    return binary_array(buffer, np.asarray(offsets, dtype=np.int32))


def _pixels(images: pa.Array, table: pa.Table) -> npt.NDArray[np.uint8]:
    """The pixels as uint8 [N, C, H, W], a view on Arrow's buffer."""
    shape = [table.column(name)[0].as_py() for name in ("channels", "height", "width")]
    offsets = np.frombuffer(images.buffers()[1], dtype=np.int32)[images.offset : images.offset + len(images) + 1]
    values = np.frombuffer(images.buffers()[2], dtype=np.uint8)[offsets[0] : offsets[-1]]
    return values.reshape(len(images), *shape)
