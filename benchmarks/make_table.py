"""Writes a CSV file of file names and labels beside a CIFAR dataset, which pipelines join: `make_table.py SOURCE`."""

from __future__ import annotations

import csv
import pickle
import sys
from pathlib import Path


def main(source: Path) -> None:
    with source.with_suffix(".csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["filename", "label"])
        for path in sorted([*source.glob("*_batch*"), *source.glob("t*[nt]")]):
            with path.open("rb") as file:
                batch = pickle.load(file, encoding="latin1")
            labels = batch.get("labels", batch.get("fine_labels"))
            writer.writerows((name, 9 - label % 10) for name, label in zip(batch["filenames"], labels, strict=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
