"""CIFAR-10 and CIFAR-100, binary version (https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version").

A row is a one-byte label, or for CIFAR-100 a byte each for superclass and class; then 3,072 bytes of pixels, the red,
green and blue planes of a 32 x 32 image. Names are in text files next to the batches, one per line.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from beam_cifar import storage
from beam_cifar.data.block import BadRow
from beam_cifar.data.labels import LabelTable, outside_superclasses
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.cifar.facts import known_parents
from beam_cifar.formats.contract.sink import FileSink, PartWriter, SubsetNaming
from beam_cifar.formats.contract.source import Runs
from beam_cifar.formats.contract.types import Catalog, FileSummary, Shard, ShardResult, SinkOptions, SourceFile
from beam_cifar.formats.kit.records import (
    RECORDS,
    FileRecords,
    RecordSource,
    bad_labels,
    check_byte_classes,
    learned_parents,
    names_file,
    read_names,
    read_runs,
    refuse_one_subset,
    written_columns,
)
from beam_cifar.formats.kit.roots import find_root, has_root
from beam_cifar.images.encodings import RAW
from beam_cifar.naming.components import decode_name, encode_name
from beam_cifar.naming.ids import natural_key

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

SUFFIX = ".bin"
NAMES, FINE_NAMES, COARSE_NAMES = "batches.meta.txt", "fine_label_names.txt", "coarse_label_names.txt"
METAS = NAMES, FINE_NAMES, COARSE_NAMES
SIZE = 32, 32
PIXELS = 3 * 32 * 32
READ_ROWS = 1000


class CifarBinarySource(RecordSource):
    """Reads CIFAR-10 and CIFAR-100 from a directory or an archive."""

    name = "cifar_binary"
    reads_tar = True

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether a file of names and a `.bin` file are in the directory or archive, or one folder deeper."""
        return has_root(path, index_dir, METAS) and any(map(_is_batch, _files(path, index_dir)[1]))

    def describe(self, path: str, index_dir: str) -> Catalog:
        root, files = _files(path, index_dir)
        batches = sorted((file for name, file in files.items() if _is_batch(name)), key=lambda f: natural_key(f.name))
        if not batches:
            raise InputError(f"{path}: has class names, but no batch file next to them, such as test_batch{SUFFIX}")
        if NAMES in files and (FINE_NAMES in files or COARSE_NAMES in files):
            raise InputError(
                f"{path}: has both {NAMES!r} (CIFAR-10) and {FINE_NAMES!r} or {COARSE_NAMES!r} (CIFAR-100); move "
                "one dataset to another folder"
            )
        expected = (NAMES,) if NAMES in files else (FINE_NAMES, COARSE_NAMES)
        for name in expected:
            if name not in files:
                raise InputError(f"{path}: has no {name!r}; CIFAR-100 needs {FINE_NAMES!r} and {COARSE_NAMES!r}")
        refuse_one_subset(batches)
        metas = tuple(files[name] for name in expected)
        names, coarse_names = read_names(metas[0]), read_names(metas[1]) if len(metas) == 2 else ()
        if len(metas) == 2 and not coarse_names:
            raise InputError(f"{metas[1].shown}: is empty; expected the superclass names, one per line")
        table = LabelTable(names, coarse_names, known_parents(names, coarse_names))
        title = "CIFAR-100, binary version" if coarse_names else "CIFAR-10, binary version"
        return Catalog(self.name, title, path, table, tuple(batches), metas, root=root)

    def records(self, file: SourceFile, labels: LabelTable) -> FileRecords:
        """Returns everything in a batch except its pixels. Raises `InputError` for a damaged one."""
        import numpy as np

        skip = _label_bytes(labels)
        rows, rest = divmod(file.blob.size, skip + PIXELS)
        if rest:
            kind = "CIFAR-100" if labels.has_superclasses else "CIFAR-10"
            raise InputError(
                f"{file.shown}: has {file.blob.size} bytes, {rest} more than {counted(rows, 'row')}; a {kind} row is "
                f"{skip + PIXELS} bytes of label and pixels"
            )
        found = _read_labels(file, rows, skip)
        numbers = found[:, -1].astype(np.int32)
        bad_rows = bad_labels(file, numbers, len(labels.names))
        parents: dict[int, tuple[int, int]] = {}
        if labels.has_superclasses:
            coarse = found[:, 0].astype(np.int32)
            bad_rows |= _bad_superclasses(file, coarse, numbers, bad_rows, len(labels.coarse_names))
            parents = learned_parents(file, labels, numbers, coarse, bad_rows)
        read = functools.partial(_read_pixels, file.shown, skip)
        return FileRecords(file, 3, numbers, read, SIZE, bad_rows=bad_rows, parents=parents, copyable_as=_kind(labels))


