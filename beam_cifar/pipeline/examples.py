"""Public PTransforms over single images, for use in any Beam pipeline.

Internally, images travel in blocks of about a thousand, and never through a shuffle. Here each one is a separate
element, an `Example`, which costs several times as much: if `beam_cifar.convert` can do a job, it is faster.
"""

from __future__ import annotations

import functools
import os
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute
from apache_beam.coders import RowCoder, registry

from beam_cifar import storage
from beam_cifar.data.block import Block, row_counts, spans
from beam_cifar.data.grouping import by_key
from beam_cifar.data.labels import LabelMap, LabelTable, remap_table
from beam_cifar.data.limits import check_size
from beam_cifar.data.schema import example_schema, ordered_schema
from beam_cifar.errors import InputError, JobError, OutputError, UsageError
from beam_cifar.filters.selection import Selection
from beam_cifar.filters.xpath import ItemFilter
from beam_cifar.formats.contract.types import ExportOptions, SinkOptions
from beam_cifar.formats.registry import get_sink
from beam_cifar.images.decode import probe_whole_image
from beam_cifar.images.encodings import EXTENSIONS, RAW
from beam_cifar.images.example import Example, examples_of, table_of
from beam_cifar.jobs.accounts import PartInfo
from beam_cifar.jobs.prepare import libraries, output_path
from beam_cifar.jobs.read_part import SourceSettings
from beam_cifar.jobs.settings import PublishSettings, SinkSettings
from beam_cifar.jobs.write_part import OpenPart
from beam_cifar.naming.image_files import digest64
from beam_cifar.pipeline.checked import CheckedCoder
from beam_cifar.pipeline.counters import count, count_part
from beam_cifar.pipeline.errors import carried
from beam_cifar.pipeline.incoming import as_examples, label_table, refuse_windows, warn_if_unsafe
from beam_cifar.pipeline.publish import Publish
from beam_cifar.pipeline.read import ReadBlocks, deal_tasks
from beam_cifar.pipeline.runners import runs_here
from beam_cifar.planning.by_examples import Layout, lay_out, records_of, tie_breaker
from beam_cifar.planning.cut import reading_tasks
from beam_cifar.planning.plan import Origin
from beam_cifar.planning.summaries import learn_parents
from beam_cifar.planning.survey import Survey, survey
from beam_cifar.steps.base import PixelStep
from beam_cifar.steps.encode import encode_images
from beam_cifar.steps.registry import make_step
from beam_cifar.steps.remap import remap_labels
from beam_cifar.steps.select import select_rows
from beam_cifar.version import __version__

__all__ = ["FilterExamples", "ReadExamples", "RemapLabels", "ResizeExamples", "TransformExamples", "WriteExamples"]

# Beam's standard row coder: any SDK can read it, and it is twice as fast as the default.
registry.register_coder(Example, RowCoder)


class _PlacedCoder(CheckedCoder):
    @classmethod
    def from_type_hint(cls, typehint: Any, registry: Any) -> CheckedCoder:
        return cls("Example", registry.get_coder(Example))


class _Placed(Example):
    """An example on its way to its part; only our own steps read it, so its coder need not be Beam's standard one."""


class _Described(NamedTuple):
    """What the layout needs to know of the examples of one subset in a batch."""

    subset: str
    records: bytes


registry.register_coder(_Placed, _PlacedCoder)
registry.register_coder(_Described, CheckedCoder)

BATCH = 256
"""Maximum number of examples that a transform processes together."""
BATCH_BYTES = 16 << 20

_ENCODINGS = (RAW, *EXTENSIONS)


