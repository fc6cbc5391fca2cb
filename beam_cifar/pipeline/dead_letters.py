"""Dead letters: what becomes of rows and examples that a transform cannot process."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import apache_beam as beam

from beam_cifar.images.example import Example
from beam_cifar.pipeline.rows import BadExample

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Handling:
    """What becomes of rows and examples that cannot be processed.

    Attributes:
        good: tag of the others.
        bad: tag of what became of them.
        keep_images: whether to keep their images.
    """

    good: str
    bad: str
    keep_images: bool

    def kept(self, example: Example) -> bytes | None:
        """Returns the image to keep."""
        return example.image if self.keep_images else None


class HandlesErrors(beam.PTransform):
    """A transform that can go on without what it cannot process."""

    _handling: Handling | None = None

    def with_exception_handling(
        self, main_tag: str = "good", dead_letter_tag: str = "bad", *, keep_images: bool = False
    ) -> Self:
        """Returns the same transform with two outputs: examples, and a `BadExample` for each that it cannot process.

        Without it, the first one ends the pipeline. Unlike that of Beam's own transforms, it has no `threshold`.

        Args:
            main_tag: name of the first output.
            dead_letter_tag: name of the second.
            keep_images: whether the second has the images of examples; rows that could not be read have none.

        >>> import apache_beam as beam
        >>> from beam_cifar import ReadExamples
        >>> with beam.Pipeline() as pipeline:
        ...     good, bad = pipeline | ReadExamples("cifar10").with_exception_handling()
        ...     _ = bad | beam.Map(lambda each: f"{each.source} row {each.row}: {each.error}") | beam.Map(print)
        """
        made = copy.copy(self)
        made._handling = Handling(main_tag, dead_letter_tag, keep_images)
        return made


def outputs(transform: beam.ParDo, handling: Handling | None) -> beam.PTransform:
    """Returns the transform with the types of its outputs: examples, and perhaps what it cannot process."""
    if handling is None:
        return transform.with_output_types(Example)
    hints = {handling.bad: BadExample}
    return transform.with_output_types(Example, **hints).with_outputs(handling.bad, main=handling.good)
