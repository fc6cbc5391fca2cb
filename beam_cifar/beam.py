"""For pipelines of your own: a local runner that loses nothing, labels, transforms for Beam YAML."""

from __future__ import annotations

import os
from collections.abc import Sequence

from beam_cifar.pipeline.read_examples import labels_of
from beam_cifar.pipeline.runners import ParsedOptions, local_flags

__all__ = ["labels_of", "local_options", "yaml_providers"]


def local_options(workers: int | None = None, flags: Sequence[str] = ()) -> ParsedOptions:
    """Returns `PipelineOptions` for a pipeline on this machine.

    With several workers, Beam's own local runner flushes its data streams by a timer, and loses elements of bundles
    that take longer than a second (docs/beam-timed-flush.md). With these options it does not.

    Args:
        workers: number of workers, which are threads; default: one per core, at most 4.
        flags: further flags of Beam, such as `--temp_location=gs://bucket/tmp`.

    Raises:
        UsageError: the number of workers is not positive.

    >>> import apache_beam as beam
    >>> from beam_cifar import ReadExamples
    >>> from beam_cifar.beam import local_options
    >>> with beam.Pipeline(options=local_options(workers=2)) as pipeline:
    ...     _ = pipeline | ReadExamples("cifar10") | beam.combiners.Count.Globally() | beam.Map(print)
    60
    """
    return ParsedOptions([*local_flags(workers), *flags])


def yaml_providers() -> str:
    """Returns the path of the file to include in a pipeline of Beam YAML: it names `ReadImageDataset` and others.

    >>> from beam_cifar.beam import yaml_providers
    >>> "WriteImageDataset: " in open(yaml_providers()).read()
    True
    """
    return os.path.join(os.path.dirname(__file__), "providers.yaml")