@dataclass(eq=False)
class ReadExamples(beam.PTransform):
    """Reads a dataset as one `Example` per image; those of one file are in order.

    Files are found and scanned when the transform is created, so that `labels` is known before the pipeline runs.

    Attributes:
        path: directory or archive of the dataset.
        format: its format; default: detected.
        subsets: names of the subsets to read, or "train" / "test" for all batches of that split; default: all.
        index_dir: folder, visible to all workers, for indexes of input files, such as that of a `.tar.gz`; default: a
            temporary folder of this machine, which is removed with the transform.
        labels: classes and superclasses.

    Raises:
        InputError: the dataset is missing, not recognised, or damaged.
        UsageError: the format or a subset is unknown.

    >>> import apache_beam as beam
    >>> from beam_cifar import ReadExamples
    >>> with beam.Pipeline() as pipeline:
    ...     _ = pipeline | ReadExamples("cifar10") | beam.combiners.Count.Globally() | beam.Map(print)
    60
    """

    path: str | os.PathLike[str]
    format: str | None = None
    subsets: Sequence[str] = ()
    index_dir: str | None = None
    labels: LabelTable = field(init=False)

    def __post_init__(self) -> None:
        index_dir = self.index_dir
        if index_dir:
            storage.make_folder(index_dir)
        else:
            self._folder = storage.TemporaryFolder()
            index_dir = self._folder.name
        self.path = _one_path(self.path)
        self._found: Survey = survey(self.path, self.format, tuple(self.subsets), index_dir)
        self.labels = learn_parents(self._found.catalog, self._found.summaries)
        self._tasks = reading_tasks(self._found.summaries)

    def display_data(self) -> dict[str, Any]:
        rows = sum(summary.rows for summary in self._found.summaries)
        return {"path": self._found.catalog.path, "format": self._found.catalog.format, "rows": rows}

    def expand(self, start: Any) -> beam.PCollection[Example]:
        if not isinstance(start, beam.pvalue.PBegin):
            raise UsageError(f"ReadExamples reads {self.path}, not what comes before it; apply it to the pipeline")
        warn_if_unsafe(start.pipeline)
        files = tuple(summary.file for summary in self._found.summaries)
        if self.index_dir is None and any(file.blob.index for file in files) and not runs_here(start.pipeline):
            raise UsageError(
                f"{self.path}: its index is in a temporary folder of this machine, which workers of "
                f"{type(start.pipeline.runner).__name__} do not see; pass index_dir, a folder that they see too, or "
                "unpack the archive"
            )
        selection = Selection(self.labels.names)
        origin = Origin(self._found.catalog.format, self.labels)
        settings = SourceSettings((origin,), files, selection)
        return (
            deal_tasks(start.pipeline, "Parts", self._tasks, "Spread")
            | "ReadBlocks" >> ReadBlocks(settings)
            | "Explode" >> beam.ParDo(_Explode()).with_input_types(Block).with_output_types(Example)
        )


def _one_path(path: Any) -> str:
    try:
        found = os.fspath(path)
    except TypeError:
        found = None
    if not isinstance(found, str):
        raise UsageError(f"ReadExamples: the path is {path!r}; expected the path of one dataset")
    return found


@dataclass(eq=False)
class FilterExamples(beam.PTransform):
    """Keeps the examples that match an XPath expression; see `beam_cifar.filters.xpath`.

    Attributes:
        expression: XPath expression such as '/item[annotation/label="dog"]'.
        labels: classes of the examples, a table or a list of names.
        mode: what the expression selects: "items", "annotations" or "items+annotations".

    Raises:
        UsageError: the expression cannot be evaluated, or the mode is unknown.

    >>> import apache_beam as beam
    >>> from beam_cifar import FilterExamples, ReadExamples
    >>> read = ReadExamples("cifar10")
    >>> cats = FilterExamples('/item[annotation/label="cat"]', read.labels)
    >>> with beam.Pipeline() as pipeline:
    ...     _ = pipeline | read | cats | beam.Map(lambda example: example.label) | beam.Distinct() | beam.Map(print)
    3
    """

    expression: str
    labels: LabelTable | Sequence[str]
    mode: str = "items"

    def __post_init__(self) -> None:
        self._selection = Selection(label_table(self.labels).names, None, ItemFilter(self.expression, self.mode))

    def display_data(self) -> dict[str, str]:
        return {"filter": self.expression, "filter_mode": self.mode}

    def expand(self, examples: beam.PCollection[Example]) -> beam.PCollection[Example]:
        return as_examples(examples, "FilterExamples") | _over_blocks(select_rows, selection=self._selection)


