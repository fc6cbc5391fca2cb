"""MNIST as CSV: a file for each subset, with a line for each image: its label, then its pixels.

The well-known downloads have a header, `label,1x1,1x2,...`. Datumaro 1.13 writes no header, names its files
`mnist_<subset>.csv`, and writes ids and sizes to `meta_<subset>.csv` unless they are running numbers and 28 x 28
(`plugins/data_formats/mnist_csv.py`).
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.sink import FileSink, PartWriter, SubsetNaming
from beam_cifar.formats.contract.source import Runs, kept
from beam_cifar.formats.contract.types import Catalog, Shard, ShardResult, SinkOptions, SourceFile
from beam_cifar.formats.kit.records import (
    LABELS_FILE,
    RECORDS,
    FileRecords,
    RecordSource,
    bad_labels,
    check_names,
    names_file,
    numbered_names,
    read_exactly,
    read_names,
    refuse_one_subset,
    written_columns,
)
from beam_cifar.formats.kit.roots import own_file, sorted_files
from beam_cifar.formats.kit.rows import column, row_numbers
from beam_cifar.images.encodings import GRAY
from beam_cifar.naming.components import decode_name, encode_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

PREFIX, META_PREFIX, SUFFIX = "mnist_", "meta_", ".csv"
GENUINE_SIZE = 28, 28
MAX_LINE = 64 << 20
"""Bytes of a line; enough for 4,096 x 4,096 pixels."""
LABEL_WIDTH = 8
"""Bytes of the longest label with its comma."""
MAX_NUMBERED = 65_535
"""The largest label supported without a file of class names."""
MAX_ID = 4096
"""Bytes of a line in a meta file, on average at most."""
MIN_PIXELS = 64
"""Least pixels of an image to detect a file by its content: with fewer it could be any table."""
CHUNK = 4 << 20

_ROW = re.compile(rb"-?[0-9]{1,7}(?:,(?:1?[0-9]?[0-9]|2[0-4][0-9]|25[0-5]))+")
_LABEL = re.compile(rb"-?[0-9]+")
# A first line whose first value is not a number; "nan" is a label missing in pandas, not a header.
_HEADER = re.compile(rb"(?!\s*\"?nan\b)[^,]*[A-Za-z\x80-\xff]", re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"
_SIZED = re.compile(rb".*?([0-9]{1,5})x([0-9]{1,5})\"?", re.DOTALL)


class MnistCsvSource(RecordSource):
    """Reads a CSV file of pixels, or a directory of them."""

    name = "mnist_csv"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether a CSV file starts with a label and the pixels of a square image."""
        return any(map(_starts_right, _tables(path)))

    def describe(self, path: str, index_dir: str) -> Catalog:
        with storage.reading(path):
            files = tuple(_source_file(each, index_dir) for each in _tables(path))
            if not files:
                raise InputError(f"{path}: no CSV files found; expected {PREFIX}train{SUFFIX} or similar")
            refuse_one_subset(files)
            names = own_file(path if storage.is_folder(path) else os.path.dirname(path), LABELS_FILE)
        table = LabelTable(numbered_names(_largest_label(files)) if names is None else read_names(names))
        return Catalog(self.name, "MNIST as CSV", path, table, files, () if names is None else (names,))

    def records(self, file: SourceFile, labels: LabelTable) -> FileRecords:
        lines = _lines(file)
        names, sizes = _read_meta(file, len(lines.labels), lines.columns - 1)
        size = _image_size(file, lines) if sizes is None else None
        read = functools.partial(_read_pixels, file.shown, lines)
        bad = bad_labels(file, lines.labels, len(labels.names))
        return FileRecords(file, 1, lines.labels, read, size, sizes, names, bad)


