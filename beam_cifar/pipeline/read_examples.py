"""Public PTransforms that read datasets as single images, for use in any Beam pipeline."""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import GoogleCloudOptions

from beam_cifar import storage
from beam_cifar.data.block import Block
from beam_cifar.data.kinds import described
from beam_cifar.data.labels import LabelMap, LabelTable
from beam_cifar.data.schema import ordered_schema
from beam_cifar.errors import BeamCifarError, InputError, UsageError
from beam_cifar.filters.selection import Selection
from beam_cifar.formats.registry import get_source
from beam_cifar.images.example import examples_of
from beam_cifar.images.options import AS_STORED, ImageOptions
from beam_cifar.jobs.read_part import SourceSettings, read_task
from beam_cifar.pipeline.checked import CheckedCoder
from beam_cifar.pipeline.counters import count, read_from
from beam_cifar.pipeline.dead_letters import HandlesErrors, Handling, outputs
from beam_cifar.pipeline.errors import carried
from beam_cifar.pipeline.incoming import label_table, refuse_local_paths, warn_if_unsafe
from beam_cifar.pipeline.read import ReadBlocks, counted, deal_tasks
from beam_cifar.pipeline.rows import BadExample
from beam_cifar.pipeline.runners import runs_here
from beam_cifar.planning.cut import reading_tasks
from beam_cifar.planning.merge import union_tables
from beam_cifar.planning.paths import surveys_of
from beam_cifar.planning.plan import Origin, Task
from beam_cifar.planning.summaries import learn_parents
from beam_cifar.planning.survey import Survey
from beam_cifar.steps.remap import remap_labels

__all__ = ["ReadAllExamples", "ReadExamples"]

Path = str | os.PathLike[str]

ROW_BITS = 24
"""Bits of `Example.order` for the row in a file; above them is the number of the file. A tie is no harm."""
_FILE_BITS, _DATASET_BITS = 13, 26
"""Bits for the number of a file in its dataset, and for the dataset, where paths come at run time."""


@dataclass(eq=False)
class ReadExamples(HandlesErrors):
    """Reads datasets as one `Example` per image; those of one file are in order.

    Files are found and scanned when the transform is created, so that `labels` is known before the pipeline runs.
    Classes of several datasets with the same name are one class.

    Attributes:
        path: directory or archive of a dataset, one file of it, a pattern (*, ?, [...]), or a list of these.
        format: its format; default: detected.
        subsets: names of the subsets to read, or "train" / "test" for all batches of that split; default: all.
        scratch: folder, visible to all workers, for indexes of input files, such as that of a `.tar.gz`; default: a
            temporary folder of this machine, which is removed with the transform, or a folder in `temp_location` for
            workers elsewhere, which stays.
        images: how images are read: EXIF orientation, transparency, 16 bits per sample, CMYK.
        labels: classes and superclasses.

    Raises:
        InputError: a dataset is missing, not recognised, or damaged.
        UsageError: the format or a subset is unknown, or a path is named twice.

    >>> import apache_beam as beam
    >>> from beam_cifar import ReadExamples
    >>> with beam.Pipeline() as pipeline:
    ...     _ = pipeline | ReadExamples("cifar10") | beam.combiners.Count.Globally() | beam.Map(print)
    60
    """

    path: Path | Sequence[Path]
    format: str | None = None
    subsets: Sequence[str] = ()
    scratch: Path | None = None
    images: ImageOptions = AS_STORED
    labels: LabelTable = field(init=False)

    def __post_init__(self) -> None:
        self._paths = _paths(self.path)
        _refuse_text(self.subsets, "ReadExamples")
        self._scratch = _Scratch(self.scratch)
        self._surveys = self._found(self._scratch.here)
        self._maps = _label_maps(self._surveys)
        self.labels = self._maps[0].table

    def _found(self, index_dir: str) -> list[Survey]:
        return surveys_of(self._paths, self.format, tuple(self.subsets), index_dir, self.images)

    def display_data(self) -> dict[str, Any]:
        rows = sum(summary.rows for found in self._surveys for summary in found.summaries)
        formats = dict.fromkeys(found.catalog.format for found in self._surveys)
        return {"path": ", ".join(self._paths), "format": ", ".join(formats), "rows": rows}

    def expand(self, start: Any) -> Any:
        if not isinstance(start, beam.pvalue.PBegin):
            raise UsageError(
                f"ReadExamples reads {', '.join(self._paths)}, not what comes before it; apply it to the pipeline, or "
                "use ReadAllExamples for paths that come"
            )
        warn_if_unsafe(start.pipeline)
        refuse_local_paths(start.pipeline, self._paths, "ReadExamples")
        surveys = self._surveys
        if any(summary.file.blob.index for found in surveys for summary in found.summaries):
            place = self._scratch.seen_by_workers(start.pipeline)
            if not place:
                raise UsageError(
                    f"{self._paths[0]}: its index is in a temporary folder of this machine, which workers of "
                    f"{type(start.pipeline.runner).__name__} do not see; pass scratch, a folder that they see too, or "
                    "--temp_location, or unpack the archive"
                )
            if place != self._scratch.here:
                storage.make_folder(place)
                surveys = self._found(place)
        summaries = [summary for found in surveys for summary in found.summaries]
        tolerant = self._handling is not None
        settings = SourceSettings(
            tuple(Origin(found.catalog.format, _table_of(found)) for found in surveys),
            tuple(summary.file for summary in summaries),
            Selection(self.labels.names),
            tolerant=tolerant,
        )
        tasks = reading_tasks(summaries, tolerant=tolerant)
        targets = [None if (made := self._maps[file.source]).is_identity else made.targets for file in settings.files]
        explode = beam.ParDo(_Explode(targets, self._handling)).with_input_types(Block)
        return (
            deal_tasks(start.pipeline, "Parts", tasks, "Spread")
            | "ReadBlocks" >> ReadBlocks(settings)
            | "Explode" >> outputs(explode, self._handling)
        )