@dataclass(eq=False)
class RemapLabels(beam.PTransform):
    """Renames classes or superclasses; those with the same new name merge. Label ids are never renumbered.

    Attributes:
        renamings: maps old names to new names, all applied at once.
        table: classes of the input examples, a table or a list of names.
        labels: classes of the output examples.

    Raises:
        UsageError: an old name is unknown, or a new one is empty.

    >>> from beam_cifar import ReadExamples, RemapLabels
    >>> RemapLabels({"cat": "kitten"}, ReadExamples("cifar10").labels).labels.names[3]
    'kitten'
    """

    renamings: Mapping[str, str]
    table: LabelTable | Sequence[str]
    labels: LabelTable = field(init=False)

    def __post_init__(self) -> None:
        self._map: LabelMap = remap_table(label_table(self.table), list(self.renamings.items()))
        self.labels = self._map.table

    def display_data(self) -> dict[str, str]:
        return {"renamings": ", ".join(f"{old}:{new}" for old, new in self.renamings.items())}

    def expand(self, examples: beam.PCollection[Example]) -> beam.PCollection[Example]:
        return as_examples(examples, "RemapLabels") | _over_blocks(remap_labels, targets=self._map.targets)


@dataclass(eq=False)
class TransformExamples(beam.PTransform):
    """Applies a registered transform to every image: "resize", "crop" or "grayscale".

    Attributes:
        name: name of the transform.
        options: its options, by their Python names.

    Raises:
        UsageError: the transform or an option is unknown, or the transform does not work image by image.

    >>> import apache_beam as beam
    >>> from beam_cifar import ReadExamples, TransformExamples
    >>> with beam.Pipeline() as pipeline:
    ...     gray = pipeline | ReadExamples("cifar10") | TransformExamples("grayscale")
    ...     _ = gray | beam.Map(lambda example: example.channels) | beam.Distinct() | beam.Map(print)
    1
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        step = make_step(self.name, self.options)
        if not isinstance(step, PixelStep):
            raise UsageError(f"{self.name} does not work image by image; use it with `convert`, or on a `Dataset`")
        self._step = step

    def display_data(self) -> dict[str, str]:
        return {"transform": self.name, "options": str(self._step.options())}

    def expand(self, examples: beam.PCollection[Example]) -> beam.PCollection[Example]:
        return as_examples(examples, "TransformExamples") | _over_blocks(self._step.transform, self._step.row_bytes())


@dataclass(eq=False)
class ResizeExamples(beam.PTransform):
    """Resizes all images to one size; images that had another size become raw pixels.

    Attributes:
        size: (height, width) in pixels.

    >>> import apache_beam as beam
    >>> from beam_cifar import ReadExamples, ResizeExamples
    >>> with beam.Pipeline() as pipeline:
    ...     small = pipeline | ReadExamples("cifar10") | ResizeExamples((8, 8))
    ...     _ = small | beam.Map(lambda example: len(example.image)) | beam.Distinct() | beam.Map(print)
    192
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        check_size(self.size)

    def display_data(self) -> dict[str, str]:
        return {"size": f"{self.size[0]}x{self.size[1]}"}

    def expand(self, examples: beam.PCollection[Example]) -> beam.PCollection[Example]:
        height, width = self.size
        return examples | TransformExamples("resize", {"height": height, "width": width})


