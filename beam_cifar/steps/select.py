"""Applies a selection to a block: drops rows, and removes labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from beam_cifar.data.block import Block, row_counts
from beam_cifar.data.schema import label_array, plain_labels, with_columns
from beam_cifar.filters.selection import Selection


def select_rows(block: Block, *, selection: Selection) -> Block:
    """Drops the rows and labels that a selection does not keep, and counts both."""
    decision = selection.decide(block.table)
    table = block.table
    if not decision.labels.all():
        lost = pa.array(decision.rows & ~decision.labels)
        block = replace(block, unlabelled=block.unlabelled + row_counts(table.filter(lost)))
    if not decision.rows.all():
        block = replace(block, filtered=block.filtered + row_counts(table.filter(pa.array(~decision.rows))))
    labels = label_array(np.where(decision.labels, plain_labels(table), -1))
    return replace(block, table=with_columns(table, label=labels).filter(pa.array(decision.rows)))
