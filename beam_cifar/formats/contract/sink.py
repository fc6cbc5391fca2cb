"""The write side of a format: what it can hold, and writing the parts of a shard."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import UsageError
from beam_cifar.formats.contract.types import ExportOptions, FileSummary, Shard, ShardResult, SinkOptions
from beam_cifar.images.encodings import GRAY, RAW, file_encodings
from beam_cifar.naming.components import clash_key
from beam_cifar.storage import StagedFile, StagedFiles

if TYPE_CHECKING:
    import pyarrow as pa


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
class Capabilities:
    """What a format can hold, and in what form it takes it.

    Attributes:
        losses: what it cannot say, of colour, jpeg, ids, labels, order, unused, subsets, superclasses.
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
        keeps_files: whether a file may stay as it is where a dataset is saved in place. It may not where
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
                f"a split cannot be called {refused!r}: readers take that name to mean all splits; rename the file"
            )
        for name in () if self.merges else names:
            written = self.letters(name)
            other = met.setdefault(self.letters(clash_key(written)), name)
            if other != name:
                where = "" if self.letters(other) == written else " on some file systems"
                raise UsageError(
                    f"subsets {other!r} and {name!r} would both become {written!r}{where}; convert one at a time with "
                    "--subset, or rename one with --transform 'map_subsets -s OLD:NEW'"
                )

    def renamed(self, names: Iterable[str]) -> dict[str, str]:
        """Names that had to change to be written: written -> original."""
        return {self.written(name): name for name in names if self.written(name) != name + self.suffix}


class Sink(ABC):
    """Writes a format; one file, or package, beside this and one line in `FORMATS`.

    A new format derives from `FileSink`, or from `formats.kit.folders.TreeSink` where every image is a file. It says
    what it can hold and how subsets are called, and has a `PartWriter`; `finish` adds what completes the dataset.
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
            files = "one file per image" if self.can.many_files else "one file per subset"
            raise UsageError(f"--images-per-batch: {self.name} writes {files}; omit this option")

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
        """Folders that the dataset has even if nothing is in them."""
        return []

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """The files that complete the dataset, by path."""
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