@dataclass(eq=False)
class WriteExamples(beam.PTransform):
    """Writes examples as a dataset, all or nothing, with a manifest next to it; returns the path of the manifest.

    Examples are written in the order of `Example.order`; ties are broken in an arbitrary but reproducible order.
    Shards follow the rules of `convert`: the same images, all of one size, give the same files.

    Cost: images cross two stage boundaries, one while their sizes are gathered (60 bytes per image) and one to be
    grouped by part of the output. Local runners keep both copies in memory, encoded: some 5 GB for a million PNG
    files of 2.4 KB. Clusters write them to disk, and a worker holds one part, at most some 500 MB. When it reads
    files, `convert` needs neither, since it moves no image between workers.

    The output is not locked while the pipeline runs: if another job writes it too, the last one to publish must be
    allowed to overwrite, or it fails. If the pipeline fails, the next `convert` to the same output removes what it
    left in `OUT.beam_cifar/`.

    Attributes:
        output_dir: directory to create.
        output_format: name of the format to write.
        labels: classes of the examples, a table or a list of names.
        options: export options.
        overwrite: whether to replace an existing output.

    Raises:
        UsageError: the format is unknown, or does not support the options.
        OutputError: the output exists, or a conversion has locked it.

    >>> import apache_beam as beam
    >>> from beam_cifar import ReadExamples, WriteExamples
    >>> read = ReadExamples("cifar10")
    >>> with beam.Pipeline() as pipeline:
    ...     _ = pipeline | read | WriteExamples("out", "webdataset", read.labels)
    """

    output_dir: str | os.PathLike[str]
    output_format: str
    labels: LabelTable | Sequence[str]
    options: ExportOptions = ExportOptions()  # noqa: RUF009 (a frozen dataclass)
    overwrite: bool = False

    def __post_init__(self) -> None:
        sink = get_sink(self.output_format)
        sink.check(self.options)
        self._labels = label_table(self.labels)
        sink.check_labels(self._labels)
        options = sink.export_of(self.options)
        # A random job id, shared by all attempts to run this pipeline; it does not appear in the output.
        folder = storage.JobFolder(output_path(os.fspath(self.output_dir)), job_id=uuid.uuid4().hex[:16])
        if storage.is_occupied(folder.output) and not self.overwrite:
            raise OutputError(
                f"{folder.output}: exists and is not empty; pass overwrite=True to replace it, or choose another output"
            )
        self._sink = SinkSettings(self.output_format, (), SinkOptions(self._labels, options), folder)
        self._encodings = sink.encodings(options)

    def display_data(self) -> dict[str, str]:
        return {"format": self.output_format, "output": self._sink.folder.output}

    def expand(self, examples: beam.PCollection[Example]) -> beam.PCollection[str]:
        refuse_windows(examples, "WriteExamples")
        warn_if_unsafe(examples.pipeline)
        _refuse_second(examples.pipeline, self._sink.folder.output)
        examples = as_examples(examples, "WriteExamples")
        with storage.hold(self._sink.folder):
            pass  # raises if a conversion has locked the output
        described = examples | "Describe" >> _OnBatches(_describe, _Described, {"encodings": self._encodings})
        lay_out_all = beam.Map(_plan, beam.pvalue.AsIter(described), self._sink, self.overwrite)
        once = examples.pipeline | "Once" >> beam.Create([0], reshuffle=False)
        planned = once | "LayOut" >> lay_out_all.with_output_types(_Planned)
        side = beam.pvalue.AsSingleton(planned)
        settings = planned | "Settings" >> beam.Map(lambda each: each.publish).with_output_types(PublishSettings)
        kept = self._encodings if self._sink.options.export.save_images else ()
        return (
            examples
            | "Encode" >> _OnBatches(_prepare, Example, {"encodings": kept, "classes": len(self._labels.names)})
            | "Batch" >> _batches()
            | "Place" >> beam.FlatMap(_place, side, self._sink).with_output_types(tuple[int, _Placed])
            | "GroupByPart" >> beam.GroupByKey()
            | "WriteParts" >> beam.Map(_write_keyed, side).with_output_types(PartInfo)
            | "Publish" >> Publish(beam.pvalue.AsSingleton(settings))
        )


_OUTPUTS: weakref.WeakKeyDictionary[beam.Pipeline, set[str]] = weakref.WeakKeyDictionary()


