"""CIFAR-10 to MNIST files as one would write it by hand: `mnist_loop.py SOURCE OUT`.

numpy and gzip, with their defaults: a split is stacked, converted to gray with Pillow's weights, and written at once.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
from loop import training_batches, unpickle

WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def convert_split(files: list[Path], name: str, out: Path) -> None:
    batches = [unpickle(path) for path in files]
    pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    gray = np.round(np.tensordot(pixels.astype(np.float32), WEIGHTS, ([1], [0]))).astype(np.uint8)
    labels = np.concatenate([batch["labels"] for batch in batches]).astype(np.uint8)
    header = np.array([2051, *gray.shape], dtype=">u4").tobytes()
    with gzip.open(out / f"{name}-images-idx3-ubyte.gz", "wb") as file:
        file.write(header + gray.tobytes())
    with gzip.open(out / f"{name}-labels-idx1-ubyte.gz", "wb") as file:
        file.write(np.array([2049, len(labels)], dtype=">u4").tobytes() + labels.tobytes())


def main(source: Path, out: Path) -> None:
    out.mkdir(parents=True)
    convert_split(training_batches(source), "train", out)
    convert_split([source / "test_batch"], "t10k", out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
