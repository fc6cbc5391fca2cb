"""Lance's datasets, one per subset, written without its library: `<subset>.lance`, with data files and a manifest.

Facts: `file2.proto`, `encodings.proto`, `file.proto` and `table.proto` of https://github.com/lance-format/lance, and
files that pylance 14.0.2 writes. Data files have version 2.0, the simplest one that readers since Lance 0.16 take.

A data file is the pages of all columns in any order, the schema, a description of each column's pages, tables of where
these are, and a footer. A page is one or two buffers: integers, after a bitmap if some are null; or, for texts and
images, the end of each value and then all bytes. The manifest lists the data files; they are the dataset's fragments.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from beam_cifar.data.labels import LabelTable
from beam_cifar.formats.contract.sink import PartWriter, SubsetNaming
from beam_cifar.formats.contract.types import ShardResult, SinkOptions
from beam_cifar.formats.kit.column_roles import class_features, label_columns
from beam_cifar.formats.kit.protobuf import message, packed
from beam_cifar.formats.kit.splits import SPLITS, SplitSink
from beam_cifar.naming.components import encode_name

SUFFIX: Final = ".lance"
MANIFEST: Final = f"_versions/{(1 << 64) - 2}.manifest"
"""Path of version 1: versions count down from the largest number, so that the newest one is listed first."""

PAGE_BYTES: Final = 8 << 20
"""Bytes that fill a page, as in Lance."""

_ALIGNMENT: Final = 64
_MAGIC: Final = b"LANC"
_PLACE: Final = struct.Struct("<2Q")  # position and size
# Positions of the first description of a column, of the table of these, and of the table of global buffers; numbers of
# global buffers and of columns; the version, which files of version 2.0 call 0.3.
_FOOTER: Final = struct.Struct("<3Q2I2H4s")
_MANIFEST_FOOTER: Final = struct.Struct("<Q2H4s")  # its position, and the version 0.2

_Buffers: TypeAlias = "Sequence[bytes | memoryview]"


class _Pages:
    """The pages of a column.

    Args:
        write: writes a buffer, and returns its position.
    """

    def __init__(self, write: Callable[[bytes | memoryview], int]) -> None:
        self._write, self._held, self._bytes, self._rows = write, list[pa.Array](), 0, 0
        self.described = list[bytes]()

    def left(self, values: pa.Array) -> int:
        """Returns how many of the next values, int64 or large_binary, fill the page; all if they do not."""
        return min(int(np.searchsorted(self._bytes + np.cumsum(_sizes(values)), PAGE_BYTES)) + 1, len(values))

    def append(self, values: pa.Array) -> None:
        """Appends values, and writes the page if that fills it."""
        self._held.append(values)
        self._bytes += int(_sizes(values).sum())
        if self._bytes >= PAGE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what is left as a page."""
        if not self._held:
            return
        values = pa.concat_arrays(self._held)
        buffers, encoding = (_integers if values.type == pa.int64() else _texts)(values)
        # Page: buffer_offsets, buffer_sizes, length, encoding, priority (its first row).
        places, sizes = packed([self._write(buffer) for buffer in buffers]), packed(map(len, buffers))
        self.described.append(
            message((1, places), (2, sizes), (3, len(values)), (4, _named("ArrayEncoding", encoding)), (5, self._rows))
        )
        self._rows += len(values)
        self._held, self._bytes = [], 0


