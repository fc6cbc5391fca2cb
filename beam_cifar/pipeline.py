"""The straight line: tasks, blocks, parts, shards, output."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

from beam_cifar import __version__, storage
from beam_cifar.block import Block
from beam_cifar.carried import find_error
from beam_cifar.errors import BeamCifarError, JobError
from beam_cifar.in_place import foreign_files
from beam_cifar.job import Job, prepare
from beam_cifar.options import ConvertOptions
from beam_cifar.plan import Plan, Task
from beam_cifar.publish import Publish, PublishSettings
from beam_cifar.resuming import left_to_do, with_finished
from beam_cifar.runner import make_runner, pipeline_options
from beam_cifar.sink import CopyFiles, PartInfo, SinkSettings, WriteBlocks
from beam_cifar.source import ReadBlocks, SourceSettings
from beam_cifar.store_options import use_options
from beam_cifar.transforms import ChangePixels, EncodeImages, RemapLabels, SelectRows


@dataclass(frozen=True)
class Summary:
    """What a conversion did.

    Attributes:
        version: of this package.
        format: of the output.
        output: its directory.
        read: rows read.
        written: rows written.
        filtered: rows dropped by the selection.
        quarantined: rows that could not be kept.
        subsets: rows written by output subset.
        labels: rows written by class name.
        seconds: from the call to the end.
        bytes: of the data files.
        files: number of data files.
        notices: what a user should know.
    """

    version: str
    format: str
    output: str
    read: int
    written: int
    filtered: int
    quarantined: int
    subsets: dict[str, int]
    labels: dict[str, int]
    seconds: float
    bytes: int
    files: int
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conversion:
    """A conversion that was started, and may still run.

    Attributes:
        job: what is done.
        result: of the pipeline; None where an earlier, interrupted run had finished the job already.
    """

    job: Job
    result: PipelineResult | None
    _prepared: prepare
    _started: float

    def wait(self) -> Summary:
        """Returns when the output is complete, and cleans up. To be called once.

        Raises:
            BeamCifarError: the one line that explains why nothing was written.
        """
        try:
            if self.result is not None:
                with explained():
                    self.result.wait_until_finish()
            manifest = json.loads(storage.read_whole(self.job.folder.manifest))
        finally:
            self._prepared.__exit__()
        return _summary(self.job, manifest, time.monotonic() - self._started)


def convert(
    options: ConvertOptions,
    beam_options: Sequence[str] | PipelineOptions = (),
    *,
    on_start: Callable[[Job], Any] = lambda job: None,
) -> Summary:
    """Converts a data set, and returns when the output is complete.

    Args:
        options: what to convert, and how.
        beam_options: Beam's own options, as flags or parsed; a local runner without any.
        on_start: called with the plan, once nothing is left to refuse.

    Raises:
        BeamCifarError: the one line that explains why nothing was written.
    """
    return run(options, beam_options, on_start=on_start).wait()


def run(
    options: ConvertOptions,
    beam_options: Sequence[str] | PipelineOptions = (),
    *,
    on_start: Callable[[Job], Any] = lambda job: None,
) -> Conversion:
    """Starts a conversion, and returns without waiting where the runner allows it: a job on a cluster goes on alone.

    The local runner returns when it is done. Until `Conversion.wait`, or the end of this process, no other job can
    write to the same output.

    Args:
        options: what to convert, and how.
        beam_options: Beam's own options, as flags or parsed; a local runner without any.
        on_start: called with the plan, once nothing is left to refuse.

    Raises:
        BeamCifarError: the one line that explains why nothing was started.
    """
    started = time.monotonic()
    if isinstance(beam_options, PipelineOptions):
        use_options(beam_options)
    else:
        beam_options = pipeline_options(beam_options, options.workers)
    prepared = prepare(options)
    job = prepared.__enter__()
    try:
        job = with_finished(job)
        on_start(job)
        result = None if job.done else start(job, beam_options)
    except BaseException:
        prepared.__exit__()
        raise
    return Conversion(job, result, prepared, started)


def start(job: Job, beam_options: PipelineOptions) -> PipelineResult:
    """Hands the pipeline of a job to its runner; a known error comes out as itself."""
    storage.allow_writes()
    with explained():
        pipeline = beam.Pipeline(runner=make_runner(beam_options), options=beam_options)
        build(pipeline, job)
        return pipeline.run()


@contextmanager
def explained() -> Iterator[None]:
    """Turns a failure of a pipeline into the known error behind it."""
    try:
        yield
    except BeamCifarError:
        raise
    except KeyboardInterrupt:
        storage.cancel_writes()
        raise
    except Exception as error:
        known = find_error(error)
        if known is None:
            known = JobError(f"the pipeline failed: {_gist(error)}; -v shows the traceback")
        raise known from error


def _gist(error: Exception) -> str:
    """The line of an error that says most: runners wrap the one of the worker in pages of traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    told = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return (told[-1] if told else lines[0])[:300]


