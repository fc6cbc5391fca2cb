"""Runs a function on every block of a dataset, in a pipeline that moves only row counts."""

from __future__ import annotations

import os
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
from beam_cifar.pipeline.imports import logging_kept
from beam_cifar.pipeline.read import ReadBlocks, deal_tasks
from beam_cifar.pipeline.runners import BeamOptions, is_dataflow, is_local, parsed_options, run_pipeline
from beam_cifar.planning.plan import Task


@logging_kept()
def reading_options(beam_options: BeamOptions, workers: int | None) -> PipelineOptions:
    """Returns Beam's options for a job that reads a dataset and writes none.

    Raises:
        UsageError: the workers of the runner cannot write files where the launcher finds them.
    """
    options = parsed_options(beam_options, workers)
    if is_dataflow(options):
        raise UsageError("this command does not support DataflowRunner; use a local runner, which can read gs://")
    return options


@contextmanager
def shared_folder(options: PipelineOptions) -> Iterator[str]:
    """Yields a temporary folder that all workers see: in `--temp_location` on a cluster, else on this machine."""
    with logging_kept():
        place = None if is_local(options) else options.view_as(GoogleCloudOptions).temp_location
    if not place:
        with storage.TemporaryFolder() as folder:
            yield folder
        return
    folder = os.path.join(storage.absolute(place, "--temp_location"), f"beam_cifar-{uuid.uuid4().hex[:16]}")
    try:
        storage.make_folder(folder)
        yield folder
    finally:
        storage.remove_tree(folder)


@logging_kept()
def for_each_block(
    function: Callable[[Block], None],
    tasks: Sequence[Task],
    source: SourceSettings,
    beam_options: PipelineOptions,
    guard: storage.Guard,
) -> None:
    """Calls a function with every block of some tasks, on the workers; known errors are raised as themselves.

    Workers must be able to import the function, and its results must be the same if a bundle runs again. What it
    writes under `guard` it can no longer write after a failure or an interrupt.
    """
    with explained():
        run_pipeline(
            lambda pipeline: _build(pipeline, function, tasks, source), beam_options, guard
        ).wait_until_finish()


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
    """Calls the function and returns the number of rows of the block."""
    function(block)
    return len(block.table)
