"""MNIST as CSV: a file for each subset, with a line for each image: its label and its pixels.

Without a header, the label comes first; with one, columns are found by name, see `kit/pixel_columns.py`.
Datumaro 1.13 writes no header, names its files `mnist_<subset>.csv`, and writes ids and sizes to `meta_<subset>.csv`
unless they are running numbers and 28 x 28 (`plugins/data_formats/mnist_csv.py`).
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from beam_cifar import storage
from beam_cifar.data.labels import UNLABELLED, LabelTable
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError, UsageError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.sink import FileSink, PartWriter, SubsetNaming
from beam_cifar.formats.contract.source import Runs, kept
from beam_cifar.formats.contract.types import Catalog, Shard, ShardResult, SinkOptions, SourceFile
from beam_cifar.formats.kit.label_columns import label_rank
from beam_cifar.formats.kit.pixel_columns import MAX_COLUMNS, MIN_PIXELS, PixelColumns, pixel_columns
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
from beam_cifar.formats.kit.subset_names import split_word
from beam_cifar.images.encodings import GRAY
from beam_cifar.naming.components import decode_name, encode_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

PREFIX, META_PREFIX, SUFFIX = "mnist_", "meta_", ".csv"
SUFFIXES = SUFFIX, ".tsv", ".txt"
"""Of files that are read, all as long as `SUFFIX`; in a directory, a `.txt` file must have a split in its name."""
GENUINE_SIZE = 28, 28
MAX_LINE = 64 << 20
"""Bytes of a line; enough for 4,096 x 4,096 pixels."""
LABEL_WIDTH = 8
"""Bytes of the longest label with its comma."""
MAX_NUMBERED = 65_535
"""The largest label supported without a file of class names."""
MAX_ID = 4096
"""Bytes of a line in a meta file, on average at most."""
SUBSET = "default"
"""Subset of rows without one, where a column has the subsets."""
MAX_SUBSETS = 100
MAX_TEXT = 256
"""Bytes of a value that is not a pixel, on average at most."""
CHUNK = 4 << 20

_PIXELS = re.compile(rb"(?:1?[0-9]?[0-9]|2[0-4][0-9]|25[0-5])(?:,(?:1?[0-9]?[0-9]|2[0-4][0-9]|25[0-5]))*")
_LABEL = re.compile(rb"-?[0-9]+")
_NUMBER = re.compile(rb"-?[0-9]{1,7}")
# A first line whose first value is not a number; "nan" is a label missing in pandas, not a header.
_HEADER = re.compile(rb"(?!\s*\"?nan\b)(?:\"?\"?,)?[^,]*[A-Za-z\x80-\xff]", re.IGNORECASE)
_QUOTED = re.compile(rb"(?<![^,\n])\"([^\",\n]*)\"(?=[,\r\n]|\Z)")
_BOM = b"\xef\xbb\xbf"
_DELIMITERS = b",", b";", b"\t"


class MnistCsvSource(RecordSource):
    """Reads a CSV file of pixels, or a directory of them."""

    name = "mnist_csv"

    def looks_right(self, path: str, index_dir: str) -> bool:
        """Returns whether a CSV file starts with the pixels of a square image, and a label or a header."""
        return any(map(_starts_right, _tables(path)))

    def may_lose(self, name: str) -> bool:
        return _is_table(name)

    def describe(self, path: str, index_dir: str) -> Catalog:
        with storage.reading(path):
            found = _tables(path)
            other = [each for each in found if storage.is_folder(path) and _is_narrow(each)]
            other = other if len(other) < len(found) else []
            files = tuple(file for each in found if each not in other for file in _source_files(each, index_dir))
            if not files:
                raise InputError(f"{path}: no CSV files found; expected {PREFIX}train{SUFFIX} or similar")
            refuse_one_subset(files)
            names = own_file(path if storage.is_folder(path) else os.path.dirname(path), LABELS_FILE)
        table = LabelTable(numbered_names(_largest_label(files)) if names is None else read_names(names))
        notices = dict.fromkeys(
            f"{os.path.basename(file.shown)}: {text}" for file in files for text in _lines(file).columns.notices
        )
        if other:
            notices |= {f"ignored {counted(len(other), 'CSV file')} without pixels, such as {other[0]}": None}
        meta_files = () if names is None else (names,)
        return Catalog(self.name, "MNIST as CSV", path, table, files, meta_files, notices=tuple(notices))

    def records(self, file: SourceFile, labels: LabelTable) -> FileRecords:
        lines = _lines(file)
        names, sizes = _read_meta(file, len(lines.labels), lines.columns)
        size = _image_size(file, lines) if sizes is None else None
        channels = 1 if sizes is not None and sizes[0].prod() == lines.columns.pixels else lines.columns.channels
        read = functools.partial(_read_pixels, file.shown, lines, channels)
        bad = bad_labels(file, lines.labels, len(labels.names))
        return FileRecords(file, channels, lines.labels, read, size, sizes, names, bad)


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
    """Index of the rows of a file, or of those of one subset in it.

    Attributes:
        columns: what the values of a row are.
        starts: int64 `[N]`, the start of each row.
        stops: int64 `[N]`, the start of the line after each row.
        labels: int32 `[N]`.
    """

    columns: PixelColumns
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yields (start, stop) of the bytes of rows [start, stop), in pieces without lines of other subsets."""
        import numpy as np

        gaps = np.flatnonzero(self.starts[start + 1 : stop] != self.stops[start : stop - 1]) + start + 1
        edges = [start, *gaps.tolist(), stop] if start < stop else []
        for first, end in itertools.pairwise(edges):
            yield int(self.starts[first]), int(self.stops[end - 1])