class _CsvWriter(PartWriter):
    """Writes a line for each example."""

    def __post_init__(self) -> None:
        import numpy as np

        size = self.shard.size or GENUINE_SIZE
        self._pixels = size[0] * size[1]
        # Looks up zero-padded texts and deletes the zeros of a whole block at once: no Python loop over pixels.
        self._values = np.array([f",{value}" for value in range(256)], dtype="S4").view(np.uint32)
        texts = [str(label) for label in (*range(len(self.options.labels.names)), UNLABELLED)]
        labels = np.array(texts, dtype=f"S{max(map(len, texts))}")
        self._labels = labels.view(np.uint8).reshape(len(texts), -1)

    def append(self, table: pa.Table) -> None:
        import numpy as np

        pixels, labels = written_columns(table, self)
        values = self._values[np.frombuffer(pixels, dtype=np.uint8)].view(np.uint8).reshape(-1, 4 * self._pixels)
        ends = np.full((len(values), 1), ord("\n"), dtype=np.uint8)
        rows = np.concatenate([self._labels[labels], values, ends], axis=1)
        self.file.write(rows.tobytes().translate(None, b"\0"))


class MnistCsvSink(FileSink):
    """Writes a CSV file for each subset, named as Datumaro does."""

    name = "mnist_csv"
    can = replace(
        RECORDS,
        losses=frozenset({"colour", "ids", "superclasses"}),
        pixels=GRAY,
        part_bytes=64 << 20,
        reserved_paths=frozenset({LABELS_FILE}),
    )
    subsets = SubsetNaming(by_split=True, word=lambda name: encode_name(name, SUFFIX)[: -len(SUFFIX)])
    writer = _CsvWriter

    def check_labels(self, labels: LabelTable) -> None:
        """Checks that class names fit in a line."""
        check_names(labels.names, "class")

    def check_shard(self, shard: Shard, options: SinkOptions) -> None:
        """Refuses images that are not square, as readers compute the sides from the number of pixels."""
        if shard.rows and shard.size and shard.size[0] != shard.size[1]:
            height, width = shard.size
            side = max(height, width)
            raise UsageError(
                f"{shard.path}: images are {height} x {width}; {self.name} supports only square ones, resize them with "
                f"--resize {side}x{side}"
            )

    def shard_path(self, subset: str, number: int, count: int) -> str:
        return PREFIX + encode_name(subset, SUFFIX)

    def estimate_bytes(self, rows: int, image_bytes: int, options: SinkOptions) -> int:
        """Estimates two bytes, the minimum, for each pixel."""
        return image_bytes // 3 * 2

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns class names unless they are the default numbers, and sizes other than Datumaro's default."""
        files = {}
        if options.labels.names != numbered_names(0):
            files[LABELS_FILE] = names_file(options.labels.names)
        for result in shards:
            size = result.shard.size or GENUINE_SIZE
            if result.shard.rows and size != GENUINE_SIZE:
                files[META_PREFIX + encode_name(result.shard.subset, SUFFIX)] = (b"%d,%d\n" % size) * result.shard.rows
        return files

    def result_notices(self, options: SinkOptions, shards: Sequence[ShardResult]) -> Iterator[str]:
        """Yields notices about what Datumaro reads differently."""
        for result in shards:
            if "_" in result.shard.subset:
                name = result.shard.subset.rpartition("_")[2]
                yield f"{result.shard.path}: Datumaro reads the subset name as {name!r}, the part after the last '_'"


@dataclass(frozen=True, eq=False)
class _Lines:
    """Index of the rows of a file.

    Attributes:
        columns: values per row including the label; 0 if there are no rows.
        starts: int64 `[N + 1]`, the start of each row, then the end of the last one.
        labels: int32 `[N]`.
        size: (height, width) from the header, None if it has none.
    """

    columns: int
    starts: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    size: tuple[int, int] | None


def _tables(path: str) -> list[str]:
    """Returns the CSV files of a directory without meta files, or the path itself if it is a CSV file."""
    if not storage.is_folder(path):
        return [path] if path.lower().endswith(SUFFIX) else []
    found = sorted_files(path, lambda name: name.lower().endswith(SUFFIX) and not name.startswith(META_PREFIX))
    return [entry.path for entry in found]