class _LanceWriter(PartWriter):
    """Writes a data file, each page when it is full."""

    def __post_init__(self) -> None:
        self._at = 0
        self._parents = pa.array([*self.options.labels.parents], pa.int64())
        self._columns = [_Pages(self._write) for _ in _types(self.options.labels)]

    def append(self, table: pa.Table) -> None:
        texts = [table.column(name).combine_chunks().cast(pa.large_binary()) for name in ("id", "image")]
        label = table.column("label").combine_chunks()
        coarse = [self._parents.take(label)] if self.options.labels.has_superclasses else []
        columns = list(zip(self._columns, (*texts, label, *coarse), strict=True))
        at = 0
        while at < len(table):
            # Up to the row that fills a page of any column: else the order of pages would depend on where blocks end.
            rows = min(pages.left(values[at:]) for pages, values in columns)
            for pages, values in columns:
                pages.append(values[at : at + rows])
            at += rows

    def close(self) -> None:
        for pages in self._columns:
            pages.flush()
        # FileDescriptor: schema, length. Readers take the tables to follow what they list without a gap.
        schema = message((1, message(*((1, field) for field in _fields(self.options.labels)))), (2, self.rows))
        first = (self._write(schema), len(schema))
        # ColumnMetadata: encoding (ColumnEncoding: values), pages.
        plain = _named("ColumnEncoding", message((1, b"")))
        described = [message((1, plain), *((2, page) for page in pages.described)) for pages in self._columns]
        places = [(self._write(each), len(each)) for each in described]
        table = self._write(b"".join(_PLACE.pack(*place) for place in (*places, first)))
        last = table + _PLACE.size * len(places)
        self._write(_FOOTER.pack(places[0][0], table, last, 1, len(places), 0, 3, _MAGIC), alignment=1)

    def _write(self, buffer: bytes | memoryview, alignment: int = _ALIGNMENT) -> int:
        at = -(-self._at // alignment) * alignment
        self.file.write(bytes(at - self._at))
        self.file.write(buffer)
        self._at = at + len(buffer)
        return at


class LanceSink(SplitSink):
    """Writes a dataset for each subset, with a fragment for each file."""

    name = "lance"
    # A row is the ends of id and image, and the label.
    can = replace(SPLITS, keeps_files=False, row_bytes=24)
    subsets = SubsetNaming(by_split=True, word=lambda name: encode_name(name, SUFFIX), suffix=SUFFIX)
    writer = _LanceWriter

    def shard_path(self, subset: str, number: int, count: int) -> str:
        return f"{self.subsets.written(subset)}/data/{number:05d}{SUFFIX}"

    def finish(self, options: SinkOptions, shards: Sequence[ShardResult]) -> dict[str, bytes]:
        """Returns the manifest of each dataset."""
        folders: dict[str, list[ShardResult]] = {}
        for result in shards:
            folders.setdefault(result.shard.path.partition("/")[0], []).append(result)
        return {f"{folder}/{MANIFEST}": _manifest(options.labels, found) for folder, found in folders.items()}


def _types(labels: LabelTable) -> dict[str, str]:
    """Returns the columns, and the names of their types in Lance; texts of 64-bit offsets have no limit in a batch."""
    return {"id": "string", "image": "large_binary", **dict.fromkeys(label_columns(labels), "int64")}


def _fields(labels: LabelTable) -> list[bytes]:
    """Returns the columns as messages: Field with name, id, parent_id (none), logical_type, nullable."""
    types = enumerate(_types(labels).items())
    return [message((2, name), (3, number), (4, -1), (5, kind), (6, 1)) for number, (name, kind) in types]


def _manifest(labels: LabelTable, shards: Sequence[ShardResult]) -> bytes:
    """Returns the file of version 1; it is of 1970, because the time of the job would change the bytes."""
    features = json.dumps({"info": {"features": class_features(labels)}})
    # Manifest: fields, fragments, version, schema_metadata, timestamp, max_fragment_id, data_format.
    found = message(
        *((1, field) for field in _fields(labels)),
        *((2, _fragment(labels, number, result)) for number, result in enumerate(shards)),
        (3, 1),
        (5, message((1, "huggingface"), (2, features))),
        (7, b""),
        (11, len(shards) - 1),
        (15, message((1, "lance"), (2, "2.0"))),
    )
    return struct.pack("<I", len(found)) + found + _MANIFEST_FOOTER.pack(0, 0, 2, _MAGIC)


def _fragment(labels: LabelTable, number: int, result: ShardResult) -> bytes:
    """Returns a fragment of one data file: id, files, physical_rows."""
    columns = packed(range(len(_types(labels))))
    # DataFile: path, fields, column_indices, file_major_version, file_minor_version, file_size_bytes.
    path = result.shard.path.rpartition("/")[2]
    file = message((1, path), (2, columns), (3, columns), (4, 2), (5, 0), (6, result.bytes))
    return message((1, number), (2, file), (4, result.shard.rows))


def _named(kind: str, value: bytes) -> bytes:
    """Returns an Encoding that stands in the file itself: direct, with a google.protobuf.Any."""
    return message((2, message((1, message((1, f"/lance.encodings.{kind}"), (2, value))))))


def _flat(bits: int, buffer: int) -> bytes:
    """Returns the ArrayEncoding of values side by side in a buffer of the page, by its number."""
    return message((1, message((1, bits), (2, message((1, buffer))))))


# ArrayEncoding: nullable (no_nulls: values), or nullable (some_nulls: validity, values).
_WHOLE: Final = message((2, message((1, message((1, _flat(64, 0)))))))
_WITH_NULLS: Final = message((2, message((2, message((1, _flat(1, 0)), (2, _flat(64, 1)))))))


def _sizes(values: pa.Array) -> npt.NDArray[np.int64]:
    """Returns the bytes that each value takes in its page: int64 `[N]`."""
    sizes = np.full(len(values), 8)
    if values.type != pa.int64():
        sizes += pa.compute.binary_length(values).fill_null(0).to_numpy()
    return sizes


def _integers(values: pa.Array) -> tuple[_Buffers, bytes]:
    """Returns the buffers and the encoding of a page of integers."""
    numbers = values.fill_null(0).to_numpy().astype("<i8").tobytes()
    if not values.null_count:
        return [numbers], _WHOLE
    return [np.packbits(_bools(values.is_valid()), bitorder="little").tobytes(), numbers], _WITH_NULLS


def _texts(values: pa.Array) -> tuple[_Buffers, bytes]:
    """Returns the buffers and the encoding of a page of bytes; ends of nulls are made larger than all others."""
    offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values) + 1]
    data = memoryview(values.buffers()[2] or b"")[offsets[0] : offsets[-1]]
    null = len(data) + 1
    ends = offsets[1:] - offsets[0] + null * _bools(values.is_null())
    # ArrayEncoding: binary (indices, bytes, null_adjustment).
    return [ends.astype("<u8").tobytes(), data], message((6, message((1, _WHOLE), (2, _flat(8, 1)), (3, null))))


def _bools(values: pa.Array) -> Any:
    return values.to_numpy(zero_copy_only=False)
