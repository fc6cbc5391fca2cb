"""What decoding does to images that users should know, counted where it happens and told once a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa

from beam_cifar.data.block import Block
from beam_cifar.images.encodings import OTHERS, RAW
from beam_cifar.images.header import probe_image
from beam_cifar.images.other_headers import has_more_frames
from beam_cifar.images.plain_pngs import have_pixels_first
from beam_cifar.images.runs import map_runs

TURNED: Final = "turned"
"""The EXIF orientation of an image was applied."""

FIRST: Final = "first_frame"
"""An image has more frames or pages than the one that was decoded."""

_NOTICES: Final = {
    TURNED: "turned upright by their EXIF orientation; pass --exif keep to leave pixels as they are stored",
    FIRST: "decoded from their first frame or page alone; files that pass through keep all of them",
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
    images = run.column("image").combine_chunks()
    for row in np.flatnonzero(~have_pixels_first(images)).tolist():  # others have no orientation, and one frame
        data = memoryview(images[row].as_buffer())
        header = probe_image(data, "")
        if header.orientation != 1:
            yield TURNED
        if header.encoding in OTHERS and has_more_frames(bytes(data)):
            yield FIRST


def notices_of(remarks: Mapping[str, int]) -> Iterator[str]:
    """Yields a notice for each kind of remark, one line each."""
    for kind, text in _NOTICES.items():
        if count := remarks.get(kind):
            yield f"{count:,} images were {text}" if count > 1 else f"1 image was {text.replace(' their ', ' its ')}"
