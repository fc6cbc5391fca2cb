"""Gives rows new labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import apache_beam as beam
import numpy as np

from beam_cifar.block import Block
from beam_cifar.coders import map_blocks
from beam_cifar.example import label_array, plain_labels, with_columns


def remap_labels(block: Block, *, targets: tuple[int, ...]) -> Block:
    """Replaces label i by `targets[i]`; unlabelled rows stay unlabelled.

    Superclasses follow by themselves: they belong to the label table, not to the rows.
    """
    labels = np.array([*targets, -1], dtype=np.int64)[plain_labels(block.table)]
    return replace(block, table=with_columns(block.table, label=label_array(labels)))


@dataclass
class RemapLabels(beam.PTransform):
    """Gives rows new labels.

    Attributes:
        targets: the new label of each old one.
    """

    targets: tuple[int, ...]

    def display_data(self) -> dict[str, int]:
        """How many labels change."""
        return {"changed": sum(target != label for label, target in enumerate(self.targets))}

    def expand(self, blocks: beam.PCollection[Block]) -> beam.PCollection[Block]:
        """From blocks to blocks."""
        return blocks | map_blocks(remap_labels, targets=self.targets)
