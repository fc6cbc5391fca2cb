"""Classes with awkward names, and images of one channel: what a dataset of gray pixels must keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.helpers.image_trees import Pixels, converted
from tests.helpers.reading import cifar_rows

CLASSES = ("cat", "морской кот, серый", " spaced ", "unused")


def gray(pixels: Any) -> Pixels:
    """What Pillow's luma makes of an image, uint8 [H, W]."""
    planes = np.frombuffer(pixels, np.uint8).reshape(3, 32, 32).transpose(1, 2, 0)
    return np.asarray(Image.fromarray(np.ascontiguousarray(planes)).convert("L"))


def read_back(source: Path, tmp_path: Path, **options: Any) -> list[tuple[Any, ...]]:
    """The rows of a dataset by way of CIFAR pickles: (file name, label, pixels of the first channel)."""
    converted(source, tmp_path / "back", "cifar", save_images=True, overwrite=True, **options)
    rows = cifar_rows(tmp_path / "back")
    assert all(row[3][: len(row[3]) // 3] * 3 == row[3] for row in rows)
    return [(name, label, pixels[: len(pixels) // 3]) for name, label, _, pixels in rows]
