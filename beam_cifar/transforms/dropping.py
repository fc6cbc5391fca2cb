"""What filters share: dropping rows and accounting for them."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from beam_cifar.block import Block, row_counts


def drop_rows(block: Block, keep: pa.ChunkedArray) -> Block:
    """Keeps the rows where `keep` is true, and counts the others as filtered."""
    if pc.all(keep, min_count=0).as_py():
        return block
    dropped = row_counts(block.table.filter(pc.invert(keep)).select(["subset", "label"]))
    return replace(block, table=block.table.filter(keep), filtered=block.filtered + dropped)
