"""The Arrow schema of a block of examples, and functions that build such tables."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

# NumPy and Arrow take 0.2 s to import, as long as all of `info`: functions here import them only when needed.


@functools.cache
def example_schema() -> pa.Schema:
    """Returns the schema of a block: one row is one example.

    `id` is unique in its subset. `image` contains pixels (`encoding` "raw": uint8, planar C x H x W, as in CIFAR) or
    an encoded file ("png", ...); it is null, like `height`, `width` and `channels`, if a row has no image. `label` is
    an index in the label table, null for unlabelled. `filename` is the name as found.
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
    """Returns the columns that are known without reading images; sizes may be null if not requested."""
    import pyarrow as pa

    return pa.schema([field for field in example_schema() if field.name not in ("image", "encoding")])


@functools.cache
def ordered_schema() -> pa.Schema:
    """Returns the schema of a table of examples, `beam_cifar.images.example.Example`."""
    import pyarrow as pa

    return example_schema().append(pa.field("order", pa.int64(), nullable=False))


def binary_array(buffer: bytes | bytearray | memoryview, offsets: npt.NDArray[np.int32]) -> pa.Array:
    """Returns a `binary` array over one buffer of values, without a copy; offsets are int32 `[N + 1]`."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(buffer)])


def image_array(
    buffer: bytes | bytearray | memoryview, lengths: Sequence[int | None] | npt.NDArray[np.int64]
) -> pa.Array:
    """Returns a `binary` array of concatenated images; a length of None or 0 means a row without an image."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    sizes = lengths if isinstance(lengths, np.ndarray) else np.array([n or 0 for n in lengths], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    if offsets[-1] > np.iinfo(np.int32).max:  # `large_binary` has no such limit, but is another type in every file
        raise ValueError(f"a block has {offsets[-1]} bytes of images; at most 2 GiB are supported")
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
    """Returns a table of N examples without their images, in the schema `facts_schema`.

    Args:
        ids: `[N]`.
        subset: the subset of all rows.
        sizes: (height, width) of all rows, or one or None per row; or heights, widths and channels as int32 `[3, N]`,
            0 or less for a row without an image.
        labels: int64 `[N]`, -1 for unlabelled.
        filenames: `[N]`, as found.
        channels: `[N]`, if `sizes` does not include them; default: three.
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
    """Adds images (a `binary` array) and their encodings (one for all, or one each) to a table of `facts_schema`."""
    import pyarrow as pa

    if isinstance(encodings, str):
        encoding = pa.repeat(pa.scalar(encodings, pa.string()), len(facts))
    else:
        encoding = pa.array(encodings, pa.string())
    columns = {"image": images, "encoding": encoding}
    made = [columns[name] if name in columns else facts.column(name) for name in example_schema().names]
    return pa.Table.from_arrays(made, schema=example_schema())


def with_columns(table: pa.Table, **columns: pa.Array | str | int) -> pa.Table:
    """Returns the table with some columns replaced, by an array or by one value for all rows."""
    import pyarrow as pa

    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        field = table.field(at)
        if isinstance(values, (str, int)):
            values = pa.repeat(pa.scalar(values, field.type), len(table))
        table = table.set_column(at, field, values)
    return table


def label_array(labels: npt.NDArray[np.int64]) -> pa.Array:
    """Returns the `label` column for plain integers, where -1 is unlabelled."""
    import pyarrow as pa

    return pa.array(labels, mask=labels < 0)


def joined_images(table: pa.Table) -> memoryview:
    """Returns all images of a table as one run of bytes, without a copy if they are already contiguous."""
    import numpy as np

    images = table.column("image").combine_chunks()
    offsets = np.frombuffer(images.buffers()[1], dtype=np.int32)[images.offset : images.offset + len(images) + 1]
    return memoryview(images.buffers()[2] or b"")[offsets[0] : offsets[-1]]


def has_images(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Returns bool `[N]`: which rows have an image."""
    import numpy as np

    return np.asarray(table.column("height").is_valid().combine_chunks().to_numpy(zero_copy_only=False))


def plain_labels(table: pa.Table) -> npt.NDArray[np.int64]:
    """Returns the `label` column as int64 `[N]`, -1 for unlabelled."""
    import numpy as np

    return np.asarray(table.column("label").fill_null(-1).combine_chunks().to_numpy(zero_copy_only=False))
