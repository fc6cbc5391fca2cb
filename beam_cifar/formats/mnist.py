"""MNIST's own format: a file of images and one of labels for each subset (http://yann.lecun.com/exdb/mnist/).

Both are IDX files: a magic number and the size of each dimension, big-endian, then bytes. torchvision and Datumaro read
them; Datumaro 1.13 also writes them, with a quirk (`plugins/data_formats/mnist.py`), see `_image_sizes`. QMNIST's
labels (https://github.com/facebookresearch/qmnist) are rows of eight 32-bit numbers, the class first; EMNIST
(https://www.nist.gov/itl/products-and-services/emnist-dataset) stores images transposed, and numbers letters from 1.
"""

from __future__ import annotations

import functools
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.limits import ISAL_LEVEL, MAX_PIXELS, MAX_SIDE
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.sink import FileSink, PartWriter, SubsetNaming
from beam_cifar.formats.contract.source import Runs
from beam_cifar.formats.contract.types import Catalog, Shard, ShardResult, SinkOptions, SourceFile
from beam_cifar.formats.kit.npy import MAX_CLASSES, refuse_many_rows
from beam_cifar.formats.kit.records import (
    LABELS_FILE,
    RECORDS,
    FileRecords,
    RecordSource,
    bad_labels,
    check_byte_classes,
    names_file,
    numbered_names,
    part_range,
    read_exactly,
    read_names,
    read_runs,
    refuse_one_subset,
    written_columns,
)
from beam_cifar.formats.kit.roots import has_own_file, own_file, sorted_files
from beam_cifar.images.encodings import GRAY
from beam_cifar.naming.components import decode_name, encode_name
from beam_cifar.naming.ids import natural_key
from beam_cifar.storage import archives

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

IMAGES_MAGIC, LABELS_MAGIC, TABLE_MAGIC = 2051, 2049, 3074
"""Bytes in three dimensions, bytes in one, and 32-bit integers in two."""
IMAGES_HEADER, LABELS_HEADER, TABLE_HEADER = struct.Struct(">IIII"), struct.Struct(">II"), struct.Struct(">III")
IMAGES_NAME, LABELS_NAME, META_NAME = "-images-idx3-ubyte.gz", "-labels-idx1-ubyte.gz", "-meta.gz"
GENUINE_SIZE = 28, 28
TEST = "t10k"
"""Name of the subset "test" in file names."""
NO_LABEL = 255
"""Datumaro's label for an unlabelled row."""
META_TEXT = 32
"""Characters of each text in a meta file, each of four bytes."""

MAX_FOLDERS = 16
"""Maximum number of folders searched below the given one: listing many is slow where they have images."""
_KINDS = {IMAGES_MAGIC: "images", LABELS_MAGIC: "labels", TABLE_MAGIC: "labels"}
_FILE = re.compile(r"(.+)-(?:(images)[-.]idx3-ubyte|(labels)[-.](?:idx1-ubyte|idx2-int))(?:\.gz)?", re.DOTALL)
_LOOSE = re.compile(r"(.+)[-_.](?:(images)|(labels))(?:[-_.](?:idx\d?|ubyte|int|bin|gz))*", re.DOTALL)
"""Other names, of files that are only read if they start with the magic number."""
_EMNIST = re.compile(r"(emnist-[^-]+)-.+", re.IGNORECASE | re.DOTALL)


