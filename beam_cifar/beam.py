"""For pipelines of your own: options for Beam's local runner with which it loses nothing."""

from __future__ import annotations

from collections.abc import Sequence

from beam_cifar.pipeline.runners import ParsedOptions, local_flags

__all__ = ["local_options"]


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
