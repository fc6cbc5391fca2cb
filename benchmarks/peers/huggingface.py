"""CIFAR-10 to Parquet with Hugging Face datasets: `huggingface.py SOURCE OUT PROCESSES`.

As in its documentation: a generator over the batch files yields arrays, which the Image feature encodes as PNG, and
`to_parquet` writes each split. File names are omitted, as in the hub's own CIFAR-10 script.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Features, Image
from loop import training_batches, unpickle


def rows(files: list[Path]) -> Iterator[dict[str, Any]]:
    for path in files:
        batch = unpickle(path)
        for row, label in zip(batch["data"], batch["labels"], strict=True):
            yield {"img": row.reshape(3, 32, 32).transpose(1, 2, 0), "label": label}


def main(source: Path, out: Path, processes: int) -> None:
    names = unpickle(source / "batches.meta")["label_names"]
    features = Features({"img": Image(), "label": ClassLabel(names=names)})
    # A new cache for each run: otherwise the second run would read the result of the first.
    cache = out.with_name(out.name + ".cache")
    for split, files in (("train", training_batches(source)), ("test", [source / "test_batch"])):
        # Processes share out whole files, so there cannot be more processes than files.
        workers = min(processes, len(files))
        dataset = Dataset.from_generator(
            rows,
            features=features,
            cache_dir=str(cache),
            gen_kwargs={"files": files},
            num_proc=workers if workers > 1 else None,
            split=split,
        )
        (out / "data").mkdir(parents=True, exist_ok=True)
        dataset.to_parquet(out / "data" / f"{split}-00000-of-00001.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