def _starts_right(path: str) -> bool:
    """Returns whether the first line, or the one after a header, has a label and pixels."""
    named = PREFIX in os.path.basename(path)
    with storage.reading(path), storage.open_file(path) as file:
        lines = [file.readline(MAX_LINE // 16).removeprefix(_BOM).rstrip(b"\r\n") for _ in range(2)]
    row = lines[0] if _LABEL.match(lines[0]) else lines[1]
    if named:  # `describe` reports what is wrong with it
        return bool(_LABEL.match(row))
    pixels = row.count(b",")
    return pixels >= MIN_PIXELS and math.isqrt(pixels) ** 2 == pixels and bool(_ROW.fullmatch(row))


def _source_file(path: str, index_dir: str) -> SourceFile:
    """Returns a CSV file with its meta file in `beside`."""
    folder, name = os.path.split(path)
    stem = name[: -len(SUFFIX)]
    subset = decode_name(stem.partition(PREFIX)[2] or stem)
    meta = own_file(folder, META_PREFIX + encode_name(subset, SUFFIX))
    beside = () if meta is None else (meta.blob,)
    return SourceFile(name, subset, path, storage.whole_file(path), beside=beside, index_dir=index_dir)


def _largest_label(files: Sequence[SourceFile]) -> int:
    """Returns the largest label in all files."""
    largest = 0
    for file in files:
        largest = max(largest, int(_lines(file).labels.max(initial=0)))
        if largest > MAX_NUMBERED:
            raise InputError(f"{file.shown}: has label {largest}; labels above {MAX_NUMBERED} need a {LABELS_FILE}")
    return largest


def _image_size(file: SourceFile, lines: _Lines) -> tuple[int, int]:
    """Returns the image size: from the header, or a square."""
    if not len(lines.labels):
        return GENUINE_SIZE
    pixels = lines.columns - 1
    if lines.size is not None and lines.size[0] * lines.size[1] == pixels:
        return lines.size
    side = math.isqrt(pixels)
    if side * side != pixels:
        raise _no_square(file, lines.columns)
    return side, side


def _no_square(file: SourceFile, columns: int) -> InputError:
    return InputError(f"{file.shown}: has {columns} values per line; expected a label and the pixels of a square image")


@kept()
def _lines(file: SourceFile) -> _Lines:
    """Returns the index of a file. Raises `InputError`."""
    table = _line_table(file)
    columns, height, width = json.loads(table.schema.metadata[b"facts"])
    starts, labels = (column(table, name).to_numpy() for name in ("start", "label"))
    return _Lines(columns, starts, labels[:-1], (height, width) if height else None)


@indexed()
def _line_table(file: SourceFile) -> pa.Table:
    """Reads a file in one pass; the last of its rows is the end, without a label."""
    import numpy as np
    import pyarrow as pa

    starts, labels = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    with storage.open_blob(file.blob, file.shown) as stream, storage.reading(file.shown):
        begin, columns, size = _start(stream, file.shown)
        end = _content_end(stream, begin, file.blob.size)
        if columns == 1 and end > begin:
            raise _no_square(file, columns)
        for offset, text in _line_chunks(stream, begin, end, _widest(columns)):
            place = f"{file.shown}: row {{}}", sum(map(len, labels))
            found = _row_starts(text, columns, place)
            starts.append(found + offset)
            labels.append(_row_labels(text, found, columns, place))
    starts.append(np.array([end + 1]))
    labels.append(np.zeros(1, np.int32))
    made = pa.table({"start": np.concatenate(starts), "label": np.concatenate(labels)})
    return made.replace_schema_metadata({"facts": json.dumps([columns, *(size or (0, 0))])})


def _start(stream: BinaryIO, shown: str) -> tuple[int, int, tuple[int, int] | None]:
    """Returns the start of the first row, its number of values, and the image size if the header has it."""
    line, size = stream.readline(MAX_LINE + 1), None
    begin = len(_BOM) if line.startswith(_BOM) else 0
    first = line[begin:]
    if first.strip() and not (_LABEL.match(first) or _HEADER.match(first)):
        found = _shown(first.partition(b",")[0].rstrip(b"\r\n"))
        raise InputError(f"{shown}: row 0: label is {found}; expected a number, or a header with column names")
    if first and not _LABEL.match(first):
        sized = _SIZED.fullmatch(line.rstrip(b"\r\n").rpartition(b",")[2])
        size = (int(sized[1]), int(sized[2])) if sized else None
        begin, line = len(line), stream.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE or begin > MAX_LINE:
        raise InputError(f"{shown}: has a line of more than {MAX_LINE} bytes, the supported maximum")
    return begin, line.count(b",") + 1, size


def _widest(columns: int) -> int:
    """Returns the length in bytes of the longest valid line."""
    return LABEL_WIDTH + 4 * columns


def _content_end(stream: BinaryIO, begin: int, size: int) -> int:
    """Returns the end of the last line that is not empty, without its line end."""
    while size > begin:
        start = max(begin, size - storage.COPY_BYTES)
        stream.seek(start)
        rest = stream.read(size - start).rstrip(b"\r\n")
        if rest:
            return start + len(rest)
        size = start
    return begin


def _line_chunks(stream: BinaryIO, begin: int, end: int, widest: int) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, whole lines), some megabytes at a time; adds a missing line end at the end of the file."""
    stream.seek(begin)
    rest = b""
    while begin + len(rest) < end:
        chunk = stream.read(min(CHUNK, end - begin - len(rest)))
        text = rest + chunk
        if not chunk or begin + len(text) == end:
            yield begin, text + b"\n"
            return
        cut = text.rfind(b"\n") + 1
        if not cut and len(text) > widest:  # too long for a row: `_row_starts` reports it
            yield begin, text + b"\n"
            return
        if cut:
            yield begin, text[:cut]
        begin, rest = begin + cut, text[cut:]


def _row_starts(text: bytes, columns: int, place: tuple[str, int]) -> npt.NDArray[np.int64]:
    """Returns the start of each line. Raises `InputError` for a line too short or too long for a row."""
    import numpy as np

    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1])
    widths = ends - starts
    wrong = (widths < 2 * columns - 1) | (widths > _widest(columns))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise _fault(text[starts[row] : ends[row]], columns, place, row)
    return starts


def _row_labels(
    text: bytes, starts: npt.NDArray[np.int64], columns: int, place: tuple[str, int]
) -> npt.NDArray[np.int32]:
    """Returns the labels at the start of lines, int32 `[N]`."""
    import numpy as np

    heads = np.frombuffer(text + bytes(LABEL_WIDTH), dtype=np.uint8)[starts[:, None] + np.arange(LABEL_WIDTH)]
    digits = heads - np.uint8(ord("0"))
    ends = heads == ord(",")
    lengths = np.where(ends.any(axis=1), ends.argmax(axis=1), 0)
    negative = heads[:, 0] == ord("-")
    wrong = lengths <= negative
    labels = np.zeros(len(starts), dtype=np.int32)
    for at in range(LABEL_WIDTH):
        used = (at < lengths) & (at >= negative)
        wrong |= used & (digits[:, at] > 9)
        labels = np.where(used, labels * 10 + digits[:, at], labels)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise _fault(text[starts[row] :].partition(b"\n")[0], columns, place, row)
    return np.where(negative, -labels, labels).astype(np.int32)


def _fault(line: bytes, columns: int, place: tuple[str, int], row: int) -> InputError:
    """Returns the error for a line that is not a valid row."""
    values = line.rstrip(b"\r").split(b",", columns)
    wrong = [(at, value) for at, value in enumerate(values) if at and not _is_pixel(value)]
    if len(values) != columns:
        count = line.count(b",") + 1
        reason = f"has {count} values; expected {columns}, as in the first row"
    elif not re.fullmatch(rb"-?[0-9]{1,7}", values[0]):
        reason = f"label is {_shown(values[0])}; expected a number"
    elif wrong:
        reason = f"value {wrong[0][0]} is {_shown(wrong[0][1])}; expected 0 to 255"
    else:
        reason = "is too long for values from 0 to 255"
    return InputError(f"{place[0].format(place[1] + row)}: {reason}")


def _is_pixel(value: bytes) -> bool:
    return bool(re.fullmatch(rb"[0-9]{1,3}", value)) and int(value) <= 255


def _shown(value: bytes) -> str:
    return repr(value[:20].decode("utf-8", "replace"))


def _read_pixels(shown: str, lines: _Lines, stream: BinaryIO, runs: Runs) -> Any:
    """Returns the pixels of runs of rows, uint8 `[bytes]`."""
    chunks = []
    for start, stop in runs:
        begin, end = (int(lines.starts[row]) for row in (start, stop))
        stream.seek(begin)
        # The last line may have no line end.
        chunks += [read_exactly(stream, end - 1 - begin, shown), b"\n"] if start < stop else []
    text = b"".join(chunks).replace(b"\r\n", b"\n")
    return _pixels(text, lines.columns, row_numbers(runs), f"{shown}: row {{}}")


def _pixels(text: bytes, columns: int, rows: npt.NDArray[np.int64], place: str) -> npt.NDArray[np.uint8]:
    """Returns the pixels of lines, without the labels, uint8 `[values]`.

    Raises:
        InputError: a value is not a whole number from 0 to 255, or a line has too many or too few of them.
    """
    import numpy as np

    data = np.frombuffer(text, dtype=np.uint8)
    is_end = data == ord("\n")
    ends = np.flatnonzero(is_end | (data == ord(",")))
    if len(ends) != len(rows) * columns or not is_end[ends[columns - 1 :: columns]].all():
        raise _first_fault(text, columns, rows, place)
    digits = data - np.uint8(ord("0"))
    grid = ends.reshape(len(rows), columns)
    lengths = (grid[:, 1:] - grid[:, :-1] - 1).reshape(-1)
    last = grid[:, 1:].reshape(-1) - 1
    values = np.zeros(len(last), dtype=np.uint16)
    good = (lengths >= 1) & (lengths <= 3)
    for at, weight in enumerate((1, 10, 100)):
        digit = np.where(lengths > at, digits[last - at], np.uint8(0))
        good &= digit <= 9
        values += digit * np.uint16(weight)
    if not (good & (values <= 255)).all():
        raise _first_fault(text, columns, rows, place)
    return values.astype(np.uint8)


def _first_fault(text: bytes, columns: int, rows: npt.NDArray[np.int64], place: str) -> InputError:
    """Returns the error for the first line that is not a valid row."""
    for row, line in zip(rows.tolist(), text.split(b"\n"), strict=False):
        if line.count(b",") != columns - 1 or not all(map(_is_pixel, line.split(b",")[1:])):
            return _fault(line, columns, (place, 0), row)
    return InputError(f"{place.format(int(rows[0]))}: cannot be read")


def _read_meta(file: SourceFile, rows: int, pixels: int) -> tuple[list[str] | None, npt.NDArray[np.int32] | None]:
    """Returns ids and sizes in Datumaro's `meta_<subset>.csv`: each line has an id, or height and width, or all three.

    Raises:
        InputError: the file is not a valid meta file, or contradicts the number of pixels.
    """
    import numpy as np

    if not file.beside or not rows:
        return None, None
    blob = file.beside[0]
    if blob.size > rows * MAX_ID:
        raise InputError(f"{blob.path}: is {blob.size} bytes, too large for the ids and sizes of {rows} rows")
    with storage.open_blob(blob, blob.path) as stream:
        try:
            lines = [line.rstrip("\r").split(",") for line in stream.read().decode().rstrip("\r\n").split("\n")]
        except UnicodeDecodeError as error:
            raise InputError(f"{blob.path}: is not valid UTF-8: {error}") from error
    columns = len(lines[0])
    if len(lines) != rows or columns > 3 or any(len(line) != columns for line in lines):
        raise InputError(f"{blob.path}: expected an id, height and width, or all three for each of {rows} rows")
    ids = [line[0] for line in lines] if columns != 2 else None
    if columns == 1:
        return ids, None
    for row, line in enumerate(lines):
        sides = line[-2:]
        if not all(re.fullmatch("[0-9]{1,5}", side) for side in sides) or int(sides[0]) * int(sides[1]) != pixels:
            raise InputError(
                f"{blob.path}: row {row}: size is {' x '.join(sides)[:40]!r}; {file.shown} has {pixels} pixels"
            )
    return ids, np.array([line[-2:] for line in lines], dtype=np.int32)