class MnistSource(RecordSource):
    """Reads pairs of IDX files, gzip-compressed or not."""

    name = "mnist"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether the directory has images or labels of a subset; `describe` reports missing files."""
        return storage.is_folder(path) and bool(_roots(path))

    def may_lose(self, name: str) -> bool:
        """Returns whether it is a file of images or labels: one without the other is refused, so both are lost."""
        return bool(_FILE.fullmatch(name))

    def describe(self, path: str, index_dir: str) -> Catalog:
        if not storage.is_folder(path):
            raise InputError(f"{path}: is not a directory; expected one with files such as train{IMAGES_NAME}")
        with storage.reading(path):
            roots = _roots(path)
            if not roots:
                raise InputError(f"{path}: no files such as train{IMAGES_NAME} and train{LABELS_NAME} found")
            if len(roots) > 1:
                raise InputError(f"{path}: contains several datasets ({', '.join(roots)}); pass the path of one")
            root, pairs = next(iter(roots.items()))
            subsets = {stem: decode_name(stem) if stem != TEST else "test" for stem in sorted(pairs, key=natural_key)}
            files = tuple(_source_file(root, stem, subsets[stem], pairs[stem], index_dir) for stem in subsets)
            refuse_one_subset(files)
        names = own_file(root, LABELS_FILE)
        tables = [file for file in files if _labels_magic(file) == TABLE_MAGIC]
        table = LabelTable(numbered_names(_largest_label(files)) if names is None else read_names(names))
        notices = (*_emnist_notices(root, subsets), *map(_table_notice, tables))
        metas = () if names is None else (names,)
        unread = "further columns of labels" if tables else ""
        return Catalog(self.name, "MNIST", path, table, files, metas, notices, unread, root)

    def records(self, file: SourceFile, labels: LabelTable) -> FileRecords:
        import numpy as np

        numbers = _read_labels(file).astype(np.int32)
        if len(labels.names) <= NO_LABEL and _labels_magic(file) == LABELS_MAGIC:
            numbers[numbers == NO_LABEL] = UNLABELLED
        names, listed = _read_meta(file, len(numbers))
        size, sizes = _image_sizes(file, len(numbers), listed)
        ends = None if sizes is None else np.concatenate([[0], np.cumsum(sizes.prod(axis=1, dtype=np.int64))])
        read = functools.partial(_read_pixels, file.shown, size, ends)
        return FileRecords(file, 1, numbers, read, size, sizes, names, bad_labels(file, numbers, len(labels.names)))


class _PartWriter(PartWriter):
    """Writes pixels as they arrive, and all labels at the end."""

    def __post_init__(self) -> None:
        self._labels = bytearray()

    def append(self, table: pa.Table) -> None:
        pixels, labels = written_columns(table, self)
        self.file.write(pixels)
        self._labels += labels.astype("uint8").tobytes()

    def close(self) -> None:
        self.file.write(self._labels)


class MnistSink(FileSink):
    """Writes pairs of gzip-compressed IDX files."""

    name = "mnist"
    can = replace(
        RECORDS,
        losses=frozenset({"colour", "ids", "superclasses"}),
        pixels=GRAY,
        takes_unlabelled=False,
        part_bytes=64 << 20,
        always_joined=True,
        keeps_files=False,
        reserved_paths=frozenset({LABELS_FILE}),
    )
    subsets = SubsetNaming(
        by_split=True,
        # A subset named `t10k` would be read back as "test", so it becomes "test" when written.
        letters=lambda name: "test" if name == TEST else name,
        word=lambda name: encode_name(name, IMAGES_NAME)[: -len(IMAGES_NAME)],
    )
    writer = _PartWriter

    def check_labels(self, labels: LabelTable) -> None:
        """Checks that labels fit in a byte and names in a line."""
        check_byte_classes(labels.names, "class", self)

    def shard_path(self, subset: str, number: int, count: int) -> str:
        return _file_name(subset, IMAGES_NAME)

    def join(self, parts: Sequence[str], file: storage.StagedFile, shard: Shard, options: SinkOptions) -> None:
        """Compresses the pixels of all parts as one gzip member without name or time."""
        size = _size(shard)
        with _gzip(file) as write:
            write(IMAGES_HEADER.pack(IMAGES_MAGIC, shard.rows, *size))
            for number, part in enumerate(parts):
                for chunk in part_range(part, 0, shard.rows_of(number) * size[0] * size[1]):
                    write(chunk)

    def complete(self, parts: Sequence[str], files: storage.StagedFiles, shard: Shard, options: SinkOptions) -> None:
        """Writes the labels, and if images are not 28 x 28 their sizes, which Datumaro needs."""
        size = _size(shard)
        with files.open(_file_name(shard.subset, LABELS_NAME)) as file, _gzip(file) as write:
            write(LABELS_HEADER.pack(LABELS_MAGIC, shard.rows))
            for number, part in enumerate(parts):
                rows = shard.rows_of(number)
                for chunk in part_range(part, rows * size[0] * size[1], rows):
                    write(chunk)
        if size == GENUINE_SIZE:
            return
        row = b"".join(str(side).ljust(META_TEXT, "\0").encode("utf-32-le") for side in size)
        with files.open(encode_name(shard.subset, META_NAME)) as file, _gzip(file) as write:
            for start in range(0, shard.rows, 1000):
                write(row * min(1000, shard.rows - start))

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the class names, which Datumaro looks for."""
        return {LABELS_FILE: names_file(options.labels.names)}

    def result_notices(self, options: SinkOptions, shards: Sequence[ShardResult]) -> Iterator[str]:
        """Yields notices about what Datumaro reads differently."""
        for result in shards:
            if "-" in result.shard.subset:
                yield f"{result.shard.path}: Datumaro does not find subsets with '-' in their names; other readers do"
            if NO_LABEL in result.labels:
                yield f"{result.shard.path}: Datumaro reads class {NO_LABEL} as unlabelled; other readers do not"


