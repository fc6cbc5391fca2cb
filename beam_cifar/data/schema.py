"""One image as an element of its own, the Arrow schema that many travel in, and how a table of it is made."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

# NumPy and Arrow take 0.2 s to import, as long as `info` takes in all: here they are imported by what needs them.


@functools.cache
def example_schema() -> pa.Schema:
    """The columns of a block: one row is one image.

    `id` is unique in its subset. `image` holds pixels (`encoding` "raw": uint8, planar C x H x W, CIFAR's own order)
    or an encoded file ("png", ...), and is null, like the three sizes, where a row has no image. `label` is an index
    in the label table, null for unlabelled. `filename` is the name as found.
    """
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("subset", pa.string(), nullable=False),
            pa.field("image", pa.binary()),
            pa.field("encoding", pa.string(), nullable=False),
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("channels", pa.int32()),
            pa.field("label", pa.int64()),
            pa.field("filename", pa.string(), nullable=False),
        ]
    )


@functools.cache
def facts_schema() -> pa.Schema:
    """The columns that can be known without reading images; sizes may be null where nobody asked."""
    import pyarrow as pa

    return pa.schema([field for field in example_schema() if field.name not in ("image", "encoding")])


@functools.cache
def ordered_schema() -> pa.Schema:
    """The columns of `Example`."""
    import pyarrow as pa

    return example_schema().append(pa.field("order", pa.int64(), nullable=False))


class Example(NamedTuple):
    """One image.

    Attributes:
        id: unique in its subset.
        subset: any name, such as "data_batch_1".
        image: pixels as uint8, planar C x H x W, where `encoding` is "raw"; else an encoded file; None without image.
        encoding: "raw", "png" or "jpeg".
        height: in pixels; None without image.
        width: in pixels; None without image.
        channels: 3, or 1 for gray; None without image.
        label: index in the label table; None for unlabelled.
        filename: as found, such as "leptodactylus_s_000004.png".
        order: where it stands in its dataset: examples are written in this order, those of one order by id.

    >>> from beam_cifar import Example
    >>> Example("1", "train", None, "raw", None, None, None, 3, "1.png")._replace(label=4).label
    4
    """

    id: str
    subset: str
    image: bytes | None
    encoding: str
    height: int | None
    width: int | None
    channels: int | None
    label: int | None
    filename: str
    order: int = 0


def binary_array(buffer: bytes | bytearray | memoryview, offsets: npt.NDArray[np.int32]) -> pa.Array:
    """A `binary` array over one buffer of values, without copying it; offsets are int32 `[N + 1]`."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(buffer)])


def image_array(
    buffer: bytes | bytearray | memoryview, lengths: Sequence[int | None] | npt.NDArray[np.int64]
) -> pa.Array:
    """A `binary` array from concatenated images; a length of None, or 0, is a row without image."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    sizes = lengths if isinstance(lengths, np.ndarray) else np.array([n or 0 for n in lengths], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    if offsets[-1] > np.iinfo(np.int32).max:  # `large_binary` would hold them, and be another type in every file
        raise ValueError(f"{offsets[-1]} bytes of images in one block")
    values = binary_array(buffer, offsets.astype(np.int32))
    if sizes.all():
        return values
    return pc.if_else(pa.array(sizes > 0), values, pa.scalar(None, pa.binary()))


def facts_table(
    *,
    ids: Sequence[str] | pa.Array,
    subset: str,
    sizes: tuple[int, int] | Sequence[tuple[int, int] | None] | npt.NDArray[np.int32],
    labels: npt.NDArray[np.int64],
    filenames: Sequence[str] | pa.Array,
    channels: Sequence[int | None] | None = None,
) -> pa.Table:
    """Makes the table of what is known of N examples without their images.

    Args:
        ids: `[N]`.
        subset: the one subset of all rows.
        sizes: one (height, width) for all rows, or one or None per row; or heights, widths and channels, int32
            `[3, N]`, 0 or less where a row has no image.
        labels: int64 `[N]`, -1 for unlabelled.
        filenames: `[N]`, as found.
        channels: `[N]`, where `sizes` does not have them; default: three.
    """
    import numpy as np
    import pyarrow as pa

    rows = len(ids)
    if isinstance(sizes, np.ndarray):
        shapes = sizes
    else:
        each = [sizes] * rows if isinstance(sizes, tuple) else sizes
        found = [(*s, depth) if s else (0, 0, 0) for s, depth in zip(each, channels or [3] * rows, strict=True)]
        shapes = np.array(found, dtype=np.int32).reshape(rows, 3).T
    height, width, depth = (pa.array(numbers, mask=numbers <= 0) for numbers in shapes)
    columns = {
        "id": _texts(ids),
        "subset": pa.repeat(pa.scalar(subset, pa.string()), rows),
        "height": height,
        "width": width,
        "channels": depth,
        "label": label_array(labels),
        "filename": _texts(filenames),
    }
    return pa.Table.from_arrays([columns[name] for name in facts_schema().names], schema=facts_schema())


def _texts(values: Sequence[str] | pa.Array) -> pa.Array:
    import pyarrow as pa

    return values if isinstance(values, pa.Array) else pa.array(values, pa.string())


def with_images(facts: pa.Table, images: pa.Array, encodings: str | Sequence[str]) -> pa.Table:
    """Adds images, a `binary` array, and the encoding of all or of each to a table in the schema `facts_schema`."""
    import pyarrow as pa

    if isinstance(encodings, str):
        encoding = pa.repeat(pa.scalar(encodings, pa.string()), len(facts))
    else:
        encoding = pa.array(encodings, pa.string())
    columns = {"image": images, "encoding": encoding}
    made = [columns[name] if name in columns else facts.column(name) for name in example_schema().names]
    return pa.Table.from_arrays(made, schema=example_schema())


def with_columns(table: pa.Table, **columns: pa.Array | str | int) -> pa.Table:
    """The same table with some columns replaced, by an array or by one value for all rows."""
    import pyarrow as pa

    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        field = table.field(at)
        if isinstance(values, (str, int)):
            values = pa.repeat(pa.scalar(values, field.type), len(table))
        table = table.set_column(at, field, values)
    return table


def label_array(labels: npt.NDArray[np.int64]) -> pa.Array:
    """The `label` column from plain integers, where -1 is unlabelled."""
    import pyarrow as pa

    return pa.array(labels, mask=labels < 0)


def joined_images(table: pa.Table) -> memoryview:
    """All images of a table as one run of bytes, without copying where they lie together already."""
    import numpy as np

    images = table.column("image").combine_chunks()
    offsets = np.frombuffer(images.buffers()[1], dtype=np.int32)[images.offset : images.offset + len(images) + 1]
    return memoryview(images.buffers()[2] or b"")[offsets[0] : offsets[-1]]


def has_images(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows have an image: bool `[N]`."""
    import numpy as np

    return np.asarray(table.column("height").is_valid().combine_chunks().to_numpy(zero_copy_only=False))


def plain_labels(table: pa.Table) -> npt.NDArray[np.int64]:
    """The `label` column as int64 `[N]`, -1 for unlabelled."""
    import numpy as np

    return np.asarray(table.column("label").fill_null(-1).combine_chunks().to_numpy(zero_copy_only=False))


def table_of(examples: Iterable[Example]) -> pa.Table:
    """The table of some examples, in the schema `ordered_schema`. Raises `ValueError`: a value of another type."""
    import pyarrow as pa

    columns = list(zip(*examples, strict=True)) or [()] * len(ordered_schema())
    try:
        return pa.table(
            [pa.array(c, field.type) for c, field in zip(columns, ordered_schema(), strict=True)],
            schema=ordered_schema(),
        )
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def examples_of(table: pa.Table) -> Iterator[Example]:
    """The examples of a table in the schema `ordered_schema`."""
    return map(Example, *(table.column(name).to_pylist() for name in Example._fields))
