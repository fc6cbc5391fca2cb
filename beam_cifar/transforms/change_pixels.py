"""Changes every image, as a step says."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam

from beam_cifar.block import Block
from beam_cifar.coders import map_blocks
from beam_cifar.steps.base import PixelStep


def change_pixels(block: Block, *, step: PixelStep) -> Block:
    """The block with its images changed."""
    return step.transform(block)


@dataclass
class ChangePixels(beam.PTransform):
    """Changes every image.

    Attributes:
        step: how.
    """

    step: PixelStep

    def display_data(self) -> dict[str, str]:
        """Name and options of the step."""
        return {"step": self.step.name, "options": str(self.step.options())}

    def expand(self, blocks: beam.PCollection[Block]) -> beam.PCollection[Block]:
        """From blocks to blocks."""
        return blocks | map_blocks(change_pixels, step=self.step)
