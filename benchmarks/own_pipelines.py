"""The pipelines of peers/beam_pipelines.py with beam_cifar: `own_pipelines.py TASK SOURCE OUT [FLAG ...]`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_cifar import Example, ReadAllExamples, ReadExamples, WriteExamples
from beam_cifar.beam import labels_of, local_options


def flipped(example: Example) -> Example:
    return example.with_array(example.array()[:, ::-1])


def with_label(example: Example, labels: dict[str, int]) -> Example:
    return example.replace(label=labels[example.filename])


def joined(keyed: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Example]:
    for example in keyed[1]["images"]:
        for label in keyed[1]["labels"]:
            yield example.replace(label=label)


def table_of(source: Path) -> list[tuple[str, int]]:
    with source.with_suffix(".csv").open() as file:
        return [(row["filename"], int(row["label"])) for row in csv.DictReader(file)]


class Task:
    """A pipeline under construction; arguments are as in peers/beam_pipelines.py."""

    def __init__(self, pipeline: beam.Pipeline, source: Path, out: Path) -> None:
        self.pipeline, self.source, self.out = pipeline, source, out
        self.labels = labels_of(source)

    @property
    def examples(self) -> Any:
        return self.pipeline | ReadExamples(self.source)

    def write(self, examples: Any, formats: str | list[str] = "parquet") -> None:
        _ = examples | WriteExamples(self.out, formats, self.labels)

    def count(self) -> None:
        counts = self.examples | beam.Map(lambda each: each.label) | beam.combiners.Count.PerElement()
        _ = counts | beam.MapTuple(lambda label, n: f"{label},{n}") | beam.io.WriteToText(str(self.out / "counts"))

    def flip(self) -> None:
        self.write(self.examples | "Flip" >> beam.Map(flipped).with_output_types(Example))

    def side(self) -> None:
        labels = beam.pvalue.AsDict(self.pipeline | "Table" >> beam.Create(table_of(self.source)))
        self.write(self.examples | "Join" >> beam.Map(with_label, labels).with_output_types(Example))

    def key(self) -> None:
        labels = self.pipeline | "Table" >> beam.Create(table_of(self.source))
        images = self.examples | beam.WithKeys(lambda each: each.filename)
        grouped = {"images": images, "labels": labels} | beam.CoGroupByKey()
        self.write(grouped | "Join" >> beam.FlatMap(joined).with_output_types(Example))

    def two(self) -> None:
        examples = self.examples | "Flip" >> beam.Map(flipped).with_output_types(Example)
        self.write(examples, ["parquet", "tfds_tfrecord"])

    def late(self) -> None:
        paths = self.pipeline | beam.Create([str(self.source)])
        self.write(paths | ReadAllExamples(self.labels))


def main(task: str, source: Path, out: Path, flags: Sequence[str]) -> None:
    """Runs a pipeline with Beam's flags, or with a local worker where there are none."""
    with beam.Pipeline(options=PipelineOptions(flags) if flags else local_options(workers=1)) as pipeline:
        build: Callable[[], None] = getattr(Task(pipeline, source, out), task)
        build()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
