"""What `beam_cifar.testing` offers for the tests of others."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.util import assert_that, equal_to

import beam_cifar.testing
from beam_cifar import Example, LabelTable, WriteExamples
from beam_cifar.errors import UsageError
from beam_cifar.images.png import encode_png
from beam_cifar.testing import FakeExamples, assert_examples_equal
from tests.pipeline.test_examples import pipeline


def test_fake_examples_are_the_same_each_time_and_can_be_written(tmp_path: Any) -> None:
    source = FakeExamples(7, (5, 6), ["a", "b", "c"], ["train", "test"])
    made = source.examples()
    assert [(each.subset, each.id, each.label) for each in made[5:8]] == [
        ("train", "000005", 2),
        ("train", "000006", 0),
        ("test", "000000", 0),
    ]
    assert len(made) == 14
    assert {each.array().shape for each in made} == {(5, 6, 3)}
    assert len({each.image for each in made}) == 7
    assert made == source.examples()
    with pipeline() as line:
        written = line | source | WriteExamples(tmp_path / "out", "cifar", source.labels)
        assert_that(written | beam.Map(lambda each: each.images), equal_to([14]))
    assert source.labels == LabelTable(("a", "b", "c"))


@pytest.mark.parametrize(
    "options", [{"count": -1}, {"size": (0, 3)}, {"classes": []}, {"classes": "cat"}, {"subsets": "train"}]
)
def test_impossible_ones_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        FakeExamples(**options)


def with_pixels(example: Example, at: tuple[int, int], value: int) -> Example:
    pixels = example.array().copy()
    pixels[at] = value
    return example.with_array(pixels)


FAKES = FakeExamples(3, (4, 4)).examples()
A, B, C = FAKES
DIFFERENT: dict[str, tuple[list[Example], str]] = {
    "missing": ([A, B], "example '000002' of subset 'train' is missing; there are 2 examples, expected 3"),
    "too many": ([*FAKES, A.replace(id="x")], "example 'x' of subset 'train' was not expected"),
    "twice": ([A, B, C.replace(label=1), C], "example '000002' of subset 'train' is there twice"),
    "label": ([A, B, C.replace(label=1)], "has label 1; expected 0"),
    "file name": ([A, B, C.replace(filename="x.png")], "has filename 'x.png'; expected '000002.png'"),
    "a pixel": ([A, with_pixels(B, (2, 3), 7), C], "has other pixels in 1 place, first in row 2, column 3: [7, 7, 7]"),
    "shape": ([A, B.with_array(np.zeros((2, 4, 3), np.uint8)), C], "shape [2, 4, 3]; expected [4, 4, 3]"),
    "no image": ([A, B.replace(image=None, height=None, width=None, channels=None), C], "has no image"),
}


def check(found: list[Example]) -> None:
    with pipeline() as line:
        assert_examples_equal(line | beam.Create(found).with_output_types(Example), FAKES)


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_said(name: str) -> None:
    found, message = DIFFERENT[name]
    with pytest.raises(Exception, match="example") as caught:
        check(found)
    assert message in str(caught.value)


def test_neither_order_nor_encoding_matters() -> None:
    planes = np.frombuffer(B.image or b"", np.uint8).reshape(1, 3, 4, 4)
    buffer, _ = encode_png(planes)
    check([C.replace(order=9), B.replace(image=bytes(buffer), encoding="png"), A])


def test_all_of_it_is_public() -> None:
    assert all(hasattr(beam_cifar.testing, name) for name in beam_cifar.testing.__all__)


def test_rows_are_compared_as_the_examples_that_they_are() -> None:
    with pipeline() as line:
        rows = line | beam.Create(FAKES).with_output_types(Example) | beam.Map(lambda each: beam.Row(**each._asdict()))
        assert_examples_equal(rows, FAKES)
    with pytest.raises(Exception, match="assert_examples_equal takes examples, or rows"), pipeline() as line:
        assert_examples_equal(line | beam.Create(["a"]), FAKES)
