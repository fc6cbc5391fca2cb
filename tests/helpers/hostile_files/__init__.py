"""Makers of files from strangers, a module for each kind; `HOSTILE` has them all.

A maker writes a dataset below an empty folder, and returns the path to read if it is not the folder itself. What it
writes may only touch the file `MARKER`, which shows that code was run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

Maker: TypeAlias = Callable[[Path], "Path | None"]

MARKER = "/tmp/beam_cifar-hostile-marker"
IMAGES = np.random.default_rng(3).integers(0, 256, (3, 8, 8, 3), np.uint8)
LABELS = np.array([0, 1, 0])


def files(content: dict[str, bytes], path: str = "") -> Maker:
    """A maker of given files, which reads the one at `path`, or the folder."""

    def make(folder: Path) -> Path | None:
        for name, data in content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder / path if path else None

    return make
