"""Transforms from block to block: for each a plain function and a PTransform."""

from __future__ import annotations

from beam_cifar.transforms.encode_images import EncodeImages, encode_images
from beam_cifar.transforms.keep_labels import KeepLabels, keep_labels
from beam_cifar.transforms.keep_subsets import KeepSubsets, keep_subsets
from beam_cifar.transforms.remap_labels import RemapLabels, remap_labels

__all__ = [
    "EncodeImages",
    "KeepLabels",
    "KeepSubsets",
    "RemapLabels",
    "encode_images",
    "keep_labels",
    "keep_subsets",
    "remap_labels",
]
