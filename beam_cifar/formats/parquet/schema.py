"""Interprets the columns of Parquet files: which contains images, which labels, and the names of classes.

Hugging Face datasets writes its features to the schema metadata, under "huggingface"
(https://huggingface.co/docs/datasets/about_dataset_features).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as types

from beam_cifar import storage
from beam_cifar.errors import InputError
from beam_cifar.formats.contract.source import kept
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.kit.json_stream import parsed_json

OWN_KEY = b"beam_cifar"
"""Key of our own metadata: superclasses of classes, and paths of rows without an image."""

MAX_CLASSES = 100_000
MAX_TEXT_BYTES = 4096
"""Maximum bytes of a path, an id or a class name."""
READ_ROWS = 10_000
READ_BYTES = 1 << 20
_THRIFT_STRING_BYTES = 16 << 20
_THRIFT_ITEMS = 1_000_000
# More rows than bytes means damage: each row has an image or a name. Up to this many, 400 bytes each in memory, pass.
_FREE_ROWS = 250_000

_IMAGE_NAMES = ("img", "image")
_LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")
COARSE_NAME = "coarse_label"
_KEY_NAMES = ("id", "__key__")


@dataclass(frozen=True)
class ColumnRoles:
    """The role of each column of a file; "" for a missing one.

    Attributes:
        image: path of the column of encoded images.
        path: path of the column of their names.
        label: column of classes.
        names: class names, if the schema has them.
        is_text: whether labels are class names themselves.
        coarse: column of superclasses.
        coarse_names: superclass names, if the schema has them.
        key: column of ids.
        own: our own metadata; None in files by others.
    """

    image: str
    path: str = ""
    label: str = ""
    names: tuple[str, ...] | None = None
    is_text: bool = False
    coarse: str = ""
    coarse_names: tuple[str, ...] | None = None
    key: str = ""
    own: dict[str, Any] | None = None

    @property
    def texts(self) -> list[str]:
        """Columns of short texts, except the one in a struct, which Arrow cannot read as a dictionary."""
        return [name for name in (self.key, self.label if self.is_text else "") if name]


class OpenParquet(pq.ParquetFile):
    """A file that is being read.

    Args:
        stream: the file, open.
        texts: columns that are read as dictionaries.

    Attributes:
        stream: the same; moving it does not disturb what is read.
    """

    def __init__(self, stream: BinaryIO, texts: Sequence[str]) -> None:
        super().__init__(
            pa.PythonFile(stream, mode="r"),
            read_dictionary=list(texts),
            pre_buffer=False,
            buffer_size=READ_BYTES,
            thrift_string_size_limit=_THRIFT_STRING_BYTES,
            thrift_container_size_limit=_THRIFT_ITEMS,
            page_checksum_verification=True,
        )
        self.stream = stream


@contextmanager
def open_parquet(file: SourceFile, texts: Sequence[str] = ()) -> Iterator[OpenParquet]:
    """Opens a file; the columns `texts` are read as dictionaries, so that a long text is not repeated in memory.

    Raises:
        InputError: it is damaged, or not a Parquet file.
    """
    with storage.open_blob(file.blob, file.shown) as stream:
        with damaged(file.shown):
            opened = OpenParquet(stream, texts)
            _refuse_absurd(opened.metadata, file)
        yield opened


def schema_in(opened: Any) -> pa.Schema:
    """Returns the Arrow schema of a file, with all metadata of the file."""
    schema = opened.schema_arrow
    return schema.with_metadata({**(opened.metadata.metadata or {}), **(schema.metadata or {})})


@contextmanager
def damaged(shown: str) -> Iterator[None]:
    """Turns the many errors of a damaged file into a one-line `InputError`."""
    try:
        yield
    except (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        # Arrow quotes bytes of the file unescaped.
        plain = "".join(char if char.isprintable() else "?" for char in reason)
        raise InputError(f"{shown}: is damaged, or not a Parquet file: {plain}") from error


def _refuse_absurd(metadata: Any, file: SourceFile) -> None:
    rows = metadata.num_rows
    counted = sum(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    if not 0 <= rows <= max(_FREE_ROWS, file.blob.size) or counted != rows:
        raise InputError(
            f"{file.shown}: declares {rows} rows, {counted} in its row groups, in {file.blob.size} bytes; "
            "the file is damaged"
        )


def may_have_images(path: str) -> bool:
    """Returns whether a file may have images; True if it cannot be read, so that `describe` reports why."""
    try:
        with open_parquet(SourceFile(path, "", path, storage.whole_file(path))) as opened:
            return bool(_candidates(opened.schema_arrow))
    except InputError:
        return True


def columns_of(schema: pa.Schema, shown: str) -> ColumnRoles:
    """Returns the columns of images, labels and ids. Raises `InputError` if it is unclear which has images."""
    features = _features(schema, shown)
    image = _image_column(schema, features, shown)
    is_struct = types.is_struct(schema.field(image).type)
    inner = [field.name for field in schema.field(image).type] if is_struct else []
    label = _label_column(schema, features, shown)
    coarse = COARSE_NAME if label == "fine_label" and _is_number(schema, COARSE_NAME) else ""
    return ColumnRoles(
        image=f"{image}.bytes" if is_struct else image,
        path=f"{image}.path" if "path" in inner and _is_text(schema.field(image).type.field("path").type) else "",
        label=label,
        names=_class_names(features, label, shown),
        is_text=bool(label) and _is_text(schema.field(label).type),
        coarse=coarse,
        coarse_names=_class_names(features, coarse, shown),
        key=next((name for name in _KEY_NAMES if _is_number(schema, name) or _has_text(schema, name)), ""),
        own=_metadata(schema, OWN_KEY, shown) if OWN_KEY in (schema.metadata or {}) else None,
    )


def _features(schema: pa.Schema, shown: str) -> dict[str, Any]:
    """Returns the features in the metadata of Hugging Face datasets, by column."""
    found = _metadata(schema, b"huggingface", shown)
    info = found.get("info")
    features = info.get("features") if isinstance(info, dict) else None
    return (
        {name: value for name, value in features.items() if isinstance(value, dict)}
        if isinstance(features, dict)
        else {}
    )


def _metadata(schema: pa.Schema, key: bytes, shown: str) -> dict[str, Any]:
    """Returns an entry of the metadata, {} if missing. Raises `InputError` for a damaged one: it names the classes."""
    found = parsed_json((schema.metadata or {}).get(key, b"{}"), f"{shown}: metadata {key.decode()!r}")
    return found if isinstance(found, dict) else {}


def _image_column(schema: pa.Schema, features: dict[str, Any], shown: str) -> str:
    names = _candidates(schema)
    marked = [name for name in names if features.get(name, {}).get("_type") == "Image"]
    found = marked or names
    if len(found) > 1:
        found = [name for name in _IMAGE_NAMES if name in found][:1] or found
    if len(found) != 1:
        have = ", ".join(map(repr, found or schema.names[:12]))
        if not found:
            raise InputError(
                f"{shown}: has no column of encoded images (struct<bytes, path> or binary); its columns are {have}"
            )
        raise InputError(f"{shown}: columns {have} may all contain images; keep one, or rename one to 'image'")
    return found[0]


def _candidates(schema: pa.Schema) -> list[str]:
    """Returns columns that may contain images; columns with a repeated name cannot be read."""
    return [
        field.name
        for field in schema
        if schema.names.count(field.name) == 1 and "." not in field.name and _may_hold_images(field.type)
    ]


def _may_hold_images(kind: pa.DataType) -> bool:
    if types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _is_binary(kind.field(at).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_number(schema: pa.Schema, name: str) -> bool:
    """Returns whether a column is numeric; floats count, since pandas converts integers with gaps to them."""
    kind = schema.field(name).type if schema.names.count(name) == 1 else pa.null()
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _has_text(schema: pa.Schema, name: str) -> bool:
    return schema.names.count(name) == 1 and _is_text(schema.field(name).type)


def _label_column(schema: pa.Schema, features: dict[str, Any], shown: str) -> str:
    marked = [
        name
        for name in schema.names
        if features.get(name, {}).get("_type") == "ClassLabel" and _is_number(schema, name)
    ]
    if not marked:
        found = next((name for name in _LABEL_NAMES if _is_number(schema, name) or _has_text(schema, name)), "")
        for name in () if found else _LABEL_NAMES[:3]:
            if name in schema.names and not all(types.is_null(field.type) for field in schema if field.name == name):
                kinds = ", ".join(str(field.type)[:50] for field in schema if field.name == name)
                raise InputError(
                    f"{shown}: column {name!r} is {kinds}; expected one column of integers or text: convert or drop it"
                )
        return found
    preferred = [name for name in _LABEL_NAMES if name in marked]
    if len(marked) > 1 and not preferred:
        raise InputError(f"{shown}: columns {', '.join(map(repr, marked))} are all class labels; rename one to 'label'")
    return (preferred or marked)[0]


def _class_names(features: dict[str, Any], column: str, shown: str) -> tuple[str, ...] | None:
    names = features.get(column, {}).get("names")
    if features.get(column, {}).get("_type") != "ClassLabel" or names is None:
        return None
    if not (isinstance(names, list) and len(names) <= MAX_CLASSES and all(isinstance(name, str) for name in names)):
        raise InputError(f"{shown}: class names of column {column!r} must be a list of at most {MAX_CLASSES} strings")
    return tuple(names)


@kept(64)
def columns_in(file: SourceFile) -> ColumnRoles:
    """Returns the column roles of a file, cached; see `columns_of`."""
    with open_parquet(file) as opened:
        with damaged(file.shown):
            schema = schema_in(opened)
        return columns_of(schema, file.shown)
