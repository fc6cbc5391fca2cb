"""Transforms from block to block: for each a plain function and a PTransform."""

from __future__ import annotations

from beam_cifar.transforms.change_pixels import ChangePixels, change_pixels
from beam_cifar.transforms.encode_images import EncodeImages, encode_images
from beam_cifar.transforms.remap_labels import RemapLabels, remap_labels
from beam_cifar.transforms.resize import resize
from beam_cifar.transforms.select_rows import SelectRows, select_rows

__all__ = [
    "ChangePixels",
    "EncodeImages",
    "RemapLabels",
    "SelectRows",
    "change_pixels",
    "encode_images",
    "remap_labels",
    "resize",
    "select_rows",
]
