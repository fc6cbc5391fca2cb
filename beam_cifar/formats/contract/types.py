"""The types that formats, planners and jobs share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_cifar.data.block import BadRow
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.limits import refuse_less_than_one
from beam_cifar.errors import UsageError
from beam_cifar.filters.xpath import ItemFilter
from beam_cifar.images.options import AS_STORED, ImageOptions
from beam_cifar.storage import Blob

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


CHUNK_ROWS = 1000
"""Rows that a summary counts together; a plan may still cut anywhere."""

MAX_TOLD = 10_000
"""Number of bad rows that any file may have, however few its rows are."""

MAX_BAD_ROWS = 100
"""Maximum number of bad rows that a summary lists."""


def are_too_many(bad: int, rows: int) -> bool:
    """Returns whether so many of a file's rows are bad that it is probably in another format.

    Bad rows take some 200 bytes each, so this also bounds the memory for each row.

    >>> are_too_many(9_000, 9_000), are_too_many(20_000, 30_000), are_too_many(20_000, 60_000)
    (False, True, False)
    """
    return bad > max(MAX_TOLD, rows // 2)


class RowAccess(NamedTuple):
    """What it costs to reach a row of a file, which decides how rows are read in another order than the file's.

    Attributes:
        starts: first row of each group of rows that is read from its start, ascending from 0; empty where any row is
            read directly.

    >>> from beam_cifar.formats.contract.types import DIRECT, SEQUENTIAL, RowAccess
    >>> DIRECT.starts, SEQUENTIAL.starts, RowAccess((0, 5000)).starts
    ((), (0,), (0, 5000))
    """

    starts: tuple[int, ...] = ()


DIRECT = RowAccess()
"""Any row is read at the same cost: fixed offsets, or an index."""

SEQUENTIAL = RowAccess((0,))
"""A row is read after all rows before it."""


@dataclass(frozen=True)
class SourceFile:
    """One input file, or one folder of images.

    Attributes:
        name: its name in the dataset, such as "data_batch_1".
        subset: subset of its rows.
        shown: display name used in messages.
        blob: location of its bytes.
        label: label of all its rows if its location gives one; `UNLABELLED` where rows have their own.
        id_prefix: prefix of the ids of its rows, where file names alone would not be unique.
        source: index of its dataset, in a job with several.
        beside: other files or folders that its rows are read from, such as a label file.
        index_dir: folder for indexes of its contents, which tasks share; "" for none. Set where the catalog is made.
        images: how its images are read.
        passing: encodings that the job writes as they are; see `beam_cifar.images.conform.conformed`.
    """

    name: str
    subset: str
    shown: str
    blob: Blob
    label: int = UNLABELLED
    id_prefix: str = ""
    source: int = 0
    beside: tuple[Blob, ...] = ()
    index_dir: str = field(default="", compare=False)
    images: ImageOptions = AS_STORED
    passing: tuple[str, ...] = ()

    def bad_row(self, row: int, error: str, label: int = UNLABELLED, stage: str = "read") -> BadRow:
        """Returns the record of a row that a stage cannot read, with the reason."""
        return BadRow(self.shown, row, self.subset, stage, error, label)


@dataclass(frozen=True)
class Catalog:
    """What is known about a dataset before any row is read.

    Attributes:
        format: name of the format.
        title: display name of the kind of dataset, such as "CIFAR-100".
        path: absolute path of the directory or archive.
        labels: classes and superclasses; the superclass of a class may only be known from the rows.
        files: input files, in order.
        meta_files: files that describe the rows, such as class names.
        notices: messages for the user.
        unread: content of its files that is not read and would be lost on rewriting; "" if there is none.
        root: the dataset's folder, where that is a folder inside `path`.
        counts_images: whether `notices` already count the rows without an image.
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
    counts_images: bool = False


@dataclass(frozen=True)
class Wanted:
    """What a summary should include besides counts.

    Attributes:
        filter: count only the rows that it keeps.
        sizes: whether image sizes are needed even if every image must be opened for them.
        names: whether to include the name of each row's file, for sinks where every image is a file.
        columns: columns of `beam_cifar.data.row_table.COLUMNS`, or "label", to include for every row.
        lenient: whether images without a valid header are listed in `FileSummary.unreadable`, and not refused: whoever
            asks refuses those that are selected.
        tolerant: whether all bad rows are listed, not only the first, and files that cannot be opened are, too: whoever
            asks sets them aside.
    """

    filter: ItemFilter | None = None
    sizes: bool = False
    names: bool = False
    columns: frozenset[str] = frozenset()
    lenient: bool = False
    tolerant: bool = False


