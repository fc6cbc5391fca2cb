"""Keeps the rows of some classes."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from beam_cifar.block import Block
from beam_cifar.coders import map_blocks
from beam_cifar.transforms.dropping import drop_rows


def keep_labels(block: Block, *, labels: frozenset[int]) -> Block:
    """Drops every row whose label is not among `labels`; unlabelled rows as well."""
    wanted = pa.array(sorted(labels), pa.int64())
    return drop_rows(block, pc.is_in(block.table.column("label"), value_set=wanted, skip_nulls=True))


@dataclass
class KeepLabels(beam.PTransform):
    """Keeps the rows of some classes.

    Attributes:
        labels: their ids.
    """

    labels: frozenset[int]

    def expand(self, blocks: beam.PCollection[Block]) -> beam.PCollection[Block]:
        """From blocks to blocks."""
        return blocks | map_blocks(keep_labels, labels=self.labels)
