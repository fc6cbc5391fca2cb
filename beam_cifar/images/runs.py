"""Runs of neighbouring rows whose images are alike: in encoding, size and channels, or in having none."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_cifar.example import joined_images

RUN_BYTES = 16 << 20
"""Decoded pixels held at a time."""


def alike_runs(table: pa.Table, row_bytes: int = 0) -> Iterator[range]:
    """Yields the positions of alike neighbours, no more together than `RUN_BYTES` of pixels.

    Args:
        table: of examples.
        row_bytes: bytes of pixels that are made of each image, if they are more than there are.
    """
    height, width, channels = (table.column(name).fill_null(0).to_numpy() for name in ("height", "width", "channels"))
    codes = table.column("encoding").combine_chunks().dictionary_encode().indices.to_numpy()
    changes = np.logical_or.reduce([column[1:] != column[:-1] for column in (height, width, channels, codes)])
    for start, stop in pairwise([0, *(np.flatnonzero(changes) + 1).tolist(), len(table)]):
        if start < stop:
            step = max(1, RUN_BYTES // max(1, 3 * int(height[start]) * int(width[start]), row_bytes))
            yield from (range(at, min(at + step, stop)) for at in range(start, stop, step))


def raw_pixels(run: pa.Table) -> npt.NDArray[np.uint8]:
    """The images of alike rows, which are raw: uint8 `[N, C, H, W]`, a view on Arrow's buffer."""
    shape = [run.column(name)[0].as_py() for name in ("channels", "height", "width")]
    return np.frombuffer(joined_images(run), dtype=np.uint8).reshape(len(run), *shape)
