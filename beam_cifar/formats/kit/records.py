"""Code shared by formats with plain records of label and pixels: MNIST, its CSV form, CIFAR's binary version."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from beam_cifar import storage
from beam_cifar.data.block import BadRow
from beam_cifar.data.labels import UNLABELLED, LabelTable, outside_table
from beam_cifar.data.schema import joined_images, plain_labels
from beam_cifar.data.text import counted, is_unicode
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.sink import Capabilities, PartWriter, Sink
from beam_cifar.formats.contract.source import Runs, Source
from beam_cifar.formats.contract.types import FileSummary, SourceFile, are_too_many
from beam_cifar.formats.kit.rows import ColumnRows, even_sizes, parents_of, picked, raw_images, row_numbers
from beam_cifar.naming.ids import unique_texts

if TYPE_CHECKING:
    from array import array

    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

LABELS_FILE = "labels.txt"
MAX_NAMES_BYTES = 16 << 20
BYTE_CLASSES = 256
"""Number of classes that a byte can distinguish."""

ReadPixels: TypeAlias = "Callable[[BinaryIO, Runs], npt.NDArray[np.uint8]]"
"""Maps an open file and runs of its rows to their pixels, image by image: uint8 `[bytes]`."""


@dataclass(frozen=True, eq=False)
class FileRecords:
    """Everything in one file except its pixels.

    Attributes:
        file: the file.
        channels: channels of every image, 1 or 3.
        labels: int32 `[N]`, -1 for unlabelled.
        read: reads pixels.
        size: (height, width) of every image; None if `sizes` is given.
        sizes: int32 `[N, 2]`, (height, width) of each image, (0, 0) where there is none.
        ids: `[N]`; repeated ones are made unique. None where rows are numbered.
        bad_rows: rows that cannot be read.
        parents: class -> (superclass, row that it was found in).
        copyable_as: see `FileSummary`.
        further_digest: hex digest of other data in the file.
    """

    file: SourceFile
    channels: int
    labels: npt.NDArray[np.int32]
    read: ReadPixels
    size: tuple[int, int] | None
    sizes: npt.NDArray[np.int32] | None = None
    ids: Sequence[str] | pa.Array | None = None
    bad_rows: Mapping[int, BadRow] = field(default_factory=dict)
    parents: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    copyable_as: str = ""
    further_digest: str = ""


class RecordRows(ColumnRows):
    """The rows of one file of records; their sizes are always known."""

    def __init__(self, records: FileRecords) -> None:
        super().__init__(records.file, records.labels.tolist(), records.bad_rows)
        self._records, self._ids = records, None
        if records.ids is not None:
            import pyarrow as pa

            found = records.ids if isinstance(records.ids, pa.Array) else pa.array(records.ids, pa.string())
            self._ids, self.repeated = unique_texts(found)

    def summary(self, *, sizes: bool) -> FileSummary:
        found, shapes = self._records, self._sizes([(0, self.rows)], look=False)
        lengths = shapes.astype("int64").prod(axis=0)
        digest = self._digest() + found.further_digest
        more = {"parents": found.parents, "copyable_as": found.copyable_as}
        return self._summary(int((lengths > 0).sum()), int(lengths.sum()), digest, shapes, **more)

    def _names(self, runs: Runs) -> tuple[pa.Array, pa.Array]:
        import pyarrow as pa
        from pyarrow import compute

        if self._ids is None:
            numbers = pa.array(row_numbers(runs), pa.int64()).cast(pa.string())
            ids = compute.binary_join_element_wise(self.file.id_prefix or f"{self.file.subset}_", numbers, "")
        else:
            ids = picked(self._ids, runs)
        return ids, compute.binary_join_element_wise(ids, ".png", "")

    def _sizes(self, runs: Runs, *, look: bool) -> npt.NDArray[np.int32]:
        import numpy as np

        records = self._records
        if records.sizes is None:
            return even_sizes(records.size or (0, 0), records.channels, runs)
        sides = np.concatenate([records.sizes[:0], *(records.sizes[start:stop] for start, stop in runs)]).T
        return np.stack([*sides, np.where(sides[0] > 0, np.int32(records.channels), np.int32(0))])

    def _read(self, runs: Runs) -> tuple[pa.Array, str, npt.NDArray[np.int32]]:
        sizes = self._sizes(runs, look=False)
        with storage.reading(self.file.shown):
            pixels = self._records.read(self._stream(), runs).data
        return raw_images(pixels, sizes), "raw", sizes

    def _digest(self) -> str:
        records = self._records
        found = hashlib.sha256(repr((records.channels, records.size, sorted(records.parents.items()))).encode())
        found.update(records.labels.tobytes())
        if records.sizes is not None:
            found.update(records.sizes.tobytes())
        if self._ids is not None:
            found.update("\0".join(self._ids.to_pylist()).encode())
        return found.hexdigest()


class RecordSource(Source):
    """Reads files of records."""

    @abstractmethod
    def records(self, file: SourceFile, labels: LabelTable) -> FileRecords:
        """Returns everything in one file except its pixels. Raises `InputError`."""

    def read_rows(self, file: SourceFile, labels: LabelTable) -> RecordRows:
        return RecordRows(self.records(file, labels))


def bad_labels(
    file: SourceFile, labels: npt.NDArray[Any], count: int, *, first: int = 0, known: str = ""
) -> dict[int, BadRow]:
    """Returns the rows whose label is not in the table; unlabelled rows are fine.

    Args:
        file: the file, for messages.
        labels: `[N]`, as found; -1 is unlabelled.
        count: number of classes.
        first: number of the first class.
        known: the valid labels, for messages.

    Raises:
        InputError: too many rows are bad.
    """
    import numpy as np

    outside = np.flatnonzero(((labels < first) | (labels >= first + count)) & (labels != UNLABELLED))
    refused = are_too_many(len(outside), len(labels))
    rows = outside[:1] if refused else outside
    bad = {row: file.bad_row(row, outside_table(labels[row], count, known)) for row in rows.tolist()}
    if refused:
        raise InputError(f"{next(iter(bad.values()))} (and {len(outside) - 1} more bad rows)")
    return bad


def checked_labels(
    file: SourceFile, values: array[int], classes: int, *, first: int = 0
) -> tuple[npt.NDArray[np.int32], dict[int, BadRow]]:
    """Converts labels to indices of the label table, and finds the rows outside it, as `bad_labels` does.

    Returns:
        int32 `[N]`, -1 for unlabelled and bad rows; and the bad rows.
    """
    import numpy as np

    found = np.frombuffer(values, np.int64)
    known = f"{first} to {first + classes - 1}" if classes else "no classes"
    bad = bad_labels(file, found, classes, first=first, known=known)
    labels = np.where(found == UNLABELLED, UNLABELLED, found - first)
    labels[list(bad)] = UNLABELLED
    return labels.astype(np.int32), bad


def numbered_names(largest: int) -> tuple[str, ...]:
    """Returns names for classes without names: "0" to "9", and more up to the largest label."""
    return tuple(map(str, range(max(10, largest + 1))))


def read_names(file: SourceFile) -> tuple[str, ...]:
    """Reads names, one per line; empty lines at the end are ignored. Raises `InputError`."""
    if file.blob.size > MAX_NAMES_BYTES:
        raise InputError(f"{file.shown}: is {file.blob.size} bytes; at most {MAX_NAMES_BYTES} are supported")
    with storage.open_blob(file.blob, file.shown) as stream:
        try:
            text = stream.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{file.shown}: is not UTF-8 text with one name per line: {error}") from error
    names = tuple(line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")) if text.strip("\r\n") else ()
    for number, name in enumerate(names, 1):
        if not name.strip() or "\0" in name:
            raise InputError(f"{file.shown}: line {number}: found {name!r}; expected one name per line")
    return names


def refuse_one_subset(files: Sequence[SourceFile]) -> None:
    """Raises `InputError` for two files of one subset: their rows are numbered, so ids would repeat."""
    met: dict[str, str] = {}
    for file in files:
        if met.setdefault(file.subset, file.name) != file.name:
            raise InputError(f"{file.shown}: subset {file.subset!r} is also in {met[file.subset]!r}; move one of them")


def read_exactly(stream: BinaryIO, size: int, shown: str) -> bytes:
    """Reads exactly `size` bytes; raises `InputError` if the file ends early."""
    data = stream.read(size)
    if len(data) != size:
        raise InputError(f"{shown}: is {counted(size - len(data), 'byte')} too short; the file is damaged")
    return data


def read_runs(stream: BinaryIO, shown: str, runs: Runs, place: Callable[[int], int], first: int = 0) -> bytes:
    """Reads some runs of rows, and returns their bytes concatenated.

    Args:
        stream: the open file.
        shown: display name used in messages.
        runs: runs of rows.
        place: returns the offset of a row from the first one.
        first: offset of the first row.
    """
    pieces = []
    for start, stop in runs:
        stream.seek(first + place(start))
        pieces.append(read_exactly(stream, place(stop) - place(start), shown))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def names_file(names: Sequence[str]) -> bytes:
    """Returns the contents of a file with one name per line."""
    return "".join(f"{name}\n" for name in names).encode()


def check_names(names: Sequence[str], what: str) -> None:
    """Refuses names that cannot be a line of text: readers support no escapes.

    Args:
        names: names of classes or superclasses.
        what: the kind of names, such as "class".

    Raises:
        UsageError: a name is blank, has a line break, NUL or byte order mark, or is not valid Unicode.
    """
    for name in names:
        if not name.strip() or set("\r\n\0") & set(name) or name.startswith("\ufeff") or not is_unicode(name):
            raise UsageError(f"{what} {name!r} cannot be written as a line of text; rename it with --remap OLD:NEW")


def check_byte_classes(names: Sequence[str], what: str, sink: Sink) -> None:
    """Raises `UsageError` for more names than a byte can number, and for names that `check_names` refuses."""
    if len(names) > BYTE_CLASSES:
        raise UsageError(f"{len(names)} {what}es: {sink.name} supports at most {BYTE_CLASSES}, as a label is one byte")
    check_names(names, what)


RECORDS = Capabilities(keeps_empty_subsets=True, takes_missing_images=False, one_size=True)
"""Capabilities of formats whose files are labels and pixels of one size."""


def written_columns(table: pa.Table, writer: PartWriter) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """Returns the concatenated pixels of all examples, and their labels, int64 `[N]`.

    Raises:
        InputError: an example has no image, or has no label where the format needs one.
    """
    lacks = {"image": False, "label": writer.sink.can.takes_unlabelled}
    for name, allowed in lacks.items():
        column = table.column(name)
        if column.null_count and not allowed:
            row = column.is_null().to_pylist().index(True)
            found = table.column("id")[row].as_py()
            where = f"{writer.shard.subset}: item {found!r}"
            raise InputError(f"{where} has no {name}, but {writer.sink.name} needs one for every row")
    return joined_images(table), plain_labels(table)


def learned_parents(
    file: SourceFile,
    table: LabelTable,
    labels: npt.NDArray[np.int32],
    coarse: npt.NDArray[np.int32],
    bad_rows: Collection[int],
) -> dict[int, tuple[int, int]]:
    """Returns class -> (superclass, first row that it was found in).

    Args:
        file: the file, for messages.
        table: the label table.
        labels: labels of all rows, int32 `[N]`.
        coarse: superclasses of all rows, int32 `[N]`.
        bad_rows: numbers of rows to ignore.

    Raises:
        InputError: two rows give one class two superclasses.
    """
    import numpy as np

    rows = np.delete(np.arange(len(labels)), list(bad_rows))
    pairs = labels[rows].astype(np.int64) << 32 | coarse[rows]
    firsts = sorted(rows[np.unique(pairs, return_index=True)[1]].tolist())
    return parents_of(file, table, ((int(labels[row]), int(coarse[row]), row) for row in firsts))


def part_range(path: str, offset: int, size: int) -> Iterator[bytes]:
    """Yields a range of bytes of a part in chunks. Raises `InputError` if the part is shorter."""
    with storage.open_file(path) as file:
        file.seek(offset)
        while size:
            chunk = file.read(min(size, storage.COPY_BYTES))
            if not chunk:
                raise InputError(f"{path}: part is shorter than planned; run the job again")
            size -= len(chunk)
            yield chunk
