"""What decoding does to images that users should know, counted where it happens and told once a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

import pyarrow as pa

from beam_cifar.data.block import Block
from beam_cifar.images.encodings import RAW
from beam_cifar.images.header import probe_image
from beam_cifar.images.runs import map_runs

TURNED: Final = "turned"
"""The EXIF orientation of an image was applied."""

_NOTICES: Final = {
    TURNED: "turned upright by their EXIF orientation; pass --exif keep to leave pixels as they are stored"
}


def map_images(block: Block, function: Callable[[pa.Table], pa.Table], row_bytes: int = 0) -> Block:
    """Returns a block after `map_runs`, with remarks on the images that the function had to decode.

    Args:
        block: rows without an image stay unchanged.
        function: returns a run with other images, or the run itself if they stay as they are.
        row_bytes: as for `map_runs`.
    """
    remarks = block.remarks.copy()

    def watched(run: pa.Table) -> pa.Table:
        made = function(run)
        if made is not run and run.column("encoding")[0].as_py() != RAW:
            remarks.update(_remarks(run))
        return made

    return replace(block, table=map_runs(block.table, watched, row_bytes), remarks=remarks)


def _remarks(run: pa.Table) -> Iterator[str]:
    for image in run.column("image").combine_chunks():
        if probe_image(memoryview(image.as_buffer()), "").orientation != 1:
            yield TURNED


def notices_of(remarks: Mapping[str, int]) -> Iterator[str]:
    """Yields a notice for each kind of remark, one line each."""
    for kind, text in _NOTICES.items():
        if count := remarks.get(kind):
            yield f"{count:,} images were {text}" if count > 1 else f"1 image was {text.replace(' their ', ' its ')}"
