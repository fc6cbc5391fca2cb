"""The write side of a format: what it can store, and how the parts of a shard are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from beam_cifar import storage
from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import UsageError
from beam_cifar.formats.contract.types import ExportOptions, FileSummary, Shard, ShardResult, SinkOptions
from beam_cifar.images.encodings import GRAY, OTHERS, RAW, file_encodings
from beam_cifar.naming.components import clash_key, is_cut
from beam_cifar.naming.subsets import series_name, split_name
from beam_cifar.storage import StagedFile, StagedFiles

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(eq=False)
class PartWriter(ABC):
    """Writes one part from tables of examples.

    Attributes:
        file: the output: a `StagedFile`, or a `StagedFolder` where every image is a file.
        shard: the shard that the part belongs to.
        rows: number of rows to expect.
        options: settings of the writer.
        sink: the sink that created this writer.
    """

    file: Any
    shard: Shard
    rows: int
    options: SinkOptions
    sink: Sink

    def __post_init__(self) -> None:
        """Sets up whatever else the format needs."""
        return

    @abstractmethod
    def append(self, table: pa.Table) -> None:
        """Appends examples, in order."""

    def close(self) -> None:
        """Completes the file; the underlying file stays open."""
        return

    def statistics(self) -> dict[str, int]:
        """Returns format-specific numbers for `Sink.finish`, which gets their sums over all parts."""
        return {}


LOSSES: Final = {
    "pixels": "pixels (--save-images writes them)",
    "colour": "colour (images become gray: luma, ITU-R BT.601)",
    "jpeg": "exact pixels (JPEG of quality 95 is lossy; JPEG files are copied unchanged; --image-ext .png is lossless)",
    "labels": "labels",
    "subsets": "subsets (all are in one folder; --subset selects one)",
    "ids": "ids (items are numbered)",
    "superclasses": "superclasses",
    "order": "class order",
    "unused": "empty classes",
}
"""What an output may lack, as notices and the table of formats say it, by the words of `Capabilities.losses`.

