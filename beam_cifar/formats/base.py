"""What a format is: a source that finds, summarises and reads data sets, and a sink that writes them."""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from beam_cifar import storage
from beam_cifar.block import BadRow
from beam_cifar.errors import InputError, UsageError
from beam_cifar.images.files import GRAY, RAW, file_encodings
from beam_cifar.labels import UNLABELLED, LabelTable
from beam_cifar.names import clash_key
from beam_cifar.options import ExportOptions
from beam_cifar.storage import Blob, StagedFile, StagedFiles

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from beam_cifar.steps.base import PixelStep
    from beam_cifar.xpath import ItemFilter

CHUNK_ROWS = 1000
"""Rows that a summary counts together; a plan may cut anywhere in between."""

LOSSES = {
    "colour": "colour: coloured images become gray (luma, ITU-R BT.601)",
    "jpeg": "exact pixels: they become JPEG, unless `--image-ext .png` is given; JPEG files pass through",
    "ids": "ids: items are numbered",
    "labels": "labels",
    "order": "the order of classes",
    "unused": "classes without images",
    "subsets": "subsets",
    "superclasses": "superclasses",
}
"""What a format may lose, as its page says it."""

MAX_TOLD = 10_000
"""Bad rows of a file: one that has more is a file of another kind."""

MAX_BAD_ROWS = 100
"""Bad rows that a summary names one by one."""

Runs: TypeAlias = Sequence[tuple[int, int]]
"""Runs of rows, each [start, stop), rising."""