@contextmanager
def _gzip(file: storage.StagedFile) -> Iterator[Any]:
    """Yields a function that compresses bytes into a file; the output does not depend on the chunks passed in."""
    from isal import isal_zlib

    packer = isal_zlib.compressobj(ISAL_LEVEL, isal_zlib.DEFLATED, 16 + 15)  # 16: a gzip header, without a time
    waiting = bytearray()

    def write(data: bytes) -> None:
        waiting.extend(data)
        while len(waiting) >= storage.COPY_BYTES:  # ISA-L's output depends on how the input is cut
            file.write(packer.compress(waiting[: storage.COPY_BYTES]))
            del waiting[: storage.COPY_BYTES]

    yield write
    file.write(packer.compress(waiting) + packer.flush())


def _size(shard: Shard) -> tuple[int, int]:
    """Returns the (height, width) of all images; 28 x 28, which Datumaro expects, if there are none."""
    return shard.size if shard.rows and shard.size else GENUINE_SIZE


def _file_name(subset: str, ending: str) -> str:
    return encode_name(TEST if subset == "test" else subset, ending)


_Pairs: TypeAlias = "dict[str, dict[str, storage.Entry]]"
"""File name prefix -> "images" or "labels" -> file."""


def _roots(path: str) -> dict[str, _Pairs]:
    """Returns the folders with files of subsets: the directory itself, else those one folder down, else two.

    Further down, a file must also have the magic number: folders of classes may have any names.
    """
    if pairs := _pairs(path):
        return {path: pairs}
    folders, examined = [path], 0
    for _ in range(2):
        folders = sorted(inner for folder in folders for inner in storage.folders_in(folder))
        examined += len(folders)
        if examined > MAX_FOLDERS:
            break
        found = {folder: pairs for folder in folders if (pairs := _pairs(folder)) and _has_magic(pairs)}
        if found:
            return found
    return {}


def _has_magic(pairs: _Pairs) -> bool:
    return any(_KINDS.get(_magic(entry.path)) == kind for found in pairs.values() for kind, entry in found.items())


def _pairs(path: str) -> _Pairs:
    """Returns the files of each subset; of a file in several forms the usual name, then the uncompressed file."""
    found: _Pairs = {}
    inner = [file for folder in storage.folders_in(path) for file in _wrapped(folder)]
    unpacked = {entry.name for entry in inner}
    entries = sorted_files(path, lambda name: _FILE.fullmatch(name) is not None and name not in unpacked)
    for entry in (*sorted(entries, key=lambda entry: (entry.name.endswith(".gz"), entry.name)), *inner):
        if match := _FILE.fullmatch(entry.name):
            found.setdefault(match[1], {}).setdefault(match[2] or match[3], entry)
    others = storage.list_folder(path, lambda name: bool(_LOOSE.fullmatch(name)) and not _FILE.fullmatch(name))
    for entry in sorted(others, key=lambda entry: (entry.name.endswith(".gz"), entry.name)):
        if not entry.is_folder and (match := _LOOSE.fullmatch(entry.name)):
            kind = match[2] or match[3]
            if kind not in found.get(match[1], {}) and _KINDS.get(_magic(entry.path)) == kind:
                found.setdefault(match[1], {})[kind] = entry
    return found


