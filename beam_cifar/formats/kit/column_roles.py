"""Interprets the columns of Arrow tables: which contains images, which labels, and the names of classes.

Hugging Face datasets writes its features to the schema metadata, under "huggingface"
(https://huggingface.co/docs/datasets/about_dataset_features).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as types

from beam_cifar.data.labels import LabelTable
from beam_cifar.errors import InputError
from beam_cifar.formats.kit.json_stream import parsed_json
from beam_cifar.formats.kit.label_columns import by_rank, is_no_label, label_rank, listed
from beam_cifar.formats.kit.subset_names import SUBSET_COLUMNS

OWN_KEY = b"beam_cifar"
"""Key of our own metadata: superclasses of classes, and paths of rows without an image."""
_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")

IMAGE_LOOK = 16
"""How many rows are looked at to see whether a column has images."""

MAX_CLASSES = 100_000
MAX_TEXT_BYTES = 4096
"""Maximum bytes of a path, an id or a class name."""
_IMAGE_NAMES = ("img", "image", "img.bytes", "image.bytes", "jpg", "jpeg", "png", "webp", "picture")
COARSE_NAME = "coarse_label"
_KEY_NAMES = ("id", "__key__")


@dataclass(frozen=True)
class ColumnRoles:
    """The role of each column of a file; "" for a missing one.

    Attributes:
        image: path of the column of encoded images.
        path: path of the column of their names.
        label: column of classes.
        is_guess: whether that column was found by its type alone.
        unused: columns that are not read: those that might be labels, images or subsets as well, or all if `label` is a
            guess or missing.
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
    is_guess: bool = False
    unused: tuple[str, ...] = ()
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


def columns_of(schema: pa.Schema, shown: str, holds_images: Callable[[str], bool]) -> ColumnRoles:
    """Returns the columns of images, labels and ids.

    Args:
        schema: schema of the file, with its metadata.
        shown: display name of the file, used in messages.
        holds_images: returns whether the first values in the column at a path are images.

    Raises:
        InputError: it is unclear which column has images, or labels; or these are not labels.
    """
    features = _features(schema, shown)
    image = _image_column(schema, features, shown, holds_images)
    path = _path_column(schema, image)
    key = next((name for name in _KEY_NAMES if _is_number(schema, name) or _has_text(schema, name)), "")
    others = [name for name in schema.names if name not in (image, path, key)]
    label = _label_column(schema, others, features, shown)
    guess = "" if label else _only_column(schema, others)
    is_sure, label = bool(label), label or guess
    is_pair = label == "fine_label" or (_is_class(features, label) and _is_class(features, COARSE_NAME))
    coarse = COARSE_NAME if is_pair and _is_number(schema, COARSE_NAME) else ""
    unused = [name for name in others if name not in (label, coarse)]
    if is_sure:
        images = [name for name in image_candidates(schema) if holds_images(_image_path(schema, name))]
        unused = [
            name
            for name in unused
            if label_rank(name) >= 0
            or name in (COARSE_NAME, *images)
            or name.lower() in SUBSET_COLUMNS
            or _is_class(features, name)
        ]
    return ColumnRoles(
        image=_image_path(schema, image),
        path=path,
        label=label,
        is_guess=bool(guess),
        unused=tuple(unused),
        names=_class_names(features, label, shown),
        is_text=bool(label) and _is_text(schema.field(label).type),
        coarse=coarse,
        coarse_names=_class_names(features, coarse, shown),
        key=key,
        own=_metadata(schema, OWN_KEY, shown) if OWN_KEY in (schema.metadata or {}) else None,
    )


def label_columns(labels: LabelTable) -> dict[str, tuple[str, ...]]:
    """Returns the columns of labels that are written, and the names that their numbers stand for.

    >>> from beam_cifar.data.labels import LabelTable
    >>> from beam_cifar.formats.kit.column_roles import label_columns
    >>> label_columns(LabelTable(("cat", "dog")))
    {'label': ('cat', 'dog')}
    """
    if labels.has_superclasses:
        return {"fine_label": labels.names, COARSE_NAME: labels.coarse_names}
    return {"label": labels.names}


def class_features(labels: LabelTable) -> dict[str, Any]:
    """Returns the features of these columns, as `datasets` describes them.

    >>> from beam_cifar.data.labels import LabelTable
    >>> from beam_cifar.formats.kit.column_roles import class_features
    >>> class_features(LabelTable(("cat", "dog")))
    {'label': {'names': ['cat', 'dog'], '_type': 'ClassLabel'}}
    """
    columns = label_columns(labels).items()
    return {name: {"names": list(names), "_type": "ClassLabel"} for name, names in columns}


