"""Replaces the labels of a block."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from beam_cifar.data.block import Block
from beam_cifar.data.schema import label_array, plain_labels, with_columns


def remap_labels(block: Block, *, targets: tuple[int, ...]) -> Block:
    """Replaces label i by `targets[i]`; unlabelled rows stay unlabelled.

    Superclasses need no change: they belong to the label table, not to the rows.
    """
    labels = np.array([*targets, -1], dtype=np.int64)[plain_labels(block.table)]
    return replace(block, table=with_columns(block.table, label=label_array(labels)))