def _wrapped(folder: str) -> list[storage.Entry]:
    """Returns the file in a folder of the same name: Kaggle unpacks each compressed file of MNIST to such a folder."""
    name = storage.name_of(folder)
    if not (_FILE.fullmatch(name) or _LOOSE.fullmatch(name)) or not storage.is_file(os.path.join(folder, name)):
        return []
    return [entry for entry in storage.list_folder(folder, lambda found: found == name) if _magic(entry.path) in _KINDS]


def _magic(path: str) -> int:
    """Returns the first four bytes of a file as a number, after unpacking if it is gzip; 0 if there are none."""
    with storage.reading(path), storage.open_file(path) as file:
        data = file.read(1024)
    if data.startswith(b"\x1f\x8b"):
        try:
            data = zlib.decompressobj(16 + 15).decompress(data, 4)
        except zlib.error:
            return 0
    return int.from_bytes(data[:4], "big") if len(data) >= 4 else 0


def _emnist_notices(root: str, stems: Iterable[str]) -> Iterator[str]:
    """Yields what is unusual about EMNIST. Raises `InputError` if there are several of its datasets.

    One label means different characters in them, so they cannot share a label table.
    """
    found = {match[1].lower() for stem in stems if (match := _EMNIST.fullmatch(stem))}
    if len(found) > 1:
        raise InputError(
            f"{root}: contains several datasets ({', '.join(sorted(found))}), in which one label means different "
            "characters; move the files of one to another folder and pass that"
        )
    for name in found:
        yield f"{root}: {name} stores images transposed (rows and columns swapped); pixels are kept as stored"
        if name.endswith("-letters"):
            yield f"{root}: {name} numbers its letters from 1 (A is 1), so class '0' has no images; labels are kept"


def _table_notice(file: SourceFile) -> str:
    return f"{_labels_shown(file, table=True)}: only the first number of each row, the class, is read"


def _source_file(path: str, stem: str, subset: str, found: Mapping[str, storage.Entry], index_dir: str) -> SourceFile:
    for kind, other in (("images", "labels"), ("labels", "images")):
        if kind not in found:
            expected = (IMAGES_NAME if kind == "images" else LABELS_NAME).removesuffix(".gz")
            raise InputError(
                f"{found[other].path}: has no matching {kind}; expected {stem}{expected} or {stem}{expected}.gz"
            )
    images, labels = (_blob(found[kind].path, index_dir) for kind in ("images", "labels"))
    meta = encode_name(subset, META_NAME)
    beside = (labels, _blob(os.path.join(path, meta), index_dir)) if has_own_file(path, meta) else (labels,)
    return SourceFile(found["images"].name, subset, found["images"].path, images, beside=beside)


def _blob(path: str, index_dir: str) -> storage.Blob:
    """Returns the content of a file, unpacked if its first bytes are those of gzip, whatever its name is."""
    return archives.gzip_blob(path, index_dir) if archives.is_gzip(path) else storage.whole_file(path)


def _largest_label(files: Sequence[SourceFile]) -> int:
    """Returns the largest label in all files; reads all labels, one number a row."""
    return max((int(_read_labels(file).max(initial=0)) for file in files), default=0)


def _labels_magic(file: SourceFile) -> int:
    """Returns the magic number of a subset's labels, whether or not it is one of labels."""
    with storage.open_blob(file.beside[0], _labels_shown(file)) as stream:
        return int.from_bytes(stream.read(4), "big")