def starts_like_image(values: pa.Array) -> bool | None:
    """Returns whether the first value of a column, a struct or any binary type, is an image; None if it is missing."""
    value = (values.flatten()[0] if types.is_struct(values.type) else values)[0].as_py()
    return value.startswith(_IMAGE_STARTS) if value else None


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


def _image_column(schema: pa.Schema, features: dict[str, Any], shown: str, holds_images: Callable[[str], bool]) -> str:
    names = image_candidates(schema)
    marked = [name for name in names if features.get(name, {}).get("_type") == "Image"]
    found = marked or names
    if len(found) > 1:
        by_name = [known for known in _IMAGE_NAMES for name in found if name.lower() == known]
        found = [name for name in found if name.lower() in by_name[:1]] or found
    if len(found) > 1:
        found = [name for name in found if holds_images(_image_path(schema, name))] or found
    if len(found) != 1:
        have = listed(found or schema.names)
        if not found:
            raise InputError(
                f"{shown}: has no column of encoded images (struct<bytes, path> or binary); its columns are {have}"
            )
        raise InputError(f"{shown}: columns {have} may all contain images; keep one, or rename one to 'image'")
    return found[0]


def _image_path(schema: pa.Schema, image: str) -> str:
    return f"{image}.bytes" if types.is_struct(schema.field(image).type) else image


def _path_column(schema: pa.Schema, image: str) -> str:
    """Returns the path of the column of the images' names, beside their bytes in a struct or as a column; or ""."""
    kind = schema.field(image).type
    if types.is_struct(kind):
        at = kind.get_field_index("path")
        return f"{image}.path" if at >= 0 and _is_text(kind.field(at).type) else ""
    stem, dot, last = image.rpartition(".")
    return f"{stem}.path" if dot and last == "bytes" and _has_text(schema, f"{stem}.path") else ""


def image_candidates(schema: pa.Schema) -> list[str]:
    """Returns columns that may contain images; columns whose path is not unique cannot be read."""
    return [
        field.name
        for field in schema
        if schema.names.count(field.name) == 1
        and field.name.partition(".")[0] not in set(schema.names) - {field.name}
        and not (types.is_struct(field.type) and {f"{field.name}.bytes", f"{field.name}.path"} & set(schema.names))
        and _may_hold_images(field.type)
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
    return bool(schema.names.count(name) == 1 and _is_text(schema.field(name).type))


def _label_column(schema: pa.Schema, names: Sequence[str], features: dict[str, Any], shown: str) -> str:
    """Returns the column that the metadata marks as labels, else the one named so, or ""."""
    marked = [name for name in names if _is_class(features, name) and _is_number(schema, name)]
    if len(marked) > 1 and not by_rank(marked):
        raise InputError(f"{shown}: columns {listed(marked)} are all class labels; rename one to 'label'")
    named = by_rank(marked) or marked or by_rank(n for n in names if _is_number(schema, n) or _has_text(schema, n))
    if named:
        return named[0]
    for name in by_rank(names):
        kinds = [field.type for field in schema if field.name == name]
        if all(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) for kind in kinds):
            raise InputError(
                f"{shown}: column {name!r} is {str(kinds[0])[:50]}: several labels for an image, but only one is "
                "supported; put that one into a column 'label', or drop the column to read the images without labels"
            )
        if not all(map(types.is_null, kinds)):
            raise InputError(
                f"{shown}: column {name!r} is {', '.join(str(kind)[:50] for kind in kinds)}; expected one column of "
                "integers or text: convert or drop it"
            )
    return ""


def _only_column(schema: pa.Schema, names: Sequence[str]) -> str:
    """Returns the only column of integers or text whose name does not say that it is something else, or ""."""
    found = [
        name
        for name in names
        if schema.names.count(name) == 1
        and not is_no_label(name)
        and (_is_text(schema.field(name).type) or types.is_integer(schema.field(name).type))
    ]
    return found[0] if len(found) == 1 else ""


def _is_class(features: dict[str, Any], name: str) -> bool:
    return bool(features.get(name, {}).get("_type") == "ClassLabel")


def _class_names(features: dict[str, Any], column: str, shown: str) -> tuple[str, ...] | None:
    names = features.get(column, {}).get("names")
    if not _is_class(features, column) or names is None:
        return None
    if not (isinstance(names, list) and len(names) <= MAX_CLASSES and all(isinstance(name, str) for name in names)):
        raise InputError(f"{shown}: class names of column {column!r} must be a list of at most {MAX_CLASSES} strings")
    return tuple(names)
