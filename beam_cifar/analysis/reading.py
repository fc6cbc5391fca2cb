"""Reads a dataset once: writes a tally for every block, then combines the tallies."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from beam_cifar import storage
from beam_cifar.analysis.derive import Measured, numbered_subsets
from beam_cifar.analysis.tally import MODULUS, ROW, Asked, decode_tally, tally_of
from beam_cifar.data.block import BadRow, Block
from beam_cifar.data.labels import LabelTable
from beam_cifar.data.memory import give_back
from beam_cifar.errors import InputError, JobError
from beam_cifar.filters.selection import Selection
from beam_cifar.formats.contract.types import Catalog, FileSummary
from beam_cifar.formats.registry import get_source
from beam_cifar.jobs.read_part import SourceSettings
from beam_cifar.options import Input
from beam_cifar.pipeline.each_block import for_each_block, reading_options, shared_folder
from beam_cifar.pipeline.runners import BeamOptions
from beam_cifar.planning.cut import reading_tasks
from beam_cifar.planning.plan import Origin
from beam_cifar.planning.summaries import learn_parents, scan, select_files
from beam_cifar.planning.survey import COUNTS, find_catalog


@dataclass(frozen=True)
class TallySettings:
    """The settings shared by all tasks.

    Attributes:
        source: how to read blocks.
        labels: label table of the dataset.
        asked: what to measure.
        folder: folder for the tallies, one file per block; visible to all workers.
        guard: permission to write them.
    """

    source: SourceSettings
    labels: LabelTable
    asked: Asked
    folder: str
    guard: storage.Guard = storage.Guard()  # noqa: RUF009 (a frozen dataclass)


@contextmanager
def measured(
    given: Input, asked: Asked, *, workers: int | None = None, beam_options: BeamOptions = ()
) -> Iterator[Measured]:
    """Reads every image of a dataset once.

    Args:
        given: path, format, subsets, and how images are read.
        asked: what to measure.
        workers: number of local workers; chosen automatically if None.
        beam_options: Beam's own options, as flags or parsed; default: a local runner.

    Yields:
        The measurements; ids are available until the context is left.

    Raises:
        BeamCifarError: the dataset cannot be read; the message is one line.
    """
    beam_options = reading_options(beam_options, workers)
    with shared_folder(beam_options) as folder:
        catalog = find_catalog(given.path, given.format, folder)
        summaries, broken = _summaries(catalog, given, tolerant=asked.tolerant)
        labels = catalog.labels if asked.tolerant else learn_parents(catalog, summaries)
        files = tuple(summary.file for summary in summaries)
        source = SourceSettings(
            (Origin(catalog.format, labels),), files, Selection(labels.names), tolerant=asked.tolerant
        )
        guard = storage.Guard(run=uuid.uuid4().hex)
        settings = TallySettings(source, labels, asked, os.path.join(folder, "tallies"), guard)
        tasks = reading_tasks(summaries, tolerant=asked.tolerant)
        storage.make_folder(settings.folder)
        if tasks:
            for_each_block(functools.partial(write_tally, settings=settings), tasks, source, beam_options, guard)
        yield replace(_gathered(catalog, labels, summaries, settings.folder, asked.listed), broken=tuple(broken))


def write_tally(block: Block, settings: TallySettings) -> None:
    """Writes the tally of a block to its own file; a bundle that Beam retries replaces it with an equal one."""
    tally = tally_of(block, settings.source.files[block.shard].shown, settings.labels, settings.asked)
    path = os.path.join(settings.folder, "{:06d}-{:06d}-{:06d}".format(*block.coordinates))
    with storage.StagedFile(path, os.path.join(settings.folder, "scratch"), settings.guard) as file:
        file.write(tally.encoded())
        file.commit()


def _summaries(catalog: Catalog, given: Input, *, tolerant: bool) -> tuple[tuple[FileSummary, ...], list[str]]:
    """Returns the summaries of the selected files, and, if tolerant, why some cannot be read."""
    source, summaries, broken = get_source(catalog.format), [], []
    for file in select_files(catalog, given.subsets):
        try:
            with storage.reading(catalog.path):
                summaries.append(scan(source, replace(file, images=given.images), catalog.labels, COUNTS))
        except InputError as error:
            if not tolerant:
                raise
            broken.append(str(error))
    return tuple(summaries), broken


def _gathered(
    catalog: Catalog, labels: LabelTable, summaries: tuple[FileSummary, ...], folder: str, listed: int
) -> Measured:
    """Combines the tallies of all blocks, in order."""
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
        rejected += tally.rejected[: listed - len(rejected)]
        count += tally.rejected_count
    if filled + count != expected:
        raise JobError(f"{catalog.path}: workers returned {filled + count} of {expected} rows in {folder}")
    give_back()
    return Measured(
        catalog,
        labels,
        summaries,
        rows[:filled],
        histograms,
        tuple(totals),
        tuple(rejected),
        rejected_count=count,
        listed=listed,
    )