"pixels" is for formats where images are optional.
"""


@dataclass(frozen=True)
class Capabilities:
    """What a format can store, and in what form.

    Attributes:
        losses: what it cannot express: any of colour, jpeg, ids, labels, order, unused, subsets, superclasses. A job
            reports those that it has; `Sink.result_notices` reports "order" and "unused", which depend on the output.
        pixels: `RAW` or `GRAY` where images are stored as pixels; "" where they are PNG or JPEG files.
        image_ext: default extension of image files; None derives it from each image's encoding.
        any_image_files: whether its readers also take WebP, GIF, BMP and TIFF files, which then pass through.
        needs_images: whether images are always written, rather than only on request.
        takes_missing_images: whether a row may lack an image; never where every image is a file.
        takes_unlabelled: whether a row may lack a label.
        one_size: whether all images of a shard must have the same size.
        keeps_empty_subsets: whether a subset with no rows left still gets a file.
        packs: whether `--images-per-batch` may split a subset into several files.
        many_files: whether every image is a separate file, and a shard a folder of them.
        classes_are_folders: for `many_files`, whether images of different classes may share a name.
        ids_are_paths: for `many_files`, whether a file's path is its full id, folders included, not only its end.
        listed: for `many_files`, extra columns of the list of files: any of "label", "height", "width".
        part_bytes: image bytes per part where a shard may have several; None where a shard is a single part.
        always_joined: whether `FileSink.join` makes a shard even from a single part.
        keeps_files: whether an unchanged file may stay when a dataset is saved in place. Not possible where
            `Sink.finish` needs its numbers, or where a part differs from a finished file.
        max_shard_bytes: maximum payload of one file.
        row_bytes: minimum size of a row without its image.
        reserved_paths: paths that `Sink.finish` may write, and shards must not use.
    """

    losses: frozenset[str] = frozenset()
    pixels: str = ""
    image_ext: str | None = None
    any_image_files: bool = False
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
    """How output subsets are named: from the name in the source to the name of a file.

    Attributes:
        by_split: whether `data_batch_*` become `train` and `test_batch` becomes `test`, unless `--subsets` says
            otherwise.
        numbered: whether each file is a subset: `data_batch_1`, `data_batch_2`, ... are one series, which
            `--images-per-batch` splits anew and numbers from 1.
        letters: converts a name to the characters that the format supports.
        word: converts a name to that of the subset's files or folder, without the parts common to all.
        suffix: the ending that `word` adds to every name, if any.
        merges: whether subsets that end up with the same name are merged silently.
        own_folders: whether each subset has its own image folder, so that names may repeat.
        refused: names that readers take to mean all subsets.
        only: the only names that readers look for, after `letters`; empty if they take any.
        genuine: the splits of the genuine dataset, all of which `--layout genuine` needs; empty if there is no such
            layout.
    """

    by_split: bool = False
    numbered: bool = False
    letters: Callable[[str], str] = str
    word: Callable[[str], str] = str
    suffix: str = ""
    merges: bool = False
    own_folders: bool = False
    refused: frozenset[str] = frozenset()
    only: tuple[str, ...] = ()
    genuine: frozenset[str] = frozenset()

    def asked(self, subset: str, options: ExportOptions) -> str:
        """Returns the name of a subset, or of its split where the options or the format ask for splits."""
        names = options.subset_names or ("split" if self.by_split or options.layout else "source")
        return split_name(subset) if names == "split" else subset

    def output(self, subset: str, options: ExportOptions) -> str:
        """Returns the output subset that a source subset goes to."""
        name = self.letters(self.asked(subset, options))
        return name if not self.numbered or options.images_per_batch is None else series_name(name)

    def of_file(self, subset: str, number: int, count: int, options: ExportOptions) -> str:
        """Returns the subset that readers see in file `number` (from 0) of the `count` files of an output subset."""
        packed = self.numbered and options.images_per_batch is not None
        return f"{subset}_{number + 1}" if packed and (count > 1 or subset == "data_batch") else subset

    def written(self, name: str) -> str:
        """Returns the name of the files, or of the folder, of a subset."""
        return self.word(self.letters(name))

    def group(self, subset: str) -> str:
        """Returns a key: image names must differ among the output subsets that share it."""
        return subset if self.own_folders else ""

    def check(self, subsets: Iterable[str], options: ExportOptions) -> None:
        """Raises `UsageError` if subsets would collide in a format that does not merge them, or do not fit a layout."""
        met: dict[str, str] = {}
        names = [self.asked(subset, options) for subset in subsets]
        if options.layout is not None and self.genuine != set(names):
            raise UsageError(
                f"--layout {options.layout}: found the subsets {', '.join(map(repr, sorted(set(names))))}; expected "
                f"{' and '.join(sorted(self.genuine, reverse=True))}; select them with --subset, or make them with "
                "--transform 'map_subsets -s OLD:NEW' or random_split"
            )
        for refused in self.refused.intersection(map(self.letters, names)):
            raise UsageError(
                f"a split cannot be called {refused!r}: readers take that name to mean all splits; rename the file"
            )
        for name in names if self.only else ():
            if self.letters(name) not in self.only:
                raise UsageError(
                    f"subset {name!r}: readers look for {', '.join(self.only)} alone; rename it with --transform "
                    f"'map_subsets -s {name}:{self.only[0]}', or choose others with --subset"
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
        """Returns the names that had to change to be written: written -> original."""
        return {self.written(name): name for name in names if self.written(name) != name + self.suffix}


class Sink(ABC):
    """Writes a format; a new one is one module or package in `formats`, and one entry in `FORMATS`.

    It derives from `FileSink`, or from `formats.kit.folders.TreeSink` where every image is a file, and declares its
    capabilities, its subset naming and a `PartWriter`; `finish` returns the files that complete the dataset.
    """

    name: ClassVar[str]
    can: ClassVar[Capabilities]
    subsets: ClassVar[SubsetNaming] = SubsetNaming()
    writer: ClassVar[type[PartWriter]]

    def encodings(self, options: ExportOptions) -> tuple[str, ...]:
        """Returns the image encodings that the writer accepts; others are converted to the first of them.

        Raises:
            UsageError: the format cannot write images with that extension.
        """
        if self.can.pixels:
            return (self.can.pixels,)
        extension = options.image_ext or self.can.image_ext
        others = tuple(OTHERS) if self.can.any_image_files and extension is None else ()
        return (*file_encodings(extension), *others)

    def check(self, options: ExportOptions) -> None:
        """Raises `UsageError` for options that the format does not support."""
        self.encodings(options)
        if options.images_per_batch is not None and not self.can.packs:
            files = "one file per image" if self.can.many_files else "one file per subset"
            raise UsageError(f"--images-per-batch: {self.name} writes {files}; omit this option")
        if options.layout is not None and not self.subsets.genuine:
            raise UsageError(f"--layout: {self.name} has only one layout; omit this option")

    def export_of(self, options: ExportOptions) -> ExportOptions:
        """Returns the export options alone, with `save_images` set where the format requires it."""
        asked = {**options.export_options(), "save_images": self.can.needs_images or options.save_images}
        return ExportOptions(**asked)

    def check_labels(self, labels: LabelTable) -> None:
        """Raises `UsageError` for classes that the format cannot distinguish."""
        return

    def check_shard(self, shard: Shard, options: SinkOptions) -> None:
        """Raises `UsageError` for a shard that the format cannot store."""
        return

    def shard_rows(self, rows: int, image_bytes: int, total_bytes: int, options: ExportOptions) -> int:
        """Returns the rows per file of a subset; it depends on raw sizes alone.

        Args:
            rows: rows of the subset.
            image_bytes: image bytes of the subset.
            total_bytes: image bytes of the whole job.
            options: export options of the job.
        """
        return options.images_per_batch or max(1, self.even_rows(rows, image_bytes, total_bytes))

    def even_rows(self, rows: int, image_bytes: int, total_bytes: int) -> int:
        """Returns the default number of rows per file: all of a subset in one file."""
        return rows

    def layout_files(self, subset: str, rows: int, options: SinkOptions) -> Sequence[str]:
        """Returns the subsets that readers see in the files of an output subset if a layout decides them, else ().

        All files have the same number of rows, except that the last may have fewer.

        Raises:
            UsageError: the rows do not fill the files.
        """
        return ()

    @abstractmethod
    def shard_path(self, subset: str, number: int, count: int) -> str:
        """Returns the path of file `number` (from 0) of the `count` files of a subset, relative to the output."""

    def batch_label(self, subset: str, number: int, count: int) -> str:
        """Returns the title to store in file `number` of `count` if the source has none, for formats with titles."""
        return ""

    def estimate_bytes(self, rows: int, image_bytes: int, options: SinkOptions) -> int:
        """Returns a lower bound for the output size, to detect a full disk before the job starts."""
        # PNG saves a quarter on photographs, more on drawings: assume half. Gray keeps one of three channels.
        share = {RAW: 1, GRAY: 3}.get(self.can.pixels, 2)
        return image_bytes // share + rows * self.can.row_bytes

    def copies(self, summary: FileSummary, options: SinkOptions) -> bool:
        """Returns whether a file may be copied byte for byte if all its rows are kept unchanged."""
        return False

    def open_part(self, file: Any, shard: Shard, rows: int, options: SinkOptions) -> PartWriter:
        """Starts a part of `rows` rows in a `StagedFile`, or in a `StagedFolder` where every image is a file."""
        return self.writer(file, shard, rows, options, self)

    def complete(self, parts: Sequence[str], files: StagedFiles, shard: Shard, options: SinkOptions) -> None:
        """Writes the files next to one shard, such as its labels or a list of its images.

        Args:
            parts: paths of the shard's parts, in order; where every image is a file, the path of the list of files
                (see `storage.read_listing`).
            files: where to write them.
            shard: the shard.
            options: settings of the writers.
        """
        return

    def folders(self, options: SinkOptions, shards: Sequence[ShardResult]) -> list[str]:
        """Returns folders that are created even if they stay empty."""
        return []

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the contents of the files that complete the dataset, by path."""
        return {}

    def class_words(self, labels: LabelTable) -> Sequence[str]:
        """Returns the name of the folder or file of each class."""
        return labels.names

    def renamed(self, labels: LabelTable, subsets: Iterable[str]) -> dict[str, dict[str, str]]:
        """Returns the names that had to change to be written: "classes" or "subsets" -> written -> original.

        Args:
            labels: label table of the output.
            subsets: subsets of the output, under their original names.
        """
        classes = zip(self.class_words(labels), labels.names, strict=True)
        found = {
            "classes": {word: name for word, name in classes if word != name},
            "subsets": self.subsets.renamed(subsets),
        }
        return {what: changed for what, changed in found.items() if changed}

    def lost_names(self, labels: LabelTable, subsets: Iterable[str], options: ExportOptions) -> Iterator[str]:
        """Yields a notice for each name of a class or subset that readers of the output will not get back.

        Args:
            labels: label table of the output.
            subsets: subsets of the source.
            options: export options of the job.
        """
        for word, name in zip(self.class_words(labels), labels.names, strict=True):
            if is_cut(word):
                yield f"class {name!r} is written as {word!r}: its name is too long; shorten it with --remap"
        if "subsets" in self.can.losses:
            return
        for name in dict.fromkeys(self.subsets.asked(subset, options) for subset in subsets):
            letters = self.subsets.letters(name)
            word = self.subsets.written(name).removesuffix(self.subsets.suffix)
            if letters != name:
                why = (
                    "the name that readers look for"
                    if self.subsets.only
                    else f"in the characters that {self.name} supports"
                )
                yield f"subset {name!r} is written as {letters!r}, {why}"
            elif is_cut(word):
                yield f"subset {name!r} is written as {word!r}: its name is too long; shorten it with map_subsets"

    def notices(self, options: SinkOptions) -> Iterable[str]:
        """Returns notices to show before the job starts, one line each."""
        return ()

    def result_notices(self, options: SinkOptions, shards: Sequence[ShardResult]) -> Iterable[str]:
        """Returns notices about the finished output, one line each."""
        return ()


class FileSink(Sink):
    """Writes each shard as a single file."""

    def join(self, parts: Sequence[str], file: StagedFile, shard: Shard, options: SinkOptions) -> None:
        """Joins the parts of one shard, given by path in order; by default they are concatenated."""
        for path in parts:
            with storage.open_file(path) as part:
                while chunk := part.read(storage.COPY_BYTES):
                    file.write(chunk)
