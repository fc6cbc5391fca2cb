"""Runs a function on every block of a dataset: a pipeline in which nothing else moves."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from beam_cifar import storage
from beam_cifar.data.block import Block
from beam_cifar.errors import UsageError
from beam_cifar.jobs.read_part import SourceSettings
from beam_cifar.pipeline.errors import carried, explained
from beam_cifar.pipeline.read import ReadBlocks, deal_tasks
from beam_cifar.pipeline.runners import BeamOptions, is_dataflow, is_local, parsed_options, run_pipeline
from beam_cifar.planning.plan import Task


def reading_options(beam_options: BeamOptions, workers: int | None) -> PipelineOptions:
    """Beam's options of a job that reads a dataset and writes none.

    Raises:
        UsageError: a runner whose workers cannot leave files where the launcher finds them.
    """
    options = parsed_options(beam_options, workers)
    if is_dataflow(options):
        raise UsageError("DataflowRunner: this command does not run there; use a local runner, which reads gs://")
    return options


@contextmanager
def shared_folder(options: PipelineOptions) -> Iterator[str]:
    """A temporary folder that all workers see: on a cluster in `--temp_location`, else in that of this machine."""
    place = None if is_local(options) else options.view_as(GoogleCloudOptions).temp_location
    if not place:
        with tempfile.TemporaryDirectory(prefix="beam_cifar-", ignore_cleanup_errors=True) as folder:
            yield folder
        return
    folder = os.path.join(storage.absolute(place, "--temp_location"), f"beam_cifar-{uuid.uuid4().hex[:16]}")
    try:
        storage.make_folder(folder)
        yield folder
    finally:
        storage.remove_tree(folder)


def for_each_block(
    function: Callable[[Block], None], tasks: Sequence[Task], source: SourceSettings, beam_options: PipelineOptions
) -> None:
    """Calls a function with every block of some tasks, on the workers; a known error comes out as itself.

    Workers must be able to import it, and what it leaves behind must be the same when a bundle is run again.
    """
    storage.allow_writes()
    with explained():
        run_pipeline(lambda pipeline: _build(pipeline, function, tasks, source), beam_options).wait_until_finish()


def _build(
    pipeline: beam.Pipeline, function: Callable[[Block], None], tasks: Sequence[Task], source: SourceSettings
) -> None:
    _ = (
        deal_tasks(pipeline, "Parts", tasks, "Spread")
        | "ReadBlocks" >> ReadBlocks(source)
        | "TallyBlocks" >> beam.Map(_on_block, function).with_output_types(int)
    )


@carried()
def _on_block(block: Block, function: Callable[[Block], None]) -> int:
    """Returns how many rows the block has."""
    function(block)
    return len(block.table)
