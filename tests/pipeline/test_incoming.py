"""What goes into our transforms: matched by name, and refused in one line, when the pipeline is built if that can be."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions, StandardOptions
from apache_beam.options.pipeline_options import TestOptions as DryRunOptions  # pytest would collect it
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows
from apache_beam.typehints.schemas import named_fields_from_element_type
from PIL import Image

from beam_cifar import (
    ConvertOptions,
    Example,
    ExportOptions,
    FilterExamples,
    LabelTable,
    ReadExamples,
    RemapLabels,
    ResizeExamples,
    TransformExamples,
    WriteExamples,
    convert,
    find_error,
)
from beam_cifar.beam import labels_of, local_options
from beam_cifar.errors import InputError, UsageError
from beam_cifar.pipeline.incoming import checked_table
from tests.helpers.reading import cifar_rows, tree
from tests.pipeline.test_examples import pipeline

LABELS = ["cat", "dog"]
FIELDS: dict[str, Any] = {
    "label": 1,
    "filename": "7.png",
    "image": bytes(range(12)),
    "encoding": "raw",
    "channels": 3,
    "width": 2,
    "height": 2,
    "subset": "train",
    "order": 5,
    "id": "seven",
}
SAME = Example(**FIELDS)


def row(**changes: Any) -> beam.Row:
    return beam.Row(**{name: value for name, value in {**FIELDS, **changes}.items() if value is not ...})


def test_an_example_has_a_schema_without_any() -> None:
    fields = dict(named_fields_from_element_type(Example))
    assert list(fields) == list(Example._fields)
    assert Any not in fields.values()
    assert fields["image"] == bytes | None
    assert fields["label"] == np.int64 | None
    assert fields["id"] is str


def made(source: Any, known: bool) -> Callable[[beam.Pipeline], beam.PCollection]:
    def make(line: beam.Pipeline) -> beam.PCollection:
        rows = line | beam.Create([source])
        return rows if known else rows | beam.Map(lambda each: each).with_output_types(Any)

    return make


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("transform", [FilterExamples("/item", LABELS), RemapLabels({}, LABELS), TransformExamples("resize", {"height": 2, "width": 2}), ResizeExamples((2, 2))], ids=lambda each: type(each).__name__)  # fmt: skip
def test_rows_are_matched_by_name(transform: beam.PTransform, known: bool) -> None:
    with pipeline() as line:
        assert_that(made(row(), known)(line) | transform, equal_to([SAME]))


@pytest.mark.parametrize("known", [True, False])
def test_rows_in_another_order_are_written_like_examples(known: bool, tmp_path: Path) -> None:
    with pipeline() as line:
        _ = made(row(), known)(line) | WriteExamples(tmp_path / "rows", "parquet", LABELS)
    with pipeline() as line:
        _ = line | beam.Create([SAME]) | WriteExamples(str(tmp_path / "examples"), "parquet", LabelTable(tuple(LABELS)))
    assert tree(tmp_path / "rows") == tree(tmp_path / "examples")


def test_the_order_may_be_left_out_and_a_mapping_is_a_row() -> None:
    with pipeline() as line:
        rows = line | beam.Create([dict(FIELDS, order=0)]) | beam.Map(lambda each: each).with_output_types(Any)
        assert_that(rows | ResizeExamples((2, 2)), equal_to([SAME.replace(order=0)]), label="mapping")
        assert_that(line | "Row" >> beam.Create([row(order=...)]) | "Again" >> ResizeExamples((2, 2)), equal_to([SAME.replace(order=0)]))  # fmt: skip


class Other(NamedTuple):
    id: str
    label: int


WRONG: dict[str, tuple[Any, str, str]] = {
    "numbers": (7, "elements of int", "found int 7"),
    "texts": ("x" * 100, "elements of str", "found str 'xxx"),
    "pairs": ((1, 2), "found elements of", "found tuple (1, 2)"),
    "another tuple": (Other("a", 1), "have no field 'subset', 'image', 'encoding'", "have no field 'subset'"),
    "a field that is missing": (row(id=...), "have no field 'id'; the fields", "have no field 'id'"),
    "a field too many": (row(lable=1), "have the unknown field 'lable'", "have the unknown field 'lable'"),
    "a number instead of a text": (
        row(id=7),
        "field 'id' of its rows is int64; expected str",
        "field 'id' is int 7; expected str",
    ),
    "a text instead of a number": (
        row(label="dog"),
        "field 'label' of its rows is str; expected int or None",
        "field 'label' is str 'dog'; expected int or None",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_elements_are_refused_when_the_pipeline_is_built(name: str, tmp_path: Path) -> None:
    source, message, _ = WRONG[name]
    line = pipeline()
    rows = made(source, known=True)(line)
    with pytest.raises(UsageError) as caught:
        _ = rows | WriteExamples(tmp_path / "out", "parquet", LABELS)
    assert message in str(caught.value)
    assert "WriteExamples" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", WRONG)
def test_elements_of_unknown_type_are_refused_when_they_come(name: str, tmp_path: Path) -> None:
    source, _, message = WRONG[name]
    line = pipeline()
    _ = made(source, known=False)(line) | WriteExamples(tmp_path / "out", "parquet", LABELS)
    with pytest.raises(RuntimeError) as caught:
        line.run().wait_until_finish()
    found = find_error(caught.value)
    assert isinstance(found, InputError)
    assert message in str(found)
    assert not (tmp_path / "out").exists()


def test_windows_and_endless_input_are_refused(tmp_path: Path) -> None:
    line = pipeline()
    windowed = line | beam.Create([SAME]) | beam.WindowInto(FixedWindows(10))
    with pytest.raises(UsageError, match="its examples are in FixedWindows.* put beam.WindowInto"):
        _ = windowed | WriteExamples(tmp_path / "out", "parquet", LABELS)
    endless = line | "Endless" >> beam.Create([SAME])
    endless.is_bounded = False
    with pytest.raises(UsageError, match="never end"):
        _ = endless | "Write" >> WriteExamples(tmp_path / "out", "parquet", LABELS)
    _ = windowed | "Whole" >> beam.WindowInto(beam.window.GlobalWindows()) | "Both" >> WriteExamples(tmp_path / "out", "parquet", LABELS)  # fmt: skip
    line.run().wait_until_finish()
    assert (tmp_path / "out").is_dir()


def test_two_datasets_of_one_pipeline_at_one_place_are_refused(tmp_path: Path) -> None:
    line = pipeline()
    rows = line | beam.Create([SAME])
    _ = rows | "One" >> WriteExamples(tmp_path / "out", "parquet", LABELS)
    with pytest.raises(UsageError, match="two WriteExamples of a pipeline write it"):
        _ = rows | "Two" >> WriteExamples(f"{tmp_path}/./out", "webdataset", LABELS)
    _ = rows | "Three" >> WriteExamples(tmp_path / "other", "webdataset", LABELS)
    line.run().wait_until_finish()
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".beam_cifar"} == {"out", "other"}


@pytest.mark.parametrize("workers", [1, 2])
def test_local_options_run_a_pipeline_without_the_timed_flush(
    workers: int, cifar10: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = ReadExamples(cifar10)
    options = local_options(workers, ["--job_name=mine"])
    assert options.view_as(GoogleCloudOptions).job_name == "mine"
    with beam.Pipeline(options=options) as line:
        rows = line | source
        _ = rows | WriteExamples(tmp_path / "out", "parquet", source.labels)
        assert_that(rows | beam.combiners.Count.Globally(), equal_to([len(cifar_rows(cifar10))]))
    convert(ConvertOptions(str(cifar10), str(tmp_path / "cli"), "parquet"))
    assert tree(tmp_path / "out") == tree(tmp_path / "cli")
    assert "loses elements" not in caplog.text
    with pytest.raises(UsageError, match="workers"):
        local_options(0)


def test_a_runner_that_loses_elements_is_warned_of_once(
    cifar10: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handlers, "DATA_BUFFER_TIME_LIMIT_MS", 1000)  # as Beam has it
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)  # a command run in this process is quiet
    flags = ["--runner=FnApiRunner", "--direct_num_workers=2", "--direct_running_mode=multi_threading"]
    line = beam.Pipeline(argv=flags)
    _ = line | ReadExamples(cifar10) | WriteExamples(tmp_path / "out", "parquet", LABELS)
    _ = beam.Pipeline(argv=flags[:1]) | ReadExamples(cifar10)
    assert [record.message for record in caplog.records if "loses elements" in record.message] == [
        "Beam's local runner with several workers loses elements of bundles that take longer than a second; use "
        "beam.Pipeline(options=beam_cifar.beam.local_options(workers=N))"
    ]


def test_labels_are_a_table_or_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a LabelTable, or a list of class names"):
        WriteExamples(tmp_path / "out", "parquet", "cat")
    assert RemapLabels({"cat": "kitten"}, ("cat", "dog")).labels.names == ("kitten", "dog")


def test_filtered_rows_are_counted(cifar10: Path) -> None:
    source = ReadExamples(cifar10)
    line = pipeline()
    _ = line | source | FilterExamples('/item[annotation/label="dog"]', source.labels)
    result = line.run()
    result.wait_until_finish()
    counted = {each.key.metric.name: each.committed for each in result.metrics().query()["counters"]}
    assert counted["rows_filtered"] == sum(label != 5 for _, label, *_ in cifar_rows(cifar10))


def file_of(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_the_same_array_whatever_the_encoding(channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 6, channels), np.uint8)
    raw = SAME.with_array(pixels)
    assert (raw.encoding, raw.height, raw.width, raw.channels, raw.label) == ("raw", 4, 6, channels, 1)
    png = raw.replace(image=file_of(pixels, "PNG"), encoding="png")
    jpeg = raw.replace(image=file_of(pixels, "JPEG"), encoding="jpeg")
    assert np.array_equal(raw.array(), pixels)
    assert np.array_equal(png.array(), pixels)
    assert np.array_equal(jpeg.array(), np.asarray(Image.open(io.BytesIO(jpeg.image or b""))).reshape(4, 6, channels))
    assert raw.array().flags.c_contiguous
    assert np.array_equal(SAME.with_array(pixels[..., 0]).array(), pixels[..., :1])


def test_wrong_pixels_and_fields_are_refused() -> None:
    for pixels in (
        np.zeros((2, 2, 3)),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros(3, np.uint8),
    ):
        with pytest.raises(ValueError, match="expected uint8"):
            SAME.with_array(pixels)
    with pytest.raises(ValueError, match="no field 'lable'; its fields are id, subset"):
        SAME.replace(lable=2)
    with pytest.raises(InputError, match="has no image"):
        SAME.replace(image=None).array()
    with pytest.raises(InputError, match="12 bytes of pixels; expected"):
        SAME.replace(height=3).array()


def test_a_flip_is_the_same_on_pixels_and_on_files(cifar10: Path, tmp_path: Path) -> None:
    source = ReadExamples(cifar10)
    with pipeline() as line:
        _ = line | source | WriteExamples(tmp_path / "png", "parquet", source.labels)
    for name, path in (("raw", cifar10), ("png", tmp_path / "png")):
        with pipeline() as line:
            flipped = line | ReadExamples(path) | beam.Map(lambda each: each.with_array(each.array()[:, ::-1]))
            _ = flipped | WriteExamples(
                tmp_path / f"from {name}", "imagenet_with_subset_dirs", source.labels, ExportOptions()
            )
    found = [tree(tmp_path / f"from {name}") for name in ("raw", "png")]
    pictures = [sorted(data for path, data in each.items() if path != "README.md") for each in found]
    assert len(pictures[0]) == len(cifar_rows(cifar10))
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    "labels", [{"cat", "dog"}, {0: "cat"}, "cat", None, [], [0, 1], ["cat", "cat"], (name for name in "ab")]
)
def test_labels_are_a_table_or_names_in_an_order(labels: Any, tmp_path: Path) -> None:
    message = "have 'cat' twice" if labels == ["cat", "cat"] else "labels are .*; expected a LabelTable, or a list of"
    for make in (
        lambda: WriteExamples(tmp_path / "out", "parquet", labels),
        lambda: FilterExamples("/item", labels),
        lambda: RemapLabels({}, labels),
    ):
        with pytest.raises(UsageError, match=message):
            make()


@pytest.mark.parametrize("options", [{"save_images": True}, {"cfiar": ExportOptions()}, {"cifar": {}}, None])
def test_options_are_those_of_the_formats(options: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="WriteExamples: (the options are|options for 'cfiar', but the formats are cifar)"
    ):
        WriteExamples(tmp_path / "out", "cifar", ["cat"], options=options)


def test_an_output_in_another_output_of_the_pipeline_is_refused(tmp_path: Path) -> None:
    rows = pipeline() | beam.Create([SAME])
    _ = rows | "Both" >> WriteExamples(tmp_path / "out", ["parquet", "npz"], LABELS)
    for number, place in enumerate(("out", "out/npz", "out/parquet/deeper")):
        with pytest.raises(UsageError, match="two WriteExamples of a pipeline write it"):
            _ = rows | f"{number}" >> WriteExamples(tmp_path / place, "npz", LABELS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", [2, -1, 7])
@pytest.mark.parametrize("transform", [FilterExamples("/item", ["a", "b"]), RemapLabels({"a": "c"}, ["a", "b"])])
def test_a_label_outside_the_table_is_set_aside(transform: Any, label: int) -> None:
    rows = [SAME.replace(id="good", label=1), SAME.replace(id="bad", label=label)]
    with pipeline() as line:
        good, bad = line | beam.Create(rows).with_output_types(Example) | transform.with_exception_handling()
        assert_that(good | beam.Map(lambda each: (each.id, each.label)), equal_to([("good", 1)]), label="good")
        error = f"label {label} is outside the label table of 2 classes"
        told = bad | beam.Map(lambda each: (each.id, error in each.error))
        assert_that(told, equal_to([("bad", True)]), label="bad")


@pytest.mark.parametrize("size", [16, ("a", 16), (16, 16, 3), None, (8.0, 8)])
def test_a_size_is_two_whole_numbers(size: Any) -> None:
    with pytest.raises(UsageError, match=r"the size is .*; expected \(height, width\) in pixels"):
        ResizeExamples(size)


def test_writing_needs_something_before_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="WriteExamples writes the examples that come before it"):
        _ = pipeline() | WriteExamples(tmp_path / "out", "parquet", ["a"])


def test_numbers_are_whole() -> None:
    wrong: Any
    for wrong in ({"label": 1.5}, {"height": 2.0}):
        with pytest.raises(InputError, match=r"expected an int|expected whole numbers"):
            checked_table([SAME._replace(**wrong)])
    checked_table([SAME.replace(label=np.int64(1))])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("label", "dog", "field 'label' is str 'dog'; expected int or None"),
        ("label", 1.0, "field 'label' is float 1.0; expected int or None"),
        ("subset", None, "field 'subset' is NoneType None; expected str"),
        ("id", 7, "field 'id' is int 7; expected str"),
        (
            "image",
            np.zeros((2, 2), np.uint8),
            "field 'image' is ndarray array([[0, 0], [0, 0]], dtype=uint8); expected",
        ),
    ],
)
def test_a_value_of_another_type_is_refused_where_it_is_put_into_an_example(
    name: str, value: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SAME.replace(**{name: value})
    # Or, at the latest, where such an example comes, if Beam does not know that it is one.
    line = pipeline()
    came = line | beam.Create([SAME]) | beam.Map(lambda each: each._replace(**{name: value})).with_output_types(Any)
    _ = came | WriteExamples(tmp_path / "out", "parquet", LABELS)
    with pytest.raises(RuntimeError) as caught:
        line.run().wait_until_finish()
    assert str(find_error(caught.value)).startswith(f"WriteExamples: {message}")


@pytest.mark.parametrize("transform", [ResizeExamples((2, 2)), FilterExamples("/item", LABELS)], ids=lambda each: type(each).__name__)  # fmt: skip
def test_several_pcollections_are_refused(transform: beam.PTransform) -> None:
    line = pipeline()
    both = line | "One" >> beam.Create([SAME]), line | "Two" >> beam.Create([SAME])
    with pytest.raises(UsageError, match="takes one PCollection, but what comes before it has several"):
        _ = both | transform


@pytest.mark.parametrize("dry", [True, False])
def test_local_paths_are_for_a_dry_run_of_dataflow_alone(dry: bool, cifar10: Path, tmp_path: Path) -> None:
    line, read = pipeline(), ReadExamples(cifar10)
    line.options.view_as(StandardOptions).runner = "DataflowRunner"
    line.options.view_as(DryRunOptions).dry_run = dry
    rows = line | beam.Create([SAME])
    for start, transform in ((line, read), (rows, WriteExamples(tmp_path / "out", "parquet", LABELS))):
        message = f"{type(transform).__name__}: .*: DataflowRunner workers cannot access local paths; use gs://"
        with nullcontext() if dry else pytest.raises(UsageError, match=message):
            _ = start | transform


@pytest.mark.parametrize("formats", [(), 7, ["parquet", "parquet"]])
def test_formats_are_names_that_differ(formats: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"the formats are {re.escape(repr(formats))}; expected the name of one"):
        WriteExamples(tmp_path / "out", formats, LABELS)


def test_labels_are_those_of_one_path() -> None:
    with pytest.raises(UsageError, match=r"the path is list \['a'\]; expected that of a dataset or of a manifest"):
        labels_of(["a"])  # type: ignore[arg-type]
