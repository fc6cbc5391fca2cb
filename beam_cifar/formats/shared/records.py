"""What formats share whose files are plain records, label and pixels: MNIST, its CSV form, CIFAR's binary version."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from beam_cifar import storage
from beam_cifar.block import BadRow
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.base import (
    MAX_TOLD,
    Capabilities,
    FileSummary,
    PartWriter,
    RowReader,
    Sink,
    SourceFile,
    runs_of,
)
from beam_cifar.labels import UNLABELLED, LabelTable, parent_conflict

if TYPE_CHECKING:
    from array import array

    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

LABELS_FILE = "labels.txt"
MAX_NAMES_BYTES = 16 << 20
BYTE_CLASSES = 256
"""Classes that a byte can tell apart."""

ReadPixels: TypeAlias = "Callable[[Sequence[tuple[int, int]]], npt.NDArray[np.uint8]]"
"""From runs of rows to their pixels, one image after the other: uint8 `[bytes]`."""


@dataclass(frozen=True, eq=False)
class Records:
    """Everything of one file but its pixels.

    Attributes:
        file: which one.
        channels: of every image, 1 or 3.
        labels: int32 `[N]`, -1 for unlabelled.
        size: (height, width) of every image; None where `sizes` tells.
        sizes: int32 `[N, 2]`, (height, width) of each image, (0, 0) where there is none.
        ids: string `[N]`; None where rows are numbered.
        duplicates: rows whose id had to be made unique.
        bad_rows: rows that cannot be kept.
        parents: class -> (superclass, row that says so).
        copyable_as: see `FileSummary`.
        further_digest: of what else the file says, hex.
    """

    file: SourceFile
    channels: int
    labels: npt.NDArray[np.int32]
    size: tuple[int, int] | None
    sizes: npt.NDArray[np.int32] | None = None
    ids: pa.Array | None = None
    duplicates: int = 0
    bad_rows: Mapping[int, BadRow] = field(default_factory=dict)
    parents: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    copyable_as: str = ""
    further_digest: str = ""

    @cached_property
    def label_list(self) -> list[int]:
        """The labels as plain numbers."""
        found: list[int] = self.labels.tolist()
        return found

    @cached_property
    def image_sizes(self) -> npt.NDArray[np.int32]:
        """(height, width) of each image: int32 `[N, 2]`."""
        import numpy as np

        if self.sizes is not None:
            return self.sizes
        return np.broadcast_to(np.array(self.size, dtype=np.int32), (len(self.labels), 2))

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """Where the pixels of each row end, with a 0 in front, were all of them in one piece: int64 `[N + 1]`."""
        import numpy as np

        sizes = self.image_sizes.astype(np.int64)
        return np.concatenate([[0], np.cumsum(sizes[:, 0] * sizes[:, 1] * self.channels)]).astype(np.int64)

    def facts(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        """What is known of some rows; see `RowReader.facts`."""
        import numpy as np
        import pyarrow as pa
        from pyarrow import compute

        from beam_cifar.example import facts_table, with_columns

        numbers = pa.array(rows, pa.int64())
        if self.ids is None:
            ids = compute.binary_join_element_wise(f"{self.file.subset}_", numbers.cast(pa.string()), "")
        else:
            ids = self.ids.take(numbers)
        made = facts_table(
            ids=ids,
            subset=self.file.subset,
            sizes=self.size or [tuple(size) if size[0] else None for size in self.image_sizes[rows].tolist()],
            labels=self.labels[rows].astype(np.int64),
            filenames=compute.binary_join_element_wise(ids, ".png", ""),
        )
        if self.size is not None:
            return with_columns(made, channels=self.channels)
        depths = compute.if_else(made.column("height").is_valid(), self.channels, None).cast(pa.int32())
        return with_columns(made, channels=depths)

    def summary(self) -> FileSummary:
        """What the plan needs to know of the file, single rows left out."""
        rows = len(self.labels)
        nbytes = int(self.ends[-1]) if self.size is None else rows * self.channels * self.size[0] * self.size[1]
        images = rows if self.sizes is None else int((self.sizes[:, 0] > 0).sum())
        return FileSummary(
            file=self.file,
            rows=rows,
            chunks=(),
            images=images,
            image_bytes=nbytes,
            pixel_bytes=nbytes // self.channels * 3,
            size=self._common_size() if rows else None,
            parents=self.parents,
            duplicates=self.duplicates,
            copyable_as=self.copyable_as,
            digest=self._digest() + self.further_digest,
        )

    def _common_size(self) -> tuple[int, int] | None:
        if self.sizes is None or (self.sizes[0, 0] and (self.sizes == self.sizes[0]).all()):
            return int(self.image_sizes[0, 0]), int(self.image_sizes[0, 1])
        return None

    def _digest(self) -> str:
        found = hashlib.sha256(repr((self.channels, self.size, sorted(self.parents.items()))).encode())
        found.update(self.labels.tobytes())
        if self.sizes is not None:
            found.update(self.sizes.tobytes())
        if self.ids is not None:
            found.update("\0".join(self.ids.to_pylist()).encode())
        return found.hexdigest()


class RecordRows(RowReader):
    """The rows of one open file.

    Args:
        records: everything but the pixels.
        read: reads those.
    """

    def __init__(self, records: Records, read: ReadPixels) -> None:
        self._records, self._read = records, read

    def summary(self, *, sizes: bool) -> FileSummary:
        """See `RowReader.summary`; sizes are always known."""
        return self._records.summary()

    @property
    def rows(self) -> int:
        """See `RowReader.rows`."""
        return len(self._records.labels)

    @property
    def labels(self) -> Sequence[int]:
        """See `RowReader.labels`."""
        return self._records.label_list

    @property
    def bad_rows(self) -> Mapping[int, BadRow]:
        """See `RowReader.bad_rows`."""
        return self._records.bad_rows

    def row_bytes(self, start: int, stop: int, *, decoded: bool) -> int:
        """See `RowReader.row_bytes`."""
        channels = 3 if decoded else self._records.channels
        if self._records.size is not None:
            return channels * self._records.size[0] * self._records.size[1]
        sizes = self._records.image_sizes[start:stop].astype("int64")
        return channels * int((sizes[:, 0] * sizes[:, 1]).max(initial=0))

    def facts(self, start: int, stop: int, *, sizes: bool = True) -> pa.Table:
        """See `RowReader.facts`."""
        import numpy as np

        return self._records.facts(np.arange(start, stop))

    def table(self, start: int, stop: int) -> pa.Table:
        """See `RowReader.table`."""
        import pyarrow as pa

        made = self._examples([(start, stop)])
        if not any(row in self.bad_rows for row in range(start, stop)):
            return made
        return made.filter(pa.array([row not in self.bad_rows for row in range(start, stop)]))

    def take(self, rows: Sequence[int]) -> pa.Table:
        """See `RowReader.take`; one row costs little more than one of many."""
        return self._examples(runs_of(rows))

    def _examples(self, runs: Sequence[tuple[int, int]]) -> pa.Table:
        import numpy as np

        from beam_cifar import example

        rows = np.concatenate([np.empty(0, np.int64), *(np.arange(start, stop) for start, stop in runs)])
        with storage.reading(self._records.file.shown):
            pixels = self._read(runs).data
        if self._records.size is not None:
            step = self.row_bytes(0, 0, decoded=False)
            images = example.binary_array(pixels, np.arange(len(rows) + 1, dtype=np.int32) * np.int32(step))
        else:
            lengths = np.diff(self._records.ends)[rows].tolist()
            images = example.image_array(pixels, [length or None for length in lengths])
        return example.with_images(self._records.facts(rows), images, "raw")


def checked_labels(
    file: SourceFile, values: array[int], classes: int, *, first: int = 0
) -> tuple[npt.NDArray[np.int32], dict[int, BadRow]]:
    """Labels as indices of the label table, and the rows whose label is outside it.

    Args:
        file: for messages.
        values: as found; -1 is unlabelled.
        classes: how many there are.
        first: the number of the first class.

    Returns:
        int32 `[N]`, -1 for unlabelled and bad rows; and the bad rows.

    Raises:
        InputError: more than `MAX_TOLD` rows are bad.
    """
    import numpy as np

    found = np.frombuffer(values, np.int64)
    outside = ((found < first) | (found >= first + classes)) & (found != UNLABELLED)
    known = f"{first} to {first + classes - 1}" if classes else "no classes"
    bad = {}
    for row in np.flatnonzero(outside)[: MAX_TOLD + 1].tolist():
        error = f"label {values[row]} is outside the label table, which has {known}"
        bad[row] = BadRow(file.shown, row, file.subset, "read", error)
    if len(bad) > MAX_TOLD:
        raise InputError(f"{next(iter(bad.values()))} (and {int(outside.sum()) - 1} more bad rows)")
    return np.where(outside | (found == UNLABELLED), UNLABELLED, found - first).astype(np.int32), bad


def bad_labels(file: SourceFile, labels: npt.NDArray[np.int32], count: int) -> dict[int, BadRow]:
    """The rows whose label is not in a table of `count` classes; unlabelled ones are none of them."""
    import numpy as np

    outside = np.flatnonzero((labels >= count) | (labels < UNLABELLED))
    found = zip(outside.tolist(), labels[outside].tolist(), strict=True)
    what = f"is outside the label table, which has {count} classes (0 to {count - 1})"
    if len(outside) > MAX_TOLD:
        raise InputError(
            f"{file.shown}: row {outside[0]}: label {labels[outside[0]]} {what} (and {len(outside) - 1} more bad rows)"
        )
    return {row: BadRow(file.shown, row, file.subset, "read", f"label {label} {what}") for row, label in found}


def numbered_names(largest: int) -> tuple[str, ...]:
    """Names of classes that have none: "0" to "9", and further ones up to the largest label."""
    return tuple(map(str, range(max(10, largest + 1))))


def read_names(file: SourceFile) -> tuple[str, ...]:
    """Reads names, one a line; empty lines may follow the last.

    Raises:
        InputError: not such a file.
    """
    if file.blob.size > MAX_NAMES_BYTES:
        raise InputError(f"{file.shown}: {file.blob.size} bytes is too large for a list of names")
    with storage.open_blob(file.blob, file.shown) as stream:
        try:
            text = stream.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{file.shown}: is not UTF-8 text, one name a line: {error}") from error
    names = tuple(line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")) if text.strip("\r\n") else ()
    for number, name in enumerate(names, 1):
        if not name.strip() or "\0" in name:
            raise InputError(f"{file.shown}: line {number} is {name!r}; expected a name on every line")
    return names


def own_file(folder: str, name: str) -> SourceFile | None:
    """A file that describes others, if it is there."""
    path = os.path.join(folder, name)
    return SourceFile(name, "", path, storage.whole_file(path)) if storage.is_file(path) else None


def refuse_one_subset(files: Sequence[SourceFile]) -> None:
    """Refuses files that would be one subset, in which rows are numbered. Raises `InputError`."""
    met: dict[str, str] = {}
    for file in files:
        if met.setdefault(file.subset, file.name) != file.name:
            raise InputError(f"{file.shown}: is subset {file.subset!r}, as {met[file.subset]!r} is; move one of them")


def read_exactly(stream: BinaryIO, size: int, shown: str) -> bytes:
    """Reads some bytes; raises `InputError` if the file ends before."""
    data = stream.read(size)
    if len(data) != size:
        raise InputError(f"{shown}: ended {size - len(data)} bytes too early")
    return data


def names_file(names: Sequence[str]) -> bytes:
    """Names, one a line."""
    return "".join(f"{name}\n" for name in names).encode()


def check_names(names: Sequence[str], what: str) -> None:
    """Refuses names that cannot be a line of text: no escape for them is known to any reader.

    Args:
        names: of the classes, or superclasses.
        what: they are, such as "class".

    Raises:
        UsageError: a blank name, or one with a line break, a NUL or a byte order mark, or that is not Unicode.
    """
    for name in names:
        if not name.strip() or set("\r\n\0") & set(name) or name.startswith("\ufeff") or not _is_unicode(name):
            raise UsageError(f"{what} {name!r} cannot be a line of a list of names; rename it by --remap OLD:NEW")


def check_byte_classes(names: Sequence[str], what: str, sink: Sink) -> None:
    """Refuses more names than a byte can tell apart, and those that `check_names` does. Raises `UsageError`."""
    if len(names) > BYTE_CLASSES:
        raise UsageError(f"{len(names)} {what}es: {sink.name} has one byte for a label, and so {BYTE_CLASSES} at most")
    check_names(names, what)


RECORDS = Capabilities(keeps_empty_subsets=True, takes_missing_images=False, one_size=True)
"""What formats can whose files are pixels of one size, and labels."""


def written_columns(table: pa.Table, writer: PartWriter) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """The pixels of all examples in one piece, and their labels, int64 `[N]`.

    Raises:
        InputError: an example without image, or without label where the format has one for each.
    """
    from beam_cifar.example import joined_images, plain_labels

    lacks = {"image": False, "label": writer.sink.can.takes_unlabelled}
    for name, allowed in lacks.items():
        column = table.column(name)
        if column.null_count and not allowed:
            row = column.is_null().to_pylist().index(True)
            found = table.column("id")[row].as_py()
            where = f"{writer.shard.subset}: item {found!r}"
            raise InputError(f"{where} has no {name}, and {writer.sink.name} has one for every row")
    return joined_images(table), plain_labels(table)


def learned_parents(
    file: SourceFile,
    table: LabelTable,
    rows: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int32],
    coarse: npt.NDArray[np.int32],
) -> dict[int, tuple[int, int]]:
    """Class -> (superclass, first row that says so).

    Args:
        file: which one.
        table: the label table.
        rows: numbers of the rows that are not bad, int64 `[M]`.
        labels: of all rows, int32 `[N]`.
        coarse: superclasses of all rows, int32 `[N]`.

    Raises:
        InputError: two rows give one class two superclasses.
    """
    import numpy as np

    pairs = labels[rows].astype(np.int64) << 32 | coarse[rows]
    parents: dict[int, tuple[int, int]] = {}
    for row in sorted(rows[np.unique(pairs, return_index=True)[1]].tolist()):
        label, parent = int(labels[row]), int(coarse[row])
        if label in parents:
            said, first = parents[label]
            where = f"{file.shown} row {first}", f"{file.shown} row {row}"
            raise parent_conflict(table, label, (where[0], said), (where[1], parent))
        parents[label] = parent, row
    return parents


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
