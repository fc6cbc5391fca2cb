# pyright: strict
"""The public face as a checker sees it: this program is checked, and never run."""

from __future__ import annotations

from collections.abc import Mapping

import apache_beam as beam
import numpy as np
from typing_extensions import assert_type

import beam_cifar
from beam_cifar import (
    BeamCifarError,
    Comparison,
    Conversion,
    ConvertOptions,
    Dataset,
    DatasetItem,
    Example,
    ExportOptions,
    FilterExamples,
    Image,
    Label,
    LabelTable,
    ReadExamples,
    RemapLabels,
    ResizeExamples,
    Stats,
    Summary,
    TransformExamples,
    Validation,
    WriteExamples,
    compare,
    convert,
    find_error,
    make_sample,
    run,
    stats,
    validate,
)


def jobs(path: str) -> None:
    options = ConvertOptions(path, "out", "parquet", labels=("cat",), resize=(64, 64), save_images=True, workers=2)
    assert_type(options.output_dir, str)
    summary = convert(options, ["--direct_num_workers=2"])
    assert_type(summary, Summary)
    assert_type(summary.written, int)
    assert_type(summary.subsets, dict[str, int])
    started = run(options)
    assert_type(started, Conversion)
    assert_type(started.wait(), Summary)
    assert_type(make_sample("sample", images=60), list[str])
    assert_type(beam_cifar.__version__, str)


def datasets(path: str) -> None:
    dataset = Dataset.import_from(path, "cifar", subsets=["train"])
    assert_type(dataset.filter('/item[annotation/label="cat"]'), Dataset)
    assert_type(dataset.transform("resize", width=32, height=32), Dataset)
    assert_type(len(dataset), int)
    for item in dataset:
        assert_type(item, DatasetItem)
        assert_type(item.label, int | None)
    assert_type(dataset.get("1", "train"), DatasetItem | None)
    assert_type(dataset.categories, LabelTable)
    assert_type(dataset.export("out", "imagenet", save_images=True), Summary)
    assert_type(dataset.save(), Summary | None)
    items = [DatasetItem("1", image=Image(np.zeros((4, 4, 3), np.uint8)), annotations=[Label(0)])]
    made = Dataset.from_iterable(items, ["cat", ("dog", "mammal")])
    assert_type(Dataset.merge(dataset, made, on_clash="suffix"), Dataset)


def looks(path: str) -> None:
    found = stats(path)
    assert_type(found, Stats)
    assert_type(found.subsets[0].labels, Mapping[str, int])
    assert_type(compare(path, "other", ids=True), Comparison)
    assert_type(compare(path, "other").equal, bool)
    checked = validate(path)
    assert_type(checked, Validation)
    assert_type(checked.is_valid(strict=True), bool)


def pipelines(path: str) -> None:
    read = ReadExamples(path)
    assert_type(read.labels, LabelTable)
    renamed = RemapLabels({"cat": "pet", "dog": "pet"}, read.labels)
    with beam.Pipeline() as pipeline:
        _ = (  # pyright: ignore[reportUnknownVariableType] (Beam's operators are not typed)
            pipeline
            | read
            | FilterExamples("/item[image]", read.labels)
            | renamed
            | ResizeExamples((32, 32))
            | TransformExamples("grayscale")
            | WriteExamples("out", "cifar", renamed.labels, ExportOptions(save_images=True), overwrite=True)
        )
    example = Example("1", "train", None, "raw", None, None, None, 0, "1.png")
    assert_type(example.label, int | None)
    assert_type(example._replace(label=None), Example)


def errors() -> None:
    error = find_error(RuntimeError())
    assert_type(error, BeamCifarError | None)
    if error is not None:
        assert_type(error.exit_code, int)
