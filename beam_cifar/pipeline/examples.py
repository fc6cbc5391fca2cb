"""Public PTransforms over single images, for use in any Beam pipeline.

Internally, images travel in blocks of about a thousand, and never through a shuffle. Here each one is a separate
element, an `Example`, which costs several times as much: if `beam_cifar.convert` can do a job, it is faster.
"""

from __future__ import annotations

import functools
import logging
import os
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.coders import RowCoder, registry

from beam_cifar import storage
from beam_cifar.data.block import Block
from beam_cifar.data.kinds import described
from beam_cifar.data.labels import LabelMap, LabelTable, remap_table, unknown_name
from beam_cifar.data.limits import check_size
from beam_cifar.errors import InputError, OutputError, UsageError
from beam_cifar.filters.selection import Selection
from beam_cifar.filters.xpath import ItemFilter
from beam_cifar.formats.contract.types import ExportOptions, SinkOptions
from beam_cifar.formats.registry import get_sink
from beam_cifar.images.example import Example, examples_of
from beam_cifar.jobs.prepare import output_path
from beam_cifar.jobs.settings import SinkSettings
from beam_cifar.pipeline.arrivals import WriteArrivals
from beam_cifar.pipeline.counters import count
from beam_cifar.pipeline.dead_letters import HandlesErrors, Handling, outputs
from beam_cifar.pipeline.errors import carried
from beam_cifar.pipeline.incoming import (
    as_examples,
    checked_table,
    label_table,
    refuse_local_paths,
    refuse_several,
    refuse_windows,
    warn_if_unsafe,
)
from beam_cifar.pipeline.rows import BadExample, WrittenDataset
from beam_cifar.planning.checks import Held, lacking, losses_of
from beam_cifar.steps.base import PixelStep
from beam_cifar.steps.registry import make_step
from beam_cifar.steps.remap import remap_labels
from beam_cifar.steps.select import select_rows
from beam_cifar.storage.paths import contains

__all__ = ["FilterExamples", "RemapLabels", "ResizeExamples", "TransformExamples", "WriteExamples"]

# Beam's standard row coder: any SDK can read it, and it is twice as fast as the default.
registry.register_coder(Example, RowCoder)


BATCH = 256
"""Maximum number of examples that a transform processes together."""
BATCH_BYTES = 16 << 20


@dataclass(eq=False)
class FilterExamples(HandlesErrors):
    """Keeps the examples that match an XPath expression; see `beam_cifar.filters.xpath`.

    A warning names each class of the expression that is none of `labels`: nothing would be selected by it.

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
        names, found = label_table(self.labels).names, ItemFilter(self.expression, self.mode)
        for unknown in found.unknown_labels(names):
            logging.getLogger("beam_cifar").warning("FilterExamples: %s", unknown_name("label", unknown, names))
        self._selection = Selection(names, None, found)

    def display_data(self) -> dict[str, str]:
        return {"filter": self.expression, "filter_mode": self.mode}

    def expand(self, examples: beam.PCollection[Any]) -> Any:
        selection = {"selection": self._selection}
        return examples | _OverBlocks(
            "FilterExamples", self._handling, len(self._selection.names), select_rows, selection
        )


@dataclass(eq=False)
class RemapLabels(HandlesErrors):
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

    def expand(self, examples: beam.PCollection[Any]) -> Any:
        targets = {"targets": self._map.targets}
        return examples | _OverBlocks("RemapLabels", self._handling, len(self._map.targets), remap_labels, targets)


@dataclass(eq=False)
class TransformExamples(HandlesErrors):
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
        self._step = _pixel_step(self.name, self.options)

    def display_data(self) -> dict[str, str]:
        return {"transform": self.name, "options": str(self._step.options())}

    def expand(self, examples: beam.PCollection[Any]) -> Any:
        row_bytes = self._step.row_bytes()
        return examples | _OverBlocks(
            "TransformExamples", self._handling, None, self._step.transform, row_bytes=row_bytes
        )


def _pixel_step(name: str, options: Mapping[str, Any]) -> PixelStep:
    step = make_step(name, options)
    if not isinstance(step, PixelStep):
        raise UsageError(f"{name} does not work image by image; use it with `convert`, or on a `Dataset`")
    return step


@dataclass(eq=False)
class ResizeExamples(HandlesErrors):
    """Resizes all images to one size, with Pillow's bicubic filter; images that had another size become raw pixels.

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
        if not (isinstance(self.size, (tuple, list)) and [type(side) for side in self.size] == [int, int]):
            raise UsageError(f"ResizeExamples: the size is {self.size!r}; expected (height, width) in pixels")
        check_size(self.size)

    def display_data(self) -> dict[str, str]:
        return {"size": f"{self.size[0]}x{self.size[1]}"}

    def expand(self, examples: beam.PCollection[Any]) -> Any:
        height, width = self.size
        step = _pixel_step("resize", {"height": height, "width": width})
        changed = _OverBlocks("ResizeExamples", self._handling, None, step.transform, row_bytes=step.row_bytes())
        return examples | changed


