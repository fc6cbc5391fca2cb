"""For tests of users' own pipelines: examples that need no files, and a comparison that says what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import apache_beam as beam
import numpy as np
from apache_beam.testing.util import BeamAssertException, assert_that

from beam_cifar.data.labels import LabelTable
from beam_cifar.data.limits import check_size
from beam_cifar.data.text import counted
from beam_cifar.errors import UsageError
from beam_cifar.images.example import Example
from beam_cifar.pipeline.incoming import example_of, label_table

_NAMED: Final = ("label", "filename")


@dataclass(eq=False)
class FakeExamples(beam.PTransform):
    """Examples without a dataset: of each subset `count` of them, whose pixels depend on their id alone.

    Attributes:
        count: number of examples of each subset.
        size: (height, width) in pixels.
        classes: class names; labels are assigned in turn.
        subsets: names of the subsets.
        labels: the classes as a label table.

    Raises:
        UsageError: the count is negative, a size is not positive, or there are no classes.

    >>> import apache_beam as beam
    >>> from beam_cifar.testing import FakeExamples
    >>> with beam.Pipeline() as pipeline:
    ...     _ = pipeline | FakeExamples(count=3) | beam.Map(lambda each: (each.id, each.label)) | beam.Map(print)
    ('000000', 0)
    ('000001', 1)
    ('000002', 0)
    """

    count: int = 10
    size: tuple[int, int] = (32, 32)
    classes: Sequence[str] = ("cat", "dog")
    subsets: Sequence[str] = ("train",)
    labels: LabelTable = field(init=False)

    def __post_init__(self) -> None:
        check_size(self.size)
        self.labels = label_table(self.classes)
        if self.count < 0 or isinstance(self.subsets, str):
            found = f"{self.count} examples of each subset of {self.subsets!r}"
            raise UsageError(f"FakeExamples: asked for {found}; expected 0 or more, and a list of names")

    def examples(self) -> list[Example]:
        """Returns the examples, for what a test expects."""
        return [self._example(row, subset) for subset in self.subsets for row in range(self.count)]

    def expand(self, start: Any) -> beam.PCollection[Example]:
        # Made anew: what has crossed the runner is a row of another type in Beam 2.72.
        made = start | beam.Create(self.examples()).with_output_types(Example)
        return made | beam.Map(Example._make).with_output_types(Example)

    def _example(self, row: int, subset: str) -> Example:
        name, (height, width) = f"{row:06d}", self.size
        pixels = np.random.default_rng(row).integers(0, 256, (height, width, 3), np.uint8)
        bare = Example(name, subset, None, "raw", None, None, None, row % len(self.classes), f"{name}.png", row)
        return bare.with_array(pixels)


def assert_examples_equal(
    actual: beam.PCollection[Example], expected: Iterable[Example], label: str = "assert_examples_equal"
) -> None:
    """Checks that a PCollection has some examples: equal ids, subsets, labels, file names and pixels.

    Neither their order matters nor how their images are encoded. The check runs with the pipeline, which then fails
    with a line that says which example differs, and how.

    Args:
        actual: what a transform under test has made.
        expected: what it should have made.
        label: name of the check, which differs from those of others in the pipeline.

    >>> import apache_beam as beam
    >>> from beam_cifar.testing import FakeExamples, assert_examples_equal
    >>> fakes = FakeExamples(count=3)
    >>> with beam.Pipeline() as pipeline:
    ...     assert_examples_equal(pipeline | fakes, fakes.examples())
    """
    wanted = list(expected)

    def check(found: list[Any]) -> None:
        # Rows, which some versions of Beam make of examples that cross a shuffle, are examples too.
        examples = [example_of(each, "assert_examples_equal") for each in found]
        if difference := _difference(examples, wanted):
            raise BeamAssertException(difference)

    assert_that(actual, check, label=label)


def _difference(found: Sequence[Example], wanted: Sequence[Example]) -> str:
    """Returns how some examples differ from others, or an empty string."""
    ours, theirs = ({(each.subset, each.id): each for each in side} for side in (found, wanted))
    if len(theirs) < len(wanted):
        return "expected examples have the same subset and id; make ids unique"
    if len(ours) < len(found):
        twice = next(key for key, n in Counter((each.subset, each.id) for each in found).items() if n > 1)
        return f"example {twice[1]!r} of subset {twice[0]!r} is there twice"
    for key in theirs:
        name = f"example {key[1]!r} of subset {key[0]!r}"
        if key not in ours:
            return f"{name} is missing; there are {counted(len(found), 'example')}, expected {len(wanted):,}"
        one, other = ours[key], theirs[key]
        for field_name in _NAMED:
            if getattr(one, field_name) != getattr(other, field_name):
                return f"{name} has {field_name} {getattr(one, field_name)!r}; expected {getattr(other, field_name)!r}"
        if difference := _other_pixels(one, other):
            return f"{name} {difference}"
    for key in ours:
        if key not in theirs:
            return f"example {key[1]!r} of subset {key[0]!r} was not expected"
    return ""


def _other_pixels(one: Example, other: Example) -> str:
    if one.image is None or other.image is None:
        return "" if one.image is other.image else f"has {'no' if one.image is None else 'an'} image"
    ours, theirs = one.array(), other.array()
    if ours.shape != theirs.shape:
        return f"has an image of shape {list(ours.shape)}; expected {list(theirs.shape)}"
    differing = np.argwhere((ours != theirs).any(axis=2))
    if not len(differing):
        return ""
    row, column = differing[0].tolist()
    return (
        f"has other pixels in {counted(len(differing), 'place')}, first in row {row}, column {column}: "
        f"{ours[row, column].tolist()}; expected {theirs[row, column].tolist()}"
    )