def _tables(path: str) -> list[str]:
    """Returns the CSV files of a directory without meta files, or the path itself if it is a CSV file."""
    if not storage.is_folder(path):
        return [path] if path.lower().endswith(SUFFIXES) else []
    return [entry.path for entry in sorted_files(path, _is_table)]


def _is_table(name: str) -> bool:
    known = SUFFIXES if split_word(name) else SUFFIXES[:2]
    return name.lower().endswith(known) and not name.startswith(META_PREFIX)


def _starts_right(path: str) -> bool:
    """Returns whether the first line, or the one after a header, has the pixels of a square image, and a label."""
    named = PREFIX in os.path.basename(path)
    lines = _first_lines(path)
    header, row = (b"", lines[0]) if _LABEL.match(lines[0]) and not _is_header(lines[0]) else lines
    header = b"" if _is_numbering(header) else header
    if named:  # `describe` reports what is wrong with it
        return bool(_LABEL.match(row))
    try:
        found = pixel_columns(header, row, path)
    except InputError:
        return False
    pixels = row.split(b",", found.first)[-1].rsplit(b",", found.columns - found.width - found.first)[0]
    labelled = found.has_header or _NUMBER.fullmatch(found.text(row, found.label))
    pixels = pixels.replace(b" ", b",") if found.packed else pixels
    return found.pixels >= MIN_PIXELS and bool(found.size and labelled and _PIXELS.fullmatch(pixels))