def _refuse_second(pipeline: beam.Pipeline, output: str) -> None:
    """Raises `UsageError` if a pipeline writes two datasets to one place: the second could not be published."""
    written = _OUTPUTS.setdefault(pipeline, set())
    if output in written:
        raise UsageError(f"{output}: two WriteExamples of a pipeline write it; choose two places, or flatten before")
    written.add(output)


class _Explode(beam.DoFn):
    def process(self, block: Block) -> Iterator[Example]:
        if block.rejected:
            with carried():
                raise InputError(str(block.rejected[0]))
        # File in the high bits, row in the low ones: the order follows the position in the dataset.
        first = block.shard << 40 | block.row
        orders = pa.array(range(first, first + len(block.table)), pa.int64())
        yield from examples_of(block.table.append_column(ordered_schema().field("order"), orders))


@dataclass(eq=False)
class _OnBatches(beam.PTransform):
    """Applies a function with settings to batches of examples, as tables in the schema `ordered_schema`.

    Attributes:
        made: type of the elements that the function returns.
        row_bytes: bytes of a result per example, if it may be larger than the example.
    """

    function: Callable[..., Iterable[Any]]
    made: Any
    settings: Mapping[str, Any]
    row_bytes: int = 0

    def expand(self, examples: beam.PCollection[Example]) -> beam.PCollection[Any]:
        return (
            examples
            | _batches(self.row_bytes)
            | beam.FlatMap(_on_batch, self.function, self.settings).with_output_types(self.made)
        )


@carried()
def _on_batch(batch: list[Example], function: Callable[..., Iterable[Any]], settings: Mapping[str, Any]) -> list[Any]:
    return list(function(checked_table(batch), **settings))


