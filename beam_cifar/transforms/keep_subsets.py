"""Keeps the rows of some subsets."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from beam_cifar.block import Block
from beam_cifar.coders import map_blocks
from beam_cifar.transforms.dropping import drop_rows


def keep_subsets(block: Block, *, subsets: frozenset[str]) -> Block:
    """Drops every row whose subset is not among `subsets`."""
    wanted = pa.array(sorted(subsets), pa.string())
    return drop_rows(block, pc.is_in(block.table.column("subset"), value_set=wanted))


@dataclass
class KeepSubsets(beam.PTransform):
    """Keeps the rows of some subsets.

    The plan does not even read files whose subset is not wanted; what is read passes here.

    Attributes:
        subsets: their names.
    """

    subsets: frozenset[str]

    def expand(self, blocks: beam.PCollection[Block]) -> beam.PCollection[Block]:
        """From blocks to blocks."""
        return blocks | map_blocks(keep_subsets, subsets=self.subsets)
