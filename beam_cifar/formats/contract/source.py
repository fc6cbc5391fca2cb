"""The read side of a format: finding files, and reading the rows of each."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias, TypeVar

from beam_cifar.data.block import BadRow
from beam_cifar.data.labels import LabelTable
from beam_cifar.formats.contract.types import DIRECT, Catalog, FileSummary, RowAccess, SourceFile

if TYPE_CHECKING:
    import pyarrow as pa


Runs: TypeAlias = Sequence[tuple[int, int]]
"""Runs of rows, each [start, stop), in ascending order."""


class StoredImage(NamedTuple):
    """Where an image is, and its bytes, as far as they are known.

    Attributes:
        offset: position of its first byte in its file.
        data: its bytes as stored, encoded or not.
        path: path of its file, where every image is a separate file.
    """

    offset: int | None = None
    data: bytes | None = None
    path: str = ""


class RowReader(ABC):
    """The rows of one input file.

    Attributes:
        file: the file that contains them.
        labels: label of every row, -1 for unlabelled.
        bad_rows: rows that cannot be read, by row number.
        unreadable: further rows, whose size was asked for and whose image has no valid header; a copy shares them.
    """

    def __init__(self, file: SourceFile, labels: Sequence[int], bad_rows: Mapping[int, BadRow]) -> None:
        self.file, self.labels, self.bad_rows = file, labels, bad_rows
        self.unreadable: dict[int, BadRow] = {}

    @property
    def rows(self) -> int:
        """Number of rows, bad ones included."""
        return len(self.labels)

    @property
    def access(self) -> RowAccess:
        """What it costs to reach a row; default: any row is read directly."""
        return DIRECT

    @property
    def image_paths(self) -> Iterator[str]:
        """Paths of the image files, where every image is a separate file; in no particular order."""
        return iter(())

    @contextmanager
    def opened(self) -> Iterator[RowReader]:
        """Yields the same rows with the file of their images open; for one thread only. Raises `InputError`."""
        yield self

    @abstractmethod
    def summary(self, *, sizes: bool) -> FileSummary:
        """Returns what the plan needs to know about the file as a whole; reads image headers only for `sizes`."""

    @abstractmethod
    def row_bytes(self, start: int, stop: int, *, decoded: bool) -> int:
        """Returns the bytes of the largest image in rows [start, stop), as it is in a block, or `decoded` to pixels."""

    @abstractmethod
    def facts(self, start: int, stop: int, *, sizes: bool = True) -> pa.Table:
        """Returns rows [start, stop), bad ones included, without images, in `beam_cifar.data.schema.facts_schema`.

        Args:
            start: first row.
            stop: row after the last.
            sizes: whether sizes are needed; if not, they may be null where they would need a look into every image.
                They are null for rows that are `unreadable`, too.
        """

    @abstractmethod
    def examples(self, runs: Runs) -> pa.Table:
        """Returns the examples of ascending runs without bad rows, in `beam_cifar.data.schema.example_schema`."""

    def stored(self, row: int) -> StoredImage:
        """Returns what is known about how a row's image is stored; called for bad rows. Raises `InputError`."""
        return StoredImage()

    def table(self, start: int, stop: int) -> pa.Table:
        """Returns the examples of rows [start, stop), without bad rows."""
        bad = sorted(row for row in self.bad_rows if start <= row < stop)
        good = zip((start, *(row + 1 for row in bad)), (*bad, stop), strict=True)
        return self.examples([run for run in good if run[0] < run[1]])

    def take(self, rows: Sequence[int]) -> pa.Table:
        """Returns the examples of ascending rows, none of them bad; runs of rows cost less than scattered ones."""
        return self.examples(runs_of(rows))


Kept = TypeVar("Kept")


def kept(files: int = 8) -> Callable[[Callable[..., Kept]], functools._lru_cache_wrapper[Kept]]:
    """Returns a decorator that caches a function's results for the last files: several tasks read one large file.

    The key includes the stamp of the file's blob, so a changed file is a new entry. The cache is bounded by the number
    of files: a result must be far smaller than the file's images.
    """

    def decorated(function: Callable[..., Kept]) -> functools._lru_cache_wrapper[Kept]:
        caches.append(functools.lru_cache(maxsize=files)(function))
        return caches[-1]

    return decorated


caches: list[functools._lru_cache_wrapper[Any]] = []
"""All caches of `kept`."""


def forget() -> None:
    """Empties all caches of `kept`.

    Indexes in them are mapped files: on NFS, their folder could not be removed. And the next job would not write them.
    """
    for cache in caches:
        cache.cache_clear()


class Source(ABC):
    """Reads a format; a new one is one module or package in `formats`, and one entry in `FORMATS`.

    Attributes:
        reads_tar: whether it is given the path of a `.tar` or `.tar.gz` itself. Others are given a URL of what is in it
            as a folder, as all are of a `.zip`.
    """

    name: ClassVar[str]
    reads_tar: ClassVar[bool] = False

    @abstractmethod
    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether a path looks like this format.

        Args:
            path: path of the directory or archive, which exists.
            index_dir: directory for archive indexes.

        Raises:
            OSError, InputError: a file that would show it cannot be read. Never False then: another format would take
                the images for its own, with other classes.
        """

    @abstractmethod
    def describe(self, path: str, index_dir: str) -> Catalog:
        """Returns the files and the label table; indexes may go to `index_dir`. Raises `InputError`.

        Files that are looked into here are given `index_dir`, so that it is once a job; see `indexed`.
        """

    def may_lose(self, name: str) -> bool:
        """Returns whether the other files mean the same without a data file of that name, which may be damaged.

        Asked for files that `looks_right` or `describe` refuse, so that a job can set them aside. No class list, and
        no file of labels whose images would be read without it. Default: none is.
        """
        return False

    @abstractmethod
    def read_rows(self, file: SourceFile, labels: LabelTable) -> RowReader:
        """Returns the rows of one file, before any image is read; the result is cached. Raises `InputError`."""

    @contextmanager
    def open_rows(self, file: SourceFile, labels: LabelTable) -> Iterator[RowReader]:
        """Yields the rows of one file, open for reading images. Raises `InputError`."""
        with _kept_rows(type(self), file, labels).opened() as rows:
            yield rows


@kept(4)
def _kept_rows(kind: type[Source], file: SourceFile, labels: LabelTable) -> RowReader:
    return kind().read_rows(file, labels)


def runs_of(rows: Iterable[int]) -> Runs:
    """Returns ascending row numbers as runs (start, stop) without gaps."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and runs[-1][1] == row:
            runs[-1] = runs[-1][0], row + 1
        else:
            runs.append((row, row + 1))
    return runs