@dataclass(eq=False)
class WriteExamples(beam.PTransform):
    """Writes examples as a dataset, all or nothing, with a manifest next to it; returns a `WrittenDataset`.

    Given several formats, it writes one dataset of each, in folders of the output that are named after them, and
    returns as many rows. Each is published on its own.

    Examples are written in the order of `Example.order`; ties are broken in an arbitrary but reproducible order.
    Shards follow the rules of `convert`: the same images, all of one size, give the same files.

    Cost: encoded images are written to files in `OUT.beam_cifar/` as they come, and from there to the output once it is
    known where each one goes, for which some 240 bytes per image are in memory. If they come in another order, they
    are moved once more. When it reads files, `convert` needs none of that.

    The output is not locked while the pipeline runs: if another job writes it too, the last one to publish must be
    allowed to overwrite, or it fails. If the pipeline fails, all examples may stay in `OUT.beam_cifar/`, which
    `beam-cifar clean OUT` removes.

    Attributes:
        output_dir: directory to create.
        output_format: name of the format to write, or several names.
        labels: classes of the examples, a table or a list of names.
        options: export options; those of each format, by its name, if they differ.
        overwrite: whether to replace an existing output.

    Raises:
        UsageError: a format is unknown, named twice, or does not support the options.
        OutputError: an output exists, or a conversion has locked it.

    >>> import apache_beam as beam
    >>> from beam_cifar import ReadExamples, WriteExamples
    >>> read = ReadExamples("cifar10")
    >>> with beam.Pipeline() as pipeline:
    ...     written = pipeline | read | WriteExamples("out", ["parquet", "webdataset"], read.labels)
    ...     _ = written | beam.Map(lambda dataset: (dataset.format, dataset.images)) | beam.Map(print)
    ('parquet', 60)
    ('webdataset', 60)
    """

    output_dir: str | os.PathLike[str]
    output_format: str | Sequence[str]
    labels: LabelTable | Sequence[str]
    options: ExportOptions | Mapping[str, ExportOptions] = ExportOptions()  # noqa: RUF009 (a frozen dataclass)
    overwrite: bool = False

    def __post_init__(self) -> None:
        formats = [self.output_format] if isinstance(self.output_format, str) else self.output_format
        if not isinstance(formats, Sequence) or not formats or len({*formats}) < len(formats):
            raise UsageError(
                f"WriteExamples: the formats are {formats!r}; expected the name of one, or different names"
            )
        if not isinstance(self.output_dir, (str, os.PathLike)):
            raise UsageError(
                f"WriteExamples: the output is {described(self.output_dir)}; expected a path, which must be known when "
                "the pipeline is built"
            )
        # A random job id, shared by all attempts to run this pipeline; it does not appear in the output.
        folder = storage.JobFolder(output_path(os.fspath(self.output_dir)), job_id=uuid.uuid4().hex[:16])
        table = label_table(self.labels)
        alone = isinstance(self.output_format, str)
        if not alone and storage.exists(folder.manifest):
            raise OutputError(f"{folder.output}: is a dataset; choose another folder for those of several formats")
        options = {} if isinstance(self.options, ExportOptions) else self.options
        if not isinstance(options, Mapping) or not all(isinstance(each, ExportOptions) for each in options.values()):
            raise UsageError(f"WriteExamples: the options are {options!r}; expected ExportOptions, or a dict of them")
        if unknown := [name for name in options if name not in formats]:
            raise UsageError(f"WriteExamples: options for {unknown[0]!r}, but the formats are {', '.join(formats)}")
        self._folder = folder
        self._sinks = tuple(
            self._sink(name, table, folder if alone else replace(folder, output=os.path.join(folder.output, name)))
            for name in formats
        )

    def _sink(self, name: str, labels: LabelTable, folder: storage.JobFolder) -> SinkSettings:
        sink = get_sink(name)
        options = self.options if isinstance(self.options, ExportOptions) else self.options.get(name, ExportOptions())
        sink.check(options)
        sink.check_labels(labels)
        if storage.is_occupied(folder.output) and not self.overwrite:
            raise OutputError(
                f"{folder.output}: exists and is not empty; pass overwrite=True to replace it, or choose another output"
            )
        settings = SinkOptions(labels, sink.export_of(options))
        losses = losses_of(Held(images=True, labelled=bool(labels.names)), sink, settings)
        for notice in (*lacking(losses, sink), *sink.notices(settings)):
            logging.getLogger("beam_cifar").warning("%s: %s", name, notice)
        return SinkSettings(name, (), settings, folder)

    def display_data(self) -> dict[str, str]:
        return {"format": ", ".join(sink.format for sink in self._sinks), "output": self._folder.output}

    def expand(self, examples: beam.PCollection[Example]) -> beam.PCollection[WrittenDataset]:
        if isinstance(examples, beam.pvalue.PBegin):
            raise UsageError("WriteExamples writes the examples that come before it; nothing does")
        refuse_several(examples, "WriteExamples")
        refuse_local_paths(examples.pipeline, [self._folder.output], "WriteExamples")
        refuse_windows(examples, "WriteExamples")
        warn_if_unsafe(examples.pipeline)
        for sink in self._sinks:
            _refuse_second(examples.pipeline, sink.folder.output)
        examples = as_examples(examples, "WriteExamples")
        for sink in self._sinks:
            if storage.exists(sink.folder.path):
                with storage.hold(sink.folder):
                    pass  # raises if a conversion has locked the output
        return examples | "Write" >> WriteArrivals(self._sinks, self._folder, self.overwrite)


