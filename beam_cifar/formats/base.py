"""What a format is: how a data set is found, summarised, read, and written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from beam_cifar.block import BadRow
from beam_cifar.labels import LabelTable
from beam_cifar.storage import Blob, StagedFile

if TYPE_CHECKING:
    import pyarrow as pa

    from beam_cifar.options import ConvertOptions

CHUNK_ROWS = 1000
"""Rows that a summary counts together; a plan may cut anywhere in between."""

MAX_BAD_ROWS = 100
"""Bad rows that a summary names one by one."""


@dataclass(frozen=True)
class SourceFile:
    """One input file.

    Attributes:
        name: its name in the data set, such as "data_batch_1".
        subset: the subset that its rows belong to.
        shown: how messages name it.
        blob: where its bytes are.
    """

    name: str
    subset: str
    shown: str
    blob: Blob


@dataclass(frozen=True)
class Catalog:
    """What a data set says of itself before any row is looked at.

    Attributes:
        format: name of the format.
        title: of the kind of data set, such as "CIFAR-100".
        path: absolute path of the directory or archive.
        labels: classes and superclasses; which class has which superclass may be known only from the rows.
        files: input files, in order.
        meta_files: files that say what the rows mean.
        notices: things that a user should know.
    """

    format: str
    title: str
    path: str
    labels: LabelTable
    files: tuple[SourceFile, ...]
    meta_files: tuple[SourceFile, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileSummary:
    """What the plan needs to know of one input file; never pixels.

    Attributes:
        file: which one.
        rows: how many, bad ones included.
        chunks: for every `CHUNK_ROWS` rows the number of rows by label (-1 for unlabelled), bad rows left out.
        images: rows that have an image.
        image_bytes: bytes of all images as they lie in blocks.
        size: (height, width) where every row has an image of that size, else None.
        parents: class -> (superclass, row that says so).
        bad_rows: rows that cannot be kept, at most `MAX_BAD_ROWS` of them.
        bad_count: how many there are in all.
        duplicates: rows whose id had to be made unique.
        batch_label: what the file calls itself.
        copyable_as: name of the format whose writer would make the same file, byte for byte, from all its rows.
        digest: hex sha256 of everything in it that is not pixels.
    """

    file: SourceFile
    rows: int
    chunks: tuple[Mapping[int, int], ...]
    images: int
    image_bytes: int
    size: tuple[int, int] | None
    parents: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    bad_rows: tuple[BadRow, ...] = ()
    bad_count: int = 0
    duplicates: int = 0
    batch_label: str = ""
    copyable_as: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Shard:
    """One file of the output.

    Attributes:
        index: its number in the plan.
        subset: the output subset that it belongs to.
        path: relative to the output directory, with "/".
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
        save_images: whether pixels are written.
        save_dataset_meta: whether `dataset_meta.json` is.
        image_ext: extension for file names, or None to keep them as found.
    """

    labels: LabelTable
    save_images: bool = True
    save_dataset_meta: bool = False
    image_ext: str | None = None


class RowReader(ABC):
    """The rows of one open input file."""

    @property
    @abstractmethod
    def labels(self) -> Sequence[int]:
        """The label of every row: -1 for unlabelled."""

    @property
    @abstractmethod
    def bad_rows(self) -> Mapping[int, BadRow]:
        """Rows that cannot be kept, by their number; `table` must not be asked for them."""

    @abstractmethod
    def row_bytes(self) -> int:
        """Bytes of the largest image."""

    @abstractmethod
    def table(self, start: int, stop: int) -> pa.Table:
        """The examples [start, stop) without the bad rows, in the schema of `beam_cifar.example`."""


class PartWriter(ABC):
    """Writes one part from tables of examples."""

    @abstractmethod
    def append(self, table: pa.Table) -> None:
        """Appends examples, in order."""

    @abstractmethod
    def close(self) -> None:
        """Completes the file; the underlying file stays open."""

    def statistics(self) -> dict[str, int]:
        """Further numbers for `Format.finish`, summed over all parts."""
        return {}


class Format(ABC):
    """A format: one file in this package and one line in `FORMATS`."""

    name: ClassVar[str]
    encoding: ClassVar[str]
    """How images lie in blocks when they reach the writer."""
    needs_images: ClassVar[bool]
    """Whether pixels are always written; else only on request."""
    keeps_empty_subsets: ClassVar[bool]
    """Whether a subset with no rows left still gets a file."""
    reserved_paths: ClassVar[frozenset[str]] = frozenset()
    """Paths that `finish` may write, which no shard can have."""
    max_shard_bytes: ClassVar[int | None] = None
    """The largest payload that one file can hold."""

    # Reading ---------------------------------------------------------------------------------------------------

    def detect(self, path: str, index_dir: str) -> bool:
        """Whether a directory or archive looks like this format; `index_dir` as for `describe`."""
        return False

    def describe(self, path: str, index_dir: str) -> Catalog:
        """Finds files and label table; `index_dir` is where archive indexes may be put. Raises `InputError`."""
        raise NotImplementedError

    def scan(self, file: SourceFile, labels: LabelTable) -> FileSummary:
        """Summarises one file. Raises `InputError`."""
        raise NotImplementedError

    def open_rows(self, file: SourceFile, labels: LabelTable) -> Any:
        """A context manager that yields a `RowReader`."""
        raise NotImplementedError

    # Writing ---------------------------------------------------------------------------------------------------

    def check(self, options: ConvertOptions) -> None:
        """Refuses options that the format cannot follow. Raises `UsageError`."""
        return

    def check_subsets(self, subsets: Sequence[str], options: ConvertOptions) -> None:
        """Refuses subsets that the format cannot keep apart. Raises `UsageError`."""
        return

    def output_subset(self, subset: str, options: ConvertOptions) -> str:
        """The output subset that a source subset becomes part of."""
        return subset

    @abstractmethod
    def shard_rows(self, rows: int, image_bytes: int, total_bytes: int, options: ConvertOptions) -> int:
        """Rows per file of a subset, a function of raw sizes alone.

        Args:
            rows: of the subset.
            image_bytes: of the subset.
            total_bytes: of the whole job.
            options: of the job.
        """

    @abstractmethod
    def shard_path(self, subset: str, number: int, count: int, options: ConvertOptions) -> str:
        """The path of file `number` (from 0) of `count` of a subset, relative to the output."""

    def shard_subset(self, subset: str, number: int, count: int, options: ConvertOptions) -> str:
        """The subset that readers will see file `number` of `count` as."""
        return subset

    def batch_label(self, subset: str, number: int, count: int, sources: Sequence[FileSummary]) -> str:
        """What the file calls itself, for formats whose files do."""
        return ""

    @abstractmethod
    def estimate_bytes(self, rows: int, image_bytes: int, options: SinkOptions) -> int:
        """A lower bound of the output's size, to refuse a full disk before the start."""

    def copies(self, summary: FileSummary, options: SinkOptions) -> bool:
        """Whether a file whose rows are all kept, unchanged, may be copied byte for byte."""
        return False

    @abstractmethod
    def open_part(self, file: StagedFile, shard: Shard, rows: int, options: SinkOptions) -> PartWriter:
        """Starts a part of `rows` rows."""

    def join(self, parts: Sequence[str], file: StagedFile, shard: Shard, options: SinkOptions) -> None:
        """Joins the parts of one shard, given by path, in order."""
        raise NotImplementedError

    @abstractmethod
    def finish(self, options: SinkOptions, shards: Sequence[tuple[Shard, int, Mapping[str, int]]]) -> dict[str, bytes]:
        """The files that complete the data set, by path.

        Args:
            options: of the sink.
            shards: each shard with its bytes and the sum of its parts' statistics.
        """

    def notices(self, options: SinkOptions) -> Iterator[str]:
        """Things that a user should know before the start, one line each."""
        yield from ()

    def result_notices(self, options: SinkOptions, shards: Sequence[tuple[Shard, Set[int]]]) -> Iterator[str]:
        """Things that a user should know of the finished output, one line each.

        Args:
            options: of the sink.
            shards: each shard with the labels that it has rows of.
        """
        yield from ()


def split_name(subset: str) -> str:
    """The split that a CIFAR batch belongs to: `data_batch_*` is "train", `test_batch` is "test"."""
    if subset.startswith("data_batch"):
        return "train"
    if subset.startswith("test_batch"):
        return "test"
    return subset