@dataclass(eq=False)
class ReadAllExamples(HandlesErrors):
    """Reads the datasets whose paths come, which need not be known before the pipeline runs.

    Paths are as in `ReadExamples`: of directories, archives, single files, or patterns. Workers open them, so on a
    cluster they must be absolute. With `with_exception_handling`, a path that leads to no dataset, or to one with a
    file that cannot be opened, is refused as a whole, as a `BadExample` with that path as `source`; all others are
    read. Pass the files of a dataset one by one to lose only a damaged one.

    Attributes:
        labels: classes of the examples, a table or a list of names; datasets may have them in any order, but no others.
        format: format of the datasets; default: detected.
        subsets: names of the subsets to read; default: all.
        scratch: as in `ReadExamples`.
        images: as in `ReadExamples`.

    Raises:
        UsageError: the format is unknown, or the labels are not class names.
        InputError: when the pipeline runs: a dataset is missing, not recognised, damaged, or has other classes.

    >>> import apache_beam as beam
    >>> from beam_cifar import ReadAllExamples, ReadExamples
    >>> labels = ReadExamples("cifar10").labels
    >>> with beam.Pipeline() as pipeline:
    ...     paths = pipeline | beam.Create(["cifar10/test*", "nowhere"])
    ...     examples, bad = paths | ReadAllExamples(labels).with_exception_handling()
    ...     _ = examples | beam.combiners.Count.Globally() | beam.Map(print)
    10
    """

    labels: LabelTable | Sequence[str]
    format: str | None = None
    subsets: Sequence[str] = ()
    scratch: Path | None = None
    images: ImageOptions = AS_STORED

    def __post_init__(self) -> None:
        self._table = label_table(self.labels)
        _refuse_text(self.subsets, "ReadAllExamples")
        if self.format is not None:
            get_source(self.format)  # raises if there is none
        self._scratch = _Scratch(self.scratch)

    def expand(self, paths: beam.PCollection[Any]) -> Any:
        if isinstance(paths, beam.pvalue.PBegin):
            raise UsageError("ReadAllExamples reads the paths that come before it; use ReadExamples for known ones")
        warn_if_unsafe(paths.pipeline)
        place = self._scratch.seen_by_workers(paths.pipeline)
        find = _FindTasks(self._table, self.format, tuple(self.subsets), place, self._handling, self.images)
        read = beam.ParDo(_ReadFound(self._handling)).with_input_types(_Found)
        return (
            paths
            | "FindTasks" >> beam.ParDo(find).with_output_types(_Found)
            | "Spread" >> beam.Reshuffle().with_output_types(_Found)
            | "ReadTasks" >> outputs(read, self._handling)
        )


