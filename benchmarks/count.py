"""Prints the number of images in an output, without using the program that wrote it: `count.py KIND OUT`."""

from __future__ import annotations

import gzip
import pickle
import struct
import sys
import tarfile
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

PIXELS = 3 * 32 * 32


def count_parquet(out: Path) -> int:
    """Counts rows that have PNG bytes and a label."""
    total = 0
    for path in out.rglob("*.parquet"):
        for batch in pq.ParquetFile(path).iter_batches(columns=["img", "label"]):
            is_png = pc.starts_with(batch["img"].field("bytes"), b"\x89PNG")
            total += pc.sum(pc.and_(is_png, pc.is_valid(batch["label"]))).as_py() or 0
    return total


def count_png(out: Path) -> int:
    """Counts PNG files, in any directory, that are not empty."""
    return sum(path.stat().st_size > 0 for path in out.rglob("*.png"))


def count_cifar(out: Path) -> int:
    """Counts rows that have a label and all pixels."""
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


def tar_names(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


def count_tar(out: Path) -> int:
    """Counts samples that have an image and a label."""
    names = [name for path in out.glob("*.tar") for name in tar_names(path)]
    images, labels = ({name[:-4] for name in names if name.endswith(end)} for end in (".png", ".cls"))
    return len(images & labels)


def count_idx(out: Path) -> int:
    """Counts images in files that are complete and have equally many labels."""
    total = 0
    for path in out.glob("*-images-idx3-ubyte.gz"):
        pixels = gzip.decompress(path.read_bytes())
        labels = gzip.decompress(path.with_name(path.name.replace("images-idx3", "labels-idx1")).read_bytes())
        _, count, height, width = struct.unpack(">4I", pixels[:16])
        total += count if (len(pixels), len(labels)) == (16 + count * height * width, 8 + count) else 0
    return total


def count_counts(out: Path) -> int:
    """Adds up the counts in files of lines such as "3,500"."""
    lines = [line for path in out.iterdir() for line in path.read_text().splitlines()]
    return sum(int(line.partition(",")[2]) for line in lines)


COUNTS = {
    "parquet": count_parquet,
    "png": count_png,
    "cifar": count_cifar,
    "tar": count_tar,
    "idx": count_idx,
    "counts": count_counts,
}

if __name__ == "__main__":
    print(COUNTS[sys.argv[1]](Path(sys.argv[2])))
