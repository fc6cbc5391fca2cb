"""Rows and examples that a transform cannot process, as a second output."""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.typehints.schemas import named_fields_from_element_type

from beam_cifar import (
    Example,
    FilterExamples,
    LabelTable,
    ReadExamples,
    RemapLabels,
    ResizeExamples,
    TransformExamples,
    WriteExamples,
)
from beam_cifar.images.png import encode_png
from tests.pipeline.test_examples import pipeline

IMAGES = 1000
DAMAGES: dict[str, Any] = {
    "cut off": lambda png: png[: len(png) // 2],
    "without its end": lambda png: png[:-12],
    "empty": lambda png: b"",
    "a text": lambda png: b"<html>not found</html>",
    "no pixels": lambda png: png[:16] + bytes(8) + png[24:],
    "damaged pixels": lambda png: with_other_pixels(png),
}
BAD = range(0, 37 * 27, 27)
"""Rows that are damaged, 37 of them."""


def with_other_pixels(png: bytes) -> bytes:
    """Returns a PNG file whose chunks are whole, but whose compressed pixels are not."""
    at = png.index(b"IDAT")
    size = int.from_bytes(png[at - 4 : at], "big")
    chunk = png[at : at + 10] + bytes(size - 6)
    return png[:at] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[at + 8 + size :]


def make_damaged(folder: Path) -> Path:
    """Makes a Parquet dataset of 1,000 images of which 37 are damaged, in six ways."""
    rng = np.random.default_rng(5)
    buffer, offsets = encode_png(rng.integers(0, 256, (IMAGES, 3, 8, 8), np.uint8))
    files = [bytes(buffer[offsets[i] : offsets[i + 1]]) for i in range(IMAGES)]
    for number, row in enumerate(BAD):
        files[row] = list(DAMAGES.values())[number % len(DAMAGES)](files[row])
    images = [{"bytes": data, "path": f"{row:04d}.png"} for row, data in enumerate(files)]
    table = pa.table({"image": images, "label": [row % 10 for row in range(IMAGES)]})
    for part in range(4):
        rows = table.slice(part * IMAGES // 4, IMAGES // 4)
        pq.write_table(rows, folder / f"train-{part:05d}-of-00004.parquet", row_group_size=50)
    return folder


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_damaged(tmp_path_factory.mktemp("damaged"))


FLAGS = {
    "one worker": [],
    "two workers": ["--direct_num_workers=2"],
    "twice": ["--direct_runner_bundle_repeat=1"],
    "prism": [],
}


@pytest.mark.parametrize(
    "name", [name if name != "prism" else pytest.param(name, marks=pytest.mark.prism) for name in FLAGS]
)
def test_what_is_damaged_is_set_aside_and_all_else_is_written(name: str, damaged: Path, tmp_path: Path) -> None:
    flags = FLAGS[name]
    if name == "prism":
        location = os.environ["BEAM_CIFAR_PRISM"]
        flags = ["--runner=PrismRunner", f"--prism_location={location}", "--environment_type=LOOPBACK"]
    check_damaged(damaged, tmp_path, pipeline(*flags))


def check_damaged(damaged: Path, folder: Path, line: beam.Pipeline) -> None:
    """Checks that a pipeline sets aside what is damaged, and writes the same bytes as one without it."""
    source = ReadExamples(damaged)
    read, unread = line | source.with_exception_handling()
    small, undecoded = read | ResizeExamples((4, 4)).with_exception_handling(keep_images=True)
    made = small | WriteExamples(folder / "out", "parquet", source.labels)
    bad = (unread, undecoded) | beam.Flatten() | beam.Map(lambda each: [*each]) | beam.combiners.ToList()
    _ = bad | beam.Map(json.dumps, default=len) | beam.io.WriteToText(str(folder / "bad"), shard_name_template="")
    assert_that(made | beam.Map(lambda each: each.images), equal_to([IMAGES - len(BAD)]))
    line.run().wait_until_finish()
    found = json.loads((folder / "bad").read_text())
    by_stage = Counter(stage for _, _, _, _, stage, _, _ in found)
    # What is wrong with pixels is found by the first step that looks at pixels.
    assert by_stage == {"ReadExamples": 31, "ResizeExamples": 6}
    rows = [250 * int(os.path.basename(path)[6:11]) + row for path, row, *_ in found if path]
    ids = [int(item_id) for _, _, _, item_id, stage, _, _ in found if stage == "ResizeExamples"]
    assert sorted(rows + ids) == list(BAD)
    assert all(error and "\n" not in error for *_, error, _ in found)
    assert [bool(image) for *_, stage, _, image in found] == [stage == "ResizeExamples" for *_, stage, _, _ in found]


def test_without_it_the_first_one_ends_the_pipeline(damaged: Path) -> None:
    with pytest.raises(Exception, match="expected a PNG, JPEG, |cut off|ends"), pipeline() as line:
        _ = line | ReadExamples(damaged) | beam.combiners.Count.Globally()


def test_rows_set_aside_have_a_schema_and_are_counted(damaged: Path) -> None:
    line = pipeline()
    outputs = line | ReadExamples(damaged).with_exception_handling("rest", "broken")
    assert outputs.rest.element_type is Example
    fields = dict(named_fields_from_element_type(outputs.broken.element_type))
    assert list(fields) == ["source", "row", "subset", "id", "stage", "error", "image"]
    assert Any not in fields.values()
    result = line.run()
    result.wait_until_finish()
    (counter,) = result.metrics().query(MetricsFilter().with_name("rows_rejected"))["counters"]
    assert counter.committed == 31


@pytest.mark.parametrize(
    "transform",
    [FilterExamples("/item", ["a"]), RemapLabels({}, ["a"]), TransformExamples("grayscale"), ResizeExamples((1, 1))],
    ids=lambda each: type(each).__name__,
)
def test_an_invalid_example_is_set_aside_by_any_transform(transform: Any) -> None:
    good = Example("good", "train", bytes(12), "raw", 2, 2, 3, 0, "good.png")
    bad = good.replace(id="bad", image=bytes(11))
    with pipeline() as line:
        rows = line | beam.Create([good, bad, good.replace(id="also good")]).with_output_types(Example)
        kept, refused = rows | transform.with_exception_handling(keep_images=True)
        assert_that(kept | beam.Map(lambda each: each.id), equal_to(["good", "also good"]), label="kept")
        found = refused | beam.Map(lambda each: (each.id, each.stage, each.image, each.error))
        error = "subset 'train': example 'bad': has 11 bytes of pixels, expected 3 x 2 x 2"
        assert_that(found, equal_to([("bad", type(transform).__name__, bytes(11), error)]), label="refused")


def test_the_transform_itself_stays_as_it_was() -> None:
    resize = ResizeExamples((1, 1))
    assert resize.with_exception_handling() is not resize
    rows = beam.Pipeline() | beam.Create([]).with_output_types(Example)
    assert (rows | resize).element_type is Example
    assert LabelTable(("a",)) == RemapLabels({}, ["a"]).with_exception_handling().labels