def _batches(row_bytes: int = 0) -> beam.PTransform:
    size = functools.partial(_size_in_batch, least=max(row_bytes, BATCH_BYTES // BATCH))
    # If the limits differed, Beam would tune the size by timing batches: no two runs would have the same batches.
    batches = beam.BatchElements(min_batch_size=BATCH_BYTES, max_batch_size=BATCH_BYTES, element_size_fn=size)
    return batches.with_output_types(list[Example])


def _size_in_batch(example: Example, least: int) -> int:
    """Returns the bytes of an example, rounded up to `least` so that a batch has at most `BATCH` examples."""
    return max(len(example.image or b""), least)


def _over_blocks(function: Callable[..., Block], row_bytes: int = 0, **settings: Any) -> _OnBatches:
    """Returns a transform of examples from a function on blocks."""
    return _OnBatches(_transformed, Example, {"transform": function, "settings": settings}, row_bytes)


def _transformed(table: pa.Table, transform: Callable[..., Block], settings: Mapping[str, Any]) -> Iterator[Example]:
    block = transform(Block(table, 0, 0, 0, last=True, read=Counter()), **settings)
    count(rows_filtered=block.filtered.total(), labels_removed=block.unlabelled.total())
    return examples_of(block.table)


def checked_table(examples: Sequence[Example]) -> pa.Table:
    """Returns the table of some examples, in the schema `ordered_schema`. Raises `InputError` for an invalid one."""
    for example in examples:
        if wrong := _wrong(example):
            raise InputError(f"subset {example.subset!r}: example {example.id!r}: {wrong}")
    try:
        return table_of(examples)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"an example has a value of the wrong type: {error}") from error


def _wrong(example: Example) -> str:
    """Returns what is wrong with an example, or an empty string."""
    texts = (example.id, example.subset, example.encoding, example.filename)
    if not all(isinstance(text, str) for text in texts) or not isinstance(example.order, int):
        return "id, subset, encoding and filename must be str, and order an int"
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return "a name is not valid Unicode"
    size = (example.channels, example.height, example.width)
    if example.image is None:
        return "" if size == (None, None, None) else f"has a size but no image: {size}"
    channels, height, width = (side or 0 for side in size)
    if example.encoding not in _ENCODINGS:
        return f"unknown encoding {example.encoding!r}; expected one of {', '.join(_ENCODINGS)}"
    if channels not in (1, 3) or height < 1 or width < 1:
        return f"(channels, height, width) is {size}; expected 1 or 3 channels, and height and width at least 1"
    if example.encoding == RAW:
        if len(example.image) != channels * height * width:
            return f"has {len(example.image)} bytes of pixels, expected {channels} x {height} x {width}"
        return ""
    header = probe_whole_image(example.image, f"subset {example.subset!r}: example {example.id!r}")
    found = (header.encoding, header.channels, header.height, header.width)
    expected = (example.encoding, *size)
    return "" if found == expected else f"(encoding, channels, height, width) is {expected}, but the image has {found}"


def _describe(table: pa.Table, encodings: tuple[str, ...]) -> Iterator[_Described]:
    return (_Described(subset, records.tobytes()) for subset, records in records_of(table, encodings).items())


def _prepare(table: pa.Table, encodings: tuple[str, ...], classes: int) -> Iterator[Example]:
    """Returns examples as the writer needs them, without images if it needs none."""
    highest = pa.compute.max(table.column("label")).as_py()
    lowest = pa.compute.min(table.column("label")).as_py()
    if highest is not None and (highest >= classes or lowest < 0):
        raise InputError(f"label {highest if lowest >= 0 else lowest} is outside the label table of {classes} classes")
    if not encodings:
        return (example._replace(image=None, height=None, width=None, channels=None) for example in examples_of(table))
    return _transformed(table, encode_images, {"encodings": encodings})


@dataclass(frozen=True)
class _Planned:
    """What is known once all examples have been seen."""

    layout: Layout
    publish: PublishSettings


registry.register_coder(_Planned, CheckedCoder)


@carried()
def _plan(_: int, described: Iterable[tuple[str, bytes]], sink: SinkSettings, overwrite: bool) -> _Planned:
    options = sink.options
    layout = lay_out(described, get_sink(sink.format), options)
    sink = replace(sink, shards=layout.shards, options=replace(options, strict_names=layout.strict_names))
    facts = {
        "beam_cifar": __version__,
        "source": "examples",
        "options": {"output_format": sink.format, **options.export.export_options()},
        "libraries": libraries(),
    }
    identity = remap_table(options.labels, [])
    return _Planned(layout, PublishSettings(sink, identity, layout.rows, facts, overwrite))


@carried()
def _place(batch: list[Example], planned: _Planned, settings: SinkSettings) -> list[tuple[int, Example]]:
    """Returns each example keyed by the part that it belongs to."""
    sink, export = get_sink(settings.format), settings.options.export
    placed = []
    for subset, members in by_key((sink.subsets.output(each.subset, export), each) for each in batch).items():
        places = planned.layout.places(subset, members)
        placed += [(shard << 24 | part, each) for (shard, part), each in zip(places, members, strict=True)]
    return placed


@carried()
def _write_keyed(keyed: tuple[int, Iterable[Example]], planned: _Planned) -> PartInfo:
    info = write_part(keyed[0] >> 24, keyed[0] & 0xFFFFFF, keyed[1], planned.publish.sink)
    count_part(info)
    return info


def write_part(shard: int, part: int, examples: Iterable[Example], sink: SinkSettings) -> PartInfo:
    """Writes one part; its examples may come in any order, and stay in memory until it is done."""
    members = sorted(examples, key=lambda each: (each.order, digest64(tie_breaker(each.subset, each.id))))
    largest = max(len(example.image or b"") for example in members)
    pieces = spans(0, len(members), largest)
    open_part = OpenPart(sink, sink.shards[shard], part)
    try:
        for number, (start, stop) in enumerate(pieces):
            table = table_of(members[start:stop]).select(example_schema().names)
            last = number == len(pieces) - 1
            info = open_part.append(Block(table, shard, part, number, last, read=row_counts(table)))
    finally:
        open_part.abandon()
    if info is None:
        raise JobError(f"{sink.shards[shard].path}: part {part} did not end with its last block")
    return info
