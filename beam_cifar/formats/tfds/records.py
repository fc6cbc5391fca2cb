"""The files of a prepared TFDS dataset: what the features of an example are, and where its values are."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa

from beam_cifar import storage
from beam_cifar.data.text import counted
from beam_cifar.errors import InputError, RowError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.source import StoredImage, kept
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.kit.array_record import array_record_at, read_array_record
from beam_cifar.formats.kit.column_roles import MAX_CLASSES, MAX_TEXT_BYTES, ColumnRoles, columns_of
from beam_cifar.formats.kit.encoded import MAX_IMAGE_BYTES
from beam_cifar.formats.kit.json_stream import json_file, parsed_json
from beam_cifar.formats.kit.records import read_names
from beam_cifar.formats.kit.rows import with_unique_ids
from beam_cifar.formats.kit.short_columns import in_one_chunk, with_names
from beam_cifar.formats.kit.table_labels import TableReader
from beam_cifar.formats.kit.table_rows import PlacedTableRows
from beam_cifar.formats.kit.tf_example import Value, example_values, read_framed
from beam_cifar.formats.parquet.rows import ParquetRows, stored_values
from beam_cifar.images.header import ImageHeader, header_or_error

FEATURES: Final = "features.json"
NAMES_SUFFIX: Final = ".labels.txt"
TFRECORD: Final = "tfrecord"
PARQUET: Final = "parquet"
ARRAY_RECORD: Final = "array_record"
COLUMN: Final = "data"
"""The column of examples in a Parquet file."""
CHUNK_ROWS: Final = 10_000
MAX_RECORD_BYTES: Final = MAX_IMAGE_BYTES + (1 << 20)
_FILE_NAMES: Final = ("file_name", "filename", "image/filename")
_DTYPES: Final = ("uint8", "uint16")


@kept(64)
def example_roles(file: SourceFile) -> ColumnRoles:
    """Returns the roles of the features of a dataset, chosen as those of columns are.

    Raises:
        InputError: `features.json` is damaged, or it is unclear which features are images and labels.
    """
    shown = file.beside[0].path
    found = json_file(shown)
    content = found.get("featuresDict", found.get("content"))  # TFDS 4.9 writes the first, 4.5 the second, also as text
    if isinstance(content, str):
        content = parsed_json(content.encode("utf-8", "surrogatepass"), f"{shown}: 'content'")
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, dict) or not all(isinstance(each, dict) for each in features.values()):
        raise InputError(
            f"{shown}: has no features in 'featuresDict' or 'content'; expected those that TFDS 4.5 or later writes: "
            "prepare the dataset again"
        )
    marks = {name: mark for name, each in features.items() if (mark := _mark(name, each, file)) is not None}
    schema = pa.schema([(name, _type(each)) for name, each in features.items()])
    schema = schema.with_metadata({b"huggingface": json.dumps({"info": {"features": marks}}).encode()})
    roles = columns_of(schema, shown, lambda _: False)
    named = [name for name in _FILE_NAMES if name in features and pa.types.is_string(_type(features[name]))]
    return roles if roles.key or not named else replace(roles, path=named[0])


def _type(feature: dict[str, Any]) -> pa.DataType:
    """Returns a type that stands for a feature."""
    if "image" in feature:
        return pa.binary()
    if "text" in feature:
        return pa.string()
    if "sequence" in feature:
        return pa.list_(pa.int64())
    tensor = feature.get("tensor")
    is_number = isinstance(tensor, dict) and not tensor.get("shape") and "int" in str(tensor.get("dtype"))
    return pa.int64() if is_number or "classLabel" in feature else pa.null()


def _mark(name: str, feature: dict[str, Any], file: SourceFile) -> dict[str, Any] | None:
    """Returns a feature of images or classes in the form that Hugging Face datasets has."""
    shown = file.beside[0].path
    if "image" in feature:
        kind = feature["image"].get("dtype", _DTYPES[0]) if isinstance(feature["image"], dict) else None
        if kind not in _DTYPES:
            raise InputError(f"{shown}: image {name[:80]!r} has the type {str(kind)[:50]!r}; expected uint8 or uint16")
        return {"_type": "Image"}
    if "classLabel" not in feature:
        return None
    label = feature["classLabel"]
    count = str(label.get("numClasses", "0")) if isinstance(label, dict) else ""
    if not count.isdecimal() or len(count) > 9 or int(count) > MAX_CLASSES:
        raise InputError(f"{shown}: {name[:80]!r} has {count[:50]!r} classes; expected at most {MAX_CLASSES}")
    names = _class_names(name, file) or [str(number) for number in range(int(count))]
    if len(names) != int(count):
        raise InputError(
            f"{shown}: {name[:80]!r} has {counted(int(count), 'class')}, but {name[:80]}{NAMES_SUFFIX} has "
            f"{counted(len(names), 'name')}; restore the files"
        )
    return {"_type": "ClassLabel", "names": names}


def _class_names(feature: str, file: SourceFile) -> list[str]:
    """Returns the lines of the file of class names, without white space at the ends, as TFDS reads them."""
    for blob in file.beside[1:]:
        if os.path.basename(blob.path) == f"{feature}{NAMES_SUFFIX}":
            return [name.strip() for name in read_names(SourceFile(feature, "", blob.path, blob))]
    return []


@kept(4)
@indexed()
def read_records(file: SourceFile) -> pa.Table:
    """Returns the short columns of a file, as `with_names` does, and `offset` and `size` of images, int64.

    In an ArrayRecord file `offset` is that of the example; in a Parquet file, where examples have no place of their
    own, it is 0 or -1.

    Raises:
        InputError: the file is damaged, or an example does not have the features.
    """
    roles, read = example_roles(file), _READERS[file.name.rpartition(".")[2]]
    tables, row = [_rows((), file, roles, 0)], 0
    names = {roles.image: "image", roles.path: "path", roles.key: "key", roles.label: "label", roles.coarse: "coarse"}
    wanted = {name: what for name, what in names.items() if name}
    chunk: list[dict[str, Any]] = []
    try:
        for offset, record in read(file):
            found = _plain_row(record, wanted, roles)
            if found["offset"] >= 0:  # where it is in the record
                found["offset"] = found["offset"] + offset if read is _framed_records else offset
            chunk.append(found)
            row += 1
            if len(chunk) == CHUNK_ROWS:
                tables.append(_rows(chunk, file, roles, row - len(chunk)))
                chunk = []
    except ValueError as error:
        raise InputError(f"{file.shown}: row {row}: {error}; restore or prepare the file again") from error
    tables.append(_rows(chunk, file, roles, row - len(chunk)))
    return with_unique_ids(in_one_chunk(tables))


def _framed_records(file: SourceFile) -> Iterator[tuple[int, bytes]]:
    with storage.open_blob(file.blob, file.shown) as stream:
        yield from read_framed(stream, file.blob.size, MAX_RECORD_BYTES)


def _chunked_records(file: SourceFile) -> Iterator[tuple[int, bytes]]:
    with storage.open_blob(file.blob, file.shown) as stream:
        yield from read_array_record(stream, file.blob.size, MAX_RECORD_BYTES)


def _parquet_records(file: SourceFile) -> Iterator[tuple[int, bytes]]:
    for values in stored_values(file, COLUMN):
        for value in values:
            if not value.is_valid:
                raise ValueError(f"column {COLUMN!r} is null; expected an example")
            yield 0, value.as_py()


_READERS: Final = {TFRECORD: _framed_records, PARQUET: _parquet_records, ARRAY_RECORD: _chunked_records}


def _plain_row(record: bytes, wanted: dict[str, str], roles: ColumnRoles) -> dict[str, Any]:
    """Returns the values of an example that are used, by role. Raises `ValueError` if it does not fit its features."""
    found: dict[str, Any] = {"offset": -1, "size": 0}
    for name, value in example_values(record, wanted).items():
        what = wanted[name]
        if what == "image":
            _refuse_kind(value, name, is_bytes=True)
            found |= {"offset": value.start, "size": value.stop - value.start}
        elif what == "path" or (what == "label" and roles.is_text) or (what == "key" and value.number is None):
            _refuse_kind(value, name, is_bytes=True)
            if value.stop - value.start > MAX_TEXT_BYTES:
                raise ValueError(f"feature {name[:80]!r} has more than {MAX_TEXT_BYTES} bytes of text")
            found[what] = record[value.start : value.stop].decode()
        else:
            _refuse_kind(value, name, is_bytes=False)
            found[what] = str(value.number) if what == "key" else value.number
    return found


def _refuse_kind(value: Value, name: str, *, is_bytes: bool) -> None:
    if (value.number is None) is not is_bytes:
        there, expected = ("bytes", "an integer")[:: -1 if is_bytes else 1]
        raise ValueError(f"feature {name[:80]!r} has {there}; {FEATURES} says that it is {expected}")


def _rows(chunk: Sequence[dict[str, Any]], file: SourceFile, roles: ColumnRoles, start: int) -> pa.Table:
    texts = {"path": roles.path, "key": roles.key, "label": roles.label if roles.is_text else ""}
    kinds = {what: pa.string() for what, name in texts.items() if name}
    kinds = {"label": pa.int64(), "coarse": pa.int64(), **kinds}
    found = {what: pa.array([row.get(what) for row in chunk], kind) for what, kind in kinds.items()}
    table = with_names(found, file, roles, start, len(chunk))
    for name in ("offset", "size"):
        table = table.append_column(name, pa.array([row[name] for row in chunk], pa.int64()))
    return table


EXAMPLES: Final = TableReader(example_roles, read_records)


class ParquetExamples(ParquetRows):
    """The rows of a Parquet file of examples."""

    reader = EXAMPLES

    def _column(self) -> str:
        return COLUMN

    def _encoded(self, column: Any, shown: str) -> pa.Array:
        """Returns the images in serialized examples: `binary`, null where there is none."""
        name = self._meaning.image
        with storage.reading(shown):
            images = [_image_in(record, name) for record in super()._encoded(column, shown).to_pylist()]
        return pa.array(images, pa.binary())

    def _missing(self) -> int:
        return int((read_records(self.file).column("offset").to_numpy() < 0).sum())


class ArrayRecordExamples(PlacedTableRows):
    """The rows of an ArrayRecord file of examples, whose images are read with their example."""

    def stored(self, row: int) -> StoredImage:
        return StoredImage(data=self._image(row))

    def _bytes_at(self, offset: int, size: int) -> bytes:
        with storage.reading(self.file.shown):
            record = array_record_at(self._stream(), offset, MAX_RECORD_BYTES)
            return _image_in(record, example_roles(self.file).image) or b""

    def _header(self, stream: io.BufferedReader, row: int) -> ImageHeader | RowError:
        return header_or_error(self._image(row) or b"", self._shown(row))


def _image_in(record: bytes, name: str) -> bytes | None:
    """Returns the image of a serialized example, None for none."""
    place = example_values(record, [name]).get(name)
    return None if place is None else record[place.start : place.stop]