def _read_labels(file: SourceFile) -> npt.NDArray[np.integer[Any]]:
    """Returns the labels of a subset, integers `[N]`, 0 or more: the first column where there are several."""
    import numpy as np

    table = _labels_magic(file) == TABLE_MAGIC
    blob, shown = file.beside[0], _labels_shown(file, table=table)
    header, magic = (TABLE_HEADER, TABLE_MAGIC) if table else (LABELS_HEADER, LABELS_MAGIC)
    with storage.open_blob(blob, shown) as stream, storage.reading(shown):
        count, *columns = _header(stream, shown, header, magic, "labels")
        row_bytes, left = 4 * columns[0] if table else 1, blob.size - header.size
        if left != count * row_bytes or not row_bytes:
            of = f" of {counted(columns[0], 'number')}" if table else ""
            raise InputError(
                f"{shown}: header says {counted(count, 'label')}{of}, but {counted(left, 'byte')} of labels follow"
            )
        refuse_many_rows(count, file.blob.stamp[0], shown)
        if not table:
            return np.frombuffer(read_exactly(stream, count, shown), dtype=np.uint8)
        pieces = [np.empty(0, np.int32)]
        step = max(1, storage.COPY_BYTES // row_bytes)
        for start in range(0, count, step):
            data = read_exactly(stream, min(step, count - start) * row_bytes, shown)
            pieces.append(np.frombuffer(data, ">i4").reshape(-1, columns[0])[:, 0].astype(np.int32))
    found = np.concatenate(pieces)
    wrong = (found < 0) | (found >= MAX_CLASSES)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"{shown}: row {row}: label is {found[row]}; expected 0 to {MAX_CLASSES - 1}")
    return found


def _labels_shown(file: SourceFile, *, table: bool = False) -> str:
    """Returns the path of the labels for messages: where they were found, not where they were unpacked to."""
    folder, name = os.path.split(file.shown)
    stem, found, end = name.rpartition("images")
    end = end.replace("idx3-ubyte", "idx2-int") if table else end.replace("3", "1")
    return os.path.join(folder, f"{stem}labels{end}" if found else name)


def _header(stream: BinaryIO, shown: str, header: struct.Struct, magic: int, what: str) -> tuple[int, ...]:
    """Returns the sizes in the header of an IDX file."""
    start = stream.read(header.size)
    if len(start) < header.size:
        raise InputError(
            f"{shown}: is {counted(len(start), 'byte')}; expected a header of {counted(header.size, 'byte')}"
        )
    found, *sizes = header.unpack(start)
    if found != magic:
        raise InputError(f"{shown}: magic number is {found}; expected {magic}, an IDX file of {what}")
    return tuple(sizes)


def _image_sizes(
    file: SourceFile, rows: int, listed: npt.NDArray[np.int32] | None
) -> tuple[tuple[int, int] | None, npt.NDArray[np.int32] | None]:
    """Returns the common size of all images, or the size of each.

    Datumaro writes the number of bytes where the number of images should be, and always 28 x 28 as their size; the
    true sizes are only in the meta file.

    Raises:
        InputError: the header contradicts the size of the file.
    """
    with storage.open_blob(file.blob, file.shown) as stream, storage.reading(file.shown):
        count, *sides = _header(stream, file.shown, IMAGES_HEADER, IMAGES_MAGIC, "images")
    nbytes = file.blob.size - IMAGES_HEADER.size
    size = sides[0], sides[1]
    if count == rows and rows * size[0] * size[1] == nbytes:
        _check_size(file, size, rows)
        return size, None
    if count == nbytes and size == GENUINE_SIZE:
        if listed is None and rows * size[0] * size[1] == nbytes:
            return size, None
        if listed is not None and int(listed.prod(axis=1, dtype="int64").sum()) == nbytes:
            return None, listed
    labels = _labels_shown(file, table=_labels_magic(file) == TABLE_MAGIC)
    if count != rows and count * size[0] * size[1] == nbytes:
        raise InputError(
            f"{file.shown}: has {counted(count, 'image')} but {labels} has {counted(rows, 'label')}; expected equal "
            "counts"
        )
    raise InputError(
        f"{file.shown}: header says {counted(count, 'image')} of {size[0]} x {size[1]}, but {counted(nbytes, 'byte')} "
        f"of pixels follow, and {labels} has {counted(rows, 'label')}"
    )