@dataclass(frozen=True)
class RowNames:
    """Digests of names, for every row that is kept by the filter and not bad, in order.

    Attributes:
        rows: int64 `[N]`, row numbers in the file.
        labels: int32 `[N]`, -1 for unlabelled.
        kept_labels: int32 `[N]`, labels after the filter, which may remove some.
        ids: uint64 `[N]`, digests of ids.
        names: uint64 `[N]`, digests of short names; equal for names that some file systems treat as the same.
        wholes: uint64 `[N]`, the same kind of digest, of full ids.
        images: bool `[N]`, whether the row has an image.
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
    """What the plan needs to know about one input file, without pixels.

    Attributes:
        file: the file.
        rows: number of rows, bad ones included.
        chunks: for every `CHUNK_ROWS` rows, the number of rows by label (-1 for unlabelled), without bad rows and
            those that the filter drops.
        images: number of rows with an image.
        image_bytes: bytes of all images as stored in blocks: pixels, or encoded files.
        pixel_bytes: bytes of all images as pixels, three channels; 0 where sizes are not known.
        size: (height, width) where every row has an image of that size, else None.
        parents: class -> (superclass, row that it was found in).
        bad_rows: rows that cannot be read: all if `Wanted.tolerant`, else at most `MAX_BAD_ROWS` of them.
        bad_count: total number of bad rows.
        unreadable: rows that the filter keeps and whose image has no valid header, as far as sizes were asked for.
        duplicates: number of rows whose id had to be made unique.
        batch_label: title stored in the file.
        copyable_as: name of the format whose writer would produce the same bytes from all its rows.
        digest: hex sha256 of everything in the file except pixels.
        row_names: digests of names, if requested.
        kept_labels: number of rows whose label survives the filter; None without a filter.
        columns: the columns of `facts_schema` needed for `Wanted.columns`, if requested.
        access: what it costs to reach a row.
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
    unreadable: tuple[BadRow, ...] = ()
    duplicates: int = 0
    batch_label: str = ""
    copyable_as: str = ""
    digest: str = ""
    row_names: RowNames | None = None
    kept_labels: int | None = None
    columns: pa.Table | None = None
    access: RowAccess = DIRECT


@dataclass(frozen=True)
class Shard:
    """One unit of output: a file, or all image files of a subset where every image is a file.

    Attributes:
        index: its number in the plan.
        subset: its output subset.
        path: path of the file or folder, relative to the output directory, with "/".
        rows: number of rows.
        part_rows: rows of every part but the last; a single part is the file itself.
        size: (height, width) where every row has an image of that size, else None.
        has_images: whether any row has an image.
        batch_label: title stored in a CIFAR batch.
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
        """Number of parts that it is joined from."""
        return max(1, -(-self.rows // max(1, self.part_rows)))

    def rows_of(self, part: int) -> int:
        """Returns the number of rows of one part."""
        return min(self.part_rows, self.rows - part * self.part_rows)


@dataclass(frozen=True)
class SinkOptions:
    """Settings of a writer besides its shard.

    Attributes:
        labels: the label table of the output.
        export: export options of the job.
        strict_names: digests of short names shared by several ids; see `beam_cifar.naming.image_files`.
    """

    labels: LabelTable
    export: ExportOptions
    strict_names: frozenset[int] = frozenset()


@dataclass(frozen=True)
class ShardResult:
    """A finished shard, as passed to `Sink.finish` and `Sink.result_notices`.

    Attributes:
        shard: the shard.
        bytes: total size of its files.
        labels: labels of its rows, -1 for unlabelled.
        statistics: `PartWriter.statistics`, and remarks on images by kind, summed over its parts.
        sha256: hex digest of the file, or of the list of files.
    """

    shard: Shard
    bytes: int
    labels: Set[int]
    statistics: Mapping[str, int]
    sha256: str


SUBSET_NAMES = ("source", "split")
"""How output subsets are named: as in the source, or by their split."""

LAYOUTS = ("genuine",)
"""Files that an output may consist of, where readers expect certain ones."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a dataset is written.

    Attributes:
        save_images: write pixels even where the format does not require them.
        save_dataset_meta: write `dataset_meta.json` where the format supports it.
        image_ext: extension of image file names, such as ".png", which also selects the encoding where images are
            files; None keeps images and names as they are, and encodes raw pixels as PNG.
        keep_empty_classes: create folders for classes without images, where classes are folders.
        images_per_batch: rows per output file (fewer in the last of a subset); None: the format decides.
        subset_names: "source" keeps subsets as they are, "split" merges `data_batch_*` into `train` and renames
            `test_batch` to `test`; None: the format decides.
        card: write a dataset card (`README.md`), and `croissant.json`, where the format supports it; in `imagenet` the
            card alone, if `datasets` needs it.
        layout: "genuine" names and counts the files as in the genuine dataset; None: one file for each subset.

    Raises:
        UsageError: invalid value.

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
    card: bool = False
    layout: str | None = None

    def __post_init__(self) -> None:
        refuse_less_than_one("--images-per-batch", self.images_per_batch)
        if self.subset_names not in (None, *SUBSET_NAMES):
            raise UsageError(f"--subsets must be one of {', '.join(SUBSET_NAMES)}, found {self.subset_names!r}")
        if self.layout not in (None, *LAYOUTS):
            raise UsageError(f"--layout must be one of {', '.join(LAYOUTS)}, found {self.layout!r}")
        if self.layout is not None and (self.images_per_batch is not None or self.subset_names is not None):
            raise UsageError("--layout decides the files; omit --images-per-batch and --subsets")
        if self.image_ext is not None and not re.fullmatch(r"\.[A-Za-z0-9]+", self.image_ext):
            raise UsageError(f"--image-ext must look like .png, found {self.image_ext!r}")

    def export_options(self) -> dict[str, Any]:
        """Returns the fields of this class alone, without those of subclasses, by name."""
        return {field.name: getattr(self, field.name) for field in fields(ExportOptions)}
