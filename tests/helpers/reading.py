"""Reads datasets in ways that share no code with the package: these tests make the files that they unpickle."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from beam_cifar.formats.contract.source import Source


def unpickled(path: Path) -> dict[str, Any]:
    """A batch or meta file as Python's own unpickler sees it."""
    loaded: dict[str, Any] = pickle.loads(path.read_bytes(), encoding="latin1")
    return loaded


def batch_names(folder: Path) -> list[str]:
    """The batches of a directory, in natural order."""
    names = [p.name for p in folder.iterdir() if "." not in p.name and p.name != "meta"]
    return sorted(names, key=lambda name: (name.rstrip("0123456789"), len(name), name))


def cifar_rows(folder: Path, names: list[str] | None = None) -> list[tuple[Any, ...]]:
    """All rows in order: (file name, label, coarse label, pixels)."""
    rows: list[tuple[Any, ...]] = []
    for name in names or batch_names(folder):
        batch = unpickled(folder / name)
        labels = batch["labels"] if "labels" in batch else batch["fine_labels"]
        coarse = batch.get("coarse_labels", [None] * len(labels))
        data = batch["data"] if len(batch["data"]) else [None] * len(labels)
        pixels = [None if row is None else np.asarray(row, np.uint8).tobytes() for row in data]
        rows += zip(batch["filenames"], labels, coarse, pixels, strict=True)
    return rows


def parquet_rows(folder: Path, split: str) -> list[tuple[Any, ...]]:
    """All rows of a split in order: (path, labels..., pixels planar)."""
    rows: list[tuple[Any, ...]] = []
    for path in sorted((folder / "data").glob(f"{split}-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            image, *labels = row.values()
            pixels = None if image is None else np.asarray(Image.open(io.BytesIO(image["bytes"])))
            rows.append(
                (image and image["path"], *labels, None if pixels is None else pixels.transpose(2, 0, 1).tobytes())
            )
    return rows


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def ids(source: Source, folder: Path) -> list[str]:
    """The ids of all images of a dataset, as its format gives them."""
    catalog, found = source.describe(str(folder), ""), list[str]()
    for file in catalog.files:
        with source.open_rows(file, catalog.labels) as rows:
            found += rows.facts(0, rows.rows).column("id").to_pylist()
    return found