def labels_of(path: Path) -> LabelTable:
    """Returns the classes of a dataset, or those in a manifest that was written beside one.

    Args:
        path: directory or archive of the dataset, or a file `manifest.json`.

    Raises:
        InputError: there is no dataset and no manifest, or it is damaged.
        UsageError: the path is not text, such as a list.

    >>> from beam_cifar.beam import labels_of
    >>> labels_of("cifar10").names[5]
    'dog'
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(f"labels_of: the path is {described(path)}; expected that of a dataset or of a manifest")
    found = os.fspath(path)
    if os.path.basename(found) != "manifest.json":
        return ReadExamples(found).labels
    with storage.reading(found):
        try:
            said = json.loads(storage.read_whole(storage.absolute(found, "manifest")))["labels"]
            return LabelTable(**{name: tuple(values) for name, values in said.items()})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{found}: not a manifest with labels: {error!r}; name the dataset instead") from error


class _Scratch:
    """The folder for indexes of a transform.

    Args:
        given: the one that users chose; None for a temporary one of this machine, which is removed with this object.
    """

    def __init__(self, given: Path | None) -> None:
        self._given = given is not None
        if given is None:
            self._folder = storage.TemporaryFolder()
            self.here = self._folder.name
        else:
            self.here = storage.absolute(os.fspath(given), "scratch")
            storage.make_folder(self.here)

    def seen_by_workers(self, pipeline: beam.Pipeline) -> str:
        """Returns a folder that workers see: this one, or one to be made in `temp_location`; "" if there is none."""
        if self._given or runs_here(pipeline):
            return self.here
        temp_location = pipeline.options.view_as(GoogleCloudOptions).temp_location
        if not temp_location:
            return ""
        return os.path.join(storage.absolute(temp_location, "--temp_location"), f"beam_cifar-{uuid.uuid4().hex[:16]}")


class _Found(NamedTuple):
    """What was found at a path when the pipeline ran.

    Attributes:
        task: what to read; None if the path is refused.
        settings: what reading it needs.
        targets: label of each class of the dataset.
        order: number of its file in the order of the examples.
        bad: why the path is refused.
    """

    task: Task | None = None
    settings: SourceSettings | None = None
    targets: tuple[int, ...] | None = None
    order: int = 0
    bad: BadExample | None = None


beam.coders.registry.register_coder(_Found, CheckedCoder)


class _FindTasks(beam.DoFn):
    def __init__(
        self,
        labels: LabelTable,
        format_name: str | None,
        subsets: tuple[str, ...],
        index_dir: str,
        handling: Handling | None,
        images: ImageOptions,
    ) -> None:
        self._labels, self._format, self._subsets, self._index_dir = labels, format_name, subsets, index_dir
        self._handling, self._images = handling, images

    def process(self, path: Any) -> Iterator[_Found]:
        with carried():
            try:
                found = list(self._found(path))
            except BeamCifarError as error:
                if self._handling is None:
                    raise
                count(rows_rejected=1)
                found = [_Found(bad=_refused(str(path), str(error), "ReadAllExamples"))]
        yield from found

    def _found(self, path: Any) -> Iterator[_Found]:
        with storage.TemporaryFolder() as mine:
            if self._index_dir:
                storage.make_folder(self._index_dir)
            paths, folder = _paths(path, "ReadAllExamples"), self._index_dir or mine
            surveys = surveys_of(paths, self._format, self._subsets, folder, self._images)
        for found in surveys:
            table = _table_of(found)
            files = [summary.file for summary in found.summaries]
            if not self._index_dir and any(file.blob.index for file in files):
                raise UsageError(
                    f"{path}: needs an index in a folder that all workers see; pass scratch, or --temp_location"
                )
            origin, targets = Origin(found.catalog.format, table), _targets(table, self._labels, str(path))
            # Datasets by a digest of their paths, for want of another order; their files as in the dataset.
            digest = zlib.crc32(found.catalog.path.encode("utf-8", "surrogateescape")) >> (32 - _DATASET_BITS)
            places = {file.name: place for place, file in enumerate(found.catalog.files)}
            for task in reading_tasks(found.summaries, tolerant=self._handling is not None):
                file = replace(files[task.segments[0].file], source=0, index_dir=self._index_dir)
                segments = tuple(replace(segment, file=0) for segment in task.segments)
                settings = SourceSettings(
                    (origin,), (file,), Selection(table.names), tolerant=self._handling is not None
                )
                order = digest << _FILE_BITS | places[file.name] % (1 << _FILE_BITS)
                yield _Found(replace(task, segments=segments), settings, targets, order)


class _ReadFound(beam.DoFn):
    def __init__(self, handling: Handling | None) -> None:
        self._handling = handling

    def process(self, found: _Found) -> Iterator[Any]:
        if found.bad is not None and self._handling is not None:
            yield beam.pvalue.TaggedOutput(self._handling.bad, found.bad)
        if found.task is None or found.settings is None:
            return
        read_from(found.settings.files[0].blob.path)
        for block in counted(read_task(found.task, found.settings)):
            yield from _exploded(block, found.order, found.targets, self._handling, "ReadAllExamples")


class _Explode(beam.DoFn):
    """Yields the examples of blocks.

    Args:
        targets: label of each class of the dataset of each file; None where labels stay.
        handling: what becomes of rows that cannot be read; None to end the job.
    """

    def __init__(self, targets: Sequence[tuple[int, ...] | None], handling: Handling | None) -> None:
        self._targets, self._handling = targets, handling

    def process(self, block: Block) -> Iterator[Any]:
        yield from _exploded(block, block.shard, self._targets[block.shard], self._handling, "ReadExamples")


def _exploded(
    block: Block, order: int, targets: tuple[int, ...] | None, handling: Handling | None, stage: str
) -> Iterator[Any]:
    """Yields the examples of a block, and tagged outputs for rows that could not be read."""
    for bad in block.rejected:
        if handling is None:
            with carried():
                raise InputError(str(bad))
        row = BadExample(bad.file, bad.row, bad.subset, None, stage, bad.error, None)
        yield beam.pvalue.TaggedOutput(handling.bad, row)
    if targets is not None:
        block = remap_labels(block, targets=targets)
    # File in the high bits, row in the low ones: the order follows the position in the dataset.
    first = order << ROW_BITS | block.row
    orders = pa.array(range(first, first + len(block.table)), pa.int64())
    yield from examples_of(block.table.append_column(ordered_schema().field("order"), orders))


def _refused(path: str, error: str, stage: str) -> BadExample:
    return BadExample(path, None, "", None, stage, error, None)


def _paths(given: Any, user: str = "ReadExamples") -> list[str]:
    """Returns the paths that a user gives."""
    each = given if isinstance(given, (list, tuple)) else [given]
    found = [os.fspath(path) if isinstance(path, (str, os.PathLike)) else path for path in each]
    if wrong := [path for path in found if not isinstance(path, str)]:
        later = "; one that is known only when the pipeline runs goes to ReadAllExamples" * (user == "ReadExamples")
        raise UsageError(f"{user}: the path is {wrong[0]!r}; expected that of a dataset, or a list of paths{later}")
    return found


def _refuse_text(subsets: Any, user: str) -> None:
    if isinstance(subsets, str):
        raise UsageError(f"{user}: subsets are the text {subsets!r}; expected a list of names, such as [{subsets!r}]")


def _table_of(found: Survey) -> LabelTable:
    return learn_parents(found.catalog, found.summaries)


def _label_maps(surveys: Sequence[Survey]) -> list[LabelMap]:
    return union_tables([_table_of(found) for found in surveys], [found.catalog.path for found in surveys])


def _targets(table: LabelTable, labels: LabelTable, path: str) -> tuple[int, ...] | None:
    """Returns the label of each class of a dataset in another table; None if they are the same."""
    if table.names == labels.names:
        return None
    if missing := [name for name in table.names if name not in labels.names]:
        raise InputError(f"{path}: has class {missing[0]!r}, which is not one of the labels given")
    return tuple(labels.names.index(name) for name in table.names)
