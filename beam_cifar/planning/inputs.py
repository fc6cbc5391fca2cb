"""What rows are read from: files, and the data sets that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from beam_cifar.data.labels import LabelTable
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.steps.base import PixelStep


@dataclass(frozen=True)
class Inputs:
    """What rows are read from.

    Attributes:
        files: input files.
        origins: their formats and label tables.
        image_bytes: of an image of each file, about.
    """

    files: tuple[SourceFile, ...]
    origins: tuple[Origin, ...]
    image_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Origin:
    """A data set that a job reads.

    Attributes:
        format: its name.
        labels: its label table.
        pixel_steps: what is done to its images before they meet those of other data sets.
    """

    format: str
    labels: LabelTable
    pixel_steps: tuple[PixelStep, ...] = ()
