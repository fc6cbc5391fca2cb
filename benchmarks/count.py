"""Prints how many images an output holds, by another reader than the program that wrote it: `count.py KIND OUT`."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

PIXELS = 3 * 32 * 32


def count_parquet(out: Path) -> int:
    """Rows with bytes of a PNG and a label."""
    total = 0
    for path in out.rglob("*.parquet"):
        for batch in pq.ParquetFile(path).iter_batches(columns=["img", "label"]):
            is_png = pc.starts_with(batch["img"].field("bytes"), b"\x89PNG")
            total += pc.sum(pc.and_(is_png, pc.is_valid(batch["label"]))).as_py() or 0
    return total


def count_png(out: Path) -> int:
    """Files, in any directory, that are not empty."""
    return sum(path.stat().st_size > 0 for path in out.rglob("*.png"))


def count_cifar(out: Path) -> int:
    """Rows with a label and all pixels."""
    total = 0
    for path in out.iterdir():
        if path.name in ("meta", "batches.meta"):
            continue
        with path.open("rb") as file:
            batch = pickle.load(file, encoding="latin1")
        labels = batch.get("labels", batch.get("fine_labels"))
        total += sum(
            label is not None and row is not None and row.size == PIXELS
            for label, row in zip(labels, batch["data"], strict=True)
        )
    return total


COUNTS = {"parquet": count_parquet, "png": count_png, "cifar": count_cifar}

if __name__ == "__main__":
    print(COUNTS[sys.argv[1]](Path(sys.argv[2])))