def _check_size(file: SourceFile, size: tuple[int, int], rows: int) -> None:
    if rows and not (min(size) > 0 and max(size) <= MAX_SIDE and size[0] * size[1] <= MAX_PIXELS):
        raise InputError(f"{file.shown}: images are {size[0]} x {size[1]}; expected sides from 1 to {MAX_SIDE}")


def _read_meta(file: SourceFile, rows: int) -> tuple[list[str] | None, npt.NDArray[np.int32] | None]:
    """Returns the names of rows and the sizes `[N, 2]` in Datumaro's `<subset>-meta.gz`, each None if missing.

    A row has an id, or height and width, or all three, of 32 characters each.

    Raises:
        InputError: the file is not a valid meta file.
    """
    import numpy as np

    if len(file.beside) < 2 or not rows:
        return None, None
    blob = file.beside[1]
    shown = os.path.join(os.path.dirname(file.shown), encode_name(file.subset, META_NAME))
    columns, rest = divmod(blob.size, rows * META_TEXT * 4)
    if rest or columns not in (1, 2, 3):
        raise InputError(
            f"{shown}: is {counted(blob.size, 'byte')}; expected 1 to 3 x {META_TEXT * 4} for each of "
            f"{counted(rows, 'row')}"
        )
    sizes: list[npt.NDArray[np.int32]] = []
    names: list[str] = []
    with storage.open_blob(blob, shown) as stream, storage.reading(shown):
        for start in range(0, rows, 1000):
            count = min(1000, rows - start)
            texts = _texts(read_exactly(stream, count * columns * META_TEXT * 4, shown), shown)
            texts = texts.reshape(count, columns)
            if columns != 2:
                names += texts[:, 0].tolist()
            if columns != 1:
                sizes.append(_sides(texts[:, -2:], shown))
    return names if columns != 2 else None, np.concatenate(sizes) if sizes else None


def _texts(data: bytes, shown: str) -> npt.NDArray[np.str_]:
    """Returns texts of 32 characters, zero-padded as in NumPy: `[N]`."""
    import numpy as np

    codes = np.frombuffer(data, dtype="<u4")
    if codes.max(initial=0) > 0x10FFFF or ((codes >= 0xD800) & (codes < 0xE000)).any():
        raise InputError(f"{shown}: contains a name that is not valid Unicode")
    return np.frombuffer(data, dtype=f"<U{META_TEXT}")


def _sides(texts: npt.NDArray[np.str_], shown: str) -> npt.NDArray[np.int32]:
    """Returns heights and widths as numbers; (0, 0) is a row without an image."""
    import numpy as np

    try:
        sides = texts.astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{shown}: contains a height or width that is not a number: {error}") from error
    empty = (sides == 0).all(axis=1)
    wrong = ((sides < 1) | (sides > MAX_SIDE)).any(axis=1) | (sides[:, 0] * sides[:, 1] > MAX_PIXELS)
    if (wrong & ~empty).any():
        height, width = sides[np.argmax(wrong & ~empty)].tolist()
        raise InputError(f"{shown}: contains the image size {height} x {width}; expected sides from 1 to {MAX_SIDE}")
    return sides.astype(np.int32)


def _read_pixels(
    shown: str, size: tuple[int, int] | None, ends: npt.NDArray[np.int64] | None, stream: BinaryIO, runs: Runs
) -> npt.NDArray[np.uint8]:
    """Returns the pixels of runs of rows, uint8 `[bytes]`; `ends` has the row boundaries if sizes differ."""
    import numpy as np

    row_bytes = size[0] * size[1] if size else 0

    def place(row: int) -> int:
        return row * row_bytes if ends is None else int(ends[row])

    return np.frombuffer(read_runs(stream, shown, runs, place, IMAGES_HEADER.size), dtype=np.uint8)