@dataclass(frozen=True)
class SourceFile:
    """One input file, or one folder of images.

    Attributes:
        name: its name in the data set, such as "data_batch_1".
        subset: the subset that its rows belong to.
        shown: how messages name it.
        blob: where its bytes are.
        label: of all its rows, where the place says it; `UNLABELLED` also where the rows do.
        id_prefix: what the ids of its rows start with, where file names alone would not be unique.
        source: index of the data set that it belongs to, where a job has several.
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
    """What a data set says of itself before any row is looked at.

    Attributes:
        format: name of the format.
        title: of the kind of data set, such as "CIFAR-100".
        path: absolute path of the directory or archive.
        labels: classes and superclasses; which class has which superclass may be known only from the rows.
        files: input files, in order.
        meta_files: files that say what the rows mean.
        notices: things that a user should know.
        unread: what its files say that is not read, and would be lost if they were written anew; empty for nothing.
        root: the folder that the data set lies in, where that is one in `path`.
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
class Origin:
    """A data set that a job reads.

    Attributes:
        format: its name.
        labels: its label table.
        pixel_steps: what is done to its images before they meet those of other data sets.
    """

    format: str
    labels: LabelTable
    pixel_steps: tuple[PixelStep, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What a summary is to tell beside counts.

    Attributes:
        filter: counts only rows that it keeps.
        sizes: whether image sizes are needed where they take a look into every image.
        names: for sinks that make a file of every image: which row would get which name.
        columns: of `beam_cifar.view.COLUMNS` and "label": what is needed of every single row.
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
        columns: of every row, those of `beam_cifar.example.FACTS` that are behind `Wanted.columns`, where asked for.
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
        strict_names: digests of short names that several ids would get; see `beam_cifar.row_names`.
    """

    labels: LabelTable
    export: ExportOptions
    strict_names: frozenset[int] = frozenset()


class RowReader(ABC):
    """The rows of one input file.

    Attributes:
        file: that holds them.
        labels: of every row, -1 for unlabelled.
        bad_rows: rows that cannot be kept, by their number.
    """

    def __init__(self, file: SourceFile, labels: Sequence[int], bad_rows: Mapping[int, BadRow]) -> None:
        self.file, self.labels, self.bad_rows = file, labels, bad_rows

    @property
    def rows(self) -> int:
        """How many, bad ones included."""
        return len(self.labels)

    @property
    def image_paths(self) -> Iterator[str]:
        """Paths of the files that images are, where each is one; in no particular order."""
        return iter(())

    @contextmanager
    def opened(self) -> Iterator[RowReader]:
        """The same rows with the file open, where images lie in one; for one thread. Raises `InputError`."""
        yield self

    @abstractmethod
    def summary(self, *, sizes: bool) -> FileSummary:
        """What the plan needs to know of the file, single rows left out; looks into images only for `sizes`."""

    @abstractmethod
    def row_bytes(self, start: int, stop: int, *, decoded: bool) -> int:
        """Bytes of the largest image of the rows [start, stop): as it lies in a block, or `decoded`, as pixels."""

    @abstractmethod
    def facts(self, start: int, stop: int, *, sizes: bool = True) -> pa.Table:
        """Everything of the rows [start, stop), bad ones included, but images: `beam_cifar.example.FACTS`.

        Args:
            start: first row.
            stop: end of the rows.
            sizes: whether sizes are needed; without, they may be null where they take a look into every image.
        """

    @abstractmethod
    def examples(self, runs: Runs) -> pa.Table:
        """The examples of some runs of rows, rising and none of them bad, in the schema of `beam_cifar.example`."""

    def table(self, start: int, stop: int) -> pa.Table:
        """The examples [start, stop) without the bad rows."""
        bad = sorted(row for row in self.bad_rows if start <= row < stop)
        good = zip((start, *(row + 1 for row in bad)), (*bad, stop), strict=True)
        return self.examples([run for run in good if run[0] < run[1]])

    def take(self, rows: Sequence[int]) -> pa.Table:
        """The examples of some rows, rising and none of them bad; runs of rows cost less than as many single ones."""
        return self.examples(runs_of(rows))


@dataclass(eq=False)
class PartWriter(ABC):
    """Writes one part from tables of examples.

    Attributes:
        file: what is written to: a `StagedFile`, or a `StagedFolder` where every image is a file.
        shard: that the part belongs to.
        rows: that will come.
        options: of the writers.
        sink: that it belongs to.
    """

    file: Any
    shard: Shard
    rows: int
    options: SinkOptions
    sink: Sink

    def __post_init__(self) -> None:
        """Sets up what else a format needs."""
        return

    @abstractmethod
    def append(self, table: pa.Table) -> None:
        """Appends examples, in order."""

    def close(self) -> None:
        """Completes the file; the underlying file stays open."""
        return

    def statistics(self) -> dict[str, int]:
        """Further numbers for `Sink.finish`, summed over all parts."""
        return {}


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


Kept = TypeVar("Kept")


def kept(files: int = 8) -> Callable[[Callable[..., Kept]], functools._lru_cache_wrapper[Kept]]:
    """Keeps what a function says of the last files, because several tasks read parts of one large file.

    A `SourceFile` has the stamp of its blob: one that changed is another file. The bound is a number of files: what is
    kept of one must be far less than its images.
    """
    return functools.lru_cache(maxsize=files)


class Source(ABC):
    """Reads a format; one file, or package, beside this and one line in `FORMATS`."""

    name: ClassVar[str]

    def detect(self, path: str, index_dir: str) -> bool:
        """Whether a directory or archive looks like this format; False for one that cannot be read.

        Args:
            path: of the directory or archive.
            index_dir: as for `describe`, which says what is wrong.
        """
        try:
            return self.looks_right(path, index_dir)
        except (OSError, InputError):
            return False

    @abstractmethod
    def looks_right(self, path: str, index_dir: str) -> bool:
        """What `detect` returns. Raises `OSError` or `InputError` for what cannot be read."""

    @abstractmethod
    def describe(self, path: str, index_dir: str) -> Catalog:
        """Finds files and label table; `index_dir` is where archive indexes may be put. Raises `InputError`."""

    @abstractmethod
    def read_rows(self, file: SourceFile, labels: LabelTable) -> RowReader:
        """What is known of the rows of one file before any image is read; it is kept. Raises `InputError`."""

    @contextmanager
    def open_rows(self, file: SourceFile, labels: LabelTable) -> Iterator[RowReader]:
        """Opens one file. Raises `InputError`."""
        with _kept_rows(type(self), file, labels).opened() as rows:
            yield rows


@kept()
def _kept_rows(kind: type[Source], file: SourceFile, labels: LabelTable) -> RowReader:
    return kind().read_rows(file, labels)


@dataclass(frozen=True)
class Capabilities:
    """What a format can hold, and in what form it takes it.

    Attributes:
        losses: what it cannot say, of `LOSSES`.
        pixels: `RAW` or `GRAY` where images are stored as pixels; empty where they are PNG or JPEG files.
        image_ext: the extension of image files where none is asked for; None for that of each one's encoding.
        needs_images: whether images are always written; else only on request.
        takes_missing_images: whether a row may be without image; never where every image is a file.
        takes_unlabelled: whether a row may be without label.
        one_size: whether all images of a shard must have one size.
        keeps_empty_subsets: whether a subset with no rows left still gets a file.
        packs: whether `--images-per-batch` may cut a subset into files.
        many_files: whether every image is a file of its own, and a shard a folder of them.
        classes_are_folders: for `many_files`, whether images of different classes may have one name.
        ids_are_paths: for `many_files`, whether a file's path is its whole id, folders and all, rather than its end.
        listed: for `many_files`, columns that the list of files has as well: of "label", "height", "width".
        part_bytes: bytes of images in a part, where a shard is made of several; None where a shard is one part.
        always_joined: whether a shard is made by `FileSink.join` also where it has only one part.
        keeps_files: whether a file may stay as it is where a data set is saved in place. It may not where
            `Sink.finish` has to know of it, nor where it is not what a part is.
        max_shard_bytes: the largest payload that one file can hold.
        row_bytes: what a row takes besides its image, at least.
        reserved_paths: paths that `Sink.finish` may write, which no shard can have.
    """

    losses: frozenset[str] = frozenset()
    pixels: str = ""
    image_ext: str | None = None
    needs_images: bool = True
    takes_missing_images: bool = True
    takes_unlabelled: bool = True
    one_size: bool = False
    keeps_empty_subsets: bool = False
    packs: bool = False
    many_files: bool = False
    classes_are_folders: bool = True
    ids_are_paths: bool = False
    listed: tuple[str, ...] = ()
    part_bytes: int | None = None
    always_joined: bool = False
    keeps_files: bool = True
    max_shard_bytes: int | None = None
    row_bytes: int = 0
    reserved_paths: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SubsetNaming:
    """How the subsets of an output are called, from the name in the source to that of a file.

    Attributes:
        by_split: whether `data_batch_*` become `train` and `test_batch` becomes `test`, unless `--subsets` says
            otherwise.
        numbered: whether files are subsets themselves: `data_batch_1` and the next are one series, which is cut anew
            and numbered from 1 where files are packed.
        letters: the name in the letters that the format has for it.
        word: what the files, or the folder, of a subset are called, without what they have in common.
        suffix: the end of `word` that every name gets, where it has one.
        merges: whether subsets of one name may become one, unasked.
        own_folders: whether the images of each subset lie in a folder of their own, so that names may repeat.
        refused: names that readers take for all subsets.
    """

    by_split: bool = False
    numbered: bool = False
    letters: Callable[[str], str] = str
    word: Callable[[str], str] = str
    suffix: str = ""
    merges: bool = False
    own_folders: bool = False
    refused: frozenset[str] = frozenset()

    def asked(self, subset: str, options: ExportOptions) -> str:
        """The name of a subset, or of its split where those are asked for, or where the format is made of splits."""
        names = options.subset_names or ("split" if self.by_split else "source")
        return split_name(subset) if names == "split" else subset

    def output(self, subset: str, options: ExportOptions) -> str:
        """The output subset that a source subset becomes part of."""
        name = self.letters(self.asked(subset, options))
        return name if not self.numbered or options.images_per_batch is None else series_name(name)

    def of_file(self, subset: str, number: int, count: int, options: ExportOptions) -> str:
        """The subset that readers will see file `number` (from 0) of `count` of an output subset as."""
        packed = self.numbered and options.images_per_batch is not None
        return f"{subset}_{number + 1}" if packed and (count > 1 or subset == "data_batch") else subset

    def written(self, name: str) -> str:
        """What the files, or the folder, of a subset of that name are called."""
        return self.word(self.letters(name))

    def group(self, subset: str) -> str:
        """Images of one folder get different names if this is the same for their output subsets."""
        return subset if self.own_folders else ""

    def check(self, subsets: Iterable[str], options: ExportOptions) -> None:
        """Refuses subsets that would become one, where the format keeps them apart. Raises `UsageError`."""
        met: dict[str, str] = {}
        names = [self.asked(subset, options) for subset in subsets]
        for refused in self.refused.intersection(map(self.letters, names)):
            raise UsageError(
                f"a subset called {refused!r} cannot be a split: readers mean every split by it; rename the file"
            )
        for name in () if self.merges else names:
            written = self.letters(name)
            other = met.setdefault(self.letters(clash_key(written)), name)
            if other != name:
                where = "" if self.letters(other) == written else " on some disks"
                raise UsageError(
                    f"subsets {other!r} and {name!r} would both become {written!r}{where}; convert one at a time with "
                    "--subset, or rename one by --transform 'map_subsets -s OLD:NEW'"
                )

    def renamed(self, names: Iterable[str]) -> dict[str, str]:
        """Names that had to change to be written: written -> original."""
        return {self.written(name): name for name in names if self.written(name) != name + self.suffix}


class Sink(ABC):
    """Writes a format; one file, or package, beside this and one line in `FORMATS`.

    A new format derives from `FileSink`, or from `formats.shared.folders.TreeSink` where every image is a file. It says
    what it can hold and how subsets are called, and has a `PartWriter`; `finish` adds what completes the data set.
    """

    name: ClassVar[str]
    can: ClassVar[Capabilities]
    subsets: ClassVar[SubsetNaming] = SubsetNaming()
    writer: ClassVar[type[PartWriter]]

    def encodings(self, options: ExportOptions) -> tuple[str, ...]:
        """How images may lie in blocks when they reach the writer; others become the first of these.

        Raises:
            UsageError: an extension that the format cannot write.
        """
        return (self.can.pixels,) if self.can.pixels else file_encodings(options.image_ext or self.can.image_ext)

    def check(self, options: ExportOptions) -> None:
        """Refuses options that the format cannot follow. Raises `UsageError`."""
        self.encodings(options)
        if options.images_per_batch is not None and not self.can.packs:
            files = "a file for every image" if self.can.many_files else "one file for each subset"
            raise UsageError(f"--images-per-batch: {self.name} has {files}; leave it out")

    def export_of(self, options: ExportOptions) -> ExportOptions:
        """The export options alone, with pixels also where only the format asks for them."""
        asked = {**options.export_options(), "save_images": self.can.needs_images or options.save_images}
        return ExportOptions(**asked)

    def check_labels(self, labels: LabelTable) -> None:
        """Refuses classes that the format cannot keep apart. Raises `UsageError`."""
        return

    def check_shard(self, shard: Shard, options: SinkOptions) -> None:
        """Refuses a file that the format cannot hold. Raises `UsageError`."""
        return

    def shard_rows(self, rows: int, image_bytes: int, total_bytes: int, options: ExportOptions) -> int:
        """Rows per file of a subset, a function of raw sizes alone.

        Args:
            rows: of the subset.
            image_bytes: of the subset.
            total_bytes: of the whole job.
            options: of the job.
        """
        return options.images_per_batch or max(1, self.even_rows(rows, image_bytes, total_bytes))

    def even_rows(self, rows: int, image_bytes: int, total_bytes: int) -> int:
        """The same where nobody asks for another number: all of a subset in one file."""
        return rows

    @abstractmethod
    def shard_path(self, subset: str, number: int, count: int) -> str:
        """The path of file `number` (from 0) of `count` of a subset, relative to the output."""

    def batch_label(self, subset: str, number: int, count: int) -> str:
        """What file `number` of `count` calls itself, for formats whose files do, and whose sources do not say."""
        return ""

    def estimate_bytes(self, rows: int, image_bytes: int, options: SinkOptions) -> int:
        """A lower bound of the output's size, to refuse a full disk before the start."""
        # PNG saves a quarter on photographs, more on drawings.
        share = {RAW: 1, GRAY: 3}.get(self.can.pixels, 2)
        return image_bytes // share + rows * self.can.row_bytes

    def copies(self, summary: FileSummary, options: SinkOptions) -> bool:
        """Whether a file whose rows are all kept, unchanged, may be copied byte for byte."""
        return False

    def open_part(self, file: Any, shard: Shard, rows: int, options: SinkOptions) -> PartWriter:
        """Starts a part of `rows` rows in a `StagedFile`, or in a `StagedFolder` where every image is a file."""
        return self.writer(file, shard, rows, options, self)

    def complete(self, parts: Sequence[str], files: StagedFiles, shard: Shard, options: SinkOptions) -> None:
        """Writes the files that stand beside one shard, such as one of labels, or a list of its images.

        Args:
            parts: of the shard, by path, in order; where every image is a file the list of them, see
                `storage.read_listing`.
            files: where they are written.
            shard: which one.
            options: of the writers.
        """
        return

    def folders(self, options: SinkOptions, shards: Sequence[ShardResult]) -> list[str]:
        """Folders that the data set has even if nothing is in them."""
        return []

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """The files that complete the data set, by path."""
        return {}

    def class_words(self, labels: LabelTable) -> Sequence[str]:
        """What the folder, or the file, of each class is called."""
        return labels.names

    def renamed(self, labels: LabelTable, subsets: Iterable[str]) -> dict[str, dict[str, str]]:
        """Names that had to change to be written: what they are of -> written -> original.

        Args:
            labels: of the output.
            subsets: of the output, before their names were changed.
        """
        classes = zip(self.class_words(labels), labels.names, strict=True)
        found = {
            "classes": {word: name for word, name in classes if word != name},
            "subsets": self.subsets.renamed(subsets),
        }
        return {what: changed for what, changed in found.items() if changed}

    def notices(self, options: SinkOptions) -> Iterable[str]:
        """Things that a user should know before the start, one line each."""
        return ()

    def result_notices(self, options: SinkOptions, shards: Sequence[ShardResult]) -> Iterable[str]:
        """Things that a user should know of the finished output, one line each."""
        return ()


class FileSink(Sink):
    """Writes shards that are one file each."""

    def join(self, parts: Sequence[str], file: StagedFile, shard: Shard, options: SinkOptions) -> None:
        """Joins the parts of one shard, given by path, in order: one after the other, unless a format does more."""
        for path in parts:
            with storage.open_file(path) as part:
                while chunk := part.read(storage.COPY_BYTES):
                    file.write(chunk)


def runs_of(rows: Sequence[int]) -> Runs:
    """Rising rows as runs (start, stop) without gaps."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and runs[-1][1] == row:
            runs[-1] = runs[-1][0], row + 1
        else:
            runs.append((row, row + 1))
    return runs


def series_name(subset: str) -> str:
    """What numbered subsets have in common: "data_batch" for `data_batch_1`; any other name is a series of its own."""
    return re.sub(r"_\d+$", "", subset)


def split_name(subset: str) -> str:
    """The split that a batch belongs to: CIFAR's `data_batch_*` is "train", `test_batch` is "test".

    Those of Downsampled ImageNet are `train_data_batch_*` and `val_data`.
    """
    if subset.startswith(("data_batch", "train_data_batch")):
        return "train"
    if subset.startswith("test_batch"):
        return "test"
    return "val" if subset == "val_data" else subset