class _BatchWriter(PartWriter):
    """Writes the labels and pixels of each example."""

    def append(self, table: pa.Table) -> None:
        import numpy as np

        pixels, labels = written_columns(table, self)
        classes = self.options.labels
        skip = _label_bytes(classes)
        rows = np.empty((len(labels), skip + PIXELS), dtype=np.uint8)
        rows[:, skip - 1] = labels
        if classes.has_superclasses:
            rows[:, 0] = self._superclasses(classes, labels)
        rows[:, skip:] = np.frombuffer(pixels, dtype=np.uint8).reshape(len(labels), PIXELS)
        self.file.write(rows)

    def _superclasses(self, classes: LabelTable, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        import numpy as np

        parents = np.array([-1 if parent is None else parent for parent in classes.parents], dtype=np.int64)[labels]
        if (parents < 0).any():
            name = classes.names[int(labels[np.argmax(parents < 0)])]
            raise InputError(
                f"{self.shard.path}: class {name!r} has no superclass, but every CIFAR-100 row needs one; select "
                "the other classes with --label"
            )
        return parents


class CifarBinarySink(FileSink):
    """Writes CIFAR-100 where the label table has superclasses, CIFAR-10 otherwise."""

    name = "cifar_binary"
    can = replace(
        RECORDS,
        losses=frozenset({"ids"}),
        pixels=RAW,
        takes_unlabelled=False,
        packs=True,
        part_bytes=128 << 20,
        reserved_paths=frozenset({NAMES, FINE_NAMES, COARSE_NAMES}),
    )
    subsets = SubsetNaming(numbered=True, word=lambda name: encode_name(name, SUFFIX)[: -len(SUFFIX)])
    writer = _BatchWriter

    def check_labels(self, labels: LabelTable) -> None:
        """Refuses more names than a byte can number, and names that are not a line of text."""
        check_byte_classes(labels.names, "class", self)
        check_byte_classes(labels.coarse_names, "superclass", self)

    def check_shard(self, shard: Shard, options: SinkOptions) -> None:
        """Refuses images that are not 32 x 32."""
        if shard.rows and shard.size and shard.size != SIZE:
            raise UsageError(
                f"{shard.path}: images are {shard.size[0]} x {shard.size[1]}, but {self.name} supports only "
                f"{SIZE[0]} x {SIZE[1]}; pass --resize {SIZE[0]}x{SIZE[1]}"
            )

    def shard_path(self, subset: str, number: int, count: int) -> str:
        return encode_name(subset, SUFFIX)

    def estimate_bytes(self, rows: int, image_bytes: int, options: SinkOptions) -> int:
        return image_bytes + rows * _label_bytes(options.labels)

    def copies(self, summary: FileSummary, options: SinkOptions) -> bool:
        return summary.copyable_as == _kind(options.labels)

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the files of names, with an empty line at the end as in the genuine files."""
        labels = options.labels
        names = {FINE_NAMES: labels.names, COARSE_NAMES: labels.coarse_names}
        lists = names if labels.has_superclasses else {NAMES: labels.names}
        return {name: names_file(found) + b"\n" for name, found in lists.items()}

    def result_notices(self, options: SinkOptions, shards: Sequence[ShardResult]) -> Iterator[str]:
        """Yields a notice if superclasses are lost: only rows have them, so a class without rows has none."""
        labels = options.labels
        used = set().union(*(result.labels for result in shards))
        lost = [label for label, parent in enumerate(labels.parents) if parent is not None and label not in used]
        known = known_parents(labels.names, labels.coarse_names)
        if lost and known != labels.parents:
            found = counted(len(lost), "class")
            yield f"superclasses of {found} without rows are lost, such as that of {labels.names[lost[0]]!r}"


def _kind(labels: LabelTable) -> str:
    return "cifar_binary:100" if labels.has_superclasses else "cifar_binary:10"


def _label_bytes(labels: LabelTable) -> int:
    """Returns the number of label bytes before the pixels of each row."""
    return 2 if labels.has_superclasses else 1


def _is_batch(name: str) -> bool:
    return name.endswith(SUFFIX) and not name.startswith(".")


def _files(path: str, index_dir: str) -> tuple[str, dict[str, SourceFile]]:
    """Returns the folder of the dataset, and its files of names and batches by file name."""
    root, found = find_root(path, index_dir, METAS, lambda name: _is_batch(name) or name in METAS)
    return root, {name: replace(file, subset=decode_name(name.removesuffix(SUFFIX))) for name, file in found.items()}


def _read_labels(file: SourceFile, rows: int, skip: int) -> npt.NDArray[np.uint8]:
    """Returns the label bytes of each row: uint8 `[N, 1 or 2]`."""
    import numpy as np

    labels = np.empty((rows, skip), dtype=np.uint8)
    with storage.open_blob(file.blob, file.shown) as stream, storage.reading(file.shown):
        for start in range(0, rows, READ_ROWS):
            stop = min(start + READ_ROWS, rows)
            labels[start:stop] = _read_rows(file.shown, skip, stream, [(start, stop)])[:, :skip]
    return labels


def _read_rows(shown: str, skip: int, stream: BinaryIO, runs: Runs) -> npt.NDArray[np.uint8]:
    """Returns some runs of rows: uint8 `[N, labels and pixels]`."""
    import numpy as np

    data = read_runs(stream, shown, runs, lambda row: row * (skip + PIXELS))
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, skip + PIXELS)


def _read_pixels(shown: str, skip: int, stream: BinaryIO, runs: Runs) -> npt.NDArray[np.uint8]:
    """Returns the pixels of some runs of rows: uint8 `[bytes]`."""
    return _read_rows(shown, skip, stream, runs)[:, skip:].reshape(-1)


def _bad_superclasses(
    file: SourceFile, coarse: npt.NDArray[np.int32], labels: npt.NDArray[np.int32], known: dict[int, BadRow], count: int
) -> dict[int, BadRow]:
    """Returns the rows whose superclass is not in a table of `count`, except those already in `known`."""
    import numpy as np

    return {
        row: file.bad_row(row, outside_superclasses(coarse[row], count), int(labels[row]))
        for row in np.flatnonzero(coarse >= count).tolist()
        if row not in known
    }
