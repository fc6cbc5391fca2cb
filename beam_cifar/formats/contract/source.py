"""The read side of a format: finding files, and reading the rows of one."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar

from beam_cifar.data.block import BadRow
from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.types import Catalog, FileSummary, SourceFile

if TYPE_CHECKING:
    import pyarrow as pa


Runs: TypeAlias = Sequence[tuple[int, int]]
"""Runs of rows, each [start, stop), rising."""


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
        """Everything of the rows [start, stop), bad ones included, but images: `beam_cifar.data.schema.facts_schema`.

        Args:
            start: first row.
            stop: end of the rows.
            sizes: whether sizes are needed; without, they may be null where they take a look into every image.
        """

    @abstractmethod
    def examples(self, runs: Runs) -> pa.Table:
        """The examples of some runs of rows, rising and none of them bad, in the schema of `beam_cifar.data.schema`."""

    def table(self, start: int, stop: int) -> pa.Table:
        """The examples [start, stop) without the bad rows."""
        bad = sorted(row for row in self.bad_rows if start <= row < stop)
        good = zip((start, *(row + 1 for row in bad)), (*bad, stop), strict=True)
        return self.examples([run for run in good if run[0] < run[1]])

    def take(self, rows: Sequence[int]) -> pa.Table:
        """The examples of some rows, rising and none of them bad; runs of rows cost less than as many single ones."""
        return self.examples(runs_of(rows))


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


@kept(4)
def _kept_rows(kind: type[Source], file: SourceFile, labels: LabelTable) -> RowReader:
    return kind().read_rows(file, labels)


def runs_of(rows: Sequence[int]) -> Runs:
    """Rising rows as runs (start, stop) without gaps."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and runs[-1][1] == row:
            runs[-1] = runs[-1][0], row + 1
        else:
            runs.append((row, row + 1))
    return runs