_OUTPUTS: weakref.WeakKeyDictionary[beam.Pipeline, set[str]] = weakref.WeakKeyDictionary()


def _refuse_second(pipeline: beam.Pipeline, output: str) -> None:
    """Raises `UsageError` if a pipeline writes two datasets to one place, or one into the other."""
    written = _OUTPUTS.setdefault(pipeline, set())
    if any(output == other or contains(output, other) or contains(other, output) for other in written):
        raise UsageError(f"{output}: two WriteExamples of a pipeline write it; choose two places, or flatten before")
    written.add(output)


@dataclass(eq=False)
class _OverBlocks(beam.PTransform):
    """Applies a function on blocks to batches of examples.

    Attributes:
        stage: name of the transform that users see.
        handling: what becomes of examples that the function refuses; None to end the job.
        classes: number of classes in their label table; None if that does not matter.
        function: takes a block and the settings as keyword arguments; returns a block.
        settings: settings of the function.
        row_bytes: bytes of a result per example, if it may be larger than the example.
    """

    stage: str
    handling: Handling | None
    classes: int | None
    function: Callable[..., Block]
    settings: Mapping[str, Any] = field(default_factory=dict)
    row_bytes: int = 0

    def expand(self, examples: beam.PCollection[Any]) -> Any:
        size = functools.partial(_size_in_batch, least=max(self.row_bytes, BATCH_BYTES // BATCH))
        # If the limits differed, Beam would tune the size by timing batches: no two runs would have the same batches.
        batches = beam.BatchElements(min_batch_size=BATCH_BYTES, max_batch_size=BATCH_BYTES, element_size_fn=size)
        function = functools.partial(self.function, **self.settings)
        return (
            as_examples(examples, self.stage)
            | batches.with_output_types(list[Example])
            | outputs(beam.FlatMap(_on_batch, function, self.classes, self.stage, self.handling), self.handling)
        )


def _size_in_batch(example: Example, least: int) -> int:
    """Returns the bytes of an example, rounded up to `least` so that a batch has at most `BATCH` examples."""
    return max(len(example.image or b""), least)


@carried()
def _on_batch(
    batch: list[Example], function: Callable[[Block], Block], classes: int | None, stage: str, handling: Handling | None
) -> list[Example | beam.pvalue.TaggedOutput]:
    try:
        block = function(Block(checked_table(batch, classes), 0, 0, 0, last=True, read=Counter()))
    except InputError as error:
        if handling is None:
            raise
        if len(batch) > 1:  # finds the others by bisection
            halves = batch[: len(batch) // 2], batch[len(batch) // 2 :]
            return [each for half in halves for each in _on_batch(half, function, classes, stage, handling)]
        count(rows_rejected=1)
        bad = BadExample("", None, batch[0].subset, batch[0].id, stage, str(error), handling.kept(batch[0]))
        return [beam.pvalue.TaggedOutput(handling.bad, bad)]
    count(rows_filtered=block.filtered.total(), labels_removed=block.unlabelled.total())
    return list(examples_of(block.table))
