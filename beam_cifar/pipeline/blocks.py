"""Blocks in a pipeline: a coder that keeps them within one stage, and a transform that changes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam import coders

from beam_cifar.data.block import Block
from beam_cifar.errors import JobError
from beam_cifar.pipeline.counters import count
from beam_cifar.pipeline.errors import carried


class BlockCoder(coders.Coder):
    """Coder that refuses to encode blocks.

    A runner encodes elements at the end of a stage. Blocks carry pixels, and local runners keep whatever leaves a
    stage in memory, while others write it to disk: a lost fusion would go unnoticed until a job of millions fails.
    """

    def encode(self, value: Block) -> bytes:
        """Always raises `JobError`."""
        with carried():
            raise JobError(
                f"block {value.number} of shard {value.shard} was about to leave its fused stage, which would hold all "
                "pixels in memory; a Flatten of blocks, a side input made from tasks or blocks, a Reshuffle, a "
                "GroupByKey or a resource hint between ReadBlocks and WriteBlocks causes this: remove it"
            )

    def decode(self, encoded: bytes) -> Block:
        """Always raises `JobError`; never called, because blocks cannot be encoded."""
        raise JobError("a block cannot be decoded")

    def estimate_size(self, value: Block) -> int:
        """Returns the bytes of the table for the runner's metrics; Beam's default would pickle blocks to size them."""
        return int(value.table.nbytes)

    def is_deterministic(self) -> bool:
        return False


coders.registry.register_coder(Block, BlockCoder)


class BlockDoFn(beam.DoFn):
    """Applies a function to each block."""

    def __init__(self, function: Callable[[Block], Block]) -> None:
        self._function = function

    def process(self, block: Block) -> Iterator[Block]:
        """Yields the block that the function returns."""
        with carried():
            made = self._function(block)
        count(
            rows_filtered=made.filtered.total() - block.filtered.total(),
            labels_removed=made.unlabelled.total() - block.unlabelled.total(),
        )
        yield made


@dataclass
class MapBlocks(beam.PTransform):
    """Applies a function to each block; typed, so that `BlockCoder` guards what comes out.

    Attributes:
        function: takes a block and the settings as keyword arguments; returns a block.
        settings: settings of the function.
        shown: display data for monitoring.
    """

    function: Callable[..., Block]
    settings: Mapping[str, Any] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)

    def display_data(self) -> dict[str, Any]:
        # Beam raises an error for None values.
        return {name: value for name, value in self.shown.items() if value not in (None, "")}

    def expand(self, blocks: beam.PCollection[Block]) -> beam.PCollection[Block]:
        dofn = BlockDoFn(functools.partial(self.function, **self.settings))
        return blocks | beam.ParDo(dofn).with_input_types(Block).with_output_types(Block)
