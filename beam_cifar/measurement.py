"""One reading of a data set: a pipeline in which every block leaves a tally, and nothing else moves."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from beam_cifar import storage
from beam_cifar.block import BadRow, Block
from beam_cifar.carried import carried
from beam_cifar.errors import InputError, JobError, UsageError
from beam_cifar.formats import get_source
from beam_cifar.formats.base import Catalog, FileSummary, Origin
from beam_cifar.job import COUNTS, find_catalog
from beam_cifar.labels import LabelTable
from beam_cifar.measures import Measured, numbered_subsets
from beam_cifar.memory import give_back
from beam_cifar.options import Input
from beam_cifar.pipeline import explained
from beam_cifar.plan import Task, learn_parents, reading_tasks, select_files, whole_file_tasks
from beam_cifar.runner import is_dataflow, is_local, pipeline_options, run_pipeline
from beam_cifar.selection import Selection
from beam_cifar.source import ReadBlocks, SourceSettings
from beam_cifar.tally import MAX_NAMED, MODULUS, ROW, Asked, decode_tally, tally_of


@dataclass(frozen=True)
class Settings:
    """What every task needs besides itself.

    Attributes:
        source: how blocks are read.
        labels: label table of the data set.
        asked: what is wanted of them.
        folder: where tallies go, one file for each block; all workers must see it.
    """

    source: SourceSettings
    labels: LabelTable
    asked: Asked
    folder: str


@contextmanager
def measured(
    given: Input,
    asked: Asked,
    *,
    workers: int | None = None,
    beam_options: Sequence[str] | PipelineOptions = (),
) -> Iterator[Measured]:
    """Reads every image of a data set once.

    Args:
        given: path, format and subsets.
        asked: what is wanted.
        workers: local workers; None chooses.
        beam_options: Beam's own options, as flags or parsed; a local runner without any.

    Yields:
        What was found; its ids can be asked for as long as this is not left.

    Raises:
        BeamCifarError: the one line that explains why there is no result.
    """
    if not isinstance(beam_options, PipelineOptions):
        beam_options = pipeline_options(beam_options, workers)
    if is_dataflow(beam_options):
        raise UsageError("DataflowRunner: this command does not run there; use a local runner, which reads gs://")
    with _shared_folder(beam_options) as folder:
        catalog = find_catalog(given.path, given.format, folder)
        summaries, broken = _summaries(catalog, given.subsets, tolerant=asked.tolerant)
        labels = catalog.labels if asked.tolerant else learn_parents(catalog, summaries)
        files = tuple(summary.file for summary in summaries)
        source = SourceSettings(
            (Origin(catalog.format, labels),), files, Selection(labels.names), tolerant=asked.tolerant
        )
        settings = Settings(source, labels, asked, os.path.join(folder, "tallies"))
        tasks = whole_file_tasks(summaries) if asked.tolerant else reading_tasks(summaries)
        storage.make_folder(settings.folder)
        if tasks:
            read_all(tasks, settings, beam_options)
        yield replace(_gathered(catalog, labels, summaries, settings.folder), broken=tuple(broken))


@contextmanager
def _shared_folder(options: PipelineOptions) -> Iterator[str]:
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


def read_all(tasks: Sequence[Task], settings: Settings, beam_options: PipelineOptions) -> None:
    """Runs the pipeline; a known error comes out as itself."""
    storage.allow_writes()
    with explained():
        run_pipeline(lambda pipeline: build(pipeline, tasks, settings), beam_options).wait_until_finish()


def build(pipeline: beam.Pipeline, tasks: Sequence[Task], settings: Settings) -> None:
    """Adds the steps that tally blocks to a pipeline."""
    _ = (
        pipeline
        | "Parts" >> beam.Create(tasks, reshuffle=False).with_output_types(Task)
        | "Spread" >> beam.Reshuffle().with_output_types(Task)
        | "ReadBlocks" >> ReadBlocks(settings.source)
        | "TallyBlocks" >> beam.ParDo(_TallyBlock(settings)).with_input_types(Block).with_output_types(int)
    )


class _TallyBlock(beam.DoFn):
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def process(self, block: Block) -> Iterator[int]:
        """Writes the tally of a block, and yields how many rows it has."""
        with carried():
            write_tally(block, self._settings)
        yield len(block.table)


def write_tally(block: Block, settings: Settings) -> None:
    """Writes the tally of a block to a file of its own: a bundle that is run again replaces it by its equal."""
    tally = tally_of(block, settings.source.files[block.shard].shown, settings.labels, settings.asked)
    path = os.path.join(settings.folder, "{:06d}-{:06d}-{:06d}".format(*block.coordinates))
    with storage.StagedFile(path, os.path.join(settings.folder, "scratch")) as file:
        file.write(tally.encoded())
        file.commit()


def _summaries(
    catalog: Catalog, subsets: Sequence[str], *, tolerant: bool
) -> tuple[tuple[FileSummary, ...], list[str]]:
    """The summaries of the files asked for; and, if those are no reason to stop, why some cannot be read."""
    source, summaries, broken = get_source(catalog.format), [], []
    for file in select_files(catalog, subsets):
        try:
            with storage.reading(catalog.path):
                summaries.append(source.scan(file, catalog.labels, COUNTS))
        except InputError as error:
            if not tolerant:
                raise
            broken.append(str(error))
    return tuple(summaries), broken


def _gathered(catalog: Catalog, labels: LabelTable, summaries: tuple[FileSummary, ...], folder: str) -> Measured:
    """Puts the tallies of all blocks together, in order."""
    names = sorted(name for name in storage.names_in(folder) if name != "scratch")
    expected = sum(summary.rows for summary in summaries)
    rows = np.zeros(expected, dtype=ROW)
    subsets, subset_of = numbered_subsets(summaries)
    histograms = np.zeros((len(subsets), 3, 256), dtype=np.int64)
    totals = [0] * len(subsets)
    rejected: list[BadRow] = []
    count = filled = 0
    for name in names:
        with storage.open_file(os.path.join(folder, name)) as stored:
            tally = decode_tally(stored.read())
        subset = int(subset_of[int(name.partition("-")[0])])
        rows[filled : filled + len(tally.rows)] = tally.rows
        filled += len(tally.rows)
        histograms[subset] += tally.histogram
        totals[subset] = (totals[subset] + tally.total) % MODULUS
        rejected += tally.rejected[: MAX_NAMED - len(rejected)]
        count += tally.rejected_count
    if filled + count != expected:
        raise JobError(f"{catalog.path}: {filled + count} of {expected} rows came back from the workers in {folder}")
    give_back()
    return Measured(
        catalog, labels, summaries, rows[:filled], histograms, tuple(totals), tuple(rejected), rejected_count=count
    )
