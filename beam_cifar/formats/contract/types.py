"""The types that formats, planners and jobs share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from beam_cifar.data.block import BadRow
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.limits import refuse_less_than_one
from beam_cifar.errors import UsageError
from beam_cifar.filters.xpath import ItemFilter
from beam_cifar.storage import Blob

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


CHUNK_ROWS = 1000
"""Rows that a summary counts together; a plan may cut anywhere in between."""

MAX_TOLD = 10_000
"""Bad rows of a file: one that has more is a file of another kind."""

MAX_BAD_ROWS = 100
"""Bad rows that a summary names one by one."""


@dataclass(frozen=True)
class SourceFile:
    """One input file, or one folder of images.

    Attributes:
        name: its name in the dataset, such as "data_batch_1".
        subset: the subset that its rows belong to.
        shown: how messages name it.
        blob: where its bytes are.
        label: of all its rows, where the place says it; `UNLABELLED` also where the rows do.
        id_prefix: what the ids of its rows start with, where file names alone would not be unique.
        source: index of the dataset that it belongs to, where a job has several.
        beside: further files, or folders, that its rows are read from, such as one of labels.
    """

    name: str
    subset: str
    shown: str
    blob: Blob
    label: int = UNLABELLED
    id_prefix: str = ""
    source: int = 0
    beside: tuple[Blob, ...] = ()

    @property
    def newest(self) -> int:
        """When anything of it was last changed, ns."""
        return max(blob.stamp[1] for blob in (self.blob, *self.beside))

    def bad_row(self, row: int, error: str, label: int = UNLABELLED) -> BadRow:
        """A row of it that cannot be read, and why."""
        return BadRow(self.shown, row, self.subset, "read", error, label)


@dataclass(frozen=True)
class Catalog:
    """What a dataset says of itself before any row is looked at.

    Attributes:
        format: name of the format.
        title: of the kind of dataset, such as "CIFAR-100".
        path: absolute path of the directory or archive.
        labels: classes and superclasses; which class has which superclass may be known only from the rows.
        files: input files, in order.
        meta_files: files that say what the rows mean.
        notices: things that a user should know.
        unread: what its files say that is not read, and would be lost if they were written anew; empty for nothing.
        root: the folder that the dataset lies in, where that is one in `path`.
    """

    format: str
    title: str
    path: str
    labels: LabelTable
    files: tuple[SourceFile, ...]
    meta_files: tuple[SourceFile, ...] = ()
    notices: tuple[str, ...] = ()
    unread: str = ""
    root: str = ""


@dataclass(frozen=True)
class Wanted:
    """What a summary is to tell beside counts.

    Attributes:
        filter: counts only rows that it keeps.
        sizes: whether image sizes are needed where they take a look into every image.
        names: for sinks that make a file of every image: which row would get which name.
        columns: of `beam_cifar.data.row_table.COLUMNS` and "label": what is needed of every single row.
    """

    filter: ItemFilter | None = None
    sizes: bool = False
    names: bool = False
    columns: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RowNames:
    """Digests of names, for every row that the filter keeps and that is not bad, in order.

    Attributes:
        rows: int64 `[N]`, their numbers in the file.
        labels: int32 `[N]`, -1 for unlabelled.
        kept_labels: int32 `[N]`, the same after the filter, which may take labels away.
        ids: uint64 `[N]`, a digest of each id.
        names: uint64 `[N]`, a digest of each short name, equal for names that some file systems do not tell apart.
        wholes: uint64 `[N]`, the same of each whole id.
        images: bool `[N]`, whether there is an image.
    """

    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    kept_labels: npt.NDArray[np.int32]
    ids: npt.NDArray[np.uint64]
    names: npt.NDArray[np.uint64]
    wholes: npt.NDArray[np.uint64]
    images: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FileSummary:
    """What the plan needs to know of one input file; never pixels.

    Attributes:
        file: which one.
        rows: how many, bad ones included.
        chunks: for every `CHUNK_ROWS` rows the number of rows by label (-1 for unlabelled), bad rows and those that the
            filter drops left out.
        images: rows that have an image.
        image_bytes: bytes of all images as they lie in blocks: pixels, or encoded files.
        pixel_bytes: bytes of all images as pixels, three channels; 0 where sizes are not known.
        size: (height, width) where every row has an image of that size, else None.
        parents: class -> (superclass, row that says so).
        bad_rows: rows that cannot be kept, at most `MAX_BAD_ROWS` of them.
        bad_count: how many there are in all.
        duplicates: rows whose id had to be made unique.
        batch_label: what the file calls itself.
        copyable_as: name of the format whose writer would make the same file, byte for byte, from all its rows.
        digest: hex sha256 of everything in it that is not pixels.
        row_names: digests of names, where asked for.
        kept_labels: rows that have a label, and keep it; None where there is no filter.
        columns: of every row, those of `facts_schema` that are behind `Wanted.columns`, where asked for.
    """

    file: SourceFile
    rows: int
    chunks: tuple[Mapping[int, int], ...]
    images: int
    image_bytes: int
    pixel_bytes: int
    size: tuple[int, int] | None
    parents: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    bad_rows: tuple[BadRow, ...] = ()
    bad_count: int = 0
    duplicates: int = 0
    batch_label: str = ""
    copyable_as: str = ""
    digest: str = ""
    row_names: RowNames | None = None
    kept_labels: int | None = None
    columns: pa.Table | None = None


@dataclass(frozen=True)
class Shard:
    """One unit of the output: a file, or all images of a subset where every image is a file.

    Attributes:
        index: its number in the plan.
        subset: the output subset that it belongs to.
        path: relative to the output directory, with "/"; of the file, or of the folder.
        rows: that it will hold.
        part_rows: rows of every part but the last; one part is the file itself.
        size: (height, width) where every row has an image of that size, else None.
        has_images: whether any row has an image.
        batch_label: what a CIFAR batch calls itself.
    """

    index: int
    subset: str
    path: str
    rows: int
    part_rows: int
    size: tuple[int, int] | None
    has_images: bool
    batch_label: str = ""

    @property
    def parts(self) -> int:
        """How many parts it is joined from."""
        return max(1, -(-self.rows // max(1, self.part_rows)))

    def rows_of(self, part: int) -> int:
        """Rows of one part."""
        return min(self.part_rows, self.rows - part * self.part_rows)


@dataclass(frozen=True)
class SinkOptions:
    """What a writer needs to know besides its shard.

    Attributes:
        labels: the label table of the output.
        export: how to write.
        strict_names: digests of short names that several ids would get; see `beam_cifar.naming.image_files`.
    """

    labels: LabelTable
    export: ExportOptions
    strict_names: frozenset[int] = frozenset()


@dataclass(frozen=True)
class ShardResult:
    """A finished shard, as `Sink.finish` and the notices see it.

    Attributes:
        shard: which one.
        bytes: of its files.
        labels: that it has rows of, -1 for unlabelled.
        statistics: the sums of those of its parts.
    """

    shard: Shard
    bytes: int
    labels: Set[int]
    statistics: Mapping[str, int]


SUBSET_NAMES = ("source", "split")
"""How subsets are called that are written: as in the source, or as the splits that they belong to."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a dataset is written.

    Attributes:
        save_images: write pixels also where the format can do without them.
        save_dataset_meta: write `dataset_meta.json` where the format knows it.
        image_ext: extension of the file names written, such as ".png", which also chooses the encoding where images are
            files; None keeps images and names as they are, and encodes bare pixels as PNG.
        keep_empty_classes: make a folder also for classes without images, where classes are folders.
        images_per_batch: rows of every output file but the last of a subset; None follows the format.
        subset_names: "source" keeps the subsets as they are, "split" makes `data_batch_*` one subset `train`, and
            `test_batch` `test`; None follows the format.

    Raises:
        UsageError: a value that cannot be meant.

    >>> from beam_cifar import ExportOptions
    >>> ExportOptions(image_ext="png")
    Traceback (most recent call last):
    beam_cifar.errors.UsageError: --image-ext must look like .png, found 'png'
    """

    save_images: bool = False
    save_dataset_meta: bool = False
    image_ext: str | None = None
    keep_empty_classes: bool = False
    images_per_batch: int | None = None
    subset_names: str | None = None

    def __post_init__(self) -> None:
        refuse_less_than_one("--images-per-batch", self.images_per_batch)
        if self.subset_names not in (None, *SUBSET_NAMES):
            raise UsageError(f"--subsets must be one of {', '.join(SUBSET_NAMES)}, found {self.subset_names!r}")
        if self.image_ext is not None and not re.fullmatch(r"\.[A-Za-z0-9]+", self.image_ext):
            raise UsageError(f"--image-ext must look like .png, found {self.image_ext!r}")

    def export_options(self) -> dict[str, Any]:
        """The fields of this class alone, by name."""
        return {field.name: getattr(self, field.name) for field in fields(ExportOptions)}
