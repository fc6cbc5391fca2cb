"""CIFAR-10 to Parquet as one would write it in an afternoon: `loop.py SOURCE OUT`.

numpy, Pillow and pyarrow, with their defaults: every batch is unpickled, every image saved as PNG and collected, and
every split written by one `write_table`. The output has the layout of the Hugging Face hub, without a dataset card.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def unpickle(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        content: dict[str, Any] = pickle.load(file, encoding="latin1")
    return content


def png(row: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(row.reshape(3, 32, 32).transpose(1, 2, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def convert_split(files: list[Path], schema: pa.Schema, out: Path) -> None:
    images, labels = [], []
    for path in files:
        batch = unpickle(path)
        for row, label, name in zip(batch["data"], batch["labels"], batch["filenames"], strict=True):
            images.append({"bytes": png(row), "path": name})
            labels.append(label)
    pq.write_table(pa.table({"img": images, "label": labels}, schema=schema), out)


def make_schema(names: list[str]) -> pa.Schema:
    features = {"img": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([("img", image), ("label", pa.int64())], metadata=metadata)


def training_batches(source: Path) -> list[Path]:
    return sorted(source.glob("data_batch_*"), key=lambda path: int(re.sub(r"\D", "", path.name)))


def main(source: Path, out: Path) -> None:
    schema = make_schema(unpickle(source / "batches.meta")["label_names"])
    (out / "data").mkdir(parents=True)
    convert_split(training_batches(source), schema, out / "data" / "train-00000-of-00001.parquet")
    convert_split([source / "test_batch"], schema, out / "data" / "test-00000-of-00001.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