def build(pipeline: beam.Pipeline, job: Job) -> None:
    """Adds the steps of a job to a pipeline."""
    plan = job.plan
    source = SourceSettings.of(plan, job.folder.rows if plan.counts else "")
    sink = SinkSettings.of(plan, job.options.output_format, job.folder)
    tasks = left_to_do(job)
    parts = []
    if job.finished:
        parts.append(pipeline | "Finished" >> beam.Create(job.finished, reshuffle=False).with_output_types(PartInfo))
    if written := [task for task in tasks if not task.copy]:
        blocks = _tasks(pipeline, "Parts", written) | "ReadBlocks" >> ReadBlocks(source)
        parts.append(transformed(blocks, plan) | "WriteBlocks" >> WriteBlocks(sink))
    if copied := [task for task in tasks if task.copy]:
        parts.append(_tasks(pipeline, "Copies", copied) | "CopyFiles" >> CopyFiles(source, sink))
    _ = (
        parts
        | "AllParts" >> beam.Flatten().with_output_types(PartInfo)
        | "Publish" >> Publish(publish_settings(job, sink))
    )


def transformed(blocks: beam.PCollection[Block], plan: Plan) -> beam.PCollection[Block]:
    """The transforms that a job asks for, in order: select, rename, change pixels, encode."""
    if not plan.selection.keeps_all:
        blocks = blocks | "SelectRows" >> SelectRows(plan.selection)
    if not plan.label_map.is_identity:
        blocks = blocks | "RemapLabels" >> RemapLabels(plan.label_map.targets)
    for number, step in enumerate(plan.pixel_steps, 1):
        blocks = blocks | f"Pixels{number}-{step.name}" >> ChangePixels(step)
    if plan.encodings:
        blocks = blocks | "EncodeImages" >> EncodeImages(plan.encodings)
    return blocks


def publish_settings(job: Job, sink: SinkSettings) -> PublishSettings:
    """What the publish step of a job needs."""
    declared = job.plan.declared if job.plan.exhaustive else None
    foreign = tuple(foreign_files(job.options)) if job.options.kept is not None else ()
    return PublishSettings(
        sink, job.plan.label_map, declared, job.facts, job.options.overwrite, job.plan.counts, foreign
    )


def _tasks(pipeline: beam.Pipeline, name: str, tasks: Sequence[Task]) -> beam.PCollection[Task]:
    """Deals tasks out to workers."""
    return (
        pipeline
        | name >> beam.Create(tasks, reshuffle=False).with_output_types(Task)
        | f"Spread{name}" >> beam.Reshuffle().with_output_types(Task)
    )


def _summary(job: Job, manifest: dict[str, Any], seconds: float) -> Summary:
    rows = manifest["rows"]
    unlabelled = {"(unlabelled)": manifest["unlabelled"]} if manifest["unlabelled"] else {}
    return Summary(
        version=__version__,
        format=job.options.output_format,
        output=job.folder.output,
        read=rows["read"],
        written=rows["written"],
        filtered=rows["filtered"],
        quarantined=rows["rejected"],
        subsets=manifest["subsets"],
        labels={**manifest["classes"], **unlabelled},
        seconds=round(seconds, 3),
        bytes=sum(shard["bytes"] for shard in manifest["shards"]),
        files=sum(shard.get("files", 1) for shard in manifest["shards"]),
        notices=(*job.plan.notices, *manifest["notices"]),
    )
