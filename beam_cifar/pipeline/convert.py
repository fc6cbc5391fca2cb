"""The main pipeline: tasks, blocks, parts, shards, output."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

from beam_cifar import storage
from beam_cifar.data.block import Block
from beam_cifar.errors import JobError, UsageError, as_job_errors
from beam_cifar.jobs.accounts import PartInfo
from beam_cifar.jobs.finish import publish_settings
from beam_cifar.jobs.prepare import Job, prepare, rehearsed
from beam_cifar.jobs.read_part import SourceSettings
from beam_cifar.jobs.resume import left_to_do, with_finished
from beam_cifar.jobs.settings import SinkSettings
from beam_cifar.jobs.spill import left_to_move
from beam_cifar.jobs.summary import Summary, summary_of
from beam_cifar.options import ConvertOptions
from beam_cifar.pipeline.blocks import MapBlocks
from beam_cifar.pipeline.errors import explained
from beam_cifar.pipeline.flink import cancelled_with_us
from beam_cifar.pipeline.imports import logging_kept
from beam_cifar.pipeline.publish import Publish
from beam_cifar.pipeline.read import ReadBlocks, deal_tasks
from beam_cifar.pipeline.runners import BeamOptions, is_dry_run, is_local, obstacles, parsed_options, run_pipeline
from beam_cifar.pipeline.spill import MoveRows
from beam_cifar.pipeline.write import CopyFiles, WriteBlocks
from beam_cifar.planning.plan import Plan, Task
from beam_cifar.steps.encode import encode_images
from beam_cifar.steps.remap import remap_labels
from beam_cifar.steps.select import select_rows


def build_pipeline(pipeline: beam.Pipeline, job: Job) -> None:
    """Adds the steps of a job to a pipeline."""
    plan = job.plan
    source = SourceSettings.of(plan, job.folder)
    sink = SinkSettings.of(plan, job.options.output_format, job.folder)
    tasks = left_to_do(job)
    parts = []
    # Only branches with elements are added: an empty `Create` would still be a separate stage.
    if job.finished:
        parts.append(pipeline | "Finished" >> beam.Create(job.finished, reshuffle=False).with_output_types(PartInfo))
    if written := [task for task in tasks if not task.copy]:
        if spills := left_to_move(source, resumed=job.resumed):
            dealt = pipeline | "MoveRows" >> MoveRows(spills, source, job.folder, written)
        else:
            dealt = pipeline | "Parts" >> beam.Create(written, reshuffle=False).with_output_types(Task)
        blocks = dealt | "SpreadParts" >> beam.Reshuffle().with_output_types(Task) | "ReadBlocks" >> ReadBlocks(source)
        parts.append(_transformed(blocks, plan) | "WriteBlocks" >> WriteBlocks(sink))
    if copied := [task for task in tasks if task.copy]:
        parts.append(deal_tasks(pipeline, "Copies", copied, "SpreadCopies") | "CopyFiles" >> CopyFiles(source, sink))
    _ = (
        parts
        | "AllParts" >> beam.Flatten().with_output_types(PartInfo)
        | "Publish" >> Publish(publish_settings(job, sink))
    )


def _transformed(blocks: beam.PCollection[Block], plan: Plan) -> beam.PCollection[Block]:
    """Applies the transforms of a job, in order: select, rename, change pixels, encode."""
    if not plan.selection.keeps_all:
        selection = {"selection": plan.selection}
        blocks = blocks | "SelectRows" >> MapBlocks(select_rows, selection, plan.selection.shown())
    if not plan.label_map.is_identity:
        targets = plan.label_map.targets
        changed = sum(target != label for label, target in enumerate(targets))
        blocks = blocks | "RemapLabels" >> MapBlocks(remap_labels, {"targets": targets}, {"changed": changed})
    for number, step in enumerate(plan.pixel_steps, 1):
        shown = {"step": step.name, "options": str(step.options())}
        blocks = blocks | f"Pixels{number}-{step.name}" >> MapBlocks(step.transform, shown=shown)
    if plan.encodings:
        encodings = {"encodings": plan.encodings}
        shown = {"encodings": ", ".join(plan.encodings)}
        blocks = blocks | "EncodeImages" >> MapBlocks(encode_images, encodings, shown)
    return blocks


def start(job: Job, beam_options: PipelineOptions) -> PipelineResult:
    """Passes the pipeline of a job to its runner; known errors are raised as themselves."""
    with explained():
        return run_pipeline(lambda pipeline: build_pipeline(pipeline, job), beam_options, job.folder.guard)


@dataclass(frozen=True)
class Conversion:
    """A conversion that was started, and may still be running.

    Attributes:
        job: the job.
        result: result of the pipeline; None if an earlier, interrupted run had already finished the job.

    >>> from beam_cifar import ConvertOptions, run
    >>> run(ConvertOptions("cifar10", "out", "parquet")).wait().written
    60
    """

    job: Job
    result: PipelineResult | None
    _prepared: prepare
    _started: float
    _beam_options: PipelineOptions

    @logging_kept()
    @as_job_errors()
    def wait(self) -> Summary:
        """Waits until the output is complete, cleans up, and returns the summary. Call it only once.

        Raises:
            BeamCifarError: the job failed; the message is one line that explains why nothing was written.
        """
        try:
            if self.result is not None:
                with explained(), cancelled_with_us(self.result, self._beam_options):
                    self.result.wait_until_finish()
            manifest = self._manifest()
        finally:
            self._prepared.__exit__()
        return summary_of(self.job, manifest, time.monotonic() - self._started)

    def _manifest(self) -> dict[str, Any]:
        """Returns what was published; raises `JobError` if the runner lost an element, and with it the last step."""
        folder = self.job.folder
        # A file system shared with other machines may still show what they removed.
        unpublished = self.result is not None and is_local(self._beam_options) and storage.is_file(folder.begun)
        with suppress(FileNotFoundError):
            manifest: dict[str, Any] = {} if unpublished else json.loads(storage.read_whole(folder.manifest))
            if manifest:
                return manifest
        raise JobError(f"{folder.output}: the runner ended the job without its last step; run the job again")


def convert(
    options: ConvertOptions, beam_options: BeamOptions = (), *, on_start: Callable[[Job], Any] = lambda job: None
) -> Summary:
    """Converts a dataset, and returns when the output is complete.

    Args:
        options: what to convert, and how.
        beam_options: Beam's own options, as flags or parsed; default: a local runner.
        on_start: called with the job once all checks have passed.

    Raises:
        BeamCifarError: the job failed; the message is one line that explains why nothing was written.

    >>> from beam_cifar import ConvertOptions, convert
    >>> convert(ConvertOptions("cifar10", "out", "parquet")).written
    60
    """
    return run(options, beam_options, on_start=on_start).wait()


@logging_kept()
@as_job_errors()
def run(
    options: ConvertOptions, beam_options: BeamOptions = (), *, on_start: Callable[[Job], Any] = lambda job: None
) -> Conversion:
    """Starts a conversion, and returns without waiting if the runner allows it: a job on a cluster continues alone.

    The local runner returns when it is done. Until `Conversion.wait` or the end of this process, no other job can
    write to the same output.

    Args:
        options: what to convert, and how.
        beam_options: Beam's own options, as flags or parsed; default: a local runner.
        on_start: called with the job once all checks have passed.

    Raises:
        BeamCifarError: the job was not started; the message is one line that explains why.

    >>> from beam_cifar import ConvertOptions, run
    >>> conversion = run(ConvertOptions("cifar10", "out", "parquet"))
    >>> conversion.wait().written
    60
    """
    started = time.monotonic()
    beam_options = parsed_options(beam_options, options.workers)
    if is_dry_run(beam_options):
        raise UsageError("--dry_run: nothing would run, so there is no output to return; use translate()")
    for obstacle in obstacles(options, beam_options):
        raise UsageError(obstacle)
    # Not a `with` block: the lock on the output is held until `Conversion.wait`, which may come much later.
    prepared = prepare(options)
    job = prepared.__enter__()
    try:
        job = with_finished(job)
        on_start(job)
        result = None if job.done else start(job, beam_options)
    except BaseException:
        prepared.__exit__()
        raise
    return Conversion(job, result, prepared, started, beam_options)


@logging_kept()
def translate(options: ConvertOptions, beam_options: BeamOptions = ()) -> tuple[Job, PipelineResult]:
    """Translates a conversion for its runner, for Beam options with `--dry_run`: nothing is run or written.

    Local paths are allowed, since no worker will read them; `obstacles` lists what would stop the real job.

    Args:
        options: what to convert, and how.
        beam_options: Beam's own options, as flags or parsed, with `--dry_run`.

    Returns:
        The job, and the runner's result with the translated pipeline as `job.proto_pipeline`.

    Raises:
        BeamCifarError: the job could not be started; the message is one line that explains why.
    """
    beam_options = parsed_options(beam_options, options.workers)
    if not is_dry_run(beam_options):
        raise UsageError("translate() needs --dry_run: without it the pipeline would run")
    with rehearsed(options) as job:
        return job, start(job, beam_options)
