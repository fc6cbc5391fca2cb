"""CIFAR-10 to Parquet with Beam's own transforms, one image per element: `beam_elements.py SOURCE OUT`.

It uses the same local runner as beam-cifar: Beam's DirectRunner first looks for another engine on the network.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.parquetio import WriteToParquet
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from loop import make_schema, png, training_batches, unpickle


def read_rows(path: str) -> Iterator[tuple[Any, int, str]]:
    batch = unpickle(Path(path))
    yield from zip(batch["data"], batch["labels"], batch["filenames"], strict=True)


def to_record(row: Any, label: int, name: str) -> dict[str, Any]:
    return {"img": {"bytes": png(row), "path": name}, "label": label}


def main(source: Path, out: Path) -> None:
    schema = make_schema(unpickle(source / "batches.meta")["label_names"])
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        for split, files in (("train", training_batches(source)), ("test", [source / "test_batch"])):
            (
                pipeline
                | f"{split} files" >> beam.Create([str(path) for path in files])
                | f"read {split}" >> beam.FlatMap(read_rows)
                | f"encode {split}" >> beam.MapTuple(to_record)
                | f"write {split}" >> WriteToParquet(str(out / "data" / split), schema, file_name_suffix=".parquet")
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
