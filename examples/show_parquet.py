"""Shows the contents of a Parquet dataset written by beam-cifar, using only pyarrow and Pillow.

Usage: python examples/show_parquet.py DIRECTORY
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image


def main(folder: Path) -> None:
    """Prints files, rows, classes, and the first image of each split."""
    for path in sorted((folder / "data").glob("*.parquet")):
        file = pq.ParquetFile(path)
        print(f"{path.name}: {file.metadata.num_rows:,} rows, {path.stat().st_size / 1e6:.1f} MB")
    features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    for column, feature in features.items():
        if feature["_type"] == "ClassLabel":
            print(f"{column}: {', '.join(feature['names'][:12])}")
    for path in sorted((folder / "data").glob("*-00000-of-*.parquet")):
        row = next(pq.ParquetFile(path).iter_batches(batch_size=1)).to_pylist()[0]
        image = Image.open(io.BytesIO(row["img"]["bytes"]))
        label = row.get("label", row.get("fine_label"))
        print(f"{path.name} row 0: {row['img']['path']}, {image.format} {image.size} {image.mode}, label {label}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
