"""Pipelines over single images with Beam's own transforms: `beam_pipelines.py TASK SOURCE OUT [FLAG ...]`, on CIFAR-10.

The usual way: batches are unpickled in a step, and what follows is one element per image.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.parquetio import WriteToParquet
from apache_beam.io.tfrecordio import WriteToTFRecord
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from loop import make_schema, png, unpickle

Element = dict[str, Any]


def read_rows(path: str) -> Iterator[Element]:
    batch = unpickle(Path(path))
    for row, label, name in zip(batch["data"], batch["labels"], batch["filenames"], strict=True):
        yield {"row": row, "label": label, "name": name}


def flipped(element: Element) -> Element:
    return {**element, "row": element["row"].reshape(3, 32, 32)[:, :, ::-1].reshape(-1)}


def to_record(element: Element) -> Element:
    return {"img": {"bytes": png(element["row"]), "path": element["name"]}, "label": element["label"]}


def with_label(element: Element, labels: dict[str, int]) -> Element:
    return {**element, "label": labels[element["name"]]}


def joined(keyed: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Element]:
    for element in keyed[1]["images"]:
        for label in keyed[1]["labels"]:
            yield {**element, "label": label}


def table_of(source: Path) -> list[tuple[str, int]]:
    with source.with_suffix(".csv").open() as file:
        return [(row["filename"], int(row["label"])) for row in csv.DictReader(file)]


class Task:
    """A pipeline under construction.

    Args:
        pipeline: the pipeline.
        source: directory of the dataset.
        out: directory to create.
    """

    def __init__(self, pipeline: beam.Pipeline, source: Path, out: Path) -> None:
        self.source, self.out = source, out
        self.paths = pipeline | beam.Create([str(path) for path in sorted(source.glob("*_batch*"))])
        self.pipeline = pipeline

    @property
    def rows(self) -> Any:
        return self.paths | beam.Reshuffle() | beam.FlatMap(read_rows)

    def write(self, rows: Any) -> Any:
        schema = make_schema(unpickle(self.source / "batches.meta")["label_names"])
        records = rows | beam.Map(to_record)
        _ = records | WriteToParquet(str(self.out / "data"), schema, file_name_suffix=".parquet")
        return records

    def count(self) -> None:
        counts = self.rows | beam.Map(lambda each: each["label"]) | beam.combiners.Count.PerElement()
        _ = counts | beam.MapTuple(lambda label, n: f"{label},{n}") | beam.io.WriteToText(str(self.out / "counts"))

    def flip(self) -> None:
        self.write(self.rows | "Flip" >> beam.Map(flipped))

    def side(self) -> None:
        labels = beam.pvalue.AsDict(self.pipeline | "Table" >> beam.Create(table_of(self.source)))
        self.write(self.rows | "Join" >> beam.Map(with_label, labels))

    def key(self) -> None:
        labels = self.pipeline | "Table" >> beam.Create(table_of(self.source))
        images = self.rows | beam.WithKeys(lambda each: each["name"])
        self.write({"images": images, "labels": labels} | beam.CoGroupByKey() | "Join" >> beam.FlatMap(joined))

    def two(self) -> None:
        images = self.write(self.rows | "Flip" >> beam.Map(flipped)) | beam.Map(lambda each: each["img"]["bytes"])
        _ = images | WriteToTFRecord(str(self.out / "images"), file_name_suffix=".tfrecord")

    def late(self) -> None:
        self.write(self.rows)


def main(task: str, source: Path, out: Path, flags: Sequence[str]) -> None:
    """Runs a pipeline with Beam's flags, or with a local worker where there are none."""
    with beam.Pipeline(None if flags else FnApiRunner(), PipelineOptions(flags)) as pipeline:
        build: Callable[[], None] = getattr(Task(pipeline, source, out), task)
        build()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
