"""Caltech-UCSD Birds 200-2011 as a format of beam_cifar."""

from beam_cifar.formats.registry import Format

FORMAT = Format(
    "Caltech-UCSD Birds 200-2011", source="birds_format.read:BirdsSource", marks=("image_class_labels.txt",)
)