def _first_lines(path: str) -> list[bytes]:
    with storage.reading(path), storage.open_file(path) as file:
        lines = [file.readline(MAX_LINE // 16).removeprefix(_BOM).rstrip(b"\r\n") for _ in range(2)]
    return [_plain(line, _delimiter(lines[0])) for line in lines]


def _delimiter(line: bytes) -> bytes:
    """Returns what separates the values of a line, a comma if nothing does."""
    return max(_DELIMITERS, key=line.count)


def _plain(text: bytes, delimiter: bytes) -> bytes:
    """Returns lines with commas between values, and without the quotes that some programs put around them."""
    text = text if delimiter == b"," else text.replace(delimiter, b",")
    return _QUOTED.sub(rb"\1", text) if b'"' in text else text


def _is_narrow(path: str) -> bool:
    """Returns whether a CSV file has too few values for pixels: a table of something else, such as of answers."""
    if PREFIX in os.path.basename(path):
        return False
    return all(len(line.replace(b" ", b",").split(b",", MIN_PIXELS)) < MIN_PIXELS for line in _first_lines(path))


def _is_header(line: bytes) -> bool:
    """Returns whether a line has names of columns: the first one, or after an empty one, or labels at the end."""
    last = line.rstrip(b"\r\n").rpartition(b",")[2].decode("utf-8", "replace").strip('" ')
    return bool(_HEADER.match(line)) or label_rank(last) >= 0 or _is_numbering(line)


def _is_numbering(line: bytes) -> bool:
    """Returns whether a line has the numbers of its columns, 0, 1, 2, ..., which pandas writes for unnamed ones."""
    if not line.startswith(b"0,1,2,3,4,5,6,7,") or line.count(b",") >= MAX_COLUMNS:
        return False
    return line.rstrip(b"\r\n") == b",".join(b"%d" % number for number in range(line.count(b",") + 1))


def _source_files(path: str, index_dir: str) -> Iterator[SourceFile]:
    """Yields a CSV file with its meta file in `beside`; once for each subset if a column has these."""
    folder, name = os.path.split(path)
    stem = name[: -len(SUFFIX)]
    subset = decode_name(stem.partition(PREFIX)[2] or stem)
    meta = own_file(folder, META_PREFIX + encode_name(subset, SUFFIX))
    beside = () if meta is None else (meta.blob,)
    file = SourceFile(name, subset, path, storage.whole_file(path), beside=beside, index_dir=index_dir)
    with storage.open_blob(file.blob, path) as stream:
        has_subsets = _start(stream, path)[1].subset >= 0
    for each in _facts(_line_table(_whole(file)))[1] if has_subsets else ():
        yield replace(_whole(file), name=f"{name}:{each}", subset=each)
    if not has_subsets:
        yield file


def _whole(file: SourceFile) -> SourceFile:
    """Returns the file without what is different for its subsets, which share an index."""
    return replace(file, name=os.path.basename(file.shown), subset="", beside=())


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
    if lines.columns.size is None:
        raise _no_square(file, lines.columns)
    return lines.columns.size


def _no_square(file: SourceFile, columns: PixelColumns) -> InputError:
    found = f"{counted(columns.values, 'value')} per line" + (
        f", {columns.pixels} of them pixels" if columns.has_header else ""
    )
    return InputError(f"{file.shown}: has {found}; expected a label and the pixels of a square image")


@kept()
def _lines(file: SourceFile) -> _Lines:
    """Returns the index of a file. Raises `InputError`."""
    table = _line_table(_whole(file))
    columns, subsets = _facts(table)
    starts, labels = (column(table, name).to_numpy() for name in ("start", "label"))
    found = starts[:-1], starts[1:], labels[:-1]
    if subsets:
        mine = column(table, "subset").to_numpy()[:-1] == subsets.index(file.subset)
        found = found[0][mine], found[1][mine], found[2][mine]
    return _Lines(columns, *found)


def _facts(table: pa.Table) -> tuple[PixelColumns, list[str]]:
    """Returns what the values of a row are, and the subsets if a column has them."""
    facts = json.loads(table.schema.metadata[b"facts"])
    columns = facts["columns"]
    size = tuple(columns["size"]) if columns["size"] else None
    return PixelColumns(**{**columns, "size": size, "notices": tuple(columns["notices"])}), facts["subsets"]


@indexed()
def _line_table(file: SourceFile) -> pa.Table:
    """Reads a file in one pass; the last of its rows is the end, without a label."""
    import numpy as np
    import pyarrow as pa

    starts = [np.empty(0, np.int64)]
    labels, lasts, codes = ([np.empty(0, np.int32)] for _ in range(3))
    subsets: dict[str, int] = {}
    with storage.open_blob(file.blob, file.shown) as stream, storage.reading(file.shown):
        begin, columns = _start(stream, file.shown)
        end = _content_end(stream, begin, file.blob.size)
        if not columns.pixels and end > begin:
            raise _no_square(file, columns)
        for offset, lines in _line_chunks(stream, begin, end, _widest(columns) + 2 * columns.columns):
            place = f"{file.shown}: row {{}}", sum(map(len, labels))
            text = _plain(lines, columns.delimiter.encode())
            begins = _row_starts(text, columns, place)
            starts.append((begins if text is lines else _line_starts(lines)) + offset)
            labels.append(_row_labels(text, begins, columns, place))
            if columns.subset >= 0:
                codes.append(_row_subsets(text, _fields(text, begins, columns, columns.subset, place), subsets, place))
            if not columns.has_header:
                lasts.append(_row_lasts(text))
    columns = replace(columns, notices=(*columns.notices, *_doubt(np.concatenate(labels), np.concatenate(lasts))))
    found = {
        "start": np.append(np.concatenate(starts), end + 1),
        "label": np.append(np.concatenate(labels), np.int32(0)),
    }
    if subsets:
        found["subset"] = np.append(np.concatenate(codes), np.int32(0))
    facts = {"columns": asdict(columns), "subsets": list(subsets)}
    return pa.table(found).replace_schema_metadata({"facts": json.dumps(facts)})


def _start(stream: BinaryIO, shown: str) -> tuple[int, PixelColumns]:
    """Returns the start of the first row, and what the values of each row are."""
    line, header = stream.readline(MAX_LINE + 1), b""
    begin, delimiter = len(_BOM) if line.startswith(_BOM) else 0, _delimiter(line)
    first = _plain(line[begin:], delimiter)
    if first.strip() and not (_LABEL.match(first) or _is_header(first)):
        found = _shown(first.partition(b",")[0].rstrip(b"\r\n"))
        raise InputError(f"{shown}: row 0: label is {found}; expected a number, or a header with column names")
    if first and _is_header(first):
        header, begin, first = first, len(line), _plain(stream.readline(MAX_LINE + 1), delimiter)
    if len(first) > MAX_LINE or begin > MAX_LINE:
        raise InputError(f"{shown}: has a line of more than {MAX_LINE} bytes, the supported maximum")
    is_numbering = _is_numbering(header)
    columns = pixel_columns(b"" if is_numbering else header, first.rstrip(b"\r\n"), shown)
    columns = replace(columns, delimiter=delimiter.decode())
    if not is_numbering:
        return begin, columns
    notice = "the first line, the numbers of its columns, is not read as an image; labels are from the first column"
    return begin, replace(columns, notices=(notice, *columns.notices))


def _doubt(labels: npt.NDArray[np.int32], lasts: npt.NDArray[np.int32]) -> Iterator[str]:
    """Yields a notice if the last column of a file without a header looks like labels, and the first one does not."""
    import numpy as np

    first, last = (np.unique(values) for values in (labels, lasts))
    if len(last) < 2 or first[-1] < 0 or last[0] < 0 or last[-1] >= max(10, 2 * len(last)):
        return
    if len(first) == 1 or first[-1] >= max(10, 2 * len(first)):
        yield (
            f"without a header, the first column ({first[0]} to {first[-1]}) is read as labels; the last one "
            f"({last[0]} to {last[-1]}) might be them: if so, add a header of names, the last one 'label'"
        )


def _widest(columns: PixelColumns) -> int:
    """Returns the length in bytes of the longest valid line."""
    return 4 * columns.values + LABEL_WIDTH + (MAX_TEXT * (columns.others - 1) if columns.others > 1 else 0)


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


def _row_starts(text: bytes, columns: PixelColumns, place: tuple[str, int]) -> npt.NDArray[np.int64]:
    """Returns the start of each line. Raises `InputError` for a line too short or too long for a row."""
    import numpy as np

    starts = _line_starts(text)
    ends = np.append(starts[1:], len(text)) - 1
    widths = ends - starts
    wrong = (widths < columns.values + columns.pixels - 1) | (widths > _widest(columns))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise _fault(text[starts[row] : ends[row]], columns, place, row)
    return starts


def _line_starts(text: bytes) -> npt.NDArray[np.int64]:
    """Returns the start of each line, int64 `[N]`; the last byte ends one."""
    import numpy as np

    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n"))
    return np.concatenate([[0], ends[:-1] + 1])


def _fields(
    text: bytes, starts: npt.NDArray[np.int64], columns: PixelColumns, number: int, place: tuple[str, int]
) -> npt.NDArray[np.int64]:
    """Returns the start of one column in each line, int64 `[N]`."""
    import numpy as np

    if number == 0:
        return starts
    commas = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord(","))
    firsts = np.searchsorted(commas, starts)
    wrong = np.diff(firsts, append=len(commas)) != columns.columns - 1
    if wrong.any():
        row = int(np.argmax(wrong))
        raise _fault(text[starts[row] :].partition(b"\n")[0], columns, place, row)
    return np.asarray(commas[firsts + number - 1] + 1, np.int64)


def _row_subsets(
    text: bytes, fields: npt.NDArray[np.int64], known: dict[str, int], place: tuple[str, int]
) -> npt.NDArray[np.int32]:
    """Returns the number of the subset that is named at some places, int32 `[N]`; adds new ones to `known`."""
    import numpy as np

    found = []
    for row, at in enumerate(fields.tolist()):
        name = re.split(rb"[,\r\n]", text[at : at + MAX_TEXT], maxsplit=1)[0]
        try:
            found.append(known.setdefault(name.decode().strip('" ') or SUBSET, len(known)))
        except UnicodeDecodeError as error:
            raise InputError(f"{place[0].format(place[1] + row)}: subset is not valid UTF-8: {error}") from error
        if len(known) > MAX_SUBSETS:
            raise InputError(f"{place[0].format(place[1] + row)}: more than {MAX_SUBSETS} subsets; rename their column")
    return np.array(found, np.int32)


def _row_lasts(text: bytes) -> npt.NDArray[np.int32]:
    """Returns the last value of each line, int32 `[N]`; -1 if it is not a pixel."""
    import numpy as np

    text = text.replace(b"\r\n", b"\n")
    data = np.frombuffer(b"\0" * 4 + text, dtype=np.uint8)
    tails = data[np.flatnonzero(data == ord("\n"))[:, None] + np.arange(-4, 0)]
    digits = (tails - np.uint8(ord("0"))).astype(np.int32)
    values, open_, lengths = (
        np.zeros(len(tails), np.int32),
        np.ones(len(tails), np.bool_),
        np.zeros(len(tails), np.int32),
    )
    for at, weight in ((3, 1), (2, 10), (1, 100)):
        open_ &= digits[:, at] <= 9
        values += np.where(open_, digits[:, at] * weight, 0)
        lengths += open_
    ends = tails[np.arange(len(tails)), 3 - lengths] == ord(",")
    return np.where(ends & (lengths > 0), values, -1).astype(np.int32)


def _row_labels(
    text: bytes, starts: npt.NDArray[np.int64], columns: PixelColumns, place: tuple[str, int]
) -> npt.NDArray[np.int32]:
    """Returns the labels of lines, int32 `[N]`."""
    import numpy as np

    if columns.label < 0:
        return np.full(len(starts), UNLABELLED, np.int32)
    fields = _fields(text, starts, columns, columns.label, place)
    places = fields[:, None] + np.arange(LABEL_WIDTH + 1)
    following = np.frombuffer(text + bytes(LABEL_WIDTH + 1), dtype=np.uint8)[places]
    heads, following = following[:, :-1], following[:, 1:]
    digits = heads - np.uint8(ord("0"))
    ends = (heads == ord(",")) | (heads == ord("\n")) | ((heads == ord("\r")) & (following == ord("\n")))
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


def _fault(line: bytes, columns: PixelColumns, place: tuple[str, int], row: int) -> InputError:
    """Returns the error for a line that is not a valid row."""
    line = line.rstrip(b"\r")
    values = (line.replace(b" ", b",") if columns.packed else line).split(b",", columns.values)
    pixels = range(columns.first, columns.first + columns.pixels)
    wrong = [(at, value) for at, value in enumerate(values) if at in pixels and not _is_pixel(value)]
    label = values[columns.value(columns.label)] if columns.label >= 0 and len(values) == columns.values else b"0"
    if len(values) != columns.values:
        count = line.count(b",") + (line.count(b" ") if columns.packed else 0) + 1
        reason = f"has {counted(count, 'value')}; expected {columns.values:,}, as in the first row"
    elif not _NUMBER.fullmatch(label):
        reason = f"label is {_shown(label)}; expected a number"
    elif wrong:
        reason = f"value {wrong[0][0]} is {_shown(wrong[0][1])}; expected 0 to 255"
    else:
        reason = "is too long for values from 0 to 255"
    return InputError(f"{place[0].format(place[1] + row)}: {reason}")


def _is_pixel(value: bytes) -> bool:
    return bool(re.fullmatch(rb"[0-9]{1,3}", value)) and int(value) <= 255


def _shown(value: bytes) -> str:
    return repr(value[:20].decode("utf-8", "replace"))


def _read_pixels(shown: str, lines: _Lines, channels: int, stream: BinaryIO, runs: Runs) -> Any:
    """Returns the pixels of runs of rows, planar: uint8 `[bytes]`."""
    import numpy as np

    chunks = []
    for begin, end in (span for start, stop in runs for span in lines.spans(start, stop)):
        stream.seek(begin)
        # The last line may have no line end.
        chunks += [read_exactly(stream, end - 1 - begin, shown), b"\n"]
    text = _plain(b"".join(chunks).replace(b"\r\n", b"\n"), lines.columns.delimiter.encode())
    found = _pixels(text, lines.columns, row_numbers(runs), f"{shown}: row {{}}")
    if channels == 1:
        return found
    planes = found.reshape(-1, lines.columns.pixels // channels, channels).transpose(0, 2, 1)
    return np.ascontiguousarray(planes).reshape(-1)


def _pixels(text: bytes, columns: PixelColumns, rows: npt.NDArray[np.int64], place: str) -> npt.NDArray[np.uint8]:
    """Returns the pixels of lines, without other columns, uint8 `[values]`.

    Raises:
        InputError: a value is not a whole number from 0 to 255, or a line has too many or too few of them.
    """
    import numpy as np

    count, first, stop = columns.values, columns.first, columns.first + columns.pixels
    data = np.frombuffer(text, dtype=np.uint8)
    is_end = data == ord("\n")
    if columns.packed:
        ends = np.flatnonzero(is_end | (data == ord(",")) | (data == ord(" ")))
    else:
        ends = np.flatnonzero(is_end | (data == ord(",")))
    if len(ends) != len(rows) * count or not is_end[ends[count - 1 :: count]].all():
        raise _first_fault(text, columns, rows, place)
    digits = data - np.uint8(ord("0"))
    grid = ends.reshape(len(rows), count)
    before = grid[:, first - 1 : stop - 1] if first else np.append(-1, ends[:-1]).reshape(grid.shape)[:, :stop]
    lengths = (grid[:, first:stop] - before - 1).reshape(-1)
    last = grid[:, first:stop].reshape(-1) - 1
    values = np.zeros(len(last), dtype=np.uint16)
    good = (lengths >= 1) & (lengths <= 3)
    for at, weight in enumerate((1, 10, 100)):
        digit = np.where(lengths > at, digits[last - at], np.uint8(0))
        good &= digit <= 9
        values += digit * np.uint16(weight)
    if not (good & (values <= 255)).all():
        raise _first_fault(text, columns, rows, place)
    return values.astype(np.uint8)


def _first_fault(text: bytes, columns: PixelColumns, rows: npt.NDArray[np.int64], place: str) -> InputError:
    """Returns the error for the first line that is not a valid row."""
    stop = columns.first + columns.pixels
    for row, line in zip(rows.tolist(), text.split(b"\n"), strict=False):
        values = (line.replace(b" ", b",") if columns.packed else line).split(b",")
        if len(values) != columns.values or not all(map(_is_pixel, values[columns.first : stop])):
            return _fault(line, columns, (place, 0), row)
    return InputError(f"{place.format(int(rows[0]))}: cannot be read")


def _read_meta(
    file: SourceFile, rows: int, columns: PixelColumns
) -> tuple[list[str] | None, npt.NDArray[np.int32] | None]:
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
    width = len(lines[0])
    if len(lines) != rows or width > 3 or any(len(line) != width for line in lines):
        raise InputError(
            f"{blob.path}: expected an id, height and width, or all three for each of {counted(rows, 'row')}"
        )
    ids = [line[0] for line in lines] if width != 2 else None
    if width == 1:
        return ids, None
    pixels = columns.pixels
    if columns.channels == 3 and all(side.isdecimal() for side in lines[0][-2:]):
        pixels //= 1 if int(lines[0][-2][:5]) * int(lines[0][-1][:5]) == pixels else 3
    for row, line in enumerate(lines):
        sides = line[-2:]
        if not all(re.fullmatch("[0-9]{1,5}", side) for side in sides) or int(sides[0]) * int(sides[1]) != pixels:
            raise InputError(
                f"{blob.path}: row {row}: size is {' x '.join(sides)[:40]!r}; {file.shown} has {pixels} pixels"
            )
    return ids, np.array([line[-2:] for line in lines], dtype=np.int32)
