"""Writes the examples of a pipeline as a dataset: kept in files as they come, laid out once all are there, written."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from beam_cifar import storage
from beam_cifar.data.block import MAX_BYTES, MAX_ROWS, Block
from beam_cifar.data.labels import remap_table
from beam_cifar.data.memory import give_back
from beam_cifar.data.schema import example_schema
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError, JobError
from beam_cifar.filters.selection import Selection
from beam_cifar.formats.arrivals import ArrivalWriter, facts_of
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.registry import get_sink
from beam_cifar.images.encodings import are_pixels
from beam_cifar.images.example import Example
from beam_cifar.jobs.accounts import PartInfo
from beam_cifar.jobs.prepare import libraries
from beam_cifar.jobs.read_part import SourceSettings
from beam_cifar.jobs.settings import PublishSettings, SinkSettings
from beam_cifar.jobs.spill import SpillInfo, check_spills
from beam_cifar.jobs.summary import total_of
from beam_cifar.jobs.write_part import write_account, write_part
from beam_cifar.pipeline import checked  # its coder guards what crosses the runner
from beam_cifar.pipeline.counters import count_part
from beam_cifar.pipeline.errors import carried
from beam_cifar.pipeline.incoming import checked_table
from beam_cifar.pipeline.publish import Publish
from beam_cifar.pipeline.rows import WrittenDataset
from beam_cifar.pipeline.spill import move_rows
from beam_cifar.planning import moves
from beam_cifar.planning.by_examples import lay_out
from beam_cifar.planning.chosen_rows import write_chosen, write_moves
from beam_cifar.planning.plan import Origin, Spill, Task
from beam_cifar.planning.spills import SpillFolder
from beam_cifar.steps.encode import drop_images, encode_images
from beam_cifar.version import __version__

FILE_BYTES = moves.SPILL_BYTES
"""Bytes of a file of kept examples, after which another one is begun."""


class Arrival(NamedTuple):
    """The account of a file of kept examples.

    Attributes:
        name: its name in the job's folder.
        rows: number of its examples.
        remarks: what decoding did to their images, by kind; see `beam_cifar.images.remarks`.
    """

    name: str
    rows: int
    remarks: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class LaidOut:
    """What is known once all examples are there.

    Attributes:
        source: what reading the kept examples needs.
        publish: what writing and publishing the output needs.
        folder: where it is written down; another attempt may lay out other files.
        spills: examples to move first.
        tasks: what to write.
    """

    source: SourceSettings
    publish: PublishSettings
    folder: storage.JobFolder
    spills: tuple[Spill, ...]
    tasks: tuple[Task, ...]


for _kind in (Arrival, LaidOut):
    beam.coders.registry.register_coder(_kind, checked.CheckedCoder)


@dataclass(frozen=True)
class Change:
    """What brings examples into the form that a writer takes.

    Attributes:
        encodings: the encodings that it takes; empty if it writes no images.
    """

    encodings: tuple[str, ...]

    def __call__(self, block: Block) -> Block:
        return encode_images(block, encodings=self.encodings) if self.encodings else drop_images(block)


@dataclass(eq=False)
class WriteArrivals(beam.PTransform):
    """Writes examples as one or several datasets; returns a `WrittenDataset` for each.

    Attributes:
        sinks: settings of their sinks, without shards.
        folder: folder of the job that keeps the examples.
        overwrite: whether existing outputs may be replaced.
    """

    sinks: Sequence[SinkSettings]
    folder: storage.JobFolder
    overwrite: bool

    def expand(self, examples: beam.PCollection[Example]) -> beam.PCollection[WrittenDataset]:
        keep = _Keep(self.folder, self._kept, len(self.sinks[0].options.labels.names))
        kept = beam.pvalue.AsIter(examples | "KeepExamples" >> beam.ParDo(keep).with_output_types(Arrival))
        once = examples.pipeline | "Once" >> beam.Create([0], reshuffle=False)
        written = [
            once | sink.format >> _WriteKept(kept, sink, self.folder, self.overwrite, None if self._kept else change)
            for sink, change in zip(self.sinks, map(_change, self.sinks), strict=True)
        ]
        if len(written) == 1:
            return written[0]
        return (
            written
            | beam.Flatten().with_output_types(WrittenDataset)
            | "KeyByJob" >> beam.Map(lambda each: (0, each)).with_output_types(tuple[int, WrittenDataset])
            | "GroupOutputs" >> beam.GroupByKey()
            | "RemoveKept" >> beam.FlatMap(_remove_kept, self.folder).with_output_types(WrittenDataset)
        )

    @property
    def _kept(self) -> Change | None:
        """How examples are changed before they are kept; None if writers want them in different forms."""
        changes = [_change(sink) for sink in self.sinks]
        return changes[0] if all(change == changes[0] for change in changes) else None


def _change(sink: SinkSettings) -> Change:
    """Returns what brings examples into the form that a writer takes."""
    export = sink.options.export
    return Change(get_sink(sink.format).encodings(export) if export.save_images else ())


@dataclass(eq=False)
class _WriteKept(beam.PTransform):
    """Writes kept examples as one dataset.

    Attributes:
        kept: side input of the accounts (`Arrival`) of all files.
        sink: settings of the sink, without shards.
        kept_in: folder of the job that keeps the examples.
        overwrite: whether an existing output may be replaced.
        change: what brings the examples into the form that the writer takes; None if they have it.
    """

    kept: Any
    sink: SinkSettings
    kept_in: storage.JobFolder
    overwrite: bool
    change: Change | None

    def expand(self, once: beam.PCollection[int]) -> beam.PCollection[WrittenDataset]:
        as_single = beam.pvalue.AsSingleton
        lay_out_all = beam.Map(_lay_out, self.kept, self.sink, self.kept_in, self.overwrite)
        laid_out = once | "LayOut" >> lay_out_all.with_output_types(LaidOut)
        publish = laid_out | "Settings" >> beam.Map(lambda each: each.publish).with_output_types(PublishSettings)
        moved = (
            laid_out
            | "Spills" >> beam.FlatMap(lambda each: each.spills).with_output_types(Spill)
            | "SpreadSpills" >> beam.Reshuffle().with_output_types(Spill)
            | "WriteSpills" >> beam.Map(_write_spill, as_single(laid_out)).with_output_types(SpillInfo)
        )
        return (
            laid_out
            | "StartParts" >> beam.FlatMap(_tasks, beam.pvalue.AsIter(moved)).with_output_types(Task)
            | "SpreadParts" >> beam.Reshuffle().with_output_types(Task)
            # One step, because runners do not fuse a step that has a side input with the one before it.
            | "WriteParts" >> beam.Map(_write_task, as_single(laid_out), self.change).with_output_types(PartInfo)
            | "Publish" >> Publish(as_single(publish))
            | "Written" >> beam.Map(_written, self.sink).with_output_types(WrittenDataset)
        )


class _Keep(beam.DoFn):
    """Writes the examples of a bundle to files; yields an account of each file.

    Args:
        folder: folder of the job.
        change: how examples are changed before.
        classes: number of classes in the label table.
    """

    def __init__(self, folder: storage.JobFolder, change: Change | None, classes: int) -> None:
        self._folder, self._change, self._classes = folder, change, classes
        self._decodes = change is not None and are_pixels(change.encodings)
        self._waiting: list[Example] = []
        self._bytes = 0
        self._open: _OpenFile | None = None

    def start_bundle(self) -> None:
        self._abandon()  # what a bundle that failed has left

    def process(self, example: Example) -> Iterator[Arrival]:
        self._waiting.append(example)
        self._bytes += self._size(example)
        if self._bytes >= MAX_BYTES or len(self._waiting) >= MAX_ROWS:
            yield from self._keep(FILE_BYTES)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for made in self._keep():
            yield WindowedValue(made, GlobalWindow().max_timestamp(), [GlobalWindow()])

    def teardown(self) -> None:
        self._abandon()

    def _size(self, example: Example) -> int:
        stored = len(example.image) if isinstance(example.image, bytes) else 0
        if self._decodes and isinstance(example.height, int) and isinstance(example.width, int):
            return max(stored, 3 * example.height * example.width)
        return stored

    @carried()
    def _keep(self, least: int = 0) -> list[Arrival]:
        """Writes the examples that wait; returns the account of the file if it now has at least so many bytes."""
        if self._waiting:
            table = checked_table(self._waiting, self._classes)
            self._waiting, self._bytes = [], 0
            if self._open is None:
                self._open = _OpenFile(self._folder)
            block = Block(table.select(example_schema().names), 0, 0, 0, last=True, read=Counter())
            if self._change is not None:
                block = self._change(block)
            self._open.remarks.update(block.remarks)
            self._open.writer.append(block.table, facts_of(table))
        if self._open is None or self._open.file.bytes_written < least:
            return []
        made, self._open = self._open.commit(), None
        return [made]

    def _abandon(self) -> None:
        self._waiting, self._bytes = [], 0
        if self._open is not None:
            self._open.file.close()
            self._open = None


class _OpenFile:
    """A file of kept examples that is being written; its name is of this attempt alone."""

    def __init__(self, folder: storage.JobFolder) -> None:
        self._name = uuid.uuid4().hex
        self.file = folder.stage(os.path.join(folder.arrivals, self._name), hashed=False)
        self.writer = ArrivalWriter(self.file)
        self.remarks: Counter[str] = Counter()

    def commit(self) -> Arrival:
        with self.file:
            self.writer.close()
            self.file.commit()
        return Arrival(self._name, self.writer.rows, tuple(sorted(self.remarks.items())))


@carried()
def _lay_out(
    _: int, kept: Iterable[Arrival], sink: SinkSettings, kept_in: storage.JobFolder, overwrite: bool
) -> LaidOut:
    folder, options = sink.folder, sink.options
    kept = list(kept)
    if not (came := sum(each.rows for each in kept)):
        raise InputError(f"{folder.output}: WriteExamples received no examples; nothing was written")
    paths = sorted(os.path.join(kept_in.arrivals, each.name) for each in kept)
    with storage.reading(kept_in.arrivals):
        files = tuple(SourceFile(os.path.basename(path), "", path, storage.whole_file(path)) for path in paths)
    layout = lay_out(files, get_sink(sink.format), options)
    if layout.rows != came:
        lost = f"{counted(came, 'example')} came, but {counted(layout.rows, 'is', 'are')} there"
        raise JobError(f"{folder.output}: {lost}; nothing was published")
    # A runner that has lost examples keeps them again, in other files: tasks of the first attempt must not read those.
    digest = hashlib.sha256("".join(paths).encode()).hexdigest()[:16]
    own = replace(folder, job_id=os.path.join(folder.job_id, digest))
    write_chosen(layout.chosen, own.rows, own.scratch)
    if layout.moves.spills:
        write_moves(layout.moves, own.moves, own.scratch)
    give_back()
    sink = replace(sink, shards=layout.shards, options=replace(options, strict_names=layout.strict_names))
    source = SourceSettings(
        origins=(Origin("arrivals", options.labels),),
        files=files,
        selection=Selection(options.labels.names),
        chosen=own.rows,
        image_bytes=layout.file_bytes,
        spilled=SpillFolder(own.spills, layout.moves.spills, moves.BUCKET_BYTES),
    )
    facts = {
        "beam_cifar": __version__,
        "source": "examples",
        "options": {"output_format": sink.format, **options.export.export_options()},
        "libraries": libraries(),
        "losses": list(layout.losses),
    }
    remarks: Counter[str] = Counter()
    for each in kept:
        remarks.update(dict(each.remarks))
    table = remap_table(options.labels, [])
    publish = PublishSettings(sink, table, layout.rows, facts, overwrite, remarks=remarks)
    return LaidOut(source, publish, own, layout.moves.spills, layout.tasks)


def _write_spill(spill: Spill, laid_out: LaidOut) -> SpillInfo:
    return move_rows(spill, laid_out.source, laid_out.folder)


def _tasks(laid_out: LaidOut, moved: Iterable[SpillInfo]) -> Sequence[Task]:
    with carried():
        check_spills(list(moved), laid_out.spills)
    return laid_out.tasks


@carried()
def _write_task(task: Task, laid_out: LaidOut, change: Change | None) -> PartInfo:
    sink = laid_out.publish.sink
    info = write_part(task, laid_out.source, sink, change or _unchanged)
    write_account(info, sink)
    count_part(info)
    return info


def _unchanged(block: Block) -> Block:
    return block


@carried()
def _written(manifest: str, sink: SinkSettings) -> WrittenDataset:
    with storage.reading(manifest):
        found = json.loads(storage.read_whole(manifest))
    files, nbytes = total_of(found)
    return WrittenDataset(sink.folder.output, sink.format, manifest, found["rows"]["written"], files, nbytes)


@carried()
def _remove_kept(keyed: tuple[int, Iterable[WrittenDataset]], folder: storage.JobFolder) -> Iterable[WrittenDataset]:
    """Removes kept examples once all datasets are published."""
    storage.remove_tree(folder.work)
    with suppress(OSError):  # something else is in it, or there are no folders
        os.rmdir(folder.path)
    return keyed[1]
