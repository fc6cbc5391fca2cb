"""Examples as rows with a schema, for what Beam has for such rows: selections, aggregates, data frames."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.typehints.schemas import named_fields_from_element_type

from beam_cifar import Example, FilterExamples, ReadExamples, ResizeExamples
from tests.helpers.reading import cifar_rows
from tests.pipeline.test_examples import pipeline

DOGS = '/item[annotation/label="dog"]'


def test_no_field_is_of_unknown_type(cifar10: Path) -> None:
    source = ReadExamples(cifar10)
    read = pipeline() | source
    for rows in (read, read | FilterExamples(DOGS, source.labels), read | ResizeExamples((2, 2))):
        fields = dict(named_fields_from_element_type(rows.element_type))
        assert list(fields) == list(Example._fields)
        assert Any not in fields.values()


def test_rows_are_grouped_and_counted_by_the_names_of_their_fields(cifar10: Path) -> None:
    with pipeline() as line:
        rows = line | ReadExamples(cifar10 / "test_batch")
        grouped = rows | beam.GroupBy("subset").aggregate_field("id", beam.combiners.CountCombineFn(), "images")
        assert_that(grouped | beam.Map(tuple), equal_to([("test_batch", 200)]))


def test_a_data_frame_of_labels_is_queried(cifar10: Path) -> None:
    convert = pytest.importorskip("apache_beam.dataframe.convert", reason="pandas is missing, or too new for this Beam")
    with pipeline() as line:
        frame = convert.to_dataframe(line | ReadExamples(cifar10) | beam.Select("label", "subset", "width"))
        counted = frame[frame.width == 32].groupby("label").count()
        found = convert.to_pcollection(counted, include_indexes=True) | beam.Map(lambda each: (each.label, each.subset))
        expected = Counter(label for _, label, *_ in cifar_rows(cifar10))
        assert_that(found, equal_to([*expected.items()]))
