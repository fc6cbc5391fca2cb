"""What steps are given in tests that read no dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from beam_cifar import LabelTable
from beam_cifar.data.block import Block
from beam_cifar.data.row_table import View
from beam_cifar.steps.base import PixelStep, StepContext


class Notes(StepContext):
    """Keeps notices; steps that look at rows alone ask for nothing else."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.pixel_steps: list[PixelStep] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def add_pixel_step(self, step: PixelStep) -> None:
        self.pixel_steps.append(step)

    def read_items(self, path: str, table: LabelTable) -> View:
        raise AssertionError("no other dataset is read")

    def blocks(self, view: View) -> Iterator[tuple[Any, Block]]:
        raise AssertionError("no image is looked at")
